//! `doctor`: tries everything that the gateway needs and says what is missing, each in one line.

use std::time::Instant;

use crate::cli::print;
use crate::config::{Config, EmbedderKind, Secret};
use crate::error::{Code, Error, Result};
use crate::store::db::Db;
use crate::store::db::migrations::pending;
use crate::store::embedder::Embedder;
use crate::store::postgres::find_binaries;

/// Runs every check; fails if one did.
pub async fn run(config: &Config) -> Result<()> {
    let mut report = Report { failed: 0 };
    match config.database_url.as_ref().map(Secret::expose) {
        Some(url) => {
            report.line("PostgreSQL", ping(config, url).await)?;
            report.line("migrations", migrated(url).await)?;
        }
        None => {
            let text =
                |found: std::path::PathBuf| format!("no --database-url; dev would use {}", found.display());
            report.line("PostgreSQL", find_binaries().map(text))?;
        }
    }
    report.line("embedder", embedder(config).await)?;
    let secret = match &config.token_secret {
        Some(_) => "is set".to_owned(),
        None => "is not set; serve needs it, dev does not".to_owned(),
    };
    report.line("token secret", Ok(secret))?;
    match report.failed {
        0 => Ok(()),
        failed => Err(Error::new(Code::Unavailable, format!("{failed} of the checks failed"))),
    }
}

struct Report {
    failed: u32,
}

impl Report {
    fn line(&mut self, what: &str, found: Result<String>) -> Result<()> {
        match found {
            Ok(text) => print(&format!("ok    {what}: {text}\n")),
            Err(error) => {
                self.failed += 1;
                // The operator's own terminal may read the internal half.
                let cause = error.internal_text().map(|text| format!(" ({text})")).unwrap_or_default();
                print(&format!("FAIL  {what}: {error}{cause}\n"))
            }
        }
    }
}

async fn ping(config: &Config, url: &str) -> Result<String> {
    let db = Db::connect(url, &config.db_options()).await?;
    let begun = Instant::now();
    let version = db.version().await?;
    Ok(format!("{version}, first answer after {:.1} ms", begun.elapsed().as_secs_f64() * 1_000.0))
}

async fn migrated(url: &str) -> Result<String> {
    match pending(url).await?.len() {
        0 => Ok("all applied".to_owned()),
        waiting => Err(Error::new(Code::Conflict, format!("{waiting} wait; run evidence-gateway migrate"))),
    }
}

async fn embedder(config: &Config) -> Result<String> {
    if config.embedder == EmbedderKind::Off {
        return Ok("is switched off; searchEvidence answers UNAVAILABLE".to_owned());
    }
    let embedder = Embedder::minilm(&config.model_dir())?;
    let begun = Instant::now();
    let vector = embedder.embed_query("does it work?").await?;
    let took_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    Ok(format!("{}, {} dimensions, {took_ms:.1} ms for a question", embedder.model(), vector.len()))
}
