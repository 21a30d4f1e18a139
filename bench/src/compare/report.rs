//! The results of a comparison: tables, plots, and lines for programs.

use serde_json::Value;

use super::bars::BarResult;
use super::cases::{CaseResults, CaseSection, TargetResults, TargetSection};
use crate::clock::readable_now;
use crate::outcome::Outcome;
use crate::report::html::{Curve, Page, Rod};
use crate::report::{json, table};
use crate::statistics::{Latencies, Spread, readable_ns, three_digits};

/// The results of a comparison.
#[derive(Debug)]
pub struct Results {
    pub(super) note: String,
    pub(super) baseline: String,
    pub(super) cases: Vec<CaseResults>,
    pub(super) bars: Vec<BarResult>,
}

impl Results {
    /// Whether no run failed and no message was lost.
    pub fn is_clean(&self) -> bool {
        let mut targets = self.cases.iter().flat_map(|case| &case.targets);
        targets.all(|target| {
            target.fault.is_none() && target.outcomes().all(|one| one.verdict.is_clean())
        })
    }

    /// Whether every bar was measured and met.
    pub fn meets_bars(&self) -> bool {
        self.bars.iter().all(|bar| bar.is_met() == Some(true))
    }

    /// The tables, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}. {}\n", readable_now(), self.note);
        if !self.bars.is_empty() {
            text.push_str("\n### Bars\n\n");
            push_table(&mut text, &self.rows_of_bars());
        }
        for case in &self.cases {
            text.push_str(&format!("\n### {}\n\n`{}`\n\n", case.title, case.run));
            push_table(&mut text, &self.rows(case));
        }
        text
    }

    /// A page with plots and a table for each case.
    pub fn html(&self) -> String {
        let mut page = Page::new("Brokers compared", &format!("{}. {}", readable_now(), self.note));
        let names = self.names();
        if !self.bars.is_empty() {
            let met = self.bars.iter().filter(|bar| bar.is_met() == Some(true)).count();
            page.heading(&format!("Bars: {met} of {} met", self.bars.len()));
            page.table(&self.rows_of_bars());
        }
        page.contents(self.cases.iter().map(|case| case.title.as_str()));
        for case in &self.cases {
            page.section(&case.title);
            page.text(&case.run);
            let color = |name: &str| names.iter().position(|known| *known == name).unwrap_or(0);
            page.legend(
                case.targets.iter().map(|target| (target.name.as_str(), color(&target.name))),
            );
            for name in series_names(case) {
                let merged: Vec<_> = case
                    .targets
                    .iter()
                    .map(|target| (target.name.as_str(), merged(target, name)))
                    .collect();
                let curves: Vec<_> = merged
                    .iter()
                    .map(|(name, latencies)| Curve { name, color: color(name), latencies })
                    .collect();
                page.plot(&format!("Latency by percentile: {name}"), &curves);
            }
            let rods: Vec<_> = case
                .targets
                .iter()
                .filter_map(|target| {
                    let spread = target.spread(Outcome::cpu_per_delivery_ns)?;
                    Some(Rod { name: &target.name, color: color(&target.name), spread })
                })
                .collect();
            page.rods("CPU time of the server for one delivery, median and range", &rods);
            page.table(&self.rows(case));
        }
        page.finish()
    }

    /// The targets, in the order in which they first occur.
    fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for target in self.cases.iter().flat_map(|case| &case.targets) {
            if !names.contains(&target.name.as_str()) {
                names.push(&target.name);
            }
        }
        names
    }

    fn rows_of_bars(&self) -> Vec<Vec<String>> {
        let mut heading: Vec<String> = BarResult::HEADING.map(str::to_owned).into();
        heading.push(String::new());
        let rows = self.bars.iter().map(|bar| {
            let mut row = bar.row();
            row.push(bar.verdict().into());
            row
        });
        [heading].into_iter().chain(rows).collect()
    }

    fn rows(&self, case: &CaseResults) -> Vec<Vec<String>> {
        let base = case.target(&self.baseline);
        let has_last = series_names(case).contains(&"last delivery");
        let columns: Vec<_> =
            COLUMNS.iter().filter(|column| has_last || !column.is_of_last).collect();
        let mut heading = vec![String::new()];
        for column in &columns {
            heading.push(column.name.into());
            if base.is_some() && column.has_ratio {
                heading.push("ratio".into());
            }
        }
        let figures = figure_names(case);
        heading.extend(figures.iter().map(|name| (*name).into()));
        let mut rows = vec![heading];
        for target in &case.targets {
            let mut row = vec![target.name.clone()];
            for column in &columns {
                let spread = target.spread(column.value);
                row.push(spread.map_or_else(|| "–".into(), |spread| column.readable(spread)));
                if let Some(base) = base.filter(|_| column.has_ratio) {
                    row.push(ratio(spread, base.spread(column.value)));
                }
            }
            for name in &figures {
                let spread = target.spread(|outcome| outcome.figure(name));
                row.push(spread.map_or_else(|| "–".into(), |one| three_digits(one.median)));
            }
            if let (Some(fault), true) = (&target.fault, target.outcomes.is_empty()) {
                row[1] = fault.replace('|', "/");
            }
            rows.push(row);
        }
        rows
    }
}

