//! SUBSCRIBE and UNSUBSCRIBE: ids, topics and wildcards, own addresses, watching, rights.

use super::{Statement, statement};
use crate::conformance::stage::connect;
use crate::support::client::Profile::{Admin, Agent, Service, SuperAgent};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'SUBSCRIBE'", "messages to the destination come from then on", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.tell(&topic, "before");
        ana.subscribe("0", &topic, "");
        ana.tell(&topic, "after");
        ana.message().says("after");
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'SUBSCRIBE'", "the destination is required", |stage| {
        stage.agent().refused("SUBSCRIBE\nid:0\n\n", "MISSING_HEADER");
        stage.agent().refused("SUBSCRIBE\nid:0\ndestination:\n\n", "MISSING_HEADER");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE id Header'", "the id is required", |stage| {
        stage.agent().refused("SUBSCRIBE\ndestination:/topic/a\n\n", "MISSING_HEADER");
    }),
    statement("STOMP 1.1, 'SUBSCRIBE id Header'", "the id is required, too", |stage| {
        let mut ana = stage.client(Agent, "1.1");
        ana.refused("SUBSCRIBE\ndestination:/topic/a\n\n", "MISSING_HEADER");
    }),
    statement("STOMP 1.0, 'SUBSCRIBE'", "without an id no subscription is named", |stage| {
        let mut ana = stage.client(Agent, "1.0");
        let topic = stage.topic();
        ana.ask(&format!("SUBSCRIBE\ndestination:{topic}\n\n"));
        ana.tell(&topic, "x");
        ana.message().lacks("subscription").has("destination", &topic);
    }),
    statement("STOMP 1.0, 'SUBSCRIBE'", "with an id the subscription is named", |stage| {
        let mut ana = stage.client(Agent, "1.0");
        let topic = stage.topic();
        ana.subscribe("mine", &topic, "");
        ana.tell(&topic, "x");
        ana.message().has("subscription", "mine");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE id Header'", "an id that is in use is refused", |stage| {
        let mut ana = stage.agent();
        ana.subscribe("0", &stage.topic(), "");
        let again = format!("SUBSCRIBE\nid:0\ndestination:{}\n\n", stage.topic());
        ana.refused(&again, "UNKNOWN_ID");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE id Header'", "it comes back as it was written", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        let id = "a\\cb\\\\c ñ ";
        ana.subscribe(id, &topic, "");
        ana.tell(&topic, "x");
        ana.message().has("subscription", id);
        ana.ask(&format!("UNSUBSCRIBE\nid:{id}\n\n"));
    }),
    statement("STOMP 1.2, 'SUBSCRIBE id Header'", "each connection has ids of its own", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topics = [stage.topic(), stage.topic()];
        ana.subscribe("0", &topics[0], "");
        bob.subscribe("0", &topics[1], "");
        ana.tell(&topics[1], "to bob");
        bob.message().has("subscription", "0").says("to bob");
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'SUBSCRIBE id Header'", "each of several brings its own copy", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("a", &topic, "");
        ana.subscribe("b", &topic, "");
        ana.tell(&topic, "x");
        let mut ids =
            [ana.message(), ana.message()].map(|m| m.get("subscription").unwrap().to_owned());
        ids.sort();
        assert_eq!(ids, ["a", "b"]);
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'UNSUBSCRIBE'", "after its RECEIPT nothing more comes", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        for n in 0..20 {
            bob.say(&format!("SEND\ndestination:{topic}\n\n{n}"));
        }
        bob.tell(&topic, "last");
        ana.say("UNSUBSCRIBE\nid:0\nreceipt:bye\n\n");
        assert_eq!(bob.tell(&stage.topic(), "a fence"), 0);
        ana.await_receipt("bye");
        // No message that was sent before it is lost.
        assert_eq!(ana.bodies(21).last().unwrap(), "last");
        bob.tell(&topic, "late");
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'UNSUBSCRIBE'", "other subscriptions stay", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("a", &topic, "");
        ana.subscribe("b", &topic, "");
        ana.ask("UNSUBSCRIBE\nid:a\n\n");
        ana.tell(&topic, "x");
        ana.message().has("subscription", "b");
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'UNSUBSCRIBE'", "the id must be that of a subscription", |stage| {
        stage.agent().refused("UNSUBSCRIBE\nid:none\n\n", "UNKNOWN_ID");
        stage.agent().refused("UNSUBSCRIBE\n\n", "MISSING_HEADER");
        stage.agent().refused("UNSUBSCRIBE\ndestination:/topic/a\n\n", "MISSING_HEADER");
    }),
    statement("STOMP 1.0, 'UNSUBSCRIBE'", "the destination names it, or the id", |stage| {
        let mut ana = stage.client(Agent, "1.0");
        let topic = stage.topic();
        ana.ask(&format!("SUBSCRIBE\ndestination:{topic}\n\n"));
        ana.ask(&format!("UNSUBSCRIBE\ndestination:{topic}\n\n"));
        ana.subscribe("0", &topic, "");
        ana.ask("UNSUBSCRIBE\nid:0\n\n");
        assert_eq!(ana.tell(&topic, "x"), 0);
    }),
    statement("STOMP 1.2, 'UNSUBSCRIBE'", "the id is free again", |stage| {
        let mut ana = stage.agent();
        let topics = [stage.topic(), stage.topic()];
        ana.subscribe("0", &topics[0], "");
        ana.ask("UNSUBSCRIBE\nid:0\n\n");
        ana.subscribe("0", &topics[1], "");
        ana.tell(&topics[1], "x");
        ana.message().has("subscription", "0");
    }),
    statement("Ours, 'Standard dialect'", "* stands for one level of a topic", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &format!("{topic}/*/x"), "");
        assert_eq!(ana.tell(&format!("{topic}/a/x"), "a"), 1);
        assert_eq!(ana.tell(&format!("{topic}/b/x"), "b"), 1);
        for other in ["/a/y", "/a/b/x", "/x", "/a", ""] {
            assert_eq!(ana.tell(&format!("{topic}{other}"), "no"), 0, "{other}");
        }
        assert_eq!(ana.bodies(2), ["a", "b"]);
        ana.hears_nothing();
    }),
    statement("Ours, 'Standard dialect'", "> stands for all levels that follow", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &format!("{topic}/>"), "");
        assert_eq!(ana.tell(&format!("{topic}/a"), "a"), 1);
        assert_eq!(ana.tell(&format!("{topic}/a/b/c"), "b"), 1);
        assert_eq!(ana.tell(&topic, "no"), 0);
        assert_eq!(ana.bodies(2), ["a", "b"]);
    }),
    statement("Ours, 'Standard dialect'", "levels are split by / or .", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &format!("{topic}.*.x"), "");
        assert_eq!(ana.tell(&format!("{topic}/a/x"), ""), 1);
        assert_eq!(ana.tell(&format!("{topic}.a.x"), ""), 1);
        ana.message().has("destination", &format!("{topic}/a/x"));
        ana.message().has("destination", &format!("{topic}.a.x"));
    }),
    statement("Ours, 'Standard dialect'", "> may only stand at the end", |stage| {
        let frame = "SUBSCRIBE\nid:0\ndestination:/topic/>/a\n\n";
        stage.agent().refused(frame, "INVALID_DEST_TYPE");
    }),
    statement("Ours, 'Destinations'", "wildcards of other brokers are refused", |stage| {
        for name in ["/topic/#", "/topic/a/#", "/topic/a.**", "/topic/+/a", "/topic/>/a"] {
            let frame = format!("SUBSCRIBE\nid:0\ndestination:{name}\n\n");
            let error = stage.agent().refused(&frame, "INVALID_DEST_TYPE");
            assert!(error.text().contains("at the end"), "{error}");
        }
        for name in ["/queue/>", "/queue/a/*", "/queue/#"] {
            let frame = format!("SUBSCRIBE\nid:0\ndestination:{name}\n\n");
            stage.service().refused(&frame, "INVALID_DEST_TYPE");
        }
        for name in ["/topic/a/>", "/topic/*", "/topic/#", "/queue/**"] {
            let frame = format!("SEND\ndestination:{name}\n\n");
            stage.agent().refused(&frame, "NO_SUCH_DESTINATION");
        }
        let mut bob = stage.classic(Agent);
        bob.say("SUBSCRIBE\ntransaction:1\ndestination:/topic/#\ndestination-type:0\n\n");
        bob.expect("ACK").has("error-code", "INVALID_DEST_TYPE");
        let mut ana = stage.agent();
        ana.subscribe("0", "/topic/c++/a#", "");
        assert_eq!(ana.tell("/topic/c++/a#", ""), 1);
    }),
    statement("Ours, 'Destinations'", "a name outside the spaces is told of them", |stage| {
        let names =
            ["/topics/news", "ana", "/AGENT/ana", "topic/a", "/", "/exchange/a/b", "/temp-queue/a"];
        let is_told = |text: &str| {
            let spaces = ["/agent/", "/service/", "/admin/", "/topic/", "/queue/"];
            spaces.iter().all(|space| text.contains(space))
        };
        for name in names {
            for frame in [
                format!("SEND\ndestination:{name}\n\nx"),
                format!("SEND\ndestination:{name}\nundeliverable:error\n\nx"),
            ] {
                let error = stage.agent().refused(&frame, "NO_SUCH_DESTINATION");
                assert!(is_told(error.text()), "{error}");
            }
            for mut client in [stage.agent(), stage.service()] {
                let frame = format!("SUBSCRIBE\nid:0\ndestination:{name}\n\n");
                let error = client.refused(&frame, "NO_DESTINATION_SUB");
                assert!(is_told(error.text()), "{error}");
            }
            for profile in [Agent, Service] {
                let mut bob = stage.classic(profile);
                bob.say(&format!("SEND\ntransaction:1\ndestination:{name}\n\nx"));
                let error = bob.expect("ERROR");
                error.has("error-code", "NO_SUCH_DESTINATION").lacks("retry");
                assert!(is_told(error.get("error-desc").unwrap()), "{error}");
                let more = "transaction:2\ndestination-type:0\n";
                bob.say(&format!("SUBSCRIBE\n{more}destination:{name}\n\n"));
                let ack = bob.expect("ACK");
                assert!(is_told(ack.get("error-desc").unwrap()), "{ack}");
                ack.has("error-code", "NO_DESTINATION_SUB");
            }
        }
        stage.strict().agent().refused("SEND\ndestination:/topics/a\n\n", "NO_SUCH_DESTINATION");
    }),
    statement(
        "Ours, 'Destinations'",
        "a space is no name, nor is the broker a receiver",
        |stage| {
            let names =
                ["/topic/", "/queue/", "/agent/", "/service/", "/admin/", "/broker/", "/broker/x"];
            for name in names {
                stage
                    .service()
                    .refused(&format!("SEND\ndestination:{name}\n\n"), "NO_SUCH_DESTINATION");
                let frame = format!("SUBSCRIBE\nid:0\ndestination:{name}\n\n");
                stage.service().refused(&frame, "NO_DESTINATION_SUB");
            }
            for name in ["STOMP-SERVER", "/broker/presence"] {
                stage
                    .service()
                    .refused(&format!("SEND\ndestination:{name}\n\n"), "NO_SUCH_DESTINATION");
            }
            let mut ana = stage.agent();
            ana.ask("BEGIN\ntransaction:t\n\n");
            ana.refused("SEND\ntransaction:t\ndestination:/topics/a\n\n", "NO_SUCH_DESTINATION");
        },
    ),
    statement("Ours, 'Destinations'", "a selector is refused by name", |stage| {
        let topic = stage.topic();
        let frame = format!("SUBSCRIBE\nid:0\ndestination:{topic}\nselector:a = 1\n\n");
        let error = stage.agent().refused(&frame, "UNKNOWN_FORMAT_HEADER");
        assert!(error.text().contains("selector"), "{error}");
    }),
    statement("Ours, 'Standard dialect'", "inbox:true asks for direct messages", |stage| {
        let (mut ana, mut bob) = (stage.stranger(), stage.agent());
        let more = "accept-version:1.2\ninbox:true\n";
        ana.log_in(&connect(&stage.name("inbox"), Agent, more));
        assert_eq!(bob.tell(&ana.address(), "hello"), 1);
        ana.message().has("subscription", "inbox").has("destination", &ana.address());
        ana.listen();
        assert_eq!(bob.tell(&ana.address(), "hello"), 1);
        ana.message().has("subscription", "mine");
        ana.hears_nothing();
    }),
    statement("Ours, 'Standard dialect'", "nothing arrives unasked", |stage| {
        let (mut ana, mut bob, mut eve) = (stage.agent(), stage.agent(), stage.service());
        let mut cat = stage.classic(Agent);
        eve.subscribe("w", &ana.address(), "");
        assert_eq!(bob.tell(&ana.address(), "hello"), 0);
        cat.say(&format!("SEND\ntransaction:1\ndestination:{}\n\nhello", ana.address()));
        let error = cat.expect("ERROR");
        error.has("error-code", "NO_SUCH_DESTINATION").lacks("retry");
        assert!(error.get("error-desc").unwrap().contains("does not listen"), "{error}");
        ana.hears_nothing();
        // A watcher gets what the client gets.
        eve.hears_nothing();
        let more = "undeliverable:error\n";
        let frame = format!("SEND\ndestination:{}\n{more}\nhello", ana.address());
        let error = bob.refused(&frame, "NO_SUCH_DESTINATION");
        assert!(error.text().contains("does not listen"), "{error}");
        ana.hears_nothing();
        ana.listen();
        cat.ask(&format!("SEND\ndestination:{}\n\nhello", ana.address()));
        ana.message().has("subscription", "mine");
        eve.message().has("subscription", "w");
    }),
    statement("Ours, 'Sessions'", "nor by a session that was classic", |stage| {
        let login = stage.name("taken");
        let mut bob = stage.join_classic(&login, SuperAgent);
        let mut ana = stage.agent();
        ana.listen();
        bob.ask(&format!("SUBSCRIBE\ndestination:{}\ndestination-type:0\n\n", ana.address()));
        let mut eve = stage.join(&login, SuperAgent, "1.2");
        stage.agent().tell(&ana.address(), "");
        stage.agent().tell(&eve.address(), "");
        eve.hears_nothing();
    }),
    statement("Ours, 'Standard dialect'", "a subscription to one's address names them", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        ana.subscribe("mine", &ana.address(), "");
        assert_eq!(bob.tell(&ana.address(), "hello"), 1);
        ana.message().has("subscription", "mine").says("hello");
        ana.ask("UNSUBSCRIBE\nid:mine\n\n");
        assert_eq!(bob.tell(&ana.address(), "again"), 0);
        ana.hears_nothing();
    }),
    statement("Ours, 'Standard dialect'", "MESSAGE says who sent it", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.service());
        ana.listen();
        bob.listen();
        bob.tell(&ana.address(), "hello");
        let frame = ana.message();
        frame.has("origin", &bob.login()).has("origin-destination", &bob.address());
        ana.tell(frame.get("origin-destination").unwrap(), "answer");
        bob.message().has("origin", &ana.login()).says("answer");
    }),
    statement("Ours, 'Sessions'", "a higher profile may watch a lower one", |stage| {
        for (watcher, watched) in [(SuperAgent, Agent), (Service, Agent), (Service, SuperAgent)] {
            let (mut eve, mut ana) = (stage.client(watcher, "1.2"), stage.client(watched, "1.2"));
            eve.subscribe("w", &ana.address(), "");
            ana.listen();
            assert_eq!(stage.agent().tell(&ana.address(), "seen"), 2);
            eve.message().has("subscription", "w").has("destination", &ana.address());
            ana.message().has("subscription", "mine").says("seen");
        }
    }),
    statement("Ours, 'Sessions'", "nobody else may watch", |stage| {
        let cases = [
            (Agent, Agent),
            (SuperAgent, SuperAgent),
            (Service, Service),
            (Admin, Agent),
            (SuperAgent, Service),
        ];
        for (watcher, watched) in cases {
            let watched = stage.client(watched, "1.2");
            let frame = format!("SUBSCRIBE\nid:w\ndestination:{}\n\n", watched.address());
            stage.client(watcher, "1.2").refused(&frame, "PROF_NO_RIGHTS");
        }
    }),
    statement("Ours, 'Sessions'", "who is not there cannot be watched by name", |stage| {
        let frame = "SUBSCRIBE\nid:w\ndestination:/agent/nobody\n\n";
        stage.service().refused(frame, "NO_DESTINATION_SUB");
    }),
    statement("Ours, 'Sessions'", "destination-type:1 watches whoever matches, ever", |stage| {
        let mut eve = stage.service();
        let name = stage.name("team");
        eve.subscribe("w", &format!("/agent/{name}/.*"), "destination-type:1\n");
        let mut ana = stage.join(&format!("{name}/ana"), Agent, "1.2");
        ana.listen();
        assert_eq!(stage.agent().tell(&ana.address(), "seen"), 2);
        eve.message().has("subscription", "w").says("seen");
        let frame = "SUBSCRIBE\nid:x\ndestination:[\ndestination-type:1\n\n";
        eve.refused(frame, "INVALID_REGEX");
    }),
    statement("Ours, 'Standard dialect'", "agents may subscribe to topics, not queues", |stage| {
        let frame = "SUBSCRIBE\nid:0\ndestination:/queue/a\n\n";
        stage.agent().refused(frame, "PROF_NO_RIGHTS");
        for profile in [SuperAgent, Service, Admin] {
            stage.client(profile, "1.2").subscribe("0", &stage.queue(), "");
        }
    }),
    statement("Ours, 'Standard dialect'", "rights to subscribe are configured", |stage| {
        let stage = stage.strict();
        stage.agent().subscribe("0", &stage.name("/topic/open/t"), "");
        stage.agent().subscribe("0", "/topic/open/*", "");
        for name in ["/topic/closed", "/topic/open", "/topic/open/a/b", "/topic/*", "/topic/open/>"]
        {
            let frame = format!("SUBSCRIBE\nid:0\ndestination:{name}\n\n");
            stage.agent().refused(&frame, "PROF_NO_RIGHTS");
        }
        stage.service().subscribe("0", "/topic/closed", "");
    }),
    statement("Ours, 'Standard dialect'", "rights to send are configured", |stage| {
        let stage = stage.strict();
        let mut ana = stage.agent();
        ana.tell("/topic/open/a/b", "");
        ana.tell("/agent/nobody", "");
        for name in ["/topic/closed", "/queue/q", "/service/s", "/topic/open"] {
            let frame = format!("SEND\ndestination:{name}\n\n");
            stage.agent().refused(&frame, "PROF_NO_RIGHTS");
        }
        stage.service().tell("/topic/closed", "");
    }),
    statement("STOMP 1.2, 'Size Limits'", "the number of subscriptions is bounded", |stage| {
        let stage = stage.strict();
        let mut ana = stage.agent();
        for id in 0..5 {
            ana.subscribe(&id.to_string(), &stage.name("/topic/open/t"), "");
        }
        ana.refused("SUBSCRIBE\nid:5\ndestination:/topic/open/a\n\n", "LIMIT_EXCEEDED");
        let long = format!("SUBSCRIBE\nid:{}\ndestination:/topic/open/a\n\n", "x".repeat(33));
        stage.agent().refused(&long, "LIMIT_EXCEEDED");
    }),
];
