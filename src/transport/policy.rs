//! The protocols that a listener serves.

/// The protocols that a listener serves, and whether on TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// Protocols that may be spoken above TCP or TLS.
    pub protocols: Protocols,
    /// Whether a connection may, must or must not begin with TLS.
    pub tls: TlsMode,
}

impl Default for ListenerPolicy {
    fn default() -> Self {
        Self { protocols: Protocols::ALL, tls: TlsMode::Optional }
    }
}

/// A set of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// The classic dialect, length-prefixed.
    pub classic: bool,
    /// Standard STOMP frames.
    pub stomp: bool,
    /// WebSocket, carrying either dialect.
    pub ws: bool,
    /// Plain HTTP requests.
    pub http: bool,
}

impl Protocols {
    /// Everything.
    pub const ALL: Self = Self { classic: true, stomp: true, ws: true, http: true };

    /// Nothing.
    pub const NONE: Self = Self { classic: false, stomp: false, ws: false, http: false };
}

/// Whether a listener speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// A ClientHello begins TLS, anything else is plain.
    Optional,
    /// Plain connections are refused.
    Required,
    /// TLS is refused.
    Off,
}
