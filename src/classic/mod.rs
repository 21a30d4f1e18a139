//! The classic dialect's frames: reading what clients send, writing what they get.
//!
//! It knows nothing of sessions, sockets or time; the envelope around a frame belongs to the
//! transport.

pub(crate) mod encode;
pub(crate) mod frame;

pub use frame::Frame;
pub(crate) use frame::{Command, FrameFault};
