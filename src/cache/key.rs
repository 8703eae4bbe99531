//! Keys: what two requests must have in common to get the same answer. A cryptographic hash over all of it, so that
//! nobody can make a request whose key is that of another.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::viewer::{Projects, Viewer};

/// The version of keys and entries. Other versions of the gateway do not find each other's entries.
const FORMAT: &[u8] = b"evidence-gateway answers 2\0";

/// The key of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// As 64 hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hexadecimal(&self.0))
    }
}

/// Makes keys.
#[derive(Clone)]
pub struct Keys {
    base: Sha256,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// For one schema over one database; `secret` keeps others from telling by a key what was asked.
    pub fn new(schema: &str, database: &str, secret: &[u8]) -> Self {
        let mut base = Sha256::new().chain_update(FORMAT);
        for part in [schema.as_bytes(), database.as_bytes(), secret, env!("CARGO_PKG_VERSION").as_bytes()] {
            add(&mut base, part);
        }
        Self { base }
    }

    /// The key of a request as it came over the wire, for this one viewer. `how` tells ways of sending apart.
    pub fn of_bytes(&self, viewer: &Viewer, how: &str, bytes: &[u8]) -> Key {
        let mut hash = self.base.clone();
        add(&mut hash, how.as_bytes());
        add_scope(&mut hash, viewer);
        add_person(&mut hash, viewer);
        add(&mut hash, bytes);
        Key(hash.finalize().into())
    }

    /// The secret that entries are sealed with where others may read and write them.
    pub fn sealing(&self) -> [u8; 32] {
        let mut hash = self.base.clone();
        add(&mut hash, b"entries");
        hash.finalize().into()
    }

    /// The key of an operation for everyone of the viewer's scope, or for this person only. `operation` is all that
    /// is asked, in one form.
    pub fn of_operation(&self, viewer: &Viewer, personal: bool, operation: &[u8]) -> Key {
        let mut hash = self.base.clone();
        add(&mut hash, if personal { b"person" } else { b"scope" });
        add_scope(&mut hash, viewer);
        if personal {
            add_person(&mut hash, viewer);
        }
        add(&mut hash, operation);
        Key(hash.finalize().into())
    }
}

/// The digits of bytes.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |four: u8| char::from(b"0123456789abcdef"[usize::from(four)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// With its length, so that no two lists of parts look alike.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// The role and the projects: viewers who have both in common get the same answers.
fn add_scope(hash: &mut Sha256, viewer: &Viewer) {
    add(hash, viewer.role.as_str().as_bytes());
    match &viewer.projects {
        Projects::All => add(hash, b"all"),
        Projects::Only(ids) => {
            let mut ids: Vec<&Uuid> = ids.iter().collect();
            ids.sort_unstable();
            ids.dedup();
            add(hash, b"only");
            hash.update((ids.len() as u64).to_be_bytes());
            ids.iter().for_each(|id| hash.update(id.as_bytes()));
        }
    }
}

fn add_person(hash: &mut Sha256, viewer: &Viewer) {
    for id in [viewer.user_id, viewer.agent_id] {
        add(hash, id.as_ref().map_or(&[][..], |id| id.as_bytes()));
    }
}
