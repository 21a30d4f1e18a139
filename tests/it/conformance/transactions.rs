//! BEGIN, COMMIT and ABORT.

use super::{Statement, statement};
use crate::support::client::Profile::{Agent, SuperAgent};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'BEGIN'", "a SEND within waits for COMMIT", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        ana.ask("BEGIN\ntransaction:t\n\n");
        for n in 0..3 {
            ana.ask(&format!("SEND\ndestination:{topic}\ntransaction:t\n\n{n}"));
        }
        bob.hears_nothing();
        ana.tell(&topic, "outside");
        bob.message().says("outside");
        ana.ask("COMMIT\ntransaction:t\n\n");
        assert_eq!(bob.bodies(3), ["0", "1", "2"]);
    }),
    statement("STOMP 1.2, 'ABORT'", "nothing of it is done", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        ana.ask("BEGIN\ntransaction:t\n\n");
        ana.ask(&format!("SEND\ndestination:{topic}\ntransaction:t\n\nx"));
        ana.ask("ABORT\ntransaction:t\n\n");
        bob.hears_nothing();
    }),
    statement("STOMP 1.2, 'BEGIN'", "an ACK within waits for COMMIT", |stage| {
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "ack:client\nprefetch-count:1\n");
        bob.tell(&queue, "1");
        bob.tell(&queue, "2");
        let id = bob.message().get("ack").unwrap().to_owned();
        bob.ask("BEGIN\ntransaction:t\n\n");
        bob.ask(&format!("ACK\nid:{id}\ntransaction:t\n\n"));
        bob.hears_nothing();
        bob.ask("COMMIT\ntransaction:t\n\n");
        bob.message().says("2");
    }),
    statement("STOMP 1.2, 'ABORT'", "an ACK within was none", |stage| {
        let queue = stage.queue();
        let (mut ana, mut bob) = (stage.service(), stage.service());
        ana.subscribe("0", &queue, "ack:client\n");
        ana.tell(&queue, "1");
        let id = ana.message().get("ack").unwrap().to_owned();
        ana.ask("BEGIN\ntransaction:t\n\n");
        ana.ask(&format!("ACK\nid:{id}\ntransaction:t\n\n"));
        ana.ask("ABORT\ntransaction:t\n\n");
        ana.ask("UNSUBSCRIBE\nid:0\n\n");
        bob.subscribe("0", &queue, "");
        bob.message().says("1");
    }),
    statement("STOMP 1.2, 'NACK'", "it may be part of a transaction", |stage| {
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "ack:client\n");
        bob.tell(&queue, "1");
        let id = bob.message().get("ack").unwrap().to_owned();
        bob.ask("BEGIN\ntransaction:t\n\n");
        bob.ask(&format!("NACK\nid:{id}\ntransaction:t\n\n"));
        bob.hears_nothing();
        bob.ask("COMMIT\ntransaction:t\n\n");
        bob.message().says("1").has("redelivered", "true");
    }),
    statement("STOMP 1.2, 'BEGIN'", "the id is required and unique on a connection", |stage| {
        stage.agent().refused("BEGIN\n\n", "MISSING_HEADER");
        let mut ana = stage.agent();
        ana.ask("BEGIN\ntransaction:t\n\n");
        ana.refused("BEGIN\ntransaction:t\n\n", "UNKNOWN_ID");
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        ana.ask("BEGIN\ntransaction:t\n\n");
        bob.ask("BEGIN\ntransaction:t\n\n");
    }),
    statement("STOMP 1.2, 'COMMIT'", "the id is that of a transaction in progress", |stage| {
        stage.agent().refused("COMMIT\n\n", "MISSING_HEADER");
        stage.agent().refused("COMMIT\ntransaction:t\n\n", "UNKNOWN_ID");
        let mut ana = stage.agent();
        ana.ask("BEGIN\ntransaction:t\n\n");
        ana.ask("COMMIT\ntransaction:t\n\n");
        ana.refused("COMMIT\ntransaction:t\n\n", "UNKNOWN_ID");
    }),
    statement("STOMP 1.2, 'ABORT'", "the id is that of a transaction in progress", |stage| {
        stage.agent().refused("ABORT\n\n", "MISSING_HEADER");
        stage.agent().refused("ABORT\ntransaction:t\n\n", "UNKNOWN_ID");
    }),
    statement("STOMP 1.2, 'BEGIN'", "SEND and ACK name a transaction in progress", |stage| {
        let send = "SEND\ndestination:/topic/a\ntransaction:t\n\n";
        stage.agent().refused(send, "UNKNOWN_ID");
        stage.agent().refused("ACK\nid:0-1\ntransaction:t\n\n", "UNKNOWN_ID");
    }),
    statement("STOMP 1.2, 'COMMIT'", "the id is free again", |stage| {
        let mut ana = stage.agent();
        for end in ["COMMIT", "ABORT", "COMMIT"] {
            ana.ask("BEGIN\ntransaction:t\n\n");
            ana.ask(&format!("{end}\ntransaction:t\n\n"));
        }
    }),
    statement("STOMP 1.2, 'BEGIN'", "several may be in progress", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        ana.ask("BEGIN\ntransaction:a\\c1\n\n");
        ana.ask("BEGIN\ntransaction:b\n\n");
        ana.ask(&format!("SEND\ndestination:{topic}\ntransaction:a\\c1\n\nfirst"));
        ana.ask(&format!("SEND\ndestination:{topic}\ntransaction:b\n\nsecond"));
        ana.ask("COMMIT\ntransaction:b\n\n");
        bob.message().says("second");
        ana.ask("COMMIT\ntransaction:a\\c1\n\n");
        bob.message().says("first");
    }),
    statement("STOMP 1.2, 'BEGIN'", "it is done as a whole or not at all", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        ana.say("BEGIN\ntransaction:t\n\n");
        ana.say(&format!("SEND\ndestination:{topic}\ntransaction:t\n\nx"));
        ana.say("ACK\nid:nonsense\ntransaction:t\n\n");
        ana.say("COMMIT\ntransaction:t\n\n");
        ana.fails("UNKNOWN_ID");
        bob.hears_nothing();
        let mut ana = stage.agent();
        ana.say("BEGIN\ntransaction:t\n\n");
        ana.say(&format!("SEND\ndestination:{topic}\ntransaction:t\n\nx"));
        ana.say("SEND\ndestination:/agent/nobody\nundeliverable:error\ntransaction:t\n\nx");
        ana.say("COMMIT\ntransaction:t\n\n");
        ana.fails("NO_SUCH_DESTINATION");
        bob.hears_nothing();
    }),
    statement("STOMP 1.2, 'BEGIN'", "a DISCONNECT aborts it", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        ana.ask("BEGIN\ntransaction:t\n\n");
        ana.ask(&format!("SEND\ndestination:{topic}\ntransaction:t\n\nx"));
        ana.ask("DISCONNECT\n\n");
        ana.ends();
        bob.hears_nothing();
    }),
    statement("STOMP 1.2, 'BEGIN'", "so does the end of the connection", |stage| {
        let login = stage.name("gone");
        let mut ana = stage.join(&login, Agent, "1.2");
        ana.ask("BEGIN\ntransaction:t\n\n");
        drop(ana);
        let mut ana = stage.join(&login, Agent, "1.2");
        ana.refused("COMMIT\ntransaction:t\n\n", "UNKNOWN_ID");
    }),
    statement("STOMP 1.2, 'BEGIN'", "so does a takeover, for it ends the connection", |stage| {
        let login = stage.name("taken");
        let mut older = stage.join(&login, SuperAgent, "1.2");
        older.ask("BEGIN\ntransaction:t\n\n");
        let mut newer = stage.join(&login, SuperAgent, "1.2");
        older.fails("NEW_CONNECTION_LOGGED");
        newer.refused("COMMIT\ntransaction:t\n\n", "UNKNOWN_ID");
    }),
    statement("Ours, 'Standard dialect'", "the number of transactions is bounded", |stage| {
        let mut ana = stage.strict().agent();
        for id in 0..3 {
            ana.say(&format!("BEGIN\ntransaction:{id}\n\n"));
        }
        ana.refused("BEGIN\ntransaction:3\n\n", "LIMIT_EXCEEDED");
    }),
    statement("Ours, 'Standard dialect'", "what waits in them is bounded", |stage| {
        let mut ana = stage.strict().agent();
        let body = "x".repeat(10_000);
        ana.say("BEGIN\ntransaction:t\n\n");
        ana.say("BEGIN\ntransaction:u\n\n");
        ana.say(&format!("SEND\ndestination:/topic/open/a\ntransaction:t\n\n{body}"));
        ana.refused(
            &format!("SEND\ndestination:/topic/open/a\ntransaction:u\n\n{body}"),
            "LIMIT_EXCEEDED",
        );
    }),
    statement("Ours, 'Standard dialect'", "rights hold within a transaction", |stage| {
        let mut ana = stage.strict().agent();
        ana.say("BEGIN\ntransaction:t\n\n");
        let send = "SEND\ndestination:/topic/closed\ntransaction:t\n\n";
        ana.refused(send, "PROF_NO_RIGHTS");
    }),
];
