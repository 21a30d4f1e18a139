//! The execution of a transaction, in slices: as a whole or not at all.

use super::deliver::Sending;
use super::fault::Fault;
use super::ids::{DeliveryId, DestinationId, PeerId, SessionId};
use super::message::Origin;
use super::request::{
    Request, check_deliverable, content_of, destination_of, find_delivery, read_expiry,
};
use super::room::Needed;
use super::subscription::Target;
use super::transaction::{HeldFrame, Plan, Transaction};
use super::wide::Wide;
use super::{Broker, Moment};
use crate::stomp::{Command, Name, Version};
use crate::work::{self, Progress};

/// A transaction that is executed. First all steps are checked, and what they need is reserved. Then they are
/// performed, even if the session has ended meanwhile.
#[derive(Debug)]
pub(super) struct Commit {
    peer: PeerId,
    session: SessionId,
    version: Version,
    /// The sender, who may be gone before the last message is sent.
    origin: Origin,
    /// Memory of the transaction.
    bytes: u64,
    frames: Vec<HeldFrame>,
    phase: Phase,
    /// The step that is next.
    next: usize,
    /// The message of the last step, if it goes to many receivers.
    wide: Option<Box<Wide>>,
    /// What the last step settles, if that is not over.
    settling: Option<Settle>,
    /// Why nothing is performed.
    fault: Option<Fault>,
    /// What it needs of the room that was not there.
    needed: Option<Needed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Checking,
    /// A step found no room: it is counted what all of them need.
    Counting,
    Performing,
    /// A step had a fault, or the connection has ended: what was reserved for the steps before is given back.
    GivingBack {
        /// The number of these steps.
        until: usize,
    },
}

impl Commit {
    /// Nothing of the transaction is checked yet.
    pub(super) fn new(
        peer: PeerId,
        request: &Request<'_, '_>,
        origin: Origin,
        transaction: Transaction,
    ) -> Self {
        Self {
            peer,
            session: request.session,
            version: request.version,
            origin,
            bytes: transaction.bytes,
            frames: transaction.frames,
            phase: Phase::Checking,
            next: 0,
            wide: None,
            settling: None,
            fault: None,
            needed: None,
        }
    }

