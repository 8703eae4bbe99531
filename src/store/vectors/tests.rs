//! What every store must answer.
#![cfg(feature = "edge")]

use serde_json::json;

use super::*;

const MODEL: &str = "numbers";
const DIMENSION: usize = 8;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn vector(&mut self, dimension: usize) -> Vec<f32> {
        let mut vector: Vec<f32> = (0..dimension).map(|_| self.number()).collect();
        let norm = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|number| *number /= norm);
        vector
    }

    fn number(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u16::try_from(self.0 >> 48).unwrap()) / 32_768.0 - 1.0
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn point(number: u128, version: i32, project: u128, vector: Vec<f32>) -> Point {
    let payload = json!({"source_type": "document", "tags": ["a", "b"]}).as_object().unwrap().clone();
    Point { id: id(number), version, vector, project_id: id(project), payload }
}

/// A vector whose cosine with `east()` is `cosine`.
fn toward(cosine: f32) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    (vector[0], vector[1]) = (cosine, (1.0 - cosine * cosine).sqrt());
    vector
}

fn east() -> Vec<f32> {
    toward(1.0)
}

async fn open(dir: &tempfile::TempDir) -> Vectors {
    Vectors::open(dir.path(), MODEL, DIMENSION).await.unwrap()
}

async fn ids(vectors: &Vectors, projects: Option<&[Uuid]>, limit: usize, offset: usize) -> Vec<u128> {
    let question = Question { vector: &east(), projects, limit, offset };
    let hits = vectors.search(question).await.unwrap();
    hits.into_iter().map(|hit| hit.id.as_u128()).collect()
}

#[tokio::test]
async fn the_nearest_come_first_and_pages_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    assert_eq!(ids(&vectors, None, 10, 0).await, []);
    let points = vec![point(1, 1, 7, toward(0.2)), point(2, 1, 7, toward(0.9)), point(3, 1, 7, toward(0.5))];
    assert_eq!(vectors.upsert(points).await.unwrap(), 3);
    let hits =
        vectors.search(Question { vector: &east(), projects: None, limit: 2, offset: 0 }).await.unwrap();
    assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), [id(2), id(3)]);
    assert!((hits[0].score - 0.9).abs() < 1e-6, "{hits:?}");
    assert_eq!(ids(&vectors, None, 2, 1).await, [3, 1]);
    assert_eq!(ids(&vectors, None, 2, 3).await, []);
    assert_eq!(ids(&vectors, None, 0, 0).await, []);
    assert_eq!(vectors.count().await.unwrap(), 3);
}

