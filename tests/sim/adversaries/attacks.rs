//! The attacks.

use com_broker::internal::broker::Profile::{self, Agent, Service, SuperAgent};

use super::gang::{Attack, Gang};
use super::town::{Kind, Town, Who};
use crate::client::{Carrier, Envelope};
use crate::sessions::masked;

/// All attacks.
pub(super) static ATTACKS: [Attack; 62] = [
    Attack { name: "acks-listing", act: acks_listing },
    Attack { name: "snapshots", act: snapshots },
    Attack { name: "topics-wildcards", act: topics_wildcards },
    Attack { name: "wildcards-leaving", act: wildcards_leaving },
    Attack { name: "queued-headers", act: queued_headers },
    Attack { name: "unacknowledged", act: unacknowledged },
    Attack { name: "topic-names", act: topic_names },
    Attack { name: "fan-unread", act: fan_unread },
    Attack { name: "unread", act: unread },
    Attack { name: "counted-characters", act: counted_characters },
    Attack { name: "queues-waiting", act: queues_waiting },
    Attack { name: "patterns-logins", act: patterns_logins },
    Attack { name: "wildcards-taken", act: wildcards_taken },
    Attack { name: "patterns-taken", act: patterns_taken },
    Attack { name: "queues-filled", act: queues_filled },
    Attack { name: "frames-unfinished", act: frames_unfinished },
    Attack { name: "transactions", act: transactions },
    Attack { name: "transactions-filled", act: transactions_filled },
    Attack { name: "commit-formats", act: commit_formats },
    Attack { name: "late-acks", act: late_acks },
    Attack { name: "fan-out", act: fan_out },
    Attack { name: "wide-fan", act: wide_fan },
    Attack { name: "login-storm", act: login_storm },
    Attack { name: "presence-storm", act: presence_storm },
    Attack { name: "presence-crowd", act: presence_crowd },
    Attack { name: "cumulative-acks", act: cumulative_acks },
    Attack { name: "takeovers", act: takeovers },
    Attack { name: "takeovers-holding", act: takeovers_holding },
    Attack { name: "one-topic", act: one_topic },
    Attack { name: "wildcard-churn", act: wildcard_churn },
    Attack { name: "websocket-crumbs", act: websocket_crumbs },
    Attack { name: "ping-flood", act: ping_flood },
    Attack { name: "tls-rush", act: tls_rush },
    Attack { name: "dripping-headers", act: dripping_headers },
    Attack { name: "receipts-unread", act: receipts_unread },
    Attack { name: "nack-loop", act: nack_loop },
    Attack { name: "large-commit", act: large_commit },
    Attack { name: "deep-wildcards", act: deep_wildcards },
    Attack { name: "hostile-regexes", act: hostile_regexes },
    Attack { name: "expiring", act: expiring },
    Attack { name: "many-lines", act: many_lines },
    Attack { name: "large-bodies", act: large_bodies },
    Attack { name: "large-texts", act: large_texts },
    Attack { name: "large-texts-unchecked", act: large_texts_unchecked },
    Attack { name: "http-rush", act: http_rush },
    Attack { name: "wildcards-held-twice", act: wildcards_held_twice },
    Attack { name: "subscriptions-taken", act: subscriptions_taken },
    Attack { name: "destinations-taken", act: destinations_taken },
    Attack { name: "names-taken", act: names_taken },
    Attack { name: "addresses-watched", act: addresses_watched },
    Attack { name: "receivers-changing", act: receivers_changing },
    Attack { name: "hidden-names", act: hidden_names },
    Attack { name: "foreign-names", act: foreign_names },
    Attack { name: "commit-names", act: commit_names },
    Attack { name: "many-wildcards", act: many_wildcards },
    Attack { name: "quoted-names", act: quoted_names },
    Attack { name: "logins-lined", act: logins_lined },
    Attack { name: "lines-torn", act: lines_torn },
    Attack { name: "lines-torn-malformed", act: lines_torn_malformed },
    Attack { name: "lines-dripping", act: lines_dripping },
    Attack { name: "levels-refused", act: levels_refused },
    Attack { name: "heart-beats", act: heart_beats },
];

/// The attack of that name.
pub(super) fn named(name: &str) -> &'static Attack {
    ATTACKS.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no attack {name}"))
}

const CLASSIC: bool = false;
const STANDARD: bool = true;

fn nothing(_: &mut Gang, _: &mut Town, _: Who) {}

/// Agents with long login ids, all of which are listed in the ACK to each SUBSCRIBE of a super agent.
fn acks_listing(gang: &mut Gang, town: &mut Town) {
    for index in 1..40 {
        let login = gang.name(format!("{index}{}", "x".repeat(900)));
        gang.ready_as(town, index, &login, Agent, CLASSIC, nothing);
    }
    if let Some(who) = gang.ready(town, 0, SuperAgent, CLASSIC, nothing) {
        // The broker handles one of these frames in a turn, and is to have handled all when it has to be quiet.
        for _ in 0..3 {
            town.say(
                who,
                "SUBSCRIBE\ndestination:/agent/.*\ndestination-type:1\ntransaction:1\n\n",
            );
            town.say(who, "UNSUBSCRIBE\ntransaction:2\n\n");
        }
    }
}

