//! Waking the poll at a given time. The kernel's timer is set once and again only where it would be
//! too late: telling every poll how long to sleep would set and clear a timer each turn, which costs
//! as much as parsing a frame.

use std::io;
use std::time::Duration;

use mio::Registry;

use super::ALARM;

/// A timer that is ready for the poll when its time has come. Where the system has none to offer, the
/// poll's own timeout does.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    timer: std::os::fd::OwnedFd,
    /// When it rings, in milliseconds of the loop's clock; [`NEVER`] where it is not set.
    rings_ms: u64,
}

/// No time.
const NEVER: u64 = u64::MAX;

impl Alarm {
    /// Says that it has rung, which is before it may be set again.
    pub(super) fn note_rung(&mut self) {
        self.rings_ms = NEVER;
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use mio::Interest;
        use mio::unix::SourceFd;
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), ALARM, Interest::READABLE)?;
        Ok(Self { timer, rings_ms: NEVER })
    }

    /// Sees to it that the poll ends at `at_ms`, or before. Gives the timeout that it is to be given for
    /// that.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn set(&mut self, at_ms: Option<u64>, now_ns: u64) -> io::Result<Option<Duration>> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let Some(at_ms) = at_ms.filter(|at_ms| *at_ms < self.rings_ms) else { return Ok(None) };
        // Zero would clear it.
        let left = time_left(at_ms, now_ns).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.rings_ms = at_ms;
        Ok(None)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Alarm {
    #[expect(clippy::unnecessary_wraps, reason = "it does what the other one does")]
    pub(super) fn new(_registry: &Registry) -> io::Result<Self> {
        Ok(Self { rings_ms: NEVER })
    }

    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same")]
    pub(super) fn set(&mut self, at_ms: Option<u64>, now_ns: u64) -> io::Result<Option<Duration>> {
        Ok(at_ms.map(|at_ms| time_left(at_ms, now_ns)))
    }
}

/// From `now_ns` to `at_ms`; zero, where that is over.
fn time_left(at_ms: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(at_ms.saturating_mul(1_000_000).saturating_sub(now_ns))
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn it_rings_once_and_only_when_it_is_set() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let mut alarm = Alarm::new(poll.registry()).unwrap();
        for due_ms in [0, 1, 2] {
            let timeout = alarm.set(Some(due_ms), 1_000_000).unwrap();
            poll.poll(&mut events, timeout).unwrap();
            alarm.note_rung();
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(events.is_empty(), "it rang a second time");
        }
    }

    #[test]
    fn only_an_earlier_time_takes_the_place_of_another() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let mut alarm = Alarm::new(poll.registry()).unwrap();
        alarm.set(Some(1_000_000), 0).unwrap();
        alarm.set(None, 0).unwrap();
        alarm.set(Some(2_000_000), 0).unwrap();
        let timeout = alarm.set(Some(1), 0).unwrap();
        // An hour would be the end of the test.
        poll.poll(&mut events, timeout).unwrap();
    }

    #[test]
    fn what_is_over_leaves_no_time() {
        assert_eq!(time_left(5, 5_000_000), Duration::ZERO);
        assert_eq!(time_left(5, 6_000_000), Duration::ZERO);
        assert_eq!(time_left(5, 4_999_999), Duration::from_nanos(1));
        assert_eq!(time_left(u64::MAX, 0), Duration::from_nanos(u64::MAX));
    }
}
