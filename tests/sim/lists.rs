//! Requests that take long by themselves: a pattern against many clients, a login against many patterns, and long
//! lists. Their clients wait, and nobody else does; answers come in order.

use com_broker::internal::engine::ConnectionId;

use crate::sessions::connect;
use crate::wide::Hall;

/// A pattern that is found out late not to match names of many `a`.
const SLOW: &str = "/agent/.*a.{200}b";

/// A login id for which it takes long.
fn long(end: &str) -> String {
    "a".repeat(600) + end
}

/// A login id for which a pattern takes less long, as many are matched.
fn shorter(number: u32) -> String {
    format!("{}-{number}x", "a".repeat(400))
}

/// A client of the classic dialect with a profile by its number.
fn classic(hall: &mut Hall, name: &str, profile: usize) -> ConnectionId {
    let id = hall.open(true);
    hall.say(id, &String::from_utf8(connect(name, profile)).unwrap());
    hall.run();
    assert!(hall.take(id).contains("CONNECTED"));
    id
}

fn subscribe(pattern: &str, transaction: &str) -> String {
    format!("SUBSCRIBE\ndestination-type:1\ndestination:{pattern}\ntransaction:{transaction}\n\n\0")
}

/// Turns until there is no more to do, in each of which two others talk. Returns their number.
fn run_beside(hall: &mut Hall, ana: ConnectionId, bob: ConnectionId) -> u32 {
    let mut turns = 0;
    loop {
        hall.say(ana, &format!("SEND\ndestination:/agent/bob\n\nturn {turns}.\0"));
        hall.turn();
        let got = hall.take(bob);
        assert!(got.contains(&format!("turn {turns}.")), "turn {turns}: {got}");
        turns += 1;
        if !hall.rig.engine.has_work() {
            return turns;
        }
    }
}

/// The transactions of the ACKs in what a client got.
fn acknowledged(text: &str) -> Vec<&str> {
    let values = text.split("\ntransaction:").skip(1);
    values.filter_map(|one| one.split('\n').next()).collect()
}

#[test]
fn a_login_waits_until_it_is_matched_and_nobody_else_does() {
    for is_classic in [true, false] {
        let mut hall = Hall::new();
        let (ana, bob) = (hall.standard("ana"), hall.standard("bob"));
        let (watcher, late) = (classic(&mut hall, "watcher", 1), classic(&mut hall, "late", 1));
        for number in 0..30 {
            hall.say(watcher, &subscribe(&format!("{SLOW}{number}"), "t"));
        }
        hall.say(watcher, &subscribe("/agent/a{9}.*x", "last"));
        hall.run();
        assert!(hall.take(watcher).contains("last"));

        let (name, newcomer) = (long("x"), hall.open(is_classic));
        let login = String::from_utf8(connect(&name, 0)).unwrap();
        let send = format!("SEND\ndestination:/agent/{name}\n\nmine\0");
        if is_classic {
            hall.say(newcomer, &login);
            hall.say(newcomer, &send);
        } else {
            let login = login.replacen('\n', "\naccept-version:1.2\nhost:x\ninbox:true\n", 1);
            hall.say(newcomer, &(login + "\0" + &send));
        }
        (0..3).for_each(|_| hall.turn());
        assert!(hall.rig.engine.has_work() && hall.peek(newcomer).is_empty(), "it waits");
        // Time passes, another pattern comes, and somebody writes to the newcomer.
        hall.rig.advance(10_000);
        hall.say(late, &subscribe("/agent/.*x", "late"));
        hall.say(ana, &format!("SEND\ndestination:/agent/{name}\n\ntoo early\0"));
        let turns = run_beside(&mut hall, ana, bob);
        assert!(turns > 10, "it took {turns} turns only");
        let got = hall.take(newcomer);
        assert_eq!(
            (got.matches("CONNECTED").count(), got.matches("mine").count()),
            (1, 1),
            "{got}"
        );
        assert!(!got.contains("early") && !got.contains("ERROR"), "{got}");
        for (id, who) in [(watcher, "the watcher"), (late, "the late one")] {
            assert_eq!(hall.take(id).matches("mine").count(), 1, "{who} gets a copy");
        }
    }
}

