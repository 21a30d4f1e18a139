//! The only clock: what time it is, for everything that is given `now`.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::broker::Moment;

/// A clock that starts at zero.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    started_at: SystemTime,
    /// By how much the wall's clock is ahead, in milliseconds, and when that was looked at.
    unix_ms: u64,
    looked_at_ms: u64,
}

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        let started_at = wall();
        Self { started: instant(), started_at, unix_ms: unix_ms(started_at), looked_at_ms: 0 }
    }

    /// What time it is. The wall's clock is looked at once a second and carried on in between.
    #[inline]
    pub(super) fn now(&mut self) -> Moment {
        let ns = instant().duration_since(self.started).as_nanos() as u64;
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

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn instant() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn wall() -> SystemTime {
    SystemTime::now()
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
