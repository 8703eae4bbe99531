//! What is counted of the vector index and of the indexer.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Registry};

use super::{add, counters, gauge, opts};

/// Clones count into the same values.
#[derive(Clone)]
pub struct IndexerMetrics {
    /// Whether this process keeps the index: 1 in one process of all that share it.
    pub active: IntGauge,
    /// Rows that the index has.
    pub rows: IntGauge,
    /// Rows that were found to be missing or old, and are not written yet.
    pub pending: IntGauge,
    /// Changes of searched rows that the log has and the index has not, about.
    pub lag_changes: IntGauge,
    /// Seconds since the oldest of them that is known.
    pub lag: Gauge,
    /// Rows that the embedder does not take.
    pub parked: IntGauge,
    /// Times that a store or the embedder failed and the indexer waited.
    pub failures: IntCounter,
    written: IntCounterVec,
}

impl IndexerMetrics {
    pub(super) fn register(all: &Registry) -> prometheus::Result<Self> {
        let lag = opts("indexer_lag_seconds", "Age of the oldest change that is not in the index.");
        let written = "Rows written to the index, by what it took.";
        let failures = opts("indexer_failures_total", "Times that the indexer had to wait and try again.");
        let count = |name, help| add(all, gauge(name, help));
        Ok(Self {
            active: count("indexer_active", "Whether this process keeps the vector index.")?,
            rows: count("index_rows", "Rows in the vector index.")?,
            pending: count("index_pending_rows", "Rows still to be indexed.")?,
            lag_changes: count("indexer_lag_changes", "Changes of searched rows that are not in the index.")?,
            lag: add(all, Gauge::with_opts(lag))?,
            parked: count("index_parked_rows", "Rows that the embedder does not take.")?,
            failures: add(all, IntCounter::with_opts(failures))?,
            written: counters(all, "indexer_rows_total", written, &["kind"])?,
        })
    }

    /// Counts rows: `embedded`, `reused` (their text had not changed) or `deleted`.
    pub fn wrote(&self, kind: &'static str, rows: usize) {
        self.written.with_label_values(&[kind]).inc_by(u64::try_from(rows).unwrap_or_default());
    }
}
