//! Memory: the account of frames that have arrived only in part, and backpressure on publishers while
//! outbound queues use too much.

use std::collections::BinaryHeap;

use super::Engine;
use super::budget::Stage;
use super::connection::{Connection, Phase, Socket};
use super::holders::Holders;
use super::table::WorkList;
use crate::broker::ids::PeerId;
use crate::broker::peer::Peer;
use crate::broker::{CloseReason, Fault};
use crate::limits::{Exceeded, Limits};
use crate::work;

/// The account of memory, and the connections that are paused while it is short.
#[derive(Debug)]
pub(super) struct Memory {
    /// Memory for frames that have arrived only in part.
    inbound_bytes: u64,
    /// What of it connections hold that are closing: they are about to free it.
    ending_bytes: u64,
    inbound_bytes_max: u64,
    /// Connections by what they hold.
    holders: Holders,
    queued_bytes_max: u64,
    is_short: bool,
    /// Since when it has been short, in milliseconds.
    short_since_ms: u64,
    pause_ms_max: u32,
    /// Whether connections are closed until it is free again.
    is_cutting: bool,
    /// Connections by what they hold, those that hold most first.
    victims: BinaryHeap<Victim>,
    /// Publishers that are not read.
    paused: WorkList,
}

/// A connection that is closed because memory is short. The largest is the first to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Victim {
    /// Whether it is closing as a slow consumer already. Then it goes first: it takes nothing, and what TLS holds for it
    /// is freed only with its connection.
    has_paid: bool,
    bytes: u64,
    id: PeerId,
}

/// Whether a connection is closing as a slow consumer.
fn has_paid(peer: &Peer) -> bool {
    peer.closure().is_some_and(|closure| matches!(closure.reason, CloseReason::TooSlow(_)))
}

/// How the memory for outbound queues has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Unchanged,
    BecameShort,
    BecameFree,
}

impl Memory {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            inbound_bytes: 0,
            ending_bytes: 0,
            inbound_bytes_max: limits.inbound_total_bytes_max,
            holders: Holders::default(),
            queued_bytes_max: limits.outbound_total_bytes_max,
            is_short: false,
            short_since_ms: 0,
            pause_ms_max: limits.pause_ms_max,
            is_cutting: false,
            victims: BinaryHeap::new(),
            paused: WorkList::default(),
        }
    }

    /// Notes that a connection held `before` bytes and now holds `after`.
    pub(super) fn set_held(&mut self, slot: u32, before: u64, after: u64, now_ms: u64) {
        self.inbound_bytes = self.inbound_bytes - before + after;
        self.holders.set(slot, after, now_ms);
    }

    /// Notes that of what a connection holds, `before` bytes were about to be freed and now `after` are, since it is
    /// closing. Then it does not pay.
    pub(super) fn set_ending(&mut self, slot: u32, before: u64, after: u64) {
        self.ending_bytes = self.ending_bytes - before + after;
        if after > 0 {
            self.holders.spare(slot);
        }
    }

    /// The connection that has to pay because all together hold too much. Of those that are closing already, nothing
    /// counts: they have paid, though some of it is freed only when a job has ended.
    fn holder_to_refuse(&mut self, newcomer: u32, now_ms: u64) -> Option<u32> {
        if self.inbound_bytes - self.ending_bytes <= self.inbound_bytes_max {
            return None;
        }
        let payer = self.holders.payer(newcomer, self.inbound_bytes_max, now_ms)?;
        self.holders.spare(payer);
        Some(payer)
    }

    /// Notes that time has passed for those that hold something.
    pub(super) fn grow_older(&mut self, now_ms: u64) {
        self.holders.grow_older(now_ms);
    }

    /// Memory for frames that have arrived only in part.
    pub(super) fn inbound_bytes(&self) -> u64 {
        self.inbound_bytes
    }

    /// Stops reading a connection.
    fn pause<S>(&mut self, connection: &mut Connection<S>) {
        if !connection.flags.paused {
            connection.flags.paused = true;
            self.paused.push(connection.id);
        }
    }

    /// Whether [`Self::judge`] may find a change.
    #[inline]
    fn may_change(&self, queued_bytes: u64) -> bool {
        // Half is well below the threshold in `judge`.
        self.is_short || queued_bytes > self.queued_bytes_max / 2
    }

    /// Judges whether memory has become short or free again; between the two thresholds it stays as it
    /// was.
    fn judge(&mut self, queued_bytes: u64) -> Change {
        let max = self.queued_bytes_max;
        if !self.is_short && queued_bytes > max / 10 * 9 {
            self.is_short = true;
            Change::BecameShort
        } else if self.is_short && queued_bytes < max / 10 * 7 {
            self.is_short = false;
            Change::BecameFree
        } else {
            Change::Unchanged
        }
    }

    /// When publishers have been paused for too long, in milliseconds.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let due_ms = self.short_since_ms + u64::from(self.pause_ms_max);
        (self.is_short && !self.is_cutting).then_some(due_ms)
    }

    /// Whether connections have to be closed, or publishers read, in the next turn even without an event.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.is_cutting || self.resumes()
    }

    /// Whether there are publishers that need not be paused any more.
    #[inline]
    fn resumes(&self) -> bool {
        !self.is_short && !self.paused.is_empty()
    }

    /// Judges whether connections have to be closed: if memory was short for too long, or is used up; and then
    /// until it is free again.
    fn judge_cutting(&mut self, queued_bytes: u64, now_ms: u64) -> bool {
        let is_due = self.due_ms().is_some_and(|due_ms| now_ms >= due_ms);
        let is_free = queued_bytes < self.queued_bytes_max / 10 * 7;
        self.is_cutting |= is_due || queued_bytes >= self.queued_bytes_max;
        self.is_cutting &= !is_free;
        if !self.is_cutting {
            self.victims = BinaryHeap::new();
        }
        self.is_cutting
    }

    /// Whether a burst has left memory that is worth returning.
    pub(super) fn has_slack(&self) -> bool {
        self.paused.has_slack()
    }

    /// Returns the memory of a past burst.
    pub(super) fn trim(&mut self) {
        self.paused.trim();
    }
}