/// A service asks for the presence of all clients, again and again.
fn snapshots(gang: &mut Gang, town: &mut Town) {
    for index in 1..40 {
        gang.ready(town, index, Agent, STANDARD, nothing);
    }
    if let Some(who) = gang.ready(town, 0, Service, STANDARD, nothing) {
        for _ in 0..10 {
            let id = gang.next();
            town.say(who, &format!("SUBSCRIBE\nid:{id}\ndestination:/broker/presence\ndestination-id:.*\nsnapshot:true\n\n"));
            town.say(who, &format!("UNSUBSCRIBE\nid:{id}\n\n"));
        }
    }
}

/// Topics are kept alive by subscriptions, and subscribed by wildcards many times.
fn topics_wildcards(gang: &mut Gang, town: &mut Town) {
    for index in 1..5 {
        gang.ready(town, index, Agent, STANDARD, |gang, town, who| {
            for number in 0..90 {
                let topic = gang.name(format!("{index}/{number}"));
                town.say(
                    who,
                    &format!("SUBSCRIBE\nid:{number}\ndestination:/topic/many/{topic}\n\n"),
                );
            }
        });
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        for _ in 0..20 {
            let id = gang.next();
            town.say(who, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/many/>\n\n"));
        }
        if gang.step.is_multiple_of(4) {
            town.reset(who);
        }
    }
}

/// Subscribers of the same wildcard over many topics leave together.
fn wildcards_leaving(gang: &mut Gang, town: &mut Town) {
    gang.ready(town, 0, Agent, STANDARD, |gang, town, who| {
        for number in 0..90 {
            let topic = gang.name(number);
            town.say(who, &format!("SUBSCRIBE\nid:{number}\ndestination:/topic/many/{topic}\n\n"));
        }
    });
    for index in 1..30 {
        gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            town.say(who, "SUBSCRIBE\nid:0\ndestination:/topic/many/>\n\n");
        });
    }
    if gang.step % 20 == 19 {
        (1..30).filter_map(|index| gang.member(index)).for_each(|who| town.reset(who));
    }
}

/// Messages with many header lines wait in queues.
fn queued_headers(gang: &mut Gang, town: &mut Town) {
    let lines = "A:\n".repeat(60);
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        for number in 0..40 {
            let queue = gang.name(number % 20);
            town.say(who, &format!("SEND\ndestination:/queue/{queue}\n{lines}\n"));
        }
    }
}

/// A consumer that never acknowledges.
fn unacknowledged(gang: &mut Gang, town: &mut Town) {
    let queue = gang.name("q");
    gang.ready(town, 0, SuperAgent, STANDARD, |_, town, who| {
        town.say(
            who,
            &format!("SUBSCRIBE\nid:0\ndestination:/queue/{queue}\nack:client-individual\n\n"),
        );
    });
    if let Some(who) = gang.ready(town, 1, Agent, STANDARD, nothing) {
        let body = "x".repeat(8_000);
        (0..2).for_each(|_| town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n{body}")));
    }
}

/// Ever new topics with long names.
fn topic_names(gang: &mut Gang, town: &mut Town) {
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        for _ in 0..20 {
            let number = gang.next();
            let topic = gang.name(format!("{number}{}", "x".repeat(1_000)));
            town.say(who, &format!("SEND\ndestination:/topic/{topic}\n\n"));
        }
    }
}

/// Clients with many subscriptions to one topic, that do not read.
fn fan_unread(gang: &mut Gang, town: &mut Town) {
    let topic = gang.name("t");
    for index in 1..20 {
        gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            for id in 0..90 {
                town.say(who, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{topic}\n\n"));
            }
        });
        if gang.step > 10
            && let Some(who) = gang.member(index)
        {
            town.stop_reading(who);
        }
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        let body = "x".repeat(500);
        (0..10).for_each(|_| town.say(who, &format!("SEND\ndestination:/topic/{topic}\n\n{body}")));
    }
}

/// Clients that leave unread what is below every bound of their own.
fn unread(gang: &mut Gang, town: &mut Town) {
    let body = "x".repeat(1_000);
    for index in 0..80 {
        let own = gang.name(index);
        let who = gang.ready(town, index, Agent, CLASSIC, nothing);
        let Some(who) = who else { continue };
        if gang.step > 10 {
            town.stop_reading(who);
            if gang.step < 40 {
                town.say(who, &format!("SEND\ndestination:/agent/{own}\n\n{body}"));
            }
        }
    }
}

/// Frames whose length counts characters, one byte at a time.
fn counted_characters(gang: &mut Gang, town: &mut Town) {
    for index in 0..8 {
        let Some(who) = gang.ready_on_tcp(town, index, CLASSIC) else { continue };
        if gang.step % 50 == 10 {
            let body = "é".repeat(8_000);
            let frame = format!("SEND\ndestination:/topic/x\n\n{body}");
            town.say_in(who, &frame.as_bytes()[..40], &Envelope::Literal(vec![0, 0, 1, 0, 0]));
            town.write(who, &frame.as_bytes()[40..12_000]);
        } else {
            town.write(who, b"x");
        }
    }
}

/// Queues with one unacknowledged and one waiting message each.
fn queues_waiting(gang: &mut Gang, town: &mut Town) {
    for index in 0..4 {
        gang.ready(town, index, SuperAgent, STANDARD, |gang, town, who| {
            for number in 0..90 {
                let queue = gang.name(format!("{index}/{number}"));
                town.say(
                    who,
                    &format!(
                        "SUBSCRIBE\nid:{number}\ndestination:/queue/{queue}\nack:client-individual\n\
                         prefetch-count:1\n\n"
                    ),
                );
                town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n1"));
                town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n2"));
            }
        });
    }
}

