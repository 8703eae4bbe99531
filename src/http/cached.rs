//! The response cache as clients meet it: what a request wants of it, look-up and execution, and the headers that
//! say what came of it (ETag, Age, Cache-Control, and Cache-Status of RFC 9211).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;

use crate::app::App;
use crate::cache::entry::{self, Entry};
use crate::cache::flight::{Landing, Lead, Part};
use crate::cache::freshness::Sources;
use crate::cache::key::Key;
use crate::cache::{Found, Miss};
use crate::error::Code;
use crate::graphql::Answer;
use crate::graphql::admit::{Admitted, Chosen};
use crate::http::consistency;
use crate::model::viewer::Viewer;
use crate::model::write::Origin;
use crate::store::db::Session;

pub(super) use status::Status;

mod status;

/// Whoever keeps an answer must ask before using it again: only here is it known whether it still holds.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const VARIES: HeaderValue = HeaderValue::from_static("accept, authorization, x-api-key");
/// How long others wait for the process that executes; then they execute, too.
const CLAIM: Duration = Duration::from_millis(3_000);
/// Between two looks for its answer: at first, and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// So often one waits for the answer of another before executing oneself.
const ROUNDS: usize = 3;

/// A request as the cache sees it.
pub(super) struct Ask {
    bytes: Option<Key>,
    method: Method,
    if_none_match: Option<HeaderValue>,
    /// An answer may come from the cache.
    look_up: bool,
    /// It may be kept.
    keep: bool,
    /// It may be as stale as this.
    max_stale: Option<Duration>,
    /// The answer is to say how it came about.
    explain: bool,
    /// The client has seen something written, so that nothing older will do.
    pub(super) must_be_fresh: bool,
}

impl Ask {
    pub(super) fn new(app: &App, headers: &HeaderMap, viewer: &Viewer, method: Method, bytes: &[u8]) -> Self {
        let mut ask = Self {
            bytes: app.cache.is_on().then(|| app.cache.keys().of_bytes(viewer, method.as_str(), bytes)),
            method,
            if_none_match: headers.get(IF_NONE_MATCH).cloned(),
            look_up: app.cache.is_on(),
            keep: app.cache.is_on(),
            max_stale: None,
            explain: false,
            must_be_fresh: headers.contains_key(consistency::HEADER),
        };
        for value in headers.get_all(CACHE_CONTROL) {
            for part in value.to_str().unwrap_or_default().split(',') {
                let (name, argument) = part.split_once('=').unwrap_or((part, ""));
                match name.trim().to_ascii_lowercase().as_str() {
                    "no-cache" => ask.look_up = false,
                    "no-store" => (ask.look_up, ask.keep) = (false, false),
                    // Without a number any age will do.
                    "max-stale" => {
                        let seconds = argument.trim().trim_matches('"').parse();
                        ask.max_stale = Some(seconds.map_or(Duration::MAX, Duration::from_secs));
                    }
                    _ => {}
                }
            }
        }
        ask
    }

    /// Has the answer say how it came about. Such an answer is made for this request.
    pub(super) fn explain(&mut self) {
        self.explain = true;
        self.bytes = None;
        self.if_none_match = None;
    }

    fn takes_stale(&self, entry: &Entry, miss: Miss) -> bool {
        let knowable = matches!(miss, Miss::Changed | Miss::Expired | Miss::Forgotten);
        knowable && !self.must_be_fresh && self.max_stale.is_some_and(|most| entry.age() <= most)
    }
}

/// An entry to be sent.
pub(super) struct Kept {
    entry: Arc<Entry>,
    status: Status,
}

/// What came of an operation.
pub(super) enum Answered {
    /// The cache has the answer.
    Kept(Kept),
    /// It has not.
    Fresh(Answer, Status),
}

impl Kept {
    pub(super) fn operation(&self) -> Chosen {
        Chosen { name: self.entry.origin.operation.as_deref().map(str::to_owned), kind: "query" }
    }

