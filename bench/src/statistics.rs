//! Statistics: histograms of latencies, and medians of repeated runs.

use hdrhistogram::Histogram;

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Self(histogram.expect("the bounds are constants that suit each other"))
    }
}

impl Latencies {
    /// Records a latency.
    #[inline]
    pub fn record(&mut self, elapsed_ns: u64) {
        self.0.saturating_record(elapsed_ns);
    }

    /// A quantile, never above the maximum.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        // A quantile is the upper end of its bin, which may be above the maximum.
        self.0.value_at_quantile(quantile).min(self.0.max())
    }

    /// Number of recorded latencies.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether none was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The histogram, for files and plots.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }
}

const LONGEST_NS: u64 = 60_000_000_000;

/// Three, since ratios are compared to a hundredth.
const DIGITS: u8 = 3;

/// Median and range of repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of values; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// A short time for people: three digits and a unit.
pub fn readable_ns(elapsed_ns: f64) -> String {
    let (unit, unit_ns) = match elapsed_ns {
        ..999.5 => ("ns", 1.0),
        ..999_500.0 => ("µs", 1e3),
        ..999_500_000.0 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    format!("{} {unit}", three_digits(elapsed_ns / unit_ns))
}

/// A number for people: three digits at least.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        ..0.000_5 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        let even = Spread::of(&[4.0, 1.0, 2.0, 100.0]);
        assert_eq!(even, Some(Spread { median: 3.0, min: 1.0, max: 100.0 }));
    }

    #[test]
    fn quantiles_never_exceed_the_maximum() {
        let mut latencies = Latencies::default();
        (1..=100).for_each(|value| latencies.record(value * 1_001));
        assert_eq!(latencies.quantile_ns(0.5) / 1_000, 50);
        assert_eq!(latencies.quantile_ns(1.0), latencies.histogram().max());
        assert_eq!(latencies.len(), 100);
    }

    #[test]
    fn times_have_a_unit() {
        for (ns, text) in [
            (0.0, "0 ns"),
            (12.34, "12.3 ns"),
            (1_234.0, "1.23 µs"),
            (999_600.0, "1.00 ms"),
            (2.5e9, "2.50 s"),
        ] {
            assert_eq!(readable_ns(ns), text);
        }
        assert_eq!(three_digits(1_234.5), "1234");
    }
}
