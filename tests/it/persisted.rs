//! Persisted operations: documents by their hashes, sent once or registered by an operator.

use std::process::Command;
use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::document::DocumentHash;
use evidence_gateway::model::viewer::{Role, Viewer};
use serde_json::{Value, json};

use crate::cache::{Got, send};
use crate::harness::{Database, Gateway, column, member, sample_url, secret};
use crate::redis::RedisServer;

const DOCUMENT: &str = "query Agents($first: Int = 2) { agents(first: $first) { nodes { name } } }";

async fn ask(gateway: &Gateway, body: Value) -> Got {
    send(gateway, gateway.client.post(format!("{}/graphql", gateway.url)).json(&body)).await
}

async fn by_get(gateway: &Gateway, parameters: &[(&str, &str)]) -> Got {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    send(gateway, gateway.client.get(format!("{}/graphql?{query}", gateway.url))).await
}

fn code(got: &Got) -> String {
    let body: Value = serde_json::from_str(&got.text).unwrap();
    body["errors"][0]["extensions"]["code"].as_str().unwrap_or("none").to_owned()
}

fn apq(hash: &str) -> Value {
    json!({"persistedQuery": {"version": 1, "sha256Hash": hash}})
}

#[tokio::test]
async fn a_document_is_sent_once() {
    let redis = RedisServer::start().await;
    let address = redis.url();
    let settings = ["--redis-url", &address];
    let gateway = Gateway::start(&sample_url(), &settings, Access::Everyone).await;
    let other = Gateway::start(&sample_url(), &settings, Access::Everyone).await;
    let hash = DocumentHash::of(DOCUMENT).to_string();
    let extensions = apq(&hash);
    let unknown = ask(&gateway, json!({"extensions": extensions})).await;
    assert_eq!((unknown.status, code(&unknown).as_str()), (200, "PERSISTED_QUERY_NOT_FOUND"));
    let body: Value = serde_json::from_str(&unknown.text).unwrap();
    assert_eq!(body["errors"][0]["message"], "PersistedQueryNotFound");
    // A hash that is not the document's, or no hash, or of another version: nothing is kept.
    let wrong = DocumentHash::of("{ __typename }").to_string();
    for (extensions, expected) in [
        (apq(&wrong), "BAD_USER_INPUT"),
        (apq("x"), "BAD_USER_INPUT"),
        (json!({"persistedQuery": {"version": 2, "sha256Hash": hash}}), "PERSISTED_QUERY_NOT_SUPPORTED"),
    ] {
        let got = ask(&gateway, json!({"query": DOCUMENT, "extensions": extensions})).await;
        assert_eq!(code(&got), expected);
    }
    for hash in [&hash, &wrong] {
        assert_eq!(code(&ask(&gateway, json!({"extensions": apq(hash)})).await), "PERSISTED_QUERY_NOT_FOUND");
    }
    // Nor is what is no document.
    let nonsense = "{ agents {";
    let hash_of_nonsense = DocumentHash::of(nonsense).to_string();
    ask(&gateway, json!({"query": nonsense, "extensions": apq(&hash_of_nonsense)})).await;
    assert_eq!(
        code(&ask(&gateway, json!({"extensions": apq(&hash_of_nonsense)})).await),
        "PERSISTED_QUERY_NOT_FOUND"
    );
    let first = ask(&gateway, json!({"query": DOCUMENT, "extensions": extensions})).await.data();
    assert_eq!(first["agents"]["nodes"].as_array().unwrap().len(), 2);
    let again = ask(&gateway, json!({"extensions": extensions, "variables": {"first": 1}})).await.data();
    assert_eq!(again["agents"]["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(by_get(&gateway, &[("extensions", &extensions.to_string())]).await.data(), first);
    assert_eq!(
        by_get(&gateway, &[("documentId", &format!("sha256:{hash}")), ("variables", "{\"first\":2}")])
            .await
            .data(),
        first
    );
    assert_eq!(ask(&gateway, json!({"documentId": hash})).await.data(), first);
    assert_eq!(code(&ask(&gateway, json!({"documentId": "agents"})).await), "PERSISTED_QUERY_NOT_FOUND");
    // The other process hears of it by Redis, and believes it only if the hash is right.
    let begun = Instant::now();
    while ask(&other, json!({"documentId": hash})).await.text.contains("PersistedQueryNotFound") {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    redis.ask(&["set", &format!("evidence-gateway:document:{wrong}"), "{ agents { totalCount } }"]);
    assert_eq!(code(&ask(&other, json!({"documentId": wrong})).await), "PERSISTED_QUERY_NOT_FOUND");
    // A mutation by its hash is still none by GET.
    let write = "mutation { heartbeat(input: {agentId: \"00000000-0000-7000-8000-000000000000\"}) { id } }";
    let hash = DocumentHash::of(write).to_string();
    ask(&gateway, json!({"query": write, "extensions": apq(&hash)})).await;
    assert_eq!(by_get(&gateway, &[("documentId", &hash)]).await.status, 405);
}

#[tokio::test]
async fn an_operator_says_what_may_be_run() {
    let database = Database::sample().await;
    let url = &database.url;
    let dir = tempfile::tempdir().unwrap();
    let hash = DocumentHash::of(DOCUMENT).to_string();
    let load = |manifest: Value| {
        let file = dir.path().join("manifest.json");
        std::fs::write(&file, manifest.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
        let output =
            command.args(["documents", "load"]).arg(&file).args(["--database-url", url]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let apollo = |id: &str, body: &str| {
        json!({"format": "apollo-persisted-query-manifest", "version": 1,
            "operations": [{"id": id, "name": "Agents", "type": "query", "body": body}]})
    };
    for wrong in [
        json!([]),
        json!({"format": "apollo-persisted-query-manifest", "version": 2, "operations": []}),
        apollo("agents", DOCUMENT),
        json!({"0123456789012345678901234567890123456789": DOCUMENT}),
        apollo(&DocumentHash::of("{ agents {").to_string(), "{ agents {"),
    ] {
        let (done, _, stderr) = load(wrong.clone());
        assert!(!done && stderr.contains("manifest.json"), "{wrong} {stderr}");
    }
    assert_eq!(column(url, "select count(*) from persisted_documents").await, ["0"]);
    assert_eq!(
        load(apollo(&hash, DOCUMENT)),
        (true, "1 documents, 1 of them new\n".to_owned(), String::new())
    );
    let other = "{ agents { totalCount } }";
    let codegen = json!({hash.clone(): DOCUMENT, DocumentHash::of(other).to_string(): other});
    assert_eq!(load(codegen).1, "2 documents, 1 of them new\n");

    let modes =
        ["--document-modes", "viewer=trusted-only,analyst=trusted-preferred", "--cache-bytes", "1000000"];
    let gateway = Gateway::start(url, &modes, Access::Tokens(secret())).await;
    let viewer = gateway.viewed_by(&member(None, &[]));
    let analyst = gateway.viewed_by(&Viewer { role: Role::Analyst, ..member(None, &[]) });
    let admin = gateway.viewed_by(&Viewer::admin());
    for _ in 0..2 {
        for known in
            [json!({"documentId": hash}), json!({"query": DOCUMENT}), json!({"extensions": apq(&hash)})]
        {
            ask(&viewer, known).await.data();
        }
        let strange = "{ agents { nodes { id } } }";
        let sent = json!({"query": strange, "extensions": apq(&DocumentHash::of(strange).to_string())});
        for body in [json!({"query": strange}), sent.clone()] {
            let refused = ask(&viewer, body).await;
            assert_eq!((refused.status, code(&refused).as_str()), (403, "FORBIDDEN"));
        }
        ask(&analyst, json!({"query": strange})).await.data();
        ask(&admin, sent).await.data();
    }
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    // The repetition was answered from the cache.
    assert!(metrics.contains("evidence_gateway_untrusted_documents_total 1\n"), "{metrics}");
}
