//! The indexer: keeps the vector index true to the rows in PostgreSQL, while the gateway serves. It follows the
//! change log; how far it has come is kept in the index itself, so that an index that is lost, restored or replaced
//! is followed from where it stands, or compared with the whole table if it does not say where that is.
//!
//! One process at a time keeps an index: a folder is open in one process only, and an index on a server has a lock in
//! the database. Two that both believe it is their turn do no harm, because of two writes the newer row's stays.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::app::App;
use crate::changes::batch::Batch;
use crate::changes::follower::Follower;
use crate::error::{Code, Error, Result};
use crate::model::change::{Change, Place, Snapshot, count_after, now};
use crate::model::parked;
use crate::model::searched::{is_searched, tables};
use crate::store::db::Session;
use crate::store::db::lock::SessionLock;
use bookmark::{Bookmark, Found};
use comparison::Comparison;
use writer::{Due, LOOK, Reborn, STEP, Touched, Writer};

pub mod bookmark;
pub mod comparison;
mod embedding;
pub mod writer;

/// Between two attempts to become the one who indexes.
const WAIT: Duration = Duration::from_secs(1);
/// Between two looks at whether it is still this process's turn, and still the same index.
const CHECK: Duration = Duration::from_secs(1);
/// After the first failure in a row, and after many.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often the place is saved while there is much to do, and while there is nothing.
const SAVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Rows written before the index is put in order while nothing happens, and while much happens.
const OPTIMIZE: (usize, usize) = (1_000, 20_000);
/// Fewer rows wait this long for it.
const OPTIMIZE_PAUSE: Duration = Duration::from_secs(300);
/// Deletions are forgotten when they are this old, far beyond the longest write, and looked for this often.
const DELETION_LIFETIME: TimeDelta = TimeDelta::hours(24);
const PURGE_PAUSE: Duration = Duration::from_secs(3_600);
/// Parked rows tried again at once.
const RETRIED: u32 = 64;
/// Changes that are counted at most to say how far behind the indexer is.
const MAX_LAG: usize = 1_000_000;

/// Runs until it is dropped.
pub async fn run(app: App) {
    if !app.searcher.embedder.is_on() || !app.searcher.vectors.is_on() {
        return;
    }
    let mut trouble = Trouble { was_killed: app.searcher.vectors.was_killed(), ..Trouble::default() };
    loop {
        let Err(error) = lead(&app, &mut trouble).await;
        app.metrics.indexer.active.set(0);
        if error.code() == Code::Conflict {
            tracing::info!("there is another vector index; it is followed from where it stands");
            continue;
        }
        app.metrics.indexer.failures.inc();
        sleep(trouble.next(&error)).await;
    }
}

/// What went wrong since something went right.
#[derive(Default)]
struct Trouble {
    pause: Option<Duration>,
    /// The index may have parts of what a process wrote that was killed.
    was_killed: bool,
}

impl Trouble {
    fn next(&mut self, error: &Error) -> Duration {
        if self.pause.is_none() {
            tracing::warn!(?error, "rows cannot be indexed; trying again until it can");
        }
        *self.pause.insert(self.pause.map_or(RETRY.0, |pause| (pause * 2).min(RETRY.1)))
    }

    fn over(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!("rows are indexed again");
        }
    }
}

/// Indexes, once it is this process's turn. A `CONFLICT` says that the index is another one now.
async fn lead(app: &App, trouble: &mut Trouble) -> Result<Infallible> {
    let lock = take_lock(app, trouble).await?;
    app.metrics.indexer.active.set(1);
    let mut indexer = Indexer::open(app, lock, trouble.was_killed).await?;
    loop {
        indexer.once().await?;
        trouble.was_killed = indexer.suspect.is_some();
        trouble.over();
    }
}

/// The lock of an index that other processes write to as well. Waits for it.
async fn take_lock(app: &App, trouble: &mut Trouble) -> Result<Option<SessionLock>> {
    let Some(name) = app.searcher.vectors.shared_name() else { return Ok(None) };
    let mut lock = app.db.session_lock(lock_key(&name)).await?;
    while !lock.take().await? {
        show_size(app).await?;
        trouble.over();
        sleep(WAIT).await;
    }
    Ok(Some(lock))
}

