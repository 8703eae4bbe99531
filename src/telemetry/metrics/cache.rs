//! The counters of the response cache.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{add, counter, counters};

/// What the response cache counts. Clones count into the same metrics.
#[derive(Debug, Clone)]
pub struct CacheMetrics {
    /// Answers from memory.
    pub hits_in_memory: IntCounter,
    /// Answers from Redis.
    pub hits_in_redis: IntCounter,
    /// Answers that were stale, and could be.
    pub hits_stale: IntCounter,
    misses: IntCounterVec,
    invalidations: IntCounterVec,
    /// Documents that were run although nobody registered them.
    pub untrusted_documents: IntCounter,
    /// Answers that were kept.
    pub stored: IntCounter,
    /// Answers that were sent as 304.
    pub not_modified: IntCounter,
    /// Requests that waited for another one's answer.
    pub waited: IntCounter,
    /// Answers that were made anew before anyone missed them.
    pub refreshed: IntCounter,
    /// Documents that were parsed.
    pub parsed: IntCounter,
    /// Operations that were validated.
    pub validated: IntCounter,
    /// Answers that were pushed out of the memory.
    pub evicted: IntCounter,
}

impl CacheMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, label: &str| {
            counters(registry, &format!("cache_{name}"), help, &[label])
        };
        let plain = |name: &str, help: &str| add(registry, counter(name, help));
        let counter = |name: &str, help: &str| plain(&format!("cache_{name}"), help);
        let documents = |name: &str, help: &str| plain(&format!("documents_{name}"), help);
        let untrusted = "Documents run that nobody registered, where registered ones are preferred.";
        let hits = counters("hits_total", "Answers from the cache.", "tier")?;
        Ok(Self {
            untrusted_documents: plain("untrusted_documents_total", untrusted)?,
            hits_in_memory: hits.with_label_values(&["memory"]),
            hits_in_redis: hits.with_label_values(&["redis"]),
            hits_stale: hits.with_label_values(&["stale"]),
            misses: counters("misses_total", "Queries that the cache did not answer.", "reason")?,
            invalidations: counters(
                "invalidations_total",
                "Answers found out of date, by what touched them.",
                "by",
            )?,
            stored: counter("stored_total", "Answers kept.")?,
            not_modified: counter("not_modified_total", "Answers that the client had already.")?,
            waited: counter("waited_total", "Requests that waited for another one's answer.")?,
            refreshed: counter("refreshed_total", "Answers made anew before anyone missed them.")?,
            parsed: documents("parsed_total", "Good documents parsed; those that are known are not.")?,
            validated: documents("validated_total", "Operations validated; those that are known are not.")?,
            evicted: counter("evictions_total", "Answers pushed out of the memory by others.")?,
        })
    }

    /// Counts a query that was executed, and why.
    pub fn missed(&self, reason: &'static str) {
        self.misses.with_label_values(&[reason]).inc();
    }

    /// Counts an answer that was found out of date, by the table that touched it.
    pub fn invalidated(&self, by: &str) {
        self.invalidations.with_label_values(&[by]).inc();
    }
}
