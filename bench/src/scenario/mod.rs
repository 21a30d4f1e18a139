//! The scenarios: connections, messages and what is measured.

mod flow;
mod idle;
mod layout;
mod logins;
mod measure;

pub use self::idle::{idle, stopped_reader};
pub use self::logins::logins;

use std::sync::atomic::{AtomicU32, Ordering};

use self::flow::{Choice, Flow, Pace};
use self::layout::Wanted;
use self::measure::{Measured, measure};
use crate::driver::Driver;
use crate::fault::Fault;
use crate::outcome::{Figure, Outcome, Series};
use crate::process::Server;
use crate::progress::Progress;
use crate::statistics::Latencies;

/// Parameters of all scenarios.
#[derive(Clone, Debug)]
pub struct Load {
    /// Time before anything is measured.
    pub warmup_ns: u64,
    /// Time that is measured.
    pub duration_ns: u64,
    /// Time to wait, at the end, for outstanding deliveries.
    pub drain_ns: u64,
    /// The process whose CPU time and memory are measured.
    pub server: Option<Server>,
    /// The name of destinations; `{}` is replaced by what distinguishes them.
    pub destination: Option<String>,
    /// Whether to show no progress.
    pub is_quiet: bool,
}

/// A scenario with its connections.
pub struct Bench {
    driver: Driver,
    load: Load,
    progress: Progress,
    /// Unique part of the names of this run.
    run: String,
}

impl Bench {
    /// A scenario that runs on this driver.
    pub fn new(driver: Driver, load: Load) -> Self {
        /// Runs of this process.
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let run = format!("bench-{:x}-{number:x}", std::process::id());
        let progress = Progress::new(load.is_quiet);
        Self { driver, load, progress, run }
    }

    /// One message at a time between two connections.
    ///
    /// # Errors
    /// Whatever keeps it from coming to its end.
    pub fn round_trip(&mut self) -> Result<Outcome, Fault> {
        let layout = self.open(Wanted { publishers: 1, destinations: 1, receivers: 1 })?;
        let flow = layout.flow(Pace::WindowEach(1), Choice::InTurn);
        self.run("round trip".into(), flow)
    }

    /// Messages on a schedule that does not wait for the server.
    ///
    /// # Errors
    /// Whatever keeps it from coming to its end.
    pub fn rate(&mut self, per_second: f64, pairs: usize) -> Result<Outcome, Fault> {
        let layout = self.open(Wanted { publishers: pairs, destinations: pairs, receivers: 1 })?;
        let flow = layout.flow(Pace::per_second(per_second), Choice::InTurn);
        self.run(format!("open loop at {per_second}/s over {}", count(pairs, "pair")), flow)
    }

    /// One publisher, and a number of receivers that all get every message; at a rate, or with as
    /// many messages under way as the window allows.
    ///
    /// # Errors
    /// Whatever keeps it from coming to its end.
    pub fn fan_out(
        &mut self,
        receivers: usize,
        deliveries_per_second: Option<f64>,
        window: Option<u32>,
    ) -> Result<Outcome, Fault> {
        let layout = self.open(Wanted { publishers: 1, destinations: 1, receivers })?;
        let (pace, how) = match deliveries_per_second {
            Some(rate) => {
                (Pace::per_second(rate / receivers as f64), format!("at {rate} deliveries/s"))
            }
            None => {
                let share = (DELIVERIES_UNDER_WAY / receivers.max(1)) as u32;
                let usual = || self.default_window().min(share).max(WINDOW_MIN);
                let window = window.unwrap_or_else(usual);
                (Pace::WindowEach(window), format!("saturated, window {window}"))
            }
        };
        let flow = layout.flow(pace, Choice::InTurn);
        self.run(format!("fan-out to {receivers} {how}"), flow)
    }

    /// Many pairs, each with as many messages under way as the window allows.
    ///
    /// # Errors
    /// Whatever keeps it from coming to its end.
    pub fn pairs(&mut self, pairs: usize, window: Option<u32>) -> Result<Outcome, Fault> {
        let layout = self.open(Wanted { publishers: pairs, destinations: pairs, receivers: 1 })?;
        let window = window.unwrap_or_else(|| self.default_window());
        let flow = layout.flow(Pace::WindowEach(window), Choice::InTurn);
        let how = if window == 1 { "one in flight each" } else { "saturated" };
        self.run(format!("{}, {how}", count(pairs, "pair")), flow)
    }

    /// Very many destinations, one of which is drawn for each message.
    ///
    /// # Errors
    /// Whatever keeps it from coming to its end.
    pub fn destinations(
        &mut self,
        destinations: usize,
        receivers: usize,
        publishers: usize,
        window: Option<u32>,
    ) -> Result<Outcome, Fault> {
        let layout = self.open_shared(destinations, receivers, publishers)?;
        let window = window.unwrap_or_else(|| self.default_window());
        let flow = layout.flow(Pace::WindowTotal(window), Choice::Random);
        self.run(format!("{destinations} destinations at random"), flow)
    }

    /// Default of messages in flight to a receiver: enough to keep a server busy, and few enough not to
    /// make it a slow consumer.
    fn default_window(&self) -> u32 {
        ((WINDOW_BYTES / self.driver.body_bytes()) as u32).clamp(WINDOW_MIN, WINDOW_MAX)
    }

    fn run(&mut self, scenario: String, mut flow: Flow) -> Result<Outcome, Fault> {
        let measured =
            measure(&mut self.driver, &mut flow, &self.load, &mut self.progress, &scenario)?;
        Ok(self.outcome(scenario, measured, flow))
    }

    fn outcome(&self, scenario: String, measured: Measured, flow: Flow) -> Outcome {
        let mut latencies = vec![Series { name: "delivery", latencies: measured.deliveries }];
        if !measured.last.is_empty() {
            latencies.push(Series { name: "last delivery", latencies: measured.last });
        }
        let mut figures = Vec::new();
        if let Some(records) = measured.records {
            let value = measured.delivered as f64 / records.max(1) as f64;
            figures.push(Figure { name: "deliveries in a TLS record", value, unit: "" });
        }
        Outcome {
            figures,
            scenario,
            target: self.driver.target().url.clone(),
            body_bytes: self.driver.body_bytes(),
            elapsed_ns: measured.elapsed_ns,
            sent: measured.sent,
            deliveries: measured.delivered,
            latencies,
            cpu_ns: measured.cpu_ns,
            memory: self.load.server.as_ref().and_then(Server::memory_bytes),
            verdict: flow.finish(),
            ..Outcome::default()
        }
    }
}

const WINDOW_BYTES: usize = 1 << 20;
const WINDOW_MIN: u32 = 16;
const WINDOW_MAX: u32 = 1_024;

/// Deliveries in flight in a saturated fan-out: more would only wait in the servers' queues, and some
/// servers drop messages that wait too long.
const DELIVERIES_UNDER_WAY: usize = 1 << 14;

/// The ratio of a quantile with and without an additional load.
fn ratio(with: &Latencies, without: &Latencies, quantile: f64) -> f64 {
    with.quantile_ns(quantile) as f64 / without.quantile_ns(quantile).max(1) as f64
}

/// "1 pair", "8 pairs".
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
