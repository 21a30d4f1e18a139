//! Messages to more receivers than a turn has time for: everybody gets them, in order, and nobody else waits.

use std::collections::HashMap;

use com_broker::internal::engine::ConnectionId;
use com_broker::limits::Limits;

use crate::faults::SocketFaults;
use crate::rig::Rig;
use crate::scripted_socket::ScriptedSocket;
use crate::sessions::{connect, envelope, masked, standard_connect, upgrade};

const RECEIVERS: usize = 240;

#[test]
fn a_message_to_many_comes_to_all_in_order_while_others_are_served() {
    let mut hall = Hall::new();
    let receivers = hall.receivers();
    let sender = hall.standard("sender");
    let (ana, bob) = (hall.standard("ana"), hall.standard("bob"));
    hall.say(
        sender,
        "SEND\ndestination:/topic/wide\nreceipt:r1\n\n1\0SEND\ndestination:/agent/bob\n\nin between\0\
         SEND\ndestination:/topic/wide\nreceipt:r2\n\n2\0",
    );
    let (mut turns, mut in_between) = (0, 0);
    while hall.rig.engine.has_work() {
        hall.say(ana, &format!("SEND\ndestination:/agent/bob\n\nturn {turns}.\0"));
        hall.turn();
        let got = hall.take(bob);
        assert!(got.contains(&format!("turn {turns}.")), "turn {turns}: {got}");
        turns += 1;
        in_between += got.matches("in between").count();
    }
    assert!(turns > 10, "it took {turns} turns only");
    for (index, id) in receivers.iter().enumerate() {
        let got = hall.take(*id);
        assert_eq!(bodies(&got), ["1", "2"], "receiver {index}");
    }
    let answers = hall.take(sender);
    let receipts: Vec<_> =
        answers.match_indices("receipt-id:").map(|(at, _)| &answers[at + 11..][..2]).collect();
    assert_eq!(receipts, ["r1", "r2"]);
    assert_eq!(answers.matches(&format!("delivered:{RECEIVERS}\n")).count(), 2, "{answers}");
    assert_eq!(in_between, 1);
}

#[test]
fn who_subscribed_when_it_was_sent_gets_it_whatever_happens_meanwhile() {
    let mut hall = Hall::new();
    let receivers = hall.receivers();
    let (sender, late) = (hall.classic("sender"), hall.standard("late"));
    hall.say(sender, "SEND\ndestination:/topic/wide\n\nx\0");
    hall.turn();
    assert!(hall.rig.engine.has_work());
    let reached = receivers.iter().filter(|id| !hall.peek(**id).is_empty()).count();
    assert!((1..RECEIVERS / 2).contains(&reached), "{reached} are reached in the first turn");
    // The last ones leave or unsubscribe, another comes, and the sender is taken over.
    let [.., gone, ended] = receivers[..] else { panic!("there are receivers") };
    hall.say(ended, "UNSUBSCRIBE\nid:1\ndestination:/topic/wide\n\n\0");
    hall.say(gone, "DISCONNECT\n\n\0");
    hall.say(late, "SUBSCRIBE\nid:1\ndestination:/topic/wide\n\n\0");
    let again = hall.classic("sender");
    assert!(hall.rig.engine.counters().takeovers == 1 && hall.take(again).contains("CONNECTED"));
    hall.run();
    assert!(hall.peek(ended).is_empty() || bodies(&hall.take(ended)) != ["x"], "it unsubscribed");
    assert_eq!(bodies(&hall.take(late)), [""; 0]);
    for id in receivers.iter().filter(|id| **id != gone && **id != ended) {
        assert_eq!(bodies(&hall.take(*id)), ["x"]);
    }
}

#[test]
fn what_a_client_sends_from_its_next_connection_comes_behind_what_it_sent_from_the_one_before() {
    for (is_classic, closes) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut hall = Hall::new();
        let receivers = hall.receivers();
        let last = receivers[RECEIVERS - 1];
        let first = hall.connect("sender", is_classic);
        hall.say(first, "SEND\ndestination:/topic/wide\n\n1\0");
        hall.turn();
        if closes {
            hall.rig.engine.socket_mut(first).unwrap().reset();
            hall.rig.engine.note_ready(first.slot, true, false);
            hall.turn();
        }
        let second = hall.connect("sender", is_classic);
        let index = RECEIVERS - 1;
        hall.say(second, &format!("SEND\ndestination:/agent/receiver-{index}\n\n2\0"));
        hall.run();
        assert_eq!(bodies(&hall.take(last)), ["1", "2"], "{is_classic}, {closes}");
        for id in &receivers[..index] {
            assert_eq!(bodies(&hall.take(*id)), ["1"], "{is_classic}, {closes}");
        }
    }
}

