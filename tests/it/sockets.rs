//! WebSockets and event streams: every rule of the two protocols, who is let in and for how long, what is bounded,
//! and how they end.

mod auth;
mod bounds;
mod endings;
mod events;
mod exact;
mod pressure;
mod protocol;
mod storm;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::Gateway;

/// What comes at all comes sooner.
const PATIENCE: Duration = Duration::from_secs(20);
const PROTOCOL: &str = "graphql-transport-ws";

/// A client that knows nothing of the protocol and says what it is told to.
struct Client(WebSocketStream<TcpStream>);

/// What a client hears.
#[derive(Debug, PartialEq)]
enum Heard {
    Message(Value),
    Closed(u16, String),
    /// The connection broke.
    Gone,
}

impl Client {
    /// Opens a socket over a connection.
    async fn over(
        stream: TcpStream,
        path: &str,
        protocol: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let host = stream.peer_addr()?;
        let mut request = format!("ws://{host}{path}").into_client_request()?;
        let named = headers.iter().copied().chain(protocol.map(|name| ("sec-websocket-protocol", name)));
        for (name, value) in named {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        let (wire, _) = timeout(PATIENCE, client_async(request, stream)).await.expect("no handshake")?;
        Ok(Self(wire))
    }

    /// Opens a socket; or the status and the body of the answer that refuses it.
    async fn try_open(
        url: &str,
        path: &str,
        protocol: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        Self::over(stream, path, protocol, headers).await.map_err(|error| match error {
            Error::Http(response) => {
                let body = response.body().as_deref().unwrap_or_default();
                (response.status().as_u16(), String::from_utf8_lossy(body).into_owned())
            }
            error => panic!("{error}"),
        })
    }

    async fn open(url: &str) -> Self {
        Self::try_open(url, "/graphql", Some(PROTOCOL), &[]).await.unwrap()
    }

    /// Opens a socket and is acknowledged.
    async fn begin(url: &str, payload: Value) -> Self {
        let mut client = Self::open(url).await;
        client.say(json!({"type": "connection_init", "payload": payload})).await;
        assert_eq!(client.hear().await, Heard::Message(json!({"type": "connection_ack"})));
        client
    }

    /// As whoever the gateway's own requests are from.
    async fn of(gateway: &Gateway) -> Self {
        let payload = gateway.bearer().map(|token| json!({"authorization": format!("Bearer {token}")}));
        Self::begin(&gateway.url, payload.unwrap_or(Value::Null)).await
    }

    async fn say(&mut self, message: Value) {
        self.text(&message.to_string()).await;
    }

    async fn text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({"type": "subscribe", "id": id, "payload": {"query": query}})).await;
    }

    /// The next message of the protocol, or the end.
    async fn hear(&mut self) -> Heard {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("nothing comes") {
                Some(Ok(Message::Text(text))) => return Heard::Message(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    // A client says good-bye, too.
                    while let Ok(Some(Ok(_))) = timeout(Duration::from_secs(1), self.0.next()).await {}
                    return Heard::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Close(None))) => return Heard::Closed(1005, String::new()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(_)) | None => return Heard::Gone,
            }
        }
    }

    async fn message(&mut self) -> Value {
        match self.hear().await {
            Heard::Message(message) => message,
            end => panic!("{end:?}"),
        }
    }

    /// The code with which it ends; what comes before is passed over.
    async fn end(&mut self) -> (u16, String) {
        loop {
            match self.hear().await {
                Heard::Message(_) => {}
                Heard::Closed(code, reason) => return (code, reason),
                Heard::Gone => panic!("the connection broke"),
            }
        }
    }

    /// The data of a query, or its errors.
    async fn ask(&mut self, id: &str, query: &str) -> Value {
        self.subscribe(id, query).await;
        let mut answer = self.message().await;
        assert_eq!(answer["id"], id, "{answer}");
        if answer["type"] == "next" {
            assert_eq!(self.message().await, json!({"type": "complete", "id": id}));
        }
        answer["payload"].take()
    }
}

/// Connects so that this machine takes no more than a few kilobytes before somebody reads.
async fn narrow(host: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    socket.connect(host.parse().unwrap()).await
}

/// A value of the metrics.
async fn metric(gateway: &Gateway, line: &str) -> Option<f64> {
    metric_of(&gateway.client, &gateway.url, line).await
}

async fn metric_of(client: &reqwest::Client, url: &str, line: &str) -> Option<f64> {
    let text = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let full = format!("evidence_gateway_{line}");
    text.lines().find_map(|found| found.strip_prefix(&full)?.strip_prefix(' ')?.parse().ok())
}

/// Waits for something that the gateway does a moment later.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
