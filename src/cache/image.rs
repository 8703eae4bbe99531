//! A change as lists look at it: the row as it is and as it was, as far as the log tells, and which columns it is
//! about.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::catalog::catalog;
use crate::model::change::{Change, Op};
use crate::store::db::reads::{List, Truth};

/// A change that lists are held against.
#[derive(Debug)]
pub(super) struct Image {
    /// The tail's batch that brought it.
    pub(super) batch: u64,
    op: Op,
    /// The row as it is, or was before it was deleted.
    new: Map<String, Value>,
    /// What of it was otherwise before.
    old: Map<String, Value>,
    /// All columns that an update changed, if the log names them.
    changed: Option<Vec<Value>>,
    /// Whether the row was of another project, perhaps.
    moved: bool,
    /// Whether it may have been of no project, which the log does not tell from the same one.
    had_none: bool,
}

impl Image {
    pub(super) fn new(batch: u64, change: &Change) -> Self {
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
        if change.old_project_id.is_some() {
            old.insert("project_id".to_owned(), text(change.old_project_id));
        }
        let unchanged = changed.as_ref().is_some_and(|names| !names.iter().any(|name| name == "project_id"));
        let had_none = change.op == Op::Update
            && change.old_project_id.is_none()
            && !unchanged
            && may_have_no_project(&change.entity);
        let moved = change.old_project_id.is_some() || had_none;
        Self { batch, op: change.op, new, old, changed, moved, had_none }
    }

    /// Whether the change touches a list. `keys` are those of the list's parents, in order.
    pub(super) fn touches(&self, list: &List, keys: &[Uuid]) -> bool {
        match self.op {
            Op::Insert => list.born && self.fits(list, keys, &|column| self.new.get(column)),
            Op::Delete => self.fits(list, keys, &|column| self.new.get(column)),
            Op::Update => {
                self.is_about(list)
                    && (self.fits(list, keys, &|column| self.new.get(column))
                        || self.fits(list, keys, &|column| self.former(column)))
            }
            Op::Truncate => true,
        }
    }

    fn former(&self, column: &str) -> Option<&Value> {
        // The log does not tell the former version, which every update changes.
        if (column == "project_id" && self.had_none) || column == "version" {
            return None;
        }
        self.old.get(column).or_else(|| self.new.get(column))
    }

    fn is_about(&self, list: &List) -> bool {
        let watched =
            |columns: &[_]| columns.iter().any(|column: &std::borrow::Cow<'_, str>| self.changes(column));
        self.moved || self.old.contains_key("deleted") || list.watched.as_deref().is_none_or(watched)
    }

    /// Whether an update changed a column, as far as anybody knows.
    fn changes(&self, column: &str) -> bool {
        match &self.changed {
            // Every update changes these, and they are not named.
            _ if ["version", "updated_at"].contains(&column) => true,
            Some(names) => names.iter().any(|name| name == column),
            None if self.new.contains_key(column) => self.old.contains_key(column),
            None => true,
        }
    }

    fn fits<'a>(&self, list: &List, keys: &[Uuid], value: &impl Fn(&str) -> Option<&'a Value>) -> bool {
        let of_parent = list.parent.as_deref().is_none_or(|parent| match value(parent) {
            None => true,
            Some(Value::String(id)) => id.parse().is_ok_and(|id: Uuid| keys.binary_search(&id).is_ok()),
            Some(_) => false,
        });
        of_parent && list.condition.holds(value) != Truth::No
    }
}

fn may_have_no_project(table: &str) -> bool {
    let columns = catalog().get(table).map(|info| info.columns.as_slice()).unwrap_or_default();
    columns.iter().any(|column| column.name == "project_id" && column.nullable)
}
