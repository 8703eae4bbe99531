//! What operators read: metrics in two encodings, bounded whatever clients send, and readiness that is said in time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::manners::{Server, client};

/// The two encodings of the metrics say the same, and say what was done.
#[tokio::test]
async fn metrics_count_what_was_done() {
    let server = Server::start(&[]).await;
    let board = "query Board { tasks(first: 5) { nodes { evidences(first: 2) { nodes { id } } } } }";
    for (document, times) in [(board, 2), ("{ __typename }", 1), ("query Wrong { nothing }", 1), ("{", 1)] {
        for _ in 0..times {
            server.ask(document).send().await.unwrap();
        }
    }
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let json: Value = server.get("/metrics/json").send().await.unwrap().json().await.unwrap();
    for line in [
        r#"requests_total{operation="Board",outcome="ok",type="query"} 2"#,
        r#"requests_total{operation="",outcome="ok",type="query"} 1"#,
        r#"requests_total{operation="Wrong",outcome="BAD_USER_INPUT",type="query"} 1"#,
        r#"requests_total{operation="",outcome="BAD_USER_INPUT",type=""} 1"#,
        r#"request_seconds_count{type="query"} 4"#,
        r#"request_statements_bucket{le="2"} 5"#,
        "statements_total 4",
        "loader_batch_keys_count 4",
        r#"http_responses_total{route="/graphql",status="200"} 5"#,
        "connections_open ",
        "requests_in_flight 1",
        "pool_connections ",
        "pool_waits_total ",
        "change_log_batches_total ",
        "change_log_pruned_total 0",
        "change_log_silence_seconds 0",
    ] {
        let line = format!("evidence_gateway_{line}");
        assert!(text.lines().any(|found| found.starts_with(&line)), "{line}\n{text}");
    }
    // Lines of the text, made of the JSON. What goes on meanwhile is left out.
    let moving = ["connections", "http_responses", "in_flight", "pool_", "change_log_"];
    let mut lines = Vec::new();
    for metric in json["metrics"].as_array().unwrap() {
        let name = metric["name"].as_str().unwrap();
        for sample in metric["samples"].as_array().unwrap() {
            let labels = sample["labels"].as_object().unwrap();
            let mut pairs: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.sort();
            let mut line = |end: &str, more: Option<String>, value: &Value| {
                let pairs: Vec<String> = pairs.iter().cloned().chain(more).collect();
                let labels =
                    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
                lines.push(format!("{name}{end}{labels} {}", value.as_f64().unwrap()));
            };
            if metric["type"] == "histogram" {
                for bucket in sample["buckets"].as_array().unwrap() {
                    line(
                        "_bucket",
                        Some(format!("le=\"{}\"", bucket["le"].as_f64().unwrap())),
                        &bucket["count"],
                    );
                }
                line("_bucket", Some("le=\"+Inf\"".to_owned()), &sample["count"]);
                line("_sum", None, &sample["sum"]);
                line("_count", None, &sample["count"]);
            } else {
                line("", None, &sample["value"]);
            }
        }
    }
    let stable = |line: &&str| !line.starts_with('#') && !moving.iter().any(|name| line.contains(name));
    let expected: Vec<&str> = text.lines().filter(stable).collect();
    let found: Vec<&str> = lines.iter().map(String::as_str).filter(stable).collect();
    assert_eq!(found, expected);
}

/// Clients choose the names of operations, and may choose very many.
#[tokio::test]
async fn metrics_stay_bounded() {
    let server = Server::start(&[]).await;
    let client = client();
    for n in 0..300 {
        let body = json!({"query": format!("query Name{n} {{ __typename }}")});
        client.post(server.url("/graphql")).json(&body).send().await.unwrap();
        client.get(server.url(&format!("/nothing/{n}"))).send().await.unwrap();
        let method = reqwest::Method::from_bytes(format!("METHOD{n}").as_bytes()).unwrap();
        client.request(method, server.url("/graphql")).send().await.unwrap();
    }
    let long = format!("query {} {{ __typename }}", "x".repeat(1_000));
    server.ask(&long).send().await.unwrap();
    let text = server.app.metrics.text().unwrap();
    let lines = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(lines("evidence_gateway_requests_total"), 201);
    assert!(lines("evidence_gateway_http_responses_total") < 6, "{text}");
    assert!(text.contains(r#"requests_total{operation="other",outcome="ok",type="query"} 101"#), "{text}");
}

/// A check is over within its second, however long requests may wait for a connection, and many share one.
#[tokio::test]
async fn readiness_does_not_wait_for_the_pool() {
    let server = Server::start(&["--pool-size", "1", "--pool-wait-ms", "30000"]).await;
    let ready = async || {
        let begun = Instant::now();
        let response = server.get("/health/ready").send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap(), begun.elapsed())
    };
    let (status, body, _) = ready().await;
    let postgresql = &body["stores"]["postgresql"];
    assert_eq!((status, &postgresql["status"]), (200, &json!("up")), "{body}");
    assert!(
        postgresql["latency_ms"].as_f64().unwrap() > 0.0 && postgresql["connections"]["limit"] == 1,
        "{body}"
    );
    let taken = server.app.db.connection().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let answers = tokio::join!(ready(), ready(), ready());
    for (status, body, took) in [answers.0, answers.1, answers.2] {
        assert_eq!((status, &body["stores"]["postgresql"]["status"]), (503, &json!("down")), "{body}");
        assert!(took < Duration::from_millis(1_900), "{took:?}");
    }
    drop(taken);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(ready().await.0, 200);
}
