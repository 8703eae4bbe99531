//! The change log: nothing is lost, repeated or out of order, whoever writes, whoever is killed, whoever is slow.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use evidence_gateway::cache::freshness::Verdict;
use evidence_gateway::changes::follower::Follower;
use evidence_gateway::changes::tail::Tail;
use evidence_gateway::error::Code;
use evidence_gateway::model::change::{Change, Place, Snapshot, oldest, prune};
use evidence_gateway::model::cursor::CursorKey;
use evidence_gateway::store::db::Db;
use evidence_gateway::store::redis::Redis;
use evidence_gateway::telemetry::Metrics;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::{Database, SECRET, config, execute, sample_url, texts};

mod crashes;
mod keys;
mod order;
mod program;
mod readers;
mod writers;

use readers::Reader;
use writers::{Writers, evidence};

/// A tail that runs until this goes away.
struct Running {
    tail: Tail,
    db: Db,
    running: JoinHandle<()>,
}

fn follow(tail: &Tail) -> JoinHandle<()> {
    let tail = tail.clone();
    tokio::spawn(async move { tail.follow_log().await })
}

impl Drop for Running {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Running {
    async fn start(url: &str) -> Self {
        let config = config(&[]);
        let db = Db::connect(url, &config.db_options()).await.unwrap();
        let tail = Tail::new(&config, url, db.clone(), Redis::Off);
        let running = follow(&tail);
        Self { tail, db, running }
    }

    /// A metric of the tail, once it is counted.
    fn metric(metrics: &Metrics, name: &str) -> String {
        let name = format!("evidence_gateway_change_log_{name} ");
        let text = metrics.text().unwrap();
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
    }

