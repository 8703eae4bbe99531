//! Two gateways that are killed, a network that breaks, and subscribers that come back with what they had last.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::events::{Event, Events};
use super::{Client, Heard, PATIENCE, PROTOCOL, narrow};
use crate::harness::{SECRET, member, token};
use crate::live::oracle::{DOCUMENT, Dice, LAST, Told, Wish};
use crate::process::Process;
use crate::settings::program;

const ANYWHERE: &str = "127.0.0.1:0";

/// Starts a gateway whose kernel buffers little for who does not read.
pub(super) fn serve(database_url: &str, listen: &str) -> Option<Process> {
    let mut command = program();
    command.args(["serve", "--listen", listen, "--database-url", database_url, "--token-secret", SECRET]);
    command.args(["--embedder", "off", "--pool-size", "6", "--log", "error"]);
    command.args(["--send-buffer-bytes", "4096", "--grace-ms", "1500", "--keep-alive-ms", "1000"]);
    Process::try_start(command)
}

fn host(process: &Process) -> String {
    process.url.strip_prefix("http://").unwrap().to_owned()
}

/// Where two gateways are to be found, whichever processes they are at the time.
pub(super) struct Fleet {
    hosts: Mutex<[String; 2]>,
    /// The ways to them by a network that breaks.
    proxies: [String; 2],
    pub(super) client: reqwest::Client,
}

impl Fleet {
    pub(super) async fn of(processes: [&Process; 2]) -> Arc<Self> {
        let listeners =
            [TcpListener::bind(ANYWHERE).await.unwrap(), TcpListener::bind(ANYWHERE).await.unwrap()];
        let fleet = Arc::new(Self {
            hosts: Mutex::new(processes.map(host)),
            proxies: [0, 1].map(|n: usize| listeners[n].local_addr().unwrap().to_string()),
            client: reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap(),
        });
        for (place, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(relay(listener, Arc::downgrade(&fleet), place));
        }
        fleet
    }

    fn host(&self, place: usize) -> String {
        self.hosts.lock().unwrap()[place].clone()
    }

    /// From now on this one is there.
    pub(super) fn put(&self, place: usize, process: &Process) {
        self.hosts.lock().unwrap()[place] = host(process);
    }

