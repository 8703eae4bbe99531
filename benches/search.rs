//! The benchmark of searches: 100,000 pieces of evidence with vectors of 384 numbers. The rival is the bare engine,
//! asked for the same lists of the same depth in this process, without HTTP and without rows; the gateway answers over
//! HTTP with ten rows each. Side by side in one run, in turns; what counts are the ratios.
//!
//! Then how many of the true ten nearest the index finds, for those who see everything and for those who see one
//! percent of it, and how long the model takes for a question that nobody asked before.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on has failed, and its product is a table"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use evidence_gateway::app::App;
use evidence_gateway::cli::import::{Options, Source, run as import};
use evidence_gateway::config::{Config, Secret};
use evidence_gateway::http::router;
use evidence_gateway::http::viewer::Access;
use evidence_gateway::http::viewer::token::{TokenKeys, mint};
use evidence_gateway::model::searched::read_documents;
use evidence_gateway::model::viewer::{Grant, Holder, Role};
use evidence_gateway::store::db::Db;
use evidence_gateway::store::db::migrations::migrate;
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use evidence_gateway::store::vectors::{Filter, Point, Question, Vectors};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DATA: &str = "tasks=20000,evidence=5";
const DIMENSION: usize = 384;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(1_500);
const CLIENTS: usize = 4;
/// Subjects that texts are about: vectors lie around them.
const SUBJECTS: usize = 1_000;
const SECRET: &str = "a secret of the benchmark, 32 bytes or more";
/// In words that the generated texts have, so that a search by words finds as many.
const QUESTIONS: [&str; 8] = [
    "parser drops signed requests",
    "which cache loses stale entries after a restart",
    "session store leaks expired keys",
    "queue reorders late events under load",
    "image decoder rejects large messages",
    "rate limiter delays slow readers on a slow network",
    "index misreads null values during a migration",
    "replica repeats concurrent writes at midnight",
];
const SEARCH: &str = "query ($query: String!, $mode: SearchMode!, $first: Int!) { searchEvidence(query: $query, mode: $mode, \
    first: $first) { edges { score node { id title sourceType credibilityScore createdAt } } } }";

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    config: Config,
}

/// A side of a comparison: asks the next question.
type Side<'a> = Box<dyn Fn(usize) -> futures_util::future::BoxFuture<'a, ()> + Sync + 'a>;

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    println!("starting PostgreSQL and importing {DATA}");
    let postgres = PrivatePostgres::start(PostgresOptions::throwaway(dir.path())).await.unwrap();
    let url = postgres.database_url();
    migrate(&url).await.unwrap();
    let data_dir = dir.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/.evidence-gateway/models");
    std::os::unix::fs::symlink(models, data_dir.join("models")).unwrap();
    let settings =
        ["bench", "--embedder", "minilm", "--log", "warn", "--data-dir", data_dir.to_str().unwrap()];
    let config = Settings::parse_from(settings).config;
    let one_percent = fill(&config, &url).await;
    let secret: Secret = SECRET.parse().unwrap();
    let access = Access::Tokens(secret.clone());
    let app = App::connect(config, &url, SECRET.as_bytes(), access).await.unwrap();
    let vectors = app.searcher.vectors.clone();
    let (rows, some) = index(&app, &url).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = format!("http://{}/graphql", listener.local_addr().unwrap());
    let routes = router(app.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let keys = TokenKeys::new(&secret, None);
    let token =
        |role, projects| mint(&keys, &Grant { holder: Holder::Nobody, role, projects }, 3_600).unwrap();
    let client = Client { url: gateway, http: reqwest::Client::builder().no_proxy().build().unwrap() };

    embedding(&app).await;
    let admin = token(Role::Admin, None);
    println!(
        "\n10 hits with their rows over HTTP, and the bare engine at the same limit; {rows} vectors, {CLIENTS} clients"
    );
    for mode in ["SEMANTIC", "LEXICAL", "HYBRID"] {
        compare(&app, &client, &admin, mode).await;
    }
    println!("\nrecall@10 of the index against comparing every vector, 200 questions");
    recall("all rows", &vectors, &some, None).await;
    recall("1 % of the rows", &vectors, &some, Some(Filter::ids_in("project_id", &[one_percent]))).await;
    let member = token(Role::Viewer, Some(vec![one_percent]));
    full_pages(&client, &member).await;
    drop(app);
    postgres.stop().await.unwrap();
}