/// Patterns that take long to match, and logins with long ids.
fn patterns_logins(gang: &mut Gang, town: &mut Town) {
    gang.ready(town, 0, SuperAgent, STANDARD, |_, town, who| {
        for number in 0..50 {
            town.say(
                who,
                &format!(
                    "SUBSCRIBE\nid:{number}\ndestination:/agent/.*a.{{60}}|x{number}\n\
                     destination-type:1\n\n"
                ),
            );
        }
    });
    let number = gang.next();
    let index = 1 + number as usize % 8;
    if let Some(who) = gang.member(index) {
        town.reset(who);
    }
    let login = gang.name(format!("{number}{}", "a".repeat(900)));
    gang.ready_as(town, index, &login, Agent, STANDARD, nothing);
}

/// Sessions subscribe, each as much as it may, until nothing of a table is left, and come again when they are cut.
fn take(
    gang: &mut Gang,
    town: &mut Town,
    (sessions, each): (usize, usize),
    profile: Profile,
    frame: impl Fn(&Gang, usize, usize) -> String,
) {
    for index in 0..sessions {
        gang.ready(town, index, profile, STANDARD, |gang, town, who| {
            for number in 0..each {
                let frame = frame(gang, index, number);
                town.say(who, &frame);
            }
        });
    }
}

/// All wildcards that there may be.
fn wildcards_taken(gang: &mut Gang, town: &mut Town) {
    take(gang, town, (5, 15), Agent, |gang, index, number| {
        let topic = gang.name(format!("{index}/{number}"));
        format!("SUBSCRIBE\nid:{number}\ndestination:/topic/{topic}/>\n\n")
    });
}

/// The same, each of them by two sessions, so that the end of one frees nothing.
fn wildcards_held_twice(gang: &mut Gang, town: &mut Town) {
    take(gang, town, (10, 15), Agent, |gang, index, number| {
        let topic = gang.name(format!("{}/{number}", index / 2));
        format!("SUBSCRIBE\nid:{number}\ndestination:/topic/{topic}/>\n\n")
    });
}

/// All regular expressions that there may be.
fn patterns_taken(gang: &mut Gang, town: &mut Town) {
    take(gang, town, (5, 15), SuperAgent, |gang, index, number| {
        let name = gang.name(format!("{index}.*{number}"));
        format!("SUBSCRIBE\nid:{number}\ndestination:/agent/{name}\ndestination-type:1\n\n")
    });
}

/// All subscriptions that there may be.
fn subscriptions_taken(gang: &mut Gang, town: &mut Town) {
    take(gang, town, (32, 100), Agent, |gang, _, number| {
        let topic = gang.name(number);
        format!("SUBSCRIBE\nid:{number}\ndestination:/topic/{topic}\n\n")
    });
}

/// All destinations that there may be, of all kinds.
fn destinations_taken(gang: &mut Gang, town: &mut Town) {
    take(gang, town, (32, 99), SuperAgent, |gang, index, number| {
        let name = gang.name(format!("{index}/{number}"));
        let space = if number % 2 == 0 { "topic" } else { "queue" };
        format!("SUBSCRIBE\nid:{number}\ndestination:/{space}/{name}\n\n")
    });
}

/// All memory for the names of destinations.
fn names_taken(gang: &mut Gang, town: &mut Town) {
    take(gang, town, (11, 90), Agent, |gang, index, number| {
        let name = gang.name(format!("{index}/{number}{}", "x".repeat(2_200)));
        format!("SUBSCRIBE\nid:{number}\ndestination:/topic/{name}\n\n")
    });
}

/// Super agents watch agents by name who come and go, so that their addresses stay.
fn addresses_watched(gang: &mut Gang, town: &mut Town) {
    let watcher = gang.ready(town, 0, SuperAgent, STANDARD, nothing);
    for index in 1..6 {
        let number = gang.next();
        let login = gang.name(format!("{number}{}", "x".repeat(900)));
        if let Some(who) = gang.member(index) {
            town.reset(who);
        }
        gang.ready_as(town, index, &login, Agent, STANDARD, nothing);
        if let Some(who) = watcher {
            town.say(who, &format!("SUBSCRIBE\nid:{number}\ndestination:/agent/{login}\n\n"));
        }
    }
}

/// Messages that nobody takes fill all memory of queues.
fn queues_filled(gang: &mut Gang, town: &mut Town) {
    let (queue, body) = (gang.name("q"), "x".repeat(20_000));
    for index in 0..6 {
        if let Some(who) = gang.ready(town, index, Agent, STANDARD, nothing) {
            town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n{body}"));
        }
    }
}

/// Frames that are never finished.
fn frames_unfinished(gang: &mut Gang, town: &mut Town) {
    for index in 0..30 {
        gang.ready(town, index, Agent, STANDARD, |_, _, _| {});
        let Some(who) = gang.member(index) else { continue };
        if town.is_read(who) && town.client(who).is_ready() && gang.step % 30 == 5 {
            let body = "x".repeat(60_000);
            let head = format!("SEND\ndestination:/topic/x\ncontent-length:60001\n\n{body}");
            let whole = town.client(who).wrap(head.as_bytes(), &Envelope::Fragments(50_000));
            let whole = if gang.carrier().is_websocket() { whole } else { head.into_bytes() };
            town.write(who, &whole[..whole.len() - 10]);
        }
    }
}

