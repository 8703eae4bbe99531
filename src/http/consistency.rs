//! Read your writes, in any process: the answer to a mutation carries a token that stands for all that was committed
//! by then, and a request that brings one is executed only when this process has seen that, too.

use axum::http::{HeaderMap, StatusCode};

use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::Answer;
use crate::model::change::Snapshot;

/// Carries tokens, to and fro. `extensions.consistencyToken` does so as well.
pub(super) const HEADER: &str = "x-consistency-token";
/// The member of the extensions.
const MEMBER: &str = "consistencyToken";

/// Waits until the tail of this process has passed what the request's tokens stand for.
pub(super) async fn wait(
    app: &App,
    headers: &HeaderMap,
    member: Option<&str>,
) -> Result<(), (StatusCode, Error)> {
    let header = headers.get(HEADER).map(|value| (HEADER, String::from_utf8_lossy(value.as_bytes())));
    let member = member.map(|token| ("extensions.consistencyToken", token.into()));
    for (field, token) in header.into_iter().chain(member) {
        let seen = Snapshot::from_token(field, &token, &app.cursors);
        let seen = seen.map_err(|error| (StatusCode::BAD_REQUEST, error))?;
        let waited = app.changes.wait_for_snapshot(&seen, app.config.consistency_wait()).await;
        waited.map_err(|error| {
            app.metrics.consistency_timeouts.inc();
            let text = "this server has not yet seen what the consistency token stands for; try again";
            let error = Error::new(Code::Unavailable, text).because(error);
            (StatusCode::SERVICE_UNAVAILABLE, error)
        })?;
    }
    Ok(())
}

/// After a mutation: waits until the tail has passed what it committed, and puts the token into the answer.
pub(super) async fn settle(app: &App, answer: &mut Answer) -> Option<String> {
    app.changes.wrote();
    match app.changes.catch_up(app.config.consistency_wait()).await {
        Ok(reached) => {
            let token = reached.snapshot.token(&app.cursors);
            answer.extensions.insert(MEMBER.to_owned(), token.clone().into());
            Some(token)
        }
        // It is committed all the same, and saying otherwise would have it written twice.
        Err(error) => {
            app.metrics.consistency_timeouts.inc();
            tracing::warn!(?error, "a mutation is answered before the tail of the change log has passed it");
            None
        }
    }
}
