//! One reader of a feed. It has a place of its own: it takes the feed's frames while it keeps up, and reads the log by
//! itself from exactly where it is when it does not, or when it begins further back, until it meets the feed again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::changes::batch::Batch;
use crate::changes::tail::{PAGE, Reached};
use crate::error::{Code, Error, Result};
use crate::live::events::{Frame, Manner, coalesced};
use crate::live::feed::Feed;
use crate::live::silence::Deadlines;
use crate::live::{Event, Next, interrupted};
use crate::model::change::{Place, Snapshot, read};
use crate::telemetry::Counted;

/// After a failure of the store.
const RETRY: Duration = Duration::from_millis(200);
/// Events that are made at once for a reader of the log, who may then not come for them.
const AHEAD: usize = 64;
/// Changes that are read at once at first: so many have passed at most since most of those left who come back, and a set
/// that one page does not hold costs statements to find its parts.
const FIRST: usize = 256;
/// Changes that are read at once where many belong to the stream: what is read and not told is read again. Where few do,
/// twice as many the next time.
const SOME: usize = AHEAD;
/// For so long a place that nobody here has seen is waited for before the log is asked whether it is known at all.
const STRANGE: Duration = Duration::from_secs(2);

/// A reader.
pub(super) struct Subscriber {
    feed: Arc<Feed>,
    /// What the reader has had when it has had `current`.
    place: Place,
    /// What it is being given.
    current: Option<(Frame, usize)>,
    frames: Option<Receiver<Frame>>,
    /// Whether it is still to be told which agents are silent, now that it has met the feed.
    recap: bool,
    /// While it reads the log.
    behind: Option<Counted>,
    /// Changes that are read at once.
    page: usize,
    reading: Arc<Semaphore>,
    over: bool,
}

impl Subscriber {
    /// A reader that begins after a place, or where the tail was when it came.
    pub(super) fn new(
        feed: Arc<Feed>,
        after: Option<Place>,
        reached: Reached,
        reading: Arc<Semaphore>,
    ) -> Self {
        let place = after.unwrap_or_else(|| Place::after(reached.snapshot));
        let mut reader = Self {
            feed,
            place,
            current: None,
            frames: None,
            recap: true,
            behind: None,
            page: FIRST,
            reading,
            over: false,
        };
        reader.meet();
        reader
    }

    /// The next event, or the reader's place when nothing has come for so long and the place is another one by then;
    /// `None` after the last event. Nothing is lost if this is dropped before it is done.
    pub(super) async fn next(&mut self, patience: Option<Duration>) -> Option<Next> {
        loop {
            if let Some(event) = self.take() {
                self.over = event.last;
                self.feed.counts().events.inc();
                return Some(Next::Event(event));
            }
            if self.over {
                return None;
            }
            if self.frames.is_some() && self.recap {
                self.tell_silent().await;
                continue;
            }
            let Some(frames) = &mut self.frames else {
                if let Err(error) = self.catch_up().await {
                    self.over = true;
                    return Some(Next::Event(Event::fatal(error)));
                }
                continue;
            };
            let received = match patience {
                Some(patience) => timeout(patience, frames.recv()).await.ok(),
                None => Some(frames.recv().await),
            };
            match received {
                Some(Ok(frame)) => self.give(frame),
                // It was too slow: the log has what it missed.
                Some(Err(RecvError::Lagged(_))) => {
                    self.frames = None;
                    self.recap = true;
                }
                Some(Err(RecvError::Closed)) => {
                    self.over = true;
                    return Some(Next::Event(Event::fatal(interrupted())));
                }
                None if self.advance() => return Some(Next::Place(self.cursor())),
                None => {}
            }
        }
    }

    /// Where the stream can be resumed by who has had all that was given.
    pub(super) fn cursor(&self) -> Arc<str> {
        self.place.cursor(&self.feed.shared.teller.cursors).into()
    }

    /// Goes to where the feed is, if it has told nothing since. Whether that is elsewhere.
    fn advance(&mut self) -> bool {
        let passed = self.frames.as_ref().and_then(|frames| self.feed.shared.passed_without(frames));
        let Some(passed) = passed.filter(|passed| *passed != self.place.since) else { return false };
        self.place = Place::after(passed);
        true
    }

