//! The settings. One documented struct, checked when it is read: a flag and an environment variable of the same
//! name for each (`--listen` is `EVIDENCE_GATEWAY_LISTEN`). Nothing else reads the environment.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::{Error, Result};

pub use embedder::{EmbedderKind, Embedding};
pub use limits::Limits;
pub use live::LiveSettings;
pub use sockets::SocketSettings;
pub use vectors::{Quantization, VectorSettings};

mod embedder;
mod limits;
mod live;
mod sockets;
mod vectors;

/// Everything that can be set.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Where to serve: an address and a port; port 0 takes a free one.
    #[arg(long, env = "EVIDENCE_GATEWAY_LISTEN", default_value = "127.0.0.1:8080", value_parser = read_address, global = true)]
    pub listen: SocketAddr,

    /// PostgreSQL, as postgres://user:password@host:port/database. `dev` brings its own.
    #[arg(long, env = "EVIDENCE_GATEWAY_DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<Secret>,

    /// The folder for what the gateway keeps itself: the vector index, the model, the database of `dev`.
    #[arg(long, env = "EVIDENCE_GATEWAY_DATA_DIR", default_value = ".evidence-gateway", global = true)]
    pub data_dir: PathBuf,

    /// The secret that signs access tokens and cursors, 32 characters at least. `serve` needs it.
    #[arg(long, env = "EVIDENCE_GATEWAY_TOKEN_SECRET", hide_env_values = true, value_parser = read_token_secret, global = true)]
    pub token_secret: Option<Secret>,

    /// The secret before the present one: tokens that it signed stay good, and it signs no more.
    #[arg(long, env = "EVIDENCE_GATEWAY_TOKEN_PREVIOUS_SECRET", hide_env_values = true, value_parser = read_token_secret, global = true)]
    pub token_previous_secret: Option<Secret>,

    /// How long an API key or a user is believed without asking PostgreSQL again, in milliseconds, 0 to 10000.
    #[arg(long, env = "EVIDENCE_GATEWAY_IDENTITY_CACHE_MS", default_value_t = 2_000, value_parser = Range(0, 10_000), global = true)]
    pub identity_cache_ms: u32,

    /// Connections to PostgreSQL at most, 1 to 500.
    #[arg(long, env = "EVIDENCE_GATEWAY_POOL_SIZE", default_value_t = 16, value_parser = Range(1, 500), global = true)]
    pub pool_size: u32,

    /// How long a request waits for a free connection, in milliseconds, 10 to 60000.
    #[arg(long, env = "EVIDENCE_GATEWAY_POOL_WAIT_MS", default_value_t = 2_000, value_parser = Range(10, 60_000), global = true)]
    pub pool_wait_ms: u32,

    /// How often the change log is looked at while nothing happens, in milliseconds, 1 to 1000: what other programs
    /// write is noticed after half of it. The gateway's own writes are noticed at once.
    #[arg(long, env = "EVIDENCE_GATEWAY_CHANGE_POLL_MS", default_value_t = 40, value_parser = Range(1, 1_000), global = true)]
    pub change_poll_ms: u32,

    /// How long the change log keeps changes, in seconds, 60 to 31536000: who was away for longer gets CURSOR_EXPIRED.
    #[arg(long, env = "EVIDENCE_GATEWAY_CHANGE_LOG_RETENTION_S", default_value_t = 172_800, value_parser = Range(60, 31_536_000), global = true)]
    pub change_log_retention_s: u32,

    /// Redis, as redis://user:password@host:port/database, with rediss:// for TLS, or several addresses of one cluster
    /// with commas between them; without it every process of several finds out for itself what the others write and
    /// what questions mean.
    #[arg(long, env = "EVIDENCE_GATEWAY_REDIS_URL", hide_env_values = true, global = true)]
    pub redis_url: Option<Secret>,

    /// Bytes of memory for cached answers, 0 (no cache) to 4294967295.
    #[arg(long, env = "EVIDENCE_GATEWAY_CACHE_BYTES", default_value_t = 134_217_728, value_parser = Range(0, u32::MAX), global = true)]
    pub cache_bytes: u32,

    /// How stale a cached answer may be at most, in milliseconds, 1 to 60000: when the change log was not read for longer,
    /// nothing is answered from the cache.
    #[arg(long, env = "EVIDENCE_GATEWAY_CACHE_STALENESS_MS", default_value_t = 100, value_parser = Range(1, 60_000), global = true)]
    pub cache_staleness_ms: u32,

    /// How long an answer is kept at most although nothing has changed, in seconds, 1 to 86400.
    #[arg(long, env = "EVIDENCE_GATEWAY_CACHE_TTL_S", default_value_t = 300, value_parser = Range(1, 86_400), global = true)]
    pub cache_ttl_s: u32,

    /// Which documents may be run: open (any), trusted-preferred (any, and those that nobody registered are counted) or
    /// trusted-only (registered ones). By role, as in `viewer=trusted-only,agent=trusted-preferred`; or one for all.
    #[arg(long, env = "EVIDENCE_GATEWAY_DOCUMENT_MODES", default_value = "open", value_parser = read_modes, global = true)]
    pub document_modes: DocumentModes,

    /// Takes every cached answer for fresh. It exists to see that the consistency checker notices.
    #[arg(long, hide = true, global = true)]
    pub cache_trust_everything: bool,

    /// How long a request waits until this process has seen what its consistency token stands for, in milliseconds,
    /// 10 to 60000; then it is told UNAVAILABLE. A mutation waits as long for its own changes.
    #[arg(long, env = "EVIDENCE_GATEWAY_CONSISTENCY_WAIT_MS", default_value_t = 2_000, value_parser = Range(10, 60_000), global = true)]
    pub consistency_wait_ms: u32,

    /// What one request may ask for.
    #[command(flatten)]
    pub limits: Limits,

    /// How many streams of events there may be.
    #[command(flatten)]
    pub live: LiveSettings,

    /// Connections of clients at most, 1 to 100000. With the next setting it bounds what they can make the gateway hold.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_CONNECTIONS", default_value_t = 1_024, value_parser = Range(1, 100_000), global = true)]
    pub max_connections: u32,

    /// Bytes of a request's head at most, 8192 to 16777216. A token of 1 MiB fits into the default.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_HEADER_BYTES", default_value_t = 1_114_112, value_parser = Range(8_192, 16_777_216), global = true)]
    pub max_header_bytes: u32,

    /// How long a client may take to send the head of a request, in milliseconds, 100 to 600000.
    #[arg(long, env = "EVIDENCE_GATEWAY_HEADER_TIMEOUT_MS", default_value_t = 10_000, value_parser = Range(100, 600_000), global = true)]
    pub header_timeout_ms: u32,

    /// How long a client may take to send the body of a request, in milliseconds, 100 to 600000.
    #[arg(long, env = "EVIDENCE_GATEWAY_BODY_TIMEOUT_MS", default_value_t = 30_000, value_parser = Range(100, 600_000), global = true)]
    pub body_timeout_ms: u32,

    /// How long a connection may lie idle, in milliseconds, 100 to 3600000: longer than a proxy in front keeps its own.
    #[arg(long, env = "EVIDENCE_GATEWAY_IDLE_TIMEOUT_MS", default_value_t = 75_000, value_parser = Range(100, 3_600_000), global = true)]
    pub idle_timeout_ms: u32,

    /// Connections that stay.
    #[command(flatten)]
    pub sockets: SocketSettings,

    /// Whose pages may ask from a browser: origins such as `https://app.example`, separated by commas, or * for all.
    #[arg(long, env = "EVIDENCE_GATEWAY_CORS_ORIGINS", default_value = "", hide_default_value = true, value_parser = read_origins, global = true)]
    pub cors_origins: Origins,

    /// How long running requests may take to finish after SIGTERM, in milliseconds, 0 to 600000.
    #[arg(long, env = "EVIDENCE_GATEWAY_GRACE_MS", default_value_t = 10_000, value_parser = Range(0, 600_000), global = true)]
    pub grace_ms: u32,

    /// What turns text into vectors.
    #[command(flatten)]
    pub embedding: Embedding,

    /// Where the vector index is.
    #[command(flatten)]
    pub vectors: VectorSettings,

    /// What is logged: a level (error, warn, info, debug, trace) or a filter as in `info,evidence_gateway=debug`.
    #[arg(long, env = "EVIDENCE_GATEWAY_LOG", default_value = "info", global = true)]
    pub log: String,

    /// How it is logged: as text for people or as a JSON object per line.
    #[arg(long, env = "EVIDENCE_GATEWAY_LOG_FORMAT", default_value = "text", value_parser = read_choice::<LogFormat>, global = true)]
    pub log_format: LogFormat,
}

