//! Outside systems: bytes, keys and vectors, no entities.

pub mod postgres;