    /// Checks or performs steps, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        loop {
            if let Some(wide) = &mut self.wide {
                match wide.advance(broker) {
                    Progress::Ended => self.wide = None,
                    unfinished => return unfinished,
                }
            } else if let Some(settling) = &mut self.settling {
                if settling.advance(broker, now) == Progress::Ended {
                    self.settling = None;
                }
            } else if self.next < self.frames.len() {
                broker.meter.spend(work::STEP);
                self.take_step(broker, now);
            } else if self.phase == Phase::Checking {
                self.phase = Phase::Performing;
                self.next = 0;
            } else if self.phase == Phase::Counting {
                self.phase = Phase::GivingBack { until: self.frames.len() };
                self.next = 0;
            } else {
                if let Some(never) = self.needed.take().and_then(Needed::fault) {
                    self.fault = Some(never);
                }
                broker.transactions.end_commit(self.bytes);
                return Progress::Ended;
            }
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
    }

    /// Memory of the message that is on its way.
    pub(super) fn held_bytes(&self) -> u32 {
        self.wide.as_ref().map_or(0, |wide| wide.held_bytes() as u32)
    }

    /// The queue that delivers nothing meanwhile.
    pub(super) fn held_up(&self) -> Option<DestinationId> {
        self.settling.as_ref()?.held_up()
    }

    /// Why nothing was performed.
    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    fn take_step(&mut self, broker: &mut Broker, now: Moment) {
        let index = self.next;
        self.next += 1;
        match self.phase {
            Phase::Checking => {
                // STOMP 1.2, "BEGIN": the end of the connection aborts its transactions.
                let is_there = broker.sessions.get(self.session).map(|one| one.peer);
                let checked = match is_there == Some(self.peer) {
                    true => self.check(index, broker, now).map_err(Some),
                    false => Err(None),
                };
                if let Err(fault) = checked {
                    self.fail_at(index, fault, broker);
                }
            }
            Phase::Counting => self.count(index, broker, now),
            Phase::Performing => {
                self.perform(index, broker, now);
                self.free_frame(index, broker);
            }
            Phase::GivingBack { until } => {
                if index < until {
                    self.give_back(index, broker);
                }
                self.free_frame(index, broker);
            }
        }
    }

    fn free_frame(&mut self, index: usize, broker: &mut Broker) {
        let frame = std::mem::take(&mut self.frames[index]);
        broker.meter.spend(work::of_freed(frame.cost_bytes()));
    }

    /// Checks a step, and reserves the room that it needs.
    fn check(&mut self, index: usize, broker: &mut Broker, now: Moment) -> Result<(), Fault> {
        self.frames[index].plan = self.plan(index, broker, now)?;
        Ok(())
    }

    /// As [`Self::check`]. Returns what is to be done.
    fn plan(&self, index: usize, broker: &mut Broker, now: Moment) -> Result<Plan, Fault> {
        let (frame, session) = (self.frames[index].frame(), self.session);
        if frame.command != Command::Send {
            let request = Request { session, version: self.version, headers: &frame.headers };
            let delivery = find_delivery(broker, &request)?;
            return Ok(Plan::Settle(delivery));
        }
        let content = content_of(&frame, destination_of(&frame)?);
        broker.check_sendable(session, content.destination)?;
        check_deliverable(broker, session, &frame.headers)?;
        let Some(expires_ms) = read_expiry(&frame.headers, now)? else {
            return Ok(Plan::Send(None));
        };
        let sending = Sending { session, content: &content, expires_ms, origin: None };
        broker.reserve(sending, now)?;
        Ok(Plan::Send(Some(expires_ms)))
    }

    /// Begins to give back what was reserved, or first to count what the transaction needs of what a step found no room
    /// in.
    #[cold] // few transactions fail
    fn fail_at(&mut self, index: usize, fault: Option<Fault>, broker: &Broker) {
        let frame = self.frames[index].frame();
        let name = frame.headers.value(Name::Destination);
        self.needed = fault
            .as_ref()
            .zip(name)
            .and_then(|(fault, name)| Needed::of(fault, name, &broker.limits));
        self.fault = fault;
        (self.phase, self.next) = match self.needed {
            Some(_) => (Phase::Counting, index),
            None => (Phase::GivingBack { until: index }, 0),
        };
    }

    /// Adds a step for which nothing is reserved to what the transaction needs: at once, or as it is given back.
    fn count(&mut self, index: usize, broker: &mut Broker, now: Moment) {
        if let Some(plan) = self.count_now(index, broker, now) {
            self.frames[index].plan = plan;
        }
    }

    /// As [`Self::count`]. Returns what is to be given back.
    fn count_now(&mut self, index: usize, broker: &mut Broker, now: Moment) -> Option<Plan> {
        let frame = self.frames[index].frame();
        let name = frame.headers.value(Name::Destination);
        let name = name.filter(|_| frame.command == Command::Send)?;
        let expires_ms = read_expiry(&frame.headers, now).ok()??;
        if broker.count_unreserved(name) {
            return Some(Plan::Send(Some(expires_ms)));
        }
        if let Some(needed) = &mut self.needed {
            needed.add(name, true);
        }
        None
    }

    /// Returns what was reserved for a step.
    fn give_back(&mut self, index: usize, broker: &mut Broker) {
        let frame = self.frames[index].frame();
        match self.frames[index].plan {
            Plan::Send(Some(_)) => {
                let destination = frame.headers.value(Name::Destination).unwrap_or_default();
                let is_last = broker.give_back(&self.origin, &content_of(&frame, destination));
                if let Some(needed) = &mut self.needed {
                    needed.add(destination, is_last);
                }
            }
            Plan::Send(None) | Plan::Settle(_) | Plan::None => {}
        }
    }

    /// Performs a step, for which there is room.
    fn perform(&mut self, index: usize, broker: &mut Broker, now: Moment) {
        self.give_back(index, broker);
        let frame = self.frames[index].frame();
        match self.frames[index].plan {
            Plan::Send(Some(expires_ms)) if expires_ms >= now.ms() => {
                let destination = frame.headers.value(Name::Destination).unwrap_or_default();
                let content = content_of(&frame, destination);
                let (session, origin) = (self.session, Some(&self.origin));
                let sending = Sending { session, content: &content, expires_ms, origin };
                self.wide = broker.send_reserved(sending, now);
            }
            Plan::Send(_) => broker.counters.messages_expired += 1,
            Plan::Settle(delivery) => {
                let is_consumed = frame.command == Command::Ack;
                self.settling = delivery.map(|delivery| Settle::new(delivery, is_consumed));
            }
            Plan::None => {}
        }
    }

    /// Whether it is performed whatever becomes of the session.
    pub(super) fn is_accepted(&self) -> bool {
        self.phase == Phase::Performing
    }
}

