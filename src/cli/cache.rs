//! `cache`: what processes share of the response cache, and how to have everyone forget it.

use clap::Subcommand;

use crate::cli::{print, say};
use crate::config::{Config, Secret};
use crate::error::{Error, Result};
use crate::store::redis::{PURGES, Redis};

/// What can be done with the cache.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Print what stands in Redis, as lines with tabs: kind, how many, bytes. What each process has in memory is in its
    /// metrics.
    Stats,
    /// Have every process forget its answers, and Redis too. Nobody needs it: answers that do not hold are not served.
    Purge {
        /// Forget all of them.
        #[arg(long, required = true)]
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
            Self::Purge { .. } => {
                let removed = redis.clear("answer:").await?;
                redis.publish(PURGES).await?;
                say(&format!(
                    "{removed} answers removed from Redis; the processes that it reaches forget theirs"
                ));
                Ok(())
            }
        }
    }
}