    fn take(&mut self) -> Option<Event> {
        let (frame, next) = self.current.as_mut()?;
        let event = frame.get(*next)?.event.clone();
        *next += 1;
        if *next == frame.len() {
            self.current = None;
        }
        Some(event)
    }

    fn give(&mut self, frame: Frame) {
        if let Some(last) = frame.last() {
            self.place = last.place.clone();
            self.current = Some((frame, 0));
        }
    }

    /// What the feed told of silence before the reader came, or while it was behind.
    async fn tell_silent(&mut self) {
        let teller = &self.feed.shared.teller;
        let mut deadlines = Deadlines::default();
        let silent = loop {
            match teller.look_at_heartbeats(None, &mut deadlines, &self.place).await {
                Ok(silent) => break silent,
                Err(error) => {
                    tracing::debug!(?error, "heartbeats cannot be read now");
                    sleep(RETRY).await;
                }
            }
        };
        let told = teller.tell(silent, Manner::Alone).await;
        self.give(told.into());
        self.recap = false;
    }

    /// Joins the feed, if it is just where the reader is.
    fn meet(&mut self) {
        if self.place.within.is_none()
            && let Some((frames, reached)) = self.feed.shared.join()
            && reached == self.place.since
        {
            self.frames = Some(frames);
        }
    }

    /// Reads the log up to where the feed is, and joins it there.
    async fn catch_up(&mut self) -> Result<()> {
        if self.feed.is_over() {
            return Err(interrupted());
        }
        if self.behind.is_none() {
            self.behind = Some(self.feed.counts().behind());
        }
        let mut join = None;
        if self.place.within.is_none() {
            // The feed may be behind a place that another process, or the tail, gave out.
            let covered = self.feed.shared.wait_until_covers(&self.place.since);
            if timeout(STRANGE, covered).await.is_err() {
                let _turn = self.turn().await?;
                self.ask(None, 1).await?;
                return Ok(());
            }
            let Some((frames, reached)) = self.feed.shared.join() else { return Ok(()) };
            if reached == self.place.since {
                self.frames = Some(frames);
                self.behind = None;
                return Ok(());
            }
            join = Some((frames, reached));
        }
        let until = join.as_ref().map(|(_, until)| until);
        let turn = self.turn().await?;
        let (batch, mut place) = self.ask(until, self.page).await?;
        let teller = &self.feed.shared.teller;
        let mut happened = teller.happened(&batch).await;
        let page = match happened.len() {
            // That nothing was read says nothing: see `read`.
            few if few <= AHEAD / 2 && !batch.changes.is_empty() => (self.page * 2).min(PAGE),
            some if some <= AHEAD => self.page,
            _ => SOME,
        };
        if happened.len() > AHEAD {
            happened.truncate(AHEAD);
            place = happened.last().map_or(place, |last| last.place().clone());
        }
        if teller.watch.coalesce.is_some() {
            happened = coalesced(happened);
        }
        let told: Frame = teller.tell(happened, Manner::Alone).await.into();
        drop(turn);
        // From here on nothing waits, so that all of it happens or nothing.
        let there = place.within.is_none();
        self.give(told);
        self.place = place;
        self.page = page;
        self.frames = join.filter(|_| there).map(|(frames, _)| frames);
        if self.frames.is_some() {
            self.behind = None;
        }
        Ok(())
    }

    /// Waits until it may read the log: of those who are behind a few do at the same time, for the sake of those who are
    /// not.
    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        self.reading.clone().acquire_owned().await.map_err(Error::internal)
    }

    /// Reads a part of the log; waits for a store that does not answer.
    async fn ask(&self, until: Option<&Arc<Snapshot>>, limit: usize) -> Result<(Batch, Place)> {
        loop {
            let session = self.feed.shared.teller.db.session();
            match read(&session, &self.place, until, limit).await {
                Err(error) if [Code::Unavailable, Code::Timeout].contains(&error.code()) => {
                    sleep(RETRY).await;
                }
                read => return read.map(|slice| Batch::new(None, slice)),
            }
        }
    }
}
