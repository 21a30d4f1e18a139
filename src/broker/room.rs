//! Room for messages in queues and topics, checked before they are sent, so that a transaction is executed
//! as a whole or not at all.
//!
//! A message needs room even if a consumer with credit would take it at once.

use std::collections::{BTreeMap, BTreeSet};

use super::deliver::Sending;
use super::fault::Fault;
use super::ids::DestinationId;
use super::message::{NEVER, Stored};
use super::space::Space;
use super::{Broker, Moment};
use crate::limits::Exceeded;

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
                self.bytes += Stored::cost_of(origin, sending.content);
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
        has_nacks: bool,
        now: Moment,
    ) -> Result<(), Fault> {
        self.check_queues_room(demand.bytes, now)?;
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
        Ok(())
    }

    /// Checks that there is room for a message to a queue.
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
            self.drop_expired(id, now);
        }
        if self.waiting_at(name) + count <= max {
            return Ok(());
        }
        Err(no_room_yet(Exceeded { limit: "queue_messages_max", max }))
    }

    /// Checks that there is room for more bytes in all queues together.
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

    /// Until when a message that is stored now may wait.
    pub(super) fn waits_until_ms(&self, now: Moment) -> u64 {
        match self.limits.queue_ms_max {
            0 => NEVER,
            age_ms => now.ms() + u64::from(age_ms),
        }
    }

    /// Drops the expired messages of a queue, and the queue, if nothing else keeps it alive.
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

/// The fault of a message for which there is no room at present.
fn no_room_yet(exceeded: Exceeded) -> Fault {
    Fault::exceeded(exceeded).later()
}
