//! The only clock: what time it is, for everything that is given `now`.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::broker::Moment;

/// A clock that starts at zero.
#[derive(Debug)]
pub(super) struct Clock {
    started_ns: u64,
    started_at: SystemTime,
    /// By how much the wall's clock is ahead, in milliseconds, and when that was looked at.
    unix_ms: u64,
    looked_at_ms: u64,
}

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        let started_at = wall();
        Self {
            started_ns: monotonic_ns(),
            started_at,
            unix_ms: unix_ms(started_at),
            looked_at_ms: 0,
        }
    }

    /// What time it is. The wall's clock is looked at once a second and carried on in between.
    #[inline]
    pub(super) fn now(&mut self) -> Moment {
        let ns = monotonic_ns() - self.started_ns;
        let ms = ns / 1_000_000;
        if ms - self.looked_at_ms >= WALL_EVERY_MS {
            self.unix_ms = unix_ms(wall());
            self.looked_at_ms = ms;
        }
        Moment { ns, unix_ms: self.unix_ms + (ms - self.looked_at_ms) }
    }

    /// When it started, by the wall.
    pub(super) fn started_at(&self) -> SystemTime {
        self.started_at
    }
}

const WALL_EVERY_MS: u64 = 1_000;

/// The clock that only goes forwards. Two reads a turn are worth doing without what
/// [`std::time::Instant`] adds.
#[inline]
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn wall() -> SystemTime {
    SystemTime::now()
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
