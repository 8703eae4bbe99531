//! How old answers may be: the hints of the schema, what is shown while it is made anew, what others may keep, and
//! what an operator has everyone forget.

use std::process::Command;
use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use serde_json::{Value, json};

use crate::cache::{CACHED, Got, cached, catch_up, get, post, send};
use crate::harness::{Database, Gateway, column, execute, secret};
use crate::redis::RedisServer;

const AGENTS: &str = "{ agents { nodes { name } } }";
const TASKS: &str = "{ tasks { nodes { title } } }";

async fn explained(gateway: &Gateway, document: &str) -> Value {
    let request = gateway.client.post(format!("{}/graphql", gateway.url));
    let got = send(gateway, request.json(&json!({"query": document, "extensions": {"cache": true}}))).await;
    let body: Value = serde_json::from_str(&got.text).unwrap();
    body["extensions"]["cache"].clone()
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("evidence_gateway_{name} ")));
    line.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn of_all_hints_the_strictest_counts() {
    let database = Database::sample().await;
    let gateway = cached(&database.url, Access::Everyone).await;
    for (document, revalidate, if_error) in [
        (AGENTS, 60_000, 300_000),
        ("{ projects { totalCount } }", 60_000, 60_000),
        ("{ agents { nodes { name } } projects { nodes { name } } }", 60_000, 60_000),
        ("{ agents { nodes { name } } tasks { totalCount } }", 0, 0),
        ("{ agents { nodes { name tasks { totalCount } } } }", 0, 0),
        ("{ agentAggregate { count } }", 0, 0),
    ] {
        let told = explained(&gateway, document).await;
        let ages = ["lifetimeMs", "staleWhileRevalidateMs", "staleIfErrorMs"].map(|name| told[name].clone());
        assert_eq!(ages, [300_000, revalidate, if_error].map(Value::from), "{document} {told}");
    }
    // What the schema says is what happens.
    let schema = gateway.get("/schema.graphql").await.text().await.unwrap();
    let said = |name: &str| {
        let line = schema.lines().find(|line| line.starts_with(&format!("type {name} "))).unwrap();
        line.split_once("@cacheControl").map_or("", |(_, said)| said).to_owned()
    };
    assert_eq!(said("Agent"), "(staleWhileRevalidate: 60, staleIfError: 300) {");
    assert_eq!(said("Task"), "");
    assert_eq!(said("SearchEvidenceConnection"), "(maxAge: 2) {");
    let mut private = 0;
    for (_, ty, table) in evidence_gateway::model::graph().entities() {
        let told = explained(&gateway, &format!("{{ {} {{ nodes {{ id }} }} }}", table.many)).await;
        let is_private = said(&ty.name).contains("scope: PRIVATE");
        if told != Value::Null {
            assert_eq!(told["scope"] == "PRIVATE", is_private, "{} {told}", ty.name);
            private += usize::from(is_private);
        }
    }
    assert!(private > 0);
    assert!(said("Viewer").contains("scope: PRIVATE"));
    assert_eq!(explained(&gateway, "{ viewer { role } }").await["scope"], "PRIVATE");
}

#[tokio::test]
async fn what_is_old_and_holds_is_shown_while_it_is_made_anew() {
    let database = Database::sample().await;
    let settings = [&CACHED[..], &["--cache-ttl-s", "1"]].concat();
    let gateway = Gateway::start(&database.url, &settings, Access::Everyone).await;
    catch_up(&gateway).await;
    let old = post(&gateway, AGENTS, &[]).await.text;
    post(&gateway, TASKS, &[]).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(post(&gateway, AGENTS, &[]).await.came(), "stale-while-revalidate");
    // Of this nothing is said, so it is as old as it may be.
    assert_eq!(post(&gateway, TASKS, &[]).await.came(), "expired");
    let begun = Instant::now();
    while metric(&gateway, "cache_refreshed_total").await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    // What has changed is not shown, however long that was allowed.
    execute(&database.url, "update agents set name = name || '!'").await;
    catch_up(&gateway).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let new = post(&gateway, AGENTS, &[]).await;
    assert_eq!((new.came(), new.text == old), ("changed", false));
    let by = "cache_invalidations_total{by=\"agents\"}";
    assert!(metric(&gateway, by).await > 0);
}

