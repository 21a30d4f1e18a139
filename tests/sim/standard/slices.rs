//! What a session leaves behind when it ends or moves is dealt with in slices: no turn is long, however much it is, and
//! the outcome is as if it were done at once.

use std::collections::HashMap;

use com_broker::internal::broker::Profile::{Agent, Service, SuperAgent};
use com_broker::limits::Limits;

use super::stage::{Frame, Stage, Who};
use crate::rig::{APPLICATION_KEY, PROFILE_KEYS};

/// Messages that a consumer holds.
const HELD: usize = 900;

const TURN_UNITS: u32 = 1_200;

/// A stage with small turns, a client that holds messages of `/queue/a` by its subscription `q`, and their ids.
fn holding(mode: &str) -> (Stage, Who, Vec<String>) {
    let limits = Limits { turn_units_max: TURN_UNITS, share_units_max: 80, ..Limits::default() };
    let mut stage = Stage::new(limits);
    let ana = stage.join_with("ana", SuperAgent, RESUME);
    stage.subscribe(ana, "q", "/queue/a", &format!("ack:{mode}\n"));
    let bob = stage.join("bob", Agent);
    let jobs: Vec<_> =
        (0..HELD).map(|number| format!("SEND\ndestination:/queue/a\n\n{number}")).collect();
    stage.say(bob, &jobs.join("\0"));
    let held = stage.heard(ana);
    assert_eq!(bodies(&held), all_bodies());
    let ids = held.iter().map(|one| one.get("ack").unwrap().to_owned()).collect();
    (stage, ana, ids)
}

const RESUME: &str = "accept-version:1.2\nresume:true\n";

fn all_bodies() -> Vec<String> {
    (0..HELD).map(|number| number.to_string()).collect()
}

fn bodies(frames: &[Frame]) -> Vec<String> {
    let messages = frames.iter().filter(|one| one.command == "MESSAGE");
    messages.map(|one| one.body.clone()).collect()
}

/// Many subscriptions to a topic.
fn subscriptions() -> String {
    let each = (0..HELD).map(|id| format!("SUBSCRIBE\nid:t{id}\ndestination:/topic/a\n\n"));
    each.collect::<Vec<_>>().join("\0")
}

/// What waits in the queue, found by another consumer.
fn waiting(stage: &mut Stage) -> Vec<String> {
    let eve = stage.join("eve", SuperAgent);
    stage.subscribe(eve, "q", "/queue/a", "");
    bodies(&stage.heard(eve))
}

/// Checks that no turn was long.
fn check_turns(stage: &Stage) {
    let engine = &stage.rig.engine;
    let longest = engine.longest_turn_units().max(engine.turn_units());
    assert!(longest <= 2 * u64::from(TURN_UNITS), "a turn of {longest} units");
}

#[test]
fn what_a_session_holds_returns_when_its_connection_breaks() {
    let (mut stage, ana, _) = holding("client-individual");
    stage.lose(ana);
    assert_eq!(waiting(&mut stage), all_bodies());
    check_turns(&stage);
}

#[test]
fn what_a_consumer_holds_returns_before_its_unsubscribe_is_answered() {
    let (mut stage, ana, ids) = holding("client-individual");
    stage.ask(ana, "UNSUBSCRIBE\nid:q\n\n");
    assert_eq!(bodies(&stage.heard(ana)), [""; 0]);
    // An ACK that crosses the end of its subscription has no effect.
    stage.ask(ana, &format!("ACK\nid:{}\n\n", ids[0]));
    assert_eq!(waiting(&mut stage), all_bodies());
    check_turns(&stage);
}

#[test]
fn a_connection_that_takes_over_gets_again_what_the_earlier_one_held() {
    for more in ["", "SUBSCRIBE\nid:q\ndestination:/queue/a\nack:client\n\n"] {
        let (mut stage, _, _) = holding("client-individual");
        let newer = stage.join_with("ana", SuperAgent, RESUME);
        if !more.is_empty() {
            stage.say(newer, more);
        }
        let again = stage.heard(newer);
        let is_again = again.iter().all(|one| one.get("redelivered") == Some("true"));
        assert!(is_again, "{:?}", again.first());
        assert!(bodies(&again).ends_with(&all_bodies()), "{:?}", bodies(&again));
        check_turns(&stage);
    }
}

