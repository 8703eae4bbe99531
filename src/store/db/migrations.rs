//! The migrations, carried inside the program.

use diesel::migration::MigrationVersion;
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::error::{Error, Result};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Applies what has not been applied yet and names it.
pub async fn migrate(url: &str) -> Result<Vec<String>> {
    harnessed(url, |harness| names(harness.run_pending_migrations(MIGRATIONS)?)).await
}

/// Reverts everything and names it.
pub async fn revert_all(url: &str) -> Result<Vec<String>> {
    harnessed(url, |harness| names(harness.revert_all_migrations(MIGRATIONS)?)).await
}

/// The migrations that wait to be applied.
pub async fn pending(url: &str) -> Result<Vec<String>> {
    harnessed(url, |harness| {
        let pending = harness.pending_migrations(MIGRATIONS)?;
        Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
    })
    .await
}

fn names(versions: Vec<MigrationVersion<'_>>) -> Result<Vec<String>, Failure> {
    Ok(versions.iter().map(ToString::to_string).collect())
}

/// diesel's harness blocks, so it works on a thread of its own and on a connection without a statement timeout.
async fn harnessed(
    url: &str,
    work: impl FnOnce(&mut AsyncMigrationHarness<AsyncPgConnection>) -> Result<Vec<String>, Failure>
    + Send
    + 'static,
) -> Result<Vec<String>> {
    let conn =
        AsyncPgConnection::establish(url).await.map_err(|error| Error::unavailable("PostgreSQL", error))?;
    let work = tokio::task::spawn_blocking(move || work(&mut AsyncMigrationHarness::new(conn)));
    work.await.map_err(Error::internal)?.map_err(Error::internal)
}
