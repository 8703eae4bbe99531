//! evidence-gateway: one GraphQL schema over PostgreSQL, Qdrant and Redis. The map, in reading order.

pub mod store;

pub mod error;
