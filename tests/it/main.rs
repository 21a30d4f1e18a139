//! The integration tests: the real program over real sockets, for what needs them: the kernel's buffers,
//! foreign TLS and WebSocket, signals, exit codes.
//!
//! Each test starts a broker of its own, so that all run in parallel. Nothing sleeps: a test waits for
//! a condition, with a deadline that is far away.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "deadlines of tests are real time")]

mod cli;
mod conformance;
mod embedded;
mod http;
mod latency;
mod limits;
mod memory;
mod performance;
mod plain;
mod presence;
mod readme;
mod shipped;
mod shutdown;
mod slow_consumer;
mod support;
mod timeouts;
mod tls;
mod websocket;
