//! Ids are never reused.

use com_broker::internal::broker::Levels;
use com_broker::internal::broker::Profile::{Agent, Service, SuperAgent};
use com_broker::internal::broker::Rights;
use com_broker::limits::Limits;

use super::stage::Stage;

#[test]
fn a_remembered_right_does_not_apply_to_a_new_destination_in_the_same_slot() {
    let mut stage = Stage::with(Limits::default(), |options| {
        options.rights[Agent] =
            Rights { send: vec![Levels::parse("/agent/>").unwrap()], subscribe: Vec::new() };
    });
    let ana = stage.join("ana", Agent);
    let bob = stage.join("b", Agent);
    stage.say(ana, "SEND\ndestination:/agent/b\n\nto b");
    stage.ask(bob, "DISCONNECT\n\n");
    let billing = stage.join("billing", Service);
    stage.say(ana, "SEND\ndestination:/service/billing\n\nto billing");
    assert_eq!(stage.heard(billing), []);
    assert_eq!(stage.next(ana).get("error-code"), Some("PROF_NO_RIGHTS"));
}

#[test]
fn an_ack_of_an_ended_subscription_does_not_affect_the_next_one() {
    for (ack, end) in [("ACK", "UNSUBSCRIBE\nid:0\n\n"), ("NACK", "UNSUBSCRIBE\nid:0\n\n")] {
        let mut stage = Stage::new(Limits::default());
        let bob = stage.join("bob", Service);
        stage.subscribe(bob, "0", "/queue/a", "ack:client-individual\n");
        stage.send(bob, "/queue/a", "", "job");
        let first = stage.next(bob);
        stage.ask(bob, end);
        stage.subscribe(bob, "0", "/queue/a", "ack:client-individual\n");
        let again = stage.next(bob);
        assert_eq!((&*again.body, again.get("redelivered")), ("job", Some("true")));
        assert_ne!(first.get("ack"), again.get("ack"), "each delivery has an id of its own");
        stage.ask(bob, &format!("{ack}\nid:{}\n\n", first.get("ack").unwrap()));
        assert_eq!(stage.heard(bob), [], "a {ack} that is late does nothing");
        stage.lose(bob);
        let eve = stage.join("eve", SuperAgent);
        stage.subscribe(eve, "0", "/queue/a", "");
        assert_eq!(stage.bodies(eve), ["job"], "nobody has acknowledged it");
    }
}

#[test]
fn an_ack_does_not_affect_another_subscription_in_the_same_slot() {
    let mut stage = Stage::new(Limits::default());
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.subscribe(ana, "0", "/queue/a", "ack:client\n");
    stage.send(ana, "/queue/a", "", "job");
    let first = stage.next(ana);
    stage.ask(ana, "UNSUBSCRIBE\nid:0\n\n");
    stage.subscribe(bob, "0", "/queue/a", "ack:client\n");
    assert_eq!(stage.bodies(bob), ["job"]);
    stage.ask(ana, &format!("ACK\nid:{}\n\n", first.get("ack").unwrap()));
    stage.lose(bob);
    stage.subscribe(ana, "1", "/queue/a", "");
    assert_eq!(stage.bodies(ana), ["job"]);
}

#[test]
fn an_unknown_ack_id_is_refused_and_a_late_one_is_ignored() {
    let mut stage = Stage::new(Limits::default());
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.subscribe(ana, "0", "/queue/a", "ack:client-individual\n");
    stage.send(bob, "/queue/a", "", "job");
    let id = stage.next(ana).get("ack").unwrap().to_owned();
    stage.ask(ana, &format!("ACK\nid:{id}\n\n"));
    stage.ask(ana, &format!("ACK\nid:{id}\n\n"));
    stage.say(bob, &format!("ACK\nid:{id}\n\n"));
    assert_eq!(stage.next(bob).get("error-code"), Some("UNKNOWN_ID"), "it is ana's");
}

#[test]
fn what_was_cached_for_a_slot_is_dropped_with_it() {
    // Sessions, connections, destinations and subscriptions reuse the slots of earlier ones.
    let mut stage = Stage::new(Limits::default());
    let eve = stage.join("eve", Service);
    for round in 0..20 {
        let ana = stage.join(&format!("ana{round}"), SuperAgent);
        stage.subscribe(ana, "q", "/queue/a", "ack:client\nprefetch-count:1\n");
        stage.subscribe(ana, "t", "/topic/a", "");
        stage.send(eve, "/topic/a", "", "news");
        stage.send(eve, "/queue/a", "", "1");
        stage.send(eve, "/queue/a", "", "2");
        assert_eq!(stage.bodies(ana), ["news", "1"], "round {round}");
        if round % 2 == 0 {
            stage.lose(ana);
        } else {
            stage.ask(ana, "DISCONNECT\n\n");
        }
        let bob = stage.join(&format!("bob{round}"), SuperAgent);
        stage.subscribe(bob, "w", "/queue/a", "");
        assert_eq!(stage.bodies(bob), ["1", "2"], "round {round}");
        assert_eq!(stage.send(eve, "/topic/a", "", "nobody"), 0, "round {round}");
        stage.lose(bob);
    }
}
