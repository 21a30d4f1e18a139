//! Times that clients have: they stand still while the broker does not run, nobody is judged whose input
//! was not read, and a frame that has begun has to go on.

use com_broker::internal::broker::CloseReason;
use com_broker::internal::engine::ConnectionId;
use com_broker::limits::{Limits, OutboundLimits};
use com_broker::{ByProfile, Profile};

use crate::closing::{Dialect, Frame, Stage, TEXT};
use crate::sessions::{connect, envelope, masked, standard_connect};

/// Three intervals of a second, and the margin.
const SILENCE_MS: u64 = 4_000;

/// How late a turn may be without moving deadlines.
const TOLERANCE_MS: u64 = 100;

#[test]
fn clients_that_kept_beating_stay_though_polls_report_them_one_by_one() {
    for is_known_to_be_late in [true, false] {
        let mut stage = Stage::new(Limits::default());
        let clients: Vec<_> = (0..300).map(|number| beating(&mut stage, number)).collect();
        let before = stage.rig.now();
        if is_known_to_be_late {
            stage.rig.pause(10_000);
        } else {
            // As if the last poll had meant to sleep so long.
            stage.rig.advance(10_000);
        }
        clients.iter().for_each(|id| stage.socket(*id).push_inbound(b"\n"));
        // More are ready than a poll reports.
        for some in clients.chunks(50) {
            let told = if some.last() == clients.last() { stage.rig.now() } else { before };
            some.iter().for_each(|id| stage.rig.engine.note_ready(id.slot, true, false));
            stage.rig.turn_after(told);
            stage.rig.advance(5);
        }
        assert_eq!(stage.rig.engine.len(), clients.len());
        // Then they fall silent.
        stage.advance(SILENCE_MS - 300);
        assert_eq!(stage.rig.engine.len(), clients.len());
        stage.advance(300);
        // A turn checks a part of the deadlines.
        let now_ms = stage.rig.now().ms();
        while stage.rig.engine.has_work()
            || stage.rig.engine.next_deadline_ms().is_some_and(|at_ms| at_ms <= now_ms)
        {
            stage.rig.turn();
        }
        assert_eq!(stage.rig.engine.len(), 0);
    }
}

#[test]
fn after_a_pause_a_client_has_the_time_that_it_had_left() {
    let mut stage = Stage::new(Limits::default());
    beating(&mut stage, 0);
    stage.advance(1_000);
    // What it sent is still on the way.
    stage.pause(10_000);
    stage.advance(SILENCE_MS - 1_000 - TOLERANCE_MS - 1);
    assert_eq!(stage.rig.engine.len(), 1);
    stage.advance(1);
    assert_eq!(stage.rig.engine.len(), 0);
}

#[test]
fn a_pause_within_a_turn_moves_deadlines_as_well() {
    let mut stage = Stage::new(Limits::default());
    beating(&mut stage, 0);
    stage.advance(1_000);
    stage.rig.engine.receive(stage.rig.now());
    stage.rig.advance(10_000);
    let now = stage.rig.now();
    stage.rig.engine.settle(now);
    stage.advance(SILENCE_MS - 1_000 - TOLERANCE_MS - 1);
    assert_eq!(stage.rig.engine.len(), 1);
    stage.advance(1);
    assert_eq!(stage.rig.engine.len(), 0);
}

#[test]
fn a_client_is_not_silent_whose_input_was_not_read_yet() {
    for dialect in ["stream", "websocket"] {
        let mut stage = Stage::new(Limits::default());
        let id = match dialect {
            "stream" => beating(&mut stage, 0),
            _ => stage.log_in(Dialect::Standard, "heart-beat:1000,0\n"),
        };
        stage.take(id);
        for _ in 0..20 {
            // Other connections use up the turn.
            stage.rig.engine.note_ready(id.slot, true, false);
            stage.rig.advance(SILENCE_MS);
            skip_receive(&mut stage);
            assert_eq!(stage.take(id), b"", "{dialect}");
        }
        // Nothing was there after all.
        stage.advance(SILENCE_MS);
        match dialect {
            "stream" => assert_eq!(stage.rig.engine.len(), 0),
            _ => assert_eq!(stage.take_frames(id), [Frame::Ping]),
        }
    }
}

#[test]
fn a_login_that_waits_to_be_read_is_in_time_and_a_pause_is_not_the_clients() {
    let mut stage = Stage::new(Limits::default());
    let late = stage.accept();
    stage.socket(late).push_inbound(&envelope(&connect("ana", 0)));
    stage.rig.engine.note_ready(late.slot, true, false);
    stage.rig.advance(5_000);
    skip_receive(&mut stage);
    stage.rig.advance(5_000);
    skip_receive(&mut stage);
    stage.advance(1);
    assert!(stage.take(late).windows(9).any(|bytes| bytes == b"CONNECTED"));

    let paused = stage.accept();
    stage.advance(1_000);
    stage.pause(60_000);
    stage.advance(5_000 - 1_000 - TOLERANCE_MS - 1);
    assert_eq!(stage.rig.engine.len(), 2);
    stage.advance(1);
    assert_eq!((stage.rig.engine.len(), stage.rig.engine.socket(paused).is_some()), (1, false));
}

