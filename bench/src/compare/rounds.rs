//! The rounds of a comparison: the order of runs, and the processes that are stopped meanwhile.

use std::process::Command as Process;

use serde_json::Value;

use super::cases::{CaseResults, CaseSection, TargetResults, TargetSection};
use super::matrix::Matrix;
use super::report::{Results, line, summary};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::run::measure;

impl Matrix {
    /// Runs the matrix in rounds of all cases and targets, so that changes of the machine affect all of
    /// them. `note` gets every run as soon as it has ended, and every bar at the end.
    ///
    /// # Errors
    /// A target's process cannot be stopped or continued. A failed run is part of the results.
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
        // Not tried a third time, which may take long.
        if results.outcomes.is_empty() && results.fault.is_some() && round > 2 {
            return Ok(false);
        }
        let command = self.command(case, target).map_err(Fault::Usage)?;
        signal("-CONT", target.pause.iter())?;
        let result = measure(&command);
        signal("-STOP", target.pause.iter())?;
        let has_ended = result.is_ok();
        let line = match result {
            Ok(outcome) => {
                let line = summary(&outcome);
                results.outcomes.push((round, outcome));
                line
            }
            Err(fault) => {
                let line = fault.to_string();
                results.fault = Some(line.clone());
                line
            }
        };
        eprintln!("{round} of {}  {:<24} {:<18} {line}", self.repeat, case.name, target.name);
        Ok(has_ended)
    }
}

/// Stops all processes except that of the measured target. They continue on drop.
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
        // A failure on drop cannot be reported.
        let _ = signal("-CONT", self.0.iter().flat_map(|target| &target.pause));
    }
}

/// Stops or continues processes.
fn signal<'a>(name: &str, pids: impl Iterator<Item = &'a u32>) -> Result<(), Fault> {
    let pids: Vec<_> = pids.map(u32::to_string).collect();
    if pids.is_empty() {
        return Ok(());
    }
    // If a process has ended, `kill` names it, and its own runs fail.
    Process::new("kill")
        .arg(name)
        .args(pids)
        .status()
        .map(|_| ())
        .map_err(|error| Fault::io("kill", error))
}
