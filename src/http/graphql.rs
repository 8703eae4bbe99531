//! GraphQL over HTTP: a request's bytes become an operation, an answer becomes a response.

use std::task::Poll;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;

use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::admit::{Admitted, Parameters, Refusal};
use crate::graphql::{Answer, refusal};
use crate::http::body::{self, Unread};
use crate::http::cached::{self, Answered, Ask, Kept, Status};
use crate::http::consistency::{self, HEADER};
use crate::http::observe::{RequestId, Served};
use crate::http::persisted;
use crate::http::server::Peer;
use crate::model::viewer::{Role, Viewer};
use crate::model::write::Origin;

/// Makes the repetition of a request's mutations safe.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

const GRAPHQL_JSON: &str = "application/graphql-response+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// `POST /graphql`
pub async fn post(
    State(app): State<App>,
    peer: Option<Extension<Peer>>,
    id: RequestId,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let sent = async {
        check_content_type(&headers)?;
        read_body(&app, &headers, body).await.map(Sent::Body)
    };
    let origin = || origin(&headers, &id, peer.map(|Extension(peer)| peer));
    respond(&app, &headers, origin, sent).await
}

/// `GET /graphql`
pub async fn get(State(app): State<App>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let sent = async { Ok(Sent::Query(query.unwrap_or_default())) };
    // Nothing that comes by GET writes.
    respond(&app, &headers, Origin::default, sent).await
}

/// A request as it came, not yet read.
enum Sent {
    /// The body of a POST.
    Body(Bytes),
    /// The query string of a GET.
    Query(String),
}

impl Sent {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Body(bytes) => bytes,
            Self::Query(query) => query.as_bytes(),
        }
    }

    const fn method(&self) -> Method {
        match self {
            Self::Body(_) => Method::POST,
            Self::Query(_) => Method::GET,
        }
    }

    fn read(&self) -> Result<Parameters, Refused> {
        let wrong = || Refused::new(StatusCode::BAD_REQUEST, "the body is not a GraphQL request in JSON");
        match self {
            Self::Body(bytes) => Parameters::read(bytes).ok_or_else(wrong),
            Self::Query(query) => read_query_string(query),
        }
    }
}

/// Where a request comes from, as the audit trail will tell it. What a proxy or a client says of addresses in headers
/// is not believed: the trail has the other end of the connection.
fn origin(headers: &HeaderMap, id: &RequestId, peer: Option<Peer>) -> Origin {
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Origin {
        request_id: id.as_str().to_owned(),
        address: peer.map(|Peer(address)| address.to_canonical().to_string()),
        user_agent: text(USER_AGENT.as_str()),
        idempotency_key: text(IDEMPOTENCY_KEY),
    }
}

/// What is said to a request that is not executed.
struct Refused {
    status: StatusCode,
    refusal: Refusal,
}

impl Refused {
    fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, refusal: Error::new(Code::BadUserInput, text).into() }
    }
}

/// Only JSON: a form of another site cannot send it without asking first (CSRF).
fn check_content_type(headers: &HeaderMap) -> Result<(), Refused> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let charset =
        parts.find_map(|part| part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset")));
    if is_json && charset.is_none_or(|(_, charset)| charset.trim_matches('"').eq_ignore_ascii_case("utf-8")) {
        return Ok(());
    }
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"))
}

async fn read_body(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
    let limit = usize::try_from(app.config.limits.max_body_bytes).unwrap_or(usize::MAX);
    let read = tokio::time::timeout(app.config.body_timeout(), body::read(headers, body, limit));
    let Ok(read) = read.await else {
        app.metrics.refused("body_time");
        let error = Error::new(Code::Timeout, "the body did not come in time");
        return Err(Refused { status: StatusCode::REQUEST_TIMEOUT, refusal: error.into() });
    };
    read.map_err(|error| match error {
        Unread::TooLarge => Refused {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            refusal: Error::over_limit("max_body_bytes", format!("the body has more than {limit} bytes"))
                .into(),
        },
        Unread::Broken => Refused::new(StatusCode::BAD_REQUEST, "the body could not be read"),
    })
}

