//! Reads or makes the lines of a source on a thread of its own, one batch ahead of the database.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::format::{MAX_LINE_BYTES, Problem, parse};
use super::{Source, generate, sample};
use crate::error::{Error, Result};
use crate::model::import::record::Record;

/// Lines of one transaction.
pub(super) const BATCH_LINES: u64 = 500;

const BUFFER_BYTES: usize = 256 * 1024;

/// One line with a row, counted from 1, as editors do.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) record: Result<Record, Problem>,
}

/// Consecutive lines; blank ones are not among them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    /// The number of the last line.
    pub(super) end: u64,
}

/// A source that can be read from any line on.
pub(super) struct Feed {
    pub(super) name: String,
    /// By which the source is recognized when it comes again.
    pub(super) sha256: String,
    pub(super) lines_total: u64,
    rows: Rows,
}

enum Rows {
    File(PathBuf),
    Made(Box<dyn Iterator<Item = Record> + Send>),
}

impl Feed {
    /// Finds out what the source is. Reads a file as a whole, once.
    pub(super) fn open(source: Source) -> Result<Self> {
        match source {
            Source::File(path) => {
                let (sha256, lines_total) = survey(&path).map_err(|e| unreadable(&path, &e))?;
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                Ok(Self { name, sha256, lines_total, rows: Rows::File(path) })
            }
            Source::Sample => {
                let records = sample::records()?;
                // Of the rows and not of the advisories: when the derivation changes, the sample is a new source.
                let mut sum = Sha256::new();
                for record in &records {
                    sum.update(record.kind().name());
                    serde_json::to_writer(&mut sum, record).map_err(Error::internal)?;
                }
                let lines_total = records.len() as u64;
                let rows = Rows::Made(Box::new(records.into_iter()));
                Ok(Self { name: "sample".to_owned(), sha256: hexadecimal(sum), lines_total, rows })
            }
            Source::Generate(spec) => {
                let name = format!("generate {spec}");
                let sum = Sha256::new_with_prefix(format!("{name} {}", generate::REVISION));
                let rows = Rows::Made(Box::new(generate::records(spec)));
                Ok(Self { name, sha256: hexadecimal(sum), lines_total: spec.lines(), rows })
            }
        }
    }

    /// The batches after line `after`. Dropping the receiver ends the reading.
    pub(super) fn start(self, after: u64) -> mpsc::Receiver<Result<Batch>> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || match self.rows {
            Rows::File(path) => {
                let ended = read_file(&path, after, &sender);
                if let Err(error) = ended
                    && sender.blocking_send(Err(unreadable(&path, &error))).is_err()
                {
                    tracing::debug!("the import ended before its file");
                }
            }
            Rows::Made(records) => send_records(records, after, &sender),
        });
        receiver
    }
}

fn send_records(
    mut records: Box<dyn Iterator<Item = Record> + Send>,
    after: u64,
    sender: &mpsc::Sender<Result<Batch>>,
) {
    let mut end = 0;
    for _ in 0..after {
        end += u64::from(records.next().is_some());
    }
    loop {
        let mut lines = Vec::new();
        for record in records.by_ref().take(usize::try_from(BATCH_LINES).unwrap_or(usize::MAX)) {
            end += 1;
            let checked = super::check::check(&record);
            lines.push(Line { number: end, record: checked.map(|()| record) });
        }
        if lines.is_empty() || sender.blocking_send(Ok(Batch { lines, end })).is_err() {
            return;
        }
    }
}

fn read_file(path: &Path, after: u64, sender: &mpsc::Sender<Result<Batch>>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let mut text = Vec::new();
    let mut number = 0;
    let mut batch = Batch { lines: Vec::new(), end: after };
    while let Some(fits) = read_line(&mut reader, &mut text)? {
        number += 1;
        if number <= after {
            continue;
        }
        if number == 1 && text.starts_with(b"\xef\xbb\xbf") {
            text.drain(..3);
        }
        let record = if fits {
            parse(&text)
        } else {
            Some(Err(Problem::new("", format!("longer than {} MiB", MAX_LINE_BYTES >> 20))))
        };
        batch.lines.extend(record.map(|record| Line { number, record }));
        batch.end = number;
        if (number - after).is_multiple_of(BATCH_LINES) {
            let full = std::mem::replace(&mut batch, Batch { lines: Vec::new(), end: number });
            if sender.blocking_send(Ok(full)).is_err() {
                return Ok(());
            }
        }
    }
    if number > after
        && !(number - after).is_multiple_of(BATCH_LINES)
        && sender.blocking_send(Ok(batch)).is_err()
    {
        tracing::debug!("the import ended before its file");
    }
    Ok(())
}

/// Reads one line into `text`. None: the end. False: the line is too long, and `text` is only its beginning.
fn read_line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Option<bool>> {
    text.clear();
    let limit = MAX_LINE_BYTES as u64 + 1;
    if reader.by_ref().take(limit).read_until(b'\n', text)? == 0 {
        return Ok(None);
    }
    if text.ends_with(b"\n") || text.len() <= MAX_LINE_BYTES {
        return Ok(Some(true));
    }
    reader.skip_until(b'\n')?;
    Ok(Some(false))
}

fn survey(path: &Path) -> io::Result<(String, u64)> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let mut sum = Sha256::new();
    let mut lines = 0;
    let mut last = b'\n';
    loop {
        let bytes = reader.fill_buf()?;
        let Some(end) = bytes.last() else { break };
        last = *end;
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        sum.update(bytes);
        let length = bytes.len();
        reader.consume(length);
    }
    Ok((hexadecimal(sum), lines + u64::from(last != b'\n')))
}

fn hexadecimal(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::bad_input("file", format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_should() {
        let long = "x".repeat(MAX_LINE_BYTES);
        let file = format!("a\n\n{long}\n{long}y\nb");
        let mut reader = file.as_bytes();
        let mut text = Vec::new();
        let mut seen = Vec::new();
        while let Some(fits) = read_line(&mut reader, &mut text).unwrap() {
            seen.push((fits, text.len()));
        }
        let limit = MAX_LINE_BYTES + 1;
        assert_eq!(seen, [(true, 2), (true, 1), (true, limit), (false, limit), (true, 1)]);
    }

    #[test]
    fn a_survey_counts_the_last_line_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\n\nb", 3)] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(survey(file.path()).unwrap().1, lines);
        }
    }
}