/// Imports, and moves one percent of the evidence into a project of its own.
async fn fill(config: &Config, url: &str) -> Uuid {
    let db = Db::connect(url, &config.db_options()).await.unwrap();
    let mut conn = db.connection().await.unwrap();
    let begun = Instant::now();
    let source = Source::Generate(DATA.parse().unwrap());
    let summary = import(&mut conn, source, Options::default(), |_| {}).await.unwrap();
    println!("  {} rows in {:.1} s", summary.rows_written, begun.elapsed().as_secs_f64());
    let client = connect(url).await;
    let project =
        "insert into projects (name, slug) values ('One percent', 'one-percent') returning id::text";
    let project: Uuid = client.query_one(project, &[]).await.unwrap().get::<_, String>(0).parse().unwrap();
    let moved = format!(
        "update evidence set project_id = '{project}' where id in (select id from evidence order by md5(id::text) limit 1000)"
    );
    client.batch_execute(&moved).await.unwrap();
    client.batch_execute("vacuum analyze").await.unwrap();
    project
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Writes the index as the indexer would, with vectors that are made and not computed: the model would take hours. Says
/// how many there are, and gives vectors to ask by.
async fn index(app: &App, url: &str) -> (usize, Vec<Vec<f32>>) {
    let begun = Instant::now();
    let ids = connect(url).await.query("select id::text from evidence order by id", &[]).await.unwrap();
    let ids: Vec<Uuid> = ids.iter().map(|row| row.get::<_, String>(0).parse().unwrap()).collect();
    let mut random = Random(7);
    let subjects: Vec<Vec<f32>> = (0..SUBJECTS).map(|_| random.vector()).collect();
    let session = app.db.session();
    for part in ids.chunks(2_000) {
        let documents = read_documents(&session, part.to_vec()).await.unwrap();
        let points = documents.into_iter().map(|document| Point {
            id: document.id,
            version: document.version,
            dense: random.near(&subjects),
            sparse: app.searcher.words.document(&document.text),
            payload: document.payload,
        });
        app.searcher.vectors.upsert(points.collect()).await.unwrap();
    }
    let written = begun.elapsed();
    app.searcher.vectors.optimize().await.unwrap();
    app.searcher.vectors.flush().await.unwrap();
    println!(
        "  {} vectors written in {:.1} s, indexed in {:.1} s",
        ids.len(),
        written.as_secs_f64(),
        (begun.elapsed() - written).as_secs_f64()
    );
    (ids.len(), (0..200).map(|_| random.near(&subjects)).collect())
}

/// What a question costs that is in no cache.
async fn embedding(app: &App) {
    let mut took: Vec<f64> = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        app.searcher.embedder.embed_query(&format!("{} number {n}", QUESTIONS[n % 8])).await.unwrap();
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    println!("\nembedding a question that nobody asked before, ms: {}", spread(&mut took));
}

/// Asks over HTTP.
struct Client {
    url: String,
    http: reqwest::Client,
}

impl Client {
    async fn ask(&self, token: &str, question: &str, mode: &str, first: usize) -> Value {
        let body = json!({"query": SEARCH, "variables": {"query": question, "mode": mode, "first": first}});
        let answer = self.http.post(&self.url).bearer_auth(token).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["errors"], Value::Null, "{answer}");
        answer
    }
}

