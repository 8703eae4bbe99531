//! The command line of `import`.

use std::path::PathBuf;

use clap::Args;

use super::generate::Spec;
use super::report::Reporter;
use super::{Options, Source, run};
use crate::config::Config;
use crate::error::Result;
use crate::store::db::Db;

/// The options of `import`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["file", "sample", "generate"]))]
pub struct Import {
    /// A file of JSON Lines; docs/import-format.md describes it.
    file: Option<PathBuf>,
    /// The sample: the advisories of the RustSec database.
    #[arg(long)]
    sample: bool,
    /// Made-up rows, such as tasks=20000,evidence=5: the same for the same numbers and seed=N.
    #[arg(long, value_name = "SPEC")]
    generate: Option<Spec>,
    /// Leave wrong lines out and list them at the end.
    #[arg(long)]
    keep_going: bool,
    /// Go through a source again that has been imported before.
    #[arg(long)]
    again: bool,
}

impl Import {
    /// Imports.
    pub async fn run(self, config: &Config) -> Result<()> {
        let source = match (self.file, self.generate) {
            (Some(path), _) => Source::File(path),
            (None, Some(spec)) => Source::Generate(spec),
            (None, None) => Source::Sample,
        };
        let options = Options { keep_going: self.keep_going, again: self.again };
        let db = Db::connect(config.required_database_url()?, &config.db_options()).await?;
        let mut conn = db.connection().await?;
        let mut reporter = Reporter::new();
        let summary = run(&mut conn, source, options, |now| reporter.show(now)).await?;
        reporter.finish(&summary);
        Ok(())
    }
}
