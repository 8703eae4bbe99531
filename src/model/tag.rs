//! Tags: what a cached answer was made of, as an operator names it.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::model::graph;

/// What cached answers have in common that are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// They show this row.
    Row(Uuid),
    /// They list, count or measure rows of this table.
    Table(&'static str),
}

/// `Task:<id>` or the id alone for a row; `Task` or `tasks` for a table.
impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let table = |name: &str| {
            let found = graph().entities().find(|(_, ty, table)| ty.name == name || table.name == name);
            found.map(|(_, _, table)| table.name)
        };
        let tag = match text.split_once(':') {
            Some((name, id)) => table(name).and_then(|_| id.parse().ok()).map(Self::Row),
            None => text.parse().ok().map(Self::Row).or_else(|| table(text).map(Self::Table)),
        };
        tag.ok_or_else(|| "allowed are a type as in Task, or a row as in Task:<id>".to_owned())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(id) => write!(f, "{id}"),
            Self::Table(name) => f.write_str(name),
        }
    }
}