/// Who asks often for something never waits for it.
#[tokio::test]
async fn what_is_asked_for_often_is_made_anew_before_its_end() {
    let database = Database::sample().await;
    let settings = [&CACHED[..], &["--cache-ttl-s", "2"]].concat();
    let gateway = Gateway::start(&database.url, &settings, Access::Everyone).await;
    catch_up(&gateway).await;
    post(&gateway, AGENTS, &[]).await;
    let (begun, mut late) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(5) {
        let got = post(&gateway, AGENTS, &[]).await;
        assert!(got.header("cache-status").starts_with("evidence-gateway; hit"));
        late += u64::from(got.came() == "stale-while-revalidate");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refreshed = metric(&gateway, "cache_refreshed_total").await;
    assert!(refreshed >= 2 && late < refreshed, "{refreshed} {late}");
}

#[tokio::test]
async fn others_may_keep_what_anybody_may_have_if_they_ask_first() {
    let database = Database::sample().await;
    let gateway = cached(&database.url, Access::Everyone).await;
    let control = |got: Got| got.header("cache-control").to_owned();
    for (document, by_get) in [
        (TASKS, "public, no-cache"),
        (AGENTS, "public, max-age=0, stale-if-error=300"),
        ("{ viewer { role } }", "private, no-cache"),
    ] {
        for _ in 0..2 {
            assert_eq!(control(get(&gateway, document, &[]).await), by_get, "{document}");
            assert_eq!(control(post(&gateway, document, &[]).await), "private, no-cache", "{document}");
        }
    }
    let guarded = cached(&database.url, Access::Tokens(secret())).await;
    let guarded = guarded.viewed_by(&evidence_gateway::model::viewer::Viewer::admin());
    assert_eq!(control(get(&guarded, AGENTS, &[]).await), "private, no-cache");
}

#[tokio::test]
async fn a_repeated_document_is_neither_parsed_nor_validated() {
    let database = Database::sample().await;
    let gateway = cached(&database.url, Access::Everyone).await;
    let document = "query Some($first: Int) { tasks(first: $first) { nodes { id } } }";
    let ask = async |first: i32| {
        let request =
            gateway.client.post(format!("{}/graphql", gateway.url)).header("cache-control", "no-store");
        send(&gateway, request.json(&json!({"query": document, "variables": {"first": first}}))).await
    };
    for (first, parsed, validated) in [(1, 1, 1), (1, 1, 1), (2, 1, 2), (2, 1, 2)] {
        let rows = ask(first).await.data()["tasks"]["nodes"].as_array().unwrap().len();
        assert_eq!(rows, usize::try_from(first).unwrap());
        let counted = ["documents_parsed_total", "documents_validated_total"];
        let counted = [metric(&gateway, counted[0]).await, metric(&gateway, counted[1]).await];
        assert_eq!(counted, [parsed, validated]);
    }
    // What is wrong stays wrong.
    for _ in 0..2 {
        let wrong = post(&gateway, "{ tasks { nodes { nothing } } }", &[]).await;
        assert!(wrong.text.contains("BAD_USER_INPUT"), "{}", wrong.text);
    }
}

/// Rows that were loaded with triggers switched off left nothing in the log.
#[tokio::test]
async fn an_operator_has_every_process_forget() {
    let database = Database::sample().await;
    let redis = RedisServer::start().await;
    let (url, address) = (&database.url, redis.url());
    let settings = [&CACHED[..], &["--redis-url", &address]].concat();
    let one = Gateway::start(url, &settings, Access::Everyone).await;
    let other = Gateway::start(url, &settings, Access::Everyone).await;
    let id = column(
        url,
        "select id from tasks where deleted_at is null order by created_at desc, id desc limit 1",
    )
    .await
    .remove(0);
    let row = format!("{{ task(id: \"{id}\") {{ title }} }}");
    let documents = [row.as_str(), TASKS, AGENTS];
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evidence-gateway"));
        let output = command.args(words).args(["--redis-url", &address]).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let tag = format!("Task:{id}");
    for (n, (words, kept)) in [
        (vec!["cache", "purge", "--tag", &tag], [false, false, true]),
        (vec!["cache", "purge", "--tag", "Task"], [true, false, true]),
        (vec!["cache", "purge", "--all"], [false, false, false]),
    ]
    .into_iter()
    .enumerate()
    {
        for gateway in [&one, &other] {
            catch_up(gateway).await;
            // It hears messages.
            tokio::time::sleep(Duration::from_millis(200)).await;
            for document in documents {
                post(gateway, document, &[]).await;
                assert_eq!(post(gateway, document, &[]).await.came(), "hit", "{n} {document}");
            }
        }
        let silent = "set session_replication_role = replica; \
                      update tasks set title = title || '!'; update agents set name = name || '!'";
        execute(url, silent).await;
        let (done, told) = run(&words);
        assert!(done, "{told}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        for gateway in [&one, &other] {
            for (document, kept) in documents.iter().zip(kept) {
                let got = post(gateway, document, &[]).await;
                let executed = post(gateway, document, &[("cache-control", "no-store")]).await;
                assert_eq!(got.text != executed.text, kept, "{words:?} {document} {}", got.came());
            }
        }
        run(&["cache", "purge", "--all"]);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(!run(&["cache", "purge"]).0 && !run(&["cache", "purge", "--tag", "Nothing"]).0);
    for document in documents {
        post(&one, document, &[]).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (done, told) = run(&["cache", "stats"]);
    assert!(done && told.starts_with("kind\tentries\tbytes\nanswer\t3\t"), "{told}");
}
