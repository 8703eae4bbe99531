//! Writes one batch: all of it in one transaction, or the name of the line that is wrong.

use std::collections::{HashMap, HashSet};

use diesel_async::{AsyncConnection, AsyncPgConnection};

use super::feed::{Batch, Line};
use super::format::Problem;
use super::unavailable;
use crate::error::{Code, Error, Result};
use crate::model::import::record::{Kind, Record, Reference};
use crate::model::import::{self as sql, ImportProgress};

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) rows_written: u64,
    pub(super) rows_unchanged: u64,
    pub(super) problems: Vec<(u64, Problem)>,
}

/// Why a transaction ended.
enum Stop {
    Sql(diesel::result::Error),
    /// Another import of the same source is under way.
    Overtaken,
    /// A line is wrong, and the import shall not go on without it.
    Line(u64, Problem),
    /// The database refuses some row, and does not say which.
    SomeRow,
}

impl From<diesel::result::Error> for Stop {
    fn from(error: diesel::result::Error) -> Self {
        Self::Sql(error)
    }
}

/// One row with its line.
type Row = (u64, Record);

/// Writes the batch and moves the progress of the source from line `from` to the end of the batch.
pub(super) async fn write(
    conn: &mut AsyncPgConnection,
    sha256: &str,
    from: u64,
    batch: Batch,
    keep_going: bool,
) -> Result<Written> {
    let step = Step { sha256, from: signed(from)?, to: signed(batch.end)?, keep_going };
    let (rows, problems) = sorted(batch.lines);
    let together = step.attempt(conn, &rows, &problems, false).await;
    let written = match together {
        // Slow, and only for a batch that cannot be written as it is.
        Err(Stop::SomeRow) => step.attempt(conn, &rows, &problems, true).await,
        other => other,
    };
    written.map_err(|stop| match stop {
        Stop::Sql(error) => unavailable(error),
        Stop::Overtaken => Error::new(Code::Conflict, "another import of the same source is under way"),
        Stop::Line(line, problem) => {
            Error::bad_input(problem.place.clone(), format!("line {line}: {problem}"))
        }
        Stop::SomeRow => Error::internal("a row was refused in a transaction that tried each row alone"),
    })
}

/// What stays the same when a batch is tried twice.
struct Step<'a> {
    sha256: &'a str,
    from: i64,
    to: i64,
    keep_going: bool,
}

impl Step<'_> {
    async fn attempt(
        &self,
        conn: &mut AsyncPgConnection,
        rows: &[Row],
        problems: &[(u64, Problem)],
        one_by_one: bool,
    ) -> Result<Written, Stop> {
        conn.transaction(async |conn| {
            if !ImportProgress::advance(conn, self.sha256, self.from, self.to).await? {
                return Err(Stop::Overtaken);
            }
            let mut written = Written { problems: problems.to_vec(), ..Written::default() };
            self.stop_at_first(&written.problems)?;
            let mut there = existing(conn, rows).await?;
            if one_by_one {
                self.write_one_by_one(conn, rows, &mut there, &mut written).await?;
            } else {
                let good = resolvable(rows, &there, &mut written.problems);
                self.stop_at_first(&written.problems)?;
                for group in good.chunk_by(|a, b| a.kind() == b.kind()) {
                    let changed = refusable(sql::write(conn, group[0].kind(), group).await)?;
                    written.count(group.len(), changed);
                }
            }
            written.problems.sort_by_key(|(line, _)| *line);
            if written.rows_written > 0 {
                let rows = i64::try_from(written.rows_written).unwrap_or(i64::MAX);
                ImportProgress::note(conn, self.sha256, (self.from, self.to), rows).await?;
            }
            Ok(written)
        })
        .await
    }

    /// Each row in a savepoint of its own, so that those that are refused can be told from the others.
    async fn write_one_by_one(
        &self,
        conn: &mut AsyncPgConnection,
        rows: &[Row],
        there: &mut There,
        written: &mut Written,
    ) -> Result<(), Stop> {
        let mut waiting: Vec<&Row> = rows.iter().collect();
        loop {
            let before = waiting.len();
            let mut later = Vec::new();
            for row @ (line, record) in waiting {
                if missing(record, |reference| there.has(reference)).is_some() {
                    later.push(row);
                    continue;
                }
                let alone = [record];
                let result = conn
                    .transaction(async |conn| refusable_text(sql::write(conn, record.kind(), &alone).await))
                    .await;
                match result {
                    Ok(changed) => {
                        written.count(1, changed);
                        there.add(record);
                    }
                    Err(Refusal::Row(text)) => {
                        written.problems.push((*line, Problem::new(record.kind().name(), text)));
                        self.stop_at_first(&written.problems)?;
                    }
                    Err(Refusal::Sql(error)) => return Err(error.into()),
                }
            }
            waiting = later;
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        let left = waiting.iter().filter_map(|(line, record)| {
            missing(record, |reference| there.has(reference)).map(|problem| (*line, problem))
        });
        written.problems.extend(left);
        self.stop_at_first(&written.problems)
    }

    fn stop_at_first(&self, problems: &[(u64, Problem)]) -> Result<(), Stop> {
        match problems.iter().min_by_key(|(line, _)| *line) {
            Some((line, problem)) if !self.keep_going => Err(Stop::Line(*line, problem.clone())),
            _ => Ok(()),
        }
    }
}

