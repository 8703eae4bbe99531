//! What streams are held against: the history of the rows, as a trigger of the test's own noted it, and writers whose
//! transactions overlap.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operations::{PROJECTS, prepare};
use crate::harness::{execute, texts};

const ROWS: u64 = 40;
/// The row that is written when all others have been.
pub(crate) const LAST: Uuid = Uuid::from_u128(0xffff);

const HISTORY: &str = "
    create table history (seq bigserial, id uuid, was jsonb, became jsonb, at timestamptz default statement_timestamp(),
        xid xid8 default pg_current_xact_id(), finished xid8 default pg_snapshot_xmin(pg_current_snapshot()));
    create function note() returns trigger language plpgsql as $$
    begin
        insert into history (id, was, became) values (coalesce(new.id, old.id),
            case when tg_op <> 'INSERT' then to_jsonb(old) end, case when tg_op <> 'DELETE' then to_jsonb(new) end);
        return null;
    end $$;
    create trigger note after insert or update or delete on tasks for each row execute function note()";

/// Two projects, and a history of what is done to tasks from now on.
pub(crate) async fn remember(url: &str) {
    prepare(url).await;
    execute(url, HISTORY).await;
}

/// The same numbers in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }

    /// So many milliseconds and fewer than so many.
    pub(crate) fn pause(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.roll(most - least))
    }
}

/// One transaction: some changes, with pauses that make transactions overlap. A row's title always names its project.
fn transaction(dice: &mut Dice) -> Vec<String> {
    let mut statements = vec!["begin".to_owned()];
    // In the order of ids, so that writers wait for one another and seldom deadlock.
    let mut rows: Vec<u64> = (0..=dice.roll(3)).map(|_| dice.roll(ROWS)).collect();
    rows.sort_unstable();
    for row in rows {
        let id = Uuid::from_u128(0x1000 + u128::from(row));
        let project = dice.pick(&PROJECTS);
        let category = dice.pick(&["hot", "cold"]);
        let priority = 1 + dice.roll(5);
        statements.push(match dice.roll(10) {
            0 | 1 => format!(
                "insert into tasks (id, project_id, title, intent, priority, category)
                 values ('{id}', '{project}', 't of {project}', 'i', {priority}, '{category}')
                 on conflict (id) do update set priority = excluded.priority"
            ),
            2 | 3 => format!("update tasks set priority = {priority} where id = '{id}'"),
            4 => format!("update tasks set category = '{category}' where id = '{id}'"),
            5 => format!("update tasks set title = 't{priority} of ' || project_id where id = '{id}'"),
            6 => format!(
                "update tasks set project_id = '{project}', title = 't of {project}' where id = '{id}'"
            ),
            7 => format!("update tasks set deleted_at = now() where id = '{id}'"),
            8 => format!("update tasks set deleted_at = null, priority = {priority} where id = '{id}'"),
            _ => format!("delete from tasks where id = '{id}'"),
        });
        if dice.roll(3) == 0 {
            statements.push(format!("select pg_sleep({})", dice.roll(40) as f64 / 1_000.0));
        }
    }
    statements.push(if dice.roll(8) == 0 { "rollback" } else { "commit" }.to_owned());
    statements
}

async fn write(url: &str, seed: u64, going: &dyn Fn() -> bool, pause: Duration) {
    let mut conn = AsyncPgConnection::establish(url).await.unwrap();
    let mut dice = Dice(seed);
    while going() {
        // One by one, so that each has its own time.
        for statement in transaction(&mut dice) {
            if conn.batch_execute(&statement).await.is_err() {
                // A deadlock.
                conn.batch_execute("rollback").await.unwrap();
                break;
            }
        }
        tokio::time::sleep(dice.pause(0, u64::try_from(pause.as_millis()).unwrap())).await;
    }
}

/// Several who write at the same time while they may, and less than `pause` apart each; in the end the last row, which
/// belongs to every wish.
pub(crate) async fn write_all(url: &str, writers: u64, going: impl Fn() -> bool, pause: Duration) {
    join_all((0..writers).map(|n| write(url, n * 7_919 + 1, &going, pause))).await;
    let first = PROJECTS[0];
    let last = format!(
        "insert into tasks (id, project_id, title, intent, priority, category)
         values ('{LAST}', '{first}', 'the last of {first}', 'i', 5, 'hot')"
    );
    execute(url, &last).await;
}

