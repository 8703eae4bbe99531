//! The bookmark: what an index says of how far it has come. No two indexes say the same, also if they have come equally
//! far, so that the place of one is never taken for that of another.

use uuid::Uuid;

use crate::model::change::Place;

/// The text that an index keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// The name of the index, which it has from its first comparison with the table on.
    name: Uuid,
    text: String,
}

impl Bookmark {
    /// Of an index that was not yet compared with the whole table.
    pub fn unfinished() -> Self {
        let name = Uuid::new_v4();
        Self { name, text: name.to_string() }
    }

    /// What an index says, if it was compared with the whole table and all since then up to the place is in it.
    pub fn read(text: &str) -> Option<(Self, Place)> {
        let (name, place) = text.split_once(' ')?;
        let bookmark = Self { name: name.parse().ok()?, text: text.to_owned() };
        Some((bookmark, place.parse().ok()?))
    }

    /// The same index, further on.
    pub fn at(&self, place: &Place) -> Self {
        Self { name: self.name, text: format!("{} {place}", self.name) }
    }

    /// As the index keeps it.
    pub fn text(&self) -> &str {
        &self.text
    }
}
