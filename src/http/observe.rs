//! Every request is seen from here: it gets an id, one line in the log when it is over, and its place in the
//! metrics. The line says who asked for which operation and what came of it, never variables, documents or paths.

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::{Builder, Uuid};

use crate::app::App;
use crate::error::Code;
use crate::graphql::admit::Chosen;
use crate::http::guard;
use crate::model::viewer::Viewer;
use crate::telemetry::{Metrics, Operation};

/// The header by which ids come and go.
const REQUEST_ID: &str = "x-request-id";
/// Bytes of an id that is taken from a client.
const MAX_ID: usize = 128;
/// Bytes of an operation's name in the log.
const MAX_NAME: usize = 128;
/// No status of HTTP, but the one that others use for a client that hung up before the answer.
const HUNG_UP: u16 = 499;

/// What ties a request's answer, its lines in the log and what it wrote together. In the extensions of a request.
#[derive(Debug, Clone)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The trace of `traceparent`, else `x-request-id`, else a new one. What is not as it should be is passed over.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let trace = text("traceparent").and_then(trace_id);
        let given = || text(REQUEST_ID).filter(|id| is_id(id));
        let made = || new_id().to_string().into();
        Self(trace.or_else(given).map_or_else(made, Into::into))
    }

    /// The id: printable ASCII without spaces, 128 bytes at most.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

/// An id that nobody has to be unable to guess: asking the system for chance takes longer than all the rest.
fn new_id() -> Uuid {
    let chance = || RandomState::new().build_hasher().finish();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let [a, b] = [chance(), chance()].map(u64::to_be_bytes);
    let chance = [a[0], a[1], a[2], a[3], a[4], b[0], b[1], b[2], b[3], b[4]];
    Builder::from_unix_timestamp_millis(u64::try_from(since.as_millis()).unwrap_or_default(), &chance)
        .into_uuid()
}

/// `version-trace-parent-flags`, all in lower-case hexadecimal digits; zeros are no trace and no parent.
fn trace_id(text: &str) -> Option<&str> {
    let mut parts = text.split('-');
    let mut part = |len: usize| {
        let part = parts.next()?;
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (part.len() == len && part.bytes().all(digits)).then_some(part)
    };
    let (version, trace, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    // Versions to come may say more at the end; this one may not.
    let fine = version != "ff" && (version != "00" || parts.next().is_none());
    (fine && !is_zero(trace) && !is_zero(parent)).then_some(trace)
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a GraphQL request came to. In the extensions of its response.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// The operation, if the request came to be one.
    pub operation: Chosen,
    /// Who asked, if we know.
    pub viewer: Option<Viewer>,
    /// Statements that it cost.
    pub statements: u32,
    /// The codes of the errors in the answer.
    pub codes: Vec<Code>,
}

/// The outermost layer.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let entry = Entry::new(&request, id.clone(), app.metrics.clone());
    let span = tracing::info_span!("request", %id);
    let mut response = next.run(request).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    guard::harden(response.headers_mut());
    entry.close(&response);
    response
}

/// A request on record. If it is dropped before its answer is there, the client has hung up.
struct Entry {
    id: RequestId,
    method: &'static str,
    route: Option<MatchedPath>,
    begun: Instant,
    metrics: Arc<Metrics>,
    closed: bool,
}

impl Entry {
    fn new(request: &Request, id: RequestId, metrics: Arc<Metrics>) -> Self {
        metrics.in_flight.inc();
        let route = request.extensions().get::<MatchedPath>().cloned();
        Self { id, method: method(request.method()), route, begun: Instant::now(), metrics, closed: false }
    }

    fn close(mut self, response: &Response) {
        self.closed = true;
        self.write(response.status().as_u16(), response.extensions().get::<Served>());
    }

    fn write(&self, status: u16, served: Option<&Served>) {
        let took = self.begun.elapsed();
        // Nobody needs more than microseconds.
        let ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        let route = self.route.as_ref().map_or("none", MatchedPath::as_str);
        self.metrics.responded(route, status);
        let Some(served) = served else {
            tracing::info!(target: "request", id = %self.id, method = self.method, route, status, ms);
            return;
        };
        let Chosen { name, kind } = &served.operation;
        let codes = distinct(&served.codes);
        self.metrics.answered(&Operation {
            name: name.as_deref(),
            kind,
            outcome: served.codes.first().map_or("ok", |code| code.as_str()),
            took,
            statements: served.statements,
        });
        tracing::info!(
            target: "request",
            id = %self.id,
            method = self.method,
            route,
            status,
            ms,
            operation = name.as_deref().map(|name| name.get(..MAX_NAME).unwrap_or(name)),
            kind,
            viewer = served.viewer.as_ref().map(describe),
            statements = served.statements,
            errors = (!codes.is_empty()).then_some(codes),
        );
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if !self.closed {
            self.write(HUNG_UP, None);
        }
    }
}

/// Anything else is of the client's own making.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn describe(viewer: &Viewer) -> String {
    let role = viewer.role.as_str();
    match (viewer.user_id, viewer.agent_id) {
        (Some(id), _) => format!("{role}:user:{id}"),
        (None, Some(id)) => format!("{role}:agent:{id}"),
        (None, None) => role.to_owned(),
    }
}

fn distinct(codes: &[Code]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for code in codes {
        if !names.contains(&code.as_str()) {
            names.push(code.as_str());
        }
    }
    names.join(",")
}
