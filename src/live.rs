//! Live: subscriptions as streams of events that lose and repeat nothing. Those who want the same share a feed
//! (`feed.rs`), which follows the tail and makes each event once; who is slow, or begins further back, reads the log on
//! its own until it has caught up with its feed (`subscriber.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::cache::flight::Flights;
use crate::cache::key::Key;
use crate::changes::tail::held;
use crate::error::{Code, Error};
use crate::graphql::admit::{Admitted, Refusal};
use crate::graphql::refusal;
use crate::graphql::search::Searcher;
use crate::graphql::subscription::Watch;
use crate::live::feed::Feed;
use crate::live::limits::{Open, Opened};
use crate::live::query::Query;
use crate::live::rows::Reader as RowReader;
use crate::live::standing::Standing;
use crate::live::subscriber::Subscriber;
use crate::model::viewer::Viewer;
use crate::store::db::Db;
use crate::telemetry::{Counted, LiveMetrics};

mod events;
mod feed;
pub mod limits;
mod query;
mod rows;
mod silence;
mod standing;
mod subscriber;

/// Streams that read the log at the same time. The others wait for their turn: after a deploy thousands come back at
/// once, and each of them needs a connection to PostgreSQL.
const READERS: usize = 2;
/// Reads of rows for feeds at the same time. The pool is for requests, too, and many feeds learn of a change at once.
const LOADING: usize = 4;

/// The streams of this process. All clones are the same.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    feeds: Shares<Feed>,
    queries: Shares<Query>,
    row_readers: Shares<RowReader>,
    /// Who begins a live query.
    flights: Flights,
    standing: Standing,
    reading: Arc<Semaphore>,
    loading: Semaphore,
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

/// What a stream comes to.
#[derive(Debug, Clone)]
pub enum Next {
    /// An event.
    Event(Event),
    /// Nothing for a while: the stream can be resumed here as well as after its last event.
    Place(Arc<str>),
}

/// What a stream ends with that could have gone on, had we not failed: it does when its client comes back.
fn interrupted() -> Error {
    let text = "the stream was interrupted; open it again, after its last cursor if it has one";
    Error::new(Code::Unavailable, text)
}

impl Event {
    /// The end of a stream that cannot go on.
    fn fatal(error: Error) -> Self {
        Self { body: refusal(&error.into()).into(), cursor: None, last: true }
    }
}

/// One client's stream. Dropping it ends it.
pub struct Stream {
    reader: Reader,
    /// Count it as open.
    _opened: (Opened, Counted),
}

enum Reader {
    Events(Subscriber),
    Answers(query::Reader),
}

impl Stream {
    /// The next event; or, when nothing has come for so long and the log has gone on, where the stream can be resumed
    /// now. `None` when it is over. Nothing is computed ahead of the reader without bound, and a reader may take as
    /// long as it likes between two calls: what it misses is read again from the log. Cancel-safe.
    pub async fn next(&mut self, patience: Option<Duration>) -> Option<Next> {
        match &mut self.reader {
            Reader::Events(events) => events.next(patience).await,
            Reader::Answers(answers) => answers.next().await.map(Next::Event),
        }
    }

    /// Where the stream can be resumed before its first event; `None` if it cannot.
    pub fn cursor(&self) -> Option<Arc<str>> {
        match &self.reader {
            Reader::Events(events) => Some(events.cursor()),
            Reader::Answers(_) => None,
        }
    }
}

