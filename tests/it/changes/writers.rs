//! Writers of every kind, and the ledger in which each notes what it does, in the transaction in which it does it.
//!
//! No row is written twice in the same way, so that entity, id and operation name a change. A new kind of writer is
//! one more function in [`KINDS`]. Those that write through GraphQL cannot note in the same transaction: they note the
//! rows of their answers afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::{Gateway, execute, texts};

pub(super) const PROJECT: &str = "00000000-0000-7000-8000-000000000001";
const OTHER: &str = "00000000-0000-7000-8000-000000000002";

/// The ledger, and what the writers' rows refer to. The log is empty afterwards save for this.
pub(super) async fn prepare(url: &str) {
    let script = format!(
        "create table ledger (xid xid8 not null default pg_current_xact_id(), step integer, entity text, id uuid, op text);
         insert into projects (id, slug, name) values ('{PROJECT}', 'one', 'One'), ('{OTHER}', 'two', 'Two');
         insert into ledger (step, entity, id, op) select 0, 'projects', id, 'insert' from projects;"
    );
    execute(url, &format!("begin; {script} commit")).await;
}

/// Inserts one piece of evidence.
pub(super) fn evidence(id: Uuid, n: u64) -> String {
    format!(
        "insert into evidence (id, project_id, title, content, source_type) \
         values ('{id}', '{PROJECT}', 'evidence {n}', 'what was seen', 'documentation')"
    )
}

/// Inserts many with one statement.
pub(super) fn many_evidences(count: u64) -> String {
    format!(
        "insert into evidence (project_id, title, content, source_type) \
         select '{PROJECT}', 'evidence ' || n, 'what was seen', 'documentation' from generate_series(1, {count}) n"
    )
}

/// Random numbers that are the same in every run.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A transaction under construction.
struct Script {
    text: String,
    step: u32,
}

impl Script {
    fn new() -> Self {
        Self { text: "begin;\n".to_owned(), step: 0 }
    }

    fn run(&mut self, statement: &str) -> &mut Self {
        self.text.push_str(statement);
        self.text.push_str(";\n");
        self
    }

    /// Runs a statement and notes what it changes; changes of one statement are in no order.
    fn step(&mut self, statement: &str, changes: &[(&str, Uuid, &str)]) -> &mut Self {
        self.step += 1;
        self.run(statement);
        let row =
            |(entity, id, op): &(&str, Uuid, &str)| format!("({}, '{entity}', '{id}', '{op}')", self.step);
        let rows = changes.iter().map(row).collect::<Vec<_>>().join(", ");
        self.run(&format!("insert into ledger (step, entity, id, op) values {rows}"))
    }

    fn insert(&mut self, id: Uuid) -> &mut Self {
        self.step(&evidence(id, 0), &[("evidence", id, "insert")])
    }

    fn sleep(&mut self, ms: u64) -> &mut Self {
        self.run(&format!("select pg_sleep({ms} / 1000.0)"))
    }

    fn commit(&mut self) -> String {
        self.run("commit").text.clone()
    }
}

