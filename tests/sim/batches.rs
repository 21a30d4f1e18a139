//! How much is written at once: a call to the kernel costs as much as some fifty small messages, so that what publishers
//! send without a pause goes out in few calls, though turns have bounds. Deterministic, where `scripts/compare-peers`
//! measures what it makes of them.

use com_broker::internal::engine::ConnectionId;
use com_broker::limits::Limits;

use crate::wide::Hall;

/// What a publisher sends in one go: as much as one read takes.
const SENT_BYTES: usize = 64 << 10;

fn subscriber(hall: &mut Hall, name: &str, topics: impl Iterator<Item = u32>) -> ConnectionId {
    let id = hall.standard(name);
    for topic in topics {
        hall.say(id, &format!("SUBSCRIBE\nid:{topic}\ndestination:/topic/{topic}\n\n\0"));
        hall.run();
    }
    id
}

/// As many small messages as a read takes; `topic_of` tells where each goes.
fn messages(topic_of: impl Fn(usize) -> u32) -> Vec<String> {
    let body = "x".repeat(64);
    let all = (0..).map(|at| format!("SEND\ndestination:/topic/{}\n\n{body}\0", topic_of(at)));
    let mut bytes = 0;
    all.take_while(|one| {
        bytes += one.len();
        bytes <= SENT_BYTES
    })
    .collect()
}

/// Writes to clients, and the messages in them; and the largest write.
fn written(hall: &mut Hall, to: &[ConnectionId]) -> (usize, usize, usize) {
    let (mut writes, mut copies, mut largest) = (0, 0, 0);
    for id in to {
        let (text, each) = hall.take_writes(*id);
        copies += text.matches("MESSAGE\n").count();
        writes += each.len();
        largest = largest.max(each.into_iter().max().unwrap_or(0));
    }
    (writes, copies, largest)
}

#[test]
fn messages_to_a_few_go_out_in_the_turn_in_which_they_came_and_in_few_writes() {
    let mut hall = Hall::with(Limits::default());
    let names = (0..10).map(|at| format!("receiver {at}"));
    let receivers: Vec<_> = names.map(|name| subscriber(&mut hall, &name, 0..1)).collect();
    let publisher = hall.standard("publisher");
    written(&mut hall, &receivers);
    let sent = messages(|_| 0);
    hall.say_all(publisher, &sent);
    let (mut all_writes, mut all_copies) = (0, 0);
    loop {
        hall.turn();
        let (writes, copies, _) = written(&mut hall, &receivers);
        // Nobody is left behind the others, to be written to in the next turn.
        assert!(writes <= receivers.len() && copies % receivers.len() == 0, "{writes}, {copies}");
        (all_writes, all_copies) = (all_writes + writes, all_copies + copies);
        if !hall.rig.engine.has_work() {
            break;
        }
    }
    assert_eq!(all_copies, sent.len() * receivers.len());
    assert!(all_copies / all_writes > 150, "{all_copies} messages in {all_writes} writes");
}

#[test]
fn messages_of_pairs_go_out_in_few_writes() {
    let mut hall = Hall::with(Limits::default());
    let pair = |at: u32| {
        let receiver = subscriber(&mut hall, &format!("receiver {at}"), at..at + 1);
        (hall.standard(&format!("publisher {at}")), receiver)
    };
    let pairs: Vec<_> = (0..8).map(pair).collect();
    let receivers: Vec<_> = pairs.iter().map(|(_, receiver)| *receiver).collect();
    written(&mut hall, &receivers);
    for (at, (publisher, _)) in pairs.iter().enumerate() {
        hall.say_all(*publisher, &messages(|_| at as u32));
    }
    hall.run();
    let (writes, copies, _) = written(&mut hall, &receivers);
    assert_eq!(copies, messages(|_| 0).len() * pairs.len());
    assert!(copies / writes > 150, "{copies} messages in {writes} writes");
}

#[test]
fn messages_to_a_hundred_in_turn_share_writes() {
    let mut hall = Hall::with(Limits::default());
    let name = |at: u32| format!("receiver {at}");
    let one = |at| subscriber(&mut hall, &name(at), at..at + 1);
    let receivers: Vec<_> = (0..100).map(one).collect();
    let publisher = hall.standard("publisher");
    written(&mut hall, &receivers);
    let sent = messages(|at| at as u32 * 37 % 100);
    hall.say_all(publisher, &sent);
    hall.run();
    let (writes, copies, _) = written(&mut hall, &receivers);
    assert_eq!(copies, sent.len());
    assert!(copies > 3 * writes, "{copies} messages in {writes} writes");
}

/// The kernel is busy for milliseconds with what one call gives it.
#[test]
fn one_write_is_never_very_long() {
    let mut hall = Hall::with(Limits::default());
    let receivers = [subscriber(&mut hall, "receiver", 0..1)];
    let publisher = hall.standard("publisher");
    written(&mut hall, &receivers);
    let body = "x".repeat(2 << 20);
    hall.say(publisher, &format!("SEND\ndestination:/topic/0\n\n{body}\0"));
    hall.say(
        publisher,
        &"SEND\ndestination:/topic/0\n\n{}\0".replace("{}", &body[..40_000]).repeat(20),
    );
    hall.run();
    let (_, copies, largest) = written(&mut hall, &receivers);
    assert_eq!(copies, 21);
    assert!((100_000..=320 << 10).contains(&largest), "a write of {largest} bytes");
}
