//! The trail that is made from the change log: entries of the audit log for what other programs wrote, and the
//! activity feed. One transaction writes both for a batch of changes and saves the place behind it, so that whatever
//! is recorded is recorded once.
//!
//! What a transaction did to very many rows is summed up. That depends on the whole of the transaction alone, which
//! never changes, so a recorder that goes on in the midst of one decides as the one before it did.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::model::change::{Change, Op, Place, now, oldest, read};
use crate::model::mutation::Row;
use crate::model::write::rows::insert_rows;
use crate::store::db::Session;
use crate::store::db::sql::{Bind, Sql};
use crate::store::db::transaction::Transaction;
use event::{bulk_event_type, event_type, resource_type};
use lookup::{Author, Count, Entries, Kind, Totals, entries, names, says_what, totals};
use sentence::{Names, bulk, choose, fill, is_told, visibility};

pub(in crate::model) mod event;
mod lookup;
mod sentence;

/// What is done to so many rows of a table by one transaction of another program is audited row by row, and what is
/// done to more as a whole.
pub const MAX_AUDITED: i64 = 100;
/// What is done to so many rows of a table by one transaction is told row by row, and what is done to more project by
/// project.
pub const MAX_TOLD: i64 = 10;
/// Who holds this advisory lock records.
pub const RECORDING: i64 = 0x0065_6763_6c72_6563;

/// The recorder among the consumers of the log.
const RECORDER: &str = "recorder";
/// In the audit log: another program did it.
const EXTERNAL: &str = "external";
/// The table that is written here: what happens to it is neither audited nor told.
const FEED: &str = "activity_feed";
/// Ids that a summary names at most.
const MAX_IDS: usize = 10;
/// Characters of a name of an event or a kind of row at most, as the tables allow.
const MAX_TYPE: usize = 100;

/// Where the recorder is, as the database has it.
#[derive(Debug, Clone)]
pub struct Saved(String);

impl Saved {
    /// Reads it.
    pub async fn load(session: &Session) -> Result<Self> {
        let mut sql = Sql::default();
        sql.push("select place from change_log_consumers where name = ")
            .bind(Bind::Text(RECORDER.to_owned()));
        let rows = session.rows(&sql.returning(1)).await?;
        let place = rows.text(0, 0).ok_or_else(|| Error::internal("nobody says where the recorder is"))?;
        Ok(Self(place.to_owned()))
    }

    /// The place in the log.
    pub fn place(&self) -> Result<Place> {
        self.0.parse()
    }

    /// Moves it. Whoever else has moved it meanwhile has recorded what is before, and this is a `CONFLICT`; the
    /// transaction must be rolled back then.
    async fn advance(&self, tx: &mut Transaction, place: &Place) -> Result<Self> {
        let next = place.to_string();
        let mut sql = Sql::default();
        sql.push("update change_log_consumers set saved_at = now(), place = ").bind(Bind::Text(next.clone()));
        sql.push(" where name = ").bind(Bind::Text(RECORDER.to_owned()));
        sql.push(" and place = ").bind(Bind::Text(self.0.clone())).push(" returning true");
        if tx.rows(&sql.returning(1)).await.map_err(Error::from)?.is_empty() {
            return Err(Error::new(Code::Conflict, "another process has recorded these changes"));
        }
        Ok(Self(next))
    }
}

/// What was written for a batch.
#[derive(Debug)]
pub struct Recorded {
    /// Where the recorder is now.
    pub saved: Saved,
    /// Entries of the audit log.
    pub audited: usize,
    /// Entries of the activity feed.
    pub told: usize,
}

/// Transactions of which a part was recorded and more is to come: as many at most as were open at once.
#[derive(Debug, Default)]
pub struct Unfinished(HashMap<u64, Totals>);

/// Whether there is anything in a batch that is recorded.
pub fn is_worth_recording(changes: &[Change]) -> bool {
    changes.iter().any(|change| change.entity != FEED)
}

