//! The course of a measurement: warm up, measure, wait for outstanding deliveries.

use super::Load;
use super::flow::{Flow, Recorder};
use crate::driver::{Driver, Notice};
use crate::fault::Fault;
use crate::process::Server;
use crate::progress::Progress;
use crate::statistics::{Latencies, readable_ns};

/// The results of a measurement.
pub(super) struct Measured {
    pub(super) deliveries: Latencies,
    pub(super) last: Latencies,
    pub(super) delivered: u64,
    pub(super) sent: u64,
    pub(super) elapsed_ns: u64,
    pub(super) cpu_ns: Option<u64>,
    /// TLS records that arrived.
    pub(super) records: Option<u64>,
}

/// Runs a flow for the times in the load.
pub(super) fn measure(
    driver: &mut Driver,
    flow: &mut Flow,
    load: &Load,
    progress: &mut Progress,
    scenario: &str,
) -> Result<Measured, Fault> {
    let clock = driver.clock();
    let begun_ns = clock.now_ns();
    let start_ns = begun_ns + load.warmup_ns;
    let mut recorder =
        Recorder { start_ns, end_ns: start_ns + load.duration_ns, ..Recorder::default() };
    flow.resume();
    let mut at_start = None;
    let mut at_end = None;
    loop {
        let now_ns = clock.now_ns();
        if now_ns >= recorder.start_ns && at_start.is_none() {
            at_start = Some(Mark::take(load, flow, driver, now_ns));
        }
        if now_ns >= recorder.end_ns && at_end.is_none() {
            at_end = Some(Mark::take(load, flow, driver, now_ns));
        }
        let wake_ns = if at_end.is_none() {
            flow.send(driver, now_ns)?.min(recorder.end_ns)
        } else if flow.outstanding() == 0 || now_ns >= recorder.end_ns + load.drain_ns {
            break;
        } else {
            recorder.end_ns + load.drain_ns
        };
        driver.turn(wake_ns, &mut |receiver, notice, now_ns| {
            if let Notice::Message(body) = notice
                && let Some(arrival) = flow.take(receiver, body)
            {
                recorder.record(&arrival, now_ns);
            }
        })?;
        if driver.take_ended().is_some() {
            progress.finish();
            return Err(Fault::Closed);
        }
        progress.show(now_ns, || line(scenario, &recorder, now_ns));
    }
    progress.finish();
    let (Some(start), Some(end)) = (at_start, at_end) else {
        return Err(Fault::Late("the measurement did not begin".into()));
    };
    Ok(Measured {
        delivered: recorder.delivered,
        deliveries: recorder.deliveries,
        last: recorder.last,
        sent: end.sent - start.sent,
        elapsed_ns: end.now_ns - start.now_ns,
        records: end.records.zip(start.records).map(|(end, start)| end - start),
        cpu_ns: end.cpu_ns.zip(start.cpu_ns).map(|(end, start)| end.saturating_sub(start)),
    })
}

/// The totals at one moment.
struct Mark {
    now_ns: u64,
    sent: u64,
    cpu_ns: Option<u64>,
    records: Option<u64>,
}

impl Mark {
    fn take(load: &Load, flow: &Flow, driver: &Driver, now_ns: u64) -> Self {
        let cpu_ns = load.server.as_ref().and_then(Server::cpu_ns);
        Self { now_ns, sent: flow.sent(), cpu_ns, records: driver.records() }
    }
}

fn line(scenario: &str, recorder: &Recorder, now_ns: u64) -> String {
    if now_ns < recorder.start_ns {
        return format!("{scenario}: warming up");
    }
    let elapsed = (now_ns - recorder.start_ns) as f64 / 1e9;
    let all = (recorder.end_ns - recorder.start_ns) as f64 / 1e9;
    let rate = recorder.delivered as f64 / elapsed.max(0.001);
    let [p50, p99] =
        [0.5, 0.99].map(|quantile| readable_ns(recorder.deliveries.quantile_ns(quantile) as f64));
    format!("{scenario}: {elapsed:.1} of {all:.1} s, {rate:.0}/s, p50 {p50}, p99 {p99}")
}
