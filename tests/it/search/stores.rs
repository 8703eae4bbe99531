//! What holds whichever store finds the vectors: the same hits for the same reasons, one request to it, nothing told of
//! what the viewer may not see, and whole levels of rows searched at once.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::indexed;
use crate::embedder::api::{Api, DIMENSION, KEY};
use crate::harness::{Database, Gateway, column, execute, member};
use crate::qdrant::{API_KEY, TestQdrant};

const HITS: &str = "edges { score dense denseRank lexical lexicalRank terms snippet(length: 80) node { id task { id } } } \
    pageInfo { hasNextPage } degraded";
const GROUPS: &str = "groups { score task { id } chain { id } hits { score node { id } } } \
    facets { sourceType { value count } domain { value count } agent { value count } project { value count } }";

/// The arguments of searches, and whether they are answered in groups.
fn questions(ids: &[String]) -> Vec<(String, &'static str)> {
    let query = "query: \"memory is freed twice when a parser panics\"";
    let mut questions: Vec<_> = [
        "first: 20",
        "first: 20, mode: SEMANTIC",
        "first: 20, mode: LEXICAL",
        "first: 10, diversity: 0.5",
        "first: 30, domains: [LEGAL, GENERAL]",
        "first: 10, filter: {sourceType: {eq: PATCH}, credibilityScore: {gte: 0.3}}",
        "first: 10, filter: {or: [{verified: {eq: true}}, {title: {contains: \"unsound\"}}]}",
        "first: 10, filter: {not: {verified: {eq: true}}}",
        "first: 10, filter: {task: {priority: {gte: 4}}}",
        "first: 5, budget: 2000",
    ]
    .iter()
    .map(|arguments| (format!("{query}, {arguments}"), HITS))
    .collect();
    questions.push((format!("{query}, first: 5, groupBy: TASK"), GROUPS));
    questions.push((format!("{query}, first: 5, groupBy: CHAIN"), GROUPS));
    questions
        .push((format!("like: [\"{}\", \"{}\"], unlike: [\"{}\"], first: 20", ids[0], ids[1], ids[2]), HITS));
    questions
}

async fn ask(gateway: &Gateway, arguments: &str, selection: &str) -> Value {
    let document = format!("{{ it: searchEvidence({arguments}) {{ {selection} }} }}");
    rounded(gateway.ask(&document).await["it"].take())
}

/// Sums of floats differ in their last digits by the order in which they are added up.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => json!((number.as_f64().unwrap() * 1e4).round() / 1e4),
        Value::Array(values) => values.into_iter().map(rounded).collect(),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, rounded(value))).collect(),
        other => other,
    }
}

