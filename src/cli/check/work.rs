//! Readers and writers: what each does until it is told to stop, and what it notes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use uuid::Uuid;

use crate::cli::check::client::{Client, Reply, request};
use crate::cli::check::history::{Asked, Row, Seen};
use crate::error::{Error, Result};
use crate::model::change::Snapshot;
use crate::model::change::history::{TABLES, transaction};
use crate::model::cursor::CursorKey;

const TOKEN: &str = "x-consistency-token";

/// What all of them share.
pub(super) struct World {
    pub(super) gateways: Vec<SocketAddr>,
    pub(super) database_url: String,
    pub(super) key: CursorKey,
    pub(super) projects: Vec<Uuid>,
    pub(super) tasks: Vec<Uuid>,
    /// Readers' credentials with the projects that each may see; all if there are none.
    pub(super) bearers: Vec<(String, Arc<[Uuid]>)>,
    pub(super) stop: AtomicBool,
    pub(super) noted: Mutex<Noted>,
    pub(super) random: AtomicU64,
}

/// What was noted.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) seen: Vec<Seen>,
    /// When writers were told that a version is committed.
    pub(super) acknowledged: HashMap<(Row, i64), DateTime<Utc>>,
    /// The last write through a gateway, with its token.
    last: Option<(Row, i64, String)>,
    pub(super) hits: u64,
    pub(super) refused: u64,
}

impl World {
    pub(super) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that looks like chance (splitmix64).
    pub(super) fn chance(&self, below: usize) -> usize {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap_or_default() % below.max(1)
    }

    fn going_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn question(&self) -> (usize, Asked, String) {
        let status = ["pending", "processing", "completed"][self.chance(3)];
        let task = self.tasks[self.chance(self.tasks.len())];
        match self.chance(7) {
            0 => (0, Asked::One(task), format!("{{ a: task(id: \"{task}\") {{ id version title }} }}")),
            1 => {
                let filter = format!("filter: {{status: {{eq: {}}}}}", status.to_uppercase());
                let text = format!("{{ a: tasks({filter}, first: 100) {{ nodes {{ id version title }} }} }}");
                (0, Asked::Is("status", status.into()), text)
            }
            2 => {
                let filter = format!("filter: {{status: {{eq: {}}}}}", status.to_uppercase());
                (
                    0,
                    Asked::Is("status", status.into()),
                    format!("{{ a: taskAggregate({filter}) {{ count }} }}"),
                )
            }
            3 => {
                let least = 1 + self.chance(5);
                let text = format!(
                    "{{ a: tasks(filter: {{priority: {{gte: {least}}}}}, first: 100, orderBy: [{{field: PRIORITY, direction: ASC}}]) \
                     {{ nodes {{ id version title }} }} }}"
                );
                (0, Asked::AtLeast("priority", least as f64), text)
            }
            4 => {
                let text = format!(
                    "{{ a: evidences(filter: {{taskId: {{eq: \"{task}\"}}}}, first: 100) {{ nodes {{ id version title }} }} }}"
                );
                (1, Asked::Is("task_id", task.to_string().into()), text)
            }
            5 => {
                let text = format!(
                    "{{ a: searchEvidence(query: \"v{}\", mode: LEXICAL, first: 20) {{ nodes {{ id version title }} }} }}",
                    1 + self.chance(50)
                );
                (1, Asked::Some, text)
            }
            _ => {
                let text = "{ a: evidences(filter: {credibilityScore: {gte: 0.5}}, first: 200) { nodes { id version title } } }";
                (1, Asked::AtLeast("credibility_score", 0.5), text.to_owned())
            }
        }
    }
}

