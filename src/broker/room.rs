//! Room for messages in queues and topics, checked before they are sent, so that a transaction is executed
//! as a whole or not at all.
//!
//! A message needs room even if a consumer with credit would take it at once.
//!
//! Each sender has a share of the memory. Who exceeds it is refused, for that is its own consumption. Where all
//! shares together are more than there is, the sender whose messages occupy most pays for one that is within its
//! share and occupies less: its messages are dropped, those first that began to wait last, as they are the
//! farthest from being delivered. None of them becomes a dead letter, for that would free nothing.

use super::asker::Asker;
use super::deliver::Sending;
use super::destination::DestinationTable;
use super::fault::Fault;
use super::hashing::NameHasher;
use super::ids::{DestinationId, SessionId};
use super::index::{Hashed, Shards};
use super::message::{Content, NEVER, Origin};
use super::space::Space;
use super::store::Store;
use super::{Broker, Moment, printable};
use crate::limits::{Exceeded, Limits};
use crate::work;

/// Room that is reserved for the steps of transactions that are being executed, so that nobody else takes it.
#[derive(Debug)]
pub(super) struct Reserved {
    /// By name. In an order of names, those that begin alike would be compared to their ends many times.
    claims: Shards<Claim>,
    hasher: NameHasher,
    /// Memory of messages for queues.
    pub(super) bytes: u64,
    /// Topics that have to be created, and their memory.
    places: u64,
    place_bytes: u64,
}

/// What is reserved at a topic or a queue.
#[derive(Debug)]
struct Claim {
    name: Box<[u8]>,
    hash: u32,
    /// Steps that need it.
    steps: u64,
    /// Messages among them, for a queue.
    messages: u64,
    /// Whether it is a topic that has to be created.
    is_new: bool,
}

impl Hashed for Claim {
    fn hash(&self) -> u32 {
        self.hash
    }
}

impl Reserved {
    /// Nothing is reserved.
    pub(super) fn new(hasher: NameHasher) -> Self {
        Self { claims: Shards::new(), hasher, bytes: 0, places: 0, place_bytes: 0 }
    }

    /// Topics that have to be created.
    #[inline]
    pub(super) fn places(&self) -> u64 {
        self.places
    }

    /// Memory of these topics.
    pub(super) fn place_bytes(&self) -> u64 {
        self.place_bytes
    }

    /// Whether there is a place for a topic that has to be created.
    #[inline]
    pub(super) fn has_place_for(&self, name: &[u8]) -> bool {
        self.places > 0 && self.find(name).is_some_and(|claim| claim.is_new)
    }

    /// Notes that a destination is being created.
    #[inline]
    pub(super) fn note_made(&mut self, name: &[u8]) {
        if self.places > 0 {
            self.take_place(name);
        }
    }

    fn take_place(&mut self, name: &[u8]) {
        let hash = self.hasher.hash(name);
        let claim = self.claims.find_mut(hash, |one| *one.name == *name);
        if claim.is_some_and(|claim| std::mem::take(&mut claim.is_new)) {
            self.places -= 1;
            self.place_bytes -= DestinationTable::cost_of(name);
        }
    }

    fn find(&self, name: &[u8]) -> Option<&Claim> {
        self.claims.find(self.hasher.hash(name), |one| *one.name == *name)
    }

    fn add(&mut self, name: &[u8], is_new: bool, messages: u64, bytes: u64) {
        self.bytes += bytes;
        let hash = self.hasher.hash(name);
        let is_it = |one: &Claim| *one.name == *name;
        // Where there was a topic when it was first needed, it may have gone since.
        let is_place = match self.claims.find_mut(hash, is_it) {
            Some(claim) => {
                claim.steps += 1;
                claim.messages += messages;
                is_new && !std::mem::replace(&mut claim.is_new, true)
            }
            None => {
                let (name, hash) = (name.into(), hash as u32);
                self.claims.insert(Claim { name, hash, steps: 1, messages, is_new });
                is_new
            }
        };
        if is_place {
            self.places += 1;
            self.place_bytes += DestinationTable::cost_of(name);
        }
    }

    /// Returns whether nothing is reserved at that name any more.
    fn remove(&mut self, name: &[u8], messages: u64, bytes: u64) -> bool {
        let hash = self.hasher.hash(name);
        let is_it = |one: &Claim| *one.name == *name;
        let Some(claim) = self.claims.find_mut(hash, is_it) else { return false };
        self.bytes -= bytes;
        claim.steps -= 1;
        claim.messages -= messages;
        if claim.steps > 0 {
            return false;
        }
        if self.claims.remove(hash, is_it).is_some_and(|ended| ended.is_new) {
            self.places -= 1;
            self.place_bytes -= DestinationTable::cost_of(name);
        }
        true
    }

    pub(super) fn messages_at(&self, name: &[u8]) -> u64 {
        if self.claims.len() == 0 {
            return 0;
        }
        self.find(name).map_or(0, |claim| claim.messages)
    }
}

