//! What the tests share: one private PostgreSQL for the whole process, databases that are copied from a template
//! instead of being filled again, and gateways that run inside the test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_graphql_value::ConstValue;
use clap::Parser;
use diesel::QueryableByName;
use diesel::sql_types::{Array, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use evidence_gateway::app::App;
use evidence_gateway::changes;
use evidence_gateway::changes::tail::Tail;
use evidence_gateway::cli::import::{Options, Source, run};
use evidence_gateway::config::{Config, Secret};
use evidence_gateway::http;
use evidence_gateway::http::viewer::Access;
use evidence_gateway::http::viewer::token::{TokenKeys, mint};
use evidence_gateway::model::viewer::{Credential, Grant, Holder, Projects, Role, Viewer};
use evidence_gateway::store::db::migrations::migrate;
use evidence_gateway::store::postgres::{PostgresOptions, PrivatePostgres};
use evidence_gateway::store::vectors::Vectors;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::leaks;

/// What signs tokens and cursors in tests.
pub(crate) const SECRET: &str = "a secret of the tests, 32 characters or more";

/// Migrated and empty.
const EMPTY: &str = "template_empty";
/// Migrated, with the sample in it.
const SAMPLE: &str = "template_sample";
/// A copy of the sample that tests share because they only read.
const READING: &str = "reading";

/// Has recorders begin with what comes after this.
pub(crate) const FORGET: &str = "update change_log_consumers set place = pg_current_snapshot()::text";

/// The server of this process. It is never dropped, being static: the kernel stops it when its keeper's thread
/// ends, and [`clean_up_after_us`] removes its files.
static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| {
    // Connections need a runtime that outlives every test's own.
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap().keep();
            let postgres = PrivatePostgres::start(PostgresOptions::throwaway(&dir)).await.unwrap();
            clean_up_after_us(&[dir, postgres.data_dir().to_owned()]);
            postgres.create_database(EMPTY, None).await.unwrap();
            migrate(&postgres.database_url_of(EMPTY)).await.unwrap();
            postgres.create_database(SAMPLE, Some(EMPTY)).await.unwrap();
            let mut conn = AsyncPgConnection::establish(&postgres.database_url_of(SAMPLE)).await.unwrap();
            run(&mut conn, Source::Sample, Options::default(), |_| {}).await.unwrap();
            conn.batch_execute("analyze").await.unwrap();
            // The sample is history: a test's trail begins with what the test does.
            conn.batch_execute(FORGET).await.unwrap();
            drop(conn);
            postgres.create_database(READING, Some(SAMPLE)).await.unwrap();
            postgres
        })
    })
    .join()
    .unwrap()
});

/// A folder that goes away after the last test and not sooner: what runs in the background may still write to it.
pub(crate) fn folder() -> PathBuf {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let root = tempfile::tempdir().unwrap().keep();
        clean_up_after_us(&[root.clone(), root.clone()]);
        root
    });
    tempfile::tempdir_in(&*ROOT).unwrap().keep()
}

/// Leaves a process behind that removes the folders when this one has ended, however it ends: nothing of ours
/// runs after SIGKILL. It notices by the pipe, which only we hold.
fn clean_up_after_us(folders: &[PathBuf]) {
    let script = "read -r nothing; n=0
        while [ -e \"$2/postmaster.pid\" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
        rm -rf \"$1\" \"$2\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").args(folders).current_dir("/");
    // Its own process group: Ctrl-C ends the tests and not the cleaning.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let cleaner = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The pipe's other end stays open for as long as this process lives.
    std::mem::forget(cleaner);
}

/// The server, for tests that make databases of their own.
pub(crate) fn server() -> &'static PrivatePostgres {
    &SERVER
}

/// The sample, for tests that only read.
pub(crate) fn sample_url() -> String {
    server().database_url_of(READING)
}

/// A database that one test has for itself and that goes away with it.
pub(crate) struct Database {
    pub(crate) url: String,
    name: String,
}

