//! Owns the connection: how long a call may take in all, and which failures are worth another try.

use std::fmt;
use std::time::Duration;

use qdrant_client::{Qdrant, QdrantError};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Code;

use crate::config::{Secret, VectorSettings};
use crate::error::{Error, Result};

/// Before the first repetition; doubled before each further one.
const PAUSE: Duration = Duration::from_millis(50);
/// Tries of one call at most.
const TRIES_MAX: u32 = 4;
/// For a connection, as part of the time of a call.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Who is told that something is not available.
const STORE: &str = "the vector index";

/// A server, which may be down.
pub(super) struct Client {
    client: Qdrant,
    read: Duration,
    write: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration has the key in it.
        f.debug_struct("Client").field("uri", &self.client.config.uri).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects with the first call.
    pub(super) fn new(settings: &VectorSettings) -> Result<Self> {
        let (read, write) = (settings.timeout(), settings.write_timeout());
        let mut config = Qdrant::from_url(settings.qdrant_url.as_deref().unwrap_or_default())
            .skip_compatibility_check()
            // The longest of all; each call has its own limit besides.
            .timeout(write.max(read))
            .connect_timeout(CONNECT_MAX.min(read));
        if let Some(key) = settings.qdrant_api_key.as_ref().map(Secret::expose) {
            config = config.api_key(key);
        }
        let wrong =
            |cause| Error::bad_input("--qdrant-url", "is not an address of a Qdrant server").because(cause);
        let client = config.build().map_err(wrong)?;
        Ok(Self { client, read, write })
    }

    pub(super) fn uri(&self) -> &str {
        &self.client.config.uri
    }

    /// Asks, within the time of a question. Dropped, it is cancelled.
    pub(super) async fn read<T, C>(&self, call: impl Fn(Qdrant) -> C) -> Result<T>
    where
        C: Future<Output = Result<T, QdrantError>> + Send,
    {
        self.call(self.read, call).await
    }

    /// Changes something, within the time of a write. Every write may be repeated: its outcome is the same.
    pub(super) async fn write<T, C>(&self, call: impl Fn(Qdrant) -> C) -> Result<T>
    where
        C: Future<Output = Result<T, QdrantError>> + Send,
    {
        self.call(self.write, call).await
    }

    /// Whether the server is there. Fails if it is and refuses us.
    pub(super) async fn answers(&self) -> Result<bool> {
        match self.tries(self.read, |client| async move { client.health_check().await }).await {
            Ok(_) => Ok(true),
            Err(error) if is_transient(&error) => {
                tracing::warn!(?error, "the Qdrant server does not answer; search works as soon as it does");
                Ok(false)
            }
            Err(error) => Err(Error::unavailable(STORE, error)),
        }
    }

    async fn call<T, C>(&self, limit: Duration, call: impl Fn(Qdrant) -> C) -> Result<T>
    where
        C: Future<Output = Result<T, QdrantError>> + Send,
    {
        self.tries(limit, call).await.map_err(|error| Error::unavailable(STORE, error))
    }

    async fn tries<T, C>(&self, limit: Duration, call: impl Fn(Qdrant) -> C) -> Result<T, QdrantError>
    where
        C: Future<Output = Result<T, QdrantError>> + Send,
    {
        let end = Instant::now() + limit;
        let (mut pause, mut tried) = (PAUSE, 1);
        loop {
            let late = |_| Err(tonic::Status::deadline_exceeded("it took too long").into());
            // Boxed, because the client's futures are of 20 kB, and every request would carry them along.
            match timeout_at(end, Box::pin(call(self.client.clone()))).await.unwrap_or_else(late) {
                Err(error) if is_transient(&error) && tried < TRIES_MAX && Instant::now() + pause < end => {
                    tracing::debug!(%error, tried, "the Qdrant server failed; trying again");
                }
                done => return done,
            }
            sleep(pause).await;
            (pause, tried) = (pause * 2, tried + 1);
        }
    }
}

/// A call with a request, as often as it takes: `repeatable!(get_points(request))`.
macro_rules! repeatable {
    ($method:ident($request:expr)) => {
        |client: qdrant_client::Qdrant| {
            let request = $request.clone();
            async move { client.$method(request).await }
        }
    };
}
pub(super) use repeatable;

/// Whether the same call may do better later. What the server refuses, it will refuse again.
fn is_transient(error: &QdrantError) -> bool {
    code(error).is_none_or(|code| {
        matches!(
            code,
            Code::Unavailable
                | Code::Internal
                | Code::Unknown
                | Code::Cancelled
                | Code::Aborted
                | Code::ResourceExhausted
                | Code::DeadlineExceeded
        )
    })
}

/// Why the server refused, if it did.
pub(super) fn code(error: &QdrantError) -> Option<Code> {
    match error {
        QdrantError::ResponseError { status } | QdrantError::ResourceExhaustedError { status, .. } => {
            Some(status.code())
        }
        _ => None,
    }
}
