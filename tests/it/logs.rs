//! The program's log, line by line, and what becomes of the program when it runs out of files or is told to stop.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Database, SECRET, id_of, member, sample_url, token};
use crate::leaks;
use crate::redis::RedisServer;
use crate::settings::program;

const PATIENCE: Duration = Duration::from_secs(20);

/// `serve`, with its log read as it comes.
struct Serve {
    process: Child,
    url: String,
    lines: Receiver<String>,
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Serve {
    fn start(mut command: Command, database_url: &str, settings: &[&str]) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--embedder", "off"]).args(settings);
        command
            .env("EVIDENCE_GATEWAY_TOKEN_SECRET", SECRET)
            .env("EVIDENCE_GATEWAY_DATABASE_URL", database_url);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut read = leaks::lines(process.stderr.take().unwrap());
        let url = read.find_map(|line| line.strip_prefix("serving on ").map(str::to_owned)).unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || read.all(|line| send.send(line).is_ok()));
        Self { process, url, lines }
    }

    /// The next line about a request.
    fn request(&self) -> (Value, String) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap();
            let json: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if json["target"] == "request" {
                return (json, line);
            }
        }
    }

    fn ask(&self, token: &str, body: &Value) -> reqwest::RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(format!("{}/graphql?hidden=query-string", self.url)).bearer_auth(token).json(body)
    }

    fn signal(&self, name: &str) {
        Command::new("kill").arg(format!("-{name}")).arg(self.process.id().to_string()).status().unwrap();
    }

    async fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reading the log blocks its thread; the client closes its connections on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_has_one_line() {
    let database = Database::sample().await;
    let serve = Serve::start(program(), &database.url, &["--log-format", "json"]);
    let user = id_of(&database.url, "users", "engineer-1").await;
    let token = token(&member(Some(user), &[]));
    let viewer = format!("viewer:user:{user}");
    let named = json!({
        "query": "query Named($hidden: Int) { a: agents(first: $hidden) { totalCount nodes { id } } }",
        "variables": {"hidden": 7}, "operationName": "Named",
    });
    let wrong = json!({"query": "{ hidden }", "variables": {"secret": "hidden"}});
    for (bearer, body, expected) in [
        (
            token.as_str(),
            named,
            json!({"status": 200, "operation": "Named", "kind": "query", "viewer": viewer, "statements": 2}),
        ),
        (
            &token,
            wrong,
            json!({"status": 200, "kind": "query", "viewer": viewer, "statements": 0, "errors": "BAD_USER_INPUT"}),
        ),
        (
            "hidden",
            json!({"query": "{ __typename }"}),
            json!({"status": 401, "kind": "", "statements": 0, "errors": "UNAUTHENTICATED"}),
        ),
    ] {
        let request =
            serve.ask(bearer, &body).header("x-request-id", "mine").header("accept", "application/json");
        request.send().await.unwrap();
        let (mut found, line) = serve.request();
        assert!(!line.contains("hidden") && !line.contains(&token), "{line}");
        let mut taken = |name: &str| found.as_object_mut().unwrap().remove(name);
        assert!(taken("ms").unwrap().as_f64().unwrap() > 0.0, "{line}");
        assert!(taken("timestamp").is_some() && taken("level") == Some(json!("INFO")));
        let mut expected = expected;
        expected["id"] = json!("mine");
        expected["method"] = json!("POST");
        expected["route"] = json!("/graphql");
        expected["target"] = json!("request");
        assert_eq!(found, expected, "{line}");
    }

    // The client has gone before the answer: its request waits for the lock of another.
    let mut conn = database.connect().await;
    conn.batch_execute("begin; lock table agents in access exclusive mode").await.unwrap();
    let waiting = serve.ask(&token, &json!({"query": "{ agents { totalCount } }"}));
    let gone =
        tokio::time::timeout(Duration::from_millis(300), waiting.header("x-request-id", "gone").send());
    assert!(gone.await.is_err());
    let (found, line) = serve.request();
    assert_eq!(
        (&found["id"], &found["status"], &found["route"]),
        (&json!("gone"), &json!(499), &json!("/graphql")),
        "{line}"
    );
    conn.batch_execute("rollback").await.unwrap();
}

/// The first signal lets requests finish, the second does not.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let database = Database::sample().await;
    let mut conn = database.connect().await;
    conn.batch_execute("begin; lock table agents in access exclusive mode").await.unwrap();
    let settings = ["--grace-ms", "600000", "--request-timeout-ms", "600000"];
    let mut serve = Serve::start(program(), &database.url, &settings);
    let body = json!({"query": "{ agents { totalCount } }"});
    let admin = token(&evidence_gateway::model::viewer::Viewer::admin());
    let running = tokio::spawn(serve.ask(&admin, &body).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    serve.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(serve.process.try_wait().unwrap(), None, "it did not wait for what runs");
    assert!(!running.is_finished());
    serve.signal("TERM");
    let begun = Instant::now();
    assert_eq!(serve.ended().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(running.await.unwrap().is_err());
}

/// More connections than the system gives files for: it says so, goes on, and answers when there are some again.
#[tokio::test]
async fn it_outlives_a_lack_of_files() {
    let mut command = Command::new("sh");
    let path = env!("CARGO_BIN_EXE_evidence-gateway");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", path]).stdin(Stdio::null());
    let serve = Serve::start(command, &sample_url(), &["--log-format", "json"]);
    let address = serve.url.strip_prefix("http://").unwrap().to_owned();
    let mut sockets = Vec::new();
    for _ in 0..80 {
        sockets.push(TcpStream::connect(&address).await.unwrap());
    }
    let line = serve.lines.recv_timeout(PATIENCE).unwrap();
    assert!(line.contains("no connection can be accepted"), "{line}");
    drop(sockets);
    let mut socket = TcpStream::connect(&address).await.unwrap();
    socket.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

/// Redis goes and comes back while requests come: each is said once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_gone_is_told_once() {
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let serve = Serve::start(program(), &sample_url(), &["--log-format", "json", "--redis-url", &url]);
    let token = token(&evidence_gateway::model::viewer::Viewer::admin());
    let mut n = 0;
    let mut told = async |end: &str| {
        let (begun, mut lines) = (Instant::now(), Vec::new());
        while !lines.iter().any(|line: &String| line.contains(end)) {
            assert!(begun.elapsed() < PATIENCE, "{lines:?}");
            n += 1;
            let body = json!({"query": format!("{{ tasks(first: {n}) {{ nodes {{ id }} }} }}")});
            assert_eq!(serve.ask(&token, &body).send().await.unwrap().status(), 200);
            lines.extend(serve.lines.try_iter().filter(|line| line.contains("Redis")));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lines
    };
    redis.kill();
    let mut lines = told("Redis does not answer").await;
    // Long enough for many more attempts.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let body = json!({"query": "{ agents { totalCount } }"});
        serve.ask(&token, &body).header("cache-control", "no-cache").send().await.unwrap();
    }
    redis.restart().await;
    lines.extend(told("Redis answers again").await);
    assert_eq!(lines.len(), 2, "{lines:?}");
}
