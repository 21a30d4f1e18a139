//! The tool's only clock: nanoseconds since its start, and the date for reports.

use std::time::{Duration, Instant, SystemTime};

use time::UtcDateTime;

/// A clock that starts at zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    pub fn start() -> Self {
        Self(instant())
    }

    /// Nanoseconds since the start.
    #[inline]
    pub fn now_ns(self) -> u64 {
        instant().duration_since(self.0).as_nanos() as u64
    }
}

/// The date and time now, for reports: `2026-01-31 23:59 UTC`.
pub fn readable_now() -> String {
    format!("{} UTC", date_and_minute(since_epoch()))
}

/// The date and time in UTC, as `2026-01-31 23:59`.
fn date_and_minute(since_epoch: Duration) -> String {
    let at = UtcDateTime::UNIX_EPOCH + since_epoch;
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, _) = at.as_hms();
    format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}", u8::from(month))
}

/// Time since 1970 by the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_798_761_599, "2026-12-31 23:59"),
        ] {
            assert_eq!(date_and_minute(Duration::from_secs(seconds)), text);
        }
    }
}
