//! Whether the gateway lives, whether its stores answer, and what it has counted.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;

/// `/health/live`: the process answers.
pub async fn live() -> Response {
    Json(json!({"status": "live"})).into_response()
}

/// `/health/ready`: 200 when PostgreSQL answers, with each store's state.
pub async fn ready(State(app): State<App>) -> Response {
    let begun = Instant::now();
    let alive = app.db.version().await.is_ok();
    let latency_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let (open, idle) = app.db.pool_state();
    let indexed = app.metrics.indexed.load(Ordering::Relaxed);
    let pending = app.metrics.to_index.load(Ordering::Relaxed);
    let state = json!({
        "status": if alive { "ready" } else { "unavailable" },
        "stores": {
            "postgresql": {
                "status": if alive { "up" } else { "down" },
                "latency_ms": latency_ms,
                "connections": {"open": open, "idle": idle, "limit": app.config.pool_size},
            },
            "vectors": {
                "status": if app.searcher.vectors.is_on() { "up" } else { "off" },
                "indexed": indexed,
                "pending": pending,
            },
        },
    });
    let status = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(state)).into_response()
}

/// `/metrics`: the counters in the text format of Prometheus.
pub async fn metrics(State(app): State<App>) -> Response {
    let mut text = String::new();
    let (open, idle) = app.db.pool_state();
    let pool = [
        ("pool_connections", "gauge", "Connections to PostgreSQL.", u64::from(open)),
        ("pool_idle_connections", "gauge", "Connections to PostgreSQL that are idle.", u64::from(idle)),
    ];
    for (name, kind, doc, value) in app.metrics.list().into_iter().chain(pool) {
        let name = format!("evidence_gateway_{name}");
        // Writing to a String cannot fail.
        let written = writeln!(text, "# HELP {name} {doc}\n# TYPE {name} {kind}\n{name} {value}");
        debug_assert!(written.is_ok(), "a String takes any text");
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
