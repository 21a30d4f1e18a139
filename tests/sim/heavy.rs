//! Clients that need much in each visit: who needs little does not wait for them, however many they are.

use com_broker::internal::engine::ConnectionId;

use crate::wide::Hall;

/// Clients of which each needs a share of a turn for each of its messages.
const MANY: usize = 200;

/// A message to nobody with as many header lines that need a second look as there may be.
fn costly() -> String {
    let lines: String = (0..250).map(|number| format!("n\\c{number}:\\n\n")).collect();
    format!("SEND\ndestination:/agent/nobody\n{lines}\n\0")
}

fn come(hall: &mut Hall) -> Vec<ConnectionId> {
    (0..MANY).map(|number| hall.standard(&format!("many-{number}"))).collect()
}

/// Has clients behave for so long that they count as those that need little.
fn behave(hall: &mut Hall, clients: &[ConnectionId]) {
    for _ in 0..70 {
        clients.iter().for_each(|id| hall.say(*id, "SEND\ndestination:/agent/nobody\n\n\0"));
        hall.run();
    }
}

#[test]
fn who_needs_little_is_read_at_once_though_many_that_need_much_become_ready_before() {
    let mut hall = Hall::new();
    let many = come(&mut hall);
    let (ana, bob) = (hall.standard("ana"), hall.standard("bob"));
    behave(&mut hall, &[ana]);
    let costly = costly();
    for turn in 0..50 {
        many.iter().for_each(|id| hall.say(*id, &costly));
        hall.say(ana, &format!("SEND\ndestination:/agent/bob\n\nturn {turn}.\0"));
        hall.turn();
        let got = hall.take(bob);
        assert!(got.contains(&format!("turn {turn}.")), "turn {turn}: {got}");
    }
    assert!(hall.rig.engine.has_work(), "they would not fit into a turn");
    hall.run();
    for id in many {
        assert!(!hall.take(id).contains("ERROR"));
    }
}

#[test]
fn those_that_needed_little_and_send_much_at_once_are_not_waited_for_either() {
    let mut hall = Hall::new();
    let many = come(&mut hall);
    let (ana, bob) = (hall.standard("ana"), hall.standard("bob"));
    behave(&mut hall, &many);
    behave(&mut hall, &[ana]);
    let large = format!("SEND\ndestination:/agent/nobody\n\n{}\0", "x".repeat(60_000));
    many.iter().for_each(|id| hall.say(*id, &large));
    hall.say(ana, "SEND\ndestination:/agent/bob\n\nhello\0");
    let mut turns = 0;
    while !hall.take(bob).contains("hello") {
        hall.turn();
        turns += 1;
    }
    let mut all = turns;
    while hall.rig.engine.has_work() {
        hall.turn();
        all += 1;
    }
    assert!(turns * 4 < all, "{turns} of {all} turns");
}

#[test]
fn who_needed_much_once_needs_little_again_after_a_while() {
    let mut hall = Hall::new();
    let (ana, bob) = (hall.standard("ana"), hall.standard("bob"));
    let many = come(&mut hall);
    hall.say(ana, &costly());
    hall.run();
    let wait = |hall: &mut Hall| {
        many.iter().for_each(|id| hall.say(*id, &costly()));
        hall.say(ana, "SEND\ndestination:/agent/bob\n\nhello\0");
        let mut turns = 0;
        while !hall.take(bob).contains("hello") {
            hall.turn();
            turns += 1;
        }
        hall.run();
        turns
    };
    assert!(wait(&mut hall) > 5);
    behave(&mut hall, &[ana]);
    assert_eq!(wait(&mut hall), 1);
}

#[test]
fn who_sends_to_a_few_does_not_wait_for_those_that_need_much() {
    let mut hall = Hall::new();
    let many = come(&mut hall);
    let ana = hall.standard("ana");
    let few: Vec<_> = (0..10).map(|number| hall.standard(&format!("few-{number}"))).collect();
    for id in &few {
        hall.say(*id, "SUBSCRIBE\nid:1\ndestination:/topic/few\n\n\0");
    }
    hall.run();
    let send =
        |number| format!("SEND\ndestination:/topic/few\nreceipt:{number}\n\nturn {number}.\0");
    for number in 0..70 {
        hall.say(ana, &send(number));
        hall.run();
    }
    let costly = costly();
    for number in 100..130 {
        many.iter().for_each(|id| hall.say(*id, &costly));
        hall.say(ana, &send(number));
        hall.turn();
        for id in &few {
            let got = hall.take(*id);
            assert!(got.contains(&format!("turn {number}.")), "turn {number}: {got}");
        }
    }
    assert!(hall.rig.engine.has_work(), "they would not fit into a turn");
}
