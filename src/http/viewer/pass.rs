//! A pass: what a credential comes to, without the credential. Who stays connected keeps one and is asked again and
//! again who it stands for. A ticket is a pass in writing, signed and good for seconds, for browsers: their sockets and
//! event sources can send no headers, and an address must not carry a token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::token::{Read, TokenKeys, has_expired, read_holder, write_holder};
use crate::model::api_key::KeyHash;
use crate::model::viewer::{Grant, Role};

/// What a ticket begins with, so that people and secret scanners know one when they see one.
const MARK: &str = "egt_";
const PURPOSE: &[u8] = b"evidence-gateway ticket\0";
/// Bytes of a ticket at most. One that names a hundred projects has less.
const MAX_TICKET_BYTES: usize = 8 * 1024;

/// What a credential comes to.
#[derive(Clone, PartialEq)]
pub struct Pass(pub(super) Kind);

#[derive(Clone, PartialEq)]
pub(super) enum Kind {
    /// Nobody is asked who they are.
    Everyone,
    /// What a signed token says.
    Token(Read),
    /// What stands for an API key.
    ApiKey(KeyHash),
}

/// A pass as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// When the ticket ends, in seconds since 1970.
    until: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<[u8; 32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Granted>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Granted {
    sub: String,
    role: String,
    projects: Option<Vec<Uuid>>,
    exp: f64,
}

impl Pass {
    /// Whether a token has expired, as far as the pass itself knows.
    pub(super) fn has_expired(&self) -> bool {
        match &self.0 {
            Kind::Token(read) => has_expired(read.expires_s, Utc::now().timestamp()),
            Kind::Everyone | Kind::ApiKey(_) => false,
        }
    }

    /// Writes a ticket that is good for so many seconds.
    pub(super) fn write(&self, keys: &TokenKeys, lifetime_s: u32) -> String {
        let until = Utc::now().timestamp() + i64::from(lifetime_s);
        let mut written = Written { until, key: None, token: None };
        match &self.0 {
            Kind::Everyone => {}
            Kind::ApiKey(hash) => written.key = Some(hash.to_bytes()),
            Kind::Token(Read { grant, expires_s }) => {
                written.token = Some(Granted {
                    sub: write_holder(&grant.holder),
                    role: grant.role.as_str().to_owned(),
                    projects: grant.projects.clone(),
                    exp: *expires_s,
                });
            }
        }
        // Writing to memory does not fail; a ticket without content lets nobody in.
        let content = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).unwrap_or_default());
        let signature = URL_SAFE_NO_PAD.encode(keys.sign(PURPOSE, content.as_bytes()));
        format!("{MARK}{content}.{signature}")
    }

    /// Reads a ticket; `None` for every reason alike.
    pub(super) fn read(keys: &TokenKeys, ticket: &str) -> Option<Self> {
        if ticket.len() > MAX_TICKET_BYTES {
            return None;
        }
        let (content, signature) = ticket.strip_prefix(MARK)?.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !keys.have_signed(PURPOSE, content.as_bytes(), &signature) {
            return None;
        }
        let written: Written = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(content).ok()?).ok()?;
        if written.until <= Utc::now().timestamp() {
            return None;
        }
        let kind = match (written.key, written.token) {
            (Some(key), None) => Kind::ApiKey(KeyHash::from_bytes(key)),
            (None, Some(token)) => {
                let (holder, role) = (read_holder(&token.sub)?, Role::parse(&token.role)?);
                let grant = Grant { holder, role, projects: token.projects };
                Kind::Token(Read { grant, expires_s: token.exp })
            }
            _ => return None,
        };
        Some(Self(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::http::viewer::token::mint;
    use crate::model::viewer::{Holder, MAX_PROJECTS};

    #[test]
    fn tickets_say_what_they_were_made_of_and_nothing_else_does() {
        let secret =
            |text: &str| -> Secret { text.repeat(16).parse().unwrap_or_else(|never| match never {}) };
        let (old, new) = (secret("one"), secret("two"));
        let (before, keys) = (TokenKeys::new(&old, None), TokenKeys::new(&new, Some(&old)));
        let projects = Some(vec![Uuid::max(); MAX_PROJECTS]);
        let grant = Grant { holder: Holder::Agent(Uuid::max()), role: Role::Analyst, projects };
        let token = mint(&keys, &grant, 60).unwrap();
        for pass in [
            Pass(Kind::ApiKey(KeyHash::from_bytes([7; 32]))),
            Pass(Kind::Token(Read { grant, expires_s: 1.5 })),
        ] {
            let ticket = pass.write(&keys, 60);
            assert!(ticket.len() <= MAX_TICKET_BYTES);
            assert!(Pass::read(&keys, &ticket) == Some(pass.clone()));
            // Secrets change as for tokens: the one before still counts, the one to come does not yet.
            assert!(Pass::read(&keys, &pass.write(&before, 60)) == Some(pass.clone()));
            assert!(Pass::read(&before, &ticket).is_none());
            let (content, signature) = ticket.split_once('.').unwrap();
            let (short, over) = (&ticket[..ticket.len() - 2], pass.write(&keys, 0));
            let unmarked = ticket.strip_prefix(MARK).unwrap();
            let another = pass.write(&keys, 3_600);
            let mixed = format!("{}.{signature}", another.split_once('.').unwrap().0);
            for wrong in
                [short, &over, unmarked, &mixed, content, &token, "", "egt_", "egt_.", &"x".repeat(9_000)]
            {
                assert!(Pass::read(&keys, wrong).is_none(), "{wrong}");
            }
        }
        assert!(Pass::read(&keys, &Pass(Kind::Everyone).write(&keys, 60)).is_none());
    }
}
