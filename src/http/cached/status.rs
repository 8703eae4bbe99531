//! What became of a request in the cache, as the header Cache-Status tells it (RFC 9211).

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::cache::Miss;

/// What the header is called.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What became of a request in the cache.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) enum Status {
    /// From memory.
    Hit,
    /// From another process.
    Shared,
    /// What another request executed at the same time.
    Collapsed,
    /// It does not hold any more, and the client said that it may be so.
    Stale,
    /// It holds and has become old; it is being made anew.
    Revalidating,
    /// It may not hold any more, and nothing newer can be had; such answers may be shown then.
    StaleIfError,
    /// It was executed, and kept or not.
    Executed(Miss, bool),
    /// The cache is off, or has no part in such operations.
    None,
}

impl Status {
    pub(in crate::http) fn add_to(self, headers: &mut HeaderMap) {
        let value = match self.text() {
            Cow::Borrowed("") => return,
            Cow::Borrowed(text) => HeaderValue::from_static(text),
            Cow::Owned(text) => {
                HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("evidence-gateway"))
            }
        };
        headers.insert(CACHE_STATUS, value);
    }

    /// As RFC 9211 has it; empty if there is nothing to be said.
    pub(super) fn text(self) -> Cow<'static, str> {
        match self {
            Self::None => "".into(),
            Self::Hit => "evidence-gateway; hit".into(),
            Self::Shared => "evidence-gateway; hit; detail=redis".into(),
            Self::Collapsed => "evidence-gateway; fwd=miss; collapsed".into(),
            Self::Stale => "evidence-gateway; hit; detail=stale".into(),
            Self::Revalidating => "evidence-gateway; hit; detail=stale-while-revalidate".into(),
            Self::StaleIfError => "evidence-gateway; hit; detail=stale-if-error".into(),
            Self::Executed(miss, kept) => {
                let forward = match miss {
                    Miss::Absent => "miss",
                    Miss::Refused => "request",
                    Miss::Changed | Miss::Expired | Miss::Forgotten | Miss::Due => "stale",
                    Miss::Behind | Miss::Uncacheable => "bypass",
                };
                let kept = if kept { "; stored" } else { "" };
                format!("evidence-gateway; fwd={forward}{kept}; detail={}", miss.as_str()).into()
            }
        }
    }
}
