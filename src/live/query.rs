//! Live queries: an answer that is made again whenever the freshness rule says that it may have changed, once for all
//! who ask the same, and sent when its bytes differ. A reader that is slow gets the newest answer and not each.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::app::App;
use crate::cache::flight::{Landing, Part};
use crate::cache::freshness::Verdict;
use crate::cache::key::Key;
use crate::cache::sources::Sources;
use crate::error::{Code, Error, Result};
use crate::graphql::admit::{Admitted, Refusal};
use crate::graphql::live::LiveQuery;
use crate::live::{Event, Live, interrupted};
use crate::model::viewer::Viewer;
use crate::model::write::Origin;

/// After an execution that failed for want of a store.
const RETRY: Duration = Duration::from_secs(1);

/// What those share who ask the same.
pub(super) struct Query {
    states: watch::Receiver<Arc<State>>,
    running: JoinHandle<()>,
    live: Live,
    key: Key,
}

/// An answer.
struct State {
    number: u64,
    body: Bytes,
    /// The answer before, if a patch could lead from it to this one.
    before: Option<Bytes>,
    patch: OnceLock<Option<String>>,
    last: bool,
}

/// One execution.
struct Executed {
    body: Bytes,
    sources: Sources,
    /// The tail's batch at which it began.
    since: u64,
    begun: Instant,
    /// How old it may become.
    lifetime: Option<Duration>,
    personal: bool,
}

/// What came of an execution.
enum Outcome {
    Done(Executed),
    /// The operation cannot be executed, and will not be: what to say.
    Wrong(Bytes),
    /// A store does not answer.
    Failed(Bytes),
}

/// Who executes what, and for whom.
struct Work {
    app: App,
    admitted: Admitted,
    viewer: Viewer,
    throttle: Duration,
}

impl Drop for Query {
    fn drop(&mut self) {
        self.running.abort();
        self.live.forget_query(&self.key);
        self.live.counts().feeds.dec();
    }
}

/// One reader of a live query.
pub(super) struct Reader {
    query: Option<Arc<Query>>,
    states: watch::Receiver<Arc<State>>,
    seen: Option<u64>,
    patch: bool,
    revision: u64,
    over: bool,
}

/// Joins a live query, or begins it.
pub(super) async fn open(
    live: &Live,
    app: &App,
    mut admitted: Admitted,
    viewer: &Viewer,
    how: LiveQuery,
) -> Result<Reader, Refusal> {
    let identity = admitted.identity();
    let keys = [false, true].map(|personal| app.cache.keys().of_operation(viewer, personal, &identity));
    let flying = match live.flights().join(keys[0]) {
        Part::Lead(lead) => Some(lead),
        Part::Wait(wait) => {
            wait.landed().await;
            None
        }
    };
    let known = keys.iter().find_map(|key| live.query(key));
    if let Some(query) = known {
        return Ok(Reader::of(query, how.patch));
    }
    let mut work = Work {
        app: app.clone(),
        admitted: admitted.again()?,
        viewer: viewer.clone(),
        throttle: how.throttle,
    };
    let executed = match work.execute().await? {
        Outcome::Done(executed) => executed,
        Outcome::Wrong(body) | Outcome::Failed(body) => return Ok(Reader::wrong(body)),
    };
    let key = keys[usize::from(executed.personal)];
    let query = live.keep_query(key, || Query::start(live, work, executed, key));
    if let Some(lead) = flying {
        lead.land(Landing::Kept);
    }
    Ok(Reader::of(query, how.patch))
}

impl Query {
    fn start(live: &Live, work: Work, executed: Executed, key: Key) -> Arc<Self> {
        let first = State::new(1, executed.body.clone(), None);
        let (sender, states) = watch::channel(Arc::new(first));
        let running = tokio::spawn(follow(work, executed, sender));
        live.counts().feeds.inc();
        Arc::new(Self { states, running, live: live.clone(), key })
    }

    /// Whether it can be joined.
    pub(super) fn is_over(&self) -> bool {
        self.running.is_finished()
    }
}

impl State {
    fn new(number: u64, body: Bytes, before: Option<Bytes>) -> Self {
        Self { number, body, before, patch: OnceLock::new(), last: false }
    }

    /// What leads from the answer before to this one, if that is shorter.
    fn patch(&self) -> Option<&str> {
        let make = || {
            let [before, after] = [self.before.as_ref()?, &self.body].map(|body| data(body));
            let patch = serde_json::to_string(&json_patch::diff(&before?, &after?)).ok()?;
            (patch.len() < self.body.len()).then_some(patch)
        };
        self.patch.get_or_init(make).as_deref()
    }
}

/// The data of an answer that has nothing else.
fn data(body: &[u8]) -> Option<Value> {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else { return None };
    let data = members.remove("data")?;
    members.is_empty().then_some(data)
}

impl Reader {
    fn of(query: Arc<Query>, patch: bool) -> Self {
        let states = query.states.clone();
        Self { query: Some(query), states, seen: None, patch, revision: 0, over: false }
    }

