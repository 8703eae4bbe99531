//! One connection to a gateway: HTTP/1.1 as far as the gateway speaks it to a client that asks for nothing special.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is made anew when it is lost.
pub(super) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

/// What came back.
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Client {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Asks; `None` if the gateway is not there.
    pub(super) async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Option<Reply> {
        self.ask_all(&[request(method, path, headers, body)]).await?.pop()
    }

    /// Asks one thing after the other without waiting in between; `None` if the gateway is not there.
    pub(super) async fn ask_all(&mut self, requests: &[String]) -> Option<Vec<Reply>> {
        let replies = self.attempt(requests).await;
        if replies.is_none() {
            self.stream = None;
        }
        replies
    }

    async fn attempt(&mut self, requests: &[String]) -> Option<Vec<Reply>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await.ok()?,
        };
        stream.set_nodelay(true).ok()?;
        stream.write_all(requests.concat().as_bytes()).await.ok()?;
        let (mut received, mut replies) = (Vec::new(), Vec::new());
        while replies.len() < requests.len() {
            match split(&mut received)? {
                Some(reply) => replies.push(reply),
                None if stream.read_buf(&mut received).await.ok()? == 0 => return None,
                None => {}
            }
        }
        self.stream = Some(stream);
        Some(replies)
    }
}

/// A request as it goes over the wire.
pub(super) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: check\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Takes a reply off the front, if all of it is there. The outer `None` is for what is no reply.
fn split(received: &mut Vec<u8>) -> Option<Option<Reply>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Some(None) };
    let head = std::str::from_utf8(&received[..end]).ok()?.to_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Some(0), |length| length.parse().ok())?;
    if received.len() < end + 4 + length {
        return Some(None);
    }
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = received.split_off(end + 4 + length);
    let body = std::mem::replace(received, rest).split_off(end + 4);
    Some(Some(Reply { status, head, body }))
}
