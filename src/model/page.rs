//! A bounded list: how many rows, in which order, from where on.

use crate::model::cursor::Cursor;
use crate::model::entity::OrderBy;
use crate::model::filter::Filter;

/// Rows per page unless the client says otherwise.
pub const DEFAULT_PAGE_SIZE: u32 = 25;

/// What a client asks of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Rows at most.
    pub size: u32,
    /// Whether to read one row more, which tells whether there is more.
    pub peek: bool,
    /// Whether the page is the end of the list (`last`) rather than its beginning (`first`).
    pub backward: bool,
    /// Only what comes after this (`after`).
    pub after: Option<Cursor>,
    /// Only what comes before this (`before`).
    pub before: Option<Cursor>,
    /// The order, without the id that settles ties.
    pub order: Vec<OrderBy>,
    /// The condition.
    pub filter: Option<Filter>,
}

impl Page {
    /// The first rows in an order.
    pub const fn first(size: u32, order: Vec<OrderBy>) -> Self {
        Self { size, peek: false, backward: false, after: None, before: None, order, filter: None }
    }

    /// Rows to read.
    pub fn limit(&self) -> u32 {
        self.size + u32::from(self.peek)
    }
}
