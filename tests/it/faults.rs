//! PostgreSQL goes away while requests run, in each way that it can. The gateway says so within its limit, and is
//! back when PostgreSQL is, by itself.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use evidence_gateway::cli::import::{Options, Source, run};
use evidence_gateway::http::viewer::Access;
use evidence_gateway::store::db::migrations::migrate;
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::Gateway;

const BOARD: &str = "{ tasks(first: 20) { totalCount nodes { title project { name } assignedAgent { name }
    evidences(first: 5) { nodes { title agent { name } supporting(first: 2) { nodes { title } } } } } } }";

/// The limit of the gateway under test.
const LIMIT: Duration = Duration::from_millis(3_000);
/// What the test's own machine may add to it.
const SLACK: Duration = Duration::from_millis(1_500);
const CLIENTS: usize = 6;

/// Clients that never stop asking.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<BTreeMap<String, usize>>>,
}

impl Load {
    fn start(gateway: &Arc<Gateway>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (gateway, stop) = (gateway.clone(), stop.clone());
            tokio::spawn(async move {
                let mut outcomes = BTreeMap::new();
                while !stop.load(Ordering::Relaxed) {
                    *outcomes.entry(outcome(&gateway).await).or_default() += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                outcomes
            })
        };
        Self { clients: (0..CLIENTS).map(client).collect(), stop }
    }

    /// How often each outcome came.
    async fn stop(self) -> BTreeMap<String, usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for client in self.clients {
            for (outcome, count) in client.await.unwrap() {
                *all.entry(outcome).or_default() += count;
            }
        }
        all
    }
}

