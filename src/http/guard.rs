//! The layers that stand between a client and the handlers: whose pages may ask, what is compressed, what a browser is
//! told, and what becomes of a panic.

use std::any::Any;

use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, Any as Every, CorsLayer};

use crate::config::Origins;
use crate::error::Error;
use crate::http::consistency;
use crate::http::graphql::refused;

/// Bytes below which an answer is sent as it is: it fits into one packet anyway.
const COMPRESS_ABOVE: u16 = 1_024;
/// How long a browser may remember what another origin may do.
const CORS_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(3_600);

/// Whose pages may ask. Closed without the layer; cookies are never allowed, because nobody is known by them.
pub(super) fn cors(origins: &Origins) -> Option<CorsLayer> {
    let layer = match origins {
        Origins::Any => CorsLayer::new().allow_origin(Every),
        Origins::Only(list) if list.is_empty() => return None,
        Origins::Only(list) => {
            let list = list.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            CorsLayer::new().allow_origin(AllowOrigin::list(list))
        }
    };
    let named = ["x-api-key", "x-request-id", "traceparent", "idempotency-key", consistency::HEADER];
    let named = named.map(HeaderName::from_static);
    let allowed = [ACCEPT, AUTHORIZATION, CONTENT_TYPE].into_iter().chain(named);
    Some(
        layer
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(allowed.collect::<Vec<_>>())
            .expose_headers([
                HeaderName::from_static("x-request-id"),
                HeaderName::from_static(consistency::HEADER),
                RETRY_AFTER,
            ])
            .max_age(CORS_MAX_AGE),
    )
}

/// What is worth compressing.
pub(super) fn compression() -> CompressionLayer<impl Predicate> {
    CompressionLayer::new().compress_when(DefaultPredicate::new().and(SizeAbove::new(COMPRESS_ABOVE)))
}

/// Tells browsers not to guess what an answer is, and not to tell others where it was read.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// The answer after a panic, whose text goes to the log only.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let cause = format!("a handler panicked: {}", text.unwrap_or_default());
    refused(&HeaderMap::new(), StatusCode::INTERNAL_SERVER_ERROR, Error::internal(cause))
}