#[tokio::test]
async fn equal_scores_are_in_the_order_of_ids_on_every_page() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    let points = (1..=40).rev().map(|number| point(number, 1, 7, toward(0.5))).collect();
    vectors.upsert(points).await.unwrap();
    vectors.upsert(vec![point(99, 1, 7, toward(0.9))]).await.unwrap();
    let mut all = Vec::new();
    for offset in (0..42).step_by(6) {
        all.extend(ids(&vectors, None, 6, offset).await);
    }
    assert_eq!(all, std::iter::once(99).chain(1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_the_projects_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    let points = vec![point(1, 1, 7, toward(0.9)), point(2, 1, 8, toward(0.8)), point(3, 1, 9, toward(0.7))];
    vectors.upsert(points).await.unwrap();
    assert_eq!(ids(&vectors, None, 10, 0).await, [1, 2, 3]);
    assert_eq!(ids(&vectors, Some(&[id(8), id(9)]), 10, 0).await, [2, 3]);
    assert_eq!(ids(&vectors, Some(&[id(9)]), 10, 0).await, [3]);
    assert_eq!(ids(&vectors, Some(&[id(10)]), 10, 0).await, []);
    assert_eq!(ids(&vectors, Some(&[]), 10, 0).await, []);
    // A point that moves to another project is found there only.
    vectors.upsert(vec![point(1, 2, 9, toward(0.9))]).await.unwrap();
    assert_eq!(ids(&vectors, Some(&[id(7)]), 10, 0).await, []);
    assert_eq!(ids(&vectors, Some(&[id(9)]), 10, 0).await, [1, 3]);
}

#[tokio::test]
async fn an_older_version_never_overwrites_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    assert_eq!(vectors.upsert(vec![point(1, 5, 7, toward(0.9))]).await.unwrap(), 1);
    assert_eq!(vectors.upsert(vec![point(1, 4, 8, toward(0.1))]).await.unwrap(), 0);
    assert_eq!(vectors.upsert(vec![point(1, 5, 8, toward(0.1))]).await.unwrap(), 0);
    assert_eq!(vectors.versions(&[id(1), id(2)]).await.unwrap(), HashMap::from([(id(1), 5)]));
    assert_eq!(ids(&vectors, Some(&[id(7)]), 10, 0).await, [1]);
    // In one batch too, in whichever order.
    let twice = vec![point(1, 7, 9, toward(0.3)), point(1, 6, 8, toward(0.2))];
    assert_eq!(vectors.upsert(twice).await.unwrap(), 1);
    assert_eq!(vectors.versions(&[id(1)]).await.unwrap(), HashMap::from([(id(1), 7)]));
    assert_eq!(ids(&vectors, Some(&[id(9)]), 10, 0).await, [1]);
    assert_eq!(vectors.count().await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_deleted_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    vectors.upsert(vec![point(1, 1, 7, east()), point(2, 1, 7, toward(0.5))]).await.unwrap();
    vectors.delete(&[id(1), id(3)]).await.unwrap();
    assert_eq!(ids(&vectors, None, 10, 0).await, [2]);
    assert!(vectors.versions(&[id(1)]).await.unwrap().is_empty());
    vectors.clear().await.unwrap();
    assert_eq!(vectors.count().await.unwrap(), 0);
    assert_eq!(vectors.upsert(vec![point(2, 1, 7, toward(0.5))]).await.unwrap(), 1);
    assert_eq!(ids(&vectors, Some(&[id(7)]), 10, 0).await, [2]);
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    vectors.upsert(vec![point(1, 3, 7, east()), point(2, 1, 8, toward(0.5))]).await.unwrap();
    vectors.delete(&[id(2)]).await.unwrap();
    vectors.flush().await.unwrap();
    drop(vectors);
    let vectors = open(&dir).await;
    assert_eq!(ids(&vectors, Some(&[id(7), id(8)]), 10, 0).await, [1]);
    assert_eq!(vectors.upsert(vec![point(1, 2, 8, east())]).await.unwrap(), 0);
    assert_eq!(vectors.upsert(vec![point(1, 4, 8, east())]).await.unwrap(), 1);
    assert_eq!(ids(&vectors, Some(&[id(8)]), 10, 0).await, [1]);
}

#[tokio::test]
async fn an_index_of_another_model_is_refused_until_it_is_recreated() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir).await);
    for (model, dimension) in [("letters", DIMENSION), (MODEL, DIMENSION + 1)] {
        let error = Vectors::open(dir.path(), model, dimension).await.unwrap_err();
        assert!(error.message().contains("`reindex`"), "{error}");
        assert!(error.message().contains("was made for numbers (8 dimensions)"), "{error}");
    }
    let vectors = Vectors::recreate(dir.path(), "letters", 9).await.unwrap();
    assert_eq!(vectors.count().await.unwrap(), 0);
    drop(vectors);
    assert!(Vectors::open(dir.path(), "letters", 9).await.is_ok());
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    for opened in [
        Vectors::open(dir.path(), MODEL, DIMENSION).await,
        Vectors::recreate(dir.path(), MODEL, DIMENSION).await,
    ] {
        let error = opened.unwrap_err();
        assert!(error.message().contains("is open in another process"), "{error}");
    }
    drop(vectors);
    open(&dir).await;
}