fn push_table(text: &mut String, rows: &[Vec<String>]) {
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    text.push_str(&line(&rows[0]));
    text.push_str(&format!("|---|{}\n", "---:|".repeat(rows[0].len() - 1)));
    text.extend(rows[1..].iter().map(line));
}

/// A run of a comparison as a line for programs.
pub(super) fn line(
    case: &CaseSection,
    target: &TargetSection,
    round: usize,
    outcome: &Outcome,
) -> Value {
    let mut object = json::object(outcome);
    object["kind"] = "run".into();
    object["case"] = case.name.as_str().into();
    object["title"] = case.title().into();
    object["round"] = round.into();
    object["target_name"] = target.name.as_str().into();
    object
}

/// A figure of a table.
struct Column {
    name: &'static str,
    value: fn(&Outcome) -> Option<f64>,
    is_time: bool,
    has_ratio: bool,
    is_of_last: bool,
}

const COLUMNS: [Column; 6] = [
    Column {
        name: "CPU/delivery",
        value: Outcome::cpu_per_delivery_ns,
        is_time: true,
        has_ratio: true,
        is_of_last: false,
    },
    Column {
        name: "p50",
        value: |outcome| outcome.quantile_ns(0.5).map(|ns| ns as f64),
        is_time: true,
        has_ratio: true,
        is_of_last: false,
    },
    Column {
        name: "p99",
        value: |outcome| outcome.quantile_ns(0.99).map(|ns| ns as f64),
        is_time: true,
        has_ratio: true,
        is_of_last: false,
    },
    Column {
        name: "last p50",
        value: |outcome| outcome.quantile_of_ns("last delivery", 0.5).map(|ns| ns as f64),
        is_time: true,
        has_ratio: true,
        is_of_last: true,
    },
    Column {
        name: "last p99",
        value: |outcome| outcome.quantile_of_ns("last delivery", 0.99).map(|ns| ns as f64),
        is_time: true,
        has_ratio: true,
        is_of_last: true,
    },
    Column {
        name: "per second",
        value: |outcome| Some(outcome.rate()),
        is_time: false,
        has_ratio: false,
        is_of_last: false,
    },
];

impl Column {
    fn readable(&self, spread: Spread) -> String {
        let share = 100.0 * (spread.max - spread.min) / (2.0 * spread.median.max(1e-9));
        let median = match self.is_time {
            true => readable_ns(spread.median),
            false => three_digits(spread.median),
        };
        // The spread of a single value is not shown.
        match spread.min < spread.max {
            true => format!("{median} ±{share:.0} %"),
            false => median,
        }
    }
}

fn ratio(spread: Option<Spread>, base: Option<Spread>) -> String {
    match spread.zip(base) {
        Some((spread, base)) if base.median > 0.0 => {
            format!("{:.2}", spread.median / base.median)
        }
        _ => "–".into(),
    }
}

fn figure_names(case: &CaseResults) -> Vec<&'static str> {
    distinct(case, |outcome| outcome.figures.iter().map(|figure| figure.name).collect())
}

/// The kinds of latencies that a case has.
fn series_names(case: &CaseResults) -> Vec<&'static str> {
    distinct(case, |outcome| outcome.latencies.iter().map(|series| series.name).collect())
}

fn distinct(
    case: &CaseResults,
    names_of: impl Fn(&Outcome) -> Vec<&'static str>,
) -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in case.targets.iter().flat_map(TargetResults::outcomes).flat_map(names_of) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn merged(target: &TargetResults, name: &str) -> Latencies {
    let mut all = Latencies::default();
    let series = target.outcomes().flat_map(|outcome| &outcome.latencies);
    series.filter(|series| series.name == name).for_each(|series| all.add(&series.latencies));
    all
}

/// A run as the line that is shown when it has ended.
pub(super) fn summary(outcome: &Outcome) -> String {
    let p50 = outcome.quantile_ns(0.5).map_or_else(String::new, |ns| readable_ns(ns as f64));
    let cpu = outcome.cpu_per_delivery_ns().map_or_else(String::new, readable_ns);
    let verdict = match outcome.verdict.is_clean() {
        true => String::new(),
        false => table::readable_verdict(&outcome.verdict),
    };
    format!("p50 {p50:>9}  CPU {cpu:>9}  {:>9.0}/s  {verdict}", outcome.rate())
}
