//! Everything that needs real stores, in one program.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on has failed")]

mod harness;
mod leaks;
mod process;
#[cfg(feature = "edge")]
mod qdrant;
mod redis;

mod database;
mod import;
#[cfg(feature = "edge")]
mod indexer;

mod audit;
mod changes;
mod recorder;

mod cases;
mod embedder;
mod http;
mod limits;
mod paging;
mod permissions;
mod persisted;
mod search;
mod sockets;

mod cache;
mod collecting;
mod consistency;
mod idempotency;
mod refusals;
mod writes;

mod keys;
mod tokens;

mod faults;
mod logs;
mod manners;
mod metrics;

mod live;
mod mutations;

#[cfg(feature = "edge")]
mod vectors;

mod dev;
mod settings;
