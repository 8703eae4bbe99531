//! Outside systems: bytes, keys, rows and vectors, no entities.

mod gate;

pub mod db;
pub mod postgres;
pub mod redis;

pub mod embedder;
pub mod vectors;
