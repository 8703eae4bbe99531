//! What follows the data.

use crate::app::App;

pub mod indexer;
pub mod sealer;

/// Runs all that follows the data, until it is dropped.
pub async fn run(app: App) {
    tokio::join!(indexer::run(app.clone()), sealer::run(app));
}
