//! Classic and standard clients in the same sessions and addresses.

use super::{Statement, statement};
use crate::support::client::Profile::{Agent, Service, SuperAgent};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("Ours, 'Between the dialects'", "a classic SEND arrives as MESSAGE", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.classic(Agent));
        ana.listen();
        bob.ask(&format!("SEND\ndestination:{}\nk:v\n\nhello", ana.address()));
        let frame = ana.message();
        frame.has("subscription", "mine").has("destination", &ana.address()).has("k", "v");
        frame.has("origin-destination", &bob.address()).says("hello");
        frame.has("content-length", "5").lacks("transaction").lacks("session-id");
    }),
    statement(
        "Ours, 'Between the dialects'",
        "a standard SEND arrives as classic MESSAGE",
        |stage| {
            let (mut ana, mut bob) = (stage.agent(), stage.classic(Agent));
            assert_eq!(ana.tell_with(&bob.address(), "k:a\\cb\n", "hello"), 1);
            let frame = bob.message();
            frame.has("origin", &ana.login()).has("destination", &ana.address()).has("k", "a:b");
            frame.has("session-id", bob.session_id()).says("hello");
            frame.has("content-type", "text/plain").has("content-length", "5");
            frame.lacks("message-id").lacks("subscription").lacks("receipt");
            ana.listen();
            bob.ask(&format!("SEND\ndestination:{}\n\nback", frame.get("destination").unwrap()));
            ana.message().says("back");
        },
    ),
    statement(
        "Ours, 'Between the dialects'",
        "an escaped line end forges no classic line",
        |stage| {
            let (mut ana, mut bob) = (stage.agent(), stage.classic(Agent));
            let more = "content-type:text/html\\norigin\\ceve\nk\\nx:v\\n\\nbody\n";
            ana.tell_with(&bob.address(), more, "real");
            let frame = bob.message();
            frame
                .has("origin", &ana.login())
                .has("content-type", "text/html origin:eve")
                .says("real");
            frame.has("k x", "v  body");
            assert_eq!(frame.all("origin").count(), 1);
        },
    ),
    statement(
        "RFC 6455, 5.6",
        "a classic header that is not UTF-8 makes no text message",
        |stage| {
            let (mut ana, mut bob) = (stage.classic(Agent), stage.classic(Agent));
            let rest = format!("\ndestination:{}\n\nhello\0", bob.address());
            ana.bytes(&[b"SEND\ntransaction:\xff", rest.as_bytes()].concat());
            bob.message().says("hello");
            ana.expect("ACK");
        },
    ),
    statement(
        "STOMP 1.2, 'Value Encoding'",
        "headers from classic clients are UTF-8, too",
        |stage| {
            let (mut ana, mut bob) = (stage.classic(Agent), stage.agent());
            bob.listen();
            let head = format!("SEND\ndestination:{}\ncontent-type:", bob.address());
            ana.bytes(&[head.as_bytes(), b"\xff\nk\xfel:v\xc3\n\nhello\0"].concat());
            let frame = bob.message();
            frame.has("content-type", "\u{fffd}").has("k\u{fffd}l", "v\u{fffd}").says("hello");
        },
    ),
    statement("Ours, 'Between the dialects'", "classic clients subscribe to topics", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.classic(Agent));
        let topic = stage.topic();
        bob.ask(&format!("SUBSCRIBE\ndestination:{topic}\ndestination-type:0\n\n"));
        assert_eq!(ana.tell(&topic, "news"), 1);
        bob.message().has("origin", &ana.login()).says("news");
        ana.listen();
        bob.ask(&format!("SEND\ndestination:{}\n\nback", ana.address()));
        ana.message().says("back");
    }),
    statement(
        "Ours, 'Between the dialects'",
        "classic clients send to topics and queues",
        |stage| {
            let (mut ana, mut bob) = (stage.service(), stage.classic(Agent));
            let (topic, queue) = (stage.topic(), stage.queue());
            ana.subscribe("t", &topic, "");
            ana.subscribe("q", &queue, "ack:client\n");
            bob.ask(&format!("SEND\ndestination:{topic}\n\n1"));
            bob.ask(&format!("SEND\ndestination:{queue}\n\n2"));
            ana.message().has("subscription", "t").says("1").lacks("transaction");
            ana.message().has("subscription", "q").says("2").lacks("transaction");
        },
    ),
    statement(
        "Ours, 'Between the dialects'",
        "a classic client is watched by a standard one",
        |stage| {
            let (mut eve, mut bob) = (stage.super_agent(), stage.classic(Agent));
            eve.subscribe("w", &bob.address(), "");
            assert_eq!(stage.agent().tell(&bob.address(), "seen"), 2);
            eve.message().has("subscription", "w").has("destination", &bob.address()).says("seen");
            bob.message().says("seen");
        },
    ),
    statement(
        "Ours, 'Between the dialects'",
        "a standard client is watched by a classic one",
        |stage| {
            let (mut ana, mut eve) = (stage.agent(), stage.classic(SuperAgent));
            ana.listen();
            eve.ask(&format!("SUBSCRIBE\ndestination:{}\ndestination-type:0\n\n", ana.address()));
            assert_eq!(stage.agent().tell(&ana.address(), "seen"), 2);
            eve.message().says("seen");
            ana.message().says("seen");
        },
    ),
    statement("Ours, 'Presence'", "a standard service sees classic clients come and go", |stage| {
        let mut eve = stage.service();
        let login = stage.name("seen");
        let pattern = format!("destination-id:/agent/{login}\n");
        eve.subscribe("p", "/broker/presence", &pattern);
        let mut bob = stage.join_classic(&login, Agent);
        let frame = eve.message();
        frame.has("event", "logged").has("subscription", "p").has("origin", "STOMP-SERVER");
        assert!(frame.text().contains(&format!("\"login\":\"{login}\"")), "{frame}");
        bob.say("DISCONNECT\nreceipt-id:9\n\n");
        bob.expect("RECEIPT").has("receipt-id", "9");
        bob.ends();
        eve.message().has("event", "disconnected");
        eve.message().has("event", "logout");
    }),
    statement("Ours, 'Presence'", "a classic service sees standard clients come and go", |stage| {
        let mut eve = stage.classic(Service);
        let login = stage.name("seen");
        let subscribe = format!(
            "SUBSCRIBE\ndestination:STOMP-SERVER\ndestination-type:1\n\
             destination-id:/agent/{login}\n\n"
        );
        eve.ask(&subscribe);
        let mut ana = stage.join(&login, Agent, "1.2");
        eve.message().has("event", "logged").has("origin", "STOMP-SERVER");
        ana.ask("DISCONNECT\n\n");
        eve.message().has("event", "disconnected");
        eve.message().has("event", "logout");
    }),
    statement("Ours, 'Presence'", "snapshot:true tells who is there", |stage| {
        let login = stage.name("seen");
        let _ana = stage.join(&login, Agent, "1.2");
        let mut eve = stage.service();
        let more = format!("destination-id:/agent/{login}\nsnapshot:true\n");
        eve.subscribe("p", "STOMP-SERVER", &more);
        eve.message().has("event", "logged").has("snapshot", "true");
    }),
    statement("Ours, 'Presence'", "others than services may not subscribe to it", |stage| {
        let frame = "SUBSCRIBE\nid:p\ndestination:/broker/presence\n\n";
        stage.super_agent().refused(frame, "PROF_NO_RIGHTS");
    }),
    statement("Ours, 'Sessions'", "a classic client takes a standard session over", |stage| {
        let mut ana = stage.agent();
        let mut bob = stage.join_classic(&ana.login(), Agent);
        ana.fails("NEW_CONNECTION_LOGGED");
        let session = ana.connected.as_ref().unwrap().get("session").unwrap();
        assert_eq!(bob.session_id(), session);
        stage.agent().tell(&bob.address(), "here");
        bob.message().says("here");
    }),
    statement("Ours, 'Sessions'", "a standard client takes a classic session over", |stage| {
        let login = stage.name("taken");
        let mut bob = stage.join_classic(&login, Agent);
        let mut ana = stage.join(&login, Agent, "1.2");
        bob.expect("ERROR").has("error-code", "NEW_CONNECTION_LOGGED");
        bob.ends();
        ana.listen();
        stage.agent().tell(&ana.address(), "here");
        ana.message().says("here");
    }),
    statement("Ours, 'Sessions'", "a classic session's watching stays with classic", |stage| {
        let (login, mut ana) = (stage.name("taken"), stage.agent());
        ana.listen();
        let subscribe = format!("SUBSCRIBE\ndestination:{}\ndestination-type:0\n\n", ana.address());
        let mut older = stage.join_classic(&login, SuperAgent);
        older.ask(&subscribe);
        let mut newer = stage.join_classic(&login, SuperAgent);
        older.expect("ERROR").has("error-code", "NEW_CONNECTION_LOGGED");
        assert_eq!(stage.agent().tell(&ana.address(), "seen"), 2);
        newer.message().says("seen");
        // A subscription without an id cannot be passed on to a client of the standard dialect.
        let mut eve = stage.resume(&login, SuperAgent);
        newer.expect("ERROR").has("error-code", "NEW_CONNECTION_LOGGED");
        assert_eq!(stage.agent().tell(&ana.address(), "unseen"), 1);
        eve.hears_nothing();
    }),
    statement("Ours, 'Sessions'", "a classic client has one copy of what it took over", |stage| {
        let (login, mut ana) = (stage.name("taken"), stage.agent());
        ana.listen();
        let (topic, queue) = (stage.topic(), stage.queue());
        let mut older = stage.join(&login, SuperAgent, "1.2");
        older.subscribe("one", &ana.address(), "");
        older.subscribe("all", &ana.address(), "destination-type:1\n");
        older.subscribe("topic", &topic, "");
        older.subscribe("queue", &queue, "ack:client\n");
        let mut newer = stage.join_classic(&login, SuperAgent);
        older.fails("NEW_CONNECTION_LOGGED");
        let mut bob = stage.agent();
        assert_eq!(bob.tell(&ana.address(), "seen"), 2);
        assert_eq!(bob.tell(&topic, "news"), 1);
        assert_eq!(bob.tell(&queue, "job"), 0, "it could not acknowledge");
        newer.message().says("seen");
        newer.message().says("news");
    }),
    statement("Ours, 'Between the dialects'", "large bodies pass unchanged", |stage| {
        let (mut ana, mut bob, mut eve) =
            (stage.agent(), stage.agent(), stage.client(Agent, "1.0"));
        let (mut carl, mut dora) = (stage.classic(Agent), stage.classic(Agent));
        let (topic, queue) = (stage.topic(), stage.queue());
        ana.subscribe("of-ana", &topic, "");
        bob.subscribe("of-bob", &topic, "");
        eve.subscribe("of-eve", &topic, "");
        carl.ask(&format!("SUBSCRIBE\ndestination:{topic}\ndestination-type:0\n\n"));
        for (number, letter) in ["x", "ñ", "\n"].into_iter().enumerate() {
            let body = format!("{number}{}", letter.repeat(130_000 + 40_000 * number));
            let length = format!("content-length:{}\n", body.len());
            let sent = ["before", &body, "behind", &body];
            for body in &sent[..3] {
                assert_eq!(bob.tell(&topic, body), 4);
            }
            dora.ask(&format!("SEND\ndestination:{topic}\n{length}\n{body}"));
            for text in sent {
                ana.message().has("subscription", "of-ana").says(text);
                bob.message().has("subscription", "of-bob").says(text);
                eve.message().says(text);
                carl.message().has("session-id", carl.session_id()).says(text);
            }
        }
        // Kept, returned and delivered again.
        let mut fay = stage.service();
        let jobs = ["y".repeat(200_000), "small".to_owned(), "z".repeat(70_000)];
        jobs.iter().for_each(|job| assert_eq!(bob.tell(&queue, job), 0));
        fay.subscribe("jobs", &queue, "ack:client-individual\n");
        for again in [false, true] {
            let frames = jobs.each_ref().map(|job| {
                let frame = fay.message();
                frame.says(job);
                assert_eq!(frame.get("redelivered").is_some(), again);
                frame
            });
            for frame in frames {
                let command = if again { "ACK" } else { "NACK" };
                fay.say(&format!("{command}\nid:{}\n\n", frame.get("ack").unwrap()));
            }
        }
        fay.hears_nothing();
    }),
];
