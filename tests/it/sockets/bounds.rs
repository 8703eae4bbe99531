//! What is bounded: sockets, operations, time, and what piles up for whom does not read.

use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use serde_json::{Value, json};

use super::{Client, Heard, PROTOCOL, metric, until};
use crate::harness::{Database, Gateway, column, execute, id_of, sample_url, secret};
use crate::keys;
use crate::limits::SLOW_AGENTS;

const INIT: &str = r#"{"type":"connection_init"}"#;
const CHANGES: &str = "subscription { taskChanged { cursor at id node { title } } }";

async fn gateway(url: &str, settings: &[&str]) -> Gateway {
    Gateway::start(url, settings, Access::Everyone).await
}

async fn refusals(gateway: &Gateway, limit: &str) -> f64 {
    metric(gateway, &format!("refusals_total{{limit=\"{limit}\"}}")).await.unwrap_or_default()
}

#[tokio::test]
async fn operations_of_a_socket_are_bounded_and_ids_are_their_own() {
    let gateway = gateway(&sample_url(), &["--max-socket-operations", "3"]).await;
    let mut client = Client::of(&gateway).await;
    for id in ["1", "2", "3", "4", "5"] {
        client.subscribe(id, CHANGES).await;
    }
    for id in ["4", "5"] {
        let answer = client.message().await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("error"), &json!(id)));
        let extensions = &answer["payload"][0]["extensions"];
        assert_eq!(
            (&extensions["code"], &extensions["limit"]),
            (&json!("RATE_LIMITED"), &json!("max_socket_operations"))
        );
    }
    assert_eq!(refusals(&gateway, "max_socket_operations").await, 2.0);
    // There is room again, under whatever id, and what was begun goes on.
    client.say(json!({"type": "complete", "id": "2"})).await;
    for _ in 0..3 {
        assert_eq!(client.ask("2", "{ agents { totalCount } }").await["data"]["agents"]["totalCount"], 10);
    }
    client.subscribe("1", CHANGES).await;
    assert_eq!(client.end().await, (4409, "Subscriber for 1 already exists".to_owned()));
    // Also if it has one answer only, and whatever the id is.
    let mut client = Client::of(&gateway).await;
    let long = "ä".repeat(3_000);
    client.subscribe(&long, CHANGES).await;
    client.subscribe(&long, "{ agents { totalCount } }").await;
    let (code, reason) = client.end().await;
    assert!(code == 4409 && reason.contains("äää"), "{reason}");
}

#[tokio::test]
async fn sockets_are_bounded() {
    let database = Database::sample().await;
    let url = &database.url;
    let gateway = Gateway::start(
        url,
        &["--max-sockets", "3", "--max-sockets-per-viewer", "1"],
        Access::Tokens(secret()),
    )
    .await;
    let user = id_of(url, "users", "engineer-2").await.to_string();
    let own = |user: &str| keys::create(url, &["--role", "viewer", "--user", user]);
    let (one, another) = (own(&user), own(&user));
    let open = async |key: &str| {
        Client::try_open(&gateway.url, "/graphql", Some(PROTOCOL), &[("x-api-key", key)]).await
    };
    let stream = async |key: &str| {
        let request = gateway.client.get(format!("{}/graphql/stream", gateway.url)).header("x-api-key", key);
        let query = [("query", "subscription { taskChanged { id } }")];
        request.query(&query).header("accept", "text/event-stream").send().await.unwrap()
    };
    let mut first = open(&one).await.unwrap_or_else(|refused| panic!("{refused:?}"));
    first.text(INIT).await;
    first.message().await;
    // All keys of one user are one viewer, however they come.
    let (status, body) = open(&another).await.map(|_| ()).unwrap_err();
    assert!(
        status == 429 && body.contains("max_sockets_per_viewer") && body.contains("RATE_LIMITED"),
        "{status} {body}"
    );
    assert_eq!(stream(&another).await.status(), 429);
    let mut late = Client::open(&gateway.url).await;
    late.say(json!({"type": "connection_init", "payload": {"apiKey": another}})).await;
    assert_eq!(late.end().await.0, 1013);
    drop(late);
    let open_now = "sockets_open{transport=\"websocket\"}";
    until("one is left", async || metric(&gateway, open_now).await == Some(1.0)).await;
    // Places of nobody yet count, too.
    let _strangers = [Client::open(&gateway.url).await, Client::open(&gateway.url).await];
    let (status, body) =
        Client::try_open(&gateway.url, "/graphql", Some(PROTOCOL), &[]).await.map(|_| ()).unwrap_err();
    assert!(status == 503 && body.contains("max_sockets"), "{status} {body}");
    assert_eq!(refusals(&gateway, "max_sockets").await, 1.0);
    assert_eq!(refusals(&gateway, "max_sockets_per_viewer").await, 3.0);
    drop(first);
    until("the place is free", async || open(&another).await.is_ok()).await;
}

#[tokio::test]
async fn who_does_not_begin_is_let_go() {
    let gateway = gateway(&sample_url(), &["--socket-init-ms", "300"]).await;
    let begun = Instant::now();
    let mut client = Client::open(&gateway.url).await;
    client.text(r#"{"type":"ping"}"#).await;
    client.message().await;
    assert_eq!(client.end().await, (4408, "Connection initialisation timeout".to_owned()));
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5));
    // Who has begun may be silent.
    let mut client = Client::of(&gateway).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.ask("1", "{ agents { totalCount } }").await;
}

