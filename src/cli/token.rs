//! `token`: prints an access token.

use clap::Args;
use uuid::Uuid;

use crate::cli::print;
use crate::config::Config;
use crate::error::Result;
use crate::http::viewer::mint;
use crate::model::viewer::{Projects, Role, Viewer};

/// The options of `token`.
#[derive(Debug, Args)]
pub struct Token {
    /// What the bearer may do: viewer, analyst, agent or admin.
    #[arg(long, value_parser = read_role)]
    role: Role,
    /// The user whom it is for.
    #[arg(long)]
    user: Option<Uuid>,
    /// A project that the bearer may see; give it once per project. Without any, an admin sees all, others none.
    #[arg(long = "project")]
    projects: Vec<Uuid>,
    /// How long it is good, in seconds, 1 to 31536000.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    lifetime_s: u32,
}

impl Token {
    /// Prints a token.
    pub fn run(self, config: &Config) -> Result<()> {
        let all = self.projects.is_empty() && self.role == Role::Admin;
        let projects = if all { Projects::All } else { Projects::Only(self.projects.into()) };
        let viewer = Viewer { user_id: self.user, role: self.role, projects };
        let token = mint(config.required_token_secret()?, &viewer, self.lifetime_s)?;
        print(&format!("{token}\n"))
    }
}

fn read_role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "allowed is one of viewer, analyst, agent, admin".to_owned())
}
