//! The command line: [`Arguments`] mirrors it, [`run`] does what it asks for.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::clock::{Clock, date_and_minute, since_epoch};
use crate::compare;
use crate::driver::{Driver, DriverOptions, tls};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::process::Server;
use crate::protocol::{Credentials, protocol_of};
use crate::relay::{self, Relay};
use crate::report::html::{Curve, Page};
use crate::report::{hdr, json, table};
use crate::scenario::{self, Bench, Load};
use crate::stamp::Stamp;
use crate::target::Target;
use crate::threshold::{Threshold, parse_time_ns};

/// Measures message brokers: latency, fan-out, and what they cost in CPU.
///
/// One process on one core, thousands of connections, none of which blocks. Every message carries
/// its number and the time at which it was meant to be sent: loss, duplicates and order are checked
/// as messages arrive, and a server that stalls is charged for the messages that it kept waiting.
#[derive(Debug, Parser)]
#[command(name = "com-broker-bench", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
URLs:
  classic+tcp://HOST:PORT   classic+tls://  classic+ws://  classic+wss://   com-broker's own dialect
  stomp+tcp://HOST:PORT     stomp+tls://    stomp+ws://    stomp+wss://     STOMP 1.2, any broker
  nats://HOST:PORT   mqtt://HOST:PORT   redis://HOST:PORT                   for comparison
  floor://HOST:PORT         floor+tls://                                   `com-broker-bench floor`

Examples:
  com-broker-bench round-trip classic+tcp://127.0.0.1:6661
  com-broker-bench fan-out --receivers 1000 stomp+tcp://127.0.0.1:6661 --server-pid auto
  com-broker-bench rate --rate 50000 nats://127.0.0.1:4222 --fail-if 'p99>500us' --html report.html
  RABBIT=guest com-broker-bench pairs stomp+tcp://127.0.0.1:61613 --login guest --passcode-env RABBIT --vhost /

Exit codes:
  0  measured, nothing lost, every bound kept
  1  the run did not come to its end
  2  the command line asks for something that cannot be done
  3  a bound of --fail-if is broken, or a bar of a comparison is missed and was to be met
  4  messages were lost, duplicated, out of order or damaged";

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// One message at a time from one connection to another
    RoundTrip(RoundTrip),
    /// Messages on a schedule that does not wait for the server; latency from the intended time
    Rate(Rate),
    /// One publisher, many receivers that all get every message
    FanOut(FanOut),
    /// Many pairs of a publisher and a receiver, saturated or one message in flight each
    Pairs(Pairs),
    /// Very many destinations, one of which is drawn for each message
    Destinations(Destinations),
    /// A storm of logins: connect, log in, leave, and again
    Logins(Logins),
    /// A pair without and with many idle connections beside it, and the memory that those cost
    Idle(Idle),
    /// A fan-out without and with a receiver that has stopped to read
    StoppedReader(StoppedReader),
    /// Be the relay that only moves octets: what this machine's kernel allows at best
    Floor(Floor),
    /// Run a matrix of cases and targets from a file, interleaved and repeated
    Compare(Compare),
}

/// `com-broker-bench round-trip`
#[derive(Clone, Debug, Args)]
pub struct RoundTrip {
    #[command(flatten)]
    common: Common,
}

/// `com-broker-bench rate`
#[derive(Clone, Debug, Args)]
pub struct Rate {
    #[command(flatten)]
    common: Common,
    /// Messages a second, all pairs together
    #[arg(long, default_value_t = 10_000.0, value_name = "N")]
    rate: f64,
    /// Pairs of a publisher and a receiver that take turns
    #[arg(long, default_value_t = 1, value_name = "N")]
    pairs: usize,
}