/// Transactions that are never committed.
fn transactions(gang: &mut Gang, town: &mut Town) {
    let body = "x".repeat(1_000);
    for index in 0..10 {
        let who = gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            town.say(who, "BEGIN\ntransaction:t\n\n");
        });
        let Some(who) = who else { continue };
        (0..10).for_each(|_| {
            town.say(who, &format!("SEND\ndestination:/topic/x\ntransaction:t\n\n{body}"));
        });
    }
}

/// Transactions of many small frames fill what there is for all of them, and others want to begin one.
fn transactions_filled(gang: &mut Gang, town: &mut Town) {
    for index in 0..20 {
        let who = gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            town.say(who, "BEGIN\ntransaction:t\n\n");
        });
        let Some(who) = who else { continue };
        let frames = if index < 8 { 30 } else { 1 };
        for _ in 0..frames {
            town.say(who, "SEND\ndestination:/topic/x\ntransaction:t\n\n");
        }
        if index == 0 && gang.step.is_multiple_of(7) {
            town.say(who, "COMMIT\ntransaction:t\n\n");
            town.say(who, "BEGIN\ntransaction:t\n\n");
        }
    }
}

/// A transaction with a message of the largest body, to receivers each of whom gets it in other bytes.
fn commit_formats(gang: &mut Gang, town: &mut Town) {
    let (topic, body) = (gang.name("t"), "x".repeat(65_536));
    for index in 1..40 {
        let usual = gang.replace_carrier([Carrier::Tcp, Carrier::Ws][index % 2]);
        let is_standard = if index % 8 == 7 { CLASSIC } else { STANDARD };
        gang.ready(town, index, Agent, is_standard, |_, town, who| match is_standard {
            true => {
                town.say(who, &format!("SUBSCRIBE\nid:{index}\ndestination:/topic/{topic}\n\n"))
            }
            false => town.say(
                who,
                &format!(
                    "SUBSCRIBE\ndestination:/topic/{topic}\ndestination-type:0\ntransaction:1\n\n"
                ),
            ),
        });
        gang.replace_carrier(usual);
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        town.say(who, "BEGIN\ntransaction:t\n\n");
        town.say(who, &format!("SEND\ndestination:/topic/{topic}\ntransaction:t\n\n{body}"));
        town.say(who, "COMMIT\ntransaction:t\n\n");
    }
}

/// A consumer acknowledges the youngest messages first, in STOMP 1.0.
fn late_acks(gang: &mut Gang, town: &mut Town) {
    let queue = gang.name("q");
    let sender = gang.ready(town, 1, Agent, STANDARD, nothing);
    if gang.member(0).is_none_or(|who| town.is_gone(who)) {
        let kind = Kind { profile: SuperAgent, carrier: gang.carrier(), is_standard: true };
        let who = town.join(&gang.name(0), kind, "accept-version:1.0\n");
        gang.set_member(0, who);
        town.listen(who);
        town.say(
            who,
            &format!("SUBSCRIBE\nid:s\ndestination:/queue/{queue}\nack:client-individual\n\n"),
        );
    }
    if let Some(who) = sender {
        (0..20).for_each(|_| town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n.")));
    }
    let Some(who) = gang.member(0) else { return };
    if gang.step % 30 == 29 {
        for frame in town.heard(who).iter().rev() {
            if let Some(id) = header(frame, "message-id") {
                town.say(who, &format!("ACK\nsubscription:s\nmessage-id:{id}\n\n"));
            }
        }
    }
}

/// A topic with many subscribers who read.
fn fan(gang: &mut Gang, town: &mut Town, subscribers: usize, sends: u32) {
    let topic = gang.name("t");
    for index in 1..=subscribers {
        gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            town.say(who, &format!("SUBSCRIBE\nid:0\ndestination:/topic/{topic}\n\n"));
        });
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        (0..sends)
            .for_each(|_| town.say(who, &format!("SEND\ndestination:/topic/{topic}\n\nnews")));
    }
}

fn fan_out(gang: &mut Gang, town: &mut Town) {
    fan(gang, town, 150, 1);
}

fn wide_fan(gang: &mut Gang, town: &mut Town) {
    fan(gang, town, 60, 50);
}

/// Many send to a topic with many subscribers, and others end and begin subscriptions in between, so that each message
/// has receivers of its own; some senders leave at once.
fn receivers_changing(gang: &mut Gang, town: &mut Town) {
    let topic = gang.name("t");
    let subscribe = |id| format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{topic}\n\n");
    for index in 0..10 {
        let who = gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            (0..90).for_each(|id| town.say(who, &subscribe(id)));
        });
        if let Some(who) = who {
            let id = gang.step * 7 % 90;
            town.say(who, &format!("UNSUBSCRIBE\nid:{id}\n\n"));
            town.say(who, &subscribe(id));
        }
    }
    for index in 10..40 {
        let who = gang.ready(town, index, Agent, STANDARD, nothing);
        if let Some(who) = who.filter(|_| gang.step % 10 == index as u32 % 10) {
            town.say(who, &format!("SEND\ndestination:/topic/{topic}\n\nx"));
            if index.is_multiple_of(3) {
                town.leave(who);
            }
        }
    }
}

/// Clients log in, and their connections break, again and again.
fn login_storm(gang: &mut Gang, town: &mut Town) {
    for index in 0..30 {
        gang.ready(town, index, Agent, STANDARD, nothing);
    }
    if gang.step % 10 == 9 {
        (0..30).filter_map(|index| gang.member(index)).for_each(|who| town.reset(who));
    }
}

