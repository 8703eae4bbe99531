//! Freshness: whether anything that an answer was made of has changed since. One rule for all entries: an entry is
//! fresh if and only if no change outside the snapshot that it began with has touched what it read.
//!
//! The tail numbers its batches and marks here what each touched, before it says that it has passed it. Of rows the
//! last batch is kept, of tables the last changes; both are bounded, and who asks about a time that is forgotten is
//! told that the entry is not fresh. When in doubt it is not: that costs an execution and never the truth.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::cache::image::Mark;
use crate::cache::sources::Sources;
use crate::model::catalog::catalog;
use crate::model::change::{Change, Op, Snapshot};

/// Rows that are remembered by each of two generations: 12 MB in all.
const ROWS: usize = 131_072;
/// Changes of one table that lists are held against.
const CHANGES: usize = 2_048;
/// Batches whose snapshots are remembered, for the entries of other processes.
const SNAPSHOTS: usize = 8_192;

/// What an entry is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that it read has changed up to this batch.
    Fresh(u64),
    /// Something may have: a row or a list of this table.
    Touched(String),
    /// The entry is older than what is remembered.
    Forgotten,
}

/// Marks of what changed when. All clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Freshness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The last batch whose marks are all made.
    marked: AtomicU64,
    marks: RwLock<Marks>,
    /// When the tail last heard from PostgreSQL, in nanoseconds from `origin` on; 0 if it never did.
    heard: AtomicU64,
    origin: Instant,
}

impl Default for Shared {
    fn default() -> Self {
        let origin = Instant::now();
        Self { marked: AtomicU64::default(), marks: RwLock::default(), heard: AtomicU64::default(), origin }
    }
}

#[derive(Debug)]
struct Marks {
    /// How much is remembered: rows, changes of a table, snapshots.
    limits: (usize, usize, usize),
    /// The last batch that touched a row. Two generations: when the young one is full it takes the place of the old.
    young: HashMap<Uuid, Touch>,
    old: HashMap<Uuid, Touch>,
    /// The batch with which the young one began.
    began: u64,
    tables: HashMap<String, Recent>,
    /// Their names, in the order of their numbers.
    names: Vec<String>,
    /// What began before this batch cannot be judged any more.
    floor: u64,
    /// With every batch that ended a set, the snapshot at its end.
    snapshots: VecDeque<(u64, Arc<Snapshot>)>,
}

/// The batch that touched a row last, and the number of its table.
type Touch = (u64, u16);

/// The last changes of a table.
#[derive(Debug, Default)]
struct Recent {
    number: u16,
    changes: VecDeque<Mark>,
    /// The last batch of which a change is missing here.
    forgotten: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            limits: (ROWS, CHANGES, SNAPSHOTS),
            young: HashMap::new(),
            old: HashMap::new(),
            began: 0,
            tables: HashMap::new(),
            names: Vec::new(),
            floor: 0,
            snapshots: VecDeque::new(),
        }
    }
}

impl Freshness {
    /// Marks what the changes of a batch touched. Called by the tail before anyone can learn that it has passed it.
    pub fn pass(&self, batch: u64, changes: &[Change]) {
        let images: Vec<Mark> = changes.iter().map(|change| Mark::new(batch, change)).collect();
        let mut marks = self.0.marks.write().unwrap_or_else(PoisonError::into_inner);
        let most = marks.limits.1;
        for (change, image) in changes.iter().zip(images) {
            // A whole table, or one of a newer version of the database.
            if change.op == Op::Truncate || !catalog().contains_key(change.entity.as_ref()) {
                marks.floor = batch;
            }
            if !marks.tables.contains_key(change.entity.as_ref()) {
                let number = u16::try_from(marks.names.len()).unwrap_or(u16::MAX);
                marks.names.push(change.entity.to_string());
                marks.tables.insert(change.entity.to_string(), Recent { number, ..Recent::default() });
            }
            let Some(recent) = marks.tables.get_mut(change.entity.as_ref()) else { continue };
            recent.add(image, most);
            let number = recent.number;
            if let Some(id) = change.id {
                marks.touch(id, (batch, number));
            }
        }
        drop(marks);
        self.0.marked.store(batch, Ordering::Release);
    }

