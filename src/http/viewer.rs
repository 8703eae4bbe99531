//! Who is let in: everyone (in `dev`), or who brings a token that this server signed or an API key that its database
//! knows. Every refusal reads alike, whatever its reason.

use std::sync::Arc;
use std::time::Instant;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use chrono::Utc;

use crate::config::{Config, Secret};
use crate::error::{Code, Error, Result};
use crate::http::viewer::recent::Recent;
use crate::http::viewer::token::{TokenKeys, read_token};
use crate::model::api_key::{self, KeyHash};
use crate::model::viewer::{Credential, Holder, Standing, Viewer, standing};
use crate::store::db::Db;

mod recent;
pub mod token;

/// Where an API key may stand instead of in `Authorization`.
const API_KEY_HEADER: &str = "x-api-key";

/// Who is let in.
#[derive(Clone)]
pub enum Access {
    /// Everyone, as administrator. For `dev`, on loopback.
    Everyone,
    /// Who brings an API key, or a token signed with this secret or with the previous one of the settings.
    Tokens(Secret),
}

/// Tells who asks.
#[derive(Clone)]
pub struct Authenticator {
    /// `None` lets everyone in.
    guard: Option<Arc<Guard>>,
}

struct Guard {
    db: Db,
    keys: TokenKeys,
    /// Whom API keys let in. Only keys that are good get here, so that strangers cannot fill it.
    viewers: Recent<KeyHash, Viewer>,
    /// How the holders of tokens stand.
    standings: Recent<Holder, Arc<Standing>>,
}

/// What a request brings in order to be let in.
enum Presented<'a> {
    Token(&'a str),
    ApiKey(&'a str),
}

impl Authenticator {
    /// Derives the keys and starts to remember.
    pub fn new(access: Access, config: &Config, db: Db) -> Self {
        let guard = match access {
            Access::Everyone => None,
            Access::Tokens(secret) => {
                let lifetime = config.identity_lifetime();
                let keys = TokenKeys::new(&secret, config.token_previous_secret.as_ref());
                let (viewers, standings) = (Recent::new(lifetime), Recent::new(lifetime));
                Some(Arc::new(Guard { db, keys, viewers, standings }))
            }
        };
        Self { guard }
    }

    /// Whether nobody is asked who they are.
    pub fn lets_everyone_in(&self) -> bool {
        self.guard.is_none()
    }

    /// The viewer whom the request's headers name. Fails with `UNAUTHENTICATED`, or as the database does when it
    /// cannot be asked.
    pub async fn viewer(&self, headers: &HeaderMap) -> Result<Viewer> {
        let Some(guard) = &self.guard else { return Ok(Viewer::admin()) };
        let viewer = match presented(headers) {
            Some(Presented::Token(token)) => guard.by_token(token).await?,
            Some(Presented::ApiKey(key)) => guard.by_api_key(key).await?,
            None => None,
        };
        viewer.ok_or_else(refused)
    }
}

impl Guard {
    async fn by_token(&self, token: &str) -> Result<Option<Viewer>> {
        let Some(grant) = read_token(&self.keys, token, Utc::now().timestamp()) else { return Ok(None) };
        let known = match self.standings.get(&grant.holder) {
            Some(known) => known,
            None => {
                let begun = Instant::now();
                // A session of its own: what a request costs does not depend on who was here a moment ago.
                let Some(found) = standing(&self.db.session(), grant.holder).await? else { return Ok(None) };
                let found = Arc::new(found);
                self.standings.put(grant.holder, found.clone(), begun);
                found
            }
        };
        Ok(Some(Viewer::admitted(&grant, &known, Credential::Token)))
    }

    async fn by_api_key(&self, key: &str) -> Result<Option<Viewer>> {
        let Some(hash) = KeyHash::of(key) else { return Ok(None) };
        if let Some(viewer) = self.viewers.get(&hash) {
            return Ok(Some(viewer));
        }
        let begun = Instant::now();
        let Some(found) = api_key::find(&self.db.session(), hash).await? else { return Ok(None) };
        self.viewers.put(hash, found.viewer.clone(), begun);
        if let Some(id) = found.unnoted {
            let db = self.db.clone();
            // Nobody waits for it, and the next use tries again if it fails.
            tokio::spawn(async move {
                if let Err(error) = api_key::note_use(&db, id).await {
                    tracing::warn!(?error, api_key = %id, "the use of an API key was not written down");
                }
            });
        }
        Ok(Some(found.viewer))
    }
}

/// One text for every reason: a stranger learns nothing from it.
fn refused() -> Error {
    Error::new(
        Code::Unauthenticated,
        "a valid access token or API key is needed: Authorization: Bearer <token or key>",
    )
}

/// The one credential of a request. Of two nobody could say which of them counts, so they count as none.
fn presented(headers: &HeaderMap) -> Option<Presented<'_>> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter();
    let mut keys = headers.get_all(API_KEY_HEADER).iter();
    match (bearers.next(), bearers.next(), keys.next(), keys.next()) {
        (Some(value), None, None, None) => {
            let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
            let credential = credential.trim();
            scheme.eq_ignore_ascii_case("bearer").then(|| match credential.starts_with(api_key::MARK) {
                true => Presented::ApiKey(credential),
                false => Presented::Token(credential),
            })
        }
        (None, None, Some(key), None) => Some(Presented::ApiKey(key.to_str().ok()?)),
        _ => None,
    }
}