/// So long.
pub(crate) fn during(lasting: Duration) -> impl Fn() -> bool {
    let until = Instant::now() + lasting;
    move || Instant::now() < until
}

/// What a stream wants, and what it may see.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) projects: &'static [Uuid],
    /// In JSON.
    filter: &'static str,
    fits: fn(&Value) -> bool,
}

const BOTH: &[Uuid] = &PROJECTS;
const FIRST: &[Uuid] = PROJECTS.split_at(1).0;

const ALL: (&str, fn(&Value) -> bool) = ("{}", |_| true);
const URGENT: (&str, fn(&Value) -> bool) =
    (r#"{"priority": {"gte": 4}}"#, |row| row["priority"].as_i64() >= Some(4));
const HOT: (&str, fn(&Value) -> bool) = (r#"{"category": {"eq": "hot"}}"#, |row| row["category"] == "hot");
const EITHER: (&str, fn(&Value) -> bool) =
    (r#"{"or": [{"priority": {"eq": 5}}, {"category": {"eq": "cold"}}]}"#, |row| {
        row["priority"] == 5 || row["category"] == "cold"
    });

/// Four filters in two scopes.
pub(crate) static WISHES: [Wish; 8] = [
    wish(BOTH, ALL),
    wish(BOTH, URGENT),
    wish(FIRST, ALL),
    wish(FIRST, URGENT),
    wish(BOTH, HOT),
    wish(BOTH, EITHER),
    wish(FIRST, HOT),
    wish(FIRST, EITHER),
];

const fn wish(projects: &'static [Uuid], (filter, fits): (&'static str, fn(&Value) -> bool)) -> Wish {
    Wish { projects, filter, fits }
}

/// How a row stands to a wish.
struct Standing {
    there: bool,
    seen: bool,
    inside: bool,
}

impl Wish {
    /// What [`DOCUMENT`] is asked with.
    pub(crate) fn variables(&self, after: Option<&str>) -> Value {
        json!({"filter": serde_json::from_str::<Value>(self.filter).unwrap(), "after": after})
    }

    fn standing(&self, row: &Value) -> Standing {
        let there = !row.is_null() && row["deleted_at"].is_null();
        let project = row["project_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        let seen = project.is_some_and(|project| self.projects.contains(&project));
        Standing { there, seen, inside: there && seen && (self.fits)(row) }
    }

    /// What a change is to the wish, and the fields that it may be told of.
    fn judge(&self, was: &Value, is: &Value) -> Option<(&'static str, Option<BTreeSet<String>>)> {
        let (before, after) = (self.standing(was), self.standing(is));
        let operation = match (before.inside, after.inside) {
            (false, false) => return None,
            (true, true) => "UPDATED",
            // What came from elsewhere enters, deleted there or not; all else that was not there is created.
            (false, true) if before.there || (!was.is_null() && !before.seen) => "ENTERED",
            (false, true) => "CREATED",
            (true, false) if !is.is_null() && (after.there || !after.seen) => "LEFT",
            (true, false) => "DELETED",
        };
        let known = [&before, &after].into_iter().all(|standing| standing.there && standing.seen);
        let columns = [
            ("title", "title"),
            ("priority", "priority"),
            ("category", "category"),
            ("project_id", "projectId"),
        ];
        let changed = columns.into_iter().filter(|(column, _)| was[column] != is[column]);
        Some((operation, known.then(|| changed.map(|(_, field)| field.to_owned()).collect())))
    }
}

/// An event, as a client has it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) id: Uuid,
    at: DateTime<Utc>,
    pub(crate) operation: String,
    fields: Option<BTreeSet<String>>,
    pub(crate) cursor: String,
}

/// What a client asks for. The node is what the row is when it is looked at.
pub(crate) const DOCUMENT: &str = "subscription($filter: TaskFilter, $after: String, $pause: Int) {
    taskChanged(filter: $filter, after: $after, coalesceMs: $pause) {
        cursor operation at id node { id title priority } changedFields
    }
}";

