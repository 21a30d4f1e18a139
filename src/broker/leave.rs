//! Subscriptions of a session that ends or moves to another connection: what its consumers hold returns to the queues,
//! in slices, once the session has done what was accepted from it.

use super::asker::PURPOSES;
use super::encoding::Encoding;
use super::execute::Accepted;
use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::returns::Returns;
use super::subscription::Target;
use super::{Broker, Moment};
use crate::work::{self, Progress};

/// The end of subscriptions that no session lists any more.
#[derive(Debug)]
pub(super) struct Leave {
    accepted: Option<Accepted>,
    subscriptions: Vec<SubscriptionIndex>,
    /// The subscription that is next. Some behind it may have ended, for somebody who needed room.
    next: usize,
    /// How far they were sought, by purpose.
    sought: [usize; PURPOSES],
    /// How many were noted to return what they hold; then all of that is returned.
    noted: usize,
    returns: Returns,
    /// Queues whose consumers were among them, to be served once all are ended.
    queues: Vec<DestinationId>,
}

impl Leave {
    /// Subscriptions that end once their session has done what was accepted from it.
    pub(super) fn new(accepted: Option<Accepted>, subscriptions: Vec<SubscriptionIndex>) -> Self {
        let (returns, queues) = (Returns::default(), Vec::new());
        Self { accepted, subscriptions, next: 0, sought: [0; PURPOSES], noted: 0, returns, queues }
    }

    /// Whether something is not done that was accepted from the session.
    pub(super) fn has_accepted(&self) -> bool {
        self.accepted.is_some()
    }

    /// The subscriptions that are left; some may have ended.
    pub(super) fn left(&self) -> &[SubscriptionIndex] {
        &self.subscriptions[self.next..]
    }

    /// Memory of a message that is on its way.
    pub(super) fn held_bytes(&self) -> u32 {
        self.accepted.as_ref().map_or(0, Accepted::held_bytes)
    }

    /// The next subscription that was not sought for a purpose before.
    pub(super) fn seek(&mut self, purpose: usize) -> Option<SubscriptionIndex> {
        let position = self.sought[purpose].max(self.next);
        let found = self.subscriptions.get(position).copied()?;
        self.sought[purpose] = position + 1;
        Some(found)
    }

    /// Ends further subscriptions, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        loop {
            if let Some(accepted) = &mut self.accepted {
                match accepted.advance(broker, now) {
                    Progress::Ended => self.accepted = None,
                    unfinished => return unfinished,
                }
            } else if let Some(index) = self.subscriptions.get(self.noted).copied() {
                self.returns.note(index, broker);
                self.noted += 1;
            } else if self.returns.advance(broker, now) != Progress::Ended {
                return Progress::More;
            } else if let Some(index) = self.left().first().copied() {
                self.end(index, broker, now);
            } else if let Some(id) = self.queues.pop() {
                broker.serve_queue(id, now);
                broker.release_destination(id);
            }
            if self.left().is_empty() && self.queues.is_empty() && self.accepted.is_none() {
                return Progress::Ended;
            }
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
    }

    /// The queue that delivers nothing meanwhile.
    pub(super) fn held_up(&self) -> Option<DestinationId> {
        let accepted = self.accepted.as_ref().and_then(Accepted::held_up);
        accepted.or_else(|| self.returns.held_up())
    }

    /// Ends a subscription, which holds nothing any more.
    fn end(&mut self, index: SubscriptionIndex, broker: &mut Broker, now: Moment) {
        self.next += 1;
        if let Some(id) = broker.end_subscription(index, now) {
            broker.release_destination(id);
            if self.queues.last() != Some(&id) {
                self.queues.push(id);
            }
        }
    }
}

/// The subscriptions of a session that has moved to another connection, which resumes them. Until what the earlier
/// connection has got of queues is returned, their consumers get nothing.
#[derive(Debug)]
pub(super) struct Inherit {
    accepted: Option<Accepted>,
    session: SessionId,
    /// How often the session had moved then. Once it has moved again, a later job takes over all of them.
    moves: u32,
    subscriptions: Vec<SubscriptionIndex>,
    /// How many were noted to return what they hold; then all of that is returned.
    noted: usize,
    returns: Returns,
    /// How many are taken over.
    taken: usize,
}

