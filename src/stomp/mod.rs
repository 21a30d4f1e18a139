//! Standard STOMP's frames, and what both dialects share of them: header lines and the names that
//! mean something to the broker.
//!
//! It knows nothing of sessions, sockets or time.

pub mod assembler;
pub mod encode;
pub mod frame;
pub mod headers;
pub mod lines;
pub mod lookalike;
pub mod version;

pub use assembler::Assembler;
pub use frame::{Command, Frame, Malformed, ScanBounds, ScanFault};
pub use headers::{HeaderLine, Headers, LineFault, Name};
pub use version::Version;
