//! SUBSCRIBE and UNSUBSCRIBE: ids, topics and wildcards, one's own address, watching, rights.

use crate::stage::Profile::{Admin, Agent, Service, SuperAgent};
use crate::{Statement, statement};

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
        // Nothing that was sent before it is lost, either.
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
    statement("Ours, 'Standard dialect'", "direct messages come without a subscription", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        assert_eq!(bob.tell(&ana.address(), "hello"), 1);
        ana.message().has("subscription", "inbox").has("destination", &ana.address());
    }),
    statement("Ours, 'Standard dialect'", "a subscription to one's address names them", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.agent());
        ana.subscribe("mine", &ana.address(), "");
        assert_eq!(bob.tell(&ana.address(), "hello"), 1);
        ana.message().has("subscription", "mine").says("hello");
        ana.ask("UNSUBSCRIBE\nid:mine\n\n");
        bob.tell(&ana.address(), "again");
        ana.message().has("subscription", "inbox").says("again");
        ana.hears_nothing();
    }),
    statement("Ours, 'Standard dialect'", "MESSAGE says who sent it", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.service());
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
            assert_eq!(stage.agent().tell(&ana.address(), "seen"), 2);
            eve.message().has("subscription", "w").has("destination", &ana.address());
            ana.message().has("subscription", "inbox").says("seen");
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
        let ana = stage.join(&format!("{name}/ana"), Agent, "1.2");
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
