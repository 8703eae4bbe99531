//! The whole route table and the layers around it, on one screen.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::error::Result;

pub mod console;
pub mod graphql;
pub mod health;
pub mod host;
pub mod observe;
pub mod server;
pub mod viewer;

mod body;
mod cached;
mod consistency;
mod guard;
mod persisted;

/// The routes, in their layers.
pub fn router(app: App) -> Router {
    let routes = Router::new()
        .route("/", get(console::index))
        .route("/graphiql", get(console::graphiql))
        .route("/assets/{*path}", get(console::asset))
        .route("/schema.graphql", get(console::schema))
        .route("/graphql", get(graphql::get).post(graphql::post))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/metrics/json", get(health::metrics_json));
    within_layers(routes, app)
}

/// Puts the layers around routes; the first one sees a request first.
pub fn within_layers(routes: Router<App>, app: App) -> Router {
    let observe = from_fn_with_state(app.clone(), observe::observe);
    // Everything below it may panic and is still an answer for the layers above.
    let panics = CatchPanicLayer::custom(guard::panicked);
    let host = from_fn_with_state(app.clone(), host::guard);
    // One tuple is one service: layers added one by one are each put into a box, which every request would copy.
    let inner = (panics, guard::compression(), host);
    let routes = match guard::cors(&app.config.cors_origins) {
        Some(cors) => routes.layer((observe, cors, inner)),
        None => routes.layer((observe, inner)),
    };
    routes.with_state(app)
}

/// Serves until `stop` resolves; what runs then may finish within the grace period.
pub async fn serve(
    app: App,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let routes = router(app.clone());
    server::serve(&app, routes, listener, stop).await
}
