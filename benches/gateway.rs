//! The benchmarks: each compares the gateway with the best that could be written by hand for the same answer, side
//! by side in one run, in turns, and prints ratios. Figures in seconds depend on the machine; ratios travel.
//!
//! The board: 20 tasks with their agents, 5 pieces of evidence each with their agents and a supporting piece, over
//! 20,000 tasks and 100,000 pieces of evidence. The rival is an axum handler that runs one json_agg statement,
//! prepared once, on tokio-postgres, and sends the text that PostgreSQL makes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on has failed, and its product is a table"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[path = "gateway/zipf.rs"]
mod zipf;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{get, post};
use axum::{Router, extract::State, response::IntoResponse};
use clap::Parser;
use evidence_gateway::app::App;
use evidence_gateway::cli::import::{Options, Source, run as import};
use evidence_gateway::config::Config;
use evidence_gateway::http::router;
use evidence_gateway::http::viewer::Access;
use evidence_gateway::store::db::Db;
use evidence_gateway::store::db::migrations::migrate;
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DATA: &str = "tasks=20000,evidence=5";
const ROUNDS: usize = 9;
/// Of the comparisons of cached answers, of which there are ten.
const CACHED_ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1_500);
/// Clients at once; both sides have as many connections to PostgreSQL.
const CLIENTS: usize = 8;

const BOARD: &str = "query Board($first: Int) { tasks(first: $first) { nodes { id title status priority \
    assignedAgent { name status } evidences(first: 5) { nodes { id title sourceType credibilityScore sourceUrl \
    agent { name } supporting(first: 1) { nodes { title credibilityScore } } } } } } }";

/// The same answer by one statement.
const BY_HAND: &str = "
select json_build_object('data', json_build_object('tasks', json_build_object('nodes', json_agg(x.o))))::text from (
  select json_build_object('id', t.id, 'title', t.title, 'status', upper(t.status), 'priority', t.priority,
    'assignedAgent', (select json_build_object('name', a.name, 'status', upper(a.status)) from agents a
      where a.id = t.assigned_agent_id and a.deleted_at is null),
    'evidences', json_build_object('nodes', (select coalesce(json_agg(json_build_object(
      'id', e.id, 'title', e.title, 'sourceType', upper(e.source_type), 'credibilityScore', e.credibility_score,
      'sourceUrl', e.source_url,
      'agent', (select json_build_object('name', a.name) from agents a where a.id = e.agent_id and a.deleted_at is null),
      'supporting', json_build_object('nodes', (select coalesce(json_agg(json_build_object(
        'title', s.title, 'credibilityScore', s.credibility_score)), '[]') from (
          select s.title, s.credibility_score from evidence_relations r join evidence s on s.id = r.from_evidence_id
          where r.to_evidence_id = e.id and r.kind = 'supports' and s.deleted_at is null
          order by s.created_at desc, s.id desc limit 1) s))
      )), '[]') from (
        select e.id, e.title, e.source_type, e.credibility_score, e.source_url, e.agent_id from evidence e
        where e.task_id = t.id and e.deleted_at is null order by e.created_at desc, e.id desc limit 5) e))
  ) as o from (
    select t.id, t.title, t.status, t.priority, t.assigned_agent_id from tasks t
    where t.deleted_at is null order by t.created_at desc, t.id desc limit $1) t
) x";

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    println!("starting PostgreSQL and importing {DATA}");
    let postgres = PrivatePostgres::start(PostgresOptions::throwaway(dir.path())).await.unwrap();
    let url = postgres.database_url();
    migrate(&url).await.unwrap();
    let clients = CLIENTS.to_string();
    let settings = ["bench", "--embedder", "off", "--log", "warn", "--pool-size", &clients];
    let settings = |more: &[&'static str]| {
        Settings::parse_from(settings.iter().copied().chain(more.iter().copied())).config
    };
    let config = settings(&["--cache-bytes", "0"]);
    fill(&config, &url).await;
    if std::env::args().any(|argument| argument == "cached") {
        cached(settings(&[]), settings(&["--cache-bytes", "1024"]), &url, dir.path()).await;
        zipf::compare(settings(&[]), &url).await;
        postgres.stop().await.unwrap();
        return;
    }
    let app = App::connect(config, &url, b"bench", Access::Everyone).await.unwrap();
    let gateway = serve(router(app.clone())).await;
    let by_hand = serve(rival(&url).await).await;

    println!("\nstatements per request, which must not grow with rows");
    for first in [10, 20, 50] {
        let before = app.metrics.statements.get();
        let bytes = Client::open(gateway).await.ask(&body(first)).await.len();
        let cost = app.metrics.statements.get() - before;
        println!("  {first:>3} tasks: {cost} statements, {bytes} bytes");
    }
    compare_answers(gateway, by_hand).await;
    compare("the board, 8 clients", gateway, by_hand, CLIENTS).await;
    compare("the board, 1 client", gateway, by_hand, 1).await;
    drop(app);
    cached(settings(&[]), settings(&["--cache-bytes", "1024"]), &url, dir.path()).await;
    zipf::compare(settings(&[]), &url).await;
    postgres.stop().await.unwrap();
}

