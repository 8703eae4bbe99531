//! The operations of one socket: each is a task of its own, has an id, and hands over one answer at a time. They take
//! turns, because those who wait with an answer are served in the order in which they came. A few answers may wait to be
//! written, so that several are written at once.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::graphql::refusal;

/// Answers that wait to be written. Those of streams are shared, and the others would wait in their tasks.
const WAITING: usize = 16;

/// The operations of one socket. All clones are the same; with the last one all operations end.
#[derive(Clone)]
pub(super) struct Hub(Arc<Inner>);

struct Inner {
    most: usize,
    state: Mutex<State>,
    out: mpsc::Sender<Said>,
    /// How many there are.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    operations: HashMap<Arc<str>, Running>,
    begun: u64,
    /// No more are let in.
    closing: bool,
}

struct Running {
    /// Which one of those that had the id.
    number: u64,
    /// It has answers without end.
    streams: bool,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an operation has to say.
pub(super) struct Said {
    pub(super) id: Arc<str>,
    number: u64,
    pub(super) what: What,
}

/// What is said.
pub(super) enum What {
    /// A result, and the cursor of what can be resumed after it.
    Next(Bytes, Option<Arc<str>>),
    /// Nothing happened, and what can be resumed can be resumed here.
    Place(Arc<str>),
    /// `{"errors": […]}`: it is over and was not executed, or not to its end.
    Error(Bytes),
    /// It is over.
    Complete,
}

impl Said {
    /// Whether the operation is over.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.what, What::Error(_) | What::Complete)
    }
}

/// Why an operation does not begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unbegun {
    /// There is one of this id.
    Taken,
    /// There are too many.
    TooMany,
    /// The socket is about to end.
    Closing,
}

impl Hub {
    /// None so far. What they say comes out of the receiver.
    pub(super) fn new(most: u32) -> (Self, mpsc::Receiver<Said>) {
        let (out, said) = mpsc::channel(WAITING);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let (state, count) = (Mutex::default(), watch::Sender::new(0));
        (Self(Arc::new(Inner { most, state, out, count })), said)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation.
    pub(super) fn begin<F>(&self, id: &str, work: impl FnOnce(Voice) -> F) -> Result<(), Unbegun>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut state = self.state();
        if state.operations.contains_key(id) {
            return Err(Unbegun::Taken);
        }
        if state.closing {
            return Err(Unbegun::Closing);
        }
        if state.operations.len() >= self.0.most {
            return Err(Unbegun::TooMany);
        }
        state.begun += 1;
        let number = state.begun;
        let id: Arc<str> = id.into();
        let voice = Voice { hub: Arc::downgrade(&self.0), out: self.0.out.clone(), id: id.clone(), number };
        let apology = voice.clone();
        let work = AssertUnwindSafe(work(voice)).catch_unwind();
        let task = tokio::spawn(async move {
            // The panic's text is in the log.
            if work.await.is_err() {
                apology.error(refusal(&Error::internal("an operation panicked").into())).await;
            }
        });
        let running = Running { number, streams: false, task: task.abort_handle() };
        state.operations.insert(id, running);
        self.0.count.send_replace(state.operations.len());
        Ok(())
    }

    /// Ends an operation, at once. Whether there was one.
    pub(super) fn cancel(&self, id: &str) -> bool {
        let mut state = self.state();
        let found = state.operations.remove(id);
        self.0.count.send_replace(state.operations.len());
        found.is_some()
    }

    /// Whether it comes from an operation that has not been ended meanwhile.
    pub(super) fn is_current(&self, said: &Said) -> bool {
        self.state().operations.get(&said.id).is_some_and(|running| running.number == said.number)
    }

    /// It was handed over. After the last word the id is free again.
    pub(super) fn heard(&self, said: &Said) {
        if said.is_last() && self.is_current(said) {
            self.cancel(&said.id);
        }
    }

    /// Ends what has no end of its own and lets nothing more in; the rest may finish.
    pub(super) fn wind_up(&self) {
        let mut state = self.state();
        state.closing = true;
        state.operations.retain(|_, running| !running.streams);
        self.0.count.send_replace(state.operations.len());
    }

    /// Ends all of them, at once, and lets nothing more in.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.closing = true;
        state.operations.clear();
        self.0.count.send_replace(0);
    }

    /// Resolves when none runs.
    pub(super) async fn all_done(&self) {
        // The sender lives as long as this does.
        drop(self.0.count.subscribe().wait_for(|count| *count == 0).await);
    }

    /// The ids of those that run.
    pub(super) fn ids(&self) -> Vec<Arc<str>> {
        self.state().operations.keys().cloned().collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.operations.clear();
    }
}

/// By which an operation speaks. It waits until it is heard; when nobody listens any more, it is about to be ended.
#[derive(Clone)]
pub(super) struct Voice {
    hub: std::sync::Weak<Inner>,
    out: mpsc::Sender<Said>,
    id: Arc<str>,
    number: u64,
}

impl Voice {
    /// It will have answers without end.
    pub(super) fn streams(&self) {
        let Some(hub) = self.hub.upgrade().map(Hub) else { return };
        let mut state = hub.state();
        let closing = state.closing;
        if closing {
            state.operations.remove(&self.id);
            hub.0.count.send_replace(state.operations.len());
        } else if let Some(running) = state.operations.get_mut(&self.id).filter(|it| it.number == self.number)
        {
            running.streams = true;
        }
    }

    /// It was refused elsewhere and says nothing here.
    pub(super) fn leave(&self) {
        let Some(hub) = self.hub.upgrade().map(Hub) else { return };
        hub.heard(&Said { id: self.id.clone(), number: self.number, what: What::Complete });
    }

    /// A result.
    pub(super) async fn next(&self, body: Bytes, cursor: Option<Arc<str>>) {
        self.say(What::Next(body, cursor)).await;
    }

    /// Where it is.
    pub(super) async fn place(&self, cursor: Arc<str>) {
        self.say(What::Place(cursor)).await;
    }

    /// The end, by an error.
    pub(super) async fn error(&self, body: impl Into<Bytes>) {
        self.say(What::Error(body.into())).await;
    }

    /// The end.
    pub(super) async fn complete(&self) {
        self.say(What::Complete).await;
    }

    async fn say(&self, what: What) {
        // Nobody is there to hear it: then nobody misses it.
        drop(self.out.send(Said { id: self.id.clone(), number: self.number, what }).await);
    }
}
