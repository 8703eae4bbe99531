//! An endpoint as OpenAI's, inside the test: it answers in another order than it was asked, and as badly as it is
//! told to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Whoever has it may ask. It must be in no log.
pub(crate) const KEY: &str = "sk-the-key-of-the-tests";
/// How many numbers a vector has.
pub(crate) const DIMENSION: usize = 64;

/// A request with a text that has this in it is refused.
pub(crate) const REFUSED: &str = "no embedder takes this";

/// What the endpoint does with one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// Answers well.
    Good,
    /// Answers something else: status, a header (or an empty one), body.
    Text(u16, (&'static str, &'static str), &'static str),
    /// Answers well but for what this does to it.
    Spoilt(fn(&mut Value)),
    /// Answers this many bytes without end or meaning.
    Long(usize),
    /// Hangs up in the middle of the answer.
    Cut,
    /// Never answers.
    Silent,
}

/// What was asked, and when.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) body: Value,
}

/// It ends when this is dropped.
pub(crate) struct Api {
    pub(crate) url: String,
    state: Arc<Inner>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Inner {
    script: Mutex<VecDeque<Reply>>,
    asked: Mutex<Vec<Asked>>,
    in_flight: AtomicUsize,
}

impl Api {
    /// Answers as the script says, and well when that is over.
    pub(crate) async fn start(script: &[Reply]) -> Self {
        let state = Arc::new(Inner::default());
        state.script.lock().unwrap().extend(script);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let routes = Router::new().route("/v1/embeddings", post(answer)).with_state(state.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, state, serving }
    }

    pub(crate) fn script(&self, replies: &[Reply]) {
        self.state.script.lock().unwrap().extend(replies);
    }

    /// Forgets what is left of the script.
    pub(crate) fn recover(&self) {
        self.state.script.lock().unwrap().clear();
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// The texts of each request.
    pub(crate) fn texts(&self) -> Vec<Vec<String>> {
        let texts = |asked: Asked| serde_json::from_value(asked.body["input"].clone()).unwrap();
        self.asked().into_iter().map(texts).collect()
    }

    /// Waits until so many requests are being answered.
    pub(crate) async fn in_flight(&self, count: usize) {
        let begun = Instant::now();
        while self.state.in_flight.load(Ordering::SeqCst) != count {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", self.state.in_flight);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The vector of a text: how often each of its words is in it. Not of length 1.
pub(crate) fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let sum = word.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        vector[sum % DIMENSION] += 1.0;
    }
    vector
}

/// Counts a request as long as it is being answered.
struct Counted(Arc<Inner>);

impl Counted {
    fn new(inner: &Arc<Inner>) -> Self {
        inner.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(inner.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let _counted = Counted::new(&inner);
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    let body: Value = serde_json::from_slice(&body).unwrap();
    let texts: Vec<String> = serde_json::from_value(body["input"].clone()).unwrap();
    inner.asked.lock().unwrap().push(Asked { at: Instant::now(), body });
    // Before the script: requests that come together may come in any order.
    if texts[0].starts_with("silent") {
        return std::future::pending().await;
    }
    if texts.iter().any(|text| text.contains(REFUSED)) {
        let body = r#"{"error": {"message": "It says 'a text'", "code": "invalid_input"}}"#;
        return Response::builder().status(400).body(body.into()).unwrap();
    }
    let reply = inner.script.lock().unwrap().pop_front().unwrap_or(Reply::Good);
    let data = texts.iter().enumerate().rev();
    let data =
        data.map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)}));
    let mut good = json!({"object": "list", "data": data.collect::<Vec<_>>(), "usage": {"total_tokens": 1}});
    match reply {
        Reply::Good => Response::new(good.to_string().into()),
        Reply::Text(status, (name, value), text) => {
            let mut response = Response::builder().status(status);
            if !name.is_empty() {
                response = response.header(name, value);
            }
            response.body(text.into()).unwrap()
        }
        Reply::Spoilt(spoil) => {
            spoil(&mut good);
            Response::new(good.to_string().into())
        }
        Reply::Long(bytes) => Response::new(" ".repeat(bytes).into()),
        Reply::Cut => {
            let half = good.to_string();
            let half = Bytes::copy_from_slice(&half.as_bytes()[..half.len() / 2]);
            let broken = stream::iter([Ok(half), Err("broken")]);
            Response::new(Body::from_stream(broken))
        }
        Reply::Silent => std::future::pending::<Result<Response, Infallible>>().await.unwrap(),
    }
}
