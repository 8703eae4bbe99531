//! Everything that needs real stores, in one program.

mod import;
