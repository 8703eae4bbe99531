//! What a statement reads, so that a cache can tell which changes touch its answer: rows by their ids, and lists by
//! their tables, conditions and columns. A statement that does not say what it reads is not remembered.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::db::rows::RowSet;
use crate::store::db::sql::Sql;

pub use condition::{Condition, Scalar, Truth};

mod condition;

/// A name in SQL; those that come back from a shared cache are owned.
pub type Name = Cow<'static, str>;

/// What the answer to a statement depends on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reads {
    /// Rows whose columns the answer shows.
    pub rows: Rows,
    /// Rows that are in it because of what they are.
    pub lists: Vec<List>,
    /// Whether it is another one for another person of the same role and projects.
    pub person: bool,
}

/// Which rows a statement shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rows {
    /// None: it counts or measures.
    #[default]
    None,
    /// Those with the ids that it is given as keys, found or not.
    Keys,
    /// Those that it finds, whose ids stand in this cell.
    Cell(usize),
}

/// Some rows of a table. A change touches a list when a row that could be in it, as it is or as it was, comes, goes
/// or changes one of the watched columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// The table.
    pub table: Name,
    /// Holds for every row of the list.
    pub condition: Condition,
    /// The column by which the rows belong to the keys of the statement.
    pub parent: Option<Name>,
    /// The columns that decide which rows there are and in which order; `None` for all. That a row is deleted or
    /// moved to another project counts anyway.
    pub watched: Option<Vec<Name>>,
    /// Whether a new row can be in it; not so when other rows must refer to it first.
    pub born: bool,
}

impl List {
    /// Any row of a table, whatever changes in it.
    pub fn all(table: &'static str) -> Self {
        Self {
            table: table.into(),
            condition: Condition::All(Vec::new()),
            parent: None,
            watched: None,
            born: true,
        }
    }

    /// The rows of a table that other rows refer to: it matters only whether they are there, and in which project.
    pub fn standing(table: &'static str) -> Self {
        Self { watched: Some(Vec::new()), born: false, ..Self::all(table) }
    }
}

/// What the statements of one request have read so far.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Noted>);

/// What a request has read.
#[derive(Debug, Default)]
pub struct Noted {
    /// Rows by id; some may stand here twice.
    pub rows: Vec<Uuid>,
    /// Lists, each with the keys of its statement.
    pub lists: Vec<(List, Vec<Uuid>)>,
    /// Whether anything of it depends on the person.
    pub person: bool,
    /// Whether a statement did not say what it reads.
    pub unknown: bool,
    /// How old it may be: the strictest word of all that it shows.
    pub hint: Option<Hint>,
}

/// How old an answer may be that shows something. That nothing it was made of has changed is asked anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// For how many seconds it is kept; `None` for as long as the settings say.
    pub max_age_s: Option<u32>,
    /// For how many seconds after that it is still shown, while a new one is being made.
    pub stale_while_revalidate_s: u32,
    /// How many seconds old it may be, whether it holds or not, when nothing newer can be had.
    pub stale_if_error_s: u32,
}

impl Hint {
    /// Nothing but what the settings say.
    pub const NONE: Self = Self { max_age_s: None, stale_while_revalidate_s: 0, stale_if_error_s: 0 };

    /// What may be said of something that is made of both.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        Self {
            max_age_s: self.max_age_s.into_iter().chain(other.max_age_s).min(),
            stale_while_revalidate_s: self.stale_while_revalidate_s.min(other.stale_while_revalidate_s),
            stale_if_error_s: self.stale_if_error_s.min(other.stale_if_error_s),
        }
    }
}

impl Notes {
    /// Notes what a statement is about to read; before it is sent, so that one that fails is noted as well.
    pub(super) fn before(&self, sql: &Sql) {
        let mut noted = self.lock();
        let Some(reads) = sql.reads() else {
            noted.unknown = true;
            return;
        };
        noted.person |= reads.person;
        if reads.rows == Rows::Keys {
            noted.rows.extend_from_slice(sql.keys());
        }
        for list in &reads.lists {
            let keys = if list.parent.is_some() { sql.keys().to_vec() } else { Vec::new() };
            if list.parent.is_some() || !noted.lists.iter().any(|(known, _)| known == list) {
                noted.lists.push((list.clone(), keys));
            }
        }
    }

    /// Notes the rows that it found.
    pub(super) fn after(&self, sql: &Sql, found: &RowSet) {
        if let Some(Rows::Cell(cell)) = sql.reads().map(|reads| reads.rows) {
            self.lock().rows.extend((0..found.len()).filter_map(|row| found.uuid(row, cell)));
        }
    }

    /// Notes a list that was read elsewhere, by what follows the database and may be behind it.
    pub fn copied(&self, list: List, hint: Hint) {
        self.lock().lists.push((list, Vec::new()));
        self.shows(hint);
    }

    /// Notes that something is shown of which this is said.
    pub fn shows(&self, hint: Hint) {
        let mut noted = self.lock();
        noted.hint = Some(noted.hint.map_or(hint, |known| known.strictest(hint)));
    }

    /// Says that what was read besides is unknown.
    pub fn give_up(&self) {
        self.lock().unknown = true;
    }

    /// Says that the answer depends on the person.
    pub fn is_personal(&self) {
        self.lock().person = true;
    }

    /// What was noted; the notes begin anew.
    pub fn take(&self) -> Noted {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
