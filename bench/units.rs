//! What a unit of work costs: for each kind of work the processor time of this thread beside the units that the
//! broker counts for it. A unit is meant to be 100 ns (`src/work.rs`).
//!
//! The engine runs on sockets in memory; what the kernel costs is measured with real ones.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser;
use com_broker::config::{DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS};
use com_broker::internal::broker::{Keys, Moment, Options};
use com_broker::internal::engine::{Accepted, ConnectionId, Engine, Socket};
use com_broker::internal::telemetry::Latencies;
use com_broker::internal::transport::ListenerPolicy;
use com_broker::limits::Limits;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

#[derive(Debug, Parser)]
#[command(about = "What a unit of work costs, by kind")]
struct Arguments {
    /// Measures only kinds whose name has this in it
    only: Option<String>,
    /// The median is taken of so many runs
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// A file with a certificate and its RSA key, to measure handshakes with it
    #[arg(long)]
    rsa: Option<std::path::PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    println!("{:34} {:>9} {:>9} {:>8}", "", "ns", "units", "ns/unit");
    let show = |name: &str, measure: &dyn Fn() -> (f64, f64)| {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(&**only)) {
            return;
        }
        let mut runs: Vec<_> = (0..arguments.runs).map(|_| measure()).collect();
        runs.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (ns, units) = runs[runs.len() / 2];
        println!("{name:34} {ns:9.0} {units:9.1} {:8.0}", ns / units);
    };
    for (name, measure) in KINDS {
        show(name, &measure);
    }
    show("TLS 1.3 handshake, ECDSA P-256", &|| handshake(&Identity::ecdsa()));
    if let Some(path) = &arguments.rsa {
        show("TLS 1.3 handshake, RSA", &|| handshake(&Identity::read(path)));
    }
    for (name, measure) in KERNEL {
        show(name, &measure);
    }
}