impl Database {
    /// Migrated, without rows.
    pub(crate) async fn empty() -> Self {
        Self::copy(Some(EMPTY)).await
    }

    /// A copy of the sample, to be written to.
    pub(crate) async fn sample() -> Self {
        Self::copy(Some(SAMPLE)).await
    }

    /// Nothing at all, not even migrated.
    pub(crate) async fn bare() -> Self {
        Self::copy(None).await
    }

    async fn copy(template: Option<&str>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server().create_database(&name, template).await.unwrap();
        Self { url: server().database_url_of(&name), name }
    }

    pub(crate) async fn connect(&self) -> AsyncPgConnection {
        AsyncPgConnection::establish(&self.url).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Dropping is no place for waiting, but a database less is memory for the others.
        let name = self.name.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server().drop_database(&name))
        });
        if !std::thread::panicking() {
            dropping.join().unwrap().unwrap();
        }
    }
}

/// Runs SQL that gives rows of texts.
pub(crate) async fn texts(url: &str, query: &str) -> Vec<Vec<Option<String>>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Array<diesel::sql_types::Nullable<Text>>)]
        cells: Vec<Option<String>>,
    }
    let mut conn = AsyncPgConnection::establish(url).await.unwrap();
    // Whatever the columns are: as text, in their order.
    let query = format!(
        "select array(select value from json_each_text(row_to_json(q)) with ordinality e(key, value, n) order by n) \
         as cells from ({query}) q"
    );
    let rows: Vec<Row> = diesel::sql_query(query).load(&mut conn).await.unwrap();
    rows.into_iter().map(|row| row.cells).collect()
}

/// Runs SQL that gives one column of texts, none of which is null.
pub(crate) async fn column(url: &str, query: &str) -> Vec<String> {
    texts(url, query).await.into_iter().map(|mut row| row.swap_remove(0).unwrap()).collect()
}

/// Runs SQL that gives nothing.
pub(crate) async fn execute(url: &str, script: &str) {
    let mut conn = AsyncPgConnection::establish(url).await.unwrap();
    conn.batch_execute(script).await.unwrap();
}

/// The settings as a person would write them.
pub(crate) fn config(settings: &[&str]) -> Config {
    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        config: Config,
    }
    // Without the cache: most tests are about what is executed, and count its statements.
    let always =
        ["test", "--listen", "127.0.0.1:0", "--embedder", "off", "--pool-size", "8", "--cache-bytes", "0"];
    let overridden = |flag: &&str| settings.contains(flag);
    let mut line = vec![always[0]];
    for pair in always[1..].chunks(2).filter(|pair| !overridden(&pair[0])) {
        line.extend(pair);
    }
    line.extend(settings);
    CommandLine::try_parse_from(line).unwrap().config
}

/// A gateway in this process.
pub(crate) struct Gateway {
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    pub(crate) tail: Option<Tail>,
    /// Its own vector index, which nobody else may open.
    pub(crate) vectors: Vectors,
    token: Option<String>,
    serving: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What a gateway answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Gateway {
    /// A gateway that takes everyone for an administrator.
    pub(crate) async fn open(database_url: &str) -> Self {
        Self::start(database_url, &[], Access::Everyone).await
    }

    /// A gateway that asks for tokens; the bearer is an administrator unless [`Self::viewed_by`] says otherwise.
    pub(crate) async fn guarded(database_url: &str) -> Self {
        let mut gateway = Self::start(database_url, &[], Access::Tokens(secret())).await;
        gateway.token = Some(token(&Viewer::admin()));
        gateway
    }

    pub(crate) async fn start(database_url: &str, settings: &[&str], access: Access) -> Self {
        leaks::watch_log();
        let app = App::connect(config(settings), database_url, SECRET.as_bytes(), access).await.unwrap();
        let listener = TcpListener::bind(app.config.listen).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tail, vectors) = (Some(app.changes.clone()), app.searcher.vectors.clone());
        let serving = tokio::spawn(async move {
            let routes = leaks::watched(http::router(app.clone()));
            let serving = http::server::serve(&app, routes, listener, std::future::pending());
            let (served, ()) = tokio::join!(serving, changes::run(app.clone()));
            served.unwrap();
        });
        // A gateway of this machine answers at once or is broken.
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap();
        Self { url, client, tail, vectors, token: None, serving }
    }

