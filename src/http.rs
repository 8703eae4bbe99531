//! The whole route table and the layers around it, on one screen.

use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use crate::app::App;
use crate::error::{Error, Result};

pub mod console;
pub mod graphql;
pub mod health;
pub mod host;
pub mod viewer;

mod body;

/// The routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/", get(console::index))
        .route("/graphiql", get(console::graphiql))
        .route("/assets/{*path}", get(console::asset))
        .route("/schema.graphql", get(console::schema))
        .route("/graphql", get(graphql::get).post(graphql::post))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .layer(from_fn_with_state(app.clone(), host::guard))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .with_state(app)
}

/// Serves until `stop` resolves; what runs then may finish within the grace period.
pub async fn serve(
    app: App,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let grace = Duration::from_millis(app.config.grace_ms.into());
    let (told, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, router(app)).with_graceful_shutdown(async move {
        stop.await;
        drop(told);
    });
    let deadline = async move {
        // The sender is never used, only dropped: this resolves when the stop begins.
        if stopping.await.is_err() {
            tokio::time::sleep(grace).await;
        }
    };
    tokio::select! {
        served = serving => served.map_err(Error::internal),
        () = deadline => Ok(()),
    }
}
