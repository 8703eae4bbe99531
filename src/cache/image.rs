//! A change as lists look at it: whether the row, as it is or as it was, could be in one.

use serde_json::Value;
use uuid::Uuid;

use crate::model::change::{Change, Image, Op};
use crate::store::db::reads::{List, Truth};

/// A change that lists are held against.
#[derive(Debug)]
pub(super) struct Mark {
    /// The tail's batch that brought it.
    pub(super) batch: u64,
    image: Image,
}

impl Mark {
    pub(super) fn new(batch: u64, change: &Change) -> Self {
        Self { batch, image: Image::new(change) }
    }

    /// Whether the change touches a list. `keys` are those of the list's parents, in order.
    pub(super) fn touches(&self, list: &List, keys: &[Uuid]) -> bool {
        let image = &self.image;
        let now = || fits(list, keys, &|column| image.now(column));
        match image.op {
            Op::Insert => list.born && now(),
            Op::Delete => now(),
            Op::Update => self.is_about(list) && (now() || fits(list, keys, &|column| image.before(column))),
            Op::Truncate => true,
        }
    }

    fn is_about(&self, list: &List) -> bool {
        let changed = |columns: &[_]| {
            columns.iter().any(|column: &std::borrow::Cow<'_, str>| self.image.changes(column))
        };
        self.image.moved || self.image.turned() || list.watched.as_deref().is_none_or(changed)
    }
}

fn fits<'a>(list: &List, keys: &[Uuid], value: &impl Fn(&str) -> Option<&'a Value>) -> bool {
    let of_parent = list.parent.as_deref().is_none_or(|parent| match value(parent) {
        None => true,
        Some(Value::String(id)) => id.parse().is_ok_and(|id: Uuid| keys.binary_search(&id).is_ok()),
        Some(_) => false,
    });
    of_parent && list.condition.holds(value) != Truth::No
}
