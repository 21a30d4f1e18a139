//! Memory: the account of frames that have arrived only in part, and backpressure on publishers while
//! outbound queues use too much.

use super::Engine;
use super::connection::{Connection, Phase, Socket};
use super::table::WorkList;
use crate::limits::{Exceeded, Limits};

/// The account of memory, and the connections that are paused while it is short.
#[derive(Debug)]
pub(super) struct Memory {
    /// Memory for frames that have arrived only in part.
    inbound_bytes: u64,
    inbound_bytes_max: u64,
    queued_bytes_max: u64,
    is_short: bool,
    /// Publishers that are not read.
    paused: WorkList,
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
            inbound_bytes_max: limits.inbound_total_bytes_max,
            queued_bytes_max: limits.outbound_total_bytes_max,
            is_short: false,
            paused: WorkList::default(),
        }
    }

    /// Notes that a connection held `before` bytes and now holds `after`.
    ///
    /// # Errors
    /// It holds more than before, and all connections together exceed the limit.
    pub(super) fn note_held(&mut self, before: u64, after: u64) -> Result<(), Exceeded> {
        self.inbound_bytes = self.inbound_bytes - before + after;
        let max = self.inbound_bytes_max;
        if self.inbound_bytes > max && after > before {
            return Err(Exceeded { limit: "inbound_total_bytes_max", max });
        }
        Ok(())
    }

    /// Notes that bytes were released.
    pub(super) fn note_released(&mut self, bytes: u64) {
        self.inbound_bytes -= bytes;
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
    /// Whether a connection must not be read now, as that of a publisher while memory is short.
    #[inline]
    pub(super) fn holds_back(&mut self, slot: u32) -> bool {
        self.memory.is_short && self.holds_back_slow(slot)
    }

    #[cold] // memory is rarely short
    fn holds_back_slow(&mut self, slot: u32) -> bool {
        let connection = &mut self.connections[slot];
        let publishes =
            connection.peer().is_some_and(|peer| self.broker.peers.peer(peer).publishes);
        if !publishes || connection.phase != Phase::Open {
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
            self.flush_dirty();
        }
        self.watch_memory();
    }

    /// Pauses or resumes publishers, as memory requires.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        let queued_bytes = self.broker.peers.arena.resident_bytes();
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
                self.counters.publishers_paused += 1;
                log::warn!(queued_bytes, outbound_total_bytes_max = max; "publishers paused");
            }
            Change::BecameFree => {
                log::info!(queued_bytes; "publishers resumed");
                self.resume_publishers();
            }
        }
    }

    fn resume_publishers(&mut self) {
        let now_ms = self.patience.now_ms();
        while let Some(id) = self.memory.paused.pop() {
            let Some(connection) = self.connections.find_mut(id) else { continue };
            if std::mem::take(&mut connection.flags.paused) {
                connection.note_held_back(now_ms);
                self.connections.list_to_read(id.slot);
            }
        }
    }
}

/// Encoded bytes after which the turn is flushed before the next read: bytes that are still in the
/// processor's caches cost half as much to write.
const TURN_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
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
    fn a_connection_that_releases_bytes_exceeds_no_limit() {
        let mut memory = memory();
        assert_eq!(memory.note_held(0, 100), Ok(()));
        let exceeded = Exceeded { limit: "inbound_total_bytes_max", max: 100 };
        assert_eq!(memory.note_held(0, 20), Err(exceeded));
        assert_eq!(memory.note_held(20, 10), Ok(()));
        assert_eq!(memory.inbound_bytes(), 110);
    }
}
