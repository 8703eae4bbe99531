//! Places in the change log, and the cursors that carry them to clients and back.

use std::fmt;
use std::str::FromStr;
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
        key.seal([KIND, self.to_string().as_bytes()].concat())
    }

    /// Reads a cursor. `field` is the argument to blame.
    pub fn read(field: &str, cursor: &str, key: &CursorKey) -> Result<Self> {
        let place = || std::str::from_utf8(key.open(cursor)?.strip_prefix(KIND)?).ok()?.parse().ok();
        place().ok_or_else(|| Error::bad_input(field, "is not a cursor of the change log"))
    }
}

/// As a cursor carries it and a consumer saves it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.since)?;
        match &self.within {
            Some((until, (xid, seq))) => write!(f, "|{until}|{xid}|{seq}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let place = || {
            let mut parts = text.split('|');
            let since = Arc::new(parts.next()?.parse().ok()?);
            let Some(until) = parts.next() else { return Some(Self::after(since)) };
            let at = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Self { since, within: Some((Arc::new(until.parse().ok()?), at)) })
        };
        place().ok_or_else(|| Error::internal(format!("not a place in the change log: {text:?}")))
    }
}
