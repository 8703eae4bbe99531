//! `import`: rows from a file, from the sample or from the generator, in batches that are written whole or not at all.
//!
//! Where an import stands is saved with each batch, so that one that was killed goes on where it stopped.

mod batch;
mod check;
pub mod command;
mod cvss;
mod feed;
mod format;
pub mod generate;
pub mod report;
mod sample;

use std::path::PathBuf;

use diesel_async::AsyncPgConnection;

use self::batch::Written;
use self::feed::Feed;
use self::generate::Spec;
use crate::error::{Code, Error, Result};
use crate::model::import::ImportProgress;

/// How many problems a summary spells out.
pub const MAX_LISTED_PROBLEMS: usize = 20;

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file as docs/import-format.md describes it.
    File(PathBuf),
    /// The sample: the advisories of the RustSec database and what follows from them.
    Sample,
    /// Any number of made-up rows, for measurements.
    Generate(Spec),
}

/// How to import.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Skip lines that are wrong, and list them, instead of stopping at the first.
    pub keep_going: bool,
    /// Go through a source again that has been imported before. Without it such a source is not even read.
    pub again: bool,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Lines that are done, those of an earlier, interrupted import included.
    pub lines_done: u64,
    /// All lines of the source.
    pub lines_total: u64,
    /// Rows that this import found new or different, and wrote.
    pub rows_written: u64,
}

/// What an import has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines read by this import.
    pub lines: u64,
    /// Lines that an earlier, interrupted import had done.
    pub resumed_after: u64,
    /// Rows that were new or different.
    pub rows_written: u64,
    /// Rows that were already there as they should be.
    pub rows_unchanged: u64,
    /// Lines that were wrong and left out.
    pub lines_skipped: u64,
    /// The first of those, such as `line 17: evidence.credibilityScore: 1.3 is not between 0.0 and 1.0`.
    pub problems: Vec<String>,
    /// The source had been imported before, and nothing was done.
    pub already_done: bool,
}

/// Imports a source, telling `progress` after each batch.
///
/// May be cancelled at any time by dropping the future together with the connection: the batch under way is undone
/// and the next import of the same source goes on from there.
pub async fn run(
    conn: &mut AsyncPgConnection,
    source: Source,
    options: Options,
    mut progress: impl FnMut(Progress),
) -> Result<Summary> {
    let feed = tokio::task::spawn_blocking(move || Feed::open(source)).await.map_err(Error::internal)??;
    let state =
        ImportProgress::open(conn, &feed.sha256, &feed.name, options.again).await.map_err(unavailable)?;
    let resumed_after = u64::try_from(state.lines_done).map_err(Error::internal)?;
    let mut summary = Summary { resumed_after, ..Summary::default() };
    if state.finished_at.is_some() {
        summary.already_done = true;
        return Ok(summary);
    }
    let (sha256, lines_total) = (feed.sha256.clone(), feed.lines_total);
    let mut batches = feed.start(resumed_after);
    let mut lines_done = resumed_after;
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        let end = batch.end;
        let written = batch::write(conn, &sha256, lines_done, batch, options.keep_going).await?;
        summary.lines += end - lines_done;
        lines_done = end;
        summary.add(written);
        progress(Progress { lines_done, lines_total, rows_written: summary.rows_written });
    }
    if lines_done != lines_total {
        // The reader ended early without an error of its own: only a panic does that.
        return Err(Error::internal(format!("the source ended at line {lines_done} of {lines_total}")));
    }
    ImportProgress::finish(conn, &sha256).await.map_err(unavailable)?;
    Ok(summary)
}

impl Summary {
    fn add(&mut self, written: Written) {
        self.rows_written += written.rows_written;
        self.rows_unchanged += written.rows_unchanged;
        for (line, problem) in written.problems {
            self.lines_skipped += 1;
            if self.problems.len() < MAX_LISTED_PROBLEMS {
                self.problems.push(format!("line {line}: {problem}"));
            }
        }
    }
}

fn unavailable(error: diesel::result::Error) -> Error {
    match error {
        diesel::result::Error::DatabaseError(diesel::result::DatabaseErrorKind::ClosedConnection, _)
        | diesel::result::Error::BrokenTransactionManager => Error::unavailable("PostgreSQL", error),
        other => Error::new(Code::Internal, "the database refused a statement of the import").because(other),
    }
}
