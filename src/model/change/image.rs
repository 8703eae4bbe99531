//! A change as readers judge it: the row as it is and as it was, as far as the log tells, and which columns changed.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::catalog::catalog;
use crate::model::change::{Change, Op};

/// A row before and after a change.
#[derive(Debug)]
pub struct Image {
    /// What was done.
    pub op: Op,
    /// Whether the row was of another project, perhaps.
    pub moved: bool,
    /// The row as it is, or was before it was deleted.
    new: Map<String, Value>,
    /// What of it was otherwise before.
    old: Map<String, Value>,
    /// All columns that an update changed, if the log names them.
    changed: Option<Vec<Value>>,
    /// Whether it may have been of no project, which the log does not tell from the same one.
    had_none: bool,
}

impl Image {
    /// What the log tells of a change.
    pub fn new(change: &Change) -> Self {
        let text = |id: Option<Uuid>| id.map_or(Value::Null, |id| Value::String(id.to_string()));
        let mut new = change.keys.clone();
        let mut old = match new.remove("old") {
            Some(Value::Object(old)) => old,
            _ => Map::new(),
        };
        let changed = match new.remove(Change::CHANGED) {
            Some(Value::Array(names)) => Some(names),
            _ => None,
        };
        new.insert("id".to_owned(), text(change.id));
        new.insert("project_id".to_owned(), text(change.project_id));
        let named = changed.as_ref().map(|names| names.iter().any(|name| name == "project_id"));
        // A former project is named unless there was none.
        let moved = change.old_project_id.is_some() || named == Some(true);
        if moved {
            old.insert("project_id".to_owned(), text(change.old_project_id));
        }
        let had_none =
            change.op == Op::Update && !moved && named.is_none() && may_have_no_project(&change.entity);
        Self { op: change.op, new, old, changed, moved: moved || had_none, had_none }
    }

    /// A column of the row as it is (as it was, if it is gone); `None` if the log does not tell it.
    pub fn now(&self, column: &str) -> Option<&Value> {
        self.new.get(column)
    }

    /// A column of the row as it was before an update; `None` if the log does not tell it.
    pub fn before(&self, column: &str) -> Option<&Value> {
        // The log does not tell the former version, which every update changes.
        if (column == "project_id" && self.had_none) || column == "version" {
            return None;
        }
        self.old.get(column).or_else(|| self.new.get(column))
    }

    /// Whether an update deleted the row softly, or brought it back.
    pub fn turned(&self) -> bool {
        self.old.contains_key("deleted")
    }

    /// Whether an update changed a column, as far as anybody knows.
    pub fn changes(&self, column: &str) -> bool {
        match &self.changed {
            // Every update changes these, and they are not named.
            _ if ["version", "updated_at"].contains(&column) => true,
            Some(names) => names.iter().any(|name| name == column),
            None if self.new.contains_key(column) => self.old.contains_key(column),
            None => true,
        }
    }

    /// The names of all columns that an update changed, `version` and `updated_at` aside; `None` if the log does not
    /// tell.
    pub fn changed(&self) -> Option<impl Iterator<Item = &str>> {
        self.changed.as_ref().map(|names| names.iter().filter_map(Value::as_str))
    }
}

fn may_have_no_project(table: &str) -> bool {
    let columns = catalog().get(table).map(|info| info.columns.as_slice()).unwrap_or_default();
    columns.iter().any(|column| column.name == "project_id" && column.nullable)
}
