//! Streams of events over HTTP: graphql-sse in both of its modes, and the parts that Apollo's clients read. The body of
//! the response asks for the next event when the network has taken the one before.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::hub::{Hub, Said, What};
use super::message::quoted;
use super::places::Place;
use super::reserved;
use super::socket::{Close, Record, Socket, Tally, lasting};
use super::ticket::of;
use crate::app::App;
use crate::error::{Code, Error};
use crate::graphql::refusal;
use crate::http::accept::Wanted;
use crate::http::graphql::{Call, content, respond};
use crate::http::observe::Served;
use crate::http::operation::{Refused, Sent};
use crate::http::server::Link;
use crate::http::viewer::Pass;
use crate::live::Stream;
use crate::model::viewer::Viewer;

/// What metrics and the log call it.
pub(super) const TRANSPORT: &str = "events";
/// Where it is served; `/graphql` answers with events, too, if the client asks for them.
pub(super) const ROUTE: &str = "/graphql/stream";
/// After how many milliseconds an event source comes back when the process ends.
const RETRY_MS: u32 = 1_000;

/// Events are written together up to so many bytes, if they wait at the same time.
const WRITTEN_AT_ONCE: usize = 16 * 1_024;

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A stream of its own for every operation.
    Distinct,
    /// One stream for many operations, which say whose an event is.
    Single,
    /// Parts of a multipart body (Apollo).
    Parts,
}

/// `GET /graphql/stream`: one operation from the query string, or the stream that was reserved.
pub(in crate::http) async fn get(State(app): State<App>, request: Request) -> Response {
    let (mut call, query, _) = Call::of(request, ROUTE);
    if let Some(token) = reserved::token(&call.headers, query.as_deref()) {
        return reserved::open(&app, &call, &token);
    }
    call.ticket = of(query.as_deref());
    respond(&app, &call, async { Ok(Sent::Query(query.unwrap_or_default())) }).await
}

/// `POST /graphql/stream`: one operation, answered here or on the stream that was reserved.
pub(in crate::http) async fn post(State(app): State<App>, request: Request) -> Response {
    let (call, query, body) = Call::of(request, ROUTE);
    let sent = content(&app, &call.headers, body);
    match reserved::token(&call.headers, query.as_deref()) {
        Some(token) => reserved::execute(&app, &call, &token, sent).await,
        None => respond(&app, &call, sent).await,
    }
}

/// The response that carries a stream of answers.
pub(in crate::http) fn stream_of(
    app: &App,
    call: &Call,
    wanted: Wanted,
    (pass, viewer): (Pass, Viewer),
    stream: Stream,
    served: &Served,
) -> Result<Response, Refused> {
    let place = enter(app, &viewer)?;
    let (hub, said) = Hub::new(1);
    let record = Record::new(app, call.id.clone(), call.route, TRANSPORT, served.clone());
    let form = if wanted.events { Form::Distinct } else { Form::Parts };
    // Event sources remember an id also if no event comes with it.
    let places = (form == Form::Distinct).then(|| app.config.sockets.keep_alive());
    // A new hub takes its first operation.
    drop(hub.begin("", |voice| record.follow(stream, voice, places)));
    let (app, headers) = (app.clone(), lasting(&call.headers));
    let (transport, route, peer) = (TRANSPORT, call.route, call.peer);
    let socket = Arc::new(Socket { app, transport, route, headers, peer, pass, viewer, hub });
    Ok(Feed::new(socket, said, place, form, call.link.clone()).respond())
}

/// A place among the sockets.
pub(super) fn enter(app: &App, viewer: &Viewer) -> Result<Place, Refused> {
    let refused = |status| move |error: Error| Refused { status, refusal: error.into() };
    let mut place = app.sockets.enter(TRANSPORT).map_err(refused(StatusCode::SERVICE_UNAVAILABLE))?;
    place.name(viewer).map_err(refused(StatusCode::TOO_MANY_REQUESTS))?;
    Ok(place)
}

/// One answer, as a stream that is over after it.
pub(in crate::http) fn once(wanted: Wanted, body: &[u8]) -> Response {
    let form = if wanted.events { Form::Distinct } else { Form::Parts };
    let mut bytes = form.opening().to_vec();
    form.next("", body, None, &mut bytes);
    bytes.extend_from_slice(&form.complete(""));
    (form.headers(), bytes).into_response()
}

impl Form {
    fn headers(self) -> [(HeaderName, HeaderValue); 3] {
        let kind = match self {
            Self::Distinct | Self::Single => "text/event-stream; charset=utf-8",
            Self::Parts => "multipart/mixed; boundary=\"graphql\"; subscriptionSpec=\"1.0\"",
        };
        [
            (CONTENT_TYPE, HeaderValue::from_static(kind)),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // Proxies that understand it pass on what they get at once.
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ]
    }

    fn next(self, id: &str, body: &[u8], cursor: Option<&str>, bytes: &mut Vec<u8>) {
        bytes.reserve(body.len() + 128);
        match self {
            Self::Distinct => {
                bytes.extend_from_slice(b"event: next\n");
                if let Some(cursor) = cursor {
                    bytes.extend_from_slice(format!("id: {cursor}\n").as_bytes());
                }
                data(bytes, body);
            }
            Self::Single => {
                bytes.extend_from_slice(b"event: next\n");
                let mut whole = format!("{{\"id\":{},\"payload\":", quoted(id)).into_bytes();
                whole.extend_from_slice(body);
                whole.push(b'}');
                data(bytes, &whole);
            }
            Self::Parts => {
                bytes.extend_from_slice(b"\r\ncontent-type: application/json\r\n\r\n{\"payload\":");
                bytes.extend_from_slice(body);
                // A part is read when the next one begins.
                bytes.extend_from_slice(b"}\r\n--graphql");
            }
        }
    }

