//! What one request may ask for. A request beyond a limit is refused before anything of it is executed, and told
//! which limit it was.

use std::time::Duration;

use clap::Args;

use crate::config::Range;

/// The limits of one request.
#[derive(Debug, Clone, Args)]
pub struct Limits {
    /// Bytes of a request's body at most, 1024 to 104857600.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_BODY_BYTES", default_value_t = 1_048_576, value_parser = Range(1_024, 104_857_600), global = true)]
    pub max_body_bytes: u32,

    /// Tokens of a document at most, 10 to 100000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_TOKENS", default_value_t = 5_000, value_parser = Range(10, 100_000), global = true)]
    pub max_tokens: u32,

    /// Operations of a document at most, 1 to 1000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_OPERATIONS", default_value_t = 20, value_parser = Range(1, 1_000), global = true)]
    pub max_operations: u32,

    /// Fields inside one another at most, 1 to 60. The introspection of common tools needs 15.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_DEPTH", default_value_t = 20, value_parser = Range(1, 60), global = true)]
    pub max_depth: u32,

    /// Root fields of an operation at most, 1 to 1000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_ROOT_FIELDS", default_value_t = 20, value_parser = Range(1, 1_000), global = true)]
    pub max_root_fields: u32,

    /// Fields of a document at most, those of a fragment counted wherever it is spread, 10 to 20000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_FIELDS", default_value_t = 2_000, value_parser = Range(10, 20_000), global = true)]
    pub max_fields: u32,

    /// Aliases of a document at most, those of a fragment counted wherever it is spread, 0 to 20000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_ALIASES", default_value_t = 100, value_parser = Range(0, 20_000), global = true)]
    pub max_aliases: u32,

    /// Directives of a document at most, those of a fragment counted wherever it is spread, 0 to 20000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_DIRECTIVES", default_value_t = 100, value_parser = Range(0, 20_000), global = true)]
    pub max_directives: u32,

    /// Values that an answer may have at most if every page is full, 100 to 100000000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_COMPLEXITY", default_value_t = 1_000_000, value_parser = Range(100, 100_000_000), global = true)]
    pub max_complexity: u32,

    /// Rows of one page at most, 1 to 10000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_PAGE_SIZE", default_value_t = 200, value_parser = Range(1, 10_000), global = true)]
    pub max_page_size: u32,

    /// Bytes of the variables' JSON at most, 2 to 104857600.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_VARIABLES_BYTES", default_value_t = 262_144, value_parser = Range(2, 104_857_600), global = true)]
    pub max_variables_bytes: u32,

    /// Lists and objects inside one another in the variables at most, 1 to 100.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_VARIABLES_DEPTH", default_value_t = 32, value_parser = Range(1, 100), global = true)]
    pub max_variables_depth: u32,

    /// Errors of one answer at most, 1 to 10000; one more says how many there are.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_ERRORS", default_value_t = 100, value_parser = Range(1, 10_000), global = true)]
    pub max_errors: u32,

    /// How long a request may take in all, in milliseconds, 100 to 600000. Its statements are cancelled then.
    #[arg(long, env = "EVIDENCE_GATEWAY_REQUEST_TIMEOUT_MS", default_value_t = 10_000, value_parser = Range(100, 600_000), global = true)]
    pub request_timeout_ms: u32,
}

impl Limits {
    /// How long a request may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.into())
    }
}