impl Live {
    /// No streams yet.
    pub fn new(open: Open, searcher: Searcher, db: Db, counts: LiveMetrics) -> Self {
        let reading = Arc::new(Semaphore::new(READERS));
        let (feeds, queries, row_readers) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (flights, loading) = (Flights::default(), Semaphore::new(LOADING));
        let standing = Standing::new(searcher, db);
        let shared =
            Shared { feeds, queries, row_readers, flights, standing, reading, loading, open, counts };
        Self(Arc::new(shared))
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
        if let Some(how) = admitted.live {
            let answers = query::open(self, app, admitted, &viewer, how).await?;
            let counted = self.counts().opened("live_query");
            return Ok(Stream { reader: Reader::Answers(answers), _opened: (opened, counted) });
        }
        if admitted.operation.kind != "subscription" {
            let text = "only a subscription, or a query with @live, is a stream";
            return Err(Error::new(Code::BadUserInput, text).into());
        }
        let watch = app.graph.subscribe(admitted, &viewer, resume.as_deref()).await?;
        // What was committed by now and is not asked for by `after` is not told.
        let reached = match app.changes.reached() {
            Some(reached) => reached,
            None => app.changes.catch_up(app.config.consistency_wait()).await?,
        };
        let after = watch.after.clone();
        let kind = if watch.question.is_some() { "standing_search" } else { "subscription" };
        let key = app.cache.keys().of_operation(&viewer, watch.personal, &watch.identity);
        let feed = self.feed(key, || Feed::start(app, watch, reached.clone(), self.clone(), key));
        let subscriber = Subscriber::new(feed, after, reached, self.0.reading.clone());
        Ok(Stream { reader: Reader::Events(subscriber), _opened: (opened, self.counts().opened(kind)) })
    }

    fn feed(&self, key: Key, start: impl FnOnce() -> Arc<Feed>) -> Arc<Feed> {
        find_or_start(&self.0.feeds, key, Feed::is_over, start)
    }

    fn query(&self, key: &Key) -> Option<Arc<Query>> {
        // Not in the same statement: the last one to drop it takes the lock.
        let known = held(&self.0.queries).get(key).and_then(Weak::upgrade);
        known.filter(|query| !query.is_over())
    }

    fn keep_query(&self, key: Key, start: impl FnOnce() -> Arc<Query>) -> Arc<Query> {
        find_or_start(&self.0.queries, key, Query::is_over, start)
    }

    /// Forgets a feed that nobody follows any more.
    fn forget(&self, key: &Key) {
        forget(&self.0.feeds, key);
    }

    /// Who reads the rows that a subscription shows.
    fn row_reader(&self, app: &App, watch: &Watch) -> Arc<RowReader> {
        let key = app.cache.keys().of_operation(&watch.viewer, watch.personal, &watch.display);
        let start = || RowReader::new(watch.shown(), app.graph.clone(), app.db.clone(), self.clone(), key);
        find_or_start(&self.0.row_readers, key, |_| false, start)
    }

    fn forget_reader(&self, key: &Key) {
        forget(&self.0.row_readers, key);
    }

    fn loading(&self) -> &Semaphore {
        &self.0.loading
    }

    fn forget_query(&self, key: &Key) {
        forget(&self.0.queries, key);
    }

    fn standing(&self) -> &Standing {
        &self.0.standing
    }

    fn flights(&self) -> &Flights {
        &self.0.flights
    }

    fn counts(&self) -> &LiveMetrics {
        &self.0.counts
    }
}

/// What those share who want the same.
type Shares<T> = Mutex<HashMap<Key, Weak<T>>>;

fn find_or_start<T>(
    shares: &Shares<T>,
    key: Key,
    is_over: impl Fn(&T) -> bool,
    start: impl FnOnce() -> Arc<T>,
) -> Arc<T> {
    let mut shares = held(shares);
    let known = shares.get(&key).and_then(Weak::upgrade);
    if let Some(known) = known.as_ref().filter(|known| !is_over(known)) {
        return known.clone();
    }
    let started = start();
    shares.insert(key, Arc::downgrade(&started));
    // The last one to drop a share takes the lock.
    drop(shares);
    drop(known);
    started
}

fn forget<T>(shares: &Shares<T>, key: &Key) {
    let mut shares = held(shares);
    if shares.get(key).is_some_and(|known| known.strong_count() == 0) {
        shares.remove(key);
    }
}
