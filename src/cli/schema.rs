//! `schema`: prints the GraphQL schema, or compares it with schema.graphql.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{print, say};
use crate::error::{Error, Result};
use crate::graphql::Graph;

/// The options of `schema`.
#[derive(Debug, Args)]
pub struct Schema {
    /// Compare with the file instead of printing; fails if they differ.
    #[arg(long)]
    check: bool,
    /// The file to compare with.
    #[arg(long, default_value = "schema.graphql")]
    file: PathBuf,
}

impl Schema {
    /// Prints or compares.
    pub fn run(self) -> Result<()> {
        let schema = Graph::sdl();
        if !self.check {
            return print(schema);
        }
        let name = self.file.display();
        let committed = std::fs::read_to_string(&self.file)
            .map_err(|error| Error::bad_input("--file", format!("{name} cannot be read: {error}")))?;
        if committed == schema {
            say(&format!("{name} is true"));
            return Ok(());
        }
        let differs = committed.lines().zip(schema.lines()).position(|(old, new)| old != new);
        let line = differs.unwrap_or_else(|| committed.lines().count().min(schema.lines().count())) + 1;
        let text = format!(
            "{name} differs from the program from line {line} on; write it anew: evidence-gateway schema > {name}"
        );
        Err(Error::new(crate::error::Code::Conflict, text))
    }
}
