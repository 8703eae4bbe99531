//! The bookmark: what an index says of how far it has come. No two indexes say the same, also if they have come equally
//! far, so that the place of one is never taken for that of another.

use uuid::Uuid;

use crate::model::change::Place;

/// What stands before the place while the comparison with the table is not done.
const UNFINISHED: &str = "? ";

/// The text that an index keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// The name of the index, which it has from its first comparison with the table on.
    name: Uuid,
    text: String,
}

/// What a bookmark says.
#[derive(Debug, Clone)]
pub struct Found {
    /// The bookmark.
    pub bookmark: Bookmark,
    /// All that was changed up to here is in the index, or was when the comparison began.
    pub place: Place,
    /// Whether the index was compared with the whole table. One that was not may have rows that were written at any
    /// time since the place: what was changed after it must be looked at in any case.
    pub is_finished: bool,
}

impl Bookmark {
    /// Of an index whose comparison with the whole table begins at a place.
    pub fn unfinished(place: &Place) -> Self {
        let name = Uuid::new_v4();
        Self { name, text: format!("{name} {UNFINISHED}{place}") }
    }

    /// What an index says, if it says anything.
    pub fn read(text: &str) -> Option<Found> {
        let (name, rest) = text.split_once(' ')?;
        let bookmark = Self { name: name.parse().ok()?, text: text.to_owned() };
        let unfinished = rest.strip_prefix(UNFINISHED);
        let place = unfinished.unwrap_or(rest).parse().ok()?;
        Some(Found { bookmark, place, is_finished: unfinished.is_none() })
    }

    /// The same index, compared with the whole table and up to a place.
    pub fn at(&self, place: &Place) -> Self {
        Self { name: self.name, text: format!("{} {place}", self.name) }
    }

    /// As the index keeps it.
    pub fn text(&self) -> &str {
        &self.text
    }
}