#[test]
fn bytes_that_never_end_do_not_put_off_the_login() {
    let mut stage = Stage::new(Limits { read_bytes_per_turn_max: 16, ..Limits::default() });
    let id = stage.accept();
    stage.socket(id).push_inbound(b"CONNECT\n");
    stage.socket(id).push_inbound(&[b'a'; 8_000]);
    stage.rig.engine.note_ready(id.slot, true, false);
    for _ in 0..6 {
        // It is always readable, and read in each turn.
        stage.rig.advance(1_000);
        stage.rig.turn();
    }
    assert!(matches!(stage.rig.engine.close_reason(id), Some(CloseReason::TimedOut(_))));
}

#[test]
fn the_time_of_a_slow_consumer_stands_still_too() {
    let agent = Limits::default().outbound[Profile::Agent];
    let narrow = OutboundLimits { soft_bytes_max: 500, soft_ms_max: 5_000, ..agent };
    let mut stage = Stage::new(Limits { outbound: ByProfile::all(narrow), ..Limits::default() });
    let id = stage.accept();
    stage.send(id, &envelope(&connect("ana", 0)));
    stage.socket(id).set_window(0);
    let frame = format!("SEND\ndestination:/agent/ana\n\n{}", "x".repeat(1_000));
    stage.send(id, &envelope(frame.as_bytes()));
    stage.advance(1_000);
    stage.pause(30_000);
    stage.advance(5_000 - 1_000 - TOLERANCE_MS - 1);
    assert_eq!(stage.rig.engine.close_reason(id), None);
    stage.advance(1);
    assert!(stage.rig.engine.close_reason(id).is_some());
}

#[test]
fn the_brokers_own_heart_beats_follow_the_real_clock() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.accept();
    stage.send(id, standard_connect("1.2").replacen('\n', "\nheart-beat:0,4000\n", 1).as_bytes());
    stage.take(id);
    stage.advance(1_000);
    stage.pause(60_000);
    assert_eq!(stage.take(id), b"\n", "it is due at once");
    stage.advance(2_999);
    assert_eq!(stage.take(id), b"");
    stage.advance(1);
    assert_eq!(stage.take(id), b"\n");
}

#[test]
fn a_frame_that_does_not_go_on_is_refused_and_its_memory_is_free_again() {
    for (what, begin) in unfinished() {
        let mut stage = Stage::new(Limits::default());
        let id = begin(&mut stage);
        assert!(stage.rig.engine.inbound_bytes() > 0, "{what}");
        keep_quiet(&mut stage, id, 59_999);
        assert_eq!(stage.rig.engine.close_reason(id), None, "{what}");
        stage.take(id);
        stage.advance(1);
        let error = String::from_utf8_lossy(&stage.take(id)).into_owned();
        let is_classic_websocket = what == "classic, WebSocket";
        assert!(error.contains("TIMED_OUT") || is_classic_websocket, "{what}: {error}");
        assert!(error.contains("(frame_ms_max)") || is_classic_websocket, "{what}: {error}");
        assert!(error.contains("retry:now") || is_classic_websocket, "{what}: {error}");
        assert_eq!(stage.reason, Some(CloseReason::TimedOut("frame_ms_max")), "{what}");
        assert_eq!(stage.rig.engine.counters().timeouts, 1, "{what}");
        stage.advance(10_000);
        assert_eq!((stage.rig.engine.len(), stage.rig.engine.inbound_bytes()), (0, 0), "{what}");
    }
}

#[test]
fn a_pause_is_not_held_against_a_frame() {
    for (what, begin) in unfinished() {
        let mut stage = Stage::new(Limits { websocket_ping_ms: 0, ..Limits::default() });
        let id = begin(&mut stage);
        stage.advance(1_000);
        stage.pause(1_000_000);
        stage.advance(58_999 - TOLERANCE_MS);
        assert_eq!(stage.rig.engine.close_reason(id), None, "{what}");
        stage.advance(1);
        assert!(stage.rig.engine.close_reason(id).is_some(), "{what}");
    }
}

#[test]
fn a_large_frame_may_take_long_on_a_slow_link() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.accept();
    stage.send(id, standard_connect("1.2").as_bytes());
    stage.take(id);
    let mut frame = b"SEND\ndestination:/agent/nobody\nreceipt:1\n\n".to_vec();
    frame.resize(4 << 20, b'x');
    frame.push(0);
    // 32 kbit/s, with a gap in each minute.
    for bytes in frame.chunks(4_000 * 30) {
        stage.advance(30_000);
        stage.send(id, bytes);
        assert_eq!(stage.rig.engine.close_reason(id), None);
    }
    assert!(stage.take(id).starts_with(b"RECEIPT\n"));
}