#[test]
fn what_is_sent_without_a_pause_comes_to_each_receiver_by_one_write() {
    for is_classic in [true, false] {
        let mut hall = Hall::new();
        let receivers = hall.receivers();
        let sender = hall.connect("sender", is_classic);
        let bob = hall.standard("bob");
        for id in &receivers {
            hall.take(*id);
        }
        hall.take(sender);
        let send = |to: &str, number: u32| {
            format!("SEND\ndestination:{to}\ntransaction:t{number}\n\n{number}\0")
                .replace("transaction:", if is_classic { "transaction:" } else { "receipt:" })
        };
        let to = ["/topic/wide"; 4].into_iter().chain(["/agent/bob", "/topic/wide", "/topic/wide"]);
        let frames: Vec<_> = to.zip(1..).map(|(to, number)| send(to, number)).collect();
        hall.say_all(sender, &frames);
        hall.run();
        let numbers = ["1", "2", "3", "4", "6", "7"];
        for (index, id) in receivers.iter().enumerate() {
            let (got, writes) = hall.take_writes(*id);
            assert_eq!(bodies(&got), numbers, "receiver {index}");
            assert_eq!(writes.len(), 2, "receiver {index}");
        }
        assert_eq!(bodies(&hall.take(bob)), ["5"]);
        let answers = hall.take(sender);
        let places: Vec<_> = (1..8).map(|one| answers.find(&format!(":t{one}\n"))).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{answers}");
        if !is_classic {
            let delivered = format!("delivered:{RECEIVERS}\n");
            assert_eq!(answers.matches(&delivered).count(), 6, "{answers}");
        }
    }
}

#[test]
fn a_message_to_many_is_acknowledged_though_its_sender_closes_directly_behind_it() {
    let send = masked(0x81, b"SEND\ndestination:/topic/wide\ntransaction:t1\n\n1\0");
    let second = masked(0x81, b"SEND\ndestination:/topic/wide\ntransaction:t2\n\n2\0");
    for (what, behind) in [
        ("a close", masked(0x88, &1000_u16.to_be_bytes())),
        ("a reserved opcode", masked(0x83, b"")),
        ("an unmasked frame", b"\x81\x02hi".to_vec()),
        ("a frame that is too large", [&[0x81, 0xff][..], &[0x7f; 8]].concat()),
        ("an empty frame", masked(0x81, b"")),
        ("an unknown command", masked(0x81, b"FLY\n\n\0")),
    ] {
        let mut hall = Hall::new();
        let receivers = hall.receivers();
        let sender = hall.open(false);
        for bytes in [upgrade("stomp"), masked(0x81, &[&connect("sender", 0)[..], b"\0"].concat())]
        {
            hall.push(sender, &bytes);
            hall.turn();
        }
        assert!(hall.take(sender).contains("CONNECTED"), "{what}");
        hall.push(sender, &[&send[..], &second, &behind].concat());
        hall.run();
        let told = hall.take(sender);
        let (first, second) = (told.find("transaction:t1\n"), told.find("transaction:t2\n"));
        assert!(first.is_some() && first < second, "{what}: {told}");
        assert!(told.find("ERROR").is_none_or(|error| Some(error) > second), "{what}: {told}");
        for id in receivers {
            assert_eq!(bodies(&hall.take(id)), ["1", "2"], "{what}");
        }
    }
}

#[test]
fn who_subscribes_between_two_messages_gets_the_second() {
    let mut hall = Hall::new();
    let receivers = hall.receivers();
    let sender = hall.standard("sender");
    let wide = |number: u32| format!("SEND\ndestination:/topic/wide\n\n{number}\0");
    let subscribe = "SUBSCRIBE\nid:1\ndestination:/topic/wide\n\n\0".to_owned();
    hall.say_all(sender, &[wide(1), wide(2), subscribe, wide(3), wide(4)]);
    hall.run();
    assert_eq!(bodies(&hall.take(sender)), ["3", "4"]);
    for id in receivers {
        assert_eq!(bodies(&hall.take(id)), ["1", "2", "3", "4"]);
    }
}

