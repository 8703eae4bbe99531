//! The comparison: walks through the table and the index side by side, in the order of ids, and tells where they differ.

use std::collections::VecDeque;

use uuid::Uuid;

use super::writer::LOOK;
use crate::error::Result;
use crate::model::searched::read_indexed;
use crate::store::db::Session;
use crate::store::vectors::Vectors;

/// Rows read at once of either side.
const PAGE: u32 = 1_000;

/// Where the walk is.
pub struct Comparison {
    session: Session,
    vectors: Vectors,
    table: Side,
    index: Side,
    /// Rows of the table that were passed.
    pub passed: u64,
}

/// One of the two lists, as far as it is read.
#[derive(Default)]
struct Side {
    rows: VecDeque<(Uuid, i32)>,
    last: Option<Uuid>,
    ended: bool,
}

impl Side {
    fn is_dry(&self) -> bool {
        self.rows.is_empty() && !self.ended
    }

    fn fill(&mut self, rows: Vec<(Uuid, i32)>) {
        self.ended = rows.len() < PAGE as usize;
        self.last = rows.last().map_or(self.last, |(id, _)| Some(*id));
        self.rows.extend(rows);
    }
}

impl Comparison {
    /// Before the first row.
    pub fn new(session: Session, vectors: Vectors) -> Self {
        Self { session, vectors, table: Side::default(), index: Side::default(), passed: 0 }
    }

    /// Some rows that one of the two lacks or that have another version there; none at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Uuid>>> {
        let mut differing = Vec::new();
        while differing.len() < LOOK {
            if self.table.is_dry() {
                let rows = read_indexed(&self.session, self.table.last, PAGE).await?;
                self.table.fill(rows.into_iter().map(|row| (row.id, row.version)).collect());
            }
            if self.index.is_dry() {
                let rows = self.vectors.scroll(self.index.last, PAGE as usize).await?;
                self.index.fill(rows);
            }
            let of_table = self.table.rows.front().copied();
            let of_index = self.index.rows.front().copied();
            let id = match (of_table, of_index) {
                (None, None) => break,
                (Some((id, _)), None) | (None, Some((id, _))) => id,
                (Some((one, _)), Some((other, _))) => one.min(other),
            };
            if of_table == of_index {
                self.index.rows.pop_front();
                self.table.rows.pop_front();
                self.passed += 1;
                continue;
            }
            differing.push(id);
            if of_index.is_some_and(|(other, _)| other == id) {
                self.index.rows.pop_front();
            }
            if of_table.is_some_and(|(other, _)| other == id) {
                self.table.rows.pop_front();
                self.passed += 1;
            }
        }
        // A part that is all alike ends at the end only.
        Ok((!differing.is_empty()).then_some(differing))
    }
}
