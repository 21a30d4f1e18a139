//! Chunking is invisible for a whole connection: a client and all others get the same bytes, however the
//! client's bytes are cut on their way.
//!
//! Each session is played through the engine as one write, in two pieces cut at every place, byte by
//! byte, and cut at random. Over TLS, both plaintext and ciphertext are cut, and the plaintext of answers
//! is compared. Session ids come from the same seed in every run, so that all is comparable except the
//! place of a WebSocket's pongs, which may overtake messages.

use std::io::{Read, Write};
use std::sync::Arc;

use com_broker::internal::broker::CloseReason;
use com_broker::internal::engine::ConnectionId;
use com_broker::internal::transport::{ListenerPolicy, TlsMode};
use com_broker::limits::Limits;
use proptest::prelude::*;
use rustls::ClientConnection;

use crate::faults::SocketFaults;
use crate::rig::{Rig, identity};
use crate::scripted_socket::ScriptedSocket;
use crate::sessions::{REPRESENTATIVES, Session, connect, envelope, long_sessions, sessions};

/// The outcome of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Bytes that the client got before and after the end of its stream.
    got: [Vec<u8>; 2],
    /// WebSocket pongs, which are kept apart from `got`.
    pongs: Vec<u8>,
    /// Bytes that another client got meanwhile.
    seen: Vec<u8>,
    reason: Option<CloseReason>,
    /// Whether the broker ended its stream before the client did.
    ended_first: bool,
    was_reset: bool,
}

/// The way in which a session is sent.
#[derive(Debug)]
struct Manner {
    security: Security,
    /// Cuts between writes; over TLS, each write has its own records.
    writes: Cuts,
    /// Cuts of these bytes between reads of the broker.
    wire: Cuts,
    /// Bytes below TLS, directly behind the last write.
    tail: &'static [u8],
    /// Work for the connection in a turn; the default if `None`.
    share_units: Option<u32>,
}

/// The places of cuts.
#[derive(Debug)]
enum Cuts {
    Nowhere,
    At(Vec<usize>),
    Everywhere,
}

/// The layer below the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Plain,
    /// A client sends no data before the broker's last message of the handshake.
    Tls12,
    /// A client sends its first data together with the end of the handshake.
    Tls13,
}

#[test]
fn a_cut_at_any_place_is_invisible() {
    in_parallel(&sessions(), |session| {
        let whole = session.whole();
        assert!(!whole.got.concat().is_empty(), "{}: nothing came", session.name);
        for cut in 1..session.bytes.len() {
            session.check(&whole, &Manner::plain(Cuts::At(vec![cut])));
        }
        session.check(&whole, &Manner::plain(Cuts::Everywhere));
    });
}

#[test]
fn a_cut_at_any_place_is_invisible_over_tls() {
    let chosen = |session: &Session| session.is_representative();
    let sessions: Vec<_> = sessions().into_iter().filter(chosen).collect();
    assert_eq!(sessions.len(), REPRESENTATIVES.len(), "a representative is missing");
    in_parallel(&sessions, |session| {
        let whole = session.whole();
        for security in [Security::Tls12, Security::Tls13] {
            let manner =
                |writes, wire| Manner { security, writes, wire, tail: b"", share_units: None };
            // The version of TLS makes no difference above it.
            let step = if security == Security::Tls13 { 1 } else { 11 };
            for cut in (1..session.bytes.len()).step_by(step) {
                session.check(&whole, &manner(Cuts::At(vec![cut]), Cuts::Nowhere));
            }
            session.check(&whole, &manner(Cuts::Everywhere, Cuts::Nowhere));
            session.check(&whole, &manner(Cuts::Nowhere, Cuts::Everywhere));
        }
    });
}

/// A share of the turn may end behind any frame, on any layer; the rest is handled in later turns.
#[test]
fn a_share_of_any_size_is_invisible() {
    in_parallel(&sessions().into_iter().chain(long_sessions()).collect::<Vec<_>>(), |session| {
        let whole = session.whole();
        for security in [Security::Plain, Security::Tls12, Security::Tls13] {
            if security != Security::Plain && !session.is_representative() {
                continue;
            }
            for share_units in [1, 7, 15, 23, 40, 90, 400] {
                let (writes, wire, tail) = (Cuts::Nowhere, Cuts::Nowhere, &b""[..]);
                let share_units = Some(share_units);
                session.check(&whole, &Manner { security, writes, wire, tail, share_units });
            }
        }
    });
}

/// The engine itself cuts what is longer than one read; the network may cut at the same place.
#[test]
fn a_cut_at_the_end_of_a_buffer_is_invisible() {
    in_parallel(&long_sessions(), |session| {
        let whole = session.whole();
        assert!(session.bytes.len() > 2 * READ_BYTES, "{} is not long", session.name);
        assert!(whole.seen.len() > 2 * READ_BYTES, "{}: too little came", session.name);
        for security in [Security::Plain, Security::Tls13] {
            let check = |cuts: Vec<usize>| {
                let (writes, wire) = (Cuts::Nowhere, Cuts::At(cuts));
                session.check(
                    &whole,
                    &Manner { security, writes, wire, tail: b"", share_units: None },
                );
            };
            for boundary in [READ_BYTES, 2 * READ_BYTES] {
                (boundary - 1..=boundary + 1).for_each(|cut| check(vec![cut]));
            }
            check((1..session.bytes.len() / 997).map(|piece| 997 * piece).collect());
        }
    });
}

