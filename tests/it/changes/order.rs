//! The order of changes, and how large sets are read in it.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use evidence_gateway::changes::batch::Batch;
use evidence_gateway::model::change::{Change, Place, now, oldest, prune, read};
use evidence_gateway::store::db::Db;
use uuid::Uuid;

use crate::changes::{key, writers};
use crate::harness::{Database, column, config, execute};

async fn connected(url: &str) -> Db {
    Db::connect(url, &config(&[]).db_options()).await.unwrap()
}

/// What follows a place, up to the end of the set or else the present, and the cursor behind each change.
async fn read_on(db: &Db, mut place: Place, page: usize) -> Vec<(Change, String)> {
    let mut read_so_far = Vec::new();
    loop {
        let slice = read(&db.session(), &place, None, page).await.unwrap();
        assert!(slice.changes.len() <= page);
        let (batch, next) = Batch::new(None, slice);
        let cursors = (0..batch.changes.len()).map(|n| batch.place(n).cursor(&key()));
        read_so_far.extend(batch.changes.iter().cloned().zip(cursors));
        place = next;
        if place.within.is_none() {
            return read_so_far;
        }
    }
}

fn numbers(changes: &[(Change, String)]) -> Vec<i64> {
    changes.iter().map(|(change, _)| change.seq).collect()
}

/// A transaction that began first and wrote last comes last, also in small pages and from any cursor.
#[tokio::test]
async fn a_row_changes_in_the_order_in_which_it_was_changed() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let task = Uuid::now_v7();
    let project = writers::PROJECT;
    execute(
        url,
        &format!(
            "insert into tasks (id, project_id, title, intent) values ('{task}', '{project}', 't', 'i')"
        ),
    )
    .await;
    let db = connected(url).await;
    let status = |status: &str| format!("update tasks set status = '{status}' where id = '{task}'");
    // One that is running at the begin, and wrote; one that has its number only; and one that began later.
    let [mut seen, mut early, mut late] =
        [database.connect().await, database.connect().await, database.connect().await];
    seen.batch_execute(&format!("begin; {}", writers::evidence(Uuid::now_v7(), 0))).await.unwrap();
    early.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    execute(url, &writers::evidence(Uuid::now_v7(), 1)).await;
    let begin = Place::after(Arc::new(now(&db.session()).await.unwrap()));
    late.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    execute(url, &status("processing")).await;
    late.batch_execute(&format!("{}; commit", status("failed"))).await.unwrap();
    execute(url, &status("pending")).await;
    early.batch_execute(&format!("{}; commit", status("processing"))).await.unwrap();
    execute(url, &status("completed")).await;
    execute(url, &format!("begin; {}; rollback", writers::many_evidences(3))).await;
    seen.batch_execute(&format!("{}; commit", writers::many_evidences(2))).await.unwrap();

    let all = read_on(&db, begin.clone(), 1_000).await;
    assert_eq!(all.len(), 8);
    assert!(numbers(&all).is_sorted_by(|a, b| a < b));
    let statuses: Vec<&str> =
        all.iter().filter_map(|(change, _)| change.keys.get("status")?.as_str()).collect();
    assert_eq!(statuses, ["processing", "failed", "pending", "processing", "completed"]);
    // What commits now is of no set that ended before.
    execute(url, &status("cancelled")).await;
    for page in [1, 2, 3, 7, 8, 9] {
        let again = read_on(&db, begin.clone(), page).await;
        assert_eq!(numbers(&again)[..8], numbers(&all), "{page}");
        assert_eq!(again.len(), 9, "{page}");
        for (n, (_, cursor)) in all.iter().enumerate().take(7) {
            let place = Place::read("after", cursor, &key()).unwrap();
            assert_eq!(numbers(&read_on(&db, place, page).await), numbers(&all[n + 1..]), "{page}");
        }
        for (n, (_, cursor)) in again.iter().enumerate().take(8) {
            let place = Place::read("after", cursor, &key()).unwrap();
            assert_eq!(numbers(&read_on(&db, place, 4).await), numbers(&again[n + 1..]), "{page}");
        }
    }
}

