//! Consumers that must not get a message of a queue. That none is lost or duplicated is shown by the
//! simulation, with its model of queues.

use com_broker::ByProfile;
use com_broker::internal::broker::Profile::{Agent, Service, SuperAgent};
use com_broker::limits::{Limits, OutboundLimits};

use super::stage::{Frame, Stage, Who};

#[test]
fn a_message_is_not_given_to_a_closing_connection() {
    let outbound = OutboundLimits { hard_bytes_max: 3_000, soft_bytes_max: 2_000, soft_ms_max: 10 };
    let mut stage = Stage::new(Limits { outbound: ByProfile::all(outbound), ..Limits::default() });
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.subscribe(bob, "i", "/service/bob", "");
    stage.subscribe(bob, "q", "/queue/a", "");
    // In one turn: more than bob's queue may hold, which the kernel takes, and then a job.
    let flood = format!("SEND\ndestination:/service/bob\n\n{}\0", "x".repeat(1_000)).repeat(80);
    stage.say(ana, &format!("{flood}SEND\ndestination:/queue/a\n\njob"));
    let told = stage.heard(bob);
    assert_eq!(told.last().unwrap().get("error-code"), Some("SLOW_CONSUMER"));
    assert!(told.iter().all(|one| one.body != "job"));
    stage.subscribe(ana, "q", "/queue/a", "");
    assert_eq!(stage.bodies(ana), ["job"]);
}

/// A broker whose queues are full of what a consumer holds, so that others have some of it dropped. Returns the messages.
fn dropped_from(mode: &str) -> (Stage, Who, Vec<Frame>) {
    let max = 1 << 20;
    let mut stage = Stage::new(Limits {
        queues_bytes_max: max,
        queue_share_bytes_max: Limits::queue_shares(max),
        ..Limits::default()
    });
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.subscribe(ana, "q", "/queue/a", &format!("ack:{mode}\nprefetch-count:1000\n"));
    for number in 0..400 {
        let body = format!("{number}{}", "x".repeat(600));
        stage.send(bob, "/queue/a", "", &body);
    }
    let held = stage.heard(ana);
    assert_eq!(held.len(), 400);
    for login in ["eva", "eve", "joe"] {
        let who = stage.join(login, Agent);
        for _ in 0..100 {
            stage.say(who, &format!("SEND\ndestination:/queue/b\n\n{}", "y".repeat(2_000)));
        }
    }
    assert!(stage.rig.engine.counters().messages_dropped > 20, "some are dropped");
    (stage, ana, held)
}

/// Ends a consumer, and returns the numbers of the messages that another one gets.
fn left_by(stage: &mut Stage, ana: Who) -> Vec<u32> {
    stage.lose(ana);
    let carl = stage.join("carl", SuperAgent);
    stage.subscribe(carl, "q", "/queue/a", "");
    let number = |body: String| body.trim_end_matches('x').parse().unwrap();
    stage.bodies(carl).into_iter().map(number).collect()
}

#[test]
fn a_cumulative_ack_of_a_message_that_was_dropped_acknowledges_those_before_it() {
    // The last one is dropped first.
    for (at, left) in [(399, vec![]), (398, vec![]), (9, (10..400).collect())] {
        for command in ["ACK", "NACK"] {
            let (mut stage, ana, held) = dropped_from("client");
            stage.ask(ana, &format!("{command}\nid:{}\n\n", held[at].get("ack").unwrap()));
            stage.ask(ana, &format!("{command}\nid:{}\n\n", held[5].get("ack").unwrap()));
            let got = left_by(&mut stage, ana);
            let is_kept = |number: &&u32| got.contains(number);
            if command == "ACK" {
                let kept: Vec<u32> = left.iter().filter(is_kept).copied().collect();
                assert_eq!(got, kept, "{at}");
                assert_eq!(got.is_empty(), left.is_empty());
            } else {
                assert!(got.len() > 100 && got.len() < 400 && got.is_sorted(), "{}", got.len());
            }
        }
    }
    // One of another queue acknowledges nothing.
    let (mut stage, ana, held) = dropped_from("client");
    let id = held[399].get("ack").unwrap();
    let (subscription, number) = id.rsplit_once('-').unwrap();
    let other = number.parse::<u32>().unwrap() + 1;
    stage.ask(ana, &format!("ACK\nid:{subscription}-{other}\n\n"));
    assert!(left_by(&mut stage, ana).len() > 100);
}

#[test]
fn an_individual_ack_of_a_message_that_was_dropped_has_no_effect() {
    let (mut stage, ana, held) = dropped_from("client-individual");
    stage.ask(ana, &format!("ACK\nid:{}\n\n", held[399].get("ack").unwrap()));
    let got = left_by(&mut stage, ana);
    assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>());
    assert!(got.len() > 100);
}
