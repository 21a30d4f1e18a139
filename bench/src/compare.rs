//! Comparisons: every case against every target, interleaved and repeated, medians and spread, and
//! the ratio to the floor.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command as Process, Stdio};

use clap::Parser;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{Arguments, Command, Common, measure, now};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::report::html::{Curve, Page};
use crate::report::json;
use crate::statistics::{Latencies, Spread, readable_ns, three_digits};

/// A matrix of cases and targets, as its file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// How often each case is run against each target.
    #[serde(default = "repeat_default")]
    pub repeat: usize,
    /// A line for the report: machine, versions.
    #[serde(default)]
    note: String,
    /// The name of the target that ratios are taken to.
    #[serde(default = "baseline_default")]
    baseline: String,
    #[serde(rename = "target")]
    targets: Vec<TargetSection>,
    #[serde(rename = "case")]
    cases: Vec<CaseSection>,
}

/// A server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetSection {
    name: String,
    url: String,
    /// Its process, whose CPU time is looked at.
    pid: Option<u32>,
    /// Processes that are stopped while another target is measured, so that none disturbs.
    #[serde(default)]
    pause: Vec<u32>,
    /// Conventions: `["--login", "guest"]`.
    #[serde(default)]
    arguments: Vec<String>,
}

/// A scenario with its arguments.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseSection {
    name: String,
    /// `"fan-out --receivers 100"`
    run: String,
    /// The targets that it is for; all, if it names none.
    #[serde(default)]
    targets: Vec<String>,
}

fn repeat_default() -> usize {
    3
}

fn baseline_default() -> String {
    "floor".into()
}

/// What a comparison found.
#[derive(Debug)]
pub struct Results {
    note: String,
    baseline: String,
    cases: Vec<CaseResults>,
}

#[derive(Debug)]
struct CaseResults {
    name: String,
    run: String,
    targets: Vec<TargetResults>,
}

#[derive(Debug)]
struct TargetResults {
    name: String,
    outcomes: Vec<Outcome>,
    fault: Option<String>,
}

impl Matrix {
    /// Reads a matrix.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let matrix: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for case in &matrix.cases {
            for target in &matrix.targets {
                matrix.command(case, target).map_err(|text| format!("{}: {text}", case.name))?;
            }
            for name in &case.targets {
                if !matrix.targets.iter().any(|target| target.name == *name) {
                    return Err(format!("{}: no target {name}", case.name));
                }
            }
        }
        Ok(matrix)
    }

    /// Runs it: A B C A B C …, so that what changes on the machine meanwhile changes for all.
    /// `note` is told of every run as soon as it has ended: much may happen before the last.
    ///
    /// # Errors
    /// A target's process cannot be stopped or continued. A run that fails is part of the results.
    pub fn run(
        &self,
        only: Option<&str>,
        mut note: impl FnMut(&Value) -> Result<(), Fault>,
    ) -> Result<Results, Fault> {
        let mut cases = Vec::new();
        for case in &self.cases {
            if only.is_some_and(|texts| !texts.split('|').any(|text| case.name.contains(text))) {
                continue;
            }
            let targets: Vec<_> = self
                .targets
                .iter()
                .filter(|one| case.targets.is_empty() || case.targets.contains(&one.name))
                .collect();
            let mut results: Vec<_> = targets
                .iter()
                .map(|target| TargetResults {
                    name: target.name.clone(),
                    outcomes: Vec::new(),
                    fault: None,
                })
                .collect();
            for round in 1..=self.repeat {
                for (target, results) in targets.iter().zip(&mut results) {
                    if self.run_one(case, target, round, results)?
                        && let Some(outcome) = results.outcomes.last()
                    {
                        note(&line(case, target, outcome))?;
                    }
                }
            }
            cases.push(CaseResults {
                name: case.name.clone(),
                run: case.run.clone(),
                targets: results,
            });
        }
        Ok(Results { note: self.note.clone(), baseline: self.baseline.clone(), cases })
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
        let others = || self.targets.iter().filter(|other| other.name != target.name);
        signal("-STOP", others().flat_map(|other| &other.pause))?;
        let result = measure(&command);
        signal("-CONT", others().flat_map(|other| &other.pause))?;
        let has_ended = result.is_ok();
        let told = match result {
            Ok(outcome) => {
                let told = told(&outcome);
                results.outcomes.push(outcome);
                told
            }
            Err(fault) => {
                let told = fault.to_string();
                results.fault = Some(told.clone());
                told
            }
        };
        eprintln!("{round} of {}  {:<34} {:<18} {told}", self.repeat, case.name, target.name);
        Ok(has_ended)
    }

    fn command(&self, case: &CaseSection, target: &TargetSection) -> Result<Command, String> {
        let mut words = vec!["com-broker-bench".to_owned()];
        words.extend(case.run.split_whitespace().map(str::to_owned));
        words.extend(target.arguments.iter().cloned());
        words.extend(["--quiet".into(), "--core".into(), "none".into()]);
        if let Some(pid) = target.pid {
            words.extend(["--server-pid".into(), pid.to_string()]);
        }
        words.push(target.url.clone());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        if arguments.command.common().is_none() {
            return Err(format!("{}: not a scenario", case.run));
        }
        Ok(arguments.command)
    }
}

