//! A rig for the engine: scripted sockets, a virtual clock, and turns in the order of the reactor.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use com_broker::ByProfile;
use com_broker::internal::broker::{Keys, Moment, Options};
use com_broker::internal::engine::{Accepted, ConnectionId, Engine};
use com_broker::internal::telemetry::Latencies;
use com_broker::internal::transport::ListenerPolicy;
use com_broker::limits::Limits;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::random::Random;
use crate::scripted_socket::ScriptedSocket;

/// The application key of recorded connections.
pub(crate) const APPLICATION_KEY: &str = "my_app_secret_key";

/// The profile keys of recorded connections.
pub(crate) const PROFILE_KEYS: ByProfile<&str> = ByProfile::new([
    "my_agent_secret_key",
    "my_super_agent_secret_key",
    "my_service_secret_key",
    "my_admin_secret_key",
]);

/// An engine, its clock and its sockets.
pub(crate) struct Rig {
    /// The engine under test.
    pub(crate) engine: Engine<ScriptedSocket>,
    /// Counts the writes to all sockets.
    pub(crate) ticks: Rc<Cell<u64>>,
    now: Moment,
    is_late: bool,
}

impl Rig {
    /// An engine without connections, at noon of some day.
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self::with(limits, seed, |_| {})
    }

    /// An engine whose broker has further options.
    pub(crate) fn with(limits: Limits, seed: u64, change: impl FnOnce(&mut Options)) -> Self {
        let mut random = Random::new(seed);
        let entropy = move || u128::from(random.next()) << 64 | u128::from(random.next());
        let keys = Keys::new(APPLICATION_KEY, PROFILE_KEYS).unwrap();
        let mut options = Options::new(limits, keys, Box::new(entropy));
        change(&mut options);
        Self {
            engine: Engine::new(
                options,
                Some(Arc::clone(&identity().server).into()),
                Latencies::new(SystemTime::UNIX_EPOCH),
            ),
            ticks: Rc::default(),
            now: Moment { ns: 1, unix_ms: 1_795_435_200_000 },
            is_late: false,
        }
    }

    /// Accepts a connection, or drops its socket if the engine refuses it.
    pub(crate) fn accept(&mut self, socket: ScriptedSocket) -> Option<ConnectionId> {
        self.accept_on(socket, ListenerPolicy::default())
    }

    /// Accepts a connection on a listener with that policy.
    pub(crate) fn accept_on(
        &mut self,
        socket: ScriptedSocket,
        policy: ListenerPolicy,
    ) -> Option<ConnectionId> {
        let address = "192.0.2.1:50000".parse().unwrap();
        let accepted = Accepted { address, policy, listener: 0 };
        self.engine.accept(socket, accepted).ok()
    }

    /// Accepts a connection from an address.
    pub(crate) fn accept_from(
        &mut self,
        socket: ScriptedSocket,
        address: IpAddr,
    ) -> Option<ConnectionId> {
        let address = SocketAddr::new(address, 50_000);
        let accepted = Accepted { address, policy: ListenerPolicy::default(), listener: 0 };
        self.engine.accept(socket, accepted).ok()
    }

    /// One turn of the loop, in the order of the reactor. Returns the sockets that were dropped.
    pub(crate) fn turn(&mut self) -> Vec<(ConnectionId, ScriptedSocket)> {
        self.turn_after(self.now)
    }

    /// A turn after a poll that told what was ready at that time.
    pub(crate) fn turn_after(&mut self, told: Moment) -> Vec<(ConnectionId, ScriptedSocket)> {
        self.run_turn(told);
        self.engine.check_invariants();
        self.take_closed()
    }

    /// A turn, without checks.
    pub(crate) fn bare_turn(&mut self) {
        self.run_turn(self.now);
    }

    /// The sockets that were dropped.
    pub(crate) fn take_closed(&mut self) -> Vec<(ConnectionId, ScriptedSocket)> {
        std::iter::from_fn(|| self.engine.take_closed()).collect()
    }

    fn run_turn(&mut self, told: Moment) {
        self.begin_turn(told);
        self.engine.receive(self.now);
        self.engine.flush(self.now);
        self.engine.settle(self.now);
    }

    /// Begins a turn after such a poll.
    pub(crate) fn begin_turn(&mut self, told: Moment) {
        let is_late = std::mem::take(&mut self.is_late);
        let due_ms = if is_late { self.engine.next_deadline_ms() } else { Some(self.now.ms()) };
        self.engine.begin_turn(due_ms, self.now, told.ns);
    }

    /// Moves the clock while the loop does not run, whatever is due.
    pub(crate) fn pause(&mut self, ms: u64) {
        self.advance(ms);
        self.is_late = true;
    }

    /// Moves the clock; the next turn is in time.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.now.ns += ms * 1_000_000;
        self.now.unix_ms += ms;
    }

    /// The time without the pauses in which the loop should have run.
    pub(crate) fn patient_ms(&self) -> u64 {
        self.now.ms() - self.engine.late_ms()
    }

    /// The time.
    pub(crate) fn now(&self) -> Moment {
        self.now
    }
}

/// A certificate for both ends of TLS.
pub(crate) struct Identity {
    server: Arc<rustls::ServerConfig>,
    /// TLS 1.2, which existing clients use.
    pub(crate) client: Arc<rustls::ClientConfig>,
    /// TLS 1.3, which sends the first data along with the end of the handshake.
    pub(crate) modern_client: Arc<rustls::ClientConfig>,
}

/// The certificate of all tests, made once since that takes long.
pub(crate) fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client_of = |version| {
            let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            client.enable_sni = false;
            client.resumption = rustls::client::Resumption::disabled();
            Arc::new(client)
        };
        let client = client_of(&rustls::version::TLS12);
        let modern_client = client_of(&rustls::version::TLS13);
        Identity { server: Arc::new(server), client, modern_client }
    })
}
