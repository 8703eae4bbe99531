//! What is counted of the connections that stay.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use crate::telemetry::metrics::{add, counters, opts};

/// Codes that are told apart; a client may close with any of some thousands.
const CODES: [u16; 17] =
    [1000, 1001, 1002, 1005, 1006, 1007, 1009, 1011, 1012, 1013, 4400, 4401, 4403, 4406, 4408, 4409, 4429];

/// The counts of sockets. The label `transport` is `websocket` or `events`.
pub struct SocketMetrics {
    open: IntGaugeVec,
    messages: IntCounterVec,
    closes: IntCounterVec,
}

impl SocketMetrics {
    pub(super) fn register(all: &Registry) -> prometheus::Result<Self> {
        let open = opts("sockets_open", "WebSockets and event streams.");
        let messages = "Messages received from clients and sent to them.";
        let closes = "Ends of WebSockets and event streams, by their close code.";
        Ok(Self {
            open: add(all, IntGaugeVec::new(open, &["transport"]))?,
            messages: counters(all, "socket_messages_total", messages, &["transport", "direction"])?,
            closes: counters(all, "socket_closes_total", closes, &["transport", "code"])?,
        })
    }

    /// One more is open.
    pub fn opened(&self, transport: &'static str) {
        self.open.with_label_values(&[transport]).inc();
    }

    /// One has ended with a close code of the WebSocket protocol.
    pub fn closed(&self, transport: &'static str, code: u16) {
        self.open.with_label_values(&[transport]).dec();
        let known = CODES.contains(&code);
        let code = if known { code.to_string() } else { "other".to_owned() };
        self.closes.with_label_values(&[transport, code.as_str()]).inc();
    }

    /// A message has come.
    pub fn received(&self, transport: &'static str) {
        self.messages.with_label_values(&[transport, "in"]).inc();
    }

    /// A message has gone.
    pub fn sent(&self, transport: &'static str) {
        self.messages.with_label_values(&[transport, "out"]).inc();
    }
}