#[test]
fn a_session_that_moves_again_and_again_loses_nothing() {
    let (mut stage, _, _) = holding("client-individual");
    for _ in 0..3 {
        stage.join_with("ana", SuperAgent, RESUME);
    }
    stage.join("ana", SuperAgent);
    assert_eq!(stage.rig.engine.broker().subscriptions_len(), 0);
    assert_eq!(waiting(&mut stage), all_bodies());
    check_turns(&stage);
}

#[test]
fn a_classic_connection_that_takes_over_returns_it() {
    let (mut stage, ana, _) = holding("client");
    stage.say(ana, &subscriptions());
    stage.subscribe(ana, "own", "/agent/ana", "");
    let newer = stage.join_classic("ana", SuperAgent);
    let bob = stage.join("carl", SuperAgent);
    assert_eq!(stage.send(bob, "/topic/a", "", "news"), 1);
    stage.send(bob, "/agent/ana", "", "direct");
    assert_eq!(bodies(&stage.heard(newer)), ["news", "direct"]);
    assert_eq!(waiting(&mut stage), all_bodies());
    check_turns(&stage);
}

#[test]
fn an_ack_settles_many_messages() {
    let (mut stage, ana, ids) = holding("client");
    stage.ask(ana, &format!("ACK\nid:{}\n\n", ids[HELD - 2]));
    stage.lose(ana);
    assert_eq!(waiting(&mut stage), [(HELD - 1).to_string()]);
    check_turns(&stage);
}

#[test]
fn what_was_acknowledged_does_not_return_though_the_connection_ends_behind_it() {
    let all = |ids: &[String]| {
        let acks = ids.iter().map(|id| format!("ACK\nid:{id}\ntransaction:t\n\n"));
        acks.collect::<Vec<_>>().join("\0")
    };
    for is_lost in [true, false] {
        for is_transaction in [true, false] {
            let mode = if is_transaction { "client-individual" } else { "client" };
            let (mut stage, ana, ids) = holding(mode);
            let acknowledged = match is_transaction {
                true => {
                    stage.say(ana, &format!("BEGIN\ntransaction:t\n\n\0{}", all(&ids)));
                    "COMMIT\ntransaction:t\n\n".to_owned()
                }
                false => format!("ACK\nid:{}\n\n", ids[HELD - 1]),
            };
            // It is begun, and not yet over.
            stage.say_and_turn(ana, &acknowledged, if is_transaction { 7 } else { 1 });
            assert!(stage.rig.engine.has_work(), "{mode}");
            let newer = match is_lost {
                true => {
                    stage.lose(ana);
                    None
                }
                false => Some(stage.join_with("ana", SuperAgent, RESUME)),
            };
            assert_eq!(newer.map_or(0, |newer| stage.heard(newer).len()), 0, "{mode}");
            assert_eq!(waiting(&mut stage), [""; 0], "{mode}");
            check_turns(&stage);
        }
    }
}

#[test]
fn many_subscriptions_end_or_are_replaced() {
    for more in ["", "resume:true\n"] {
        let (mut stage, ana, _) = holding("client");
        stage.say(ana, &subscriptions());
        let newer = stage.join_with("ana", SuperAgent, &format!("accept-version:1.2\n{more}"));
        stage.subscribe(newer, "new", "/topic/a", "");
        stage.heard(newer);
        let bob = stage.join("bob", Agent);
        assert_eq!(stage.send(bob, "/topic/a", "", "news"), 1);
        assert_eq!(bodies(&stage.heard(newer)), ["news"], "{more}");
        check_turns(&stage);
    }
}

