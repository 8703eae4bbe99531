//! What the recorder looks up of a batch of changes, each in one statement: whose the transactions were, how much
//! there is of those that are longer than the batch, and what the rows are called that sentences name.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::sentence::{MAX_NAME, NOUNS, Name, Names, line};
use crate::error::{Error, Result};
use crate::model::change::{Change, Op};
use crate::store::db::rows::RowSet;
use crate::store::db::sql::{Bind, Sql};
use crate::store::db::transaction::Transaction;

/// Who made a transaction, as its own entries in the audit log say.
#[derive(Debug, Clone, Default)]
pub(super) struct Author {
    pub(super) user_id: Option<Uuid>,
    pub(super) agent_id: Option<Uuid>,
    pub(super) service: Option<String>,
}

/// What the audit log has of the transactions of a batch; nothing of those of other programs.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) authors: HashMap<u64, Author>,
    /// What was noted of a row.
    pub(super) events: HashMap<(u64, Uuid), String>,
}

/// Changes that are told together if they are many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) entity: Cow<'static, str>,
    pub(super) op: Op,
    pub(super) project_id: Option<Uuid>,
    pub(super) says_what: bool,
}

impl Kind {
    pub(super) fn of(change: &Change) -> Self {
        Self {
            entity: change.entity.clone(),
            op: change.op,
            project_id: change.project_id,
            says_what: says_what(change),
        }
    }
}

/// Whether the log knows of anything that was changed: an update may have touched the version alone, or, where the
/// log does not name what changed, only columns that nobody filters by.
pub(super) fn says_what(change: &Change) -> bool {
    let changed = change.keys.get("changed").and_then(Value::as_array).map(|names| !names.is_empty());
    change.op != Op::Update
        || change.old_project_id.is_some()
        || changed.unwrap_or_else(|| change.keys.contains_key("old"))
}

/// How many there are in a transaction, and the first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) rows: i64,
    pub(super) first: i64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.first = if self.rows == 0 { other.first } else { self.first.min(other.first) };
        self.rows += other.rows;
    }
}

/// All that a transaction did.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) kinds: HashMap<Kind, Count>,
    /// The same by table and operation.
    pub(super) tables: HashMap<(Cow<'static, str>, Op), Count>,
    /// Its last change.
    pub(super) last: i64,
}

impl Totals {
    /// How much was done to the table of a change in the same way, and how much of that in the same project.
    pub(super) fn of(&self, change: &Change) -> (Count, Count) {
        let table = self.tables.get(&(change.entity.clone(), change.op));
        let kind = self.kinds.get(&Kind::of(change));
        (table.copied().unwrap_or_default(), kind.copied().unwrap_or_default())
    }

    pub(super) fn add(&mut self, kind: Kind, count: Count, last: i64) {
        self.last = self.last.max(last);
        self.tables.entry((kind.entity.clone(), kind.op)).or_default().add(count);
        self.kinds.entry(kind).or_default().add(count);
    }
}

pub(super) async fn entries(tx: &mut Transaction, changes: &[&Change]) -> Result<Entries> {
    let mut sql = Sql::default();
    sql.push("with changed as (select distinct u.xid, u.id from unnest(");
    sql.bind(Bind::Texts(changes.iter().map(|change| change.xid.to_string()).collect())).push("::xid8[], ");
    sql.bind(Bind::Uuids(changes.iter().map(|change| change.id.unwrap_or_default()).collect()));
    sql.push(
        ") u (xid, id)), authors as materialized (select x.xid, a.* from (select distinct xid from changed) x, \
         lateral (select actor_user_id, actor_agent_id, service_name from audit_logs where xid = x.xid limit 1) a) \
         select a.xid, a.actor_user_id, a.actor_agent_id, a.service_name, c.id, e.event_type \
         from authors a join changed c on c.xid = a.xid left join lateral (select event_type from audit_logs \
         where xid = a.xid and resource_id = c.id order by seq desc limit 1) e on true",
    );
    let rows = tx.rows(&sql.returning(6)).await.map_err(Error::from)?;
    let mut found = Entries::default();
    for row in 0..rows.len() {
        let xid = xid(&rows, row)?;
        if let (Some(id), Some(event)) = (rows.uuid(row, 4), rows.text(row, 5)) {
            found.events.insert((xid, id), event.to_owned());
        }
        found.authors.entry(xid).or_insert_with(|| Author {
            user_id: rows.uuid(row, 1),
            agent_id: rows.uuid(row, 2),
            service: rows.text(row, 3).map(str::to_owned),
        });
    }
    Ok(found)
}