type Kind = (&'static str, fn(&mut Dice) -> String);

/// Each makes one script after the other.
const KINDS: &[Kind] = &[
    ("autocommit", autocommit),
    ("autocommit 2", autocommit),
    ("sleeper", sleeper),
    ("sleeper 2", sleeper),
    ("savepoints", savepoints),
    ("rollback", rollback),
    ("copy", copy),
    ("insert-select", insert_select),
    ("cascade", cascade),
    ("mover", mover),
];

/// No transaction but the statement's own.
fn autocommit(_: &mut Dice) -> String {
    let id = Uuid::now_v7();
    format!(
        "with w as ({} returning id) insert into ledger (step, entity, id, op) select 1, 'evidence', id, 'insert' from w",
        evidence(id, 0)
    )
}

/// Its changes become visible long after younger ones.
fn sleeper(dice: &mut Dice) -> String {
    let mut script = Script::new();
    script
        .insert(Uuid::now_v7())
        .sleep(dice.below(400))
        .insert(Uuid::now_v7())
        .sleep(dice.below(100))
        .commit()
}

fn savepoints(dice: &mut Dice) -> String {
    let mut script = Script::new();
    script.insert(Uuid::now_v7()).run("savepoint a").insert(Uuid::now_v7()).run("savepoint b");
    script.insert(Uuid::now_v7()).run("rollback to b").insert(Uuid::now_v7()).run("release a");
    script.run("savepoint c").insert(Uuid::now_v7()).sleep(dice.below(50)).run("rollback to c");
    script.insert(Uuid::now_v7()).commit()
}

fn rollback(dice: &mut Dice) -> String {
    let mut script = Script::new();
    script.insert(Uuid::now_v7()).sleep(dice.below(60)).run("rollback").text.clone()
}

fn copy(dice: &mut Dice) -> String {
    let ids: Vec<Uuid> = (0..10 + dice.below(30)).map(|_| Uuid::now_v7()).collect();
    let lines: String =
        ids.iter().map(|id| format!("{id},{PROJECT},copied,copied text,documentation\\n")).collect();
    let inserted: Vec<_> = ids.iter().map(|id| ("evidence", *id, "insert")).collect();
    let copy = format!(
        "copy evidence (id, project_id, title, content, source_type) from program $$printf '{lines}'$$ with (format csv)"
    );
    Script::new().step(&copy, &inserted).commit()
}

/// A statement of many rows, and another that changes them all.
fn insert_select(dice: &mut Dice) -> String {
    let ids: Vec<Uuid> = (0..20 + dice.below(60)).map(|_| Uuid::now_v7()).collect();
    let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
    let insert = format!(
        "insert into evidence (id, project_id, title, content, source_type) \
         select id, '{PROJECT}', 'many', 'many', 'documentation' from unnest(array[{list}]::uuid[]) id"
    );
    let all = |op| ids.iter().map(|id| ("evidence", *id, op)).collect::<Vec<_>>();
    let mut script = Script::new();
    script.step(&insert, &all("insert"));
    script.step(&format!("update evidence set verified = not verified where id in ({list})"), &all("update"));
    if dice.below(2) == 0 {
        script.step(&format!("delete from evidence where id in ({list})"), &all("delete"));
    }
    script.commit()
}

/// Rows that go, and rows that lose what they refer to, because another one is deleted.
fn cascade(_: &mut Dice) -> String {
    let [task, result, comment, row] = [(); 4].map(|()| Uuid::now_v7());
    let mut script = Script::new();
    script.step(
        &format!(
            "insert into tasks (id, project_id, title, intent) values ('{task}', '{PROJECT}', 't', 'i')"
        ),
        &[("tasks", task, "insert")],
    );
    script.step(
        &format!("insert into task_results (id, task_id, result_type, content) values ('{result}', '{task}', 'x', '{{}}')"),
        &[("task_results", result, "insert")],
    );
    let insert = format!(
        "insert into task_comments (id, task_id, body) values ('{comment}', '{task}', 'c') \
         on conflict (id) do update set body = excluded.body"
    );
    script.step(&insert, &[("task_comments", comment, "insert")]);
    script.step(&insert, &[("task_comments", comment, "update")]);
    script.step(
        &evidence(row, 0)
            .replace("(id, ", "(task_id, id, ")
            .replace(" values (", &format!(" values ('{task}', ")),
        &[("evidence", row, "insert")],
    );
    let gone = [
        ("tasks", task, "delete"),
        ("task_results", result, "delete"),
        ("task_comments", comment, "delete"),
        ("evidence", row, "update"),
    ];
    // In a transaction of its own, which is another connection's view of the same rows.
    let first = script.commit();
    first + &Script::new().step(&format!("delete from tasks where id = '{task}'"), &gone).commit()
}

fn mover(_: &mut Dice) -> String {
    let id = Uuid::now_v7();
    let change = format!("update evidence set project_id = '{OTHER}' where id = '{id}'");
    let mut script = Script::new();
    script.insert(id).step(&change, &[("evidence", id, "update")]);
    script.step(&format!("delete from evidence where id = '{id}'"), &[("evidence", id, "delete")]).commit()
}

/// Writes through a gateway, one request after the other, and notes what each has answered.
async fn graphql(url: String, gateway: Arc<Gateway>, end: Instant) -> (&'static str, usize) {
    const WRITE: &str = "mutation ($task: CreateTaskInput!, $pieces: AddEvidencesInput!) {
        createTask(input: $task) { id } addEvidences(input: $pieces) { id } }";
    const STEP: &str = "mutation ($input: TransitionTaskInput!) { transitionTask(input: $input) { id } }";
    let mut count = 0;
    while Instant::now() < end {
        let task = json!({"projectId": PROJECT, "title": "Through GraphQL", "intent": "write"});
        let piece = |n| json!({"projectId": PROJECT, "title": "Seen", "content": format!("{} {n}", Uuid::now_v7()), "sourceType": "LOG"});
        let pieces = json!({"evidences": (0..3).map(piece).collect::<Vec<_>>()});
        let written = gateway.ask_with(WRITE, json!({"task": task, "pieces": pieces})).await;
        let task = &written["createTask"]["id"];
        gateway.ask_with(STEP, json!({"input": {"id": task, "status": "PROCESSING"}})).await;
        let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
        let mut rows = vec![("tasks", id(&written["createTask"]), "insert")];
        rows.extend(
            written["addEvidences"].as_array().unwrap().iter().map(|row| ("evidence", id(row), "insert")),
        );
        let rows: Vec<_> =
            rows.iter().map(|(entity, id, op)| format!("(1, '{entity}', '{id}', '{op}')")).collect();
        // In two transactions, as the rows were: nothing is said of the order of the two mutations.
        let note = |values: &str| format!("insert into ledger (step, entity, id, op) values {values}");
        let noted = note(&rows.join(", "))
            + "; commit; begin; "
            + &note(&format!("(1, 'tasks', {task}, 'update')").replace('"', "'"));
        execute(&url, &format!("begin; {noted}; commit")).await;
        count += 1;
    }
    ("graphql", count)
}

