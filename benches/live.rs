//! The benchmark of subscriptions: a gateway of its own process, a writer at PostgreSQL, and subscribers over real
//! connections, one of five over an event stream and the others over WebSockets, each with one of 300 different
//! subscriptions: ten projects, and in each a filter by least priority and by status. A change concerns 2 % of them.
//!
//! The clock starts just before the writer sends COMMIT, so that a latency has the commit in it, and stops when the
//! client has read the event. Clients and writer share the machine with the gateway and take their part of it; what
//! the gateway itself uses is measured apart. That nothing is lost or repeated is asserted, times are printed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark that cannot go on has failed, and its product is a table"
)]

use std::os::unix::process::CommandExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[path = "live/process.rs"]
mod process;
#[path = "live/subscriber.rs"]
mod subscriber;

use evidence_gateway::config::Secret;
use evidence_gateway::http::viewer::token::{TokenKeys, mint};
use evidence_gateway::model::viewer::{Grant, Holder, Role};
use evidence_gateway::store::db::migrations::migrate;
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use process::Gateway;
use subscriber::{Board, Crowd, Told, Wish};
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "a secret of the benchmark, 32 bytes or more";
/// Sockets on both sides, with room for files.
const OPEN_FILES: u32 = 12_000;
const PROJECTS: usize = 10;
const STATUSES: [&str; 5] = ["pending", "processing", "completed", "failed", "cancelled"];
/// Different subscriptions: projects, least priorities, and each of the statuses or any.
const DISTINCT: usize = PROJECTS * 5 * 6;
/// Changes of one gateway's life at most: each is of a row of its own.
const ROWS: usize = 8_000;
/// Changes a second.
const RATE: usize = 50;
/// Changes as fast as one writer can.
const RUSH: usize = 3_000;

/// What a card on a board shows.
const BOARD: &str = "subscription Board($filter: TaskFilter, $after: String) { \
    taskChanged(filter: $filter, after: $after) { n: id cursor operation at changedFields \
    node { id title status priority assignedAgent { name } } } }";
const WIDE: &str = "subscription { taskChanged { n: id cursor operation at node { id title content } } }";
const OPEN_STREAMS: &str = "streams_open{kind=\"subscription\"}";

/// A row for each change, with what a change of it is judged by.
const SETUP: &str = "
    insert into projects (id, slug, name)
        select ('00000000-0000-7000-9000-' || lpad(n::text, 12, '0'))::uuid, 'p' || n, 'P' || n
        from generate_series(0, $projects - 1) n;
    insert into agents (id, name, type, agent_version)
        select ('00000000-0000-7000-a000-' || lpad(n::text, 12, '0'))::uuid, 'Agent ' || n, 'worker', '1'
        from generate_series(0, 9) n;
    insert into tasks (id, project_id, title, intent, priority, status, assigned_agent_id, content)
        select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid,
            ('00000000-0000-7000-9000-' || lpad((n % $projects)::text, 12, '0'))::uuid, 'Task ' || n, 'look',
            1 + n / $projects % 5, ($statuses)[1 + n / $projects / 5 % 5],
            ('00000000-0000-7000-a000-' || lpad((n % 10)::text, 12, '0'))::uuid,
            jsonb_build_object('text', repeat('what is to be done ', 200))
        from generate_series(0, $rows - 1) n;
    vacuum analyze";

fn main() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let open_files = line.split_whitespace().next().unwrap();
    if open_files.parse().is_ok_and(|most: u32| most < OPEN_FILES) {
        // Only a shell can ask for more of them; children inherit it.
        let script = format!("ulimit -n {OPEN_FILES} && exec \"$@\"");
        let error =
            std::process::Command::new("sh").args(["-c", &script, "sh"]).args(std::env::args()).exec();
        panic!("{error}");
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(run());
}

