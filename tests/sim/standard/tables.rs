//! Tables that all sessions share: the shares of sessions, and who pays when a table is full.

use com_broker::ByProfile;
use com_broker::internal::broker::Profile::{self, Agent, Service, SuperAgent};
use com_broker::limits::Limits;

use super::stage::{Frame, Stage, Who};
use crate::random::Random;

/// Limits with tables of twelve, of whose patterns a session may have six.
fn limits() -> Limits {
    Limits {
        wildcards_max: 12,
        wildcards_per_session_max: ByProfile::all(6),
        patterns_max: 12,
        patterns_per_session_max: ByProfile::all(6),
        ..Limits::default()
    }
}

/// A SUBSCRIBE that takes one more of a table.
fn frame(table: &str, id: &str, number: usize) -> String {
    let (name, more) = match table {
        "wildcards_max" => (format!("/topic/{number}/>"), ""),
        "patterns_max" => (format!("/agent/{number}.*"), "destination-type:1\n"),
        "subscriptions_max" => ("/topic/same".to_owned(), ""),
        "destinations_bytes_max" => (format!("/topic/{number}{}", "x".repeat(1_000)), ""),
        "destinations_max" if number.is_multiple_of(2) => (format!("/queue/{number}"), ""),
        "destinations_max" => (format!("/topic/{number}"), ""),
        _ => panic!("{table}"),
    };
    format!("SUBSCRIBE\nid:{id}\ndestination:{name}\n{more}\n")
}

fn take(stage: &mut Stage, who: Who, table: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        stage.ask(who, &frame(table, &number.to_string(), number));
    }
}

/// Checks that an ERROR names a limit and says `retry:later`.
fn assert_later(error: &Frame, table: &str) {
    let found = (error.command.as_str(), error.get("error-code"), error.get("retry"));
    assert_eq!(found, ("ERROR", Some("LIMIT_EXCEEDED"), Some("later")), "{error:?}");
    assert!(error.get("message").unwrap().contains(table), "{error:?}");
}