/// Asks once: `data`, or the codes of the errors. Panics if the answer is late or no answer.
async fn outcome(gateway: &Gateway) -> String {
    let begun = Instant::now();
    let answer = gateway.request(BOARD, json!({})).await;
    let took = begun.elapsed();
    assert!(took < LIMIT + SLACK, "an answer took {took:?}: {}", answer.text);
    let Some(errors) = answer.body["errors"].as_array() else {
        assert!(answer.body["data"]["tasks"]["totalCount"].as_u64() > Some(0), "{}", answer.text);
        return "data".to_owned();
    };
    let mut codes: Vec<&str> =
        errors.iter().map(|error| error["extensions"]["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(",")
}

/// Waits until it answers with data again.
async fn recovered(gateway: &Gateway) -> Duration {
    let begun = Instant::now();
    while outcome(gateway).await != "data" {
        assert!(begun.elapsed() < Duration::from_secs(15), "the service does not resume");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

async fn ready(gateway: &Gateway) -> u16 {
    assert_eq!(gateway.get("/health/live").await.status(), 200);
    gateway.get("/health/ready").await.status().as_u16()
}

/// The server's processes: the postmaster and its children.
fn processes(postmaster: u32) -> Vec<u32> {
    let mut all = vec![postmaster];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state ppid …
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if parent == Some(&postmaster.to_string()) {
            all.extend(stat.split(' ').next().and_then(|pid| pid.parse::<u32>().ok()));
        }
    }
    all
}

fn signal(name: &str, pids: &[u32]) {
    let status =
        Command::new("kill").arg(format!("-{name}")).args(pids.iter().map(u32::to_string)).status().unwrap();
    // A backend may have ended by itself meanwhile.
    println!("kill -{name} {pids:?}: {status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_outlives_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let mut postgres = PrivatePostgres::start(PostgresOptions::throwaway(dir.path())).await.unwrap();
    let url = postgres.database_url();
    migrate(&url).await.unwrap();
    let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
    let source = Source::Generate("tasks=100,evidence=5".parse().unwrap());
    run(&mut conn, source, Options::default(), |_| {}).await.unwrap();
    drop(conn);
    let limit = LIMIT.as_millis().to_string();
    let settings = ["--request-timeout-ms", &limit, "--pool-wait-ms", "1000"];
    let gateway = Arc::new(Gateway::start(&url, &settings, Access::Everyone).await);

    // Killed, and down for a while.
    let load = Load::start(&gateway);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // All of it: a backend that is busy when the postmaster dies goes on until it is idle.
    signal("KILL", &processes(postgres.pid().unwrap()));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(ready(&gateway).await, 503);
    postgres.restart().await.unwrap();
    println!("killed: back after {:?}", recovered(&gateway).await);
    let outcomes = load.stop().await;
    println!("killed: {outcomes:?}");
    assert!(outcomes["data"] > 10 && outcomes["UNAVAILABLE"] > 3 && outcomes.len() == 2, "{outcomes:?}");
    assert_eq!(ready(&gateway).await, 200);

    // Restarted in order, as for an upgrade.
    let load = Load::start(&gateway);
    tokio::time::sleep(Duration::from_millis(100)).await;
    postgres.restart().await.unwrap();
    println!("restarted: back after {:?}", recovered(&gateway).await);
    let outcomes = load.stop().await;
    println!("restarted: {outcomes:?}");
    assert!(
        outcomes["data"] > 0 && outcomes.keys().all(|code| code == "data" || code == "UNAVAILABLE"),
        "{outcomes:?}"
    );

    // Frozen: it takes what is sent and answers nothing.
    let load = Load::start(&gateway);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let frozen = processes(postgres.pid().unwrap());
    signal("STOP", &frozen);
    tokio::time::sleep(LIMIT).await;
    signal("CONT", &frozen);
    println!("frozen: back after {:?}", recovered(&gateway).await);
    let outcomes = load.stop().await;
    println!("frozen: {outcomes:?}");
    let known = ["data", "TIMEOUT", "UNAVAILABLE"];
    assert!(
        outcomes["data"] > 0 && outcomes.keys().all(|code| known.contains(&code.as_str())),
        "{outcomes:?}"
    );

    // One backend after the other is thrown out, as by an administrator.
    let load = Load::start(&gateway);
    for _ in 0..10 {
        crate::harness::column(
            &url,
            "select pg_terminate_backend(pid)::text from pg_stat_activity \
            where application_name = 'evidence-gateway'",
        )
        .await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let outcomes = load.stop().await;
    println!("thrown out: {outcomes:?}");
    assert!(
        outcomes["data"] > 0 && outcomes.keys().all(|code| code == "data" || code == "UNAVAILABLE"),
        "{outcomes:?}"
    );
    recovered(&gateway).await;
    postgres.stop().await.unwrap();
}

/// The cancellation of a request whose client hung up may come late, when the server is slow to take connections. The
/// request that has the connection then must not be its victim.
#[tokio::test]
async fn a_late_cancellation_hits_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = PrivatePostgres::start(PostgresOptions::throwaway(dir.path())).await.unwrap();
    let url = postgres.database_url();
    migrate(&url).await.unwrap();
    let settings = ["--request-timeout-ms", "1000", "--pool-size", "1", "--cache-bytes", "0"];
    let gateway = Arc::new(Gateway::start(&url, &settings, Access::Everyone).await);
    let ask = || {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.request("{ tasks { totalCount } }", json!({})).await })
    };
    assert_eq!(ask().await.unwrap().body["data"]["tasks"]["totalCount"], 0);
    let mut other = AsyncPgConnection::establish(&url).await.unwrap();
    let lock = "begin; lock table tasks in access exclusive mode";
    other.batch_execute(lock).await.unwrap();
    let postmaster = [postgres.pid().unwrap()];
    signal("STOP", &postmaster);
    let first = ask();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Its client hangs up. What it waited for is done; a connection that were used again would be free now.
    first.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.batch_execute("commit").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.batch_execute(lock).await.unwrap();
    let second = ask();
    tokio::time::sleep(Duration::from_millis(200)).await;
    signal("CONT", &postmaster);
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.batch_execute("commit").await.unwrap();
    let second = second.await.unwrap();
    assert_eq!(second.body["data"]["tasks"]["totalCount"], 0, "{}", second.text);
    postgres.stop().await.unwrap();
}

/// A gateway starts without its database, and serves when that comes.
#[tokio::test]
async fn the_database_may_come_later() {
    let nowhere = "postgres://nobody@/nothing?host=%2Fnonexistent";
    let gateway = Gateway::start(nowhere, &["--pool-wait-ms", "200"], Access::Everyone).await;
    let (code, message) = gateway.error("{ agents { totalCount } }", json!({})).await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("UNAVAILABLE", "PostgreSQL is not available; try again later")
    );
    assert_eq!(gateway.ask("{ __typename }").await, json!({"__typename": "Query"}));
    assert_eq!(ready(&gateway).await, 503);
}