impl<S: Socket> Engine<S> {
    /// Notes what a connection holds for frames that have arrived only in part. If all connections together
    /// hold too much, those are refused that hold most.
    #[inline(never)] // few frames are torn
    pub(super) fn note_held(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        let held_bytes = connection.held_bytes();
        let before = std::mem::replace(&mut connection.noted_bytes, held_bytes);
        self.memory.set_held(slot, before, held_bytes, self.now.ms());
        let ending_bytes = if connection.phase.reads_frames() { 0 } else { held_bytes };
        let ending_before = std::mem::replace(&mut connection.ending_bytes, ending_bytes);
        if ending_before + ending_bytes > 0 {
            self.memory.set_ending(slot, ending_before, ending_bytes);
        }
        if held_bytes <= before {
            return self.broker.meter.spend(work::of_freed(before - held_bytes));
        }
        self.broker.meter.spend(work::FRESH_KIB * work::of_bytes(before as usize));
        let max = self.limits.inbound_total_bytes_max;
        let exceeded = Exceeded { limit: "inbound_total_bytes_max", max };
        while let Some(payer) = self.memory.holder_to_refuse(slot, self.now.ms()) {
            let fault = match payer == slot {
                true => Fault::exceeded(exceeded).later(),
                false => Fault::holding_most(exceeded),
            };
            self.refuse(payer, &fault);
        }
    }

    /// Notes what a connection's TLS holds of records that are not yet written.
    #[inline]
    pub(super) fn note_sealed(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if let Some(tls) = &connection.tls {
            let sealed_bytes = tls.waiting_bytes() as u32;
            let before = std::mem::replace(&mut connection.sealed_bytes, sealed_bytes);
            self.broker.peers.arena.note_sealed(before, sealed_bytes);
        }
    }

    /// Whether a connection must not be read now, as that of a publisher while memory is short.
    #[inline]
    pub(super) fn holds_back(&mut self, slot: u32) -> bool {
        self.memory.is_short && self.holds_back_slow(slot)
    }

    #[cold] // memory is rarely short
    fn holds_back_slow(&mut self, slot: u32) -> bool {
        let connection = &mut self.connections[slot];
        let adds = connection.peer().is_some_and(|peer| self.broker.adds_to_queues(peer));
        if !adds || connection.phase != Phase::Open {
            return false;
        }
        self.memory.pause(connection);
        true
    }

    /// Flushes within the turn if a queue has grown past its soft limit, so that a receiver that keeps up
    /// is not taken for a slow consumer, or if the lanes outgrow the caches.
    pub(super) fn relieve_pressure(&mut self) {
        let is_full = self.broker.peers.arena.turn_bytes() >= TURN_BYTES_MAX;
        if self.broker.peers.take_pressure_grew() || is_full {
            // The writes have a share of their own, and he who is read does not get it.
            let share_end = self.broker.meter.share_end();
            self.flush_dirty(Stage::Receive);
            self.broker.meter.go_on(share_end);
        }
        self.watch_memory();
    }

