//! The tail: one reader of the change log per process, on a connection of its own. It passes what it reads on to the
//! process as numbered batches and tells how far it has come, by snapshots (see ARCHITECTURE.md, "The change log").

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{sleep, timeout};

use crate::cache::freshness::Freshness;
use crate::changes::batch::Batch;
use crate::changes::follower::Follower;
use crate::changes::wakeup;
use crate::config::{Config, DbOptions};
use crate::error::{Code, Error, Result};
use crate::model::change::{Place, Slice, Snapshot, now, prune, read};
use crate::store::db::Db;
use crate::store::redis::Redis;
use crate::telemetry::{Behind, ChangeMetrics, Kind, Metrics};

/// Changes of one batch at most. With [`KEPT`] it bounds what a slow consumer can make the process hold.
pub(crate) const PAGE: usize = 1_000;
/// Batches that wait for consumers. Who is further behind reads the log again.
const KEPT: usize = 32;
/// Between two looks at the log while there is something to see.
const BUSY: Duration = Duration::from_millis(25);
/// For so long after a change the next one is expected soon.
const STAYS_BUSY: Duration = Duration::from_secs(1);
/// A look that takes longer than this has lost its server.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// After the first failure in a row, and after many.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Changes removed at once, and the pause when there is nothing to remove.
const PRUNED_AT_ONCE: u32 = 5_000;
const PRUNE_PAUSE: Duration = Duration::from_secs(30);

/// How far the tail has come.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The last batch of the last whole set; 0 if there was none yet.
    pub batch: u64,
    /// All that this one sees has passed.
    pub snapshot: Arc<Snapshot>,
}

/// A handle on the tail; all clones are the same one. It moves while [`Self::run`] runs.
#[derive(Clone)]
pub struct Tail(Arc<Shared>);

struct Shared {
    url: String,
    redis: Redis,
    /// For those who are behind, and for pruning: they must not keep the tail waiting.
    readers: Db,
    batches: broadcast::Sender<Arc<Batch>>,
    reached: watch::Sender<Option<Reached>>,
    /// Held while a batch is sent and counted, so that who joins knows which batches are still to come.
    joining: Mutex<()>,
    contact: watch::Sender<Option<Instant>>,
    /// Learns of every batch before anybody else.
    freshness: Freshness,
    /// The number of the last batch.
    numbered: AtomicU64,
    woken: Notify,
    /// Something was committed that other processes do not know of.
    written: Notify,
    counts: OnceLock<ChangeMetrics>,
    idle: Duration,
    retention: Duration,
}

impl Tail {
    /// A tail that stands still as yet. `readers` is for consumers that are behind. PostgreSQL may be down.
    pub fn new(config: &Config, database_url: &str, readers: Db, redis: Redis) -> Self {
        Self(Arc::new(Shared {
            url: database_url.to_owned(),
            redis,
            readers,
            batches: broadcast::Sender::new(KEPT),
            reached: watch::Sender::new(None),
            joining: Mutex::default(),
            contact: watch::Sender::new(None),
            freshness: Freshness::default(),
            numbered: AtomicU64::new(0),
            woken: Notify::new(),
            written: Notify::new(),
            counts: OnceLock::new(),
            idle: config.change_poll(),
            retention: config.change_log_retention(),
        }))
    }

    /// Shows what it does among the metrics, from now on.
    ///
    /// Fails when it was asked to before, which is a fault of the program.
    pub fn count_in(&self, metrics: &Metrics) -> Result<()> {
        let (tail, begun) = (self.clone(), Instant::now());
        metrics.pull(
            "change_log_silence_seconds",
            "Since the last look at the change log that PostgreSQL answered.",
            Kind::Gauge,
            move || tail.last_contact().unwrap_or(begun).elapsed().as_secs_f64(),
        )?;
        self.0.counts.set(metrics.changes.clone()).map_err(|_| Error::internal("the tail is counted twice"))
    }

    /// Follows the log and prunes it, until it is dropped.
    pub async fn run(self) {
        tokio::join!(self.follow_log(), self.prune_log(), wakeup::run(&self, &self.0.redis));
    }

    /// How far the tail has come; nothing before its first look.
    pub fn reached(&self) -> Option<Reached> {
        self.0.reached.borrow().clone()
    }

    /// Tells when the tail gets further.
    pub fn watch(&self) -> watch::Receiver<Option<Reached>> {
        self.0.reached.subscribe()
    }

    /// When the last look began that PostgreSQL answered: what committed later may not have been seen.
    pub fn last_contact(&self) -> Option<Instant> {
        *self.0.contact.borrow()
    }

