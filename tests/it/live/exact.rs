//! Everything once: whatever writers do at the same time and however their transactions commit, each stream's events
//! are those that the database's own history makes, also for those who stall, and who come back elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use uuid::Uuid;

use super::operations::PROJECTS;
use super::oracle::{DOCUMENT, Dice, History, LAST, Told, WISHES, Wish, during, fault, remember, write_all};
use super::*;
use crate::harness::{member, texts};

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

async fn hear(
    processes: &[Process; 2],
    wish: &Wish,
    manner: Manner,
    mut stream: Stream,
    seed: u64,
) -> Vec<Told> {
    let viewer = member(None, wish.projects);
    let mut heard = Vec::new();
    let mut dice = Dice(seed);
    loop {
        let event = next(&mut stream).await;
        let one = Told::read(&told(&event), wish);
        let is_last = one.id == LAST;
        heard.push(one);
        if is_last {
            return heard;
        }
        match manner {
            Manner::Stalls if dice.roll(150) == 0 => tokio::time::sleep(Duration::from_millis(1_500)).await,
            Manner::Moves if dice.roll(25) == 0 => {
                let process = dice.pick(processes);
                drop(stream);
                tokio::time::sleep(dice.pause(0, 200)).await;
                stream = process.watch(DOCUMENT, wish.variables(event.cursor.as_deref()), &viewer).await;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_is_told_what_the_history_says() {
    let database = Database::empty().await;
    let url = &database.url;
    remember(url).await;
    let processes = [Process::start(url, &[]).await, Process::start(url, &[]).await];
    let mut readers = Vec::new();
    for (n, wish) in WISHES[..4].iter().enumerate() {
        for manner in [Manner::Prompt, Manner::Stalls, Manner::Moves, Manner::Moves, Manner::Coalesces] {
            let mut variables = wish.variables(None);
            if matches!(manner, Manner::Coalesces) {
                variables["pause"] = json!(80);
            }
            let stream = processes[n % 2].watch(DOCUMENT, variables, &member(None, wish.projects)).await;
            readers.push((wish, manner, stream));
        }
    }
    let writing = write_all(url, 8, during(Duration::from_secs(8)), Duration::from_millis(8));
    let hearing = readers.into_iter().enumerate().map(|(n, (wish, manner, stream))| {
        let processes = &processes;
        async move { (wish, manner, hear(processes, wish, manner, stream, n as u64 + 99).await) }
    });
    let ((), heard) = tokio::join!(writing, join_all(hearing));
    let history = History::read(url).await;
    println!("{} changes, {} streams", history.len(), heard.len());
    for (wish, manner, heard) in heard {
        let expected = history.expected(wish);
        if matches!(manner, Manner::Coalesces) {
            // Less is told, and it leads to the same end.
            assert!(heard.len() < expected.len());
            let told = heard.iter().map(|one| (one.id, one.operation.as_str()));
            assert_eq!(inside(told), inside(expected.iter().map(|one| (one.id, one.operation))));
        } else {
            assert_eq!(fault(&expected, &heard), None, "{manner:?}");
        }
    }
}

/// The rows that belong to a stream in the end.
fn inside<'a>(told: impl Iterator<Item = (Uuid, &'a str)>) -> BTreeSet<Uuid> {
    let last: BTreeMap<Uuid, &str> = told.collect();
    let inside = |operation: &str| ["CREATED", "UPDATED", "ENTERED"].contains(&operation);
    last.into_iter().filter(|(_, operation)| inside(operation)).map(|(id, _)| id).collect()
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
    remember(url).await;
    let gateway = crate::harness::Gateway::open(url).await;
    let alone = gateway.ask("{ changeCursor }").await;
    let process = Process::start(url, &[]).await;
    let admin = Viewer::admin();
    let going = during(Duration::from_secs(4));
    let writing = write_all(url, 6, &going, Duration::from_millis(8));
    let looking = async {
        let mut looks = Vec::new();
        while going() {
            let answer = gateway.ask("{ changeCursor tasks(first: 100) { nodes { id version } } }").await;
            looks.push(answer);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        looks
    };
    let ((), looks) = tokio::join!(writing, looking);
    assert_ne!(gateway.ask("{ changeCursor }").await, alone, "by itself it is the present place");
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
