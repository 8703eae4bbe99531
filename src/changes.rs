//! What follows the data: the tail of the change log, and its consumers.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::sleep;

use crate::app::App;
use crate::telemetry::Metrics;

pub mod batch;
pub mod follower;
mod purges;
pub mod tail;
mod wakeup;

pub mod indexer;
pub mod recorder;
pub mod sealer;

/// After a part has panicked.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs all that follows the data, until it is dropped.
pub async fn run(app: App) {
    let tail = app.changes.clone();
    let metrics = app.metrics.clone();
    tokio::join!(
        unbroken(&metrics, "tail", || tail.clone().run()),
        unbroken(&metrics, "purges", || purges::run(app.clone())),
        unbroken(&metrics, "indexer", || indexer::run(app.clone())),
        unbroken(&metrics, "recorder", || recorder::run(app.clone())),
        unbroken(&metrics, "sealer", || sealer::run(app.clone()))
    );
}

/// Runs a part that has no end. If it panics it begins anew, as it would in a new process, and the others go on.
async fn unbroken<F: Future<Output = ()>>(metrics: &Metrics, part: &'static str, begin: impl Fn() -> F) {
    let panics = metrics.panics(part);
    while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
        panics.inc();
        tracing::error!(part, "a part of the gateway panicked; it begins anew");
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_panics_begins_anew() {
        let (metrics, begun) = (Metrics::new().unwrap(), AtomicU32::new(0));
        let part = || async {
            assert!(begun.fetch_add(1, Ordering::Relaxed) == 2, "as it should");
        };
        unbroken(&metrics, "tail", part).await;
        assert_eq!(begun.into_inner(), 3);
        assert!(metrics.text().unwrap().contains("evidence_gateway_panics_total{part=\"tail\"} 2"));
    }
}
