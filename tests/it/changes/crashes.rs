//! PostgreSQL ends in the midst of it, in order or not, and nothing is lost.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use evidence_gateway::model::change::{Place, Snapshot, now, read};
use evidence_gateway::store::db::Db;
use evidence_gateway::store::db::migrations::migrate;
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use uuid::Uuid;

use super::readers::Reader;
use super::writers::{self, Writers, evidence};
use super::{Running, collect, plain};
use crate::harness::{column, config, execute};

/// PostgreSQL is restarted while everybody writes and reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_database_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // One that keeps what it has committed, as the log is no more durable than the commits that it tells of.
    let mut postgres = PrivatePostgres::start(PostgresOptions::kept(dir.path())).await.unwrap();
    let url = postgres.database_url();
    migrate(&url).await.unwrap();
    writers::prepare(&url).await;
    let running = Running::start(&url).await;
    let mut follower = running.follow_all().await;
    let last = Uuid::now_v7();
    let following = tokio::spawn(async move { collect(&mut follower, last, Duration::ZERO).await.0 });
    let reader = {
        let url = url.clone();
        tokio::task::spawn_blocking(move || Reader::steady(&url).read_until(last))
    };
    for crash in [true, false] {
        let writers = Writers::start(&url, Duration::from_millis(1_000));
        writers.finish().await;
        if crash {
            let pid = postgres.pid().unwrap().to_string();
            assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        }
        postgres.restart().await.unwrap();
    }
    let restarted = Instant::now();
    execute(&url, &evidence(last, 0)).await;
    let changes = following.await.unwrap();
    println!("followed again after {:?}", restarted.elapsed());
    // The look that found it may have begun, and waited for the server, before.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(running.tail.last_contact().unwrap() > restarted);
    let ledger = writers::ledger(&url).await;
    writers::compare(&ledger, &changes.iter().map(plain).collect::<Vec<_>>(), last);
    let lines: Vec<_> = reader.await.unwrap().lines.into_iter().map(|line| line.change).collect();
    writers::compare(&ledger, &lines, last);
    postgres.stop().await.unwrap();
}

/// Numbers of transactions that never reached the disk are given out again after a crash. Who took them for seen
/// would miss what commits under them next.
#[tokio::test]
async fn a_crash_that_gives_numbers_out_again_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut postgres = PrivatePostgres::start(PostgresOptions::kept(dir.path())).await.unwrap();
    let url = postgres.database_url();
    migrate(&url).await.unwrap();
    writers::prepare(&url).await;
    // On a slow machine the numbers would reach the disk all the same.
    execute(&url, "alter system set wal_writer_delay = '10s'").await;
    execute(&url, "select pg_reload_conf()").await;
    execute(&url, &evidence(Uuid::now_v7(), 0)).await;
    let options = config(&[]).db_options();
    let db = Db::connect(&url, &options).await.unwrap();
    let before = now(&db.session()).await.unwrap();
    let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
    for _ in 0..40 {
        xid(&mut conn, "select pg_current_xact_id()::text as xid").await;
    }
    let raw: Snapshot = column(&url, "select pg_current_snapshot()::text").await[0].parse().unwrap();
    let after = now(&db.session()).await.unwrap();
    let looked = read(&db.session(), &Place::after(Arc::new(before.clone())), None, 10).await.unwrap();
    let pid = postgres.pid().unwrap().to_string();
    assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
    postgres.restart().await.unwrap();
    let id = Uuid::now_v7();
    execute(&url, &evidence(id, 0)).await;
    for place in [Place::after(Arc::new(before)), Place::after(Arc::new(after)), looked.place] {
        let found = read(&db.session(), &place, None, 10).await.unwrap().changes;
        assert_eq!(found.iter().map(|change| change.id).collect::<Vec<_>>(), [Some(id)], "{place:?}");
        assert!(raw.sees(found[0].xid), "this PostgreSQL gives no number out again: {raw} {}", found[0].xid);
    }
    postgres.stop().await.unwrap();
}

async fn xid(conn: &mut AsyncPgConnection, query: &str) -> u64 {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        xid: String,
    }
    let rows: Vec<Row> = diesel::sql_query(query).load(conn).await.unwrap();
    rows[0].xid.parse().unwrap()
}
