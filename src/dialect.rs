//! The two dialects of `docs/protocol.md`, by name: the transport tells which is spoken, the broker speaks
//! it.

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One frame an envelope or WebSocket message.
    Classic,
    /// STOMP 1.0, 1.1, 1.2.
    Standard,
}