    /// What the changes that have passed touched.
    pub fn freshness(&self) -> &Freshness {
        &self.0.freshness
    }

    /// Has the tail look now: something was committed.
    pub fn wake(&self) {
        self.0.woken.notify_one();
    }

    /// Says that this process has committed something: the tail looks now, and so do those of other processes.
    pub fn wrote(&self) {
        self.0.written.notify_one();
        self.wake();
    }

    /// Waits until the tail has passed everything that is committed by now, and says how far it has come;
    /// `UNAVAILABLE` if that takes longer than the limit.
    pub async fn catch_up(&self, limit: Duration) -> Result<Reached> {
        let begun = Instant::now();
        let mut contact = self.0.contact.subscribe();
        self.wake();
        // A look that has begun by now sees all that had committed.
        let caught_up = contact.wait_for(|contact| contact.is_some_and(|looked| looked >= begun));
        timeout(limit, caught_up).await.map_err(behind)?.map_err(behind)?;
        self.reached().ok_or_else(|| behind("it has not been read yet"))
    }

    /// Waits until the tail has passed everything that another reader, perhaps in another process, has seen;
    /// `UNAVAILABLE` if that takes longer than the limit.
    pub async fn wait_for_snapshot(&self, seen: &Snapshot, limit: Duration) -> Result<()> {
        let passed = self.wait_until(|snapshot| snapshot.covers(seen));
        timeout(limit, passed).await.map_err(behind)?;
        Ok(())
    }

    /// Follows the log from a place on: each change after it exactly once, first those that are in the log already.
    pub fn follow(&self, place: Place) -> Follower {
        Follower::new(self.clone(), place)
    }

    /// Waits until this process has committed something that the others were not told of.
    pub(super) async fn written(&self) {
        self.0.written.notified().await;
    }

