//! The table of a run for people.

use std::fmt::Write;

use crate::check::Verdict;
use crate::outcome::{Figure, Outcome};
use crate::statistics::{readable_ns, three_digits};

/// The quantiles that reports show.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// A run as text.
pub fn table(outcome: &Outcome) -> String {
    let mut text = format!("{}  {}\n", outcome.scenario, outcome.target);
    let unit = outcome.unit.unwrap_or("delivery");
    let plural = if unit == "delivery" { "deliveries".into() } else { format!("{unit}s") };
    let seconds = outcome.elapsed_ns as f64 / 1e9;
    let mut row = |name: &str, value: String| {
        writeln!(text, "  {name:<34}{value:>16}").expect(STRING_GROWS);
    };
    if outcome.body_bytes > 0 {
        row("body", format!("{} B", outcome.body_bytes));
    }
    row("measured", format!("{seconds:.2} s"));
    row(&plural, format!("{} ({:.0}/s)", outcome.deliveries, outcome.rate()));
    if let Some(cpu_ns) = outcome.cpu_per_delivery_ns() {
        row(&format!("server CPU per {unit}"), readable_ns(cpu_ns));
    }
    if let Some(cpu_ns) = outcome.cpu_ns {
        let share = 100.0 * cpu_ns as f64 / outcome.elapsed_ns.max(1) as f64;
        row("server CPU", format!("{share:.1} % of a core"));
    }
    if let Some(memory) = outcome.memory {
        row("server memory", readable_bytes(memory.resident as f64));
        row("server memory at its peak", readable_bytes(memory.peak as f64));
    }
    for figure in &outcome.figures {
        row(figure.name, readable_figure(figure));
    }
    row("loss, duplicates, order", readable_verdict(&outcome.verdict));
    push_latencies(&mut text, outcome);
    text
}

/// The irregularities in words.
pub fn readable_verdict(verdict: &Verdict) -> String {
    if verdict.is_clean() {
        return "none; kept".into();
    }
    let parts = [
        (verdict.lost, "lost"),
        (verdict.duplicated, "duplicated"),
        (verdict.reordered, "out of order"),
        (verdict.damaged, "damaged"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// Memory for people.
pub fn readable_bytes(bytes: f64) -> String {
    match bytes {
        ..1_024.0 => format!("{bytes:.0} B"),
        ..1_048_576.0 => format!("{} KiB", three_digits(bytes / 1_024.0)),
        _ => format!("{} MiB", three_digits(bytes / 1_048_576.0)),
    }
}

/// A figure with its unit.
pub fn readable_figure(figure: &Figure) -> String {
    match figure.unit {
        "ns" => readable_ns(figure.value),
        "bytes" => readable_bytes(figure.value),
        "" => three_digits(figure.value),
        unit => format!("{} {unit}", three_digits(figure.value)),
    }
}

fn push_latencies(text: &mut String, outcome: &Outcome) {
    write!(text, "  {:<18}", "latency").expect(STRING_GROWS);
    for (name, _) in QUANTILES {
        write!(text, "{name:>10}").expect(STRING_GROWS);
    }
    text.push('\n');
    for series in &outcome.latencies {
        write!(text, "  {:<18}", series.name).expect(STRING_GROWS);
        for (_, quantile) in QUANTILES {
            let cell = if series.latencies.is_empty() {
                "-".into()
            } else {
                readable_ns(series.latencies.quantile_ns(quantile) as f64)
            };
            write!(text, "{cell:>10}").expect(STRING_GROWS);
        }
        text.push('\n');
    }
}

const STRING_GROWS: &str = "a string takes whatever is written to it";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Series;
    use crate::statistics::Latencies;

    #[test]
    fn a_table_has_all_figures_of_a_run() {
        let mut latencies = Latencies::default();
        (0..1_000).for_each(|_| latencies.record(12_300));
        let outcome = Outcome {
            scenario: "round trip".into(),
            target: "floor://127.0.0.1:7000".into(),
            body_bytes: 64,
            elapsed_ns: 2_000_000_000,
            deliveries: 1_000,
            cpu_ns: Some(10_000_000),
            latencies: vec![Series { name: "delivery", latencies }],
            verdict: Verdict { lost: 3, duplicated: 1, ..Verdict::default() },
            figures: vec![Figure { name: "memory", value: 2048.0, unit: "bytes" }],
            ..Outcome::default()
        };
        let expected = "\
round trip  floor://127.0.0.1:7000
  body                                          64 B
  measured                                    2.00 s
  deliveries                            1000 (500/s)
  server CPU per delivery                    10.0 µs
  server CPU                         0.5 % of a core
  memory                                    2.00 KiB
  loss, duplicates, order           3 lost, 1 duplicated
  latency                  p50       p90       p99     p99.9    p99.99       max
  delivery             12.3 µs   12.3 µs   12.3 µs   12.3 µs   12.3 µs   12.3 µs
";
        assert_eq!(table(&outcome), expected);
    }
}
