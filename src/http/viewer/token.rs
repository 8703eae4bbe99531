//! Access tokens: JWT signed with HS256, and nothing else. The whole of reading one is a function of the keys, the
//! text and the clock. jsonwebtoken writes them; it would read the header before it computes anything, pass over
//! `crit`, and look at the clock itself, so reading is done here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, EncodingKey, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::config::Secret;
use crate::error::{Error, Result};
use crate::model::viewer::{Grant, Holder, MAX_PROJECTS, Role};

/// What a token came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// What it says.
    pub grant: Grant,
    /// Its `exp`, in seconds since 1970. It counts a little longer, clocks being as they are.
    pub expires_s: f64,
}

/// Who made a token, and for whom.
const ISSUER: &str = "evidence-gateway";
/// Clocks may differ by so much.
const SKEW_S: i64 = 60;
/// Bytes of a token at most. One that names [`MAX_PROJECTS`] projects has less.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// What the `sub` of an agent's token begins with; a user's is the bare id.
const AGENT: &str = "agent:";

/// The secret that signs and verifies, and the one before it, which still verifies.
pub struct TokenKeys {
    signing: EncodingKey,
    current: Key,
    previous: Option<Key>,
}

struct Key {
    /// The `kid`. It tells secrets apart and tells nothing of them.
    id: String,
    mac: Hmac<Sha256>,
}

impl TokenKeys {
    /// Derives the keys from the secrets.
    pub fn new(secret: &Secret, previous: Option<&Secret>) -> Self {
        let signing = EncodingKey::from_secret(secret.expose().as_bytes());
        Self { signing, current: Key::new(secret), previous: previous.map(Key::new) }
    }

    /// Signs what is no token. The purpose must be no beginning of a token's text, which has no spaces.
    pub(super) fn sign(&self, purpose: &[u8], bytes: &[u8]) -> [u8; 32] {
        let mac = self.current.mac.clone().chain_update(purpose).chain_update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// Whether one of the secrets has signed it for this purpose.
    pub(super) fn have_signed(&self, purpose: &[u8], bytes: &[u8], signature: &[u8]) -> bool {
        let by = |key: &Key| {
            let mac = key.mac.clone().chain_update(purpose).chain_update(bytes);
            mac.verify_slice(signature).is_ok()
        };
        let (current, previous) = (by(&self.current), self.previous.as_ref().is_some_and(by));
        current || previous
    }
}

impl Key {
    fn new(secret: &Secret) -> Self {
        let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes());
        let mac = mac.unwrap_or_else(|_| unreachable!("HMAC takes any key"));
        // No token's text begins like this, so no signature can come out as an id.
        let digest = mac.clone().chain_update(b"evidence-gateway key id\0").finalize().into_bytes();
        Self { id: URL_SAFE_NO_PAD.encode(&digest[..9]), mac }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        #[cfg(test)]
        tests::COMPUTED.set(tests::COMPUTED.get() + 1);
        self.mac.clone().chain_update(message).verify_slice(signature).is_ok()
    }
}

/// All that a header may say. Whatever else one brings (`jwk`, `jku`, `x5c`, `crit`, `b64`, …) means that its token
/// wants to be read in another way than this one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
}

/// What a token says. Times are seconds since 1970, perhaps with a fraction.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    exp: serde_json::Number,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    nbf: Option<serde_json::Number>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    iat: Option<serde_json::Number>,
    role: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    projects: Option<Vec<Uuid>>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A claim that is there has a value: `"projects": null` must not open all of them.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// What a token grants as of a moment in seconds since 1970; `None` for every reason alike.
pub fn read_token(keys: &TokenKeys, token: &str, now_s: i64) -> Option<Grant> {
    read(keys, token, now_s).map(|read| read.grant)
}

/// Whether what ends at that time is over, clocks being as they are.
pub(super) fn has_expired(expires_s: f64, now_s: i64) -> bool {
    // A leap of f64 is far below a second for the times of the next millions of years.
    expires_s <= now_s.saturating_sub(SKEW_S) as f64
}

/// Reads a token as of a moment in seconds since 1970; `None` for every reason alike.
///
/// Signatures are computed before anything else is looked at, under every key and whatever the token looks like:
/// the time that a refusal takes tells at most how long the token was, which its bearer knows.
pub(super) fn read(keys: &TokenKeys, token: &str, now_s: i64) -> Option<Read> {
    let fits = token.len() <= MAX_TOKEN_BYTES;
    let (message, signature) = token.rsplit_once('.').filter(|_| fits).unwrap_or((token, ""));
    let signed = &message.as_bytes()[..message.len().min(MAX_TOKEN_BYTES)];
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    let by_current = keys.current.has_signed(signed, &signature);
    let by_previous = keys.previous.as_ref().is_some_and(|key| key.has_signed(signed, &signature));
    if !fits || !(by_current || by_previous) {
        return None;
    }
    let (header, claims) = message.split_once('.')?;
    let header: Header = read_part(header)?;
    let is_jwt = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    let by_named = match (header.kid, &keys.previous) {
        (None, _) => by_current,
        (Some(kid), _) if kid == keys.current.id => by_current,
        (Some(kid), Some(previous)) if kid == previous.id => by_previous,
        (Some(_), _) => false,
    };
    if header.alg != "HS256" || !is_jwt || !by_named {
        return None;
    }
    grant(&read_part(claims)?, now_s)
}