/// The cached path against a bare handler that sends the same bytes with the same headers; from memory, and from
/// Redis with a memory too small for any answer, against a handler that fetches the bytes from Redis.
async fn cached(memory: Config, small: Config, url: &str, dir: &std::path::Path) {
    let socket = dir.join("redis.sock");
    let mut redis = std::process::Command::new("redis-server");
    redis
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket)
        .stdout(std::process::Stdio::null());
    let mut redis = redis.spawn().unwrap();
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let address = format!("unix://{}", socket.display());
    let small = Config { redis_url: Some(address.parse().unwrap()), ..small };
    for (tier, config) in [("memory", memory), ("Redis", small)] {
        let app = App::connect(config, url, b"bench", Access::Everyone).await.unwrap();
        let following = tokio::spawn(app.changes.clone().run());
        app.changes.catch_up(Duration::from_secs(5)).await.unwrap();
        let gateway = serve(router(app.clone())).await;
        for (size, rows) in [("2 KB", 1), ("35 KB", 20)] {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("query", BOARD)
                .append_pair("variables", &format!("{{\"first\":{rows}}}"))
                .finish();
            let (by_post, by_get) = (Ask::post(&body(rows)), Ask::get(&query, ""));
            let (mut bytes, mut tag) = (0, String::new());
            for ask in [&by_post, &by_get] {
                for _ in 0..2 {
                    let (head, answer) = Client::open(gateway).await.send(ask).await;
                    bytes = answer.len();
                    tag = head.split("etag: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            let (head, answer) = Client::open(gateway).await.send(&by_get).await;
            assert!(head.contains("evidence-gateway; hit"), "{head}");
            let bare = serve(bare(&head, answer, (tier == "Redis").then_some(&address)).await).await;
            println!("\n{size} from {tier}: {bytes} bytes");
            compare_asks("by POST", (gateway, &by_post), (bare, &by_post)).await;
            compare_asks("by GET", (gateway, &by_get), (bare, &by_get)).await;
            if tier == "memory" {
                let unchanged = Ask::get(&query, &format!("if-none-match: {tag}\r\n"));
                compare_asks("304", (gateway, &unchanged), (bare, &unchanged)).await;
            }
        }
        following.abort();
    }
    redis.kill().unwrap();
    redis.wait().unwrap();
}

/// What is sent.
#[derive(Clone)]
struct Ask(Arc<str>);

impl Ask {
    fn post(body: &str) -> Self {
        let head =
            "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ";
        Self(format!("{head}{}\r\n\r\n{body}", body.len()).into())
    }

    fn get(query: &str, headers: &str) -> Self {
        Self(format!("GET /graphql?{query} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n").into())
    }
}

/// A handler that does nothing but send these bytes with these headers, or fetch them from Redis and send them.
async fn bare(head: &str, answer: Vec<u8>, redis: Option<&String>) -> Router {
    let mut headers = HeaderMap::new();
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        // Those that the server writes itself.
        if !["content-length", "date"].contains(&name) {
            headers.insert(name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap());
        }
    }
    let body = axum::body::Bytes::from(answer);
    let redis = match redis {
        Some(address) => {
            let client = redis::Client::open(address.as_str()).unwrap();
            let mut connection = client.get_connection_manager().await.unwrap();
            let mut set = redis::cmd("SET");
            set.arg("bare").arg(&body[..]);
            set.query_async::<()>(&mut connection).await.unwrap();
            Some(connection)
        }
        None => None,
    };
    let handler = async move |asked: HeaderMap, _: axum::body::Bytes| {
        let unchanged = asked.contains_key("if-none-match");
        let body = match redis.clone() {
            Some(mut connection) => {
                redis::cmd("GET").arg("bare").query_async::<Vec<u8>>(&mut connection).await.unwrap().into()
            }
            None if unchanged => axum::body::Bytes::new(),
            None => body.clone(),
        };
        let status = if unchanged { 304 } else { 200 };
        (axum::http::StatusCode::from_u16(status).unwrap(), headers.clone(), body)
    };
    let also = handler.clone();
    let get_it = get(async move |asked: HeaderMap, body: axum::body::Bytes| also(asked, body).await);
    Router::new().route("/graphql", get_it.post(handler))
}

async fn compare_asks(what: &str, ours: (SocketAddr, &Ask), theirs: (SocketAddr, &Ask)) {
    for (address, ask) in [ours, theirs] {
        throughput_of(address, ask, CLIENTS).await;
    }
    let mut figures = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..CACHED_ROUNDS {
        let one = throughput_of(ours.0, ours.1, CLIENTS).await;
        let other = throughput_of(theirs.0, theirs.1, CLIENTS).await;
        figures.0.push(one);
        figures.1.push(other);
        figures.2.push(one / other);
    }
    let (ours, theirs, ratio) =
        (spread(&mut figures.0, 0), spread(&mut figures.1, 0), spread(&mut figures.2, 2));
    println!("  {what:<8} {ours} against {theirs}, ratio {ratio}");
}

async fn fill(config: &Config, url: &str) {
    let db = Db::connect(url, &config.db_options()).await.unwrap();
    let mut conn = db.connection().await.unwrap();
    let begun = Instant::now();
    let source = Source::Generate(DATA.parse().unwrap());
    let summary = import(&mut conn, source, Options::default(), |_| {}).await.unwrap();
    println!("  {} rows in {:.1} s", summary.rows_written, begun.elapsed().as_secs_f64());
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("vacuum analyze").await.unwrap();
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Connections with the prepared statement, taken in turn.
struct ByHand {
    clients: Vec<(tokio_postgres::Client, tokio_postgres::Statement)>,
    next: AtomicUsize,
}

async fn rival(url: &str) -> Router {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("set jit = off").await.unwrap();
        let statement = client.prepare(BY_HAND).await.unwrap();
        clients.push((client, statement));
    }
    let state = Arc::new(ByHand { clients, next: AtomicUsize::new(0) });
    Router::new().route("/graphql", post(by_hand)).with_state(state)
}

async fn by_hand(State(state): State<Arc<ByHand>>, body: axum::body::Bytes) -> impl IntoResponse {
    let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let first = request["variables"]["first"].as_i64().unwrap();
    let turn = state.next.fetch_add(1, Ordering::Relaxed) % state.clients.len();
    let (client, statement) = &state.clients[turn];
    let row = client.query_one(statement, &[&first]).await.unwrap();
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], row.get::<_, String>(0))
}

