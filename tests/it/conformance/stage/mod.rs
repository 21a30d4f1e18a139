//! The stage of a statement: brokers, and clients with names of their own, so that statements can be
//! checked at the same time.

mod classic;
mod client;
mod link;

use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use classic::ClassicClient;
pub(crate) use client::{Client, Ending};
pub(crate) use link::{Arrival, Link};

use crate::support::client::Profile;
pub(crate) use crate::support::client::Transport as Carrier;
pub(crate) use crate::support::frame::Frame;
pub(crate) use crate::support::server::{APPLICATION_KEY, Server, Setup};

/// The brokers of one transport: one with defaults, one with small limits and few rights.
pub(crate) struct House {
    plain: Server,
    strict: Server,
}

impl House {
    pub(crate) fn open() -> Self {
        let strict = Setup::new().limits(STRICT_LIMITS).sections(STRICT_SECTIONS);
        Self { plain: Server::start(), strict: strict.start() }
    }
}

/// The limits of the strict broker.
const STRICT_LIMITS: &str = r#"
connect_ms_max = 2_000
websocket_pong_ms_max = 300
login_frame_bytes_max = "1 KiB"
login_id_bytes_max = "512 B"
body_bytes_max = "64 KiB"
header_bytes_max = "4 KiB"
header_count_max = 20
heart_beat_ms_min = 100
heart_beat_margin_ms = 200
transactions_max = 3
transaction_bytes_max = "16 KiB"
subscriptions_per_session_max = 5
subscription_id_bytes_max = 32
prefetch_max = 4
queue_messages_max = 5
deliveries_max = 3
takeovers_max = 2
"#;

const STRICT_SECTIONS: &str = r#"
[rights.agent]
send = ["/topic/open/>", "/agent/>"]
subscribe = ["/topic/open/*"]

[stomp]
virtual_hosts = ["broker.example", "second.example"]

[queues]
dead_letter_queue = "/queue/dead"
"#;

/// A broker to check one statement against, over one transport.
pub(crate) struct Stage<'h> {
    house: &'h House,
    broker: &'h Server,
    carrier: Carrier,
}

impl<'h> Stage<'h> {
    pub(crate) fn new(house: &'h House, carrier: Carrier) -> Self {
        Self { house, broker: &house.plain, carrier }
    }

    /// A stage with the strict broker.
    pub(crate) fn strict(&self) -> Self {
        Self { house: self.house, broker: &self.house.strict, carrier: self.carrier }
    }

    /// A stage with a broker that may be stopped.
    pub(crate) fn with<'b>(&self, broker: &'b Server) -> Stage<'b>
    where
        'h: 'b,
    {
        Stage { house: self.house, broker, carrier: self.carrier }
    }

    /// A stage with the same broker over another transport.
    pub(crate) fn over(&self, carrier: Carrier) -> Self {
        Self { carrier, ..*self }
    }

    /// A unique name with this beginning.
    pub(crate) fn name(&self, beginning: &str) -> String {
        static LAST: AtomicU32 = AtomicU32::new(0);
        format!("{beginning}-{}", LAST.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn topic(&self) -> String {
        self.name("/topic/t")
    }

    pub(crate) fn queue(&self) -> String {
        self.name("/queue/q")
    }

    pub(crate) fn agent(&self) -> Client {
        self.client(Profile::Agent, "1.2")
    }

    pub(crate) fn super_agent(&self) -> Client {
        self.client(Profile::SuperAgent, "1.2")
    }

    pub(crate) fn service(&self) -> Client {
        self.client(Profile::Service, "1.2")
    }

    /// A client that is logged in under a unique name, with a version of STOMP.
    pub(crate) fn client(&self, profile: Profile, version: &str) -> Client {
        self.join(&self.name("login"), profile, version)
    }

    /// A client that is logged in.
    pub(crate) fn join(&self, login: &str, profile: Profile, version: &str) -> Client {
        let mut client = self.stranger();
        client.log_in(&connect(login, profile, &format!("accept-version:{version}\n")));
        client
    }

    /// A client of version 1.2 that is logged in with `resume`.
    pub(crate) fn resume(&self, login: &str, profile: Profile) -> Client {
        let mut client = self.stranger();
        client.log_in(&connect(login, profile, "accept-version:1.2\nresume:true\n"));
        client
    }

    /// A client that has negotiated heart-beats.
    pub(crate) fn beating(&self, beats: &str) -> Client {
        let mut client = self.stranger();
        let more = format!("accept-version:1.2\nheart-beat:{beats}\n");
        client.log_in(&connect(&self.name("login"), Profile::Agent, &more));
        client
    }

    /// A connection on which nothing was sent yet.
    pub(crate) fn stranger(&self) -> Client {
        Client::new(self.link(SUBPROTOCOLS))
    }

    /// A connection that offers these subprotocols.
    pub(crate) fn link(&self, subprotocols: &str) -> Link {
        Link::open(self.broker, self.carrier, subprotocols)
    }

    /// A client of the classic dialect that is logged in.
    pub(crate) fn classic(&self, profile: Profile) -> ClassicClient {
        self.join_classic(&self.name("login"), profile)
    }

    pub(crate) fn join_classic(&self, login: &str, profile: Profile) -> ClassicClient {
        ClassicClient::log_in(self.broker, self.carrier, profile, login)
    }
}

/// The usual subprotocols of the standard dialect.
const SUBPROTOCOLS: &str = "v10.stomp, v11.stomp, v12.stomp";

/// A CONNECT with login, profile and further header lines.
pub(crate) fn connect(login: &str, profile: Profile, more: &str) -> String {
    let (key, application) = (profile.key(), APPLICATION_KEY);
    format!(
        "CONNECT\n{more}host:broker.example\nlogin:{login}\npasscode:{key}\n\
         secret-key:{application}\n\n"
    )
}