/// The same, while services watch presence.
fn presence_storm(gang: &mut Gang, town: &mut Town) {
    for index in 30..40 {
        gang.ready(town, index, Service, STANDARD, |gang, town, who| {
            for id in 0..5 {
                let name = gang.name(format!(".*{id}|.*"));
                town.say(
                    who,
                    &format!(
                        "SUBSCRIBE\nid:{id}\ndestination:/broker/presence\ndestination-id:{name}\n\n"
                    ),
                );
            }
        });
    }
    login_storm(gang, town);
}

/// Many subscriptions to presence, more than a share of a turn has time for, while clients come and go.
fn presence_crowd(gang: &mut Gang, town: &mut Town) {
    for index in 30..45 {
        gang.ready(town, index, Service, STANDARD, |_, town, who| {
            for id in 0..90 {
                town.say(who, &format!("SUBSCRIBE\nid:{id}\ndestination:/broker/presence\n\n"));
            }
        });
    }
    login_storm(gang, town);
}

/// Clients whose login ids are all quotation marks, which an event about them has to escape, leave together, while
/// presence is watched: first by so few that an event is sent at once, then by so many that a job does it.
fn quoted_names(gang: &mut Gang, town: &mut Town) {
    let watchers = if gang.step < 40 { 10 } else { 30 };
    for index in 0..watchers {
        gang.ready(town, index, Service, STANDARD, |_, town, who| {
            town.say(who, "SUBSCRIBE\nid:0\ndestination:/broker/presence\ndestination-id:.*\n\n");
        });
    }
    let leaving = 30..70;
    for index in leaving.clone() {
        let login = gang.name(format!("{index}{}", "\"".repeat(1_000)));
        gang.ready_as(town, index, &login, Agent, STANDARD, nothing);
    }
    if gang.step % 10 == 9 {
        leaving.filter_map(|index| gang.member(index)).for_each(|who| town.reset(who));
    }
}

/// Very many log in at once, while as many regular expressions as there may be tell who gets events about them, of a
/// client that has several subscriptions by each.
fn logins_lined(gang: &mut Gang, town: &mut Town) {
    for index in 0..4 {
        gang.ready(town, index, Service, STANDARD, |gang, town, who| {
            for id in 0..90 {
                let pattern = gang.name(format!(".*{index}{}|.*", id % 15));
                town.say(
                    who,
                    &format!(
                        "SUBSCRIBE\nid:{id}\ndestination:/broker/presence\n\
                         destination-id:{pattern}\n\n"
                    ),
                );
            }
        });
    }
    let crowd = 4..200;
    if gang.step % 20 == 5 {
        crowd.clone().filter_map(|index| gang.member(index)).for_each(|who| town.reset(who));
    }
    if gang.step % 20 == 6 {
        for index in crowd {
            gang.ready(town, index, Agent, STANDARD, nothing);
        }
    }
}

