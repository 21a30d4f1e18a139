//! Comparisons: every case against every target, interleaved and repeated, medians and spread, and
//! the ratio to the floor.

mod bars;
mod matrix;

pub use self::matrix::Matrix;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command as Process, Stdio};

use serde_json::Value;

use self::bars::BarResult;
use self::matrix::{CaseSection, TargetSection};
use crate::cli::{Command, Common, measure, now};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::report::html::{Curve, Page, Rod};
use crate::report::json;
use crate::statistics::{Latencies, Spread, readable_ns, three_digits};

/// What a comparison found.
#[derive(Debug)]
pub struct Results {
    note: String,
    baseline: String,
    cases: Vec<CaseResults>,
    bars: Vec<BarResult>,
}

#[derive(Debug)]
struct CaseResults {
    name: String,
    title: String,
    run: String,
    targets: Vec<TargetResults>,
}

#[derive(Debug)]
struct TargetResults {
    name: String,
    /// With the round that each belongs to.
    outcomes: Vec<(usize, Outcome)>,
    fault: Option<String>,
}

impl CaseResults {
    fn new(case: &CaseSection, targets: &[&TargetSection]) -> Self {
        let targets = targets.iter().map(|target| TargetResults::new(&target.name));
        Self {
            name: case.name.clone(),
            title: case.title().into(),
            run: case.run.clone(),
            targets: targets.collect(),
        }
    }

    fn target(&self, name: &str) -> Option<&TargetResults> {
        self.targets.iter().find(|target| target.name == name)
    }
}

impl TargetResults {
    fn new(name: &str) -> Self {
        Self { name: name.into(), outcomes: Vec::new(), fault: None }
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().map(|(_, outcome)| outcome)
    }

    fn spread(&self, value: impl Fn(&Outcome) -> Option<f64>) -> Option<Spread> {
        Spread::of(&self.outcomes().filter_map(value).collect::<Vec<_>>())
    }
}

impl Matrix {
    /// Runs it in rounds of all cases, each A B C …, so that what changes on the machine meanwhile
    /// changes for all. `note` is told of every run as soon as it has ended, and of every bar at the
    /// end: much may happen before that.
    ///
    /// # Errors
    /// A target's process cannot be stopped or continued. A run that fails is part of the results.
    pub fn run(&self, mut note: impl FnMut(&Value) -> Result<(), Fault>) -> Result<Results, Fault> {
        let _awake = Paused::all(&self.targets)?;
        let clock = Clock::start();
        let cases = self.cases.iter().map(|case| (case, self.targets_of(case)));
        let cases: Vec<_> = cases.filter(|(_, targets)| !targets.is_empty()).collect();
        let mut results: Vec<_> =
            cases.iter().map(|(case, targets)| CaseResults::new(case, targets)).collect();
        let mut latest_s = 0.0;
        let mut rounds = 0;
        for round in 1..=self.repeat {
            let begun_s = clock.now_ns() as f64 / 1e9;
            if round > 1 && self.seconds_max.is_some_and(|most| begun_s + latest_s > most) {
                eprintln!("time is up: {rounds} of {} rounds", self.repeat);
                break;
            }
            for ((case, targets), results) in cases.iter().zip(&mut results) {
                for (target, results) in targets.iter().zip(&mut results.targets) {
                    if round > target.repeat_max.unwrap_or(usize::MAX) {
                        continue;
                    }
                    if self.run_one(case, target, round, results)?
                        && let Some((_, outcome)) = results.outcomes.last()
                    {
                        note(&line(case, target, round, outcome))?;
                    }
                }
            }
            rounds = round;
            latest_s = clock.now_ns() as f64 / 1e9 - begun_s;
        }
        let note_of_rounds = format!("{}; rounds: {rounds}", self.note);
        let results = Results {
            note: note_of_rounds.trim_start_matches("; ").into(),
            baseline: self.baseline.clone(),
            bars: self.bars.iter().map(|bar| bar.judge(&results)).collect(),
            cases: results,
        };
        results.bars.iter().try_for_each(|bar| note(&bar.line()))?;
        Ok(results)
    }

    fn run_one(
        &self,
        case: &CaseSection,
        target: &TargetSection,
        round: usize,
        results: &mut TargetResults,
    ) -> Result<bool, Fault> {
        // What failed twice fails a third time, and may take long to.
        if results.outcomes.is_empty() && results.fault.is_some() && round > 2 {
            return Ok(false);
        }
        let command = self.command(case, target).map_err(Fault::Usage)?;
        signal("-CONT", target.pause.iter())?;
        let result = measure(&command);
        signal("-STOP", target.pause.iter())?;
        let has_ended = result.is_ok();
        let told = match result {
            Ok(outcome) => {
                let told = told(&outcome);
                results.outcomes.push((round, outcome));
                told
            }
            Err(fault) => {
                let told = fault.to_string();
                results.fault = Some(told.clone());
                told
            }
        };
        eprintln!("{round} of {}  {:<24} {:<18} {told}", self.repeat, case.name, target.name);
        Ok(has_ended)
    }
}

