//! What is counted of the change log: what the tail passes on, who is behind, what is pruned.

use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use crate::telemetry::metrics::{add, buckets, gauge, opts};

/// From a look every few milliseconds to a transaction of an hour.
const AGES: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3_600.0];

/// The counts of the tail and its consumers. Clones count into the same values.
#[derive(Clone)]
pub struct ChangeMetrics {
    batches: IntCounter,
    changes: IntCounter,
    ages: Histogram,
    behind: IntGauge,
    pruned: IntCounter,
}

impl ChangeMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help)));
        Ok(Self {
            batches: counter("change_log_batches_total", "Batches of changes that the tail passed on.")?,
            changes: counter("change_log_changes_total", "Changes that the tail passed on.")?,
            ages: add(
                registry,
                Histogram::with_opts(buckets(
                    "change_log_age_seconds",
                    "From the begin of the statement that made a change until the tail passed it on.",
                    AGES,
                )),
            )?,
            behind: add(
                registry,
                gauge("change_log_readers_behind", "Consumers that read the log until they have caught up."),
            )?,
            pruned: counter("change_log_pruned_total", "Changes that this process has pruned.")?,
        })
    }

    /// Counts a batch that is passed on now, by when its changes were made.
    pub fn passed_on(&self, made: impl Iterator<Item = DateTime<Utc>>) {
        let now = Utc::now();
        self.batches.inc();
        for at in made {
            self.changes.inc();
            // The database's clock may be ahead of ours.
            self.ages.observe((now - at).to_std().unwrap_or(Duration::ZERO).as_secs_f64());
        }
    }

    /// Counts changes that were pruned.
    pub fn pruned(&self, count: u64) {
        self.pruned.inc_by(count);
    }

    /// Counts one consumer more that is behind, until this is dropped.
    pub fn behind(&self) -> Behind {
        self.behind.inc();
        Behind(self.behind.clone())
    }
}

/// A consumer that is behind.
pub struct Behind(IntGauge);

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.dec();
    }
}
