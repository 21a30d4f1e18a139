//! The memory of queues: the shares of senders, and who pays when there is no more.

use com_broker::ByProfile;
use com_broker::internal::broker::Profile::{Agent, Service, SuperAgent};
use com_broker::limits::Limits;

use super::stage::{Stage, Who};

const BODY: usize = 10_000;

/// Room for eleven messages of that size, of which a sender may have six.
fn limits() -> Limits {
    let share = 6 * BODY as u64 + 6_000;
    Limits {
        queues_bytes_max: 11 * BODY as u64 + 9_000,
        queue_share_bytes_max: ByProfile::all(share),
        ..Limits::default()
    }
}

fn job(name: &str) -> String {
    format!("{name}{}", "x".repeat(BODY))
}

/// The first letters of the bodies that a client has got.
fn names(stage: &mut Stage, who: Who) -> Vec<String> {
    stage.bodies(who).iter().map(|body| body.trim_end_matches('x').to_owned()).collect()
}

fn refusal(stage: &mut Stage, who: Who) -> (String, String) {
    let error = stage.next(who);
    assert_eq!(error.get("error-code"), Some("LIMIT_EXCEEDED"));
    let sentence = error.get("message").unwrap();
    let limit = sentence.rsplit(' ').nth(1).unwrap().to_owned();
    (limit, error.get("retry").unwrap().to_owned())
}

fn exceeds(limit: &str) -> (String, String) {
    (limit.to_owned(), "later".to_owned())
}

#[test]
fn what_a_consumer_holds_counts_until_it_is_settled() {
    let mut stage = Stage::new(limits());
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", SuperAgent));
    stage.subscribe(bob, "q", "/queue/a", "ack:client-individual\n");
    for number in 0..6 {
        stage.send(ana, "/queue/a", "", &job(&number.to_string()));
    }
    let held = stage.heard(bob);
    assert_eq!(held.len(), 6, "all are delivered, none is acknowledged");
    let id = held[5].get("ack").unwrap();
    stage.ask(bob, &format!("ACK\nid:{id}\n\n"));
    stage.send(ana, "/queue/a", "", &job("6"));
    stage.say(ana, &format!("SEND\ndestination:/queue/a\n\n{}", job("7")));
    assert_eq!(refusal(&mut stage, ana), exceeds("queue_share_bytes_max"));
    // They return without needing room.
    stage.lose(bob);
    let eve = stage.join("eve", Service);
    stage.subscribe(eve, "q", "/queue/a", "");
    assert_eq!(names(&mut stage, eve), ["0", "1", "2", "3", "4", "6"]);
}

#[test]
fn a_share_outlasts_the_session_while_messages_wait() {
    let mut stage = Stage::new(limits());
    let ana = stage.join("ana", Agent);
    for number in 0..6 {
        stage.send(ana, &format!("/queue/{number}"), "", &job("a"));
    }
    stage.lose(ana);
    let ana = stage.join("ana", Agent);
    stage.say(ana, &format!("SEND\ndestination:/queue/a\n\n{}", job("7")));
    assert_eq!(refusal(&mut stage, ana), exceeds("queue_share_bytes_max"));
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", Service));
    stage.subscribe(bob, "q", "/queue/0", "");
    assert_eq!(names(&mut stage, bob), ["a"]);
    stage.send(ana, "/queue/a", "", &job("7"));
}

#[test]
fn what_is_larger_than_all_queues_may_hold_is_refused_for_ever() {
    let share = ByProfile::all(1 << 20);
    let mut stage = Stage::new(Limits { queue_share_bytes_max: share, ..limits() });
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", Agent));
    stage.send(bob, "/queue/a", "", "small");
    stage.say(ana, &format!("SEND\ndestination:/queue/a\n\n{}", "x".repeat(12 * BODY)));
    assert_eq!(refusal(&mut stage, ana), ("queues_bytes_max".into(), "never".into()));
    // So is the share, even of one who uses nothing of it.
    let mut stage = Stage::new(Limits { queues_bytes_max: 1 << 20, ..limits() });
    let ana = stage.join("ana", Agent);
    stage.say(ana, &format!("SEND\ndestination:/queue/a\n\n{}", "x".repeat(7 * BODY)));
    assert_eq!(refusal(&mut stage, ana), ("queue_share_bytes_max".into(), "never".into()));
}

