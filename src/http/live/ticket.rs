//! Tickets for sockets that can send no headers: browsers' WebSockets and event sources.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::http::graphql;
use crate::http::operation::unknown;
use crate::http::viewer::presented;

/// `POST /graphql/ticket`: a ticket for whoever sends credentials in the headers. It goes into the address, as
/// `?ticket=`, and ends in seconds; what was opened with it goes on for as long as the credential holds.
pub(in crate::http) async fn ticket(State(app): State<App>, headers: HeaderMap) -> Response {
    let lifetime_s = app.config.sockets.ticket_ttl_s;
    let made = async {
        let pass = app.access.pass(presented(&headers))?;
        // Only who would be let in gets one.
        app.access.holder(&pass).await?;
        Ok(app.access.ticket(&pass, lifetime_s))
    };
    match made.await {
        Ok(ticket) => {
            let body = json!({"ticket": ticket, "expiresIn": lifetime_s});
            ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
        }
        Err(error) => {
            let refused = unknown(error);
            graphql::refused(&headers, refused.status, refused.refusal.error)
        }
    }
}

/// The ticket of a query string.
pub(super) fn of(query: Option<&str>) -> Option<String> {
    named(query, "ticket")
}

/// The value of a name of a query string.
pub(super) fn named(query: Option<&str>, name: &str) -> Option<String> {
    let found = form_urlencoded::parse(query?.as_bytes()).find(|(known, _)| known == name)?;
    Some(found.1.into_owned())
}