/// An ACK or NACK that settles many messages.
#[derive(Debug)]
pub(super) struct Settle {
    delivery: DeliveryId,
    is_consumed: bool,
    /// The queue that delivers nothing until all are returned to it.
    held_up: Option<DestinationId>,
}

impl Settle {
    pub(super) fn new(delivery: DeliveryId, is_consumed: bool) -> Self {
        Self { delivery, is_consumed, held_up: None }
    }

    /// Settles further messages, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        if broker.settle(self.delivery, self.is_consumed, now) {
            if let Some(queue) = self.held_up.take() {
                broker.release_queue(queue);
            }
            return Progress::Ended;
        }
        let one = broker.subscriptions.get(self.delivery.subscription);
        if let Some(Target::Queue(queue)) = one.map(|one| one.target)
            && !self.is_consumed
            && self.held_up.is_none()
        {
            broker.hold_queue_up(queue);
            self.held_up = Some(queue);
        }
        Progress::More
    }

    /// The queue that delivers nothing meanwhile.
    pub(super) fn held_up(&self) -> Option<DestinationId> {
        self.held_up
    }
}

/// What a session that ends, or moves to another connection, has still to do before it returns the messages that it
/// holds: some of them may be settled by it.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A transaction that is performed.
    Commit(Box<Commit>),
    /// An ACK or NACK.
    Settle(Settle),
}

impl Accepted {
    /// Goes on with it, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        match self {
            Self::Commit(commit) => commit.advance(broker, now),
            Self::Settle(settle) => settle.advance(broker, now),
        }
    }

    /// The queue that delivers nothing meanwhile.
    pub(super) fn held_up(&self) -> Option<DestinationId> {
        match self {
            Self::Commit(commit) => commit.held_up(),
            Self::Settle(settle) => settle.held_up(),
        }
    }

    /// Memory of a message that is on its way.
    pub(super) fn held_bytes(&self) -> u32 {
        match self {
            Self::Commit(commit) => commit.held_bytes(),
            Self::Settle(_) => 0,
        }
    }
}

/// Frees the frames of a transaction.
pub(super) fn free(broker: &mut Broker, transaction: &mut Transaction) -> Progress {
    while let Some(frame) = transaction.frames.pop() {
        broker.meter.spend(work::DELIVERY + work::of_freed(frame.cost_bytes()));
        if broker.is_share_spent() && !transaction.frames.is_empty() {
            return Progress::More;
        }
    }
    let list_bytes = transaction.frames.capacity() * size_of::<HeldFrame>();
    broker.meter.spend(work::of_freed(list_bytes as u64));
    broker.transactions.end_freeing(transaction.bytes);
    Progress::Ended
}

#[cfg(test)]
mod tests {
    use super::super::asker::Asker;
    use super::super::peer::Opening;
    use super::super::{CloseReason, Data, Keys, Options, Speaker};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::Framing;

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    fn broker_with(limits: Limits) -> Broker {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        Broker::new(Options::new(limits, keys, Box::new(|| 1)))
    }

