//! How many streams of events there may be.

use clap::Args;

use crate::config::Range;

/// The limits of streams.
#[derive(Debug, Clone, Args)]
pub struct LiveSettings {
    /// Subscriptions and live queries that are open at most, 1 to 1000000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_STREAMS", default_value_t = 20_000, value_parser = Range(1, 1_000_000), global = true)]
    pub max_streams: u32,

    /// Those of one user, agent or API key at most, 1 to 1000000. Who is nobody in particular is not counted.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_STREAMS_PER_VIEWER", default_value_t = 1_000, value_parser = Range(1, 1_000_000), global = true)]
    pub max_streams_per_viewer: u32,
}
