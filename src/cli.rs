//! The commands, one file each. stdout is data, stderr is talk.

use std::io::Write;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::telemetry;

pub mod dev;
pub mod serve;

pub mod cache;
pub mod changes;
pub mod check;
pub mod import;
pub mod migrate;
pub mod reindex;

pub mod doctor;
pub mod documents;
pub mod keys;
pub mod schema;
pub mod token;

/// One GraphQL gateway over PostgreSQL, Qdrant and Redis for a platform of AI agents.
#[derive(Debug, Parser)]
#[command(name = "evidence-gateway", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve with a private PostgreSQL and the sample data, for everyone on this machine, as administrator.
    Dev(dev::Dev),
    /// Serve with the stores that the settings name.
    Serve,
    /// Bring the database to the present schema.
    Migrate(migrate::Migrate),
    /// Import rows from a JSON Lines file, the sample, or made-up rows.
    Import(import::command::Import),
    /// Make a new vector index beside the present one, which serves meanwhile, and put it in its place.
    Reindex(reindex::Reindex),
    /// Print what was written to the database, by whomever, one JSON object a line.
    Changes(changes::Changes),
    /// Hold the response cache against the database's history, with servers of its own.
    CheckConsistency(check::Check),
    /// Look at the response cache that processes share, or have it forgotten.
    #[command(subcommand)]
    Cache(cache::Cache),
    /// Register documents that clients run by their hashes.
    #[command(subcommand)]
    Documents(documents::Documents),
    /// Print the GraphQL schema.
    Schema(schema::Schema),
    /// Say what works and what is missing.
    Doctor,
    /// Print an access token.
    Token(token::Token),
    /// Make, list and withdraw API keys.
    #[command(subcommand)]
    Keys(keys::Keys),
}

/// Runs the command that the process was started with.
pub async fn run(cli: Cli) -> Result<()> {
    telemetry::start(&cli.config.log, cli.config.log_format)?;
    match cli.command {
        Command::Dev(dev) => dev.run(cli.config).await,
        Command::Serve => serve::run(cli.config).await,
        Command::Migrate(migrate) => migrate.run(&cli.config).await,
        Command::Import(import) => import.run(&cli.config).await,
        Command::Reindex(reindex) => reindex.run(&cli.config).await,
        Command::Changes(changes) => changes.run(&cli.config).await,
        Command::CheckConsistency(check) => check.run(&cli.config).await,
        Command::Cache(cache) => cache.run(&cli.config).await,
        Command::Documents(documents) => documents.run(&cli.config).await,
        Command::Schema(schema) => schema.run(),
        Command::Doctor => doctor::run(&cli.config).await,
        Command::Token(token) => token.run(&cli.config),
        Command::Keys(keys) => keys.run(&cli.config).await,
    }
}

/// What clap found wrong with one setting, in one line: the setting, the value, what is allowed.
pub fn describe(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::ValueValidation {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let setting = text(ContextKind::InvalidArg)?;
    let flag = setting.split_whitespace().next()?.to_owned();
    // Settings have a variable; the options of one command have none.
    let settings = Config::augment_args(clap::Command::new("settings"));
    let same = |arg: &&clap::Arg| arg.get_long().is_some_and(|name| flag.strip_prefix("--") == Some(name));
    let variable = settings.get_arguments().find(same).and_then(clap::Arg::get_env);
    let variable = variable.map(|name| format!(" ({})", name.display())).unwrap_or_default();
    let value = if ["secret", "url", "key"].iter().any(|private| flag.contains(private)) {
        "what it is".to_owned()
    } else {
        format!("{:?}", text(ContextKind::InvalidValue)?)
    };
    let allowed = std::error::Error::source(error)?.to_string();
    Some(format!("{flag}{variable} cannot be {value}: {allowed}"))
}

/// Prints data.
fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::internal)
}

/// Says something to the person at the terminal.
pub fn say(text: &str) {
    if let Err(error) = writeln!(std::io::stderr(), "{text}") {
        tracing::debug!(%error, "stderr is closed");
    }
}