#[test]
fn the_sender_with_most_pays_for_one_with_less() {
    let mut stage = Stage::new(limits());
    let (ana, bob, eve) =
        (stage.join("ana", Agent), stage.join("bob", Agent), stage.join("eve", Agent));
    for number in 0..6 {
        stage.send(ana, "/queue/a", "", &job(&format!("a{number}")));
    }
    for number in 0..4 {
        stage.send(bob, "/queue/a", "", &job(&format!("b{number}")));
    }
    for number in 0..3 {
        stage.send(eve, "/queue/a", "", &job(&format!("e{number}")));
    }
    assert_eq!(stage.rig.engine.counters().messages_dropped, 2);
    // Bob has as much as ana now, so it is his own consumption.
    stage.say(bob, &format!("SEND\ndestination:/queue/a\n\n{}", job("b4")));
    assert_eq!(refusal(&mut stage, bob), exceeds("queues_bytes_max"));
    let heir = stage.join("heir", Service);
    stage.subscribe(heir, "q", "/queue/a", "");
    let expected = ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3", "e0", "e1", "e2"];
    assert_eq!(names(&mut stage, heir), expected, "the newest of ana went");
}

#[test]
fn what_consumers_hold_is_dropped_if_nothing_of_its_sender_waits() {
    let mut stage = Stage::new(limits());
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", SuperAgent));
    stage.subscribe(bob, "q", "/queue/a", "ack:client-individual\n");
    for number in 0..6 {
        stage.send(ana, "/queue/a", "", &job(&format!("a{number}")));
    }
    let held = stage.heard(bob);
    for who in ["eve", "dan"] {
        let who = stage.join(who, Agent);
        for _ in 0..3 {
            stage.send(who, "/queue/b", "", &job("b"));
        }
    }
    assert_eq!(stage.rig.engine.counters().messages_dropped, 1);
    // An ACK of the one that was dropped has no effect.
    let ack = |index: usize| format!("ACK\nid:{}\n\n", held[index].get("ack").unwrap());
    stage.ask(bob, &ack(5));
    stage.ask(bob, &ack(1));
    stage.lose(bob);
    let eve = stage.join("heir", Service);
    stage.subscribe(eve, "q", "/queue/a", "");
    assert_eq!(names(&mut stage, eve), ["a0", "a2", "a3", "a4"]);
}

#[test]
fn many_messages_that_expire_at_once_are_dropped_in_slices() {
    let mut stage = Stage::new(Limits::default());
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.subscribe(bob, "i", "/service/bob", "");
    let jobs = "SEND\ndestination:/queue/a\nexpiration:10\n\nx\0".repeat(3_000);
    stage.say(ana, jobs.trim_end_matches('\0'));
    stage.wait(11);
    stage.subscribe(bob, "q", "/queue/a", "");
    stage.send(ana, "/queue/a", "", "fresh");
    assert_eq!(stage.bodies(bob), ["fresh"]);
    assert_eq!(stage.rig.engine.counters().messages_expired, 3_000);
}

#[test]
fn a_long_queue_is_delivered_in_slices_and_wholly() {
    let mut stage = Stage::new(Limits::default());
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    let jobs = "SEND\ndestination:/queue/a\n\nx\0".repeat(5_000);
    stage.say(ana, jobs.trim_end_matches('\0'));
    stage.subscribe(bob, "q", "/queue/a", "");
    assert_eq!(stage.bodies(bob).len(), 5_000);
}

#[test]
fn the_session_with_the_largest_transactions_pays() {
    let limits = Limits {
        transaction_bytes_max: ByProfile::all(50_000),
        transactions_total_bytes_max: 100_000,
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", Agent));
    let send = |body: usize| {
        let body = "x".repeat(body);
        format!("SEND\ndestination:/topic/a\ntransaction:1\n\n{body}")
    };
    for (who, body) in [(ana, 45_000), (bob, 40_000)] {
        stage.say(who, "BEGIN\ntransaction:1\n\n");
        stage.ask(who, &send(body));
    }
    let eve = stage.join("eve", Agent);
    stage.ask(eve, "BEGIN\ntransaction:1\n\n");
    stage.say(eve, &send(20_000));
    let error = stage.next(ana);
    assert_eq!(
        (error.get("error-code"), error.get("retry")),
        (Some("LIMIT_EXCEEDED"), Some("later"))
    );
    assert!(error.get("message").unwrap().contains("transactions_total_bytes_max"));
    stage.say(eve, &send(20_000));
    stage.ask(eve, "COMMIT\ntransaction:1\n\n");
    stage.ask(bob, "COMMIT\ntransaction:1\n\n");
}