    fn join(broker: &mut Broker, slot: u32, login: &str) -> Speaker {
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let number = u64::from(slot) + 1;
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        let connect = format!(
            "CONNECT\naccept-version:1.2\nhost:h\nlogin:{login}\npasscode:app.service\n\n\0"
        );
        say(broker, &mut speaker, connect.as_bytes());
        heard(broker, &speaker);
        speaker
    }

    fn say(broker: &mut Broker, speaker: &mut Speaker, bytes: &[u8]) {
        broker.handle(speaker, Data::unshared(bytes), NOW);
    }

    /// Takes what waits for a client.
    fn heard(broker: &mut Broker, speaker: &Speaker) -> String {
        let (arena, peer) = broker.peers.outbox(speaker.peer).unwrap();
        if peer.queue.is_empty() {
            return String::new();
        }
        let text = String::from_utf8_lossy(arena.only_run(&peer.queue).unwrap().bytes).into_owned();
        broker.peers.discard_unsent(speaker.peer);
        text
    }

    /// The units that a client's frames take.
    fn units_of(broker: &mut Broker, speaker: &mut Speaker, frames: &str) -> u64 {
        let before = broker.meter.spent();
        say(broker, speaker, frames.as_bytes());
        broker.meter.spent() - before
    }

    #[test]
    fn a_transaction_is_more_work_if_its_names_are_long() {
        for space in ["topic", "queue"] {
            let mut broker = broker_with(Limits::default());
            let mut ana = join(&mut broker, 0, "ana");
            let mut commit = |name: &str| {
                let send =
                    |at| format!("SEND\ntransaction:1\ndestination:/{space}/{name}{at}\n\n\0");
                let sends: String = (0..10).map(send).collect();
                say(&mut broker, &mut ana, format!("BEGIN\ntransaction:1\n\n\0{sends}").as_bytes());
                units_of(&mut broker, &mut ana, "COMMIT\ntransaction:1\n\n\0")
            };
            let (short, long) = (commit("x"), commit(&"x".repeat(3_000)));
            // Twice as many in each of two phases: a name of 3 KB is hashed and compared several times.
            assert!(short > 0 && long >= short + 10 * 2 * 2 * 3, "{short}, {long}");
        }
    }

    /// A transaction whose COMMIT has done nothing but its first step.
    fn begin_large(broker: &mut Broker, ana: &mut Speaker, frames: &str) {
        say(broker, ana, b"BEGIN\ntransaction:1\n\n\0");
        say(broker, ana, frames.as_bytes());
        broker.begin_share(work::FRAME + 1);
        say(broker, ana, b"COMMIT\ntransaction:1\nreceipt:c\n\n\0");
        assert!(broker.peers.peer(ana.peer).is_busy(), "{}", heard(broker, ana));
        broker.check_invariants();
    }

    #[test]
    fn freeing_a_transaction_costs_as_much_as_it_is_large() {
        for end in ["ABORT", "COMMIT"] {
            let mut broker = broker_with(Limits::default());
            let mut ana = join(&mut broker, 0, "ana");
            let mut end_with = |body_bytes: usize| {
                let body = "x".repeat(body_bytes);
                let send = format!("SEND\ntransaction:1\ndestination:/topic/t\n\n{body}\0");
                say(&mut broker, &mut ana, format!("BEGIN\ntransaction:1\n\n\0{send}").as_bytes());
                let before = broker.meter.spent();
                say(&mut broker, &mut ana, format!("{end}\ntransaction:1\n\n\0").as_bytes());
                while broker.has_work() {
                    broker.begin_share(10_000);
                    broker.advance_jobs(NOW);
                }
                broker.meter.spent() - before
            };
            let (small, large) = (end_with(1), end_with(1 << 20));
            assert!(large > small + 1_000, "{end}: {small} and {large}");
        }
    }

