//! What turns text into vectors, and how a remote one is asked.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{Range, Secret, missing, read_choice};
use crate::error::Result;

/// The embedder.
#[derive(Debug, Clone, Args)]
pub struct Embedding {
    /// What turns text into vectors.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER", default_value = "minilm", value_parser = read_choice::<EmbedderKind>, global = true)]
    pub embedder: EmbedderKind,

    /// For the embedder http: the API's base, such as `https://api.openai.com/v1`; texts go to its /embeddings.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER_URL", hide_env_values = true, value_parser = read_base, global = true)]
    pub embedder_url: Option<String>,

    /// For the embedder http: its key, if it wants one.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER_KEY", hide_env_values = true, value_parser = read_key, global = true)]
    pub embedder_key: Option<Secret>,

    /// For the embedder http: the model's name, such as text-embedding-3-small.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER_MODEL", value_parser = read_model, global = true)]
    pub embedder_model: Option<String>,

    /// For the embedder http: how many numbers a vector has, 1 to 65536, which the endpoint is told. Without it the
    /// endpoint is asked when the gateway starts, and has to answer then.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER_DIMENSIONS", value_parser = Range(1, 65_536), global = true)]
    pub embedder_dimensions: Option<u32>,

    /// For the embedder http: texts of one request at most, 1 to 2048.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER_BATCH", default_value_t = 32, value_parser = Range(1, 2_048), global = true)]
    pub embedder_batch: u32,

    /// For the embedder http: how long one batch or question may take, repetitions included, in milliseconds, 100 to
    /// 600000.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER_TIMEOUT_MS", default_value_t = 5_000, value_parser = Range(100, 600_000), global = true)]
    pub embedder_timeout_ms: u32,

    /// Questions that wait for the embedder or are being embedded at most, 1 to 100000; one more is told UNAVAILABLE.
    #[arg(long, env = "EVIDENCE_GATEWAY_EMBEDDER_QUEUE", default_value_t = 256, value_parser = Range(1, 100_000), global = true)]
    pub embedder_queue: u32,
}

/// What turns text into vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmbedderKind {
    /// all-MiniLM-L6-v2 inside the process, 384 dimensions.
    Minilm,
    /// An endpoint that speaks OpenAI's API.
    Http,
    /// Nothing: semantic search answers UNAVAILABLE.
    Off,
}

impl Embedding {
    /// The base of the endpoint, without a slash at its end.
    pub fn required_url(&self) -> Result<&str> {
        let url = self.embedder_url.as_deref();
        url.ok_or_else(|| missing("--embedder-url", "EVIDENCE_GATEWAY_EMBEDDER_URL"))
    }

    /// The name of the endpoint's model.
    pub fn required_model(&self) -> Result<&str> {
        let model = self.embedder_model.as_deref();
        model.ok_or_else(|| missing("--embedder-model", "EVIDENCE_GATEWAY_EMBEDDER_MODEL"))
    }

    /// How long one batch or question may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.embedder_timeout_ms.into())
    }
}

fn read_base(text: &str) -> std::result::Result<String, String> {
    let base = reqwest::Url::parse(text).ok().filter(|url| {
        // What stands in an address is shown to operators; secrets belong into the key.
        let plain = url.username().is_empty() && url.password().is_none();
        let whole = url.query().is_none() && url.fragment().is_none();
        ["http", "https"].contains(&url.scheme()) && url.has_host() && plain && whole
    });
    let base =
        base.ok_or("allowed is an address such as https://api.openai.com/v1, without user, ? and #")?;
    Ok(base.as_str().trim_end_matches('/').to_owned())
}

fn read_key(text: &str) -> std::result::Result<Secret, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("allowed are visible characters of ASCII, without spaces".to_owned());
    }
    Ok(Secret(text.to_owned()))
}

/// Bytes of a model's name at most: it is part of the keys in Redis.
const MAX_MODEL: usize = 200;

fn read_model(text: &str) -> std::result::Result<String, String> {
    if text.is_empty()
        || text.len() > MAX_MODEL
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(format!("allowed are 1 to {MAX_MODEL} bytes without spaces"));
    }
    Ok(text.to_owned())
}
