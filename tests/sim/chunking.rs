//! Chunking is invisible for a whole connection: whatever a client says, it gets the same however
//! its bytes are cut on their way, and so does everybody else.
//!
//! Each session is played through the engine as one write, in two pieces cut at every place, byte by
//! byte, and cut at random; over TLS both what goes into records and the ciphertext are cut, and what
//! comes out of it is compared. Session ids come from the same seed in every run, so nothing has to be put aside but
//! the place of a WebSocket's pongs, which may overtake messages.

use std::io::{Read, Write};
use std::sync::Arc;

use com_broker::broker::CloseReason;
use com_broker::engine::ConnectionId;
use com_broker::limits::Limits;
use com_broker::transport::{ListenerPolicy, Protocols, TlsMode};
use proptest::prelude::*;
use rustls::ClientConnection;

use crate::faults::SocketFaults;
use crate::rig::{Rig, identity};
use crate::scripted_socket::ScriptedSocket;

/// What a client says, below what carries it and above TLS.
struct Session {
    name: String,
    octets: Vec<u8>,
    policy: ListenerPolicy,
    /// Whether every connection that may be open is open already.
    is_surplus: bool,
}

/// What a session led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// What the client got before it ended its stream, and behind that.
    got: [Vec<u8>; 2],
    /// WebSocket pongs, which are not in `got`.
    pongs: Vec<u8>,
    /// What another client got meanwhile.
    seen: Vec<u8>,
    reason: Option<CloseReason>,
    /// Whether the broker ended its stream before the client did.
    ended_first: bool,
    was_reset: bool,
}

/// How a session goes over the wire.
#[derive(Debug)]
struct Manner {
    security: Security,
    /// What is written at once; over TLS it has records of its own.
    writes: Cuts,
    /// What the broker reads at once of that.
    wire: Cuts,
}

/// Where something is cut.
#[derive(Debug)]
enum Cuts {
    Nowhere,
    At(Vec<usize>),
    Everywhere,
}

/// What is below the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Plain,
    /// In this version a client says nothing before the broker's last word of the handshake.
    Tls12,
    /// In this one the end of the handshake and the first data are written at once.
    Tls13,
}

#[test]
fn two_pieces_are_as_good_as_one() {
    in_parallel(&sessions(), |session| {
        let whole = session.whole();
        assert!(!whole.got.concat().is_empty(), "{}: nothing came", session.name);
        for cut in 1..session.octets.len() {
            session.check(&whole, &Manner::plain(Cuts::At(vec![cut])));
        }
        session.check(&whole, &Manner::plain(Cuts::Everywhere));
    });
}

#[test]
fn two_pieces_are_as_good_as_one_over_tls() {
    let chosen = |session: &Session| session.is_representative();
    let sessions: Vec<_> = sessions().into_iter().filter(chosen).collect();
    assert_eq!(sessions.len(), REPRESENTATIVES.len(), "a representative is missing");
    in_parallel(&sessions, |session| {
        let whole = session.whole();
        for security in [Security::Tls12, Security::Tls13] {
            let manner = |writes, wire| Manner { security, writes, wire };
            for cut in 1..session.octets.len() {
                session.check(&whole, &manner(Cuts::At(vec![cut]), Cuts::Nowhere));
            }
            session.check(&whole, &manner(Cuts::Everywhere, Cuts::Nowhere));
            session.check(&whole, &manner(Cuts::Nowhere, Cuts::Everywhere));
        }
    });
}

/// The handshake and the records of one session are like those of all.
#[test]
fn ciphertext_may_be_cut_anywhere() {
    let sessions = [sessions().swap_remove(0)];
    in_parallel(&sessions, |session| {
        let whole = session.whole();
        for security in [Security::Tls12, Security::Tls13] {
            let half = session.octets.len() / 2;
            let manner = |wire| Manner { security, writes: Cuts::At(vec![half]), wire };
            let (_, ciphertext) = session.play(&manner(Cuts::Nowhere));
            for cut in 1..ciphertext {
                session.check(&whole, &manner(Cuts::At(vec![cut])));
            }
        }
    });
}

