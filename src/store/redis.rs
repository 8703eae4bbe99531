//! Redis: messages between processes, and values that they share for a while. It is never needed: without it, or
//! while it is down, everything is answered as before, and no request waits for it longer than half a second.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncTypedCommands, Client, Cmd, FromRedisValue, RedisError, cmd};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::store::gate::Gate;

/// For connecting and for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Between attempts to connect again at most.
const MAX_DELAY: Duration = Duration::from_secs(2);
/// How long nobody waits for values of a server that did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// What the names of channels and keys begin with.
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
    values: Gate,
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
        Ok(Self::Node(Arc::new(Node {
            client,
            connection,
            down: AtomicBool::new(false),
            values: Gate::default(),
        })))
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

    /// Whether it answers.
    pub async fn ping(&self) -> Result<()> {
        let Self::Node(node) = self else { return Ok(()) };
        node.ask(&cmd("PING")).await
    }

    /// The value of this key. None also while the server is down.
    pub async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.value(cmd("GET").arg(format!("{PREFIX}{key}"))).await.flatten()
    }

    /// Keeps a value for this long, if the server is up.
    pub async fn set(&self, key: &str, value: &[u8], lifetime: Duration) {
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        self.value::<()>(set.arg(format!("{PREFIX}{key}")).arg(value).arg("PX").arg(lifetime)).await;
    }

    /// What a command about a value answers; while the server is down, nothing and at once.
    async fn value<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let Self::Node(node) = self else { return None };
        if !node.values.pass(TIMEOUT) {
            return None;
        }
        let answer = node.ask(command).await;
        if answer.is_ok() {
            node.values.open()
        } else {
            node.values.shut(PAUSE)
        }
        answer.ok()
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
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let mut connection = self.connection.clone();
        let answer = timeout(TIMEOUT, command.query_async(&mut connection)).await;
        self.told(answer.map_err(Error::internal).and_then(|answer| answer.map_err(Error::internal)))
    }

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
