//! Connections that the broker closes: silent WebSocket clients are pinged first, and a WebSocket close has
//! a code for the reason.

use std::num::NonZeroU32;

use com_broker::ByProfile;
use com_broker::internal::broker::CloseReason;
use com_broker::internal::engine::ConnectionId;
use com_broker::limits::{Limits, OutboundLimits};

use crate::faults::SocketFaults;
use crate::rig::Rig;
use crate::scripted_socket::ScriptedSocket;
use crate::sessions::{connect, envelope, masked, standard_connect, upgrade};

#[test]
fn a_websocket_client_that_answers_pings_is_kept_however_late_its_heart_beats_are() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.log_in(Dialect::Standard, "heart-beat:4000,4000\n");
    let (mut pings, mut beats) = (0, 0);
    for _ in 0..600 {
        stage.advance(500);
        for frame in stage.take_frames(id) {
            match frame {
                Frame::Ping => {
                    pings += 1;
                    stage.send(id, &masked(0x8a, b""));
                }
                Frame::Data(data) => {
                    assert_eq!(data, b"\n");
                    beats += 1;
                }
                Frame::Close(code) => panic!("closed with {code}"),
            }
        }
    }
    // Three intervals and the margin make 13 s.
    assert_eq!(pings, 300 / 13);
    assert!(beats >= 70, "{beats} beats in 300 s");
    assert!(stage.closed.is_empty());
}

#[test]
fn a_websocket_client_that_answers_no_ping_gets_an_error_and_is_cut() {
    for (dialect, more, asked_ms) in [
        (Dialect::Standard, "heart-beat:4000,0\n", 13_000),
        (Dialect::Standard, "", 25_000),
        (Dialect::Classic, "", 25_000),
    ] {
        let mut stage = Stage::new(Limits::default());
        let id = stage.log_in(dialect, more);
        stage.advance(asked_ms - 1);
        assert_eq!(stage.take_frames(id), []);
        stage.advance(1);
        assert_eq!(stage.take_frames(id), [Frame::Ping]);
        stage.advance(19_999);
        assert_eq!(stage.take_frames(id), []);
        stage.advance(1);
        let frames = stage.take_frames(id);
        match dialect {
            Dialect::Classic => assert_eq!(frames, [Frame::Close(1000)]),
            Dialect::Standard => {
                let [Frame::Data(error), Frame::Close(4200..4300)] = &frames[..] else {
                    panic!("{frames:?}")
                };
                let error = String::from_utf8_lossy(error);
                assert!(error.contains("\nerror-code:TIMED_OUT\nretry:now\n"), "{error}");
                assert!(error.contains("(websocket_pong_ms_max)"), "{error}");
            }
        }
        assert_eq!(stage.reason, Some(CloseReason::TimedOut("websocket_pong_ms_max")));
        // It does not answer the close.
        stage.advance(2_000);
        assert_eq!(stage.closed.len(), 1);
    }
}

#[test]
fn after_a_late_turn_clients_are_pinged_before_they_are_cut() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.log_in(Dialect::Standard, "heart-beat:1000,0\n");
    stage.advance(3_999);
    // The turn is late, and so it does not count how long it is.
    stage.pause(600_000);
    assert_eq!(stage.take_frames(id), [Frame::Ping]);
    stage.advance(19_000);
    stage.send(id, &masked(0x8a, b""));
    stage.advance(3_000);
    assert_eq!(stage.take_frames(id), []);
    stage.advance(1_000);
    assert_eq!(stage.take_frames(id), [Frame::Ping], "the patience begins anew");
}

#[test]
fn with_websocket_ping_ms_zero_a_late_heart_beat_is_still_followed_by_a_ping() {
    let limits = || Limits { websocket_ping_ms: 0, ..Limits::default() };
    let mut stage = Stage::new(limits());
    let id = stage.log_in(Dialect::Standard, "heart-beat:4000,0\n");
    stage.advance(13_000);
    assert_eq!(stage.take_frames(id), [Frame::Ping]);
    let mut stage = Stage::new(limits());
    let id = stage.log_in(Dialect::Standard, "");
    stage.advance(1_000_000);
    assert_eq!(stage.take_frames(id), []);
}

