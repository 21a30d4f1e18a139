//! Communication Broker: clients log in under a name and a profile, get an address, and send
//! messages to any address, over TCP, TLS, WebSocket and secure WebSocket.
//!
//! What is API: [`server`], [`config`], [`limits`], [`Profile`] and [`Keys`]. `ARCHITECTURE.md`
//! draws the floors that the other modules stand on; each module says what it provides and what it
//! does not know.

mod broker;
mod classic;
mod cli;
pub mod client;
pub mod config;
mod cores;
mod engine;
mod http;
mod input;
pub mod limits;
mod logger;
mod outbound;
mod reactor;
pub mod server;
mod stomp;
mod telemetry;
mod transport;

pub use broker::{Keys, Profile};

/// What the program, the tests, the fuzz targets and the benchmarks of this repository use. It is
/// not API: it changes without notice.
#[doc(hidden)]
pub mod internal {
    pub mod broker {
        pub use crate::broker::encode::Head;
        pub use crate::broker::encoding::Encoding;
        pub use crate::broker::ids::PeerId;
        pub use crate::broker::levels::Levels;
        pub use crate::broker::message::{Content, Message, Origin, UserLines};
        pub use crate::broker::peer::Opening;
        pub use crate::broker::{
            Broker, CloseReason, Code, Keys, Moment, Options, Profile, Rights,
        };
    }
    pub mod classic {
        pub use crate::classic::*;
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
    pub mod transport {
        pub use crate::transport::prefix::PrefixLayer;
        pub use crate::transport::upgrade::{UpgradeLayer, Upgraded};
        pub use crate::transport::websocket::{Message, WebSocketLayer};
        pub use crate::transport::{
            Dialect, FrameBound, ListenerPolicy, Protocols, TlsMode, TransportError,
        };
    }
}
