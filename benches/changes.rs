//! The change log in figures: what its triggers cost those who write, how soon a commit is heard of, and what it
//! costs to listen while nothing happens.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on has failed, and its product is a table"
)]

use std::time::{Duration, Instant};

use clap::Parser;
use evidence_gateway::changes::tail::Tail;
use evidence_gateway::config::Config;
use evidence_gateway::model::change::Place;
use evidence_gateway::store::db::Db;
use evidence_gateway::store::db::migrations::migrate;
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use evidence_gateway::store::redis::Redis;
use tokio_postgres::{Client, NoTls, Statement};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 15;
/// Transactions of one row, and statements of a thousand, of one round.
const SINGLE: usize = 300;
const BULK: usize = 6;
const IDLE: Duration = Duration::from_secs(10);

const SETUP: &str =
    "insert into projects (id, slug, name) values ('00000000-0000-7000-8000-000000000001', 'p', 'P');
    insert into tasks (id, project_id, title, intent) values ('00000000-0000-7000-8000-000000000002',
        '00000000-0000-7000-8000-000000000001', 't', 'i')";
const INSERT: &str = "insert into evidence (project_id, task_id, title, content, source_type, tags)
    select '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', 'Evidence of a usual size',
        repeat('what was seen ', 40), 'documentation', '{one,two}' from generate_series(1, $1::integer)";

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() {
    for (what, durable) in [("commits reach the disk", true), ("commits do not wait for the disk", false)] {
        let dir = tempfile::tempdir().unwrap();
        let options = PostgresOptions { durable, ..PostgresOptions::kept(dir.path()) };
        let postgres = PrivatePostgres::start(options).await.unwrap();
        let url = postgres.database_url();
        migrate(&url).await.unwrap();
        connect(&url).await.batch_execute(SETUP).await.unwrap();
        println!("\ninserting evidence with and without the triggers, in turns; {what}");
        overhead(&url, "one row a transaction, ms", 1, SINGLE).await;
        overhead(&url, "1,000 rows a statement, ms", 1_000, BULK).await;
        if durable {
            let config = Settings::parse_from(["bench", "--pool-size", "4"]).config;
            let db = Db::connect(&url, &config.db_options()).await.unwrap();
            let tail = Tail::new(&config, &url, db, Redis::Off);
            let following = tokio::spawn(tail.clone().run());
            latencies(&url, &tail).await;
            idle(&url).await;
            following.abort();
        }
        postgres.stop().await.unwrap();
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Milliseconds per statement.
async fn round(client: &Client, insert: &Statement, rows: i32, count: usize) -> f64 {
    let begun = Instant::now();
    for _ in 0..count {
        client.execute(insert, &[&rows]).await.unwrap();
    }
    begun.elapsed().as_secs_f64() * 1e3 / count as f64
}

async fn overhead(url: &str, what: &str, rows: i32, count: usize) {
    let client = connect(url).await;
    let insert = client.prepare(INSERT).await.unwrap();
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..=ROUNDS {
        // Of the tables the same size for both, and none that a checkpoint or a vacuum is at.
        client.batch_execute("truncate evidence cascade; truncate change_log; checkpoint").await.unwrap();
        let mut times = [0.0; 2];
        // Each is first in every other round.
        for side in if n % 2 == 0 { [0, 1] } else { [1, 0] } {
            let state = ["enable", "disable"][side];
            client.batch_execute(&format!("alter table evidence {state} trigger user")).await.unwrap();
            round(&client, &insert, rows, count.div_ceil(10)).await;
            times[side] = round(&client, &insert, rows, count).await;
        }
        // The first round warms up.
        if n > 0 {
            with.push(times[0]);
            without.push(times[1]);
            ratios.push(times[0] / times[1]);
        }
    }
    client.batch_execute("alter table evidence enable trigger user").await.unwrap();
    println!(
        "  {what}: with {}, without {}, ratio {}",
        spread(&mut with),
        spread(&mut without),
        spread(&mut ratios)
    );
}

/// From the answer to a commit until a consumer has the change.
async fn latencies(url: &str, tail: &Tail) {
    let client = connect(url).await;
    let insert = client.prepare(INSERT).await.unwrap();
    while tail.reached().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("\nfrom commit to consumer, ms, median (least to most)");
    let idle = Duration::from_millis(1_100);
    let busy = Duration::from_millis(30);
    for (whose, own, pause, count) in [
        ("another program's write, after a quiet second", false, idle, 40),
        ("another program's write, soon after the last", false, busy, 200),
        ("the process's own write, after a quiet second", true, idle, 40),
        ("the process's own write, soon after the last", true, busy, 200),
    ] {
        let mut follower = tail.follow(Place::after(tail.reached().unwrap().snapshot));
        let (send, mut heard) = tokio::sync::mpsc::channel(1);
        let consumer = tokio::spawn(async move {
            loop {
                let batch = follower.next().await.unwrap();
                let at = Instant::now();
                if batch.changes.iter().any(|change| change.entity == "evidence")
                    && send.send(at).await.is_err()
                {
                    return;
                }
            }
        });
        let mut times = Vec::new();
        for n in 0..count {
            tokio::time::sleep(pause + Duration::from_millis(n * 7 % 50)).await;
            client.execute(&insert, &[&1]).await.unwrap();
            let committed = Instant::now();
            if own {
                tail.wake();
            }
            let at = heard.recv().await.unwrap();
            times.push(at.saturating_duration_since(committed).as_secs_f64() * 1e3);
        }
        consumer.abort();
        println!("  {whose}: {}", spread(&mut times));
    }
}

/// What listening costs while nobody writes.
async fn idle(url: &str) {
    let client = connect(url).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let transactions = async || {
        // Statistics of idle sessions are sent late, but at a steady pace.
        let query = "select pg_stat_clear_snapshot(), xact_commit from pg_stat_database where datname = current_database()";
        client.query_one(query, &[]).await.unwrap().get::<_, i64>("xact_commit")
    };
    let backend =
        "select pid from pg_stat_activity where query like '%change_log_pruned%' and pid <> pg_backend_pid()";
    let backends: Vec<i32> = client.query(backend, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let spent = || (cpu("self"), backends.iter().map(|pid| cpu(&pid.to_string())).sum::<f64>());
    let (before, (ours, theirs)) = (transactions().await, spent());
    tokio::time::sleep(IDLE).await;
    let (after, (ours_after, theirs_after)) = (transactions().await, spent());
    let share = |from: f64, to: f64| (to - from) / IDLE.as_secs_f64() * 100.0;
    println!(
        "\nwhile nothing happens: {:.1} statements a second, {:.2} % of a core here, {:.2} % in PostgreSQL",
        (after - before) as f64 / IDLE.as_secs_f64(),
        share(ours, ours_after),
        share(theirs, theirs_after)
    );
}

/// Seconds of CPU that a process has used.
fn cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name: state is the first, user and system time are the 12th and 13th, in hundredths.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}