fn lock_key(name: &str) -> i64 {
    let mut key = [0; 8];
    key.copy_from_slice(&Sha256::digest(format!("vector index {name}"))[..8]);
    i64::from_be_bytes(key)
}

async fn show_size(app: &App) -> Result<()> {
    let rows = app.searcher.vectors.count(None).await?;
    app.metrics.indexer.rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    Ok(())
}

/// The one who indexes.
struct Indexer<'a> {
    app: &'a App,
    lock: Option<SessionLock>,
    writer: Writer,
    follower: Follower,
    /// What the index says of how far it has come.
    bookmark: Bookmark,
    /// Whether the follower's place is worth saving soon.
    unsaved: bool,
    /// What was committed by then may be in the index in part: it is written anew, as far as it is not before the place.
    suspect: Option<Snapshot>,
    saved: Instant,
    checked: Instant,
    optimized: Instant,
    purged: Option<Instant>,
    /// When the oldest change was made that is being written, and the change before it.
    behind: Option<(DateTime<Utc>, i64)>,
}

impl<'a> Indexer<'a> {
    async fn open(app: &'a App, lock: Option<SessionLock>, was_killed: bool) -> Result<Self> {
        app.searcher.vectors.refresh().await?;
        show_size(app).await?;
        let session = app.db.session();
        let suspect = if was_killed { Some(now(&session).await?) } else { None };
        let text = app.searcher.vectors.bookmark().await?;
        let found = match text.as_deref().and_then(Bookmark::read) {
            Some(found) => found,
            None => begin(app, &session).await?,
        };
        let mut writer = Writer::new(app);
        // Nobody knows in what order the index was left.
        writer.written = OPTIMIZE.0;
        let now = Instant::now();
        writer.distrusts = was_killed;
        let mut indexer = Self {
            app,
            lock,
            writer,
            follower: app.changes.follow(found.place),
            bookmark: found.bookmark,
            unsaved: false,
            suspect,
            saved: now,
            checked: now,
            optimized: now,
            purged: None,
            behind: None,
        };
        if !found.is_finished {
            indexer.compare().await?;
            indexer.save().await?;
        }
        Ok(indexer)
    }