#[test]
fn every_session_is_the_same_over_tls() {
    in_parallel(&sessions(), |session| {
        if session.policy.tls != TlsMode::Required {
            let whole = session.whole();
            for security in [Security::Tls12, Security::Tls13] {
                let manner = |writes, wire| Manner { security, writes, wire };
                session.check(&whole, &manner(Cuts::Nowhere, Cuts::Nowhere));
                session.check(&whole, &manner(Cuts::Everywhere, Cuts::Everywhere));
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_pieces_are_as_good_as_one(
        session in any::<prop::sample::Index>(),
        writes in prop::collection::vec(1..1000_usize, 0..8),
        wire in prop::collection::vec(1..2000_usize, 0..12),
        security in prop::sample::select(vec![Security::Plain, Security::Tls12, Security::Tls13]),
    ) {
        let sessions = sessions();
        let session = session.get(&sessions);
        prop_assume!(security == Security::Plain || session.policy.tls != TlsMode::Required);
        let manner = Manner { security, writes: Cuts::At(writes), wire: Cuts::At(wire) };
        session.check(&session.whole(), &manner);
    }
}

impl Session {
    fn new(name: impl Into<String>, octets: impl Into<Vec<u8>>) -> Self {
        let policy = ListenerPolicy::default();
        Self { name: name.into(), octets: octets.into(), policy, is_surplus: false }
    }

    fn on(self, protocols: Protocols, tls: TlsMode, listener: &str) -> Self {
        let name = format!("{}, {listener}", self.name);
        Self { name, policy: ListenerPolicy { protocols, tls }, ..self }
    }

    fn surplus(self) -> Self {
        Self { name: format!("{}, surplus", self.name), is_surplus: true, ..self }
    }

    fn is_representative(&self) -> bool {
        REPRESENTATIVES.contains(&&self.name[..])
    }

    /// What it leads to when nothing is cut.
    fn whole(&self) -> Outcome {
        self.play(&Manner::plain(Cuts::Nowhere)).0
    }

    fn check(&self, whole: &Outcome, manner: &Manner) {
        let found = self.play(manner).0;
        if found != *whole {
            let text = |outcome: &Outcome| {
                let Outcome { got: [before, after], pongs, seen, .. } = outcome;
                let parts =
                    [before, after, pongs, seen].map(|part| part.escape_ascii().to_string());
                format!("{parts:#?} {:?} {}", outcome.reason, outcome.ended_first)
            };
            let (found, whole) = (text(&found), text(whole));
            panic!("{}, {manner:?}\nfound {found}\nwhole {whole}", self.name);
        }
    }

    /// Plays it, and says how many bytes went over the wire.
    fn play(&self, manner: &Manner) -> (Outcome, usize) {
        let limits = Limits {
            connections_max: if self.is_surplus { 1 } else { 100 },
            body_bytes_max: 2000,
            ..Limits::default()
        };
        let mut stage = Stage::new(limits);
        let witness = stage.accept(ListenerPolicy::default());
        stage.deliver(witness, &envelope(&connect("eye", 2)));
        stage.take_outbound(witness);
        let id = stage.accept(self.policy);
        let mut client = End::new(manner.security);
        let mut written = 0;
        for octets in manner.writes.of(&self.octets, 0) {
            client.write(octets);
            loop {
                let wire = client.take_wire();
                if wire.is_empty() {
                    break;
                }
                for piece in manner.wire.of(&wire, written) {
                    stage.deliver(id, piece);
                    client.handle_wire(&stage.take_outbound(id));
                }
                written += wire.len();
            }
        }
        let mut outcome = Outcome::default();
        outcome.got[0] = client.take_plain();
        outcome.ended_first = stage.has_ended(id);
        stage.end(id);
        client.handle_wire(&stage.take_outbound(id));
        outcome.got[1] = client.take_plain();
        outcome.seen = stage.take_outbound(witness);
        outcome.reason = stage.reason;
        outcome.was_reset = stage.was_reset;
        outcome.put_pongs_aside();
        (outcome, written)
    }
}

impl Manner {
    fn plain(writes: Cuts) -> Self {
        Self { security: Security::Plain, writes, wire: Cuts::Nowhere }
    }
}

impl Cuts {
    /// The pieces of what is written behind so many bytes.
    fn of<'w>(&self, wire: &'w [u8], before: usize) -> Vec<&'w [u8]> {
        let mut at: Vec<_> = match self {
            Self::Nowhere => Vec::new(),
            Self::At(cuts) => cuts.iter().filter_map(|cut| cut.checked_sub(before)).collect(),
            Self::Everywhere => (0..wire.len()).collect(),
        };
        at.retain(|cut| *cut < wire.len());
        at.extend([0, wire.len()]);
        at.sort_unstable();
        at.dedup();
        at.windows(2).map(|ends| &wire[ends[0]..ends[1]]).collect()
    }
}

impl Outcome {
    fn put_pongs_aside(&mut self) {
        let [before, _] = &mut self.got;
        let Some(end) = before.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        if !before.starts_with(b"HTTP/1.1 101 ") {
            return;
        }
        let mut frames = before.split_off(end + 4);
        while let Some((frame, rest)) = split_frame(&frames) {
            let into = if frame[0] == 0x8a { &mut self.pongs } else { &mut *before };
            into.extend_from_slice(frame);
            frames = rest.to_vec();
        }
        before.extend(frames);
    }
}

/// A WebSocket frame of the broker's, and what follows it.
fn split_frame(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = match *octets.get(1)? {
        126 => 4 + usize::from(u16::from_be_bytes(octets.get(2..4)?.try_into().unwrap())),
        short @ 0..126 => 2 + usize::from(short),
        _ => panic!("no answer is so long"),
    };
    octets.split_at_checked(end)
}

/// The engine, and what became of the connection that is cut.
struct Stage {
    rig: Rig,
    reason: Option<CloseReason>,
    was_reset: bool,
    /// The sockets that were let go.
    closed: Vec<(ConnectionId, ScriptedSocket)>,
}

impl Stage {
    fn new(limits: Limits) -> Self {
        let rig = Rig::new(limits, 7);
        Self { rig, reason: None, was_reset: false, closed: Vec::new() }
    }

    fn accept(&mut self, policy: ListenerPolicy) -> ConnectionId {
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        self.rig.accept_on(socket, policy).expect("a place for it")
    }

    fn deliver(&mut self, id: ConnectionId, octets: &[u8]) {
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            socket.push_inbound(octets);
            self.settle(id);
        }
    }

    fn end(&mut self, id: ConnectionId) {
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            socket.end_inbound();
            self.settle(id);
        }
    }

    fn settle(&mut self, id: ConnectionId) {
        self.rig.engine.note_ready(id.slot, true, false);
        loop {
            for (closed, socket) in self.rig.turn() {
                self.was_reset |= socket.resets_when_dropped();
                self.closed.push((closed, socket));
            }
            self.reason = self.rig.engine.close_reason(id).or(self.reason);
            if !self.rig.engine.has_work() {
                return;
            }
        }
    }

    fn socket_mut(&mut self, id: ConnectionId) -> &mut ScriptedSocket {
        let closed = self.closed.iter_mut().find(|(closed, _)| *closed == id);
        match closed {
            Some((_, socket)) => socket,
            None => self.rig.engine.socket_mut(id).expect("a connection that was accepted"),
        }
    }

    fn has_ended(&mut self, id: ConnectionId) -> bool {
        self.socket_mut(id).ended_at().is_some()
    }

    fn take_outbound(&mut self, id: ConnectionId) -> Vec<u8> {
        let socket = self.socket_mut(id);
        std::iter::from_fn(|| socket.take_outbound()).flat_map(|(_, octets)| octets).collect()
    }
}

