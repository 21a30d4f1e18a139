//! A small blocking client of the broker, for tools and tests and for programs that talk to the
//! broker from a thread of their own.
//!
//! [`Client`] speaks the classic dialect over TCP (`tcp://`), TLS (`tls://`), WebSocket (`ws://`) and
//! secure WebSocket (`wss://`). [`StandardClient`] speaks standard STOMP over the same transports.
//!
//! ```no_run
//! use com_broker_client::{Client, Event, Options, SendOptions, Target};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new("tls://broker.example:6662")
//!     .login("wat")
//!     .keys(std::env::var("APPLICATION_KEY")?, std::env::var("SERVICE_KEY")?)
//!     .ca("certs/ca.pem");
//! let mut client = Client::connect(&options)?;
//! println!("logged in as {}", client.session().destination);
//!
//! // Copies of the messages to all agents, including those that log in later.
//! for agent in client.subscribe(Target::Pattern("/agent/.*"))? {
//!     println!("watching {}", agent.destination);
//! }
//!
//! client.send_and_wait("/agent/ana", "hello", &SendOptions::default())?;
//!
//! while let Some(event) = client.next(Duration::from_secs(60))? {
//!     match event {
//!         Event::Message(message) => println!("{message:?}"),
//!         Event::Ack(ack) => println!("{} arrived", ack.transaction),
//!         Event::Error(error) => println!("{error}"),
//!         Event::Closed => return Ok(()),
//!     }
//! }
//! client.disconnect()?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing happens between calls: a client that does not call [`Client::next`] for long answers no
//! WebSocket pings, and its messages pile up in the broker until it is cut off as a slow consumer.
//!
//! It does not know the internals of the broker.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod classic;
mod connection;
mod error;
mod event;
mod frame;
mod incoming;
mod login;
mod options;
mod printable;
mod queue;
mod standard;
mod stomp;
mod tls;
mod url;
mod wire;

#[cfg(test)]
mod scripted_broker;
#[cfg(test)]
mod standard_tests;
#[cfg(test)]
mod tests;

pub use classic::{Client, Target};
pub use connection::{Arrival, Connection};
pub use error::{ClientError, TrustFault};
pub use event::{Ack, Event, ListedClient, Message, Retry, ServerError, Session, TransactionId};
pub use frame::{EncodeFault, Envelope, Frame, FrameFault, FrameReader};
pub use options::{Options, SendOptions};
pub use printable::{Printable, is_harmful};
pub use standard::{StandardClient, StandardMessage, StandardTarget};
pub use url::{BrokerUrl, Scheme, UrlFault};

/// The broker's own address, from which presence events come.
pub const BROKER: &str = "STOMP-SERVER";
