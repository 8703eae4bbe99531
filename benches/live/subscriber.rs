//! The clients: a thread with a task for each, which looks at no more of what it gets than it must: whose frames
//! begin where, and which change an event tells.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};

/// In front of the id of an event's row, which ends with the number of the change in 12 digits.
const MARK: &[u8] = br#""n":""#;
const ID: usize = 36;
/// What one read takes at most.
const READ: usize = 16 * 1024;
/// What has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections that are opened at the same time.
const OPENING: usize = 64;

/// What one wants.
#[derive(Clone)]
pub(crate) struct Wish {
    /// The subscription; in its events the first field is the row's id under the name of the mark.
    pub(crate) query: &'static str,
    pub(crate) variables: String,
    pub(crate) token: String,
    /// Over a stream of events instead of a WebSocket.
    pub(crate) over_http: bool,
    /// Whether it stops reading when it is told to.
    pub(crate) stalls: bool,
}

/// A change that one was told of.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    pub(crate) change: u32,
    /// From just before its commit to here.
    pub(crate) micros: u32,
}

/// What all have in common.
pub(crate) struct Board {
    begun: Instant,
    /// When each change was about to be committed, in microseconds.
    committed: Vec<AtomicU64>,
    /// How much was told to those who never stall, and to those who do.
    told: [AtomicU64; 2],
    /// Events in which something could not be told.
    pub(crate) faulty: AtomicU64,
}

