//! What a takeover keeps of the earlier connection: in the standard dialect subscriptions only if it asks
//! for them, in the classic dialect all of them.

use com_broker::internal::broker::Profile::{Agent, Service, SuperAgent};
use com_broker::limits::Limits;

use super::stage::Stage;

const RESUME: &str = "accept-version:1.2\nresume:true\n";

#[test]
fn a_standard_client_that_takes_over_begins_without_subscriptions() {
    let mut stage = Stage::new(Limits::default());
    let eve = stage.join("eve", Service);
    let older = stage.join("ana", SuperAgent);
    stage.subscribe(older, "t", "/topic/a", "");
    stage.subscribe(older, "l", "/topic/>", "");
    stage.subscribe(older, "w", "/agent/.*", "destination-type:1\n");
    stage.subscribe(older, "q", "/queue/a", "ack:client\n");
    stage.subscribe(older, "i", "/agent/ana", "");
    stage.send(eve, "/queue/a", "", "job");
    stage.heard(older);
    let newer = stage.join("ana", SuperAgent);
    assert_eq!(stage.send(eve, "/topic/a", "", "news"), 0);
    assert_eq!(stage.rig.engine.broker().subscriptions_len(), 0);
    assert_eq!(stage.heard(newer), []);
    stage.subscribe(eve, "q", "/queue/a", "");
    let job = stage.next(eve);
    assert_eq!((&*job.body, job.get("redelivered")), ("job", Some("true")), "it went back");
}

#[test]
fn with_resume_the_subscriptions_of_the_earlier_connection_are_kept() {
    let mut stage = Stage::new(Limits::default());
    let eve = stage.join("eve", Service);
    stage.join_with("ana", SuperAgent, RESUME);
    let older = stage.join_with("ana", SuperAgent, RESUME);
    stage.subscribe(older, "t", "/topic/a", "");
    stage.subscribe(older, "q", "/queue/a", "ack:client\n");
    stage.send(eve, "/queue/a", "", "job");
    let first = stage.next(older);
    let newer = stage.join_with("ana", SuperAgent, RESUME);
    assert_eq!(stage.send(eve, "/topic/a", "", "news"), 1);
    let told = stage.heard(newer);
    let seen: Vec<_> = told.iter().map(|one| (one.get("subscription"), &*one.body)).collect();
    assert_eq!(seen, [(Some("q"), "job"), (Some("t"), "news")]);
    assert_eq!(told[0].get("redelivered"), Some("true"));
    assert_eq!(told[0].get("message-id"), first.get("message-id"), "it is the same delivery");
}

#[test]
fn only_resume_true_keeps_the_subscriptions() {
    for value in ["false", "yes", ""] {
        let mut stage = Stage::new(Limits::default());
        let older = stage.join("ana", Agent);
        stage.subscribe(older, "t", "/topic/a", "");
        stage.join_with("ana", Agent, &format!("accept-version:1.2\nresume:{value}\n"));
        assert_eq!(stage.rig.engine.broker().subscriptions_len(), 0, "{value}");
    }
}

#[test]
fn subscriptions_are_not_resumed_by_a_connection_that_cannot_name_them() {
    // Escaping of ids differs between versions, and in 1.0 ids may be absent.
    for (before, after) in [("1.0", "1.2"), ("1.2", "1.1"), ("1.1", "1.0")] {
        let mut stage = Stage::new(Limits::default());
        let older = stage.join_with("ana", Agent, &format!("accept-version:{before}\n"));
        stage.subscribe(older, "t", "/topic/a", "");
        stage.join_with("ana", Agent, &format!("accept-version:{after}\nresume:true\n"));
        assert_eq!(stage.rig.engine.broker().subscriptions_len(), 0, "{before} {after}");
    }
}

#[test]
fn messages_that_come_back_do_not_go_to_a_subscription_that_ends_as_well() {
    let mut stage = Stage::new(Limits::default());
    let ana = stage.join("ana", SuperAgent);
    stage.subscribe(ana, "acknowledged", "/queue/a", "ack:client\nprefetch-count:1\n");
    stage.send(ana, "/queue/a", "", "job");
    assert_eq!(stage.bodies(ana), ["job"]);
    stage.subscribe(ana, "auto", "/queue/a", "");
    stage.ask(ana, "DISCONNECT\n\n");
    let bob = stage.join("bob", SuperAgent);
    stage.subscribe(bob, "0", "/queue/a", "");
    assert_eq!(stage.bodies(bob), ["job"], "nobody has consumed it");
}
