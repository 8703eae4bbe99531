//! `keys`: makes, lists and withdraws API keys.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{Args, Subcommand};

use crate::cli::token::Bearer;
use crate::cli::{print, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::api_key::{Listed, create, list, revoke, unknown_projects};
use crate::model::viewer::{Grant, Holder, MAX_PROJECTS, Role, standing};
use crate::store::db::Db;

/// Characters of a key's name at most, as the database has it.
const MAX_NAME: usize = 200;

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key and print it, for the only time.
    Create(Create),
    /// Print all keys as lines with tabs: prefix, name, role, holder, and when they expire, were used, were revoked.
    List,
    /// Withdraw a key. Gateways follow within EVIDENCE_GATEWAY_IDENTITY_CACHE_MS.
    Revoke {
        /// The key's first 12 characters, or its id.
        prefix_or_id: String,
    },
}

/// The options of `keys create`.
#[derive(Debug, Args)]
pub struct Create {
    /// What the key is for.
    #[arg(long, value_parser = read_name)]
    name: String,
    #[command(flatten)]
    bearer: Bearer,
    /// When the key stops working, in seconds from now, 1 to 315360000; never if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=315_360_000))]
    expires_in_s: Option<u32>,
}

impl Keys {
    /// Does it.
    pub async fn run(self, config: &Config) -> Result<()> {
        let db = Db::connect(config.required_database_url()?, &config.db_options()).await?;
        match self {
            Self::Create(options) => options.run(&db).await,
            Self::List => {
                let mut text = "prefix\tname\trole\tholder\texpires\tlast used\trevoked\n".to_owned();
                for key in list(&db).await? {
                    line(&key, &mut text).map_err(Error::internal)?;
                }
                print(&text)
            }
            Self::Revoke { prefix_or_id } => {
                let prefix = revoke(&db, &prefix_or_id).await?;
                say(&format!("{prefix} is revoked"));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, db: &Db) -> Result<()> {
        let grant = self.bearer.grant();
        check(db, &grant).await?;
        let expires_at = self.expires_in_s.map(|seconds| Utc::now() + TimeDelta::seconds(seconds.into()));
        let key = create(db, &self.name, &grant, expires_at).await?;
        if grant.projects.is_none() && grant.role != Role::Admin && !matches!(grant.holder, Holder::User(_)) {
            say("the key names no project and no user, so it sees no project's rows");
        }
        say("this is the only time that the key is shown");
        print(&format!("{key}\n"))
    }
}

/// A key for somebody or something that is not there would be refused for as long as it lives.
async fn check(db: &Db, grant: &Grant) -> Result<()> {
    let session = db.session();
    if standing(&session, grant.holder).await?.is_none() {
        let (option, id) = match grant.holder {
            Holder::Agent(id) => ("--agent", id),
            Holder::User(id) => ("--user", id),
            Holder::Nobody => return Ok(()),
        };
        return Err(Error::bad_input(format!("{option} {id}"), "is not there, or deleted"));
    }
    let projects = grant.projects.as_deref().unwrap_or_default();
    if projects.len() > MAX_PROJECTS {
        return Err(Error::bad_input("--project", format!("allowed are {MAX_PROJECTS} projects at most")));
    }
    match unknown_projects(&session, projects).await?.first() {
        Some(id) => Err(Error::bad_input(format!("--project {id}"), "is not there, or deleted")),
        None => Ok(()),
    }
}

fn line(key: &Listed, text: &mut String) -> std::fmt::Result {
    // Names may hold anything, but must not draw on the terminal or add columns.
    let quiet =
        |name: &str| name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    let holder = match (&key.user, &key.agent) {
        (Some(user), _) => format!("user {}", quiet(user)),
        (None, Some(agent)) => format!("agent {}", quiet(agent)),
        (None, None) => "-".to_owned(),
    };
    let time = |time: Option<DateTime<Utc>>| {
        time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    writeln!(
        text,
        "{}\t{}\t{}\t{holder}\t{}\t{}\t{}",
        quiet(&key.prefix),
        quiet(&key.name),
        key.role,
        time(key.expires_at),
        time(key.last_used_at),
        time(key.revoked_at),
    )
}

fn read_name(text: &str) -> Result<String, String> {
    match text.chars().count() {
        1..=MAX_NAME => Ok(text.to_owned()),
        _ => Err(format!("allowed are 1 to {MAX_NAME} characters")),
    }
}
