//! Search over a part of the sample, with the real model and the real engine.

use std::path::Path;
use std::time::Duration;

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::viewer::Viewer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Database, Gateway, column, execute, member, secret};

mod cached;
mod features;
mod questions;
mod stores;

use questions::QUESTIONS;

/// The evidence of the advisories that answer the questions, and of seventy others.
fn part() -> String {
    let known: Vec<_> = QUESTIONS.iter().map(|(_, advisory)| format!("'{advisory}'")).collect();
    format!(
        "update evidence set deleted_at = now() where task_id is null or task_id not in (select id from tasks \
         where external_id in ({}) union (select id from tasks order by id limit 70))",
        known.join(", ")
    ) + "; update tasks set deleted_at = now() where id not in (select task_id from evidence where deleted_at is null)"
}

const SEARCH: &str = "query($query: String!, $first: Int, $filter: EvidenceFilter, $mode: SearchMode) { \
    searchEvidence(query: $query, first: $first, filter: $filter, mode: $mode) { edges { score node { id title projectId \
    task { title } agent { name } chainLinks(first: 1) { nodes { chain { claim } } } } } } }";

const QUESTION: &str = "signature check skipped for compressed images";

#[tokio::test]
async fn a_question_finds_its_advisory_with_all_that_belongs_to_it() {
    let database = Database::sample().await;
    execute(&database.url, &part()).await;
    let dir = tempfile::tempdir().unwrap();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/.evidence-gateway/models");
    std::os::unix::fs::symlink(models, dir.path().join("models")).unwrap();
    let gateway = indexed(&database, dir.path(), &["--embedder", "minilm"]).await;

    let before = gateway.statements().await;
    let hits = search(&gateway, json!({"query": QUESTION, "first": 3, "mode": "SEMANTIC"})).await;
    assert_eq!(gateway.statements().await - before, 5, "hits, tasks, agents, links and chains");
    assert_eq!(hits.len(), 3);
    let claim = "Incorrect signature verification on gzip-compressed install images";
    let found =
        hits.iter().find(|hit| hit["node"]["title"] == claim).expect("the advisory is among the first three");
    assert_eq!(found["node"]["task"]["title"], format!("Triage RUSTSEC-2022-0103: {claim}"));
    assert!(found["node"]["agent"]["name"].is_string());
    assert_eq!(found["node"]["chainLinks"]["nodes"][0]["chain"]["claim"], claim);
    let scores: Vec<_> = hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] > 0.4, "{scores:?}");

    questions::are_answered(&gateway).await;
    features::all(&gateway, &database).await;
    permissions(&gateway, &database).await;
    filters(&gateway).await;
    changes(&gateway, &database).await;
}

/// Every viewer gets full pages of what is theirs and nothing else.
async fn permissions(gateway: &Gateway, database: &Database) {
    for project in column(&database.url, "select id from projects order by id").await {
        let project: Uuid = project.parse().unwrap();
        let all = format!("select id from evidence where deleted_at is null and project_id = '{project}'");
        let theirs = column(&database.url, &all).await;
        let viewer = gateway.viewed_by(&member(None, &[project]));
        let hits = search(&viewer, json!({"query": QUESTION, "first": 200})).await;
        assert_eq!(hits.len(), theirs.len().min(200), "a page is full whenever there is enough");
        for hit in &hits {
            assert!(theirs.iter().any(|id| hit["node"]["id"] == id.as_str()), "{hit}");
        }
    }
    let nobody = gateway.viewed_by(&member(None, &[]));
    assert!(search(&nobody, json!({"query": QUESTION})).await.is_empty());
}

/// A filter that few hits pass does not empty the page: the search goes on.
async fn filters(gateway: &Gateway) {
    let filter = json!({"sourceType": {"eq": "PATCH"}});
    let patches = search(gateway, json!({"query": QUESTION, "first": 10, "filter": filter})).await;
    assert_eq!(patches.len(), 10);
    assert!(patches.iter().all(|hit| hit["node"]["title"].as_str().unwrap().starts_with("Patched versions")));
}

/// The index follows what is written by anybody, and what is gone is not found.
async fn changes(gateway: &Gateway, database: &Database) {
    let first = &search(gateway, json!({"query": QUESTION, "first": 1})).await[0];
    let id = first["node"]["id"].as_str().unwrap();
    let rewrite =
        "title = 'A recipe', content = 'Whisk eggs, flour and milk, then fry thin pancakes in butter.'";
    execute(&database.url, &format!("update evidence set {rewrite} where id = '{id}'")).await;
    let mut found = Value::Null;
    for _ in 0..120 {
        found = search(gateway, json!({"query": "how to bake crêpes", "first": 1})).await[0]["node"]["id"]
            .clone();
        if found == id {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(found, id);
    execute(&database.url, &format!("update evidence set deleted_at = now() where id = '{id}'")).await;
    let hits = search(gateway, json!({"query": "how to bake crêpes", "first": 200})).await;
    assert!(hits.iter().all(|hit| hit["node"]["id"] != id));
}

async fn search(gateway: &Gateway, variables: Value) -> Vec<Value> {
    let mut data = gateway.ask_with(SEARCH, variables).await;
    serde_json::from_value(data["searchEvidence"]["edges"].take()).unwrap()
}

/// A gateway that has indexed all there is.
async fn indexed(database: &Database, dir: &Path, settings: &[&str]) -> Gateway {
    let settings = [settings, &["--data-dir", dir.to_str().unwrap()]].concat();
    let gateway = Gateway::start(&database.url, &settings, Access::Tokens(secret())).await;
    let gateway = gateway.keeping(&Viewer::admin());
    wait_until_indexed(&gateway, database).await;
    gateway
}

async fn wait_until_indexed(gateway: &Gateway, database: &Database) {
    let count = |table: &str| format!("(select count(*) from {table} where deleted_at is null)");
    let all = format!("select {}", ["evidence", "tasks", "agents"].map(count).join(" + "));
    let rows: i64 = column(&database.url, &all).await[0].parse().unwrap();
    for _ in 0..600 {
        let state: Value = gateway.get("/health/ready").await.json().await.unwrap();
        if state["stores"]["vectors"]["indexed"] == rows {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{rows} rows were not indexed in five minutes");
}
