//! Outside systems: bytes, keys, vectors, no entities.

pub mod embedder;
pub mod vectors;