    /// Of what cannot be executed.
    fn wrong(body: Bytes) -> Self {
        let state = State { last: true, ..State::new(1, body, None) };
        let (_, states) = watch::channel(Arc::new(state));
        Self { query: None, states, seen: None, patch: false, revision: 0, over: false }
    }

    /// The next answer; `None` after the last one. Nothing is lost if this is dropped before it is done.
    pub(super) async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        loop {
            let state = self.states.borrow_and_update().clone();
            if self.seen != Some(state.number) {
                return Some(self.show(&state));
            }
            if self.states.changed().await.is_err() {
                self.over = true;
                return Some(Event::fatal(interrupted()));
            }
        }
    }

    fn show(&mut self, state: &State) -> Event {
        let next_to = self.seen == Some(state.number.wrapping_sub(1));
        self.seen = Some(state.number);
        self.over = state.last;
        if let Some(query) = &self.query {
            query.live.counts().events.inc();
        }
        let body = match state.patch().filter(|_| self.patch && next_to) {
            Some(patch) => {
                self.revision += 1;
                Bytes::from(format!("{{\"patch\":{patch},\"revision\":{}}}", self.revision))
            }
            None if self.patch => {
                self.revision = 1;
                let mut body = state.body.strip_suffix(b"}").unwrap_or(&state.body).to_vec();
                body.extend_from_slice(b",\"revision\":1}");
                body.into()
            }
            None => state.body.clone(),
        };
        Event { body, cursor: None, last: state.last }
    }
}

impl Work {
    async fn execute(&mut self) -> Result<Outcome> {
        let begun = Instant::now();
        // Before the first statement: what passes from now on may be missing in the answer.
        let reached = match self.app.changes.reached() {
            Some(reached) => reached,
            None => self.app.changes.catch_up(self.app.config.consistency_wait()).await?,
        };
        let session = self.app.db.session();
        let execution = self.app.graph.execute(
            self.admitted.again()?,
            self.viewer.clone(),
            session.clone(),
            Origin::default(),
        );
        let limit = self.app.config.limits.request_timeout();
        let answer = timeout(limit, Box::pin(execution)).await.map_err(|late| {
            Error::new(Code::Timeout, "the request took longer than its limit").because(late)
        })?;
        let noted = session.notes().take();
        let lost = [Code::Unavailable, Code::Timeout, Code::Internal];
        let failed = answer.codes.iter().any(|code| lost.contains(code));
        let executed = answer.executed;
        let body = Bytes::from(answer.into_body());
        if !executed {
            return Ok(Outcome::Wrong(body));
        }
        if failed {
            return Ok(Outcome::Failed(body));
        }
        if noted.unknown {
            let text = "cannot be followed: it reads something whose changes are not logged, such as the audit trail \
                        or rows that are not there";
            return Err(Error::bad_input("live", text));
        }
        let personal = noted.person;
        let lifetime = crate::cache::entry::hint_of(&noted).max_age_s;
        let lifetime = lifetime.map(|seconds| Duration::from_secs(seconds.max(1).into()));
        let sources = Sources::new(noted);
        Ok(Outcome::Done(Executed { body, sources, since: reached.batch, begun, lifetime, personal }))
    }
}

/// Executes again whenever the answer may have changed, until it is dropped.
async fn follow(mut work: Work, mut executed: Executed, states: watch::Sender<Arc<State>>) {
    let mut number = 1;
    loop {
        touched(&work.app, &mut executed).await;
        sleep_until(executed.begun + work.throttle).await;
        let before = executed.body.clone();
        executed = match work.execute().await {
            Ok(Outcome::Done(executed)) => executed,
            Err(error) if [Code::Unavailable, Code::Timeout].contains(&error.code()) => {
                sleep(RETRY).await;
                continue;
            }
            Ok(Outcome::Failed(_)) => {
                sleep(RETRY).await;
                continue;
            }
            Ok(Outcome::Wrong(body)) => {
                let state = State { last: true, ..State::new(number + 1, body, None) };
                states.send_replace(Arc::new(state));
                return;
            }
            Err(error) => {
                let state = State { last: true, ..State::new(number + 1, Event::fatal(error).body, None) };
                states.send_replace(Arc::new(state));
                return;
            }
        };
        if executed.body != before {
            number += 1;
            states.send_replace(Arc::new(State::new(number, executed.body.clone(), Some(before))));
        }
    }
}

/// Waits until an answer may have changed, or is older than it may be.
async fn touched(app: &App, executed: &mut Executed) {
    let mut tail = app.changes.watch();
    loop {
        tail.borrow_and_update();
        match app.cache.freshness().judge(|| Some(&executed.sources), executed.since) {
            Verdict::Fresh(batch) => executed.since = batch,
            Verdict::Touched(_) | Verdict::Forgotten => return,
        }
        let changed = match executed.lifetime {
            Some(lifetime) => timeout_at(executed.begun + lifetime, tail.changed()).await,
            None => Ok(tail.changed().await),
        };
        match changed {
            Ok(Ok(())) => {}
            Ok(Err(_)) => std::future::pending::<()>().await,
            Err(_) => return,
        }
    }
}
