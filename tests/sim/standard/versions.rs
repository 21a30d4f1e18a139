//! Differences between versions of STOMP and between the dialects, for one message to all of them, and for
//! takeovers between them.

use com_broker::internal::broker::Profile::{Agent, Service, SuperAgent};
use com_broker::limits::Limits;

use super::stage::Stage;

const VERSIONS: [&str; 3] = ["1.0", "1.1", "1.2"];

fn accept(version: &str) -> String {
    format!("accept-version:{version}\n")
}

/// STOMP 1.2, "Value Encoding": CR is escaped in 1.2 alone, LF, colon and backslash in 1.1 and 1.2.
#[test]
fn each_version_has_its_own_escapes() {
    let mut stage = Stage::new(Limits::default());
    let eve = stage.join("eve", Service);
    let receivers = VERSIONS.map(|version| {
        let who = stage.join_with(&format!("v{version}"), Agent, &accept(version));
        stage.subscribe(who, "t", "/topic/a", "");
        who
    });
    stage.send(eve, "/topic/a", "k\\c1:a\\cb\\\\c\n", "news");
    let told = receivers.map(|who| stage.next(who));
    let expected = [("k\\c1", "a\\cb\\\\c"); 3];
    for (told, (name, value)) in told.iter().zip(expected).skip(1) {
        assert_eq!((told.get(name), &*told.body), (Some(value), "news"), "{told:?}");
    }
    // 1.0 has no escapes.
    assert_eq!(told[0].get("k"), Some("1:a:b\\c"), "{:?}", told[0]);
}

/// STOMP 1.0, "UNSUBSCRIBE": without an id, the destination identifies the subscription.
#[test]
fn a_subscription_without_an_id_is_ended_by_its_destination() {
    for (destination, more) in [
        ("/topic/a", ""),
        ("/topic/a.*", ""),
        ("/queue/a", ""),
        ("/agent/.*", "destination-type:1\n"),
        ("/broker/presence", "destination-id:.*\n"),
    ] {
        let mut stage = Stage::new(Limits::default());
        let eve = stage.join_with("eve", Service, &accept("1.0"));
        stage.ask(eve, "SUBSCRIBE\ndestination:/topic/other\n\n");
        stage.ask(eve, &format!("SUBSCRIBE\ndestination:{destination}\n{more}\n"));
        assert_eq!(stage.rig.engine.broker().subscriptions_len(), 2, "{destination}");
        stage.ask(eve, &format!("UNSUBSCRIBE\ndestination:{destination}\n\n"));
        assert_eq!(stage.rig.engine.broker().subscriptions_len(), 1, "{destination}");
        assert_eq!(stage.send(eve, "/topic/other", "", "still"), 1, "{destination}");
        stage.say(eve, &format!("UNSUBSCRIBE\ndestination:{destination}\n\n"));
        let told = stage.heard(eve);
        let last = told.last().expect("an ERROR");
        assert_eq!(last.get("error-code"), Some("UNKNOWN_ID"), "{last:?}");
    }
}

#[test]
fn an_undeliverable_message_is_an_error_if_asked_for() {
    let mut stage = Stage::new(Limits::default());
    stage.join("bob", Agent);
    for (to, says) in [("/agent/nobody", "nobody is at"), ("/agent/bob", "does not listen")] {
        let ana = stage.join("ana", SuperAgent);
        assert_eq!(stage.send(ana, to, "", "x"), 0);
        stage.say(ana, &format!("SEND\ndestination:{to}\nundeliverable:error\n\nx"));
        let error = stage.next(ana);
        assert_eq!(error.get("error-code"), Some("NO_SUCH_DESTINATION"), "{error:?}");
        assert!(error.get("message").unwrap().contains(says), "{error:?}");
    }
}

#[test]
fn a_classic_takeover_keeps_what_it_can_of_a_standard_session() {
    let mut stage = Stage::new(Limits::default());
    let eve = stage.join("eve", Service);
    let older = stage.join("ana", SuperAgent);
    stage.subscribe(older, "one", "/topic/a", "");
    stage.subscribe(older, "two", "/topic/*", "");
    stage.subscribe(older, "i", "/agent/ana", "");
    stage.subscribe(older, "q", "/queue/a", "ack:client\n");
    stage.send(eve, "/queue/a", "", "job");
    let newer = stage.join_classic("ana", SuperAgent);
    assert_eq!(stage.rig.engine.broker().subscriptions_len(), 2, "the topics");
    for (to, body) in [("/topic/a", "news"), ("/agent/ana", "direct")] {
        assert_eq!(stage.send(eve, to, "", body), 1, "{to}");
        assert_eq!(stage.bodies(newer), [body], "one copy, by however many subscriptions");
    }
    stage.subscribe(eve, "q", "/queue/a", "");
    assert_eq!(stage.bodies(eve), ["job"], "what it had not acknowledged went back");
}