/// A kind of work: nanoseconds and units of one.
type Kind = (&'static str, fn() -> (f64, f64));

const KINDS: [Kind; 17] = [
    ("SEND to one, 64 bytes", || sends("", "/agent/bob", 64, 40)),
    ("SEND to nobody", || sends("", "/topic/none", 64, 40)),
    ("SEND to nobody, 16 KiB", || sends("", "/topic/none", 16 << 10, 40)),
    ("SEND to one, 16 KiB", || sends("", "/agent/bob", 16 << 10, 4)),
    ("SEND with 200 short lines", || sends(&"a:b\n".repeat(200), "/topic/none", 0, 10)),
    ("SEND with 200 lines with escapes", || {
        sends(&"a\\cb:c\\nd\n".repeat(200), "/agent/bob", 0, 10)
    }),
    ("SEND to 100 subscribers, no write", fan_out),
    ("SEND to a new topic", new_topics),
    ("SEND to a queue that waits", || sends("", "/queue/waits", 64, 40)),
    ("SUBSCRIBE and UNSUBSCRIBE", subscriptions),
    ("SUBSCRIBE to a wildcard and UNSUB.", || subscribe_to("/topic/a/*/>", "")),
    ("SUBSCRIBE to 62 levels and UNSUB.", || {
        let levels: String = (0..60).map(|level| format!("/level-{level}")).collect();
        subscribe_to(&format!("/topic/*{levels}"), "")
    }),
    ("SUBSCRIBE to an expression, UNSUB.", || {
        subscribe_to("/agent/[a-z]{20}", "destination-type:1\n")
    }),
    ("login and end", logins),
    ("deadline", deadlines),
    ("accept and close, no kernel", accepts),
    ("WebSocket fragment of one byte", crumbs),
];

const KERNEL: [Kind; 3] = [
    ("kernel: write", kernel_write),
    ("kernel: read", kernel_read),
    ("kernel: accept and close", kernel_accept),
];

/// A socket in memory, whose other end is a [`Pipe`].
#[derive(Default)]
struct Pipe {
    inbound: Vec<u8>,
    from: usize,
    outbound: Vec<u8>,
    keeps: bool,
}

#[derive(Clone, Default)]
struct End(Rc<RefCell<Pipe>>);

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        let count = buffer.len().min(pipe.inbound.len() - pipe.from);
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffer[..count].copy_from_slice(&pipe.inbound[pipe.from..pipe.from + count]);
        pipe.from += count;
        Ok(count)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        if pipe.keeps {
            pipe.outbound.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for End {
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An engine, and the time.
struct World {
    engine: Engine<End>,
    ns: u64,
}

impl World {
    fn new(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let keys = Keys::new(DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS);
        let mut secret = 1;
        let entropy = Box::new(move || {
            secret += 1;
            secret
        });
        let limits = Limits {
            turn_units_max: 1_000_000_000,
            share_units_max: 1_000_000_000,
            ..Limits::default()
        };
        let options = Options::new(limits, keys.expect("the development keys are valid"), entropy);
        Self {
            engine: Engine::new(
                options,
                tls.map(Into::into),
                Latencies::new(SystemTime::UNIX_EPOCH),
            ),
            ns: 1,
        }
    }

    fn accept(&mut self) -> (ConnectionId, End) {
        let end = End::default();
        let address = "192.0.2.1:5".parse().expect("an address");
        let accepted = Accepted { address, policy: ListenerPolicy::default(), listener: 0 };
        let Ok(id) = self.engine.accept(end.clone(), accepted) else { panic!("no place") };
        (id, end)
    }

    fn join(&mut self, login: &str, more: &str) -> (ConnectionId, End) {
        let (id, end) = self.accept();
        self.say(id, &end, &connect(login, more));
        (id, end)
    }

    fn say(&mut self, id: ConnectionId, end: &End, text: &str) {
        self.write(id, end, text.as_bytes());
        self.turn();
    }

    fn write(&mut self, id: ConnectionId, end: &End, bytes: &[u8]) {
        let mut pipe = end.0.borrow_mut();
        pipe.inbound.clear();
        pipe.from = 0;
        pipe.inbound.extend_from_slice(bytes);
        drop(pipe);
        self.engine.note_ready(id.slot, true, false);
    }

    fn turn(&mut self) {
        loop {
            self.ns += 1_000;
            let now = Moment { ns: self.ns, unix_ms: self.ns / 1_000_000 };
            self.engine.begin_turn(Some(now.ms()), now, now.ns);
            self.engine.receive(now);
            self.engine.flush(now);
            self.engine.settle(now);
            while self.engine.take_closed().is_some() {}
            if !self.engine.has_work() {
                return;
            }
        }
    }

    /// Nanoseconds and units of what is done, each.
    fn measure(&mut self, times: u32, act: impl FnOnce(&mut Self)) -> (f64, f64) {
        let (units, ns) = (self.engine.units(), processor_ns());
        act(self);
        let ns = processor_ns() - ns;
        let units = self.engine.units() - units;
        (ns as f64 / f64::from(times), units as f64 / f64::from(times))
    }
}

fn connect(login: &str, more: &str) -> String {
    let key = DEVELOPMENT_PROFILE_KEYS[com_broker::Profile::SuperAgent];
    format!(
        "CONNECT\naccept-version:1.2\nhost:h\n{more}login:{login}\npasscode:{key}\n\
         secret-key:{DEVELOPMENT_APPLICATION_KEY}\n\n\0"
    )
}

/// SENDs, `at_once` in a read.
fn sends(lines: &str, to: &str, body_bytes: usize, at_once: u32) -> (f64, f64) {
    let mut world = World::new(None);
    let (ana, end) = world.join("ana", "");
    let _bob = world.join("bob", "inbox:true\n");
    let head = format!("SEND\n{lines}destination:{to}\n");
    let text = format!("{head}content-length:{body_bytes}\n\n{}\0", "x".repeat(body_bytes));
    let bytes = text.repeat(at_once as usize);
    let rounds =
        400_000 / (at_once * (200 + body_bytes as u32 / 8 + 50 * lines.lines().count() as u32)) + 5;
    world.say(ana, &end, &bytes);
    world.measure(rounds * at_once, |world| (0..rounds).for_each(|_| world.say(ana, &end, &bytes)))
}

fn fan_out() -> (f64, f64) {
    let mut world = World::new(None);
    let (ana, end) = world.join("ana", "");
    for number in 0..100 {
        let (id, other) = world.join(&format!("r{number}"), "");
        world.say(id, &other, "SUBSCRIBE\nid:0\ndestination:/topic/t\n\n\0");
    }
    let bytes = "SEND\ndestination:/topic/t\n\nhello\0".repeat(50);
    world.say(ana, &end, &bytes);
    world.measure(1_000, |world| (0..20).for_each(|_| world.say(ana, &end, &bytes)))
}

fn new_topics() -> (f64, f64) {
    let mut world = World::new(None);
    let (ana, end) = world.join("ana", "");
    let texts: Vec<String> = (0..100)
        .map(|round| {
            (0..40).map(|one| format!("SEND\ndestination:/topic/{round}/{one}\n\n\0")).collect()
        })
        .collect();
    world.measure(4_000, |world| texts.iter().for_each(|text| world.say(ana, &end, text)))
}

fn subscriptions() -> (f64, f64) {
    subscribe_to("/topic/t", "")
}

fn subscribe_to(name: &str, more: &str) -> (f64, f64) {
    let mut world = World::new(None);
    let (ana, end) = world.join("ana", "");
    let subscribe: String = (0..40)
        .map(|id| {
            format!("SUBSCRIBE\nid:{id}\ndestination:{name}\n{more}\n\0UNSUBSCRIBE\nid:{id}\n\n\0")
        })
        .collect();
    world.say(ana, &end, &subscribe);
    world.measure(2_000, |world| (0..50).for_each(|_| world.say(ana, &end, &subscribe)))
}

fn logins() -> (f64, f64) {
    let mut world = World::new(None);
    let texts: Vec<_> =
        (0..1_000).map(|one| connect(&format!("client-{one}"), "") + "DISCONNECT\n\n\0").collect();
    let places: Vec<_> = (0..1_000).map(|_| world.accept()).collect();
    world.measure(1_000, |world| {
        for (text, (id, end)) in texts.iter().zip(&places) {
            world.write(*id, end, text.as_bytes());
        }
        world.turn();
    })
}

/// Checks of clients whose heart-beats are not due.
fn deadlines() -> (f64, f64) {
    let mut world = World::new(None);
    for number in 0..5_000 {
        world.join(&format!("r{number}"), "heart-beat:0,4000\n");
    }
    world.measure(5_000, |world| {
        world.ns += 3_500_000_000;
        world.turn();
    })
}

fn accepts() -> (f64, f64) {
    let mut world = World::new(None);
    world.measure(2_000, |world| {
        for _ in 0..20 {
            let places: Vec<_> = (0..100).map(|_| world.accept()).collect();
            places.iter().for_each(|(id, _)| world.engine.forget(*id));
            world.turn();
        }
    })
}

fn crumbs() -> (f64, f64) {
    let mut world = World::new(None);
    let (id, end) = world.accept();
    world.say(
        id,
        &end,
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: v12.stomp\r\n\r\n",
    );
    let login = connect("ana", "");
    let mut bytes = vec![0x81, 0x80 | 126];
    bytes.extend((login.len() as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(login.as_bytes());
    world.write(id, &end, &bytes);
    world.turn();
    let fragment = [0x00, 0x81, 0, 0, 0, 0, b'x'];
    world.write(id, &end, &[0x01, 0x81, 0, 0, 0, 0, b'S']);
    world.turn();
    let many = fragment.repeat(1_000);
    world.measure(3_000, |world| {
        for _ in 0..3 {
            world.write(id, &end, &many);
            world.turn();
        }
    })
}

struct Identity {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl Identity {
    fn ecdsa() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
            .expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        Self::new(made.cert.der().clone(), key)
    }

    fn read(path: &std::path::Path) -> Self {
        let certificate = CertificateDer::from_pem_file(path).expect("a certificate");
        Self::new(certificate, PrivateKeyDer::from_pem_file(path).expect("a key"))
    }

    fn new(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a key that fits");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        Self { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// What the broker does for a ClientHello: a key agreement and a signature.
fn handshake(identity: &Identity) -> (f64, f64) {
    let mut world = World::new(Some(Arc::clone(&identity.server)));
    let hellos: Vec<_> = (0..60)
        .map(|_| {
            let name = "localhost".try_into().expect("a name");
            let client = rustls::ClientConnection::new(Arc::clone(&identity.client), name);
            let mut hello = Vec::new();
            client.expect("a client").write_tls(&mut hello).expect("memory");
            hello
        })
        .collect();
    let places: Vec<_> = hellos.iter().map(|_| world.accept()).collect();
    world.measure(hellos.len() as u32, |world| {
        for (hello, (id, end)) in hellos.iter().zip(&places) {
            world.write(*id, end, hello);
        }
        world.turn();
    })
}

const READ_UNITS: f64 = com_broker::internal::work::READ as f64;
const WRITE_UNITS: f64 = com_broker::internal::work::WRITE as f64;
const SOCKET_UNITS: f64 = com_broker::internal::work::SOCKET as f64;

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours =
        TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let theirs = listener.accept().expect("a connection").0;
    theirs.set_nodelay(true).expect("an option");
    (theirs, ours)
}

/// Nanoseconds of a write and of a read, of a hundred each.
fn kernel_calls() -> (f64, f64) {
    let (mut theirs, mut ours) = connected();
    let (message, mut buffer) = ([b'x'; 200], [0; 200]);
    let (mut write_ns, mut read_ns) = (0, 0);
    for _ in 0..20 {
        let began = processor_ns();
        (0..100).for_each(|_| theirs.write_all(&message).expect("room"));
        let written = processor_ns();
        (0..100).for_each(|_| ours.read_exact(&mut buffer).expect("bytes"));
        write_ns += written - began;
        read_ns += processor_ns() - written;
    }
    (write_ns as f64 / 2_000.0, read_ns as f64 / 2_000.0)
}

fn kernel_write() -> (f64, f64) {
    (kernel_calls().0, WRITE_UNITS)
}

fn kernel_read() -> (f64, f64) {
    (kernel_calls().1, READ_UNITS)
}

/// As the reactor does: accept, set options, register; and close. Half of it is counted for each.
fn kernel_accept() -> (f64, f64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let poll = mio::Poll::new().expect("a poll");
    let mut total = 0;
    for _ in 0..300 {
        let ours =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let ns = processor_ns();
        let theirs = listener.accept().expect("a connection").0;
        theirs.set_nonblocking(true).expect("an option");
        theirs.set_nodelay(true).expect("an option");
        let socket = socket2::SockRef::from(&theirs);
        socket.set_keepalive(true).expect("an option");
        let mut source = mio::net::TcpStream::from_std(theirs);
        let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
        poll.registry().register(&mut source, mio::Token(0), interest).expect("a place");
        poll.registry().deregister(&mut source).expect("a place");
        drop(source);
        total += processor_ns() - ns;
        drop(ours);
    }
    (total as f64 / 300.0, 2.0 * SOCKET_UNITS)
}

/// Processor time of this thread in nanoseconds.
fn processor_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
