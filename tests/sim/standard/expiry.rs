//! Messages that expire.

use com_broker::internal::broker::Profile::{Agent, Service};
use com_broker::limits::Limits;

use super::stage::Stage;

#[test]
fn a_message_that_waited_longer_than_its_expiration_is_not_delivered() {
    let mut stage = Stage::new(Limits::default());
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.send(ana, "/queue/a", "expiration:1000\n", "short");
    stage.send(ana, "/queue/a", "expiration:3000\n", "long");
    stage.send(ana, "/queue/a", "", "for ever");
    stage.wait(1001);
    stage.subscribe(bob, "0", "/queue/a", "");
    let told = stage.heard(bob);
    let bodies: Vec<_> = told.iter().map(|one| &*one.body).collect();
    assert_eq!(bodies, ["long", "for ever"]);
    assert_eq!(told[0].get("expiration"), Some("3000"), "it passes, as with RabbitMQ");
    assert_eq!(stage.rig.engine.counters().messages_expired, 1);
}

#[test]
fn a_message_may_have_its_time_of_expiry_instead() {
    let mut stage = Stage::new(Limits::default());
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    let at = stage.rig.now().unix_ms + 1000;
    stage.send(ana, "/queue/a", &format!("expires:{at}\n"), "1");
    stage.send(ana, "/queue/a", &format!("expires:{}\n", at + 1), "2");
    stage.send(ana, "/queue/a", "expires:0\n", "3");
    stage.send(ana, "/queue/a", &format!("expires:{at}\nexpiration:1\n"), "4");
    stage.wait(1001);
    stage.subscribe(bob, "0", "/queue/a", "");
    assert_eq!(stage.bodies(bob), ["2", "3"]);
    assert_eq!(stage.rig.engine.counters().messages_expired, 2);
}

#[test]
fn a_message_that_is_expired_on_arrival_is_not_delivered() {
    let mut stage = Stage::new(Limits::default());
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", Service));
    stage.subscribe(bob, "t", "/topic/a", "");
    stage.subscribe(bob, "q", "/queue/a", "");
    stage.subscribe(bob, "i", "/service/bob", "");
    for to in ["/topic/a", "/queue/a", "/service/bob", "/queue/new", "/topic/new"] {
        assert_eq!(stage.send(ana, to, "expires:1\n", "late"), 0, "{to}");
    }
    assert_eq!(stage.heard(bob), []);
    assert_eq!(stage.rig.engine.counters().messages_expired, 5);
    // A message that is delivered at once does not expire, however short its time is.
    for to in ["/topic/a", "/queue/a", "/service/bob"] {
        assert_eq!(stage.send(ana, to, "expiration:0\n", "now"), 1, "{to}");
    }
    assert_eq!(stage.bodies(bob), ["now", "now", "now"]);
}

#[test]
fn a_malformed_time_is_refused_by_name() {
    for line in ["expiration:-1", "expiration:soon", "expires:1.5", "expires:", "expiration: 5"] {
        let mut stage = Stage::new(Limits::default());
        let ana = stage.join("ana", Service);
        stage.say(ana, &format!("SEND\ndestination:/queue/a\n{line}\n\nx"));
        let error = stage.next(ana);
        assert_eq!(error.get("error-code"), Some("UNKNOWN_FORMAT_HEADER"), "{line}");
        let name = line.split_once(':').unwrap().0;
        let told = format!("the header {name} must be a whole number of milliseconds");
        assert!(error.get("message").unwrap().starts_with(&told), "{error:?}");
        assert_eq!(stage.rig.engine.broker().destinations_len(), 0);
    }
}

#[test]
fn expired_messages_are_removed_before_a_send_is_refused() {
    let limits = Limits { queue_messages_max: 2, queues_bytes_max: 6_000, ..Limits::default() };
    let mut stage = Stage::new(limits);
    let ana = stage.join("ana", Service);
    // In the middle of its queue, behind one that does not expire.
    stage.send(ana, "/queue/a", "", "stays");
    stage.send(ana, "/queue/a", "expiration:10\n", "goes");
    stage.wait(11);
    stage.send(ana, "/queue/a", "", "has room");
    // In another queue.
    stage.send(ana, "/queue/b", "expiration:10\n", &"x".repeat(4_000));
    stage.wait(11);
    stage.send(ana, "/queue/c", "", &"y".repeat(4_000));
    assert_eq!(stage.rig.engine.counters().messages_expired, 2);
    stage.subscribe(ana, "a", "/queue/a", "");
    assert_eq!(stage.bodies(ana), ["stays", "has room"]);
}

#[test]
fn no_message_waits_longer_than_queue_ms_max() {
    let limits = Limits { queue_ms_max: 500, ..Limits::default() };
    let mut stage = Stage::new(limits);
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.send(ana, "/queue/a", "", "1");
    stage.send(ana, "/queue/a", "expiration:100000\n", "2");
    stage.wait(300);
    stage.send(ana, "/queue/a", "", "3");
    stage.wait(201);
    stage.subscribe(bob, "0", "/queue/a", "ack:client\n");
    assert_eq!(stage.bodies(bob), ["3"]);
    stage.wait(300);
    stage.ask(bob, "UNSUBSCRIBE\nid:0\n\n");
    stage.subscribe(bob, "0", "/queue/a", "");
    assert_eq!(stage.bodies(bob), Vec::<String>::new(), "its age counts from its arrival");
}

#[test]
fn a_queue_is_forgotten_with_its_last_message() {
    let limits = Limits { queue_messages_max: 2, queues_bytes_max: 3_000, ..Limits::default() };
    let mut stage = Stage::new(limits);
    let ana = stage.join("ana", Service);
    stage.send(ana, "/queue/a", "expiration:10\n", &"x".repeat(2_000));
    stage.wait(11);
    stage.send(ana, "/queue/b", "", &"x".repeat(2_000));
    // Its own address and `/queue/b`.
    assert_eq!(stage.rig.engine.broker().destinations_len(), 2);
    stage.say(ana, &format!("SEND\ndestination:/queue/c\n\n{}", "x".repeat(2_000)));
    assert!(stage.next(ana).get("message").unwrap().contains("queues_bytes_max"));
    assert_eq!(
        stage.rig.engine.broker().destinations_len(),
        1,
        "a SEND that is refused makes none"
    );
}
