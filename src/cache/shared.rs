//! What processes share by Redis (L2): entries in a form that does not depend on the process, and the word that one
//! of them is executing. Redis may lose or hold back what it likes: an entry is believed only if it proves that one
//! of ours wrote it, and if our own tail finds that it still holds.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::cache::entry::{Entry, Origin};
use crate::cache::freshness::Freshness;
use crate::cache::key::{Key, Keys, hexadecimal};
use crate::cache::sources::Kept;
use crate::error::{Error, Result};
use crate::store::db::reads::Hint;
use crate::store::redis::Redis;

/// What an entry begins with: a version of the form. Others are not read.
const MAGIC: &[u8; 4] = b"EGA2";
/// What follows it if the rest is compressed, or not.
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;
/// The two, and the nonce: what stands before what is sealed.
const PREFIX: usize = MAGIC.len() + 1 + NONCE_LEN;
/// Entries above so many bytes are compressed, by LZ4: smaller ones take longer to unpack than to send. Larger ones are
/// as soon read, proved and unpacked as read and proved as they are; what compresses better takes three times as long.
const COMPRESS_ABOVE: usize = 4_096;
/// What an entry may become when it is unpacked.
const LARGEST: usize = 64 << 20;

/// The cache that processes share.
#[derive(Debug, Clone)]
pub struct SharedCache {
    redis: Redis,
    /// Seals entries: nobody else can read them, or write one that is believed.
    sealer: Arc<LessSafeKey>,
}

/// What is said of an entry before its sources and its body.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    as_of: &'a str,
    /// Of the body.
    hash: &'a str,
    operation: Option<&'a str>,
    /// When the request began, in milliseconds since 1970.
    begun: u64,
    lifetime_ms: u64,
    hint: Hint,
    personal: bool,
    /// Bytes of the sources.
    sources: usize,
}

impl SharedCache {
    /// By this server, or none. Fails for no reason that is known.
    pub fn new(redis: Redis, keys: &Keys) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &keys.sealing())
            .map_err(|_| Error::internal("the key for sealing is none"))?;
        Ok(Self { redis, sealer: Arc::new(LessSafeKey::new(key)) })
    }

    /// Whether there is one, up or down.
    pub fn is_on(&self) -> bool {
        self.redis.is_on()
    }

    /// Hears messages of a channel; see [`Redis::listen`].
    pub async fn listen(&self, channel: &str, heard: impl FnMut(&str)) -> Result<()> {
        self.redis.listen(channel, heard).await
    }

    /// The entry of a key, if there is one that this process can judge.
    pub async fn get(&self, key: &Key, freshness: &Freshness) -> Option<Arc<Entry>> {
        let bytes = self.redis.get(&named("answer:", key)).await?;
        self.decode(key, bytes, freshness).map(Arc::new)
    }

    /// Keeps an entry for the rest of its life.
    pub async fn put(&self, key: &Key, entry: &Entry) {
        let left = entry.end().saturating_sub(entry.age());
        if let Some(bytes) = self.encode(key, entry).filter(|_| !left.is_zero()) {
            self.redis.set(&named("answer:", key), &bytes, left).await;
        }
    }

    /// Says that this process executes; false if another one said so before and for no longer than this.
    pub async fn claim(&self, key: &Key, lifetime: Duration) -> bool {
        // Without Redis everyone is alone.
        self.redis.claim(&named("executing:", key), lifetime).await.unwrap_or(true)
    }

    /// Takes that back.
    pub async fn release(&self, key: &Key) {
        self.redis.remove(&named("executing:", key)).await;
    }

    fn encode(&self, key: &Key, entry: &Entry) -> Option<Vec<u8>> {
        let began = SystemTime::now().checked_sub(entry.age())?.duration_since(UNIX_EPOCH).ok()?;
        let sources = entry.sources.pack()?;
        let head = Head {
            as_of: &entry.as_of.to_string(),
            hash: &entry.hash,
            operation: entry.origin.operation.as_deref(),
            begun: u64::try_from(began.as_millis()).ok()?,
            lifetime_ms: u64::try_from(entry.origin.lifetime.as_millis()).ok()?,
            hint: entry.origin.hint,
            personal: entry.origin.personal,
            sources: sources.len(),
        };
        let mut plain = postcard::to_stdvec(&head).ok()?;
        plain.extend_from_slice(&sources);
        plain.extend_from_slice(&entry.body);
        let (kind, mut packed) = if plain.len() > COMPRESS_ABOVE {
            (COMPRESSED, lz4_flex::compress_prepend_size(&plain))
        } else {
            (PLAIN, plain)
        };
        // By chance: keys live as long as the server's secret, and what may happen once in 2^32 entries is that two of
        // them have one nonce.
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let unique = Nonce::assume_unique_for_key(nonce);
        let tag = self.sealer.seal_in_place_separate_tag(unique, place(kind, key), &mut packed).ok()?;
        Some([&MAGIC[..], &[kind], &nonce, &packed, tag.as_ref()].concat())
    }

    /// None for anything that is not an entry of ours for this key, or too old to be judged.
    fn decode(&self, key: &Key, mut bytes: Vec<u8>, freshness: &Freshness) -> Option<Entry> {
        let (prefix, sealed) = bytes.split_at_mut_checked(PREFIX)?;
        let (&kind, nonce) = prefix.strip_prefix(MAGIC)?.split_first()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let packed = self.sealer.open_in_place(nonce, place(kind, key), sealed).ok()?;
        let plain = match kind {
            PLAIN => {
                let end = PREFIX + packed.len();
                Bytes::from(bytes).slice(PREFIX..end)
            }
            COMPRESSED => unpack(packed)?.into(),
            _ => return None,
        };
        let (head, rest): (Head<'_>, _) = postcard::take_from_bytes(&plain).ok()?;
        let (sources, body) = rest.split_at_checked(head.sources)?;
        let as_of = Arc::new(head.as_of.parse().ok()?);
        let batch = freshness.batch_of(&as_of)?;
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
        let age = Duration::from_millis(now.saturating_sub(head.begun));
        let origin = Origin {
            operation: head.operation.map(Into::into),
            begun: Instant::now().checked_sub(age)?,
            lifetime: Duration::from_millis(head.lifetime_ms),
            hint: head.hint,
            personal: head.personal,
        };
        let sources = Kept::packed(plain.slice_ref(sources));
        Some(Entry::known(head.hash.into(), plain.slice_ref(body), origin, sources, (batch, as_of)))
    }
}

