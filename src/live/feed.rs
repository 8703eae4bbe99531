//! A feed: one task that follows the tail for everybody who wants the same, makes each event once and passes it on.
//! It never waits for a reader. It ends with the last of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::app::App;
use crate::cache::key::Key;
use crate::changes::follower::Follower;
use crate::changes::tail::{Reached, Tail, held};
use crate::graphql::subscription::Watch;
use crate::live::events::{Frame, Happened, Manner, Teller, Told, coalesced, frames};
use crate::live::silence::Deadlines;
use crate::live::{Event, Live, interrupted};
use crate::model::change::{Place, Snapshot};
use crate::telemetry::LiveMetrics;

/// Frames that wait for slow readers. Who is further behind reads the log.
const KEPT: usize = 32;
/// After a failure of the store.
const RETRY: Duration = Duration::from_millis(500);
/// Changes that are gathered into events at most.
const GATHERED: usize = 10_000;

/// What those who want the same share.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    running: JoinHandle<()>,
    live: Live,
    key: Key,
}

pub(super) struct Shared {
    pub(super) teller: Teller,
    pub(super) tail: Tail,
    frames: broadcast::Sender<Frame>,
    /// Held while frames are sent and counted as such, so that who joins knows which frames are still to come.
    joining: Mutex<()>,
    reached: watch::Sender<Passed>,
    over: AtomicBool,
}

/// How far a feed has come.
#[derive(Debug, Clone)]
struct Passed {
    /// The tail's last batch, if it has come to where the tail is.
    batch: Option<u64>,
    /// All that this one sees has been told.
    snapshot: Arc<Snapshot>,
    /// More than that: a part of a set that is still being read.
    midst: bool,
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Nobody is left to be told.
        self.shared.over.store(true, Ordering::Release);
        self.running.abort();
        self.live.forget(&self.key);
        self.live.counts().feeds.dec();
    }
}

impl Feed {
    /// Starts to follow the tail from where it is.
    pub(super) fn start(app: &App, watch: Watch, reached: Reached, live: Live, key: Key) -> Arc<Self> {
        let (graph, db, cursors) = (app.graph.clone(), app.db.clone(), app.cursors.clone());
        let (rows, standing) = (live.row_reader(app, &watch), live.standing().clone());
        let teller = Teller { watch, graph, db, cursors, rows, standing };
        let follower = app.changes.follow(Place::after(reached.snapshot.clone()));
        let passed = Passed { batch: Some(reached.batch), snapshot: reached.snapshot, midst: false };
        let shared = Arc::new(Shared {
            teller,
            tail: app.changes.clone(),
            frames: broadcast::Sender::new(KEPT),
            joining: Mutex::default(),
            reached: watch::Sender::new(passed),
            over: AtomicBool::new(false),
        });
        let running = tokio::spawn(follow(shared.clone(), follower));
        live.counts().feeds.inc();
        Arc::new(Self { shared, running, live, key })
    }

    pub(super) fn counts(&self) -> &LiveMetrics {
        self.live.counts()
    }

    /// Whether nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Acquire) || self.running.is_finished()
    }
}