/// Clients on plain streams, with small turns.
pub(crate) struct Hall {
    pub(crate) rig: Rig,
    classic: Vec<ConnectionId>,
    /// What clients have got and nobody has looked at.
    heard: HashMap<ConnectionId, String>,
}

impl Hall {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self::with(Limits { turn_units_max: 1_600, share_units_max: 200, ..Limits::default() })
    }

    /// Nobody yet, with given limits.
    pub(crate) fn with(limits: Limits) -> Self {
        Self { rig: Rig::new(limits, 1), classic: Vec::new(), heard: HashMap::new() }
    }

    /// Subscribers of `/topic/wide`, by name and by wildcards, in both dialects.
    fn receivers(&mut self) -> Vec<ConnectionId> {
        let add = |index: usize| {
            let name = format!("receiver-{index}");
            let id =
                if index.is_multiple_of(2) { self.classic(&name) } else { self.standard(&name) };
            let topic = ["/topic/wide", "/topic/*", "/topic/>"][index % 3];
            self.say(
                id,
                &format!("SUBSCRIBE\nid:1\ndestination-type:0\ndestination:{topic}\n\n\0"),
            );
            if index.is_multiple_of(7) && index.is_multiple_of(2) {
                // Still one copy in the classic dialect.
                self.say(id, "SUBSCRIBE\ndestination-type:0\ndestination:/topic/wide\n\n\0");
            }
            self.turn();
            self.take(id);
            id
        };
        (0..RECEIVERS).map(add).collect()
    }

    /// A new connection.
    pub(crate) fn open(&mut self, is_classic: bool) -> ConnectionId {
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        let id = self.rig.accept(socket).expect("a place for it");
        if is_classic {
            self.classic.push(id);
        }
        id
    }

    fn connect(&mut self, name: &str, is_classic: bool) -> ConnectionId {
        let id = self.open(is_classic);
        if is_classic {
            let text = String::from_utf8(connect(name, 0)).unwrap();
            self.say(id, &text);
        } else {
            let text = standard_connect("1.2").replace("login:ana", &format!("login:{name}"));
            self.say(id, &text.replacen('\n', "\ninbox:true\n", 1));
        }
        for _ in 0..3 {
            self.turn();
        }
        id
    }

    fn classic(&mut self, name: &str) -> ConnectionId {
        self.connect(name, true)
    }

    /// An agent of the standard dialect, with an inbox.
    pub(crate) fn standard(&mut self, name: &str) -> ConnectionId {
        self.connect(name, false)
    }

    /// A client sends a frame; in the standard dialect, as many as end with a NUL.
    pub(crate) fn say(&mut self, id: ConnectionId, text: &str) {
        self.say_all(id, &[text.to_owned()]);
    }

    /// Sends frames that arrive together.
    pub(crate) fn say_all(&mut self, id: ConnectionId, frames: &[String]) {
        let is_classic = self.classic.contains(&id);
        let bytes: Vec<_> = frames
            .iter()
            .flat_map(|text| match is_classic {
                true => envelope(text.trim_end_matches('\0').as_bytes()),
                false => text.as_bytes().to_vec(),
            })
            .collect();
        self.rig.engine.socket_mut(id).expect("it is open").push_inbound(&bytes);
        self.rig.engine.note_ready(id.slot, true, false);
    }

    /// A client sends bytes.
    fn push(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.rig.engine.socket_mut(id).expect("it is open").push_inbound(bytes);
        self.rig.engine.note_ready(id.slot, true, false);
    }

    /// A turn of the loop.
    pub(crate) fn turn(&mut self) {
        self.rig.turn();
    }

    /// Turns until there is no more to do.
    pub(crate) fn run(&mut self) {
        self.turn();
        while self.rig.engine.has_work() {
            self.turn();
        }
    }

    /// What a client has got since the last [`Self::take`].
    pub(crate) fn peek(&mut self, id: ConnectionId) -> &str {
        let heard = self.heard.entry(id).or_default();
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            let bytes = std::iter::from_fn(|| socket.take_outbound()).flat_map(|(_, bytes)| bytes);
            heard.push_str(&String::from_utf8_lossy(&bytes.collect::<Vec<_>>()));
        }
        heard
    }

    /// As [`Self::take`], with the bytes of each write.
    pub(crate) fn take_writes(&mut self, id: ConnectionId) -> (String, Vec<usize>) {
        let socket = self.rig.engine.socket_mut(id).expect("it is open");
        let writes: Vec<_> = std::iter::from_fn(|| socket.take_outbound()).collect();
        let bytes: Vec<_> = writes.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let lengths = writes.iter().map(|(_, bytes)| bytes.len()).collect();
        (String::from_utf8_lossy(&bytes).into_owned(), lengths)
    }

    /// What a client has got since the last time.
    pub(crate) fn take(&mut self, id: ConnectionId) -> String {
        self.peek(id);
        self.heard.remove(&id).unwrap_or_default()
    }
}

