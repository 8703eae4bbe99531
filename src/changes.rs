//! What follows the data: the tail of the change log, and its consumers.

pub mod follower;
pub mod tail;

pub mod indexer;