#[test]
fn a_client_on_a_stream_is_cut_without_a_ping() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.accept();
    let beating = standard_connect("1.2").replacen('\n', "\nheart-beat:4000,0\n", 1);
    stage.send(id, beating.as_bytes());
    stage.take(id);
    stage.advance(12_999);
    assert!(stage.closed.is_empty());
    stage.advance(1);
    assert_eq!((stage.take(id), stage.closed.len()), (Vec::new(), 1));
    let classic = stage.accept();
    stage.send(classic, &envelope(&connect("bob", 0)));
    stage.take(classic);
    stage.advance(1_000_000);
    assert_eq!((stage.take(classic), stage.closed.len()), (Vec::new(), 1));
}

/// Every way in which the broker closes a WebSocket by itself.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn each_close_has_its_code() {
    const NEVER: u16 = 4000;
    const LATER: u16 = 4100;
    const NOW: u16 = 4200;
    type Act = fn(&mut Stage, Dialect) -> ConnectionId;
    let cases: [(&str, Act, u16, u16); 18] = [
        (
            "a wrong key",
            |stage, dialect| {
                let id = stage.open(dialect);
                stage.send(id, &masked(TEXT, b"CONNECT\nlogin:a\npasscode:b\nsecret-key:c\n\n\0"));
                id
            },
            NEVER,
            1000,
        ),
        (
            "no login in time",
            |stage, dialect| {
                let id = stage.open(dialect);
                stage.advance(5_000);
                id
            },
            LATER,
            1000,
        ),
        (
            "an unknown command",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                stage.send(id, &masked(TEXT, b"FLY\n\n\0"));
                id
            },
            NEVER,
            1000,
        ),
        (
            "an error and a close in one read",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                let close = masked(0x88, &1001_u16.to_be_bytes());
                stage.send(id, &[masked(TEXT, b"FLY\n\n\0"), close].concat());
                id
            },
            NEVER,
            1000,
        ),
        (
            "a second login",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                stage.send(id, &masked(TEXT, &login(dialect, "")));
                id
            },
            NEVER,
            1000,
        ),
        (
            "a message that is too large",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                stage.send(id, &[0x82, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 1, 2, 3, 4]);
                id
            },
            NEVER,
            1009,
        ),
        (
            "a message that is too large before login",
            |stage, dialect| {
                let id = stage.open(dialect);
                stage.send(id, &masked(TEXT, &[b'x'; 20_000]));
                id
            },
            NEVER,
            1009,
        ),
        (
            "too large a body",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                let mut frame = b"SEND\ndestination:/agent/ana\n\n".to_vec();
                frame.resize(frame.len() + 3000, b'x');
                stage.send(id, &masked(TEXT, &[&frame[..], b"\0"].concat()));
                id
            },
            NEVER,
            1009,
        ),
        (
            "a takeover",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                stage.log_in(dialect, "");
                id
            },
            NEVER,
            1000,
        ),
        (
            "a login id that is in use",
            |stage, dialect| {
                let holder = stage.accept();
                stage.send(holder, &envelope(&connect("ana", 2)));
                let id = stage.open(dialect);
                stage.send(id, &masked(TEXT, &login(dialect, "")));
                id
            },
            LATER,
            1000,
        ),
        (
            "a drain",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                stage.drain();
                id
            },
            NOW,
            1001,
        ),
        (
            "a drain before login",
            |stage, dialect| {
                let id = stage.open(dialect);
                stage.drain();
                id
            },
            NOW,
            1001,
        ),
        (
            "a slow consumer",
            |stage, dialect| {
                let id = stage.log_in(dialect, "inbox:true\n");
                stage.socket(id).set_window(0);
                for _ in 0..10 {
                    let text = format!("SEND\ndestination:/agent/ana\n\n{}\0", "x".repeat(1000));
                    stage.send(id, &masked(TEXT, text.as_bytes()));
                }
                stage.socket(id).set_window(usize::MAX);
                stage.rig.engine.note_ready(id.slot, false, true);
                stage.run_until_idle();
                id
            },
            NOW,
            1000,
        ),
        (
            "a slow consumer that logs out in the same turn",
            |stage, dialect| overflow_and_say(stage, dialect, b"DISCONNECT\nreceipt:1\n\n\0"),
            NOW,
            1000,
        ),
        (
            "a slow consumer that errs in the same turn",
            |stage, dialect| overflow_and_say(stage, dialect, b"FLY\n\n\0"),
            NOW,
            1000,
        ),
        (
            "no place",
            |stage, dialect| {
                for number in 0..9 {
                    stage.log_in_as(dialect, &format!("other-{number}"), "");
                }
                stage.open(dialect)
            },
            LATER,
            1013,
        ),
        (
            "a place that is needed for another",
            |stage, dialect| {
                let id = stage.open(dialect);
                for _ in 0..9 {
                    stage.accept();
                }
                stage.run_until_idle();
                id
            },
            LATER,
            1013,
        ),
        (
            "no memory for what is torn",
            |stage, dialect| {
                let id = stage.log_in(dialect, "");
                let half = masked(TEXT, &[b'x'; 1800]);
                for name in ["eve", "dan"] {
                    let other = stage.log_in_as(dialect, name, "");
                    stage.send(other, &half[..half.len() - 10]);
                    stage.take(other);
                }
                stage.send(id, &half[..half.len() - 10]);
                id
            },
            LATER,
            1013,
        ),
    ];
    for (what, act, standard, classic) in cases {
        for dialect in [Dialect::Classic, Dialect::Standard] {
            let mut stage = Stage::new(tight_limits());
            let id = act(&mut stage, dialect);
            let frames = stage.take_frames(id);
            let Some([Frame::Data(error), Frame::Close(code)]) = frames.last_chunk() else {
                panic!("{what}, {dialect:?}: {frames:?}")
            };
            let error = String::from_utf8_lossy(error);
            assert!(error.starts_with("ERROR\n"), "{what}: {error}");
            let retry = ["never", "later", "now"][usize::from((standard - 4000) / 100)];
            assert!(error.contains(&format!("\nretry:{retry}\n")), "{what}: {error}");
            let is_expected = match dialect {
                Dialect::Classic => *code == classic,
                Dialect::Standard => (standard..standard + 100).contains(code),
            };
            assert!(is_expected, "{what}, {dialect:?}: {code}");
        }
    }
}

