//! `token`: prints an access token.

use clap::Args;
use uuid::Uuid;

use crate::cli::print;
use crate::config::Config;
use crate::error::Result;
use crate::http::viewer::token::{TokenKeys, mint};
use crate::model::viewer::{Grant, Holder, Role};

/// The options of `token`.
#[derive(Debug, Args)]
pub struct Token {
    #[command(flatten)]
    bearer: Bearer,
    /// How long it is good, in seconds, 1 to 31536000.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    lifetime_s: u32,
}

/// What tokens and keys say of their bearer.
#[derive(Debug, Args)]
pub(super) struct Bearer {
    /// What the bearer may do at most: viewer, analyst, agent or admin. A user never may more than the user's own
    /// role allows.
    #[arg(long, value_parser = read_role)]
    role: Role,
    /// The user whom it speaks for.
    #[arg(long)]
    user: Option<Uuid>,
    /// The agent that it speaks for.
    #[arg(long, conflicts_with = "user")]
    agent: Option<Uuid>,
    /// A project that the bearer may see; give it once per project. Without any, an admin sees all, a user those
    /// that the user is a member of at the time, and anybody else none.
    #[arg(long = "project")]
    projects: Vec<Uuid>,
}

impl Bearer {
    pub(super) fn grant(self) -> Grant {
        let holder = match (self.user, self.agent) {
            (Some(id), _) => Holder::User(id),
            (None, Some(id)) => Holder::Agent(id),
            (None, None) => Holder::Nobody,
        };
        Grant { holder, role: self.role, projects: Some(self.projects).filter(|ids| !ids.is_empty()) }
    }
}

impl Token {
    /// Prints a token.
    pub fn run(self, config: &Config) -> Result<()> {
        let keys = TokenKeys::new(config.required_token_secret()?, None);
        let token = mint(&keys, &self.bearer.grant(), self.lifetime_s)?;
        print(&format!("{token}\n"))
    }
}

fn read_role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "allowed is one of viewer, analyst, agent, admin".to_owned())
}