impl Results {
    /// Whether every run came to its end and nothing was lost.
    pub fn is_clean(&self) -> bool {
        let mut targets = self.cases.iter().flat_map(|case| &case.targets);
        targets.all(|target| {
            target.fault.is_none() && target.outcomes.iter().all(|one| one.verdict.is_clean())
        })
    }

    /// The tables, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}. {}\n", now(), self.note);
        for case in &self.cases {
            text.push_str(&format!("\n### {}\n\n`{}`\n\n", case.name, case.run));
            let rows = self.rows(case);
            let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
            text.push_str(&line(&rows[0]));
            text.push_str(&format!("|---|{}\n", "---:|".repeat(rows[0].len() - 1)));
            text.extend(rows[1..].iter().map(line));
        }
        text
    }

    /// A page with a plot and a table for each case.
    pub fn html(&self) -> String {
        let mut page = Page::new("Brokers compared", &format!("{}. {}", now(), self.note));
        for case in &self.cases {
            page.heading(&case.name);
            let merged: Vec<_> = case
                .targets
                .iter()
                .map(|target| (target.name.as_str(), merged(&target.outcomes)))
                .collect();
            let curves: Vec<_> =
                merged.iter().map(|(name, latencies)| Curve { name, latencies }).collect();
            page.plot(&curves);
            page.table(&self.rows(case));
            page.text(&case.run);
        }
        page.finish()
    }

    fn rows(&self, case: &CaseResults) -> Vec<Vec<String>> {
        let base = case.targets.iter().find(|target| target.name == self.baseline);
        let has_last = case
            .targets
            .iter()
            .flat_map(|target| &target.outcomes)
            .any(|outcome| outcome.quantile_of_ns("last delivery", 0.5).is_some());
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
                let spread = column.spread(target);
                row.push(spread.map_or_else(|| "–".into(), |spread| column.readable(spread)));
                if let Some(base) = base.filter(|_| column.has_ratio) {
                    row.push(ratio(spread, column.spread(base)));
                }
            }
            for name in &figures {
                let values: Vec<_> =
                    target.outcomes.iter().filter_map(|one| one.figure(name)).collect();
                let spread = Spread::of(&values);
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

/// A run of a comparison, for programs.
fn line(case: &CaseSection, target: &TargetSection, outcome: &Outcome) -> Value {
    let mut object = json::object(outcome);
    object["case"] = case.name.as_str().into();
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
    fn spread(&self, target: &TargetResults) -> Option<Spread> {
        let values: Vec<_> = target.outcomes.iter().filter_map(self.value).collect();
        Spread::of(&values)
    }

    fn readable(&self, spread: Spread) -> String {
        let share = 100.0 * (spread.max - spread.min) / (2.0 * spread.median.max(1e-9));
        let median = match self.is_time {
            true => readable_ns(spread.median),
            false => three_digits(spread.median),
        };
        format!("{median} ±{share:.0} %")
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
    let outcomes = case.targets.iter().flat_map(|target| &target.outcomes);
    let mut names = Vec::new();
    for figure in outcomes.flat_map(|outcome| &outcome.figures) {
        if !names.contains(&figure.name) {
            names.push(figure.name);
        }
    }
    names
}

fn merged(outcomes: &[Outcome]) -> Latencies {
    let mut all = Latencies::default();
    for series in outcomes.iter().filter_map(|outcome| outcome.latencies.first()) {
        all.add(&series.latencies);
    }
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
    let name = |name: &str| TargetResults { name: name.into(), outcomes: vec![], fault: None };
    let mut targets = [name("floor"), name("server")];
    let commands = [command.against_floor(&floor.url, floor.process.id()), command.clone()];
    for round in 1..=common.repeat {
        for (command, results) in commands.iter().zip(&mut targets) {
            let outcome = measure(command)?;
            eprintln!("{round} of {}  {:<8} {}", common.repeat, results.name, told(&outcome));
            results.outcomes.push(outcome);
        }
    }
    let [_, server] = &targets;
    let outcomes = server.outcomes.clone();
    let run = command.common().map(Common::url).unwrap_or_default().to_owned();
    let name = outcomes.first().map(|one| one.scenario.clone()).unwrap_or_default();
    let cases = vec![CaseResults { name, run, targets: targets.into() }];
    let results = Results { note: String::new(), baseline: "floor".into(), cases };
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