    #[test]
    fn a_large_transaction_is_executed_in_slices() {
        let mut broker = broker_with(Limits::default());
        let (mut ana, mut bob) = (join(&mut broker, 0, "ana"), join(&mut broker, 1, "bob"));
        say(&mut broker, &mut bob, b"SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0");
        let frames = "SEND\ndestination:/topic/a\ntransaction:1\n\nnews\0\
            SEND\ndestination:/queue/a\ntransaction:1\n\njob\0";
        begin_large(&mut broker, &mut ana, &frames.repeat(500));
        let mut slices = 0;
        while broker.peers.peer(ana.peer).is_busy() {
            assert_eq!(heard(&mut broker, &ana), "", "the answer comes at the end");
            let before = broker.meter.spent();
            broker.begin_share(300);
            broker.advance_jobs(NOW);
            let spent = broker.meter.spent() - before;
            assert!((1..=320).contains(&spent), "{spent} units in a slice");
            broker.check_invariants();
            slices += 1;
        }
        assert!(slices > 20, "{slices}");
        assert!(heard(&mut broker, &ana).starts_with("RECEIPT\nreceipt-id:c\n"));
        assert_eq!(heard(&mut broker, &bob).matches("\n\nnews\0").count(), 500);
        assert_eq!((broker.store.len(), broker.transactions.bytes()), (500, 0));
    }

    #[test]
    fn what_was_accepted_is_performed_though_its_sender_leaves_and_what_was_not_is_not() {
        for is_accepted in [true, false] {
            let mut broker = broker_with(Limits::default());
            let (mut ana, mut bob) = (join(&mut broker, 0, "ana"), join(&mut broker, 1, "bob"));
            say(&mut broker, &mut bob, b"SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0");
            say(&mut broker, &mut ana, b"SUBSCRIBE\nid:9\ndestination:/queue/a\nack:client\n\n\0");
            say(&mut broker, &mut bob, b"SEND\ndestination:/queue/a\n\njob\0");
            let id = heard(&mut broker, &ana);
            let id = id.lines().find_map(|line| line.strip_prefix("ack:")).unwrap();
            let news = "SEND\ndestination:/topic/a\ntransaction:1\n\nnews\0".repeat(100);
            let frames = format!("{news}ACK\nid:{id}\ntransaction:1\n\n\0");
            begin_large(&mut broker, &mut ana, &frames);
            while is_accepted && heard(&mut broker, &bob).is_empty() {
                broker.begin_share(10);
                broker.advance_jobs(NOW);
            }
            let before = broker.counters.deliveries;
            broker.begin_share(1_000);
            broker.close_peer(ana.peer, CloseReason::Lost, NOW);
            broker.check_invariants();
            while broker.has_work() {
                broker.begin_share(1_000);
                broker.serve_backlog(NOW);
                broker.advance_jobs(NOW);
                broker.check_invariants();
            }
            let news = heard(&mut broker, &bob);
            assert_eq!(broker.counters.deliveries - before > 50, is_accepted, "{news}");
            assert_eq!(news.contains("\norigin:ana\n"), is_accepted, "{news}");
            assert_eq!(broker.store.len(), usize::from(!is_accepted), "acknowledged");
            assert_eq!(broker.transactions.bytes(), 0);
        }
    }

    #[test]
    fn room_is_reserved_until_it_is_used_or_given_back() {
        let limits = Limits { queue_messages_max: 40, destinations_max: 1, ..Limits::default() };
        for is_faulty in [false, true] {
            let mut broker = broker_with(limits.clone());
            let (mut ana, mut bob) = (join(&mut broker, 0, "ana"), join(&mut broker, 1, "bob"));
            let job = "SEND\ndestination:/queue/a\ntransaction:1\n\njob\0";
            let last = if is_faulty { 41 } else { 40 };
            let news = "SEND\ndestination:/topic/a\ntransaction:1\n\nnews\0";
            begin_large(&mut broker, &mut ana, &(news.to_owned() + &job.repeat(last)));
            while broker.reserved.messages_at(b"/queue/a") < 40 {
                broker.begin_share(1);
                broker.advance_jobs(NOW);
                broker.check_invariants();
            }
            let is_full = broker.check_queue_room(b"/queue/a", 1, NOW).unwrap_err();
            assert!(is_full.description.contains("queue_messages_max"), "{is_full:?}");
            let is_full =
                broker.find_or_make_destination(b"/topic/b", Asker::Nobody, NOW).unwrap_err();
            assert!(is_full.description.contains("destinations_max"), "{is_full:?}");
            while broker.has_work() {
                broker.begin_share(1_000);
                broker.advance_jobs(NOW);
            }
            let answer = heard(&mut broker, &ana);
            assert_eq!(answer.starts_with("ERROR\n"), is_faulty, "{answer}");
            assert!(answer.contains("receipt-id:c\n"), "{answer}");
            assert_eq!(broker.store.len(), if is_faulty { 0 } else { 40 });
            broker.check_reserved();
            say(&mut broker, &mut bob, b"SEND\ndestination:/queue/a\nreceipt:r\n\njob\0");
            assert_eq!(heard(&mut broker, &bob).starts_with("RECEIPT"), is_faulty);
        }
    }

