//! The change log: what a committed change is, and the statements that read and prune it. The triggers that write it
//! stand in the migrations.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::model::catalog::catalog;
use crate::store::db::Session;
use crate::store::db::rows::{RowSet, read_time};
use crate::store::db::sql::{Bind, Sql};

pub use place::Place;
pub use snapshot::Snapshot;

mod place;
mod snapshot;

/// What was done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// It is new.
    Insert,
    /// It was changed.
    Update,
    /// It is gone.
    Delete,
    /// All rows of its table are gone; there is no id.
    Truncate,
}

impl Op {
    /// The spelling of the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        [Self::Insert, Self::Update, Self::Delete, Self::Truncate].into_iter().find(|op| op.as_str() == text)
    }
}

/// One committed change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The transaction that made it.
    pub xid: u64,
    /// Its order among the changes of that transaction.
    pub seq: i64,
    /// The table of the row.
    pub entity: Cow<'static, str>,
    /// The row; none for [`Op::Truncate`].
    pub id: Option<Uuid>,
    /// What was done.
    pub op: Op,
    /// The project of the row, if it has one that was known when it was written.
    pub project_id: Option<Uuid>,
    /// The project that the row was moved out of.
    pub old_project_id: Option<Uuid>,
    /// Foreign keys and filterable columns, and under `old` those that an update changed, as they were.
    pub keys: Map<String, Value>,
    /// When its statement began.
    pub at: DateTime<Utc>,
}

/// A part of the log.
#[derive(Debug)]
pub struct Slice {
    /// In the order of xid and seq.
    pub changes: Vec<Change>,
    /// The begin of the set.
    pub begin: Arc<Snapshot>,
    /// Where the reader is now.
    pub place: Place,
}

impl Slice {
    /// Whether its set has more changes.
    pub fn is_partial(&self) -> bool {
        self.place.within.is_some()
    }
}

/// The snapshot that a reader has who looks now.
pub async fn now(session: &Session) -> Result<Snapshot> {
    settled(session, None).await
}

/// A snapshot as far as the log goes (see [`Snapshot::settled`]): this one, or that of a reader who looks now.
async fn settled(session: &Session, until: Option<&Snapshot>) -> Result<Snapshot> {
    let mut sql = Sql::default();
    sql.push(
        "select s.until::text, greatest(p.xid, (select c.xid from change_log c \
         where c.xid < pg_snapshot_xmax(s.until) and pg_visible_in_snapshot(c.xid, s.until) \
         order by c.xid desc, c.seq desc limit 1)) from (select ",
    );
    match until {
        Some(until) => sql.bind(Bind::Text(until.to_string())).push("::pg_snapshot"),
        None => sql.push("pg_current_snapshot()"),
    };
    sql.push(" as until) s cross join change_log_pruned p");
    let rows = session.rows(&sql.returning(2)).await?;
    Ok(rows.text(0, 0).unwrap_or_default().parse::<Snapshot>()?.settled(xid(&rows, 0, 1)?))
}

/// Before the oldest change that the log still has.
pub async fn oldest(session: &Session) -> Result<Place> {
    let mut sql = Sql::default();
    sql.push("select xid from change_log_pruned");
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(Place::after(Arc::new(Snapshot::up_to(xid(&rows, 0, 0)?))))
}

/// The columns of an answer of [`read`].
const WIDTH: usize = 11;

/// Reads on from a place: the rest of the set that it is in or, between two sets, the set that ends at `until` or
/// else now. At most `limit` changes come back; if there are more, the place stays within the set.
///
/// `CURSOR_EXPIRED` if changes after the place were pruned, or if the database never was there.
pub async fn read(
    session: &Session,
    place: &Place,
    until: Option<&Arc<Snapshot>>,
    limit: usize,
) -> Result<Slice> {
    let (until, after) = match &place.within {
        Some((until, after)) => (Some(until), *after),
        None => (until, (0, 0)),
    };
    let limit_bound = Bind::Int(i64::try_from(limit).unwrap_or(i64::MAX));
    let mut sql = Sql::default();
    sql.push("with s as materialized (select pg_current_snapshot() as now, ");
    sql.bind(Bind::Text(place.since.to_string())).push("::pg_snapshot as since, ");
    match until {
        Some(until) => sql.bind(Bind::Text(until.to_string())).push("::pg_snapshot"),
        None => sql.push("pg_current_snapshot()"),
    };
    sql.push(" as until, ").bind(Bind::Text(after.0.to_string())).push("::xid8 as xid, ");
    sql.bind(Bind::Int(after.1)).push(
        " as seq) select s.now::text, p.xid, c.xid, c.seq, c.entity, c.row_id, c.op, c.project_id, \
         c.old_project_id, c.keys, c.at from s cross join change_log_pruned p left join lateral (",
    );
    // Two ranges of the one index, each in its order, so that an open transaction costs nothing. Transactions that
    // `since` saw running come before all that began later. What `until` cannot see is of a later set; rows of the
    // future were restored from a backup of another server.
    sql.push(
        "(select x.* from (select * from pg_snapshot_xip(s.since)) u (xid), lateral (select c.* from change_log c \
         where c.xid = u.xid and (c.xid, c.seq) > (s.xid, s.seq) order by c.xid, c.seq limit ",
    );
    sql.bind(limit_bound.clone());
    sql.push(") x where pg_visible_in_snapshot(u.xid, s.until) order by x.xid, x.seq limit ");
    sql.bind(limit_bound.clone());
    sql.push(
        ") union all (select c.* from change_log c where c.xid >= pg_snapshot_xmax(s.since) \
         and c.xid < pg_snapshot_xmax(s.until) and (c.xid, c.seq) > (s.xid, s.seq) \
         and pg_visible_in_snapshot(c.xid, s.until) order by c.xid, c.seq limit ",
    );
    sql.bind(limit_bound.clone()).push(") order by xid, seq limit ").bind(limit_bound);
    sql.push(") c on true order by c.xid, c.seq");
    let rows = session.rows(&sql.returning(WIDTH)).await?;
    let seen: Arc<Snapshot> = Arc::new(rows.text(0, 0).unwrap_or_default().parse()?);
    check_age(place, xid(&rows, 0, 1)?, &seen)?;
    let changes: Vec<Change> = (0..rows.len())
        .filter(|row| rows.cell(*row, 2).is_some())
        .map(|row| change(&rows, row))
        .collect::<Result<_>>()?;
    let within = changes.last().filter(|_| changes.len() == limit).map(|last| (last.xid, last.seq));
    // Not above what is in the log: see `Snapshot::settled`. The set is read in the order of xid.
    let until = match (until, within) {
        (Some(until), _) => until.clone(),
        (None, Some(_)) => Arc::new(settled(session, Some(&seen)).await?),
        (None, None) => {
            let highest = changes.last().map_or(0, |last| last.xid).max(place.since.end() - 1);
            Arc::new(seen.settled(highest))
        }
    };
    let begin = place.since.clone();
    let place = match within {
        Some(at) => Place { since: begin.clone(), within: Some((until, at)) },
        None => Place::after(until),
    };
    Ok(Slice { changes, begin, place })
}