    /// Pauses or resumes publishers, as memory requires.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        let queued_bytes = self.broker.queued_bytes();
        if self.memory.may_change(queued_bytes) {
            self.watch_memory_slow(queued_bytes);
        }
    }

    #[cold] // queues are rarely so full
    fn watch_memory_slow(&mut self, queued_bytes: u64) {
        match self.memory.judge(queued_bytes) {
            Change::Unchanged => {}
            Change::BecameShort => {
                let max = self.limits.outbound_total_bytes_max;
                self.memory.short_since_ms = self.now.ms();
                self.counters.publishers_paused += 1;
                log::warn!(queued_bytes, outbound_total_bytes_max = max; "publishers paused");
            }
            Change::BecameFree => {
                log::info!(queued_bytes; "publishers resumed");
            }
        }
    }

    /// Closes connections with large queues, if memory was short for too long or is used up. To be called at
    /// the end of a turn, as slow consumers are closed.
    #[inline]
    pub(super) fn cut_if_short(&mut self) {
        let queued_bytes = self.broker.queued_bytes();
        if (self.memory.may_change(queued_bytes) || self.memory.is_cutting)
            && self.memory.judge_cutting(queued_bytes, self.now.ms())
        {
            self.cut_largest();
        }
    }

    /// Closes connections with the largest queues, some in each turn, until memory is free.
    #[cold] // queues are rarely so full
    fn cut_largest(&mut self) {
        for _ in 0..CUTS_PER_TURN_MAX {
            // What those hold that were cut is freed before it is seen whether others have to be.
            if self.broker.peers.arena.has_doomed() {
                return;
            }
            let queued_bytes = self.broker.queued_bytes();
            if queued_bytes < self.memory.queued_bytes_max / 10 * 7 {
                return;
            }
            if self.memory.victims.is_empty() {
                self.memory.victims = self.find_victims();
            }
            let Some(Victim { id: peer, .. }) = self.memory.victims.pop() else {
                // What is left will be written or is closing.
                self.memory.is_cutting = false;
                self.memory.short_since_ms = self.now.ms();
                return;
            };
            self.cut_for_memory(peer);
            if self.broker.is_share_spent() {
                return;
            }
        }
    }

    /// The connections whose queues, or TLS records, hold anything to speak of.
    fn find_victims(&mut self) -> BinaryHeap<Victim> {
        self.broker.meter.spend(self.broker.peers.len() as u32 / SOUGHT_PER_UNIT);
        let any_sealed = self.broker.peers.arena.sealed_bytes() > 0;
        let victims = self.broker.peers.iter().filter_map(|(id, peer)| {
            let sealed = || self.connections[peer.slot].sealed_bytes;
            let sealed_bytes = if any_sealed { u64::from(sealed()) } else { 0 };
            let bytes = match has_paid(peer) {
                // Only the rest of a frame and an ERROR are left in the queue.
                true => sealed_bytes,
                false => sealed_bytes + peer.queue.own_bytes(),
            };
            (bytes > SPARED_BYTES).then_some(Victim { has_paid: has_paid(peer), bytes, id })
        });
        // Most of them need not be in order.
        victims.collect::<Vec<_>>().into()
    }

    fn cut_for_memory(&mut self, id: PeerId) {
        let Some((_, peer)) = self.broker.peers.outbox(id) else { return };
        let slot = peer.slot;
        if peer.closure().is_none() {
            let limit = "outbound_total_bytes_max";
            let fault = Fault::too_slow(peer.queue.bytes(), limit).later();
            self.refuse(slot, &fault);
            // What TLS holds is freed only with the connection, and others would have to pay until it is.
            if u64::from(self.connections[slot].sealed_bytes) <= SPARED_BYTES {
                return;
            }
        }
        let Some((_, peer)) = self.broker.peers.outbox(id) else { return };
        let Some(closure) = peer.closure() else { return };
        let units = self.broker.peers.discard_unsent(id);
        self.broker.meter.spend(units);
        self.close_now(slot, closure.reason);
    }

    /// Has publishers read again once memory is free, some in each turn.
    #[inline]
    pub(super) fn resume_if_free(&mut self) {
        if self.memory.resumes() {
            self.resume_publishers();
        }
    }

    #[cold] // queues are rarely so full
    fn resume_publishers(&mut self) {
        let now_ms = self.patience.now_ms();
        for resumed in 1.. {
            let Some(id) = self.memory.paused.pop() else { return };
            if let Some(connection) = self.connections.find_mut(id)
                && std::mem::take(&mut connection.flags.paused)
            {
                connection.note_held_back(now_ms);
                self.connections.list_to_read(id.slot);
            }
            if resumed % RESUMED_PER_UNIT == 0 {
                self.broker.meter.spend(1);
                if self.broker.is_time_spent() {
                    return;
                }
            }
        }
    }
}

