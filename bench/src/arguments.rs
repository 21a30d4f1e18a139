//! The command line, which [`Arguments`] mirrors.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::threshold::{Threshold, parse_time_ns};

/// Measures message brokers: latency, fan-out, and what they cost in CPU.
///
/// One process on one core, thousands of connections, none of which blocks. Every message carries
/// its number and the time at which it was meant to be sent: loss, duplicates and order are checked
/// as messages arrive, and a server that stalls is charged for the messages that it kept waiting.
#[derive(Debug, Parser)]
#[command(name = "com-broker-bench", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// The command.
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

/// The commands.
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
    /// Be the relay that only moves bytes: what this machine's kernel allows at best
    Floor(Floor),
    /// Run a matrix of cases and targets from a file, interleaved and repeated
    Compare(Compare),
}

/// `com-broker-bench round-trip`
#[derive(Clone, Debug, Args)]
pub struct RoundTrip {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `com-broker-bench rate`
#[derive(Clone, Debug, Args)]
pub struct Rate {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Messages a second, all pairs together
    #[arg(long, default_value_t = 10_000.0, value_name = "N")]
    pub(crate) rate: f64,
    /// Pairs of a publisher and a receiver that take turns
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) pairs: usize,
}

/// `com-broker-bench fan-out`
#[derive(Clone, Debug, Args)]
pub struct FanOut {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Receivers of every message
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) receivers: usize,
    /// Deliveries a second, all receivers together; without it, as many as the server manages
    #[arg(long, value_name = "N")]
    pub(crate) deliveries: Option<f64>,
    /// Messages under way, where no rate is given [default: 16384 deliveries, 16 to 1024 messages]
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<u32>,
}

/// `com-broker-bench pairs`
#[derive(Clone, Debug, Args)]
pub struct Pairs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Pairs of a publisher and a receiver
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) pairs: usize,
    /// Messages under way for each pair [default: 1 MiB of bodies, 16 to 1024]
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<u32>,
}

/// `com-broker-bench destinations`
#[derive(Clone, Debug, Args)]
pub struct Destinations {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Destinations, each with one subscription
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) destinations: usize,
    /// Connections that share the subscriptions
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub(crate) receivers: usize,
    /// Connections that send
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(crate) publishers: usize,
    /// Messages under way, all together [default: 1 MiB of bodies, 16 to 1024]
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<u32>,
}

/// `com-broker-bench logins`
#[derive(Clone, Debug, Args)]
pub struct Logins {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Connections that are logging in at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) concurrency: usize,
}

/// `com-broker-bench idle`
#[derive(Clone, Debug, Args)]
pub struct Idle {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Connections that log in and do nothing
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) connections: usize,
}

/// `com-broker-bench stopped-reader`
#[derive(Clone, Debug, Args)]
pub struct StoppedReader {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Receivers that go on reading
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) receivers: usize,
    /// Deliveries a second, all receivers together
    #[arg(long, default_value_t = 100_000.0, value_name = "N")]
    pub(crate) deliveries: f64,
}

/// `com-broker-bench floor`
#[derive(Clone, Debug, Args)]
pub struct Floor {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:7000", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Never sleep: poll without end
    #[arg(long)]
    pub(crate) spin: bool,
    /// Take TLS connections only, with this certificate and those above it, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The core to run on [default: any]
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<usize>,
}

/// `com-broker-bench compare`
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// What to run against what: TOML, see the README of this program
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// How often each case is run against each target [default: what the file says, or 3]
    #[arg(long, value_name = "N")]
    pub(crate) repeat: Option<usize>,
    /// Begin no further repetition that would not end within this time
    #[arg(long, value_parser = time_ns, value_name = "TIME")]
    pub(crate) time_max: Option<u64>,
    /// Run only these cases: names with commas between them, in which * stands for anything
    #[arg(long, value_name = "NAMES")]
    pub(crate) only: Option<String>,
    /// Run only against these targets: names as with --only
    #[arg(long, value_name = "NAMES")]
    pub(crate) targets: Option<String>,
    /// End with exit code 3 if a bar is missed or could not be measured
    #[arg(long)]
    pub(crate) fail_if_missed: bool,
    /// Write the tables to a file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write every run to a file: JSON, one object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a report with plots to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// The core to run on, or "none" [default: the last]
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<String>,
}

