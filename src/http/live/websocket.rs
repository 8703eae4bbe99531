//! graphql-transport-ws after the handshake: the beginning, and then three things at once: reading messages, writing them,
//! and watching over the connection. Whichever ends first ends the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::Bytes;
use axum::http::HeaderMap;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Frame, Utf8Bytes};

use super::hub::{Hub, Said, Unbegun, What};
use super::message::{ACK, Credentials, Message, complete, error, next, pong};
use super::places::Place;
use super::socket::{Close, Socket, Tally, unbegun};
use crate::app::App;
use crate::error::Code;
use crate::graphql::refusal;
use crate::http::observe::describe;
use crate::http::operation::Sent;
use crate::http::server::Peer;
use crate::http::viewer::Pass;
use crate::model::viewer::Viewer;

/// What metrics and the log call it.
pub(super) const TRANSPORT: &str = "websocket";
/// The protocol's own messages that wait to be written; while there are more nothing is read.
const WAITING: usize = 16;
/// Bytes that are read at once. Every socket has a buffer of this size.
const READ_BUFFER: usize = 4_096;
/// Messages are written together up to so many bytes, if they wait at the same time.
const WRITTEN_AT_ONCE: usize = 16 * 1_024;
/// How long a client may take to go once it was told to.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(2);

type Wire = WebSocketStream<TokioIo<Upgraded>>;

/// What a socket was opened with.
pub(super) struct Opening {
    pub(super) app: App,
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<Peer>,
    /// Who it is, if the headers or a ticket say so.
    pub(super) known: Option<(Pass, Viewer)>,
    pub(super) place: Place,
    /// Whether the client wants the subprotocol that is spoken here.
    pub(super) understood: bool,
}

/// How a socket ended.
enum End {
    /// We have a reason to close it.
    Ours(Close),
    /// The client has closed it, with this code.
    Theirs(u16),
    /// Nothing can be said to the client any more.
    Broken(&'static str),
}

impl Opening {
    /// Serves it to its end.
    pub(super) async fn serve(mut self, upgraded: Upgraded) {
        let limit = usize::try_from(self.app.config.sockets.max_message_bytes).ok();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            // What is fed is written when it is flushed, or when it is so much.
            .write_buffer_size(WRITTEN_AT_ONCE)
            .max_message_size(limit)
            .max_frame_size(limit);
        let upgraded = TokioIo::new(upgraded);
        let mut wire = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
        let mut tally = Tally::new(&self.app, TRANSPORT, self.known.as_ref().map(|(_, viewer)| viewer));
        let end = match self.begin(&mut wire, &tally).await {
            Err(end) => end,
            Ok((pass, viewer)) => {
                tally.viewer = Some(describe(&viewer));
                let (hub, said) = Hub::new(self.app.config.sockets.max_socket_operations);
                let (app, headers, peer) = (self.app.clone(), self.headers, self.peer);
                let (transport, route) = (TRANSPORT, "/graphql");
                let socket = Socket { app, transport, route, headers, peer, pass, viewer, hub };
                let end;
                (wire, end) = converse(wire, Arc::new(socket), said, &tally).await;
                end
            }
        };
        tally.close = match &end {
            End::Ours(close) => close.clone(),
            End::Theirs(code) => Close::new(*code, "closed by the client"),
            End::Broken(reason) => Close::new(1006, reason),
        };
        self.place.code = tally.close.code;
        drop(tally);
        farewell(wire, end).await;
    }

