//! The response cache as clients meet it: what a request wants of it, look-up and execution, and the headers that
//! say what came of it (ETag, Age, Cache-Control, and Cache-Status of RFC 9211).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use crate::app::App;
use crate::cache::entry::{self, Entry, hint_of};
use crate::cache::flight::{Landing, Lead, Part};
use crate::cache::key::Key;
use crate::cache::sources::Sources;
use crate::cache::{Found, Miss};
use crate::error::Code;
use crate::graphql::Answer;
use crate::graphql::admit::{Admitted, Chosen};
use crate::model::viewer::Viewer;
use crate::model::write::Origin;
use crate::store::db::Session;

pub(super) use ask::Ask;
pub(super) use status::Status;

mod ask;
mod status;

/// Whoever keeps an answer must ask before using it again: only here is it known whether it still holds.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const PUBLIC: HeaderValue = HeaderValue::from_static("public, no-cache");
const VARIES: HeaderValue = HeaderValue::from_static("accept, authorization, x-api-key");
/// Of an answer.
const HEADERS: usize = 12;
/// How long others wait for the process that executes; then they execute, too.
const CLAIM: Duration = Duration::from_millis(3_000);
/// Between two looks for its answer: at first, and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// So often one waits for the answer of another before executing oneself.
const ROUNDS: usize = 3;

/// An entry to be sent.
pub(super) struct Kept {
    entry: Arc<Entry>,
    status: Status,
    /// Somebody should make it anew.
    due: bool,
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

    /// The answer itself.
    pub(super) fn body(&self, ask: &Ask) -> bytes::Bytes {
        if ask.explain { explained(&self.entry, self.status) } else { self.entry.body.clone() }
    }