fn named(kind: &str, key: &Key) -> String {
    [kind, &hexadecimal(key.as_bytes())].concat()
}

/// What an entry belongs to: what is sealed for one key is nothing under another.
fn place(kind: u8, key: &Key) -> Aad<[u8; 37]> {
    let mut place = [0; 37];
    place[..4].copy_from_slice(MAGIC);
    place[4] = kind;
    place[5..].copy_from_slice(key.as_bytes());
    Aad::from(place)
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let (size, packed) = lz4_flex::block::uncompressed_size(packed).ok()?;
    (size <= LARGEST).then(|| lz4_flex::decompress(packed, size).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use uuid::Uuid;

    use super::*;
    use crate::cache::sources::Sources;
    use crate::model::change::Snapshot;
    use crate::model::viewer::{Credential, Grant, Holder, Role, Standing, Viewer};
    use crate::store::db::reads::{Condition, List, Scalar};

    fn nobody() -> Viewer {
        let grant = Grant { holder: Holder::Nobody, role: Role::Viewer, projects: None };
        Viewer::admitted(&grant, &Standing::default(), Credential::None)
    }

    fn keys(secret: &[u8]) -> Keys {
        Keys::new("type Query", "here", secret)
    }

    fn shared(secret: &[u8]) -> SharedCache {
        SharedCache::new(Redis::Off, &keys(secret)).unwrap()
    }

    fn entry(body: Vec<u8>, rows: u8) -> Entry {
        let condition = Condition::All(vec![
            Condition::In("status".into(), vec![Scalar::Text("a".to_owned()), Scalar::Bool(true)]),
            Condition::Compare("score".into(), ">=".into(), Scalar::Number(0.1)),
            Condition::Not(Box::new(Condition::Null("due_at".into()))),
            Condition::Any(vec![Condition::Unknown, Condition::In("at".into(), vec![Scalar::Time(-1)])]),
        ]);
        let list = List { condition, parent: Some("task_id".into()), ..List::standing("evidence") };
        let ids: Vec<Uuid> = (0..rows).map(|n| Uuid::from_u128(n.into())).collect();
        let sources =
            Sources { rows: ids.clone(), lists: vec![(List::all("tasks"), Vec::new()), (list, ids)] };
        let lifetime = Duration::from_secs(60);
        let hint = Hint { max_age_s: Some(9), stale_while_revalidate_s: 1, stale_if_error_s: 2 };
        let operation = Some("Name".into());
        let origin = Origin { operation, begun: Instant::now(), lifetime, hint, personal: true };
        Entry::new(body.into(), origin, sources, (7, Arc::new("5:9:6,7".parse().unwrap())))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whole or not at all, and under its own key only.
        #[test]
        fn an_entry_comes_back_as_it_was_or_not_at_all(
            body in prop_oneof![3 => 0..3_000_usize, 1 => COMPRESS_ABOVE - 100..COMPRESS_ABOVE + 100]
                .prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length)),
            rows in 0..50_u8,
            spoil in any::<proptest::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let shared = shared(b"secret");
            let key = keys(b"secret").of_operation(&nobody(), false, b"{ a }");
            let freshness = Freshness::default();
            freshness.arrive(3, &Arc::new(Snapshot::up_to(4)));
            let entry = entry(body, rows);
            let bytes = shared.encode(&key, &entry).unwrap();
            let back = shared.decode(&key, bytes.clone(), &freshness).unwrap();
            prop_assert_eq!((&back.body, &back.hash), (&entry.body, &entry.hash));
            prop_assert_eq!(back.sources.get().unwrap(), entry.sources.get().unwrap());
            prop_assert_eq!((&back.as_of, back.checked.into_inner()), (&entry.as_of, 3));
            prop_assert_eq!((&back.origin.operation, back.origin.lifetime), (&entry.origin.operation, entry.origin.lifetime));
            prop_assert_eq!((back.origin.hint, back.origin.personal), (entry.origin.hint, entry.origin.personal));
            let other = keys(b"secret").of_operation(&nobody(), true, b"{ a }");
            prop_assert!(shared.decode(&other, bytes.clone(), &freshness).is_none());
            prop_assert!(self::shared(b"another").decode(&key, bytes.clone(), &freshness).is_none());
            prop_assert!(shared.decode(&key, bytes.clone(), &Freshness::default()).is_none());
            let place = spoil.index(bytes.len());
            let mut spoiled = bytes;
            if cut { spoiled.truncate(place) } else { spoiled[place] ^= 1 }
            prop_assert!(shared.decode(&key, spoiled, &freshness).is_none());
        }
    }
}