impl Written {
    fn count(&mut self, rows: usize, changed: usize) {
        self.rows_written += changed as u64;
        self.rows_unchanged += rows.saturating_sub(changed) as u64;
    }
}

/// Rows that other rows may refer to.
struct There(HashMap<Kind, HashSet<String>>);

impl There {
    fn has(&self, reference: Reference<'_>) -> bool {
        self.0.get(&reference.kind).is_some_and(|names| names.contains(reference.external_id))
    }

    fn add(&mut self, record: &Record) {
        if let Some(name) = record.external_id() {
            self.0.entry(record.kind()).or_default().insert(name.to_owned());
        }
    }
}

/// Rows in the order of their kinds, each once; of two lines about one row the later one counts.
fn sorted(lines: Vec<Line>) -> (Vec<Row>, Vec<(u64, Problem)>) {
    let mut rows: HashMap<(Kind, uuid::Uuid), Row> = HashMap::with_capacity(lines.len());
    let mut problems = Vec::new();
    for line in lines {
        match line.record {
            Ok(record) => {
                rows.insert((record.kind(), record.id()), (line.number, record));
            }
            Err(problem) => problems.push((line.number, problem)),
        }
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by_key(|(line, record)| (record.kind(), *line));
    (rows, problems)
}

/// Which of the rows that this batch refers to are in the database: one statement per kind.
async fn existing(conn: &mut AsyncPgConnection, rows: &[Row]) -> Result<There, diesel::result::Error> {
    let mut wanted: HashMap<Kind, HashSet<&str>> = HashMap::new();
    for reference in rows.iter().flat_map(|(_, record)| record.references()) {
        wanted.entry(reference.kind).or_default().insert(reference.external_id);
    }
    let mut there = There(HashMap::new());
    for (kind, names) in wanted {
        let names: Vec<&str> = names.into_iter().collect();
        there.0.insert(kind, sql::known(conn, kind, &names).await?);
    }
    Ok(there)
}

/// The rows whose references are in the database or in the batch. A row that is left out can leave others without
/// theirs, so the search ends when nothing more falls out.
fn resolvable<'a>(rows: &'a [Row], there: &There, problems: &mut Vec<(u64, Problem)>) -> Vec<&'a Record> {
    let mut good: Vec<&Row> = rows.iter().collect();
    loop {
        let coming: HashSet<(Kind, &str)> = good
            .iter()
            .filter_map(|(_, record)| record.external_id().map(|name| (record.kind(), name)))
            .collect();
        let before = good.len();
        good.retain(|(line, record)| {
            let found = |reference: Reference<'_>| {
                coming.contains(&(reference.kind, reference.external_id)) || there.has(reference)
            };
            let problem = missing(record, found);
            let complete = problem.is_none();
            problems.extend(problem.map(|problem| (*line, problem)));
            complete
        });
        if good.len() == before {
            return good.into_iter().map(|(_, record)| record).collect();
        }
    }
}

fn missing<'a>(record: &'a Record, found: impl Fn(Reference<'a>) -> bool) -> Option<Problem> {
    let reference = record.references().find(|reference| !found(*reference))?;
    let place = format!("{}.{}", record.kind().name(), reference.field);
    let reason =
        format!("there is no {} with the external id {:?}", reference.kind.name(), reference.external_id);
    Some(Problem::new(place, reason))
}

fn refusable(result: Result<usize, diesel::result::Error>) -> Result<usize, Stop> {
    result.map_err(|error| if sql::refusal(&error).is_some() { Stop::SomeRow } else { Stop::Sql(error) })
}

/// Why one row was not written.
enum Refusal {
    Row(String),
    Sql(diesel::result::Error),
}

impl From<diesel::result::Error> for Refusal {
    fn from(error: diesel::result::Error) -> Self {
        sql::refusal(&error).map_or(Self::Sql(error), Self::Row)
    }
}

fn refusable_text(result: Result<usize, diesel::result::Error>) -> Result<usize, Refusal> {
    result.map_err(Refusal::from)
}

fn signed(line: u64) -> Result<i64> {
    i64::try_from(line).map_err(Error::internal)
}