#[test]
fn a_login_that_waits_may_go_away() {
    let mut hall = Hall::new();
    let watcher = classic(&mut hall, "watcher", 1);
    (0..30).for_each(|number| hall.say(watcher, &subscribe(&format!("{SLOW}{number}"), "t")));
    hall.run();
    for is_reset in [true, false] {
        let newcomer = hall.open(true);
        hall.say(newcomer, &String::from_utf8(connect(&long("x"), 0)).unwrap());
        (0..3).for_each(|_| hall.turn());
        assert!(hall.rig.engine.has_work() && hall.peek(newcomer).is_empty(), "it waits");
        let socket = hall.rig.engine.socket_mut(newcomer).unwrap();
        if is_reset {
            socket.reset()
        } else {
            _ = socket.end_inbound()
        }
        hall.rig.engine.note_ready(newcomer.slot, true, true);
        hall.run();
        assert_eq!(hall.rig.engine.broker().sessions_len(), 1, "only the watcher is left");
    }
    classic(&mut hall, &long("x"), 0);
}

#[test]
fn subscribers_of_a_new_pattern_wait_until_all_clients_are_matched() {
    let mut hall = Hall::new();
    let (ana, bob) = (hall.standard("ana"), hall.standard("bob"));
    for number in 0..40 {
        classic(&mut hall, &shorter(number), 0);
    }
    let pattern = "/agent/(.*a.{150}b|a*-[0-9]*x)";
    let first = classic(&mut hall, "first", 1);
    let (gone, second) = (classic(&mut hall, "gone", 1), classic(&mut hall, "second", 1));
    hall.say(gone, &subscribe(pattern, "t0"));
    hall.say(first, &subscribe(pattern, "t1"));
    hall.say(first, "SEND\ndestination:/agent/first\ntransaction:t2\n\nhello\0");
    hall.turn();
    hall.say(second, &subscribe(pattern, "t3"));
    (0..2).for_each(|_| hall.turn());
    assert!(hall.rig.engine.has_work() && hall.peek(first).is_empty(), "it waits");
    // Who began it goes away, and somebody else comes.
    hall.say(gone, "DISCONNECT\n\n\0");
    hall.rig.engine.socket_mut(gone).unwrap().reset();
    hall.rig.engine.note_ready(gone.slot, true, true);
    let newcomer = hall.open(true);
    hall.say(newcomer, &String::from_utf8(connect(&shorter(99), 0)).unwrap());
    let turns = run_beside(&mut hall, ana, bob);
    assert!(turns > 10, "it took {turns} turns only");
    let answers = hall.take(first);
    assert_eq!(acknowledged(&answers), ["t1", "t2", "t2"], "{answers}");
    for answers in [answers, hall.take(second)] {
        assert!(answers.matches("]:[").count() / 2 >= 40, "{answers}");
    }
    hall.take(newcomer);
    for name in [7, 99].map(shorter) {
        hall.say(ana, &format!("SEND\ndestination:/agent/{name}\n\nto watch\0"));
        hall.run();
        for id in [first, second] {
            assert_eq!(hall.take(id).matches("to watch").count(), 1);
        }
    }
}

