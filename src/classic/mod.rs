//! The classic dialect's frames: reading what clients send, writing what they get.
//!
//! It knows nothing of sessions, sockets or time; the envelope around a frame belongs to the
//! transport.

pub mod encode;
pub mod frame;

pub use frame::{Command, Frame, FrameFault};
