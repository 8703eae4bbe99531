//! GraphQL over HTTP: a request's bytes become an operation, an answer becomes a response.

use async_graphql::{Request, Variables};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::graphql::{Answer, chosen, refusal};
use crate::http::observe::Served;

const GRAPHQL_JSON: &str = "application/graphql-response+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// The parameters of a request, in a body or in a query string.
#[derive(Debug, Deserialize)]
struct Parameters {
    query: Option<String>,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
    variables: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(rename = "extensions")]
    _extensions: Option<serde_json::Map<String, serde_json::Value>>,
}

/// `POST /graphql`
pub async fn post(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let parameters = check_content_type(&headers).and_then(|()| {
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
            }
            status => Refusal::new(status, "the body could not be read"),
        })?;
        serde_json::from_slice(&body)
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the body is not a GraphQL request in JSON"))
    });
    respond(&app, &headers, parameters).await
}

/// `GET /graphql`
pub async fn get(State(app): State<App>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    respond(&app, &headers, read_query_string(query.as_deref().unwrap_or_default())).await
}

/// A request that is refused before it is one of GraphQL.
struct Refusal {
    status: StatusCode,
    error: Error,
}

impl Refusal {
    fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, error: Error::new(Code::BadUserInput, text) }
    }
}

/// Only JSON: a form of another site cannot send it without asking first (CSRF).
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let charset =
        parts.find_map(|part| part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset")));
    if is_json && charset.is_none_or(|(_, charset)| charset.trim_matches('"').eq_ignore_ascii_case("utf-8")) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"))
}

fn read_query_string(query: &str) -> Result<Parameters, Refusal> {
    let mut parameters = Parameters { query: None, operation_name: None, variables: None, _extensions: None };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "query" => parameters.query = Some(value.into_owned()),
            "operationName" if !value.is_empty() => parameters.operation_name = Some(value.into_owned()),
            "variables" if !value.is_empty() => {
                let variables = serde_json::from_str(&value);
                let wrong = |_| Refusal::new(StatusCode::BAD_REQUEST, "variables are not a JSON object");
                parameters.variables = variables.map_err(wrong)?;
            }
            _ => {}
        }
    }
    Ok(parameters)
}

async fn respond(app: &App, headers: &HeaderMap, parameters: Result<Parameters, Refusal>) -> Response {
    let Some(modern) = negotiate(headers) else {
        let text = "Accept must allow application/graphql-response+json or application/json";
        return refuse(&Refusal::new(StatusCode::NOT_ACCEPTABLE, text), true);
    };
    let request = parameters.and_then(|parameters| {
        let query = parameters.query.filter(|query| !query.trim().is_empty());
        let query = query.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the request has no query"))?;
        let variables = serde_json::Value::Object(parameters.variables.unwrap_or_default());
        let request = Request::new(query).variables(Variables::from_json(variables));
        Ok(match parameters.operation_name {
            Some(name) => request.operation_name(name),
            None => request,
        })
    });
    let viewer = app.access.viewer(headers);
    match (viewer, request) {
        (Err(error), _) => refuse(&Refusal { status: StatusCode::UNAUTHORIZED, error }, modern),
        (_, Err(refusal)) => refuse(&refusal, modern),
        (Ok(viewer), Ok(mut request)) => {
            let mut served =
                Served { operation: chosen(&mut request), viewer: Some(viewer.clone()), ..Served::default() };
            let session = app.db.session();
            let run = app.graph.execute(request, viewer, session.clone());
            let answer = tokio::time::timeout(app.config.request_timeout(), run).await;
            served.statements = session.statements();
            let mut response = match answer {
                Ok(answer) => {
                    served.codes.clone_from(&answer.codes);
                    send(answer, modern)
                }
                Err(_) => {
                    served.codes.push(Code::Timeout);
                    let error = Error::new(Code::Timeout, "the request took longer than its limit");
                    refuse(&Refusal { status: StatusCode::GATEWAY_TIMEOUT, error }, modern)
                }
            };
            response.extensions_mut().insert(served);
            response
        }
    }
}

/// The answer to a request that was given up before it came here, or in the middle.
pub(super) fn refused(headers: &HeaderMap, status: StatusCode, error: Error) -> Response {
    refuse(&Refusal { status, error }, negotiate(headers).unwrap_or(true))
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
    bytes(status, answer.body, modern)
}

fn refuse(refusal_of: &Refusal, modern: bool) -> Response {
    let mut response = bytes(refusal_of.status, refusal(&refusal_of.error), modern);
    response.extensions_mut().insert(Served { codes: vec![refusal_of.error.code()], ..Served::default() });
    if refusal_of.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    response
}

fn bytes(status: StatusCode, body: Vec<u8>, modern: bool) -> Response {
    let kind = if modern { GRAPHQL_JSON } else { JSON };
    (status, [(CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}
