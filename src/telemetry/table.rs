//! The percentile table for people, with a line per stage and a suitable unit for each time.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::latencies::{Snapshot, Stage};

/// The totals of all stages: a line of headings, then a line per stage.
pub(super) fn percentile_table(snapshot: &Snapshot) -> String {
    let mut table = format!("{:<9}{:>14}", "stage", "count");
    for heading in ["min", "mean"].into_iter().chain(QUANTILES.map(|(heading, _)| heading)) {
        push_cell(&mut table, heading);
    }
    push_cell(&mut table, "max");
    table.push('\n');
    for stage in Stage::ALL {
        push_row(&mut table, stage, snapshot.total(stage));
    }
    table
}

/// Logs the totals for programs: a line per stage, with times in nanoseconds, which are absent if
/// nothing was recorded.
pub(super) fn log_percentiles(snapshot: &Snapshot) {
    for stage in Stage::ALL {
        let histogram = snapshot.total(stage);
        let count = histogram.len();
        let [min_ns, mean_ns, p50_ns, p90_ns, p99_ns, p99_9_ns, p99_99_ns, max_ns] =
            times(histogram).map(|elapsed_ns| (count > 0).then_some(elapsed_ns));
        log::info!(
            stage:% = stage.name(), count, min_ns, mean_ns, p50_ns, p90_ns, p99_ns, p99_9_ns,
            p99_99_ns, max_ns;
            "latency"
        );
    }
}

/// Smallest, mean, quantiles, largest.
fn times(histogram: &Histogram<u64>) -> [u64; 8] {
    // A quantile is the upper end of its bin, which may be above the maximum.
    let [p50, p90, p99, p99_9, p99_99] =
        QUANTILES.map(|(_, q)| histogram.value_at_quantile(q).min(histogram.max()));
    let mean = histogram.mean().round() as u64;
    [histogram.min(), mean, p50, p90, p99, p99_9, p99_99, histogram.max()]
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

fn push_row(table: &mut String, stage: Stage, histogram: &Histogram<u64>) {
    write!(table, "{:<9}{:>14}", stage.name(), histogram.len()).expect(STRING_GROWS);
    for elapsed_ns in times(histogram) {
        if histogram.is_empty() {
            push_cell(table, "-");
        } else {
            push_cell(table, &readable(elapsed_ns));
        }
    }
    table.push('\n');
}

fn push_cell(table: &mut String, text: &str) {
    write!(table, "{text:>9}").expect(STRING_GROWS);
}

const STRING_GROWS: &str = "a string takes whatever is written to it";

/// Formats a time with three digits, one more than the precision of the histograms.
fn readable(elapsed_ns: u64) -> String {
    let (unit, unit_ns) = match elapsed_ns {
        0..1_000 => return format!("{elapsed_ns} ns"),
        1_000..1_000_000 => ("µs", 1e3),
        1_000_000..1_000_000_000 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    let value = elapsed_ns as f64 / unit_ns;
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::latencies::Latencies;
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (elapsed_ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (12_345, "12.3 µs"),
            (123_456, "123 µs"),
            (4_560_000, "4.56 ms"),
            (60_000_000_000, "60.0 s"),
        ] {
            assert_eq!(readable(elapsed_ns), text, "{elapsed_ns}");
        }
    }

    #[test]
    fn a_row_has_count_extremes_mean_and_quantiles() {
        let mut latencies = Latencies::new(SystemTime::UNIX_EPOCH);
        latencies.record_many(Stage::Delivery, 100, 9_900);
        latencies.record_many(Stage::Delivery, 20_000, 99);
        latencies.record(Stage::Delivery, 5_000_000);
        latencies.record_many(Stage::Poll, 123_456, 2);
        let table = percentile_table(&latencies.take_snapshot(Duration::from_secs(1)));
        let expected = "\
stage             count      min     mean      p50      p90      p99    p99.9   p99.99      max
delivery          10000   100 ns   797 ns   100 ns   100 ns   100 ns  20.1 µs  20.1 µs  5.01 ms
dispatch              0        -        -        -        -        -        -        -        -
turn                  0        -        -        -        -        -        -        -        -
poll                  2   123 µs   124 µs   124 µs   124 µs   124 µs   124 µs   124 µs   124 µs
";
        assert_eq!(table, expected, "\n{table}");
    }

    #[test]
    fn quantiles_never_exceed_the_maximum() {
        let mut latencies = Latencies::new(SystemTime::UNIX_EPOCH);
        latencies.record(Stage::Turn, u64::MAX);
        let snapshot = latencies.take_snapshot(Duration::from_secs(1));
        let table = percentile_table(&snapshot);
        let row = table.lines().find(|line| line.starts_with("turn")).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells[cells.len() - 4..], ["60.1", "s", "60.1", "s"], "{row}");
    }
}
