//! `serve`: for production, with the stores that the settings name.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::changes::indexer;
use crate::cli::say;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http;
use crate::http::viewer::Access;

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(config: Config) -> Result<()> {
    let secret = config.required_token_secret()?.clone();
    let url = config.required_database_url()?.to_owned();
    let stop = stop_signal()?;
    let listener = bind(config.listen).await?;
    let app = App::connect(config, &url, secret.expose().as_bytes(), Access::Tokens(secret.clone())).await?;
    say(&format!("serving on http://{}", listener.local_addr().map_err(Error::internal)?));
    let indexing = tokio::spawn(indexer::run(app.clone()));
    let served = http::serve(app, listener, stop).await;
    indexing.abort();
    served
}

/// Takes the address, before anything that takes long.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::bad_input(format!("--listen {address}"), format!("cannot be listened on: {error}"))
    })
}

/// Resolves at the first SIGTERM or SIGINT.
pub fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
