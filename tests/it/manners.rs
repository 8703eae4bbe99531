//! How the gateway behaves as a server, over real sockets: clients that are slow, too many or gone, requests that
//! are traced, counted and logged, and an end in order.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use evidence_gateway::app::App;
use evidence_gateway::http::viewer::Access;
use evidence_gateway::http::{router, server, within_layers};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::harness::{SECRET, config, sample_url, secret};
use crate::leaks;

/// What the test's own machine may add to a limit.
const SLACK: Duration = Duration::from_secs(5);

/// A server with routes that misbehave beside the usual ones.
pub(crate) struct Server {
    address: SocketAddr,
    pub(crate) app: App,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    pub(crate) async fn start(settings: &[&str]) -> Self {
        Self::guarded(settings, Access::Everyone).await
    }

    async fn guarded(settings: &[&str], access: Access) -> Self {
        Self::over(App::connect(config(settings), &sample_url(), SECRET.as_bytes(), access).await.unwrap())
            .await
    }

    async fn over(app: App) -> Self {
        leaks::watch_log();
        let panics = || async {
            if true {
                panic!("a secret of the inside");
            }
        };
        let odd = Router::new()
            .route("/slow/{ms}", get(slow))
            .route("/panic", get(panics))
            .route("/large", get(|| async { "x".repeat(20 << 20) }))
            .route("/letters/{n}", get(letters));
        let routes = leaks::watched(router(app.clone()).merge(within_layers(odd, app.clone())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn({
            let app = app.clone();
            async move {
                let stop = async move { drop(stopped.await) };
                server::serve(&app, routes, listener, stop).await.unwrap();
            }
        });
        Self { address, app, stop: Some(stop), serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, bytes: &str) -> TcpStream {
        let mut socket = self.connect().await;
        socket.write_all(bytes.as_bytes()).await.unwrap();
        socket
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        client().get(self.url(path))
    }

    pub(crate) fn ask(&self, document: &str) -> reqwest::RequestBuilder {
        client().post(self.url("/graphql")).json(&json!({"query": document}))
    }

    fn metric(&self, line: &str) -> Option<f64> {
        let text = self.app.metrics.text().unwrap();
        text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
    }
}

async fn slow(axum::extract::Path(ms): axum::extract::Path<u64>) -> &'static str {
    sleep(Duration::from_millis(ms)).await;
    "done"
}

async fn letters(axum::extract::Path(n): axum::extract::Path<usize>) -> String {
    "x".repeat(n)
}

/// Without connections of others, so that what is counted is what the test did.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

const GET_LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Everything until the server closes the connection, and how long that took.
async fn rest(mut socket: TcpStream) -> (String, Duration) {
    let begun = Instant::now();
    let mut all = Vec::new();
    // A reset is an end too.
    let ended = timeout(SLACK * 2, socket.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "the connection was left open: {}", String::from_utf8_lossy(&all));
    (String::from_utf8_lossy(&all).into_owned(), begun.elapsed())
}

/// One answer of a connection that stays open.
async fn answer(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let n = timeout(SLACK, socket.read(&mut buffer)).await.unwrap().unwrap();
        all.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&all);
        let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.is_some_and(|length| body.len() >= length.parse().unwrap())
        });
        if complete || n == 0 {
            return text.into_owned();
        }
    }
}

