//! The sealer: puts the entries of the audit log into their chain, soon after they were written. One process at a time
//! does it; the database sees to that.

use std::time::Duration;

use crate::app::App;
use crate::error::Result;
use crate::model::audit::seal;

/// Entries sealed in one transaction.
const BATCH: u32 = 500;
/// Between looks at what is new: an entry can be changed unnoticed for no longer.
const PAUSE: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub async fn run(app: App) {
    loop {
        let pause = match pass(&app).await {
            Ok(()) => PAUSE,
            Err(error) => {
                tracing::warn!(?error, "the audit log was not sealed; it is tried again in a moment");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Seals until there is nothing left.
async fn pass(app: &App) -> Result<()> {
    let session = app.db.session();
    while seal(&session, BATCH).await? >= i64::from(BATCH) {}
    Ok(())
}
