//! Connections that stay, *sockets* for short: WebSockets (graphql-transport-ws) and event streams (graphql-sse). They
//! differ in how they are spoken to; what they carry, for whom and how it ends is the same.
//!
//! Nothing piles up for a client: each operation has one answer in hand at most, and the next is asked for when the
//! network has taken the one before. A stream that waits is read from the change log later.

mod events;
mod handshake;
mod hub;
mod message;
mod places;
mod reserved;
mod socket;
mod ticket;
mod websocket;

pub use places::Sockets;

pub(super) use events::{get, once, post, stream_of};
pub(super) use handshake::{upgrade, wants_upgrade};
pub(super) use reserved::{STREAM_TOKEN, delete, put};
pub(super) use ticket::ticket;
