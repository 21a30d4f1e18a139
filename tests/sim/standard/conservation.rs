//! No message of a queue is lost, and none is had twice: whatever consumers do, and however they end, a
//! message waits, is held by one consumer, was consumed, or is in the dead letter queue.

use std::collections::{BTreeMap, BTreeSet};

use com_broker::broker::Profile::{Service, SuperAgent};
use com_broker::limits::{Limits, OutboundLimits};

use super::stage::{Stage, Who};
use crate::random::Random;

#[test]
fn whatever_consumers_do_no_message_is_lost_or_had_twice() {
    let mut sum = Tally::default();
    for seed in 0..60 {
        sum.add(&World::new(seed).run());
    }
    // What never happens is not tried.
    let Tally { acknowledged, automatic, left, dead, takeovers, returned } = sum;
    assert!(acknowledged > 100 && automatic > 500 && left > 100, "{sum:?}");
    assert!(dead > 50 && takeovers > 100 && returned > 100, "{sum:?}");
}

#[test]
fn a_message_is_not_given_to_a_connection_that_takes_nothing_more() {
    let outbound = OutboundLimits { hard_bytes_max: 3_000, soft_bytes_max: 2_000, soft_ms_max: 10 };
    let mut stage = Stage::new(Limits { outbound: [outbound; 4], ..Limits::default() });
    let (ana, bob) = (stage.join("ana", Service), stage.join("bob", Service));
    stage.subscribe(bob, "i", "/service/bob", "");
    stage.subscribe(bob, "q", "/queue/a", "");
    // In one turn: more than bob may have unread, which the kernel takes, and then a job.
    let flood = format!("SEND\ndestination:/service/bob\n\n{}\0", "x".repeat(1_000)).repeat(80);
    stage.say(ana, &format!("{flood}SEND\ndestination:/queue/a\n\njob"));
    let told = stage.heard(bob);
    assert_eq!(told.last().unwrap().get("error-code"), Some("SLOW_CONSUMER"));
    assert!(told.iter().all(|one| one.body != "job"));
    stage.subscribe(ana, "q", "/queue/a", "");
    assert_eq!(stage.bodies(ana), ["job"]);
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    acknowledged: u32,
    automatic: u32,
    left: u32,
    dead: u32,
    takeovers: u32,
    returned: u32,
}

struct World {
    seed: u64,
    random: Random,
    stage: Stage,
    sender: Who,
    consumers: Vec<Consumer>,
    sent: u32,
    /// What became of each message that is settled, by its body.
    settled: BTreeMap<String, &'static str>,
    tally: Tally,
}

/// A login id that consumes, and what it holds on its connection.
struct Consumer {
    login: String,
    who: Option<Who>,
    /// The modes of its subscriptions, by their ids, which begin with the queue.
    subscriptions: BTreeMap<String, &'static str>,
    /// Those that an earlier connection made.
    inherited: BTreeSet<String>,
    /// Messages that it has not acknowledged: subscription, id, body.
    held: Vec<(String, String, String)>,
    /// Ids of messages that it held once.
    past: Vec<String>,
}

const QUEUES: [&str; 3] = ["/queue/a", "/queue/b", "/queue/dead"];

