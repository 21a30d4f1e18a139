//! The turn: reading, flushing and settling, each stage within its part of the budget.

use std::io;

use super::Engine;
use super::budget::Stage;
use super::connection::{ConnectionId, Phase, Socket};
use super::flush::{FlushProgress, flush, keep};
use crate::broker::ids::PeerId;
use crate::broker::{CloseReason, Moment};
use crate::telemetry::Stage as Timed;
use crate::work;

/// Turns after which memory is counted, for the most that it was, and who holds some for long.
const TURNS_PER_COUNT: u64 = 16;

/// Units of a turn for each write that comes on top of it, if input calls for it: with the default these are 100 writes,
/// which take less than half a millisecond.
const UNITS_PER_FREE_WRITE: u32 = 25;

/// The part of a turn that a visit gets though its line's part is nearly over.
const LEAST_OF_A_VISIT: u32 = 16;

/// Bytes that are read from a connection of which is not known whether it sends more: however many have become
/// ready at once, each of them is soon read.
const FIRST_READ_BYTES: usize = 4 * 1024;

impl<S: Socket> Engine<S> {
    /// Reads from connections that are ready, each within its share of the turn, and handles the data: first a little
    /// from those that are logged in and have needed little for long, then from those that needed little last time,
    /// then from the others and those of which there is more, and from those whose protocol is not known yet last.
    pub fn receive(&mut self, now: Moment) {
        self.now = now;
        self.counters.turns += 1;
        let free_writes = self.limits.turn_units_max / UNITS_PER_FREE_WRITE;
        self.broker.peers.free_writes = free_writes as usize;
        self.read_lines();
        self.broker.peers.free_writes = 0;
    }

    fn read_lines(&mut self) {
        let until = self.budget.end_of(Stage::Receive);
        // Those behind are left a part of the turn, however many have become ready.
        let part = u64::from(self.limits.turn_units_max / 8);
        let left_to_continue = if self.connections.to_continue.is_empty() { 0 } else { part };
        let left_to_next = if self.connections.to_read_next.is_empty() { 0 } else { part };
        let bytes_max = self.limits.read_bytes_per_turn_max as usize;
        let line_until = until - left_to_next - left_to_continue;
        while self.broker.work_done() < line_until {
            let Some(id) = self.connections.to_read.pop() else { break };
            self.read_listed(id, FIRST_READ_BYTES.min(bytes_max), line_until);
        }
        let line_until = until - left_to_continue;
        while self.broker.work_done() < line_until {
            let Some(id) = self.connections.to_read_next.pop() else { break };
            self.read_listed(id, bytes_max, line_until);
        }
        while self.broker.work_done() < until {
            let Some(id) = self.connections.to_continue.pop() else { break };
            self.read_listed(id, bytes_max, until);
        }
        while let Some(id) = self.connections.to_greet.pop() {
            self.read_listed(id, bytes_max, until);
            if self.broker.work_done() >= until {
                break;
            }
        }
    }

    /// Reads a connection of a line whose part of the turn ends at a count of units: its share is what is left of that, but
    /// not so little that a visit achieves nothing.
    #[inline]
    fn read_listed(&mut self, id: ConnectionId, bytes_max: usize, line_until: u64) {
        if self.connections.find(id).is_none() {
            return;
        }
        let before = self.broker.work_done();
        let least = u64::from(self.limits.turn_units_max / LEAST_OF_A_VISIT);
        let left = line_until.saturating_sub(before).max(least) as u32;
        self.read_connection(id.slot, bytes_max, left.min(self.limits.share_units_max));
        // Writes that come on top of the turn do not count: somebody who sends to ten needs little. Those that were due may
        // have been kept instead, which takes less.
        let units = self.broker.work_done().saturating_sub(before);
        self.connections[id.slot].note_visit(units);
    }

    /// Writes to connections whose socket takes more again, as far as the turn allows, and then what was queued in
    /// this turn.
    pub fn flush(&mut self, now: Moment) {
        self.now = now;
        self.budget.begin(Stage::Wakes, &mut self.broker);
        for _ in 0..self.connections.to_flush.len() {
            if self.broker.is_time_spent() {
                break;
            }
            let Some(id) = self.connections.to_flush.pop() else { break };
            if self.connections.find(id).is_some() {
                self.flush_slot(id.slot);
            }
        }
        self.flush_dirty(Stage::Writes);
    }

    /// Ends the turn: closes slow consumers, checks deadlines, goes on with work of several turns, reaps closed
    /// connections, and records latencies.
    pub fn settle(&mut self, now: Moment) {
        self.patience.pass(self.now, now);
        self.now = now;
        for (arrived_ns, count) in self.flush_context.delivered.drain(..) {
            let elapsed_ns = now.ns.saturating_sub(arrived_ns);
            self.latencies.record_many(Timed::Delivery, elapsed_ns, count);
        }
        if self.counters.turns.is_multiple_of(TURNS_PER_COUNT) {
            self.note_most_bytes();
            self.memory.grow_older(self.now.ms());
        }
        self.budget.begin(Stage::Cuts, &mut self.broker);
        self.broker.cut_slow_consumers(now, self.patience.judged_ms());
        self.check_deadlines();
        self.budget.begin(Stage::Queues, &mut self.broker);
        self.broker.serve_backlog(now);
        self.budget.begin_jobs(&mut self.broker);
        self.broker.advance_jobs(now);
        while let Some(news) = self.broker.take_news() {
            self.note_job(news);
        }
        self.budget.begin(Stage::Reaping, &mut self.broker);
        self.free_doomed();
        self.cut_if_short();
        if self.broker.peers.has_dirty() {
            self.flush_dirty(Stage::Reaping);
        }
        self.watch_memory();
        self.resume_if_free();
        self.reap();
        self.endings.log_due(now.ms());
        // Frames encoded here that no queue took must not leave their arrival time to the next turn.
        let peers = &mut self.broker.peers;
        if !peers.has_dirty() && !peers.arena.is_fresh() {
            peers.arena.end_turn();
        }
    }

