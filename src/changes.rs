//! What follows the data: the tail of the change log, and its consumers.

use crate::app::App;

pub mod follower;
mod purges;
pub mod tail;
mod wakeup;

pub mod indexer;
pub mod recorder;
pub mod sealer;

/// Runs all that follows the data, until it is dropped.
pub async fn run(app: App) {
    let tail = app.changes.clone();
    tokio::join!(
        tail.run(),
        purges::run(app.clone()),
        indexer::run(app.clone()),
        recorder::run(app.clone()),
        sealer::run(app)
    );
}