const MODES: [&str; 3] = ["auto", "client", "client-individual"];

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let limits = Limits {
            deliveries_max: 1 + random.below(5) as u32,
            takeovers_max: 1_000,
            ..Limits::default()
        };
        let mut stage = Stage::with(limits, |options| {
            options.dead_letter_queue = Some("/queue/dead".to_owned());
        });
        let sender = stage.join("sender", Service);
        let consumer = |number| Consumer {
            login: format!("consumer-{number}"),
            who: None,
            subscriptions: BTreeMap::new(),
            inherited: BTreeSet::new(),
            held: Vec::new(),
            past: Vec::new(),
        };
        let consumers = (0..4).map(consumer).collect();
        let (settled, tally) = (BTreeMap::new(), Tally::default());
        Self { seed, random, stage, sender, consumers, sent: 0, settled, tally }
    }

    fn run(mut self) -> Tally {
        for _ in 0..120 {
            self.step();
            self.listen();
        }
        self.finish();
        self.tally
    }

    fn step(&mut self) {
        let which = self.random.below(4) as usize;
        match self.random.below(20) {
            0..6 => self.send(),
            6..8 => self.join(which),
            8..12 => self.subscribe(which),
            12..16 => self.settle(which),
            16 => self.unsubscribe(which),
            17 => self.settle_late(which),
            18 => self.leave(which),
            _ => self.stage.wait(1),
        }
    }

    fn send(&mut self) {
        let queue = *self.random.pick(&QUEUES[..2]);
        let count = 1 + self.random.below(3);
        let transaction = if self.random.happens(300) { "transaction:t\n" } else { "" };
        if !transaction.is_empty() {
            self.stage.ask(self.sender, "BEGIN\ntransaction:t\n\n");
        }
        for _ in 0..count {
            self.sent += 1;
            let frame = format!("SEND\ndestination:{queue}\n{transaction}\nm{}", self.sent);
            self.stage.ask(self.sender, &frame);
        }
        if !transaction.is_empty() {
            self.stage.ask(self.sender, "COMMIT\ntransaction:t\n\n");
        }
    }

    /// Logs in, or takes over from itself.
    fn join(&mut self, which: usize) {
        let resumes = self.random.happens(500);
        let one = &mut self.consumers[which];
        self.tally.takeovers += u32::from(one.who.is_some());
        if !resumes || one.who.is_none() {
            one.subscriptions.clear();
        }
        one.inherited = one.subscriptions.keys().cloned().collect();
        one.past.extend(one.held.drain(..).map(|(_, id, _)| id));
        let more = format!("accept-version:1.2\nresume:{resumes}\n");
        let login = one.login.clone();
        one.who = Some(self.stage.join_with(&login, SuperAgent, &more));
    }

    fn subscribe(&mut self, which: usize) {
        let (queue, mode) = (*self.random.pick(&QUEUES), *self.random.pick(&MODES));
        let id = format!("{queue}-{}", self.random.below(2));
        let prefetch = 1 + self.random.below(4);
        let one = &mut self.consumers[which];
        let Some(who) = one.who.filter(|_| !one.subscriptions.contains_key(&id)) else { return };
        let replaced = one.inherited.iter().filter(|other| other.starts_with(queue));
        for replaced in replaced.cloned().collect::<Vec<_>>() {
            one.inherited.remove(&replaced);
            one.subscriptions.remove(&replaced);
            let gone = one.held.extract_if(.., |held| held.0 == replaced);
            one.past.extend(gone.map(|(_, id, _)| id));
        }
        one.subscriptions.insert(id.clone(), mode);
        self.stage.subscribe(who, &id, queue, &format!("ack:{mode}\nprefetch-count:{prefetch}\n"));
    }

    fn settle(&mut self, which: usize) {
        let one = &mut self.consumers[which];
        let (Some(who), false) = (one.who, one.held.is_empty()) else { return };
        let at = self.random.below(one.held.len() as u64) as usize;
        let (subscription, id, body) = one.held[at].clone();
        let is_meant = |(index, held): (usize, &(String, String, String))| match one.subscriptions
            [&subscription]
        {
            "client" => held.0 == subscription && index <= at,
            _ => held.2 == body && held.1 == id,
        };
        let meant: Vec<_> = one.held.iter().enumerate().map(is_meant).collect();
        let mut meant = meant.into_iter();
        let is_ack = self.random.happens(600);
        let command = if is_ack { "ACK" } else { "NACK" };
        let settled: Vec<_> = one.held.extract_if(.., |_| meant.next().unwrap()).collect();
        for (_, id, body) in settled {
            one.past.push(id);
            if is_ack {
                self.tally.acknowledged += 1;
                let before = self.settled.insert(body.clone(), "acknowledged");
                assert_eq!(before, None, "seed {}: {body}", self.seed);
            }
        }
        self.stage.ask(who, &format!("{command}\nid:{id}\n\n"));
    }

    /// Names a message that it no longer holds, unless it has come again under the same id.
    fn settle_late(&mut self, which: usize) {
        let one = &self.consumers[which];
        let (Some(who), false) = (one.who, one.past.is_empty()) else { return };
        let id = self.random.pick(&one.past).clone();
        if one.held.iter().all(|held| held.1 != id) {
            self.stage.ask(who, &format!("ACK\nid:{id}\n\n"));
        }
    }

    fn unsubscribe(&mut self, which: usize) {
        let one = &mut self.consumers[which];
        let Some(who) = one.who else { return };
        let Some(id) = one.subscriptions.keys().next().cloned() else { return };
        one.subscriptions.remove(&id);
        one.inherited.remove(&id);
        let gone = one.held.extract_if(.., |held| held.0 == id);
        one.past.extend(gone.map(|(_, id, _)| id));
        self.stage.ask(who, &format!("UNSUBSCRIBE\nid:{id}\n\n"));
    }

    fn leave(&mut self, which: usize) {
        let one = &mut self.consumers[which];
        let Some(who) = one.who.take() else { return };
        one.subscriptions.clear();
        one.inherited.clear();
        one.held.clear();
        one.past.clear();
        if self.random.happens(500) {
            self.stage.lose(who);
        } else {
            self.stage.ask(who, "DISCONNECT\n\n");
        }
    }

    /// Everyone takes what has arrived.
    fn listen(&mut self) {
        let seed = self.seed;
        for one in &mut self.consumers {
            let Some(who) = one.who else { continue };
            for told in self.stage.heard(who) {
                assert_eq!(told.command, "MESSAGE", "seed {seed}: {told:?}");
                let subscription = told.get("subscription").unwrap().to_owned();
                let mode = one.subscriptions.get(&subscription);
                let mode = *mode.unwrap_or_else(|| panic!("seed {seed}: unasked {told:?}"));
                self.tally.returned += u32::from(told.get("redelivered").is_some());
                self.tally.dead += u32::from(told.get("dead-letter-reason").is_some());
                if mode == "auto" {
                    self.tally.automatic += 1;
                    let before = self.settled.insert(told.body.clone(), "automatic");
                    assert_eq!(before, None, "seed {seed}: {told:?}");
                } else {
                    let id = told.get("ack").unwrap().to_owned();
                    one.held.push((subscription, id, told.body));
                }
            }
        }
        let mut held: Vec<_> =
            self.consumers.iter().flat_map(|one| &one.held).map(|held| &held.2).collect();
        held.sort_unstable();
        assert!(held.is_sorted_by(|a, b| a < b), "seed {seed}: two hold the same: {held:?}");
        let is_settled = |body: &&&String| self.settled.contains_key(**body);
        let again = held.iter().find(is_settled);
        assert_eq!(again, None, "seed {seed}: what was consumed came again");
    }

    /// Everyone goes; what is left is in the queues.
    fn finish(&mut self) {
        for which in 0..self.consumers.len() {
            self.leave(which);
            self.listen();
        }
        let heir = self.stage.join("heir", Service);
        for queue in QUEUES {
            self.stage.subscribe(heir, queue, queue, "");
        }
        for told in self.stage.heard(heir) {
            self.tally.left += 1;
            let before = self.settled.insert(told.body.clone(), "left");
            assert_eq!(before, None, "seed {}: {told:?}", self.seed);
        }
        assert_eq!(self.settled.len() as u32, self.sent, "seed {}: some are lost", self.seed);
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.automatic += other.automatic;
        self.left += other.left;
        self.dead += other.dead;
        self.takeovers += other.takeovers;
        self.returned += other.returned;
    }
}
