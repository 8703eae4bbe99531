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

use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
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
    let config = Settings::parse_from(settings).config;
    fill(&config, &url).await;
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
    postgres.stop().await.unwrap();
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
        let head =
            "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ";
        let request = format!("{head}{}\r\n\r\n{body}", body.len());
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            filled += read;
            let received = &self.buffer[..filled];
            let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&received[..end]).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let length: usize = length.trim().parse().unwrap();
            if filled >= end + 4 + length {
                return received[end + 4..end + 4 + length].to_vec();
            }
        }
    }
}

/// Requests a second with so many clients for one round.
async fn throughput(address: SocketAddr, clients: usize) -> f64 {
    let body = Arc::new(body(20));
    let begun = Instant::now();
    let work = (0..clients).map(|_| {
        let body = body.clone();
        tokio::spawn(async move {
            let mut client = Client::open(address).await;
            let mut done = 0_u32;
            while begun.elapsed() < ROUND {
                client.ask(&body).await;
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