impl Inherit {
    /// Subscriptions that are taken over once their session has done what was accepted from it.
    pub(super) fn new(
        accepted: Option<Accepted>,
        (session, moves): (SessionId, u32),
        subscriptions: Vec<SubscriptionIndex>,
    ) -> Self {
        let returns = Returns::default();
        Self { accepted, session, moves, subscriptions, noted: 0, returns, taken: 0 }
    }

    /// Whether something is not done that was accepted from the session.
    pub(super) fn has_accepted(&self) -> bool {
        self.accepted.is_some()
    }

    /// The queue that delivers nothing meanwhile.
    pub(super) fn held_up(&self) -> Option<DestinationId> {
        let accepted = self.accepted.as_ref().and_then(Accepted::held_up);
        accepted.or_else(|| self.returns.held_up())
    }

    /// What was accepted from the session and is not done, for the next connection or the end of the session.
    pub(super) fn take_accepted(&mut self) -> Option<Accepted> {
        self.accepted.take()
    }

    /// Takes over further subscriptions, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        loop {
            if let Some(accepted) = &mut self.accepted {
                match accepted.advance(broker, now) {
                    Progress::Ended => self.accepted = None,
                    unfinished => return unfinished,
                }
            } else if broker.sessions.get(self.session).is_none_or(|one| one.moves != self.moves) {
                self.returns.end(broker);
                return Progress::Ended;
            } else if broker.list_waiter(self.session) {
                // Those that waited for room in the queue of the earlier connection.
            } else if let Some(index) = self.subscriptions.get(self.noted).copied() {
                self.returns.note(index, broker);
                self.noted += 1;
            } else if self.returns.advance(broker, now) != Progress::Ended {
                return Progress::More;
            } else if let Some(index) = self.subscriptions.get(self.taken).copied() {
                broker.meter.spend(work::DELIVERY);
                self.taken += 1;
                if !broker.adapt_to_classic(self.session, index, now) {
                    broker.readmit(index);
                }
            } else {
                return Progress::Ended;
            }
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
    }
}

/// A client that waits until what was accepted from earlier connections with its login id is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follow {
    session: SessionId,
}

impl Follow {
    /// The client of a session that has got a new connection.
    pub(super) fn new(session: SessionId) -> Self {
        Self { session }
    }

    /// Waits as long as it is not.
    pub(super) fn advance(self, broker: &Broker) -> Progress {
        let session = broker.sessions.get(self.session);
        let login = session.map(|session| session.login(&broker.destinations));
        match login.is_some_and(|login| broker.jobs.are_left_by(login)) {
            true => Progress::Waits,
            false => Progress::Ended,
        }
    }
}

