//! Redis: messages between processes, and values that they share for a while. It is never needed: without it, or
//! while it is down, everything is answered as before, and no request waits for it longer than half a second.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult, cmd};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::store::gate::Gate;
use link::Link;

mod link;

/// For connecting and for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How long nobody waits for values of a server that did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The channel by which processes hear that an operator wants cached answers forgotten.
pub const PURGES: &str = "purges";
/// What the names of channels and keys begin with.
const PREFIX: &str = "evidence-gateway:";

/// A Redis server, a cluster of them, or none. Cheap to clone.
#[derive(Clone)]
pub enum Redis {
    /// None: nothing is sent and nothing comes.
    Off,
    /// One server or a cluster.
    On(Arc<Servers>),
}

/// One server or a cluster; it may be down.
pub struct Servers {
    link: Link,
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
    /// A handle on the server at this address (`redis://user:password@host:port/database`, `rediss://` for TLS, or
    /// `unix:///path`), or on the cluster at several, separated by commas. It connects when it is first needed. Fails
    /// only if the address makes no sense.
    pub fn new(url: &str) -> Result<Self> {
        let link = Link::new(url, TIMEOUT).map_err(|error| {
            Error::bad_input("--redis-url", "is not an address of a Redis server").because(error)
        })?;
        Ok(Self::On(Arc::new(Servers { link, down: AtomicBool::new(false), values: Gate::default() })))
    }

    /// Whether there is one, up or down.
    pub fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// Sends a message to those who listen now.
    pub async fn publish(&self, channel: &str, text: &str) -> Result<()> {
        let Self::On(servers) = self else { return Ok(()) };
        servers.ask(cmd("PUBLISH").arg(format!("{PREFIX}{channel}")).arg(text)).await
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<()> {
        let Self::On(servers) = self else { return Ok(()) };
        servers.ask(&cmd("PING")).await
    }

    /// The value of this key. None also while the server is down.
    pub async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.value(cmd("GET").arg([PREFIX, key].concat())).await.flatten()
    }

    /// Keeps a value for this long, if the server is up.
    pub async fn set(&self, key: &str, value: &[u8], lifetime: Duration) {
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        self.value::<()>(set.arg([PREFIX, key].concat()).arg(value).arg("PX").arg(lifetime)).await;
    }

    /// Keeps a value for this long unless there is one; whether it did, none while the server is down.
    pub async fn claim(&self, key: &str, lifetime: Duration) -> Option<bool> {
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg([PREFIX, key].concat()).arg("").arg("NX").arg("PX").arg(lifetime);
        self.value::<Option<String>>(&set).await.map(|done| done.is_some())
    }

    /// How many values have keys that begin so, and their bytes.
    pub async fn measure(&self, prefix: &str) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        self.scan(prefix, async |servers, keys| {
            for key in keys {
                count += 1;
                bytes += servers.ask::<u64>(cmd("STRLEN").arg(key)).await?;
            }
            Ok(())
        })
        .await?;
        Ok((count, bytes))
    }

    /// Removes all values whose keys begin so, and says how many there were.
    pub async fn clear(&self, prefix: &str) -> Result<u64> {
        let mut count = 0;
        self.scan(prefix, async |servers, keys| {
            count += keys.len() as u64;
            if keys.is_empty() { Ok(()) } else { servers.ask::<()>(cmd("UNLINK").arg(keys)).await }
        })
        .await?;
        Ok(count)
    }

    /// Goes through the keys that begin so. One may come twice.
    async fn scan(
        &self,
        prefix: &str,
        mut each: impl AsyncFnMut(&Servers, Vec<String>) -> Result<()>,
    ) -> Result<()> {
        let Self::On(servers) = self else { return Ok(()) };
        for place in servers.told(servers.link.primaries().await.map_err(Error::internal))? {
            let mut cursor = 0_u64;
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(format!("{PREFIX}{prefix}*")).arg("COUNT").arg(1_000);
                let (next, keys): (u64, Vec<String>) =
                    servers.within(servers.link.ask_at(place.as_ref(), &scan)).await?;
                each(servers, keys).await?;
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// Removes a value.
    pub async fn remove(&self, key: &str) {
        self.value::<()>(cmd("DEL").arg([PREFIX, key].concat())).await;
    }

    /// Whether there is one that answered when it was last asked.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::On(servers) if !servers.down.load(Ordering::Relaxed))
    }

    /// What a command about a value answers; while the server is down, nothing and at once.
    async fn value<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let Self::On(servers) = self else { return None };
        if !servers.values.pass(TIMEOUT) {
            return None;
        }
        let answer = servers.ask(command).await;
        if answer.is_ok() {
            servers.values.open()
        } else {
            servers.values.shut(PAUSE)
        }
        answer.ok()
    }

    /// Listens on a channel and calls with every message, and once with an empty one when it begins to listen;
    /// returns when the connection is lost.
    pub async fn listen(&self, channel: &str, mut heard: impl FnMut(&str)) -> Result<()> {
        let Self::On(servers) = self else { return Ok(()) };
        let subscribed = timeout(TIMEOUT, async {
            let mut listener = servers.link.listener().await?;
            listener.subscribe(format!("{PREFIX}{channel}")).await?;
            Ok::<_, RedisError>(listener)
        });
        let subscribed = subscribed.await.map_err(Error::internal);
        let subscribed = subscribed.and_then(|subscribed| subscribed.map_err(Error::internal));
        let mut messages = servers.told(subscribed)?.into_on_message();
        heard("");
        while let Some(message) = messages.next().await {
            heard(&message.get_payload::<String>().unwrap_or_default());
        }
        servers.told(Err(Error::internal("the connection was closed")))
    }
}

impl Servers {
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.within(self.link.ask(command)).await
    }

    async fn within<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> Result<T> {
        let answer = match timeout(TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.link.give_up();
                Err(Error::internal(error))
            }
            Err(late) => Err(Error::internal(late)),
        };
        self.told(answer)
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
