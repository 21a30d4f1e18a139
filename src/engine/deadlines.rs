//! Deadlines of connections: a heap of (time, connection) pairs.
//!
//! An entry is a hint to check a connection, not a promise that something is due: activity moves only the
//! connection's own deadline, and the check arms a later entry. So activity costs nothing here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ConnectionId;

/// All deadlines.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, ConnectionId)>>,
}

impl Deadlines {
    /// Schedules a check of a connection.
    pub(crate) fn arm(&mut self, at_ms: u64, id: ConnectionId) {
        self.heap.push(Reverse((at_ms, id)));
    }

    /// Takes the next entry that is due: the time for which it was armed, and the connection.
    pub(crate) fn next_due(&mut self, now_ms: u64) -> Option<(u64, ConnectionId)> {
        let Reverse((at_ms, _)) = self.heap.peek()?;
        if *at_ms > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Time of the next entry.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Whether a burst has left memory that is worth returning.
    pub(crate) fn has_slack(&self) -> bool {
        self.heap.capacity() > 4 * self.heap.len().max(64)
    }

    /// Returns the memory of a past burst.
    pub(crate) fn trim(&mut self) {
        if self.has_slack() {
            self.heap.shrink_to(2 * self.heap.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_those_due_fire_in_order_for_any_tick(
            entries in prop::collection::vec(0..1000u64, 0..50),
            ticks in prop::collection::vec(0..200u64, 1..20),
        ) {
            let mut deadlines = Deadlines::default();
            for (slot, at_ms) in entries.iter().enumerate() {
                deadlines.arm(*at_ms, ConnectionId { slot: slot as u32, generation: NonZeroU32::MIN });
            }
            let mut now_ms = 0;
            let mut fired = Vec::new();
            for tick in ticks {
                now_ms += tick;
                while let Some((_, id)) = deadlines.next_due(now_ms) {
                    fired.push(entries[id.slot as usize]);
                }
                prop_assert!(deadlines.next_ms().is_none_or(|at_ms| at_ms > now_ms));
            }
            let mut expected: Vec<_> = entries.into_iter().filter(|at_ms| *at_ms <= now_ms).collect();
            expected.sort_unstable();
            prop_assert_eq!(fired, expected);
        }
    }
}
