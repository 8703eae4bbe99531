//! API keys: how they look, and their rows. A key is shown once; the database has its hash alone. The functions here
//! take no viewer: they are how viewers come about, or an operator's commands.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::RunQueryDsl;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::viewer::{Credential, Grant, Holder, MEMBERSHIPS, Role, Viewer, read_standing};
use crate::schema::{agents, api_keys, users};
use crate::store::db::sql::{Bind, Sql};
use crate::store::db::{Db, Session, classify};

/// What every key begins with, so that people and secret scanners know one when they see one.
pub const MARK: &str = "egk_";
/// Bytes of a presented key at most; those made here have 56.
const MAX_KEY_BYTES: usize = 256;

/// What stands for a key in the database and in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes what was presented as a key, whatever it looks like; `None` if it is too long for one. A key has 256
    /// random bits, so that a plain hash is enough.
    pub fn of(key: &str) -> Option<Self> {
        (key.len() <= MAX_KEY_BYTES).then(|| Self(Sha256::digest(key).into()))
    }

    /// The hash itself. It lets nobody in.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// A hash that was written down.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A key that is good at the moment.
#[derive(Debug)]
pub struct Found {
    /// Whom it lets in.
    pub viewer: Viewer,
    /// The key's id, if its `last_used_at` is due to be written.
    pub unnoted: Option<Uuid>,
}

/// Whether the use of the key `k` is to be written down: once a minute at most.
const USE_IS_DUE: &str = "coalesce(k.last_used_at < now() - interval '1 minute', true)";

/// Looks a key up: one statement, whether the key is good, withdrawn, out of date or unknown.
pub async fn find(session: &Session, hash: KeyHash) -> Result<Option<Found>> {
    let mut sql = Sql::default();
    sql.push("select k.id, k.user_id, k.agent_id, k.role, k.project_ids, ");
    sql.push(USE_IS_DUE).push(", u.role, ").push(MEMBERSHIPS);
    sql.push(" from api_keys k left join users u on u.id = k.user_id and u.deleted_at is null ");
    sql.push("left join agents a on a.id = k.agent_id and a.deleted_at is null ");
    sql.push("where k.revoked_at is null and (k.expires_at is null or k.expires_at > now()) ");
    sql.push("and (k.user_id is null or u.id is not null) and (k.agent_id is null or a.id is not null) ");
    sql.push("and k.key_hash = ").bind(Bind::Text(hash.hex()));
    let rows = session.rows(&sql.returning(8)).await?;
    let (Some(id), Some(role)) = (rows.uuid(0, 0), rows.text(0, 3).and_then(Role::parse)) else {
        return Ok(None);
    };
    let holder = match (rows.uuid(0, 1), rows.uuid(0, 2)) {
        (Some(user), _) => Holder::User(user),
        (None, Some(agent)) => Holder::Agent(agent),
        (None, None) => Holder::Nobody,
    };
    let standing = read_standing(&rows, 6);
    let mut projects = rows.uuids(0, 4);
    // A user who leaves a project leaves it with every key; administrators are not members to begin with.
    if matches!(holder, Holder::User(_)) && standing.role.min(Some(role)) != Some(Role::Admin) {
        projects.iter_mut().for_each(|ids| ids.retain(|id| standing.memberships.contains(id)));
    }
    let grant = Grant { holder, role, projects };
    let unnoted = (rows.cell(0, 5) == Some(&[1])).then_some(id);
    Ok(Some(Found { viewer: Viewer::admitted(&grant, &standing, Credential::ApiKey(id)), unnoted }))
}

/// Writes down that a key is in use, once a minute at most, however many gateways notice.
pub async fn note_use(db: &Db, id: Uuid) -> Result<()> {
    diesel::sql_query(format!("update api_keys k set last_used_at = now() where id = $1 and {USE_IS_DUE}"))
        .bind::<diesel::sql_types::Uuid, _>(id)
        .execute(&mut db.connection().await?)
        .await
        .map_err(classify)?;
    Ok(())
}

