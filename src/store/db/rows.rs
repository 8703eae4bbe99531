//! Rows as PostgreSQL sent them: one buffer for a whole answer, no allocation per cell. Values are read at the
//! moment they are written into a response, so a column costs a copy and nothing else.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel::row::{Field, Row};
use uuid::Uuid;

const NULL: u32 = 1 << 31;

/// The answer to one statement.
#[derive(Debug, Default)]
pub struct RowSet {
    width: usize,
    /// Where each cell ends in `data`; the top bit says that the cell is NULL.
    ends: Vec<u32>,
    data: Vec<u8>,
}

impl RowSet {
    /// An answer without rows.
    pub fn new(width: usize) -> Self {
        Self { width, ends: Vec::new(), data: Vec::new() }
    }

    pub(super) fn push<'a>(&mut self, row: &impl Row<'a, diesel::pg::Pg>) -> QueryResult<()> {
        for column in 0..self.width {
            let field = Row::get(row, column);
            match field.as_ref().and_then(Field::value) {
                Some(value) => self.push_cell(Some(value.as_bytes())),
                None => self.push_cell(None),
            }
        }
        // An answer of 2 GiB would overflow the offsets; no page limit lets it come this far.
        if self.data.len() < NULL as usize { Ok(()) } else { Err(diesel::result::Error::RollbackTransaction) }
    }

    /// Appends one cell in PostgreSQL's binary format; a row is complete after `width` of them.
    pub fn push_cell(&mut self, value: Option<&[u8]>) {
        if let Some(bytes) = value {
            self.data.extend_from_slice(bytes);
        }
        let end = u32::try_from(self.data.len()).unwrap_or(NULL) & !NULL;
        self.ends.push(if value.is_some() { end } else { end | NULL });
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of one cell, `None` for NULL.
    pub fn cell(&self, row: usize, column: usize) -> Option<&[u8]> {
        let at = row * self.width + column;
        let end = *self.ends.get(at)?;
        let start = if at == 0 { 0 } else { self.ends[at - 1] & !NULL };
        (end & NULL == 0).then(|| &self.data[start as usize..end as usize])
    }

    /// A cell of type `uuid`.
    pub fn uuid(&self, row: usize, column: usize) -> Option<Uuid> {
        Uuid::from_slice(self.cell(row, column)?).ok()
    }

    /// A cell of type `bigint`.
    pub fn bigint(&self, row: usize, column: usize) -> Option<i64> {
        Some(i64::from_be_bytes(self.cell(row, column)?.try_into().ok()?))
    }

    /// A cell of type `uuid[]`.
    pub fn uuids(&self, row: usize, column: usize) -> Option<Vec<Uuid>> {
        elements(self.cell(row, column)?).map(|bytes| Uuid::from_slice(bytes).ok()).collect()
    }

    /// A cell of type `float8`.
    pub fn float(&self, row: usize, column: usize) -> Option<f64> {
        Some(f64::from_be_bytes(self.cell(row, column)?.try_into().ok()?))
    }

    /// A cell of type `text`.
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        std::str::from_utf8(self.cell(row, column)?).ok()
    }
}

/// One row of a shared answer.
#[derive(Debug, Clone)]
pub struct RowRef {
    /// The answer it stands in.
    pub set: Arc<RowSet>,
    /// Its place there.
    pub row: usize,
}

impl RowRef {
    /// The bytes of one cell, `None` for NULL.
    pub fn cell(&self, column: usize) -> Option<&[u8]> {
        self.set.cell(self.row, column)
    }

    /// A cell of type `uuid`.
    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        self.set.uuid(self.row, column)
    }
}

/// PostgreSQL counts its time from 2000-01-01, the rest of the world from 1970.
const PG_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// Reads a `timestamptz`.
pub fn read_time(bytes: &[u8]) -> Option<DateTime<Utc>> {
    let micros = i64::from_be_bytes(bytes.try_into().ok()?);
    DateTime::from_timestamp_micros(micros.checked_add(PG_EPOCH_UNIX_MICROS)?)
}

/// Reads the elements of a `text[]`, NULLs left out.
pub fn read_texts(bytes: &[u8]) -> impl Iterator<Item = &str> {
    elements(bytes).map_while(|bytes| std::str::from_utf8(bytes).ok())
}

/// The elements of an array of one dimension, NULLs left out.
fn elements(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    // ndim, flags, element type, then for the one dimension its length and lower bound: 20 bytes in all.
    let mut rest = bytes.get(20..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let (head, tail) = rest.split_at_checked(4)?;
            let length = i32::from_be_bytes(head.try_into().ok()?);
            match usize::try_from(length) {
                Err(_) => rest = tail,
                Ok(length) => {
                    let (element, after) = tail.split_at_checked(length)?;
                    rest = after;
                    return Some(element);
                }
            }
        }
    })
}