impl Shared {
    /// Waits until everything that the snapshot sees has been told.
    pub(super) async fn wait_until_covers(&self, since: &Snapshot) {
        let mut reached = self.reached.subscribe();
        let mut tail = self.tail.watch();
        while self.passed().is_none_or(|passed| !passed.covers(since)) {
            let changed = tokio::select! {
                changed = reached.changed() => changed,
                changed = tail.changed() => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The frames from now on, and the snapshot after which they begin; `None` in the midst of a set.
    pub(super) fn join(&self) -> Option<(broadcast::Receiver<Frame>, Arc<Snapshot>)> {
        let _held = held(&self.joining);
        Some((self.frames.subscribe(), self.passed()?))
    }

    /// How far the feed has come, if there is no frame that this reader has not had.
    pub(super) fn passed_without(&self, frames: &broadcast::Receiver<Frame>) -> Option<Arc<Snapshot>> {
        let _held = held(&self.joining);
        frames.is_empty().then(|| self.passed())?
    }

    fn passed(&self) -> Option<Arc<Snapshot>> {
        let passed = self.reached.borrow().clone();
        // Where nothing happens the tail goes on without a batch.
        let tail = self.tail.reached().filter(|tail| passed.batch == Some(tail.batch));
        (!passed.midst).then(|| tail.map_or(passed.snapshot, |tail| tail.snapshot))
    }

    /// Passes on what is no part of the log.
    fn announce(&self, told: Vec<Told>) {
        let _held = held(&self.joining);
        // Nobody may be listening.
        frames(told).into_iter().for_each(|frame| drop(self.frames.send(frame)));
    }

    fn publish(&self, told: Vec<Told>, passed: Option<Passed>) {
        let _held = held(&self.joining);
        let told_some = !told.is_empty();
        for frame in frames(told) {
            // Nobody may be listening.
            drop(self.frames.send(frame));
        }
        match passed {
            Some(passed) => drop(self.reached.send_replace(passed)),
            None if told_some => self.reached.send_modify(|passed| passed.midst = true),
            None => {}
        }
    }
}

/// What was gathered and not yet told.
#[derive(Default)]
struct Gathered {
    happened: Vec<Happened>,
    /// When it is to be told.
    due: Option<Instant>,
    /// The end of the last whole set.
    passed: Option<Passed>,
}

/// Tells the readers that nothing comes any more, however the task ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.0.over.swap(true, Ordering::AcqRel) {
            let place = Place::after(self.0.reached.borrow().snapshot.clone());
            self.0.announce(vec![Told { event: Event::fatal(interrupted()), place }]);
        }
    }
}

/// Follows the tail and tells, until it is dropped or the log does not reach back to where it is.
async fn follow(shared: Arc<Shared>, mut follower: Follower) {
    let _ending = Ending(shared.clone());
    let teller = &shared.teller;
    let pause = teller.watch.coalesce;
    let mut gathered = Gathered::default();
    let mut deadlines = Deadlines::default();
    // Who is silent already is told to each reader as it comes.
    while let Err(error) = teller.look_at_heartbeats(None, &mut deadlines, follower.place()).await {
        tracing::debug!(?error, "heartbeats cannot be read now");
        sleep(RETRY).await;
    }
    loop {
        let silence = deadlines.next().map(|wait| Instant::now() + wait);
        let next = match [gathered.due, silence].into_iter().flatten().min() {
            Some(due) => timeout_at(due, follower.next()).await.ok(),
            None => Some(follower.next().await),
        };
        match next {
            Some(Ok(batch)) => {
                teller.note_heartbeats(&batch, &mut deadlines);
                gathered.happened.extend(teller.happened(&batch).await);
                let passed = Passed { batch: follower.batch(), snapshot: batch.until.clone(), midst: false };
                gathered.passed = batch.complete.then_some(passed);
                if !gathered.happened.is_empty() && gathered.due.is_none() {
                    gathered.due = Some(Instant::now() + pause.unwrap_or(Duration::ZERO));
                }
            }
            Some(Err(error)) => {
                let place = follower.place().clone();
                shared.over.store(true, Ordering::Release);
                shared.publish(vec![Told { event: Event::fatal(error), place }], None);
                return;
            }
            None => {}
        }
        let silent = silence.is_some_and(|silence| silence <= Instant::now());
        let waits = gathered.due.is_some_and(|due| due > Instant::now());
        if !waits || silent || gathered.happened.len() >= GATHERED {
            let Gathered { happened, passed, .. } = std::mem::take(&mut gathered);
            let happened = if pause.is_some() { coalesced(happened) } else { happened };
            let told = teller.tell(happened, Manner::Together).await;
            shared.publish(told, passed);
        }
        if silent {
            // What was gathered has been told, so the follower's place is that of the readers.
            match teller.silent(&mut deadlines, follower.place()).await {
                Ok(silent) => shared.announce(teller.tell(silent, Manner::Together).await),
                Err(error) => tracing::debug!(?error, "heartbeats cannot be read now"),
            }
        }
    }
}