/// The processes that are stopped but for the one that is measured; all go on with the end of this
/// value.
struct Paused<'a>(&'a [TargetSection]);

impl<'a> Paused<'a> {
    fn all(targets: &'a [TargetSection]) -> Result<Self, Fault> {
        let paused = Self(targets);
        signal("-STOP", targets.iter().flat_map(|target| &target.pause))?;
        Ok(paused)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = signal("-CONT", self.0.iter().flat_map(|target| &target.pause));
    }
}

impl Results {
    /// Whether every run came to its end and nothing was lost.
    pub fn is_clean(&self) -> bool {
        let mut targets = self.cases.iter().flat_map(|case| &case.targets);
        targets.all(|target| {
            target.fault.is_none() && target.outcomes().all(|one| one.verdict.is_clean())
        })
    }

    /// Whether no bar is missed and each was measured.
    pub fn meets_bars(&self) -> bool {
        self.bars.iter().all(|bar| bar.is_met() == Some(true))
    }

    /// The tables, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}. {}\n", now(), self.note);
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
        let mut page = Page::new("Brokers compared", &format!("{}. {}", now(), self.note));
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

/// A run of a comparison, for programs.
fn line(case: &CaseSection, target: &TargetSection, round: usize, outcome: &Outcome) -> Value {
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
        // A spread of one value would say nothing.
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

fn told(outcome: &Outcome) -> String {
    let p50 = outcome.quantile_ns(0.5).map_or_else(String::new, |ns| readable_ns(ns as f64));
    let cpu = outcome.cpu_per_delivery_ns().map_or_else(String::new, readable_ns);
    let verdict = match outcome.verdict.is_clean() {
        true => String::new(),
        false => crate::report::table::readable_verdict(&outcome.verdict),
    };
    format!("p50 {p50:>9}  CPU {cpu:>9}  {:>9.0}/s  {verdict}", outcome.rate())
}

/// Stops or continues processes.
fn signal<'a>(name: &str, pids: impl Iterator<Item = &'a u32>) -> Result<(), Fault> {
    let pids: Vec<_> = pids.map(u32::to_string).collect();
    if pids.is_empty() {
        return Ok(());
    }
    // A process that has gone is named by kill, and missed by its own runs.
    Process::new("kill")
        .arg(name)
        .args(pids)
        .status()
        .map(|_| ())
        .map_err(|error| Fault::io("kill", error))
}

/// Runs a scenario against its target and against a floor relay of our own.
///
/// # Errors
/// Whatever keeps it from coming to its end.
pub fn with_floor(command: &Command, core: &str) -> Result<(Results, Vec<Outcome>), Fault> {
    let Some(common) = command.common() else {
        return Err(Fault::Usage("not a scenario".into()));
    };
    let floor = Relay::spawn(core)?;
    let mut targets = [TargetResults::new("floor"), TargetResults::new("server")];
    let commands = [command.against_floor(&floor.url, floor.process.id()), command.clone()];
    for round in 1..=common.repeat {
        for (command, results) in commands.iter().zip(&mut targets) {
            let outcome = measure(command)?;
            eprintln!("{round} of {}  {:<8} {}", common.repeat, results.name, told(&outcome));
            results.outcomes.push((round, outcome));
        }
    }
    let [_, server] = &targets;
    let outcomes: Vec<_> = server.outcomes().cloned().collect();
    let run = command.common().map(Common::url).unwrap_or_default().to_owned();
    let name = outcomes.first().map(|one| one.scenario.clone()).unwrap_or_default();
    let title = name.clone();
    let cases = vec![CaseResults { name, title, run, targets: targets.into() }];
    let results =
        Results { note: String::new(), baseline: "floor".into(), cases, bars: Vec::new() };
    print!("{}", results.markdown());
    Ok((results, outcomes))
}

/// A floor relay in a process of its own, which ends with this value.
struct Relay {
    process: Child,
    url: String,
}

impl Relay {
    fn spawn(core: &str) -> Result<Self, Fault> {
        let what = |error| Fault::io("starting the floor relay", error);
        let program = std::env::current_exe().map_err(what)?;
        let mut command = Process::new(program);
        command.args(["floor", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        if core != "none" {
            command.args(["--core", core]);
        }
        let mut process = command.spawn().map_err(what)?;
        let mut url = String::new();
        if let Some(out) = process.stdout.take() {
            BufReader::new(out).read_line(&mut url).map_err(what)?;
        }
        Ok(Self { process, url: url.trim().into() })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
