//! Connections that stay: WebSockets and event streams, a *socket* each. How many there may be, what one may do, and
//! how long its client may be silent or not read.

use std::time::Duration;

use clap::Args;

use crate::config::Range;

/// How sockets are bounded.
#[derive(Debug, Clone, Args)]
pub struct SocketSettings {
    /// WebSockets and event streams at most, 1 to 100000. They count among the connections, and leave room for requests.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_SOCKETS", default_value_t = 768, value_parser = Range(1, 100_000), global = true)]
    pub max_sockets: u32,

    /// Those of one user, agent or API key at most, 1 to 100000. Who is nobody in particular is not counted.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_SOCKETS_PER_VIEWER", default_value_t = 100, value_parser = Range(1, 100_000), global = true)]
    pub max_sockets_per_viewer: u32,

    /// Operations that one socket may have open at most, 1 to 10000.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_SOCKET_OPERATIONS", default_value_t = 100, value_parser = Range(1, 10_000), global = true)]
    pub max_socket_operations: u32,

    /// Bytes of a message that a client sends over a WebSocket at most, 1024 to 104857600.
    #[arg(long, env = "EVIDENCE_GATEWAY_MAX_MESSAGE_BYTES", default_value_t = 1_048_576, value_parser = Range(1_024, 104_857_600), global = true)]
    pub max_message_bytes: u32,

    /// How long a client may take to say connection_init, or to open a stream that it reserved, in milliseconds, 100 to
    /// 60000.
    #[arg(long, env = "EVIDENCE_GATEWAY_SOCKET_INIT_MS", default_value_t = 5_000, value_parser = Range(100, 60_000), global = true)]
    pub socket_init_ms: u32,

    /// How often a WebSocket is sent a ping and an event stream a comment, in milliseconds, 100 to 600000: shorter than a
    /// proxy in front lets connections lie idle.
    #[arg(long, env = "EVIDENCE_GATEWAY_KEEP_ALIVE_MS", default_value_t = 15_000, value_parser = Range(100, 600_000), global = true)]
    pub keep_alive_ms: u32,

    /// How long the client of a WebSocket may leave a ping without an answer, in milliseconds, 100 to 3600000.
    #[arg(long, env = "EVIDENCE_GATEWAY_PONG_TIMEOUT_MS", default_value_t = 60_000, value_parser = Range(100, 3_600_000), global = true)]
    pub pong_timeout_ms: u32,

    /// How long the client of a socket may not read, in milliseconds, 100 to 3600000. Until then nothing is lost to it and
    /// nothing piles up for it: what it misses is read from the change log when it reads again.
    #[arg(long, env = "EVIDENCE_GATEWAY_SEND_TIMEOUT_MS", default_value_t = 120_000, value_parser = Range(100, 3_600_000), global = true)]
    pub send_timeout_ms: u32,

    /// Bytes that the kernel buffers for one connection's client at most, 4096 to 16777216.
    #[arg(long, env = "EVIDENCE_GATEWAY_SEND_BUFFER_BYTES", default_value_t = 262_144, value_parser = Range(4_096, 16_777_216), global = true)]
    pub send_buffer_bytes: u32,

    /// How long a ticket is good, in seconds, 1 to 3600: what `POST /graphql/ticket` gives to browsers, whose sockets can
    /// send no headers.
    #[arg(long, env = "EVIDENCE_GATEWAY_TICKET_TTL_S", default_value_t = 30, value_parser = Range(1, 3_600), global = true)]
    pub ticket_ttl_s: u32,
}

impl SocketSettings {
    /// How long a client may take to begin.
    pub fn init_timeout(&self) -> Duration {
        Duration::from_millis(self.socket_init_ms.into())
    }

    /// Between two signs of life.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.keep_alive_ms.into())
    }

    /// How long a ping may stay without an answer.
    pub fn pong_timeout(&self) -> Duration {
        Duration::from_millis(self.pong_timeout_ms.into())
    }

    /// How long a client may not read.
    pub fn send_timeout(&self) -> Duration {
        Duration::from_millis(self.send_timeout_ms.into())
    }
}
