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
    subscriptions: std::vec::IntoIter<SubscriptionIndex>,
    /// A consumer that holds messages.
    under_way: Option<SubscriptionIndex>,
}

impl Inherit {
    /// Subscriptions that are taken over once their session has done what was accepted from it.
    pub(super) fn new(
        accepted: Option<Accepted>,
        session: SessionId,
        subscriptions: Vec<SubscriptionIndex>,
    ) -> Self {
        Self { accepted, session, subscriptions: subscriptions.into_iter(), under_way: None }
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