/// If the client itself closes or violates WebSocket, there is no ERROR, and both dialects have the same
/// code.
#[test]
fn a_close_after_a_close_or_violation_of_the_client_has_its_code() {
    for (what, bytes, code) in [
        ("a close", masked(0x88, &4321_u16.to_be_bytes()), 4321),
        ("a close without a code", masked(0x88, b""), 1000),
        ("not masked", b"\x81\x02hi".to_vec(), 1002),
        ("no text", masked(TEXT, b"\xff"), 1007),
        ("a logout", masked(TEXT, b"DISCONNECT\nreceipt-id:1\nreceipt:1\n\n\0"), 1000),
        ("the end of the stream", Vec::new(), 1000),
    ] {
        for dialect in [Dialect::Classic, Dialect::Standard] {
            let mut stage = Stage::new(tight_limits());
            let id = stage.log_in(dialect, "");
            if bytes.is_empty() {
                stage.socket(id).end_inbound();
            }
            stage.send(id, &bytes);
            let frames = stage.take_frames(id);
            assert_eq!(frames.last(), Some(&Frame::Close(code)), "{what}, {dialect:?}");
            let error =
                |frame: &Frame| matches!(frame, Frame::Data(data) if data.starts_with(b"ERR"));
            assert!(!frames.iter().any(error), "{what}: {frames:?}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Classic,
    Standard,
}

/// A frame of a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Data(Vec<u8>),
    Ping,
    Close(u16),
}

/// First byte of a text message.
pub(crate) const TEXT: u8 = 0x81;

/// An engine, and the sockets that it has dropped.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) reason: Option<CloseReason>,
    pub(crate) closed: Vec<(ConnectionId, ScriptedSocket)>,
}

impl Stage {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { rig: Rig::new(limits, 3), reason: None, closed: Vec::new() }
    }

    pub(crate) fn accept(&mut self) -> ConnectionId {
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        self.rig.accept(socket).expect("a place for it")
    }

    /// Opens a WebSocket.
    pub(crate) fn open(&mut self, dialect: Dialect) -> ConnectionId {
        let id = self.accept();
        let subprotocol = if dialect == Dialect::Classic { "stomp" } else { "v12.stomp" };
        self.send(id, &upgrade(subprotocol));
        id
    }

    /// Opens a WebSocket and logs in, with further header lines.
    pub(crate) fn log_in(&mut self, dialect: Dialect, more: &str) -> ConnectionId {
        self.log_in_as(dialect, "ana", more)
    }

    pub(crate) fn log_in_as(&mut self, dialect: Dialect, name: &str, more: &str) -> ConnectionId {
        let id = self.open(dialect);
        let text = String::from_utf8(login(dialect, more)).unwrap();
        let text = text.replacen("login:ana", &format!("login:{name}"), 1);
        self.send(id, &masked(TEXT, text.as_bytes()));
        let frames = self.take_frames(id);
        let [Frame::Data(connected)] = &frames[..] else { panic!("{frames:?}") };
        assert!(connected.starts_with(b"CONNECTED\n"), "{}", connected.escape_ascii());
        id
    }

    pub(crate) fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.socket(id).push_inbound(bytes);
        self.rig.engine.note_ready(id.slot, true, false);
        self.run_until_idle();
        self.reason = self.rig.engine.close_reason(id).or(self.reason);
    }

    pub(crate) fn drain(&mut self) {
        let now = self.rig.now();
        self.rig.engine.begin_drain(now);
        self.run_until_idle();
    }

    /// Advances the clock in one step.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.rig.advance(ms);
        self.run_until_idle();
    }

    /// Stops the loop for a time.
    pub(crate) fn pause(&mut self, ms: u64) {
        self.rig.pause(ms);
        self.run_until_idle();
    }

    pub(crate) fn run_until_idle(&mut self) {
        loop {
            let closed = self.rig.turn();
            self.closed.extend(closed);
            let reasons = (0..4).map(|slot| ConnectionId { slot, generation: NonZeroU32::MIN });
            let mut reasons = reasons.filter_map(|id| self.rig.engine.close_reason(id));
            self.reason = reasons.next().or(self.reason);
            if !self.rig.engine.has_work() {
                return;
            }
        }
    }

    pub(crate) fn socket(&mut self, id: ConnectionId) -> &mut ScriptedSocket {
        match self.closed.iter_mut().find(|(closed, _)| *closed == id) {
            Some((_, socket)) => socket,
            None => self.rig.engine.socket_mut(id).expect("a connection that was accepted"),
        }
    }

    /// Bytes that the broker has written.
    pub(crate) fn take(&mut self, id: ConnectionId) -> Vec<u8> {
        let socket = self.socket(id);
        std::iter::from_fn(|| socket.take_outbound()).flat_map(|(_, bytes)| bytes).collect()
    }

    /// WebSocket frames that the broker has written, behind the answer to the upgrade.
    pub(crate) fn take_frames(&mut self, id: ConnectionId) -> Vec<Frame> {
        let bytes = self.take(id);
        let mut rest = match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) if bytes.starts_with(b"HTTP") => &bytes[end + 4..],
            _ => &bytes[..],
        };
        let mut frames = Vec::new();
        while let [first, length, after @ ..] = rest {
            let (length, after) = match *length {
                126 => (u16::from_be_bytes([after[0], after[1]]).into(), &after[2..]),
                length => (usize::from(length), after),
            };
            let (payload, after) = after.split_at(length);
            rest = after;
            frames.push(match first {
                0x88 => Frame::Close(u16::from_be_bytes([payload[0], payload[1]])),
                0x89 => Frame::Ping,
                _ => Frame::Data(payload.to_vec()),
            });
        }
        frames
    }
}

