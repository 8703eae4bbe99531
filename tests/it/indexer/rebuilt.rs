//! A new index beside the present one: searches go on, interruptions are gone on from, and another model's index is
//! replaced.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evidence_gateway::model::viewer::Viewer;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{Duration, Instant, World, agree, execute, insert, program, vectors_are_right};
use crate::embedder::api::Reply;
use crate::harness::{Gateway, SECRET, token};

const ROWS: usize = 600;

/// A world with rows, each with a text of its own.
async fn fill(world: &World) {
    let rows: Vec<_> = (0..ROWS).map(|n| insert(Uuid::now_v7(), &format!("piece <{n}>"))).collect();
    execute(world.url(), &format!("begin; {}; commit", rows.join(";"))).await;
}

/// Searches again and again, until it is told to end; says how often.
fn search(gateway: &Gateway, over: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let (client, url, over) = (gateway.client.clone(), gateway.url.clone(), over.clone());
    let query = "{ searchEvidence(query: \"piece\", first: 3, mode: SEMANTIC) { edges { node { id } } } }";
    tokio::spawn(async move {
        let mut searches = 0;
        while !AtomicBool::load(&over, Ordering::Relaxed) {
            let request = client.post(format!("{url}/graphql")).bearer_auth(token(&Viewer::admin()));
            let answer = request.json(&json!({"query": query})).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            let hits = answer["data"]["searchEvidence"]["edges"].as_array().map(Vec::len);
            assert_eq!((hits, &answer["extensions"]["warnings"]), (Some(3), &Value::Null), "{answer}");
            searches += 1;
        }
        searches
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_and_writes_go_on_while_the_index_is_rebuilt() {
    for world in World::both().await {
        let gateway = world.gateway().await;
        fill(&world).await;
        agree(world.url(), &gateway.vectors).await;
        let over = Arc::new(AtomicBool::new(false));
        let searching = search(&gateway, &over);
        let writing = {
            let (url, over) = (world.url().to_owned(), over.clone());
            tokio::spawn(async move {
                while !AtomicBool::load(&over, Ordering::Relaxed) {
                    execute(&url, &insert(Uuid::now_v7(), "meanwhile")).await;
                    let some = "select id from evidence order by md5(id::text || now()) limit 3";
                    execute(
                        &url,
                        &format!("update evidence set verified = not verified where id in ({some})"),
                    )
                    .await;
                    execute(&url, &format!("delete from evidence where id in ({some})")).await;
                }
            })
        };
        for round in 1..=2 {
            let (code, _, said) = world.command(&["reindex"]).await;
            assert!(code == Some(0) && said.contains("the new index is in place"), "{said}");
            // The gateway goes over a moment later.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            match &world.server {
                Some(server) => assert_eq!(server.collections(), [format!("evidence-{}", round + 1)]),
                None => {
                    let folders = [round, round + 1].map(|n| world.dir.join(format!("vectors/{n}")).exists());
                    assert_eq!(folders, [false, true]);
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        writing.await.unwrap();
        let searches = searching.await.unwrap();
        assert!(searches > 20, "{searches}");
        agree(world.url(), &gateway.vectors).await;
        vectors_are_right(world.url(), &gateway.vectors).await;
        if world.server.is_some() {
            assert_eq!(world.embedded("piece <7>"), 1, "vectors of the same texts are copied");
        }
        gateway.ask("{ searchEvidence(query: \"piece\", first: 1) { edges { node { id } } } }").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_rebuild_is_gone_on_with() {
    let world = World::new(None).await;
    fill(&world).await;
    let mut script = vec![Reply::Good; 8];
    script.extend([Reply::Silent; 4]);
    world.api.script(&script);
    let mut command = program();
    command.args(["reindex", "--database-url", world.url(), "--token-secret", SECRET]).args(world.settings());
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while world.api.asked().len() < 9 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("goes on where this one was"), "{said}");
    let first = world.api.texts().iter().flatten().filter(|text| text.contains("piece")).count();
    assert!((256..ROWS).contains(&first), "{first}");

    world.api.recover();
    let (code, _, said) = world.command(&["reindex"]).await;
    assert!(code == Some(0) && said.contains(&format!("{ROWS} rows, of which ")), "{said}");
    assert_eq!(world.embedded("piece <7>"), 1, "what the first attempt wrote is not written again");
    let gateway = world.gateway().await;
    agree(world.url(), &gateway.vectors).await;
    assert_eq!(world.embedded("piece <7>"), 1);
    vectors_are_right(world.url(), &gateway.vectors).await;
}

#[tokio::test]
async fn an_index_of_another_model_is_refused_and_rebuilt() {
    for mut world in World::both().await {
        fill(&world).await;
        let gateway = world.gateway().await;
        agree(world.url(), &gateway.vectors).await;
        if world.server.is_none() {
            // A folder is open in one process.
            gateway.close().await;
        }
        world.model = "another-model";
        let begun = Instant::now();
        let said = loop {
            let (code, _, said) = world.command(&["serve", "--listen", "127.0.0.1:0"]).await;
            assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
            // What it has in hand on other threads ends a moment later.
            if !said.contains("is open in another process") || begun.elapsed() > Duration::from_secs(10) {
                break said;
            }
        };
        assert!(said.contains("was made for a-model (64 dimensions), not for another-model (64)"), "{said}");
        assert!(said.contains("rebuild it with `reindex`"), "{said}");
        let (code, _, said) = world.command(&["reindex"]).await;
        assert!(code == Some(0) && said.contains(&format!("{ROWS} rows, of which {ROWS} ")), "{said}");
        assert_eq!(world.embedded("piece <7>"), 2);
        let gateway = world.gateway().await;
        agree(world.url(), &gateway.vectors).await;
        assert_eq!(world.embedded("piece <7>"), 2, "a start embeds nothing");
    }
}
