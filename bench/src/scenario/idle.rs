//! Loads that should not affect other connections: idle connections, and a receiver that stops reading.

use super::flow::{Choice, Pace};
use super::layout::Wanted;
use super::{Bench, Measured, measure, ratio};
use crate::fault::Fault;
use crate::outcome::{Figure, Outcome, Series};
use crate::process::{Memory, Server};
use crate::protocol::Role;

/// One message at a time between two connections, without and with idle connections beside them, and the
/// memory of these.
///
/// # Errors
/// The run failed.
pub fn idle(bench: &mut Bench, connections: usize) -> Result<Outcome, Fault> {
    let layout = bench.open(Wanted { publishers: 1, destinations: 1, receivers: 1 })?;
    let mut flow = layout.flow(Pace::WindowEach(1), Choice::InTurn);
    let alone = bench.part(&mut flow, "alone")?;
    let before = memory(bench);
    for number in 0..connections {
        let login = bench.login(&format!("i{number}"), Role::Agent);
        bench.connect(&login)?;
    }
    bench.await_confirmations(0)?;
    let after = memory(bench);
    let burdened = bench.part(&mut flow, "beside idle connections")?;
    let mut figures = vec![
        ratio_figure("p50 against none idle", &burdened, &alone, 0.5),
        ratio_figure("p99 against none idle", &burdened, &alone, 0.99),
    ];
    if let Some((before, after)) = before.zip(after) {
        let grown = after.resident.saturating_sub(before.resident) as f64;
        figures.push(Figure {
            name: "memory of an idle connection",
            value: grown / connections as f64,
            unit: "bytes",
        });
    }
    let scenario = format!("{connections} idle connections");
    let outcome = bench.outcome(scenario, burdened, flow);
    Ok(with_figures(outcome, Series { name: "alone", latencies: alone.deliveries }, figures))
}

/// One publisher and many receivers at a rate, without and with a receiver that does not read.
///
/// # Errors
/// The run failed.
pub fn stopped_reader(
    bench: &mut Bench,
    receivers: usize,
    deliveries_per_second: f64,
) -> Result<Outcome, Fault> {
    let layout = bench.open(Wanted { publishers: 1, destinations: 1, receivers })?;
    let destination = layout.destination().to_owned();
    let mut flow =
        layout.flow(Pace::per_second(deliveries_per_second / receivers as f64), Choice::InTurn);
    let alone = bench.part(&mut flow, "all reading")?;
    // The peak before is not caused by this receiver.
    bench.load.server.iter().for_each(Server::reset_peak);
    let before = memory(bench);
    let login = bench.login("stopped", Role::Service);
    let stopped = bench.connect(&login)?;
    bench.await_confirmations(0)?;
    bench.driver.subscribe(stopped, 0, &destination);
    bench.await_confirmations(0)?;
    bench.driver.stop_reading(stopped);
    let burdened = bench.part(&mut flow, "one stopped")?;
    let mut figures = vec![
        ratio_figure("p50 against none stopped", &burdened, &alone, 0.5),
        ratio_figure("p99 against none stopped", &burdened, &alone, 0.99),
        Figure {
            name: "stopped reader cut off",
            value: f64::from(u8::from(bench.driver.is_cut_off(stopped))),
            unit: "",
        },
    ];
    if let Some((before, after)) = before.zip(memory(bench)) {
        let value = after.peak.saturating_sub(before.resident) as f64;
        figures.push(Figure { name: "memory at its peak above before", value, unit: "bytes" });
    }
    let scenario = format!("one stopped reader beside {receivers}");
    let outcome = bench.outcome(scenario, burdened, flow);
    Ok(with_figures(outcome, Series { name: "all reading", latencies: alone.deliveries }, figures))
}

impl Bench {
    fn part(&mut self, flow: &mut super::Flow, name: &str) -> Result<Measured, Fault> {
        measure(&mut self.driver, flow, &self.load, &mut self.progress, name)
    }
}

fn memory(bench: &Bench) -> Option<Memory> {
    bench.load.server.as_ref().and_then(Server::memory_bytes)
}

fn ratio_figure(name: &'static str, with: &Measured, without: &Measured, quantile: f64) -> Figure {
    Figure { name, value: ratio(&with.deliveries, &without.deliveries, quantile), unit: "" }
}

fn with_figures(mut outcome: Outcome, before: Series, figures: Vec<Figure>) -> Outcome {
    outcome.latencies.push(before);
    outcome.figures.extend(figures);
    outcome
}