    /// What a reader has had who begins now.
    pub(super) async fn cursor(&self) -> String {
        let request = self.client.post(format!("http://{}/graphql", self.host(0)));
        let request =
            request.bearer_auth(token(&member(None, &[]))).json(&json!({"query": "{ changeCursor }"}));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["data"]["changeCursor"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Ends one or the other, so often: three are killed, and the fourth is told to stop. Each time another one starts,
    /// there or elsewhere.
    pub(super) async fn strike(&self, database_url: &str, processes: &mut [Process; 2], times: u32) {
        let mut dice = Dice(41);
        let mut stopping = JoinSet::new();
        for n in 1..=times {
            sleep(dice.pause(500, 1_500)).await;
            let place = *dice.pick(&[0, 1]);
            let listen = if *dice.pick(&[true, false]) { self.host(place) } else { ANYWHERE.to_owned() };
            let stops = n.is_multiple_of(4);
            let old = &mut processes[place];
            if stops {
                old.terminate()
            } else {
                old.kill()
            }
            sleep(dice.pause(0, 300)).await;
            let url = database_url.to_owned();
            // The port may be somebody else's by now.
            let starting =
                spawn_blocking(move || serve(&url, &listen).or_else(|| serve(&url, ANYWHERE)).unwrap());
            let mut old = std::mem::replace(old, starting.await.unwrap());
            self.put(place, &processes[place]);
            if stops {
                stopping.spawn_blocking(move || assert_eq!(old.wait(), Some(0)));
            }
        }
        while let Some(stopped) = stopping.join_next().await {
            stopped.unwrap();
        }
    }
}

/// The way to a gateway by a network that breaks.
async fn relay(listener: TcpListener, fleet: Weak<Fleet>, place: usize) {
    let mut dice = Dice(place as u64 + 7);
    while let Ok((near, _)) = listener.accept().await {
        let Some(host) = fleet.upgrade().map(|fleet| fleet.host(place)) else { return };
        tokio::spawn(carry(near, host, Dice(dice.roll(1 << 30))));
    }
}

/// Passes bytes on until so many have come, also if that is in the midst of a message. Then it stands still for a
/// while, or breaks off, or both.
async fn carry(mut near: TcpStream, host: String, mut dice: Dice) {
    let Ok(mut far) = narrow(&host).await else { return };
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let down = async {
        let mut buffer = [0; 2_048];
        loop {
            let mut left = usize::try_from(dice.roll(90_000)).unwrap();
            while left > 0 {
                let most = left.min(buffer.len());
                let read = from_far.read(&mut buffer[..most]).await?;
                if read == 0 {
                    return Ok(());
                }
                to_near.write_all(&buffer[..read]).await?;
                left -= read;
            }
            if *dice.pick(&[true, false]) {
                sleep(dice.pause(500, 2_500)).await;
            }
            if *dice.pick(&[true, true, false]) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    tokio::select! {
        _ = down => {}
        _ = copy(&mut from_near, &mut to_far) => {}
    }
    if *dice.pick(&[true, false]) {
        for end in [&near, &far] {
            // What comes then is a reset.
            drop(end.set_zero_linger());
        }
    }
}

/// What a subscriber speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Socket,
    Events,
}

/// How a subscriber behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It stays as long as it can, on a network that does not break.
    Stays,
    /// It goes and comes, by all ways.
    Moves,
    /// The same, and it does not read for seconds again and again.
    Stalls,
}

/// One subscriber and all that it was told, wherever it was.
pub(super) struct Subscriber {
    pub(super) wish: &'static Wish,
    pub(super) transport: Transport,
    pub(super) manner: Manner,
    dice: Dice,
    /// After the last event that came whole.
    cursor: String,
    pub(super) told: Vec<Told>,
    /// How its connections ended.
    pub(super) ends: BTreeMap<&'static str, u32>,
}

/// A connection.
enum Line {
    Socket(Client),
    Events(Events),
}

enum Said {
    Event(Value),
    /// Where the stream is, without an event.
    Place(String),
    End(&'static str),
}

impl Line {
    async fn next(&mut self) -> Said {
        match self {
            Self::Socket(client) => match client.hear().await {
                Heard::Message(mut message) => match message["type"].as_str() {
                    Some("next") => event(message["payload"].take()),
                    Some("error") => Said::End(refused(&message["payload"])),
                    _ => panic!("{message}"),
                },
                Heard::Closed(1012, _) => Said::End("restart"),
                Heard::Closed(code, reason) => panic!("{code} {reason}"),
                Heard::Gone => Said::End("broken"),
            },
            Self::Events(events) => match events.try_next().await {
                Ok(Some(Event { retry: Some(_), .. })) => Said::End("restart"),
                Ok(Some(place)) if place.is_place() => Said::Place(place.id.unwrap()),
                Ok(Some(next)) if next.name == "next" => {
                    let body = next.json();
                    if body.get("data").is_none() {
                        return Said::End(refused(&body["errors"]));
                    }
                    let said = event(body);
                    if let Said::Event(event) = &said {
                        assert_eq!(event["cursor"].as_str(), next.id.as_deref());
                    }
                    said
                }
                Ok(end) => panic!("it ends without a word: {end:?}"),
                Err(_) => Said::End("broken"),
            },
        }
    }
}

fn event(mut body: Value) -> Said {
    assert_eq!(body.get("errors"), None, "{body}");
    Said::Event(body["data"]["taskChanged"].take())
}

/// An operation that came when the process was about to end.
fn refused(errors: &Value) -> &'static str {
    assert_eq!(errors[0]["extensions"]["code"], "UNAVAILABLE", "{errors}");
    assert!(errors[0]["message"].as_str().unwrap().contains("stopping"), "{errors}");
    "too late"
}

impl Subscriber {
    pub(super) fn new(
        n: usize,
        wish: &'static Wish,
        transport: Transport,
        manner: Manner,
        cursor: &str,
    ) -> Self {
        let (dice, cursor) = (Dice(n as u64 * 31 + 5), cursor.to_owned());
        Self { wish, transport, manner, dice, cursor, told: Vec::new(), ends: BTreeMap::new() }
    }

    /// Listens until the last row has been told.
    pub(super) async fn listen(mut self, fleet: Arc<Fleet>) -> Self {
        loop {
            let end = match self.open(&fleet).await {
                Some(mut line) => self.hear(&mut line).await,
                None => Some("refused"),
            };
            let Some(end) = end else { return self };
            *self.ends.entry(end).or_default() += 1;
            sleep(self.dice.pause(10, 150)).await;
        }
    }

    /// Listens while a connection lasts, and says how it ended; `None` after the last row.
    async fn hear(&mut self, line: &mut Line) -> Option<&'static str> {
        let stays = if self.manner == Manner::Stays { 1_000_000 } else { 1_500 };
        let mut leaves = pin!(sleep(self.dice.pause(stays, stays * 7)));
        loop {
            let event = tokio::select! {
                said = line.next() => match said {
                    Said::Event(event) => event,
                    Said::Place(cursor) => {
                        self.cursor = cursor;
                        continue;
                    }
                    Said::End(end) => return Some(end),
                },
                () = &mut leaves => {
                    if let Line::Socket(client) = line && *self.dice.pick(&[true, false]) {
                        client.0.get_ref().set_zero_linger().unwrap();
                    }
                    return Some("left");
                }
            };
            let one = Told::read(&event, self.wish);
            let is_last = one.id == LAST;
            self.cursor.clone_from(&one.cursor);
            self.told.push(one);
            if is_last {
                return None;
            }
            if self.manner == Manner::Stalls && self.dice.roll(80) == 0 {
                sleep(self.dice.pause(1_500, 3_000)).await;
            }
        }
    }

    /// Connects, wherever that leads, and subscribes after the last event.
    async fn open(&mut self, fleet: &Fleet) -> Option<Line> {
        let place = *self.dice.pick(&[0, 1]);
        let direct = self.manner == Manner::Stays || *self.dice.pick(&[true, false]);
        let host = if direct { fleet.host(place) } else { fleet.proxies[place].clone() };
        let bearer = format!("Bearer {}", token(&member(None, self.wish.projects)));
        match self.transport {
            Transport::Socket => {
                let stalls = self.manner == Manner::Stalls;
                let stream =
                    async { if stalls { narrow(&host).await } else { TcpStream::connect(&host).await } };
                let Ok(stream) = timeout(PATIENCE, stream).await else {
                    println!("no connection to {host} ({direct})");
                    return None;
                };
                let headers = [("authorization", bearer.as_str())];
                let mut client = match Client::over(stream.ok()?, "/graphql", Some(PROTOCOL), &headers).await
                {
                    Ok(client) => client,
                    Err(Error::Http(response)) => {
                        assert_eq!(response.status(), 503);
                        return None;
                    }
                    Err(_) => return None,
                };
                client.0.send(Message::text(r#"{"type":"connection_init"}"#)).await.ok()?;
                match client.hear().await {
                    Heard::Message(message) => assert_eq!(message, json!({"type": "connection_ack"})),
                    Heard::Closed(code, _) => {
                        assert_eq!(code, 1012);
                        return None;
                    }
                    Heard::Gone => return None,
                }
                let payload =
                    json!({"query": DOCUMENT, "variables": self.wish.variables(Some(&self.cursor))});
                let message = json!({"type": "subscribe", "id": "1", "payload": payload});
                client.0.send(Message::text(message.to_string())).await.ok()?;
                Some(Line::Socket(client))
            }
            Transport::Events => {
                let variables = self.wish.variables(None).to_string();
                let request = fleet.client.get(format!("http://{host}/graphql/stream"));
                let request = request.query(&[("query", DOCUMENT), ("variables", &variables)]);
                let request = request.header("authorization", bearer).header("last-event-id", &self.cursor);
                let sent = request.header("accept", "text/event-stream").send();
                let Ok(response) = timeout(PATIENCE, sent).await else {
                    // The port of a process that is gone may be that of somebody by now who has no answer.
                    println!("no answer from {host} ({direct})");
                    return None;
                };
                let response = response.ok()?;
                assert!([200, 503].contains(&response.status().as_u16()), "{response:?}");
                (response.status() == 200).then(|| Line::Events(Events::in_body(response)))
            }
        }
    }
}
