//! Who is behind: what it costs to come back.

use super::operations::{PROJECTS, prepare};
use super::*;
use crate::harness::{column, member};

/// Changes of the log that PostgreSQL has looked up for gateways, all of which are gone.
async fn looked_up(url: &str) -> usize {
    let here = "select count(*)::text from pg_stat_activity where datname = current_database() \
                and application_name like 'evidence-gateway%'";
    let begun = std::time::Instant::now();
    while column(url, here).await != ["0"] {
        assert!(begun.elapsed() < Duration::from_secs(20), "connections stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let query =
        "select coalesce(idx_tup_fetch, 0)::text from pg_stat_all_tables where relname = 'change_log'";
    column(url, query).await[0].parse().unwrap()
}

async fn insert(url: &str, tasks: usize) {
    let script = format!(
        "insert into tasks (project_id, title, intent) select '{}', 't', 'i' from generate_series(1, {tasks})",
        PROJECTS[0]
    );
    execute(url, &script).await;
}

/// Each change is looked at a few times and not once per page of events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_back_costs_what_is_read() {
    const CHANGES: usize = 900;
    let database = Database::empty().await;
    let url = &database.url;
    prepare(url).await;
    let viewer = member(None, &PROJECTS);
    let document = "subscription($after: String) { taskChanged(after: $after) { cursor operation id } }";
    let cursor = {
        let process = Process::start(url, &[]).await;
        let mut stream = process.watch(document, json!({}), &viewer).await;
        execute(url, "update tasks set title = 'the first'").await;
        next(&mut stream).await;
        next(&mut stream).await.cursor.unwrap()
    };
    insert(url, CHANGES).await;
    let before = looked_up(url).await;
    {
        let process = Process::start(url, &[]).await;
        let mut stream = process.watch(document, json!({"after": &*cursor}), &viewer).await;
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..CHANGES {
            ids.insert(told(&next(&mut stream).await)["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(ids.len(), CHANGES);
    }
    let cost = looked_up(url).await - before;
    println!("{cost} rows looked up for {CHANGES} changes");
    assert!((CHANGES..5 * CHANGES).contains(&cost), "{cost}");
}

/// A set whose changes just fill their pages ends like any other: who comes later does not wait for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_may_end_with_a_page() {
    const TWO_PAGES: usize = 2_000;
    let database = Database::empty().await;
    let url = &database.url;
    prepare(url).await;
    let viewer = member(None, &PROJECTS);
    let document = "subscription($after: String) { taskChanged(after: $after) { cursor } }";
    let process = Process::start(url, &[]).await;
    let mut present = process.watch(document, json!({}), &viewer).await;
    insert(url, 1).await;
    let cursor = next(&mut present).await.cursor.unwrap();
    insert(url, TWO_PAGES).await;
    for _ in 0..TWO_PAGES {
        next(&mut present).await;
    }
    let mut later = process.watch(document, json!({"after": &*cursor}), &viewer).await;
    for _ in 0..TWO_PAGES {
        next(&mut later).await;
    }
    is_quiet(&mut later).await;
    // Both are where the feed is.
    execute(url, "update tasks set title = 'the last' where id = (select min(id::text)::uuid from tasks)")
        .await;
    assert_eq!(next(&mut later).await.cursor, next(&mut present).await.cursor);
}
