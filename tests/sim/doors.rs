//! Who gets a place when `connections_max` are in use: whoever logs in, however many others only hold connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use com_broker::internal::broker::CloseReason;
use com_broker::internal::engine::ConnectionId;
use com_broker::limits::Limits;

use crate::client::{Carrier, Client};
use crate::faults::SocketFaults;
use crate::rig::Rig;
use crate::scripted_socket::ScriptedSocket;
use crate::sessions::standard_connect;

const PLACES: u32 = 64;

const SELF: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// An engine with few places.
struct House {
    rig: Rig,
    connections: Vec<ConnectionId>,
}

impl House {
    fn new() -> Self {
        let limits = Limits { connections_max: PLACES, refusals_max: 4, ..Limits::default() };
        Self { rig: Rig::new(limits, 5), connections: Vec::new() }
    }

    fn come(&mut self, from: IpAddr) -> Option<ConnectionId> {
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        let id = self.rig.accept_from(socket, from)?;
        self.connections.push(id);
        Some(id)
    }

    fn say(&mut self, id: ConnectionId, text: &str) {
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            socket.push_inbound(text.as_bytes());
            self.rig.engine.note_ready(id.slot, true, false);
        }
    }

    /// Lets the engine run. Returns what the sockets that it dropped got last.
    fn run(&mut self) -> Vec<String> {
        let mut dropped = Vec::new();
        loop {
            for (_, mut socket) in self.rig.turn() {
                dropped.push(text_of(&mut socket));
            }
            if !self.rig.engine.has_work() {
                return dropped;
            }
        }
    }

    fn take(&mut self, id: ConnectionId) -> String {
        self.rig.engine.socket_mut(id).map(text_of).unwrap_or_default()
    }

    /// A client that comes and logs in with its second round trip, while others come.
    fn log_in(&mut self, name: &str, from: IpAddr, others: &[IpAddr]) -> bool {
        let Some(id) = self.come(from) else { return false };
        self.run();
        for one in others {
            self.come(*one);
        }
        self.say(id, &standard_connect("1.2").replacen("login:ana", &format!("login:{name}"), 1));
        self.say(id, "\0");
        self.run();
        self.take(id).starts_with("CONNECTED\n")
    }

    /// Whether all connections that are left are counted as they should be.
    fn places_used(&self) -> u32 {
        self.rig.engine.check_invariants();
        self.rig.engine.len() as u32
    }

    fn reasons(&self) -> Vec<CloseReason> {
        let engine = &self.rig.engine;
        self.connections.iter().filter_map(|id| engine.close_reason(*id)).collect()
    }
}

fn text_of(socket: &mut ScriptedSocket) -> String {
    let writes = std::iter::from_fn(|| socket.take_outbound());
    writes.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

fn attacker(number: u32) -> IpAddr {
    Ipv4Addr::new(127, 0, (number >> 8) as u8, number as u8).into()
}

/// The first address of a network.
fn network(number: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, 1).into()
}

#[test]
fn whoever_holds_places_without_a_login_pays_for_those_who_come() {
    for (what, addresses) in [
        ("one address", vec![attacker(1); PLACES as usize]),
        ("20 addresses", (0..PLACES).map(|number| attacker(number % 20)).collect()),
        ("a network for each", (0..PLACES as u16).map(network).collect()),
        ("the address of all", vec![SELF; PLACES as usize]),
    ] {
        let mut house = House::new();
        for one in &addresses {
            house.come(*one);
        }
        house.run();
        for number in 0..PLACES {
            // While one logs in, half as many come as there are places for those who are not logged in.
            let others = &addresses[..((PLACES - number) / 2) as usize];
            let is_in = house.log_in(&format!("guest-{number}"), SELF, others);
            assert!(is_in, "{what}: guest {number}");
            assert!(house.places_used() <= PLACES);
        }
        assert!(house.reasons().is_empty(), "{what}: nobody who is logged in loses a place");
        let counters = house.rig.engine.counters();
        let open = counters.connections_accepted - counters.connections_closed;
        assert_eq!(open, house.rig.engine.len() as u64, "{what}");
    }
}