#[test]
fn a_large_transaction_is_freed_when_it_is_aborted() {
    let limits = Limits { turn_units_max: TURN_UNITS, share_units_max: 80, ..Limits::default() };
    for is_lost in [true, false] {
        let mut stage = Stage::new(limits.clone());
        let ana = stage.join("ana", Agent);
        let held = "\0SEND\ndestination:/topic/a\ntransaction:t\n\n.".repeat(10_000);
        stage.say(ana, &format!("BEGIN\ntransaction:t\n\n{held}"));
        match is_lost {
            true => stage.lose(ana),
            false => _ = stage.ask(ana, "ABORT\ntransaction:t\n\n"),
        }
        let held = stage.rig.engine.broker().held();
        let left = held.iter().find(|one| one.0 == "transactions_total_bytes_max").unwrap().1;
        assert_eq!(left, 0);
        check_turns(&stage);
    }
}

#[test]
fn events_about_many_clients_come_to_many_services_in_order() {
    let limits = Limits { turn_units_max: TURN_UNITS, share_units_max: 80, ..Limits::default() };
    let mut stage = Stage::new(limits);
    let watchers: Vec<_> =
        (0..8).map(|number| stage.join(&format!("s{number}"), Service)).collect();
    for who in &watchers {
        let each =
            (0..WATCHES).map(|id| format!("SUBSCRIBE\nid:{id}\ndestination:/broker/presence\n\n"));
        stage.say(*who, &each.collect::<Vec<_>>().join("\0"));
    }
    let open = |_| {
        stage.turn();
        stage.open()
    };
    let clients: Vec<_> = (0..=CLIENTS).map(open).collect();
    let (late, clients) = clients.split_last().unwrap();
    for (number, who) in clients.iter().enumerate() {
        let key = format!("{APPLICATION_KEY}.{}", PROFILE_KEYS[Agent]);
        let login =
            format!("CONNECT\naccept-version:1.2\nhost:h\nlogin:c{number}\npasscode:{key}\n\n");
        stage.say_and_turn(*who, &login, 0);
    }
    stage.turn();
    for who in clients {
        assert_eq!(stage.heard(*who)[0].command, "CONNECTED");
        stage.say_and_turn(*who, "DISCONNECT\n\n", 0);
    }
    stage.lose(*late);
    for who in &watchers {
        let told = stage.heard(*who);
        let mut events: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
        for one in &told {
            let login = one.body.split('"').nth(7).unwrap();
            let by = one.get("subscription").unwrap();
            events.entry((by, login)).or_default().push(one.get("event").unwrap());
        }
        assert_eq!(events.len(), WATCHES * CLIENTS);
        for (about, events) in events {
            assert_eq!(events, ["logged", "disconnected", "logout"], "{about:?}");
        }
    }
    check_turns(&stage);
}

/// Subscriptions to presence of each service.
const WATCHES: usize = 150;

const CLIENTS: usize = 6;

#[test]
fn a_large_message_is_let_in_though_many_small_ones_have_to_be_dropped_for_it() {
    let max = 4 << 20;
    let limits = Limits {
        turn_units_max: TURN_UNITS,
        share_units_max: 80,
        queues_bytes_max: max,
        queue_share_bytes_max: Limits::queue_shares(max),
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    for name in ["ana", "bob"] {
        let who = stage.join(name, Service);
        // Until the sender has used up its share.
        let jobs = vec!["SEND\ndestination:/queue/a\n\n."; 6_000];
        stage.say(who, &jobs.join("\0"));
        assert_eq!(stage.next(who).get("error-code"), Some("LIMIT_EXCEEDED"));
    }
    let held = |stage: &Stage| {
        let held = stage.rig.engine.broker().held();
        held.iter().find(|one| one.0 == "queues_bytes_max").unwrap().1
    };
    assert!(held(&stage) > max - max / 100);
    let carl = stage.join("carl", Agent);
    stage.ask(carl, &format!("SEND\ndestination:/queue/b\n\n{}", "x".repeat(200_000)));
    assert!(held(&stage) <= max, "what was let in is made up for");
    check_turns(&stage);
    let eve = stage.join("eve", SuperAgent);
    stage.subscribe(eve, "b", "/queue/b", "");
    assert_eq!(stage.next(eve).body.len(), 200_000);
}

/// The steps back in a sequence of numbers.
fn steps_back(bodies: &[String]) -> usize {
    let numbers: Vec<u32> = bodies.iter().map(|body| body.parse().unwrap()).collect();
    numbers.windows(2).filter(|pair| pair[0] > pair[1]).count()
}

/// How the consumers of a session end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Lost,
    TakenOver,
    Resumed,
    Unsubscribed,
    Refused,
}

