//! A request's body, up to its limit.

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use futures_util::StreamExt;

/// Why there is no body.
pub(super) enum Unread {
    /// It has more bytes than it may.
    TooLarge,
    /// The client stopped in the middle.
    Broken,
}

/// Bytes of a body that is too large which are read all the same, and thrown away. A client that is still sending
/// when its connection closes sees a broken connection and never the answer that says why.
const MAX_DISCARDED: usize = 64 * 1_048_576;

/// Reads a body of so many bytes at most.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Unread> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let too_large = announced.is_some_and(|length| length > limit);
    if too_large && headers.contains_key(EXPECT) {
        return Err(Unread::TooLarge); // it waits for leave to send, and gets none
    }
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::with_capacity(if too_large { 0 } else { announced.unwrap_or_default() });
    let mut length = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| if length > limit { Unread::TooLarge } else { Unread::Broken })?;
        length = length.saturating_add(chunk.len());
        if length > limit.saturating_add(MAX_DISCARDED) {
            break;
        }
        if !too_large && length <= limit {
            bytes.extend_from_slice(&chunk);
        }
    }
    if length > limit { Err(Unread::TooLarge) } else { Ok(bytes.into()) }
}
