//! Snapshots: which transactions a reader has seen. PostgreSQL's `pg_snapshot`, which is the only cursor that loses
//! nothing: transactions get their numbers when they begin and commit in any order.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The transactions that had committed (or been rolled back) at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// All transactions before this one are seen.
    xmin: u64,
    /// No transaction from this one on is seen.
    xmax: u64,
    /// Those between that were still running, in order: they are not seen either.
    running: Vec<u64>,
}

impl Snapshot {
    /// The snapshot that sees this transaction and all before it, and nothing else.
    pub fn up_to(xid: u64) -> Self {
        Self { xmin: xid + 1, xmax: xid + 1, running: Vec::new() }
    }

    /// The same as far as the log goes, whose highest transaction that this snapshot sees is given.
    ///
    /// Transactions above that one left nothing in the log. They may not even have reached the disk, and then a crash
    /// of PostgreSQL has their numbers given out again: a reader that took them for seen would miss what commits next.
    pub fn settled(&self, highest: u64) -> Self {
        let xmax = self.xmax.min(highest.saturating_add(1));
        let running: Vec<u64> = self.running.iter().copied().filter(|xid| *xid < xmax).collect();
        Self { xmin: running.first().copied().unwrap_or(xmax), xmax, running }
    }

    /// Whether what this transaction did, if it committed, is seen.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether everything that the other one sees is seen.
    pub fn covers(&self, other: &Self) -> bool {
        other.xmax <= self.xmax && !self.running.iter().any(|xid| other.sees(*xid))
    }

    /// The first transaction that is not seen.
    pub fn first_unseen(&self) -> u64 {
        self.xmin
    }

    /// The first of the transactions of which none is seen.
    pub fn end(&self) -> u64 {
        self.xmax
    }
}

/// As PostgreSQL writes it: `xmin:xmax:running,running`.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (n, xid) in self.running.iter().enumerate() {
            write!(f, "{}{xid}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = text.split(':');
            let (xmin, xmax, running) = (parts.next()?, parts.next()?, parts.next()?);
            let running = running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok());
            let snapshot = Self {
                xmin: xmin.parse().ok()?,
                xmax: xmax.parse().ok()?,
                running: running.collect::<Option<Vec<u64>>>()?,
            };
            // PostgreSQL refuses others, and `sees` searches.
            let ordered = snapshot.running.is_sorted_by(|a, b| a < b)
                && snapshot.running.first().is_none_or(|xid| *xid >= snapshot.xmin)
                && snapshot.running.last().is_none_or(|xid| *xid < snapshot.xmax);
            let whole = snapshot.xmin > 0 && snapshot.xmin <= snapshot.xmax && parts.next().is_none();
            (ordered && whole).then_some(snapshot)
        };
        parse().ok_or_else(|| Error::internal(format!("not a snapshot: {text:?}")))
    }
}
