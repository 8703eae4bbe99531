//! What a socket is, whatever it speaks: who is at its other end and for how long, what it executes, and why it ends.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;

use super::hub::{Hub, Unbegun, Voice};
use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::refusal;
use crate::http::observe::{HUNG_UP, Line, RequestId, Served, describe, milliseconds};
use crate::http::operation::{Answers, Done, Incoming, Sent, Transport, origin, perform};
use crate::http::server::Peer;
use crate::http::viewer::Pass;
use crate::live::{Next, Stream};
use crate::model::viewer::Viewer;

/// Between two looks at who the viewer is, at least: an identity may be believed for no time at all, but not asked for
/// without a pause.
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// Why a socket ends: a code of the WebSocket protocol or of graphql-transport-ws, and a reason of 123 bytes at most.
#[derive(Debug, Clone)]
pub(super) struct Close {
    pub(super) code: u16,
    pub(super) reason: Cow<'static, str>,
}

impl Close {
    pub(super) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Cow::Borrowed(reason) }
    }

    /// The reason, if it is a text of ours and nothing of a client's stands in it.
    const fn known(&self) -> Option<&'static str> {
        match self.reason {
            Cow::Borrowed(reason) if !reason.is_empty() => Some(reason),
            _ => None,
        }
    }

    /// The process ends. Clients connect again when they read this code.
    pub(super) const RESTART: Self = Self::new(1012, "Service restart: connect again");
    /// The credential has expired or was revoked. Not 4401, which says that no connection was acknowledged and after
    /// which clients give up: after 4403 they ask for a new credential and try again.
    pub(super) const ENDED: Self = Self::new(4403, "Forbidden: the credential has expired or was revoked");
    /// The viewer may see or do something else than at the beginning.
    pub(super) const CHANGED: Self =
        Self::new(4403, "Forbidden: what you may see has changed; connect again");
}

/// What the operations of one socket have in common.
pub(super) struct Socket {
    pub(super) app: App,
    /// `websocket` or `events`.
    pub(super) transport: &'static str,
    pub(super) route: &'static str,
    /// What its client calls itself.
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<Peer>,
    pub(super) pass: Pass,
    pub(super) viewer: Viewer,
    pub(super) hub: Hub,
}

/// Of the headers that a socket was opened with, those that say something of its operations.
pub(super) fn lasting(headers: &HeaderMap) -> HeaderMap {
    headers.get(USER_AGENT).map(|value| (USER_AGENT, value.clone())).into_iter().collect()
}

impl Socket {
    /// Begins an operation. With `refuse`, what is wrong with the request is said there and not over the socket.
    pub(super) fn execute(
        self: &Arc<Self>,
        id: &str,
        sent: Sent,
        resume: Option<String>,
        refuse: Option<oneshot::Sender<Begun>>,
    ) -> Result<(), Unbegun> {
        // The hub holds the operations, so they must not hold the hub.
        let (app, headers, peer) = (self.app.clone(), self.headers.clone(), self.peer);
        let (viewer, route, transport) = (self.viewer.clone(), self.route, self.transport);
        self.hub.begin(id, move |voice| {
            let served = Served { viewer: Some(viewer.clone()), ..Served::default() };
            let record = Record::new(&app, RequestId::new(), route, transport, served);
            let asked = Asked { app, headers, peer, viewer, sent, resume };
            Box::pin(asked.run(record, voice, refuse))
        })
    }

    /// Resolves when the socket must end: its process does, or its viewer is not who it was.
    pub(super) async fn end(&self) -> Close {
        let sockets = &self.app.sockets;
        let stop = async {
            sockets.turn().await;
            self.hub.wind_up();
            tokio::select! {
                () = self.hub.all_done() => {}
                () = sockets.cut_off() => {}
            }
        };
        tokio::select! {
            () = stop => Close::RESTART,
            close = self.identity() => close,
        }
    }

    /// Resolves when the viewer is not who it was.
    async fn identity(&self) -> Close {
        if self.app.access.lets_everyone_in() {
            return std::future::pending().await;
        }
        let pause = self.app.config.identity_lifetime().max(LEAST_PAUSE);
        loop {
            tokio::time::sleep(pause).await;
            match self.app.access.holder(&self.pass).await {
                Ok(viewer) if viewer == self.viewer => {}
                Ok(_) => return Close::CHANGED,
                Err(error) if error.code() == Code::Unauthenticated => return Close::ENDED,
                // The database does not answer; it has nothing to show then, either.
                Err(error) => {
                    tracing::debug!(?error, "nobody could say whether a viewer is still who it was")
                }
            }
        }
    }
}