impl Board {
    pub(crate) fn new(changes: usize) -> Arc<Self> {
        let committed = (0..changes).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            begun: Instant::now(),
            committed,
            told: Default::default(),
            faulty: AtomicU64::new(0),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    pub(crate) fn commits(&self, change: usize) {
        self.committed[change].store(self.now(), Ordering::Release);
    }

    /// When a change was committed, in seconds.
    pub(crate) fn at(&self, change: u32) -> f64 {
        self.committed[change as usize].load(Ordering::Acquire) as f64 / 1e6
    }

    /// Waits until so many events have come to those who never stall, or to those who do.
    pub(crate) async fn until_told(&self, stalling: bool, count: usize) {
        let begun = Instant::now();
        loop {
            let told = self.told[usize::from(stalling)].load(Ordering::Relaxed);
            if told >= count as u64 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{told} of {count} events came");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn hear(&self, change: u32) -> Told {
        let late = self.now() - self.committed[change as usize].load(Ordering::Acquire);
        Told { change, micros: u32::try_from(late).unwrap() }
    }
}

/// The clients. They say what they were told when they are let go.
pub(crate) struct Crowd {
    stop: watch::Sender<bool>,
    stalled: watch::Sender<bool>,
    thread: std::thread::JoinHandle<Vec<Vec<Told>>>,
}

impl Crowd {
    pub(crate) fn gather(address: SocketAddr, board: &Arc<Board>, wishes: Vec<Wish>) -> Self {
        let (stop, stalled) = (watch::Sender::new(false), watch::Sender::new(false));
        let (stopped, told_to_stall, board) = (stop.subscribe(), stalled.subscribe(), board.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let opening = Arc::new(Semaphore::new(OPENING));
            let mut clients = JoinSet::new();
            let local = LocalSet::new();
            for (n, wish) in wishes.into_iter().enumerate() {
                let (opening, mut stopped) = (opening.clone(), stopped.clone());
                let (stalled, board) = (told_to_stall.clone(), board.clone());
                clients.spawn_local_on(
                    async move {
                        let stream = {
                            let _turn = opening.acquire().await.unwrap();
                            open(address, &wish).await
                        };
                        let mut told = Vec::new();
                        let listening = listen(stream, &wish, stalled, &board, &mut told);
                        tokio::select! {
                            () = listening => panic!("a subscriber's connection has ended"),
                            _ = stopped.wait_for(|stop| *stop) => {}
                        }
                        (n, told)
                    },
                    &local,
                );
            }
            let mut all = local.block_on(&runtime, clients.join_all());
            all.sort_by_key(|(n, _)| *n);
            all.into_iter().map(|(_, told)| told).collect()
        });
        Self { stop, stalled, thread }
    }

    /// Has those who stall stop reading, or read on.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Lets them go.
    pub(crate) fn leave(self) -> Vec<Vec<Told>> {
        self.stop.send_replace(true);
        self.thread.join().unwrap()
    }
}

/// A frame of a client, with a mask of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(payload.len()).unwrap() {
        short @ 0..=125 => frame.push(0x80 | short.to_le_bytes()[0]),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&long.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

async fn open(address: SocketAddr, wish: &Wish) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if wish.stalls {
        // So that the gateway's side notices soon.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
    }
    let mut stream = socket.connect(address).await.unwrap();
    let Wish { query, variables, token, .. } = wish;
    let who = format!("host: {address}\r\nauthorization: Bearer {token}\r\n");
    let (head, rest) = if wish.over_http {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .append_pair("variables", variables)
            .finish();
        (
            format!("GET /graphql/stream?{query} HTTP/1.1\r\naccept: text/event-stream\r\n{who}\r\n"),
            Vec::new(),
        )
    } else {
        let head = format!(
            "GET /graphql HTTP/1.1\r\n{who}connection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        );
        let mut rest = frame(1, br#"{"type":"connection_init"}"#);
        let subscribe = format!(
            r#"{{"id":"1","type":"subscribe","payload":{{"query":{},"variables":{variables}}}}}"#,
            serde_json::Value::from(*query)
        );
        rest.extend_from_slice(&frame(1, subscribe.as_bytes()));
        (head, rest)
    };
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        stream.readable().await.unwrap();
        let mut byte = [0];
        match stream.try_read(&mut byte) {
            Ok(0) => panic!("{}", String::from_utf8_lossy(&answer)),
            Ok(_) => answer.push(byte[0]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    let status: &[u8] = if wish.over_http { b"HTTP/1.1 200" } else { b"HTTP/1.1 101" };
    assert!(answer.starts_with(status), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(&rest).await.unwrap();
    stream
}

async fn listen(
    mut stream: TcpStream,
    wish: &Wish,
    mut stalled: watch::Receiver<bool>,
    board: &Board,
    told: &mut Vec<Told>,
) {
    let mut bytes = Vec::new();
    loop {
        if wish.stalls {
            stalled.wait_for(|stalled| !stalled).await.unwrap();
        }
        stream.readable().await.unwrap();
        bytes.reserve(READ);
        match stream.try_read_buf(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        }
        let (mut done, before) = (0, told.len());
        while let Some((payload, end, opcode)) = next(&bytes[done..], wish.over_http) {
            let payload = &bytes[done..][payload];
            match opcode {
                1 => changes(payload, board, told),
                9 => stream.write_all(&frame(10, payload)).await.unwrap(),
                _ => panic!("opcode {opcode}: {}", String::from_utf8_lossy(payload)),
            }
            done += end;
        }
        bytes.drain(..done);
        board.told[usize::from(wish.stalls)].fetch_add((told.len() - before) as u64, Ordering::Relaxed);
    }
}

/// The first frame or chunk, if it is there in whole: its content, its end, and what it is.
fn next(bytes: &[u8], over_http: bool) -> Option<(std::ops::Range<usize>, usize, u8)> {
    if over_http {
        let line = bytes.windows(2).take(16).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..line]).unwrap();
        let end = line + 2 + usize::from_str_radix(size, 16).unwrap();
        return (end + 2 <= bytes.len()).then_some((line + 2..end, end + 2, 1));
    }
    let [first, second, rest @ ..] = bytes else { return None };
    let (size, begin) = match (second & 127, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (126.., _) => {
            let long = <[u8; 8]>::try_from(rest.get(..8)?).unwrap();
            (usize::try_from(u64::from_be_bytes(long)).unwrap(), 10)
        }
        (short, _) => (usize::from(short), 2),
    };
    let end = begin + size;
    (end <= bytes.len()).then_some((begin..end, end, first & 15))
}

/// The changes that are told.
fn changes(mut payload: &[u8], board: &Board, told: &mut Vec<Told>) {
    while let Some(at) = payload.windows(MARK.len()).position(|some| some == MARK) {
        let id = std::str::from_utf8(&payload[at + MARK.len()..][..ID]).unwrap();
        told.push(board.hear(id[ID - 12..].parse().unwrap()));
        payload = &payload[at + MARK.len() + ID..];
    }
    let has = |part: &str| payload.windows(part.len()).any(|some| some == part.as_bytes());
    assert!(!has(r#""type":"error""#) && !has("event: complete"), "{}", String::from_utf8_lossy(payload));
    if has(r#""errors":"#) {
        board.faulty.fetch_add(1, Ordering::Relaxed);
    }
}