/// Whether everything after the place is still there.
fn check_age(place: &Place, pruned: u64, now: &Snapshot) -> Result<()> {
    let last = place.within.as_ref().map_or(&place.since, |(until, _)| until);
    if place.since.first_unseen() <= pruned {
        let text = "the change log does not reach back to this cursor any more";
        return Err(Error::new(Code::CursorExpired, text));
    }
    // It comes from a later life of this database: a backup was restored.
    if last.end() > now.end() {
        return Err(Error::new(Code::CursorExpired, "the change log does not know this cursor any more"));
    }
    Ok(())
}

fn change(rows: &RowSet, row: usize) -> Result<Change> {
    let wrong = || Error::internal("a row of the change log cannot be read");
    let entity = rows.text(row, 4).ok_or_else(wrong)?;
    // A newer gateway may have migrated the database, and its tables are passed on like any others.
    let known = catalog().get_key_value(entity).map(|(name, _)| Cow::Borrowed(name.as_str()));
    // jsonb comes as text behind a byte that says its version.
    let keys = rows.cell(row, 9).and_then(|bytes| bytes.strip_prefix(&[1])).ok_or_else(wrong)?;
    Ok(Change {
        xid: xid(rows, row, 2)?,
        seq: rows.bigint(row, 3).ok_or_else(wrong)?,
        entity: known.unwrap_or_else(|| Cow::Owned(entity.to_owned())),
        id: rows.uuid(row, 5),
        op: rows.text(row, 6).and_then(Op::read).ok_or_else(wrong)?,
        project_id: rows.uuid(row, 7),
        old_project_id: rows.uuid(row, 8),
        keys: serde_json::from_slice(keys).map_err(Error::internal)?,
        at: rows.cell(row, 10).and_then(read_time).ok_or_else(wrong)?,
    })
}

/// A cell of type `xid8`.
fn xid(rows: &RowSet, row: usize, column: usize) -> Result<u64> {
    let xid = rows.bigint(row, column).and_then(|xid| u64::try_from(xid).ok());
    xid.ok_or_else(|| Error::internal("the number of a transaction cannot be read"))
}

/// Who holds this advisory lock prunes.
const PRUNING: i64 = 0x0065_6763_6c70_726e;

/// Removes changes that are older, `limit` at most, and says how many. Zero also if another process is at it.
///
/// They go in the order in which they are read, and none of a transaction younger than the oldest running one:
/// every present reader is before that. A transaction that is forgotten open so keeps the log, as it keeps all
/// dead rows of the database.
pub async fn prune(session: &Session, older_than: Duration, limit: u32) -> Result<u64> {
    let mut sql = Sql::default();
    sql.push("with oldest as materialized (select c.xid, c.seq, c.at < now() - make_interval(secs => ");
    sql.bind(Bind::Float(older_than.as_secs_f64()));
    sql.push(") as old from change_log c where (select pg_try_advisory_xact_lock(").bind(Bind::Int(PRUNING));
    sql.push(")) and c.xid < (select pg_snapshot_xmin(pg_current_snapshot())) order by c.xid, c.seq limit ");
    sql.bind(Bind::Int(limit.into()));
    sql.push(
        "), young as (select xid, seq from oldest where not old order by xid, seq limit 1), \
         gone as (delete from change_log c using oldest o where c.xid = o.xid and c.seq = o.seq \
         and not exists (select from young y where (o.xid, o.seq) >= (y.xid, y.seq)) returning c.xid), \
         moved as (update change_log_pruned p set xid = g.xid, pruned_at = now() \
         from (select xid from gone order by xid desc limit 1) g where g.xid > p.xid) \
         select count(*) from gone",
    );
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(rows.bigint(0, 0).and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
}