impl Told {
    /// Reads an event, of which nothing may be of a project that the wish may not see.
    pub(crate) fn read(event: &Value, wish: &Wish) -> Self {
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{event}")).to_owned();
        let operation = text("operation");
        if let Some(title) = event["node"]["title"].as_str() {
            assert!(wish.projects.iter().any(|project| title.ends_with(&project.to_string())), "{event}");
            assert!(["CREATED", "UPDATED", "ENTERED"].contains(&operation.as_str()), "{event}");
        }
        let fields = event["changedFields"].as_array();
        let fields = fields.map(|names| names.iter().map(|name| name.as_str().unwrap().to_owned()).collect());
        Self {
            id: text("id").parse().unwrap(),
            at: text("at").parse().unwrap(),
            operation,
            fields,
            cursor: text("cursor"),
        }
    }
}

/// A change, and what one wish is told of it.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) id: Uuid,
    pub(crate) operation: &'static str,
    fields: Option<BTreeSet<String>>,
    at: DateTime<Utc>,
    xid: u64,
    /// All transactions before this one had ended when the change was made.
    finished: u64,
}

/// All that was done, in its order.
pub(crate) struct History(Vec<(Value, Value, Expected)>);

impl History {
    pub(crate) async fn read(url: &str) -> Self {
        let query =
            "select id::text, was::text, became::text, to_json(at) #>> '{}', xid::text, finished::text
                     from history order by seq";
        let rows = texts(url, query).await.into_iter().map(|row| {
            let [id, was, became, at, xid, finished] = <[Option<String>; 6]>::try_from(row).unwrap();
            let image =
                |text: Option<String>| text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
            let number = |text: Option<String>| text.unwrap().parse().unwrap();
            let (xid, finished) = (number(xid), number(finished));
            let (id, at) = (id.unwrap().parse().unwrap(), at.unwrap().parse().unwrap());
            let change = Expected { id, operation: "", fields: None, at, xid, finished };
            (image(was), image(became), change)
        });
        Self(rows.collect())
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// What of it a stream should have been told, in the history's order.
    pub(crate) fn expected(&self, wish: &Wish) -> Vec<Expected> {
        let judged = self.0.iter().filter_map(|(was, became, change)| {
            let (operation, fields) = wish.judge(was, became)?;
            Some(Expected { operation, fields, ..*change })
        });
        judged.collect()
    }
}

/// What is wrong with what a stream was told, if anything is: each change once, as what it was; in their order those
/// of a row, those of a transaction, and those of which the one was there for the other to see.
pub(crate) fn fault(expected: &[Expected], told: &[Told]) -> Option<String> {
    let mut open: HashMap<(Uuid, DateTime<Utc>), VecDeque<usize>> = HashMap::new();
    for (n, one) in expected.iter().enumerate() {
        open.entry((one.id, one.at)).or_default().push_back(n);
    }
    let cursors: BTreeSet<&str> = told.iter().map(|one| one.cursor.as_str()).collect();
    if cursors.len() < told.len() {
        return Some("a cursor came twice".to_owned());
    }
    let (mut rows, mut transactions) = (BTreeMap::new(), BTreeMap::new());
    let mut finished = 0;
    for (place, one) in told.iter().enumerate() {
        let Some(n) = open.get_mut(&(one.id, one.at)).and_then(VecDeque::pop_front) else {
            return Some(format!("at {place} something that did not happen, or once more: {one:?}"));
        };
        let due = &expected[n];
        if (due.operation, &due.fields) != (one.operation.as_str(), &one.fields) {
            return Some(format!("at {place} it should be {due:?}: {one:?}"));
        }
        let before = rows.insert(one.id, n).max(transactions.insert(due.xid, n));
        if before > Some(n) || due.xid < finished {
            return Some(format!("at {place} too late: {due:?}"));
        }
        finished = finished.max(due.finished);
    }
    let lost: Vec<_> = open.into_values().flatten().map(|n| &expected[n]).collect();
    (!lost.is_empty())
        .then(|| format!("{} of {} were lost, such as {:?}", lost.len(), expected.len(), lost[0]))
}
