//! Everything once: whatever writers do at the same time and however their transactions commit, each stream's events
//! are those that the database's own history makes, also for those who stall, and who come back elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::future::join_all;
use uuid::Uuid;

use super::operations::PROJECTS;
use super::*;
use crate::harness::{column, member, texts};

const ROWS: u64 = 40;
const LAST: Uuid = Uuid::from_u128(0xffff);

/// Rows as they were and as they are, noted by a trigger of the test's own.
const HISTORY: &str = "
    create table history (seq bigserial, id uuid, was jsonb, became jsonb);
    create function note() returns trigger language plpgsql as $$
    begin
        insert into history (id, was, became) values (coalesce(new.id, old.id),
            case when tg_op <> 'INSERT' then to_jsonb(old) end, case when tg_op <> 'DELETE' then to_jsonb(new) end);
        return null;
    end $$;
    create trigger note after insert or update or delete on tasks for each row execute function note()";

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// One transaction: some changes, with pauses that make transactions overlap.
fn transaction(dice: &mut Dice) -> String {
    let mut script = "begin;".to_owned();
    // In the order of ids, so that writers wait for one another and seldom deadlock.
    let mut rows: Vec<u64> = (0..=dice.roll(3)).map(|_| dice.roll(ROWS)).collect();
    rows.sort_unstable();
    for row in rows {
        let id = Uuid::from_u128(0x1000 + u128::from(row));
        let project = PROJECTS[usize::try_from(dice.roll(2)).unwrap()];
        let priority = 1 + dice.roll(5);
        script += &match dice.roll(9) {
            0 | 1 => format!(
                "insert into tasks (id, project_id, title, intent, priority) values ('{id}', '{project}', 't', 'i', {priority})
                 on conflict (id) do update set priority = excluded.priority;"
            ),
            2 | 3 => format!("update tasks set priority = {priority} where id = '{id}';"),
            4 => format!("update tasks set title = 't{priority}' where id = '{id}';"),
            5 => format!("update tasks set project_id = '{project}' where id = '{id}';"),
            6 => format!("update tasks set deleted_at = now() where id = '{id}';"),
            7 => format!("update tasks set deleted_at = null, priority = {priority} where id = '{id}';"),
            _ => format!("delete from tasks where id = '{id}';"),
        };
        if dice.roll(3) == 0 {
            script += &format!("select pg_sleep({});", dice.roll(40) as f64 / 1_000.0);
        }
    }
    script + if dice.roll(8) == 0 { "rollback" } else { "commit" }
}

async fn write(url: &str, seed: u64, until: std::time::Instant) {
    let mut conn = AsyncPgConnection::establish(url).await.unwrap();
    let mut dice = Dice(seed);
    while std::time::Instant::now() < until {
        if conn.batch_execute(&transaction(&mut dice)).await.is_err() {
            // A deadlock.
            conn.batch_execute("rollback").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(8))).await;
    }
}

/// What a stream wants, and what it may see.
#[derive(Clone, Copy)]
struct Wish {
    projects: &'static [Uuid],
    least: i64,
}

static WISHES: [Wish; 4] = [
    Wish { projects: &PROJECTS, least: 1 },
    Wish { projects: &PROJECTS, least: 4 },
    Wish { projects: PROJECTS.split_at(1).0, least: 1 },
    Wish { projects: PROJECTS.split_at(1).0, least: 4 },
];

impl Wish {
    /// `None` for what is not there or not to be seen, or whether it fits.
    fn standing(&self, row: &Value) -> (bool, bool, bool) {
        let there = !row.is_null() && row["deleted_at"].is_null();
        let project = row["project_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        let seen = project.is_some_and(|project| self.projects.contains(&project));
        (there, seen, there && seen && row["priority"].as_i64().unwrap() >= self.least)
    }

    /// The operations of each row, from the history.
    async fn expected(&self, url: &str) -> BTreeMap<Uuid, Vec<String>> {
        let rows = texts(url, "select id::text, was::text, became::text from history order by seq").await;
        let mut expected: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
        for row in rows {
            let [id, was, is] = <[Option<String>; 3]>::try_from(row).unwrap();
            let read =
                |text: Option<String>| text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
            let (was, is) = (read(was), read(is));
            let ((was_there, was_seen, before), (there, seen, after)) =
                (self.standing(&was), self.standing(&is));
            let operation = match (before, after) {
                (false, false) => continue,
                (true, true) => "UPDATED",
                // What came from elsewhere enters, deleted there or not; all else that was not there is created.
                (false, true) if was_there || (!was.is_null() && !was_seen) => "ENTERED",
                (false, true) => "CREATED",
                (true, false) if !is.is_null() && (there || !seen) => "LEFT",
                (true, false) => "DELETED",
            };
            expected.entry(id.unwrap().parse().unwrap()).or_default().push(operation.to_owned());
        }
        expected
    }
}

/// How a reader behaves.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Prompt,
    /// Does not read for long, again and again.
    Stalls,
    /// Comes back elsewhere.
    Moves,
    /// Wants each row's newest state.
    Coalesces,
}

