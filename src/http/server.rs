//! The accept loop. It bounds how many connections there are and what each may cost, and it ends in order: no new
//! connections, the others are told, what runs may finish within the grace period, and the rest is cut.
//!
//! A connection beyond the limit waits in the accept queue instead of being closed: a burst is then late and not
//! lost, and the queue moves, because the longest idle connection makes room for it and every other one is bounded
//! in time.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{Id, JoinSet};

use crate::app::App;
use crate::config::Config;
use crate::error::Result;
use activity::Activity;
use connection::Attendant;

mod activity;
mod connection;

/// The other end of a request's connection. In the extensions of the request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The connection of a request, for an answer that goes on. In the extensions of the request.
#[derive(Clone)]
pub(super) struct Link(Arc<Activity>);

impl Link {
    /// From now on its client may leave what is there for it for so long.
    pub(super) fn be_patient(&self, patience: Duration) {
        self.0.be_patient(patience);
    }

    /// Resolves when the network takes something, so far as the connection knows.
    pub(super) async fn writable(&self) {
        self.0.writable().await;
    }
}

/// Requests that one HTTP/2 connection may have open; a client waits with more of them.
const MAX_STREAMS: u32 = 64;
/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The part of the grace period over which the ends of sockets are spread.
const SPREAD: f64 = 0.75;
/// How long those that are cut may take to be told.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// After an error that will not go away at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);
/// How often a newcomer looks for a connection that has become idle.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(20);

/// Serves the routes until `stop` resolves and what ran then has finished, within the grace period.
pub async fn serve(
    app: &App,
    routes: Router,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (tell, told) = watch::channel(false);
    let attendant = Arc::new(Attendant {
        builder: builder(&app.config),
        routes,
        metrics: app.metrics.clone(),
        header_timeout: app.config.header_timeout(),
        idle_timeout: app.config.idle_timeout(),
        told,
    });
    let mut open = Open::new(&app.config);
    let mut stop = std::pin::pin!(stop);
    loop {
        let newcomer = async {
            let stream = open.accept(&listener).await;
            (stream, open.make_room().await)
        };
        let (stream, place) = tokio::select! {
            () = &mut stop => break,
            newcomer = newcomer => newcomer,
        };
        let activity = Arc::new(Activity::new());
        let task = attendant.clone().attend(stream, activity.clone(), place);
        open.activities.insert(open.tasks.spawn(task).id(), activity);
    }
    drop(listener);
    app.health.stop();
    tell.send_replace(true);
    // Whoever has something in hand when its turn comes has the rest of the time to finish it.
    app.sockets.close_within(app.config.grace().mul_f64(SPREAD));
    let all_done = async {
        while open.tasks.join_next().await.is_some() {}
        app.sockets.all_closed().await;
    };
    if tokio::time::timeout(app.config.grace(), all_done).await.is_err() {
        tracing::warn!(connections = open.tasks.len(), "the grace period is over; what still runs is cut");
        app.sockets.cut();
        open.tasks.shutdown().await;
        drop(tokio::time::timeout(LAST_WORDS, app.sockets.all_closed()).await);
    }
    Ok(())
}

/// The head of a request is the only thing that is kept in memory before a handler decides, so it is bounded here.
fn builder(config: &Config) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let head = usize::try_from(config.max_header_bytes).unwrap_or(usize::MAX);
    // hyper's own limit on the time of a head runs while a connection lies idle too, which are two limits here.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(config.max_header_bytes)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The connections that are open.
struct Open {
    places: Arc<Semaphore>,
    tasks: JoinSet<()>,
    activities: HashMap<Id, Arc<Activity>>,
    /// Bytes that the kernel may hold for a client.
    send_buffer: usize,
}

impl Open {
    fn new(config: &Config) -> Self {
        let most = usize::try_from(config.max_connections).unwrap_or(usize::MAX);
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let send_buffer = usize::try_from(config.sockets.send_buffer_bytes).unwrap_or(usize::MAX);
        Self { places, tasks: JoinSet::new(), activities: HashMap::new(), send_buffer }
    }

    /// The next connection, whatever it takes; those that ended are forgotten meanwhile.
    async fn accept(&mut self, listener: &TcpListener) -> TcpStream {
        loop {
            let accepted = tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    self.activities.remove(&id);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Answers are written whole: waiting to fill a packet only delays them.
                    // And what a client does not read must wait where it is counted, not in the kernel.
                    let bounded = SockRef::from(&stream).set_send_buffer_size(self.send_buffer);
                    if let Err(error) = stream.set_nodelay(true).and(bounded) {
                        tracing::debug!(%error, "a connection ended before it began");
                    }
                    return stream;
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted; trying again in a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A place for a newcomer. If there is none, the longest idle connection is closed; if all are busy, it waits.
    async fn make_room(&self) -> OwnedSemaphorePermit {
        loop {
            let place = tokio::time::timeout(LOOK_FOR_ROOM, self.places.clone().acquire_owned());
            if self.places.available_permits() == 0
                && let Some((_, idle)) = self
                    .activities
                    .values()
                    .filter_map(|it| Some((it.idle_since()?, it)))
                    .min_by_key(|it| it.0)
            {
                idle.close();
            }
            // The semaphore is never closed, so an error is a place that did not come in time.
            if let Ok(Ok(place)) = place.await {
                return place;
            }
        }
    }
}

/// Whether it concerns one connection only, which its client gave up.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