fn read_part<T: DeserializeOwned>(part: &str) -> Option<T> {
    // serde would not look at the bytes of a member that it does not know.
    let json = String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    // It would take a list of the values for the object, too.
    json.starts_with('{').then(|| serde_json::from_str(&json).ok()).flatten()
}

fn grant(claims: &Claims, now_s: i64) -> Option<Read> {
    let for_us = match &claims.aud {
        Audience::One(aud) => aud == ISSUER,
        Audience::Several(several) => several.iter().any(|aud| aud == ISSUER),
    };
    let past = |time: &serde_json::Number| {
        time.as_f64().is_some_and(|time| time <= now_s.saturating_add(SKEW_S) as f64)
    };
    let begun = claims.nbf.iter().chain(&claims.iat).all(past);
    let expires_s = claims.exp.as_f64()?;
    if claims.iss != ISSUER || !for_us || !begun || has_expired(expires_s, now_s) {
        return None;
    }
    if claims.projects.as_ref().is_some_and(|ids| ids.len() > MAX_PROJECTS) {
        return None;
    }
    let holder = read_holder(&claims.sub)?;
    let grant = Grant { holder, role: Role::parse(&claims.role)?, projects: claims.projects.clone() };
    Some(Read { grant, expires_s })
}

/// Reads a `sub`. [`write_holder`] writes the nil UUID for nobody in particular; one of another form is nobody whom
/// we know.
pub(super) fn read_holder(sub: &str) -> Option<Holder> {
    match sub.strip_prefix(AGENT) {
        Some(id) => Some(Holder::Agent(Uuid::try_parse(id).ok()?)),
        None => match Uuid::try_parse(sub).ok()? {
            id if id.is_nil() => Some(Holder::Nobody),
            id => Some(Holder::User(id)),
        },
    }
}

/// Writes a `sub`.
pub(super) fn write_holder(holder: &Holder) -> String {
    match holder {
        Holder::Nobody => Uuid::nil().to_string(),
        Holder::User(id) => id.to_string(),
        Holder::Agent(id) => format!("{AGENT}{id}"),
    }
}

/// Signs a token. It is good for so many seconds.
pub fn mint(keys: &TokenKeys, grant: &Grant, lifetime_s: u32) -> Result<String> {
    if grant.projects.as_ref().is_some_and(|ids| ids.len() > MAX_PROJECTS) {
        let text =
            format!("allowed are {MAX_PROJECTS} projects at most; members of more need none to be named");
        return Err(Error::bad_input("--project", text));
    }
    let now = chrono::Utc::now().timestamp();
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: Audience::One(ISSUER.to_owned()),
        sub: write_holder(&grant.holder),
        exp: (now + i64::from(lifetime_s)).into(),
        nbf: None,
        iat: Some(now.into()),
        role: grant.role.as_str().to_owned(),
        projects: grant.projects.clone(),
    };
    let header = jsonwebtoken::Header {
        kid: Some(keys.current.id.clone()),
        ..jsonwebtoken::Header::new(Algorithm::HS256)
    };
    encode(&header, &claims, &keys.signing).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Signatures that this thread has computed in order to compare them.
        pub(super) static COMPUTED: Cell<u32> = const { Cell::new(0) };
    }

    /// No token is refused with less work than another.
    #[test]
    fn every_token_costs_one_signature_per_key() {
        let secret =
            |text: &str| -> Secret { text.repeat(16).parse().unwrap_or_else(|never| match never {}) };
        let grant = Grant { holder: Holder::Nobody, role: Role::Admin, projects: None };
        let (one, two) = (secret("one"), secret("two"));
        let old = TokenKeys::new(&one, None);
        let keys = TokenKeys::new(&two, Some(&one));
        let good = mint(&keys, &grant, 60).unwrap();
        let older = mint(&old, &grant, 60).unwrap();
        let now = chrono::Utc::now().timestamp();
        let strange = mint(&TokenKeys::new(&secret("three"), None), &grant, 60).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
        for (token, accepted) in [
            (good.as_str(), true),
            (&older, true),
            (&good[..good.len() - 1], false),
            (&strange, false),
            (&unsigned, false),
            ("", false),
            (".", false),
            ("..", false),
            ("a.b.!", false),
            (&"x".repeat(1 << 20), false),
            (&format!("{good}.{}", "x".repeat(MAX_TOKEN_BYTES)), false),
        ] {
            COMPUTED.set(0);
            let read = read_token(&keys, token, now);
            assert_eq!((read.is_some(), COMPUTED.get()), (accepted, 2), "{}", &token[..token.len().min(400)]);
        }
        // What the new secret signs is nothing to a gateway that has only the old one.
        assert_eq!(read_token(&old, &good, now), None);
        let most = Grant { projects: Some(vec![Uuid::max(); MAX_PROJECTS]), ..grant };
        let longest = mint(&keys, &Grant { holder: Holder::Agent(Uuid::max()), ..most }, 60).unwrap();
        assert!(longest.len() <= MAX_TOKEN_BYTES && read_token(&keys, &longest, now).is_some());
        let more = Grant { projects: Some(vec![Uuid::max(); MAX_PROJECTS + 1]), ..grant };
        assert!(mint(&keys, &more, 60).is_err());
    }
}