    pub(super) fn send(self, app: &App, ask: &Ask, kind: &'static str) -> Response {
        let Self { entry, status } = self;
        // The same bytes as another media type are another representation.
        let tag =
            format!("\"{}{}\"", entry.hash, if kind.starts_with("application/json") { "" } else { "g" });
        let given = ask.if_none_match.as_ref().and_then(|given| given.to_str().ok()).unwrap_or_default();
        let known = |one: &str| one == "*" || one.trim_start_matches("W/") == tag;
        let unchanged = ask.method == Method::GET && given.split(',').map(str::trim).any(known);
        let body = match (unchanged, ask.explain) {
            (true, _) => Body::empty(),
            (false, true) => explained(&entry, status),
            (false, false) => Body::from(entry.body.clone()),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let tag = Some(tag).filter(|_| !ask.explain);
        headers.extend(tag.and_then(|tag| HeaderValue::try_from(tag).ok()).map(|tag| (ETAG, tag)));
        headers.insert(CACHE_CONTROL, PRIVATE);
        headers.insert(VARY, VARIES);
        if !matches!(status, Status::Executed(..)) {
            headers.insert(AGE, HeaderValue::from(entry.age().as_secs()));
        }
        status.add_to(headers);
        if unchanged {
            app.cache.metrics().not_modified.inc();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }
}

/// The answer with what is known of it.
fn explained(entry: &Entry, status: Status) -> Body {
    let mut extension = entry.describe();
    extension["status"] = status.text().into();
    let mut body = entry.body.strip_suffix(b"}").unwrap_or(&entry.body).to_vec();
    body.extend_from_slice(format!(",\"extensions\":{{\"cache\":{extension}}}}}").as_bytes());
    Body::from(body)
}

/// The answer to a request that came before in the same bytes, if it still holds.
pub(super) async fn recall(app: &App, ask: &Ask) -> Option<Kept> {
    let bytes = ask.bytes.as_ref().filter(|_| ask.look_up && !ask.must_be_fresh)?;
    let found = settled(app, || app.cache.recall(bytes)).await;
    let pushed_out = matches!(found, Found::Nothing(Miss::Absent)) && app.cache.shared().is_on();
    let Some(key) = app.cache.known(bytes).filter(|_| pushed_out) else {
        return serve(app, ask, found, Status::Hit).ok();
    };
    let Found::Fresh(entry) = app.cache.fetch(&key).await else { return None };
    app.cache.metrics().hit("redis");
    Some(Kept { entry, status: Status::Shared })
}

/// Looks up; if the tail has not heard from PostgreSQL for too long, has it look first.
async fn settled(app: &App, look_up: impl Fn() -> Found) -> Found {
    let found = look_up();
    if matches!(found, Found::Stale(_, Miss::Behind))
        && app.changes.catch_up(app.cache.bounds().staleness).await.is_ok()
    {
        return look_up();
    }
    found
}

/// An answer that may be sent, or why there is none.
fn serve(app: &App, ask: &Ask, found: Found, status: Status) -> Result<Kept, Miss> {
    match found {
        Found::Fresh(entry) => {
            app.cache.metrics().hit("memory");
            Ok(Kept { entry, status })
        }
        Found::Stale(entry, miss) if ask.takes_stale(&entry, miss) => {
            app.cache.metrics().hit("stale");
            Ok(Kept { entry, status: Status::Stale })
        }
        Found::Stale(_, miss) | Found::Nothing(miss) => Err(miss),
    }
}

fn stale(app: &App, entry: Arc<Entry>) -> Kept {
    app.cache.metrics().hit("stale");
    Kept { entry, status: Status::StaleIfError }
}

/// An operation on its way.
struct Work<'a> {
    app: &'a App,
    ask: &'a Ask,
    admitted: Admitted,
    viewer: Viewer,
    session: Session,
    origin: Origin,
    /// The answer's key for everyone of the scope, and for this person.
    keys: [Key; 2],
}

/// The answer to an operation: from the cache, from another request that is asking the same, or by executing it.
pub(super) async fn answer(
    app: &App,
    ask: &Ask,
    admitted: Admitted,
    viewer: Viewer,
    session: Session,
    origin: Origin,
) -> Answered {
    if !app.cache.is_on() || admitted.operation.kind != "query" {
        let answer = app.graph.execute(admitted, viewer, session, origin).await;
        return Answered::Fresh(answer, Status::None);
    }
    let identity = admitted.identity();
    let keys = [false, true].map(|personal| app.cache.keys().of_operation(&viewer, personal, &identity));
    let work = Work { app, ask, admitted, viewer, session, origin, keys };
    if !ask.look_up {
        return work.execute(Miss::Refused, None).await;
    }
    let mut flight = keys[0];
    let mut status = Status::Hit;
    let mut miss = Miss::Absent;
    for _ in 0..ROUNDS {
        match work.look_up(status).await {
            Ok(kept) => return Answered::Kept(kept),
            Err(Miss::Uncacheable) => return work.execute(Miss::Uncacheable, None).await,
            // Who executes now waits in vain.
            Err(Miss::Behind) if let Some(entry) = work.spare() => return Answered::Kept(stale(app, entry)),
            Err(reason) => miss = reason,
        }
        match app.cache.flights().join(flight) {
            Part::Lead(lead) => {
                // The flight before may have landed since we looked; and another process may know.
                let known = match work.look_up(Status::Collapsed).await {
                    Ok(kept) => Some(kept),
                    Err(_) => work.ask_others(flight).await,
                };
                let Some(kept) = known else { return work.execute(miss, Some(lead)).await };
                lead.land(Landing::Kept);
                return Answered::Kept(kept);
            }
            Part::Wait(wait) => {
                app.cache.metrics().waited.inc();
                status = Status::Collapsed;
                match wait.landed().await {
                    Landing::NotKept => break,
                    // Others of the scope have answers of their own.
                    Landing::KeptForPerson => flight = keys[1],
                    _ => {}
                }
            }
        }
    }
    work.execute(miss, None).await
}

impl Work<'_> {
    async fn look_up(&self, status: Status) -> Result<Kept, Miss> {
        let mut miss = Miss::Absent;
        for key in &self.keys {
            match serve(self.app, self.ask, settled(self.app, || self.app.cache.get(key)).await, status) {
                Ok(kept) => {
                    self.learn(*key);
                    return Ok(kept);
                }
                Err(Miss::Absent) => {}
                Err(other) => miss = other,
            }
        }
        Err(miss)
    }

