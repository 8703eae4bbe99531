//! GraphQL over HTTP: a request's bytes become an operation, an answer becomes a response.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::{Answer, refusal};
use crate::http::accept::Wanted;
use crate::http::body::{self, Unread};
use crate::http::consistency::HEADER;
use crate::http::live;
use crate::http::observe::{RequestId, Served};
use crate::http::operation::{
    Answers, Done, Incoming, Refused, Sent, Transport, in_time, origin, perform, unknown,
};
use crate::http::server::{Link, Peer};
use crate::http::viewer::{Pass, Presented, presented};
use crate::model::viewer::Viewer;

const GRAPHQL_JSON: &str = "application/graphql-response+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// A request of GraphQL over HTTP, its content aside.
pub(super) struct Call {
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<Peer>,
    pub(super) link: Option<Link>,
    pub(super) id: RequestId,
    pub(super) route: &'static str,
    /// What stands for credentials where no headers can be sent.
    pub(super) ticket: Option<String>,
}

impl Call {
    /// Divides a request into what it says of itself and its content.
    pub(super) fn of(request: Request, route: &'static str) -> (Self, Option<String>, Body) {
        let (mut parts, body) = request.into_parts();
        let id = parts.extensions.remove::<RequestId>().unwrap_or_else(|| RequestId::of(&parts.headers));
        let peer = parts.extensions.get::<Peer>().copied();
        let link = parts.extensions.remove::<Link>();
        let query = parts.uri.query().map(str::to_owned);
        (Self { headers: parts.headers, peer, link, id, route, ticket: None }, query, body)
    }

    /// Who asks.
    pub(super) async fn identify(&self, app: &App) -> Result<(Pass, Viewer), Refused> {
        let by_headers = presented(&self.headers);
        let presented = by_headers.or_else(|| self.ticket.as_deref().map(Presented::Ticket));
        let pass = app.access.pass(presented).map_err(unknown)?;
        let viewer = in_time(app, app.access.holder(&pass)).await?.map_err(unknown)?;
        Ok((pass, viewer))
    }
}

/// `POST /graphql`
pub async fn post(State(app): State<App>, request: Request) -> Response {
    let (call, _, body) = Call::of(request, "/graphql");
    respond(&app, &call, content(&app, &call.headers, body)).await
}

/// `GET /graphql`: a query, or the wish to become a WebSocket.
pub async fn get(State(app): State<App>, request: Request) -> Response {
    if live::wants_upgrade(request.headers()) {
        return live::upgrade(app, request).await;
    }
    let (call, query, _) = Call::of(request, "/graphql");
    respond(&app, &call, async { Ok(Sent::Query(query.unwrap_or_default())) }).await
}

/// The content of a POST, which must be JSON.
pub(super) async fn content(app: &App, headers: &HeaderMap, body: Body) -> Result<Sent, Refused> {
    check_content_type(headers)?;
    read_body(app, headers, body).await.map(Sent::Body)
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

/// Everything in its order: who it is comes first, so that strangers learn nothing of what is wrong with a request
/// and nobody reads their bodies.
pub(super) async fn respond(
    app: &App,
    call: &Call,
    sent: impl Future<Output = Result<Sent, Refused>>,
) -> Response {
    let headers = &call.headers;
    let Some(wanted) = Wanted::of(headers) else {
        let text =
            "Accept must allow application/graphql-response+json, application/json or text/event-stream";
        return refuse(&Refused::new(StatusCode::NOT_ACCEPTABLE, text), true);
    };
    let modern = wanted.json.unwrap_or(true);
    let mut served = Served::default();
    let run = async {
        let (pass, viewer) = call.identify(app).await?;
        served.viewer = Some(viewer.clone());
        let sent = sent.await?;
        // Nothing that comes by GET writes.
        let origin = || origin(headers, &call.id, call.peer);
        let answers = if wanted.many() { Answers::Many { resume: resume(headers) } } else { Answers::One };
        let transport = Transport { modern, answers };
        let incoming = Incoming { viewer: viewer.clone(), sent, transport };
        let done = perform(app, headers, incoming, origin, &mut served).await?;
        Ok::<_, Refused>((done, pass, viewer))
    };
    let mut response = match run.await {
        Ok((Done::Stream(stream), pass, viewer)) => {
            match live::stream_of(app, call, wanted, (pass, viewer), stream, &served) {
                Ok(response) => return response,
                Err(refused) => {
                    refused.count(app, &mut served);
                    refuse(&refused, modern)
                }
            }
        }
        Ok((Done::Kept(kept, ask), ..)) if wanted.json.is_some() => {
            kept.send(app, &ask, if modern { GRAPHQL_JSON } else { JSON })
        }
        Ok((Done::Kept(kept, ask), ..)) => live::once(wanted, &kept.body(&ask)),
        Ok((Done::Answer(answer, status, token), ..)) => {
            served.codes.clone_from(&answer.codes);
            let mut response = match wanted.json {
                Some(_) => send(answer, modern),
                None => live::once(wanted, &answer.into_body()),
            };
            let token = token.and_then(|token| HeaderValue::try_from(token).ok());
            response.headers_mut().extend(token.map(|token| (HeaderName::from_static(HEADER), token)));
            status.add_to(response.headers_mut());
            response
        }
        Err(refused) => {
            refused.count(app, &mut served);
            // Event sources learn nothing of an answer that is not 200, so what is wrong with an operation is an event.
            let readable = [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN];
            if wanted.json.is_none() && readable.contains(&refused.status) {
                live::once(wanted, &refusal(&refused.refusal))
            } else {
                refuse(&refused, modern)
            }
        }
    };
    response.extensions_mut().insert(served);
    response
}

/// The cursor of the last event that a client has seen.
fn resume(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// The answer to a request that was given up before it came here, or in the middle.
pub(super) fn refused(headers: &HeaderMap, status: StatusCode, error: Error) -> Response {
    let modern = Wanted::of(headers).and_then(|wanted| wanted.json).unwrap_or(true);
    let mut response = refuse(&Refused { status, refusal: error.clone().into() }, modern);
    response.extensions_mut().insert(Served { codes: vec![error.code()], ..Served::default() });
    response
}

fn send(answer: Answer, modern: bool) -> Response {
    // In plain JSON an answer is always 200, as clients of that type expect; a proxy learns nothing from it.
    let status = if answer.executed || !modern { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    bytes(status, answer.into_body(), modern)
}

pub(super) fn refuse(refused: &Refused, modern: bool) -> Response {
    let mut response = bytes(refused.status, refusal(&refused.refusal), modern);
    let header = match refused.status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
        StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) fn bytes(status: StatusCode, body: impl Into<Body>, modern: bool) -> Response {
    let kind = if modern { GRAPHQL_JSON } else { JSON };
    (status, [(CONTENT_TYPE, HeaderValue::from_static(kind))], body.into()).into_response()
}