/// Records a batch of changes and moves the place behind it; nothing at all if that fails. `whole` says that no
/// transaction of the batch has changes outside of it.
pub async fn record(
    session: &Session,
    saved: &Saved,
    place: &Place,
    changes: &[Change],
    (whole, unfinished): (bool, &mut Unfinished),
) -> Result<Recorded> {
    let mut tx = session.begin().await?;
    let changes: Vec<&Change> = changes.iter().filter(|change| change.entity != FEED).collect();
    let mut batch = Batch::default();
    if !changes.is_empty() {
        batch.entries = entries(&mut tx, &changes).await?;
        if whole {
            unfinished.0.clear();
            for change in &changes {
                let count = Count { rows: 1, first: change.seq };
                unfinished.0.entry(change.xid).or_default().add(Kind::of(change), count, change.seq);
            }
        } else {
            let all: BTreeSet<u64> = changes.iter().map(|change| change.xid).collect();
            let new = all.into_iter().filter(|xid| !unfinished.0.contains_key(xid)).collect();
            unfinished.0.extend(totals(&mut tx, new).await?);
        }
        batch.plan(&changes, &unfinished.0);
        batch.names = names(&mut tx, &batch.wanted()).await?;
        for change in &changes {
            if unfinished.0.get(&change.xid).is_some_and(|totals| totals.last <= change.seq) {
                unfinished.0.remove(&change.xid);
            }
        }
    }
    let saved = saved.advance(&mut tx, place).await?;
    let (audited, told) = (batch.audit(), batch.tell());
    let recorded = Recorded { saved, audited: audited.len(), told: told.len() };
    insert_rows(&mut tx, "audit_logs", audited).await.map_err(Error::from)?;
    insert_activities(&mut tx, told).await?;
    tx.commit().await?;
    Ok(recorded)
}

/// Moves the place of a recorder for which the log does not reach back far enough any more, to the oldest change that
/// the log still has, and says so in the audit log.
pub async fn skip_gap(session: &Session, saved: &Saved) -> Result<Saved> {
    let mut place = oldest(session).await?;
    // The log is of another life of the database.
    if read(session, &place, None, 1).await.is_err_and(|error| error.code() == Code::CursorExpired) {
        place = Place::after(std::sync::Arc::new(now(session).await?));
    }
    let mut tx = session.begin().await?;
    let next = saved.advance(&mut tx, &place).await?;
    let data = json!({"from": saved.0, "to": next.0});
    let entry = entry("change_log.gap", "other", ("recorder", "change_log"), data);
    insert_rows(&mut tx, "audit_logs", vec![entry]).await.map_err(Error::from)?;
    tx.commit().await?;
    Ok(next)
}

/// An entry of the audit log that no person and no agent wrote.
fn entry(event: &str, action: &str, (service, resource): (&str, &str), data: Value) -> Row {
    let short = |name: &str| Value::from(name.chars().take(MAX_TYPE).collect::<String>());
    Row::from([
        ("id", Uuid::now_v7().to_string().into()),
        ("event_type", short(event)),
        ("action", action.into()),
        ("service_name", service.into()),
        ("resource_type", short(resource)),
        ("resource_id", Value::Null),
        ("project_id", Value::Null),
        ("old_values", Value::Null),
        ("new_values", Value::Null),
        ("data", data),
    ])
}

/// One sentence of the feed.
enum Told<'a> {
    One { change: &'a Change, event: String, text: &'static str },
    Many { change: &'a Change, event: String, count: i64 },
}

