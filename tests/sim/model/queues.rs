//! What must hold of messages in queues, whoever gets them: each waits, is held by one consumer, or is
//! gone; it is never with two, and never with none.
//!
//! A history is kept of each message, in ticks: when it was sent, when each consumer was written it, when
//! it was settled; and of each connection and subscription, when it ended. It is judged once all is over,
//! for a client may read very late what it was written.

use std::collections::BTreeMap;

use super::Number;

/// The histories. Messages are told apart by their bodies.
#[derive(Default)]
pub(crate) struct Queues {
    messages: BTreeMap<String, Message>,
    /// Connections that ended, and when.
    ends: BTreeMap<Number, u64>,
    /// Subscriptions that ended before their connection did, and when.
    unsubscribed: BTreeMap<(Number, String), u64>,
    /// Who ever subscribed to a queue so that what is written to it is consumed.
    automatic: BTreeMap<String, Vec<Number>>,
}

#[derive(Debug)]
struct Message {
    queue: String,
    is_dead: bool,
    deliveries: Vec<Delivery>,
    /// Who settled it, when, and whether by an ACK.
    settled: Vec<(Number, u64, bool)>,
}

#[derive(Debug)]
struct Delivery {
    to: Number,
    subscription: String,
    tick: u64,
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fates {
    pub(crate) acknowledged: u64,
    pub(crate) automatic: u64,
    pub(crate) returned: u64,
    pub(crate) dead: u64,
    pub(crate) lost: u64,
}

impl Fates {
    /// Adds up.
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.automatic += other.automatic;
        self.returned += other.returned;
        self.dead += other.dead;
        self.lost += other.lost;
    }
}

impl Queues {
    /// A message was sent; in a transaction, when that was done.
    pub(crate) fn note_sent(&mut self, body: String, queue: &str, tick: u64) {
        let (queue, deliveries, settled) = (queue.to_owned(), Vec::new(), Vec::new());
        let message = Message { queue, is_dead: false, deliveries, settled };
        let before = self.messages.insert(body, message);
        assert!(before.is_none(), "two messages have one body, at {tick}");
    }

    /// A message was written to a consumer, perhaps from the dead letter queue.
    pub(crate) fn note_delivered(
        &mut self,
        body: &str,
        to: Number,
        subscription: String,
        is_dead: bool,
        tick: u64,
    ) {
        let message = self.messages.get_mut(body);
        let message = message.unwrap_or_else(|| panic!("{to:?} gets what nobody sent: {body}"));
        message.is_dead |= is_dead;
        message.deliveries.push(Delivery { to, subscription, tick });
    }

    /// A consumer named a message in an ACK or NACK, which was read.
    pub(crate) fn note_settled(&mut self, body: &str, by: Number, is_ack: bool, tick: u64) {
        let message = self.messages.get_mut(body).expect("a message that was sent");
        message.settled.push((by, tick, is_ack));
    }

    pub(crate) fn note_subscribed(&mut self, by: Number, id: &str, destination: &str) {
        if is_automatic(id) && destination.starts_with("/queue/") {
            self.automatic.entry(destination.to_owned()).or_default().push(by);
        }
    }

    pub(crate) fn note_unsubscribed(&mut self, by: Number, id: &str, tick: u64) {
        self.unsubscribed.entry((by, id.to_owned())).or_insert(tick);
    }

    pub(crate) fn note_end(&mut self, of: Number, tick: u64) {
        self.ends.entry(of).or_insert(tick);
    }

    /// Judges all histories. `has_read_all` says whether a client that is gone read what it was written;
    /// `is_over` whether whatever waited was consumed in the end.
    pub(crate) fn judge(&self, has_read_all: impl Fn(Number) -> bool, is_over: bool) -> Fates {
        let mut fates = Fates::default();
        for (body, message) in &self.messages {
            let is_gone = self.judge_one(body, message, &mut fates);
            // What is written to a consumer that acknowledges by itself is consumed, read or not.
            let automatic = self.automatic.get(&message.queue).into_iter().flatten();
            let dead = self.automatic.get(DEAD).into_iter().flatten();
            let is_lost = automatic.chain(dead).any(|consumer| !has_read_all(*consumer));
            fates.lost += u64::from(!is_gone && is_lost);
            assert!(is_gone || is_lost || !is_over, "nobody has {body} of {}", message.queue);
        }
        fates
    }

    /// Says whether a message was consumed.
    fn judge_one(&self, body: &str, message: &Message, fates: &mut Fates) -> bool {
        let mut deliveries: Vec<_> = message.deliveries.iter().collect();
        deliveries.sort_by_key(|delivery| delivery.tick);
        fates.returned += u64::from(deliveries.len() > 1);
        fates.dead += u64::from(message.is_dead);
        // Since when it is free again, and whether it is gone.
        let (mut free_from, mut is_gone) = (0, false);
        for delivery in deliveries {
            let Delivery { to, subscription, tick } = delivery;
            let ended = self.ends.get(to).copied().unwrap_or(u64::MAX);
            let unsubscribed = self.unsubscribed.get(&(*to, subscription.clone())).copied();
            let ended = ended.min(unsubscribed.unwrap_or(u64::MAX));
            // It was still on its way to one that had lost it.
            if *tick >= ended && !is_automatic(subscription) {
                continue;
            }
            assert!(!is_gone, "{to:?} gets {body}, which was consumed");
            let history = || format!("{message:?}, {:?}, {:?}", self.ends, self.unsubscribed);
            assert!(
                free_from <= *tick,
                "{to:?} gets {body} at {tick}, held until {free_from}: {}",
                history()
            );
            if is_automatic(subscription) {
                is_gone = true;
                fates.automatic += 1;
                continue;
            }
            let mut settled =
                message.settled.iter().filter(|(by, when, _)| by == to && when > tick);
            match settled.next() {
                Some((_, when, is_ack)) if *when <= ended => {
                    is_gone = *is_ack;
                    fates.acknowledged += u64::from(*is_ack);
                    free_from = *when;
                }
                _ => free_from = ended,
            }
        }
        is_gone
    }
}

/// Where messages go that come back too often.
pub(crate) const DEAD: &str = "/queue/dead";

/// Whether messages that a subscription brings are consumed when they are sent.
fn is_automatic(subscription: &str) -> bool {
    subscription.starts_with("auto-")
}
