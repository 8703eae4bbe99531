//! Answers of searches in the response cache: their rows are never older than others, and their hits never older than
//! two seconds.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::indexed;
use crate::cache::{CACHED, Got, catch_up, post};
use crate::embedder::api::{Api, DIMENSION, KEY};
use crate::harness::{Database, Gateway, execute};

const DOCUMENT: &str = "{ searchEvidence(query: \"zebra crossing\", first: 3) { nodes { id title } } }";

fn titles(got: &Got) -> Vec<String> {
    let data = got.data();
    let nodes = data["searchEvidence"]["nodes"].as_array().unwrap();
    nodes.iter().map(|node: &Value| node["title"].as_str().unwrap().to_owned()).collect()
}

/// Asks until the cache answers; its answers to a search do not live long.
async fn hit(gateway: &Gateway) -> Got {
    let begun = Instant::now();
    loop {
        let got = post(gateway, DOCUMENT, &[]).await;
        if got.came() == "hit" {
            return got;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", got.came());
    }
}

#[tokio::test]
async fn hits_are_kept_for_a_moment_and_their_rows_are_true() {
    let database = Database::sample().await;
    let url = &database.url;
    let rest = "select id from evidence order by md5(id::text) offset 60";
    execute(url, &format!("update evidence set deleted_at = now() where id in ({rest})")).await;
    execute(url, "update evidence set title = 'A zebra crossing' where id = (select id from evidence where deleted_at is null limit 1)")
        .await;
    let api = Api::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let dimensions = DIMENSION.to_string();
    let http = ["--embedder", "http", "--embedder-url", &api.url, "--embedder-model", "counts"];
    let http = [&http[..], &["--embedder-key", KEY, "--embedder-dimensions", &dimensions], &CACHED].concat();
    let gateway = indexed(&database, dir.path(), &http).await;
    assert_eq!(titles(&hit(&gateway).await)[0], "A zebra crossing");
    for (write, first) in [
        (
            "update evidence set title = 'Another zebra' where title = 'A zebra crossing'",
            Some("Another zebra"),
        ),
        ("update evidence set deleted_at = now() where title = 'Another zebra'", None),
    ] {
        hit(&gateway).await;
        execute(url, write).await;
        catch_up(&gateway).await;
        let got = post(&gateway, DOCUMENT, &[]).await;
        assert!(["changed", "expired"].contains(&got.came()), "{}", got.came());
        let told = titles(&got);
        let old = ["A zebra crossing", "Another zebra"].into_iter().filter(|title| Some(*title) != first);
        assert!(old.into_iter().all(|old| !told.iter().any(|title| title == old)), "{told:?}");
    }
    // The index hears of it after the table; however the answers in between came about, they end.
    execute(
        url,
        "update evidence set title = 'A zebra at last', deleted_at = null where title = 'Another zebra'",
    )
    .await;
    let begun = Instant::now();
    while titles(&post(&gateway, DOCUMENT, &[]).await)[0] != "A zebra at last" {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