    /// The answer to a COMMIT of these frames.
    fn commit(broker: &mut Broker, speaker: &mut Speaker, frames: &str) -> String {
        let frames = format!("BEGIN\ntransaction:1\n\n\0{frames}COMMIT\ntransaction:1\n\n\0");
        broker.begin_share(10_000);
        say(broker, speaker, frames.as_bytes());
        broker.check_invariants();
        while broker.has_work() {
            broker.begin_share(100);
            broker.serve_backlog(NOW);
            broker.advance_jobs(NOW);
            broker.check_invariants();
        }
        heard(broker, speaker)
    }

    /// The frames of a transaction, one or more for each number.
    type Frames = fn(usize) -> String;

    /// A transaction that not even an empty broker has room for would be tried for ever.
    #[test]
    fn a_transaction_that_never_has_room_is_not_to_be_tried_again() {
        let job: Frames = |_| "SEND\ndestination:/queue/a\ntransaction:1\n\njob\0".to_owned();
        let news: Frames = |at| format!("SEND\ndestination:/topic/{at}\ntransaction:1\n\nnews\0");
        let mixed: Frames = |at| {
            let one = format!("SEND\ndestination:/topic/{at}\ntransaction:1\n\nnews\0");
            format!("{one}{one}SEND\ndestination:/queue/a\ntransaction:1\n\njob\0")
        };
        let topic = super::super::destination::DestinationTable::cost_of(b"/topic/10");
        let limits = |messages, topics, bytes| Limits {
            queue_messages_max: messages,
            destinations_max: topics,
            destinations_bytes_max: bytes,
            ..Limits::default()
        };
        for (limit, frames, limits) in [
            ("queue_messages_max", job, limits(40, 40, 1 << 20)),
            ("destinations_max", news, limits(40, 40, 1 << 20)),
            ("destinations_bytes_max", news, limits(40, 1_000, 40 * topic)),
            ("destinations_max", mixed, limits(1_000, 40, 1 << 20)),
            ("destinations_bytes_max", mixed, limits(1_000, 1_000, 40 * topic)),
        ] {
            for (taken, count, retry) in [
                (0, 41, "\nretry:never\n"),
                (0, 400, "\nretry:never\n"),
                (10, 31, "\nretry:later\n"),
                (10, 300, "\nretry:never\n"),
                (0, 40, ""),
            ] {
                let answer =
                    commit_beside(&limits, taken, &(0..count).map(frames).collect::<String>());
                assert_eq!(answer.is_empty(), retry.is_empty(), "{count} for {limit}: {answer}");
                let names = retry.is_empty() || answer.contains(limit);
                assert!(names && answer.contains(retry), "{count} for {limit}: {answer}");
            }
        }
    }

    /// The answer to a COMMIT where another client has taken so many topics, and has sent as many messages.
    fn commit_beside(limits: &Limits, taken: usize, frames: &str) -> String {
        let mut broker = broker_with(limits.clone());
        let (mut ana, mut bob) = (join(&mut broker, 0, "ana"), join(&mut broker, 1, "bob"));
        for at in 0..taken {
            let own = format!("SUBSCRIBE\nid:{at}\ndestination:/topic/9{at}9\n\n\0");
            say(&mut broker, &mut bob, own.as_bytes());
            say(&mut broker, &mut bob, b"SEND\ndestination:/queue/a\n\njob\0");
        }
        let answer = commit(&mut broker, &mut ana, frames);
        broker.check_reserved();
        answer
    }