    /// Takes what there is next, or does what is to be done while there is nothing.
    async fn once(&mut self) -> Result<()> {
        let patience = if self.unsaved { SAVE.0 } else { CHECK };
        match timeout(patience, self.follower.next()).await {
            Ok(Ok(batch)) => self.index(&batch).await?,
            Ok(Err(error)) if error.code() == Code::CursorExpired => {
                tracing::warn!(
                    "the change log does not reach back to the vector index; all rows are compared"
                );
                self.compare().await?;
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => self.rest().await?,
        }
        let due = if self.unsaved { SAVE.0 } else { SAVE.1 };
        if self.saved.elapsed() >= due {
            self.save().await?;
        }
        if self.is_due() {
            self.check().await?;
            self.retry_parked().await?;
        }
        Ok(())
    }

    async fn index(&mut self, batch: &Batch) -> Result<()> {
        let suspect = self.suspect.as_ref();
        let is_suspect = |change: &Change| suspect.is_some_and(|suspect| suspect.sees(change.xid));
        let touched = Touched::by(&batch.changes, is_suspect);
        let first = batch.changes.iter().find(|change| is_searched(&change.entity));
        let Some(first) = first else { return Ok(()) };
        if touched.truncated {
            self.compare().await?;
        }
        self.behind = Some((first.at, first.seq - 1));
        self.show_lag();
        self.bring(&touched.ids, Reborn::These(&touched.reborn)).await?;
        self.unsaved = true;
        self.behind = None;
        Ok(())
    }

    /// Brings rows to what the table says now.
    async fn bring(&mut self, ids: &[Uuid], reborn: Reborn<'_>) -> Result<()> {
        for part in ids.chunks(LOOK) {
            let due: Vec<Due> = self.writer.look(part, reborn).await?;
            for (n, step) in due.chunks(STEP).enumerate() {
                let pending = due.len() - n * STEP;
                self.app.metrics.indexer.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
                self.writer.step(step).await?;
                if self.is_due() {
                    self.check().await?;
                }
            }
            if self.writer.written >= OPTIMIZE.1 {
                self.optimize().await?;
            }
        }
        self.app.metrics.indexer.pending.set(0);
        Ok(())
    }

    /// Compares all rows with the index. What was changed after the place is still to be followed: a row that was
    /// deleted and made again may have the same version.
    async fn compare(&mut self) -> Result<()> {
        self.behind = Some((Utc::now(), i64::MAX));
        let mut comparison = Comparison::new(self.app.db.session(), self.app.searcher.vectors.clone());
        let before = self.writer.written;
        while let Some(ids) = comparison.next().await? {
            self.bring(&ids, Reborn::Compared).await?;
        }
        self.behind = None;
        let (rows, written) = (comparison.passed, self.writer.written.saturating_sub(before));
        tracing::info!(rows, written, "rows and the vector index were compared");
        Ok(())
    }

    /// Saves how far the index has come.
    async fn save(&mut self) -> Result<()> {
        self.writer.flush().await?;
        let next = self.bookmark.at(self.follower.place());
        if next.text() != self.bookmark.text() {
            if !self.app.searcher.vectors.move_bookmark(self.bookmark.text(), next.text()).await? {
                return Err(replaced());
            }
            self.bookmark = next;
            self.app.searcher.vectors.flush().await?;
        }
        // Places within a set are before its end.
        self.suspect = self.suspect.take().filter(|suspect| !self.follower.place().since.covers(suspect));
        self.writer.distrusts = self.suspect.is_some();
        (self.unsaved, self.saved) = (false, Instant::now());
        Ok(())
    }

    /// Nothing was written for a moment.
    async fn rest(&mut self) -> Result<()> {
        self.show_lag();
        if self.unsaved {
            return Ok(());
        }
        let written = self.writer.written;
        if written >= OPTIMIZE.0 || (written > 0 && self.optimized.elapsed() >= OPTIMIZE_PAUSE) {
            self.optimize().await?;
        }
        if self.purged.is_none_or(|at| at.elapsed() >= PURGE_PAUSE) {
            self.app.searcher.vectors.purge(Utc::now() - DELETION_LIFETIME).await?;
            self.purged = Some(Instant::now());
        }
        Ok(())
    }

    async fn optimize(&mut self) -> Result<()> {
        self.writer.flush().await?;
        self.app.searcher.vectors.optimize().await?;
        self.writer.flush().await?;
        (self.writer.written, self.optimized) = (0, Instant::now());
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.checked.elapsed() >= CHECK
    }

    /// Whether it is still this process's turn, and still the same index.
    async fn check(&mut self) -> Result<()> {
        if let Some(lock) = &mut self.lock {
            lock.check().await?;
        }
        let vectors = &self.app.searcher.vectors;
        let is_other = vectors.refresh().await?;
        if is_other || vectors.bookmark().await?.as_deref() != Some(self.bookmark.text()) {
            return Err(replaced());
        }
        self.show_lag();
        if let Some((_, seq)) = self.behind.filter(|(_, seq)| *seq < i64::MAX) {
            let lag = count_after(&self.app.db.session(), tables(), seq, MAX_LAG).await?;
            self.app.metrics.indexer.lag_changes.set(lag);
        }
        self.checked = Instant::now();
        Ok(())
    }

    fn show_lag(&self) {
        let since = self.behind.and_then(|(since, _)| (Utc::now() - since).to_std().ok());
        self.app.metrics.indexer.lag.set(since.unwrap_or_default().as_secs_f64());
        if self.behind.is_none() {
            self.app.metrics.indexer.lag_changes.set(0);
        }
    }

    /// Tries again what somebody wants to be tried again.
    async fn retry_parked(&mut self) -> Result<()> {
        let (session, model) = (self.app.db.session(), self.app.searcher.embedder.model());
        let (count, wanted) = parked::waiting(&session, model, RETRIED).await?;
        self.app.metrics.indexer.parked.set(count);
        if wanted.is_empty() {
            return Ok(());
        }
        self.bring(&wanted, Reborn::Compared).await?;
        self.writer.flush().await
    }
}

/// Begins with an index that does not say how far it has come, at the end of the log.
async fn begin(app: &App, session: &Session) -> Result<Found> {
    let place = Place::after(Arc::new(now(session).await?));
    let bookmark = Bookmark::unfinished(&place);
    app.searcher.vectors.set_bookmark(bookmark.text()).await?;
    Ok(Found { bookmark, place, is_finished: false })
}

fn replaced() -> Error {
    Error::new(Code::Conflict, "the vector index was replaced")
}
