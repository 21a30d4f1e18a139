//! Up to when the kernel has told which sockets are ready: a poll returns a bounded number of events.

use super::EVENTS_PER_TURN;

/// The polls since one that told everything.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Full polls since `begun_ns`.
    polls: usize,
    begun_ns: u64,
    told_ns: u64,
}

impl Sweep {
    /// Notes a poll and the number of its events. Returns the time up to which everything is known that
    /// became ready, in nanoseconds.
    #[inline]
    pub(super) fn note(&mut self, polled_ns: u64, events: usize, sockets: usize) -> u64 {
        if events == EVENTS_PER_TURN {
            return self.note_full(polled_ns, sockets);
        }
        self.polls = 0;
        self.told_ns = polled_ns;
        polled_ns
    }

    /// Notes a poll that returned as many events as it can. The kernel reports sockets in the order in
    /// which they became ready, so that after enough polls those that were ready at the first one are all
    /// known, even if every poll is full.
    #[cold] // few polls return so much
    fn note_full(&mut self, polled_ns: u64, sockets: usize) -> u64 {
        if self.polls == 0 {
            self.begun_ns = polled_ns;
        }
        self.polls += 1;
        if self.polls * EVENTS_PER_TURN >= sockets {
            self.polls = 0;
            self.told_ns = self.begun_ns;
        }
        self.told_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_is_not_full_tells_everything() {
        let mut sweep = Sweep::default();
        assert_eq!(sweep.note(1, 0, 9_000), 1);
        assert_eq!(sweep.note(2, EVENTS_PER_TURN, 9_000), 1);
        assert_eq!(sweep.note(3, EVENTS_PER_TURN - 1, 9_000), 3);
        assert_eq!(sweep.note(4, EVENTS_PER_TURN, 9_000), 3, "a new sweep");
    }

    #[test]
    fn full_polls_for_ever_tell_what_was_ready_when_they_began() {
        let mut sweep = Sweep::default();
        let sockets = 2 * EVENTS_PER_TURN + 1;
        let told: Vec<_> = (1..8).map(|ns| sweep.note(ns, EVENTS_PER_TURN, sockets)).collect();
        assert_eq!(told, [0, 0, 1, 1, 1, 4, 4]);
    }
}
