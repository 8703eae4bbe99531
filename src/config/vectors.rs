//! Where the vector index is: in a folder, or on a Qdrant server or cluster.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{Range, Secret, read_choice};

/// The settings of the vector index. All but the first say how the index on a Qdrant server is made and asked; those
/// that shape it take effect when it is made, so `reindex` after a change.
#[derive(Debug, Clone, Args)]
pub struct VectorSettings {
    /// A Qdrant server, version 1.16 or later, as http://host:6334: its gRPC port. Without it the index is in the data
    /// directory.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_URL", value_parser = read_url, global = true)]
    pub qdrant_url: Option<String>,

    /// The key that the Qdrant server asks for. Send it over https only.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_API_KEY", hide_env_values = true, global = true)]
    pub qdrant_api_key: Option<Secret>,

    /// The name of the index on the Qdrant server: an alias of the collection NAME-1, NAME-2 and so on.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_COLLECTION", default_value = "evidence", value_parser = read_name, global = true)]
    pub qdrant_collection: String,

    /// Into how many shards the collection is divided, 1 to 256: as many as there are nodes, or a multiple.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_SHARDS", default_value_t = 1, value_parser = Range(1, 256), global = true)]
    pub qdrant_shards: u32,

    /// On how many nodes each shard is kept, 1 to 16.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_REPLICATION_FACTOR", default_value_t = 1, value_parser = Range(1, 16), global = true)]
    pub qdrant_replication_factor: u32,

    /// How vectors are made smaller in memory: none, scalar (a quarter) or binary (a 32nd, for 1024 dimensions or more).
    /// Hits are scored by the full vectors in any case.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_QUANTIZATION", default_value = "none", value_parser = read_choice::<Quantization>, global = true)]
    pub qdrant_quantization: Quantization,

    /// Whether full vectors are left on disk instead of in memory: true or false.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_ON_DISK", default_value_t = false, action = clap::ArgAction::Set, global = true)]
    pub qdrant_on_disk: bool,

    /// How long a question to the Qdrant server may take with all repetitions, in milliseconds, 50 to 60000.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_TIMEOUT_MS", default_value_t = 3_000, value_parser = Range(50, 60_000), global = true)]
    pub qdrant_timeout_ms: u32,

    /// How long a write to the Qdrant server may take with all repetitions, in milliseconds, 50 to 600000.
    #[arg(long, env = "EVIDENCE_GATEWAY_QDRANT_WRITE_TIMEOUT_MS", default_value_t = 30_000, value_parser = Range(50, 600_000), global = true)]
    pub qdrant_write_timeout_ms: u32,
}

/// How vectors are made smaller in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantization {
    /// Not at all.
    None,
    /// A byte for each number.
    Scalar,
    /// A bit for each number.
    Binary,
}

impl VectorSettings {
    /// How long a question may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.qdrant_timeout_ms.into())
    }

    /// How long a write may take.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.qdrant_write_timeout_ms.into())
    }
}

fn read_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if host.is_empty() || !host.chars().all(allowed) {
        return Err("allowed is an address such as http://127.0.0.1:6334, without a path".to_owned());
    }
    Ok(text.to_owned())
}

fn read_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.len() > 100 || !text.chars().all(allowed) {
        return Err("allowed are letters, digits, - and _".to_owned());
    }
    Ok(text.to_owned())
}
