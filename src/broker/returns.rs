//! The return of what consumers hold, queue by queue, in slices. While a queue gets messages back it delivers nothing:
//! else others would get what was sent last, then what is returned first, and so on in turn. That takes no longer than
//! the return of what is its own, so nobody holds a queue up by what he holds of others.

use std::collections::BTreeSet;

use super::ids::{DestinationId, SubscriptionIndex};
use super::subscription::Target;
use super::{Broker, Moment};
use crate::work::{self, Progress};

/// Consumers whose messages return.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// Those that held something when they were noted, by queue.
    holders: BTreeSet<(DestinationId, SubscriptionIndex)>,
    /// The queue that delivers nothing meanwhile.
    held_up: Option<DestinationId>,
}

impl Returns {
    /// Notes a subscription, if it is a consumer that holds messages.
    pub(super) fn note(&mut self, index: SubscriptionIndex, broker: &mut Broker) {
        broker.meter.spend(work::DELIVERY);
        let one = broker.subscriptions.get(index).filter(|one| !one.holds_nothing());
        if let Some(Target::Queue(queue)) = one.map(|one| one.target) {
            self.holders.insert((queue, index));
        }
    }

    /// Returns further messages, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        while let Some((queue, consumer)) = self.holders.first().copied() {
            if self.held_up != Some(queue) {
                self.end(broker);
                broker.hold_queue_up(queue);
                self.held_up = Some(queue);
            }
            if broker.return_held(consumer, now) {
                self.holders.pop_first();
            }
            if broker.is_share_spent() && !self.holders.is_empty() {
                return Progress::More;
            }
        }
        self.end(broker);
        Progress::Ended
    }

    /// Has the queue deliver again.
    pub(super) fn end(&mut self, broker: &mut Broker) {
        if let Some(queue) = self.held_up.take() {
            broker.release_queue(queue);
        }
    }

    /// The queue that delivers nothing meanwhile.
    pub(super) fn held_up(&self) -> Option<DestinationId> {
        self.held_up
    }
}

impl Broker {
    /// Has a queue deliver nothing, until all are back that are being returned to it.
    pub(super) fn hold_queue_up(&mut self, queue: DestinationId) {
        self.change_queue(queue, |one, _| one.returning += 1);
    }

    /// Has a queue deliver again, unless others return messages to it, too.
    pub(super) fn release_queue(&mut self, queue: DestinationId) {
        self.change_queue(queue, |one, _| one.returning -= 1);
        self.destinations.note_backlog(queue);
        self.leftover.is_servable = true;
    }
}