/// A transaction larger than all the rest is read in time linear in its size: however much stands before and after
/// it in the log, whatever else is open, and whatever PostgreSQL knew of the table when the plans were made.
#[tokio::test]
async fn a_huge_set_costs_what_it_has() {
    const HUGE: usize = 260_000;
    let database = Database::empty().await;
    let url = &database.url;
    // So that it is known to be empty, and stays so.
    execute(url, "alter table change_log set (autovacuum_enabled = off)").await;
    execute(url, "vacuum analyze change_log").await;
    let many = |count: usize| {
        format!(
            "insert into change_log (entity, op) select 'tasks', 'insert' from generate_series(1, {count})"
        )
    };
    let db = connected(url).await;
    let [mut old, mut open] = [database.connect().await, database.connect().await];
    old.batch_execute(&format!("begin; {}", many(3))).await.unwrap();
    open.batch_execute(&format!("begin; {}", many(3))).await.unwrap();
    for _ in 0..7 {
        read_on(&db, oldest(&db.session()).await.unwrap(), 1).await;
    }
    execute(url, &many(100_000)).await;
    let begin = Place::after(Arc::new(now(&db.session()).await.unwrap()));
    execute(url, &many(HUGE)).await;
    old.batch_execute(&format!("{}; commit", many(3))).await.unwrap();
    let slice = read(&db.session(), &begin, None, 1_000).await.unwrap();
    assert!(slice.is_partial());
    execute(url, &many(100_000)).await;
    let cost = "select seq_scan::text || ' ' || (select sum(idx_tup_read) from pg_stat_user_indexes \
        where relname = 'change_log') from pg_stat_user_tables where relname = 'change_log'";
    // A session tells what it did when it ends.
    let told = async |db: Db, least: u64| {
        drop(db);
        loop {
            let told = column(url, cost).await.remove(0);
            let (scans, read) = told.split_once(' ').unwrap();
            if read.parse::<u64>().unwrap() >= least {
                return (scans.to_owned(), read.parse::<u64>().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let before = told(db, 1).await;
    let db = connected(url).await;
    let mut place = slice.place;
    let (mut seqs, mut cursor) = (Vec::new(), String::new());
    loop {
        let slice = read(&db.session(), &place, None, 1_000).await.unwrap();
        if seqs.len() == HUGE / 2 / 1_000 * 1_000 {
            cursor = slice.place.cursor(&key());
        }
        seqs.extend(slice.changes.iter().map(|change| change.seq));
        place = slice.place;
        if place.within.is_none() {
            break;
        }
    }
    assert_eq!(seqs.len(), HUGE + 6);
    assert!(seqs.is_sorted_by(|a, b| a < b));
    let after = told(db, before.1 + HUGE as u64).await;
    assert_eq!(after.0, before.0, "the log was scanned");
    // To see where it lies takes two readings of it.
    assert!(after.1 - before.1 < HUGE as u64 * 4, "{} changes were looked at", after.1 - before.1);

    // And so is its rest, by a process that only has the cursor.
    let db = connected(url).await;
    let rest = read_on(&db, Place::read("after", &cursor, &key()).unwrap(), 1_000).await;
    assert!(numbers(&rest).iter().eq(seqs[seqs.len() - rest.len()..].iter()));
    assert!(rest.len().abs_diff(HUGE / 2) < 2_000, "{}", rest.len());
    let rested = told(db, after.1 + HUGE as u64 / 2 - 2_000).await;
    assert_eq!(rested.0, before.0, "the log was scanned");
    assert!(rested.1 - after.1 < HUGE as u64, "{} changes were looked at", rested.1 - after.1);
    open.batch_execute("rollback").await.unwrap();
}

/// Changes that a dump brought from another server, whose transactions have higher numbers, are neither read nor
/// kept, and nobody is told that he missed them.
#[tokio::test]
async fn changes_of_another_server_are_not_ours() {
    let database = Database::empty().await;
    let url = &database.url;
    writers::prepare(url).await;
    let foreign = "insert into change_log (xid, entity, op) \
        select (1000000000 + n)::text::xid8, 'tasks', 'insert' from generate_series(1, 20) n; \
        update change_log_pruned set xid = '900000000'";
    execute(url, foreign).await;
    let db = connected(url).await;
    let (hour, session) = (Duration::from_secs(3_600), db.session());
    let all = || async { read_on(&db, oldest(&session).await.unwrap(), 2).await.len() };
    let begin = Place::after(Arc::new(now(&session).await.unwrap()));
    assert_eq!(all().await, 2);
    execute(url, &writers::evidence(Uuid::now_v7(), 0)).await;
    assert_eq!(read_on(&db, begin.clone(), 10).await.len(), 1);
    assert_eq!(prune(&session, hour, 15).await.unwrap(), 15);
    assert_eq!(prune(&session, hour, 15).await.unwrap(), 5);
    assert_eq!(prune(&session, hour, 15).await.unwrap(), 0);
    let left = "select count(*) || ' ' || (select xid from change_log_pruned) from change_log";
    assert_eq!(column(url, left).await, ["3 0"]);
    assert_eq!((all().await, read_on(&db, begin, 10).await.len()), (3, 1));
}