fn read_query_string(query: &str) -> Result<Parameters, Refused> {
    let mut parameters = Parameters::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let json = |text: String| {
            let wrong =
                |_| Refused::new(StatusCode::BAD_REQUEST, "variables and extensions must be JSON objects");
            RawValue::from_string(text).map(Some).map_err(wrong)
        };
        match name.as_ref() {
            "query" => parameters.query = Some(value.into_owned()),
            "documentId" => parameters.document_id = Some(value.into_owned()),
            "operationName" => parameters.operation_name = Some(value.into_owned()),
            "variables" if !value.is_empty() => parameters.variables = json(value.into_owned())?,
            "extensions" if !value.is_empty() => parameters.extensions = json(value.into_owned())?,
            _ => {}
        }
    }
    Ok(parameters)
}

/// Everything in its order: who it is comes first, so that strangers learn nothing of what is wrong with a request
/// and nobody reads their bodies. What came before in the same bytes is not even read.
async fn respond(
    app: &App,
    headers: &HeaderMap,
    origin: impl FnOnce() -> Origin,
    sent: impl Future<Output = Result<Sent, Refused>>,
) -> Response {
    let Some(modern) = negotiate(headers) else {
        let text = "Accept must allow application/graphql-response+json or application/json";
        return refuse(&Refused::new(StatusCode::NOT_ACCEPTABLE, text), true);
    };
    let mut served = Served::default();
    let run = async {
        let viewer = in_time(app, app.access.viewer(headers)).await?.map_err(unknown)?;
        served.viewer = Some(viewer.clone());
        let sent = sent.await?;
        let ask = Ask::new(app, headers, &viewer, sent.method(), sent.bytes());
        if let Some(hit) = cached::recall(app, &ask).await {
            served.operation = hit.operation();
            return Ok(Done::Kept(hit, ask));
        }
        // In memory of its own, which an answer from the cache does not need.
        let asked = Asked { viewer, sent, ask, origin: origin(), modern };
        Box::pin(answer(app, headers, asked, &mut served)).await
    };
    let mut response = match run.await {
        Ok(Done::Kept(kept, ask)) => kept.send(app, &ask, if modern { GRAPHQL_JSON } else { JSON }),
        Ok(Done::Answer(answer, status, token)) => {
            served.codes.clone_from(&answer.codes);
            let mut response = send(answer, modern);
            let token = token.and_then(|token| HeaderValue::try_from(token).ok());
            response.headers_mut().extend(token.map(|token| (HeaderName::from_static(HEADER), token)));
            status.add_to(response.headers_mut());
            response
        }
        Err(refused) => {
            served.codes.push(refused.refusal.error.code());
            if let Some(limit) = refused.refusal.error.limit() {
                app.metrics.refused(limit);
            }
            refuse(&refused, modern)
        }
    };
    response.extensions_mut().insert(served);
    response
}

/// A request that has to be read.
struct Asked {
    viewer: Viewer,
    sent: Sent,
    ask: Ask,
    origin: Origin,
    modern: bool,
}

async fn answer(app: &App, headers: &HeaderMap, asked: Asked, served: &mut Served) -> Result<Done, Refused> {
    let Asked { viewer, sent, mut ask, origin, modern } = asked;
    let mut parameters = sent.read()?;
    let refuse = |refusal| Refused { status: persisted::status(&refusal, modern), refusal };
    let named = persisted::complete(app, &viewer, &mut parameters).await.map_err(refuse)?;
    let admitted = admit(app, &sent.method(), modern, parameters)?;
    if let Some(hash) = named {
        app.documents.keep(hash, admitted.document());
    }
    served.operation = admitted.operation.clone();
    if admitted.extensions.cache && matches!(viewer.role, Role::Analyst | Role::Admin) {
        ask.explain();
    }
    let token = admitted.extensions.consistency_token.as_deref();
    ask.must_be_fresh |= token.is_some();
    let waited = consistency::wait(app, headers, token).await;
    waited.map_err(|(status, error)| Refused { status, refusal: error.into() })?;
    let session = app.db.session();
    let answered = Box::pin(cached::answer(app, &ask, admitted, viewer, session.clone(), origin));
    let answered = in_time(app, answered).await;
    served.statements = session.statements();
    match answered? {
        Answered::Kept(kept) => Ok(Done::Kept(kept, ask)),
        Answered::Fresh(mut answer, status) => {
            let token = if answer.written { consistency::settle(app, &mut answer).await } else { None };
            Ok(Done::Answer(answer, status, token))
        }
    }
}

