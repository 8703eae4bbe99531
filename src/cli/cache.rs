//! `cache`: what processes share of the response cache, and how to have everyone forget it.

use clap::Subcommand;

use crate::cli::{print, say};
use crate::config::{Config, Secret};
use crate::error::{Error, Result};
use crate::model::tag::Tag;
use crate::store::redis::{PURGES, Redis};

/// What can be done with the cache.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Print what stands in Redis, as lines with tabs: kind, how many, bytes. What each process has in memory is in its
    /// metrics.
    Stats,
    /// Have every process forget answers. It is for changes that left nothing in the change log, as when rows were
    /// loaded with triggers switched off; others are noticed.
    Purge {
        /// Forget those that show this row, as in `Task:ID`, or list rows of this type, as in `Task`.
        #[arg(long, required_unless_present = "all")]
        tag: Vec<Tag>,
        /// Forget all of them, those in Redis, too.
        #[arg(long, conflicts_with = "tag")]
        all: bool,
    },
}

impl Cache {
    /// Does it.
    pub async fn run(self, config: &Config) -> Result<()> {
        let url = config.redis_url.as_ref().map(Secret::expose);
        let missing = || {
            Error::bad_input("--redis-url (EVIDENCE_GATEWAY_REDIS_URL)", "is missing; this command needs it")
        };
        let redis = Redis::new(url.ok_or_else(missing)?)?;
        match self {
            Self::Stats => {
                let mut text = "kind\tentries\tbytes\n".to_owned();
                for kind in ["answer", "document"] {
                    let (count, bytes) = redis.measure(&format!("{kind}:")).await?;
                    text.push_str(&format!("{kind}\t{count}\t{bytes}\n"));
                }
                print(&text)
            }
            Self::Purge { all: true, .. } => {
                redis.publish(PURGES, "").await?;
                let removed = redis.clear("answer:").await?;
                say(&format!("{removed} answers removed from Redis; the processes forget theirs"));
                Ok(())
            }
            Self::Purge { tag, .. } => {
                for tag in tag {
                    redis.publish(PURGES, &tag.to_string()).await?;
                    say(&format!("the processes forget what has the tag {tag}"));
                }
                Ok(())
            }
        }
    }
}
