//! What the gateway says of itself: logs on stderr, and metrics in memory.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::error::{Error, Result};

mod metrics;

pub use metrics::{Behind, CacheMetrics, ChangeMetrics, IndexerMetrics, Kind, Metrics, Operation};

/// Starts logging to stderr; stdout is for data.
pub fn start(filter: &str, format: LogFormat) -> Result<()> {
    // The vector engine has no use for its warnings here; whoever wants them names it in the filter.
    let quiet = format!("qdrant_edge=error,{filter}");
    let filter = EnvFilter::try_new(quiet).map_err(|_| {
        Error::bad_input("--log (EVIDENCE_GATEWAY_LOG)", "is no level (such as info) and no filter")
    })?;
    // Colours are for a terminal; in a file they would be in the way of every search.
    let colours = std::io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        // The span is the request: its id stands in every line that belongs to it.
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).try_init(),
    };
    // One line of the log like any other, and no stack: what panics is caught and answered elsewhere.
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        let cause = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let (file, line) = panic.location().map(|at| (at.file(), at.line())).unzip();
        tracing::error!(cause, file, line, "a thread panicked");
    }));
    // A second start in one process (tests) keeps the first logger.
    started.or(Ok(()))
}