/// Consumers acknowledge all that they hold by one ACK, refuse all of it, or unsubscribe.
fn cumulative_acks(gang: &mut Gang, town: &mut Town) {
    for index in 0..3 {
        let queue = gang.name(format!("q{index}"));
        let subscribe = format!(
            "SUBSCRIBE\nid:0\ndestination:/queue/{queue}\nack:client\nprefetch-count:500\n\n"
        );
        let who = gang.ready(town, index, SuperAgent, STANDARD, |_, town, who| {
            town.listen(who);
            town.say(who, &subscribe);
        });
        let Some(who) = who else { continue };
        if gang.step % 12 < 10 {
            (0..50).for_each(|_| town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n.")));
            continue;
        }
        let heard = town.heard(who);
        let last = heard.iter().rev().find_map(|frame| header(frame, "ack"));
        match (last, gang.step / 12 % 3) {
            (Some(id), 0) => town.say(who, &format!("ACK\nid:{id}\n\n")),
            (Some(id), 1) => town.say(who, &format!("NACK\nid:{id}\n\n")),
            (Some(_), _) => {
                town.say(who, "UNSUBSCRIBE\nid:0\n\n");
                town.say(who, &subscribe);
            }
            (None, _) => {}
        }
    }
}

/// Sessions with many subscriptions are taken over by the same login id.
fn takeovers(gang: &mut Gang, town: &mut Town) {
    for index in 0..6 {
        let who = gang.ready(town, index, Agent, STANDARD, |gang, town, who| {
            for id in 0..90 {
                let topic = gang.name(id);
                town.say(who, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{topic}\n\n"));
            }
        });
        if who.is_some() && gang.step % 8 == 7 {
            let kind = Kind { profile: Agent, carrier: gang.carrier(), is_standard: true };
            let more = if index % 2 == 0 { "resume:true\n" } else { "" };
            let newer = town.join(&gang.name(index), kind, more);
            gang.set_member(index, newer);
        }
    }
}

/// Consumers that hold as many messages as they may are taken over.
fn takeovers_holding(gang: &mut Gang, town: &mut Town) {
    for index in 0..2 {
        let queue = gang.name(index);
        let who = gang.ready(town, index, SuperAgent, STANDARD, |_, town, who| {
            for id in 0..20 {
                town.say(
                    who,
                    &format!(
                        "SUBSCRIBE\nid:{id}\ndestination:/queue/{queue}\nack:client-individual\n\
                         prefetch-count:400\n\n"
                    ),
                );
            }
        });
        let Some(who) = who else { continue };
        if gang.step % 30 == 29 {
            let kind = Kind { profile: SuperAgent, carrier: gang.carrier(), is_standard: true };
            let newer = town.join(&gang.name(index), kind, "resume:true\n");
            gang.set_member(index, newer);
        } else {
            (0..60).for_each(|_| town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n.")));
        }
    }
}

/// Clients subscribe many times to the same topic and unsubscribe.
fn one_topic(gang: &mut Gang, town: &mut Town) {
    let topic = gang.name("t");
    for index in 0..10 {
        let Some(who) = gang.ready(town, index, Agent, STANDARD, nothing) else { continue };
        for id in 0..30 {
            town.say(who, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{topic}\n\n"));
        }
        for id in 0..30 {
            town.say(who, &format!("UNSUBSCRIBE\nid:{id}\n\n"));
        }
    }
}

/// A client subscribes to a wildcard of many topics and unsubscribes.
fn wildcard_churn(gang: &mut Gang, town: &mut Town) {
    for index in 1..5 {
        gang.ready(town, index, Agent, STANDARD, |gang, town, who| {
            for number in 0..90 {
                let topic = gang.name(format!("{index}/{number}"));
                town.say(
                    who,
                    &format!("SUBSCRIBE\nid:{number}\ndestination:/topic/many/{topic}\n\n"),
                );
            }
        });
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        for _ in 0..20 {
            town.say(who, "SUBSCRIBE\nid:w\ndestination:/topic/many/>\n\n");
            town.say(who, "UNSUBSCRIBE\nid:w\n\n");
        }
    }
}

/// Messages in fragments of one byte, with an empty one and a ping between any two.
fn websocket_crumbs(gang: &mut Gang, town: &mut Town) {
    for index in 0..6 {
        let Some(who) = gang.ready_over(town, index, Carrier::Ws, STANDARD, nothing) else {
            continue;
        };
        if !town.client(who).is_ready() {
            continue;
        }
        let text = b"SEND\ndestination:/topic/x\n\ncrumbs\0";
        let mut wire = masked(0x01, &text[..1]);
        for byte in &text[1..text.len() - 1] {
            wire.extend(masked(0x00, b""));
            wire.extend(masked(0x89, b""));
            wire.extend(masked(0x00, &[*byte]));
        }
        wire.extend(masked(0x80, &text[text.len() - 1..]));
        (0..5).for_each(|_| town.write(who, &wire));
    }
}

/// Valid frames, each of whose header lines is a message of its own.
fn lines_torn(gang: &mut Gang, town: &mut Town) {
    let lines = [&b"SEND\ndestination:/agent/nobody\n"[..]].into_iter();
    let lines = lines.chain(std::iter::repeat_n(&b"a:\n"[..], 200)).chain([&b"\n\0"[..]]);
    let wire: Vec<_> = lines.flat_map(|line| masked(0x82, line)).collect();
    over_websocket(gang, town, 4, &wire.repeat(5));
}

/// A malformed frame, each of whose header lines is a message of its own.
fn lines_torn_malformed(gang: &mut Gang, town: &mut Town) {
    let begin = masked(0x82, b"SEND\nx\n");
    let wire = [begin, masked(0x82, b"a\n").repeat(2_000)].concat();
    over_websocket(gang, town, 1, &wire);
}

/// Line ends between frames, each in a message of its own.
fn heart_beats(gang: &mut Gang, town: &mut Town) {
    over_websocket(gang, town, 4, &masked(0x82, b"\n").repeat(2_000));
}

fn over_websocket(gang: &mut Gang, town: &mut Town, clients: usize, wire: &[u8]) {
    for index in 0..clients {
        let who = gang.ready_over(town, index, Carrier::Ws, STANDARD, nothing);
        if let Some(who) = who.filter(|who| town.client(*who).is_ready()) {
            town.write(who, wire);
        }
    }
}

/// Malformed frames with very many lines, a line at a time.
fn lines_dripping(gang: &mut Gang, town: &mut Town) {
    for index in 0..40 {
        let Some(who) = gang.ready_on_tcp(town, index, STANDARD) else { continue };
        match gang.step {
            10 => town.write(who, &[&b"SEND\nx\n"[..], &b"a\n".repeat(2_000)].concat()),
            step if step > 10 => town.write(who, b"a\n"),
            _ => {}
        }
    }
}

/// Wildcards of very many levels, one of which is empty.
fn levels_refused(gang: &mut Gang, town: &mut Town) {
    let name = format!("/topic/*{}//b", "/a".repeat(1_980));
    if let Some(who) = gang.ready(town, 0, Agent, CLASSIC, nothing) {
        for _ in 0..10 {
            town.say(who, &format!("SUBSCRIBE\ndestination:{name}\ndestination-type:0\n\n"));
        }
    }
}

/// Pings whose pongs are not read.
fn ping_flood(gang: &mut Gang, town: &mut Town) {
    for index in 0..6 {
        let Some(who) = gang.ready_over(town, index, Carrier::Ws, STANDARD, nothing) else {
            continue;
        };
        if town.client(who).is_ready() {
            town.stop_reading(who);
            (0..50).for_each(|_| town.client(who).ping(&[b'p'; 125]));
        }
    }
}

/// ClientHellos, from one new connection after another.
fn tls_rush(gang: &mut Gang, town: &mut Town) {
    for index in 0..40 {
        if gang.member(index).is_none_or(|who| town.is_gone(who)) {
            let who = town.open_bare(Carrier::Tls);
            gang.set_member(index, who);
        }
    }
    if gang.step % 5 == 4 {
        (0..40).filter_map(|index| gang.member(index)).for_each(|who| {
            if !town.is_waiting(who) {
                town.reset(who);
            }
        });
    }
}

/// Long heads, some bytes at a time.
fn dripping_headers(gang: &mut Gang, town: &mut Town) {
    for index in 0..40 {
        let Some(who) = gang.ready_on_tcp(town, index, STANDARD) else { continue };
        match gang.step % 100 {
            10 => town.write(who, b"SEND\ndestination:/topic/x\n"),
            99 => town.write(who, b"\n\n\0"),
            step if step > 10 => town.write(who, b"a:bcdef\n"),
            _ => {}
        }
    }
}

/// Requests whose answers are long and are not read.
fn receipts_unread(gang: &mut Gang, town: &mut Town) {
    let receipt = "r".repeat(4_000);
    for index in 0..10 {
        let Some(who) = gang.ready(town, index, Agent, STANDARD, nothing) else { continue };
        if gang.step > 5 {
            town.stop_reading(who);
        }
        town.say(who, &format!("SEND\ndestination:/topic/x\nreceipt:{receipt}\n\n"));
    }
}

/// A consumer refuses whatever it gets.
fn nack_loop(gang: &mut Gang, town: &mut Town) {
    let queue = gang.name("q");
    let consumer = gang.ready(town, 0, SuperAgent, STANDARD, |_, town, who| {
        town.listen(who);
        town.say(
            who,
            &format!("SUBSCRIBE\nid:0\ndestination:/queue/{queue}\nack:client-individual\n\n"),
        );
    });
    if let Some(who) = gang.ready(town, 1, Agent, STANDARD, nothing)
        && gang.step < 30
    {
        (0..30).for_each(|_| town.say(who, &format!("SEND\ndestination:/queue/{queue}\n\n.")));
    }
    if let Some(who) = consumer {
        for frame in town.heard(who).iter().rev() {
            if let Some(id) = header(frame, "ack") {
                town.say(who, &format!("NACK\nid:{id}\n\n"));
            }
        }
    }
}

/// Transactions with many messages to a topic with subscribers who read.
fn large_commit(gang: &mut Gang, town: &mut Town) {
    let topic = gang.name("t");
    for index in 1..80 {
        gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            town.say(who, &format!("SUBSCRIBE\nid:0\ndestination:/topic/{topic}\n\n"));
        });
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        town.say(who, "BEGIN\ntransaction:t\n\n");
        for _ in 0..150 {
            town.say(who, &format!("SEND\ndestination:/topic/{topic}\ntransaction:t\n\n."));
        }
        town.say(who, "COMMIT\ntransaction:t\n\n");
    }
}

/// Wildcards of many levels, and messages to topics of many levels.
fn deep_wildcards(gang: &mut Gang, town: &mut Town) {
    gang.ready(town, 0, Agent, STANDARD, |_, town, who| {
        for id in 0..25 {
            let deep = "*/a/".repeat(25);
            town.say(who, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{deep}{id}/>\n\n"));
        }
    });
    if let Some(who) = gang.ready(town, 1, Agent, STANDARD, nothing) {
        for _ in 0..10 {
            let (number, deep) = (gang.next(), "a/".repeat(1_000));
            town.say(who, &format!("SEND\ndestination:/topic/{deep}{number}\n\n"));
        }
    }
}

/// Header lines whose names might be the broker's own, if invisible characters are left out.
fn hidden_names(gang: &mut Gang, town: &mut Town) {
    let (one, half) = ("\u{200b}".repeat(4_500), "\u{200b}".repeat(2_200));
    let many = "\u{200b}".repeat(20);
    let many: String = (0..200).map(|number| format!("{many}é{number}:\n")).collect();
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        for lines in
            [format!("{one}q:\n"), format!("{one}é:\n"), format!("{half}éack{half}:\n"), many]
        {
            (0..3).for_each(|_| town.say(who, &format!("SEND\ndestination:/topic/x\n{lines}\n")));
        }
    }
}

/// Long names in scripts whose letters have to be looked up, to topics and queues that nobody has.
fn foreign_names(gang: &mut Gang, town: &mut Town) {
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        for _ in 0..10 {
            let (number, letters) = (gang.next(), "\u{628}".repeat(2_000));
            town.say(who, &format!("SEND\ndestination:/topic/{letters}{number}\n\n"));
        }
    }
}

/// A transaction of messages to topics and queues whose long names differ only at their end.
fn commit_names(gang: &mut Gang, town: &mut Town) {
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        let space = if gang.step.is_multiple_of(2) { "topic" } else { "queue" };
        let name = gang.name("x".repeat(3_900));
        town.say(who, "BEGIN\ntransaction:t\n\n");
        for number in 10..24 {
            let name = format!("/{space}/{name}{number}");
            town.say(who, &format!("SEND\ndestination:{name}\ntransaction:t\n\n."));
        }
        town.say(who, "COMMIT\ntransaction:t\n\n");
    }
}