/// How the pool is sized and bounded.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// Connections at most.
    pub pool_size: u32,
    /// How long a request waits for a free connection before it is told `UNAVAILABLE`.
    pub pool_wait: Duration,
    /// After this long PostgreSQL itself cancels a statement.
    pub statement_timeout: Duration,
}

/// Which documents may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DocumentMode {
    /// Any.
    Open,
    /// Any; those that nobody registered are counted.
    TrustedPreferred,
    /// Those that an operator registered.
    TrustedOnly,
}

/// Which documents may be run, by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentModes(Vec<(&'static str, DocumentMode)>);

/// The roles, as credentials spell them.
const ROLES: [&str; 4] = ["viewer", "analyst", "agent", "admin"];

impl DocumentModes {
    /// The mode of a role.
    pub fn of(&self, role: &str) -> DocumentMode {
        self.0.iter().find(|(known, _)| *known == role).map_or(DocumentMode::Open, |(_, mode)| *mode)
    }
}

fn read_modes(text: &str) -> std::result::Result<DocumentModes, String> {
    let mut modes = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (named, mode) = part.split_once('=').map_or((None, part), |(role, mode)| (Some(role), mode));
        let mode = read_choice::<DocumentMode>(mode)?;
        let roles = ROLES.into_iter().filter(|role| named.is_none_or(|named| named == *role));
        let before = modes.len();
        modes.extend(roles.map(|role| (role, mode)));
        if modes.len() == before {
            return Err(format!("allowed is a mode for one of {}", ROLES.join(", ")));
        }
    }
    Ok(DocumentModes(modes))
}