    /// Whatever comes before the first operation: in time, and by somebody who is let in.
    async fn begin(&mut self, wire: &mut Wire, tally: &Tally) -> Result<(Pass, Viewer), End> {
        if !self.understood {
            return Err(End::Ours(Close::new(4406, "Subprotocol not acceptable")));
        }
        let sockets = &self.app.sockets;
        let (init, known) = (self.app.config.sockets.init_timeout(), self.known.take());
        let greeted = tokio::select! {
            greeted = timeout(init, greet(wire, &self.app, known, &mut self.place, tally)) => greeted,
            () = sockets.turn() => return Err(End::Ours(Close::RESTART)),
        };
        greeted.unwrap_or(Err(End::Ours(Close::new(4408, "Connection initialisation timeout"))))
    }
}

/// Waits for `connection_init` and acknowledges it, if its sender may come in.
async fn greet(
    wire: &mut Wire,
    app: &App,
    known: Option<(Pass, Viewer)>,
    place: &mut Place,
    tally: &Tally,
) -> Result<(Pass, Viewer), End> {
    let broken = |_| End::Broken("the connection broke");
    loop {
        let text = match wire.next().await.map(said) {
            Some(Ok(Some(text))) => text,
            Some(Ok(None)) => continue,
            Some(Err(end)) => return Err(end),
            None => return Err(End::Broken("the connection ended")),
        };
        tally.received();
        match Message::read(&text).map_err(|reason| End::Ours(Close::new(4400, reason)))? {
            Message::ConnectionInit(payload) => {
                let (pass, viewer) = admit(app, known, payload).await.map_err(End::Ours)?;
                place.name(&viewer).map_err(|_| {
                    app.metrics.refused("max_sockets_per_viewer");
                    End::Ours(Close::new(1013, "Try again later: too many sockets of the same viewer"))
                })?;
                wire.send(Frame::text(ACK)).await.map_err(broken)?;
                tally.sent();
                return Ok((pass, viewer));
            }
            Message::Ping(payload) => {
                wire.send(Frame::text(pong(payload))).await.map_err(broken)?;
                tally.sent();
            }
            Message::Pong | Message::Complete { .. } => {}
            Message::Subscribe { .. } => return Err(End::Ours(Close::new(4401, "Unauthorized"))),
        }
    }
}

/// Who it is: as the socket was opened, or as the payload of `connection_init` says.
async fn admit(
    app: &App,
    known: Option<(Pass, Viewer)>,
    payload: Option<&RawValue>,
) -> Result<(Pass, Viewer), Close> {
    const FORBIDDEN: Close = Close::new(4403, "Forbidden");
    let known = match known {
        Some(known) if app.access.lets_everyone_in() => return Ok(known),
        known => known,
    };
    let credentials = Credentials::read(payload).ok_or(FORBIDDEN)?;
    match known {
        Some(known) if !credentials.any() => Ok(known),
        // Of two nobody could say which of them counts.
        Some(_) => Err(Close::new(4403, "Forbidden: credentials came in the headers, too")),
        None => {
            let pass = app.access.pass(credentials.presented()).map_err(|_| FORBIDDEN)?;
            match app.access.holder(&pass).await {
                Ok(viewer) => Ok((pass, viewer)),
                Err(error) if error.code() == Code::Unauthenticated => Err(FORBIDDEN),
                Err(error) => {
                    tracing::warn!(?error, "nobody could say who wants to open a socket");
                    Err(Close::new(1013, "Try again later"))
                }
            }
        }
    }
}

/// What is known of the other end.
struct Life(Mutex<Option<Instant>>);

impl Life {
    fn pinged(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything after the beginning, to the end.
async fn converse(wire: Wire, socket: Arc<Socket>, said: mpsc::Receiver<Said>, tally: &Tally) -> (Wire, End) {
    let (mut sink, mut stream) = wire.split();
    let (replies, waiting) = mpsc::channel(WAITING);
    let life = Life(Mutex::new(None));
    let end = tokio::select! {
        end = listen(&mut stream, &socket, &replies, &life, tally) => end,
        end = speak(&mut sink, &socket, said, waiting, &life, tally) => end,
        end = keep_alive(&socket.app, &replies, &life) => end,
        close = socket.end() => End::Ours(close),
    };
    // Operations end here and not after the farewell.
    socket.hub.end();
    let wire = sink.reunite(stream);
    // Both are halves of the same.
    (wire.unwrap_or_else(|_| unreachable!("two halves of one socket")), end)
}

/// Reads, and does what it is told. It waits when too many replies do.
async fn listen(
    stream: &mut SplitStream<Wire>,
    socket: &Arc<Socket>,
    replies: &mpsc::Sender<Frame>,
    life: &Life,
    tally: &Tally,
) -> End {
    let reply = async |frame| drop(replies.send(frame).await);
    loop {
        let heard = stream.next().await;
        *life.pinged() = None;
        let text = match heard.map(said) {
            Some(Ok(Some(text))) => text,
            Some(Ok(None)) => continue,
            Some(Err(end)) => return end,
            None => return End::Broken("the connection ended"),
        };
        tally.received();
        let message = match Message::read(&text) {
            Ok(message) => message,
            Err(reason) => return End::Ours(Close::new(4400, reason)),
        };
        match message {
            Message::ConnectionInit(_) => {
                return End::Ours(Close::new(4429, "Too many initialisation requests"));
            }
            Message::Ping(payload) => reply(Frame::text(pong(payload))).await,
            Message::Pong => {}
            Message::Complete { id } => drop(socket.hub.cancel(&id)),
            Message::Subscribe { id, payload } => {
                let payload = Bytes::from(text.clone()).slice_ref(payload.get().as_bytes());
                match socket.execute(&id, Sent::Body(payload), None, None) {
                    Ok(()) => {}
                    Err(Unbegun::Taken) => return End::Ours(taken(&id)),
                    Err(why) => {
                        let wrong = unbegun(&why);
                        if let Some(limit) = wrong.limit() {
                            socket.app.metrics.refused(limit);
                        }
                        match frame(error(&id, &refusal(&wrong.into()))) {
                            Ok(frame) => reply(frame).await,
                            Err(end) => return end,
                        }
                    }
                }
            }
        }
    }
}

fn taken(id: &str) -> Close {
    // A reason has 123 bytes at most.
    let id: String = id.chars().take(20).collect();
    Close { code: 4409, reason: format!("Subscriber for {id} already exists").into() }
}

/// Writes: replies, and what operations say, whichever comes first, and what else waits by then in the same stroke. The
/// next is asked for when the network has taken those before.
async fn speak(
    sink: &mut SplitSink<Wire, Frame>,
    socket: &Socket,
    mut said: mpsc::Receiver<Said>,
    mut waiting: mpsc::Receiver<Frame>,
    life: &Life,
    tally: &Tally,
) -> End {
    let patience = socket.app.config.sockets.send_timeout();
    let mut ended = Vec::new();
    loop {
        let mut first = tokio::select! {
            Some(reply) = waiting.recv() => Some(Word::Reply(reply)),
            Some(said) = said.recv() => Some(Word::Said(said)),
        };
        let (mut bytes, mut pinged) = (0, false);
        let writing = async {
            while let Some(word) = first.take().or_else(|| next_word(&mut waiting, &mut said)) {
                let frame = match word {
                    Word::Reply(frame) => frame,
                    // Its client has ended it since.
                    Word::Said(said) if !socket.hub.is_current(&said) => continue,
                    Word::Said(said) => {
                        let Some(message) = said.message() else { continue };
                        if said.is_last() {
                            ended.push(said);
                        }
                        frame(message)?
                    }
                };
                bytes += frame.len();
                match frame {
                    Frame::Ping(_) => pinged = true,
                    _ => tally.sent(),
                }
                sink.feed(frame).await.map_err(|_| End::Broken("the connection broke"))?;
                if bytes >= WRITTEN_AT_ONCE {
                    break;
                }
            }
            sink.flush().await.map_err(|_| End::Broken("the connection broke"))
        };
        match timeout(patience, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(end)) => return end,
            Err(_) => {
                socket.app.metrics.refused("send_time");
                return End::Broken("the client did not read");
            }
        }
        if pinged {
            life.pinged().get_or_insert_with(Instant::now);
        }
        ended.drain(..).for_each(|said| socket.hub.heard(&said));
    }
}

/// What is to be written.
enum Word {
    Reply(Frame),
    Said(Said),
}

/// What waits to be written, if anything does.
fn next_word(waiting: &mut mpsc::Receiver<Frame>, said: &mut mpsc::Receiver<Said>) -> Option<Word> {
    waiting.try_recv().map(Word::Reply).or_else(|_| said.try_recv().map(Word::Said)).ok()
}

impl Said {
    /// As the protocol has it; it has no words for places.
    fn message(&self) -> Option<Vec<u8>> {
        match &self.what {
            What::Next(result, _) => Some(next(&self.id, result)),
            What::Place(_) => None,
            What::Error(answer) => Some(error(&self.id, answer)),
            What::Complete => Some(complete(&self.id)),
        }
    }
}

/// Sends pings. Anything at all that comes back will do.
async fn keep_alive(app: &App, replies: &mpsc::Sender<Frame>, life: &Life) -> End {
    let settings = &app.config.sockets;
    let (pause, patience) = (settings.keep_alive(), settings.pong_timeout());
    loop {
        let pinged = *life.pinged();
        match pinged {
            Some(at) if at.elapsed() >= patience => {
                app.metrics.refused("pong_time");
                return End::Broken("the client did not answer a ping");
            }
            Some(at) => tokio::time::sleep(pause.min(patience.saturating_sub(at.elapsed()))).await,
            None => {
                tokio::time::sleep(pause).await;
                // If it does not fit, then something is being written, which is as good.
                drop(replies.try_send(Frame::Ping(Bytes::new())));
            }
        }
    }
}

/// The text of a frame, if it has one; or the end.
fn said(frame: Result<Frame, WsError>) -> Result<Option<Utf8Bytes>, End> {
    let ours = |code, reason| Err(End::Ours(Close::new(code, reason)));
    match frame {
        Ok(Frame::Text(text)) => Ok(Some(text)),
        Ok(Frame::Binary(_)) => ours(4400, "Invalid message: messages are text"),
        Ok(Frame::Close(frame)) => Err(End::Theirs(frame.map_or(1005, |frame| frame.code.into()))),
        Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_)) => Ok(None),
        Err(WsError::Capacity(_)) => ours(1009, "Message too big"),
        Err(WsError::Utf8(_)) => ours(1007, "A text is not UTF-8"),
        Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
            Err(End::Broken("the client went away"))
        }
        Err(WsError::Protocol(_)) => ours(1002, "Protocol error"),
        Err(_) => Err(End::Broken("the connection broke")),
    }
}

