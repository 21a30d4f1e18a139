//! A transaction has all of its effects, or none and an ERROR with the reason.

use std::collections::BTreeMap;

use com_broker::internal::broker::Profile::{Agent, Service, SuperAgent};
use com_broker::limits::Limits;

use super::stage::{Frame, Stage, Who};
use crate::random::Random;

#[test]
fn a_transaction_that_exceeds_a_queue_delivers_nothing() {
    // Alone it needs room for three.
    for (max, waiting, retry) in [(2, 0, "never"), (2, 1, "never"), (3, 1, "later")] {
        let limits = Limits { queue_messages_max: max, ..Limits::default() };
        exceed_queue(limits, waiting, retry);
    }
}

fn exceed_queue(limits: Limits, waiting: usize, retry: &str) {
    let mut stage = Stage::new(limits);
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", Service));
    stage.subscribe(bob, "t", "/topic/a", "");
    for _ in 0..waiting {
        stage.say(bob, "SEND\ndestination:/queue/a\n\nfirst");
    }
    stage.say(ana, "BEGIN\ntransaction:1\n\n");
    stage.say(ana, "SEND\ndestination:/topic/a\ntransaction:1\n\nnews");
    for _ in 0..3 {
        stage.say(ana, "SEND\ndestination:/queue/a\ntransaction:1\n\njob");
    }
    stage.say(ana, "COMMIT\ntransaction:1\nreceipt:c\n\n");
    let error = stage.next(ana);
    assert_eq!(error.get("error-code"), Some("LIMIT_EXCEEDED"));
    assert_eq!((error.get("retry"), error.get("receipt-id")), (Some(retry), Some("c")));
    assert!(error.get("message").unwrap().contains("queue_messages_max"), "{error:?}");
    stage.subscribe(bob, "q", "/queue/a", "");
    assert_eq!(stage.bodies(bob), vec!["first"; waiting]);
}

#[test]
fn messages_of_a_transaction_need_room_as_if_they_had_to_wait() {
    let limits = Limits { queue_messages_max: 2, ..Limits::default() };
    let mut stage = Stage::new(limits);
    let (ana, bob) = (stage.join("ana", Agent), stage.join("bob", Service));
    stage.subscribe(bob, "q", "/queue/a", "");
    for count in [2, 3] {
        stage.say(ana, "BEGIN\ntransaction:1\n\n");
        for n in 0..count {
            stage.say(ana, &format!("SEND\ndestination:/queue/a\ntransaction:1\n\n{n}"));
        }
        stage.say(ana, "COMMIT\ntransaction:1\n\n");
    }
    // Whether a consumer takes them at once is decided in the next turn.
    assert_eq!(stage.bodies(bob), ["0", "1"]);
    assert_eq!(stage.next(ana).get("error-code"), Some("LIMIT_EXCEEDED"));
}

/// Random transactions, with limits that many of them exceed.
#[test]
fn a_transaction_has_all_of_its_effects_or_none() {
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..600 {
        let outcome = Trial::new(seed).run();
        *outcomes.entry(outcome).or_default() += 1;
    }
    // All outcomes have to occur.
    let seen = |outcome: &str| outcomes.get(outcome).copied().unwrap_or_default();
    assert!(seen("done") > 100, "{outcomes:?}");
    for limit in ["queue_messages_max", "queues_bytes_max", "destinations_max", "nobody"] {
        assert!(seen(limit) > 10, "{limit}: {outcomes:?}");
    }
}

/// A transaction and all clients that may see its effects.
struct Trial {
    seed: u64,
    random: Random,
    stage: Stage,
    /// The client that commits. It holds unacknowledged messages of `/queue/own`.
    ana: Who,
    held: Vec<Frame>,
    /// The receivers of the transaction's messages.
    others: Vec<Who>,
    /// Bodies of the transaction's messages, which have to be delivered or queued.
    sent: Vec<String>,
    acknowledged: Vec<String>,
    /// The number of messages that each queue would hold without consumers.
    waiting: BTreeMap<&'static str, u32>,
    queue_messages_max: u32,
}

const QUEUES: [&str; 6] =
    ["/queue/a", "/queue/b", "/queue/c", "/queue/new-1", "/queue/new-2", "/queue/own"];

