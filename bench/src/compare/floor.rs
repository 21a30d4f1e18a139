//! A scenario against its target and a floor relay in turn, for the ratio of the two.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command as Process, Stdio};

use super::cases::{CaseResults, TargetResults};
use super::report::{Results, summary};
use crate::arguments::Command;
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::run::measure;

/// Runs a scenario against its target and against a floor relay that it starts.
///
/// # Errors
/// A run failed, or the relay cannot be started.
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
            eprintln!("{round} of {}  {:<8} {}", common.repeat, results.name, summary(&outcome));
            results.outcomes.push((round, outcome));
        }
    }
    let [_, server] = &targets;
    let outcomes: Vec<_> = server.outcomes().cloned().collect();
    let run = common.url.clone();
    let name = outcomes.first().map(|one| one.scenario.clone()).unwrap_or_default();
    let title = name.clone();
    let cases = vec![CaseResults { name, title, run, targets: targets.into() }];
    let results =
        Results { note: String::new(), baseline: "floor".into(), cases, bars: Vec::new() };
    print!("{}", results.markdown());
    Ok((results, outcomes))
}

/// A floor relay in a process of its own, which is ended on drop.
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
