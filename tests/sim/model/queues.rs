//! Invariants of messages in queues, whichever consumer gets them: each waits, is held by one consumer, or
//! is gone; never two consumers hold it, and it never disappears.
//!
//! A history of each message is kept in ticks: when it was sent, written to each consumer, and settled;
//! and of each connection and subscription, when it ended. Histories are judged at the end, since a client
//! may read very late.

use std::collections::BTreeMap;

use super::Number;

/// The histories. Messages are identified by their bodies.
#[derive(Default)]
pub(crate) struct Queues {
    messages: BTreeMap<String, Message>,
    /// Connections that ended, and when.
    ends: BTreeMap<Number, u64>,
    /// Subscriptions that ended before their connection did, and when.
    unsubscribed: BTreeMap<(Number, String), u64>,
    /// Consumers of each queue without acknowledgements, for which a written message is consumed.
    automatic: BTreeMap<String, Vec<Number>>,
    /// The number of deliveries.
    delivered: u64,
}

#[derive(Debug)]
struct Message {
    queue: String,
    origin: String,
    sent: u64,
    is_dead: bool,
    deliveries: Vec<Delivery>,
    /// The consumers that settled it, when, and whether by an ACK.
    settled: Vec<(Number, u64, bool)>,
}

#[derive(Debug)]
struct Delivery {
    to: Number,
    subscription: String,
    is_dead: bool,
    tick: u64,
    /// Counts deliveries: to one consumer, later ones have higher numbers.
    number: u64,
}

/// A message that was free again, and who got it next.
struct Return<'m> {
    message: &'m Message,
    body: &'m str,
    free_from: u64,
    next: &'m Delivery,
}

/// The fates of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fates {
    pub(crate) acknowledged: u64,
    pub(crate) automatic: u64,
    pub(crate) returned: u64,
    pub(crate) dead: u64,
    pub(crate) lost: u64,
    /// Returned messages whose next consumer got younger ones of the same sender, too, sent after the return.
    pub(crate) followed: u64,
}

impl Fates {
    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.automatic += other.automatic;
        self.returned += other.returned;
        self.dead += other.dead;
        self.lost += other.lost;
        self.followed += other.followed;
    }
}

impl Queues {
    /// Notes that a message was sent, in a transaction at its COMMIT.
    pub(crate) fn note_sent(&mut self, body: String, origin: String, queue: &str, sent: u64) {
        let (queue, deliveries, settled) = (queue.to_owned(), Vec::new(), Vec::new());
        let message = Message { queue, origin, sent, is_dead: false, deliveries, settled };
        let before = self.messages.insert(body, message);
        assert!(before.is_none(), "two messages have one body, at {sent}");
    }

