//! Consistency tokens: what a client has seen written, in a form that it can carry to any process.

use crate::error::{Error, Result};
use crate::model::change::Snapshot;
use crate::model::cursor::CursorKey;

/// What a token begins with, so that no cursor passes for one.
const KIND: &[u8] = b"seen:";

impl Snapshot {
    /// The token that stands for all that this snapshot sees.
    pub fn token(&self, key: &CursorKey) -> String {
        key.seal([KIND, self.to_string().as_bytes()].concat())
    }

    /// Reads a token. `field` is the input to blame.
    pub fn from_token(field: &str, token: &str, key: &CursorKey) -> Result<Self> {
        let read = || std::str::from_utf8(key.open(token)?.strip_prefix(KIND)?).ok()?.parse().ok();
        read().ok_or_else(|| Error::bad_input(field, "is not a consistency token of this gateway"))
    }
}
