//! Queues: order of consumers, credit, redelivery and dead letters.

use super::{Statement, statement};
use crate::conformance::stage::{Client, Server, Setup};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement(
        "Ours, 'Standard dialect'",
        "each message of a queue goes to one consumer",
        |stage| {
            let queue = stage.queue();
            let mut consumers = [stage.service(), stage.service(), stage.service()];
            for consumer in &mut consumers {
                consumer.subscribe("0", &queue, "");
            }
            let mut ana = stage.agent();
            for n in 0..9 {
                assert_eq!(ana.tell(&queue, &n.to_string()), 1);
            }
            let mut heard: Vec<_> = consumers.iter_mut().map(|one| one.bodies(3)).collect();
            heard.sort();
            assert_eq!(heard, [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]);
            consumers.iter_mut().for_each(Client::hears_nothing);
        },
    ),
    statement("Ours, 'Standard dialect'", "a queue keeps what nobody consumes yet", |stage| {
        let queue = stage.queue();
        let mut ana = stage.agent();
        assert_eq!(ana.tell(&queue, "1"), 0);
        assert_eq!(ana.tell(&queue, "2"), 0);
        ana.ask("DISCONNECT\n\n");
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "");
        let frame = bob.message();
        frame.says("1").has("destination", &queue).has("origin", &ana.login()).lacks("redelivered");
        bob.message().says("2");
    }),
    statement("Ours, 'Standard dialect'", "what was kept is whole: headers, type, body", |stage| {
        let queue = stage.queue();
        let more = "content-type:text/plain\nk:a\\cb\nk:2\nreply-to:/topic/x\n";
        stage.agent().tell_with(&queue, more, "body");
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "");
        let frame = bob.message();
        frame.has("content-type", "text/plain").has("reply-to", "/topic/x").says("body");
        assert_eq!(frame.all("k").collect::<Vec<_>>(), ["a\\cb", "2"]);
    }),
    statement(
        "Ours, 'Standard dialect'",
        "prefetch-count bounds what is unacknowledged",
        |stage| {
            let queue = stage.queue();
            let mut bob = stage.service();
            bob.subscribe("0", &queue, "ack:client-individual\nprefetch-count:2\n");
            let mut ana = stage.agent();
            let told: Vec<_> = (0..4).map(|n| ana.tell(&queue, &n.to_string())).collect();
            assert_eq!(told, [1, 1, 0, 0]);
            let first = bob.message();
            bob.message().says("1");
            bob.hears_nothing();
            acknowledge(&mut bob, &first);
            bob.message().says("2");
            bob.hears_nothing();
        },
    ),
    statement("Ours, 'Standard dialect'", "who has no credit is passed over", |stage| {
        let queue = stage.queue();
        let (mut full, mut free) = (stage.service(), stage.service());
        full.subscribe("0", &queue, "ack:client\nprefetch-count:1\n");
        free.subscribe("0", &queue, "");
        let mut ana = stage.agent();
        for n in 0..4 {
            ana.tell(&queue, &n.to_string());
        }
        full.message().says("0");
        assert_eq!(free.bodies(3), ["1", "2", "3"]);
    }),
    statement("Ours, 'Standard dialect'", "prefetch-count is a number, and bounded", |stage| {
        let frame = "SUBSCRIBE\nid:0\ndestination:/queue/a\nprefetch-count:many\n\n";
        stage.service().refused(frame, "UNKNOWN_FORMAT_HEADER");
        let stage = stage.strict();
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "ack:client\nprefetch-count:1000\n");
        let told: Vec<_> = (0..5).map(|_| bob.tell(&queue, "")).collect();
        assert_eq!(told, [1, 1, 1, 1, 0], "prefetch_max is 4");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE ack Header'", "a lost consumer's go to another", |stage| {
        let queue = stage.queue();
        let mut lost = stage.service();
        lost.subscribe("0", &queue, "ack:client\n");
        let mut ana = stage.agent();
        for n in 0..3 {
            ana.tell(&queue, &n.to_string());
        }
        lost.bodies(3);
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "");
        drop(lost);
        for n in 0..3 {
            bob.message().says(&n.to_string()).has("redelivered", "true");
        }
        ana.tell(&queue, "3");
        bob.message().says("3").lacks("redelivered");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE ack Header'", "so do those of who unsubscribes", |stage| {
        let queue = stage.queue();
        let (mut ana, mut bob) = (stage.service(), stage.service());
        ana.subscribe("0", &queue, "ack:client\n");
        ana.tell(&queue, "x");
        ana.message();
        ana.ask("UNSUBSCRIBE\nid:0\n\n");
        bob.subscribe("0", &queue, "");
        bob.message().says("x").has("redelivered", "true");
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'SUBSCRIBE ack Header'", "so do those of who disconnects", |stage| {
        let queue = stage.queue();
        let (mut ana, mut bob) = (stage.service(), stage.service());
        ana.subscribe("0", &queue, "ack:client-individual\n");
        bob.subscribe("0", &queue, "ack:client\nprefetch-count:1\n");
        stage.agent().tell(&queue, "1");
        stage.agent().tell(&queue, "2");
        ana.message().says("1");
        ana.ask("DISCONNECT\n\n");
        let first = bob.message();
        acknowledge(&mut bob, &first);
        bob.message().says("1").has("redelivered", "true");
    }),
    statement(
        "STOMP 1.2, 'SUBSCRIBE ack Header'",
        "with auto a sent message is consumed",
        |stage| {
            let queue = stage.queue();
            let mut ana = stage.service();
            ana.subscribe("0", &queue, "ack:auto\n");
            ana.tell(&queue, "x");
            ana.message().lacks("ack");
            ana.ask("DISCONNECT\n\n");
            let mut bob = stage.service();
            bob.subscribe("0", &queue, "");
            bob.hears_nothing();
        },
    ),
    statement("STOMP 1.2, 'NACK'", "a refused message is delivered again", |stage| {
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "ack:client-individual\n");
        bob.tell(&queue, "1");
        bob.tell(&queue, "2");
        let first = bob.message();
        bob.message().says("2");
        refuse(&mut bob, &first);
        let again = bob.message();
        again.says("1").has("redelivered", "true");
        assert_eq!(again.get("message-id"), first.get("message-id"));
        acknowledge(&mut bob, &again);
        bob.hears_nothing();
    }),
    statement("STOMP 1.2, 'NACK'", "with client all before it are refused, too", |stage| {
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "ack:client\n");
        for n in 0..4 {
            bob.tell(&queue, &n.to_string());
        }
        bob.bodies(2);
        let third = bob.message();
        bob.message().says("3");
        refuse(&mut bob, &third);
        for n in 0..3 {
            bob.message().says(&n.to_string()).has("redelivered", "true");
        }
        bob.hears_nothing();
    }),
    statement("Ours, 'Messages'", "what comes back stands in the order of sending", |stage| {
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "ack:client\n");
        for n in 0..3 {
            bob.tell(&queue, &n.to_string());
        }
        bob.message().says("0");
        let second = bob.message();
        bob.message().says("2");
        refuse(&mut bob, &second);
        bob.message().says("0");
        bob.message().says("1");
        bob.ask("UNSUBSCRIBE\nid:0\n\n");
        bob.subscribe("1", &queue, "ack:client\n");
        for n in 0..3 {
            bob.message().says(&n.to_string());
        }
    }),
    statement("Ours, 'Standard dialect'", "a message is not delivered for ever", |stage| {
        let queue = stage.queue();
        let mut bob = stage.service();
        bob.subscribe("0", &queue, "ack:client-individual\n");
        bob.tell(&queue, "poison");
        for _ in 0..10 {
            let frame = bob.message();
            refuse(&mut bob, &frame);
        }
        bob.hears_nothing();
    }),
    statement("Ours, 'Standard dialect'", "a dead letter queue takes it in the end", |stage| {
        let stage = stage.strict();
        let (mut bob, mut coroner) = (stage.service(), stage.service());
        coroner.subscribe("dead", "/queue/dead", "ack:client\n");
        let queue = stage.queue();
        bob.subscribe("0", &queue, "ack:client-individual\n");
        bob.tell_with(&queue, "k:v\n", "poison");
        for delivery in 1..=3 {
            let frame = bob.message();
            frame.says("poison");
            assert_eq!(frame.get("redelivered").is_some(), delivery > 1);
            refuse(&mut bob, &frame);
        }
        bob.hears_nothing();
        let frame = coroner.message();
        frame.has("subscription", "dead").has("destination", &queue).has("k", "v").says("poison");
        frame.has("dead-letter-reason", "deliveries_max").lacks("redelivered");
        acknowledge(&mut coroner, &frame);
    }),
    statement("Ours, 'Messages'", "deliveries whose consumer went away count, too", |stage| {
        let broker = dying();
        let stage = stage.with(&broker);
        let mut ana = stage.service();
        ana.tell("/queue/work", "poison");
        for delivery in 1..=3 {
            let mut bob = stage.service();
            bob.subscribe("0", "/queue/work", "ack:client\n");
            let frame = bob.message();
            assert_eq!(frame.says("poison").get("redelivered").is_some(), delivery > 1);
            if delivery == 2 {
                bob.ask("UNSUBSCRIBE\nid:0\n\n");
            }
            drop(bob);
        }
        ana.subscribe("dead", "/queue/dead", "ack:client\n");
        ana.message().says("poison").has("destination", "/queue/work");
        let mut bob = stage.service();
        bob.subscribe("0", "/queue/work", "");
        bob.hears_nothing();
    }),
    statement("Ours, 'Messages'", "in the dead letter queue a message stays", |stage| {
        let broker = dying();
        let stage = stage.with(&broker);
        let mut bob = stage.service();
        bob.subscribe("0", "/queue/work", "ack:client-individual\n");
        bob.tell("/queue/work", "poison");
        for _ in 0..3 {
            let frame = bob.message();
            refuse(&mut bob, &frame);
        }
        let mut coroner = stage.service();
        coroner.subscribe("dead", "/queue/dead", "ack:client-individual\n");
        for delivery in 1..=7 {
            let frame = coroner.message();
            assert_eq!(frame.says("poison").get("redelivered").is_some(), delivery > 1);
            refuse(&mut coroner, &frame);
        }
        drop(coroner);
        let mut heir = stage.service();
        heir.subscribe("dead", "/queue/dead", "ack:client\n");
        let frame = heir.message();
        frame.says("poison").has("dead-letter-reason", "deliveries_max");
        assert_eq!(frame.all("dead-letter-reason").count(), 1);
        acknowledge(&mut heir, &frame);
        heir.ask("UNSUBSCRIBE\nid:dead\n\n");
        heir.subscribe("dead", "/queue/dead", "");
        heir.hears_nothing();
    }),
    statement("Ours, 'Messages'", "a message whose time is over is not delivered", |stage| {
        let (topic, queue, mut bob) = (stage.topic(), stage.queue(), stage.service());
        bob.subscribe("t", &topic, "");
        bob.subscribe("q", &queue, "");
        for to in [&topic, &queue, &bob.address()] {
            assert_eq!(bob.tell_with(to, "expires:1\n", "late"), 0);
        }
        bob.hears_nothing();
        assert_eq!(bob.tell_with(&queue, "expires:0\nexpiration:60000\n", "early"), 1);
        bob.message().has("expiration", "60000").has("expires", "0").says("early");
        let far = "9".repeat(30);
        assert_eq!(bob.tell_with(&queue, &format!("expires:{far}\nexpiration:{far}\n"), "x"), 1);
        bob.message().has("expires", &far).says("x");
        for line in ["expiration:-1", "expiration:x", "expires:-1", "expires:"] {
            let send = format!("SEND\ndestination:{queue}\n{line}\n\n");
            let error = stage.agent().refused(&send, "UNKNOWN_FORMAT_HEADER");
            let name = line.split_once(':').unwrap().0;
            assert!(error.get("message").unwrap().contains(name), "{error}");
        }
    }),
    statement(
        "Ours, 'Between the dialects'",
        "to a classic client its time is a header",
        |stage| {
            let (queue, mut bob) = (stage.queue(), stage.service());
            bob.subscribe("q", &queue, "");
            let mut ana = stage.classic(crate::support::client::Profile::Agent);
            ana.ask(&format!("SEND\ndestination:{queue}\nexpires:1\nexpiration:soon\n\nx"));
            bob.message().has("expires", "1").has("expiration", "soon").says("x");
        },
    ),
    statement("Ours, 'Standard dialect'", "a queue is bounded", |stage| {
        let stage = stage.strict();
        let queue = stage.queue();
        let mut bob = stage.service();
        for _ in 0..5 {
            bob.tell(&queue, "");
        }
        let error = bob.refused(&format!("SEND\ndestination:{queue}\n\n"), "LIMIT_EXCEEDED");
        error.has("retry", "later");
        assert!(error.get("message").unwrap().contains("queue_messages_max"), "{error}");
    }),
    statement(
        "Ours, 'Sessions'",
        "who takes a session over gets what was unacknowledged",
        |stage| {
            let login = stage.name("taken");
            let queue = stage.queue();
            let mut older = stage.join(&login, crate::support::client::Profile::SuperAgent, "1.2");
            older.subscribe("0", &queue, "ack:client\nprefetch-count:1\n");
            older.tell(&queue, "x");
            older.message().says("x");
            let mut newer = stage.resume(&login, crate::support::client::Profile::SuperAgent);
            older.fails("NEW_CONNECTION_LOGGED");
            let again = newer.message();
            again.says("x").has("subscription", "0").has("redelivered", "true");
            newer.tell(&queue, "y");
            let last = stage.join(&login, crate::support::client::Profile::SuperAgent, "1.2");
            newer.fails("NEW_CONNECTION_LOGGED");
            // Without `resume`, the message goes to other consumers.
            let mut bob = stage.service();
            bob.subscribe("0", &queue, "");
            bob.message().says("x").has("redelivered", "true");
            bob.message().says("y").lacks("redelivered");
            drop(last);
        },
    ),
];

/// A broker of its own, whose dead letter queue no other test reads.
fn dying() -> Server {
    Setup::new()
        .limits("deliveries_max = 3")
        .sections("[queues]\ndead_letter_queue = \"/queue/dead\"\n")
        .start()
}

#[track_caller]
fn acknowledge(client: &mut Client, message: &crate::conformance::stage::Frame) {
    client.ask(&format!("ACK\nid:{}\n\n", message.get("ack").unwrap()));
}

#[track_caller]
fn refuse(client: &mut Client, message: &crate::conformance::stage::Frame) {
    client.ask(&format!("NACK\nid:{}\n\n", message.get("ack").unwrap()));
}