    async fn follow_all(&self) -> Follower {
        self.tail.follow(oldest(&self.db.session()).await.unwrap())
    }
}

fn key() -> CursorKey {
    CursorKey::new(SECRET.as_bytes())
}

/// Follows until a row comes, pausing after each of the first batches, and says how large the largest batch was.
async fn collect(follower: &mut Follower, last: Uuid, pause: Duration) -> (Vec<Change>, usize) {
    let (mut changes, mut largest, mut count) = (Vec::new(), 0, 0);
    while changes.last().is_none_or(|change: &Change| change.id != Some(last)) {
        let batch = tokio::time::timeout(Duration::from_secs(30), follower.next()).await.unwrap().unwrap();
        largest = largest.max(batch.changes.len());
        changes.extend(batch.changes.iter().cloned());
        count += 1;
        if count <= 6 {
            tokio::time::sleep(pause).await;
        }
    }
    (changes, largest)
}

/// What a change was, as the ledger and the lines of the program say it.
fn plain(change: &Change) -> [String; 3] {
    let id = change.id.map(|id| id.to_string()).unwrap_or_default();
    [change.entity.to_string(), id, change.op.as_str().to_owned()]
}

/// The program's `changes`, run to its end.
fn changes(url: &str, arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
    command.args(["--database-url", url, "--token-secret", SECRET, "changes"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The promise of the log, with everything that could break it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_arrives_once_and_in_order() {
    let database = Database::empty().await;
    let url = database.url.clone();
    writers::prepare(&url).await;
    let running = Running::start(&url).await;
    let mut prompt = running.follow_all().await;
    let mut slow = running.follow_all().await;
    let last = Uuid::now_v7();
    let prompt = tokio::spawn(async move { collect(&mut prompt, last, Duration::ZERO).await.0 });
    let slow = tokio::spawn(async move { collect(&mut slow, last, Duration::from_millis(1_200)).await.0 });

    let reader = {
        let url = url.clone();
        tokio::task::spawn_blocking(move || Reader::new(&url).read_until(last))
    };
    let writers = Writers::start_all(&url, Duration::from_secs(12)).await;
    let written = writers.finish().await;
    execute(&url, &evidence(last, 0)).await;

    let ledger = writers::ledger(&url).await;
    let committed: usize = ledger.values().flat_map(|steps| steps.values()).map(Vec::len).sum();
    let read = reader.await.unwrap();
    println!("{written:?}; {} transactions, {committed} changes, {} kills", ledger.len(), read.kills);
    assert!(read.kills >= 20, "{}", read.kills);
    assert!(committed > 4_000, "{committed}");
    let lines: Vec<_> = read.lines.iter().map(|line| line.change.clone()).collect();
    writers::compare(&ledger, &lines, last);
    for follower in [prompt, slow] {
        let changes = follower.await.unwrap();
        writers::compare(&ledger, &changes.iter().map(plain).collect::<Vec<_>>(), last);
    }

    // Any line's cursor gives, in another process that was not there, what followed that line here.
    let other = Running::start(&url).await;
    for at in [0, lines.len() / 3, lines.len() / 2, lines.len() - 2] {
        let place = Place::read("after", &read.lines[at].cursor, &key()).unwrap();
        let (rest, _) = collect(&mut other.tail.follow(place), last, Duration::ZERO).await;
        let mut rest: Vec<_> = rest.iter().map(plain).collect();
        let mut expected = lines[at + 1..].to_vec();
        // Sets end elsewhere in another process, so transactions may come in another order; changes may not be others.
        assert_eq!(rest.len(), expected.len());
        rest.sort();
        expected.sort();
        assert_eq!(rest, expected);
    }
}

/// One transaction that is larger than what a process is willing to hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_transaction_comes_in_pages() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let running = Running::start(url).await;
    let (mut prompt, mut late) = (running.follow_all().await, running.follow_all().await);
    let last = Uuid::now_v7();
    execute(url, &format!("begin; {}; {}; commit", writers::many_evidences(25_000), evidence(last, 0))).await;
    let ((live, live_page), (again, page)) = tokio::join!(
        collect(&mut prompt, last, Duration::ZERO),
        collect(&mut late, last, Duration::from_millis(5))
    );
    assert!(live_page <= 1_000 && page <= 1_000, "{live_page} {page}");
    let of = |changes: &[Change]| changes.iter().map(|change| (change.xid, change.seq)).collect::<Vec<_>>();
    assert_eq!(of(&live), of(&again));
    assert!(of(&live).is_sorted_by(|a, b| a < b));
    assert_eq!(live.iter().filter(|change| change.entity == "evidence").count(), 25_001);

    // From the midst of it, by the program.
    let (ok, all, _) = changes(url, &[]);
    let all: Vec<&str> = all.lines().collect();
    assert!(ok && all.len() == live.len());
    let line: Value = serde_json::from_str(all[12_345]).unwrap();
    let (ok, rest, _) = changes(url, &["--after", line["cursor"].as_str().unwrap()]);
    assert!(ok);
    let of = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["id"].clone();
    assert!(rest.lines().map(|line| of(&line)).eq(all[12_346..].iter().map(of)));
}

/// A tail that ended and begins anew: consumers miss nothing of what was written meanwhile, and need not wait for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_begins_anew_leaves_nothing_out() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let mut running = Running::start(url).await;
    let mut follower = running.follow_all().await;
    for round in 0..3 {
        let seen = Uuid::now_v7();
        execute(url, &evidence(seen, round)).await;
        collect(&mut follower, seen, Duration::ZERO).await;
        running.running.abort();
        let unseen = Uuid::now_v7();
        execute(url, &evidence(unseen, round)).await;
        let before = running.tail.reached().unwrap();
        running.running = follow(&running.tail);
        let (changes, _) = collect(&mut follower, unseen, Duration::ZERO).await;
        assert_eq!(changes.iter().filter(|change| change.entity == "evidence").count(), 1);
        let reached = running.tail.catch_up(Duration::from_secs(10)).await.unwrap();
        // Whatever was known to be fresh before is in doubt, and what is read from now on is not.
        let freshness = running.tail.freshness();
        let verdict = |since| freshness.judge(|| None, since);
        assert!(reached.batch > before.batch, "{} {}", reached.batch, before.batch);
        assert!(
            matches!(verdict(before.batch), Verdict::Forgotten)
                && matches!(verdict(reached.batch), Verdict::Fresh(_))
        );
    }
}

/// Who was away for too long is told so, and so is who makes cursors up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_too_old_or_forged_is_refused() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let running = Running::start(url).await;
    let session = running.db.session();
    for n in 0..20 {
        execute(url, &evidence(Uuid::now_v7(), n)).await;
    }
    let (_, lines, _) = changes(url, &[]);
    let cursors: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["cursor"].as_str().unwrap().to_owned())
        .collect();
    let hour = Duration::from_secs(3_600);
    assert_eq!(prune(&session, hour, 1_000).await.unwrap(), 0);

    // Not while somebody who began before may still read them.
    let mut open = database.connect().await;
    open.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    execute(url, &evidence(Uuid::now_v7(), 0)).await;
    let (_, before, _) = changes(url, &["--after", &cursors[0]]);
    assert_eq!(before.lines().count(), cursors.len());
    // In small batches. Transactions of the server's other databases hold the log too, while they are open.
    let (mut removed, begun) = (0, Instant::now());
    while removed < cursors.len() && begun.elapsed() < Duration::from_secs(40) {
        match prune(&session, Duration::ZERO, 7).await.unwrap() {
            0 => tokio::time::sleep(Duration::from_millis(50)).await,
            count => removed += usize::try_from(count).unwrap(),
        }
    }
    assert_eq!((removed, prune(&session, Duration::ZERO, 7).await.unwrap()), (cursors.len(), 0));
    let (ok, _, text) = changes(url, &["--after", &cursors[0]]);
    assert!(!ok && text.contains("does not reach back"), "{text}");
    let (ok, rest, _) = changes(url, &[]);
    assert!(ok && rest.lines().count() == 1, "{rest}");
    drop(open);
    let place = Place::read("after", &cursors[0], &key()).unwrap();
    let error = running.tail.follow(place).next().await.unwrap_err();
    assert_eq!(error.code(), Code::CursorExpired);
    let latest: Value = serde_json::from_str(rest.lines().next().unwrap()).unwrap();
    let latest = latest["cursor"].as_str().unwrap();
    assert_eq!(changes(url, &["--after", latest]), (true, String::new(), String::new()));

