//! Documents that clients run by their hash alone, because an operator registered them.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::store::db::Session;
use crate::store::db::sql::{Bind, Sql};

/// The SHA-256 of a document: what it is called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DocumentHash([u8; 32]);

impl DocumentHash {
    /// The hash of a document.
    pub fn of(document: &str) -> Self {
        Self(Sha256::digest(document.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits, perhaps behind `sha256:`.
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; 32];
        for (place, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

/// As 64 hexadecimal digits.
impl std::fmt::Display for DocumentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A document that an operator registered; none if nobody did. It takes no viewer, because documents are no rows of
/// a project.
pub async fn find(session: &Session, hash: DocumentHash) -> Result<Option<String>> {
    let mut sql = Sql::default();
    sql.push("select document from persisted_documents where trusted and hash = ");
    sql.bind(Bind::Text(hash.to_string()));
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(rows.text(0, 0).map(str::to_owned))
}

/// A document to be registered.
#[derive(Debug)]
pub struct Registered {
    /// Its hash.
    pub hash: DocumentHash,
    /// The document.
    pub text: String,
    /// The name of its operation.
    pub operation: Option<String>,
}

/// Registers documents, and says how many are new.
pub async fn register(session: &Session, documents: &[Registered]) -> Result<u64> {
    let texts = |of: &dyn Fn(&Registered) -> String| Bind::Texts(documents.iter().map(of).collect());
    let mut sql = Sql::default();
    sql.push("with given as (select * from unnest(").bind(texts(&|document| document.hash.to_string()));
    sql.push("::text[], ").bind(texts(&|document| document.text.clone()));
    sql.push("::text[], ").bind(texts(&|document| document.operation.clone().unwrap_or_default()));
    sql.push(
        "::text[]) g (hash, document, name)), done as (insert into persisted_documents (hash, document, \
         operation_name, trusted) select hash, document, nullif(name, ''), true from given \
         on conflict (hash) do update set trusted = true where not persisted_documents.trusted returning 1) \
         select count(*) from done",
    );
    let rows = session.rows(&sql.returning(1)).await?;
    let count = rows.bigint(0, 0).and_then(|count| u64::try_from(count).ok());
    count.ok_or_else(|| Error::internal("the documents were not counted"))
}
