//! The two dialects of `docs/protocol.md`, by name: the transport detects which is spoken, the broker
//! speaks it.

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Each frame is one envelope or one WebSocket message.
    Classic,
    /// STOMP 1.0, 1.1, 1.2.
    Standard,
}