/// Asks and notes, until it is told to stop.
pub(super) async fn read(world: Arc<World>, n: usize) {
    let mut clients: Vec<Client> = world.gateways.iter().map(|address| Client::new(*address)).collect();
    while world.going_on() {
        let place = (n + world.chance(world.gateways.len())) % clients.len();
        match read_once(&world, &mut clients[place]).await {
            Some(seen) => world.noted().seen.push(seen),
            // It is being started again.
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn read_once(world: &World, client: &mut Client) -> Option<Seen> {
    let (table, asked, document) = world.question();
    let (bearer, scope) = &world.bearers[world.chance(world.bearers.len())];
    let known = if world.chance(4) == 0 { world.noted().last.clone() } else { None };
    let token = known.as_ref().map_or(String::new(), |(_, _, token)| format!("{TOKEN}: {token}\r\n"));
    let headers = format!("authorization: Bearer {bearer}\r\n{token}");
    // What the gateway has passed is told by the answer before, on the same connection.
    let asked_first = request("GET", "/health/ready", "", "");
    let body = json!({"query": document}).to_string();
    let begun = Utc::now();
    let replies = client.ask_all(&[asked_first, request("POST", "/graphql", &headers, &body)]).await?;
    let ended = Utc::now();
    let [ready, reply] = <[Reply; 2]>::try_from(replies).ok()?;
    let low = Snapshot::from_token(TOKEN, ready.header(TOKEN)?, &world.key).ok()?;
    let hit = reply.header("cache-status").is_some_and(|status| status.starts_with("evidence-gateway; hit"));
    let read = read_answer(&reply);
    let mut noted = world.noted();
    let Some((rows, count)) = read else {
        noted.refused += 1;
        return None;
    };
    noted.hits += u64::from(hit);
    drop(noted);
    let known = known.map(|(row, number, _)| (row, number));
    Some(Seen { table, asked, scope: scope.clone(), low: low.into(), known, rows, count, begun, ended })
}

/// Rows with their versions, or how many there are.
type Told = (Vec<(Uuid, i64)>, Option<usize>);

/// What an answer tells. A row that says one version in its title and another one in
/// its version was never there: it gets the version -1, which nobody wrote.
fn read_answer(reply: &Reply) -> Option<Told> {
    let body: Value = serde_json::from_slice(&reply.body).ok()?;
    if reply.status != 200 || body.get("errors").is_some() {
        return None;
    }
    let answer = &body["data"]["a"];
    if let Some(count) = answer.get("count") {
        return Some((Vec::new(), usize::try_from(count.as_u64()?).ok()));
    }
    let lone = [answer.clone()];
    let nodes = match answer.get("nodes") {
        Some(nodes) => nodes.as_array()?.as_slice(),
        None if answer.is_null() => &[],
        None => &lone[..],
    };
    let row = |node: &Value| {
        let version = node["version"].as_i64()?;
        let whole = node["title"] == format!("v{version}");
        Some((node["id"].as_str()?.parse().ok()?, if whole { version } else { -1 }))
    };
    Some((nodes.iter().map(row).collect::<Option<_>>()?, None))
}

/// Writes through a gateway.
pub(super) async fn write(world: Arc<World>, n: usize) {
    let mut client = Client::new(world.gateways[n % world.gateways.len()]);
    let bearer = world
        .bearers
        .last()
        .map(|(bearer, _)| format!("authorization: Bearer {bearer}\r\n"))
        .unwrap_or_default();
    while world.going_on() {
        let task = world.tasks[world.chance(world.tasks.len())];
        if write_once(&world, &mut client, &bearer, task).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn write_once(world: &World, client: &mut Client, bearer: &str, task: Uuid) -> Option<()> {
    let headers = format!("{bearer}cache-control: no-store\r\n");
    let document =
        json!({"query": format!("{{ a: task(id: \"{task}\") {{ id version title }} }}")}).to_string();
    let (rows, _) = read_answer(&client.ask("POST", "/graphql", &headers, &document).await?)?;
    let (_, version) = *rows.first()?;
    let document = json!({"query": "mutation ($input: UpdateTaskInput!) { a: updateTask(input: $input) { id version title } }",
        "variables": {"input": {"id": task, "expectedVersion": version, "title": format!("v{}", version + 1),
            "priority": 1 + world.chance(5)}}});
    let reply = client.ask("POST", "/graphql", bearer, &document.to_string()).await?;
    let (rows, _) = read_answer(&reply)?;
    let (_, version) = *rows.first()?;
    let mut noted = world.noted();
    noted.acknowledged.insert(((0, task), version), Utc::now());
    if let Some(token) = reply.header(TOKEN) {
        noted.last = Some(((0, task), version, token.to_owned()));
    }
    Some(())
}

/// Writes by psql, which knows nothing of the gateway.
pub(super) async fn write_by_psql(world: Arc<World>, seconds_open: u32) -> Result<()> {
    let mut child = Command::new("psql")
        .args(["-qAtX", "-v", "ON_ERROR_STOP=0", &world.database_url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Error::bad_input("psql", "cannot be started; install postgresql-client").because(error)
        })?;
    let missing = || Error::internal("psql has no pipes");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(missing)?).lines();
    while world.going_on() {
        let sql = transaction(world.chance(1 << 30) as u64, &world.projects, seconds_open);
        stdin.write_all(format!("{sql}\n\\echo done\n").as_bytes()).await.map_err(Error::internal)?;
        let mut written = Vec::new();
        while let Some(line) = lines.next_line().await.map_err(Error::internal)?.filter(|line| line != "done")
        {
            let mut words = line.split(' ');
            let row = || {
                let table = words.next()?;
                let table = TABLES.iter().position(|known| *known == table)?;
                Some(((table, words.next()?.parse().ok()?), words.next()?.parse().ok()?))
            };
            written.extend({ row }());
        }
        let now = Utc::now();
        world.noted().acknowledged.extend(written.into_iter().map(|version| (version, now)));
        if seconds_open > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
