//! Dates and times in UTC, and their textual form.
//!
//! It does not know clocks: a time is a number of milliseconds since 1970-01-01.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use time::UtcDateTime;

/// Milliseconds since 1970-01-01, displayed in the form of RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp(pub u64);

impl Timestamp {
    /// The parts of date and time, for other forms. Times after the year 9999 become its last moment.
    pub(crate) fn parts(self) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp_nanos(i128::from(self.0) * NS_PER_MS)
            .unwrap_or(UtcDateTime::MAX)
    }
}

const NS_PER_MS: i128 = 1_000_000;

/// Times before 1970 become 1970-01-01.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.parts();
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, ms) = at.as_hms_milli();
        let month = u8::from(month);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_210_096_007, "2024-02-29T12:34:56.007Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (1_795_403_063_042, "2026-11-23T03:04:23.042Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (unix_ms, expected) in cases {
            assert_eq!(Timestamp(unix_ms).to_string(), expected);
        }
    }

    #[test]
    fn a_time_of_the_system_counts_from_1970() {
        let (before, after) = (UNIX_EPOCH - Duration::from_secs(1), Duration::from_micros(1_999));
        assert_eq!(Timestamp::from(before), Timestamp(0));
        assert_eq!(Timestamp::from(UNIX_EPOCH + after), Timestamp(1));
    }
}