fn body(first: u32) -> String {
    serde_json::json!({"query": BOARD, "variables": {"first": first}}).to_string()
}

async fn compare_answers(gateway: SocketAddr, by_hand: SocketAddr) {
    let ask = async |address| {
        let answer = Client::open(address).await.ask(&body(20)).await;
        serde_json::from_slice::<serde_json::Value>(&answer).unwrap()
    };
    let (ours, theirs) = (ask(gateway).await, ask(by_hand).await);
    if let Some(difference) = differs("", &ours, &theirs) {
        panic!("both sides must give the same answer, but at {difference}");
    }
}

/// The first place where two values differ.
fn differs(path: &str, ours: &serde_json::Value, theirs: &serde_json::Value) -> Option<String> {
    use serde_json::Value::{Array, Object};
    match (ours, theirs) {
        (Object(a), Object(b)) if a.len() == b.len() => {
            a.iter().find_map(|(key, value)| differs(&format!("{path}.{key}"), value, &b[key]))
        }
        (Array(a), Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(n, (a, b))| differs(&format!("{path}.{n}"), a, b))
        }
        // 1 and 1.0 are one number.
        _ => (ours != theirs && ours.as_f64().zip(theirs.as_f64()).is_none_or(|(a, b)| a != b))
            .then(|| format!("{path}: {ours} and {theirs}").chars().take(300).collect()),
    }
}

/// One keep-alive connection of HTTP/1.1, as lean as can be: what the client costs, both sides lose.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 1 << 20] }
    }

    async fn ask(&mut self, body: &str) -> Vec<u8> {
        self.send(&Ask::post(body)).await.1
    }

    /// The head, in lower case but for the values, and the body.
    async fn send(&mut self, ask: &Ask) -> (String, Vec<u8>) {
        self.stream.write_all(ask.0.as_bytes()).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            filled += read;
            let received = &self.buffer[..filled];
            let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&received[..end]).unwrap();
            assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 304"), "{head}");
            let length = head.split("content-length: ").nth(1).map(|rest| rest.split("\r\n").next().unwrap());
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if filled >= end + 4 + length {
                return (head.to_owned(), received[end + 4..end + 4 + length].to_vec());
            }
        }
    }
}

/// Requests a second with so many clients for one round.
async fn throughput(address: SocketAddr, clients: usize) -> f64 {
    throughput_of(address, &Ask::post(&body(20)), clients).await
}

async fn throughput_of(address: SocketAddr, ask: &Ask, clients: usize) -> f64 {
    let begun = Instant::now();
    let work = (0..clients).map(|_| {
        let ask = ask.clone();
        tokio::spawn(async move {
            let mut client = Client::open(address).await;
            let mut done = 0_u32;
            while begun.elapsed() < ROUND {
                client.send(&ask).await;
                done += 1;
            }
            done
        })
    });
    let work: Vec<_> = work.collect();
    let mut done = 0;
    for task in work {
        done += task.await.unwrap();
    }
    f64::from(done) / begun.elapsed().as_secs_f64()
}

async fn compare(what: &str, gateway: SocketAddr, by_hand: SocketAddr, clients: usize) {
    for address in [gateway, by_hand] {
        throughput(address, clients).await;
    }
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (one, other) = (throughput(gateway, clients).await, throughput(by_hand, clients).await);
        ours.push(one);
        theirs.push(other);
        ratios.push(one / other);
    }
    println!("\n{what}: requests a second, {ROUNDS} rounds in turns, median (least to most)");
    println!("  gateway      {}", spread(&mut ours, 0));
    println!("  by hand      {}", spread(&mut theirs, 0));
    println!("  ratio        {}", spread(&mut ratios, 2));
}

fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    format!("{median:.digits$} ({:.digits$} to {:.digits$})", values[0], values[values.len() - 1])
}
