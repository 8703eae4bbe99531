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
use crate::store::db::reads::Reads;
use crate::store::db::rows::{RowSet, read_time};
use crate::store::db::sql::{Bind, Sql};

pub use image::Image;
pub use place::{Place, Span, Within};
pub use snapshot::Snapshot;

pub mod history;
mod image;
mod place;
mod snapshot;
mod token;

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

/// Entities whose changes are not logged: what reads them cannot know when it is out of date.
const UNLOGGED: &[&str] = &["audit_logs", "audit_seals"];

/// Whether every change of a table is in the log.
pub fn is_logged(table: &str) -> bool {
    !UNLOGGED.contains(&table)
}

/// One committed change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The transaction that made it.
    pub xid: u64,
    /// Its order among the changes of that transaction, and among those of its row.
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
    /// Foreign keys and the short columns that lists are filtered and ordered by; null for a list of texts that is
    /// long. For an update also `changed`, the names of all columns that it changed (save `version` and
    /// `updated_at`), and `old`, what of the keys it changed as it was.
    pub keys: Map<String, Value>,
    /// When its statement began.
    pub at: DateTime<Utc>,
}

impl Change {
    /// The member of `keys` that names all columns that an update changed.
    pub const CHANGED: &'static str = "changed";
}

/// A part of the log.
#[derive(Debug)]
pub struct Slice {
    /// In the order of seq. None may have come although there are more.
    pub changes: Vec<Change>,
    /// The begin of the set.
    pub begin: Arc<Snapshot>,
    /// For a set that is larger than a page, where in the log it lies.
    pub span: Option<Span>,
    /// Where the reader is now.
    pub place: Place,
}

impl Slice {
    /// Whether its set has more changes.
    pub fn is_partial(&self) -> bool {
        self.place.within.is_some()
    }

    /// Nothing, for a reader who is between two sets.
    pub fn nothing(place: Place) -> Self {
        Self { changes: Vec::new(), begin: place.since.clone(), span: None, place }
    }

    /// The rest of a set.
    fn last(begin: &Place, until: Arc<Snapshot>, span: Option<Span>, changes: Vec<Change>) -> Self {
        Self { changes, begin: begin.since.clone(), span, place: Place::after(until) }
    }

    /// Not the rest of it.
    fn partial(begin: &Place, within: Within, changes: Vec<Change>) -> Self {
        let since = begin.since.clone();
        let (span, place) = (within.span, Place { since: since.clone(), within: Some(within) });
        Self { changes, begin: since, span, place }
    }
}

/// How much of the log was pruned. What another server pruned, whose rows were restored here, does not count.
const PRUNED: &str = "(select case when p.xid < pg_snapshot_xmax(pg_current_snapshot()) then p.xid else '0' end \
    as xid from change_log_pruned p)";

/// The snapshot that a reader has who looks now.
pub async fn now(session: &Session) -> Result<Snapshot> {
    settled(session, None).await
}

/// A snapshot as far as the log goes (see [`Snapshot::settled`]): this one, or that of a reader who looks now.
async fn settled(session: &Session, until: Option<&Snapshot>) -> Result<Snapshot> {
    let mut sql = Sql::default();
    sql.push("select s.until::text, greatest(p.xid, change_log_highest(s.until)) from (select ");
    match until {
        Some(until) => sql.bind(Bind::Text(until.to_string())).push("::pg_snapshot"),
        None => sql.push("pg_current_snapshot()"),
    };
    sql.push(" as until) s cross join ").push(PRUNED).push(" p");
    // It says how far one has read, and nothing that a change could make wrong.
    let rows = session.rows(&sql.returning(2).reading(Some(Reads::default()))).await?;
    Ok(rows.text(0, 0).unwrap_or_default().parse::<Snapshot>()?.settled(xid(&rows, 0, 1)?))
}

/// Before the oldest change that the log still has.
pub async fn oldest(session: &Session) -> Result<Place> {
    let mut sql = Sql::default();
    sql.push("select p.xid from ").push(PRUNED).push(" p");
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(Place::after(Arc::new(Snapshot::up_to(xid(&rows, 0, 0)?))))
}

/// The columns of an answer of [`read`].
const WIDTH: usize = 11;
/// Changes of a large set that are looked at in one statement to find where it lies.
const MEASURED_AT_ONCE: i64 = 250_000;