    /// Marks everything: what changed is not known.
    pub fn pass_unknown(&self, batch: u64) {
        let mut marks = self.0.marks.write().unwrap_or_else(PoisonError::into_inner);
        marks.floor = batch;
        marks.snapshots.clear();
        drop(marks);
        self.0.marked.store(batch, Ordering::Release);
    }

    /// Notes that all that the snapshot sees has passed with this batch.
    pub fn arrive(&self, batch: u64, snapshot: &Arc<Snapshot>) {
        let mut marks = self.0.marks.write().unwrap_or_else(PoisonError::into_inner);
        // The first snapshot of a batch is the one that other processes' entries cover soonest.
        if marks.snapshots.back().is_some_and(|(last, _)| *last >= batch) {
            return;
        }
        if marks.snapshots.len() == marks.limits.2 {
            marks.snapshots.pop_front();
        }
        marks.snapshots.push_back((batch, snapshot.clone()));
    }

    /// Notes when a look at the log began after which all is marked that had been committed by then.
    pub fn hear(&self, begun: Instant) {
        let nanos = begun.saturating_duration_since(self.0.origin).as_nanos();
        self.0.heard.store(u64::try_from(nanos).unwrap_or(u64::MAX).max(1), Ordering::Release);
    }

    /// How long ago that look began; what was committed since may not be marked.
    pub fn age(&self) -> Duration {
        match self.0.heard.load(Ordering::Acquire) {
            0 => Duration::MAX,
            heard => self.0.origin.elapsed().saturating_sub(Duration::from_nanos(heard)),
        }
    }

    /// The last batch whose marks are all made.
    pub fn now(&self) -> u64 {
        self.0.marked.load(Ordering::Acquire)
    }

    /// Whether an answer that began when this batch had passed, or was found to be fresh then, still holds.
    /// `sources` is asked for only if something has passed since; without them nobody can tell.
    pub fn judge<'a>(&self, sources: impl FnOnce() -> Option<&'a Sources>, since: u64) -> Verdict {
        let now = self.now();
        if since >= now {
            return Verdict::Fresh(since);
        }
        let Some(sources) = sources() else { return Verdict::Forgotten };
        let marks = self.0.marks.read().unwrap_or_else(PoisonError::into_inner);
        if since < marks.floor {
            return Verdict::Forgotten;
        }
        let mut touches = sources.rows.iter().filter_map(|row| marks.last(row));
        if let Some((_, number)) = touches.find(|(batch, _)| *batch > since) {
            return Verdict::Touched(marks.names.get(usize::from(number)).cloned().unwrap_or_default());
        }
        for (list, keys) in &sources.lists {
            let Some(recent) = marks.tables.get(list.table.as_ref()) else { continue };
            if since < recent.forgotten {
                return Verdict::Forgotten;
            }
            let later = recent.changes.iter().rev().take_while(|image| image.batch > since);
            if later.into_iter().any(|image| image.touches(list, keys)) {
                return Verdict::Touched(list.table.to_string());
            }
        }
        Verdict::Fresh(now)
    }

    /// The last of our batches that an entry of another process has seen, with all before it; `None` if it began
    /// before anything that is remembered.
    pub fn batch_of(&self, snapshot: &Snapshot) -> Option<u64> {
        let marks = self.0.marks.read().unwrap_or_else(PoisonError::into_inner);
        let seen = marks.snapshots.partition_point(|(_, known)| snapshot.covers(known));
        marks.snapshots.get(seen.checked_sub(1)?).map(|(batch, _)| *batch)
    }
}

impl Marks {
    fn touch(&mut self, row: Uuid, touch: Touch) {
        if self.young.len() >= self.limits.0 {
            self.old = std::mem::take(&mut self.young);
            // Whatever was forgotten with the generation before was touched at this batch at the latest.
            self.floor = self.floor.max(self.began);
            self.began = touch.0;
        }
        self.young.insert(row, touch);
    }

    fn last(&self, row: &Uuid) -> Option<Touch> {
        self.young.get(row).or_else(|| self.old.get(row)).copied()
    }
}

impl Recent {
    fn add(&mut self, image: Mark, most: usize) {
        if self.changes.len() == most
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.batch;
        }
        self.changes.push_back(image);
    }
}

#[cfg(test)]
mod tests;