    pub(super) fn send(self, app: &App, ask: &Ask, kind: &'static str) -> Response {
        let Self { entry, status, .. } = &self;
        // The same bytes as another media type are another representation.
        let mark = if kind.starts_with("application/json") { "" } else { "g" };
        let tag = ["\"", &entry.hash, mark, "\""].concat();
        let known = |one: &str| one == "*" || one.trim_start_matches("W/") == tag;
        let given = ask.if_none_match.as_ref().filter(|_| ask.method == Method::GET);
        let given = given.and_then(|given| given.to_str().ok());
        let unchanged = given.is_some_and(|given| given.split(',').map(str::trim).any(known));
        let body = if unchanged { Body::empty() } else { Body::from(self.body(ask)) };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        // With those of the outer layers.
        headers.reserve(HEADERS);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let tag = Some(tag).filter(|_| !ask.explain);
        headers.extend(tag.and_then(|tag| HeaderValue::try_from(tag).ok()).map(|tag| (ETAG, tag)));
        headers.insert(CACHE_CONTROL, control(ask, entry));
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

/// What others may do with an answer. A cache on the way may keep what anybody may have; like everyone else it must
/// ask before it uses it, and may do without only when nobody answers.
fn control(ask: &Ask, entry: &Entry) -> HeaderValue {
    if !ask.public || entry.origin.personal || ask.method != Method::GET {
        return PRIVATE;
    }
    match entry.origin.hint.stale_if_error_s {
        0 => PUBLIC,
        seconds => {
            HeaderValue::try_from(format!("public, max-age=0, stale-if-error={seconds}")).unwrap_or(PUBLIC)
        }
    }
}

/// The answer with what is known of it.
fn explained(entry: &Entry, status: Status) -> bytes::Bytes {
    let mut extension = entry.describe();
    extension["status"] = status.text().into();
    let mut body = entry.body.strip_suffix(b"}").unwrap_or(&entry.body).to_vec();
    body.extend_from_slice(format!(",\"extensions\":{{\"cache\":{extension}}}}}").as_bytes());
    body.into()
}

/// The answer to a request that came before in the same bytes, if it still holds.
pub(super) async fn recall(app: &App, ask: &Ask) -> Option<Kept> {
    let bytes = ask.bytes.as_ref().filter(|_| ask.look_up && !ask.must_be_fresh)?;
    let key = app.cache.known(bytes)?;
    let found = settled(app, || app.cache.get(&key)).await;
    if matches!(found, Found::Nothing(Miss::Absent)) {
        return if app.cache.shared().is_on() { Box::pin(fetched(app, &key)).await } else { None };
    }
    let kept = serve(app, ask, found, Status::Hit).ok()?;
    // Who makes it anew must have read the request.
    if kept.due && !app.cache.flights().is_flying(&key) { None } else { Some(kept) }
}

/// The answer of another process, if it holds.
async fn fetched(app: &App, key: &Key) -> Option<Kept> {
    let (Found::Fresh(entry) | Found::Due(entry)) = app.cache.fetch(key).await else { return None };
    app.cache.metrics().hits_in_redis.inc();
    Some(Kept { entry, status: Status::Shared, due: false })
}

/// Looks up; if the tail has not heard from PostgreSQL for too long, has it look first.
async fn settled(app: &App, look_up: impl Fn() -> Found) -> Found {
    let found = look_up();
    if matches!(found, Found::Stale(_, Miss::Behind))
        && Box::pin(app.changes.catch_up(app.cache.bounds().staleness)).await.is_ok()
    {
        return look_up();
    }
    found
}

/// An answer that may be sent, or why there is none.
fn serve(app: &App, ask: &Ask, found: Found, status: Status) -> Result<Kept, Miss> {
    match found {
        Found::Fresh(entry) => {
            app.cache.metrics().hits_in_memory.inc();
            Ok(Kept { entry, status, due: false })
        }
        Found::Due(entry) => {
            app.cache.metrics().hits_in_memory.inc();
            let late = entry.age() >= entry.origin.lifetime;
            Ok(Kept { entry, status: if late { Status::Revalidating } else { status }, due: true })
        }
        Found::Stale(entry, miss) if ask.takes_stale(&entry, miss) => {
            app.cache.metrics().hits_stale.inc();
            Ok(Kept { entry, status: Status::Stale, due: false })
        }
        Found::Stale(_, miss) | Found::Nothing(miss) => Err(miss),
    }
}

fn stale(app: &App, entry: Arc<Entry>) -> Kept {
    app.cache.metrics().hits_stale.inc();
    Kept { entry, status: Status::StaleIfError, due: false }
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
            Ok((kept, key)) => {
                if kept.due {
                    work.refresh(key);
                }
                return Answered::Kept(kept);
            }
            Err(Miss::Uncacheable) => return work.execute(Miss::Uncacheable, None).await,
            // Who executes now waits in vain.
            Err(Miss::Behind) if let Some(entry) = work.spare() => return Answered::Kept(stale(app, entry)),
            Err(reason) => miss = reason,
        }
        match app.cache.flights().join(flight) {
            Part::Lead(lead) => {
                // The flight before may have landed since we looked; and another process may know.
                let known = match work.look_up(Status::Collapsed).await {
                    Ok((kept, _)) => Some(kept),
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
    async fn look_up(&self, status: Status) -> Result<(Kept, Key), Miss> {
        let mut miss = Miss::Absent;
        for key in &self.keys {
            match serve(self.app, self.ask, settled(self.app, || self.app.cache.get(key)).await, status) {
                Ok(kept) => {
                    self.learn(*key);
                    return Ok((kept, *key));
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
                if let Some(kept) = fetched(self.app, key).await {
                    if ours {
                        shared.release(&flight).await;
                    }
                    self.learn(*key);
                    return Some(kept);
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
            Found::Fresh(entry) | Found::Due(entry) | Found::Stale(entry, _) => Some(entry),
            Found::Nothing(_) => None,
        });
        known.filter(|entry| !self.ask.must_be_fresh && entry.age() <= entry.end_if_error())
    }

    /// Has the answer made anew, unless somebody is about it; nobody waits.
    fn refresh(self, key: Key) {
        let Part::Lead(lead) = self.app.cache.flights().join(key) else { return };
        let (app, ask) = (self.app.clone(), self.ask.clone());
        let Self { admitted, viewer, origin, keys, .. } = self;
        tokio::spawn(async move {
            // Of several processes one does it.
            let shared = app.cache.shared();
            if shared.is_on() && !shared.claim(&key, CLAIM).await {
                return;
            }
            // A session of its own: it is not the request's cost.
            let session = app.db.session();
            let work = Work { app: &app, ask: &ask, admitted, viewer, session, origin, keys };
            let limit = app.config.limits.request_timeout();
            drop(tokio::time::timeout(limit, work.execute(Miss::Due, Some(lead))).await);
        });
    }

    fn learn(&self, key: Key) {
        if let Some(bytes) = self.ask.bytes {
            self.app.cache.learn(bytes, key);
        }
    }

    async fn execute(self, miss: Miss, lead: Option<Lead>) -> Answered {
        let spare = if self.ask.look_up { self.spare() } else { None };
        let Self { app, ask, admitted, viewer, session, origin, keys } = self;
        match miss {
            Miss::Due => app.cache.metrics().refreshed.inc(),
            _ => app.cache.metrics().missed(miss.as_str()),
        }
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
        let hint = hint_of(&noted);
        let lifetime = app.cache.lifetime(hint);
        let body = bytes::Bytes::from(answer.into_body());
        let made_for = entry::Origin { operation, begun, lifetime, hint, personal };
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
        } else if claimed {
            tokio::spawn(async move { shared.release(&flight).await });
        }
        if let Some(lead) = lead {
            lead.land(match (kept, personal) {
                (false, _) => Landing::NotKept,
                (true, false) => Landing::Kept,
                (true, true) => Landing::KeptForPerson,
            });
        }
        Answered::Kept(Kept { entry, status: Status::Executed(miss, kept), due: false })
    }
}
