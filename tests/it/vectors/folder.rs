//! What only an index in a folder has to care for.

use evidence_gateway::store::vectors::Vectors;

use super::{Place, Random, east, id, layout, nearest, point, toward};

#[tokio::test]
async fn what_was_flushed_is_there_after_a_reopening() {
    let place = Place::folder();
    let vectors = place.open().await;
    vectors.upsert(vec![point(1, 3, 7, east()), point(2, 1, 8, toward(0.5))]).await.unwrap();
    vectors.delete(&[(id(2), 1)]).await.unwrap();
    vectors.set_bookmark("here").await.unwrap();
    vectors.flush().await.unwrap();
    drop(vectors);
    let vectors = place.open().await;
    assert_eq!(nearest(&vectors, 10).await, [1]);
    assert_eq!(vectors.bookmark().await.unwrap().as_deref(), Some("here"));
    vectors.upsert(vec![point(1, 2, 8, toward(0.1)), point(2, 1, 8, east())]).await.unwrap();
    assert_eq!(vectors.versions(&[id(1), id(2)]).await.unwrap(), [(id(1), 3)].into());
    vectors.upsert(vec![point(1, 4, 8, east())]).await.unwrap();
    assert_eq!(vectors.versions(&[id(1)]).await.unwrap(), [(id(1), 4)].into());
}

#[tokio::test]
async fn one_process_at_a_time() {
    let place = Place::folder();
    let vectors = place.open().await;
    let draft = place.draft().await;
    for opened in
        [place.open_as(layout()).await, Vectors::draft(&place.settings, place.path(), layout()).await]
    {
        let error = opened.unwrap_err();
        assert!(error.message().contains("is open in another process"), "{error}");
    }
    drop((vectors, draft));
    place.open().await;
    place.draft().await;
}

/// Indexes without words, which the first versions made, are made anew; a folder with something else in it is not
/// touched beyond that.
#[tokio::test]
async fn an_index_of_the_first_versions_is_made_anew() {
    let place = Place::folder();
    std::fs::create_dir_all(place.path().join("shard/segments")).unwrap();
    std::fs::write(place.path().join("index.json"), r#"{"model":"numbers","dimension":8}"#).unwrap();
    std::fs::write(place.path().join("notes.txt"), "mine").unwrap();
    let vectors = place.open().await;
    assert_eq!(vectors.count(None).await.unwrap(), 0);
    let mut left: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["1", "notes.txt", "present"]);
}

/// Writes, flushes, optimizations and searches at once: no panic of the engine, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_at_once() {
    let place = Place::folder();
    let vectors = place.open().await;
    let writes = (0..6).map(|writer| {
        let vectors = vectors.clone();
        tokio::spawn(async move {
            for round in 1..=10 {
                let number = writer * 100 + round;
                vectors.upsert(vec![point(number, 1, 7, toward(0.5))]).await.unwrap();
                vectors.flush().await.unwrap();
                nearest(&vectors, 20).await;
                if round == 5 {
                    vectors.optimize().await.unwrap();
                }
            }
        })
    });
    futures_util::future::try_join_all(writes).await.unwrap();
    assert_eq!(vectors.count(None).await.unwrap(), 60);
}

/// The engine never shortens its log. Much writing must not fill the disk, nor lose the numbers it goes on with.
#[tokio::test]
async fn the_log_of_the_engine_stays_short() {
    let place = Place::folder();
    let large = || super::Layout { dimension: 384, ..layout() };
    let vectors = place.open_as(large()).await.unwrap();
    let mut random = Random(7);
    let some: Vec<Vec<f32>> = (0..500).map(|_| random.vector(384)).collect();
    for version in 1..=100 {
        let points = (1u128..).zip(&some).map(|(number, vector)| point(number, version, 7, vector.clone()));
        vectors.upsert(points.collect()).await.unwrap();
        vectors.flush().await.unwrap();
    }
    let log = std::fs::read_dir(place.path().join("1/shard/wal")).unwrap();
    let bytes: u64 = log.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 60 * 1024 * 1024, "{bytes} bytes in the log, of more than 100 MB that were written");
    drop(vectors);
    let vectors = place.open_as(large()).await.unwrap();
    assert_eq!(vectors.versions(&[id(1)]).await.unwrap(), [(id(1), 100)].into());
    assert_eq!(vectors.count(None).await.unwrap(), 500);
}
