//! The fuzz targets, one function each. The same functions replay the corpus in an ordinary test,
//! `tests/sim/corpus.rs`.
//!
//! None may panic, whatever the bytes. Invariants are asserted: chunking is invisible, and the tables of
//! the engine agree after every turn.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use arbitrary::{Arbitrary, Unstructured};
use com_broker::config::{
    Config, ConfigFile, DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS, Overrides,
};
use com_broker::internal::broker::{Keys, Moment, Options};
use com_broker::internal::classic::Frame;
use com_broker::internal::engine::{Accepted, ConnectionId, Engine, Socket};
use com_broker::internal::stomp::{Assembler, Headers, Name, ScanBounds, Version};
use com_broker::internal::telemetry::Latencies;
use com_broker::internal::transport::PrefixLayer;
use com_broker::internal::transport::{FrameBound, ListenerPolicy, Protocols, TransportFault};
use com_broker::internal::transport::{Message, WebSocketLayer};
use com_broker::internal::transport::{UpgradeLayer, Upgraded};
use com_broker::limits::{Limits, OutboundLimits};
use com_broker::{ByProfile, Profile};

/// One frame of the classic dialect.
pub fn classic_frame(data: &[u8]) {
    if let Ok(frame) = Frame::parse(data, &Limits::default()) {
        assert!(data.len() > frame.body.len(), "there is always a command");
        let end = &data[..data.len() - usize::from(!data.ends_with(frame.body))];
        assert!(end.ends_with(frame.body), "the body stands at the end, but for one NUL");
        assert!(frame.headers.lines().all(|line| !line.name.contains(&b':')));
    }
}

/// Header lines, compared with a linear search for each name.
pub fn headers(data: &[u8]) {
    let pairs: Vec<_> = data
        .split(|byte| *byte == b'\n')
        .map(|line| line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(0)))
        .take(64)
        .collect();
    let mut headers = Headers::new(64);
    for (name, value) in &pairs {
        headers.push(name, value).expect("there are no more lines than allowed");
    }
    for (name, _) in &pairs {
        let first = pairs.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        if let Some(known) = Name::parse(name) {
            assert_eq!(known.text().as_bytes(), *name);
            assert_eq!(headers.value(known), first, "the first wins");
        }
    }
    let unknown = pairs.iter().filter(|(name, _)| Name::parse(name).is_none()).count();
    let passing = headers.user_lines().iter().filter(|line| line.passes_through()).count();
    assert!(passing >= unknown, "what means nothing to us passes through");
    assert_eq!(headers.user_lines().is_empty(), passing == 0);
    for version in [Version::V1_1, Version::V1_2] {
        let mut escaped = Vec::new();
        if let Ok(text) = version.unescape(data) {
            version.escape(&text, &mut escaped);
            let again = version.unescape(&escaped).expect("we write no undefined escapes");
            let blank = |byte| matches!(byte, b'\r' | 0);
            let same = text.iter().zip(&*again).all(|(a, b)| a == b || (blank(*a) && *b == b' '));
            assert!(text.len() == again.len() && same, "what was escaped is unescaped");
        }
    }
}

/// The HTTP request that begins a WebSocket, whole and cut.
pub fn upgrade_request(data: &[u8]) {
    let (runs, whole) = cut(data);
    let read = |runs: &[&[u8]]| {
        let mut layer = UpgradeLayer::new(Protocols::ALL, Vec::new());
        let mut control = Vec::new();
        let mut rest = Vec::new();
        let mut outcome = Ok(Upgraded::Partial);
        for run in runs {
            let mut run = run.to_vec();
            let mut wire = &mut run[..];
            if outcome == Ok(Upgraded::Partial) {
                outcome = layer.next_request(&mut wire, BYTES_MAX, &mut control);
            }
            rest.extend_from_slice(wire);
        }
        let rest = outcome.is_ok().then_some(rest);
        (outcome, control, rest)
    };
    assert_eq!(read(&runs), read(&[whole]), "cutting a request changes nothing");
}