/// One transaction of almost the whole time.
fn long(time: Duration) -> String {
    let mut script = Script::new();
    for _ in 0..20 {
        script.insert(Uuid::now_v7()).sleep(u64::try_from(time.as_millis()).unwrap() / 24);
    }
    script.commit()
}

/// All of them at work.
pub(super) struct Writers(Vec<JoinHandle<(&'static str, usize)>>);

impl Writers {
    /// Also through GraphQL, by two clients of one gateway.
    pub(super) async fn start_all(url: &str, time: Duration) -> Self {
        let gateway = Arc::new(Gateway::open(url).await);
        let mut writers = Self::start(url, time);
        let end = Instant::now() + time;
        let clients = (0..2).map(|_| tokio::spawn(graphql(url.to_owned(), gateway.clone(), end)));
        writers.0.extend(clients);
        writers
    }

    pub(super) fn start(url: &str, time: Duration) -> Self {
        let writer = |(n, (name, kind)): (usize, &Kind)| {
            let (url, name, kind) = (url.to_owned(), *name, *kind);
            tokio::spawn(async move {
                let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
                let mut dice = Dice::new(n as u64 + 1);
                let (end, mut count) = (Instant::now() + time, 0);
                while Instant::now() < end {
                    conn.batch_execute(&kind(&mut dice)).await.unwrap();
                    count += 1;
                    tokio::time::sleep(Duration::from_millis(20 + dice.below(80))).await;
                }
                (name, count)
            })
        };
        let mut writers: Vec<_> = KINDS.iter().enumerate().map(writer).collect();
        let url = url.to_owned();
        writers.push(tokio::spawn(async move {
            execute(&url, &long(time)).await;
            ("long", 1)
        }));
        Self(writers)
    }

    pub(super) async fn finish(self) -> Vec<(&'static str, usize)> {
        let mut written = Vec::new();
        for writer in self.0 {
            written.push(writer.await.unwrap());
        }
        // The gateway went with its clients; what it was recording commits now or never.
        tokio::time::sleep(Duration::from_millis(500)).await;
        written
    }
}

/// What committed, by transaction and by step.
pub(super) type Ledger = BTreeMap<String, BTreeMap<u32, Vec<[String; 3]>>>;

pub(super) async fn ledger(url: &str) -> Ledger {
    let mut ledger = Ledger::new();
    for row in texts(url, "select xid::text, step, entity, id, op from ledger").await {
        let [xid, step, entity, id, op] = <[_; 5]>::try_from(row).unwrap().map(|cell| cell.unwrap());
        let steps = ledger.entry(xid).or_default();
        steps.entry(step.parse().unwrap()).or_default().push([entity, id, op]);
    }
    ledger
}

/// Every change of the ledger was read once, nothing else was, and those of a transaction in its order.
pub(super) fn compare(ledger: &Ledger, read: &[[String; 3]], last: Uuid) {
    let mut places = BTreeMap::new();
    // What the gateways tell of the changes is not in the ledger.
    for (n, change) in read.iter().enumerate().filter(|(_, change)| change[0] != "activity_feed") {
        assert_eq!(places.insert(change, n), None, "twice: {change:?}");
    }
    assert_eq!(
        places.remove(&["evidence".to_owned(), last.to_string(), "insert".to_owned()]),
        Some(read.len() - 1)
    );
    for (xid, steps) in ledger {
        let mut before = None;
        for changes in steps.values() {
            let found = changes.iter().map(|change| places.remove(change));
            let found: Vec<usize> =
                found.map(|place| place.unwrap_or_else(|| panic!("lost of {xid}: {changes:?}"))).collect();
            assert!(found.iter().min() > before.as_ref(), "{xid}: out of order: {changes:?}");
            before = found.into_iter().max();
        }
    }
    assert!(places.is_empty(), "never committed: {places:?}");
}
