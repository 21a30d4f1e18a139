//! Memory: what frames hold that have arrived only in part, and publishers that are not read while
//! what is queued to their receivers takes too much.

use super::Engine;
use super::connection::{Connection, Phase, Socket};
use super::table::WorkList;
use crate::limits::{Exceeded, Limits};

/// The account of memory, and who waits for some to be free again.
#[derive(Debug)]
pub(super) struct Memory {
    /// Held for frames that have arrived only in part.
    inbound_bytes: u64,
    inbound_bytes_max: u64,
    queued_bytes_max: u64,
    is_short: bool,
    /// Publishers that are not read while memory is short.
    paused: WorkList,
}

/// What became of the memory for what is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turned {
    Nowhere,
    Short,
    Free,
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

    /// Notes that a connection holds another number of bytes than before.
    ///
    /// # Errors
    /// It holds more, and all together hold more than they may.
    #[inline]
    pub(super) fn note_held(&mut self, before: u64, after: u64) -> Result<(), Exceeded> {
        self.inbound_bytes = self.inbound_bytes - before + after;
        let max = self.inbound_bytes_max;
        if self.inbound_bytes > max && after > before {
            return Err(Exceeded { limit: "inbound_total_bytes_max", max });
        }
        Ok(())
    }

    /// Notes that so many bytes are held no more.
    pub(super) fn note_released(&mut self, bytes: u64) {
        self.inbound_bytes -= bytes;
    }

    /// Held for frames that have arrived only in part.
    pub(super) fn inbound_bytes(&self) -> u64 {
        self.inbound_bytes
    }

    /// Notes that a connection is not read from now on.
    fn pause<S>(&mut self, connection: &mut Connection<S>) {
        if !connection.flags.paused {
            connection.flags.paused = true;
            self.paused.push(connection.id);
        }
    }

    /// Whether so much is queued that [`Self::judge`] may find that something has changed.
    #[inline]
    fn is_in_question(&self, queued_bytes: u64) -> bool {
        // Half is far from where anything is done.
        self.is_short || queued_bytes > self.queued_bytes_max / 2
    }

    /// Whether memory has become short, or has become free again: between the two bounds it stays as
    /// it was.
    fn judge(&mut self, queued_bytes: u64) -> Turned {
        let max = self.queued_bytes_max;
        if !self.is_short && queued_bytes > max / 10 * 9 {
            self.is_short = true;
            Turned::Short
        } else if self.is_short && queued_bytes < max / 10 * 7 {
            self.is_short = false;
            Turned::Free
        } else {
            Turned::Nowhere
        }
    }

    /// Whether a rush has left memory that is worth returning.
    pub(super) fn has_slack(&self) -> bool {
        self.paused.has_slack()
    }

    /// Returns the memory of a past rush.
    pub(super) fn trim(&mut self) {
        self.paused.trim();
    }
}

impl<S: Socket> Engine<S> {
    /// Whether a connection is not to be read now: that of a publisher, while memory is short.
    #[inline]
    pub(super) fn holds_back(&mut self, slot: u32) -> bool {
        self.memory.is_short && self.holds_back_slow(slot)
    }

    #[cold]
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

    /// Flushes at once where queues grow past their soft bound while others are still being read,
    /// so that a receiver that keeps up is not taken for a slow one.
    pub(super) fn relieve_pressure(&mut self) {
        let is_full = self.broker.peers.arena.turn_bytes() >= TURN_BYTES_MAX;
        if self.broker.peers.take_pressure_grew() || is_full {
            self.flush_dirty();
        }
        self.watch_memory();
    }

    /// Begins and ends holding publishers back.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        let queued_bytes = self.broker.peers.arena.resident_bytes();
        if self.memory.is_in_question(queued_bytes) {
            self.watch_memory_slow(queued_bytes);
        }
    }

    #[cold]
    fn watch_memory_slow(&mut self, queued_bytes: u64) {
        match self.memory.judge(queued_bytes) {
            Turned::Nowhere => {}
            Turned::Short => {
                let max = self.limits.outbound_total_bytes_max;
                self.counters.publishers_paused += 1;
                log::warn!(queued_bytes, outbound_total_bytes_max = max; "publishers paused");
            }
            Turned::Free => {
                log::info!(queued_bytes; "publishers resumed");
                self.resume_publishers();
            }
        }
    }

    fn resume_publishers(&mut self) {
        let now_ms = self.now.ms();
        for id in self.memory.paused.take() {
            let Some(connection) = self.connections.find_mut(id) else { continue };
            if std::mem::take(&mut connection.flags.paused) {
                connection.note_heard(now_ms);
                self.connections.list_to_read(id.slot);
            }
        }
    }
}

/// Bytes that are encoded before they are flushed, but for what one read brought: what stays in the
/// processor's caches is written at half the cost.
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
        assert!(!memory.is_in_question(500));
        assert!(memory.is_in_question(501));
        for (queued_bytes, turned) in [
            (900, Turned::Nowhere),
            (901, Turned::Short),
            (5_000, Turned::Nowhere),
            (700, Turned::Nowhere),
            (699, Turned::Free),
            (900, Turned::Nowhere),
        ] {
            assert_eq!(memory.judge(queued_bytes), turned, "{queued_bytes}");
        }
        memory.judge(901);
        assert!(memory.is_in_question(0), "it is to be told that it is free again");
    }

    #[test]
    fn who_lets_go_of_bytes_is_at_no_fault_however_many_are_held() {
        let mut memory = memory();
        assert_eq!(memory.note_held(0, 100), Ok(()));
        let exceeded = Exceeded { limit: "inbound_total_bytes_max", max: 100 };
        assert_eq!(memory.note_held(0, 20), Err(exceeded));
        assert_eq!(memory.note_held(20, 10), Ok(()));
        assert_eq!(memory.inbound_bytes(), 110);
    }
}