/// The bodies of the messages in what a client got: of one character each.
fn bodies(text: &str) -> Vec<&str> {
    let messages = text.split("MESSAGE\n").skip(1);
    messages.filter_map(|one| Some(&one.split_once("\n\n")?.1[..1])).collect()
}

#[test]
fn a_drain_begins_when_what_was_accepted_is_done() {
    let mut hall = Hall::new();
    let receivers = hall.receivers();
    let (sender, other) = (hall.standard("sender"), hall.standard("other"));
    let steps: String = (0..20)
        .map(|at| format!("SEND\ndestination:/topic/wide\ntransaction:t\n\n{at}\0"))
        .collect();
    hall.say(
        sender,
        &format!("BEGIN\ntransaction:t\n\n\0{steps}COMMIT\ntransaction:t\nreceipt:done\n\n\0"),
    );
    hall.say(other, "SEND\ndestination:/topic/wide\nreceipt:wide\n\nwide\0");
    (0..4).for_each(|_| hall.turn());
    let reached = receivers.iter().filter(|id| hall.peek(**id).contains("\n\n19\0")).count();
    assert!(reached < RECEIVERS, "it is under way");
    let now = hall.rig.now();
    hall.rig.engine.begin_drain(now);
    hall.run();
    for (index, id) in receivers.iter().enumerate() {
        let got = hall.take(*id);
        let all = (0..20).filter(|at| got.contains(&format!("\n\n{at}\0"))).count();
        assert_eq!((all, got.matches("\n\nwide").count()), (20, 1), "receiver {index}: {got}");
        let last = got.rfind("DRAINING").expect("it is told");
        assert!(last > got.rfind("MESSAGE").unwrap(), "receiver {index}");
    }
    assert!(hall.take(sender).contains("receipt-id:done"));
    assert!(hall.take(other).contains("receipt-id:wide"));
}

#[test]
fn a_drain_tells_everybody_soon_though_many_go_on_to_publish_to_many() {
    let limits = Limits {
        turn_units_max: 1_600,
        share_units_max: 200,
        drain_ms_max: 200,
        ..Limits::default()
    };
    let mut hall = Hall::with(limits);
    let receivers = hall.receivers();
    let publishers: Vec<_> =
        (0..100).map(|number| hall.standard(&format!("publisher-{number}"))).collect();
    let publish = |hall: &mut Hall| {
        for id in &publishers {
            if hall.rig.engine.socket_mut(*id).is_some() {
                hall.say(*id, "SEND\ndestination:/topic/wide\n\nx\0");
            }
        }
    };
    publish(&mut hall);
    (0..20).for_each(|_| hall.turn());
    let now = hall.rig.now();
    hall.rig.engine.begin_drain(now);
    for _ in 0..180 {
        publish(&mut hall);
        hall.rig.advance(1);
        hall.turn();
    }
    let all = receivers.iter().chain(&publishers);
    let told = all.filter(|id| hall.take(**id).contains("DRAINING")).count();
    assert_eq!(told, receivers.len() + publishers.len());
}

#[test]
fn who_was_not_told_when_the_time_is_over_is_told_at_last() {
    let mut hall = Hall::new();
    let receivers = hall.receivers();
    let now = hall.rig.now();
    hall.rig.engine.begin_drain(now);
    let now = hall.rig.now();
    hall.rig.engine.abandon(now);
    let mut told = 0;
    for (_, mut socket) in hall.rig.take_closed() {
        let bytes = std::iter::from_fn(|| socket.take_outbound()).flat_map(|(_, bytes)| bytes);
        told +=
            usize::from(String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).contains("DRAINING"));
    }
    assert_eq!(told, receivers.len());
}
