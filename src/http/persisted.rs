//! Persisted operations: a request may name its document by a hash instead of sending it, and an operator may decide
//! that nothing else is run.

use axum::http::StatusCode;

use crate::app::App;
use crate::config::DocumentMode;
use crate::error::{Code, Error};
use crate::graphql::admit::{Parameters, PersistedQuery, Refusal};
use crate::model::document::DocumentHash;
use crate::model::viewer::Viewer;

/// What Apollo's clients look for.
const NOT_FOUND: &str = "PersistedQueryNotFound";
const NOT_SUPPORTED: &str = "PersistedQueryNotSupported";

/// Fills in the document that a request names. What comes back is the hash under which the request wants its own
/// document to be kept, once it has been found to be one.
pub(super) async fn complete(
    app: &App,
    viewer: &Viewer,
    parameters: &mut Parameters,
) -> Result<Option<DocumentHash>, Refusal> {
    let mode = app.config.document_modes.of(viewer.role.as_str());
    let named = named(app, parameters)?;
    parameters.query = parameters.query.take().filter(|query| !query.trim().is_empty());
    let wants_trust = mode != DocumentMode::Open;
    let found = match (&parameters.query, named) {
        (None, None) => return Ok(None),
        (Some(query), Some(hash)) if DocumentHash::of(query) != hash => {
            return Err(Error::bad_input(
                "extensions.persistedQuery.sha256Hash",
                "is not the document's hash",
            )
            .into());
        }
        (Some(query), _) if wants_trust => app.documents.find(DocumentHash::of(query), true).await,
        (Some(_), _) => None,
        (None, Some(hash)) => {
            let Some(found) = app.documents.find(hash, wants_trust).await else {
                return Err(Error::new(Code::PersistedQueryNotFound, NOT_FOUND).into());
            };
            parameters.query = Some(found.text.to_string());
            Some(found)
        }
    };
    if wants_trust && !found.is_some_and(|found| found.trusted) {
        if mode == DocumentMode::TrustedOnly {
            let text = "only documents that were registered may be run here";
            return Err(Error::new(Code::Forbidden, text).into());
        }
        app.metrics.cache.untrusted_documents.inc();
    }
    Ok(named)
}

/// The hash by which the request names its document: `documentId`, or Apollo's extension.
fn named(app: &App, parameters: &Parameters) -> Result<Option<DocumentHash>, Refusal> {
    if let Some(id) = &parameters.document_id {
        // Whatever else it may be called, nobody registered it under that name.
        let hash =
            DocumentHash::read(id).ok_or_else(|| Error::new(Code::PersistedQueryNotFound, NOT_FOUND))?;
        return Ok(Some(hash));
    }
    match parameters.persisted_query(&app.config.limits)? {
        None => Ok(None),
        Some(PersistedQuery { version: 1, sha256_hash }) => {
            let wrong = || {
                Error::bad_input("extensions.persistedQuery.sha256Hash", "is not a SHA-256 in hexadecimal")
            };
            Ok(Some(DocumentHash::read(&sha256_hash).ok_or_else(wrong)?))
        }
        Some(_) => Err(Error::new(Code::PersistedQueryNotSupported, NOT_SUPPORTED).into()),
    }
}

/// The status of a refusal: in plain JSON whatever is a request of GraphQL is answered with 200.
pub(super) fn status(refusal: &Refusal, modern: bool) -> StatusCode {
    let good = !modern && !refusal.malformed && refusal.error.code() != Code::Forbidden;
    match refusal.error.code() {
        _ if good => StatusCode::OK,
        Code::Forbidden => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    }
}