/// Arguments of all scenarios.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The server: protocol, transport and address
    pub(crate) url: String,
    /// Size of every body
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    pub(crate) body: usize,
    /// How long to measure
    #[arg(long, default_value = "3s", value_parser = time_ns, value_name = "TIME")]
    pub(crate) duration: u64,
    /// How long to run before that
    #[arg(long, default_value = "500ms", value_parser = time_ns, value_name = "TIME")]
    pub(crate) warmup: u64,
    /// How long to wait, afterwards, for messages that are under way
    #[arg(long, default_value = "5s", value_parser = time_ns, value_name = "TIME")]
    pub(crate) drain: u64,
    /// The server's process: its CPU time per delivery and its memory are reported
    ///
    /// "auto" is the one that listens, on this machine, on the port of the URL.
    #[arg(long, value_name = "PID", value_parser = server_pid)]
    pub(crate) server_pid: Option<ServerPid>,
    /// Run a floor relay, too, and give the results as a ratio to it; on this core, if one is given
    #[arg(long, value_name = "CORE", num_args = 0..=1, default_missing_value = "none")]
    pub(crate) with_floor: Option<String>,
    /// Repetitions, interleaved, where a floor relay runs, too
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub repeat: usize,

    /// What destinations are called; {} is replaced by a name [default: as the protocol has it]
    #[arg(long, value_name = "PATTERN", help_heading = "Conventions of the server")]
    pub(crate) destination: Option<String>,
    /// The login of every connection; {} is replaced by a name of its own [default: {}]
    #[arg(long, value_name = "PATTERN", help_heading = "Conventions of the server")]
    pub(crate) login: Option<String>,
    /// The environment variable that holds the passcode or password
    ///
    /// Without it, com-broker's keys are taken from COM_BROKER_KEY_APPLICATION,
    /// COM_BROKER_KEY_AGENT and COM_BROKER_KEY_SERVICE, or are those of its development.
    #[arg(long, value_name = "NAME", help_heading = "Conventions of the server")]
    pub(crate) passcode_env: Option<String>,
    /// The virtual host, STOMP's header `host` [default: the URL's]
    #[arg(long, value_name = "NAME", help_heading = "Conventions of the server")]
    pub(crate) vhost: Option<String>,
    /// The authorities to trust, PEM [default: every certificate is accepted]
    #[arg(long, value_name = "FILE", help_heading = "Conventions of the server")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Resume TLS sessions [default: a whole handshake for every connection]
    #[arg(long, help_heading = "Conventions of the server")]
    pub(crate) tls_resume: bool,

    /// Sleep when there is nothing to do, instead of polling without end
    #[arg(long, help_heading = "This program")]
    pub(crate) sleep: bool,
    /// The core to run on, or "none" [default: the last]
    #[arg(long, value_name = "N", help_heading = "This program")]
    pub(crate) core: Option<String>,
    /// Show no progress
    #[arg(long, help_heading = "This program")]
    pub(crate) quiet: bool,

    /// Append the result to a file: JSON, one object a line
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub(crate) json: Option<PathBuf>,
    /// Write the histograms to a file: an HDR histogram log
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub(crate) hdr: Option<PathBuf>,
    /// Write a report with plots to a file: HTML that needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub(crate) html: Option<PathBuf>,
    /// End with exit code 3 if this is true, such as p99>500us; repeatable
    ///
    /// Of p50, p90, p99, p999, max and cpu (the server's, per delivery) with a time; loss and rate
    /// (per second) with a number.
    #[arg(long, value_name = "BOUND", help_heading = "Reports")]
    pub(crate) fail_if: Vec<Threshold>,
}

/// The process whose CPU time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerPid {
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

    /// The arguments of the scenario, if the command is one.
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

fn time_ns(text: &str) -> Result<u64, String> {
    let time = parse_time_ns(text).ok_or("a time needs a unit: 500ms, 3s")?;
    Ok(time as u64)
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
    fn the_examples_of_the_help_can_be_parsed() {
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
