//! Purges: an operator has every process forget answers that it keeps, by a message over Redis.

use std::time::Duration;

use crate::app::App;
use crate::store::redis::PURGES;

/// After a failure, before the messages are listened to again.
const RETRY: Duration = Duration::from_secs(1);

/// Hears messages, until it is dropped.
pub(super) async fn run(app: App) {
    let shared = app.cache.shared().clone();
    while shared.is_on() {
        // Everything, if no tag is named: also when it begins to listen, as what was sent before is not known.
        drop(shared.listen(PURGES, |text| app.cache.purge(text.parse().ok())).await);
        tokio::time::sleep(RETRY).await;
    }
}