/// What a transaction takes by itself of what a step of it found no room in: if that is more than there may ever be,
/// it is of no use to try again.
#[derive(Debug)]
pub(super) struct Needed {
    exceeded: Exceeded,
    /// The destination of the step.
    name: Box<[u8]>,
    taken: u64,
}

impl Needed {
    /// Of a transaction of which a step that sends there has this fault; `None` if it is not for lack of such room.
    pub(super) fn of(fault: &Fault, name: &[u8], limits: &Limits) -> Option<Self> {
        let (limit, max) = match fault.limit? {
            limit @ QUEUE_MESSAGES => (limit, limits.queue_messages_max.into()),
            limit @ "destinations_max" => (limit, limits.destinations_max.into()),
            limit @ "destinations_bytes_max" => (limit, limits.destinations_bytes_max),
            _ => return None,
        };
        Some(Self { exceeded: Exceeded { limit, max }, name: name.into(), taken: 0 })
    }

    /// Adds a message, which may be the last one there.
    pub(super) fn add(&mut self, name: &[u8], is_last_there: bool) {
        self.taken += match self.exceeded.limit {
            QUEUE_MESSAGES => u64::from(*name == *self.name),
            _ if !is_last_there || Space::of(name) != Space::Topic => 0,
            "destinations_max" => 1,
            _ => DestinationTable::cost_of(name),
        };
    }

    /// The fault of a transaction for which there never is room.
    pub(super) fn fault(self) -> Option<Fault> {
        (self.taken > self.exceeded.max).then(|| Fault::exceeded(self.exceeded))
    }
}

const QUEUE_MESSAGES: &str = "queue_messages_max";

impl Broker {
    /// Reserves the room that a message needs, whose sender may send it. What is reserved counts as what its sender
    /// occupies.
    pub(super) fn reserve(&mut self, sending: Sending<'_>, now: Moment) -> Result<(), Fault> {
        let name = sending.content.destination;
        let space = Space::of(name);
        if !matches!(space, Space::Topic | Space::Queue) {
            return Ok(());
        }
        self.meter.spend(work::of_names(LOOKUPS, name.len()));
        if space == Space::Queue {
            let max = self.limits.queues_bytes_max;
            if self.store.is_revoked(self.sessions[sending.session].origin.address()) {
                return Err(no_room_yet(Exceeded { limit: "queues_bytes_max", max }));
            }
            let bytes = self.check_message_room(sending, now)?;
            self.reserved.add(name, false, 1, bytes);
            self.store.reserve(self.sessions[sending.session].origin.address(), bytes);
            return Ok(());
        }
        let is_new = self.destinations.find(name, None).is_none();
        if is_new && !self.reserved.has_place_for(name) {
            self.make_place(name, Asker::Session(sending.session), now)?;
        }
        self.reserved.add(name, is_new, 0, 0);
        Ok(())
    }

    /// Notes a message for which no room is reserved, but which is given back as if there were, so that topics are
    /// counted once. It takes nothing from others. Returns whether it has to be given back.
    pub(super) fn count_unreserved(&mut self, name: &[u8]) -> bool {
        let is_topic = Space::of(name) == Space::Topic;
        if is_topic {
            self.meter.spend(work::of_names(LOOKUPS, name.len()));
            self.reserved.add(name, false, 0, 0);
        }
        is_topic
    }

    /// Gives back what was reserved for a message. Returns whether nothing is reserved at its destination any more.
    pub(super) fn give_back(&mut self, origin: &Origin, content: &Content<'_>) -> bool {
        let name = content.destination;
        match Space::of(name) {
            Space::Topic => self.reserved.remove(name, 0, 0),
            Space::Queue => {
                let bytes = Store::cost_of(origin, content);
                let all = self.store.bytes() + self.reserved.bytes;
                self.leftover.is_excessive |= all > self.limits.queues_bytes_max;
                self.store.unreserve(origin.address(), bytes);
                self.reserved.remove(name, 1, bytes)
            }
            Space::Client | Space::Broker | Space::Unknown => false,
        }
    }

    /// Panics if totals of what is reserved differ from a recount.
    pub(super) fn check_reserved(&self) {
        let reserved = &self.reserved;
        let new = || reserved.claims.iter().filter(|claim| claim.is_new);
        let bytes: u64 = new().map(|claim| DestinationTable::cost_of(&claim.name)).sum();
        assert_eq!((new().count() as u64, bytes), (reserved.places, reserved.place_bytes));
        let is_needed = self.transactions.committing_bytes() > 0;
        assert!(
            is_needed || reserved.claims.len() == 0 && reserved.bytes == 0,
            "reserved for nobody"
        );
    }

    /// Checks that there is room for a message to a queue.
    pub(super) fn check_room_of_one(
        &mut self,
        sending: Sending<'_>,
        now: Moment,
    ) -> Result<(), Fault> {
        self.note_origin(sending.session);
        self.check_message_room(sending, now).map(drop)
    }

