//! How a request becomes a WebSocket: who may have one, and which protocol is spoken on it.

use axum::extract::Request;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::socket::lasting;
use super::websocket::{Opening, TRANSPORT};
use crate::app::App;
use crate::error::{Code, Error};
use crate::http::graphql;
use crate::http::guard::is_ours;
use crate::http::operation::unknown;
use crate::http::server::Peer;
use crate::http::viewer::{Pass, Presented, presented, presents};
use crate::model::viewer::Viewer;

/// The subprotocol.
const PROTOCOL: &str = "graphql-transport-ws";

/// Whether a request wants to become a WebSocket.
pub(in crate::http) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// Answers a request for a WebSocket.
pub(in crate::http) async fn upgrade(app: App, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let refuse = |status, error: Error| {
        if let Some(limit) = error.limit() {
            app.metrics.refused(limit);
        }
        graphql::refused(&parts.headers, status, error)
    };
    let wrong = |text| refuse(StatusCode::BAD_REQUEST, Error::new(Code::BadUserInput, text));
    if !is_ours(&parts.headers, &app.config.cors_origins) {
        let text = "pages of this origin may not open sockets here";
        return refuse(StatusCode::FORBIDDEN, Error::new(Code::Forbidden, text));
    }
    if parts.headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = wrong("the version of the WebSocket protocol must be 13");
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let mut extensions = parts.extensions.clone();
    let (Some(key), Some(upgrade)) = (parts.headers.get(SEC_WEBSOCKET_KEY), extensions.remove::<OnUpgrade>())
    else {
        return wrong("this is no request for a WebSocket");
    };
    let known = match identify(&app, &parts.headers, parts.uri.query()).await {
        Ok(known) => known,
        Err(error) => {
            let refused = unknown(error);
            return refuse(refused.status, refused.refusal.error);
        }
    };
    let mut place = match app.sockets.enter(TRANSPORT) {
        Ok(place) => place,
        Err(error) => return refuse(StatusCode::SERVICE_UNAVAILABLE, error),
    };
    if let Some(Err(error)) = known.as_ref().map(|(_, viewer)| place.name(viewer)) {
        return refuse(StatusCode::TOO_MANY_REQUESTS, error);
    }
    let (understood, chosen) = choose(&parts.headers);
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(
        HeaderValue::try_from(derive_accept_key(key.as_bytes())).map(|it| (SEC_WEBSOCKET_ACCEPT, it)),
    );
    headers.extend(chosen.map(|chosen| (SEC_WEBSOCKET_PROTOCOL, chosen)));
    let peer = parts.extensions.get::<Peer>().copied();
    let opening = Opening { headers: lasting(&parts.headers), app, peer, known, place, understood };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => Box::pin(opening.serve(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a connection broke before it became a WebSocket"),
        }
    });
    response
}

/// Whether the client offers the subprotocol, and which one it is answered with.
fn choose(headers: &HeaderMap) -> (bool, Option<HeaderValue>) {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let understood = offered.contains(&PROTOCOL);
    // Clients break off without a word when nothing that they offered comes back, and would never read 4406.
    let chosen = if understood { Some(PROTOCOL) } else { offered.first().copied() };
    (understood, chosen.and_then(|chosen| HeaderValue::from_str(chosen).ok()))
}

/// Who it is, if the request says so.
async fn identify(
    app: &App,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Option<(Pass, Viewer)>, Error> {
    let ticket = super::ticket::of(query);
    let pass = match (presents(headers), &ticket) {
        (true, _) => app.access.pass(presented(headers))?,
        (false, Some(ticket)) => app.access.pass(Some(Presented::Ticket(ticket)))?,
        (false, None) if app.access.lets_everyone_in() => app.access.pass(None)?,
        (false, None) => return Ok(None),
    };
    let viewer = app.access.holder(&pass).await?;
    Ok(Some((pass, viewer)))
}
