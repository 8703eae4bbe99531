//! Redis: messages between processes. It is never needed: without it, or while it is down, everything is answered as
//! before, and no request waits for it longer than half a second.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncTypedCommands, Client, RedisError};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// For connecting and for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Between attempts to connect again at most.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// What the names of channels begin with.
const PREFIX: &str = "evidence-gateway:";

/// A Redis server, or none. Cheap to clone.
#[derive(Clone)]
pub enum Redis {
    /// None: nothing is sent and nothing comes.
    Off,
    /// One server.
    Node(Arc<Node>),
}

/// One server; it may be down.
pub struct Node {
    client: Client,
    connection: ConnectionManager,
    down: AtomicBool,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.write_str(if self.is_on() { "Redis(on)" } else { "Redis(off)" })
    }
}

impl Redis {
    /// A handle on the server at this address (`redis://user:password@host:port/database`, or `unix:///path`). It
    /// connects when it is first needed. Fails only if the address makes no sense.
    pub fn new(url: &str) -> Result<Self> {
        let wrong = |error: RedisError| {
            Error::bad_input("--redis-url", "is not an address of a Redis server").because(error)
        };
        let client = Client::open(url).map_err(wrong)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_number_of_retries(1)
            .set_max_delay(MAX_DELAY);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(wrong)?;
        Ok(Self::Node(Arc::new(Node { client, connection, down: AtomicBool::new(false) })))
    }

    /// Whether there is one, up or down.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::Node(_))
    }

    /// Sends an empty message to those who listen now.
    pub async fn publish(&self, channel: &str) -> Result<()> {
        let Self::Node(node) = self else { return Ok(()) };
        let mut connection = node.connection.clone();
        let sent = timeout(TIMEOUT, connection.publish(format!("{PREFIX}{channel}"), "")).await;
        node.told(sent.map_err(Error::internal).and_then(|sent| sent.map_err(Error::internal)).map(drop))
    }

    /// Listens on a channel and calls for every message, and once when it begins to listen; returns when the
    /// connection is lost.
    pub async fn listen(&self, channel: &str, mut heard: impl FnMut()) -> Result<()> {
        let Self::Node(node) = self else { return Ok(()) };
        let subscribed = timeout(TIMEOUT, async {
            let mut listener = node.client.get_async_pubsub().await?;
            listener.subscribe(format!("{PREFIX}{channel}")).await?;
            Ok::<_, RedisError>(listener)
        });
        let subscribed = subscribed.await.map_err(Error::internal);
        let subscribed = subscribed.and_then(|subscribed| subscribed.map_err(Error::internal));
        let mut messages = node.told(subscribed)?.into_on_message();
        heard();
        while messages.next().await.is_some() {
            heard();
        }
        node.told(Err(Error::internal("the connection was closed")))
    }
}

impl Node {
    /// Logs once when the server goes and once when it is back.
    fn told<T>(&self, result: Result<T>) -> Result<T> {
        let down = result.is_err();
        if self.down.swap(down, Ordering::Relaxed) != down {
            match &result {
                Err(error) => tracing::warn!(?error, "Redis does not answer; going on without it"),
                Ok(_) => tracing::info!("Redis answers again"),
            }
        }
        result
    }
}
