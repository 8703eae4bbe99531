//! Live: subscriptions as streams of events that lose and repeat nothing. Those who want the same share a feed
//! (`feed.rs`), which follows the tail and makes each event once; who is slow, or begins further back, reads the log on
//! its own until it has caught up with its feed (`subscriber.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::cache::key::Key;
use crate::error::Error;
use crate::graphql::admit::{Admitted, Refusal};
use crate::graphql::refusal;
use crate::live::feed::Feed;
use crate::live::limits::{Open, Opened};
use crate::live::subscriber::Subscriber;
use crate::model::viewer::Viewer;
use crate::telemetry::{Counted, LiveMetrics};

mod events;
mod feed;
pub mod limits;
mod subscriber;

/// Streams that read the log at the same time. The others wait for their turn: after a deploy thousands come back at
/// once, and each of them needs a connection to PostgreSQL.
const READERS: usize = 4;

/// The streams of this process. All clones are the same.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    feeds: Mutex<HashMap<Key, Weak<Feed>>>,
    reading: Arc<Semaphore>,
    open: Open,
    counts: LiveMetrics,
}

/// What a client is sent.
#[derive(Debug, Clone)]
pub struct Event {
    /// A whole GraphQL response in JSON.
    pub body: Bytes,
    /// Where the stream can be resumed after it.
    pub cursor: Option<Arc<str>>,
    /// Whether nothing comes after it.
    pub last: bool,
}

impl Event {
    /// The end of a stream that cannot go on.
    fn fatal(error: Error) -> Self {
        Self { body: refusal(&error.into()).into(), cursor: None, last: true }
    }
}

/// One client's stream. Dropping it ends it.
pub struct Stream {
    subscriber: Subscriber,
    /// Count it as open.
    _opened: (Opened, Counted),
}

impl Stream {
    /// The next event; `None` when it is over. Nothing is computed ahead of the reader without bound, and a reader may
    /// take as long as it likes between two calls: what it misses is read again from the log. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.subscriber.next().await
    }
}

impl Live {
    /// No streams yet.
    pub fn new(open: Open, counts: LiveMetrics) -> Self {
        let reading = Arc::new(Semaphore::new(READERS));
        Self(Arc::new(Shared { feeds: Mutex::default(), reading, open, counts }))
    }

    /// Begins a stream. `resume` is the cursor of the last event that the client had; it stands for the argument
    /// `after` when that is absent. Refused as an operation is refused, with the same codes.
    pub async fn open(
        &self,
        app: &App,
        admitted: Admitted,
        viewer: Viewer,
        resume: Option<String>,
    ) -> Result<Stream, Refusal> {
        let opened = self.0.open.take(&viewer)?;
        if admitted.operation.kind != "subscription" {
            return Err(Error::bad_input("query", "is not a subscription").into());
        }
        let watch = app.graph.subscribe(admitted, &viewer, resume.as_deref()).await?;
        // What was committed by now and is not asked for by `after` is not told.
        let reached = match app.changes.reached() {
            Some(reached) => reached,
            None => app.changes.catch_up(app.config.consistency_wait()).await?,
        };
        let after = watch.after.clone();
        let key = app.cache.keys().of_operation(&viewer, watch.personal, &watch.identity);
        let feed = self.feed(key, || Feed::start(app, watch, reached.clone(), self.clone(), key));
        let subscriber = Subscriber::new(feed, after, reached, self.0.reading.clone());
        Ok(Stream { subscriber, _opened: (opened, self.counts().opened("subscription")) })
    }

    fn feed(&self, key: Key, start: impl FnOnce() -> Arc<Feed>) -> Arc<Feed> {
        let mut feeds = self.feeds();
        if let Some(feed) = feeds.get(&key).and_then(Weak::upgrade).filter(|feed| !feed.is_over()) {
            return feed;
        }
        let feed = start();
        feeds.insert(key, Arc::downgrade(&feed));
        feed
    }

    /// Forgets a feed that nobody follows any more.
    fn forget(&self, key: &Key) {
        let mut feeds = self.feeds();
        if feeds.get(key).is_some_and(|feed| feed.strong_count() == 0) {
            feeds.remove(key);
        }
    }

    fn counts(&self) -> &LiveMetrics {
        &self.0.counts
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<Key, Weak<Feed>>> {
        self.0.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