/// `com-broker-bench fan-out`
#[derive(Clone, Debug, Args)]
pub struct FanOut {
    #[command(flatten)]
    common: Common,
    /// Receivers of every message
    #[arg(long, default_value_t = 100, value_name = "N")]
    receivers: usize,
    /// Deliveries a second, all receivers together; without it, as many as the server manages
    #[arg(long, value_name = "N")]
    deliveries: Option<f64>,
    /// Messages under way, where no rate is given [default: 16384 deliveries, 16 to 1024 messages]
    #[arg(long, value_name = "N")]
    window: Option<u32>,
}

/// `com-broker-bench pairs`
#[derive(Clone, Debug, Args)]
pub struct Pairs {
    #[command(flatten)]
    common: Common,
    /// Pairs of a publisher and a receiver
    #[arg(long, default_value_t = 8, value_name = "N")]
    pairs: usize,
    /// Messages under way for each pair [default: 1 MiB of bodies, 16 to 1024]
    #[arg(long, value_name = "N")]
    window: Option<u32>,
}

/// `com-broker-bench destinations`
#[derive(Clone, Debug, Args)]
pub struct Destinations {
    #[command(flatten)]
    common: Common,
    /// Destinations, each with one subscription
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    destinations: usize,
    /// Connections that share the subscriptions
    #[arg(long, default_value_t = 200, value_name = "N")]
    receivers: usize,
    /// Connections that send
    #[arg(long, default_value_t = 8, value_name = "N")]
    publishers: usize,
    /// Messages under way, all together [default: 1 MiB of bodies, 16 to 1024]
    #[arg(long, value_name = "N")]
    window: Option<u32>,
}

/// `com-broker-bench logins`
#[derive(Clone, Debug, Args)]
pub struct Logins {
    #[command(flatten)]
    common: Common,
    /// Connections that are logging in at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    concurrency: usize,
}

/// `com-broker-bench idle`
#[derive(Clone, Debug, Args)]
pub struct Idle {
    #[command(flatten)]
    common: Common,
    /// Connections that log in and do nothing
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    connections: usize,
}

/// `com-broker-bench stopped-reader`
#[derive(Clone, Debug, Args)]
pub struct StoppedReader {
    #[command(flatten)]
    common: Common,
    /// Receivers that go on reading
    #[arg(long, default_value_t = 100, value_name = "N")]
    receivers: usize,
    /// Deliveries a second, all receivers together
    #[arg(long, default_value_t = 100_000.0, value_name = "N")]
    deliveries: f64,
}

/// `com-broker-bench floor`
#[derive(Clone, Debug, Args)]
pub struct Floor {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:7000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Never sleep: poll without end
    #[arg(long)]
    spin: bool,
    /// Take TLS connections only, with this certificate and those above it, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The core to run on [default: any]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
}

/// `com-broker-bench compare`
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// What to run against what: TOML, see the README of this program
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How often each case is run against each target [default: what the file says, or 3]
    #[arg(long, value_name = "N")]
    repeat: Option<usize>,
    /// Begin no further repetition that would not end within this time
    #[arg(long, value_parser = time_ns, value_name = "TIME")]
    time_max: Option<u64>,
    /// Run only these cases: names with commas between them, in which * stands for anything
    #[arg(long, value_name = "NAMES")]
    only: Option<String>,
    /// Run only against these targets: names as with --only
    #[arg(long, value_name = "NAMES")]
    targets: Option<String>,
    /// End with exit code 3 if a bar is missed or could not be measured
    #[arg(long)]
    fail_if_missed: bool,
    /// Write the tables to a file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write every run to a file: JSON, one object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots to a file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The core to run on, or "none" [default: the last]
    #[arg(long, value_name = "N")]
    core: Option<String>,
}

