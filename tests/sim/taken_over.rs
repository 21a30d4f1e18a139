//! Clients whose session is taken over in the same turn in which they send frames or hang up: the takeover
//! is the reason why the connection ends, and the frames are dropped.

use com_broker::internal::broker::CloseReason;
use com_broker::internal::engine::ConnectionId;
use com_broker::limits::Limits;

use crate::faults::SocketFaults;
use crate::rig::Rig;
use crate::scripted_socket::ScriptedSocket;
use crate::sessions::{connect, envelope, masked, standard_connect, upgrade};

#[test]
fn frames_of_a_client_that_was_taken_over_in_the_same_turn_are_dropped() {
    for carrier in Carrier::ALL {
        for frames in [
            &[carrier.login()][..],
            &["SEND\ndestination:/agent/ana\n\nhello\0".to_owned()],
            &["SUBSCRIBE\nid:1\ndestination:/topic/a\ndestination-type:0\n\n\0".to_owned()],
            &["DISCONNECT\nreceipt:1\nreceipt-id:1\n\n\0".to_owned()],
            &["FLY\n\n\0".to_owned()],
            &["FLY\n\n\0".to_owned(), carrier.login(), "DISCONNECT\n\n\0".to_owned()],
        ] {
            let mut race = Race::new(carrier);
            let bytes: Vec<_> = frames.iter().flat_map(|frame| carrier.frame(frame)).collect();
            race.socket(race.older).push_inbound(&bytes);
            race.run(&format!("{carrier:?}, {frames:?}"));
            let counters = race.rig.engine.counters();
            assert_eq!((counters.logins, counters.takeovers), (1, 1), "{frames:?}");
            assert_eq!(counters.protocol_errors, 0, "{frames:?}");
            // One CONNECT of each connection.
            assert_eq!(counters.frames_in, 2, "{frames:?}");
        }
    }
}

#[test]
fn a_takeover_is_the_reason_though_the_client_hangs_up_in_the_same_turn() {
    for carrier in Carrier::ALL {
        let mut race = Race::new(carrier);
        race.socket(race.older).end_inbound();
        race.run(&format!("{carrier:?}, the end of the stream"));
        let mut race = Race::new(carrier);
        race.socket(race.older).reset();
        race.run_receive(&format!("{carrier:?}, a reset"));
    }
}

#[test]
fn a_takeover_is_the_reason_though_the_client_violates_its_transport_in_the_same_turn() {
    let too_large = [0, 0xff, 0xff, 0xff, 0x7f, b'x'].to_vec();
    for (carrier, bytes) in [
        (Carrier::Classic, too_large),
        (Carrier::Classic, [0; 5].to_vec()),
        (Carrier::WebSocketClassic, masked(0x88, &1000_u16.to_be_bytes())),
        (Carrier::WebSocketStandard, masked(0x88, &1000_u16.to_be_bytes())),
        (Carrier::WebSocketStandard, b"\x81\x02hi".to_vec()),
    ] {
        let mut race = Race::new(carrier);
        race.socket(race.older).push_inbound(&bytes);
        race.run(&format!("{carrier:?}, {}", bytes.escape_ascii()));
    }
}

#[derive(Clone, Copy, Debug)]
enum Carrier {
    Classic,
    Standard,
    WebSocketClassic,
    WebSocketStandard,
}

impl Carrier {
    const ALL: [Self; 4] =
        [Self::Classic, Self::Standard, Self::WebSocketClassic, Self::WebSocketStandard];

    fn login(self) -> String {
        match self {
            Self::Classic | Self::WebSocketClassic => {
                String::from_utf8(connect("ana", 0)).unwrap() + "\0"
            }
            Self::Standard | Self::WebSocketStandard => standard_connect("1.2"),
        }
    }

    fn frame(self, text: &str) -> Vec<u8> {
        match self {
            Self::Classic => envelope(text.as_bytes()),
            Self::Standard => text.as_bytes().to_vec(),
            Self::WebSocketClassic | Self::WebSocketStandard => masked(0x81, text.as_bytes()),
        }
    }

    fn greeting(self) -> Vec<u8> {
        match self {
            Self::Classic | Self::Standard => Vec::new(),
            Self::WebSocketClassic => upgrade("stomp"),
            Self::WebSocketStandard => upgrade("v12.stomp"),
        }
    }
}

/// A client that is logged in, and another whose CONNECT with the same login id is unread.
struct Race {
    rig: Rig,
    older: ConnectionId,
    newer: ConnectionId,
}

impl Race {
    fn new(carrier: Carrier) -> Self {
        let mut rig = Rig::new(Limits::default(), 3);
        let mut accept = || {
            let socket = ScriptedSocket::new(rig.ticks.clone(), SocketFaults::none());
            let id = rig.accept(socket).expect("a place for it");
            rig.engine.socket_mut(id).unwrap().push_inbound(&carrier.greeting());
            rig.engine.note_ready(id.slot, true, false);
            rig.turn();
            id
        };
        let (older, newer) = (accept(), accept());
        let mut race = Self { rig, older, newer };
        let login = carrier.frame(&carrier.login());
        race.socket(older).push_inbound(&login);
        race.rig.engine.note_ready(older.slot, true, false);
        race.rig.turn();
        assert!(race.take(older).contains("CONNECTED\n"));
        race.take(newer);
        race.socket(newer).push_inbound(&login);
        race
    }

    fn socket(&mut self, id: ConnectionId) -> &mut ScriptedSocket {
        self.rig.engine.socket_mut(id).expect("it is open")
    }

    /// Reads the newer connection and then the older one, in the same turn.
    fn run_receive(&mut self, what: &str) {
        let now = self.rig.now();
        // Logins come after the others, but not after one whose share of the turn has ended.
        for id in [self.newer, self.older] {
            self.rig.engine.note_ready(id.slot, true, false);
            self.rig.engine.receive(now);
        }
        let reason = self.rig.engine.close_reason(self.older);
        assert!(matches!(reason, None | Some(CloseReason::TakenOver)), "{what}: {reason:?}");
        self.rig.engine.flush(now);
        let reason = self.rig.engine.close_reason(self.older);
        assert_eq!(reason, Some(CloseReason::TakenOver), "{what}");
    }

    /// As [`Self::run_receive`]; then the older client has got one ERROR, and the newer one CONNECTED.
    fn run(&mut self, what: &str) {
        self.run_receive(what);
        let (told, greeted) = (self.take(self.older), self.take(self.newer));
        assert!(told.contains("NEW_CONNECTION_LOGGED"), "{what}: {told}");
        assert_eq!(told.matches("ERROR\n").count(), 1, "{what}: {told}");
        assert!(!told.contains("RECEIPT\n"), "{what}: {told}");
        assert!(greeted.contains("CONNECTED\n"), "{what}: {greeted}");
        assert!(!greeted.contains("MESSAGE\n"), "{what}: {greeted}");
        self.rig.turn();
        assert!(self.rig.engine.close_reason(self.newer).is_none(), "{what}");
    }

    /// Takes the text that the broker wrote.
    fn take(&mut self, id: ConnectionId) -> String {
        let socket = self.socket(id);
        let bytes = std::iter::from_fn(|| socket.take_outbound()).flat_map(|(_, bytes)| bytes);
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }
}
