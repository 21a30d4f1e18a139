//! Communication Broker: clients log in under a name and a profile, get an address, and send
//! messages to any address, over TCP, TLS, WebSocket and secure WebSocket.
//!
//! `ARCHITECTURE.md` draws the floors that the modules stand on; each module says what it provides
//! and what it does not know.

pub mod broker;
pub mod classic;
pub mod cli;
pub mod client;
pub mod config;
pub mod engine;
pub mod http;
pub mod input;
pub mod limits;
pub mod logger;
pub mod outbound;
pub mod reactor;
pub mod server;
pub mod stomp;
pub mod telemetry;
pub mod transport;
