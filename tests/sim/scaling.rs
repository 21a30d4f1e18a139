//! What does not grow with how much there is already: the cost of a subscription.

use com_broker::ByProfile;
use com_broker::internal::engine::ConnectionId;
use com_broker::limits::Limits;

use crate::adversaries::processor_ns;
use crate::faults::SocketFaults;
use crate::rig::Rig;
use crate::scripted_socket::ScriptedSocket;
use crate::sessions::connect;

/// What the costlier may cost in times of the cheaper: the machine may be busy with something else, and caches
/// are not endless.
const RATIO_MAX: f64 = 4.0;

#[test]
fn a_session_may_subscribe_20_000_times_by_name_and_each_time_costs_the_same() {
    for is_one_topic in [false, true] {
        let topic = |number| if is_one_topic { 0 } else { number };
        measure(&format!("one topic: {is_one_topic}"), |hall| {
            let client = hall.connect();
            let mut rounds = |verb: &str| {
                let round = |number: usize| {
                    let numbers = number * 1_000..(number + 1) * 1_000;
                    let frame =
                        |at| format!("{verb}\nid:{at}\ndestination:/topic/{}\n\n\0", topic(at));
                    hall.ns_of(client, &numbers.map(frame).collect::<String>())
                };
                (0..20).map(round).collect::<Vec<_>>()
            };
            let (begun, ended) = (rounds("SUBSCRIBE"), rounds("UNSUBSCRIBE"));
            // The first of all come upon cold caches.
            vec![
                (begun[2..6].to_vec(), begun[16..].to_vec()),
                (ended[14..18].to_vec(), ended[..4].to_vec()),
            ]
        });
    }
}

#[test]
fn to_join_or_leave_a_group_costs_the_same_however_many_topics_it_selects() {
    measure("a group", |hall| {
        let [client, other, maker] = [(); 3].map(|()| hall.connect());
        hall.ns_of(other, "SUBSCRIBE\nid:1\ndestination:/topic/>\n\n\0");
        let mut made = 0..;
        let mut flap_among = |count: usize| {
            while made.start < count {
                let sends = made.by_ref().take(1_000);
                let sends = sends.map(|at| format!("SEND\ndestination:/topic/{at}\n\n\0"));
                hall.ns_of(maker, &sends.collect::<String>());
                hall.take(other);
            }
            let flap =
                "SUBSCRIBE\nid:1\ndestination:/topic/>\n\n\0UNSUBSCRIBE\nid:1\n\n\0".repeat(500);
            (0..4).map(|_| hall.ns_of(client, &flap)).collect::<Vec<_>>()
        };
        flap_among(10);
        vec![(flap_among(10), flap_among(100_000))]
    });
}

/// Runs a measurement of pairs of what should cost the same, again if one of them differs by too much.
fn measure(what: &str, run: impl Fn(&mut Hall) -> Vec<(Vec<u64>, Vec<u64>)>) {
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let least = |times: Vec<u64>| times.into_iter().min().unwrap_or(0) as f64;
        let pairs = run(&mut Hall::new()).into_iter();
        let worst = pairs.map(|(few, many)| least(many) / least(few)).fold(0.0, f64::max);
        ratios.push(worst);
        if worst < RATIO_MAX {
            return;
        }
    }
    panic!("{what}: later ones cost {ratios:?} times what earlier ones do");
}

/// An engine, and clients of the standard dialect.
struct Hall {
    rig: Rig,
    clients: u32,
}

impl Hall {
    fn new() -> Self {
        let limits = Limits {
            subscriptions_per_session_max: ByProfile::new([20_000; 4]),
            destination_share_bytes_max: ByProfile::new([16 << 20; 4]),
            idle_topics_max: 200_000,
            ..Limits::default()
        };
        Self { rig: Rig::new(limits, 3), clients: 0 }
    }

    fn connect(&mut self) -> ConnectionId {
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        let id = self.rig.accept(socket).expect("a place for it");
        self.clients += 1;
        let login = connect(&format!("client {}", self.clients), 0);
        let login = String::from_utf8(login).unwrap();
        self.ns_of(id, &(login.replacen('\n', "\naccept-version:1.2\nhost:x\n", 1) + "\0"));
        let told = self.take(id);
        assert!(told.starts_with(b"CONNECTED"), "{}", told.escape_ascii());
        id
    }

    /// Handles what a client sends. Returns the processor time of it.
    fn ns_of(&mut self, id: ConnectionId, text: &str) -> u64 {
        self.rig.engine.socket_mut(id).expect("an open connection").push_inbound(text.as_bytes());
        self.rig.engine.note_ready(id.slot, true, true);
        let began_ns = processor_ns();
        self.rig.bare_turn();
        while self.rig.engine.has_work() {
            self.rig.bare_turn();
        }
        let ns = processor_ns() - began_ns;
        let lost = self.rig.take_closed();
        assert!(lost.is_empty(), "nobody is cut: {}", self.take(id).escape_ascii());
        ns
    }

    fn take(&mut self, id: ConnectionId) -> Vec<u8> {
        let socket = self.rig.engine.socket_mut(id).expect("an open connection");
        std::iter::from_fn(|| socket.take_outbound()).flat_map(|(_, bytes)| bytes).collect()
    }
}
