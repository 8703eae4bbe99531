//! `doctor`: tries everything that the gateway needs and says what is missing, each in one line.

use std::sync::Arc;
use std::time::Instant;

use crate::cli::print;
use crate::config::{Config, EmbedderKind, Secret};
use crate::error::{Code, Error, Result};
use crate::model::parked;
use crate::store::db::Db;
use crate::store::db::migrations::pending;
use crate::store::embedder::{Embedder, MINILM};
use crate::store::postgres::find_binaries;
use crate::store::redis::Redis;
use crate::telemetry::Metrics;

/// Parked rows that are named.
const PARKED_SHOWN: u32 = 10;

/// Runs every check; fails if one did.
pub async fn run(config: &Config) -> Result<()> {
    let mut report = Report { failed: 0 };
    match config.database_url.as_ref().map(Secret::expose) {
        Some(url) => {
            report.line("PostgreSQL", ping(config, url).await)?;
            report.line("migrations", migrated(url).await)?;
            report.line("parked rows", parked_rows(config, url).await)?;
        }
        None => {
            let text =
                |found: std::path::PathBuf| format!("no --database-url; dev would use {}", found.display());
            report.line("PostgreSQL", find_binaries().map(text))?;
        }
    }
    report.line("Redis", redis(config).await)?;
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
                let setting = error.field().map(|field| format!("{field} ")).unwrap_or_default();
                print(&format!("FAIL  {what}: {setting}{error}{cause}\n"))
            }
        }
    }
}

/// The milliseconds since then, for people.
fn ms_since(begun: Instant) -> String {
    format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1_000.0)
}

async fn ping(config: &Config, url: &str) -> Result<String> {
    let db = Db::connect(url, &config.db_options()).await?;
    let begun = Instant::now();
    let version = db.version().await?;
    Ok(format!("{version}, first answer after {}", ms_since(begun)))
}

async fn migrated(url: &str) -> Result<String> {
    match pending(url).await?.len() {
        0 => Ok("all applied".to_owned()),
        waiting => Err(Error::new(Code::Conflict, format!("{waiting} wait; run evidence-gateway migrate"))),
    }
}

/// What the indexer gave up on.
async fn parked_rows(config: &Config, url: &str) -> Result<String> {
    let db = Db::connect(url, &config.db_options()).await?;
    let session = db.session();
    let model = match config.embedding.embedder {
        EmbedderKind::Off => return Ok("none, as nothing is embedded".to_owned()),
        EmbedderKind::Http => config.embedding.required_model()?,
        EmbedderKind::Minilm => MINILM,
    };
    let (count, _) = parked::waiting(&session, model, 0).await?;
    if count == 0 {
        return Ok("none".to_owned());
    }
    let lines = parked::list(&session, model, PARKED_SHOWN).await?;
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("\n      {} ({} attempts): {}", line.id, line.attempts, line.reason))
        .collect();
    let rows = if count == 1 { "row is" } else { "rows are" };
    let text = format!(
        "{count} {rows} not in the index, because {model} does not take the text; `reindex --parked` tries again{}",
        lines.concat()
    );
    Err(Error::new(Code::Conflict, text))
}

async fn redis(config: &Config) -> Result<String> {
    let Some(url) = &config.redis_url else {
        return Ok("no --redis-url; each process keeps what it knows to itself".to_owned());
    };
    let redis = Redis::new(url.expose())?;
    let begun = Instant::now();
    redis.ping().await.map_err(|error| {
        let cause = error.internal_text().unwrap_or_default();
        Error::new(Code::Unavailable, "does not answer; the gateway goes on without it").because(cause)
    })?;
    Ok(format!("first answer after {}", ms_since(begun)))
}

async fn embedder(config: &Config) -> Result<String> {
    // Only the model itself can say how it is: neither Redis nor a metric has a part in this.
    let embedder = Embedder::open(config, Redis::Off, Arc::new(Metrics::new()?)).await?;
    if !embedder.is_on() {
        return Ok("is switched off; searchEvidence answers UNAVAILABLE".to_owned());
    }
    let begun = Instant::now();
    let vector = embedder.embed_query("does it work?").await?;
    Ok(format!("{}, {} dimensions, {} for a question", embedder.model(), vector.len(), ms_since(begun)))
}
