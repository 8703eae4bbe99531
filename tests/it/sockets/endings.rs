//! How sockets end when their process does: one after the other, what is in hand to its end, and with a word that has
//! clients come back.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use evidence_gateway::http::viewer::Access;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Client, metric};
use crate::harness::{Database, Gateway, column, execute};

const CHANGES: &str = "subscription { taskChanged { cursor id } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_spreads_them_and_finishes_what_is_in_hand() {
    let database = Database::sample().await;
    let settings = ["--grace-ms", "4000", "--keep-alive-ms", "100"];
    let mut gateway = Gateway::start(&database.url, &settings, Access::Everyone).await;
    let mut watching = Vec::new();
    for _ in 0..12 {
        let mut client = Client::of(&gateway).await;
        client.subscribe("s", CHANGES).await;
        client.ask("q", "{ agents { totalCount } }").await;
        watching.push(client);
    }
    let stream = gateway.client.get(format!("{}/graphql/stream", gateway.url));
    let stream =
        stream.query(&[("query", CHANGES)]).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    // A mutation that waits for somebody else's transaction.
    let task = column(&database.url, "select min(id::text) from tasks").await.remove(0);
    let mut lock = database.connect().await;
    lock.batch_execute(&format!("begin; select 1 from tasks where id = '{task}' for update")).await.unwrap();
    let mut writing = Client::of(&gateway).await;
    let mutation =
        format!("mutation {{ updateTask(input: {{id: \"{task}\", title: \"to the end\"}}) {{ title }} }}");
    writing.subscribe("m", &mutation).await;
    writing.subscribe("s", CHANGES).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    let stopped = gateway.stop();
    let ends = join_all(watching.iter_mut().map(async |client| {
        let (code, reason) = client.end().await;
        assert_eq!((code, reason.as_str()), (1012, "Service restart: connect again"));
        begun.elapsed()
    }));
    let releases = async {
        // Its turn has come and gone by then, and it is still there.
        tokio::time::sleep(Duration::from_millis(3_200)).await;
        lock.batch_execute("commit").await.unwrap();
        let mut heard = Vec::new();
        loop {
            match writing.hear().await {
                super::Heard::Message(message) => heard.push(message),
                end => return (heard, end),
            }
        }
    };
    let streamed = async {
        let text = stream.text().await.unwrap();
        (text, begun.elapsed())
    };
    let refused = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        TcpStream::connect(gateway.url.strip_prefix("http://").unwrap()).await.is_err()
    };
    let (mut ends, (heard, end), (text, _), is_refused) = tokio::join!(ends, releases, streamed, refused);
    assert!(is_refused, "a new connection is taken");
    stopped.await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(4_500), "{took:?}");
    ends.sort();
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    assert!(first < Duration::from_millis(1_000) && last > Duration::from_millis(1_800), "{ends:?}");
    // No two fifths of the time have more than two thirds of them.
    for window in ends.windows(9) {
        assert!(window[8] - window[0] > Duration::from_millis(1_000), "{ends:?}");
    }
    let said =
        json!({"type": "next", "id": "m", "payload": {"data": {"updateTask": {"title": "to the end"}}}});
    let next = heard.iter().find(|message| message["id"] == "m").unwrap();
    assert_eq!(next["payload"]["data"], said["payload"]["data"], "{heard:?}");
    assert!(heard.contains(&json!({"type": "complete", "id": "m"})), "{heard:?}");
    assert!(matches!(end, super::Heard::Closed(1012, _)), "{end:?}");
    assert!(text.ends_with("retry: 1000\n\n") && !text.contains("event: complete"), "{text}");
}

#[tokio::test]
async fn what_has_no_end_is_cut_when_the_time_is_over() {
    let database = Database::sample().await;
    let mut gateway = Gateway::start(&database.url, &["--grace-ms", "800"], Access::Everyone).await;
    let mut lock = database.connect().await;
    lock.batch_execute("begin; lock table tasks").await.unwrap();
    let mut client = Client::of(&gateway).await;
    client.subscribe("1", "mutation { transitionTask(input: {id: \"00000000-0000-0000-0000-000000000000\", status: FAILED}) { id } }").await;
    let mut stranger = Client::open(&gateway.url).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    let stopped = gateway.stop();
    let ((code, _), (stranger, _), ()) = tokio::join!(client.end(), stranger.end(), stopped);
    assert_eq!((code, stranger), (1012, 1012));
    assert!(begun.elapsed() >= Duration::from_millis(700) && begun.elapsed() < Duration::from_secs(3));
}

/// Whoever is sent away comes back elsewhere with the last cursor, and misses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_elsewhere() {
    let database = Database::sample().await;
    let url = &database.url;
    let mut old = Gateway::start(url, &["--grace-ms", "300"], Access::Everyone).await;
    let new = Gateway::open(url).await;
    let task = column(url, "select min(id::text) from tasks").await.remove(0);
    let write =
        async |n: i32| execute(url, &format!("update tasks set title = '{n}' where id = '{task}'")).await;
    let document =
        "subscription ($after: String) { taskChanged(after: $after) { cursor at node { title } } }";
    let subscribe = |after: Option<&str>| json!({"type": "subscribe", "id": "1", "payload": {"query": document, "variables": {"after": after}}});
    let mut client = Client::of(&old).await;
    client.say(subscribe(None)).await;
    client.ask("q", "{ agents { totalCount } }").await;
    let (mut times, mut last) = (Vec::new(), Value::Null);
    let mut cursor = String::new();
    let mut take = async |client: &mut Client, count: usize| {
        for _ in 0..count {
            let message = client.message().await;
            let event = &message["payload"]["data"]["taskChanged"];
            times.push(event["at"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned());
            last = event["node"]["title"].clone();
            cursor = event["cursor"].as_str().unwrap().to_owned();
        }
        cursor.clone()
    };
    for n in 0..5 {
        write(n).await;
    }
    let after = take(&mut client, 5).await;
    let ((code, _), ()) = tokio::join!(client.end(), old.stop());
    assert_eq!(code, 1012);
    for n in 5..10 {
        write(n).await;
    }
    let mut client = Client::of(&new).await;
    client.say(subscribe(Some(&after))).await;
    take(&mut client, 5).await;
    write(10).await;
    take(&mut client, 1).await;
    // Each change once, in order; the row is shown as it is by then.
    assert!(times.len() == 11 && times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    assert_eq!(last, "10");
    assert_eq!(metric(&new, "sockets_open{transport=\"websocket\"}").await, Some(1.0));
}
