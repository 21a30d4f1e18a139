//! Frames of standard STOMP, and what both dialects share: header lines, and the names that have a
//! meaning to the broker.
//!
//! It does not know sessions, sockets or time.

pub(crate) mod assembler;
pub(crate) mod encode;
pub(crate) mod frame;
pub(crate) mod headers;
pub(crate) mod lines;
pub(crate) mod lookalike;
pub(crate) mod version;

pub use assembler::Assembler;
pub(crate) use frame::{Command, Malformed, ScanFault};
pub use frame::{Frame, ScanBounds};
pub(crate) use headers::{HeaderLine, LineFault};
pub use headers::{Headers, Name};
pub use version::Version;
