//! The two dialects of `docs/protocol.md`: the transport detects the dialect of a connection, the broker
//! implements both.

/// The dialect of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Each frame is one envelope or one WebSocket message.
    Classic,
    /// STOMP 1.0, 1.1, 1.2.
    Standard,
}
