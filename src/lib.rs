//! Communication Broker: clients log in under a name and a profile, get an address, and send messages
//! to any address, to topics and to queues, over TCP, TLS, WebSocket and secure WebSocket. Nothing is
//! persisted. This crate is the broker as a library; the program `com-broker` is a thin shell around it.
//!
//! # A broker within a program
//!
//! In no registry yet: `com-broker = { path = "../com-broker" }` in `Cargo.toml`, with a clone beside yours.
//!
//! A [`Config`](config::Config) has the settings, a [`Server`](server::Server) binds and runs the broker, a
//! [`Handle`](server::Handle) controls it:
//!
//! ```
//! use com_broker::config::{Config, Listener};
//! use com_broker::limits::Limits;
//! use com_broker::server::{Outcome, Server};
//! use com_broker::Keys;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What clients log in with: the key of the application, then one for each profile.
//! let keys = Keys::new("app-8c1f", ["agent-57ab", "super-c0ff", "service-91d2", "admin-e4a7"])?;
//! let config = Config::builder(keys)
//!     .listener(Listener::new("127.0.0.1:0".parse()?))
//!     .limits(Limits { connections_max: 100, ..Limits::default() })
//!     .build()?;
//!
//! // In a thread of its own. Port 0 lets the system choose a port.
//! let running = Server::bind(config)?.spawn()?;
//! println!("clients find it at {}", running.addresses()[0]);
//!
//! // Notifies every client, writes what is queued, and ends.
//! running.handle().drain()?;
//! assert_eq!(running.join()?.outcome, Outcome::Drained);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embedded.rs` does the same and sends a message through it.
//!
//! # Where to start
//!
//! - [`server`]: bind, run, drain, reload; which settings of its process a server changes.
//! - [`config`]: a configuration from code or from a file, and the rules for both.
//! - [`limits`]: every bound by name. The names are those of the file, of the log, and of the ERROR frames
//!   that clients get.
//! - [`Keys`] and [`Profile`]: what clients log in with. [`ByProfile`]: one value for each profile.
//!
//! What goes over the wire is described in `docs/protocol.md`, how to run the program in
//! `docs/operations.md`, how it is built in `ARCHITECTURE.md`.
//!
//! # The turn
//!
//! A server is one thread with one event loop. In each turn it reads from connections that are readable, each within
//! its share, as far as the turn's budget goes; reads the letters that handles have posted; writes once to each
//! connection with new frames; and then checks deadlines and slow consumers. The guarantees are:
//!
//! - Frames of one connection are handled in the order in which they were sent, and messages from one
//!   connection to another arrive in that order.
//! - A request of a handle is carried out in the turn after it was posted, wholly between two reads: no frame
//!   is handled with half of a reload applied.
//! - The bytes read from one connection in a turn are bounded, and a client that does not read is cut off
//!   before its queue exceeds its bound in [`Limits`](limits::Limits).
//! - The work of a turn is bounded, too (`turn_units_max`): a connection has a share of it (`share_units_max`), and
//!   what a request makes large, such as a message to 10,000 receivers, goes on in later turns. Meanwhile nothing
//!   else of that client is handled.
//! - An idle loop sleeps without a timeout until the kernel has an event.
//!
//! # What is not API
//!
//! Everything that is not named above. The module `internal` is for the program, the tests, the fuzz
//! targets and the benchmarks of this repository, and changes without notice. Log lines are for people
//! and their tools: their `key=value` pairs are described in `docs/operations.md`; pairs may be added, but
//! are not removed. A logger of the program's own gets the words as the message of a record, and the pairs
//! as its key-values (feature `kv` of the `log` crate). Enums marked as non-exhaustive may get more
//! variants.

mod broker;
mod buffer;
mod calendar;
mod classic;
mod cli;
pub mod config;
mod cores;
mod dialect;
mod engine;
mod http;
mod input;
mod json;
pub mod limits;
mod logger;
mod outbound;
mod profile;
mod ranking;
mod reactor;
pub mod server;
mod stomp;
mod telemetry;
mod text;
mod transport;
mod work;

pub use broker::Keys;
pub use profile::{ByProfile, Profile};

/// For the program, the tests, the fuzz targets and the benchmarks of this repository. It is not API
/// and changes without notice.
#[doc(hidden)]
pub mod internal {
    pub mod broker {
        pub use crate::broker::encode::Head;
        pub use crate::broker::encoding::Encoding;
        pub use crate::broker::ids::PeerId;
        pub use crate::broker::levels::Levels;
        pub use crate::broker::message::{Content, Message, Origin, UserLines};
        pub use crate::broker::peer::Opening;
        pub use crate::broker::speaker::{Data, Done, Speaker, Verdict};
        pub use crate::broker::{Broker, CloseReason, Code, Keys, Moment, Options, Rights};
        pub use crate::dialect::Dialect;
        pub use crate::profile::Profile;
    }
    pub mod classic {
        pub use crate::classic::Frame;
    }
    pub mod cli {
        pub use crate::cli::{Arguments, run};
    }
    pub mod engine {
        pub use crate::engine::{Accepted, ConnectionId, Engine, Socket};
    }
    pub mod outbound {
        pub use crate::outbound::Framing;
    }
    pub mod stomp {
        pub use crate::stomp::{Assembler, Frame, Headers, Name, ScanBounds, Version};
    }
    pub mod telemetry {
        pub use crate::telemetry::Latencies;
    }
    pub mod work {
        pub use crate::work::{ESCAPED_LINE, FREE, HANDSHAKE, READ, SOCKET, WRITE};
    }
    pub mod transport {
        pub use crate::transport::prefix::PrefixLayer;
        pub use crate::transport::tls::TlsService;
        pub use crate::transport::upgrade::{UpgradeLayer, Upgraded};
        pub use crate::transport::websocket::{Message, WebSocketLayer};
        pub use crate::transport::{
            FrameBound, ListenerPolicy, Protocols, TlsMode, TransportFault,
        };
    }
}
