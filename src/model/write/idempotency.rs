//! Idempotency keys: the first write with a key keeps its answer for 48 hours, in its own transaction, and whoever
//! brings the key again gets that answer. Those who come at the same time wait for the first at the table's key.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::Utc;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Origin;
use crate::error::{Code, Error, Result};
use crate::model::mutation::{IDEMPOTENCY_KEY, MAX_KEY, Permit, Values};
use crate::model::viewer::{Credential, Viewer};
use crate::store::db::Session;
use crate::store::db::sql::{Bind, Sql};
use crate::store::db::transaction::Transaction;

/// Seconds between two removals of expired keys by one gateway.
const PRUNE_EVERY: i64 = 60;
/// Keys that one removal takes at most.
const PRUNE_BATCH: i64 = 1_000;

/// A key in its scope (who asks, for which mutation), and the hash of what was asked with it.
pub(super) struct Key {
    id: String,
    body_hash: String,
}

impl Key {
    /// The key that an input or its request names, if either does.
    pub(super) fn of(
        permit: Permit<'_>,
        origin: &Origin,
        place: usize,
        input: &Values,
    ) -> Result<Option<Self>> {
        let (text, path) = match (input.idempotency_key(), &origin.idempotency_key) {
            // The key of a request stands for each of its mutations by their place.
            (None, Some(key)) => (format!("{place}:{}", checked(key, "Idempotency-Key")?), None),
            (Some(key), _) => (checked(key, "input.idempotencyKey")?.to_owned(), Some(())),
            (None, None) => return Ok(None),
        };
        let from = if path.is_some() { "input" } else { "header" };
        let id = format!("{}/{}/{from}:{text}", identity(permit.viewer), permit.mutation.name);
        let mut hasher = Sha256::new();
        hash_values(input, &mut hasher);
        Ok(Some(Self { id, body_hash: hex(&hasher.finalize()) }))
    }
}

fn checked<'a>(key: &'a str, path: &str) -> Result<&'a str> {
    if (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(key);
    }
    let text = format!("must be 1 to {MAX_KEY} printable ASCII characters without spaces");
    Err(Error::bad_input(path, text))
}

/// Two who share an identity share its keys. Those who are nobody in particular are told apart by their credential,
/// or by what they may see.
fn identity(viewer: &Viewer) -> String {
    match (viewer.user_id, viewer.agent_id, viewer.credential) {
        (Some(id), _, _) => format!("user:{id}"),
        (None, Some(id), _) => format!("agent:{id}"),
        (None, None, Credential::ApiKey(id)) => format!("key:{id}"),
        (None, None, _) => {
            let mut hasher = Sha256::new();
            for id in viewer.project_ids().unwrap_or_default() {
                hasher.update(id);
            }
            format!("{}:{}", viewer.role.as_str(), hex(&hasher.finalize()[..8]))
        }
    }
}

/// Every field but the key itself, in the order of their names.
fn hash_values(values: &Values, hasher: &mut Sha256) {
    for (name, value) in values.fields.iter().filter(|(name, _)| **name != IDEMPOTENCY_KEY.name) {
        hash_text(name, hasher);
        hash_json(value, hasher);
    }
    for item in &values.items {
        hasher.update(b"+");
        hash_values(item, hasher);
    }
}

/// With its length, so that no two inputs come to the same bytes.
fn hash_text(text: &str, hasher: &mut Sha256) {
    hasher.update(text.len().to_be_bytes());
    hasher.update(text);
}

/// The order of an object's members is not part of what it says.
fn hash_json(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            hasher.update(format!("{{{}", members.len()));
            for (name, value) in members {
                hash_text(name, hasher);
                hash_json(value, hasher);
            }
        }
        Value::Array(items) => {
            hasher.update(format!("[{}", items.len()));
            items.iter().for_each(|item| hash_json(item, hasher));
        }
        other => hash_text(&other.to_string(), hasher),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes the key for this transaction, or gives the ids that an earlier one wrote with it.
pub(super) async fn claim(tx: &mut Transaction, key: &Key) -> Result<Option<Vec<Uuid>>> {
    let mut sql = Sql::default();
    sql.push("insert into processed_messages as m (message_id, body_hash) values (");
    sql.bind(Bind::Text(key.id.clone())).push(", ").bind(Bind::Text(key.body_hash.clone()));
    // An expired key is as good as a new one, also when nobody has removed it yet.
    sql.push(
        ") on conflict (message_id) do update set body_hash = excluded.body_hash, response = null, \
         processed_at = now(), expires_at = excluded.expires_at where m.expires_at <= now() returning true",
    );
    if !tx.rows(&sql.returning(1)).await.map_err(Error::from)?.is_empty() {
        return Ok(None);
    }
    let mut sql = Sql::default();
    sql.push(
        "select body_hash, array(select jsonb_array_elements_text(response -> 'ids')::uuid) \
         from processed_messages where message_id = ",
    );
    sql.bind(Bind::Text(key.id.clone()));
    let rows = tx.rows(&sql.returning(2)).await.map_err(Error::from)?;
    match (rows.text(0, 0), rows.uuids(0, 1)) {
        (Some(hash), Some(ids)) if hash == key.body_hash => Ok(Some(ids)),
        (Some(_), _) => {
            Err(Error::new(Code::Conflict, "the idempotency key was used before, with another input"))
        }
        // It expired and was removed between the two statements.
        (None, _) => Err(Error::new(Code::Conflict, "the idempotency key expires at this moment; try again")),
    }
}

/// Keeps the answer: the ids of the rows, which are read anew for whoever asks again.
pub(super) async fn keep(tx: &mut Transaction, key: &Key, ids: &[Uuid]) -> Result<()> {
    let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
    let mut sql = Sql::default();
    sql.push("update processed_messages set response = ").bind(Bind::Json(serde_json::json!({"ids": ids})));
    sql.push(" where message_id = ").bind(Bind::Text(key.id.clone()));
    tx.rows(&sql.returning(0)).await.map_err(Error::from)?;
    Ok(())
}

/// Removes expired keys, a batch once in a while, from a gateway that writes.
#[derive(Debug, Clone, Default)]
pub struct Pruner(Arc<AtomicI64>);

impl Pruner {
    /// Starts a removal in the background if the last one is long enough ago.
    pub fn now_and_then(&self, session: &Session) {
        let (now, last) = (Utc::now().timestamp(), self.0.load(Ordering::Relaxed));
        let due = now - last >= PRUNE_EVERY;
        if !due || self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        // A session of its own: what a request costs does not depend on when it came.
        let session = session.apart();
        tokio::spawn(async move {
            let mut sql = Sql::default();
            sql.push(
                "delete from processed_messages where message_id in (select message_id from processed_messages \
                 where expires_at <= now() order by expires_at limit ",
            );
            sql.bind(Bind::Int(PRUNE_BATCH)).push(" for update skip locked)");
            if let Err(error) = session.rows(&sql.returning(0)).await {
                tracing::warn!(?error, "expired idempotency keys were not removed");
            }
        });
    }
}