/// What all scenarios take.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The server: protocol, transport and address
    url: String,
    /// Size of every body
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    body: usize,
    /// How long to measure
    #[arg(long, default_value = "3s", value_parser = time_ns, value_name = "TIME")]
    duration: u64,
    /// How long to run before that
    #[arg(long, default_value = "500ms", value_parser = time_ns, value_name = "TIME")]
    warmup: u64,
    /// How long to wait, afterwards, for messages that are under way
    #[arg(long, default_value = "5s", value_parser = time_ns, value_name = "TIME")]
    drain: u64,
    /// The server's process: its CPU time per delivery and its memory are reported
    ///
    /// "auto" is the one that listens, on this machine, on the port of the URL.
    #[arg(long, value_name = "PID", value_parser = server_pid)]
    server_pid: Option<ServerPid>,
    /// Run a floor relay, too, and give the results as a ratio to it; on this core, if one is given
    #[arg(long, value_name = "CORE", num_args = 0..=1, default_missing_value = "none")]
    with_floor: Option<String>,
    /// Repetitions, interleaved, where a floor relay runs, too
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub repeat: usize,

    /// What destinations are called; {} is replaced by a name [default: as the protocol has it]
    #[arg(long, value_name = "PATTERN", help_heading = "Conventions of the server")]
    destination: Option<String>,
    /// The login of every connection; {} is replaced by a name of its own [default: {}]
    #[arg(long, value_name = "PATTERN", help_heading = "Conventions of the server")]
    login: Option<String>,
    /// The environment variable that holds the passcode or password
    ///
    /// Without it, com-broker's keys are taken from COM_BROKER_KEY_APPLICATION,
    /// COM_BROKER_KEY_AGENT and COM_BROKER_KEY_SERVICE, or are those of its development.
    #[arg(long, value_name = "NAME", help_heading = "Conventions of the server")]
    passcode_env: Option<String>,
    /// The virtual host, STOMP's header `host` [default: the URL's]
    #[arg(long, value_name = "NAME", help_heading = "Conventions of the server")]
    vhost: Option<String>,
    /// The authorities to trust, PEM [default: every certificate is accepted]
    #[arg(long, value_name = "FILE", help_heading = "Conventions of the server")]
    tls_ca: Option<PathBuf>,
    /// Resume TLS sessions [default: a whole handshake for every connection]
    #[arg(long, help_heading = "Conventions of the server")]
    tls_resume: bool,

    /// Sleep when there is nothing to do, instead of polling without end
    #[arg(long, help_heading = "This program")]
    sleep: bool,
    /// The core to run on, or "none" [default: the last]
    #[arg(long, value_name = "N", help_heading = "This program")]
    core: Option<String>,
    /// Show no progress
    #[arg(long, help_heading = "This program")]
    quiet: bool,

    /// Append the result to a file: JSON, one object a line
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    json: Option<PathBuf>,
    /// Write the histograms to a file: an HDR histogram log
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    hdr: Option<PathBuf>,
    /// Write a report with plots to a file: HTML that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    html: Option<PathBuf>,
    /// End with exit code 3 if this is true, such as p99>500us; repeatable
    ///
    /// Of p50, p90, p99, p999, max and cpu (the server's, per delivery) with a time; loss and rate
    /// (per second) with a number.
    #[arg(long, value_name = "BOUND", help_heading = "Reports")]
    fail_if: Vec<Threshold>,
}

/// Whose CPU time is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerPid {
    Listener,
    Pid(u32),
}

fn server_pid(text: &str) -> Result<ServerPid, String> {
    match text {
        "auto" => Ok(ServerPid::Listener),
        _ => text.parse().map(ServerPid::Pid).map_err(|_| "a number, or \"auto\"".into()),
    }
}

impl Command {
    fn common_mut(&mut self) -> Option<&mut Common> {
        Some(match self {
            Self::RoundTrip(RoundTrip { common })
            | Self::Rate(Rate { common, .. })
            | Self::FanOut(FanOut { common, .. })
            | Self::Pairs(Pairs { common, .. })
            | Self::Destinations(Destinations { common, .. })
            | Self::Logins(Logins { common, .. })
            | Self::Idle(Idle { common, .. })
            | Self::StoppedReader(StoppedReader { common, .. }) => common,
            Self::Floor(_) | Self::Compare(_) => return None,
        })
    }

