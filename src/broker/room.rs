//! Room: what messages need before they are sent to queues and topics, so that a transaction is done as a
//! whole or not at all.
//!
//! Messages need room as if nobody took them at once: whether a consumer has credit is not asked.

use std::collections::{BTreeMap, BTreeSet};

use super::deliver::Sending;
use super::fault::Fault;
use super::ids::DestinationId;
use super::message::{NEVER, Stored};
use super::space::Space;
use super::{Broker, Moment};
use crate::limits::Exceeded;

/// What several messages need together.
#[derive(Debug, Default)]
pub(super) struct Demand<'m> {
    /// How many messages go to each queue.
    queues: BTreeMap<&'m [u8], u64>,
    /// Topics that get any.
    topics: BTreeSet<&'m [u8]>,
    /// Bytes of messages for queues.
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
                self.bytes += Stored::cost_of(origin, sending.content);
            }
        }
    }
}

impl Broker {
    /// Whether all of several messages have room. Once this is said, each of them can be sent, as long as
    /// nothing else comes between.
    pub(super) fn check_room(
        &mut self,
        demand: &Demand<'_>,
        refuses: bool,
        now: Moment,
    ) -> Result<(), Fault> {
        self.check_queues_room(demand.bytes, now)?;
        for (name, count) in &demand.queues {
            self.check_queue_room(name, *count, now)?;
        }
        // What is refused too often may need the dead letter queue.
        let dead = self.dead_letter_queue.clone().filter(|_| refuses).map(String::into_bytes);
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
        Ok(())
    }

    /// Whether a message for a queue has room.
    pub(super) fn check_room_of_one(
        &mut self,
        sending: Sending<'_>,
        now: Moment,
    ) -> Result<(), Fault> {
        self.note_origin(sending.session);
        let origin = &self.sessions[sending.session].origin;
        self.check_queues_room(Stored::cost_of(origin, sending.content), now)?;
        self.check_queue_room(sending.content.destination, 1, now)
    }

    /// Whether so many messages more have room in one queue, which need not exist yet.
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
            self.drop_expired(id, now);
        }
        if self.waiting_at(name) + count <= max {
            return Ok(());
        }
        Err(no_room_yet(Exceeded { limit: "queue_messages_max", max }))
    }

    /// Whether messages of so many bytes have room among those of all queues.
    pub(super) fn check_queues_room(&mut self, bytes: u64, now: Moment) -> Result<(), Fault> {
        let max = self.limits.queues_bytes_max;
        while self.destinations.queued_bytes() + bytes > max {
            let first = self.destinations.first_expiring();
            let Some((_, id)) = first.filter(|(expires_ms, _)| *expires_ms < now.ms()) else {
                return Err(no_room_yet(Exceeded { limit: "queues_bytes_max", max }));
            };
            self.drop_expired(id, now);
        }
        Ok(())
    }

    /// Until when a message may wait that begins to wait now.
    pub(super) fn waits_until_ms(&self, now: Moment) -> u64 {
        match self.limits.queue_ms_max {
            0 => NEVER,
            age_ms => now.ms() + u64::from(age_ms),
        }
    }

    /// Drops what is expired of a queue, and the queue, if nothing else keeps it in being.
    fn drop_expired(&mut self, id: DestinationId, now: Moment) {
        let dropped = self.destinations.change_queue(id, |queue| queue.drop_expired(now.ms()));
        self.counters.messages_expired += dropped.unwrap_or_default();
        self.release_destination(id);
    }

    fn waiting_at(&self, name: &[u8]) -> u64 {
        let found = self.destinations.find(name, None);
        let queue = found.and_then(|id| self.destinations.queue(id));
        queue.map_or(0, |queue| queue.len() as u64)
    }
}

/// A bound that what is waiting leaves no room below: it may be another time.
fn no_room_yet(exceeded: Exceeded) -> Fault {
    Fault::exceeded(exceeded).later()
}