async fn compare(app: &App, client: &Client, token: &str, mode: &str) {
    let mut asked = Vec::new();
    for question in QUESTIONS {
        let dense = app.searcher.embedder.embed_query(question).await.unwrap().to_vec();
        let sparse = app.searcher.words.question(question);
        asked.push(Question {
            dense: (mode != "LEXICAL").then_some(dense),
            sparse: (mode != "SEMANTIC").then_some(sparse),
            limit: 10,
            ..Question::default()
        });
    }
    let (asked, vectors) = (&asked, &app.searcher.vectors);
    let gateway: Side<'_> = Box::new(move |n| {
        Box::pin(async move {
            let answer = client.ask(token, QUESTIONS[n % QUESTIONS.len()], mode, 10).await;
            assert_eq!(answer["data"]["searchEvidence"]["edges"].as_array().unwrap().len(), 10);
        })
    });
    let bare: Side<'_> = Box::new(move |n| {
        Box::pin(async move {
            let answers = vectors.ask(vec![asked[n % asked.len()].clone()]).await.unwrap();
            assert!(answers[0].dense.len().max(answers[0].sparse.len()) == 10);
        })
    });
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (one, other) = (rate(&gateway).await, rate(&bare).await);
        ours.push(one);
        theirs.push(other);
        ratios.push(one / other);
    }
    println!(
        "  {mode:<8} gateway {}, bare {} a second, ratio {}",
        spread(&mut ours),
        spread(&mut theirs),
        spread(&mut ratios)
    );
}

/// Questions a second.
async fn rate(side: &Side<'_>) -> f64 {
    let asked = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|_| async {
        while begun.elapsed() < ROUND {
            side(asked.fetch_add(1, Ordering::Relaxed)).await;
        }
    });
    futures_util::future::join_all(clients).await;
    asked.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

async fn recall(name: &str, vectors: &Vectors, some: &[Vec<f32>], scope: Option<Filter>) {
    let question = |dense: &Vec<f32>, exact| Question {
        dense: Some(dense.clone()),
        scope: scope.clone(),
        limit: 10,
        exact,
        ..Question::default()
    };
    let mut found = 0;
    for dense in some {
        let answers = vectors.ask(vec![question(dense, false), question(dense, true)]).await.unwrap();
        assert_eq!((answers[0].dense.len(), answers[1].dense.len()), (10, 10));
        let known = |id| answers[0].dense.iter().any(|hit| hit.id == id);
        found += answers[1].dense.iter().filter(|hit| known(hit.id)).count();
    }
    let recall = found as f64 / (some.len() * 10) as f64;
    println!("  {name}: {recall:.4}");
    assert!(recall >= 0.99, "the index misses too much");
}

/// Whoever sees a thousand rows of a hundred thousand gets full pages.
async fn full_pages(client: &Client, token: &str) {
    let mut pages = 0;
    for question in QUESTIONS {
        for (mode, first) in [("HYBRID", 10), ("SEMANTIC", 10), ("SEMANTIC", 200)] {
            let answer = client.ask(token, question, mode, first).await;
            assert_eq!(answer["data"]["searchEvidence"]["edges"].as_array().unwrap().len(), first);
            pages += 1;
        }
    }
    println!("  pages of 10 and of 200 hits for that viewer: {pages} of {pages} full");
}

/// Median (least to most).
fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.2} ({least:.2} to {most:.2})", values[values.len() / 2])
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 40
    }

    fn next(&mut self) -> f32 {
        self.bits() as f32 / (1_u64 << 24) as f32 - 0.5
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIMENSION).map(|_| self.next()).collect()
    }

    fn near(&mut self, subjects: &[Vec<f32>]) -> Vec<f32> {
        let subject = &subjects[usize::try_from(self.bits()).unwrap() % subjects.len()];
        let noise = self.vector();
        let vector: Vec<f32> =
            subject.iter().zip(&noise).map(|(subject, noise)| subject + 0.9 * noise).collect();
        let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        vector.iter().map(|number| number / length).collect()
    }
}
