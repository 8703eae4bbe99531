//! What stands on the wire: status codes, media types, and what errors never say.

use evidence_gateway::graphql::Graph;
use evidence_gateway::http::viewer::Access;
use serde_json::{Value, json};

use crate::harness::{Database, Gateway, execute, sample_url};

const JSON: &str = "application/json";
const MODERN: &str = "application/graphql-response+json";

/// What came back: status, media type, body.
async fn post(
    gateway: &Gateway,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> (u16, String, String) {
    let mut request = gateway.client.post(format!("{}/graphql", gateway.url)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    received(request.send().await.unwrap()).await
}

async fn received(response: reqwest::Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    (status, kind.unwrap_or_default(), response.text().await.unwrap())
}

fn code(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    body["errors"][0]["extensions"]["code"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn the_status_says_what_the_media_type_promises() {
    let gateway = Gateway::open(&sample_url()).await;
    let good = json!({"query": "{ agents { totalCount } }"}).to_string();
    let invalid = json!({"query": "{ nothing }"}).to_string();
    let failing = json!({"query": "{ agents(first: -1) { totalCount } }"}).to_string();
    for (accept, body, status, kind) in [
        (Some(MODERN), &good, 200, MODERN),
        (Some(MODERN), &failing, 200, MODERN),
        (Some(MODERN), &invalid, 400, MODERN),
        (
            Some("application/graphql-response+json; charset=utf-8, application/json;q=0.9"),
            &invalid,
            400,
            MODERN,
        ),
        (Some("application/graphql-response+json;q=0.5, application/json"), &invalid, 200, JSON),
        (Some(JSON), &good, 200, JSON),
        (Some(JSON), &invalid, 200, JSON),
        (Some("*/*"), &good, 200, JSON),
        (Some("text/html, application/*"), &good, 200, JSON),
        (None, &good, 200, JSON),
        (Some("text/html"), &good, 406, MODERN),
        (Some("application/json;q=0"), &good, 406, MODERN),
    ] {
        let mut headers = vec![("content-type", JSON)];
        headers.extend(accept.map(|accept| ("accept", accept)));
        let (found, media, text) = post(&gateway, &headers, body.clone()).await;
        assert_eq!((found, media), (status, format!("{kind}; charset=utf-8")), "{accept:?} {body} {text}");
    }
    let (_, _, text) = post(&gateway, &[("content-type", JSON)], good).await;
    assert_eq!(text, r#"{"data":{"agents":{"totalCount":10}}}"#);
}

#[tokio::test]
async fn requests_that_are_none_are_refused() {
    let gateway = Gateway::start(&sample_url(), &["--max-body-bytes", "2048"], Access::Everyone).await;
    let good = json!({"query": "{ agents { totalCount } }"}).to_string();
    for kind in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "",
        "application/json; charset=latin1",
    ] {
        let (status, _, text) = post(&gateway, &[("content-type", kind)], good.clone()).await;
        assert_eq!((status, code(&text).as_str()), (415, "BAD_USER_INPUT"), "{kind}");
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\""] {
        assert_eq!(post(&gateway, &[("content-type", kind)], good.clone()).await.0, 200, "{kind}");
    }
    for body in [
        "",
        "{",
        "[]",
        r#"["{ __typename }", null, null, null]"#,
        "null",
        "3",
        "{}",
        r#"{"query": 3}"#,
        r#"{"query": ""}"#,
        r#"{"query": null}"#,
        r#"{"query": "{ __typename }", "variables": []}"#,
        r#"{"query": "{ __typename }", "operationName": {}}"#,
        "{\"query\": \"{ __typename }\"",
        "\u{0}",
    ] {
        let (status, _, text) = post(&gateway, &[("content-type", JSON)], body).await;
        assert_eq!((status, code(&text).as_str()), (400, "BAD_USER_INPUT"), "{body}");
    }
    // Also where nobody would read them.
    for body in [&b"{\"query\": \"\xff\"}"[..], b"{\"query\": \"{ __typename }\", \"other\": \"\xff\"}"] {
        assert_eq!(post(&gateway, &[("content-type", JSON)], body).await.0, 400);
    }
    let large = json!({"query": format!("{{ __typename }} # {}", "x".repeat(2_048))}).to_string();
    let (status, _, text) = post(&gateway, &[("content-type", JSON)], large.clone()).await;
    assert_eq!((status, code(&text).as_str()), (413, "BAD_USER_INPUT"));
    for method in [reqwest::Method::PUT, reqwest::Method::DELETE, reqwest::Method::PATCH] {
        let response =
            gateway.client.request(method.clone(), format!("{}/graphql", gateway.url)).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
    }
}

#[tokio::test]
async fn questions_may_come_by_get() {
    let gateway = Gateway::open(&sample_url()).await;
    let get = async |query: &[(&str, &str)]| {
        let response =
            gateway.client.get(format!("{}/graphql", gateway.url)).query(query).header("accept", MODERN);
        received(response.send().await.unwrap()).await
    };
    let document = "query One($n: Int) { agents(first: $n) { nodes { id } } } query Two { __typename }";
    let (status, _, text) =
        get(&[("query", document), ("operationName", "One"), ("variables", r#"{"n": 0}"#)]).await;
    assert_eq!((status, text.as_str()), (200, r#"{"data":{"agents":{"nodes":[]}}}"#));
    let (_, _, text) = get(&[("query", document), ("operationName", "Two")]).await;
    assert_eq!(text, r#"{"data":{"__typename":"Query"}}"#);
    for wrong in [
        &[("query", document)][..],
        &[("query", document), ("operationName", "Three")],
        &[("query", "{ __typename }"), ("variables", "[]")],
        &[("operationName", "One")],
        &[],
    ] {
        let (status, _, text) = get(wrong).await;
        assert_eq!((status, code(&text).as_str()), (400, "BAD_USER_INPUT"), "{wrong:?} {text}");
    }
    let (status, _, text) = get(&[("query", "mutation { nothing }")]).await;
    assert_eq!((status, code(&text).as_str()), (405, "BAD_USER_INPUT"), "{text}");
}

#[tokio::test]
async fn everything_else_has_its_address() {
    let gateway = Gateway::open(&sample_url()).await;
    let get = async |path: &str| received(gateway.get(path).await).await;
    assert_eq!(get("/health/live").await, (200, JSON.to_owned(), r#"{"status":"live"}"#.to_owned()));
    let (status, _, ready) = get("/health/ready").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status, &ready["stores"]["postgresql"]["status"]), (200, &json!("up")));
    let (status, kind, metrics) = get("/metrics").await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    for line in metrics.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let fine = matches!(&words[..], ["#", "HELP" | "TYPE", ..])
            || matches!(&words[..], [_, n] if n.parse::<f64>().is_ok());
        assert!(fine, "{line}");
    }
    let (status, kind, sdl) = get("/schema.graphql").await;
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql")).unwrap();
    assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
    assert!(
        sdl == committed && committed == Graph::sdl(),
        "write it anew: evidence-gateway schema > schema.graphql"
    );
    for path in ["/nothing", "/assets/nothing.js", "/assets/../index.html", "/assets/%2e%2e/index.html"] {
        assert_eq!(get(path).await.0, 404, "{path}");
    }
    for page in ["/", "/graphiql"] {
        // Without node there are no pages, and the answer says what to do.
        let (status, _, text) = get(page).await;
        assert!(
            status == 200 && text.contains("<html") || status == 404 && text.contains("make web"),
            "{text}"
        );
    }
}

/// The database is broken on purpose; what a client reads of it is one sentence.
#[tokio::test]
async fn errors_say_nothing_of_the_inside() {
    let database = Database::sample().await;
    execute(
        &database.url,
        "alter table tasks rename to elsewhere; alter table agents drop column name cascade",
    )
    .await;
    let gateway = Gateway::open(&database.url).await;
    let answer = gateway
        .request("{ tasks { nodes { id } } agents { nodes { name } } users { totalCount } }", json!({}))
        .await;
    let errors = answer.body["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{}", answer.text);
    for error in errors {
        assert_eq!(error["message"], "internal error; the log of the server has the details");
        assert_eq!(error["extensions"], json!({"code": "INTERNAL"}));
    }
    assert_eq!(answer.body["data"]["users"], json!({"totalCount": 5}));
    let lower = answer.text.to_lowercase();
    for inside in [
        "select",
        "relation",
        "does not exist",
        "diesel",
        "postgres",
        "elsewhere",
        "error_response",
        "panicked",
    ] {
        assert!(!lower.contains(inside), "{inside}: {}", answer.text);
    }
}
