//! Places in the change log, and the cursors that carry them to clients and back.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::change::Snapshot;
use crate::model::cursor::CursorKey;

/// What a cursor of the change log begins with; a list's begins with the fingerprint of its order.
const KIND: &[u8] = b"changes:";

/// How much of the log a reader has. Between two snapshots lies a set of changes that never changes again, because
/// every transaction in it is over: a place in it means the same to every process at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// All that this one sees is done.
    pub since: Arc<Snapshot>,
    /// The end of the set that the reader is in the midst of, and the change in it (its xid and seq) up to which it
    /// is done; none between two sets.
    pub within: Option<(Arc<Snapshot>, (u64, i64))>,
}

impl Place {
    /// Everything that the snapshot sees is done.
    pub fn after(snapshot: Arc<Snapshot>) -> Self {
        Self { since: snapshot, within: None }
    }

    /// The cursor that stands for this place.
    pub fn cursor(&self, key: &CursorKey) -> String {
        let mut text = self.since.to_string();
        if let Some((until, (xid, seq))) = &self.within {
            text.push_str(&format!("|{until}|{xid}|{seq}"));
        }
        key.seal([KIND, text.as_bytes()].concat())
    }

    /// Reads a cursor. `field` is the argument to blame.
    pub fn read(field: &str, cursor: &str, key: &CursorKey) -> Result<Self> {
        let place = || {
            let bytes = key.open(cursor)?;
            let mut parts = std::str::from_utf8(bytes.strip_prefix(KIND)?).ok()?.split('|');
            let since = Arc::new(parts.next()?.parse().ok()?);
            let Some(until) = parts.next() else { return Some(Self::after(since)) };
            let at = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Self { since, within: Some((Arc::new(until.parse().ok()?), at)) })
        };
        place().ok_or_else(|| Error::bad_input(field, "is not a cursor of the change log"))
    }
}