impl Broker {
    /// Adapts a subscription of a session that has moved to a classic connection: a classic client cannot
    /// acknowledge, gets messages to its address without a subscription, and gets one copy of all others, by however
    /// many subscriptions; these have no ids. Returns whether it is no consumer of a queue any more.
    fn adapt_to_classic(&mut self, id: SessionId, index: SubscriptionIndex, now: Moment) -> bool {
        let Self { sessions, subscriptions, destinations, peers, .. } = self;
        let (Some(session), Some(one)) = (sessions.get_mut(id), subscriptions.get(index)) else {
            return true;
        };
        if one.standard.is_none() || peers.peer(session.peer).encoding != Encoding::Classic {
            return one.standard.is_none();
        }
        let is_unfit = matches!(one.target, Target::Queue(_) | Target::Own(_));
        if is_unfit {
            self.unsubscribe_at_once(index, now);
        } else {
            session.release(index, subscriptions, destinations);
            subscriptions.make_classic(index);
            session.hold(index, subscriptions, destinations);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{CloseReason, Data, Done, Fault, Keys, Options, Speaker};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::{FrameRun, Framing};

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    fn broker_with(limits: Limits) -> Broker {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        Broker::new(Options::new(limits, keys, Box::new(|| 1)))
    }

    fn join(broker: &mut Broker, slot: u32, login: &str) -> Speaker {
        join_saying(broker, slot, login, "")
    }

    /// Logs a client in whose next frames arrive with its CONNECT.
    fn join_saying(broker: &mut Broker, slot: u32, login: &str, more: &str) -> Speaker {
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let number = u64::from(slot) + 1;
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        let connect = format!("CONNECT\naccept-version:1.2\nhost:h\n{login}\n\n\0{more}");
        say(broker, &mut speaker, &connect);
        speaker
    }

    fn say(broker: &mut Broker, who: &mut Speaker, text: &str) -> Done {
        broker.handle(who, Data::unshared(text.as_bytes()), NOW)
    }

    /// Takes what waits for a client.
    fn heard(broker: &mut Broker, speaker: &Speaker) -> String {
        let (arena, peer) = broker.peers.outbox(speaker.peer).unwrap();
        let mut staged = FrameRun::default();
        assert!(arena.stage(&peer.queue, peer.framing, usize::MAX, &mut staged), "of this turn");
        broker.peers.discard_unsent(speaker.peer);
        String::from_utf8_lossy(staged.as_slice().bytes).into_owned()
    }

    /// A turn in which so much is done. Clients without a job are handled again.
    fn turn(broker: &mut Broker, units: u32, clients: &mut [&mut Speaker]) {
        broker.begin_share(units);
        broker.advance_jobs(NOW);
        broker.begin_share(units);
        broker.serve_backlog(NOW);
        for client in clients {
            if broker.peers.get(client.peer).is_some_and(|peer| !peer.is_busy()) {
                broker.resume(client, NOW);
            }
        }
        broker.check_invariants();
    }

    const RESUMES: &str = "login:ana\npasscode:app.super\nresume:true";

    #[test]
    fn what_is_taken_over_twice_at_once_comes_once_to_the_last_connection() {
        for units in [10, 50, 300, 5_000] {
            let mut broker = broker_with(Limits::default());
            let mut bob = join(&mut broker, 0, "login:bob\npasscode:app.service");
            let mut ana = join(&mut broker, 1, RESUMES);
            for queue in 0..50 {
                let text = format!(
                    "SUBSCRIBE\nid:{queue}\ndestination:/queue/{queue}\nack:client-individual\n\n\0"
                );
                say(&mut broker, &mut ana, &text);
                let text = format!("SEND\ndestination:/queue/{queue}\n\nx\0").repeat(10);
                say(&mut broker, &mut bob, &text);
            }
            assert_eq!(heard(&mut broker, &ana).matches("MESSAGE\n").count(), 500);
            broker.begin_share(1);
            let mut second = join(&mut broker, 2, RESUMES);
            broker.begin_share(1);
            let mut third = join(&mut broker, 3, RESUMES);
            while broker.has_work() {
                turn(&mut broker, units, &mut [&mut second, &mut third]);
            }
            let got = heard(&mut broker, &third);
            assert_eq!(got.matches("MESSAGE\n").count(), 500, "{units} units in a turn");
        }
    }

    /// A broker whose turns are short.
    struct Stage {
        broker: Broker,
        readers: Vec<Speaker>,
    }

    impl Stage {
        /// So many subscribers of a topic that a message to it is wide.
        fn new() -> Self {
            let mut broker = broker_with(Limits { turn_units_max: 100, ..Limits::default() });
            let mut readers = Vec::new();
            for slot in 0..40 {
                let login = format!("login:r{slot}\npasscode:app.agent\ninbox:true");
                let mut reader = join(&mut broker, slot, &login);
                say(&mut broker, &mut reader, "SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0");
                heard(&mut broker, &reader);
                readers.push(reader);
            }
            Self { broker, readers }
        }

        /// The bodies that a reader has got.
        fn bodies(&mut self, reader: usize) -> Vec<String> {
            let got = heard(&mut self.broker, &self.readers[reader]);
            let bodies = got.split('\0').filter_map(|frame| Some(frame.split_once("\n\n")?.1));
            bodies.map(str::to_owned).collect()
        }

        /// Ana commits a transaction, is replaced, and the broker shuts down meanwhile.
        fn drain_across(&mut self, changes: &[Change], units: u32) {
            let broker = &mut self.broker;
            let mut ana = join(broker, 50, "login:ana\npasscode:app.super");
            broker.begin_share(100);
            say(broker, &mut ana, COMMIT);
            turn(broker, 10, &mut []);
            for (number, change) in (0..).zip(changes) {
                // The last of them comes when the drain has begun.
                if number + 1 == changes.len() {
                    broker.drain(NOW);
                }
                broker.begin_share(10);
                if *change == Change::Closes {
                    broker.close_peer(ana.peer, CloseReason::Lost, NOW);
                } else {
                    let login = format!(
                        "login:ana\npasscode:app.super\nresume:{}",
                        *change == Change::Resumes
                    );
                    ana = join(broker, 51 + number as u32, &login);
                }
            }
            while broker.has_work() {
                turn(broker, units, &mut []);
            }
        }

        /// Ana sends something, and more from the last of the connections that follow. So much is done in each turn.
        fn send_across(&mut self, sent: &str, changes: &[Change], units: u32) {
            let login = "login:ana\npasscode:app.super";
            let broker = &mut self.broker;
            let mut ana = join(broker, 50, login);
            say(broker, &mut ana, "SUBSCRIBE\nid:1\ndestination:/topic/b\n\n\0");
            broker.begin_share(100);
            say(broker, &mut ana, sent);
            // A transaction is accepted once it is checked.
            turn(broker, 10, &mut []);
            assert!(broker.peers.peer(ana.peer).is_busy(), "{changes:?}");
            for (number, change) in (1..).zip(changes) {
                broker.begin_share(10);
                match change {
                    Change::Closes => broker.close_peer(ana.peer, CloseReason::Lost, NOW),
                    Change::Fails => {
                        broker.refuse(ana.peer, &Fault::silent("silence_ms_max"), NOW);
                    }
                    Change::Resumes | Change::Starts => {}
                }
                let login = format!("{login}\nresume:{}", *change == Change::Resumes);
                let is_last = number == changes.len();
                let more = if is_last { "SEND\ndestination:/agent/r39\n\n3\0" } else { "" };
                ana = join_saying(broker, 50 + number as u32, &login, more);
            }
            assert!(heard(broker, &ana).starts_with("CONNECTED\n"));
            while broker.has_work() {
                turn(broker, units, &mut [&mut ana]);
            }
        }
    }

    /// How a client is replaced by the next one with its login id.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Change {
        Resumes,
        Starts,
        Closes,
        Fails,
    }

    const WIDE: &str = "SEND\ndestination:/topic/a\n\n1\0SEND\ndestination:/topic/a\n\n2\0";
    const COMMIT: &str = "BEGIN\ntransaction:t\n\n\0\
        SEND\ntransaction:t\ndestination:/topic/a\n\n1\0\
        SEND\ntransaction:t\ndestination:/topic/a\n\n2\0\
        COMMIT\ntransaction:t\n\n\0";

    #[test]
    fn a_drain_waits_for_what_was_accepted_from_a_client_that_was_replaced() {
        use Change::{Closes, Resumes, Starts};
        for changes in [
            &[Resumes, Closes][..],
            &[Starts, Closes],
            &[Closes],
            &[Resumes],
            &[Starts],
            &[Resumes, Resumes],
            &[Resumes, Starts],
        ] {
            for units in [10, 100, 1_000] {
                let mut stage = Stage::new();
                stage.drain_across(changes, units);
                for reader in 0..40 {
                    let bodies = stage.bodies(reader);
                    assert!(bodies.starts_with(&["1".to_owned(), "2".to_owned()]), "{changes:?}");
                }
            }
        }
    }

    #[test]
    fn what_the_next_connection_sends_comes_behind_what_was_accepted_before() {
        use Change::{Closes, Fails, Resumes, Starts};
        for sent in [WIDE, COMMIT] {
            for changes in [
                &[Resumes][..],
                &[Starts],
                &[Closes],
                &[Fails],
                &[Starts, Starts],
                &[Starts, Resumes],
                &[Resumes, Starts],
                &[Closes, Resumes],
                &[Closes, Closes],
                &[Starts, Closes],
            ] {
                for units in [1, 100] {
                    let mut stage = Stage::new();
                    stage.send_across(sent, changes, units);
                    let what = format!("{changes:?}, {sent}, {units} units in a turn");
                    assert_eq!(stage.bodies(0), ["1", "2"], "{what}");
                    assert_eq!(stage.bodies(39), ["1", "2", "3"], "{what}");
                    assert!(!stage.broker.jobs.are_left_by(b"ana"), "{what}");
                }
            }
        }
    }
}