/// Each table with limits under which a dozen uses it up.
fn tables() -> [(&'static str, Limits); 5] {
    let names = Limits { destinations_bytes_max: 14_900, ..limits() };
    [
        ("wildcards_max", limits()),
        ("patterns_max", limits()),
        ("subscriptions_max", Limits { subscriptions_max: 12, ..limits() }),
        ("destinations_max", Limits { destinations_max: 12, ..limits() }),
        ("destinations_bytes_max", names),
    ]
}

#[test]
fn the_largest_pays_for_one_that_asks_for_little() {
    for (table, limits) in tables() {
        let mut stage = Stage::new(limits);
        let join = |stage: &mut Stage, login| stage.join(login, SuperAgent);
        let (ana, bob, eve) =
            (join(&mut stage, "ana"), join(&mut stage, "bob"), join(&mut stage, "eve"));
        take(&mut stage, ana, table, 0..6);
        take(&mut stage, bob, table, 10..15);
        take(&mut stage, eve, table, 20..21);
        let dan = join(&mut stage, "dan");
        take(&mut stage, dan, table, 30..32);
        assert_later(&stage.next(ana), table);
        for who in [bob, eve, dan] {
            assert_eq!(stage.heard(who), [], "{table}: nobody else is told anything");
        }
        take(&mut stage, eve, table, 22..23);
        stage.rig.engine.check_invariants();
    }
}

#[test]
fn nobody_pays_who_holds_less_than_twice_as_much() {
    for (table, limits) in tables() {
        let mut stage = Stage::new(limits);
        let all: Vec<_> = ["ana", "bob", "eve", "dan"]
            .map(|login| stage.join(login, SuperAgent))
            .into_iter()
            .collect();
        for (index, who) in all.iter().enumerate() {
            take(&mut stage, *who, table, 10 * index..10 * index + 3);
        }
        stage.say(all[3], &frame(table, "more", 99));
        assert_later(&stage.next(all[3]), table);
        for who in &all[..3] {
            assert_eq!(stage.heard(*who), [], "{table}");
        }
        // It leaves, and others find room.
        take(&mut stage, all[0], table, 50..52);
        stage.rig.engine.check_invariants();
    }
}

#[test]
fn a_classic_client_that_is_refused_for_now_stays_and_may_ask_again() {
    for (table, limits) in tables() {
        let mut stage = Stage::new(limits);
        let join = |stage: &mut Stage, login| stage.join(login, SuperAgent);
        let holders = ["ana", "bob", "eve"].map(|login| join(&mut stage, login));
        for (index, who) in holders.iter().enumerate() {
            take(&mut stage, *who, table, 10 * index..10 * index + 3);
        }
        let dan = stage.join_classic("dan", SuperAgent);
        let classic = |number| frame(table, "none", number);
        let kind = if table == "patterns_max" { "" } else { "destination-type:0\n" };
        let ask = |stage: &mut Stage, number: usize| {
            // Of each kind that a classic client may subscribe to.
            let number = 2 * number + 1;
            let number = if table == "subscriptions_max" { 1_000 + number } else { number };
            let text = match table {
                "subscriptions_max" => format!("SUBSCRIBE\ndestination:/topic/{number}\n\n"),
                _ => classic(number).replacen("id:none\n", "", 1),
            };
            let text = text.replacen("\n\n", &format!("\n{kind}transaction:t\n\n"), 1);
            stage.say_classic(dan, &text);
            let ack = stage.next(dan);
            assert_eq!(ack.command, "ACK", "{table}: {ack:?}");
            ack.get("error-code").map(str::to_owned)
        };
        assert_eq!(
            (0..3).map(|n| ask(&mut stage, 100 + n)).collect::<Vec<_>>(),
            [None, None, None]
        );
        assert_eq!(ask(&mut stage, 200).as_deref(), Some("LIMIT_EXCEEDED"), "{table}");
        stage.lose(holders[0]);
        assert_eq!(ask(&mut stage, 200), None, "{table}");
        stage.rig.engine.check_invariants();
    }
}

#[test]
fn a_login_needs_no_place_and_a_queue_only_while_it_has_consumers() {
    for table in ["destinations_max", "destinations_bytes_max"] {
        let limits = match table {
            "destinations_max" => Limits { destinations_max: 4, ..limits() },
            _ => Limits { destinations_bytes_max: 4_970, ..limits() },
        };
        let mut stage = Stage::new(limits);
        // They hold no more than their part.
        let holders = ["ana", "bob", "cat", "fay"].map(|login| stage.join(login, SuperAgent));
        for (index, who) in holders.iter().enumerate() {
            take(&mut stage, *who, table, index..index + 1);
        }
        let login = "e".repeat(1_000);
        let eve = stage.join(&login, Agent);
        for number in 0..10 {
            stage.send(eve, &format!("/queue/{number}/{}", "x".repeat(500)), "", "job");
        }
        assert_eq!(stage.heard(eve), [], "its messages pay for the queues");
        stage.rig.engine.check_invariants();
        let dan = stage.join("dan", SuperAgent);
        stage.say(dan, &format!("SUBSCRIBE\nid:0\ndestination:/queue/0/{}\n\n", "x".repeat(500)));
        assert_later(&stage.next(dan), table);
        let dan = stage.join("dan", SuperAgent);
        stage.say(dan, &format!("SUBSCRIBE\nid:0\ndestination:/agent/{login}\n\n"));
        assert_later(&stage.next(dan), table);
        for who in holders {
            assert_eq!(stage.heard(who), [], "{table}: nobody else is told anything");
        }
        stage.rig.engine.check_invariants();
    }
}

#[test]
fn a_topic_that_comes_into_being_finds_a_place_as_well() {
    let mut stage = Stage::new(Limits { destinations_max: 8, ..limits() });
    let ana = stage.join("ana", SuperAgent);
    take(&mut stage, ana, "destinations_max", 0..8);
    let bob = stage.join("bob", Agent);
    stage.send(bob, "/topic/a", "", "news");
    assert_later(&stage.next(ana), "destinations_max");
    stage.rig.engine.check_invariants();
}

#[test]
fn those_who_hold_the_same_pay_together() {
    let mut stage = Stage::new(limits());
    let all = ["ana", "bob", "eve", "dan"].map(|login| stage.join(login, Agent));
    for (index, who) in all.iter().enumerate() {
        let first = 10 * (index / 2);
        take(&mut stage, *who, "wildcards_max", first..first + 6);
    }
    let gil = stage.join("gil", Agent);
    take(&mut stage, gil, "wildcards_max", 50..51);
    let cut: Vec<_> = all.map(|who| !stage.heard(who).is_empty()).into_iter().collect();
    assert!(cut == [true, true, false, false] || cut == [false, false, true, true], "{cut:?}");
    stage.rig.engine.check_invariants();
}

/// Whatever others do: who is cut held more than its part, and twice as much as the one that asked.
#[test]
fn a_client_with_its_equal_part_is_never_cut() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut stage = Stage::new(Limits { wildcards_max: 40, ..Limits::default() });
        let mut held: Vec<(Who, Vec<usize>)> = Vec::new();
        for step in 0..250 {
            if held.len() < 3 || random.happens(100) {
                held.push((stage.join(&format!("c{step}"), Agent), Vec::new()));
                continue;
            }
            let index = random.below(held.len() as u64) as usize;
            // Some take what others hold.
            let number = if random.happens(300) { random.below(60) as usize } else { 100 + step };
            let (asker, own) = &held[index];
            if own.contains(&number) {
                continue;
            }
            let (asker, after) = (*asker, own.len() + 1);
            stage.say(asker, &frame("wildcards_max", &number.to_string(), number));
            stage.rig.engine.check_invariants();
            held[index].1.push(number);
            let sessions = held.len();
            held.retain(|(who, own)| {
                let told = stage.heard(*who);
                if let Some(error) = told.first() {
                    assert_later(error, "wildcards_max");
                    assert!(
                        *who == asker || own.len() * sessions > 40 && own.len() >= 2 * after,
                        "seed {seed}: {} of 40 held by one of {sessions}",
                        own.len()
                    );
                }
                told.is_empty()
            });
        }
    }
}

