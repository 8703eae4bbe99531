//! What happened to the rows of two projects, as the log tells, and statements that make it happen: the consistency
//! checker compares what readers were told with this.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::Result;
use crate::model::change::{Change, Op, Place, oldest, read};
use crate::store::db::Session;

/// Tables whose rows the checker follows.
pub const TABLES: [&str; 2] = ["tasks", "evidence"];
/// Pieces of evidence per task.
pub const PER_TASK: usize = 2;

/// One version of a row.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its number; the row's updates are numbered from 1 on.
    pub number: i64,
    /// The transaction that made it.
    pub xid: u64,
    /// When the statement began that made it.
    pub at: DateTime<Utc>,
    /// The project of the row.
    pub project: Option<Uuid>,
    /// What the log tells of it.
    pub keys: Map<String, Value>,
}

/// Reads all versions of all rows, each row's in order.
pub async fn versions(session: &Session) -> Result<Vec<((String, Uuid), Vec<Version>)>> {
    let mut place: Place = oldest(session).await?;
    let mut rows = std::collections::BTreeMap::<_, Vec<Version>>::new();
    loop {
        let slice = read(session, &place, None, 5_000).await?;
        let (last, partial) = (slice.place.clone(), slice.is_partial());
        for change in slice.changes {
            let Change {
                xid, entity, id: Some(id), op: Op::Insert | Op::Update, project_id, keys, at, ..
            } = change
            else {
                continue;
            };
            let number = keys.get("version").and_then(Value::as_i64).unwrap_or_default();
            let versions = rows.entry((entity.into_owned(), id)).or_default();
            versions.push(Version { number, xid, at, project: project_id, keys });
        }
        if !partial {
            break;
        }
        place = last;
    }
    for versions in rows.values_mut() {
        versions.sort_by_key(|version| version.number);
    }
    Ok(rows.into_iter().collect())
}

/// SQL that makes two projects with so many tasks each.
pub fn setup(projects: &[Uuid], tasks: usize) -> String {
    let mut sql = String::new();
    for (n, project) in projects.iter().enumerate() {
        sql.push_str(&format!(
            "insert into projects (id, slug, name) values ('{project}', 'checked-{n}', 'Checked'); \
             insert into tasks (project_id, title, intent, priority) select '{project}', 'v1', 'check', 1 + n % 5 \
             from generate_series(1, {tasks}) n; \
             insert into evidence (project_id, task_id, title, content, source_type, credibility_score) \
             select '{project}', t.id, 'v1', gen_random_uuid()::text, 'log', n / 10.0 from tasks t, \
             generate_series(1, {PER_TASK}) n where t.project_id = '{project}'; "
        ));
    }
    sql
}

/// One transaction of a program that knows nothing of the gateway, chosen by a number. It prints a line
/// `table id version` for each row that it changed.
pub fn transaction(choice: u64, projects: &[Uuid], seconds_open: u32) -> String {
    let pick = choice / 8;
    let project = projects[usize::from(pick.is_multiple_of(2))];
    let (table, set) = match choice % 8 {
        0 => (
            "tasks",
            "status = (array['pending', 'processing', 'completed'])[1 + (random() * 2)::int]".to_owned(),
        ),
        1 => ("tasks", "priority = 1 + (random() * 4)::int".to_owned()),
        2 => ("tasks", "deleted_at = case when deleted_at is null then now() end".to_owned()),
        3 => ("tasks", format!("project_id = '{project}'")),
        4 => ("evidence", "credibility_score = round(random()::numeric, 2)".to_owned()),
        5 => ("evidence", "task_id = (select id from tasks order by random() limit 1)".to_owned()),
        6 => ("evidence", "deleted_at = case when deleted_at is null then now() end".to_owned()),
        _ => ("evidence", "tags = array['t']".to_owned()),
    };
    let rows = 1 + pick % 3;
    let wait = if seconds_open > 0 { format!("select pg_sleep({seconds_open});") } else { String::new() };
    // In the order of ids, so that two of these do not wait for each other.
    format!(
        "begin; update {table} x set {set}, title = 'v' || (x.version + 1) where x.id in (select id from (select id from {table} \
         order by random() limit {rows}) y order by id) returning '{table} ' || id || ' ' || version; {wait} commit;"
    )
}
