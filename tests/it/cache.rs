//! The response cache over HTTP: what is served from memory, what touches it, for whom, and how old it may be.

use std::collections::BTreeMap;
use std::time::Duration;

use evidence_gateway::http::viewer::Access;
use evidence_gateway::model::viewer::{Role, Viewer};
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Database, Gateway, column, execute, id_of, member, secret};

mod ages;
mod checker;
mod cluster;
mod shared;
mod touches;

/// What came back.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `hit`, or why it was not one.
    pub(crate) fn came(&self) -> &str {
        let status = self.header("cache-status");
        let status = status.strip_prefix("evidence-gateway; ").unwrap_or(status);
        status.split("detail=").nth(1).unwrap_or(status)
    }

    pub(crate) fn data(&self) -> Value {
        let body: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(body.get("errors"), None, "{}", self.text);
        body["data"].clone()
    }
}

pub(crate) async fn send(gateway: &Gateway, request: reqwest::RequestBuilder) -> Got {
    let request = match gateway.bearer() {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = request.send().await.unwrap();
    let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Got { status: response.status().as_u16(), headers, text: response.text().await.unwrap() }
}

pub(crate) async fn post(gateway: &Gateway, document: &str, headers: &[(&str, &str)]) -> Got {
    let mut request = gateway.client.post(format!("{}/graphql", gateway.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(gateway, request.json(&json!({"query": document}))).await
}

pub(crate) async fn get(gateway: &Gateway, document: &str, headers: &[(&str, &str)]) -> Got {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", document).finish();
    let mut request = gateway.client.get(format!("{}/graphql?{query}", gateway.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(gateway, request).await
}

/// Has the gateway see all that is committed.
pub(crate) async fn catch_up(gateway: &Gateway) {
    gateway.tail.as_ref().unwrap().catch_up(Duration::from_secs(20)).await.unwrap();
}

/// A slow machine is no reason to miss; the bound has a test of its own.
pub(crate) const CACHED: [&str; 4] = ["--cache-bytes", "67108864", "--cache-staleness-ms", "60000"];

pub(crate) async fn cached(url: &str, access: Access) -> Gateway {
    let gateway = Gateway::start(url, &CACHED, access).await;
    catch_up(&gateway).await;
    gateway
}

const LIST: &str = "query List { tasks(first: 3) { nodes { id title } } }";

#[tokio::test]
async fn a_repetition_costs_no_statement() {
    let database = Database::sample().await;
    let gateway = cached(&database.url, Access::Everyone).await;
    let first = post(&gateway, LIST, &[]).await;
    assert_eq!(first.header("cache-status"), "evidence-gateway; fwd=miss; stored; detail=absent");
    assert_eq!((first.header("cache-control"), first.header("age")), ("private, no-cache", ""));
    let before = gateway.statements().await;
    let second = post(&gateway, LIST, &[]).await;
    assert_eq!((second.header("cache-status"), second.header("age")), ("evidence-gateway; hit", "0"));
    assert_eq!((&second.text, second.header("etag")), (&first.text, first.header("etag")));
    // However it comes: by GET, with spaces between the members, with the variables in another order.
    let by_get = get(&gateway, LIST, &[]).await;
    assert_eq!((by_get.came(), &by_get.text), ("hit", &first.text));
    for body in [
        format!("{{ \"query\" : {} , \"variables\":{{}} }}", json!(LIST)),
        format!("{{\"operationName\":\"List\",\"query\":{}}}", json!(LIST)),
    ] {
        for came in ["hit", "hit"] {
            let request = gateway.client.post(format!("{}/graphql", gateway.url)).body(body.clone());
            let got = send(&gateway, request.header("content-type", "application/json")).await;
            assert_eq!((got.came(), &got.text), (came, &first.text));
        }
    }
    // Only what a client may have from a GET can be said to be unchanged.
    let tag = by_get.header("etag").to_owned();
    let modern = get(&gateway, LIST, &[("accept", "application/graphql-response+json")]).await;
    assert_eq!((modern.came(), &modern.text), ("hit", &first.text));
    assert_ne!(modern.header("etag"), tag);
    for (given, status) in [
        (tag.clone(), 304),
        (format!("\"x\", W/{tag}"), 304),
        ("*".to_owned(), 304),
        ("\"x\"".to_owned(), 200),
    ] {
        let got = get(&gateway, LIST, &[("if-none-match", &given)]).await;
        assert_eq!(
            (got.status, got.header("etag"), got.text.is_empty()),
            (status, tag.as_str(), status == 304)
        );
    }
    assert_eq!(post(&gateway, LIST, &[("if-none-match", &tag)]).await.status, 200);
    assert_eq!(gateway.statements().await, before);
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    for line in [
        "cache_misses_total{reason=\"absent\"} 1",
        "cache_stored_total 1",
        "cache_not_modified_total 3",
        "cache_entries 1",
    ] {
        assert!(metrics.contains(&format!("evidence_gateway_{line}\n")), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_client_says_what_it_wants_of_the_cache() {
    let database = Database::sample().await;
    let gateway = cached(&database.url, Access::Everyone).await;
    let came = async |wish: &str| {
        post(&gateway, LIST, &[("cache-control", wish)]).await.header("cache-status").to_owned()
    };
    assert_eq!(came("no-store").await, "evidence-gateway; fwd=request; detail=refused");
    assert_eq!(came("max-age=0").await, "evidence-gateway; fwd=miss; stored; detail=absent");
    assert_eq!(came("no-cache").await, "evidence-gateway; fwd=request; stored; detail=refused");
    assert_eq!(came("no-transform").await, "evidence-gateway; hit");
    let old = post(&gateway, LIST, &[]).await.text;
    execute(&database.url, "update tasks set title = title || '!'").await;
    catch_up(&gateway).await;
    assert_eq!(came("max-stale=60").await, "evidence-gateway; hit; detail=stale");
    assert_eq!(came("max-stale=0").await, "evidence-gateway; fwd=stale; stored; detail=changed");
    let new = post(&gateway, LIST, &[("cache-control", "max-stale")]).await;
    assert_eq!((new.came(), new.text == old), ("hit", false));
}

/// Errors, partial answers, mutations, what tells of no changes: never.
#[tokio::test]
async fn not_everything_is_kept() {
    let database = Database::sample().await;
    let gateway = cached(&database.url, Access::Everyone).await;
    for (document, came) in [
        ("{ nothing }", "absent"),
        ("{ agents(first: -1) { totalCount } tasks(first: 1) { nodes { id } } }", "absent"),
        ("{ auditLogs(first: 1) { nodes { id } } }", "uncacheable"),
        ("{ node(id: \"00000000-0000-7000-8000-000000000000\") { id } }", "uncacheable"),
        ("mutation { heartbeat(input: {agentId: \"00000000-0000-7000-8000-000000000000\"}) { id } }", ""),
    ] {
        post(&gateway, document, &[]).await;
        let again = post(&gateway, document, &[]).await;
        assert_eq!(again.came(), came, "{document} {}", again.text);
        assert_eq!(again.header("etag"), "", "{document}");
    }
    // Introspection changes with the program only.
    for came in ["absent", "evidence-gateway; hit"] {
        let got = post(&gateway, "{ __schema { queryType { name } } __typename }", &[]).await;
        assert!(got.header("cache-status").ends_with(came), "{}", got.header("cache-status"));
    }
}

/// Those who see the same share; those who do not never do; what is about the person is the person's.
#[tokio::test]
async fn viewers_of_one_scope_share_and_others_do_not() {
    let database = Database::sample().await;
    let url = &database.url;
    let gateway = cached(url, Access::Tokens(secret())).await;
    let projects: Vec<Uuid> = column(url, "select id from projects order by slug limit 2")
        .await
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    let users: Vec<Uuid> = column(url, "select id from users order by username limit 2")
        .await
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    let analyst = |viewer: Viewer| Viewer { role: Role::Analyst, ..viewer };
    let viewers = [
        member(Some(users[0]), &projects),
        member(Some(users[1]), &[projects[1], projects[0]]),
        member(None, &projects),
        member(Some(users[0]), &projects[..1]),
        member(Some(users[0]), &[]),
        analyst(member(Some(users[0]), &projects)),
        Viewer::admin(),
    ];
    for (document, shared) in [
        ("{ tasks { totalCount nodes { id } } }", [false, true, true, false, false, false, false]),
        ("{ agents { nodes { id } } }", [false, true, true, false, false, false, false]),
        ("{ viewer { userId } }", [false; 7]),
        ("{ activities { totalCount } }", [false; 7]),
        ("{ tasks { totalCount } users { totalCount } }", [false; 7]),
        ("{ taskComments { totalCount } }", [false, true, true, false, false, false, false]),
    ] {
        for (viewer, shared) in viewers.iter().zip(shared) {
            let gateway_of = gateway.viewed_by(viewer);
            let got = post(&gateway_of, document, &[]).await;
            assert_eq!(got.came() == "hit", shared, "{document} {viewer:?}");
            let executed = post(&gateway_of, document, &[("cache-control", "no-store")]).await;
            assert_eq!(got.text, executed.text, "{document} {viewer:?}");
            assert_eq!(post(&gateway_of, document, &[]).await.came(), "hit", "{document} {viewer:?}");
        }
    }
}

/// Of many who ask at once for what nobody has, one executes.
#[tokio::test]
async fn a_crowd_costs_one_execution() {
    let database = Database::sample().await;
    let settings = [&CACHED[..], &["--max-connections", "2000"]].concat();
    let gateway = Gateway::start(&database.url, &settings, Access::Everyone).await;
    catch_up(&gateway).await;
    let document = "{ tasks(first: 100) { nodes { title evidences(first: 5) { nodes { title supporting { totalCount } } } } } }";
    let crowd = futures_util::future::join_all((0..1_000).map(|_| post(&gateway, document, &[]))).await;
    let statements = gateway.statements().await;
    assert!(crowd.iter().all(|got| got.status == 200 && got.text == crowd[0].text));
    let executed = crowd.iter().filter(|got| got.header("cache-status").contains("stored")).count();
    assert_eq!((executed, statements), (1, 3));
    // Nobody waits for an answer that cannot be kept.
    let document = "{ auditLogs(first: 1) { nodes { id } } }";
    let crowd = futures_util::future::join_all((0..100).map(|_| post(&gateway, document, &[]))).await;
    assert!(crowd.iter().all(|got| got.status == 200 && got.text == crowd[0].text));
}

/// The bound is enforced: while PostgreSQL is frozen, nobody knows whether anything still holds.
#[tokio::test]
async fn nothing_is_served_while_the_log_is_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = PrivatePostgres::start(PostgresOptions::throwaway(dir.path())).await.unwrap();
    let url = postgres.database_url();
    evidence_gateway::store::db::migrations::migrate(&url).await.unwrap();
    let settings =
        ["--cache-bytes", "67108864", "--cache-staleness-ms", "500", "--request-timeout-ms", "1500"];
    let gateway = Gateway::start(&url, &settings, Access::Everyone).await;
    catch_up(&gateway).await;
    let document = "{ tasks { totalCount } }";
    // The registry may be shown when nothing newer can be had, and says so.
    let registry = "{ agents { totalCount nodes { name } } }";
    for document in [document, registry] {
        post(&gateway, document, &[]).await;
        assert_eq!(post(&gateway, document, &[]).await.came(), "hit");
    }
    let pids = std::process::Command::new("pgrep")
        .args(["-s", &postgres.pid().unwrap().to_string()])
        .output()
        .unwrap();
    let pids = String::from_utf8(pids.stdout).unwrap();
    let all = [vec![postgres.pid().unwrap().to_string()], children(postgres.pid().unwrap())].concat();
    assert!(!pids.is_empty() || all.len() > 1);
    signal("STOP", &all);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let shown = post(&gateway, registry, &[]).await;
    let frozen = post(&gateway, document, &[]).await;
    signal("CONT", &all);
    assert_eq!((shown.status, shown.came()), (200, "stale-if-error"), "{}", shown.text);
    assert_eq!(frozen.status, 504, "{}", frozen.text);
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("cache_misses_total{reason=\"behind\"} 1\n"), "{metrics}");
    catch_up(&gateway).await;
    assert_eq!(post(&gateway, document, &[]).await.came(), "hit");
}

fn signal(name: &str, pids: &[String]) {
    assert!(
        std::process::Command::new("kill").arg(format!("-{name}")).args(pids).status().unwrap().success()
    );
}

fn children(pid: u32) -> Vec<String> {
    let output = std::process::Command::new("pgrep").args(["-P", &pid.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn writers_read_their_writes_through_the_cache() {
    let database = Database::sample().await;
    let url = &database.url;
    let gateway = Gateway::start(url, &["--cache-bytes", "67108864"], Access::Everyone).await;
    catch_up(&gateway).await;
    let task =
        id_of(url, "tasks", &column(url, "select external_id from tasks order by id limit 1").await[0]).await;
    let read = format!("{{ task(id: \"{task}\") {{ title version }} }}");
    for n in 0..30 {
        let write = format!(
            "mutation {{ updateTask(input: {{id: \"{task}\", title: \"Title {n}\"}}) {{ version }} }}"
        );
        let written = post(&gateway, &write, &[]).await.data();
        for _ in 0..2 {
            let got = post(&gateway, &read, &[]).await.data();
            assert_eq!(
                got["task"],
                json!({"title": format!("Title {n}"), "version": written["updateTask"]["version"]})
            );
        }
    }
}
