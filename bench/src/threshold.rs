//! `--fail-if`: bounds on a run, for scripts and CI.

use std::fmt;
use std::str::FromStr;

use crate::outcome::Outcome;

/// A bound such as `p99>500us`: the run fails if it is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    metric: Metric,
    fails_above: bool,
    bound: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    Quantile(f64),
    Loss,
    Cpu,
    Rate,
}

impl Threshold {
    /// The value that breaks the bound, if it does. A value that was not measured breaks it as well, so that
    /// no check passes without checking anything.
    pub fn broken_by(&self, outcome: &Outcome) -> Option<String> {
        let value = match self.metric {
            Metric::Quantile(quantile) => outcome.quantile_ns(quantile).map(|ns| ns as f64),
            Metric::Loss => Some(outcome.verdict.lost as f64),
            Metric::Cpu => outcome.cpu_per_delivery_ns(),
            Metric::Rate => Some(outcome.rate()),
        };
        let Some(value) = value else { return Some("it was not measured".into()) };
        let is_broken = if self.fails_above { value > self.bound } else { value < self.bound };
        is_broken.then(|| match self.metric {
            Metric::Quantile(_) | Metric::Cpu => crate::statistics::readable_ns(value),
            Metric::Loss | Metric::Rate => crate::statistics::three_digits(value),
        })
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(['>', '<']).ok_or("no \">\" or \"<\" in it; try 'p99>500us'")?;
        let (name, bound) = (text[..at].trim(), text[at + 1..].trim());
        let metric = match name {
            "p50" => Metric::Quantile(0.5),
            "p90" => Metric::Quantile(0.9),
            "p99" => Metric::Quantile(0.99),
            "p999" => Metric::Quantile(0.999),
            "max" => Metric::Quantile(1.0),
            "loss" => Metric::Loss,
            "cpu" => Metric::Cpu,
            "rate" => Metric::Rate,
            _ => return Err("none of p50, p90, p99, p999, max, loss, cpu, rate".into()),
        };
        let is_time = matches!(metric, Metric::Quantile(_) | Metric::Cpu);
        let bound = if is_time { parse_time_ns(bound) } else { bound.parse().ok() };
        let bound = bound.ok_or(if is_time {
            "no time after it; try 500us, 1.5ms or 200ns"
        } else {
            "no number after it"
        })?;
        Ok(Self { metric, fails_above: text.as_bytes()[at] == b'>', bound, text: text.into() })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// A time with its unit, in nanoseconds.
pub fn parse_time_ns(text: &str) -> Option<f64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let value: f64 = text[..split].parse().ok()?;
    let unit_ns = match text[split..].trim() {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(value * unit_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Series;
    use crate::statistics::Latencies;

    fn outcome() -> Outcome {
        let mut latencies = Latencies::default();
        (0..100).for_each(|_| latencies.record(400_000));
        let latencies = vec![Series { name: "delivery", latencies }];
        Outcome { latencies, deliveries: 100, elapsed_ns: 1_000_000_000, ..Outcome::default() }
    }

    #[test]
    fn a_bound_is_kept_or_broken() {
        for (text, is_broken) in [
            ("p99>500us", false),
            ("p99 > 0.3ms", true),
            ("max<1s", true),
            ("loss>0", false),
            ("rate<101", true),
            // The server's process is not known.
            ("cpu>1us", true),
        ] {
            let threshold: Threshold = text.parse().unwrap();
            assert_eq!(threshold.broken_by(&outcome()).is_some(), is_broken, "{text}");
        }
    }

    #[test]
    fn malformed_bounds_are_refused() {
        for text in ["p99", "p98>5us", "p99>5", "loss>x", ">5us", "p50>us"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
