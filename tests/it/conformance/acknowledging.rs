//! ACK and NACK: the messages that they apply to, and the identification of messages in each version.

use super::{Statement, statement};
use crate::conformance::stage::{Client, Frame, Stage};
use crate::support::client::Profile::Service;

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'SUBSCRIBE ack Header'", "the modes are three", |stage| {
        for mode in ["auto", "client", "client-individual"] {
            stage.agent().subscribe("0", &stage.topic(), &format!("ack:{mode}\n"));
        }
        let frame = "SUBSCRIBE\nid:0\ndestination:/topic/a\nack:never\n\n";
        stage.agent().refused(frame, "UNKNOWN_FORMAT_HEADER");
    }),
    statement("STOMP 1.2, 'SUBSCRIBE ack Header'", "with client an ACK is cumulative", |stage| {
        let (mut bob, queue, messages) = consumer(stage, "1.2", "client");
        bob.ask(&format!("ACK\nid:{}\n\n", messages[1].get("ack").unwrap()));
        assert_eq!(left(stage, bob, &queue), ["2"]);
    }),
    statement("STOMP 1.2, 'SUBSCRIBE ack Header'", "with client-individual it is not", |stage| {
        let (mut bob, queue, messages) = consumer(stage, "1.2", "client-individual");
        bob.ask(&format!("ACK\nid:{}\n\n", messages[1].get("ack").unwrap()));
        assert_eq!(left(stage, bob, &queue), ["0", "2"]);
    }),
    statement("STOMP 1.2, 'ACK'", "id, the ack of the MESSAGE, is required", |stage| {
        let (mut bob, ..) = consumer(stage, "1.2", "client");
        bob.refused("ACK\nsubscription:0\n\n", "MISSING_HEADER");
        stage.service().refused("NACK\n\n", "MISSING_HEADER");
    }),
    statement("Ours, 'Messages'", "ack and message-id have the same value", |stage| {
        for version in ["1.0", "1.1", "1.2"] {
            let (_, _, messages) = consumer(stage, version, "client");
            for message in &messages {
                assert_eq!(message.get("ack"), message.get("message-id"), "{message}");
            }
            assert_ne!(messages[0].get("ack"), messages[1].get("ack"));
        }
        let (topic, mut eve) = (stage.topic(), stage.service());
        for id in ["a", "b"] {
            eve.subscribe(id, &topic, "ack:client\n");
        }
        eve.tell(&topic, "x");
        let (first, second) = (eve.message(), eve.message());
        assert_eq!(first.get("ack"), first.get("message-id"));
        assert_ne!(first.get("ack"), second.get("ack"), "each subscription has its own");
    }),
    statement("Ours, 'Messages'", "1.2 takes message-id where id is wanted", |stage| {
        for name in ["id", "message-id"] {
            let (mut bob, queue, messages) = consumer(stage, "1.2", "client-individual");
            let id = messages[1].get("message-id").unwrap();
            bob.ask(&format!("ACK\n{name}:{id}\nsubscription:0\n\n"));
            assert_eq!(left(stage, bob, &queue), ["0", "2"]);
        }
    }),
    statement("Ours, 'Messages'", "what needs no ACK may have one", |stage| {
        for (version, name) in [("1.0", "message-id"), ("1.1", "message-id"), ("1.2", "id")] {
            let (mut bob, queue) = (stage.client(Service, version), stage.queue());
            bob.subscribe("0", &queue, "");
            bob.tell(&queue, "x");
            let id = bob.message().get("message-id").unwrap().to_owned();
            bob.ask(&format!("ACK\n{name}:{id}\nsubscription:0\n\n"));
            bob.hears_nothing();
        }
    }),
    statement("STOMP 1.2, 'ACK'", "an id that was never given is refused", |stage| {
        let never = "1-1-999999999999";
        for id in ["nonsense", never, "999999999999", "0", "-", "0-0", "0-0-1", "999999999-1-1"] {
            stage.service().refused(&format!("ACK\nid:{id}\n\n"), "UNKNOWN_ID");
        }
    }),
    statement("STOMP 1.2, 'ACK'", "another's message cannot be acknowledged", |stage| {
        let (bob, queue, messages) = consumer(stage, "1.2", "client");
        let id = messages[2].get("ack").unwrap();
        stage.service().refused(&format!("ACK\nid:{id}\n\n"), "UNKNOWN_ID");
        assert_eq!(left(stage, bob, &queue), ["0", "1", "2"]);
    }),
    statement("STOMP 1.2, 'ACK'", "one that comes too late is no fault", |stage| {
        let (mut bob, _, messages) = consumer(stage, "1.2", "client");
        let ack = format!("ACK\nid:{}\n\n", messages[2].get("ack").unwrap());
        bob.ask(&ack);
        bob.ask(&ack);
        bob.ask("UNSUBSCRIBE\nid:0\n\n");
        bob.ask(&ack);
    }),
    statement("STOMP 1.1, 'ACK'", "message-id and subscription name a message", |stage| {
        let (mut bob, queue, messages) = consumer(stage, "1.1", "client-individual");
        let id = messages[1].get("message-id").unwrap();
        bob.ask(&format!("ACK\nmessage-id:{id}\nsubscription:0\n\n"));
        assert_eq!(left(stage, bob, &queue), ["0", "2"]);
    }),
    statement("STOMP 1.1, 'ACK'", "message-id is required", |stage| {
        let mut bob = stage.client(Service, "1.1");
        bob.refused("ACK\nsubscription:0\n\n", "MISSING_HEADER");
    }),
    statement("Ours, 'Messages'", "message-id tells the subscription as well", |stage| {
        let (mut bob, queue, messages) = consumer(stage, "1.1", "client-individual");
        let id = messages[1].get("message-id").unwrap();
        bob.ask(&format!("ACK\nmessage-id:{id}\n\n"));
        assert_eq!(left(stage, bob, &queue), ["0", "2"]);
    }),
    statement("STOMP 1.1, 'ACK'", "subscription is that of the message", |stage| {
        for command in ["ACK", "NACK"] {
            for other in ["1", "2", "none"] {
                let (mut bob, queue, messages) = consumer(stage, "1.1", "client");
                bob.subscribe("1", &stage.queue(), "ack:client\n");
                bob.subscribe("2", &stage.topic(), "");
                let id = messages[0].get("message-id").unwrap();
                let text = format!("{command}\nmessage-id:{id}\nsubscription:{other}\n\n");
                bob.refused(&text, "UNKNOWN_ID");
                let mut next = stage.service();
                next.subscribe("0", &queue, "");
                assert_eq!(next.bodies(3), ["0", "1", "2"]);
            }
        }
        let (mut bob, _, _) = consumer(stage, "1.1", "client");
        let topic = stage.topic();
        bob.subscribe("auto", &topic, "");
        bob.tell(&topic, "x");
        let id = bob.message().get("message-id").unwrap().to_owned();
        bob.refused(&format!("ACK\nmessage-id:{id}\nsubscription:0\n\n"), "UNKNOWN_ID");
    }),
    statement("STOMP 1.1, 'NACK'", "it takes the same headers as ACK", |stage| {
        let (mut bob, _, messages) = consumer(stage, "1.1", "client-individual");
        let id = messages[1].get("message-id").unwrap();
        bob.ask(&format!("NACK\nmessage-id:{id}\nsubscription:0\n\n"));
        bob.message().says("1").has("redelivered", "true").has("message-id", id);
    }),
    statement("STOMP 1.1, 'ACK'", "client is cumulative by message-id, too", |stage| {
        let (mut bob, queue, messages) = consumer(stage, "1.1", "client");
        let id = messages[1].get("message-id").unwrap();
        bob.ask(&format!("ACK\nmessage-id:{id}\nsubscription:0\n\n"));
        assert_eq!(left(stage, bob, &queue), ["2"]);
    }),
    statement("STOMP 1.0, 'ACK'", "message-id alone names a message", |stage| {
        let (mut bob, queue, messages) = consumer(stage, "1.0", "client");
        let id = messages[1].get("message-id").unwrap();
        bob.ask(&format!("ACK\nmessage-id:{id}\n\n"));
        assert_eq!(left(stage, bob, &queue), ["2"]);
    }),
    statement("STOMP 1.0, 'ACK'", "so it does where the subscription has no id", |stage| {
        let queue = stage.queue();
        let mut bob = stage.client(Service, "1.0");
        bob.ask(&format!("SUBSCRIBE\ndestination:{queue}\nack:client\n\n"));
        bob.tell(&queue, "0");
        let id = bob.message().get("message-id").unwrap().to_owned();
        bob.ask(&format!("ACK\nmessage-id:{id}\n\n"));
        assert!(left(stage, bob, &queue).is_empty());
    }),
    statement("Ours, 'Messages'", "NACK is taken in 1.0, too", |stage| {
        let (mut bob, _, messages) = consumer(stage, "1.0", "client-individual");
        let id = messages[1].get("message-id").unwrap();
        bob.ask(&format!("NACK\nmessage-id:{id}\n\n"));
        bob.message().says("1").has("redelivered", "true").has("message-id", id);
    }),
];

/// A consumer that holds three unacknowledged messages of a queue.
fn consumer(stage: &Stage<'_>, version: &str, mode: &str) -> (Client, String, [Frame; 3]) {
    let queue = stage.queue();
    let mut bob = stage.client(Service, version);
    bob.subscribe("0", &queue, &format!("ack:{mode}\n"));
    for n in 0..3 {
        bob.tell(&queue, &n.to_string());
    }
    let messages = [bob.message(), bob.message(), bob.message()];
    (bob, queue, messages)
}

/// The messages that the next consumer gets after this one has disconnected.
fn left(stage: &Stage<'_>, mut gone: Client, queue: &str) -> Vec<String> {
    gone.ask("DISCONNECT\n\n");
    let mut next = stage.service();
    next.subscribe("0", queue, "");
    next.tell(queue, "end");
    let mut bodies = Vec::new();
    loop {
        match next.message().text() {
            "end" => return bodies,
            body => bodies.push(body.to_owned()),
        }
    }
}
