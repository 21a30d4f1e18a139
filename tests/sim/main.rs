//! Tests that drive the engine without sockets and without a clock of their own.
#![allow(clippy::unwrap_used)]

mod client;
mod faults;
mod random;
mod rig;
mod scripted_socket;
mod transcripts;
