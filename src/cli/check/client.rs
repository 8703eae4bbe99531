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
        let reply = self.attempt(method, path, headers, body).await;
        if reply.is_none() {
            self.stream = None;
        }
        reply
    }

    async fn attempt(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Option<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await.ok()?,
        };
        stream.set_nodelay(true).ok()?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: check\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut received = Vec::new();
        loop {
            if stream.read_buf(&mut received).await.ok()? == 0 {
                return None;
            }
            let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&received[..end]).ok()?.to_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(Some(0), |length| length.parse().ok())?;
            while received.len() < end + 4 + length {
                if stream.read_buf(&mut received).await.ok()? == 0 {
                    return None;
                }
            }
            self.stream = Some(stream);
            let status = head.split(' ').nth(1)?.parse().ok()?;
            return Some(Reply { status, head, body: received.split_off(end + 4) });
        }
    }
}