/// Reads on from a place: the rest of the set that it is in or, between two sets, the set that ends at `until` or
/// else now. At most `limit` changes come back; if there are more, the place stays within the set, and nothing may
/// come back at first: it costs one statement to see that a set is large, and some to see where in the log it lies.
///
/// `CURSOR_EXPIRED` if changes after the place were pruned, or if the database never was there.
pub async fn read(
    session: &Session,
    place: &Place,
    until: Option<&Arc<Snapshot>>,
    limit: usize,
) -> Result<Slice> {
    match &place.within {
        None => read_set(session, place, until, 0, limit).await,
        Some(Within { until, after, span: None }) => {
            read_set(session, place, Some(until), *after, limit).await
        }
        Some(Within { until, after, span: Some(span) }) => match span.measured {
            Some(from) => measure(session, place, until, *after, (*span, from)).await,
            None => read_page(session, place, until, *after, *span, limit).await,
        },
    }
}

/// Reads a set that one page may hold.
async fn read_set(
    session: &Session,
    place: &Place,
    until: Option<&Arc<Snapshot>>,
    after: i64,
    limit: usize,
) -> Result<Slice> {
    let mut sql = looking(place, until);
    sql.push("change_log_set(s.since, s.until, ").bind(count(limit + 1)).push(") c on true order by c.seq");
    let (seen, mut changes) = looked(session, place, sql).await?;
    if changes.len() > limit {
        let until = match until {
            Some(until) => until.clone(),
            None => Arc::new(settled(session, Some(&seen)).await?),
        };
        return Ok(Slice::partial(place, Within { until, after, span: Some(Span::UNKNOWN) }, Vec::new()));
    }
    let until = until.cloned().unwrap_or_else(|| {
        // Not above what is in the log: see `Snapshot::settled`.
        let highest = changes.iter().map(|change| change.xid).chain([place.since.end() - 1]).max();
        Arc::new(seen.settled(highest.unwrap_or_default()))
    });
    changes.retain(|change| change.seq > after);
    Ok(Slice::last(place, until, None, changes))
}

/// Reads a part of a set that is larger than a page.
async fn read_page(
    session: &Session,
    place: &Place,
    until: &Arc<Snapshot>,
    after: i64,
    span: Span,
    limit: usize,
) -> Result<Slice> {
    let mut sql = looking(place, Some(until));
    sql.push("change_log_page(s.since, s.until, ").bind(Bind::Int(after)).push(", ");
    sql.bind(Bind::Int(span.low)).push(", ").bind(Bind::Int(span.high)).push(", ").bind(count(limit));
    sql.push(") c on true order by c.seq");
    let (_, changes) = looked(session, place, sql).await?;
    Ok(match changes.last().filter(|_| changes.len() == limit).map(|last| last.seq) {
        Some(after) => {
            let within = Within { until: until.clone(), after, span: Some(span) };
            Slice::partial(place, within, changes)
        }
        None => Slice::last(place, until.clone(), Some(span), changes),
    })
}

/// Looks for the span of a set, from a change on.
async fn measure(
    session: &Session,
    place: &Place,
    until: &Arc<Snapshot>,
    after: i64,
    (span, from): (Span, (u64, i64)),
) -> Result<Slice> {
    let mut sql = Sql::default();
    sql.push("select m.xid, m.seq, m.low, m.high from change_log_span(");
    sql.bind(Bind::Text(place.since.to_string())).push("::pg_snapshot, ");
    sql.bind(Bind::Text(until.to_string())).push("::pg_snapshot, ");
    sql.bind(Bind::Text(from.0.to_string())).push("::xid8, ").bind(Bind::Int(from.1)).push(", ");
    sql.bind(Bind::Int(MEASURED_AT_ONCE)).push(") m");
    let rows = session.rows(&sql.returning(4)).await?;
    let measured = match rows.bigint(0, 1) {
        Some(seq) => Some((xid(&rows, 0, 0)?, seq)),
        None => None,
    };
    let low = rows.bigint(0, 2).map_or(span.low, |low| low.min(span.low));
    let high = rows.bigint(0, 3).map_or(span.high, |high| high.max(span.high));
    let span = Some(Span { low, high, measured });
    Ok(Slice::partial(place, Within { until: until.clone(), after, span }, Vec::new()))
}