/// How the response cache is bounded.
#[derive(Debug, Clone, Copy)]
pub struct CacheBounds {
    /// Bytes of all answers in memory; 0 switches the cache off.
    pub bytes: u64,
    /// The tail of the change log must have heard from PostgreSQL within this time.
    pub staleness: Duration,
    /// No answer lives longer.
    pub lifetime: Duration,
    /// Do not look whether anything has changed. For the consistency checker, which must notice.
    pub trust_everything: bool,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object per line.
    Json,
}

/// The web origins whose pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Every origin.
    Any,
    /// These, each as a browser writes it; none is closed.
    Only(Vec<String>),
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Characters of a token secret at least: 256 bits, if they are random hexadecimal digits twice that.
const MIN_TOKEN_SECRET: usize = 32;

fn read_token_secret(text: &str) -> std::result::Result<Secret, String> {
    if text.chars().count() < MIN_TOKEN_SECRET {
        return Err(format!("allowed are {MIN_TOKEN_SECRET} characters or more"));
    }
    Ok(Secret(text.to_owned()))
}

fn read_address(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "allowed is an address with a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

fn read_origins(text: &str) -> std::result::Result<Origins, String> {
    if text.trim() == "*" {
        return Ok(Origins::Any);
    }
    // Browsers compare letter by letter: what cannot be an origin would be closed in silence.
    let is_origin = |text: &&str| {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
        !host.is_empty() && host.bytes().all(allowed)
    };
    let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    let origins: Vec<&str> = origins.collect();
    if origins.iter().all(is_origin) {
        return Ok(Origins::Only(origins.into_iter().map(str::to_owned).collect()));
    }
    Err("allowed are * or origins such as https://app.example, in lower case and without a path".to_owned())
}

fn read_choice<T: ValueEnum>(text: &str) -> std::result::Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        format!("allowed is one of {}", names.join(", "))
    })
}

/// A whole number between two others.
#[derive(Clone)]
pub(super) struct Range(u32, u32);

impl clap::builder::TypedValueParser for Range {
    type Value = u32;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> std::result::Result<u32, clap::Error> {
        let (least, most) = (self.0, self.1);
        let check = move |text: &str| {
            let number = text.parse().ok().filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| format!("allowed is a whole number from {least} to {most}"))
        };
        clap::builder::TypedValueParser::parse_ref(&check, command, arg, value)
    }
}

impl Config {
    /// The database's address, which every command but `dev` needs.
    pub fn required_database_url(&self) -> Result<&str> {
        let url = self.database_url.as_ref().map(Secret::expose);
        url.ok_or_else(|| missing("--database-url", "EVIDENCE_GATEWAY_DATABASE_URL"))
    }

    /// The secret of tokens, without which nobody can be let in.
    pub fn required_token_secret(&self) -> Result<&Secret> {
        self.token_secret.as_ref().ok_or_else(|| missing("--token-secret", "EVIDENCE_GATEWAY_TOKEN_SECRET"))
    }

    /// The pool's settings.
    pub fn db_options(&self) -> DbOptions {
        DbOptions {
            pool_size: self.pool_size,
            pool_wait: Duration::from_millis(self.pool_wait_ms.into()),
            statement_timeout: self.limits.request_timeout(),
        }
    }

    /// How long what was looked up of an API key or a user is believed.
    pub fn identity_lifetime(&self) -> Duration {
        Duration::from_millis(self.identity_cache_ms.into())
    }

    /// Between two looks at the change log while nothing happens.
    pub fn change_poll(&self) -> Duration {
        Duration::from_millis(self.change_poll_ms.into())
    }

    /// How long a request waits for its consistency token.
    pub fn consistency_wait(&self) -> Duration {
        Duration::from_millis(self.consistency_wait_ms.into())
    }

    /// How the response cache is bounded.
    pub fn cache_bounds(&self) -> CacheBounds {
        CacheBounds {
            bytes: self.cache_bytes.into(),
            staleness: Duration::from_millis(self.cache_staleness_ms.into()),
            lifetime: Duration::from_secs(self.cache_ttl_s.into()),
            trust_everything: self.cache_trust_everything,
        }
    }

    /// How long the change log keeps changes.
    pub fn change_log_retention(&self) -> Duration {
        Duration::from_secs(self.change_log_retention_s.into())
    }

    /// How long running requests may take to finish.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms.into())
    }

    /// How long the head of a request may take.
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms.into())
    }

    /// How long the body of a request may take.
    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms.into())
    }

    /// How long a connection may lie idle.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms.into())
    }

    /// Where the embedder's files are.
    pub fn model_dir(&self) -> PathBuf {
        self.data_dir.join("models").join("all-MiniLM-L6-v2")
    }

    /// Where the vector index is.
    pub fn vectors_dir(&self) -> PathBuf {
        self.data_dir.join("vectors")
    }
}

fn missing(flag: &str, variable: &str) -> Error {
    Error::bad_input(format!("{flag} ({variable})"), "is missing; this command needs it")
}
