//! A timer that ends the poll. It is set again only for an earlier time: a timeout given to every poll
//! would set and clear a timer each turn, which costs as much as parsing a frame.

use std::io;
use std::time::Duration;

use mio::Registry;

use super::ALARM;

/// A timer of the kernel that the poll reports when it expires. On systems other than Linux, the timeout
/// of the poll takes its place.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    timer: std::os::fd::OwnedFd,
    /// When it expires, in milliseconds of the loop's clock; [`NEVER`] if it is not set.
    expires_ms: u64,
}

const NEVER: u64 = u64::MAX;

impl Alarm {
    /// Notes that it has expired. To be called before it is set again.
    pub(super) fn note_expired(&mut self) {
        self.expires_ms = NEVER;
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
        Ok(Self { timer, expires_ms: NEVER })
    }

    /// Makes the poll end at `at_ms` or before. Returns the timeout that the poll needs for it.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn set(&mut self, at_ms: Option<u64>, now_ns: u64) -> io::Result<Option<Duration>> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let Some(at_ms) = at_ms.filter(|at_ms| *at_ms < self.expires_ms) else { return Ok(None) };
        // Zero would clear it.
        let left = time_left(at_ms, now_ns).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.expires_ms = at_ms;
        Ok(None)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Alarm {
    #[expect(clippy::unnecessary_wraps, reason = "same signature as on Linux")]
    pub(super) fn new(_registry: &Registry) -> io::Result<Self> {
        Ok(Self { expires_ms: NEVER })
    }

    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "same signature as on Linux")]
    pub(super) fn set(&mut self, at_ms: Option<u64>, now_ns: u64) -> io::Result<Option<Duration>> {
        Ok(at_ms.map(|at_ms| time_left(at_ms, now_ns)))
    }
}

/// Time from `now_ns` to `at_ms`; zero if that is past.
fn time_left(at_ms: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(at_ms.saturating_mul(1_000_000).saturating_sub(now_ns))
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn it_expires_once_and_only_if_it_is_set() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let mut alarm = Alarm::new(poll.registry()).unwrap();
        for due_ms in [0, 1, 2] {
            let timeout = alarm.set(Some(due_ms), 1_000_000).unwrap();
            poll.poll(&mut events, timeout).unwrap();
            alarm.note_expired();
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(events.is_empty(), "it expired a second time");
        }
    }

    #[test]
    fn an_earlier_time_replaces_a_later_one() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let mut alarm = Alarm::new(poll.registry()).unwrap();
        alarm.set(Some(1_000_000), 0).unwrap();
        alarm.set(None, 0).unwrap();
        alarm.set(Some(2_000_000), 0).unwrap();
        let timeout = alarm.set(Some(1), 0).unwrap();
        // With the first time, this would wait a quarter of an hour.
        poll.poll(&mut events, timeout).unwrap();
    }

    #[test]
    fn no_time_is_left_until_a_past_deadline() {
        assert_eq!(time_left(5, 5_000_000), Duration::ZERO);
        assert_eq!(time_left(5, 6_000_000), Duration::ZERO);
        assert_eq!(time_left(5, 4_999_999), Duration::from_nanos(1));
        assert_eq!(time_left(u64::MAX, 0), Duration::from_nanos(u64::MAX));
    }
}
