//! Who is let in: everyone (in `dev`), or who brings a token that this server signed or an API key that its database
//! knows. Every refusal reads alike, whatever its reason.

use std::sync::Arc;
use std::time::Instant;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use chrono::Utc;

use crate::config::{Config, Secret};
use crate::error::{Code, Error, Result};
use crate::http::viewer::pass::Kind;
use crate::http::viewer::recent::Recent;
use crate::http::viewer::token::{Read, TokenKeys, read};
use crate::model::api_key::{self, KeyHash};
use crate::model::viewer::{Credential, Holder, Standing, Viewer, standing};
use crate::store::db::Db;

mod pass;
mod recent;
pub mod token;

pub use pass::Pass;

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

/// What somebody brings in order to be let in.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// A signed token.
    Token(&'a str),
    /// An API key.
    ApiKey(&'a str),
    /// A ticket.
    Ticket(&'a str),
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
        if self.guard.is_none() {
            return Ok(Viewer::admin());
        }
        self.holder(&self.pass(presented(headers))?).await
    }

    /// What a credential comes to. Fails with `UNAUTHENTICATED`.
    pub fn pass(&self, presented: Option<Presented<'_>>) -> Result<Pass> {
        let Some(guard) = &self.guard else { return Ok(Pass(Kind::Everyone)) };
        let pass = match presented {
            Some(Presented::Token(token)) => {
                read(&guard.keys, token, Utc::now().timestamp()).map(|read| Pass(Kind::Token(read)))
            }
            Some(Presented::ApiKey(key)) => KeyHash::of(key).map(|hash| Pass(Kind::ApiKey(hash))),
            Some(Presented::Ticket(ticket)) => Pass::read(&guard.keys, ticket),
            None => None,
        };
        pass.ok_or_else(refused)
    }

    /// Whom a pass stands for at the moment. Fails with `UNAUTHENTICATED` when it stands for nobody any more, or as
    /// the database does when it cannot be asked.
    pub async fn holder(&self, pass: &Pass) -> Result<Viewer> {
        let viewer = match (&self.guard, &pass.0) {
            (None, _) => return Ok(Viewer::admin()),
            (Some(_), _) if pass.has_expired() => None,
            (Some(guard), Kind::Token(read)) => guard.by_token(read).await?,
            (Some(guard), Kind::ApiKey(hash)) => guard.by_api_key(*hash).await?,
            (Some(_), Kind::Everyone) => None,
        };
        viewer.ok_or_else(refused)
    }

    /// A ticket for the holder of the pass, good for so many seconds.
    pub fn ticket(&self, pass: &Pass, lifetime_s: u32) -> Option<String> {
        self.guard.as_ref().map(|guard| pass.write(&guard.keys, lifetime_s))
    }
}

impl Guard {
    async fn by_token(&self, Read { grant, .. }: &Read) -> Result<Option<Viewer>> {
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
        Ok(Some(Viewer::admitted(grant, &known, Credential::Token)))
    }

    async fn by_api_key(&self, hash: KeyHash) -> Result<Option<Viewer>> {
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
pub fn presented(headers: &HeaderMap) -> Option<Presented<'_>> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter();
    let mut keys = headers.get_all(API_KEY_HEADER).iter();
    match (bearers.next(), bearers.next(), keys.next(), keys.next()) {
        (Some(value), None, None, None) => bearer(value.to_str().ok()?),
        (None, None, Some(key), None) => Some(Presented::ApiKey(key.to_str().ok()?)),
        _ => None,
    }
}

/// Whether headers try to say who it is.
pub fn presents(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION) || headers.contains_key(API_KEY_HEADER)
}

/// The credential in the value of `Authorization`.
pub fn bearer(value: &str) -> Option<Presented<'_>> {
    let (scheme, credential) = value.split_once(' ')?;
    let credential = credential.trim();
    scheme.eq_ignore_ascii_case("bearer").then(|| match credential.starts_with(api_key::MARK) {
        true => Presented::ApiKey(credential),
        false => Presented::Token(credential),
    })
}