#[test]
fn a_service_gets_each_login_once_whatever_it_waits_for() {
    let mut hall = Hall::new();
    for number in 0..40 {
        classic(&mut hall, &shorter(number), 0);
    }
    let service = classic(&mut hall, "desk", 2);
    let pattern = "/agent/(.*a.{150}b|a*-[0-9]*x)";
    hall.say(
        service,
        &format!(
            "SUBSCRIBE\ndestination:STOMP-SERVER\ndestination-type:0\ndestination-id:{pattern}\n\
             snapshot:true\ntransaction:t\n\n\0"
        ),
    );
    (0..2).for_each(|_| hall.turn());
    assert!(hall.rig.engine.has_work() && hall.peek(service).is_empty(), "it waits");
    for number in 40..60 {
        let newcomer = hall.open(true);
        let name = shorter(number);
        hall.say(newcomer, &String::from_utf8(connect(&name, 0)).unwrap());
        hall.turn();
    }
    hall.run();
    let got = hall.take(service);
    assert!(got.starts_with('\0') || got.contains("ACK\n"), "{got}");
    assert!(got.find("transaction:t").unwrap() < got.find("MESSAGE").unwrap(), "the ACK is first");
    for number in 0..60 {
        let login = format!("\"login\":\"{}\"", shorter(number));
        assert_eq!(got.matches(&login).count(), 1, "the login of {number}");
    }
}

#[test]
fn long_lists_come_whole_and_in_order_while_others_are_served() {
    let mut hall = Hall::new();
    let (ana, bob) = (hall.standard("ana"), hall.standard("bob"));
    for number in 0..60 {
        classic(&mut hall, &format!("{}-{number}", "n".repeat(1500)), 0);
    }
    let watcher = classic(&mut hall, "watcher", 1);
    let topics = (0..200).map(|number| format!("/topic/{number}"));
    for topic in topics {
        hall.say(watcher, &format!("SUBSCRIBE\ndestination-type:0\ndestination:{topic}\n\n\0"));
    }
    hall.say(watcher, &subscribe("/agent/n.*", "t1"));
    hall.say(watcher, &subscribe("/agent/n.*", "t2"));
    hall.say(watcher, "UNSUBSCRIBE\ntransaction:t3\n\n\0");
    hall.say(watcher, "SEND\ndestination:/agent/watcher\ntransaction:t4\n\nhello\0");
    let turns = run_beside(&mut hall, ana, bob);
    assert!(turns > 5, "it took {turns} turns only");
    let got = hall.take(watcher);
    assert_eq!(acknowledged(&got), ["t1", "t2", "t3", "t4", "t4"]);
    for (number, list) in got.split("transaction:t").skip(1).take(3).enumerate() {
        assert_eq!(list.matches("]:[/agent/n").count(), 60, "{number}");
        let ended = list.matches("Subscription: []:[]:[/topic/").count();
        assert_eq!(ended, if number == 2 { 200 } else { 0 });
    }
    assert_eq!(hall.rig.engine.broker().subscriptions_len(), 0);
}

#[test]
fn lists_that_nobody_reads_wait_and_come_once_they_are_read() {
    let mut hall = Hall::new();
    for number in 0..100 {
        classic(&mut hall, &format!("{}-{number}", "n".repeat(1900)), 0);
    }
    let watcher = classic(&mut hall, "watcher", 1);
    hall.rig.engine.socket_mut(watcher).unwrap().set_window(0);
    let transactions: Vec<_> = (0..40).map(|number| format!("t{number}")).collect();
    for transaction in &transactions {
        hall.say(watcher, &subscribe("/agent/.*", transaction));
    }
    let mut most = 0;
    while hall.rig.engine.has_work() {
        hall.turn();
        let peers = &hall.rig.engine.broker().peers;
        most = most.max(peers.arena.resident_bytes() + hall.rig.engine.inbound_bytes());
    }
    assert_eq!(hall.rig.engine.close_reason(watcher), None);
    let (soft, list) = (2 << 20, 100 * 4_000);
    assert!(most > list && most < soft / 2 + 3 * list, "{most} bytes");
    hall.rig.engine.socket_mut(watcher).unwrap().set_window(usize::MAX);
    hall.rig.engine.note_ready(watcher.slot, false, true);
    hall.run();
    assert_eq!(acknowledged(&hall.take(watcher)), transactions);
}
