//! evidence-gateway: one GraphQL schema over PostgreSQL, Qdrant and Redis. The map, in reading order.

pub mod cli;
pub mod error;
pub(crate) mod model;
#[allow(missing_docs, unreachable_pub, reason = "written by diesel")]
pub mod schema;
pub mod store;
