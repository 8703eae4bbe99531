//! Whether the gateway lives, whether it may be sent requests, and what it has counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::consistency;
use crate::http::graphql::refused;

/// How long a store may take to answer a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer is repeated: anybody may ask, and each check takes a connection of the pool.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// Whether the gateway may be sent requests.
#[derive(Debug, Default)]
pub struct Health {
    stopping: AtomicBool,
    last: Mutex<Option<Checked>>,
}

/// What the stores said.
#[derive(Debug, Clone)]
struct Checked {
    at: Instant,
    ready: bool,
    stores: Value,
}

impl Health {
    /// From now on it is not ready: it stops.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Asks the stores, or repeats what they said a moment ago. Those who ask at the same time share one check.
    async fn check(&self, app: &App) -> Checked {
        let mut last = self.last.lock().await;
        if let Some(known) = last.as_ref().filter(|known| known.at.elapsed() < CHECK_EVERY) {
            return known.clone();
        }
        last.insert(check(app).await).clone()
    }
}

async fn check(app: &App) -> Checked {
    let vectors = async {
        // What is switched off is neither up nor down.
        if app.searcher.vectors.is_on() { Some(time(app.searcher.vectors.count(None)).await) } else { None }
    };
    let ((postgresql, latency_ms), vectors) = tokio::join!(time(app.db.version()), vectors);
    let pool = app.db.pool_state();
    let (vectors, vectors_ms) = vectors.map_or(("off", None), |(status, ms)| (status, Some(ms)));
    let stores = json!({
        "postgresql": {
            "status": postgresql,
            "latency_ms": latency_ms,
            "connections": {"open": pool.open, "idle": pool.idle, "limit": app.config.pool_size},
        },
        "vectors": {
            "status": vectors,
            "latency_ms": vectors_ms,
            "indexed": app.metrics.indexer.rows.get(),
            "pending": app.metrics.indexer.pending.get(),
        },
    });
    Checked { at: Instant::now(), ready: postgresql == "up", stores }
}

/// `up` or `down`, and the milliseconds that it took to say so.
async fn time<T>(call: impl Future<Output = Result<T>>) -> (&'static str, f64) {
    let begun = Instant::now();
    let answer = tokio::time::timeout(CHECK_TIMEOUT, call).await;
    let status = if matches!(answer, Ok(Ok(_))) { "up" } else { "down" };
    (status, (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3)
}

/// `/health/live`: the process answers.
pub async fn live() -> Response {
    ([NO_STORE], Json(json!({"status": "live"}))).into_response()
}

/// `/health/ready`: 200 when requests may be sent here, with each store's state. PostgreSQL has to answer; without
/// the vectors everything but search works.
pub async fn ready(State(app): State<App>) -> Response {
    let checked = app.health.check(&app).await;
    let (code, status) = match (app.health.is_stopping(), checked.ready) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, true) => (StatusCode::OK, "ready"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut response =
        (code, [NO_STORE], Json(json!({"status": status, "stores": checked.stores}))).into_response();
    // What this process has seen committed, for whoever wants another one to have seen as much.
    let token =
        app.changes.reached().and_then(|reached| reached.snapshot.token(&app.cursors).try_into().ok());
    response.headers_mut().extend(token.map(|token| (HeaderName::from_static(consistency::HEADER), token)));
    response
}

/// A proxy that remembers how it was is worse than none.
const NO_STORE: (axum::http::HeaderName, &str) = (CACHE_CONTROL, "no-store");

/// `/metrics`: the metrics in the text format of Prometheus.
pub async fn metrics(State(app): State<App>) -> Response {
    match app.metrics.text() {
        Ok(text) => {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), NO_STORE], text).into_response()
        }
        Err(error) => failed(error),
    }
}

/// `/metrics/json`: the same as JSON.
pub async fn metrics_json(State(app): State<App>) -> Response {
    ([NO_STORE], Json(app.metrics.json())).into_response()
}

fn failed(error: Error) -> Response {
    refused(&axum::http::HeaderMap::new(), StatusCode::INTERNAL_SERVER_ERROR, error)
}