    /// Frees some of what was removed from queues of which much was removed at once.
    #[inline]
    fn free_doomed(&mut self) {
        if self.broker.peers.arena.has_doomed() {
            let units = self.broker.peers.free_doomed();
            self.broker.meter.spend(units);
        }
    }

    /// Checks connections whose deadline may have passed, as many as a turn may; the others are due at once.
    #[inline]
    fn check_deadlines(&mut self) {
        self.budget.begin(Stage::Deadlines, &mut self.broker);
        while let Some((armed_ms, id)) = self.deadlines.next_due(self.patience.told_ms()) {
            self.check_deadline(armed_ms, id);
            self.broker.meter.spend(work::DEADLINE);
            if self.broker.is_share_spent() {
                return;
            }
        }
    }

    /// Flushes each connection that has new frames, including those that are queued when another connection
    /// closes. Once that has taken longer than it may in a stage of the turn, the frames are kept for the next one.
    pub(super) fn flush_dirty(&mut self, stage: Stage) {
        let mut dirty = std::mem::take(&mut self.dirty);
        while self.broker.peers.has_dirty() {
            self.broker.peers.take_dirty(&mut dirty);
            // The list is worked off: the units that its writes need were counted when it was made.
            let pending = self.broker.peers.take_pending(dirty.len());
            self.budget.begin_writes(stage, pending, &mut self.broker);
            for peer in dirty.drain(..) {
                let is_late = self.broker.is_time_spent();
                let Some((_, outbox)) = self.broker.peers.outbox(peer) else { continue };
                let (slot, closure) = (outbox.slot, outbox.closure());
                if is_late {
                    self.keep(peer);
                }
                // A takeover or a full queue may have closed it.
                if let Some(closure) = closure {
                    self.begin_flushing(slot, closure.reason);
                }
                if is_late {
                    self.broker.peers.note_flushed(peer, self.now.ms());
                    self.connections.list_to_flush(slot);
                } else {
                    self.flush_slot(slot);
                }
            }
        }
        self.dirty = dirty;
        self.broker.peers.arena.end_turn();
    }

    pub(super) fn flush_slot(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.flags.listed_to_flush = false;
        let peer = connection.peer();
        let progress = if connection.flags.blocked || matches!(connection.phase, Phase::Closed(_)) {
            if let Some(peer) = peer {
                self.keep(peer);
            }
            Ok(FlushProgress::Blocked)
        } else {
            self.write_slot(slot)
        };
        if let Some(peer) = peer {
            self.broker.peers.note_flushed(peer, self.patience.now_ms());
        }
        match progress {
            Ok(FlushProgress::Drained) => {
                if let Phase::Flushing(reason) = self.connections[slot].phase {
                    self.handle_drained(slot, reason);
                }
            }
            Ok(FlushProgress::Blocked) => self.connections[slot].flags.blocked = true,
            Ok(FlushProgress::Spent) => self.connections.list_to_flush(slot),
            Err(_) => self.close_now(slot, CloseReason::Lost),
        }
    }

    /// Writes what a connection has queued, as far as its share and the turn allow.
    #[inline]
    fn write_slot(&mut self, slot: u32) -> io::Result<FlushProgress> {
        let bytes_max = self.limits.write_bytes_per_turn_max as usize;
        let connection = &mut self.connections[slot];
        let kept_before = self.broker.peers.arena.backlog_bytes();
        let before = (connection.totals.bytes_out, connection.totals.frames_out);
        let outbox = connection.peer().and_then(|peer| self.broker.peers.outbox(peer));
        let progress = flush(connection, outbox, &mut self.flush_context, bytes_max);
        let bytes = connection.totals.bytes_out - before.0;
        self.counters.bytes_out += bytes;
        let each = if connection.tls.is_some() { work::SENT_TLS_KIB } else { work::SENT_KIB };
        self.broker.meter.spend(work::WRITE + each * work::of_bytes(bytes as usize));
        let frames = connection.totals.frames_out.wrapping_sub(before.1);
        // A WebSocket client sees only whole messages, no pings and no pongs.
        if frames > 0 || (bytes > 0 && !connection.transport.is_websocket()) {
            connection.sent_ms = self.now.ms();
        }
        self.counters.frames_out += u64::from(frames);
        self.note_sealed(slot);
        self.count_kept(kept_before);
        progress
    }

    /// Keeps the frames of this turn for a connection that is not written to.
    fn keep(&mut self, peer: PeerId) {
        let before = self.broker.peers.arena.backlog_bytes();
        if let Some((arena, outbox)) = self.broker.peers.outbox(peer) {
            keep(arena, outbox);
        }
        self.count_kept(before);
    }

    /// Counts what was copied to backlogs, or freed of them, since they had `before` bytes.
    #[inline]
    fn count_kept(&mut self, before: u64) {
        let after = self.broker.peers.arena.backlog_bytes();
        if after == before {
            return;
        }
        let units = match after.checked_sub(before) {
            Some(copied) => (work::KIB + work::FRESH_KIB) * work::of_bytes(copied as usize),
            None => work::of_freed(before - after),
        };
        self.broker.meter.spend(units);
    }

    pub(super) fn wake_flush(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        let closing = matches!(connection.phase, Phase::Flushing(_));
        let tls_writes = connection.tls.as_ref().is_some_and(|tls| tls.wants_write());
        if closing || tls_writes || !connection.transport.control().is_empty() {
            self.connections.list_to_flush(slot);
        }
    }
}
