//! RECEIPT, DISCONNECT, and the end of a connection.

use super::{Statement, statement};
use crate::conformance::stage::connect;
use crate::support::client::Profile::Agent;

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'Header receipt'", "every frame but CONNECT may ask for one", |stage| {
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.ask(&format!("SUBSCRIBE\nid:0\ndestination:{queue}\nack:client\n\n"));
        bob.ask(&format!("SEND\ndestination:{queue}\n\nx"));
        let id = bob.message().get("ack").unwrap().to_owned();
        bob.ask(&format!("NACK\nid:{id}\n\n"));
        let id = bob.message().get("ack").unwrap().to_owned();
        bob.ask(&format!("ACK\nid:{id}\n\n"));
        bob.ask("BEGIN\ntransaction:t\n\n");
        bob.ask("COMMIT\ntransaction:t\n\n");
        bob.ask("BEGIN\ntransaction:t\n\n");
        bob.ask("ABORT\ntransaction:t\n\n");
        bob.ask("UNSUBSCRIBE\nid:0\n\n");
        bob.ask("DISCONNECT\n\n");
        bob.ends();
    }),
    statement("STOMP 1.2, 'RECEIPT'", "its id is the receipt, as it was written", |stage| {
        for version in ["1.0", "1.1", "1.2"] {
            let mut ana = stage.client(Agent, version);
            for id in ["1", "a b", "a\\cb\\\\c\\nd", "ñ💬", "a:b"] {
                ana.say(&format!("BEGIN\ntransaction:{id}\nreceipt:{id}\n\n"));
                let receipt = ana.expect("RECEIPT");
                receipt.has("receipt-id", id).says("");
                assert_eq!(receipt.names(), ["receipt-id"]);
            }
            ana.say("BEGIN\ntransaction:t\nreceipt: a b \n\n");
            // In 1.0, blanks around a value are not part of it.
            let id = if version == "1.0" { "a b" } else { " a b " };
            ana.expect("RECEIPT").has("receipt-id", id);
        }
    }),
    statement("STOMP 1.2, 'RECEIPT'", "they come in the order of the frames", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        let frames: String =
            (0..100).map(|n| format!("SEND\ndestination:{topic}\nreceipt:{n}\n\n\0")).collect();
        ana.bytes(frames.as_bytes());
        for n in 0..100 {
            ana.expect("RECEIPT").has("receipt-id", &n.to_string()).has("delivered", "0");
        }
    }),
    statement("STOMP 1.2, 'RECEIPT'", "the frame was processed before it comes", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        for _ in 0..20 {
            let topic = stage.topic();
            let id = topic.trim_start_matches("/topic/").to_owned();
            ana.subscribe(&id, &topic, "");
            assert_eq!(bob.tell(&topic, ""), 1);
            ana.message().has("subscription", &id);
        }
    }),
    statement("STOMP 1.2, 'Header receipt'", "who does not ask gets none", |stage| {
        let mut ana = stage.agent();
        ana.say("BEGIN\ntransaction:t\n\n");
        ana.say("SEND\ndestination:/topic/a\n\n");
        ana.say("ABORT\ntransaction:t\n\n");
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'DISCONNECT'", "RECEIPT comes, then the end", |stage| {
        let mut ana = stage.agent();
        ana.say("DISCONNECT\nreceipt:77\n\n");
        let receipt = ana.expect("RECEIPT");
        receipt.has("receipt-id", "77");
        ana.ends();
    }),
    statement("STOMP 1.2, 'DISCONNECT'", "without a receipt only the end comes", |stage| {
        let mut ana = stage.agent();
        ana.say("DISCONNECT\n\n");
        ana.ends();
    }),
    statement("STOMP 1.2, 'DISCONNECT'", "what was sent before it is processed", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        let mut frames: String =
            (0..200).map(|n| format!("SEND\ndestination:{topic}\n\n{n}\0")).collect();
        frames += "DISCONNECT\nreceipt:bye\n\n\0";
        ana.bytes(frames.as_bytes());
        ana.expect("RECEIPT").has("receipt-id", "bye");
        ana.ends();
        assert_eq!(bob.bodies(200).last().unwrap(), "199");
    }),
    statement("STOMP 1.2, 'DISCONNECT'", "what is sent after it is not looked at", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        ana.bytes(
            format!("DISCONNECT\nreceipt:bye\n\n\0SEND\ndestination:{topic}\n\nx\0nonsense\0")
                .as_bytes(),
        );
        ana.expect("RECEIPT");
        ana.ends();
        bob.hears_nothing();
    }),
    statement("STOMP 1.2, 'DISCONNECT'", "the login is free once RECEIPT is there", |stage| {
        let mut ana = stage.service();
        ana.ask("DISCONNECT\n\n");
        stage.join(&ana.login(), crate::support::client::Profile::Service, "1.2");
    }),
    statement(
        "STOMP 1.2, 'Connection Lingering'",
        "RECEIPT arrives behind unread input",
        |stage| {
            let mut ana = stage.agent();
            ana.bytes(b"DISCONNECT\nreceipt:bye\n\n\0");
            for _ in 0..20 {
                ana.bytes(&[b'\n'; 10_000]);
            }
            ana.expect("RECEIPT").has("receipt-id", "bye");
            ana.ends();
        },
    ),
    statement("STOMP 1.2, 'Connection Lingering'", "so does the last ERROR", |stage| {
        let mut ana = stage.agent();
        ana.bytes(b"NONSENSE\n\n\0");
        for _ in 0..20 {
            ana.bytes(&[b'x'; 10_000]);
        }
        ana.fails("UNKNOWN_COMMAND");
    }),
    statement("STOMP 1.2, 'Connection Lingering'", "so it does behind much output", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        for _ in 0..50 {
            bob.tell(&topic, &"x".repeat(20_000));
        }
        ana.say("NONSENSE\n\n");
        ana.bodies(50);
        ana.fails("UNKNOWN_COMMAND");
    }),
    statement("STOMP 1.2, 'RECEIPT'", "who ends the stream is still answered", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        ana.say(&format!("SEND\ndestination:{topic}\nreceipt:r\n\nlast"));
        ana.link.end_stream();
        bob.message().says("last");
        ana.expect("RECEIPT").has("receipt-id", "r");
    }),
    statement("STOMP 1.2, 'Connection Lingering'", "clients may come and go quickly", |stage| {
        let login = stage.name("quick");
        for _ in 0..20 {
            let mut ana = stage.stranger();
            let text =
                connect(&login, crate::support::client::Profile::Service, "accept-version:1.2\n");
            ana.bytes(format!("{text}\0DISCONNECT\nreceipt:r\n\n\0").as_bytes());
            ana.expect("CONNECTED");
            ana.expect("RECEIPT").has("receipt-id", "r");
            ana.ends();
        }
    }),
];