/// A client that sends itself more than its queue holds, and one more frame, all in one read.
fn overflow_and_say(stage: &mut Stage, dialect: Dialect, last: &[u8]) -> ConnectionId {
    let id = stage.log_in(dialect, "inbox:true\n");
    stage.socket(id).set_window(0);
    let text = format!("SEND\ndestination:/agent/ana\n\n{}\0", "x".repeat(1000));
    let sends = masked(TEXT, text.as_bytes()).repeat(10);
    stage.send(id, &[sends, masked(TEXT, last)].concat());
    stage.socket(id).set_window(usize::MAX);
    stage.rig.engine.note_ready(id.slot, false, true);
    stage.run_until_idle();
    id
}

fn login(dialect: Dialect, more: &str) -> Vec<u8> {
    match dialect {
        Dialect::Classic => connect("ana", 0),
        Dialect::Standard => {
            standard_connect("1.2").replacen('\n', &format!("\n{more}"), 1).into_bytes()
        }
    }
}

fn tight_limits() -> Limits {
    let defaults = Limits::default();
    let narrow = OutboundLimits { hard_bytes_max: 4000, soft_bytes_max: 3000, soft_ms_max: 5000 };
    Limits {
        connections_max: 9,
        body_bytes_max: 2000,
        inbound_total_bytes_max: 4000,
        outbound: ByProfile::all(narrow),
        ..defaults
    }
}
