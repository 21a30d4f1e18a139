//! The only clock. Everything else takes `now` as an argument.

use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};

use crate::broker::Moment;
use crate::calendar::Timestamp;

/// A clock that starts at zero.
#[derive(Debug)]
pub(super) struct Clock {
    started_ns: u64,
    started_at: SystemTime,
    /// Wall-clock time when it was last read, and when that was.
    unix_ms: u64,
    read_at_ms: u64,
}

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        let started_at = wall();
        Self {
            started_ns: monotonic_ns(),
            started_at,
            unix_ms: Timestamp::from(started_at).0,
            read_at_ms: 0,
        }
    }

    /// The current time. The wall clock is read once a second and extrapolated in between.
    #[inline]
    pub(super) fn now(&mut self) -> Moment {
        let ns = monotonic_ns() - self.started_ns;
        let ms = ns / 1_000_000;
        if ms - self.read_at_ms >= WALL_EVERY_MS {
            self.unix_ms = Timestamp::from(wall()).0;
            self.read_at_ms = ms;
        }
        Moment { ns, unix_ms: self.unix_ms + (ms - self.read_at_ms) }
    }

    /// Wall-clock time of the start.
    pub(super) fn started_at(&self) -> SystemTime {
        self.started_at
    }
}

const WALL_EVERY_MS: u64 = 1_000;

/// The monotonic clock, read directly: at two reads a turn, the overhead of [`std::time::Instant`]
/// counts.
#[inline]
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn wall() -> SystemTime {
    SystemTime::now()
}
