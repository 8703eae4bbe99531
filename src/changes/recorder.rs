//! The recorder: writes down what the change log tells, as entries of the audit log for what other programs wrote and
//! as activities for people (`model/trail.rs` says what). One process at a time does it, by a lock of the database;
//! the place up to which it is done is saved with what it writes and moved by nobody else, so that nothing is recorded
//! twice or left out, whoever is killed when.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::changes::batch::Batch;
use crate::changes::follower::Follower;
use crate::error::{Code, Result};
use crate::model::trail::{RECORDING, Saved, Unfinished, is_worth_recording, record, skip_gap};
use crate::store::db::Session;

/// Between two attempts to become the one who records.
const WAIT: Duration = Duration::from_secs(1);
/// Between two looks at whether the lock is still held.
const CHECK: Duration = Duration::from_secs(2);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// A place behind which there was nothing to record is saved this often, so that it does not expire.
const SAVE: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub async fn run(app: App) {
    let (mut waiting, mut failing) = (None, false);
    loop {
        let Err(error) = lead(&app, &mut waiting, &mut failing).await;
        // The one who was overtaken has nothing to complain of.
        if !failing && error.code() != Code::Conflict {
            tracing::warn!(?error, "changes cannot be recorded; trying again until they can");
            failing = true;
        }
        app.metrics.recorder.active.set(0);
        show_lag(&app, waiting);
        sleep(RETRY).await;
    }
}

/// Records, once it is this process's turn. `waiting` is the time of the oldest change that is known and not recorded.
async fn lead(app: &App, waiting: &mut Option<DateTime<Utc>>, failing: &mut bool) -> Result<Infallible> {
    let mut lock = app.db.session_lock(RECORDING).await?;
    while !lock.take().await? {
        (*waiting, *failing) = (None, false);
        show_lag(app, None);
        sleep(WAIT).await;
    }
    app.metrics.recorder.active.set(1);
    let mut recorder = Recorder::open(app).await?;
    let mut checked = Instant::now();
    loop {
        let next = timeout(CHECK, recorder.follower.next()).await;
        if checked.elapsed() >= CHECK {
            lock.check().await?;
            checked = Instant::now();
        }
        match next {
            Ok(Ok(batch)) => {
                *waiting = batch.changes.first().map(|change| change.at);
                show_lag(app, *waiting);
                recorder.record(app, &batch).await?;
                *waiting = None;
            }
            Ok(Err(error)) if error.code() == Code::CursorExpired => recorder.skip_gap(app).await?,
            Ok(Err(error)) => return Err(error),
            Err(_) => show_lag(app, None),
        }
        if std::mem::take(failing) {
            tracing::info!("changes are recorded again");
        }
    }
}

fn show_lag(app: &App, waiting: Option<DateTime<Utc>>) {
    let lag = waiting.and_then(|since| (Utc::now() - since).to_std().ok()).unwrap_or_default();
    app.metrics.recorder.lag.set(lag.as_secs_f64());
}

/// The one who records.
struct Recorder {
    session: Session,
    follower: Follower,
    saved: Saved,
    saved_at: Instant,
    unfinished: Unfinished,
    /// Whether the next batch begins a set, so that no transaction of it was seen before.
    between_sets: bool,
}

impl Recorder {
    async fn open(app: &App) -> Result<Self> {
        let session = app.db.session();
        let saved = Saved::load(&session).await?;
        Self::at(app, session, saved)
    }

    fn at(app: &App, session: Session, saved: Saved) -> Result<Self> {
        Ok(Self {
            session,
            follower: app.changes.follow(saved.place()?),
            saved,
            saved_at: Instant::now(),
            unfinished: Unfinished::default(),
            between_sets: false,
        })
    }

    async fn record(&mut self, app: &App, batch: &Batch) -> Result<()> {
        let whole = self.between_sets && batch.complete;
        self.between_sets = batch.complete;
        if !is_worth_recording(&batch.changes) && self.saved_at.elapsed() < SAVE {
            return Ok(());
        }
        let place = self.follower.place();
        let scope = (whole, &mut self.unfinished);
        let recorded = record(&self.session, &self.saved, place, &batch.changes, scope).await?;
        app.metrics.recorder.wrote("audit", recorded.audited);
        app.metrics.recorder.wrote("activity", recorded.told);
        (self.saved, self.saved_at) = (recorded.saved, Instant::now());
        Ok(())
    }

    async fn skip_gap(&mut self, app: &App) -> Result<()> {
        let saved = skip_gap(&self.session, &self.saved).await?;
        tracing::error!("changes were pruned before they were recorded; the audit log says where the gap is");
        app.metrics.recorder.gaps.inc();
        *self = Self::at(app, self.session.clone(), saved)?;
        Ok(())
    }
}
