//! Who indexes is killed, and where it writes to: the next one goes on, and in the end nothing is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use evidence_gateway::store::vectors::Vectors;
use uuid::Uuid;

use super::{
    Duration, Instant, PROJECT, Process, World, agree, differences, execute, index, insert, metric, table,
    vectors_are_right, wrong_vector,
};
use crate::harness::config;
use crate::qdrant::TestQdrant;

/// Rows that are inserted, changed or deleted while everybody is killed.
const WRITES: usize = 10_000;

/// The index, from outside: no gateway may have a folder open at the time.
async fn open(world: &World) -> Vectors {
    let settings = world.settings();
    let config = config(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    let layout = evidence_gateway::store::vectors::Layout {
        model: "a-model".to_owned(),
        dimension: crate::embedder::api::DIMENSION,
        keys: evidence_gateway::model::searched::INDEX_KEYS,
    };
    Vectors::open(&config.vectors, &config.vectors_dir(), layout).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_takes_over() {
    let world = World::new(Some(TestQdrant::start().await)).await;
    let (first, second) = (world.process(), world.process());
    let vectors = open(&world).await;
    let active = async |process: &Process| metric(&process.url, "indexer_active").await;
    execute(world.url(), &insert(Uuid::now_v7(), "one")).await;
    agree(world.url(), &vectors).await;
    let (leads, waits) = match (active(&first).await, active(&second).await) {
        (1.0, 0.0) => (first, second),
        (0.0, 1.0) => (second, first),
        other => panic!("one of two indexes: {other:?}"),
    };
    drop(leads);
    execute(world.url(), &insert(Uuid::now_v7(), "two")).await;
    let took = agree(world.url(), &vectors).await;
    assert_eq!((active(&waits).await, table(world.url()).await.len()), (1.0, 2));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!((world.embedded("one"), world.embedded("two")), (1, 1));
}

/// The deeds of one writer, on rows of its own. Each is one transaction.
fn deed(writer: usize, round: usize) -> Vec<String> {
    let mine = format!("external_id like 'w{writer}-%'");
    // The same ids again, once they are deleted.
    let rows = |from: usize, to: usize| {
        format!(
            "insert into evidence (id, external_id, project_id, title, content, source_type) \
             select md5('{writer} ' || n)::uuid, 'w{writer}-' || n, '{PROJECT}', 'Piece ' || n, \
             'round {round} of {writer}', 'log' from generate_series({from}, {to}) n on conflict do nothing"
        )
    };
    let some = |offset: usize, count: usize| {
        format!(
            "id in (select id from evidence where {mine} order by md5(id::text || '{round}') offset {offset} limit {count})"
        )
    };
    let first = round * 37 % 500;
    match round % 6 {
        0 | 3 => vec![rows(first, first + 99)],
        1 => vec![
            format!("update evidence set content = 'changed in {round} by {writer}' where {}", some(0, 30)),
            format!("update evidence set credibility_score = random() where {}", some(30, 30)),
        ],
        2 => vec![format!("delete from evidence where {}", some(0, 25)), rows(first, first + 30)],
        4 => vec![
            format!("update evidence set deleted_at = now() where {}", some(0, 20)),
            format!(
                "update evidence set deleted_at = null where deleted_at is not null and {}",
                some(10, 30)
            ),
        ],
        _ => vec![
            format!("update evidence set tags = array['{round}'] where {}", some(0, 40)),
            "select pg_sleep(0.15)".to_owned(),
            format!("update evidence set title = title || '!' where {}", some(0, 10)),
        ],
    }
}

async fn write(url: String, writer: usize, written: Arc<AtomicUsize>) {
    let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
    let mut round = 0;
    while AtomicUsize::load(&written, Ordering::Relaxed) < WRITES {
        conn.batch_execute("begin").await.unwrap();
        let mut rows = 0;
        for statement in deed(writer, round) {
            let count = diesel::sql_query(&statement).execute(&mut conn).await.unwrap();
            rows += if statement.starts_with("select") { 0 } else { count };
        }
        if round % 11 == 10 {
            conn.batch_execute("rollback").await.unwrap();
        } else {
            conn.batch_execute("commit").await.unwrap();
            written.fetch_add(rows, Ordering::Relaxed);
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(160)).await;
    }
}

/// Random moments, the same in every run.
fn pause(n: u64) -> Duration {
    let dice = n.wrapping_add(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    Duration::from_millis(100 + dice % 800)
}

async fn all_are_killed(mut world: World) {
    let url = world.url().to_owned();
    let written = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..4).map(|writer| tokio::spawn(write(url.clone(), writer, written.clone()))).collect();
    // In a folder there is one; of several on a server one indexes.
    let mut processes = vec![world.process()];
    if world.server.is_some() {
        processes.push(world.process());
    }
    let begun = Instant::now();
    let (mut kills, mut outages) = (0, 0);
    while !AtomicBool::load(&over, Ordering::Relaxed) {
        tokio::time::sleep(pause(kills)).await;
        if let Some(server) = world.server.as_mut().filter(|_| kills % 3 == 1) {
            server.stop().await;
            tokio::time::sleep(pause(kills) / 2).await;
            server.restart().await;
            outages += 1;
        }
        // Its place first: a folder has room for one.
        drop(processes.remove(0));
        processes.push(world.process());
        kills += 1;
        over.store(writers.iter().all(tokio::task::JoinHandle::is_finished), Ordering::Relaxed);
        assert!(begun.elapsed() < Duration::from_secs(60), "{written:?}");
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let rows = AtomicUsize::load(&written, Ordering::Relaxed);
    println!("{rows} rows written, {kills} gateways killed, {outages} outages, {:?}", begun.elapsed());
    assert!(rows >= WRITES && kills >= 4, "{rows} {kills}");
    let vectors = if world.server.is_some() {
        let vectors = open(&world).await;
        println!("agreed after {:?}", agree(&url, &vectors).await);
        vectors
    } else {
        let mut attempts = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            processes.clear();
            let vectors = open(&world).await;
            let differences = differences(&table(&url).await, &index(&vectors).await.unwrap());
            attempts += 1;
            // A row that was deleted and made anew has its old version again: only its vector tells.
            if differences.is_empty() && wrong_vector(&url, &vectors).await.is_none() {
                println!("agreed at look {attempts}");
                break vectors;
            }
            let ids: Vec<_> = differences.iter().map(|it| it.0).collect();
            let versions = vectors.versions(&ids).await.unwrap();
            assert!(attempts < 15, "{differences:?} {versions:?}");
            drop(vectors);
            processes.push(world.process());
        }
    };
    vectors_are_right(&url, &vectors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_agrees_with_the_table_whoever_is_killed() {
    all_are_killed(World::new(None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_agrees_with_the_table_whoever_is_killed() {
    all_are_killed(World::new(Some(TestQdrant::start().await)).await).await;
}
