//! Frames of the classic dialect: parsing and encoding.
//!
//! It does not know sessions, sockets or time; the envelope around a frame belongs to the
//! transport.

pub(crate) mod encode;
pub(crate) mod frame;

pub use frame::Frame;
pub(crate) use frame::{Command, FrameFault};