    pub(super) async fn wait_until(&self, passed: impl Fn(&Snapshot) -> bool) {
        let mut reached = self.0.reached.subscribe();
        let there = |reached: &Option<Reached>| reached.as_ref().is_some_and(|r| passed(&r.snapshot));
        if !there(&reached.borrow()) {
            self.wake();
        }
        // The sender lives as long as this handle.
        if reached.wait_for(there).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The batches from now on, and which was the last before them. Some may come that are not after it.
    pub(super) fn join(&self) -> (broadcast::Receiver<Arc<Batch>>, Option<Reached>) {
        let _held = held(&self.0.joining);
        (self.0.batches.subscribe(), self.reached())
    }

    /// Counts a consumer as behind, until what comes back is dropped.
    pub(super) fn behind(&self) -> Option<Behind> {
        self.0.counts.get().map(ChangeMetrics::behind)
    }

    pub(super) fn readers(&self) -> &Db {
        &self.0.readers
    }

    /// Follows the log without pruning it, until it is dropped. Once at a time; if it was dropped before, whatever
    /// happened meanwhile counts as unknown and consumers read it from the log.
    pub async fn follow_log(&self) {
        let mut look = Look { tail: self, db: None, place: None, seen: None, begun: None };
        if self.reached().is_some() {
            look.lose_track();
        }
        let mut retry = RETRY.0;
        loop {
            let pause = match look.once().await {
                Ok(()) => {
                    if retry > RETRY.0 {
                        tracing::info!("the change log is followed again");
                    }
                    retry = RETRY.0;
                    let busy = look.seen.is_some_and(|seen| seen.elapsed() < STAYS_BUSY);
                    if busy { BUSY.min(self.0.idle) } else { self.0.idle }
                }
                Err(error) => {
                    if retry == RETRY.0 {
                        tracing::warn!(?error, "the change log cannot be read; trying again until it can");
                    }
                    look.failed(&error);
                    retry = (retry * 2).min(RETRY.1);
                    // Wake-ups do not bring a lost server back.
                    sleep(retry).await;
                    continue;
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.0.woken.notified() => {}
            }
        }
    }

    async fn prune_log(&self) {
        let session = self.0.readers.session();
        loop {
            match prune(&session, self.0.retention, PRUNED_AT_ONCE).await {
                Ok(0) => sleep(PRUNE_PAUSE).await,
                Ok(count) => {
                    if let Some(counts) = self.0.counts.get() {
                        counts.pruned(count);
                    }
                    // Leave room for the writers between two batches.
                    sleep(BUSY).await;
                }
                Err(error) => {
                    tracing::debug!(?error, "the change log cannot be pruned now");
                    sleep(PRUNE_PAUSE).await;
                }
            }
        }
    }

    /// The next batch's number.
    fn number(&self) -> u64 {
        self.0.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn heard(&self, begun: Instant) {
        self.0.freshness.hear(begun);
        self.0.contact.send_replace(Some(begun));
    }

    fn publish(&self, number: u64, batch: Batch, reached: Option<Reached>) {
        // Before anyone can learn that this was passed, and so ask whether what is older is still fresh.
        self.0.freshness.pass(number, &batch.changes);
        if let Some(reached) = &reached {
            self.0.freshness.arrive(reached.batch, &reached.snapshot);
        }
        if let Some(counts) = self.0.counts.get() {
            counts.passed_on(batch.changes.iter().map(|change| change.at));
        }
        let _held = held(&self.0.joining);
        // Nobody may be listening.
        drop(self.0.batches.send(Arc::new(batch)));
        if reached.is_some() {
            self.0.reached.send_replace(reached);
        }
    }
}

fn behind(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("the change log", cause)
}

/// The lock of a value that whoever panicked with it left as good as new.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tail's own state: what it has read.
struct Look<'a> {
    tail: &'a Tail,
    /// One connection. It is made anew after a failure: it may hang on a server that is gone.
    db: Option<Db>,
    place: Option<Place>,
    /// When there was a change last.
    seen: Option<Instant>,
    /// When the look began that found the set that is being read.
    begun: Option<Instant>,
}

impl Look<'_> {
    /// Reads what is new, in as many batches as it takes.
    async fn once(&mut self) -> Result<()> {
        let db = match &self.db {
            Some(db) => db.clone(),
            None => self.db.insert(connect(&self.tail.0.url).await?).clone(),
        };
        let session = db.session();
        let Some(mut place) = self.place.clone() else {
            let begun = Instant::now();
            let place = Place::after(Arc::new(in_time(now(&session)).await?));
            if self.tail.reached().is_some() {
                self.call_consumers(&place);
            }
            self.arrived(begun, place);
            return Ok(());
        };
        loop {
            let looked = Instant::now();
            let slice = in_time(read(&session, &place, None, PAGE)).await?;
            if slice.changes.is_empty() && place.within.is_none() && !slice.is_partial() {
                self.arrived(looked, slice.place);
                return Ok(());
            }
            let begun = *self.begun.get_or_insert(looked);
            if slice.changes.is_empty() && slice.is_partial() {
                // It is large, and its changes are still being looked for.
                self.place = Some(slice.place.clone());
                place = slice.place;
                continue;
            }
            self.seen = Some(looked);
            let number = self.tail.number();
            let (batch, next) = Batch::new(Some(number), slice);
            let reached = Reached { batch: number, snapshot: batch.until.clone() };
            let complete = batch.complete;
            self.tail.publish(number, batch, complete.then_some(reached));
            self.place = Some(next.clone());
            if complete {
                self.tail.heard(begun);
                self.begun = None;
                return Ok(());
            }
            place = next;
        }
    }

    /// Between two sets, with nothing to pass on.
    fn arrived(&mut self, begun: Instant, place: Place) {
        if self.place.as_ref() != Some(&place) {
            let batch = self.tail.0.numbered.load(Ordering::Relaxed);
            let reached = Reached { batch, snapshot: place.since.clone() };
            self.tail.0.freshness.arrive(reached.batch, &reached.snapshot);
            self.tail.0.reached.send_replace(Some(reached));
        }
        self.tail.heard(begun);
        self.place = Some(place);
    }

    fn failed(&mut self, error: &Error) {
        self.db = None;
        if error.code() == Code::CursorExpired {
            tracing::error!("changes were pruned that the tail has not seen; consumers start anew");
            self.lose_track();
        }
    }

    /// Begins anew, wherever the log is by then.
    fn lose_track(&mut self) {
        // A number that no batch has: the gap makes consumers look at the log itself.
        self.tail.0.freshness.pass_unknown(self.tail.number());
        (self.place, self.begun) = (None, None);
    }

    /// Has consumers look at the log, in which there may be what the tail has not seen.
    fn call_consumers(&mut self, place: &Place) {
        let number = self.tail.number();
        let reached = Reached { batch: number, snapshot: place.since.clone() };
        let (batch, _) = Batch::new(Some(number), Slice::nothing(place.clone()));
        self.tail.publish(number, batch, Some(reached));
        self.place = Some(place.clone());
    }
}

/// A server that was cut off does not say so.
async fn in_time<T>(reading: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LOOK_LIMIT, reading).await.map_err(|late| Error::unavailable("PostgreSQL", late))?
}

async fn connect(url: &str) -> Result<Db> {
    let options = DbOptions { pool_size: 1, pool_wait: RETRY.1, statement_timeout: LOOK_LIMIT };
    Db::connect(url, &options).await
}