#[test]
fn the_names_that_a_session_keeps_alive_are_a_share_of_its_own() {
    let share = ByProfile::new([4_000, 4_000, 8_000, 8_000]);
    let mut stage = Stage::new(Limits { destination_share_bytes_max: share, ..limits() });
    let name = |number: usize| format!("/topic/{number}{}", "x".repeat(1_000));
    for (profile, count) in [(Agent, 3), (Service, 6)] {
        let who = stage.join("ana", profile);
        let other = stage.join("bob", Service);
        for number in 0..count {
            stage.subscribe(other, &number.to_string(), &name(number), "");
            stage.subscribe(who, &number.to_string(), &name(number), "");
            // The same again takes no more.
            stage.subscribe(who, &format!("again-{number}"), &name(number), "");
        }
        stage.ask(who, "UNSUBSCRIBE\nid:0\n\n");
        stage.ask(who, "UNSUBSCRIBE\nid:again-0\n\n");
        stage.subscribe(who, "other", &name(77), "");
        stage.say(who, &format!("SUBSCRIBE\nid:more\ndestination:{}\n\n", name(99)));
        let error = stage.next(who);
        assert!(error.get("message").unwrap().contains("destination_share_bytes_max"), "{error:?}");
        assert_eq!(error.get("retry"), Some("never"), "it is its own consumption");
        stage.lose(other);
    }
}

