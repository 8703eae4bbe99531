//! Everything once, over the wire: whatever becomes of gateways and of the network, each subscriber's events are those
//! that the database's own history makes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evidence_gateway::http::viewer::Access;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::events::Events;
use super::storm::{Fleet, Manner, Subscriber, Transport, serve};
use super::{Client, metric, metric_of, until};
use crate::harness::{Database, Gateway, column, execute};
use crate::live::oracle::{History, WISHES, fault, remember, write_all};

/// The last row comes sooner to everybody, or never: alone it takes 10 s, and on a machine with three times as much to do
/// nearly a minute.
const AT_MOST: Duration = Duration::from_secs(300);

/// Both transports in turn.
const fn transport(n: usize) -> Transport {
    if n.is_multiple_of(2) { Transport::Socket } else { Transport::Events }
}

/// Holds all that was told against the history, and says how connections ended, by transport.
async fn judge(url: &str, subscribers: Vec<Subscriber>) -> BTreeMap<(&'static str, &'static str), u32> {
    let history = History::read(url).await;
    let expected: Vec<_> = WISHES.iter().map(|wish| (wish, history.expected(wish))).collect();
    let mut ends = BTreeMap::new();
    let mut events = 0;
    for subscriber in &subscribers {
        let (_, expected) = expected.iter().find(|(wish, _)| std::ptr::eq(*wish, subscriber.wish)).unwrap();
        let (transport, manner) = (subscriber.transport, subscriber.manner);
        assert_eq!(fault(expected, &subscriber.told), None, "{transport:?} {manner:?} {:?}", subscriber.ends);
        events += subscriber.told.len();
        let name = if transport == Transport::Socket { "socket" } else { "events" };
        for (end, count) in &subscriber.ends {
            *ends.entry((name, *end)).or_default() += count;
        }
    }
    println!("{} changes, {} subscribers, {events} events, {ends:?}", history.len(), subscribers.len());
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_is_told_what_the_history_says() {
    const SUBSCRIBERS: usize = 200;
    const STRIKES: u32 = 8;
    let database = Database::empty().await;
    let url = &database.url;
    remember(url).await;
    let mut processes = [(); 2].map(|()| serve(url, "127.0.0.1:0").unwrap());
    let fleet = Fleet::of([&processes[0], &processes[1]]).await;
    let cursor = fleet.cursor().await;
    let mut listening = JoinSet::new();
    for n in 0..SUBSCRIBERS {
        let manner = match n % 25 {
            0 | 1 => Manner::Stalls,
            2..=4 => Manner::Stays,
            _ => Manner::Moves,
        };
        let subscriber = Subscriber::new(n, &WISHES[n / 2 % WISHES.len()], transport(n), manner, &cursor);
        listening.spawn(subscriber.listen(fleet.clone()));
    }
    let over = AtomicBool::new(false);
    let writing = write_all(url, 8, || !over.load(Ordering::Relaxed), Duration::from_millis(250));
    let striking = async {
        fleet.strike(url, &mut processes, STRIKES).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(writing, striking);
    let begun = Instant::now();
    let mut heard = Vec::new();
    while let Ok(Some(subscriber)) =
        timeout(AT_MOST.saturating_sub(begun.elapsed()), listening.join_next()).await
    {
        heard.push(subscriber.unwrap());
    }
    if heard.len() < SUBSCRIBERS {
        let mut done = BTreeMap::new();
        for Subscriber { transport, manner, .. } in &heard {
            *done.entry(format!("{transport:?} {manner:?}")).or_insert(0) += 1;
        }
        println!("it came to {done:?}");
        for process in &processes {
            for kind in ["streams_open{kind=\"subscription\"}", "streams_behind", "stream_feeds"] {
                println!("{}: {kind} {:?}", process.url, metric_of(&fleet.client, &process.url, kind).await);
            }
        }
    }
    println!("the last row came to the last one after {:?}", begun.elapsed());
    assert_eq!(heard.len(), SUBSCRIBERS, "the last row does not come to all");
    let ends = judge(url, heard).await;
    for transport in ["socket", "events"] {
        for end in ["broken", "left", "restart", "refused"] {
            assert!(ends.contains_key(&(transport, end)), "no {transport} was {end}: {ends:?}");
        }
    }
}

/// A process that is told to stop sends everybody away with a word, and nobody misses anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stops_sends_its_subscribers_elsewhere() {
    const SUBSCRIBERS: usize = 32;
    let database = Database::empty().await;
    let url = &database.url;
    remember(url).await;
    let [mut old, new] = [(); 2].map(|()| serve(url, "127.0.0.1:0").unwrap());
    let fleet = Fleet::of([&old, &old]).await;
    let cursor = fleet.cursor().await;
    let mut listening = JoinSet::new();
    for n in 0..SUBSCRIBERS {
        let wish = &WISHES[n / 2 % WISHES.len()];
        listening.spawn(Subscriber::new(n, wish, transport(n), Manner::Stays, &cursor).listen(fleet.clone()));
    }
    let over = AtomicBool::new(false);
    let stopping = async {
        let open = "streams_open{kind=\"subscription\"}";
        let all = Some(SUBSCRIBERS as f64);
        until("all are there", async || metric_of(&fleet.client, &old.url, open).await == all).await;
        sleep(Duration::from_millis(1_500)).await;
        fleet.put(0, &new);
        fleet.put(1, &new);
        old.terminate();
        assert_eq!(tokio::task::spawn_blocking(move || old.wait()).await.unwrap(), Some(0));
        sleep(Duration::from_millis(500)).await;
        over.store(true, Ordering::Relaxed);
    };
    let writing = write_all(url, 4, || !over.load(Ordering::Relaxed), Duration::from_millis(60));
    tokio::join!(stopping, writing);
    let heard = timeout(AT_MOST, listening.join_all()).await.expect("the last row does not come");
    let ends = judge(url, heard).await;
    let each = u32::try_from(SUBSCRIBERS / 2).unwrap();
    assert_eq!(ends, BTreeMap::from([(("events", "restart"), each), (("socket", "restart"), each)]));
}

/// Statements for one event: as many for a hundred subscribers as for one, whatever they speak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_cost_no_statements() {
    const CHANGES: &str = "subscription { taskChanged { cursor node { title project { name } } } }";
    const EVENTS: usize = 8;
    let database = Database::sample().await;
    let gateway = Gateway::start(&database.url, &[], Access::Everyone).await;
    let task = column(&database.url, "select min(id::text) from tasks").await.remove(0);
    let mut costs = Vec::new();
    for subscribers in [1, 50] {
        let (mut sockets, mut events) = (Vec::new(), Vec::new());
        for _ in 0..subscribers {
            let mut client = Client::of(&gateway).await;
            client.subscribe("s", CHANGES).await;
            sockets.push(client);
            let request = gateway.client.get(format!("{}/graphql/stream", gateway.url));
            events.push(Events::of(request.query(&[("query", CHANGES)])).await);
        }
        let open = "streams_open{kind=\"subscription\"}";
        until("all are there", async || metric(&gateway, open).await == Some(2.0 * f64::from(subscribers)))
            .await;
        let statements = async || metric(&gateway, "database_statements_total").await.unwrap();
        let mut least = f64::MAX;
        for n in 0..EVENTS {
            let before = statements().await;
            execute(&database.url, &format!("update tasks set title = '{n}' where id = '{task}'")).await;
            for client in &mut sockets {
                assert_eq!(
                    client.message().await["payload"]["data"]["taskChanged"]["node"]["title"],
                    json!(n.to_string())
                );
            }
            for stream in &mut events {
                assert_eq!(
                    stream.event().await.json()["data"]["taskChanged"]["node"]["title"],
                    json!(n.to_string())
                );
            }
            // What else the process does in the background does not come each time.
            least = least.min(statements().await - before);
        }
        costs.push(least);
    }
    assert!(costs[0] == costs[1] && costs[0] > 0.0, "{costs:?}");
}