/// For one session of each protocol, since handshake and records are alike in all.
#[test]
fn a_cut_of_the_ciphertext_at_any_place_is_invisible() {
    let session = &sessions()[0];
    let whole = session.whole();
    for security in [Security::Tls12, Security::Tls13] {
        let half = session.bytes.len() / 2;
        let manner = |wire| Manner {
            security,
            writes: Cuts::At(vec![half]),
            wire,
            tail: b"",
            share_units: None,
        };
        let (_, ciphertext) = session.play(&manner(Cuts::Nowhere));
        for cut in 1..ciphertext {
            session.check(&whole, &manner(Cuts::At(vec![cut])));
        }
    }
}

/// A malformed record behind valid ones, which are handled. Only the client that violates TLS may not see
/// that, if the alert is faster.
#[test]
fn data_before_a_violation_of_tls_is_handled() {
    let sessions = sessions();
    let session = sessions.iter().find(|session| session.name == "standard 1.2").unwrap();
    for security in [Security::Tls12, Security::Tls13] {
        let tail = b"\x17\x03\x03\x00\x10not a record at all";
        let manner =
            |wire| Manner { security, writes: Cuts::Nowhere, wire, tail, share_units: None };
        let (whole, ciphertext) = session.play(&manner(Cuts::Nowhere));
        assert_eq!(whole.seen, session.whole().seen);
        assert!(!whole.seen.is_empty());
        for cut in ciphertext - 100..ciphertext {
            let found = session.play(&manner(Cuts::At(vec![cut]))).0;
            assert_eq!(found.seen, whole.seen, "cut at {cut}");
        }
    }
}

#[test]
fn every_session_is_the_same_over_tls() {
    in_parallel(&sessions(), |session| {
        if session.policy.tls != TlsMode::Required {
            let whole = session.whole();
            for security in [Security::Tls12, Security::Tls13] {
                let manner =
                    |writes, wire| Manner { security, writes, wire, tail: b"", share_units: None };
                let half = Cuts::At(vec![session.bytes.len() / 2]);
                session.check(&whole, &manner(Cuts::Nowhere, Cuts::Nowhere));
                session.check(&whole, &manner(half, Cuts::Everywhere));
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_cuts_are_invisible(
        session in any::<prop::sample::Index>(),
        writes in prop::collection::vec(1..1000_usize, 0..8),
        wire in prop::collection::vec(1..2000_usize, 0..12),
        security in prop::sample::select(vec![Security::Plain, Security::Tls12, Security::Tls13]),
    ) {
        let sessions = sessions();
        let session = session.get(&sessions);
        prop_assume!(security == Security::Plain || session.policy.tls != TlsMode::Required);
        let manner = Manner { security, writes: Cuts::At(writes), wire: Cuts::At(wire), tail: b"", share_units: None };
        session.check(&session.whole(), &manner);
    }
}

impl Session {
    /// The outcome without cuts.
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

    /// Plays the session. Returns the outcome and the number of bytes on the wire.
    fn play(&self, manner: &Manner) -> (Outcome, usize) {
        let limits = Limits {
            connections_max: if self.is_surplus { 1 } else { 100 },
            body_bytes_max: 2000,
            upgrade_bytes_max: 1000,
            share_units_max: manner
                .share_units
                .unwrap_or_else(|| Limits::default().share_units_max),
            ..Limits::default()
        };
        let mut stage = Stage::new(limits);
        let witness = stage.accept(ListenerPolicy::default());
        stage.deliver(witness, &envelope(&connect("eye", 2)));
        stage.take_outbound(witness);
        let id = stage.accept(self.policy);
        let mut client = End::new(manner.security);
        let mut written = 0;
        let mut writes = manner.writes.of(&self.bytes, 0).into_iter().peekable();
        while let Some(bytes) = writes.next() {
            client.write(bytes);
            loop {
                let mut wire = client.take_wire();
                if wire.is_empty() {
                    break;
                }
                if writes.peek().is_none() && !client.is_handshaking() {
                    wire.extend_from_slice(manner.tail);
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
        Self {
            security: Security::Plain,
            writes,
            wire: Cuts::Nowhere,
            tail: b"",
            share_units: None,
        }
    }
}

impl Cuts {
    /// The pieces of bytes that follow `before` others.
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

/// The first WebSocket frame of the broker, and the bytes behind it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = match *bytes.get(1)? {
        126 => 4 + usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
        short @ 0..126 => 2 + usize::from(short),
        _ => panic!("no answer is so long"),
    };
    bytes.split_at_checked(end)
}

/// The engine, and the connection whose bytes are cut.
struct Stage {
    rig: Rig,
    reason: Option<CloseReason>,
    was_reset: bool,
    /// The sockets that the engine has dropped.
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

    fn deliver(&mut self, id: ConnectionId, bytes: &[u8]) {
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            socket.push_inbound(bytes);
            self.run_until_idle(id);
        }
    }

    fn end(&mut self, id: ConnectionId) {
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            socket.end_inbound();
            self.run_until_idle(id);
        }
    }

    fn run_until_idle(&mut self, id: ConnectionId) {
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
        std::iter::from_fn(|| socket.take_outbound()).flat_map(|(_, bytes)| bytes).collect()
    }
}

/// The client's end of the connection, with TLS.
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

    fn write(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes).unwrap(),
            None => self.wire.extend_from_slice(bytes),
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

    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    fn handle_wire(&mut self, mut bytes: &[u8]) {
        let Some(tls) = &mut self.tls else { return self.plain.extend_from_slice(bytes) };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).unwrap();
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                // The answer to a violation.
                Err(rustls::Error::AlertReceived(_)) => return,
                Err(error) => panic!("the broker breaks TLS: {error}"),
            };
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut plain).unwrap();
            self.plain.extend(plain);
        }
    }

    fn take_plain(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }
}

/// Size of the engine's read buffer.
const READ_BYTES: usize = 64 * 1024;

/// Checks each session, on as many threads as there are processors.
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