async fn run() {
    let only = |part: &str| std::env::args().any(|argument| argument == part);
    let dir = tempfile::tempdir().unwrap();
    let postgres = PrivatePostgres::start(PostgresOptions::throwaway(dir.path())).await.unwrap();
    let url = postgres.database_url();
    migrate(&url).await.unwrap();
    let world = World::new(&url).await;
    let parts = ["load", "stall", "herd"];
    let wanted = |part: &str| only(part) || !parts.into_iter().any(only);
    if wanted("load") {
        println!("{DISTINCT} different subscriptions, {RATE} changes a second of one row each");
        for subscribers in [1, DISTINCT, 1_000, 5_000] {
            load(&world, subscribers).await;
        }
    }
    if wanted("herd") {
        println!("\neverybody comes to a process at once, {RATE} changes behind");
        for subscribers in [DISTINCT, 1_000, 5_000] {
            herd(&world, subscribers).await;
        }
    }
    if wanted("stall") {
        println!(
            "\nsome who want every change do not read for 30 s; 1,000 neighbours, {RATE} changes a second"
        );
        for slow in [1, 20] {
            stall(&world, slow).await;
        }
    }
    postgres.stop().await.unwrap();
}

/// PostgreSQL and who writes to it.
struct World {
    url: String,
    writer: Client,
    update: Statement,
    /// Who may see each project, and who may see all.
    tokens: Vec<String>,
    admin: String,
}