    /// The same gateway for another viewer.
    pub(crate) fn viewed_by(&self, viewer: &Viewer) -> Self {
        let serving = tokio::spawn(std::future::pending());
        Self {
            url: self.url.clone(),
            client: self.client.clone(),
            tail: None,
            vectors: self.vectors.clone(),
            token: Some(token(viewer)),
            serving,
        }
    }

    /// Ends it, and what it has in hand.
    pub(crate) async fn close(mut self) {
        self.serving.abort();
        assert!((&mut self.serving).await.unwrap_err().is_cancelled());
    }

    /// What its requests are sent with.
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// This gateway, for another viewer from now on.
    pub(crate) fn keeping(mut self, viewer: &Viewer) -> Self {
        self.token = Some(token(viewer));
        self
    }

    /// Asks, whatever comes of it.
    pub(crate) async fn request(&self, document: &str, variables: Value) -> Answer {
        let body = json!({"query": document, "variables": variables});
        let mut request = self.client.post(format!("{}/graphql", self.url)).json(&body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.unwrap();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Answer { body, text }
    }

    /// Asks a question that must have an answer without errors, and gives its data.
    pub(crate) async fn ask(&self, document: &str) -> Value {
        self.ask_with(document, json!({})).await
    }

    pub(crate) async fn ask_with(&self, document: &str, variables: Value) -> Value {
        let mut answer = self.request(document, variables).await;
        assert_eq!(answer.body.get("errors"), None, "{document}\n{}", answer.text);
        answer.body["data"].take()
    }

    /// The code and the text of the first error of an answer that must have one.
    pub(crate) async fn error(&self, document: &str, variables: Value) -> (String, String) {
        let answer = self.request(document, variables).await;
        let error = &answer.body["errors"][0];
        let text =
            |value: &Value| value.as_str().unwrap_or_else(|| panic!("no error: {}", answer.text)).to_owned();
        (text(&error["extensions"]["code"]), text(&error["message"]))
    }

    /// Statements that requests have cost since the start.
    pub(crate) async fn statements(&self) -> u64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("evidence_gateway_statements_total "));
        line.unwrap().parse().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }
}

impl Answer {
    /// The answer's JSON for people, its members in the order in which they came.
    pub(crate) fn pretty(&self) -> String {
        let ordered: ConstValue = serde_json::from_str(&self.text).unwrap();
        serde_json::to_string_pretty(&ordered).unwrap()
    }
}

pub(crate) fn secret() -> Secret {
    SECRET.parse().unwrap()
}

pub(crate) fn token(viewer: &Viewer) -> String {
    let holder = match (viewer.user_id, viewer.agent_id) {
        (Some(id), _) => Holder::User(id),
        (None, Some(id)) => Holder::Agent(id),
        (None, None) => Holder::Nobody,
    };
    let grant = Grant { holder, role: viewer.role, projects: viewer.project_ids().map(<[Uuid]>::to_vec) };
    mint(&TokenKeys::new(&secret(), None), &grant, 3_600).unwrap()
}

/// Somebody who may see these projects, as themselves or as nobody in particular.
pub(crate) fn member(user_id: Option<Uuid>, projects: &[Uuid]) -> Viewer {
    Viewer {
        user_id,
        agent_id: None,
        role: Role::Viewer,
        projects: Projects::Only(projects.into()),
        credential: Credential::Token,
    }
}

/// The ids of rows of the sample, by the names that the sample gives them.
pub(crate) async fn id_of(url: &str, table: &str, external_id: &str) -> Uuid {
    let query = format!("select id from {table} where external_id = '{external_id}'");
    column(url, &query).await[0].parse().unwrap()
}
