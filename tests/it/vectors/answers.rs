//! What is found: the same in every place, and what a comparison of everything with everything finds.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use chrono::{DateTime, TimeDelta, Utc};
use evidence_gateway::store::vectors::{
    Answer, Filter, Hit, Point, Question, Vectors, WINDOW_MAX, Words, diversify, toward,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{DIMENSION, Place, Random, id, layout, object, point};

const COUNT: u64 = 600;
/// Texts are made of these. Some share a stem, some are stop words.
const WORDS: [&str; 16] = [
    "signature",
    "signatures",
    "checks",
    "checking",
    "compressed",
    "image",
    "images",
    "buffer",
    "overflow",
    "parser",
    "the",
    "is",
    "unsound",
    "memory",
    "leaks",
    "crêpes",
];

const DOMAINS: [&str; 4] = ["general", "financial", "legal", "social"];

struct Row {
    point: Point,
    text: String,
}

fn rows(words: &Words) -> Vec<Row> {
    let mut random = Random(11);
    let start: DateTime<Utc> = "2024-01-01T00:00:00Z".parse().unwrap();
    (1..=COUNT)
        .map(|number| {
            // Every tenth vector is that of its neighbour, and few words make equal texts: equal scores are common.
            let dense = if number % 10 == 0 { vec![0.5; DIMENSION] } else { random.vector(DIMENSION) };
            let length = 1 + random.below(4);
            let text: Vec<&str> = (0..length).map(|_| WORDS[usize::try_from(random.below(16)).unwrap()]).collect();
            let text = text.join(" ");
            let mut payload = json!({
                "project_id": id(u128::from(number % 7)),
                "domain": DOMAINS[usize::try_from(random.below(4)).unwrap()],
                "tags": (0..random.below(3)).map(|tag| format!("tag{}", (number + tag) % 5)).collect::<Vec<_>>(),
                "score": f64::from(u32::try_from(random.below(11)).unwrap()) / 10.0,
                "verified": random.below(3) == 0,
                "created_at": start + TimeDelta::hours(i64::try_from(number).unwrap()),
            });
            if number % 3 > 0 {
                payload["task_id"] = json!(id(u128::from(1_000 + number % 20)));
            }
            let point = Point {
                id: id(u128::from(number)),
                version: 1,
                dense: super::unit(dense),
                sparse: words.document(&text),
                payload: object(payload),
            };
            Row { point, text }
        })
        .collect()
}

/// What the engines must make of a filter.
fn fits(filter: &Filter, point: &Point) -> bool {
    let value = |key: &str| point.payload.get(key).filter(|value| **value != json!([]));
    let any = |key: &str, test: &dyn Fn(&Value) -> bool| {
        value(key)
            .is_some_and(|value| value.as_array().map_or_else(|| test(value), |list| list.iter().any(test)))
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match filter {
        Filter::All(parts) => parts.iter().all(|part| fits(part, point)),
        Filter::Any(parts) => parts.iter().any(|part| fits(part, point)),
        Filter::Not(part) => !fits(part, point),
        Filter::In(key, values) => any(key, &|value| values.contains(&text(value))),
        Filter::Is(key, flag) => any(key, &|value| value == flag),
        Filter::Number(key, from, to) => {
            any(key, &|value| std::ops::RangeBounds::contains(&(*from, *to), &value.as_f64().unwrap()))
        }
        Filter::Time(key, from, to) => any(key, &|value| {
            std::ops::RangeBounds::contains(&(*from, *to), &text(value).parse::<DateTime<Utc>>().unwrap())
        }),
        Filter::Missing(key) => value(key).is_none(),
        Filter::Ids(ids) => ids.contains(&point.id),
    }
}

fn filters() -> Vec<Option<Filter>> {
    let domain = |domain: &str| Filter::In("domain", vec![domain.to_owned()]);
    let number = |from, to| Filter::Number("score", from, to);
    let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    vec![
        None,
        Some(Filter::ids_in("project_id", &[id(1), id(4)])),
        Some(Filter::ids_in("project_id", &[])),
        Some(Filter::ids_in("task_id", &[id(1_007)])),
        Some(domain("legal")),
        Some(Filter::In("tags", vec!["tag1".to_owned(), "tag4".to_owned()])),
        Some(Filter::Is("verified", true)),
        Some(Filter::Not(Box::new(Filter::Is("verified", true)))),
        Some(number(Bound::Included(0.3), Bound::Excluded(0.7))),
        Some(number(Bound::Excluded(0.3), Bound::Included(0.7))),
        Some(number(Bound::Included(0.8), Bound::Unbounded)),
        Some(number(Bound::Unbounded, Bound::Unbounded)),
        Some(Filter::Time("created_at", Bound::Included(time("2024-01-08T08:00:00Z")), Bound::Unbounded)),
        Some(Filter::Time(
            "created_at",
            Bound::Excluded(time("2024-01-03T00:00:00Z")),
            Bound::Excluded(time("2024-01-03T02:00:00.000001Z")),
        )),
        Some(Filter::Missing("task_id")),
        Some(Filter::Not(Box::new(Filter::Missing("tags")))),
        Some(Filter::Ids(vec![id(3), id(5), id(99_999)])),
        Some(Filter::All(vec![])),
        Some(Filter::Any(vec![])),
        Some(Filter::Not(Box::new(Filter::Any(vec![])))),
        Some(Filter::All(vec![
            domain("social"),
            Filter::Any(vec![Filter::Is("verified", true), Filter::Any(vec![])]),
        ])),
        Some(Filter::Any(vec![
            Filter::All(vec![domain("general"), number(Bound::Included(0.5), Bound::Unbounded)]),
            Filter::Not(Box::new(Filter::Any(vec![domain("general"), domain("legal"), domain("social")]))),
        ])),
    ]
}

fn best_of(mut hits: Vec<Hit>, limit: usize) -> Vec<Hit> {
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    hits.truncate(limit);
    hits
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// What the filters of a question let through.
fn asked_for<'a>(rows: &'a [Row], question: &Question) -> impl Iterator<Item = &'a Row> {
    let narrowed =
        |filter: &Option<Filter>, row: &Row| filter.as_ref().is_none_or(|filter| fits(filter, &row.point));
    let (scope, filter) = (question.scope.clone(), question.filter.clone());
    rows.iter().filter(move |row| narrowed(&scope, row) && narrowed(&filter, row))
}

/// BM25 with the frequencies among the texts in scope.
fn lexical(rows: &[Row], question: &Question) -> Vec<Hit> {
    let Some(words) = &question.sparse else { return Vec::new() };
    let weight = |row: &Row, word: &u32| {
        let at = row.point.sparse.indices.iter().position(|index| index == word)?;
        Some(row.point.sparse.values[at])
    };
    let count = |number: usize| f32::from(u16::try_from(number).unwrap());
    let scope = Question { scope: question.scope.clone(), ..Question::default() };
    let all = count(asked_for(rows, &scope).count());
    let idf = |word: &u32| {
        let with = count(asked_for(rows, &scope).filter(|row| weight(row, word).is_some()).count());
        ((all - with + 0.5) / (with + 0.5) + 1.0).ln()
    };
    let idfs: Vec<f32> = words.indices.iter().map(idf).collect();
    let hit = |row: &Row| {
        let scores: Vec<f32> = words
            .indices
            .iter()
            .zip(&idfs)
            .filter_map(|(word, idf)| Some(weight(row, word)? * idf))
            .collect();
        (!scores.is_empty()).then(|| Hit { id: row.point.id, score: scores.iter().sum() })
    };
    asked_for(rows, question).filter_map(hit).collect()
}

fn expected(rows: &[Row], question: &Question) -> Answer {
    let fitting = asked_for(rows, question);
    let dense = question.dense.clone().map(super::unit).map_or_else(Vec::new, |vector| {
        fitting.map(|row| Hit { id: row.point.id, score: dot(&vector, &row.point.dense) }).collect()
    });
    let dense = best_of(dense, question.limit);
    let sparse = best_of(lexical(rows, question), question.limit);
    Answer { dense, sparse, vectors: HashMap::new() }
}

/// Equal, where scores are as equal as two ways of adding them up: then among them any order will do.
fn assert_same(found: &[Hit], wanted: &[Hit], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found.score - wanted.score).abs() < 1e-4, "{what}: {found:?}, not {wanted:?}");
    }
    assert!(found.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.id < b.id)), "{what}");
    // The ids agree score by score, the last one aside, at which the list may be cut differently.
    let groups = |hits: &[Hit]| {
        let mut groups: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
        for hit in hits {
            #[allow(clippy::cast_possible_truncation, reason = "scores are small")]
            groups.entry((f64::from(hit.score) * 1e3).round() as i64).or_default().push(hit.id);
        }
        groups.values_mut().for_each(|ids| ids.sort());
        groups.into_values().rev().collect::<Vec<_>>()
    };
    let (found, wanted) = (groups(found), groups(wanted));
    assert_eq!(found.split_last().map(|(_, rest)| rest), wanted.split_last().map(|(_, rest)| rest), "{what}");
}