    /// What the scenario was told, if it is one.
    pub fn common(&self) -> Option<&Common> {
        Some(match self {
            Self::RoundTrip(RoundTrip { common })
            | Self::Rate(Rate { common, .. })
            | Self::FanOut(FanOut { common, .. })
            | Self::Pairs(Pairs { common, .. })
            | Self::Destinations(Destinations { common, .. })
            | Self::Logins(Logins { common, .. })
            | Self::Idle(Idle { common, .. })
            | Self::StoppedReader(StoppedReader { common, .. }) => common,
            Self::Floor(_) | Self::Compare(_) => return None,
        })
    }
}

impl Command {
    /// The same scenario against a floor relay, which has no conventions.
    pub fn against_floor(&self, url: &str, pid: u32) -> Self {
        let mut command = self.clone();
        if let Some(common) = command.common_mut() {
            common.url = url.into();
            common.server_pid = Some(ServerPid::Pid(pid));
            common.destination = None;
        }
        command
    }
}

impl Common {
    /// The server's.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Does what the arguments ask for.
///
/// # Errors
/// Whatever kept it from being done.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Fault> {
    // More descriptors than connections; where the system refuses, connecting will tell.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match &arguments.command {
        Command::Floor(floor) => run_relay(floor),
        Command::Compare(arguments) => {
            pin(arguments.core.as_deref())?;
            run_comparison(arguments)
        }
        command => run_scenario(command),
    }
}

/// Runs a scenario once.
///
/// # Errors
/// Whatever keeps it from coming to its end.
pub fn measure(command: &Command) -> Result<Outcome, Fault> {
    let Some(common) = command.common() else {
        return Err(Fault::Usage("not a scenario".into()));
    };
    common.check()?;
    let mut bench = common.bench()?;
    let mut outcome = match command {
        Command::RoundTrip(_) => bench.round_trip(),
        Command::Rate(rate) => bench.rate(rate.rate, rate.pairs),
        Command::FanOut(fan_out) => {
            bench.fan_out(fan_out.receivers, fan_out.deliveries, fan_out.window)
        }
        Command::Pairs(pairs) => bench.pairs(pairs.pairs, pairs.window),
        Command::Destinations(one) => {
            bench.destinations(one.destinations, one.receivers, one.publishers, one.window)
        }
        Command::Logins(logins) => scenario::logins(&mut bench, logins.concurrency),
        Command::Idle(idle) => scenario::idle(&mut bench, idle.connections),
        Command::StoppedReader(one) => {
            scenario::stopped_reader(&mut bench, one.receivers, one.deliveries)
        }
        Command::Floor(_) | Command::Compare(_) => unreachable!("it has no common arguments"),
    }?;
    if outcome.unit.is_none() {
        outcome.body_bytes = common.body;
    }
    Ok(outcome)
}

impl Common {
    fn check(&self) -> Result<(), Fault> {
        let wrong = |text: String| Err(Fault::Usage(text));
        if self.body < Stamp::BYTES || self.body > BODY_BYTES_MAX {
            return wrong(format!("--body {}: {} to {BODY_BYTES_MAX}", self.body, Stamp::BYTES));
        }
        if self.duration == 0 {
            return wrong("--duration 0: nothing would be measured".into());
        }
        Ok(())
    }

