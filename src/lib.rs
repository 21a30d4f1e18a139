//! Communication Broker: clients log in under a name and a profile, get an address, and send
//! messages to any address, over TCP, TLS, WebSocket and secure WebSocket.

pub mod broker;
pub mod cli;
pub mod client;
pub mod limits;
pub mod transport;