    /// Near the bound: a transaction that is being executed has reserved most, and another sender has little stored.
    #[test]
    fn who_has_reserved_most_pays_and_not_who_has_stored_little() {
        for is_performed in [false, true] {
            let limits = Limits { queues_bytes_max: 400_000, ..Limits::default() };
            let mut broker = broker_with(limits);
            let mut bob = join(&mut broker, 1, "bob");
            let mut ana = join(&mut broker, 0, "ana");
            let mut eve = join(&mut broker, 2, "eve");
            let body = "x".repeat(900);
            let job = format!("SEND\ndestination:/queue/a\nreceipt:r\n\n{body}\0");
            (0..20).for_each(|_| say(&mut broker, &mut bob, job.as_bytes()));
            let inside = format!("SEND\ndestination:/queue/a\ntransaction:1\n\n{body}\0");
            begin_large(&mut broker, &mut ana, &inside.repeat(250));
            let room = |broker: &Broker| {
                let all = broker.store.bytes() + broker.reserved.bytes;
                broker.limits.queues_bytes_max.saturating_sub(all)
            };
            let count = |broker: &Broker| broker.reserved.messages_at(b"/queue/a");
            while count(&broker) < if is_performed { 250 } else { 240 } {
                broker.begin_share(1);
                broker.advance_jobs(NOW);
                broker.check_invariants();
            }
            // Another one fills what is left, and a little more.
            let reserved = broker.reserved.bytes;
            while room(&broker) > 0 {
                broker.begin_share(1);
                say(&mut broker, &mut eve, job.as_bytes());
            }
            (0..3).for_each(|_| say(&mut broker, &mut eve, job.as_bytes()));
            assert_eq!(broker.reserved.bytes, reserved);
            assert!(!heard(&mut broker, &eve).contains("ERROR"));
            let stored_of = |broker: &Broker, name: &[u8]| broker.store.bytes_of(name).0;
            let (bobs, eves) =
                (stored_of(&broker, b"/service/bob"), stored_of(&broker, b"/service/eve"));
            assert!(bobs > 20_000 && eves > 3_000, "{bobs}, {eves}");
            while broker.has_work() {
                broker.begin_share(1_000);
                broker.serve_backlog(NOW);
                broker.advance_jobs(NOW);
                broker.check_invariants();
            }
            assert_eq!(stored_of(&broker, b"/service/bob"), bobs, "{is_performed}");
            assert_eq!(stored_of(&broker, b"/service/eve"), eves, "{is_performed}");
            let answer = heard(&mut broker, &ana);
            assert_eq!(answer.contains("LIMIT_EXCEEDED"), !is_performed, "{answer}");
            assert_eq!(answer.contains("retry:later"), !is_performed, "{answer}");
            let anas = stored_of(&broker, b"/service/ana");
            assert_eq!(anas > 100_000, is_performed, "{anas}");
            assert!(broker.store.bytes() <= broker.limits.queues_bytes_max);
        }
    }

    #[test]
    fn a_queue_is_served_while_a_consumer_leaves_whose_session_has_ended() {
        let mut broker = broker_with(Limits::default());
        let (mut ana, mut bob) = (join(&mut broker, 0, "ana"), join(&mut broker, 1, "bob"));
        for id in 0..10 {
            let frame = format!("SUBSCRIBE\nid:{id}\ndestination:/queue/a\n\n\0");
            say(&mut broker, &mut bob, frame.as_bytes());
        }
        broker.begin_share(1);
        broker.close_peer(bob.peer, CloseReason::Lost, NOW);
        assert!(broker.leaving_len() > 0, "consumers are left");
        say(&mut broker, &mut ana, b"SEND\ndestination:/queue/a\n\njob\0");
        broker.begin_share(1_000);
        broker.advance_jobs(NOW);
        assert_eq!((broker.store.len(), broker.leaving_len()), (1, 0));
        broker.check_invariants();
    }
}
