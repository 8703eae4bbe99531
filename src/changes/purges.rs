//! Purges: an operator has every process forget the answers that it keeps, by a message over Redis.

use std::time::Duration;

use crate::app::App;
use crate::store::redis::PURGES;

/// After a failure, before the messages are listened to again.
const RETRY: Duration = Duration::from_secs(1);

/// Hears messages, until it is dropped.
pub(super) async fn run(app: App) {
    let shared = app.cache.shared().clone();
    while shared.is_on() {
        // Also when it begins to listen: what was sent while nobody heard is not known.
        drop(shared.listen(PURGES, || app.cache.clear()).await);
        tokio::time::sleep(RETRY).await;
    }
}
