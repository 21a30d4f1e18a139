//! Heart-beats: negotiation, beats of the broker, and timeouts of silent clients.

use std::time::{Duration, Instant};

use super::{Statement, statement};
use crate::conformance::stage::{Stage, connect};
use crate::support::client::Profile::Agent;

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'Heart-beating'", "without the header there are none", |stage| {
        stage.agent().connected.unwrap().has("heart-beat", "0,0");
    }),
    statement("Ours, 'Standard dialect'", "none agreed: the header says so", |stage| {
        agreed(stage, "0,0", Some("0,0"));
    }),
    statement("STOMP 1.2, 'Heart-beating'", "the client's direction is by itself", |stage| {
        agreed(stage, "500,0", Some("0,1000"));
        agreed(stage, "5000,0", Some("0,1000"));
    }),
    statement("STOMP 1.2, 'Heart-beating'", "so is the broker's", |stage| {
        agreed(stage, "0,500", Some("1000,0"));
        agreed(stage, "0,90000", Some("1000,0"));
    }),
    statement("STOMP 1.2, 'Heart-beating'", "both directions may be agreed", |stage| {
        agreed(stage, "10000,10000", Some("1000,1000"));
    }),
    statement("Ours, 'Logging in'", "an interval that is too large is the largest", |stage| {
        agreed(stage, "4294967296,0", Some("0,1000"));
        agreed(stage, "0,99999999999999999999999", Some("1000,0"));
    }),
    statement("STOMP 1.2, 'Heart-beating'", "it is two numbers with a comma between", |stage| {
        for beats in ["1000", "a,b", "-1,0", "1000;1000", "", "0.5,1", "+5,5", "5,+5", "5,5,5", ","]
        {
            let text = connect(&stage.name("b"), Agent, &format!("heart-beat:{beats}\n"));
            stage.stranger().refused(&text, "UNKNOWN_FORMAT_HEADER");
        }
    }),
    statement("STOMP 1.2, 'Heart-beating'", "who has nothing to say sends a line end", |stage| {
        stage.strict().beating("0,100").await_beats(5);
    }),
    statement("STOMP 1.2, 'Heart-beating'", "no beats to whom does not want them", |stage| {
        let stage = stage.strict();
        let mut quiet = stage.agent();
        let mut clock = stage.beating("0,100");
        clock.await_beats(4);
        quiet.say("BEGIN\ntransaction:t\nreceipt:r\n\n");
        assert!(matches!(quiet.link.next(), crate::conformance::stage::Arrival::Frame(_)));
    }),
    statement("STOMP 1.2, 'Heart-beating'", "beats come as often as agreed, not more", |stage| {
        let mut often = stage.strict().beating("0,100");
        let started = Instant::now();
        often.await_beats(4);
        assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    }),
    statement("STOMP 1.2, 'Heart-beating'", "who is silent is closed", |stage| {
        let started = Instant::now();
        stage.strict().beating("100,0").is_cut_for_silence();
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(300), "late by twice is no death: {elapsed:?}");
        assert!(elapsed <= Duration::from_secs(5), "{elapsed:?}");
    }),
    statement("STOMP 1.2, 'Heart-beating'", "a client that beats stays", |stage| {
        let stage = stage.strict();
        let mut ana = stage.beating("100,0");
        let mut clock = stage.beating("0,100");
        for _ in 0..10 {
            clock.await_beats(1);
            ana.bytes(b"\n");
        }
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'Heart-beating'", "any byte is a sign of life", |stage| {
        let stage = stage.strict();
        let mut ana = stage.beating("100,0");
        let mut clock = stage.beating("0,100");
        for byte in "BEGIN\nreceipt:r\ntransaction:t\n\n\0".bytes() {
            if byte % 3 == 0 {
                clock.await_beats(1);
            }
            ana.bytes(&[byte]);
        }
        ana.await_receipt("r");
    }),
    statement("Ours, 'Standard dialect'", "a beat late by twice its interval is good", |stage| {
        let stage = stage.strict();
        let mut ana = stage.beating("150,0");
        let mut clock = stage.beating("0,100");
        for _ in 0..3 {
            // Three intervals are less than the three and the margin that are allowed.
            clock.await_beats(3);
            ana.bytes(b"\n");
        }
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'Heart-beating'", "no beat stands within a frame", |stage| {
        let stage_of_beats = stage.strict();
        let mut slow = stage_of_beats.beating("0,100");
        let topic = stage.name("/topic/open/t");
        slow.subscribe("0", &topic, "");
        let mut clock = stage_of_beats.beating("0,100");
        let mut bob = stage_of_beats.agent();
        let body = "0123456789abcdef".repeat(4096);
        // More than sockets hold: a frame is partly written while beats are due.
        for _ in 0..120 {
            bob.say(&format!("SEND\ndestination:{topic}\n\n{body}"));
        }
        clock.await_beats(3);
        for _ in 0..120 {
            let frame = slow.message();
            assert!(frame.text() == body, "a frame of {} bytes", frame.body.len());
        }
        slow.hears_nothing();
    }),
];

/// Checks the header of CONNECTED for that of CONNECT, with a beat a second as the shortest interval.
#[track_caller]
fn agreed(stage: &Stage<'_>, asked: &str, answered: Option<&str>) {
    let connected = stage.beating(asked).connected.unwrap();
    assert_eq!(connected.get("heart-beat"), answered, "{connected}");
}
