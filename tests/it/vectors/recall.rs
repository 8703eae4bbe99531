//! How many of the true neighbours the graph finds, also under filters that let few points through.

use evidence_gateway::store::vectors::{Filter, Point, Question, Sparse, Vectors};
use serde_json::json;

use super::{Layout, Place, Random, id, layout, object, unit};

const COUNT: u128 = 20_000;
const DIMENSION: usize = 384;
const QUESTIONS: usize = 50;

/// Vectors as texts have them: around a few hundred subjects, and none of them in the middle of nothing.
fn vectors(random: &mut Random, count: u128) -> Vec<Vec<f32>> {
    let subjects: Vec<Vec<f32>> = (0..200).map(|_| random.vector(DIMENSION)).collect();
    let near = |random: &mut Random| {
        let subject = &subjects[usize::try_from(random.below(200)).unwrap()];
        let noise = random.vector(DIMENSION);
        unit(subject.iter().zip(&noise).map(|(subject, noise)| subject + 0.9 * noise).collect())
    };
    (0..count).map(|_| near(random)).collect()
}

#[tokio::test]
async fn the_true_neighbours_are_found() {
    let place = Place::folder();
    let index = place.open_as(Layout { dimension: DIMENSION, ..layout() }).await.unwrap();
    let mut random = Random(7);
    let all = vectors(&mut random, COUNT + QUESTIONS as u128);
    let (all, asked) = all.split_at(usize::try_from(COUNT).unwrap());
    let points = (1u128..).zip(all).map(|(number, dense)| {
        // Project 0 has 1 % of them, project 1 a tenth, project 2 the rest; the flag halves each.
        let project = if number % 100 == 0 {
            0
        } else if number % 10 == 0 {
            1
        } else {
            2
        };
        let payload = object(json!({"project_id": id(project), "verified": number % 3 == 0}));
        Point { id: id(number), version: 1, dense: dense.clone(), sparse: Sparse::default(), payload }
    });
    index.upsert(points.collect()).await.unwrap();
    index.optimize().await.unwrap();
    index.flush().await.unwrap();
    for (name, filter) in [
        ("all", None),
        ("1 %", Some(Filter::ids_in("project_id", &[id(0)]))),
        ("a tenth", Some(Filter::ids_in("project_id", &[id(1)]))),
        ("a third", Some(Filter::Is("verified", true))),
        ("most", Some(Filter::ids_in("project_id", &[id(2)]))),
    ] {
        let found = recall(&index, asked, filter.as_ref()).await;
        println!("recall@10 of {name}: {found:.4}");
        assert!(found >= 0.99, "recall@10 of {name}: {found}");
    }
}

/// The share of the ten true neighbours that is found; every page is full.
async fn recall(index: &Vectors, asked: &[Vec<f32>], filter: Option<&Filter>) -> f64 {
    let question = |dense: &Vec<f32>, exact| Question {
        dense: Some(dense.clone()),
        filter: filter.cloned(),
        limit: 10,
        exact,
        ..Question::default()
    };
    let (mut found, mut all) = (0u32, 0u32);
    for dense in asked {
        let answers = index.ask(vec![question(dense, false), question(dense, true)]).await.unwrap();
        let [graph, exact] = &answers[..] else { panic!("two questions have two answers") };
        assert_eq!((graph.dense.len(), exact.dense.len()), (10, 10));
        let known = exact.dense.iter().filter(|hit| graph.dense.iter().any(|other| other.id == hit.id));
        found += u32::try_from(known.count()).unwrap();
        all += 10;
    }
    f64::from(found) / f64::from(all)
}