    fn bench(&self) -> Result<Bench, Fault> {
        let target = Target::parse(&self.url)?;
        let tls = match target.carrier.is_tls() {
            true => Some(tls::config(self.tls_ca.as_deref(), self.tls_resume)?),
            false => None,
        };
        let protocol = protocol_of(&target, self.credentials()?);
        let options = DriverOptions { spins: !self.sleep, tls, body_bytes: self.body };
        let server = match self.server_pid {
            None => None,
            Some(ServerPid::Pid(pid)) => Some(Server::of(pid)?),
            Some(ServerPid::Listener) => Some(Server::listening_on(target.address.port())?),
        };
        let load = Load {
            warmup_ns: self.warmup,
            duration_ns: self.duration,
            drain_ns: self.drain,
            server,
            destination: self.destination.clone(),
            is_quiet: self.quiet,
        };
        let driver = Driver::new(target, protocol, Clock::start(), options)?;
        Ok(Bench::new(driver, load))
    }

    fn credentials(&self) -> Result<Credentials, Fault> {
        let key = |name: &str, development: &str| {
            std::env::var(name).unwrap_or_else(|_| development.into())
        };
        let passcode = match &self.passcode_env {
            Some(name) => Some(std::env::var(name).map_err(|_| {
                Fault::Usage(format!("--passcode-env {name}: no such environment variable"))
            })?),
            None => None,
        };
        Ok(Credentials {
            login: self.login.clone(),
            passcode,
            application_key: key("COM_BROKER_KEY_APPLICATION", "my_app_secret_key"),
            agent_key: key("COM_BROKER_KEY_AGENT", "my_agent_secret_key"),
            service_key: key("COM_BROKER_KEY_SERVICE", "my_service_secret_key"),
            virtual_host: self.vhost.clone(),
        })
    }

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

const BODY_BYTES_MAX: usize = 1 << 20;

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
    let mut page = Page::new(&outcome.scenario, &format!("{}, {}", outcome.target, now()));
    let curves = outcome.latencies.iter().enumerate();
    let curves: Vec<_> = curves
        .map(|(color, series)| Curve { name: series.name, color, latencies: &series.latencies })
        .collect();
    page.legend(curves.iter().map(|curve| (curve.name, curve.color)));
    page.plot("Latency by percentile", &curves);
    page.text(&table::table(outcome));
    page.finish()
}

/// Date and time, for reports.
pub fn now() -> String {
    format!("{} UTC", date_and_minute(since_epoch()))
}

/// Stays on one core, by default the last, which the kernel bothers least.
fn pin(core: Option<&str>) -> Result<(), Fault> {
    if core == Some("none") {
        return Ok(());
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let id = match core {
        None => cores.last(),
        Some(text) => {
            let wanted: usize = text.parse().map_err(|_| Fault::Usage(format!("--core {text}")))?;
            let found = cores.iter().find(|id| id.id == wanted);
            let known =
                found.ok_or_else(|| Fault::Usage(format!("--core {text}: no such core")))?;
            Some(known)
        }
    };
    if let Some(id) = id
        && !core_affinity::set_for_current(*id)
        && core.is_some()
    {
        return Err(Fault::Usage(format!("--core {}: the system refuses", id.id)));
    }
    Ok(())
}

fn time_ns(text: &str) -> Result<u64, String> {
    let time = parse_time_ns(text).ok_or("a time needs a unit: 500ms, 3s")?;
    Ok(time as u64)
}

fn write(path: &Path, octets: &[u8]) -> Result<(), Fault> {
    File::create(path)
        .and_then(|mut file| file.write_all(octets))
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_examples_of_the_help_are_understood() {
        for line in AFTER_HELP.lines().filter(|line| line.contains("com-broker-bench ")) {
            let Some((_, words)) = line.split_once("com-broker-bench ") else { continue };
            if words.starts_with('`') || !line.contains("://127") {
                continue;
            }
            let words = words.replace('\'', "");
            let words = ["com-broker-bench"].into_iter().chain(words.split_whitespace());
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn secrets_are_never_arguments() {
        for command in Arguments::command().get_subcommands() {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let is_file = argument.get_value_names().is_some_and(|names| names == ["FILE"]);
                assert!(is_file || !id.contains("key") && id != "passcode", "{id}");
            }
        }
    }
}
