//! What the two dialects share of the STOMP frame: header lines and the names that mean something
//! to the broker.
//!
//! It knows nothing of sessions, sockets or time.

pub mod headers;

pub use headers::{HeaderLine, Headers, Name};