/// Milliseconds that PostgreSQL may take to count the changes of transactions of any size.
const COUNTING_MS: &str = "600000";

/// Counts transactions that may be longer than what was read of them.
pub(super) async fn totals(tx: &mut Transaction, xids: BTreeSet<u64>) -> Result<HashMap<u64, Totals>> {
    let mut sql = Sql::default();
    sql.push("select set_config('statement_timeout', ")
        .bind(Bind::Text(COUNTING_MS.to_owned()))
        .push(", true)");
    tx.rows(&sql.returning(1)).await.map_err(Error::from)?;
    let mut sql = Sql::default();
    sql.push(
        "select c.xid, c.entity, c.op, c.project_id, \
         (c.op <> 'update' or c.old_project_id is not null \
         or coalesce(jsonb_array_length(c.keys -> 'changed') > 0, c.keys ? 'old')), count(*), min(c.seq), max(c.seq) \
         from unnest(",
    );
    sql.bind(Bind::Texts(xids.iter().map(u64::to_string).collect()));
    sql.push("::xid8[]) x (xid) join change_log c on c.xid = x.xid group by 1, 2, 3, 4, 5");
    let rows = tx.rows(&sql.returning(8)).await.map_err(Error::from)?;
    let mut totals: HashMap<u64, Totals> = HashMap::new();
    for row in 0..rows.len() {
        let wrong = || Error::internal("a count of changes cannot be read");
        let kind = Kind {
            entity: rows.text(row, 1).ok_or_else(wrong)?.to_owned().into(),
            op: rows.text(row, 2).and_then(Op::read).ok_or_else(wrong)?,
            project_id: rows.uuid(row, 3),
            says_what: rows.cell(row, 4) == Some(&[1]),
        };
        let number = |column| rows.bigint(row, column).ok_or_else(wrong);
        let count = Count { rows: number(5)?, first: number(6)? };
        totals.entry(xid(&rows, row)?).or_default().add(kind, count, number(7)?);
    }
    Ok(totals)
}

fn xid(rows: &RowSet, row: usize) -> Result<u64> {
    let xid = rows.bigint(row, 0).and_then(|xid| u64::try_from(xid).ok());
    xid.ok_or_else(|| Error::internal("the number of a transaction cannot be read"))
}

/// The names of rows, in whatever tables.
pub(super) async fn names(tx: &mut Transaction, wanted: &BTreeSet<(&'static str, Uuid)>) -> Result<Names> {
    if wanted.is_empty() {
        return Ok(Names::new());
    }
    let mut sql = Sql::default();
    let named = NOUNS.iter().filter_map(|noun| Some((noun.table, noun.name?)));
    for (n, (table, (name, project))) in named.enumerate() {
        let ids = wanted.iter().filter(|(of, _)| *of == table).map(|(_, id)| *id).collect();
        let (union, project) = (if n > 0 { " union all " } else { "" }, project.unwrap_or("null::uuid"));
        sql.push(&format!(
            "{union}select '{table}', id, {project}, left({name}, {}) from {table} where id = any(",
            4 * MAX_NAME
        ));
        sql.bind(Bind::Uuids(ids)).push(")");
    }
    let rows = tx.rows(&sql.returning(4)).await.map_err(Error::from)?;
    let name = |row| {
        let table = NOUNS.iter().find(|noun| Some(noun.table) == rows.text(row, 0))?.table;
        let text = line(rows.text(row, 3)?, MAX_NAME);
        Some(((table, rows.uuid(row, 1)?), Name { text, project_id: rows.uuid(row, 2) }))
    };
    Ok((0..rows.len()).filter_map(name).collect())
}
