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
    /// Where the reader is in the set that begins there; none between two sets.
    pub within: Option<Within>,
}

/// A place within a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// The end of the set.
    pub until: Arc<Snapshot>,
    /// The seq up to which the reader has the set; 0 if it has nothing of it.
    pub after: i64,
    /// For a set that is larger than a page, where in the log it lies.
    pub span: Option<Span>,
}

/// Where a set lies in the log: the transactions of it that began after its first snapshot. Those that were running
/// at that moment are few, and found one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first seq.
    pub low: i64,
    /// The last seq.
    pub high: i64,
    /// The change, by xid and seq, up to which it was looked for; none when the span is known.
    pub measured: Option<(u64, i64)>,
}

impl Span {
    /// Nothing was looked for yet.
    pub(super) const UNKNOWN: Self = Self { low: i64::MAX, high: 0, measured: Some((0, 0)) };
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
        let Some(Within { until, after, span }) = &self.within else { return Ok(()) };
        write!(f, "|{until}|{after}")?;
        match span {
            Some(Span { low, high, measured: None }) => write!(f, "|{low}|{high}"),
            _ => Ok(()),
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
            let (until, after) = (Arc::new(until.parse().ok()?), parts.next()?.parse().ok()?);
            let span = match parts.next() {
                Some(low) => {
                    let (low, high) = (low.parse().ok()?, parts.next()?.parse().ok()?);
                    Some(Span { low, high, measured: None })
                }
                None => None,
            };
            Some(Self { since, within: Some(Within { until, after, span }) })
        };
        place().ok_or_else(|| Error::internal(format!("not a place in the change log: {text:?}")))
    }
}
