//! Purges: what an operator wants forgotten. A purge is a rule and not a deletion: no answer that began before it and
//! has its tag is kept or served any more, wherever it comes from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::cache::entry::Entry;
use crate::model::tag::Tag;

/// Purges by tags that are remembered; of more, everything is forgotten that began before the oldest.
const MOST: usize = 256;

/// What was purged, and when.
#[derive(Debug, Default)]
pub(super) struct Purges {
    /// Nearly always there is none, and nobody needs the lock.
    any: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Everything that began before.
    all: Option<Instant>,
    tags: Vec<(Tag, Instant)>,
}

impl Purges {
    /// Purges what has this tag, or everything.
    pub(super) fn add(&self, tag: Option<Tag>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match tag {
            None => *known = Known { all: Some(now), tags: Vec::new() },
            Some(tag) => {
                known.tags.retain(|(other, _)| *other != tag);
                if known.tags.len() == MOST {
                    let (_, oldest) = known.tags.remove(0);
                    known.all = Some(oldest);
                }
                known.tags.push((tag, now));
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// Whether an entry is to be forgotten.
    pub(super) fn include(&self, entry: &Entry) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = entry.origin.begun;
        // Of what cannot be read nobody knows.
        let has = |tag: &Tag| {
            entry.sources.get().is_none_or(|sources| match tag {
                Tag::Row(id) => sources.rows.binary_search(id).is_ok(),
                Tag::Table(name) => sources.lists.iter().any(|(list, _)| list.table == *name),
            })
        };
        known.all.is_some_and(|at| begun <= at) || known.tags.iter().any(|(tag, at)| begun <= *at && has(tag))
    }
}