async fn wait_until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < SLACK, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn slow_clients_are_cut() {
    let settings = ["--header-timeout-ms", "300", "--body-timeout-ms", "300", "--idle-timeout-ms", "900"];
    let server = Server::start(&settings).await;
    let post = "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 31\r\n";
    for (sent, status, least, limit) in [
        // Half a head, a head that drips, half of the preface of HTTP/2, and nothing at all.
        ("GET / HTTP/1.1\r\nhost:", "", 300, Some("header_time")),
        ("PRI * HTTP/2.0\r\n", "", 300, Some("header_time")),
        ("", "", 900, None),
        // A connection that is kept and not used.
        (GET_LIVE, "HTTP/1.1 200", 900, None),
        // Half a body, also of a request that says it wants the other media type; the JSON so far is whole.
        (&format!("{post}\r\n{{\"query\": \"{{ __typename }}\"}}"), "HTTP/1.1 408", 300, Some("body_time")),
    ] {
        let before = match limit {
            Some(limit) => refusals(&server, limit),
            None => 0.0,
        };
        let (text, took) = rest(server.send(sent).await).await;
        assert!(text.starts_with(status) && text.is_empty() == status.is_empty(), "{sent:?}: {text}");
        let least = Duration::from_millis(least);
        assert!(took >= least - Duration::from_millis(50) && took < least + SLACK, "{sent:?}: {took:?}");
        if let Some(limit) = limit {
            assert_eq!(refusals(&server, limit), before + 1.0, "{sent:?}");
        }
        if status.ends_with("408") {
            assert!(text.contains(r#""extensions":{"code":"TIMEOUT"}"#), "{text}");
        }
    }

    // Each byte of a head is in time; the whole is not.
    let mut socket = server.send("GET / HTTP/1.1\r\nx: ").await;
    let begun = Instant::now();
    while socket.write_all(b"y").await.is_ok() && begun.elapsed() < SLACK {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() < SLACK, "dripping keeps a connection");

    // Who asks for much and reads nothing does not keep its place either.
    let reader = server.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    wait_until("a client that does not read is kept", async || refusals(&server, "reading_time") == 1.0)
        .await;
    drop(reader);

    // Whoever asks again and again within the limits is not cut.
    let mut socket = server.connect().await;
    for _ in 0..6 {
        socket.write_all(GET_LIVE.as_bytes()).await.unwrap();
        assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200"));
        sleep(Duration::from_millis(250)).await;
    }
    // A request may take longer than any of these limits.
    socket.write_all(b"GET /slow/1300 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(answer(&mut socket).await.ends_with("done"));
    drop(socket);
    wait_until("connections are left", async || server.app.metrics.connections.get() == 0).await;
}

fn refusals(server: &Server, limit: &str) -> f64 {
    server.metric(&format!("evidence_gateway_refusals_total{{limit=\"{limit}\"}}")).unwrap_or(0.0)
}

#[tokio::test]
async fn heads_are_bounded_and_long_tokens_are_answered() {
    let server = Server::guarded(&[], Access::Tokens(secret())).await;
    let token = "x".repeat(1 << 20);
    let response = server.ask("{ __typename }").bearer_auth(&token).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    // The limit is on what is kept of a head that is not there yet, so reading may go beyond it by a little.
    let token = "x".repeat(2 << 20);
    let response = server.ask("{ __typename }").bearer_auth(&token).send().await;
    // The client may still be writing when it is told.
    assert!(response.is_err() || response.unwrap().status() == 431);

    // HTTP/2 names its limits at once: settings 3 (streams) and 6 (bytes of a head's list).
    let mut socket = server.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").await;
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], head[1], head[3]), (0, 0, 4), "no settings: {head:?}");
    let mut settings = vec![0; head[2].into()];
    socket.read_exact(&mut settings).await.unwrap();
    let value = |id: u8| {
        let setting = settings.chunks(6).find(|setting| setting[..2] == [0, id])?;
        Some(u32::from_be_bytes(setting[2..].try_into().unwrap()))
    };
    assert_eq!((value(3), value(6)), (Some(64), Some(1_114_112)));
}