/// The client's end of the connection, of which only TLS thinks for itself.
struct End {
    tls: Option<Box<ClientConnection>>,
    wire: Vec<u8>,
    plain: Vec<u8>,
}

impl End {
    fn new(security: Security) -> Self {
        let tls = |config: &Arc<rustls::ClientConfig>| {
            let name = "localhost".try_into().unwrap();
            let mut tls = ClientConnection::new(Arc::clone(config), name).unwrap();
            tls.set_buffer_limit(None);
            Box::new(tls)
        };
        let tls = match security {
            Security::Plain => None,
            Security::Tls12 => Some(tls(&identity().client)),
            Security::Tls13 => Some(tls(&identity().modern_client)),
        };
        Self { tls, wire: Vec::new(), plain: Vec::new() }
    }

    fn write(&mut self, octets: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(octets).unwrap(),
            None => self.wire.extend_from_slice(octets),
        }
    }

    fn take_wire(&mut self) -> Vec<u8> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.wire).unwrap();
            }
        }
        std::mem::take(&mut self.wire)
    }

    fn handle_wire(&mut self, mut octets: &[u8]) {
        let Some(tls) = &mut self.tls else { return self.plain.extend_from_slice(octets) };
        while !octets.is_empty() {
            tls.read_tls(&mut octets).unwrap();
            let state = tls.process_new_packets().expect("the broker breaks TLS");
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut plain).unwrap();
            self.plain.extend(plain);
        }
    }

    fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }
}

