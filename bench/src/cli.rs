//! The commands: runs a scenario, a comparison or a floor relay, and writes its reports.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::arguments::{Arguments, Command, Common, Compare, Floor};
use crate::clock::{readable_now, since_epoch};
use crate::compare;
use crate::fault::Fault;
use crate::machine::{pin, raise_descriptor_limit};
use crate::outcome::Outcome;
use crate::relay::{self, Relay};
use crate::report::html::{Curve, Page};
use crate::report::{hdr, json, table};
use crate::run::measure;
use crate::threshold::Threshold;

/// Runs the command.
///
/// # Errors
/// The command failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Fault> {
    raise_descriptor_limit();
    match &arguments.command {
        Command::Floor(floor) => run_relay(floor),
        Command::Compare(arguments) => {
            pin(arguments.core.as_deref())?;
            run_comparison(arguments)
        }
        command => run_scenario(command),
    }
}

fn run_scenario(command: &Command) -> Result<ExitCode, Fault> {
    let Some(common) = command.common() else {
        return Err(Fault::Usage("not a scenario".into()));
    };
    pin(common.core.as_deref())?;
    if let Some(core) = &common.with_floor {
        let (results, outcomes) = compare::with_floor(command, core)?;
        common.write_reports(&outcomes, || results.html())?;
        return Ok(exit_code(&outcomes, &common.fail_if));
    }
    let outcomes = [measure(command)?];
    print!("{}", table::table(&outcomes[0]));
    common.write_reports(&outcomes, || page(&outcomes[0]))?;
    Ok(exit_code(&outcomes, &common.fail_if))
}

impl Common {
    fn write_reports(
        &self,
        outcomes: &[Outcome],
        page: impl FnOnce() -> String,
    ) -> Result<(), Fault> {
        if let Some(path) = &self.json {
            let lines = outcomes.iter().map(|outcome| format!("{}\n", json::object(outcome)));
            append(path, &lines.collect::<String>())?;
        }
        if let Some(path) = &self.hdr {
            let log = hdr::log(outcomes, since_epoch());
            let log = log.map_err(|error| Fault::io(path.display().to_string(), error))?;
            write(path, &log)?;
        }
        if let Some(path) = &self.html {
            write(path, page().as_bytes())?;
        }
        Ok(())
    }
}

fn exit_code(outcomes: &[Outcome], bounds: &[Threshold]) -> ExitCode {
    let mut code = 0;
    for outcome in outcomes {
        for bound in bounds {
            if let Some(found) = bound.broken_by(outcome) {
                eprintln!("com-broker-bench: {bound}: {found}");
                code = code.max(3);
            }
        }
        if !outcome.verdict.is_clean() {
            eprintln!("com-broker-bench: {}", table::readable_verdict(&outcome.verdict));
            code = 4;
        }
    }
    ExitCode::from(code)
}

fn run_comparison(arguments: &Compare) -> Result<ExitCode, Fault> {
    let text = fs::read_to_string(&arguments.config)
        .map_err(|error| Fault::io(arguments.config.display().to_string(), error))?;
    let mut matrix = compare::Matrix::parse(&text)
        .map_err(|text| Fault::Usage(format!("{}: {text}", arguments.config.display())))?;
    matrix.repeat = arguments.repeat.unwrap_or(matrix.repeat);
    if let Some(path) = &arguments.json {
        write(path, b"")?;
    }
    matrix.select(arguments.only.as_deref(), arguments.targets.as_deref()).map_err(Fault::Usage)?;
    if let Some(time_ns) = arguments.time_max {
        matrix.seconds_max = Some(time_ns as f64 / 1e9);
    }
    let results = matrix.run(|line| match &arguments.json {
        Some(path) => append(path, &format!("{line}\n")),
        None => Ok(()),
    })?;
    let markdown = results.markdown();
    print!("{markdown}");
    if let Some(path) = &arguments.markdown {
        write(path, markdown.as_bytes())?;
    }
    if let Some(path) = &arguments.html {
        write(path, results.html().as_bytes())?;
    }
    Ok(ExitCode::from(match (results.is_clean(), results.meets_bars()) {
        (false, _) => 4,
        (true, false) if arguments.fail_if_missed => 3,
        (true, _) => 0,
    }))
}

fn run_relay(floor: &Floor) -> Result<ExitCode, Fault> {
    if let Some(core) = floor.core {
        pin(Some(&core.to_string()))?;
    }
    let tls = match floor.tls_cert.as_ref().zip(floor.tls_key.as_ref()) {
        Some((certificate, key)) => Some(relay::tls_config(certificate, key)?),
        None => None,
    };
    let scheme = if tls.is_some() { "floor+tls" } else { "floor" };
    let mut relay = Relay::bind(floor.listen, floor.spin, tls)?;
    let address = relay.address().map_err(|error| Fault::io("listening", error))?;
    println!("{scheme}://{address}");
    relay.run()?;
    Ok(ExitCode::SUCCESS)
}

fn page(outcome: &Outcome) -> String {
    let mut page = Page::new(&outcome.scenario, &format!("{}, {}", outcome.target, readable_now()));
    let curves = outcome.latencies.iter().enumerate();
    let curves: Vec<_> = curves
        .map(|(color, series)| Curve { name: series.name, color, latencies: &series.latencies })
        .collect();
    page.legend(curves.iter().map(|curve| (curve.name, curve.color)));
    page.plot("Latency by percentile", &curves);
    page.text(&table::table(outcome));
    page.finish()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| Fault::io(path.display().to_string(), error))
}

fn append(path: &Path, text: &str) -> Result<(), Fault> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Fault::io(path.display().to_string(), error))
}