#[tokio::test]
async fn both_stores_give_the_same_hits() {
    let database = Database::sample().await;
    let rest = "select id from evidence order by md5(id::text) offset 800";
    execute(&database.url, &format!("update evidence set deleted_at = now() where id in ({rest})")).await;
    let api = Api::start(&[]).await;
    let server = TestQdrant::start().await;
    let (edge_dir, server_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dimensions = DIMENSION.to_string();
    let http = ["--embedder", "http", "--embedder-url", &api.url, "--embedder-model", "counts"];
    let http = [&http[..], &["--embedder-key", KEY, "--embedder-dimensions", &dimensions]].concat();
    let url = server.url();
    let edge = indexed(&database, edge_dir.path(), &http).await;
    let qdrant = indexed(
        &database,
        server_dir.path(),
        &[&http[..], &["--qdrant-url", &url, "--qdrant-api-key", API_KEY]].concat(),
    )
    .await;

    let project: Uuid =
        column(&database.url, "select project_id from evidence group by 1 order by count(*) limit 1").await
            [0]
        .parse()
        .unwrap();
    let shown = "select id from evidence where deleted_at is null and project_id =";
    let ids = column(&database.url, &format!("{shown} '{project}' order by id limit 3")).await;
    for viewer in [None, Some(member(None, &[project]))] {
        let viewed = |gateway: &Gateway| viewer.as_ref().map(|viewer| gateway.viewed_by(viewer));
        let (edge_viewed, qdrant_viewed) = (viewed(&edge), viewed(&qdrant));
        let (edge, qdrant) =
            (edge_viewed.as_ref().unwrap_or(&edge), qdrant_viewed.as_ref().unwrap_or(&qdrant));
        for (arguments, selection) in questions(&ids) {
            let found = ask(edge, &arguments, selection).await;
            assert_eq!(found, ask(qdrant, &arguments, selection).await, "{arguments}");
            let kind = if selection == HITS { "edges" } else { "groups" };
            assert!(!found[kind].as_array().unwrap().is_empty() || viewer.is_some(), "{arguments}");
        }
        let before = server.calls("query_batch");
        ask(qdrant, &questions(&ids)[0].0, HITS).await;
        assert_eq!(server.calls("query_batch") - before, 1, "one request for a page");
    }
    levels(&edge, &qdrant, &server).await;
    nothing_hidden_is_told(&edge, &database, project).await;
}

/// The hits of all rows of a level are found by one request and read by one statement.
async fn levels(edge: &Gateway, qdrant: &Gateway, server: &TestQdrant) {
    let document = |first: u32| {
        format!(
            "{{ tasks(first: {first}, filter: {{evidences: {{some: {{}}}}}}) {{ nodes {{ id evidenceFor(query: \"memory\", first: 3) {{ \
             score terms node {{ id taskId }} }} }} }} \
             evidences(first: {first}) {{ nodes {{ id similar(first: 4, filter: {{verified: {{eq: false}}}}) {{ score dense node {{ id }} }} }} }} }}"
        )
    };
    let mut costs = Vec::new();
    for first in [3, 12] {
        let (before, requests) = (qdrant.statements().await, server.calls("query_batch"));
        let found = rounded(qdrant.ask(&document(first)).await);
        costs.push((qdrant.statements().await - before, server.calls("query_batch") - requests));
        assert_eq!(found, rounded(edge.ask(&document(first)).await));
        let mut hits = 0;
        for task in found["tasks"]["nodes"].as_array().unwrap() {
            let own = format!("query: \"memory\", first: 3, filter: {{taskId: {{eq: {}}}}}", task["id"]);
            let alone = ask(edge, &own, "edges { score terms node { id taskId } }").await;
            assert_eq!(task["evidenceFor"], alone["edges"], "{}", task["id"]);
            hits += task["evidenceFor"].as_array().unwrap().len();
        }
        for evidence in found["evidences"]["nodes"].as_array().unwrap() {
            let like = format!("like: [{}], first: 4, filter: {{verified: {{eq: false}}}}", evidence["id"]);
            let alone = ask(edge, &like, "edges { score dense node { id } }").await;
            assert_eq!(evidence["similar"], alone["edges"], "{}", evidence["id"]);
            hits += evidence["similar"].as_array().unwrap().len();
        }
        assert!(hits > usize::try_from(first).unwrap() * 4, "{found}");
    }
    assert_eq!(costs[0].0, costs[1].0, "statements");
    assert!(costs.iter().all(|(statements, requests)| *statements == 4 && *requests <= 3), "{costs:?}");
}

/// Whatever stands in other projects, a viewer's answers stay the same to the last digit: no count, score or facet
/// tells of it.
async fn nothing_hidden_is_told(gateway: &Gateway, database: &Database, project: Uuid) {
    let viewer = gateway.viewed_by(&member(None, &[project]));
    let answers = async || {
        let mut answers = Vec::new();
        for arguments in ["first: 30", "first: 30, mode: LEXICAL", "first: 5, groupBy: TASK"] {
            let document = format!(
                "{{ searchEvidence(query: \"memory safety of parsers\", {arguments}) {{ {HITS} {GROUPS} }} }}"
            );
            answers.push(viewer.request(&document, json!({})).await.body["data"].take());
        }
        answers
    };
    let before = answers().await;
    let others = format!(
        "insert into evidence (project_id, title, content, source_type) \
         select p.id, 'memory ' || n, 'memory parsers safety memory ' || n, 'log' \
         from generate_series(1, 200) n, lateral (select id from projects where id <> '{project}' order by id limit 1) p"
    );
    execute(&database.url, &others).await;
    super::wait_until_indexed(gateway, database).await;
    // Longer than counts of words are believed.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(before, answers().await);
    let all = ask(gateway, "query: \"memory safety of parsers\", first: 1, mode: LEXICAL", HITS).await;
    assert!(
        all["edges"][0]["snippet"].as_str().unwrap().contains("**memory** **parsers** **safety**"),
        "{all}"
    );
}