    fn complete(self, id: &str) -> Vec<u8> {
        match self {
            Self::Distinct => b"event: complete\ndata:\n\n".to_vec(),
            Self::Single => format!("event: complete\ndata: {{\"id\":{}}}\n\n", quoted(id)).into_bytes(),
            Self::Parts => b"--\r\n".to_vec(),
        }
    }

    /// What comes first. Some browsers take the response for begun only when they see something of it.
    const fn opening(self) -> &'static [u8] {
        match self {
            Self::Distinct | Self::Single => b":\n\n",
            Self::Parts => b"--graphql",
        }
    }

    const fn sign_of_life(self) -> &'static [u8] {
        match self {
            Self::Distinct | Self::Single => b":\n\n",
            Self::Parts => b"\r\ncontent-type: application/json\r\n\r\n{}\r\n--graphql",
        }
    }
}

/// JSON may have line breaks between its parts, and an event's data may not.
fn data(into: &mut Vec<u8>, json: &[u8]) {
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        into.extend_from_slice(b"data: ");
        into.extend_from_slice(line);
        into.push(b'\n');
    }
    into.push(b'\n');
}

/// The body of a response that goes on.
pub(super) struct Feed {
    socket: Arc<Socket>,
    said: mpsc::Receiver<Said>,
    form: Form,
    link: Option<Link>,
    end: BoxFuture<'static, Close>,
    pulse: Interval,
    /// Something was handed over that the network may not have taken yet.
    handed: bool,
    /// It ends after what was handed over last.
    over: bool,
    tally: Tally,
    place: Place,
    /// What must go when it does.
    pub(super) reservation: Option<reserved::Kept>,
}

impl Feed {
    pub(super) fn new(
        socket: Arc<Socket>,
        said: mpsc::Receiver<Said>,
        place: Place,
        form: Form,
        link: Option<Link>,
    ) -> Self {
        let settings = &socket.app.config.sockets;
        let mut pulse = interval_at(Instant::now() + settings.keep_alive(), settings.keep_alive());
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(link) = &link {
            link.be_patient(settings.send_timeout());
        }
        let tally = Tally::new(&socket.app, TRANSPORT, Some(&socket.viewer));
        let watched = socket.clone();
        let end = Box::pin(async move { watched.end().await });
        let (handed, over, reservation) = (false, false, None);
        Self { socket, said, form, link, end, pulse, handed, over, tally, place, reservation }
    }

    pub(super) fn respond(self) -> Response {
        let headers = self.form.headers();
        let chunks = futures_util::stream::unfold((self, true), |(mut feed, first)| async move {
            let chunk = if first { Bytes::from_static(feed.form.opening()) } else { feed.next().await? };
            Some((Ok::<_, Infallible>(chunk), (feed, false)))
        });
        (headers, Body::from_stream(chunks)).into_response()
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if std::mem::replace(&mut self.handed, true) {
            // Once round, so that the server writes it; if it cannot, the connection is full.
            tokio::task::yield_now().await;
        }
        if let Some(link) = &self.link {
            link.writable().await;
        }
        loop {
            tokio::select! {
                Some(said) = self.said.recv() => {
                    let bytes = self.write_all(said);
                    if !bytes.is_empty() {
                        return Some(bytes.into());
                    }
                }
                close = &mut self.end => return Some(self.finish(close)),
                _ = self.pulse.tick() => return Some(Bytes::from_static(self.form.sign_of_life())),
            }
        }
    }

    /// What is said, and what else waits by then.
    fn write_all(&mut self, first: Said) -> Vec<u8> {
        let (mut bytes, mut next) = (Vec::new(), Some(first));
        while let Some(said) = next {
            // If not, its client has ended it since.
            if self.socket.hub.is_current(&said) {
                self.write(&said, &mut bytes);
            }
            let more = !self.over && bytes.len() < WRITTEN_AT_ONCE;
            next = more.then(|| self.said.try_recv().ok()).flatten();
        }
        bytes
    }

    fn write(&mut self, said: &Said, bytes: &mut Vec<u8>) {
        if !matches!(said.what, What::Place(_)) {
            self.tally.sent();
        }
        self.socket.hub.heard(said);
        match &said.what {
            What::Next(body, cursor) => self.form.next(&said.id, body, cursor.as_deref(), bytes),
            What::Place(cursor) => bytes.extend_from_slice(format!("id: {cursor}\n\n").as_bytes()),
            What::Error(body) => {
                self.form.next(&said.id, body, None, bytes);
                bytes.extend_from_slice(&self.form.complete(&said.id));
            }
            What::Complete => bytes.extend_from_slice(&self.form.complete(&said.id)),
        }
        if self.form != Form::Single && said.is_last() {
            self.ended(Close::new(1000, ""));
        }
    }

    /// The last words.
    fn finish(&mut self, close: Close) -> Bytes {
        let mut bytes = Vec::new();
        if close.code == Close::RESTART.code {
            // The stream just ends: then clients come back, and event sources when they are told to.
            if self.form != Form::Parts {
                bytes.extend_from_slice(format!("retry: {RETRY_MS}\n\n").as_bytes());
            }
        } else {
            let error = Error::new(Code::Unauthenticated, close.reason.clone());
            let body = refusal(&error.into());
            for id in self.socket.hub.ids() {
                self.form.next(&id, &body, None, &mut bytes);
                bytes.extend_from_slice(&self.form.complete(&id));
            }
        }
        self.ended(close);
        bytes.into()
    }

    fn ended(&mut self, close: Close) {
        self.socket.hub.end();
        self.over = true;
        self.place.code = close.code;
        self.tally.close = close;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Whoever still holds the socket must not keep its operations alive.
        self.socket.hub.end();
    }
}