    // A cursor of a later life of the database, from before a backup was restored.
    let future = Place::after(Arc::new(Snapshot::up_to(1 << 40))).cursor(&key());
    let (ok, _, text) = changes(url, &["--after", &future]);
    assert!(!ok && text.contains("does not know this cursor"), "{text}");

    let forged = Place::after(Arc::new(Snapshot::up_to(5))).cursor(&CursorKey::new(b"another secret"));
    let mut bent = latest.to_owned();
    bent.replace_range(12..13, if bent.as_bytes()[12] == b'A' { "B" } else { "A" });
    for wrong in [forged.as_str(), &bent, "", "x", &latest[1..]] {
        let error = Place::read("after", wrong, &key()).unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::BadUserInput, Some("after")), "{wrong}");
        let (ok, _, text) = changes(url, &["--after", wrong]);
        assert!(!ok && text.contains("--after is not a cursor of the change log"), "{text}");
    }
}

/// Operators see what passes, who is behind and how long nothing was heard.
#[tokio::test]
async fn the_tail_counts_what_it_does() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let running = Running::start(url).await;
    let metrics = Metrics::new().unwrap();
    running.tail.count_in(&metrics).unwrap();
    assert!(running.tail.count_in(&metrics).is_err());
    let mut follower = running.follow_all().await;
    let last = Uuid::now_v7();
    // Two projects were there before.
    let following =
        tokio::spawn(async move { (collect(&mut follower, last, Duration::ZERO).await.0, follower) });
    while Running::metric(&metrics, "readers_behind") == "0" {
        tokio::task::yield_now().await;
    }
    // It begins where the log ends when it first looks.
    while running.tail.reached().is_none() {
        tokio::task::yield_now().await;
    }
    execute(url, &format!("begin; {}; {}; commit", writers::many_evidences(4), evidence(last, 0))).await;
    let (changes, follower) = following.await.unwrap();
    assert_eq!(changes.len(), 7);
    let values = ["changes_total", "age_seconds_count", "batches_total", "pruned_total"];
    assert_eq!(values.map(|name| Running::metric(&metrics, name)), ["5", "5", "1", "0"]);
    drop(follower);
    assert_eq!(Running::metric(&metrics, "readers_behind"), "0");
    assert!(Running::metric(&metrics, "silence_seconds").parse::<f64>().unwrap() < 5.0);
}

fn snapshots() -> impl Strategy<Value = (u64, u64, Vec<u64>)> {
    (1_u64..50, 0_u64..20).prop_flat_map(|(xmin, span)| {
        let running = proptest::collection::btree_set(xmin..=xmin + span, 0..8);
        running.prop_map(move |set| {
            let running: Vec<u64> = set.into_iter().filter(|xid| *xid < xmin + span).collect();
            (xmin, xmin + span, running)
        })
    })
}

/// `Snapshot` sees what PostgreSQL says that it sees.
#[tokio::test]
async fn snapshots_see_what_postgresql_says() {
    let mut runner = TestRunner::deterministic();
    let texts_of: Vec<String> = (0..300)
        .map(|_| {
            let (xmin, xmax, running) = snapshots().new_tree(&mut runner).unwrap().current();
            let running: Vec<_> = running.iter().map(u64::to_string).collect();
            format!("{xmin}:{xmax}:{}", running.join(","))
        })
        .collect();
    let list = texts_of.iter().map(|text| format!("('{text}')")).collect::<Vec<_>>().join(",");
    let query = format!(
        "select s::pg_snapshot::text, (select string_agg(x::text, ',' order by x) from generate_series(1, 80) x
            where pg_visible_in_snapshot(x::text::xid8, s::pg_snapshot)) from (values {list}) v (s)"
    );
    let answers = texts(&sample_url(), &query).await;
    assert_eq!(answers.len(), texts_of.len());
    let mut read: Vec<(Snapshot, Vec<u64>)> = Vec::new();
    for row in answers {
        let [text, seen] = <[_; 2]>::try_from(row).unwrap();
        let (text, seen) = (text.unwrap(), seen.unwrap_or_default());
        let seen: Vec<u64> = seen.split(',').filter_map(|xid| xid.parse().ok()).collect();
        let snapshot: Snapshot = text.parse().unwrap();
        assert_eq!(snapshot.to_string(), text);
        assert_eq!((1..=80).filter(|xid| snapshot.sees(*xid)).collect::<Vec<_>>(), seen, "{text}");
        read.push((snapshot, seen));
    }
    for (one, seen) in &read {
        for (other, others) in &read {
            // The last transaction before the end of a real snapshot is always over.
            if other.end() == 1 || other.sees(other.end() - 1) {
                assert_eq!(one.covers(other), others.iter().all(|xid| seen.contains(xid)), "{one} {other}");
            }
        }
    }
    for wrong in ["", "1:2", "2:1:", "1:5:4,3", "3:5:2", "1:5:5", "1:5:x", "0:5:", "1:2:3:4"] {
        assert!(wrong.parse::<Snapshot>().is_err(), "{wrong}");
    }
}
