//! Who is let in: everyone (in `dev`), or who brings a token that this server signed.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Secret;
use crate::error::{Code, Error, Result};
use crate::model::viewer::{Projects, Role, Viewer};

/// Who made a token, and for whom.
const ISSUER: &str = "evidence-gateway";
/// Clocks may differ by so much.
const LEEWAY_S: u64 = 60;

/// Who is let in.
#[derive(Clone)]
pub enum Access {
    /// Everyone, as administrator. For `dev`, on loopback.
    Everyone,
    /// Who brings a token signed with this secret.
    Tokens(Secret),
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: i64,
    iat: i64,
    role: String,
    /// The projects; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    projects: Option<Vec<Uuid>>,
}

impl Access {
    /// The viewer whom the request's headers name.
    pub fn viewer(&self, headers: &HeaderMap) -> Result<Viewer> {
        match self {
            Self::Everyone => Ok(Viewer::admin()),
            Self::Tokens(secret) => {
                bearer(headers).and_then(|token| read_token(secret, token)).ok_or_else(refused)
            }
        }
    }
}

/// One text for every reason: a stranger learns nothing from it.
fn refused() -> Error {
    Error::new(Code::Unauthenticated, "a valid access token is needed: Authorization: Bearer <token>")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn read_token(secret: &Secret, token: &str) -> Option<Viewer> {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&[ISSUER]);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    rules.leeway = LEEWAY_S;
    rules.validate_nbf = true;
    let claims =
        decode::<Claims>(token, &DecodingKey::from_secret(secret.expose().as_bytes()), &rules).ok()?.claims;
    let role = Role::parse(&claims.role)?;
    let projects = match claims.projects {
        Some(ids) => Projects::Only(ids.into()),
        // A token without a list of projects is an administrator's, or sees nothing.
        None if role == Role::Admin => Projects::All,
        None => Projects::Only([].into()),
    };
    // `mint` writes the nil UUID for nobody in particular; a `sub` that is no UUID is nobody we know.
    let user_id = Uuid::try_parse(&claims.sub).ok().filter(|id| !id.is_nil());
    Some(Viewer { user_id, role, projects })
}

/// Signs a token for a viewer. It is good for so many seconds.
pub fn mint(secret: &Secret, viewer: &Viewer, lifetime_s: u32) -> Result<String> {
    let now = chrono::Utc::now().timestamp();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        sub: viewer.user_id.unwrap_or(Uuid::nil()).to_string(),
        exp: now + i64::from(lifetime_s),
        iat: now,
        role: viewer.role.as_str().to_owned(),
        projects: viewer.project_ids().map(<[Uuid]>::to_vec),
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(Error::internal)
}