/// Connections that are closed for lack of memory in one turn.
const CUTS_PER_TURN_MAX: u32 = 32;

/// Queues that are looked at for a unit.
const SOUGHT_PER_UNIT: u32 = 8;

/// Publishers that are listed to be read for a unit.
const RESUMED_PER_UNIT: u32 = 4;

/// Size of a queue below which its connection is not closed for lack of memory: an ERROR fits.
const SPARED_BYTES: u64 = 2 * 1024;

/// Encoded bytes after which the turn is flushed before the next read: bytes that are still in the
/// processor's caches cost half as much to write.
const TURN_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::super::connection::ConnectionId;
    use super::*;

    fn memory() -> Memory {
        Memory::new(&Limits {
            inbound_total_bytes_max: 100,
            outbound_total_bytes_max: 1_000,
            ..Limits::default()
        })
    }

    #[test]
    fn memory_is_short_above_nine_tenths_and_free_again_below_seven() {
        let mut memory = memory();
        assert!(!memory.may_change(500));
        assert!(memory.may_change(501));
        for (queued_bytes, change) in [
            (900, Change::Unchanged),
            (901, Change::BecameShort),
            (5_000, Change::Unchanged),
            (700, Change::Unchanged),
            (699, Change::BecameFree),
            (900, Change::Unchanged),
        ] {
            assert_eq!(memory.judge(queued_bytes), change, "{queued_bytes}");
        }
        memory.judge(901);
        assert!(memory.may_change(0), "it has to become free again");
    }

    #[test]
    fn publishers_that_are_paused_are_work_once_memory_is_free() {
        let mut memory = memory();
        memory.judge(950);
        memory.paused.push(ConnectionId { slot: 0, generation: std::num::NonZeroU32::MIN });
        assert!(!memory.has_work());
        memory.judge(699);
        assert!(memory.has_work() && memory.resumes());
        memory.judge(950);
        assert!(!memory.has_work(), "it is short again before all are read");
        memory.judge(0);
        assert!(memory.paused.pop().is_some() && !memory.has_work());
    }

    #[test]
    fn connections_are_closed_after_a_pause_or_when_memory_is_used_up_until_it_is_free() {
        let mut memory = memory();
        memory.judge(950);
        memory.short_since_ms = 5_000;
        assert_eq!(memory.due_ms(), Some(6_000));
        assert!(!memory.judge_cutting(950, 5_999));
        assert!(memory.judge_cutting(950, 6_000));
        assert!(memory.judge_cutting(700, 6_001));
        assert!(!memory.judge_cutting(699, 6_002));
        assert!(memory.judge_cutting(1_000, 6_003));
    }

    #[test]
    fn who_holds_most_pays_and_the_newcomer_among_equals() {
        let mut memory = memory();
        for (slot, bytes) in [(0, 20), (1, 50), (2, 30)] {
            memory.set_held(slot, 0, bytes, 0);
            assert_eq!(memory.holder_to_refuse(slot, 0), None);
        }
        memory.set_held(3, 0, 10, 0);
        assert_eq!(memory.holder_to_refuse(3, 0), Some(1));
        // It cannot be freed before a job has ended.
        memory.set_ending(1, 0, 50);
        assert_eq!((memory.inbound_bytes(), memory.holder_to_refuse(3, 0)), (110, None));
        memory.set_held(3, 10, 60, 0);
        assert_eq!(memory.holder_to_refuse(2, 0), Some(3));
        memory.set_ending(3, 0, 60);
        memory.set_ending(1, 50, 0);
        memory.set_held(1, 50, 0, 0);
        memory.set_ending(3, 60, 0);
        memory.set_held(3, 60, 30, 0);
        assert_eq!((memory.inbound_bytes(), memory.holder_to_refuse(3, 0)), (80, None));
        memory.set_held(4, 0, 31, 0);
        assert_eq!(memory.holder_to_refuse(4, 0), Some(4), "as much as the largest");
        assert_eq!(memory.holder_to_refuse(4, 0), Some(3));
    }
}
