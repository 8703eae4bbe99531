//! What one connection is doing, as far as its time limits care: a head is coming in, requests are being answered,
//! the client does not take what is written to it, or nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by the socket, the requests on it and whoever watches over them.
pub(super) struct Activity {
    state: Mutex<State>,
    close: Notify,
    /// Told when bytes go out again.
    unblocked: Notify,
}

struct State {
    /// Requests whose answers have not been handed over in whole.
    running: u32,
    /// Since when it has been as it is, when nothing runs.
    since: Instant,
    /// The first bytes of a request's head have come.
    head: bool,
    /// Bytes come in and go out without requests too, so they say nothing.
    http2: bool,
    /// Since when the client has not taken a byte of what is there for it.
    blocked: Option<Instant>,
    /// It has been asked to end.
    closing: bool,
    /// How long the client may take nothing, if not as long as others.
    patience: Option<Duration>,
}

/// What the time limits say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before then.
    Fine(Instant),
    /// The head of a request takes too long.
    SlowHead,
    /// The client does not read.
    SlowReader,
    /// Nothing has happened for too long.
    Idle,
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let (head, http2, blocked, closing, patience) = Default::default();
        let state = State { running: 0, since: now, head, http2, blocked, closing, patience };
        Self { state: Mutex::new(state), close: Notify::new(), unblocked: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came in.
    pub(super) fn received(&self) {
        let mut state = self.state();
        if state.running == 0 && !state.head && !state.http2 {
            state.head = true;
            state.since = Instant::now();
        }
    }

    /// Bytes went out, or could not.
    pub(super) fn wrote(&self, progress: bool) {
        let mut state = self.state();
        if !progress {
            state.blocked.get_or_insert_with(Instant::now);
        } else if state.blocked.take().is_some() {
            state.since = Instant::now();
            drop(state);
            self.unblocked.notify_waiters();
        }
    }

    /// From now on the client may take nothing for so long.
    pub(super) fn be_patient(&self, patience: Duration) {
        self.state().patience = Some(patience);
    }

    /// Resolves when bytes go out, or none have tried to.
    pub(super) async fn writable(&self) {
        loop {
            let mut unblocked = std::pin::pin!(self.unblocked.notified());
            // From here on nothing is missed.
            unblocked.as_mut().enable();
            if self.state().blocked.is_none() {
                return;
            }
            unblocked.await;
        }
    }

    /// A request begins; it runs until what is given back is dropped.
    pub(super) fn begin(self: &Arc<Self>, http2: bool) -> Running {
        let mut state = self.state();
        state.running += 1;
        state.head = false;
        state.http2 = http2;
        Running(self.clone())
    }

    /// Since when nothing has happened, if nothing happens and nobody has asked for its end yet.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        let idle = state.running == 0 && !state.head && !state.closing && state.blocked.is_none();
        idle.then_some(state.since)
    }

    /// Asks for the end of the connection.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.close.notify_one();
    }

    /// Whether it was asked to end by now and does nothing that would be a reason not to.
    pub(super) fn is_over(&self, last_call: Option<Instant>) -> bool {
        last_call.is_some_and(|end| Instant::now() >= end) && self.state().running == 0
    }

    /// Resolves when somebody asks for its end.
    pub(super) async fn asked_to_close(&self) {
        self.close.notified().await;
    }

    /// Compares with the limits.
    pub(super) fn judge(&self, header_timeout: Duration, idle_timeout: Duration) -> Verdict {
        let state = self.state();
        let now = Instant::now();
        let (deadline, verdict) = match (state.blocked, state.running) {
            (Some(blocked), _) => (blocked + state.patience.unwrap_or(idle_timeout), Verdict::SlowReader),
            // Whatever comes after the running request has at least this long, so looking then is in time.
            (None, 1..) => return Verdict::Fine(now + header_timeout.min(idle_timeout)),
            (None, 0) if state.head => (state.since + header_timeout, Verdict::SlowHead),
            (None, 0) => (state.since + idle_timeout, Verdict::Idle),
        };
        // An idle connection may receive a head at once, whose limit may end before the one on idleness.
        let next = deadline.min(now + header_timeout);
        if now >= deadline { verdict } else { Verdict::Fine(next) }
    }
}

/// A request that is being answered.
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.since = Instant::now();
    }
}
