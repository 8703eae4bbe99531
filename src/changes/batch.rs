//! What the log is passed on in: some changes of one set, and the place behind each of them.

use std::sync::{Arc, OnceLock};

use crate::model::change::{Change, Image, Place, Slice, Snapshot, Span, Within};

/// Some changes of one set, in order. The set is what committed between two snapshots.
#[derive(Debug)]
pub struct Batch {
    /// Counts the tail's batches from 1; none for one that was read again from the log.
    pub number: Option<u64>,
    /// The begin of the set.
    pub since: Arc<Snapshot>,
    /// The end of the set.
    pub until: Arc<Snapshot>,
    /// In the order of seq: those of a transaction in its order, those of a row in the order in which it was
    /// changed. Changes of transactions that ran at the same time alternate.
    pub changes: Vec<Change>,
    /// Whether this is the end of the set, so that everything that `until` sees has passed.
    pub complete: bool,
    span: Option<Span>,
    /// The same for all who judge them, once somebody does.
    images: OnceLock<Vec<Image>>,
}

impl Batch {
    /// The batch that a slice is, and the place behind it.
    pub fn new(number: Option<u64>, slice: Slice) -> (Self, Place) {
        let (since, until, complete) = match &slice.place.within {
            Some(within) => (slice.begin, within.until.clone(), false),
            None => (slice.begin, slice.place.since.clone(), true),
        };
        (
            Self {
                number,
                since,
                until,
                changes: slice.changes,
                complete,
                span: slice.span,
                images: OnceLock::new(),
            },
            slice.place,
        )
    }

    /// The changes as readers judge them, one for each.
    pub fn images(&self) -> &[Image] {
        self.images.get_or_init(|| self.changes.iter().map(Image::new).collect())
    }

    /// The place of a reader that has had the changes up to this one, counted from 0.
    pub fn place(&self, change: usize) -> Place {
        match self.changes.get(change) {
            Some(at) if !self.complete || change + 1 < self.changes.len() => {
                let within = Within { until: self.until.clone(), after: at.seq, span: self.span };
                Place { since: self.since.clone(), within: Some(within) }
            }
            _ => Place::after(self.until.clone()),
        }
    }
}
