//! Errors in two halves: what a client may read (a code and a safe text) and what only the log may see.
//!
//! `Display` prints the safe half only, so that a careless `?` or `format!` can never publish the other one.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The result of everything that can fail in the gateway.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The stable codes of `extensions.code`. Clients program against them: never rename one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No document has this hash, or nobody has sent it yet: send it with its hash.
    PersistedQueryNotFound,
    /// A version of persisted queries that is not understood.
    PersistedQueryNotSupported,
    /// The row does not exist, or the viewer may not know that it does.
    NotFound,
    /// The viewer is known and may not do this.
    Forbidden,
    /// Nobody, or nobody we know, is asking.
    Unauthenticated,
    /// The request itself is wrong; `extensions.field` names the part.
    BadUserInput,
    /// The request contradicts the present state of the row.
    Conflict,
    /// A resume cursor is older than the change log.
    CursorExpired,
    /// Too many requests.
    RateLimited,
    /// A store does not answer; the same request may succeed later.
    Unavailable,
    /// The request took longer than its limit.
    Timeout,
    /// A fault of the gateway. The text says nothing; the log says all.
    Internal,
}

impl Code {
    /// The spelling that clients see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PersistedQueryNotFound => "PERSISTED_QUERY_NOT_FOUND",
            Self::PersistedQueryNotSupported => "PERSISTED_QUERY_NOT_SUPPORTED",
            Self::NotFound => "NOT_FOUND",
            Self::Forbidden => "FORBIDDEN",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::Conflict => "CONFLICT",
            Self::CursorExpired => "CURSOR_EXPIRED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Timeout => "TIMEOUT",
            Self::Internal => "INTERNAL",
        }
    }
}

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// One failure. Cheap to clone, because a batch hands the same failure to each of its keys.
#[derive(Clone)]
pub struct Error {
    code: Code,
    message: Cow<'static, str>,
    field: Option<String>,
    limit: Option<&'static str>,
    cause: Option<Cause>,
}

impl Error {
    /// A failure with a text that is safe to show to anybody.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), field: None, limit: None, cause: None }
    }

    /// The client's own mistake, in the part of the request that `field` names (a path such as `filter.priority.gte`).
    pub fn bad_input(field: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Code::BadUserInput, message) }
    }

    /// A request beyond a limit, which `limit` names as the settings do (`max_depth`).
    pub fn over_limit(limit: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { limit: Some(limit), ..Self::new(Code::BadUserInput, message) }
    }

    /// A store that does not answer.
    pub fn unavailable(
        store: &'static str,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(Code::Unavailable, format!("{store} is not available; try again later")).because(cause)
    }

    /// A fault of our own. The client reads one fixed sentence.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "internal error; the log of the server has the details").because(cause)
    }

    /// Adds the part of the request that it is about.
    pub fn at(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// Adds the internal half: what the log shows and a client never sees.
    pub fn because(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: Some(Arc::from(cause.into())), ..self }
    }

    /// The stable code.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The text that is safe to show.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The part of the request that is wrong, when one part is.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The limit that the request is beyond, when it is beyond one.
    pub const fn limit(&self) -> Option<&'static str> {
        self.limit
    }

    /// The internal half, for the log and for the operator's terminal only: each cause after the other.
    pub fn internal_text(&self) -> Option<String> {
        let mut cause: &dyn std::error::Error = self.cause.as_deref()?;
        let mut text = cause.to_string();
        while let Some(next) = cause.source() {
            text.push_str(": ");
            text.push_str(&next.to_string());
            cause = next;
        }
        Some(text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)?;
        self.internal_text().map_or(Ok(()), |text| write!(f, " ({text})"))
    }
}

impl std::error::Error for Error {}
