//! Subscriptions of a session that ends or moves to another connection: what its consumers hold returns to the queues,
//! in slices, once the session has done what was accepted from it.

use super::encoding::Encoding;
use super::execute::Accepted;
use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::shares::PURPOSES;
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
    /// Queues whose consumers were among them, to be served once all are ended.
    queues: Vec<DestinationId>,
}

impl Leave {
    /// Subscriptions that end once their session has done what was accepted from it.
    pub(super) fn new(accepted: Option<Accepted>, subscriptions: Vec<SubscriptionIndex>) -> Self {
        Self { accepted, subscriptions, next: 0, sought: [0; PURPOSES], queues: Vec::new() }
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

    fn end(&mut self, index: SubscriptionIndex, broker: &mut Broker, now: Moment) {
        if !broker.return_held(index, now) {
            return;
        }
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
/// connection has got of a queue is returned, a consumer gets nothing.
#[derive(Debug)]
pub(super) struct Inherit {
    accepted: Option<Accepted>,
    session: SessionId,
    /// How often the session had moved then. Once it has moved again, a later job takes over all of them.
    moves: u32,
    subscriptions: std::vec::IntoIter<SubscriptionIndex>,
    /// A consumer that holds messages.
    under_way: Option<SubscriptionIndex>,
}

impl Inherit {
    /// Subscriptions that are taken over once their session has done what was accepted from it.
    pub(super) fn new(
        accepted: Option<Accepted>,
        (session, moves): (SessionId, u32),
        subscriptions: Vec<SubscriptionIndex>,
    ) -> Self {
        let subscriptions = subscriptions.into_iter();
        Self { accepted, session, moves, subscriptions, under_way: None }
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
                return Progress::Ended;
            } else if broker.list_waiter(self.session) {
                // Those that waited for room in the queue of the earlier connection.
            } else if let Some(index) = self.under_way.take().or_else(|| self.subscriptions.next())
            {
                broker.meter.spend(work::DELIVERY);
                if !broker.return_held(index, now) {
                    self.under_way = Some(index);
                } else if !broker.adapt_to_classic(self.session, index, now) {
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
            subscriptions[index].standard = None;
            session.hold(index, subscriptions, destinations);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{Data, Done, Keys, Options, Speaker};
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
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let number = u64::from(slot) + 1;
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        let connect = format!("CONNECT\naccept-version:1.2\nhost:h\n{login}\n\n\0");
        say(broker, &mut speaker, &connect);
        speaker
    }

    fn say(broker: &mut Broker, who: &mut Speaker, text: &str) -> Done {
        broker.handle(who, Data { bytes: text.as_bytes(), is_binary: false }, NOW)
    }

    /// Takes what waits for a client.
    fn heard(broker: &mut Broker, speaker: &Speaker) -> String {
        let (arena, peer) = broker.peers.outbox(speaker.peer).unwrap();
        let mut staged = FrameRun::default();
        assert!(arena.stage(&peer.queue, peer.framing, usize::MAX, &mut staged), "of this turn");
        broker.peers.discard_unsent(speaker.peer);
        String::from_utf8_lossy(staged.as_slice().bytes).into_owned()
    }

    /// A turn in which so much is done. Clients whose job has ended are handled again.
    fn turn(broker: &mut Broker, units: u32, clients: &mut [&mut Speaker]) {
        broker.begin_share(units);
        broker.advance_jobs(NOW);
        broker.begin_share(units);
        broker.serve_backlog(NOW);
        while let Some(news) = broker.take_news() {
            let resumed = clients
                .iter_mut()
                .find(|one| broker.peers.get(one.peer).is_some_and(|peer| peer.slot == news.slot));
            if let Some(speaker) = resumed.filter(|_| news.has_ended) {
                broker.resume(speaker, NOW);
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
}
