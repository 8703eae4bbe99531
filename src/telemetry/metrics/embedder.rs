//! What the embedder counts and measures.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, Registry};

use super::{SECONDS, add, buckets, counters};

/// Clones count into the same.
#[derive(Clone)]
pub struct EmbedderMetrics {
    seconds: HistogramVec,
    queries: IntCounterVec,
}

impl EmbedderMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let seconds = buckets("embedding_seconds", "How long embedding took, waiting included.", SECONDS);
        Ok(Self {
            seconds: add(registry, HistogramVec::new(seconds, &["purpose", "outcome"]))?,
            queries: counters(
                registry,
                "query_embeddings_total",
                "Questions, by where their vectors came from.",
                &["source"],
            )?,
        })
    }

    /// Measures one embedding: of a `query`, or of a batch for the `index`.
    pub fn embedded(&self, purpose: &'static str, is_ok: bool, took: Duration) {
        let outcome = if is_ok { "ok" } else { "failed" };
        self.seconds.with_label_values(&[purpose, outcome]).observe(took.as_secs_f64());
    }

    /// Counts a question whose vector comes from `memory`, from `redis`, from another request that asks the same
    /// (`shared`), or from the `model`.
    pub fn found(&self, source: &'static str) {
        self.queries.with_label_values(&[source]).inc();
    }
}