    /// Notes that a message was written to a consumer, possibly from the dead letter queue.
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
        self.delivered += 1;
        let number = self.delivered;
        message.deliveries.push(Delivery { to, subscription, is_dead, tick, number });
    }

    /// Notes that an ACK or NACK of a message was read.
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

    /// Judges all histories. `has_read_all` returns whether an ended client has read all that was written
    /// to it; `is_over` is whether all waiting messages were consumed at the end.
    pub(crate) fn judge(&self, has_read_all: impl Fn(Number) -> bool, is_over: bool) -> Fates {
        let mut fates = Fates::default();
        let mut returns = Vec::new();
        for (body, message) in &self.messages {
            let is_gone = self.judge_one(body, message, &mut fates, &mut returns);
            // A message that is written to a consumer without acknowledgements is consumed.
            let automatic = self.automatic.get(&message.queue).into_iter().flatten();
            let dead = self.automatic.get(DEAD).into_iter().flatten();
            let is_lost = automatic.chain(dead).any(|consumer| !has_read_all(*consumer));
            fates.lost += u64::from(!is_gone && is_lost);
            assert!(is_gone || is_lost || !is_over, "nobody has {body} of {}", message.queue);
        }
        self.judge_order(&returns, &mut fates);
        fates
    }

    /// Judges that whoever got a message that was returned did not get before it what its sender sent to the queue after
    /// the return.
    fn judge_order(&self, returns: &[Return<'_>], fates: &mut Fates) {
        let mut by_sender: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (body, message) in &self.messages {
            by_sender.entry((&message.queue, &message.origin)).or_default().push((body, message));
        }
        for Return { message, body, free_from, next } in returns {
            let others = &by_sender[&(&message.queue, &message.origin)];
            for (younger, other) in others.iter().filter(|(_, other)| other.sent > *free_from) {
                let to_same =
                    other.deliveries.iter().filter(|one| !one.is_dead && one.to == next.to);
                for delivery in to_same {
                    fates.followed += 1;
                    assert!(
                        delivery.number > next.number,
                        "{:?} gets {younger}, sent at {}, before {body}, which was free from {free_from} on: \
                         {delivery:?} {message:?}, {:?}, {:?}",
                        next.to,
                        other.sent,
                        self.ends,
                        self.unsubscribed,
                    );
                }
            }
        }
    }

    /// Whether a message that was free again may have had a consumer that ended before it was written to it: if more
    /// ended until the next one got it than the one by whose end it was freed.
    fn may_be_unseen(&self, free_from: u64, until: u64) -> bool {
        let all = self.ends.values().chain(self.unsubscribed.values());
        let mut ends = all.filter(|tick| (free_from..=until).contains(tick));
        ends.next().is_some_and(|first| *first > free_from) || ends.next().is_some()
    }

    /// Returns whether a message was consumed, and adds when it was free again.
    fn judge_one<'m>(
        &self,
        body: &'m str,
        message: &'m Message,
        fates: &mut Fates,
        returns: &mut Vec<Return<'m>>,
    ) -> bool {
        let mut deliveries: Vec<_> = message.deliveries.iter().collect();
        deliveries.sort_by_key(|delivery| delivery.tick);
        fates.returned += u64::from(deliveries.len() > 1);
        fates.dead += u64::from(message.is_dead);
        // The tick from which it is free again, and whether it is gone.
        let (mut free_from, mut is_gone) = (0, false);
        for delivery in deliveries {
            let Delivery { to, subscription, tick, .. } = delivery;
            let ended = self.ends.get(to).copied().unwrap_or(u64::MAX);
            let unsubscribed = self.unsubscribed.get(&(*to, subscription.clone())).copied();
            let ended = ended.min(unsubscribed.unwrap_or(u64::MAX));
            // Written to a consumer that had lost it already.
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
            if free_from > 0 && !message.is_dead && !self.may_be_unseen(free_from, *tick) {
                returns.push(Return { message, body, free_from, next: delivery });
            }
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

/// The dead letter queue.
pub(crate) const DEAD: &str = "/queue/dead";

/// Whether messages of a subscription are consumed when they are written.
fn is_automatic(subscription: &str) -> bool {
    subscription.starts_with("auto-")
}

/// A queue whose first consumer ends at tick 5 with a message, after which its sender sends another one; both go to the
/// second consumer, in this order.
#[cfg(test)]
fn judge_returned(order: [&str; 2]) -> Fates {
    let (queue, sender) = ("/queue/q", || "ana".to_owned());
    let (first, second) = (Number(1), Number(2));
    let mut queues = Queues::default();
    queues.note_sent("older".to_owned(), sender(), queue, 1);
    queues.note_delivered("older", first, "a".to_owned(), false, 2);
    queues.note_end(first, 5);
    queues.note_sent("younger".to_owned(), sender(), queue, 6);
    for (body, tick) in order.into_iter().zip(7..) {
        queues.note_delivered(body, second, "b".to_owned(), false, tick);
    }
    queues.judge(|_| true, false)
}

#[test]
fn what_is_returned_may_come_before_what_is_sent_then() {
    assert_eq!(judge_returned(["older", "younger"]).followed, 1);
}

#[test]
#[should_panic(expected = "gets younger, sent at 6, before older")]
fn what_is_returned_must_not_come_behind_what_is_sent_then() {
    judge_returned(["younger", "older"]);
}