/// Others acknowledge what they get, and send, while it is returned.
#[test]
fn what_many_consumers_held_comes_in_the_order_of_sending_before_all_else() {
    for end in [End::Lost, End::TakenOver, End::Resumed, End::Unsubscribed, End::Refused] {
        let limits =
            Limits { turn_units_max: TURN_UNITS, share_units_max: 80, ..Limits::default() };
        let mut stage = Stage::new(limits);
        let ana = stage.join_with("ana", SuperAgent, RESUME);
        let several = !matches!(end, End::Unsubscribed | End::Refused);
        for id in 0..if several { 20 } else { 1 } {
            stage.subscribe(ana, &id.to_string(), "/queue/a", "ack:client\n");
        }
        let bob = stage.join("bob", Agent);
        let jobs: Vec<_> =
            (0..HELD).map(|number| format!("SEND\ndestination:/queue/a\n\n{number}")).collect();
        stage.say(bob, &jobs.join("\0"));
        let held = stage.heard(ana);
        assert_eq!(held.len(), HELD);
        let eve = stage.join("eve", SuperAgent);
        stage.subscribe(eve, "q", "/queue/a", "ack:client-individual\nprefetch-count:3\n");
        stage.subscribe(eve, "w", "/queue/a", "ack:client-individual\nprefetch-count:3\n");
        match end {
            End::Lost => stage.begin_to_lose(ana),
            End::TakenOver => stage.begin_to_join("ana", SuperAgent, "accept-version:1.2\n"),
            End::Resumed => stage.begin_to_join("ana", SuperAgent, RESUME),
            End::Unsubscribed => stage.say_and_turn(ana, "UNSUBSCRIBE\nid:0\n\n", 0),
            End::Refused => {
                let id = held.last().unwrap().get("ack").unwrap();
                stage.say_and_turn(ana, &format!("NACK\nid:{id}\n\n"), 0);
            }
        }
        let (mut got, mut number) = (Vec::new(), HELD);
        while number < HELD + 300 {
            stage.say_and_turn(bob, &format!("SEND\ndestination:/queue/a\n\n{number}"), 0);
            number += 1;
            stage.turn_once();
            for one in stage.heard(eve) {
                let ack = format!("ACK\nid:{}\n\n", one.get("ack").unwrap());
                stage.say_and_turn(eve, &ack, 0);
                got.push(one.body);
            }
        }
        assert!(got.len() > 20, "{end:?}: {}", got.len());
        // What was sent before the end is seen goes on as ever.
        let is_returned = |body: &String| body.parse::<usize>().unwrap() < HELD;
        let first = got.iter().position(is_returned).unwrap();
        assert!(first <= 6, "{end:?}: {got:?}");
        let got = got.split_off(first);
        assert_eq!(steps_back(&got), 0, "{end:?}: {got:?}");
        check_turns(&stage);
    }
}

/// A queue that gets much back does not hold up one that gets little of the same session.
#[test]
fn a_queue_is_held_up_only_while_it_gets_back_what_is_its_own() {
    let (mut stage, ana, _) = holding("client");
    let bob = stage.join("bob", Agent);
    stage.subscribe(ana, "s", "/queue/0", "ack:client\n");
    stage.send(bob, "/queue/0", "", "1");
    let eve = stage.join("eve", SuperAgent);
    stage.subscribe(eve, "q", "/queue/0", "ack:client\n");
    stage.heard(ana);
    stage.begin_to_lose(ana);
    stage.turn_once();
    stage.say_and_turn(bob, "SEND\ndestination:/queue/0\n\n2", 0);
    stage.turn_once();
    assert!(stage.rig.engine.has_work(), "what is in the other queue is still being returned");
    assert!(bodies(&stage.heard(eve)).contains(&"2".to_owned()));
}