/// How many changes of some tables the log has after a seq, `limit` at most: about as many as a reader has before it.
pub async fn count_after(
    session: &Session,
    tables: impl Iterator<Item = &'static str>,
    seq: i64,
    limit: usize,
) -> Result<i64> {
    let mut sql = Sql::default();
    sql.push("select count(*) from (select from change_log c where c.entity = any(");
    sql.bind(Bind::Texts(tables.map(str::to_owned).collect())).push(") and c.seq > ").bind(Bind::Int(seq));
    sql.push(" limit ").bind(count(limit)).push(") c");
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(rows.bigint(0, 0).unwrap_or_default())
}

fn count(limit: usize) -> Bind {
    Bind::Int(i64::try_from(limit).unwrap_or(i64::MAX))
}

/// The begin of a statement that reads changes: the function that finds them is still to be named.
fn looking(place: &Place, until: Option<&Arc<Snapshot>>) -> Sql {
    let mut sql = Sql::default();
    sql.push("with s as materialized (select pg_current_snapshot() as now, ");
    sql.bind(Bind::Text(place.since.to_string())).push("::pg_snapshot as since, ");
    match until {
        Some(until) => sql.bind(Bind::Text(until.to_string())).push("::pg_snapshot"),
        None => sql.push("pg_current_snapshot()"),
    };
    sql.push(
        " as until) select s.now::text, p.xid, c.xid, c.seq, c.entity, c.row_id, c.op, c.project_id, \
         c.old_project_id, c.keys, c.at from s cross join ",
    );
    sql.push(PRUNED).push(" p left join lateral ");
    sql
}

/// Runs such a statement: what the reader could see, and the changes.
async fn looked(session: &Session, place: &Place, sql: Sql) -> Result<(Arc<Snapshot>, Vec<Change>)> {
    let rows = session.rows(&sql.returning(WIDTH)).await?;
    let seen: Arc<Snapshot> = Arc::new(rows.text(0, 0).unwrap_or_default().parse()?);
    check_age(place, xid(&rows, 0, 1)?, &seen)?;
    let found = (0..rows.len()).filter(|row| rows.cell(*row, 2).is_some());
    let changes: Result<_> = found.map(|row| change(&rows, row)).collect();
    Ok((seen, changes?))
}

/// Whether everything after the place is still there.
fn check_age(place: &Place, pruned: u64, now: &Snapshot) -> Result<()> {
    let last = place.within.as_ref().map_or(&place.since, |within| &within.until);
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
/// They go in the order of xid, and none of a transaction younger than the oldest running one: every present reader
/// is before that. A transaction that is forgotten open so keeps the log, as it keeps all dead rows of the database.
/// Changes of the future, which nobody reads, were restored from another server's backup and go at once.
pub async fn prune(session: &Session, older_than: Duration, limit: u32) -> Result<u64> {
    let mut sql = Sql::default();
    sql.push("with s as materialized (select pg_current_snapshot() as now where pg_try_advisory_xact_lock(");
    sql.bind(Bind::Int(PRUNING));
    sql.push(")), oldest as materialized (select c.xid, c.seq, c.at < now() - make_interval(secs => ");
    sql.bind(Bind::Float(older_than.as_secs_f64()));
    sql.push(
        ") as old from change_log c where c.xid < (select pg_snapshot_xmin(s.now) from s) \
         order by c.xid, c.seq limit ",
    );
    sql.bind(Bind::Int(limit.into()));
    sql.push(
        "), young as (select xid, seq from oldest where not old order by xid, seq limit 1), \
         gone as (delete from change_log c using oldest o where c.xid = o.xid and c.seq = o.seq \
         and not exists (select from young y where (o.xid, o.seq) >= (y.xid, y.seq)) returning c.xid), \
         foreigners as materialized (select c.xid, c.seq from change_log c \
         where c.xid >= (select pg_snapshot_xmax(s.now) from s) order by c.xid, c.seq limit ",
    );
    sql.bind(Bind::Int(limit.into()));
    sql.push(
        "), gone_too as (delete from change_log c using foreigners f where c.xid = f.xid and c.seq = f.seq \
         returning c.xid), \
         moved as (update change_log_pruned p set xid = greatest(k.xid, g.xid), pruned_at = now() from s, ",
    );
    sql.push(PRUNED).push(
        " k left join (select xid from gone order by xid desc limit 1) g on true \
         where g.xid > p.xid or p.xid >= pg_snapshot_xmax(s.now)) \
         select (select count(*) from gone) + (select count(*) from gone_too)",
    );
    let rows = session.rows(&sql.returning(1)).await?;
    Ok(rows.bigint(0, 0).and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
}