impl World {
    async fn new(url: &str) -> Self {
        let (writer, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let statuses = format!("array['{}']", STATUSES.join("','"));
        let setup = SETUP
            .replace("$projects", &PROJECTS.to_string())
            .replace("$rows", &ROWS.to_string())
            .replace("$statuses", &statuses);
        for statement in setup.split(';') {
            writer.batch_execute(statement).await.unwrap();
        }
        let update = "update tasks set title = 'Change ' || version || ' of ' || $1, retry_count = version \
            where id = ('00000000-0000-7000-8000-' || lpad($1::text, 12, '0'))::uuid";
        let update = writer.prepare(update).await.unwrap();
        let secret: Secret = SECRET.parse().unwrap();
        let keys = TokenKeys::new(&secret, None);
        let token =
            |role, projects| mint(&keys, &Grant { holder: Holder::Nobody, role, projects }, 3_600).unwrap();
        let project = |n: usize| Uuid::from_u128(0x7000_9000_0000_0000_0000 + n as u128);
        let tokens = (0..PROJECTS).map(|n| token(Role::Viewer, Some(vec![project(n)]))).collect();
        Self { url: url.to_owned(), writer, update, tokens, admin: token(Role::Admin, None) }
    }

    async fn change(&self, board: &Board, change: usize) {
        self.writer.batch_execute("begin").await.unwrap();
        let row = change.to_string();
        assert_eq!(self.writer.execute(&self.update, &[&row]).await.unwrap(), 1);
        board.commits(change);
        self.writer.batch_execute("commit").await.unwrap();
    }

    /// Makes changes at a steady pace, and says which is the first that was not made.
    async fn pace(&self, board: &Board, first: usize, seconds: usize) -> usize {
        let mut beat = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
        let end = first + seconds * RATE;
        for change in first..end {
            beat.tick().await;
            self.change(board, change).await;
        }
        end
    }

    fn wish(&self, subscriber: usize, after: Option<&str>) -> Wish {
        let (project, least, status) = wants(subscriber);
        let status = status.map_or(String::new(), |status| {
            format!(",\"status\":{{\"eq\":\"{}\"}}", STATUSES[status].to_uppercase())
        });
        let filter = format!("\"filter\":{{\"priority\":{{\"gte\":{least}}}{status}}}");
        let after = after.map_or(String::new(), |after| format!(",\"after\":\"{after}\""));
        let variables = format!("{{{filter}{after}}}");
        let token = self.tokens[project].clone();
        Wish { query: BOARD, variables, token, over_http: subscriber % 5 == 4, stalls: false }
    }

    /// One who wants all of every change.
    fn wide(&self, n: usize) -> Wish {
        let (variables, token) = ("{}".to_owned(), self.admin.clone());
        Wish { query: WIDE, variables, token, over_http: n % 2 == 1, stalls: true }
    }
}

/// Project, least priority, and status.
fn wants(subscriber: usize) -> (usize, usize, Option<usize>) {
    // Those of each project, filter and transport are spread evenly.
    let wish = subscriber % DISTINCT;
    let status = wish / PROJECTS / 5;
    (wish % PROJECTS, 1 + wish / PROJECTS % 5, (status < STATUSES.len()).then_some(status))
}

fn concerns(change: usize, subscriber: usize) -> bool {
    let (project, least, status) = wants(subscriber);
    let fits = status.is_none_or(|status| change / PROJECTS / 5 % 5 == status);
    change % PROJECTS == project && change / PROJECTS % 5 + 1 >= least && fits
}

fn expected(changes: std::ops::Range<usize>, subscribers: usize) -> usize {
    let told = |change: usize| (0..subscribers).filter(|n| concerns(change, *n)).count();
    changes.map(told).sum()
}

async fn load(world: &World, subscribers: usize) {
    let gateway = Gateway::start(&world.url, subscribers + 200);
    let board = Board::new(ROWS);
    gateway.until("streams_open", |_| true).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = gateway.memory();
    let begun = Instant::now();
    let wishes = (0..subscribers).map(|n| world.wish(n, None)).collect();
    let crowd = Crowd::gather(gateway.address, &board, wishes);
    gateway.until(OPEN_STREAMS, |open| open == subscribers as f64).await;
    let opening = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let feeds = gateway.metric("stream_feeds").await;
    println!("\n{subscribers} subscribers, {feeds} feeds; opened in {opening:.1} s");
    // Less is lost in what a process that has just begun gives back.
    if subscribers >= 1_000 {
        println!(
            "  {:.0} KiB a connection ({:.0} MiB before, {:.0} MiB now)",
            (gateway.memory() - before) / 1024.0 / subscribers as f64,
            mib(before),
            mib(gateway.memory())
        );
    }
    let idle = Usage::begin(&gateway).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (seconds, share, statements) = idle.end(&gateway).await;
    let idle = statements / seconds;
    println!("  while nothing happens: {:.1} % of a core", share * 100.0);

    let steady = Usage::begin(&gateway).await;
    let paced = world.pace(&board, 0, 20).await;
    let events = expected(0..paced, subscribers);
    let told = (0..paced).filter(|change| (0..subscribers).any(|n| concerns(*change, n))).count();
    board.until_told(false, events).await;
    let (seconds, share, statements) = steady.end(&gateway).await;
    println!(
        "  {:.0} events a second: {:.1} % of a core, {:.1} SQL statements a change that is told",
        events as f64 / seconds,
        share * 100.0,
        (statements - idle * seconds) / told as f64
    );

    let rush = Usage::begin(&gateway).await;
    for change in paced..paced + RUSH {
        world.change(&board, change).await;
    }
    let written = rush.begun.elapsed().as_secs_f64();
    let all = expected(0..paced + RUSH, subscribers);
    board.until_told(false, all).await;
    let (seconds, share, _) = rush.end(&gateway).await;
    let memory = mib(gateway.memory());
    let told = crowd.leave();
    let steadily = told.iter().flatten().filter(|told| (told.change as usize) < paced);
    println!("  commit to client, ms: {}", latencies(steadily));
    let rushing = (all - events) as f64;
    println!(
        "  {RUSH} changes at once ({written:.1} s): {:.0} events a second, {:.0} a second of CPU; {memory:.0} MiB",
        rushing / seconds,
        rushing / seconds / share
    );
    check(&board, &told, 0..paced + RUSH);
}

/// Nothing is lost, repeated or out of order.
fn check(board: &Board, told: &[Vec<Told>], changes: std::ops::Range<usize>) {
    for (subscriber, told) in told.iter().enumerate() {
        let wanted = changes.clone().filter(|change| concerns(*change, subscriber));
        assert!(told.iter().map(|told| told.change as usize).eq(wanted), "subscriber {subscriber}");
    }
    let faulty = board.faulty.load(Ordering::Relaxed);
    if faulty > 0 {
        println!("  {faulty} events had errors instead of rows");
    }
}

/// As after the end of another process: all come back with the cursor that they had there.
async fn herd(world: &World, subscribers: usize) {
    let gateway = Gateway::start(&world.url, subscribers + 200);
    let board = Board::new(ROWS);
    gateway.until("streams_open", |_| true).await;
    let cursor = gateway.cursor(&world.admin).await;
    let missed = world.pace(&board, 0, 1).await;
    let wishes = (0..subscribers).map(|n| world.wish(n, Some(&cursor))).collect();
    let back = Usage::begin(&gateway).await;
    let crowd = Crowd::gather(gateway.address, &board, wishes);
    let events = expected(0..missed, subscribers);
    board.until_told(false, events).await;
    gateway.until(OPEN_STREAMS, |open| open == subscribers as f64).await;
    gateway.until("streams_behind", |behind| behind == 0.0).await;
    let (seconds, share, statements) = back.end(&gateway).await;
    println!(
        "  {subscribers} subscribers: {events} events and all have caught up after {seconds:.1} s, {:.2} SQL \
         statements each, {:.0} % of a core",
        statements / subscribers as f64,
        share * 100.0
    );
    check(&board, &crowd.leave(), 0..missed);
}

async fn stall(world: &World, slow: usize) {
    const NEIGHBOURS: usize = 1_000;
    let gateway = Gateway::start(&world.url, NEIGHBOURS + 200);
    let board = Board::new(ROWS);
    let wishes = (0..NEIGHBOURS).map(|n| world.wish(n, None)).chain((0..slow).map(|n| world.wide(n)));
    let crowd = Crowd::gather(gateway.address, &board, wishes.collect());
    gateway.until(OPEN_STREAMS, |open| open == (NEIGHBOURS + slow) as f64).await;
    println!("\n{slow} of them");
    // The first changes find cold caches.
    let mut ends = vec![world.pace(&board, 0, 5).await];
    let mut memory = Vec::new();
    for (stalled, seconds) in [(false, 15), (true, 30), (false, 15)] {
        crowd.stall(stalled);
        let first = *ends.last().unwrap();
        ends.push(world.pace(&board, first, seconds).await);
        memory.push((mib(gateway.memory()), gateway.metric("streams_behind").await));
    }
    let all = *ends.last().unwrap();
    board.until_told(false, expected(0..all, NEIGHBOURS)).await;
    board.until_told(true, all * slow).await;
    let mut told = crowd.leave();
    let wide = told.split_off(NEIGHBOURS);
    for (n, phase) in ["before", "while they do not read", "when they read again"].into_iter().enumerate() {
        let here =
            told.iter().flatten().filter(|told| (ends[n]..ends[n + 1]).contains(&(told.change as usize)));
        let (memory, behind) = memory[n];
        println!("  {phase:<22} neighbours, ms: {}; {memory:.0} MiB; {behind} behind", latencies(here));
    }
    let caught_up = wide.iter().map(|told| {
        let at = |told: &Told| board.at(told.change) + f64::from(told.micros) / 1e6;
        let resumed = board.at(ends[2] as u32);
        let late = told.iter().filter(|told| (told.change as usize) < ends[2]);
        late.map(at).fold(0.0, f64::max) - resumed
    });
    println!("  the last of them had caught up after {:.1} s", caught_up.fold(0.0, f64::max));
    check(&board, &told, 0..all);
    assert!(wide.iter().all(|told| told.iter().map(|told| told.change as usize).eq(0..all)));
}

/// What a gateway uses in a while.
struct Usage {
    begun: Instant,
    cpu: f64,
    statements: f64,
}

impl Usage {
    async fn begin(gateway: &Gateway) -> Self {
        let statements = gateway.metric("database_statements_total").await;
        Self { begun: Instant::now(), cpu: gateway.cpu(), statements }
    }

    /// Seconds, the share of a core, and statements.
    async fn end(self, gateway: &Gateway) -> (f64, f64, f64) {
        let (seconds, cpu) = (self.begun.elapsed().as_secs_f64(), gateway.cpu() - self.cpu);
        (seconds, cpu / seconds, gateway.metric("database_statements_total").await - self.statements)
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

fn latencies<'a>(told: impl Iterator<Item = &'a Told>) -> String {
    let mut times: Vec<u32> = told.map(|told| told.micros).collect();
    times.sort_unstable();
    let at = |share: f64| f64::from(times[((times.len() - 1) as f64 * share) as usize]) / 1e3;
    format!("median {:.1}, p99 {:.1}, most {:.1}", at(0.5), at(0.99), at(1.0))
}