/// A text that is sent. What is said here is JSON and so UTF-8.
fn frame(bytes: Vec<u8>) -> Result<Frame, End> {
    let text = Utf8Bytes::try_from(Bytes::from(bytes));
    text.map(Frame::Text).map_err(|_| End::Ours(Close::new(1011, "Internal error")))
}

/// Says why it ends, and hears the client out for a moment: if it were still sending when the connection closes, it
/// would see a broken connection and never the reason.
async fn farewell(mut wire: Wire, end: End) {
    // After what it said last cannot be read, nothing can.
    let mut unread = false;
    let part = async {
        match end {
            End::Broken(_) => return,
            End::Theirs(_) => while wire.next().await.is_some() {},
            End::Ours(Close { code, reason }) => {
                unread = [1002, 1007, 1009].contains(&code);
                let reason = Utf8Bytes::from(reason.into_owned());
                let frame = CloseFrame { code: CloseCode::from(code), reason };
                if wire.close(Some(frame)).await.is_err() {
                    return;
                }
                while let Some(Ok(_)) = wire.next().await {}
            }
        }
        let mut wire = wire.into_inner();
        if unread && wire.shutdown().await.is_ok() {
            let mut rest = vec![0; READ_BUFFER];
            while wire.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        }
    };
    // Whoever takes longer has had the chance.
    drop(timeout(FAREWELL, part).await);
}