#[test]
fn the_source_with_most_pays_and_not_one_with_few() {
    let mut house = House::new();
    let few: Vec<_> = (0..8).map(|number| house.come(attacker(number)).unwrap()).collect();
    for _ in 0..1_000 {
        house.come(attacker(100));
    }
    house.run();
    for (number, id) in few.into_iter().enumerate() {
        let login = standard_connect("1.2").replacen("login:ana", &format!("login:{number}"), 1);
        house.say(id, &(login + "\0"));
        house.run();
        assert!(house.take(id).starts_with("CONNECTED\n"), "{number}");
    }
}

#[test]
fn who_loses_a_place_is_told_to_retry_later_where_its_protocol_is_known() {
    let mut house = House::new();
    let ids: Vec<_> = (0..PLACES).map(|_| house.come(attacker(1)).unwrap()).collect();
    for id in &ids[..20] {
        house.say(*id, "CONNECT\n");
    }
    house.run();
    for _ in 0..20 {
        house.come(SELF).unwrap();
    }
    house.places_used();
    let told: Vec<_> = ids[..4].iter().map(|id| house.take(*id)).collect();
    let dropped = house.run();
    assert_eq!(dropped.len(), 16, "beyond refusals_max there is no waiting for an end");
    for text in told.iter().chain(&dropped) {
        assert!(text.contains("LIMIT_EXCEEDED"), "{text}");
        assert!(text.contains("connections_max"), "{text}");
    }
    assert_eq!(house.rig.engine.len() as u32, PLACES + 4);
    house.rig.advance(1_001);
    house.run();
    assert_eq!(house.rig.engine.len() as u32, PLACES, "their time is over");
}

#[test]
fn who_does_not_take_its_end_holds_no_place() {
    let mut house = House::new();
    for _ in 0..PLACES {
        let id = house.come(attacker(1)).unwrap();
        house.say(id, "CONNECT\nsecret-key:wrong\nlogin:a\npasscode:b\n\n\0");
    }
    house.run();
    assert_eq!(house.reasons().len() as u32, PLACES, "all linger");
    for number in 0..PLACES {
        assert!(house.log_in(&format!("guest-{number}"), SELF, &[]), "{number}");
    }
}

#[test]
fn where_all_are_logged_in_who_comes_is_refused_and_nobody_ends() {
    let mut house = House::new();
    for number in 0..PLACES {
        assert!(house.log_in(&format!("client-{number}"), attacker(1), &[]));
    }
    let late = house.come(SELF).unwrap();
    house.say(late, "CONNECT\naccept-version:1.2\nhost:x\n\n\0");
    house.run();
    let answer = house.take(late);
    assert!(answer.contains("LIMIT_EXCEEDED") && answer.contains("retry:later"), "{answer}");
    assert_eq!(house.reasons(), [CloseReason::Exceeded("connections_max")]);
    let first = house.connections[0];
    house.say(first, "DISCONNECT\nreceipt:1\n\n\0");
    house.run();
    assert!(house.log_in("next", SELF, &[]), "one that has logged out holds no place");
}

#[test]
fn a_handshake_whose_client_has_gone_costs_no_signature() {
    let units_of = |is_gone: bool| {
        let mut house = House::new();
        let id = house.come(SELF).unwrap();
        let hello = Client::standard(Carrier::Tls).take_wire();
        house.rig.engine.socket_mut(id).unwrap().push_inbound(&hello);
        if is_gone {
            house.rig.engine.socket_mut(id).unwrap().end_inbound();
            house.rig.engine.note_end_announced(id.slot);
        }
        house.rig.engine.note_ready(id.slot, true, false);
        let before = house.rig.engine.units();
        house.run();
        house.rig.engine.units() - before
    };
    let (there, gone) = (units_of(false), units_of(true));
    assert!(there > 1_000 && gone < there / 4, "{gone} units instead of {there}");
}
