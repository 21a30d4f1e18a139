//! The outcome of a run, from which every report, threshold and comparison is made.

use crate::check::Verdict;
use crate::process::Memory;
use crate::statistics::Latencies;

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The scenario with its main parameter: `fan-out to 100`.
    pub scenario: String,
    /// The URL of the server.
    pub target: String,
    /// Bytes of every body.
    pub body_bytes: usize,
    /// Length of the measured part.
    pub elapsed_ns: u64,
    /// Messages sent in the measured part.
    pub sent: u64,
    /// Deliveries in the measured part, or what else the scenario counts.
    pub deliveries: u64,
    /// What is counted, if not deliveries.
    pub unit: Option<&'static str>,
    /// The latencies; thresholds and comparisons use the first.
    pub latencies: Vec<Series>,
    /// CPU time of the server in the measured part.
    pub cpu_ns: Option<u64>,
    /// Memory of the server at the end.
    pub memory: Option<Memory>,
    /// Loss, duplicates and order.
    pub verdict: Verdict,
    /// Further figures of the scenario.
    pub figures: Vec<Figure>,
}

/// Latencies of one kind.
#[derive(Clone, Debug)]
pub struct Series {
    /// What was measured.
    pub name: &'static str,
    /// The durations.
    pub latencies: Latencies,
}

/// A figure that only one scenario has.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// Its unit; `ns` is shown in a suitable one.
    pub unit: &'static str,
}

impl Outcome {
    /// CPU time of the server for one delivery.
    pub fn cpu_per_delivery_ns(&self) -> Option<f64> {
        (self.deliveries > 0).then_some(self.cpu_ns? as f64 / self.deliveries as f64)
    }

    /// Deliveries a second.
    pub fn rate(&self) -> f64 {
        self.deliveries as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }

    /// A quantile of the first latencies.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let first = &self.latencies.first()?.latencies;
        (!first.is_empty()).then(|| first.quantile_ns(quantile))
    }

    /// A quantile of the latencies of a name.
    pub fn quantile_of_ns(&self, name: &str, quantile: f64) -> Option<u64> {
        let series = self.latencies.iter().find(|series| series.name == name)?;
        (!series.latencies.is_empty()).then(|| series.latencies.quantile_ns(quantile))
    }

    /// A figure by its name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}
