//! Many at once: subscriptions that differ in their filters alone read rows once, and event streams that are not read
//! for seconds are whole when they are.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use evidence_gateway::http::viewer::Access;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Client, PATIENCE, metric, until};
use crate::harness::{Database, Gateway, column, execute};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_different_filters_read_rows_once() {
    const FILTERS: i64 = 40;
    let database = Database::sample().await;
    let gateway = Gateway::start(&database.url, &[], Access::Everyone).await;
    let mut client = Client::of(&gateway).await;
    // What is shown depends on `$long`, so it tells subscriptions apart; `$filter` does not.
    let query = "subscription Board($filter: TaskFilter, $long: Boolean!) { taskChanged(filter: $filter) { id \
                 node { title intent @include(if: $long) project { name } } } }";
    for n in 0..FILTERS {
        let variables = json!({"filter": {"retryCount": {"gte": -n}}, "long": n % 2 == 0});
        let payload = json!({"query": query, "variables": variables});
        client.say(json!({"type": "subscribe", "id": n.to_string(), "payload": payload})).await;
    }
    until("all are open", async || metric(&gateway, "stream_feeds").await == Some(FILTERS as f64)).await;
    let task = column(&database.url, "select min(id::text) from tasks").await.remove(0);
    let statements = async || metric(&gateway, "database_statements_total").await.unwrap();
    let before = statements().await;
    execute(&database.url, &format!("update tasks set title = 'New' where id = '{task}'")).await;
    let mut told = BTreeSet::new();
    for _ in 0..FILTERS {
        let message = client.message().await;
        let node = &message["payload"]["data"]["taskChanged"]["node"];
        let id: i64 = message["id"].as_str().unwrap().parse().unwrap();
        assert_eq!((&node["title"], node["intent"].is_string()), (&json!("New"), id % 2 == 0), "{message}");
        told.insert(id);
    }
    assert_eq!(told.len(), 40);
    // Two statements for each of the two ways to show a row, and as many again for those who came too late for them.
    let cost = statements().await - before;
    assert!(cost <= 16.0, "{cost}");
}

/// An event stream whose client's machine takes no more than a few kilobytes before somebody reads.
async fn narrow(gateway: &Gateway, query: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let host = gateway.url.strip_prefix("http://").unwrap();
    let mut stream = socket.connect(host.parse().unwrap()).await.unwrap();
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
    let head =
        format!("GET /graphql/stream?{query} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The numbers that events tell, so many of them.
async fn read(mut stream: TcpStream, count: usize) -> Vec<usize> {
    let (mut text, begun) = (String::new(), Instant::now());
    let mut bytes = vec![0; 64 * 1024];
    while text.matches("\"title\":\"").count() < count {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0 && begun.elapsed() < 3 * PATIENCE, "{text}");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    let numbers = text.split("\"title\":\"").skip(1).map(|rest| rest.split(' ').next().unwrap());
    numbers.map(|number| number.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_not_read_for_seconds_are_whole() {
    const STALL: Duration = Duration::from_secs(5);
    const SLOW: usize = 4;
    const MADE: usize = 800;
    let database = Database::sample().await;
    let url = &database.url;
    // A row for every change, because an event shows its row as it is.
    let rows = "insert into tasks (id, project_id, title, intent, metadata)
        select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, (select min(id::text)::uuid from projects), \
        n::text, 'look', jsonb_build_object('text', repeat('long ', 200)) from generate_series(0, 799) n";
    execute(url, rows).await;
    let gateway = Gateway::start(url, &["--send-buffer-bytes", "4096"], Access::Everyone).await;
    let query = "subscription { taskChanged { id node { title metadata } } }";
    let slow = join_all((0..SLOW).map(|_| narrow(&gateway, query))).await;
    let mut quick = Client::of(&gateway).await;
    quick.subscribe("q", query).await;
    let open = "streams_open{kind=\"subscription\"}";
    until("all are open", async || metric(&gateway, open).await == Some(1.0 + SLOW as f64)).await;
    let begun = Instant::now();
    let mut conn = database.connect().await;
    let write = async {
        for n in 0..MADE {
            let id = format!("00000000-0000-7000-8000-{n:012}");
            let change = format!("update tasks set title = '{n} is changed' where id = '{id}'");
            conn.batch_execute(&change).await.unwrap();
        }
    };
    let hear = async {
        for n in 0..MADE {
            let message = quick.message().await;
            let title = message["payload"]["data"]["taskChanged"]["node"]["title"].as_str().unwrap();
            assert!(title.starts_with(&format!("{n} ")), "{message}");
        }
    };
    // Whoever reads does not wait for those who do not.
    tokio::join!(write, hear);
    tokio::time::sleep(STALL.saturating_sub(begun.elapsed())).await;
    // Hardly anything was taken from the streams of those who do not read.
    let given = metric(&gateway, "stream_events_total").await.unwrap();
    assert!(given < (MADE + SLOW * MADE / 2) as f64, "{given}");
    let told = join_all(slow.into_iter().map(|stream| read(stream, MADE))).await;
    assert!(told.iter().all(|told| told.iter().copied().eq(0..MADE)), "{told:?}");
}
