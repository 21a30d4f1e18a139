//! ERROR: its content, and the end of the connection.

use super::{Statement, statement};
use crate::conformance::stage::{Server, connect};
use crate::support::client::Profile::{Agent, Service, SuperAgent};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'ERROR'", "it has a message, and a body that says its type", |stage| {
        let error = stage.agent().refused("BEGIN\n\n", "MISSING_HEADER");
        assert!(error.get("message").unwrap().contains("transaction"), "{error}");
        error.has("content-type", "text/plain;charset=utf-8");
        error.has("content-length", &error.body.len().to_string());
        assert!(!error.body.is_empty());
    }),
    statement("STOMP 1.2, 'ERROR'", "the connection closes after it", |stage| {
        let mut ana = stage.agent();
        ana.say("BEGIN\n\n");
        ana.say("BEGIN\ntransaction:t\nreceipt:never\n\n");
        ana.fails("MISSING_HEADER");
    }),
    statement("STOMP 1.2, 'ERROR'", "it has the receipt of the frame at fault", |stage| {
        let frames = [
            "SEND\nreceipt:a\\cb\n\n",
            "SUBSCRIBE\nreceipt:a\\cb\nid:0\ndestination:/topic/a\n\nbody",
            "COMMIT\nreceipt:a\\cb\ntransaction:none\n\n",
            "SEND\nreceipt:a\\cb\ndestination:/topic/a\nk:\\t\n\n",
            "ACK\nreceipt:a\\cb\nid:none\n\n",
            "UNSUBSCRIBE\nreceipt:a\\cb\nid:none\n\n",
        ];
        for frame in frames {
            let mut ana = stage.agent();
            ana.say(frame);
            ana.expect("ERROR").has("receipt-id", "a\\cb");
            ana.ends();
        }
    }),
    statement("STOMP 1.2, 'ERROR'", "so it is where the frame is malformed", |stage| {
        let frames = [
            "SEND\ndestination:/topic/x\nreceipt:r9\ncontent-length:1\n\nxy",
            "SEND\ndestination:/topic/x\nreceipt:r9\ncontent-length:x\n\n",
            "SEND\ndestination:/topic/x\nno colon\nreceipt:r9\n\n",
            "SEND\ndestination:/topic/x\n:no name\nreceipt:r9\n\n",
            "SEND\ndestination:/topic/x\n origin:boss\nreceipt:r9\n\n",
            "SEND\nreceipt:r9\ndestination:/topic/x\n",
            "SUBSCRIBE\nreceipt:r9\nid:0\nselector:a\ndestination:/topic/x\n\n",
            "FOO\nreceipt:r9\n\n",
            "CONNECTED\nreceipt:r9\n\n",
        ];
        for frame in frames {
            let mut ana = stage.agent();
            ana.say(frame);
            ana.expect("ERROR").has("receipt-id", "r9");
            ana.ends();
            // However it is cut.
            let mut ana = stage.agent();
            let bytes = [frame.as_bytes(), b"\0"].concat();
            for piece in bytes.chunks(9) {
                ana.bytes(piece);
            }
            ana.expect("ERROR").has("receipt-id", "r9");
            ana.ends_somehow();
        }
        let stage = stage.strict();
        let lines = "k:v\n".repeat(20);
        let long = format!("k:{}\n", "x".repeat(5000));
        for more in [&lines[..], &long, "content-length:65537\n"] {
            let mut ana = stage.agent();
            let head = "SEND\ndestination:/topic/open/a\nreceipt:r9\n";
            ana.bytes(format!("{head}{more}\n\0").as_bytes());
            ana.expect("ERROR").has("error-code", "LIMIT_EXCEEDED").has("receipt-id", "r9");
            ana.ends_somehow();
        }
    }),
    statement(
        "STOMP 1.2, 'Value Encoding'",
        "ERROR has no receipt that cannot be unescaped",
        |stage| {
            for receipt in ["a\\tb", "a\\"] {
                for more in ["", "no colon\n"] {
                    let frame = format!("SEND\ndestination:/topic/a\nreceipt:{receipt}\n{more}\n");
                    let error = stage.agent().refused(&frame, "UNKNOWN_FORMAT_HEADER");
                    error.lacks("receipt-id");
                }
            }
        },
    ),
    statement(
        "Ours, 'Destinations'",
        "a SEND too late is refused where it goes nowhere",
        |stage| {
            for name in ["/topics/news", "/topic/", "/topic/>", "STOMP-SERVER"] {
                let frame = format!("SEND\ndestination:{name}\nexpires:5\n\n");
                stage.agent().refused(&frame, "NO_SUCH_DESTINATION");
            }
        },
    ),
    statement("STOMP 1.2, 'ERROR'", "it has no receipt where none was asked for", |stage| {
        stage.agent().refused("BEGIN\n\n", "MISSING_HEADER").lacks("receipt-id");
    }),
    statement("STOMP 1.2, 'RECEIPT'", "a frame at fault gets no RECEIPT", |stage| {
        let mut ana = stage.agent();
        ana.say("SUBSCRIBE\nid:0\ndestination:/queue/a\nreceipt:r\n\n");
        ana.fails("PROF_NO_RIGHTS").has("receipt-id", "r");
    }),
    statement("STOMP 1.2, 'ERROR'", "RECEIPTs of the frames before it come first", |stage| {
        let mut ana = stage.agent();
        ana.bytes(b"BEGIN\ntransaction:t\nreceipt:1\n\n\0SEND\n\n\0BEGIN\n\n\0");
        ana.expect("RECEIPT").has("receipt-id", "1");
        ana.fails("MISSING_HEADER");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "ERROR is escaped like any frame", |stage| {
        let mut ana = stage.agent();
        let error = ana.refused("COMMIT\ntransaction:a\\cb\n\n", "UNKNOWN_ID");
        assert!(error.get("message").unwrap().contains("a\\cb"), "{error}");
        assert!(error.text().contains("a:b"), "{error}");
    }),
    statement("Ours, 'Classic dialect'", "retry:never where it would be refused again", |stage| {
        stage.agent().refused("BEGIN\n\n", "MISSING_HEADER").has("retry", "never");
    }),
    statement("Ours, 'Sessions'", "a service does not yield: retry:later", |stage| {
        let mut service = stage.service();
        let again = connect(&service.login(), Service, "");
        stage.stranger().refused(&again, "LOGIN_ID_ALREADY_LOGGED").has("retry", "later");
        service.hears_nothing();
    }),
    statement("Ours, 'Sessions'", "an agent's login stays an agent's", |stage| {
        let mut ana = stage.agent();
        let other = connect(&ana.login(), SuperAgent, "");
        stage.stranger().refused(&other, "WRONG_PROFILE_REGISTERED");
        ana.hears_nothing();
    }),
    statement("Ours, 'Sessions'", "the newer connection of an agent takes over", |stage| {
        let login = stage.name("taken");
        let mut older = stage.join(&login, Agent, "1.1");
        let mut newer = stage.join(&login, Agent, "1.2");
        older.fails("NEW_CONNECTION_LOGGED");
        let [before, after] = [&older, &newer].map(|one| one.connected.as_ref().unwrap());
        assert_eq!(before.get("session"), after.get("session"));
        newer.listen();
        assert_eq!(stage.agent().tell(&newer.address(), "here"), 1);
        newer.message().says("here");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE id Header'", "a takeover has no subscriptions", |stage| {
        let login = stage.name("taken");
        let mut older = stage.join(&login, SuperAgent, "1.2");
        let (topic, watched) = (stage.topic(), stage.agent());
        older.subscribe("0", &topic, "");
        older.subscribe("1", &watched.address(), "");
        let mut newer = stage.join(&login, SuperAgent, "1.2");
        older.fails("NEW_CONNECTION_LOGGED");
        assert_eq!(stage.agent().tell(&topic, "here"), 0);
        stage.agent().tell(&watched.address(), "here");
        newer.hears_nothing();
    }),
    statement("Ours, 'Sessions'", "unless it asks for them by resume:true", |stage| {
        let login = stage.name("taken");
        let mut older = stage.join(&login, Agent, "1.2");
        let topic = stage.topic();
        older.subscribe("0", &topic, "");
        let mut newer = stage.resume(&login, Agent);
        older.fails("NEW_CONNECTION_LOGGED");
        assert_eq!(stage.agent().tell(&topic, "here"), 1);
        newer.message().has("subscription", "0").says("here");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE id Header'", "a connection begins without ids", |stage| {
        let login = stage.name("taken");
        let mut older = stage.join(&login, Agent, "1.2");
        let topics = [stage.topic(), stage.topic()];
        older.subscribe("0", &topics[0], "");
        let mut newer = stage.join(&login, Agent, "1.2");
        older.fails("NEW_CONNECTION_LOGGED");
        // A client that reconnects subscribes as before.
        newer.subscribe("0", &topics[0], "");
        assert_eq!(newer.tell(&topics[0], "once"), 1);
        newer.message().has("subscription", "0").says("once");
        newer.hears_nothing();
        newer.refused(&format!("SUBSCRIBE\nid:0\ndestination:{}\n\n", topics[1]), "UNKNOWN_ID");
    }),
    statement(
        "STOMP 1.2, 'SUBSCRIBE'",
        "who connects again gets one copy, by the new id",
        |stage| {
            let login = stage.name("taken");
            let mut older = stage.join(&login, SuperAgent, "1.2");
            let (topic, queue) = (stage.topic(), stage.queue());
            older.subscribe("old-t", &topic, "");
            older.subscribe("old-q", &queue, "ack:client\n");
            older.subscribe("old-i", &older.address(), "");
            let mut newer = stage.resume(&login, SuperAgent);
            older.fails("NEW_CONNECTION_LOGGED");
            newer.subscribe("new-t", &topic, "");
            newer.subscribe("new-q", &queue, "ack:client\n");
            newer.subscribe("new-i", &newer.address(), "");
            for (to, id) in [(&topic, "new-t"), (&queue, "new-q"), (&newer.address(), "new-i")] {
                assert_eq!(newer.tell(to, ""), 1);
                newer.message().has("subscription", id);
                newer.hears_nothing();
            }
        },
    ),
    statement("Ours, 'Sessions'", "repeated takeovers are damped", |stage| {
        let stage = stage.strict();
        let login = stage.name("fight");
        let mut held = stage.join(&login, Agent, "1.2");
        for _ in 0..2 {
            let newer = stage.join(&login, Agent, "1.2");
            held.fails("NEW_CONNECTION_LOGGED");
            held = newer;
        }
        let again = connect(&login, Agent, "");
        stage.stranger().refused(&again, "LOGIN_ID_ALREADY_LOGGED").has("retry", "later");
        held.hears_nothing();
    }),
    statement("Ours, 'Standard dialect'", "a broker that leaves says so: retry:now", |stage| {
        let broker = Server::start();
        let stage = stage.with(&broker);
        let (mut ana, mut bob) = (stage.agent(), stage.service());
        broker.signal("TERM");
        ana.fails("DRAINING").has("retry", "now");
        bob.fails("DRAINING").has("retry", "now");
    }),
];
