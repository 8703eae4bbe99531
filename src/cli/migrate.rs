//! `migrate`: brings the database to the present schema, or back.

use clap::Args;

use crate::cli::say;
use crate::config::Config;
use crate::error::Result;
use crate::store::db::migrations::{migrate, revert_all};

/// The options of `migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Undo every migration: drops all tables with everything in them.
    #[arg(long)]
    revert_all_and_lose_all_data: bool,
}

impl Migrate {
    /// Runs what has not run yet.
    pub async fn run(self, config: &Config) -> Result<()> {
        let url = config.required_database_url()?;
        let (done, what) = if self.revert_all_and_lose_all_data {
            (revert_all(url).await?, "reverted")
        } else {
            (migrate(url).await?, "applied")
        };
        for name in &done {
            say(&format!("{what} {name}"));
        }
        if done.is_empty() {
            say("the database is up to date");
        }
        Ok(())
    }
}