/// Messages to a topic that all wildcards select which there may be.
fn many_wildcards(gang: &mut Gang, town: &mut Town) {
    for index in 1..5 {
        gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            for id in 0..15 {
                let levels: String =
                    (0..6).map(|at| if id >> at & 1 == 0 { "*/" } else { "a/" }).collect();
                let last = if index % 2 == 0 { "*" } else { "a" };
                let end = if index > 2 { ">" } else { "*" };
                town.say(
                    who,
                    &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/{levels}{last}/{end}\n\n"),
                );
            }
        });
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        let topic = "a/".repeat(7);
        (0..30).for_each(|_| town.say(who, &format!("SEND\ndestination:/topic/{topic}a\n\n.")));
    }
}

/// Regular expressions that take long to compile, given up at once.
fn hostile_regexes(gang: &mut Gang, town: &mut Town) {
    for index in 0..3 {
        let Some(who) = gang.ready(town, index, SuperAgent, STANDARD, nothing) else { continue };
        let id = gang.next();
        for pattern in ["(a|b|c){1,40}\\p{L}{3}", "((((a{5}){5}){5}){5})", "[^x]{200}.*y{9}"] {
            town.say(
                who,
                &format!(
                    "SUBSCRIBE\nid:{id}\ndestination:/agent/{pattern}\ndestination-type:1\n\n"
                ),
            );
            town.say(who, &format!("UNSUBSCRIBE\nid:{id}\n\n"));
        }
    }
}

