//! How bytes become frames' bytes: detection, TLS, HTTP upgrade, WebSocket, length prefix.

pub mod policy;

pub use policy::{ListenerPolicy, Protocols, TlsMode};