#[test]
fn bytes_that_do_not_belong_to_a_message_do_not_keep_it() {
    let mut stage = Stage::new(Limits::default());
    let id = stage.log_in(Dialect::Standard, "");
    stage.send(id, &masked(0x01, &[b'x'; 1_000]));
    for second in 1..60 {
        stage.advance(1_000);
        assert_eq!(stage.rig.engine.close_reason(id), None, "{second}");
        // Pings and empty fragments, more than enough of them.
        stage.send(id, &[masked(0x89, &[b'p'; 125]), masked(0x00, b"")].concat().repeat(50));
    }
    stage.advance(1_000);
    assert_eq!(stage.reason, Some(CloseReason::TimedOut("frame_ms_max")));
}

#[test]
fn frames_that_are_all_torn_have_a_time_each() {
    for (what, bytes) in [
        ("classic", envelope(b"SEND\ndestination:/agent/nobody\n\nx")),
        ("standard", b"SEND\ndestination:/agent/nobody\n\nx\0".to_vec()),
    ] {
        let mut stage = Stage::new(Limits::default());
        let id = stage.accept();
        let login = match what {
            "classic" => envelope(&connect("ana", 0)),
            _ => standard_connect("1.2").into_bytes(),
        };
        stage.send(id, &login);
        stage.send(id, &bytes[..10]);
        for _ in 0..20 {
            stage.advance(50_000);
            // The end of one and the begin of the next in one read.
            stage.send(id, &[&bytes[10..], &bytes[..10]].concat());
        }
        assert_eq!(stage.rig.engine.close_reason(id), None, "{what}");
        // Between frames there is time.
        stage.send(id, &bytes[10..]);
        stage.advance(1_000_000);
        assert_eq!(stage.rig.engine.close_reason(id), None, "{what}");
        assert_eq!(stage.rig.engine.inbound_bytes(), 0);
    }
}

/// Has a client begin a frame.
type Begin = fn(&mut Stage) -> ConnectionId;

/// Clients that begin a frame, of every kind.
fn unfinished() -> [(&'static str, Begin); 5] {
    [
        ("classic", |stage| {
            let id = stage.accept();
            stage.send(id, &envelope(&connect("ana", 0)));
            stage.send(id, &envelope(&[b'x'; 100_000])[..90_000]);
            id
        }),
        ("standard", |stage| {
            let id = stage.accept();
            stage.send(id, standard_connect("1.2").as_bytes());
            stage.send(id, b"SEND\ndestination:/agent/ana\n\nand so");
            id
        }),
        ("classic, WebSocket", |stage| {
            let id = stage.log_in(Dialect::Classic, "");
            // What is sent meanwhile is a part of it, and no text.
            stage.send(id, &masked(0x02, &[b'x'; 60_000])[..50_000]);
            id
        }),
        ("standard, fragments", |stage| {
            let id = stage.log_in(Dialect::Standard, "");
            stage.send(id, &masked(0x01, b"SEND\n"));
            id
        }),
        ("standard, messages", |stage| {
            let id = stage.log_in(Dialect::Standard, "");
            stage.send(id, &masked(TEXT, b"SEND\n"));
            id
        }),
    ]
}

/// Lets a time pass in which the client only answers pings.
fn keep_quiet(stage: &mut Stage, id: ConnectionId, ms: u64) {
    let until_ms = stage.rig.now().ms() + ms;
    while stage.rig.now().ms() < until_ms {
        stage.advance((until_ms - stage.rig.now().ms()).min(10_000));
        if stage.take(id).contains(&0x89) {
            let pong = masked(0x8a, b"");
            stage.socket(id).push_inbound(&pong);
            stage.rig.engine.note_ready(id.slot, true, false);
        }
    }
}

/// A client that has agreed to beat each second.
fn beating(stage: &mut Stage, number: usize) -> ConnectionId {
    let id = stage.accept();
    let login = standard_connect("1.2").replacen('\n', "\nheart-beat:1000,0\n", 1);
    stage.send(id, login.replacen("login:ana", &format!("login:{number}"), 1).as_bytes());
    assert!(stage.take(id).starts_with(b"CONNECTED\n"));
    id
}

/// A turn in which no connection gets its turn to be read.
fn skip_receive(stage: &mut Stage) {
    let now = stage.rig.now();
    stage.rig.begin_turn(now);
    stage.rig.engine.flush(now);
    stage.rig.engine.settle(now);
    stage.rig.engine.flush(now);
}
