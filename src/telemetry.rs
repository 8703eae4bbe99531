//! What the gateway says of itself: logs on stderr, counters in memory.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// GraphQL requests answered.
    pub requests: AtomicU64,
    /// Of those, the ones with an error in the answer.
    pub failed_requests: AtomicU64,
    /// Statements sent to PostgreSQL by them.
    pub statements: AtomicU64,
    /// Rows of evidence that the index has.
    pub indexed: AtomicU64,
    /// Rows of evidence still to be indexed in this pass.
    pub to_index: AtomicU64,
}

impl Metrics {
    /// Counts one answered request.
    pub fn count_request(&self, failed: bool, statements: u32) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failed_requests.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.statements.fetch_add(statements.into(), Ordering::Relaxed);
    }

    /// Each counter's name, kind, description and value.
    pub fn list(&self) -> [(&'static str, &'static str, &'static str, u64); 5] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("requests_total", "counter", "GraphQL requests answered.", value(&self.requests)),
            (
                "failed_requests_total",
                "counter",
                "GraphQL requests answered with an error.",
                value(&self.failed_requests),
            ),
            (
                "statements_total",
                "counter",
                "Statements sent to PostgreSQL for requests.",
                value(&self.statements),
            ),
            ("index_rows", "gauge", "Rows of evidence in the vector index.", value(&self.indexed)),
            ("index_pending_rows", "gauge", "Rows of evidence still to be indexed.", value(&self.to_index)),
        ]
    }
}

/// Starts logging to stderr; stdout is for data.
pub fn start(filter: &str) -> Result<()> {
    // The vector engine has no use for its warnings here; whoever wants them names it in the filter.
    let quiet = format!("qdrant_edge=error,{filter}");
    let filter = EnvFilter::try_new(quiet).map_err(|_| {
        Error::bad_input("--log (EVIDENCE_GATEWAY_LOG)", "is no level (such as info) and no filter")
    })?;
    let started =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first logger.
    started.try_init().or(Ok(()))
}