/// Idle connections make room; when all are busy, the newcomer waits until one is not.
#[tokio::test]
async fn connections_are_bounded() {
    let server = Server::start(&["--max-connections", "3"]).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut socket = server.send(GET_LIVE).await;
        answer(&mut socket).await;
        idle.push(socket);
    }
    let mut newcomer = server.send(GET_LIVE).await;
    assert!(answer(&mut newcomer).await.starts_with("HTTP/1.1 200"));
    // The one that had been idle for the longest was closed, the others were not.
    let (text, _) = rest(idle.remove(0)).await;
    assert_eq!(text, "");
    for socket in &mut idle {
        socket.write_all(b"GET /slow/600 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    }
    newcomer.write_all(b"GET /slow/600 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    wait_until("three requests run", async || server.app.metrics.in_flight.get() == 3).await;
    let begun = Instant::now();
    let mut late = server.send(GET_LIVE).await;
    assert!(answer(&mut late).await.starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
    assert!(server.app.metrics.connections.get() <= 3);
    for socket in idle.iter_mut().chain([&mut newcomer]) {
        assert!(answer(socket).await.ends_with("done"));
    }
}

#[tokio::test]
async fn requests_have_ids() {
    let server = Server::start(&[]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent =
        |version: &str, trace: &str, end: &str| format!("{version}-{trace}-b7ad6b7169203331-01{end}");
    let long = "x".repeat(128);
    for (traceparent, id, expected) in [
        (Some(parent("00", trace, "")), None, Some(trace)),
        (Some(parent("00", trace, "")), Some("mine"), Some(trace)),
        (Some(parent("cc", trace, "-more")), None, Some(trace)),
        (Some(parent("00", trace, "-more")), Some("mine"), Some("mine")),
        (Some(parent("ff", trace, "")), None, None),
        (Some(parent("00", &"0".repeat(32), "")), None, None),
        (Some(parent("00", &trace.to_uppercase(), "")), None, None),
        (Some(parent("00", &trace[1..], "")), None, None),
        (Some(format!("00-{trace}-{}-01", "0".repeat(16))), None, None),
        (Some("00".to_owned()), Some("mine"), Some("mine")),
        (None, Some("a-b_c.d:e/f=1"), Some("a-b_c.d:e/f=1")),
        (None, Some(long.as_str()), Some(long.as_str())),
        (None, Some(&format!("{long}x")), None),
        (None, Some("two words"), None),
        (None, Some("tab\there"), None),
        (None, Some("é"), None),
        (None, Some(""), None),
        (None, None, None),
    ] {
        let mut request = server.get("/health/live");
        if let Some(traceparent) = &traceparent {
            request = request.header("traceparent", traceparent);
        }
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let response = request.send().await.unwrap();
        let found = response.headers()["x-request-id"].to_str().unwrap();
        match expected {
            Some(expected) => assert_eq!(found, expected, "{traceparent:?} {id:?}"),
            None => assert_eq!(uuid::Uuid::parse_str(found).unwrap().get_version_num(), 7, "{found}"),
        }
    }
    for path in ["/nothing", "/panic", "/metrics"] {
        let response = server.get(path).header("x-request-id", "mine").send().await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "mine", "{path}");
    }
}

#[tokio::test]
async fn it_ends_in_order() {
    let mut server = Server::start(&["--grace-ms", "1500"]).await;
    let mut idle = server.send(GET_LIVE).await;
    answer(&mut idle).await;
    let running = server.send("GET /slow/600 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let endless = server.send("GET /slow/60000 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    wait_until("two requests run", async || server.app.metrics.in_flight.get() == 2).await;
    let begun = Instant::now();
    drop(server.stop.take());
    let (text, took) = rest(idle).await;
    assert!(text.is_empty() && took < Duration::from_millis(500), "{text} {took:?}");
    assert!(TcpStream::connect(server.address).await.is_err(), "a new connection is taken");
    let (text, _) = rest(running).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
    let (text, _) = rest(endless).await;
    assert_eq!(text, "");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_400) && took < Duration::from_millis(1_500) + SLACK, "{took:?}");
    timeout(SLACK, &mut server.serving).await.unwrap().unwrap();
    // What still comes in over other ways reads that it is not the place to send requests to.
    let other = Server::over(server.app.clone()).await;
    let response = other.get("/health/ready").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.json::<Value>().await.unwrap()["status"], "stopping");
}

#[tokio::test]
async fn other_origins_may_ask_if_they_are_named() {
    let (good, bad) = ("https://app.example", "https://evil.example");
    let both = format!("{good}, http://localhost:3000");
    for (setting, origin, allowed) in [
        ("", good, None),
        (both.as_str(), good, Some(good)),
        (&both, "http://localhost:3000", Some("http://localhost:3000")),
        (&both, bad, None),
        (&both, "null", None),
        (&both, "https://app.example.evil.example", None),
        ("*", bad, Some("*")),
    ] {
        let server = Server::start(&["--cors-origins", setting]).await;
        let preflight = client()
            .request(reqwest::Method::OPTIONS, server.url("/graphql"))
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,authorization");
        for request in [preflight, server.ask("{ __typename }"), server.get("/panic")] {
            let response = request.header("origin", origin).send().await.unwrap();
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("access-control-allow-origin"), allowed, "{setting} {origin}");
            assert_eq!(header("access-control-allow-credentials"), None);
        }
    }
}

#[tokio::test]
async fn panics_are_answers_and_hanging_up_is_counted() {
    let server = Server::start(&[]).await;
    let response = server.get("/panic").send().await.unwrap();
    assert_eq!(response.status(), 500);
    let body = response.text().await.unwrap();
    assert!(body.contains(r#""code":"INTERNAL""#) && !body.contains("inside"), "{body}");
    let line = r#"evidence_gateway_http_responses_total{route="/panic",status="500"}"#;
    assert_eq!(server.metric(line), Some(1.0));
    assert_eq!(server.app.metrics.in_flight.get(), 0);
    // So is a client that hangs up, for those who count.
    let socket = server.send("GET /slow/60000 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    wait_until("the request runs", async || server.app.metrics.in_flight.get() == 1).await;
    drop(socket);
    wait_until("the request goes on without its client", async || server.app.metrics.in_flight.get() == 0)
        .await;
    let line = r#"evidence_gateway_http_responses_total{route="/slow/{ms}",status="499"}"#;
    assert_eq!(server.metric(line), Some(1.0));
    assert_eq!(server.get("/health/live").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn answers_are_compressed_if_it_is_worth_it() {
    let server = Server::start(&[]).await;
    for (path, coding) in [("/letters/1000", None), ("/letters/4000", Some("gzip"))] {
        let response = server.get(path).header("accept-encoding", "gzip").send().await.unwrap();
        let headers = response.headers();
        let found = headers.get("content-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(found, coding, "{path}");
        assert_eq!(
            (&headers["x-content-type-options"], &headers["referrer-policy"]),
            (&"nosniff".parse().unwrap(), &"no-referrer".parse().unwrap())
        );
    }
}