/// What a request came to.
enum Done {
    /// An answer that the cache has.
    Kept(Kept, Ask),
    /// One that it has not, and the token of what it wrote.
    Answer(Answer, Status, Option<String>),
}

/// The answer to a request that was given up before it came here, or in the middle.
pub(super) fn refused(headers: &HeaderMap, status: StatusCode, error: Error) -> Response {
    let mut response =
        refuse(&Refused { status, refusal: error.clone().into() }, negotiate(headers).unwrap_or(true));
    response.extensions_mut().insert(Served { codes: vec![error.code()], ..Served::default() });
    response
}

/// What takes longer than a request may is dropped, and its statements are cancelled.
async fn in_time<T>(app: &App, work: impl Future<Output = T>) -> Result<T, Refused> {
    let mut work = std::pin::pin!(work);
    // What is known already needs no clock.
    if let Poll::Ready(done) = futures_util::poll!(work.as_mut()) {
        return Ok(done);
    }
    tokio::time::timeout(app.config.limits.request_timeout(), work).await.map_err(|_| {
        let error = Error::new(Code::Timeout, "the request took longer than its limit");
        Refused { status: StatusCode::GATEWAY_TIMEOUT, refusal: error.into() }
    })
}

/// The answer to somebody who is not recognised.
fn unknown(error: Error) -> Refused {
    let status = match error.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        // Nobody can be recognised while the database does not answer.
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refused { status, refusal: error.into() }
}

fn admit(app: &App, method: &Method, modern: bool, parameters: Parameters) -> Result<Admitted, Refused> {
    let admitted = app.graph.admit(parameters).map_err(|refusal| {
        // In plain JSON whatever is a request of GraphQL is answered with 200, as clients of that type expect.
        let good = !modern && !refusal.malformed;
        Refused { status: if good { StatusCode::OK } else { StatusCode::BAD_REQUEST }, refusal }
    })?;
    if *method == Method::GET && admitted.operation.kind != "query" {
        // Browsers and proxies repeat a GET at will, and a link on any page sends one.
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "only queries may come by GET"));
    }
    Ok(admitted)
}

/// Whether the client wants the media type of GraphQL (true) or plain JSON (false); `None` if it wants neither.
fn negotiate(headers: &HeaderMap) -> Option<bool> {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else { return Some(false) };
    let quality = |range: &str| {
        let parameter = range.split(';').skip(1).find_map(|part| part.trim().strip_prefix("q="));
        parameter.map_or(1.0, |quality| quality.trim().parse::<f32>().unwrap_or(0.0))
    };
    let mut best: Option<(f32, bool)> = None;
    for range in accept.split(',') {
        let modern = match range.split(';').next().unwrap_or_default().trim() {
            "application/graphql-response+json" => true,
            "application/json" | "application/*" | "*/*" => false,
            _ => continue,
        };
        let quality = quality(range);
        if quality > 0.0 && best.is_none_or(|(known, _)| quality > known) {
            best = Some((quality, modern));
        }
    }
    best.map(|(_, modern)| modern)
}

fn send(answer: Answer, modern: bool) -> Response {
    // In plain JSON an answer is always 200, as clients of that type expect; a proxy learns nothing from it.
    let status = if answer.executed || !modern { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    bytes(status, answer.into_body(), modern)
}

fn refuse(refused: &Refused, modern: bool) -> Response {
    let mut response = bytes(refused.status, refusal(&refused.refusal), modern);
    let header = match refused.status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
        _ => None,
    };
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn bytes(status: StatusCode, body: Vec<u8>, modern: bool) -> Response {
    let kind = if modern { GRAPHQL_JSON } else { JSON };
    (status, [(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}
