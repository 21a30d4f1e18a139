//! SEND and MESSAGE: receivers, order, and answers to the sender.

use std::collections::BTreeSet;

use super::{Statement, statement};
use crate::support::client::Profile::Agent;

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'SEND'", "the destination is required", |stage| {
        stage.agent().refused("SEND\n\nbody", "MISSING_HEADER");
        stage.agent().refused("SEND\ndestination:\n\nbody", "MISSING_HEADER");
    }),
    statement("STOMP 1.2, 'MESSAGE'", "it has the destination of the SEND", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &format!("{topic}/>"), "");
        ana.tell(&format!("{topic}/a.b"), "x");
        ana.message().has("destination", &format!("{topic}/a.b"));
    }),
    statement("STOMP 1.2, 'MESSAGE'", "it has a message-id of its own", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        for _ in 0..20 {
            ana.tell(&topic, "x");
        }
        let ids: BTreeSet<_> =
            (0..20).map(|_| ana.message().get("message-id").unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 20);
    }),
    statement("STOMP 1.2, 'MESSAGE'", "it has the id of the receiver's subscription", |stage| {
        let topic = stage.topic();
        let mut receivers: Vec<_> = (0..5).map(|_| stage.agent()).collect();
        for (index, receiver) in receivers.iter_mut().enumerate() {
            receiver.subscribe(&format!("s{index}"), &topic, "");
        }
        assert_eq!(stage.agent().tell(&topic, "x"), 5);
        for (index, receiver) in receivers.iter_mut().enumerate() {
            receiver.message().has("subscription", &format!("s{index}")).says("x");
        }
    }),
    statement("STOMP 1.2, 'MESSAGE'", "it has ack only where it is to be acknowledged", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.tell(&topic, "x");
        ana.message().lacks("ack");
        ana.ask("UNSUBSCRIBE\nid:0\n\n");
        ana.subscribe("0", &topic, "ack:client\n");
        ana.tell(&topic, "x");
        let ack = ana.message().get("ack").unwrap().to_owned();
        ana.ask(&format!("ACK\nid:{ack}\n\n"));
    }),
    statement("Ours, 'Standard dialect'", "every subscriber of a topic gets a message", |stage| {
        let topic = stage.topic();
        let mut receivers = [stage.client(Agent, "1.0"), stage.client(Agent, "1.1"), stage.agent()];
        for receiver in &mut receivers {
            receiver.subscribe("0", &topic, "");
        }
        assert_eq!(receivers[0].tell(&topic, "x"), 3);
        for receiver in &mut receivers {
            receiver.message().says("x");
            receiver.hears_nothing();
        }
    }),
    statement("Ours, 'Standard dialect'", "messages of one sender arrive in order", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        for n in 0..500 {
            bob.say(&format!("SEND\ndestination:{topic}\n\n{n}"));
        }
        let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
        assert_eq!(ana.bodies(500), expected);
    }),
    statement("Ours, 'Standard dialect'", "direct messages and topics keep their order", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.listen();
        for n in 0..40 {
            let to = if n % 3 == 0 { ana.address() } else { topic.clone() };
            bob.say(&format!("SEND\ndestination:{to}\n\n{n}"));
        }
        let expected: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        assert_eq!(ana.bodies(40), expected);
    }),
    statement("Ours, 'Standard dialect'", "RECEIPT says to how many sessions it went", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        assert_eq!(bob.tell(&topic, ""), 0);
        ana.subscribe("a", &topic, "");
        assert_eq!(bob.tell(&topic, ""), 1);
        ana.subscribe("b", &format!("{topic}/>"), "");
        bob.subscribe("0", &topic, "");
        assert_eq!(bob.tell(&topic, ""), 2);
        assert_eq!(bob.tell("/agent/nobody", ""), 0);
    }),
    statement(
        "Ours, 'Standard dialect'",
        "a session counts once, however it subscribed",
        |stage| {
            let (mut ana, mut bob, mut cid) = (stage.agent(), stage.agent(), stage.agent());
            let topic = stage.topic();
            ana.subscribe("a", &topic, "");
            bob.subscribe("a", &topic, "");
            ana.subscribe("b", &topic, "");
            assert_eq!(cid.tell(&topic, ""), 2);
            ana.subscribe("own", &ana.address(), "");
            ana.subscribe("own-too", &ana.address(), "");
            assert_eq!(cid.tell(&ana.address(), ""), 1);
        },
    ),
    statement(
        "Ours, 'Standard dialect'",
        "undeliverable:error refuses what reaches nobody",
        |stage| {
            let (mut ana, mut bob) = (stage.agent(), stage.agent());
            ana.listen();
            assert_eq!(bob.tell_with(&ana.address(), "undeliverable:error\n", "x"), 1);
            let frame = "SEND\ndestination:/agent/nobody\nundeliverable:error\nreceipt:r\n\nx";
            bob.refused(frame, "NO_SUCH_DESTINATION").has("receipt-id", "r");
        },
    ),
    statement("STOMP 1.2, 'SEND'", "a message may go to oneself", |stage| {
        let mut ana = stage.agent();
        ana.listen();
        assert_eq!(ana.tell(&ana.address(), "note"), 1);
        ana.message().has("origin", &ana.login()).says("note");
    }),
];
