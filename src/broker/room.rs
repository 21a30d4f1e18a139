//! Room for messages in queues and topics, checked before they are sent, so that a transaction is executed
//! as a whole or not at all.
//!
//! A message needs room even if a consumer with credit would take it at once.
//!
//! Each sender has a share of the memory. Who exceeds it is refused, for that is its own consumption. Where all
//! shares together are more than there is, the sender whose messages occupy most pays for one that is within its
//! share and occupies less: its messages are dropped, those first that began to wait last, as they are the
//! farthest from being delivered. None of them becomes a dead letter, for that would free nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::deliver::Sending;
use super::destination::DestinationTable;
use super::fault::Fault;
use super::ids::{DestinationId, SessionId};
use super::message::NEVER;
use super::space::Space;
use super::store::Store;
use super::{Broker, Moment, printable};
use crate::limits::Exceeded;
use crate::work;

/// The room that several messages need together.
#[derive(Debug, Default)]
pub(super) struct Demand<'m> {
    /// The number of messages for each queue.
    queues: BTreeMap<&'m [u8], u64>,
    /// The topics of messages.
    topics: BTreeSet<&'m [u8]>,
    /// Memory of the messages for queues.
    bytes: u64,
}

impl<'m> Demand<'m> {
    /// Adds a message.
    pub(super) fn add(&mut self, broker: &Broker, sending: Sending<'m>) {
        let name = sending.content.destination;
        match Space::of(name) {
            Space::Client | Space::Broker | Space::Unknown => {}
            Space::Topic => {
                self.topics.insert(name);
            }
            Space::Queue => {
                *self.queues.entry(name).or_default() += 1;
                let origin = &broker.sessions[sending.session].origin;
                self.bytes += Store::cost_of(origin, sending.content);
            }
        }
    }
}

impl Broker {
    /// Checks that there is room for several messages, of which then each can be sent, as long as nothing
    /// else is sent in between. With `has_nacks`, the dead letter queue may have to be created.
    pub(super) fn check_room(
        &mut self,
        demand: &Demand<'_>,
        session: SessionId,
        has_nacks: bool,
        now: Moment,
    ) -> Result<(), Fault> {
        for (name, count) in &demand.queues {
            self.check_queue_room(name, *count, now)?;
        }
        // A NACK may make a message a dead letter.
        let dead = self.dead_letter_queue.clone().filter(|_| has_nacks).map(String::into_bytes);
        let dead = dead.as_deref().filter(|name| !demand.queues.contains_key(name));
        let names = demand.queues.keys().chain(&demand.topics).copied().chain(dead);
        let max = u64::from(self.limits.destinations_max);
        let needed = |broker: &Self| {
            let new = names.clone().filter(|name| broker.destinations.find(name, None).is_none());
            (broker.destinations.len() + new.count()) as u64
        };
        if needed(self) > max {
            self.destinations.sweep_idle_topics();
        }
        if needed(self) > max {
            return Err(Fault::exceeded(Exceeded { limit: "destinations_max", max }));
        }
        let new = names.filter(|name| self.destinations.find(name, None).is_none());
        let bytes = new.map(DestinationTable::cost_of).sum();
        self.check_destinations_room(bytes)?;
        if demand.queues.is_empty() {
            return Ok(());
        }
        self.make_queues_room(session, demand.bytes, now)
    }

    /// Checks that there is room for a message to a queue.
    pub(super) fn check_room_of_one(
        &mut self,
        sending: Sending<'_>,
        now: Moment,
    ) -> Result<(), Fault> {
        self.note_origin(sending.session);
        self.check_queue_room(sending.content.destination, 1, now)?;
        let origin = &self.sessions[sending.session].origin;
        let bytes = Store::cost_of(origin, sending.content);
        self.make_queues_room(sending.session, bytes, now)
    }

    /// Checks that there is room for more messages in one queue, which need not exist yet.
    pub(super) fn check_queue_room(
        &mut self,
        name: &[u8],
        count: u64,
        now: Moment,
    ) -> Result<(), Fault> {
        let max = u64::from(self.limits.queue_messages_max);
        if self.waiting_at(name) + count <= max {
            return Ok(());
        }
        if let Some(id) = self.destinations.find(name, None) {
            self.drop_expired(id, count.min(EXPIRED_MAX.into()) as u32, now);
            self.leftover.has_expired = true;
        }
        if self.waiting_at(name) + count <= max {
            return Ok(());
        }
        Err(no_room_yet(Exceeded { limit: "queue_messages_max", max }))
    }

