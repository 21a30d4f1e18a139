//! JSON lines: one object a run, for programs.

use serde_json::{Value, json};

use super::table::QUANTILES;
use crate::outcome::Outcome;

/// A run as an object. Times are nanoseconds.
pub fn object(outcome: &Outcome) -> Value {
    let latencies: serde_json::Map<String, Value> = outcome
        .latencies
        .iter()
        .map(|series| {
            let mut times = serde_json::Map::new();
            times.insert("count".into(), series.latencies.len().into());
            for (name, quantile) in QUANTILES {
                times.insert(name.replace('.', ""), series.latencies.quantile_ns(quantile).into());
            }
            (series.name.replace(' ', "_"), times.into())
        })
        .collect();
    let figures: serde_json::Map<String, Value> = outcome
        .figures
        .iter()
        .map(|figure| (figure.name.replace(' ', "_"), json!(figure.value)))
        .collect();
    json!({
        "scenario": outcome.scenario,
        "target": outcome.target,
        "body_bytes": outcome.body_bytes,
        "elapsed_ns": outcome.elapsed_ns,
        "sent": outcome.sent,
        "unit": outcome.unit.unwrap_or("delivery"),
        "count": outcome.deliveries,
        "per_second": outcome.rate(),
        "cpu_ns": outcome.cpu_ns,
        "cpu_per_unit_ns": outcome.cpu_per_delivery_ns(),
        "resident_bytes": outcome.memory.map(|memory| memory.resident),
        "resident_peak_bytes": outcome.memory.map(|memory| memory.peak),
        "lost": outcome.verdict.lost,
        "duplicated": outcome.verdict.duplicated,
        "reordered": outcome.verdict.reordered,
        "damaged": outcome.verdict.damaged,
        "latency_ns": latencies,
        "figures": figures,
    })
}
