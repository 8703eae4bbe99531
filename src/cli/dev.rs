//! `dev`: everything private and in one folder, so that one command shows it all.

use std::net::SocketAddr;

use clap::Args;
use serde_json::json;

use crate::app::App;
use crate::changes;
use crate::cli::import::report::Reporter;
use crate::cli::import::{Options, Source, run as import};
use crate::cli::{say, serve};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http;
use crate::http::viewer::Access;
use crate::store::db::Db;
use crate::store::db::migrations::migrate;
use crate::store::postgres::{PostgresOptions, PrivatePostgres};

/// Cursors of `dev` are no secret from the person who runs it, and stay good when it is started again.
pub(super) const DEV_SECRET: &[u8] = b"evidence-gateway dev";

/// The options of `dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// Serve everyone as administrator also on an address that other machines can reach.
    #[arg(long)]
    allow_everyone: bool,
    /// Start with an empty database.
    #[arg(long)]
    no_sample: bool,
}

impl Dev {
    /// Starts everything, serves, and stops everything.
    pub async fn run(self, config: Config) -> Result<()> {
        if !config.listen.ip().is_loopback() && !self.allow_everyone {
            let text = "is not on loopback, and dev serves everyone as administrator; say --allow-everyone if you mean it";
            return Err(Error::bad_input(format!("--listen {}", config.listen), text));
        }
        // Signals are heard from here on: a stop during the start must stop PostgreSQL too.
        let (stop, _) = serve::stop_signals()?;
        let postgres = PrivatePostgres::start(PostgresOptions::kept(&config.data_dir)).await?;
        let served = tokio::select! {
            served = self.serve(config, &postgres) => served,
            () = stop => Ok(()),
        };
        say("stopping");
        let stopped = postgres.stop().await;
        served.and(stopped)
    }

    async fn serve(&self, config: Config, postgres: &PrivatePostgres) -> Result<()> {
        let listener = serve::bind(config.listen).await?;
        let url = postgres.database_url();
        migrate(&url).await?;
        if !self.no_sample {
            let db = Db::connect(&url, &config.db_options()).await?;
            let mut reporter = Reporter::new();
            let mut conn = db.connection().await?;
            let summary =
                import(&mut conn, Source::Sample, Options::default(), |now| reporter.show(now)).await?;
            if !summary.already_done {
                reporter.finish(&summary);
            }
        }
        let app = App::connect(config, &url, DEV_SECRET, Access::Everyone).await?;
        let address = listener.local_addr().map_err(Error::internal)?;
        announce(&app.config, address, &url)?;
        let following = tokio::spawn(changes::run(app.clone()));
        let served = http::serve(app, listener, std::future::pending()).await;
        following.abort();
        served
    }
}

/// Tells people and tools where it is.
fn announce(config: &Config, address: SocketAddr, database_url: &str) -> Result<()> {
    let url = format!("http://{address}");
    let text = json!({"url": url, "database_url": database_url}).to_string();
    // Written whole or not at all: a tool that waits for the file must not read half of it.
    let path = config.data_dir.join("dev.json");
    let draft = config.data_dir.join("dev.json.tmp");
    std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &path)).map_err(Error::internal)?;
    say("");
    say("  !  dev serves EVERYONE who can reach this address AS ADMINISTRATOR. Never use it in production.");
    say("");
    say(&format!("  GraphiQL   {url}/graphiql"));
    say(&format!("  GraphQL    {url}/graphql"));
    say(&format!("  console    {url}/"));
    say("");
    Ok(())
}