/// Messages that all expire in the same millisecond.
fn expiring(gang: &mut Gang, town: &mut Town) {
    let queue = gang.name("q");
    let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) else { return };
    let expires_ms = 1_795_435_200_000_u64 + u64::from(town.turns / 40 * 40 + 40);
    for _ in 0..40 {
        town.say(who, &format!("SEND\ndestination:/queue/{queue}\nexpires:{expires_ms}\n\n."));
    }
}

/// Heads with many lines that need a second look, to subscribers of all versions.
fn many_lines(gang: &mut Gang, town: &mut Town) {
    let topic = gang.name("t");
    for (index, version) in [(1, "1.0"), (2, "1.1"), (3, "1.2")] {
        if gang.member(index).is_none_or(|who| town.is_gone(who)) {
            let kind = Kind { profile: Agent, carrier: gang.carrier(), is_standard: true };
            let who = town.join(&gang.name(index), kind, &format!("accept-version:{version}\n"));
            gang.set_member(index, who);
            town.say(who, &format!("SUBSCRIBE\nid:0\ndestination:/topic/{topic}\n\n"));
        }
    }
    let lines: String = (0..200).map(|number| format!("h{number}:a\\cb\\nc\n")).collect();
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        (0..5).for_each(|_| town.say(who, &format!("SEND\ndestination:/topic/{topic}\n{lines}\n")));
    }
}

/// The largest bodies that there may be, to several receivers.
fn large_bodies(gang: &mut Gang, town: &mut Town) {
    let (topic, body) = (gang.name("t"), "x".repeat(60_000));
    for index in 1..6 {
        gang.ready(town, index, Agent, STANDARD, |_, town, who| {
            town.say(who, &format!("SUBSCRIBE\nid:0\ndestination:/topic/{topic}\n\n"));
        });
    }
    if let Some(who) = gang.ready(town, 0, Agent, STANDARD, nothing) {
        town.say(who, &format!("SEND\ndestination:/topic/{topic}\n\n{body}"));
    }
}

/// The largest bodies that there may be, of characters of several bytes, from WebSocket to WebSocket.
fn large_texts(gang: &mut Gang, town: &mut Town) {
    send_large_texts(gang, town, Carrier::Ws);
}

/// The same, from streams, whose bodies nobody has asked yet whether they are text.
fn large_texts_unchecked(gang: &mut Gang, town: &mut Town) {
    send_large_texts(gang, town, Carrier::Tcp);
}

fn send_large_texts(gang: &mut Gang, town: &mut Town, carrier: Carrier) {
    let topic = gang.name("t");
    for index in 4..8 {
        gang.ready_over(town, index, Carrier::Ws, STANDARD, |_, town, who| {
            town.say(who, &format!("SUBSCRIBE\nid:0\ndestination:/topic/{topic}\n\n"));
        });
    }
    // Just so large that the body is shared.
    let body = "\u{628}".repeat(32 << 10);
    for index in 0..4 {
        let ready = gang.ready_over(town, index, carrier, STANDARD, nothing);
        if let Some(who) = ready {
            let length = body.len();
            let head = format!("SEND\ndestination:/topic/{topic}\ncontent-length:{length}\n\n");
            town.say(who, &format!("{head}{body}"));
        }
    }
}

/// Requests with many header lines, a connection each.
fn http_rush(gang: &mut Gang, town: &mut Town) {
    let lines: String = (0..60).map(|number| format!("H{number}: value\r\n")).collect();
    for index in 0..20 {
        if gang.member(index).is_none_or(|who| town.is_gone(who)) {
            let who = town.open_bare(Carrier::Tcp);
            town.write(who, format!("GET /health HTTP/1.1\r\nHost: h\r\n{lines}\r\n").as_bytes());
            town.leave(who);
            gang.set_member(index, who);
        }
    }
}

impl Gang {
    /// As [`Self::ready`], over TCP.
    fn ready_on_tcp(&mut self, town: &mut Town, index: usize, is_standard: bool) -> Option<Who> {
        self.ready_over(town, index, Carrier::Tcp, is_standard, nothing)
    }

    fn ready_over(
        &mut self,
        town: &mut Town,
        index: usize,
        carrier: Carrier,
        is_standard: bool,
        begin: impl FnOnce(&mut Self, &mut Town, Who),
    ) -> Option<Who> {
        let usual = self.replace_carrier(carrier);
        let ready = self.ready(town, index, Agent, is_standard, begin);
        self.replace_carrier(usual);
        ready
    }
}

/// The value of a header line.
fn header<'f>(frame: &'f str, name: &str) -> Option<&'f str> {
    frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
