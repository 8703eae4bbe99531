//! evidence-gateway: one GraphQL schema over PostgreSQL, Qdrant and Redis. The map, in reading order.

pub mod cli;

pub mod app;
pub mod http;

pub mod changes;

pub mod graphql;

pub mod cache;

pub mod model;
#[allow(missing_docs, unreachable_pub, reason = "written by diesel")]
#[rustfmt::skip]
pub mod schema;

pub mod store;

pub mod config;
pub mod error;
pub mod telemetry;