    /// The answer of another process. If one is executing, this waits for it, and not for long. Without an answer
    /// this process has said that it will execute.
    async fn ask_others(&self, flight: Key) -> Option<Kept> {
        let shared = self.app.cache.shared();
        if !shared.is_on() {
            return None;
        }
        let begun = Instant::now();
        let mut pause = POLL.0;
        let mut ours = false;
        loop {
            for key in &self.keys {
                if let Found::Fresh(entry) = self.app.cache.fetch(key).await {
                    if ours {
                        shared.release(&flight).await;
                    }
                    self.app.cache.metrics().hit("redis");
                    self.learn(*key);
                    return Some(Kept { entry, status: Status::Shared });
                }
            }
            // Whoever gets the word looks once more: the one who had it may have given it back for an answer.
            if ours || begun.elapsed() > CLAIM {
                return None;
            }
            ours = shared.claim(&flight, CLAIM).await;
            if !ours {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(POLL.1);
            }
        }
    }

    /// An answer that may be shown when nothing newer can be had.
    fn spare(&self) -> Option<Arc<Entry>> {
        let known = self.keys.iter().find_map(|key| match self.app.cache.get(key) {
            Found::Fresh(entry) | Found::Stale(entry, _) => Some(entry),
            Found::Nothing(_) => None,
        });
        known.filter(|entry| !self.ask.must_be_fresh && entry.age() <= entry.origin.stale_if_error)
    }

    fn learn(&self, key: Key) {
        if let Some(bytes) = self.ask.bytes {
            self.app.cache.learn(bytes, key);
        }
    }

    async fn execute(self, miss: Miss, lead: Option<Lead>) -> Answered {
        let spare = if self.ask.look_up { self.spare() } else { None };
        let Self { app, ask, admitted, viewer, session, origin, keys } = self;
        app.cache.metrics().missed(miss.as_str());
        let begun = Instant::now();
        // Before the first statement: what the tail passes from now on may be missing in the answer.
        let reached = app.changes.reached();
        let operation = admitted.operation.name.as_deref().map(Into::into);
        let answer = app.graph.execute(admitted, viewer, session.clone(), origin).await;
        let noted = session.notes().take();
        let shared = app.cache.shared().clone();
        let flight = lead.as_ref().map_or(keys[0], Lead::key);
        let claimed = lead.is_some() && shared.is_on();
        let (true, true, Some(reached)) = (ask.keep && answer.is_whole(), !noted.unknown, reached) else {
            if noted.unknown && answer.is_whole() {
                app.cache.give_up(keys[0]);
            }
            if claimed {
                // They need not wait for what will not come.
                tokio::spawn(async move { shared.release(&flight).await });
            }
            if let Some(lead) = lead {
                lead.land(Landing::NotKept);
            }
            let failed = [Code::Unavailable, Code::Timeout, Code::Internal];
            return match spare.filter(|_| answer.codes.iter().any(|code| failed.contains(code))) {
                Some(entry) => Answered::Kept(stale(app, entry)),
                None => Answered::Fresh(answer, Status::Executed(miss, false)),
            };
        };
        let personal = noted.person;
        let lifetime = app.cache.lifetime(noted.lifetime);
        let body = bytes::Bytes::from(answer.into_body());
        let stale_if_error = noted.stale_if_error.unwrap_or_default();
        let made_for = entry::Origin { operation, begun, lifetime, stale_if_error };
        let as_of = (reached.batch, reached.snapshot);
        let entry = Arc::new(Entry::new(body, made_for, Sources::new(noted), as_of));
        let key = keys[usize::from(personal)];
        let kept = app.cache.put(key, entry.clone());
        if kept {
            app.cache.metrics().stored.inc();
            if let Some(bytes) = ask.bytes {
                app.cache.learn(bytes, key);
            }
            if shared.is_on() {
                let entry = entry.clone();
                let claim = claimed.then_some(flight);
                tokio::spawn(async move {
                    shared.put(&key, &entry).await;
                    if let Some(claim) = claim {
                        shared.release(&claim).await;
                    }
                });
            }
        }
        if let Some(lead) = lead {
            lead.land(match (kept, personal) {
                (false, _) => Landing::NotKept,
                (true, false) => Landing::Kept,
                (true, true) => Landing::KeptForPerson,
            });
        }
        Answered::Kept(Kept { entry, status: Status::Executed(miss, kept) })
    }
}