/// WebSocket frames, whole and cut.
pub fn websocket_bytes(data: &[u8]) {
    let (runs, whole) = cut(data);
    let read = |runs: &[&[u8]]| {
        let mut layer = WebSocketLayer::default();
        let mut control = Vec::new();
        let mut messages = Vec::new();
        for run in runs {
            let mut run = run.to_vec();
            let mut wire = &mut run[..];
            loop {
                match layer.next_message(&mut wire, &mut control, BOUND) {
                    Ok(Some(Message::Data { lent, .. })) => messages.push(lent.bytes.to_vec()),
                    Ok(Some(Message::Part)) => {}
                    Ok(Some(Message::Closed)) => messages.push(b"closed".to_vec()),
                    Ok(None) => break,
                    Err(error) => return (messages, control, Some(error)),
                }
            }
            assert!(wire.is_empty(), "everything is used up");
            layer.release();
        }
        (messages, control, None)
    };
    assert_eq!(read(&runs), read(&[whole]), "cutting a stream changes nothing");
}

/// Length-prefixed envelopes, whole and cut.
pub fn length_prefix(data: &[u8]) {
    let (runs, whole) = cut(data);
    let read = |runs: &[&[u8]]| -> (Vec<Vec<u8>>, Option<TransportFault>) {
        let mut layer = PrefixLayer::default();
        let mut frames = Vec::new();
        for run in runs {
            let mut run = run.to_vec();
            let mut wire = &mut run[..];
            loop {
                match layer.next_frame(&mut wire, BOUND) {
                    Ok(Some(frame)) => frames.push(frame.bytes.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(wire.is_empty(), "everything is used up");
            layer.release();
        }
        (frames, None)
    };
    let (cut, whole) = (read(&runs), read(&[whole]));
    // A length that counts characters is recognised by the bytes behind it, so that cuts matter there.
    if cut.0.iter().chain(&whole.0).all(|frame| frame.is_ascii()) && data.is_ascii() {
        assert_eq!(cut, whole, "cutting a stream changes nothing");
    }
}

/// A stream of standard STOMP frames, whole and cut.
pub fn standard_stream(data: &[u8]) {
    let (runs, whole) = cut(data);
    let bounds = ScanBounds::new(&narrow_limits(), true);
    let read = |runs: &[&[u8]]| {
        let mut assembler = Assembler::default();
        let mut frames = Vec::new();
        for run in runs {
            let mut wire = *run;
            loop {
                let mut frame = com_broker::internal::stomp::Frame::default();
                match assembler.next_frame(&mut wire, &bounds, &mut frame) {
                    Ok(true) => frames.push(format!("{frame:?}")),
                    Ok(false) => break,
                    Err(_) => return (frames, true),
                }
            }
            assert!(wire.is_empty(), "everything is used up");
            assembler.release();
        }
        (frames, false)
    };
    let ((cut_frames, cut_fault), (frames, fault)) = (read(&runs), read(&[whole]));
    assert_eq!(cut_frames, frames, "cutting a stream changes nothing");
    // In a torn stream, cuts may decide which fault is found first; a whole one has one fault.
    let ended = [whole, b"\n\n\0"].concat();
    if cut_fault || fault {
        assert!(read(&[&ended]).1 && read(&[&runs[..], &[b"\n\n\0"]].concat()).1);
    }
}

/// A configuration file, as far as it can be checked without other files.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("broker.toml");
    match ConfigFile::parse(path, text) {
        Ok(file) if !text.contains("_file") => {
            match Config::resolve(Some((path.into(), file)), &Overrides::default(), &|_| None) {
                Ok(config) => assert!(!config.describe().is_empty()),
                Err(fault) => assert!(fault.to_string().contains("broker.toml"), "{fault}"),
            }
        }
        Ok(_) => {}
        Err(fault) => assert!(fault.to_string().contains("broker.toml"), "{fault}"),
    }
}

/// Clients that do arbitrary things, against the engine in memory.
pub fn session_script(data: &[u8]) {
    let mut source = Unstructured::new(data);
    let mut world = World::new();
    while !source.is_empty() && world.steps < 200 {
        let Ok(step) = Step::arbitrary(&mut source) else { break };
        world.perform(&step);
    }
    world.finish();
}

const BYTES_MAX: u32 = 4096;
const BOUND: FrameBound =
    FrameBound { bytes_max: BYTES_MAX, limit: "body_bytes_max", limit_max: BYTES_MAX };

/// Cuts bytes at places that the first bytes give.
fn cut(data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (cuts, whole) = data.split_at(data.len().min(4));
    let mut runs = Vec::new();
    let mut rest = whole;
    for at in cuts {
        let (run, after) = rest.split_at(rest.len().min(usize::from(*at)));
        runs.push(run);
        rest = after;
    }
    runs.push(rest);
    runs.retain(|run| !run.is_empty());
    (runs, whole)
}

/// An action of a client or an event on its connection. `Room`: the kernel takes this many bytes more
/// from the broker.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Open { speaks: Speaks },
    Connect { who: u8, login: u8, profile: u8 },
    Send { who: u8, to: u8, transaction: bool, body: &'a [u8] },
    Watch { who: u8, whom: u8, pattern: bool },
    Presence { who: u8, snapshot: bool },
    Unsubscribe { who: u8, whom: Option<u8> },
    Acknowledge { who: u8, negative: bool, subscription: u8, message: u8 },
    Transaction { who: u8, what: u8 },
    Disconnect { who: u8 },
    Frame { who: u8, bytes: &'a [u8] },
    Bytes { who: u8, bytes: &'a [u8] },
    EndOfStream { who: u8 },
    Reset { who: u8 },
    Room { who: u8, bytes: u16 },
    Wait { ms: u16 },
    Turn,
    Drain,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Speaks {
    Classic,
    WebSocket,
    Standard,
}

struct World {
    engine: Engine<MemorySocket>,
    clients: Vec<(ConnectionId, Speaks)>,
    now: Moment,
    steps: u32,
}

impl World {
    fn new() -> Self {
        let mut secret = 0;
        let keys = Keys::new(DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS);
        let entropy = Box::new(move || {
            secret += 1;
            secret
        });
        let keys = keys.expect("the development keys are valid");
        let mut options = Options::new(narrow_limits(), keys, entropy);
        options.dead_letter_queue = Some("/queue/b".to_owned());
        let latencies = Latencies::new(SystemTime::UNIX_EPOCH);
        let now = Moment { ns: 1_000_000, unix_ms: 0 };
        Self { engine: Engine::new(options, None, latencies), clients: Vec::new(), now, steps: 0 }
    }

    #[allow(clippy::too_many_lines, reason = "a table of steps")]
    fn perform(&mut self, step: &Step<'_>) {
        self.steps += 1;
        match step {
            Step::Open { speaks } => self.open(*speaks),
            Step::Connect { who, login, profile } => {
                let passcode = DEVELOPMENT_PROFILE_KEYS[Profile::ALL[usize::from(profile % 4)]];
                let login = LOGINS[usize::from(login % 4)];
                let resumes = *profile >= 128;
                let frame = format!(
                    "CONNECT\naccept-version:1.2\nlogin:{login}\npasscode:{passcode}\n\
                     secret-key:{DEVELOPMENT_APPLICATION_KEY}\nresume:{resumes}\n\n\0"
                );
                self.send_frame(*who, frame.as_bytes());
            }
            Step::Send { who, to, transaction, body } => {
                let expiration =
                    if *to >= 128 { format!("expiration:{to}\n") } else { String::new() };
                let to = ADDRESSES[usize::from(*to) % ADDRESSES.len()];
                let transaction = if *transaction { "transaction:t\n" } else { "" };
                let head = format!("SEND\ndestination:{to}\n{transaction}{expiration}\n");
                self.send_frame(*who, &[head.as_bytes(), body, b"\0"].concat());
            }
            Step::Watch { who, whom, pattern } => {
                let (kind, whom) = if *pattern {
                    (1, PATTERNS[usize::from(whom % 4)])
                } else {
                    (0, ADDRESSES[usize::from(*whom) % ADDRESSES.len()])
                };
                let frame = format!(
                    "SUBSCRIBE\nid:{whom}\nack:client\ndestination:{whom}\n\
                     destination-type:{kind}\ntransaction:t\n\n\0"
                );
                self.send_frame(*who, frame.as_bytes());
            }
            Step::Presence { who, snapshot } => {
                let frame = format!(
                    "SUBSCRIBE\ndestination:STOMP-SERVER\ndestination-type:1\n\
                     id:presence\ndestination-id:/agent/.*\nsnapshot:{snapshot}\ntransaction:t\n\n\0"
                );
                self.send_frame(*who, frame.as_bytes());
            }
            Step::Unsubscribe { who, whom } => {
                let line = whom.map_or_else(String::new, |whom| {
                    format!(
                        "id:{0}\ndestination:{0}\n",
                        ADDRESSES[usize::from(whom) % ADDRESSES.len()]
                    )
                });
                let frame = format!("UNSUBSCRIBE\n{line}transaction:t\n\n\0");
                self.send_frame(*who, frame.as_bytes());
            }
            Step::Acknowledge { who, negative, subscription, message } => {
                let command = if *negative { "NACK" } else { "ACK" };
                let transaction = if *subscription >= 128 { "transaction:t\n" } else { "" };
                let (index, generation) = (subscription % 8, 1 + subscription / 8 % 16);
                let id = format!("{index}-{generation}-{message}");
                let frame = format!("{command}\nid:{id}\n{transaction}\n\0");
                self.send_frame(*who, frame.as_bytes());
            }
            Step::Transaction { who, what } => {
                let command = ["BEGIN", "COMMIT", "ABORT"][usize::from(what % 3)];
                let frame = format!("{command}\ntransaction:t\n\n\0");
                self.send_frame(*who, frame.as_bytes());
            }
            Step::Disconnect { who } => self.send_frame(*who, b"DISCONNECT\nreceipt-id:r\n\n\0"),
            Step::Frame { who, bytes } => self.send_frame(*who, bytes),
            Step::Bytes { who, bytes } => {
                self.with_socket(*who, |socket, _| socket.incoming.extend(*bytes));
            }
            Step::EndOfStream { who } => self.with_socket(*who, |socket, _| socket.ended = true),
            Step::Reset { who } => self.with_socket(*who, |socket, _| socket.is_reset = true),
            Step::Room { who, bytes } => {
                self.with_socket(*who, |socket, _| socket.room = usize::from(*bytes));
            }
            Step::Wait { ms } => {
                self.now.ns += u64::from(*ms) * 1_000_000;
                self.now.unix_ms += u64::from(*ms);
                self.turn();
            }
            Step::Turn => self.turn(),
            Step::Drain => {
                self.engine.begin_drain(self.now);
                self.turn();
            }
        }
    }

    fn open(&mut self, speaks: Speaks) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let accepted = Accepted { address, policy: ListenerPolicy::default(), listener: 0 };
        let socket = MemorySocket { room: usize::MAX, ..MemorySocket::default() };
        if let Ok(id) = self.engine.accept(socket, accepted) {
            self.clients.push((id, speaks));
            if speaks == Speaks::WebSocket {
                let last = self.clients.len() - 1;
                self.with_socket(last as u8, |socket, _| socket.incoming.extend(UPGRADE));
            }
        }
    }

    fn send_frame(&mut self, who: u8, frame: &[u8]) {
        self.with_socket(who, |socket, speaks| {
            let length = frame.len() as u16;
            match speaks {
                Speaks::WebSocket => {
                    socket.incoming.extend([0x82, 0xfe]);
                    socket.incoming.extend(length.to_be_bytes());
                    socket.incoming.extend([0; 4]);
                }
                Speaks::Classic => {
                    socket.incoming.push_back(0);
                    socket.incoming.extend(u32::from(length).to_le_bytes());
                }
                Speaks::Standard => {}
            }
            socket.incoming.extend(&frame[..usize::from(length)]);
        });
    }

    fn with_socket(&mut self, who: u8, act: impl FnOnce(&mut MemorySocket, Speaks)) {
        if self.clients.is_empty() {
            return;
        }
        let (id, speaks) = self.clients[usize::from(who) % self.clients.len()];
        if let Some(socket) = self.engine.socket_mut(id) {
            act(socket, speaks);
            self.engine.note_ready(id.slot, true, true);
        }
    }

    fn turn(&mut self) {
        for (id, _) in &self.clients {
            if self.engine.socket_mut(*id).is_some() {
                self.engine.note_ready(id.slot, true, true);
            }
        }
        for _ in 0..TURNS_MAX {
            self.engine.begin_turn(None, self.now, self.now.ns);
            self.engine.receive(self.now);
            self.engine.flush(self.now);
            self.engine.settle(self.now);
            while let Some((closed, _)) = self.engine.take_closed() {
                self.clients.retain(|(id, _)| *id != closed);
            }
            self.engine.check_invariants();
            if !self.engine.has_work() {
                return;
            }
        }
        panic!("the engine is never done");
    }

    /// All clients disconnect, after which nothing is left.
    fn finish(mut self) {
        self.turn();
        self.engine.begin_drain(self.now);
        for _ in 0..8 {
            self.now.ns += 10_000 * 1_000_000;
            self.turn();
        }
        assert!(self.engine.is_empty(), "every connection has a deadline to go");
        let broker = self.engine.broker();
        assert_eq!([broker.sessions_len(), broker.subscriptions_len()], [0; 2]);
    }
}

/// Bound on the turns that handle the work of one step.
const TURNS_MAX: u32 = 1000;

const LOGINS: [&str; 4] = ["ana", "bob", "cobranza/12", "soporte"];

const ADDRESSES: [&str; 12] = [
    "/agent/ana",
    "/agent/bob",
    "/agent/cobranza/12",
    "/service/soporte",
    "/admin/ana",
    "/service/bob",
    "STOMP-SERVER",
    "/nobody",
    "/topic/a/b",
    "/topic/a.*",
    "/queue/a",
    "/queue/b",
];

const PATTERNS: [&str; 4] = ["/agent/.*", "/agent/(ana|bob)", ".*", "(unclosed"];

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: stomp\r\n\r\n";

/// Limits that a script of a few steps reaches.
fn narrow_limits() -> Limits {
    let outbound = OutboundLimits { hard_bytes_max: 4000, soft_bytes_max: 1000, soft_ms_max: 2000 };
    Limits {
        connections_max: 6,
        login_frame_bytes_max: 512,
        body_bytes_max: 2048,
        header_bytes_max: 512,
        header_count_max: 12,
        inbound_total_bytes_max: 4096,
        login_id_bytes_max: 16,
        takeovers_max: 2,
        subscriptions_per_session_max: ByProfile::all(3),
        destinations_max: 8,
        patterns_max: 3,
        transactions_max: 2,
        transaction_bytes_max: ByProfile::all(1000),
        idle_topics_max: 2,
        queue_messages_max: 5,
        queues_bytes_max: 2000,
        queue_ms_max: 3000,
        prefetch_max: 3,
        deliveries_max: 2,
        outbound: ByProfile::all(outbound),
        outbound_total_bytes_max: 8000,
        read_bytes_per_turn_max: 300,
        write_bytes_per_turn_max: 300,
        ..Limits::default()
    }
}

#[derive(Default)]
struct MemorySocket {
    incoming: VecDeque<u8>,
    room: usize,
    ended: bool,
    is_reset: bool,
}

impl Read for MemorySocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.incoming.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.incoming.read(buffer)
    }
}

impl Write for MemorySocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for MemorySocket {
    fn shutdown_write(&mut self) -> io::Result<()> {
        if self.is_reset { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) }
    }
}
