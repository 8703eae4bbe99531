//! What is counted of streams: how many are open, who is behind, what is told.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

use crate::telemetry::metrics::{add, gauge, opts};

/// The counts of streams. Clones count into the same values.
#[derive(Clone)]
pub struct LiveMetrics {
    /// Tasks that make events, each for all who want the same.
    pub feeds: IntGauge,
    /// Events that were handed to clients' connections.
    pub events: IntCounter,
    behind: IntGauge,
    open: IntGaugeVec,
}

impl LiveMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let open = opts("streams_open", "Streams of clients.");
        let events = opts("stream_events_total", "Events handed to the connections of clients.");
        let behind = "Streams that read the change log until they have caught up with their feed.";
        Ok(Self {
            feeds: add(registry, gauge("stream_feeds", "Feeds, each for all who want the same."))?,
            events: add(registry, IntCounter::with_opts(events))?,
            behind: add(registry, gauge("streams_behind", behind))?,
            open: add(registry, IntGaugeVec::new(open, &["kind"]))?,
        })
    }

    /// Counts one more stream of a kind, until this is dropped.
    pub fn opened(&self, kind: &'static str) -> Counted {
        Counted::new(self.open.with_label_values(&[kind]))
    }

    /// Counts one more stream that is behind, until this is dropped.
    pub fn behind(&self) -> Counted {
        Counted::new(self.behind.clone())
    }
}

/// Something that is counted while it lasts.
pub struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