/// Makes a key and gives it, for the only time.
pub async fn create(db: &Db, name: &str, grant: &Grant, expires_at: Option<DateTime<Utc>>) -> Result<String> {
    let (prefix, key) = random_key();
    let hash = KeyHash::of(&key).ok_or_else(|| Error::internal("a new key is too long"))?;
    let (user_id, agent_id) = match grant.holder {
        Holder::Nobody => (None, None),
        Holder::User(id) => (Some(id), None),
        Holder::Agent(id) => (None, Some(id)),
    };
    diesel::insert_into(api_keys::table)
        .values((
            api_keys::name.eq(name),
            api_keys::prefix.eq(prefix),
            api_keys::key_hash.eq(hash.hex()),
            api_keys::user_id.eq(user_id),
            api_keys::agent_id.eq(agent_id),
            api_keys::role.eq(grant.role.as_str()),
            api_keys::project_ids.eq(&grant.projects),
            api_keys::expires_at.eq(expires_at),
        ))
        .execute(&mut db.connection().await?)
        .await
        .map_err(classify)?;
    Ok(key)
}

/// The visible prefix and the whole of a new key: `egk_<8 characters>_<43 characters>`.
fn random_key() -> (String, String) {
    let prefix = format!("{MARK}{}", &Uuid::new_v4().simple().to_string()[..8]);
    // The operating system's random numbers come as UUIDs here: three have 366 random bits, of which 256 are kept.
    let mut random = Sha256::new();
    (0..3).for_each(|_| random.update(Uuid::new_v4()));
    let key = format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(random.finalize()));
    (prefix, key)
}

/// A key as `keys list` shows it.
#[derive(Debug, Queryable)]
pub struct Listed {
    /// By which people know it.
    pub prefix: String,
    /// What it is for.
    pub name: String,
    /// What its bearer may do at most.
    pub role: String,
    /// The name of the user that it speaks for.
    pub user: Option<String>,
    /// The name of the agent that it speaks for.
    pub agent: Option<String>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was withdrawn.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// All keys, the oldest first.
pub async fn list(db: &Db) -> Result<Vec<Listed>> {
    api_keys::table
        .left_join(users::table)
        .left_join(agents::table)
        .order((api_keys::created_at, api_keys::id))
        .select((
            api_keys::prefix,
            api_keys::name,
            api_keys::role,
            users::username.nullable(),
            agents::name.nullable(),
            api_keys::expires_at,
            api_keys::last_used_at,
            api_keys::revoked_at,
        ))
        .load(&mut db.connection().await?)
        .await
        .map_err(classify)
}

/// Withdraws the key of this prefix or id, and gives its prefix. Doing it twice is doing it once.
pub async fn revoke(db: &Db, which: &str) -> Result<String> {
    let id = Uuid::try_parse(which).unwrap_or(Uuid::nil());
    let mut conn = db.connection().await?;
    let found: Vec<(Uuid, String)> = api_keys::table
        .filter(api_keys::prefix.eq(which).or(api_keys::id.eq(id)))
        .select((api_keys::id, api_keys::prefix))
        .limit(2)
        .load(&mut conn)
        .await
        .map_err(classify)?;
    let [(id, prefix)] = found.as_slice() else {
        let text = if found.is_empty() {
            "is no key's prefix or id"
        } else {
            "is the prefix of several keys; say the id"
        };
        return Err(Error::bad_input(which, text));
    };
    diesel::update(api_keys::table.find(id).filter(api_keys::revoked_at.is_null()))
        .set(api_keys::revoked_at.eq(diesel::dsl::now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await
        .map_err(classify)?;
    Ok(prefix.clone())
}

/// Those of these projects that there are not.
pub async fn unknown_projects(session: &Session, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let mut sql = Sql::default();
    sql.push("select p.id from unnest(").bind(Bind::Uuids(ids.to_vec()));
    sql.push(") p (id) where not exists (select from projects where id = p.id and deleted_at is null)");
    let rows = session.rows(&sql.returning(1)).await?;
    Ok((0..rows.len()).filter_map(|row| rows.uuid(row, 0)).collect())
}
