//! What follows the data.

pub mod indexer;