/// What is written for a batch.
#[derive(Default)]
struct Batch<'a> {
    entries: Entries,
    /// Each with how many it stands for, itself included.
    audited: Vec<(&'a Change, i64)>,
    /// The first ids of what is summed up.
    first_ids: HashMap<(u64, &'a str, Op), Vec<String>>,
    told: Vec<Told<'a>>,
    names: Names,
}

impl<'a> Batch<'a> {
    fn plan(&mut self, changes: &[&'a Change], totals: &HashMap<u64, Totals>) {
        for change in changes {
            let Some(totals) = totals.get(&change.xid) else { continue };
            let (of_table, of_kind) = totals.of(change);
            if !self.entries.authors.contains_key(&change.xid) {
                self.plan_audit(change, of_table);
            }
            self.plan_activity(change, of_table.rows > MAX_TOLD, of_kind);
        }
    }

    fn plan_audit(&mut self, change: &'a Change, count: Count) {
        if count.rows <= MAX_AUDITED {
            self.audited.push((change, 1));
            return;
        }
        let ids = self.first_ids.entry((change.xid, &*change.entity, change.op)).or_default();
        if ids.len() < MAX_IDS {
            ids.extend(change.id.map(|id| id.to_string()));
        }
        if change.seq == count.first {
            self.audited.push((change, count.rows));
        }
    }

    fn plan_activity(&mut self, change: &'a Change, many: bool, count: Count) {
        if many || change.op == Op::Truncate {
            let event = bulk_event_type(&change.entity, change.op);
            let created = bulk_event_type(&change.entity, Op::Insert);
            let told =
                is_told(if change.op == Op::Truncate { &created } else { &event }) && says_what(change);
            if told && change.seq == count.first {
                self.told.push(Told::Many { change, event, count: count.rows });
            }
            return;
        }
        let noted = change.id.and_then(|id| self.entries.events.get(&(change.xid, id)));
        let event = match noted.filter(|event| is_told(event)) {
            Some(event) => event.clone(),
            None if says_what(change) => event_type(change),
            None => return,
        };
        if let Some(text) = choose(&event, change) {
            self.told.push(Told::One { change, event, text });
        }
    }

    /// The rows whose names are needed.
    fn wanted(&self) -> BTreeSet<(&'static str, Uuid)> {
        let mut wanted = BTreeSet::new();
        for told in &self.told {
            let (Told::One { change, .. } | Told::Many { change, .. }) = told;
            if let Told::One { text, .. } = told {
                wanted.extend(sentence::rows(text, change));
            }
            if let Some(author) = self.entries.authors.get(&change.xid) {
                wanted.extend(author.user_id.map(|id| ("users", id)));
                wanted.extend(author.agent_id.map(|id| ("agents", id)));
            }
        }
        wanted
    }

    fn audit(&self) -> Vec<Row> {
        self.audited.iter().map(|(change, count)| self.audit_entry(change, *count)).collect()
    }

    fn audit_entry(&self, change: &Change, count: i64) -> Row {
        let action = match change.op {
            Op::Insert => "create",
            Op::Update => "update",
            Op::Delete | Op::Truncate => "delete",
        };
        let resource = resource_type(&change.entity);
        let mut data =
            json!({"transaction": change.xid.to_string(), "op": change.op.as_str(), "at": change.at});
        if count > 1 {
            data["count"] = count.into();
            data["ids"] = json!(self.first_ids.get(&(change.xid, &*change.entity, change.op)));
            let event = bulk_event_type(&change.entity, change.op);
            return entry(&event, action, (EXTERNAL, &resource), data);
        }
        if let Some(changed) = change.keys.get("changed") {
            data["changed"] = changed.clone();
        }
        let mut entry = entry(&event_type(change), action, (EXTERNAL, &resource), data);
        let id = |id: Option<Uuid>| Value::from(id.map(|id| id.to_string()));
        entry.insert("resource_id", id(change.id));
        entry.insert("project_id", id(change.project_id));
        let (old, new) = values(change);
        entry.insert("old_values", old.map_or(Value::Null, Value::Object));
        entry.insert("new_values", new.map_or(Value::Null, Value::Object));
        entry
    }

    fn tell(&self) -> Vec<Row> {
        self.told.iter().map(|told| self.activity(told)).collect()
    }

    fn activity(&self, told: &Told<'_>) -> Row {
        let (Told::One { change, event, .. } | Told::Many { change, event, .. }) = told;
        let author = self.entries.authors.get(&change.xid);
        let visibility = visibility(event);
        let actor = self.actor(author, visibility);
        let mut metadata = json!({
            "at": change.at,
            "transaction": change.xid.to_string(),
            "external": author.is_none(),
        });
        let (title, id) = match told {
            Told::One { text, .. } => (fill(&actor, text, change, &self.names), change.id),
            Told::Many { count, .. } => {
                if change.op != Op::Truncate {
                    metadata["count"] = (*count).into();
                }
                (bulk(&actor, &change.entity, change.op, *count), None)
            }
        };
        let text = |id: Option<Uuid>| Value::from(id.map(|id| id.to_string()));
        Row::from([
            ("id", Uuid::now_v7().to_string().into()),
            ("project_id", text(change.project_id)),
            ("actor_user_id", text(author.and_then(|author| author.user_id))),
            ("actor_agent_id", text(author.and_then(|author| author.agent_id))),
            ("activity_type", event.as_str().into()),
            ("title", title.into()),
            ("resource_type", resource_type(&change.entity).into()),
            ("resource_id", text(id)),
            ("visibility", visibility.into()),
            ("metadata", metadata),
        ])
    }

    /// Who did it, at the beginning of a sentence. People are known to those who share a project with them, and not to
    /// everybody.
    fn actor(&self, author: Option<&Author>, visibility: &str) -> String {
        let Some(author) = author else { return "Another program".to_owned() };
        let name = |table, id: Option<Uuid>| Some(self.names.get(&(table, id?))?.text.clone());
        let agent = || Some(format!("Agent {}", name("agents", author.agent_id)?));
        let service = || match author.service.as_deref()? {
            "import" => Some("An import".to_owned()),
            other => Some(format!("Service {}", sentence::line(other, sentence::MAX_NAME))),
        };
        let user = author.user_id.filter(|_| visibility != "public");
        name("users", user).or_else(agent).or_else(service).unwrap_or_else(|| "Somebody".to_owned())
    }
}

/// By column.
type Values = Map<String, Value>;

/// What the log has of a row's values, before and after. A new row has nothing to say of what is null in it.
fn values(change: &Change) -> (Option<Values>, Option<Values>) {
    let columns = || change.keys.iter().filter(|(column, _)| !["old", "changed"].contains(&column.as_str()));
    let said =
        || columns().filter(|(_, value)| !value.is_null()).map(|(c, v)| (c.clone(), v.clone())).collect();
    match change.op {
        Op::Insert => (None, Some(said())),
        Op::Delete => (Some(said()), None),
        Op::Truncate => (None, None),
        Op::Update => {
            let mut old = change.keys.get("old").and_then(Value::as_object).cloned().unwrap_or_default();
            let after = columns().filter(|(column, _)| old.contains_key(*column));
            let mut new: Values = after.map(|(column, value)| (column.clone(), value.clone())).collect();
            if let Some(project) = change.old_project_id {
                old.insert("project_id".to_owned(), project.to_string().into());
                new.insert("project_id".to_owned(), json!(change.project_id));
            }
            (Some(old), Some(new))
        }
    }
}

/// Projects, users and agents may be gone by now.
async fn insert_activities(tx: &mut Transaction, rows: Vec<Row>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Value = rows.into_iter().map(|row| json!(row)).collect();
    let mut sql = Sql::default();
    sql.push(
        "insert into activity_feed (id, project_id, actor_user_id, actor_agent_id, activity_type, title, \
         resource_type, resource_id, visibility, metadata) select r.id, p.id, u.id, a.id, r.activity_type, r.title, \
         r.resource_type, r.resource_id, r.visibility, r.metadata from jsonb_populate_recordset(null::activity_feed, ",
    );
    sql.bind(Bind::Json(rows)).push(
        ") r left join projects p on p.id = r.project_id left join users u on u.id = r.actor_user_id \
         left join agents a on a.id = r.actor_agent_id",
    );
    tx.rows(&sql.returning(0)).await.map_err(Error::from)?;
    Ok(())
}