fn questions(words: &Words) -> Vec<Question> {
    let mut random = Random(5);
    let texts = ["signature check of an image", "Unsound parsers", "the crêpes", "the", ""];
    let both = filters().into_iter().enumerate().flat_map(|(index, filter)| {
        let text = texts[index % texts.len()];
        let dense = Some(random.vector(DIMENSION));
        let scope = (index % 3 > 0).then(|| Filter::ids_in("project_id", &[id(2), id(3), id(5)]));
        let question =
            Question { scope, filter, limit: 25, with_vectors: index % 2 == 0, ..Question::default() };
        [
            Question { dense: dense.clone(), ..question.clone() },
            Question { sparse: Some(words.question(text)), ..question.clone() },
            Question { dense, sparse: Some(words.question(texts[0])), limit: 40, ..question },
        ]
    });
    both.chain([Question { dense: Some(vec![0.5; DIMENSION]), limit: 13, ..Question::default() }]).collect()
}

#[tokio::test]
async fn every_place_gives_the_same_answers() {
    let words = Words::new().unwrap();
    let rows = rows(&words);
    let questions = questions(&words);
    let mut first: Option<Vec<Answer>> = None;
    for place in Place::all().await {
        let name = place.name;
        let vectors = place.open().await;
        vectors.upsert(rows.iter().map(|row| row.point.clone()).collect()).await.unwrap();
        // What is deleted is found by no question and counted by no filter, not even by one for what is missing.
        let gone: Vec<Uuid> = (5_000..5_010).map(id).collect();
        let dead = gone.iter().map(|id| Point { id: *id, ..point(1, 3, 1, vec![0.5; DIMENSION]) });
        vectors.upsert(dead.collect()).await.unwrap();
        vectors.delete(&gone.iter().map(|id| (*id, 3)).collect::<Vec<_>>()).await.unwrap();
        vectors.set_bookmark("here").await.unwrap();

        let before = place.server.as_ref().map_or(0, |server| server.calls("query_batch"));
        let answers = vectors.ask(questions.clone()).await.unwrap();
        if let Some(server) = &place.server {
            assert!(
                server.calls("query_batch") - before <= 4,
                "one for all, one for words, few for equal scores"
            );
        }
        for (question, answer) in questions.iter().zip(&answers) {
            let wanted = expected(&rows, question);
            assert_same(&answer.dense, &wanted.dense, &format!("{name}: {question:?}"));
            assert_same(&answer.sparse, &wanted.sparse, &format!("{name}: {question:?}"));
            let found = answer.dense.iter().chain(&answer.sparse);
            let with_vectors = found.filter(|hit| answer.vectors.contains_key(&hit.id)).count();
            let all = answer.dense.len() + answer.sparse.len();
            assert_eq!(with_vectors, if question.with_vectors { all } else { 0 });
        }
        counted(&vectors, &rows).await;
        examples(&vectors, &rows).await;
        // In each place the very same order, equal scores too.
        let ids = |answers: &[Answer]| -> Vec<Vec<(Uuid, bool)>> {
            let mapped = answers.iter().map(|answer| {
                let ranked = diversify(answer.fused(), &answer.vectors, 0.5, 10);
                ranked.iter().map(|hit| (hit.id, hit.sparse.is_some())).collect()
            });
            mapped.collect()
        };
        match &first {
            None => first = Some(answers),
            Some(first) => assert_eq!(ids(&answers), ids(first), "{name}"),
        }
    }
}

