//! `serve`: for production, with the stores that the settings name.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::changes;
use crate::cli::say;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http;
use crate::http::viewer::Access;

/// Serves until SIGTERM or Ctrl-C; a second one ends it at once.
pub async fn run(config: Config) -> Result<()> {
    let secret = config.required_token_secret()?.clone();
    let url = config.required_database_url()?.to_owned();
    let (stop, at_once) = stop_signals()?;
    let listener = bind(config.listen).await?;
    let app = App::connect(config, &url, secret.expose().as_bytes(), Access::Tokens(secret.clone())).await?;
    say(&format!("serving on http://{}", listener.local_addr().map_err(Error::internal)?));
    let following = tokio::spawn(changes::run(app.clone()));
    let served = tokio::select! {
        served = http::serve(app, listener, stop) => served,
        () = at_once => Ok(()),
    };
    following.abort();
    served
}

/// Takes the address, before anything that takes long.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::bad_input(format!("--listen {address}"), format!("cannot be listened on: {error}"))
    })
}

/// Resolve at the first SIGTERM or SIGINT, and at the second.
pub fn stop_signals() -> Result<(impl Future<Output = ()> + Send, impl Future<Output = ()> + Send)> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count.send_modify(|count| *count += 1);
        }
    });
    let at = |least: u32| {
        let mut counted = counted.clone();
        async move {
            // The counting ends with the process only.
            if counted.wait_for(|count| *count >= least).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    Ok((at(1), at(2)))
}