    /// Makes room for more bytes of a sender, whose origin is known, in all queues together.
    fn make_queues_room(
        &mut self,
        session: SessionId,
        bytes: u64,
        now: Moment,
    ) -> Result<(), Fault> {
        let share = self.limits.queue_share_bytes_max[self.sessions[session].profile];
        let max = self.limits.queues_bytes_max;
        let Needs { own, all } = self.needs(session, bytes);
        if own <= share && all <= max {
            self.is_dropping &= all > max / 10 * 7;
            return Ok(());
        }
        self.make_queues_room_slow(session, bytes, (share, max), now)
    }

    #[cold] // memory is rarely short
    fn make_queues_room_slow(
        &mut self,
        session: SessionId,
        bytes: u64,
        (share, max): (u64, u64),
        now: Moment,
    ) -> Result<(), Fault> {
        let is_short = |needs: &Needs| needs.own > share || needs.all > max;
        let mut left = EXPIRED_MAX;
        while left > 0 && is_short(&self.needs(session, bytes)) {
            let step = left.min(EXPIRED_STEP);
            if self.drop_some_expired(step, now) < step {
                break;
            }
            left -= step;
        }
        let needs = self.needs(session, bytes);
        if needs.own > share {
            let exceeded = Exceeded { limit: "queue_share_bytes_max", max: share };
            return Err(no_room_yet(exceeded));
        }
        if needs.all > max && needs.own >= self.store.largest_bytes() {
            return Err(no_room_yet(Exceeded { limit: "queues_bytes_max", max }));
        }
        let more = needs.all - self.store.bytes();
        while self.store.bytes() + more > max {
            let Some((slot, sender)) = self.store.first_to_drop() else {
                return Err(no_room_yet(Exceeded { limit: "queues_bytes_max", max }));
            };
            if !std::mem::replace(&mut self.is_dropping, true) {
                let sender = printable(sender);
                log::warn!(
                    sender:%, queues_bytes_max = max;
                    "messages in queues are dropped for those of other senders"
                );
            }
            self.drop_message(slot);
        }
        Ok(())
    }

    /// What a sender and all senders occupy with more bytes of that sender.
    fn needs(&self, session: SessionId, bytes: u64) -> Needs {
        let sender = self.sessions[session].origin.address();
        let more = bytes + self.store.opening_bytes(sender);
        Needs { own: self.store.bytes_of(sender) + more, all: self.store.bytes() + more }
    }

    /// Until when a message that is stored now may wait.
    pub(super) fn waits_until_ms(&self, now: Moment) -> u64 {
        match self.limits.queue_ms_max {
            0 => NEVER,
            age_ms => now.ms() + u64::from(age_ms),
        }
    }

    /// Drops some of the messages that have expired, in any queue. Returns their number; what is left of them
    /// is dropped in later turns.
    pub(super) fn drop_some_expired(&mut self, max: u32, now: Moment) -> u32 {
        let mut dropped = 0;
        while let Some((expires_ms, id)) = self.destinations.first_expiring()
            && expires_ms < now.ms()
        {
            if dropped == max {
                self.leftover.has_expired = true;
                break;
            }
            dropped += self.drop_expired(id, max - dropped, now);
        }
        dropped
    }

    /// Drops some of the expired messages of a queue, and the queue, if nothing else keeps it alive. Returns
    /// their number.
    fn drop_expired(&mut self, id: DestinationId, max: u32, now: Moment) -> u32 {
        let mut dropped = 0;
        while dropped < max
            && let Some(slot) =
                self.change_queue(id, |queue, store| queue.pop_expired(now.ms(), store)).flatten()
        {
            self.store.take(slot);
            self.meter.spend(work::DELIVERY);
            dropped += 1;
        }
        self.counters.messages_expired += u64::from(dropped);
        self.release_destination(id);
        dropped
    }

    fn waiting_at(&self, name: &[u8]) -> u64 {
        let found = self.destinations.find(name, None);
        let queue = found.and_then(|id| self.destinations.queue(id));
        queue.map_or(0, |queue| queue.len() as u64)
    }
}

/// What is occupied once there is more.
struct Needs {
    own: u64,
    all: u64,
}

/// Expired messages that are dropped for one request, at most.
const EXPIRED_MAX: u32 = 4096;

/// Expired messages that are dropped before it is looked whether there is room.
const EXPIRED_STEP: u32 = 16;

/// The fault of a message for which there is no room at present.
fn no_room_yet(exceeded: Exceeded) -> Fault {
    Fault::exceeded(exceeded).later()
}
