//! graphql-sse's single connection mode: a client reserves a stream (PUT), opens it (GET), has operations executed whose
//! answers come over it (POST), and ends them (DELETE). Reservations are kept by the process that gave them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::events::{Feed, Form, ROUTE, TRANSPORT, enter};
use super::hub::{Hub, Said, Unbegun};
use super::places::Place;
use super::socket::{Socket, lasting, unbegun};
use super::ticket::named;
use crate::app::App;
use crate::error::{Code, Error};
use crate::http::graphql::{Call, bytes, refuse};
use crate::http::operation::{Refused, Sent};

/// Carries the token of a reservation; `?token=` does so as well.
pub(in crate::http) const STREAM_TOKEN: &str = "x-graphql-event-stream-token";

/// The streams that are reserved or open, by their tokens.
#[derive(Default)]
pub(super) struct Reservations(Mutex<HashMap<String, Reserved>>);

struct Reserved {
    socket: Arc<Socket>,
    /// What is needed to open it; taken when it is open.
    closed: Option<(mpsc::Receiver<Said>, Place)>,
}

impl Reservations {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Reserved>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a reservation when it is dropped.
pub(super) struct Kept {
    app: App,
    token: String,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let reserved = self.app.sockets.reservations().all().remove(&self.token);
        // Outside of the lock.
        if let Some(reserved) = reserved {
            reserved.socket.hub.end();
        }
    }
}

/// The token that a request names.
pub(super) fn token(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let header = headers.get(STREAM_TOKEN).and_then(|value| value.to_str().ok()).map(str::to_owned);
    header.or_else(|| named(query, "token")).filter(|token| !token.is_empty())
}

fn error(status: StatusCode, code: Code, text: &'static str) -> Refused {
    Refused { status, refusal: Error::new(code, text).into() }
}

fn not_found() -> Refused {
    error(StatusCode::NOT_FOUND, Code::NotFound, "there is no such stream; reserve one by PUT")
}

/// `PUT /graphql/stream`: reserves a stream. The answer is its token.
pub(in crate::http) async fn put(State(app): State<App>, request: Request) -> Response {
    let (call, _, _) = Call::of(request, ROUTE);
    let made = async {
        let (pass, viewer) = call.identify(&app).await?;
        let place = enter(&app, &viewer)?;
        let (hub, said) = Hub::new(app.config.sockets.max_socket_operations);
        let (transport, route, headers, peer) = (TRANSPORT, ROUTE, lasting(&call.headers), call.peer);
        let socket = Socket { app: app.clone(), transport, route, headers, peer, pass, viewer, hub };
        let reserved = Reserved { socket: Arc::new(socket), closed: Some((said, place)) };
        let token = Uuid::new_v4().simple().to_string();
        app.sockets.reservations().all().insert(token.clone(), reserved);
        Ok(token)
    };
    let token: String = match made.await {
        Ok(token) => token,
        Err(refused) => return refuse(&refused, false),
    };
    let (reserved, limit) = (token.clone(), app.config.sockets.init_timeout());
    tokio::spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            () = app.sockets.turn() => {}
        }
        // When it is open, it ends with its stream.
        let mut all = app.sockets.reservations().all();
        let late = all.get(&reserved).is_some_and(|reserved| reserved.closed.is_some());
        let late = if late { all.remove(&reserved) } else { None };
        drop(all);
        if let Some(late) = late {
            late.socket.hub.end();
        }
    });
    (StatusCode::CREATED, [(CONTENT_TYPE, "text/plain; charset=utf-8")], token).into_response()
}

/// Opens a reserved stream. The token is the ticket: event sources can send nothing else.
pub(super) fn open(app: &App, call: &Call, token: &str) -> Response {
    let found = {
        let mut all = app.sockets.reservations().all();
        all.get_mut(token).map(|reserved| (reserved.socket.clone(), reserved.closed.take()))
    };
    let (socket, (said, place)) = match found {
        None => return refuse(&not_found(), false),
        Some((_, None)) => {
            let text = "the stream is open already";
            return refuse(&error(StatusCode::CONFLICT, Code::Conflict, text), false);
        }
        Some((socket, Some(closed))) => (socket, closed),
    };
    let mut feed = Feed::new(socket, said, place, Form::Single, call.link.clone());
    feed.reservation = Some(Kept { app: app.clone(), token: token.to_owned() });
    feed.respond()
}

/// The socket of a reservation, for the viewer who made it.
async fn find(app: &App, call: &Call, token: &str) -> Result<Arc<Socket>, Refused> {
    let (_, viewer) = call.identify(app).await?;
    let all = app.sockets.reservations().all();
    let found = all.get(token).map(|reserved| reserved.socket.clone());
    found.filter(|socket| socket.viewer == viewer).ok_or_else(not_found)
}

/// Executes an operation; its answers come over the stream.
pub(super) async fn execute(
    app: &App,
    call: &Call,
    token: &str,
    sent: impl Future<Output = Result<Sent, Refused>>,
) -> Response {
    let run = async {
        let socket = find(app, call, token).await?;
        let sent = sent.await?;
        let id = operation_id(&sent).ok_or_else(|| {
            let error = Error::bad_input("extensions.operationId", "is missing");
            Refused { status: StatusCode::BAD_REQUEST, refusal: error.into() }
        })?;
        let (refuse, refused) = oneshot::channel();
        socket.execute(&id, sent, None, Some(refuse)).map_err(|why| Refused {
            status: match why {
                Unbegun::Taken => StatusCode::CONFLICT,
                Unbegun::TooMany => StatusCode::TOO_MANY_REQUESTS,
                Unbegun::Closing => StatusCode::SERVICE_UNAVAILABLE,
            },
            refusal: unbegun(&why).into(),
        })?;
        Ok::<_, Refused>(match refused.await {
            Ok(Ok(())) => StatusCode::ACCEPTED.into_response(),
            Ok(Err((status, body))) => bytes(status, body, true),
            // It was ended meanwhile.
            Err(_) => StatusCode::NO_CONTENT.into_response(),
        })
    };
    match run.await {
        Ok(response) => response,
        Err(refused) => {
            if let Some(limit) = refused.refusal.error.limit() {
                app.metrics.refused(limit);
            }
            refuse(&refused, false)
        }
    }
}

fn operation_id(sent: &Sent) -> Option<String> {
    #[derive(Deserialize)]
    struct Request {
        extensions: Extensions,
    }
    #[derive(Deserialize)]
    struct Extensions {
        #[serde(rename = "operationId")]
        operation_id: String,
    }
    let Sent::Body(body) = sent else { return None };
    let request: Request = serde_json::from_slice(body).ok()?;
    Some(request.extensions.operation_id).filter(|id| !id.is_empty())
}

/// `DELETE /graphql/stream?operationId=…`: ends an operation.
pub(in crate::http) async fn delete(State(app): State<App>, request: Request) -> Response {
    let (call, query, _) = Call::of(request, ROUTE);
    let run = async {
        let token = token(&call.headers, query.as_deref()).ok_or_else(not_found)?;
        let socket = find(&app, &call, &token).await?;
        let id = named(query.as_deref(), "operationId").filter(|id| !id.is_empty()).ok_or_else(|| {
            let error = Error::bad_input("operationId", "is missing");
            Refused { status: StatusCode::BAD_REQUEST, refusal: error.into() }
        })?;
        socket.hub.cancel(&id);
        Ok(())
    };
    match run.await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refused) => refuse(&refused, false),
    }
}