/// A super agent keeps the addresses of agents that are gone.
#[test]
fn addresses_that_are_watched_by_name_count() {
    let share = ByProfile::all(4_000);
    let mut stage = Stage::new(Limits { destination_share_bytes_max: share, ..limits() });
    let boss = stage.join("boss", SuperAgent);
    for number in 0..4 {
        let login = format!("{number}{}", "x".repeat(1_000));
        let agent = stage.join(&login, Agent);
        let frame = format!("SUBSCRIBE\nid:{number}\ndestination:/agent/{login}\n\n");
        if number == 3 {
            stage.say(boss, &frame);
        } else {
            stage.ask(boss, &frame);
        }
        stage.lose(agent);
    }
    let error = stage.next(boss);
    assert!(error.get("message").unwrap().contains("destination_share_bytes_max"), "{error:?}");
}

#[test]
fn a_takeover_keeps_what_a_session_holds() {
    let resume = "accept-version:1.2\nresume:true\n";
    for (more, is_kept) in [(resume, true), ("accept-version:1.2\n", false)] {
        let mut stage = Stage::new(limits());
        let ana = stage.join("ana", Agent);
        take(&mut stage, ana, "wildcards_max", 0..6);
        let newer = stage.join_with("ana", Agent, more);
        stage.rig.engine.check_invariants();
        stage.say(newer, &frame("wildcards_max", "more", 50));
        let told = stage.heard(newer);
        assert_eq!(!told.is_empty(), is_kept, "{told:?}");
        if is_kept {
            assert!(told[0].get("message").unwrap().contains("wildcards_per_session_max"));
        }
        stage.rig.engine.check_invariants();
    }
    // In the classic dialect it keeps what it can.
    let mut stage = Stage::new(limits());
    let ana = stage.join("ana", Agent);
    take(&mut stage, ana, "wildcards_max", 0..6);
    let newer = stage.join_classic("ana", Agent);
    let bob = stage.join("bob", Agent);
    take(&mut stage, bob, "wildcards_max", 10..16);
    let eve = stage.join("eve", Agent);
    take(&mut stage, eve, "wildcards_max", 20..21);
    let cut = [newer, bob].map(|who| stage.heard(who).len());
    assert_eq!(cut.iter().sum::<usize>(), 1, "one of them paid");
    stage.rig.engine.check_invariants();
}

#[test]
fn each_share_may_be_another_for_each_profile() {
    let per_session = ByProfile::new([1, 2, 3, 3]);
    for limit in ["subscriptions_per_session_max", "wildcards_per_session_max"] {
        let limits = match limit {
            "subscriptions_per_session_max" => {
                Limits { subscriptions_per_session_max: per_session, ..Limits::default() }
            }
            _ => Limits { wildcards_per_session_max: per_session, ..Limits::default() },
        };
        let mut stage = Stage::new(limits);
        for (profile, max) in [(Agent, 1), (SuperAgent, 2), (Service, 3)] {
            let who = stage.join(&format!("{profile:?}"), profile);
            take(&mut stage, who, "wildcards_max", 0..max);
            stage.say(who, &frame("wildcards_max", "more", 50));
            let error = stage.next(who);
            let sentence = error.get("message").unwrap();
            assert!(sentence.contains(limit) && sentence.contains(&max.to_string()), "{error:?}");
        }
    }
    let limits = Limits {
        transaction_bytes_max: ByProfile::new([3_000, 20_000, 20_000, 20_000]),
        ..Limits::default()
    };
    let mut stage = Stage::new(limits);
    for (profile, is_refused) in [(Agent, true), (Profile::Admin, false)] {
        let who = stage.join(&format!("{profile:?}"), profile);
        let body = "x".repeat(10_000);
        stage.ask(who, "BEGIN\ntransaction:1\n\n");
        stage.say(who, &format!("SEND\ndestination:/topic/a\ntransaction:1\n\n{body}"));
        assert_eq!(!stage.heard(who).is_empty(), is_refused, "{profile:?}");
    }
}