async fn counted(vectors: &Vectors, rows: &[Row]) {
    for filter in filters() {
        let fitting =
            || rows.iter().filter(|row| filter.as_ref().is_none_or(|filter| fits(filter, &row.point)));
        assert_eq!(vectors.count(filter.clone()).await.unwrap(), fitting().count(), "{filter:?}");
        let facets =
            vectors.facets(&["domain", "tags", "project_id", "verified"], filter.clone(), 3).await.unwrap();
        for (key, facet) in ["domain", "tags", "project_id", "verified"].into_iter().zip(facets) {
            let mut counts: HashMap<String, usize> = HashMap::new();
            for row in fitting() {
                let value = &row.point.payload[key];
                for value in value.as_array().unwrap_or(&vec![value.clone()]) {
                    *counts
                        .entry(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                        .or_default() += 1;
                }
            }
            let mut wanted: Vec<_> = counts.into_iter().collect();
            wanted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            wanted.truncate(3);
            assert_eq!(facet, wanted, "{key} of {filter:?}");
        }
    }
}

/// More like these and less like those, without the examples themselves.
async fn examples(vectors: &Vectors, rows: &[Row]) {
    let found = vectors.vectors(&[id(1), id(2), id(3), id(5_001), id(99_999)]).await.unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    for row in &rows[..3] {
        assert!(dot(&found[&row.point.id], &row.point.dense) > 0.9999);
    }
    let dense = toward(&[&found[&id(1)], &found[&id(2)]], &[&found[&id(3)]]).unwrap();
    let examples = Filter::Not(Box::new(Filter::Ids(vec![id(1), id(2), id(3)])));
    let question = Question {
        dense: Some(super::unit(dense)),
        filter: Some(examples),
        limit: 10,
        ..Question::default()
    };
    let answer = vectors.ask(vec![question.clone()]).await.unwrap().remove(0);
    assert_same(&answer.dense, &expected(rows, &question).dense, "examples");
}

/// Equal scores come in the order of their ids, whatever the page, also where hundreds are equal.
#[tokio::test]
async fn pages_follow_each_other() {
    for place in Place::all().await {
        let vectors = place.open().await;
        let mut points: Vec<Point> =
            (1..=400).map(|number| point(number, 1, 7, super::toward(0.5))).collect();
        points.push(point(999, 1, 7, super::toward(0.9)));
        vectors.upsert(points).await.unwrap();
        let all: Vec<u128> = std::iter::once(999).chain(1..=400).collect();
        for limit in [1, 2, 30, 100, 399, 401, 1_000] {
            assert_eq!(
                super::nearest(&vectors, limit).await,
                all[..limit.min(401)],
                "{} {limit}",
                place.name
            );
        }
    }
}

#[tokio::test]
async fn vectors_that_cannot_be_compared_are_refused() {
    for place in Place::all().await {
        let vectors = place.open().await;
        assert!(vectors.upsert(vec![point(1, 1, 7, vec![1.0; 7])]).await.is_err());
        assert!(vectors.upsert(vec![point(1, 1, 7, vec![f32::NAN; 8])]).await.is_err());
        let question = Question { dense: Some(vec![1.0; 9]), limit: 1, ..Question::default() };
        assert_eq!(vectors.ask(vec![question]).await.unwrap_err().field(), Some("vector"));
        let question = Question { dense: Some(super::east()), limit: WINDOW_MAX + 1, ..Question::default() };
        assert_eq!(vectors.ask(vec![question]).await.unwrap_err().field(), Some("first"));
        assert_eq!(vectors.count(None).await.unwrap(), 0);
        assert_eq!(layout().dimension, DIMENSION);
    }
}

/// Where the words of a question stand, whatever their form.
#[test]
fn words_are_found_in_a_text() {
    let words = Words::new().unwrap();
    let rows = rows(&words);
    assert!(rows.iter().any(|row| row.text == "the" && row.point.sparse.indices.is_empty()));
    let text = "The Signatures were checked: a cr\u{ea}pe's signature, unchecked.";
    let question = words.question("checks the signature of cr\u{ea}pes");
    let found: Vec<&str> = words.matches(&question, text).into_iter().map(|range| &text[range]).collect();
    assert_eq!(found, ["Signatures", "checked", "cr\u{ea}pe", "signature"]);
}
