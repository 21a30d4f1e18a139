//! Consumers that must not get a message of a queue. That none is lost or duplicated is shown by the
//! simulation, with its model of queues.

use com_broker::ByProfile;
use com_broker::internal::broker::Profile::Service;
use com_broker::limits::{Limits, OutboundLimits};

use super::stage::Stage;

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