/// Does something with each session, on as many threads as there are processors.
fn in_parallel(sessions: &[Session], check: impl Fn(&Session) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let index = || next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        while let Some(session) = sessions.get(index()) {
            check(session);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

// -- what clients say -----------------------------------------------------------------------

/// One session of each protocol, of which the ciphertext is cut everywhere.
const REPRESENTATIVES: [&str; 7] = [
    "standard 1.2",
    "standard 1.0",
    "standard 1.1",
    "classic",
    "GET /health HTTP/1.1",
    "WebSocket, classic",
    "WebSocket, standard",
];

fn sessions() -> Vec<Session> {
    let mut all = classic_sessions();
    all.extend(standard_sessions());
    all.extend(http_sessions());
    all.extend(websocket_sessions());
    all.extend(refused_sessions());
    all
}

fn classic_sessions() -> Vec<Session> {
    let login = envelope(&connect("ana", 0));
    let text = "SEND\ndestination:/agent/ana\ntransaction:1\n\nñandú €";
    let flagged = |flag: u8| {
        let frame = "SEND\ndestination:/service/eye\ntransaction:2\n\nseñal";
        let length = (frame.len() as u32).to_be_bytes();
        [&[flag], &length[..], frame.as_bytes()].concat()
    };
    let talk = [
        login.clone(),
        envelope(text.as_bytes()),
        flagged(1),
        flagged(2),
        flagged(128),
        envelope(b"SUBSCRIBE\ndestination:/topic/t\ndestination-type:0\ntransaction:3\n\n"),
        envelope("SEND\ndestination:/topic/t\n\nseñal\0".as_bytes()),
        envelope(b"SEND\ndestination:/agent/nobody\ntransaction:4\n\n"),
        envelope(b"DISCONNECT\nreceipt-id:5\n\n"),
    ];
    let fault = |last: &[u8]| [&login[..], &envelope(text.as_bytes()), last, &login].concat();
    vec![
        Session::new("classic", talk.concat()),
        Session::new("classic, flag 2 first", [flagged(2), login.clone()].concat()),
        Session::new("classic, unknown command", fault(&envelope(b"FLY\n\n"))),
        Session::new("classic, no length", fault(&[0; 5])),
        Session::new("classic, too long", fault(&[1, 0x7f, 0, 0, 0])),
        Session::new("classic, a torn end", fault(b"\0\xff\0\0\0SEND\n")),
        Session::new(
            "classic, wrong key",
            envelope(b"CONNECT\nlogin:a\npasscode:b\nsecret-key:c\n\n"),
        ),
    ]
}

fn standard_sessions() -> Vec<Session> {
    let mut all = Vec::new();
    for version in ["1.0", "1.1", "1.2"] {
        all.push(Session::new(format!("standard {version}"), standard_talk(version)));
    }
    let login = standard_connect("1.2");
    let before = |octets: &str| {
        Session::new(
            format!("standard, {octets:?} first"),
            [
                octets.as_bytes(),
                login.as_bytes(),
                b"SUBSCRIBE\nid:0\nreceipt:r\ndestination:/topic/t\n\n\0",
            ]
            .concat(),
        )
    };
    all.extend(["\n", "\n\n\n", "\r\n", "\r\n\n\r\n"].map(before));
    let crlf =
        login.replace('\n', "\r\n") + "\r\nBEGIN\r\ntransaction:t\r\nreceipt:r\r\n\r\n\0\r\n";
    all.push(Session::new("standard, CRLF", crlf));
    let stomp = login.replacen("CONNECT", "STOMP", 1) + "BEGIN\ntransaction:t\nreceipt:r\n\n\0";
    all.push(Session::new("standard, STOMP", stomp));
    for last in [
        "NOTHING\n\n\0",
        "SEND\nno colon\n\n\0",
        "SEND\ndestination:/topic/x\nreceipt:r9\ncontent-length:1\n\nxy\0",
        "SEND\nreceipt:r9\ndestination:/topic/\u{1}\\q\n\n\0",
        "SEND\ndestination:/topic/x\n\n\0\rSEND\n\n\0",
        "CONNECT\n\n\0",
        "DISCONNECT\n\n\0SEND\n\n\0",
        "SEND\ncontent-length:9999\n\n\0",
    ] {
        let octets = format!("{login}BEGIN\ntransaction:t\nreceipt:r\n\n\0{last}{login}");
        all.push(Session::new(format!("standard, {last:?} last"), octets));
    }
    for first in [
        "CONNECT\nx",
        "CONNECTED\n\n\0",
        "CONNECTx\n\n\0",
        "connect\n\n\0",
        "GETX\n\n\0",
        "DELETE\n\n\0",
        "POST\n\n\0",
        "SEND\ndestination:/topic/x\n\nearly\0",
        "CONNECT\nlogin:x\npasscode:y\n\n\0",
        "\rCONNECT\n\n\0",
    ] {
        all.push(Session::new(format!("standard, {first:?}"), format!("{first}\n{login}")));
    }
    all
}

fn http_sessions() -> Vec<Session> {
    let mut all = Vec::new();
    for (line, more) in [
        ("GET /health HTTP/1.1", "Host: x\r\n\r\n"),
        ("GET /health HTTP/1.0", "\r\n"),
        ("HEAD /health HTTP/1.1", "Host: x\r\n\r\n"),
        ("GET / HTTP/1.1", "Host: x\r\nAccept: text/html\r\n\r\n"),
        ("GET /nothing HTTP/1.1", "Host: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
        ("POST / HTTP/1.1", "Host: x\r\nContent-Length: 5\r\n\r\nhello"),
        ("PUT / HTTP/1.1", "Host: x\r\n\r\nGET /health HTTP/1.1\r\n\r\n"),
        ("DELETE / HTTP/1.1", "Host: x\r\n\r\n"),
        ("PATCH / HTTP/1.1", "Host: x\r\n\r\n"),
        ("TRACE / HTTP/1.1", "Host: x\r\n\r\n"),
        ("OPTIONS * HTTP/1.1", "Host: x\r\n\r\n"),
        ("CONNECT x:80 HTTP/1.1", "Host: x:80\r\n\r\n"),
        ("CONNECT x", "\r\n\r\n"),
        ("GET / HTTP/1.1", "\r\n"),
        ("GET / HTTP/3.7", "\r\n"),
        ("GET / HTTP/1.1", "Host: x\r\n folded\r\n\r\n"),
        ("GET /health HTTP/1.1", "Host: x\n\nrest"),
    ] {
        let name =
            if more == "Host: x\r\n\r\n" { line.to_owned() } else { format!("{line} {more:?}") };
        all.push(Session::new(name, format!("{line}\r\n{more}")));
    }
    all.push(Session::new("a long request", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000))));
    all
}

fn websocket_sessions() -> Vec<Session> {
    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;
    let close = masked(0x88, &1000_u16.to_be_bytes());
    let ping = masked(0x89, b"are you there");
    let classic = [upgrade("stomp"), masked(TEXT, &connect("ana", 0))].concat();
    let send = b"SEND\ndestination:/service/eye\ntransaction:1\n\nhello\0";
    let fragments = [masked(0x01, &send[..20]), ping.clone(), masked(0x80, &send[20..])].concat();
    let mut all = vec![Session::new(
        "WebSocket, classic",
        [
            classic.clone(),
            masked(TEXT, send),
            fragments,
            masked(BINARY, b"SEND\ndestination:/agent/ana\n\n\xff\0"),
            masked(TEXT, b"SEND\ndestination:/agent/ana\n\nlast\0"),
            close.clone(),
            masked(TEXT, send),
        ]
        .concat(),
    )];
    let standard =
        [upgrade("v12.stomp"), masked(TEXT, standard_connect("1.2").as_bytes())].concat();
    let talk = standard_talk("1.2");
    let (first, second) = talk.split_at(talk.len() / 2);
    all.push(Session::new(
        "WebSocket, standard",
        [
            upgrade("v10.stomp, v12.stomp"),
            masked(TEXT, first),
            ping,
            masked(TEXT, second),
            close.clone(),
        ]
        .concat(),
    ));
    let binary = [upgrade(""), masked(BINARY, &talk), close.clone()].concat();
    all.push(Session::new("WebSocket, standard, binary", binary));
    for (name, begun) in [("classic", &classic), ("standard", &standard)] {
        for (what, last) in [
            ("not masked", b"\x81\x02hi".to_vec()),
            ("a reserved bit", masked(0xc1, b"x")),
            ("no text", masked(TEXT, b"\xff")),
            ("too long", masked(BINARY, &[b'x'; 30_000])[..200].to_vec()),
            ("an error", masked(TEXT, b"FLY\n\n\0")),
            (
                "an error between fragments",
                [masked(0x01, b"FLY\n\n\0"), masked(0x80, b"FLY\n\n\0")].concat(),
            ),
            ("a logout", masked(TEXT, b"DISCONNECT\nreceipt:1\nreceipt-id:1\n\n\0")),
            ("a close by itself", Vec::new()),
        ] {
            let octets = [&begun[..], &last, &close, &masked(TEXT, send)].concat();
            all.push(Session::new(format!("WebSocket, {name}, {what}"), octets));
        }
    }
    all
}

/// Connections that a listener does not serve, or that there is no place for.
fn refused_sessions() -> Vec<Session> {
    let speak = || {
        [
            Session::new("classic", envelope(&connect("ana", 0))),
            Session::new("standard", standard_connect("1.2")),
            Session::new("HTTP", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
            Session::new("HEAD", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"),
            Session::new(
                "WebSocket",
                [upgrade("stomp"), masked(0x81, &connect("ana", 0))].concat(),
            ),
            Session::new("WebSocket 1.2", {
                [upgrade("v12.stomp"), masked(0x81, standard_connect("1.2").as_bytes())].concat()
            }),
        ]
    };
    let none = Protocols::NONE;
    let mut all: Vec<_> = speak().into_iter().map(Session::surplus).collect();
    for (protocols, tls, listener) in [
        (none, TlsMode::Optional, "nothing served"),
        (Protocols { ws: true, ..none }, TlsMode::Optional, "WebSocket served"),
        (Protocols { http: true, ..none }, TlsMode::Optional, "HTTP served"),
        (Protocols::ALL, TlsMode::Required, "TLS required"),
    ] {
        all.extend(speak().into_iter().map(|session| session.on(protocols, tls, listener)));
    }
    all
}

fn connect(login: &str, profile: usize) -> Vec<u8> {
    let (key, application) = (crate::rig::PROFILE_KEYS[profile], crate::rig::APPLICATION_KEY);
    format!("CONNECT\nlogin:{login}\npasscode:{key}\nsecret-key:{application}\n\n").into_bytes()
}

fn envelope(frame: &[u8]) -> Vec<u8> {
    [&[0], &(frame.len() as u32).to_le_bytes()[..], frame].concat()
}

fn standard_connect(version: &str) -> String {
    let login = String::from_utf8(connect("ana", 0)).unwrap();
    let versions =
        if version == "1.0" { String::new() } else { format!("accept-version:{version}\n") };
    login.replacen('\n', &format!("\n{versions}host:x\n"), 1) + "\0\n"
}

fn standard_talk(version: &str) -> Vec<u8> {
    let login = standard_connect(version);
    let tell = "SEND\ndestination:/topic/a.b\ncontent-length:5\nreceipt:r2\n\na\0b\n\n\0\n\r\n";
    let held =
        "BEGIN\ntransaction:t\n\n\0SEND\ndestination:/service/eye\ntransaction:t\n\nseñal\0\n";
    format!(
        "{login}SUBSCRIBE\nid:0\ndestination:/topic/a.*\nreceipt:r1\n\n\0\n{tell}{held}\
         COMMIT\ntransaction:t\n\n\0\n\nSEND\ndestination:/agent/nobody\nreceipt:r3\nx:a\\c\n\nñ\0\
         DISCONNECT\nreceipt:r4\n\n\0\n"
    )
    .into_bytes()
}

fn upgrade(subprotocols: &str) -> Vec<u8> {
    let offer = match subprotocols {
        "" => String::new(),
        names => format!("Sec-WebSocket-Protocol: {names}\r\n"),
    };
    format!(
        "GET /stomp?x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    )
    .into_bytes()
}

/// A frame as a WebSocket client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut octets = vec![first];
    match payload.len() {
        length @ 0..126 => octets.push(0x80 | length as u8),
        length => {
            octets.push(0x80 | 126);
            octets.extend((length as u16).to_be_bytes());
        }
    }
    octets.extend(MASK);
    octets.extend(payload.iter().zip(MASK.iter().cycle()).map(|(octet, mask)| octet ^ mask));
    octets
}