const TOPICS: [&str; 4] = ["/topic/news", "/topic/new-1", "/topic/new-2", "/topic/new-3"];

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let queue_messages_max = 1 + random.below(4) as u32;
        let limits = Limits {
            queue_messages_max,
            queues_bytes_max: 3_000 + random.below(5_000),
            destinations_max: 4 + random.below(4) as u32,
            deliveries_max: 5,
            ..Limits::default()
        };
        let mut stage = Stage::with(limits, |options| {
            options.dead_letter_queue = Some("/queue/dead".to_owned());
        });
        let (ana, bob) = (stage.join("ana", SuperAgent), stage.join("bob", Agent));
        stage.subscribe(bob, "i", "/agent/bob", "");
        let (eve, dan) = (stage.join("eve", Service), stage.join("dan", Service));
        stage.subscribe(eve, "b", "/queue/b", "");
        stage.subscribe(eve, "t", "/topic/news", "");
        stage.subscribe(dan, "c", "/queue/c", "ack:client-individual\nprefetch-count:1\n");
        stage.subscribe(ana, "own", "/queue/own", "ack:client-individual\nprefetch-count:3\n");
        for n in 0..random.below(4) {
            stage.send(ana, "/queue/own", "", &format!("held-{n}"));
        }
        let mut waiting = BTreeMap::new();
        if random.happens(500) {
            stage.send(bob, "/queue/a", "", "before");
            waiting.insert("/queue/a", 1);
        }
        let held = stage.heard(ana);
        let others = vec![bob, eve, dan];
        let (sent, acknowledged) = (Vec::new(), Vec::new());
        Self {
            seed,
            random,
            stage,
            ana,
            held,
            others,
            sent,
            acknowledged,
            waiting,
            queue_messages_max,
        }
    }

    fn run(mut self) -> String {
        self.begin();
        self.stage.say(self.ana, "COMMIT\ntransaction:t\nreceipt:c\n\n");
        let answer = self.stage.heard(self.ana).into_iter().find(|one| one.command != "MESSAGE");
        let answer = answer.expect("an answer");
        let told = self.collect_everything();
        let count = |body: &String| told.iter().filter(|one| *one == body).count();
        let seed = self.seed;
        let fits = self.waiting.values().all(|count| *count <= self.queue_messages_max);
        if answer.command == "RECEIPT" {
            assert!(fits, "seed {seed}: {:?}", self.waiting);
            for body in &self.sent {
                assert_eq!(count(body), 1, "seed {seed}: {body} of {told:?}");
            }
            for body in &self.acknowledged {
                assert_eq!(count(body), 0, "seed {seed}: {body} of {told:?}");
            }
            return "done".to_owned();
        }
        for body in &self.sent {
            assert_eq!(count(body), 0, "seed {seed}: {body} of {told:?}");
        }
        for held in &self.held {
            assert_eq!(count(&held.body), 1, "seed {seed}: {} of {told:?}", held.body);
        }
        if answer.get("error-code") == Some("NO_SUCH_DESTINATION") {
            return "nobody".to_owned();
        }
        assert_eq!(answer.get("error-code"), Some("LIMIT_EXCEEDED"), "seed {seed}: {answer:?}");
        let sentence = answer.get("message").unwrap();
        let limit = sentence.rsplit(' ').nth(1).expect("the name of a limit");
        assert!(limit != "queue_messages_max" || !fits, "seed {seed}: {:?}", self.waiting);
        limit.to_owned()
    }

    fn begin(&mut self) {
        self.stage.ask(self.ana, "BEGIN\ntransaction:t\n\n");
        for held in self.held.clone() {
            let command = if self.random.happens(500) { "ACK" } else { "NACK" };
            if self.random.happens(600) {
                let id = held.get("ack").unwrap();
                self.stage.ask(self.ana, &format!("{command}\nid:{id}\ntransaction:t\n\n"));
                if command == "ACK" {
                    self.acknowledged.push(held.body);
                }
            }
            if self.random.happens(500) {
                self.send_something();
            }
        }
        for _ in 0..self.random.below(5) {
            self.send_something();
        }
    }

    fn send_something(&mut self) {
        let body =
            format!("sent-{}-{}", self.sent.len(), "x".repeat(self.random.below(700) as usize));
        let to = match self.random.below(10) {
            0..6 => *self.random.pick(&QUEUES),
            // A new topic has no subscribers, but occupies a destination.
            6..8 => *self.random.pick(&TOPICS),
            8 => "/agent/bob",
            _ => {
                let nobody =
                    "SEND\ndestination:/agent/nobody\nundeliverable:error\ntransaction:t\n\n";
                if self.random.happens(200) {
                    self.stage.ask(self.ana, nobody);
                }
                return;
            }
        };
        self.stage.ask(self.ana, &format!("SEND\ndestination:{to}\ntransaction:t\n\n{body}"));
        if !to.starts_with("/topic/new-") {
            self.sent.push(body);
        }
        if to.starts_with("/queue/") {
            *self.waiting.entry(to).or_default() += 1;
        }
    }

    /// The bodies that all clients have received, and then those in queues.
    fn collect_everything(&mut self) -> Vec<String> {
        let mut told: Vec<String> = Vec::new();
        for who in self.others.clone() {
            told.extend(self.stage.bodies(who));
        }
        self.stage.lose(self.ana);
        let heir = self.others[1];
        for queue in QUEUES.iter().chain(&["/queue/dead"]) {
            self.stage.subscribe(heir, "heir", queue, "");
            self.stage.ask(heir, "UNSUBSCRIBE\nid:heir\n\n");
        }
        told.extend(self.stage.bodies(heir));
        told
    }
}
