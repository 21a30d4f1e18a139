//! HDR histogram logs, for the HdrHistogram tools.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::outcome::Outcome;

/// Runs as a log with an interval for each kind of latency, tagged with the kind.
///
/// # Errors
/// A histogram cannot be written.
pub fn log(outcomes: &[Outcome], since_epoch: Duration) -> io::Result<Vec<u8>> {
    const LEGEND: &[u8] = b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
    /// The divisor of the Java and Python log writers.
    const NANOSECONDS_PER_MILLISECOND: f64 = 1e6;

    let mut log = Vec::new();
    // The Java and Python log readers accept only the deflated form.
    let mut serializer = V2DeflateSerializer::new();
    let started_at = SystemTime::UNIX_EPOCH + since_epoch;
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[com-broker-bench: values in nanoseconds, Interval_Max in milliseconds]")
        .with_start_time(started_at)
        .with_base_time(started_at)
        .begin_log_with(&mut log, &mut serializer)?;
    log.extend_from_slice(LEGEND);
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_max_value_divisor(NANOSECONDS_PER_MILLISECOND);
    let mut writer = builder.begin_log_with(&mut log, &mut serializer)?;
    let mut start = Duration::ZERO;
    for outcome in outcomes {
        let length = Duration::from_nanos(outcome.elapsed_ns);
        for series in &outcome.latencies {
            // A tag ends at the first comma or blank.
            let name = format!("{}/{}", outcome.scenario, series.name).replace([' ', ','], "-");
            writer
                .write_histogram(series.latencies.histogram(), start, length, Tag::new(&name))
                .map_err(io::Error::other)?;
        }
        start += length;
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::outcome::Series;
    use crate::statistics::Latencies;

    #[test]
    fn a_log_has_an_interval_for_each_kind() {
        let mut latencies = Latencies::default();
        latencies.record(5_000);
        let series = |name| Series { name, latencies: latencies.clone() };
        let outcome = Outcome {
            scenario: "fan-out to 10".into(),
            elapsed_ns: 1_500_000_000,
            latencies: vec![series("delivery"), series("last delivery")],
            ..Outcome::default()
        };
        let log = log(&[outcome], Duration::from_secs(1_000)).unwrap();
        let text = String::from_utf8(log).unwrap();
        assert!(text.contains("Tag=fan-out-to-10/delivery,0.000,1.500,0.005,HISTFAAA"), "{text}");
        let lines = text.lines().filter(|line| !line.starts_with('"'));
        let without_legend: String = lines.map(|line| format!("{line}\n")).collect();
        let intervals = IntervalLogIterator::new(without_legend.as_bytes())
            .filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))))
            .count();
        assert_eq!(intervals, 2);
    }
}
