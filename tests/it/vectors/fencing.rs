//! Of two writes of one id the higher version stays, in whichever order they arrive.

use std::collections::HashMap;

use chrono::{TimeDelta, Utc};
use evidence_gateway::store::vectors::{Point, Question, Vectors, Words};
use uuid::Uuid;

use super::{Place, Random, east, id, nearest, point, toward};

#[tokio::test]
async fn an_older_version_never_overwrites_a_newer_one() {
    for place in Place::all().await {
        let vectors = place.open().await;
        let version = async || vectors.versions(&[id(1), id(2)]).await.unwrap().get(&id(1)).copied();
        let project = async |project| {
            let filter = evidence_gateway::store::vectors::Filter::ids_in("project_id", &[id(project)]);
            vectors.count(Some(filter)).await.unwrap() == 1
        };
        vectors.upsert(vec![point(1, 5, 7, toward(0.9))]).await.unwrap();
        vectors.upsert(vec![point(1, 4, 8, toward(0.1))]).await.unwrap();
        vectors.upsert(vec![point(1, 5, 8, toward(0.1))]).await.unwrap();
        assert_eq!(version().await, Some(5), "{}", place.name);
        assert!(project(7).await, "{}", place.name);
        // In one batch too, in whichever order.
        vectors.upsert(vec![point(1, 7, 9, toward(0.3)), point(1, 6, 8, toward(0.2))]).await.unwrap();
        assert_eq!(version().await, Some(7));
        assert!(project(9).await && vectors.count(None).await.unwrap() == 1);
        // An older deletion is left out, one of this version is not.
        vectors.delete(&[(id(1), 6), (id(2), 3), (id(1), 5)]).await.unwrap();
        assert_eq!(version().await, Some(7));
        vectors.delete(&[(id(1), 7)]).await.unwrap();
        assert_eq!((version().await, vectors.count(None).await.unwrap()), (None, 0));
        assert_eq!(nearest(&vectors, 10).await, []);
        // What was on its way comes too late, also for a row that was never there.
        vectors.upsert(vec![point(1, 7, 9, east()), point(2, 3, 9, east())]).await.unwrap();
        assert_eq!(nearest(&vectors, 10).await, [], "{}", place.name);
        // It comes back with a higher version.
        vectors.upsert(vec![point(1, 8, 9, east())]).await.unwrap();
        assert_eq!((version().await, nearest(&vectors, 10).await), (Some(8), vec![1]));
        // Nothing is known any more after a forgetting, or a purge of what was deleted before.
        vectors.forget(&[id(1)]).await.unwrap();
        vectors.purge(Utc::now() - TimeDelta::hours(1)).await.unwrap();
        vectors.upsert(vec![point(1, 1, 9, east()), point(2, 3, 9, east())]).await.unwrap();
        assert_eq!(nearest(&vectors, 10).await, [1]);
        vectors.purge(Utc::now() + TimeDelta::hours(1)).await.unwrap();
        vectors.upsert(vec![point(2, 3, 9, east())]).await.unwrap();
        assert_eq!(nearest(&vectors, 10).await, [1, 2]);
    }
}

/// Words and vectors of a former version are not found any more.
#[tokio::test]
async fn a_write_replaces_the_whole_point() {
    let words = Words::new().unwrap();
    for place in Place::all().await {
        let vectors = place.open().await;
        let written = |version, text: &str, dense| Point {
            sparse: words.document(text),
            ..point(1, version, 7, dense)
        };
        let found = async |text: &str| {
            let question = Question {
                sparse: Some(words.question(text)),
                dense: Some(east()),
                limit: 5,
                ..Question::default()
            };
            let answer = vectors.ask(vec![question]).await.unwrap().remove(0);
            (answer.dense.first().map(|hit| hit.score > 0.99), answer.sparse.len())
        };
        vectors.upsert(vec![written(1, "parsers overflow", east())]).await.unwrap();
        assert_eq!(found("parser").await, (Some(true), 1), "{}", place.name);
        vectors.upsert(vec![written(2, "unsound", toward(0.1))]).await.unwrap();
        assert_eq!(found("parser").await, (Some(false), 0), "{}", place.name);
        assert_eq!(found("unsound").await, (Some(false), 1));
        vectors.upsert(vec![written(3, "the", toward(0.1))]).await.unwrap();
        assert_eq!(found("unsound").await, (Some(false), 0));
        vectors.delete(&[(id(1), 3)]).await.unwrap();
        assert_eq!(found("unsound").await, (None, 0));
        vectors.upsert(vec![written(4, "unsound", east())]).await.unwrap();
        assert_eq!(found("unsound").await, (Some(true), 1));
    }
}

/// Several writers that write what they know in any order, as gateways that took over from each other do.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_once_end_with_the_newest() {
    for place in Place::all().await {
        let vectors = place.open().await;
        let mut random = Random(3);
        let mut newest: HashMap<Uuid, (i32, bool)> = HashMap::new();
        let mut writes = Vec::new();
        for number in 1..=60u128 {
            let last = i32::try_from(1 + random.below(5)).unwrap();
            for version in 1..=last {
                let deleted = random.below(4) == 0;
                newest.insert(id(number), (version, deleted));
                writes.push((random.below(1_000_000), number, version, deleted));
            }
        }
        writes.sort_unstable();
        let writers = writes.chunks(writes.len().div_ceil(6)).map(|part| {
            let (vectors, part) = (vectors.clone(), part.to_vec());
            tokio::spawn(async move { write(&vectors, &part).await })
        });
        futures_util::future::try_join_all(writers).await.unwrap();
        let mut found = Vec::new();
        while let Some(page) = Some(vectors.scroll(found.last().map(|(id, _)| *id), 7).await.unwrap())
            .filter(|page| !page.is_empty())
        {
            found.extend(page);
        }
        let mut wanted: Vec<_> = newest
            .iter()
            .filter(|(_, (_, deleted))| !deleted)
            .map(|(id, (version, _))| (*id, *version))
            .collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{}", place.name);
        assert_eq!(vectors.count(None).await.unwrap(), wanted.len());
    }
}

async fn write(vectors: &Vectors, writes: &[(u64, u128, i32, bool)]) {
    for batch in writes.chunks(5) {
        let (gone, there): (Vec<_>, Vec<_>) = batch.iter().partition(|(_, _, _, deleted)| *deleted);
        let there = there.iter().map(|(_, number, version, _)| point(*number, *version, 7, toward(0.5)));
        vectors.upsert(there.collect()).await.unwrap();
        let gone: Vec<_> = gone.iter().map(|(_, number, version, _)| (id(*number), *version)).collect();
        vectors.delete(&gone).await.unwrap();
        vectors.flush().await.unwrap();
    }
}
