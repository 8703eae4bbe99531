//! A consumer's way through the change log: every change after its place once and only once, from the log as long
//! as it is behind and from the tail's batches when it has caught up. It keeps its own place, so that it may be as
//! slow as it likes: it never makes the tail wait, and what it misses of the batches it reads again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::time::sleep;

use crate::changes::batch::Batch;
use crate::changes::tail::{PAGE, Tail};
use crate::error::{Code, Result};
use crate::model::change::{Place, Slice, Snapshot, read};
use crate::telemetry::Behind;

/// After a failure of the store.
const RETRY: Duration = Duration::from_millis(200);

/// One consumer.
pub struct Follower {
    tail: Tail,
    place: Place,
    live: Option<Live>,
    /// While it reads the log.
    behind: Option<Behind>,
}

struct Live {
    batches: Receiver<Arc<Batch>>,
    /// The number of the last batch that the consumer's place covers.
    last: u64,
}

impl Follower {
    pub(super) fn new(tail: Tail, place: Place) -> Self {
        Self { tail, place, live: None, behind: None }
    }

    /// What the consumer has had so far, batches that it was given included.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The tail's last batch that the place covers; `None` while it is elsewhere.
    pub fn batch(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.last)
    }

    /// The next changes, when there are some, or the end of a set that had some. A batch is lost only if this is
    /// dropped after it was given.
    ///
    /// `CURSOR_EXPIRED` if the log does not reach back to the consumer's place any more. While PostgreSQL does not
    /// answer, this waits.
    pub async fn next(&mut self) -> Result<Arc<Batch>> {
        loop {
            let midst = self.place.within.is_some();
            let batch = match &mut self.live {
                Some(_) => self.receive().await,
                None => self.catch_up().await?,
            };
            // Only after a page that was full it is known that the set has no more.
            let tells = |batch: &Arc<Batch>| !batch.changes.is_empty() || (midst && batch.complete);
            if let Some(batch) = batch.filter(tells) {
                return Ok(batch);
            }
        }
    }

    async fn receive(&mut self) -> Option<Arc<Batch>> {
        let live = self.live.as_mut()?;
        match live.batches.recv().await {
            Ok(batch) if batch.number <= Some(live.last) => None,
            Ok(batch) if batch.number == Some(live.last + 1) => {
                live.last += 1;
                self.place = match batch.changes.len().checked_sub(1) {
                    Some(last) => batch.place(last),
                    None => Place::after(batch.until.clone()),
                };
                Some(batch)
            }
            // It was too slow, or came in the midst of a set.
            _ => {
                self.live = None;
                None
            }
        }
    }

    /// Reads the log up to where the tail is, and joins it there.
    async fn catch_up(&mut self) -> Result<Option<Arc<Batch>>> {
        if self.behind.is_none() {
            self.behind = self.tail.behind();
        }
        let mut join = None;
        if self.place.within.is_none() {
            // The tail may be behind a place that another process gave out.
            let since = self.place.since.clone();
            self.tail.wait_until(|snapshot| snapshot.covers(&since)).await;
            let (batches, reached) = self.tail.join();
            let Some(reached) = reached else { return Ok(None) };
            join = Some((Live { batches, last: reached.batch }, reached.snapshot));
        }
        let until = join.as_ref().map(|(_, until)| until);
        let slice = if until == Some(&self.place.since) {
            Slice::nothing(self.place.clone())
        } else {
            self.read(until).await?
        };
        // A set that takes several reads is finished first; the tail is elsewhere by then.
        let there = !slice.is_partial();
        let (batch, place) = Batch::new(None, slice);
        self.place = place;
        self.live = join.filter(|_| there).map(|(live, _)| live);
        if self.live.is_some() {
            self.behind = None;
        }
        Ok(Some(Arc::new(batch)))
    }

    async fn read(&self, until: Option<&Arc<Snapshot>>) -> Result<Slice> {
        loop {
            match read(&self.tail.readers().session(), &self.place, until, PAGE).await {
                Err(error) if [Code::Unavailable, Code::Timeout].contains(&error.code()) => {
                    sleep(RETRY).await
                }
                read => return read,
            }
        }
    }
}