    /// As [`Self::check_room_of_one`] for a sender whose origin is known. Returns the bytes of the message.
    fn check_message_room(&mut self, sending: Sending<'_>, now: Moment) -> Result<u64, Fault> {
        self.check_queue_room(sending.content.destination, 1, now)?;
        let bytes = Store::cost_of(&self.sessions[sending.session].origin, sending.content);
        self.make_queues_room(sending.session, bytes, now)?;
        Ok(bytes)
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
        Err(no_room_yet(Exceeded { limit: QUEUE_MESSAGES, max }))
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
        let sender = self.sessions[session].origin.address();
        // What is larger than the whole finds no room later either.
        let alone = bytes + self.store.reserved_of(sender) + Store::account_bytes(sender);
        if needs.own > share {
            let fault = Fault::exceeded(Exceeded { limit: "queue_share_bytes_max", max: share });
            return Err(if alone <= share { fault.later() } else { fault });
        }
        if alone > max {
            return Err(Fault::exceeded(Exceeded { limit: "queues_bytes_max", max }));
        }
        if needs.all > max && needs.own >= self.store.largest_bytes() {
            return Err(no_room_yet(Exceeded { limit: "queues_bytes_max", max }));
        }
        let is_dropped = self.drop_excess(needs.all - self.store.bytes(), DROPPED_MAX);
        let excess = self.needs(session, bytes).all.saturating_sub(max);
        if !is_dropped && excess > max / EXCESS_PARTS {
            return Err(no_room_yet(Exceeded { limit: "queues_bytes_max", max }));
        }
        self.leftover.is_excessive |= excess > 0;
        Ok(())
    }

    /// Drops messages of the senders whose messages occupy most, until there is room for `more` bytes, up to `most` of
    /// them. Returns whether there is. If that sender has nothing but a reservation, this is given up soon, or its
    /// messages are dropped once they have come.
    fn drop_excess(&mut self, more: u64, most: u32) -> bool {
        let max = self.limits.queues_bytes_max;
        for _ in 0..most {
            if self.store.bytes() + more <= max {
                return true;
            }
            let Some((slot, sender)) = self.store.first_to_drop() else {
                self.store.revoke_largest();
                return false;
            };
            if !std::mem::replace(&mut self.is_dropping, true) {
                let sender = &*printable(sender);
                log::warn!(
                    sender, queues_bytes_max = max;
                    "messages in queues are dropped for those of other senders"
                );
            }
            self.drop_message(slot);
        }
        self.store.bytes() + more <= max
    }

    /// Goes on with dropping messages for which others were let in, until the share of the turn is used up.
    #[cold] // memory is rarely short
    pub(super) fn drop_rest_of_excess(&mut self) {
        while !self.drop_excess(self.reserved.bytes, 1) && self.store.first_to_drop().is_some() {
            if self.is_share_spent() {
                return;
            }
        }
        self.leftover.is_excessive = false;
    }

    /// What a sender and all senders occupy with more bytes of that sender.
    fn needs(&self, session: SessionId, bytes: u64) -> Needs {
        let sender = self.sessions[session].origin.address();
        let (own, opening) = self.store.bytes_of(sender);
        let more = bytes + opening;
        Needs { own: own + more, all: self.store.bytes() + self.reserved.bytes + more }
    }

    /// Until when a message that is stored now may wait.
    pub(super) fn waits_until_ms(&self, now: Moment) -> u64 {
        match self.limits.queue_ms_max {
            0 => NEVER,
            age_ms => now.ms() + u64::from(age_ms),
        }
    }

    /// Drops messages that have expired, in any queue, until the share of the turn is used up.
    pub(super) fn drop_expired_in_share(&mut self, now: Moment) {
        while self.drop_some_expired(EXPIRED_STEP, now) == EXPIRED_STEP {
            if self.is_share_spent() {
                return;
            }
        }
        self.leftover.has_expired = false;
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
            let units = self.store.take(slot).units_of_end();
            self.meter.spend(work::DROP + work::EXPIRY + units);
            dropped += 1;
        }
        self.counters.messages_expired += u64::from(dropped);
        self.release_destination(id);
        dropped
    }

    fn waiting_at(&self, name: &[u8]) -> u64 {
        let found = self.destinations.find(name, None);
        let queue = found.and_then(|id| self.destinations.queue(id));
        queue.map_or(0, |queue| queue.len() as u64) + self.reserved.messages_at(name)
    }
}

/// How often the name of a message is looked up, at most, to reserve its room and to give that back.
const LOOKUPS: u32 = 8;

/// What is occupied once there is more.
struct Needs {
    own: u64,
    all: u64,
}

/// Expired messages that are dropped for one request, at most.
const EXPIRED_MAX: u32 = 128;

/// Expired messages that are dropped before it is looked whether there is room.
const EXPIRED_STEP: u32 = 16;

/// The fault of a message for which others have left no room at present.
fn no_room_yet(exceeded: Exceeded) -> Fault {
    Fault::exceeded(exceeded).staying_if_classic()
}
/// Messages that are dropped at once for that of another sender; the others are dropped in later turns.
const DROPPED_MAX: u32 = 64;

/// The part of `queues_bytes_max` by which it may be exceeded until then.
const EXCESS_PARTS: u64 = 16;
