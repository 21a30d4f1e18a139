//! The clock by which clients are judged: it stands still while the broker itself does not run.
//!
//! A process may be stopped, its machine paused, or a turn may take long. What clients sent meanwhile waits
//! in the kernel, or is still on its way, and nobody can be blamed for it. So all times that a client has for
//! something are measured on this clock, on which such a pause takes no time: the deadlines of all
//! connections move by the pause, and none of them is visited. What is promised to clients, as the broker's
//! own heart-beats and the expiry of messages, follows the real clock.
//!
//! Besides, nobody is judged for what the kernel has not told yet. A poll may report only a part of the
//! sockets that are ready, so that the last time up to which everything is known may be earlier than the poll.

use crate::broker::Moment;

/// The clock, and up to when clients can be judged.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// How long the broker has not run although it should have, in total. It never exceeds the real time.
    late_ms: u64,
    /// The begin of the turn on this clock, in milliseconds.
    now_ms: u64,
    /// The real time up to which the kernel has told which sockets are ready, in nanoseconds.
    told_ns: u64,
}

impl Patience {
    /// Begins a turn. The last one ended at `ended`; the poll was due to end at `due_ms`, if at any time
    /// at all, and ended at `polled`; the kernel has told what was ready at `told_ns`.
    #[inline]
    pub(super) fn begin_turn(
        &mut self,
        ended: Moment,
        due_ms: Option<u64>,
        polled: Moment,
        told_ns: u64,
    ) {
        if polled.ns.saturating_sub(ended.ns) > TOLERANCE_MS * 1_000_000 {
            self.note_sleep(ended.ms(), due_ms, polled.ms());
        }
        self.told_ns = told_ns;
        self.now_ms = polled.ms() - self.late_ms;
    }

    /// Notes the time that has passed within a turn, which does not sleep.
    #[inline]
    pub(super) fn pass(&mut self, from: Moment, to: Moment) {
        if to.ns.saturating_sub(from.ns) > TOLERANCE_MS * 1_000_000 {
            self.note_pause(from.ms(), to.ms());
        }
    }

    #[cold] // a poll rarely takes so long
    fn note_sleep(&mut self, ended_ms: u64, due_ms: Option<u64>, polled_ms: u64) {
        let Some(due_ms) = due_ms else { return };
        let overslept_ms = polled_ms.saturating_sub(due_ms.max(ended_ms));
        // It is not known when in its sleep the broker was paused. So it gets up to as much again; all of
        // the sleep would be too much where every poll ends a little late.
        let paused_ms = (2 * overslept_ms).min(polled_ms - ended_ms);
        if overslept_ms > TOLERANCE_MS {
            self.late_ms += paused_ms - TOLERANCE_MS;
        }
    }

    #[cold] // a turn rarely takes so long
    fn note_pause(&mut self, from_ms: u64, to_ms: u64) {
        // The times are rounded.
        self.late_ms += (to_ms - from_ms).saturating_sub(TOLERANCE_MS);
        self.now_ms = to_ms - self.late_ms;
    }

    /// The time on this clock, in milliseconds: when something happened that a client did, or is asked
    /// for.
    #[inline]
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The time on this clock up to which clients can be judged, in milliseconds.
    pub(super) fn judged_ms(&self) -> u64 {
        self.told_ms().saturating_sub(self.late_ms)
    }

    /// The real time of [`Self::judged_ms`].
    #[inline]
    pub(super) fn told_ms(&self) -> u64 {
        self.told_ns / 1_000_000
    }

    /// The time on this clock at a real time that is not past.
    pub(super) fn at(&self, real_ms: u64) -> u64 {
        real_ms - self.late_ms
    }

    /// When this clock will show a time, unless there are more pauses.
    #[inline]
    pub(super) fn real_ms(&self, at_ms: u64) -> u64 {
        at_ms.saturating_add(self.late_ms)
    }

    /// How long the broker has not run although it should have, in total.
    pub(super) fn late_ms(&self) -> u64 {
        self.late_ms
    }
}

/// How late a turn may be, or how long, before the rest counts as a pause. The clock advances by at least
/// this in each turn, so that a client that is gone is found on the slowest machine.
const TOLERANCE_MS: u64 = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment { ns: ms * 1_000_000, unix_ms: 0 }
    }

    /// The lateness after a poll.
    fn late(ended_ms: u64, due_ms: Option<u64>, polled_ms: u64) -> u64 {
        let mut patience = Patience::default();
        patience.begin_turn(at(ended_ms), due_ms, at(polled_ms), at(polled_ms).ns);
        assert_eq!(patience.now_ms(), polled_ms - patience.late_ms());
        patience.late_ms()
    }

    #[test]
    fn a_sleep_that_was_meant_is_no_pause() {
        assert_eq!(late(1_000, None, 90_000), 0);
        assert_eq!(late(1_000, Some(90_000), 90_000), 0);
        assert_eq!(late(1_000, Some(90_000), 2_000), 0, "an event ended it");
        assert_eq!(late(1_000, Some(2_000), 2_100), 0, "a little late");
    }

    #[test]
    fn a_pause_is_at_most_the_whole_sleep() {
        assert_eq!(late(1_000, Some(1_000), 11_000), 9_900, "there was work");
        assert_eq!(late(1_000, Some(500), 11_000), 9_900, "it was due in the last turn");
        assert_eq!(late(1_000, Some(4_000), 11_000), 9_900);
        assert_eq!(late(1_000, Some(9_000), 11_000), 3_900);
    }

    #[test]
    fn a_pause_within_a_turn_moves_what_is_judged() {
        let mut patience = Patience::default();
        patience.begin_turn(at(0), None, at(5_000), at(5_000).ns);
        patience.pass(at(5_000), at(5_100));
        assert_eq!((patience.now_ms(), patience.judged_ms()), (5_000, 5_000));
        patience.pass(at(5_000), at(8_000));
        assert_eq!((patience.now_ms(), patience.judged_ms()), (5_100, 2_100));
        assert_eq!(patience.real_ms(6_000), 8_900);
        assert_eq!(patience.at(8_900), 6_000);
    }

    #[test]
    fn clients_are_judged_up_to_what_the_kernel_has_told() {
        let mut patience = Patience::default();
        patience.begin_turn(at(0), None, at(5_000), at(4_000).ns);
        assert_eq!(
            (patience.now_ms(), patience.judged_ms(), patience.told_ms()),
            (5_000, 4_000, 4_000)
        );
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_never_stops_for_good(
            spans in prop::collection::vec((0..9_000u64, prop::option::of(0..9_000u64), 0..900u64), 1..50),
        ) {
            let mut patience = Patience::default();
            let (mut now_ms, mut before_ms) = (0, 0);
            for (slept_ms, due_ms, busy_ms) in spans {
                let polled_ms = now_ms + slept_ms;
                let due_ms = due_ms.map(|ms| now_ms + ms);
                patience.begin_turn(at(now_ms), due_ms, at(polled_ms), at(polled_ms).ns);
                now_ms = polled_ms + busy_ms;
                patience.pass(at(polled_ms), at(now_ms));
                let passed_ms = patience.at(now_ms) - before_ms;
                prop_assert!(passed_ms >= slept_ms.min(TOLERANCE_MS) + busy_ms.min(TOLERANCE_MS));
                prop_assert!(passed_ms <= slept_ms + busy_ms);
                before_ms = patience.at(now_ms);
            }
        }
    }
}