/// What went over a socket. One line in the log when it is dropped.
pub(super) struct Tally {
    app: App,
    transport: &'static str,
    begun: Instant,
    pub(super) viewer: Option<String>,
    pub(super) close: Close,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl Tally {
    pub(super) fn new(app: &App, transport: &'static str, viewer: Option<&Viewer>) -> Self {
        let (received, sent) = Default::default();
        let (app, begun, close) = (app.clone(), Instant::now(), Close::new(1006, ""));
        Self { app, transport, begun, viewer: viewer.map(describe), close, received, sent }
    }

    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.app.metrics.sockets.received(self.transport);
    }

    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.app.metrics.sockets.sent(self.transport);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        tracing::info!(
            target: "socket",
            transport = self.transport,
            code = self.close.code,
            reason = self.close.known(),
            ms = milliseconds(self.begun.elapsed()),
            viewer = self.viewer,
            received = self.received.load(Ordering::Relaxed),
            sent = self.sent.load(Ordering::Relaxed),
        );
    }
}

/// Whether an operation is executed, or the status and the body of the answer that says why not.
pub(super) type Begun = Result<(), (StatusCode, Bytes)>;

/// What is said to an operation that does not begin, though nothing is wrong with it.
pub(super) fn unbegun(why: &Unbegun) -> Error {
    match why {
        Unbegun::TooMany => {
            Error::too_many("max_socket_operations", "too many operations are open on this socket")
        }
        Unbegun::Closing => Error::new(Code::Unavailable, "this server is stopping; connect again"),
        Unbegun::Taken => Error::new(Code::Conflict, "there is an operation of this id"),
    }
}

/// An operation on record: one line in the log and its place in the metrics when it is over, however it ends.
pub(super) struct Record {
    app: App,
    id: RequestId,
    route: &'static str,
    method: &'static str,
    begun: Instant,
    served: Served,
    /// It came to its end, or has none.
    done: bool,
}

impl Record {
    pub(super) fn new(
        app: &App,
        id: RequestId,
        route: &'static str,
        transport: &'static str,
        served: Served,
    ) -> Self {
        let method = if transport == "websocket" { "WS" } else { "SSE" };
        Self { app: app.clone(), id, route, method, begun: Instant::now(), served, done: false }
    }

    /// Passes the answers of a stream on, to its end. With `places`, where it can be resumed is said at the beginning,
    /// too, and when nothing has come for so long.
    pub(super) async fn follow(mut self, mut stream: Stream, voice: Voice, places: Option<Duration>) {
        // Whoever wants no more of it has got what they wanted.
        self.done = true;
        voice.streams();
        if let Some(cursor) = places.and_then(|_| stream.cursor()) {
            voice.place(cursor).await;
        }
        while let Some(next) = stream.next(places).await {
            match next {
                Next::Event(event) if event.last => return voice.error(event.body).await,
                Next::Event(event) => voice.next(event.body, event.cursor).await,
                Next::Place(cursor) => voice.place(cursor).await,
            }
        }
        voice.complete().await;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = if self.done { 200 } else { HUNG_UP };
        let line = Line { id: &self.id, method: self.method, route: self.route, status, begun: self.begun };
        line.write(&self.app.metrics, &self.served);
    }
}

/// An operation that came over a socket.
struct Asked {
    app: App,
    headers: HeaderMap,
    peer: Option<Peer>,
    viewer: Viewer,
    sent: Sent,
    resume: Option<String>,
}

impl Asked {
    async fn run(self, mut record: Record, voice: Voice, refuse: Option<oneshot::Sender<Begun>>) {
        let Self { app, headers, peer, viewer, sent, resume } = self;
        let transport = Transport { modern: true, answers: Answers::Many { resume } };
        let incoming = Incoming { viewer, sent, transport };
        let origin = || origin(&headers, &record.id, peer);
        // What the socket was opened with says nothing of how one of its operations is to be answered.
        let none = HeaderMap::new();
        let done = perform(&app, &none, incoming, origin, &mut record.served).await;
        let done = match done {
            Ok(done) => done,
            Err(refused) => {
                refused.count(&app, &mut record.served);
                record.done = true;
                match refuse {
                    Some(refuse) => {
                        voice.leave();
                        drop(refuse.send(Err((refused.status, refusal(&refused.refusal).into()))));
                    }
                    None => voice.error(refusal(&refused.refusal)).await,
                }
                return;
            }
        };
        record.done = true;
        if let Some(refuse) = refuse {
            match done {
                Done::Answer(answer, ..) if !answer.executed => {
                    record.served.codes.clone_from(&answer.codes);
                    voice.leave();
                    drop(refuse.send(Err((StatusCode::BAD_REQUEST, answer.into_body().into()))));
                    return;
                }
                _ => drop(refuse.send(Ok(()))),
            }
        }
        match done {
            Done::Kept(kept, ask) => {
                voice.next(kept.body(&ask), None).await;
                voice.complete().await;
            }
            Done::Answer(answer, ..) => {
                record.served.codes.clone_from(&answer.codes);
                let executed = answer.executed;
                let body = Bytes::from(answer.into_body());
                if executed {
                    voice.next(body, None).await;
                    voice.complete().await;
                } else {
                    voice.error(body).await;
                }
            }
            Done::Stream(stream) => record.follow(stream, voice, None).await,
        }
    }
}