const DOCUMENT: &str = "subscription($least: Int!, $after: String, $pause: Int) {
    taskChanged(filter: {priority: {gte: $least}}, after: $after, coalesceMs: $pause) {
        cursor operation id node { id priority }
    }
}";

struct Heard {
    rows: BTreeMap<Uuid, Vec<String>>,
    cursors: Vec<String>,
}

async fn hear(processes: &[Process; 2], wish: Wish, manner: Manner, mut stream: Stream, seed: u64) -> Heard {
    let viewer = member(None, wish.projects);
    let mut heard = Heard { rows: BTreeMap::new(), cursors: Vec::new() };
    let mut dice = Dice(seed);
    loop {
        let event = next(&mut stream).await;
        let value = told(&event);
        let id: Uuid = value["id"].as_str().unwrap().parse().unwrap();
        heard.cursors.push(value["cursor"].as_str().unwrap().to_owned());
        heard.rows.entry(id).or_default().push(value["operation"].as_str().unwrap().to_owned());
        if id == LAST {
            return heard;
        }
        match manner {
            Manner::Stalls if dice.roll(150) == 0 => tokio::time::sleep(Duration::from_millis(1_500)).await,
            Manner::Moves if dice.roll(25) == 0 => {
                let process = &processes[usize::try_from(dice.roll(2)).unwrap()];
                let variables = json!({"least": wish.least, "after": event.cursor});
                drop(stream);
                tokio::time::sleep(Duration::from_millis(dice.roll(200))).await;
                stream = process.watch(DOCUMENT, variables, &viewer).await;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_is_told_what_the_history_says() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    execute(url, HISTORY).await;
    let processes = [Process::start(url, &[]).await, Process::start(url, &[]).await];
    let mut readers = Vec::new();
    for (n, wish) in WISHES.iter().enumerate() {
        for manner in [Manner::Prompt, Manner::Stalls, Manner::Moves, Manner::Moves, Manner::Coalesces] {
            let pause = if matches!(manner, Manner::Coalesces) { json!(80) } else { Value::Null };
            let variables = json!({"least": wish.least, "pause": pause});
            let process = &processes[n % 2];
            readers.push((
                *wish,
                manner,
                process.watch(DOCUMENT, variables, &member(None, wish.projects)).await,
            ));
        }
    }
    let until = std::time::Instant::now() + Duration::from_secs(8);
    let writing = async {
        join_all((0..8).map(|n| write(url, n * 7_919 + 1, until))).await;
        let first = PROJECTS[0];
        let last = format!(
            "insert into tasks (id, project_id, title, intent, priority) values ('{LAST}', '{first}', 't', 'i', 5)"
        );
        execute(url, &last).await;
    };
    let hearing = readers.into_iter().enumerate().map(|(n, (wish, manner, stream))| {
        let processes = &processes;
        async move { (wish, manner, hear(processes, wish, manner, stream, n as u64 + 99).await) }
    });
    let ((), heard) = tokio::join!(writing, join_all(hearing));
    let committed = column(url, "select count(*)::text from history").await;
    println!("{} changes, {} streams", committed[0], heard.len());
    for (wish, manner, heard) in heard {
        let expected = wish.expected(url).await;
        let unique: BTreeSet<_> = heard.cursors.iter().collect();
        assert_eq!(unique.len(), heard.cursors.len(), "{manner:?}");
        if matches!(manner, Manner::Coalesces) {
            // Less is told, and it leads to the same end.
            let inside = |rows: &BTreeMap<Uuid, Vec<String>>| -> BTreeSet<Uuid> {
                let inside = |last: &String| ["CREATED", "UPDATED", "ENTERED"].contains(&last.as_str());
                let rows = rows.iter().filter(|(_, told)| told.last().is_some_and(inside));
                rows.map(|(id, _)| *id).collect()
            };
            assert_eq!(inside(&heard.rows), inside(&expected));
            let count = |rows: &BTreeMap<Uuid, Vec<String>>| rows.values().map(Vec::len).sum::<usize>();
            assert!(count(&heard.rows) < count(&expected));
        } else {
            assert_eq!(heard.rows, expected, "{manner:?}");
        }
    }
}

/// Statements for one event: as many for two hundred readers as for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_cost_no_statements() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    let process = Process::start(url, &[]).await;
    let document = "subscription { taskChanged { cursor node { title project { name } evidences(first: 2) { nodes { id } } } } }";
    let viewer = member(None, &PROJECTS);
    let mut costs = Vec::new();
    for readers in [1, 200] {
        let mut streams = Vec::new();
        for _ in 0..readers {
            streams.push(process.watch(document, json!({}), &viewer).await);
        }
        let before = process.app.db.pool_state().statements;
        execute(url, &format!("update tasks set title = 'for {readers}'")).await;
        let mut bodies = BTreeSet::new();
        for stream in &mut streams {
            for _ in 0..2 {
                bodies.insert(next(stream).await.body);
            }
        }
        assert_eq!(bodies.len(), 2);
        costs.push(process.app.db.pool_state().statements - before);
    }
    assert_eq!(costs, [3, 3]);
    let metrics = process.app.metrics.text().unwrap();
    for line in [
        "stream_feeds 0",
        "streams_open{kind=\"subscription\"} 0",
        "stream_events_total 402",
        "streams_behind 0",
    ] {
        assert!(metrics.contains(&format!("evidence_gateway_{line}\n")), "{line}\n{metrics}");
    }
}

/// A list with its `changeCursor`, and then its events: each change is in one of them, whoever writes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_what_follows_are_one() {
    let database = Database::empty().await;
    let url = &database.url;
    super::operations::prepare(url).await;
    execute(url, HISTORY).await;
    let gateway = crate::harness::Gateway::open(url).await;
    let process = Process::start(url, &[]).await;
    let admin = Viewer::admin();
    let until = std::time::Instant::now() + Duration::from_secs(4);
    let writing = async {
        join_all((0..6).map(|n| write(url, n * 104_729 + 3, until))).await;
    };
    let looking = async {
        let mut looks = Vec::new();
        while std::time::Instant::now() < until {
            let answer = gateway.ask("{ changeCursor tasks(first: 100) { nodes { id version } } }").await;
            looks.push(answer);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        looks
    };
    let ((), looks) = tokio::join!(writing, looking);
    let first = PROJECTS[0];
    execute(
        url,
        &format!("insert into tasks (id, project_id, title, intent) values ('{LAST}', '{first}', 't', 'i')"),
    )
    .await;
    let rows = texts(url, "select id::text, version::text from tasks where deleted_at is null").await;
    let end: BTreeMap<String, i64> = rows
        .into_iter()
        .map(|mut row| (row[0].take().unwrap(), row[1].take().unwrap().parse().unwrap()))
        .collect();
    assert!(looks.len() > 10);
    let document =
        "subscription($after: String) { taskChanged(after: $after) { cursor operation id changedFields } }";
    for look in looks {
        let nodes = look["tasks"]["nodes"].as_array().unwrap();
        let mut state: BTreeMap<String, i64> = nodes
            .iter()
            .map(|node| (node["id"].as_str().unwrap().to_owned(), node["version"].as_i64().unwrap()))
            .collect();
        let mut stream = process.watch(document, json!({"after": look["changeCursor"]}), &admin).await;
        let mut reborn = BTreeSet::new();
        loop {
            let event = told(&next(&mut stream).await);
            let id = event["id"].as_str().unwrap().to_owned();
            match event["operation"].as_str().unwrap() {
                "UPDATED" => *state.get_mut(&id).unwrap() += 1,
                "CREATED" => {
                    // How often it was changed while it was deleted is not told.
                    reborn.insert(id.clone());
                    assert_eq!(state.insert(id.clone(), 1), None);
                }
                "DELETED" => drop(state.remove(&id).unwrap()),
                other => panic!("{other}"),
            }
            if id == LAST.to_string() {
                break;
            }
        }
        assert!(state.keys().eq(end.keys()));
        let same =
            state.iter().filter(|(id, _)| !reborn.contains(*id)).all(|(id, version)| end[id] == *version);
        assert!(same, "{state:?} {end:?}");
    }
}