/// Statements of the gateway that PostgreSQL is busy with.
async fn running(database: &Database) -> usize {
    let query = "select pid::text from pg_stat_activity where state = 'active' and datname = current_database() \
                 and application_name = 'evidence-gateway' and query like '%agents%'";
    column(&database.url, query).await.len()
}

#[tokio::test]
async fn what_nobody_waits_for_is_cancelled() {
    let database = Database::sample().await;
    execute(&database.url, SLOW_AGENTS).await;
    let gateway = gateway(&database.url, &[]).await;
    let mut client = Client::of(&gateway).await;
    client.subscribe("1", "{ agents { nodes { name } } }").await;
    until("it runs", async || running(&database).await == 1).await;
    let begun = Instant::now();
    client.say(json!({"type": "complete", "id": "1"})).await;
    until("its statement ends", async || running(&database).await == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Nothing more is said of it, and its id is free.
    assert_eq!(client.ask("1", "{ users { totalCount } }").await["data"]["users"]["totalCount"], 5);
    client.subscribe("1", "{ agents { nodes { name } } }").await;
    until("it runs again", async || running(&database).await == 1).await;
    drop(client);
    until("its client is gone", async || running(&database).await == 0).await;
}

/// A client whose machine takes no more than a few kilobytes before somebody reads.
async fn narrow(gateway: &Gateway) -> Client {
    let stream = super::narrow(gateway.url.strip_prefix("http://").unwrap()).await.unwrap();
    let mut client = Client::over(stream, "/graphql", Some(PROTOCOL), &[]).await.unwrap();
    client.text(INIT).await;
    client.message().await;
    client
}

#[tokio::test]
async fn who_answers_no_ping_or_reads_nothing_is_let_go() {
    let open = "sockets_open{transport=\"websocket\"}";
    let settings = ["--keep-alive-ms", "100", "--pong-timeout-ms", "400"];
    let pinging = gateway(&sample_url(), &settings).await;
    let (silent, mut answering) = (Client::of(&pinging).await, Client::of(&pinging).await);
    assert_eq!(metric(&pinging, open).await, Some(2.0));
    tokio::select! {
        () = until("the silent one goes", async || metric(&pinging, open).await == Some(1.0)) => {}
        heard = answering.hear() => panic!("{heard:?}"),
    }
    assert_eq!(refusals(&pinging, "pong_time").await, 1.0);
    drop(silent);
    answering.ask("1", "{ agents { totalCount } }").await;
    // More than the machines between us hold.
    let settings = ["--send-timeout-ms", "600", "--send-buffer-bytes", "4096"];
    let waiting = gateway(&sample_url(), &settings).await;
    let mut greedy = narrow(&waiting).await;
    for id in 0..40 {
        greedy.subscribe(&id.to_string(), "{ evidences(first: 200) { nodes { content } } }").await;
    }
    until("the greedy one goes", async || metric(&waiting, open).await == Some(0.0)).await;
    assert_eq!(refusals(&waiting, "send_time").await, 1.0);
    assert_eq!(
        metric(&waiting, "socket_closes_total{code=\"1006\",transport=\"websocket\"}").await,
        Some(1.0)
    );
}

/// A client that does not read has nothing kept for it, holds nobody up and loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_for_a_while_loses_nothing() {
    const CHANGES_MADE: usize = 600;
    let database = Database::sample().await;
    let gateway = gateway(&database.url, &["--send-buffer-bytes", "4096"]).await;
    let (mut slow, mut quick) = (narrow(&gateway).await, Client::of(&gateway).await);
    slow.subscribe("s", CHANGES).await;
    slow.subscribe("q", "{ agents { totalCount } }").await;
    slow.message().await;
    slow.message().await;
    quick.subscribe("s", CHANGES).await;
    quick.ask("q", "{ agents { totalCount } }").await;
    let task = column(&database.url, "select min(id::text) from tasks").await.remove(0);
    let long = "x".repeat(400);
    let write = async {
        for n in 0..CHANGES_MADE {
            execute(&database.url, &format!("update tasks set title = '{n} {long}' where id = '{task}'"))
                .await;
        }
    };
    let read = async |client: &mut Client| {
        let mut times = Vec::new();
        while times.len() < CHANGES_MADE {
            let message = client.message().await;
            let event = &message["payload"]["data"]["taskChanged"];
            assert_eq!((&message["type"], &event["id"]), (&json!("next"), &json!(task)), "{message}");
            times.push(event["at"].as_str().unwrap().to_owned());
        }
        times
    };
    let (quickly, ()) = tokio::join!(read(&mut quick), write);
    // What was taken from the stream for the one who does not read is little.
    let out =
        metric(&gateway, "socket_messages_total{direction=\"out\",transport=\"websocket\"}").await.unwrap();
    assert!(out < (CHANGES_MADE + 200) as f64, "{out}");
    let slowly = read(&mut slow).await;
    // Each change was a statement of its own.
    assert!(quickly == slowly && quickly.is_sorted() && quickly.windows(2).all(|two| two[0] != two[1]));
    // And it is a client like any other.
    slow.subscribe("q", "{ agents { totalCount } }").await;
    assert!(matches!(slow.hear().await, Heard::Message(Value::Object(_))));
}