#[tokio::test]
async fn vectors_that_cannot_be_compared_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    assert!(vectors.upsert(vec![point(1, 1, 7, vec![1.0; 7])]).await.is_err());
    assert!(vectors.upsert(vec![point(1, 1, 7, vec![f32::NAN; 8])]).await.is_err());
    let question = Question { vector: &[1.0; 9], projects: None, limit: 1, offset: 0 };
    assert_eq!(vectors.search(question).await.unwrap_err().field(), Some("vector"));
    let question = Question { vector: &east(), projects: None, limit: 1, offset: WINDOW_MAX };
    assert_eq!(vectors.search(question).await.unwrap_err().field(), Some("first"));
    assert_eq!(vectors.count().await.unwrap(), 0);
}

/// Writes, flushes, optimizations and searches at once: no panic of the engine, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = open(&dir).await;
    let writes = (0..6).map(|writer| {
        let vectors = vectors.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let number = writer * 100 + round;
                vectors.upsert(vec![point(number, 1, 7, toward(0.5))]).await.unwrap();
                vectors.flush().await.unwrap();
                ids(&vectors, Some(&[id(7)]), 20, 0).await;
                if round == 5 {
                    vectors.optimize().await.unwrap();
                }
            }
        })
    });
    futures_util::future::try_join_all(writes).await.unwrap();
    assert_eq!(vectors.count().await.unwrap(), 60);
}

/// Against comparing every vector ourselves, before and after the engine rearranges its segments.
#[tokio::test]
async fn the_true_neighbours_are_found() {
    const COUNT: u128 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let vectors = Vectors::open(dir.path(), MODEL, 384).await.unwrap();
    let mut random = Random(7);
    let all: Vec<Vec<f32>> = (0..COUNT).map(|_| random.vector(384)).collect();
    let points =
        (0u128..).zip(&all).map(|(number, vector)| point(number, 1, number % 3, vector.clone())).collect();
    assert_eq!(vectors.upsert(points).await.unwrap(), 2_000);
    for optimized in [false, true] {
        if optimized {
            vectors.optimize().await.unwrap();
            vectors.flush().await.unwrap();
        }
        let mut found = 0;
        for _ in 0..20 {
            let asked = random.vector(384);
            let mut best: Vec<(f32, u128)> = (0u128..)
                .zip(&all)
                .filter(|(number, _)| number % 3 != 2)
                .map(|(number, vector)| (vector.iter().zip(&asked).map(|(a, b)| a * b).sum(), number))
                .collect();
            best.sort_by(|a, b| b.0.total_cmp(&a.0));
            let projects = [id(0), id(1)];
            let question = Question { vector: &asked, projects: Some(&projects), limit: 10, offset: 0 };
            let hits = vectors.search(question).await.unwrap();
            found +=
                best[..10].iter().filter(|(_, number)| hits.iter().any(|hit| hit.id == id(*number))).count();
        }
        assert!(found >= 190, "{found} of 200 found, optimized: {optimized}");
    }
}

/// The engine never shortens its log. Much writing must not fill the disk, nor lose the numbers it goes on with.
#[tokio::test]
async fn the_log_of_the_engine_stays_short() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = Vectors::open(dir.path(), MODEL, 384).await.unwrap();
    let mut random = Random(7);
    let some: Vec<Vec<f32>> = (0..500).map(|_| random.vector(384)).collect();
    for version in 1..=100 {
        let points = (0u128..).zip(&some).map(|(number, vector)| point(number, version, 7, vector.clone()));
        assert_eq!(vectors.upsert(points.collect()).await.unwrap(), 500);
        vectors.flush().await.unwrap();
    }
    let log = std::fs::read_dir(dir.path().join("shard/wal")).unwrap();
    let bytes: u64 = log.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 60 * 1024 * 1024, "{bytes} bytes in the log, of more than 100 MB that were written");
    drop(vectors);
    let vectors = Vectors::open(dir.path(), MODEL, 384).await.unwrap();
    assert_eq!(vectors.versions(&[id(0)]).await.unwrap(), HashMap::from([(id(0), 100)]));
    assert_eq!(vectors.count().await.unwrap(), 500);
}
