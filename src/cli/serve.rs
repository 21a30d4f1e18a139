//! `com-broker serve`: resolves the configuration, prints what is for development only, runs the broker.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{CliFault, allocator, print};
use crate::config::{Config, ConfigFault, ConfigFile, Overrides, TlsSource, check_key_variables};
use crate::logger::{LogFormat, LogLevel, Logger};
use crate::server::{Outcome, Server, environment};
use crate::transport::{Protocols, TlsMode};

/// `com-broker serve` and `com-broker check`
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Keys come from the file, from files that it names, or from the environment, never from arguments:
  COM_BROKER_KEY_APPLICATION, COM_BROKER_KEY_AGENT, COM_BROKER_KEY_SUPER_AGENT,
  COM_BROKER_KEY_SERVICE, COM_BROKER_KEY_ADMIN

Signals: SIGTERM and SIGINT drain and exit, a second one exits at once; SIGHUP reads keys and
certificates again; SIGUSR1 exports latency histograms and logs counters and counted memory.

Examples:
  com-broker serve --dev
  com-broker serve --config /etc/com-broker/broker.toml
  com-broker serve --listen 127.0.0.1:7000 --log-level debug")]
pub struct ServeArguments {
    /// Configuration file, TOML; everything has a default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Development keys and certificates; refused unless all listeners are on loopback addresses
    #[arg(long)]
    pub dev: bool,
    /// Address to listen on, IP:port, all protocols, TLS optional; replaces all configured ones
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// PEM file with the certificate chain
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Where to export latency histograms
    #[arg(long, value_name = "DIRECTORY")]
    pub latency_directory: Option<PathBuf>,
    /// The form of a log line
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The least important lines that are logged
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
}

impl ServeArguments {
    /// Resolves these arguments, the file and the environment into a configuration.
    ///
    /// # Errors
    /// A setting breaks a rule; the fault names the first one.
    pub fn resolve(&self) -> Result<Config, ConfigFault> {
        check_key_variables(super::variable_names())?;
        let load = |path: &PathBuf| ConfigFile::load(path).map(|file| (path.clone(), file));
        let file = self.config.as_ref().map(load).transpose()?;
        Config::resolve(file, &self.overrides(), &environment)
    }

    /// The settings that override the file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            development: self.dev,
            listen: self.listen.clone(),
            tls_certificate: self.tls_certificate.clone(),
            tls_key: self.tls_key.clone(),
            latency_directory: self.latency_directory.clone(),
            log_format: self.log_format,
            log_level: self.log_level,
        }
    }
}

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CliFault> {
    allocator::settle();
    let config = arguments.resolve().map_err(CliFault::Config)?;
    let _flushes_at_the_end = Logger::install(config.log).map_err(CliFault::Log)?;
    let mut server = Server::bind(config).map_err(CliFault::Serve)?;
    server.watch_signals().map_err(CliFault::Serve)?;
    server.raise_descriptor_limit();
    if server.config().is_development() {
        let program = env::args().next();
        let program = program.as_deref().unwrap_or("com-broker");
        print(&banner(server.config(), server.addresses(), program))?;
    }
    match server.run().map_err(CliFault::Serve)?.outcome {
        Outcome::Drained => Ok(()),
        Outcome::Abandoned => Err(CliFault::Abandoned),
    }
}

/// First steps with a broker in development mode, as commands to paste. `program` is the name by which it
/// was started.
pub(super) fn banner(config: &Config, addresses: &[SocketAddr], program: &str) -> String {
    let mut lines = vec!["com-broker is in DEVELOPMENT mode.".to_owned(), String::new()];
    if config.keys_are_development {
        lines.push("  keys          the development keys, which everybody knows".into());
    }
    if let Some(TlsSource::Development { directory }) = &config.tls {
        let authority = directory.join("ca.pem");
        lines.push(format!(
            "  certificate   a development one; clients trust it with {}",
            authority.display()
        ));
    }
    for address in addresses {
        lines.push(format!("  listening on  {address}"));
    }
    lines.extend(sample_page(config, addresses));
    lines.push(next_steps(config, addresses, program));
    lines.join("\n")
}

/// The URL of the sample page, if it is served. The page has the development keys.
fn sample_page(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let mut listeners = config.listeners.iter().zip(addresses);
    let (listener, address) = listeners.find(|(listener, _)| {
        let Protocols { http, ws, .. } = listener.policy.protocols;
        config.keys_are_development && http && ws
    })?;
    let scheme = if listener.policy.tls == TlsMode::Required { "https" } else { "http" };
    Some(format!("  sample page   {scheme}://{address}/"))
}

fn next_steps(config: &Config, addresses: &[SocketAddr], program: &str) -> String {
    let Some(broker) = reach(config, addresses) else { return String::new() };
    let keys = if config.keys_are_development {
        ""
    } else {
        ", with COM_BROKER_KEY_APPLICATION and\nCOM_BROKER_KEY_AGENT in their environment"
    };
    format!(
        "
Next, in two other terminals{keys}:

  {program} watch{broker} --login ana
  {program} send{broker} --login bob --to /agent/ana \"hello\"

For keys and certificates of your own:

  {program} config --default > broker.toml

"
    )
}

/// The arguments with which `watch` and `send` reach the broker; `None` if no listener serves them.
fn reach(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let default = SocketAddr::from(([127, 0, 0, 1], DEFAULT_CLIENT_PORT));
    let mut reached = config
        .listeners
        .iter()
        .zip(addresses)
        .filter_map(|(listener, address)| Some((listener.client_scheme()?, *address)));
    let first = reached.next()?;
    if std::iter::once(first).chain(reached).any(|one| one == ("tcp", default)) {
        return Some(String::new());
    }
    let (scheme, address) = first;
    let authority = match &config.tls {
        Some(TlsSource::Development { directory }) if matches!(scheme, "tls" | "wss") => {
            format!(" --ca {}", directory.join("ca.pem").display())
        }
        _ => String::new(),
    };
    Some(format!(" --url {scheme}://{address}{authority}"))
}

/// The port that `watch` and `send` connect to by default.
const DEFAULT_CLIENT_PORT: u16 = 6662;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_banner_names_what_is_for_development() {
        let config = Config::resolve(None, &Overrides::default(), &|_| None).unwrap();
        let addresses: Vec<_> = config.listeners.iter().map(|one| one.address).collect();
        let banner = banner(&config, &addresses, "target/release/com-broker");
        for expected in [
            "DEVELOPMENT",
            "development keys",
            "certs/ca.pem",
            "127.0.0.1:6661",
            "127.0.0.1:6662",
            "  sample page   http://127.0.0.1:6661/\n",
            "  target/release/com-broker watch --login ana\n",
            "com-broker send --login bob --to /agent/ana \"hello\"\n",
        ] {
            assert!(banner.contains(expected), "{banner}");
        }
        assert!(!banner.contains("secret_key"));
    }

    #[test]
    fn the_next_steps_reach_a_listener_that_serves_them() {
        for (lines, expected) in [
            ("", Some("watch --url tcp://127.0.0.1:7000 --login ana")),
            ("tls = \"off\"", Some("watch --url tcp://127.0.0.1:7000 --login ana")),
            (
                "tls = \"required\"",
                Some("watch --url tls://127.0.0.1:7000 --ca certs/ca.pem --login ana"),
            ),
            ("protocols = [\"ws\"]", Some("watch --url ws://127.0.0.1:7000 --login ana")),
            (
                "protocols = [\"ws\", \"classic\"]\ntls = \"required\"",
                Some("watch --url wss://127.0.0.1:7000 --ca certs/ca.pem --login ana"),
            ),
            ("protocols = [\"classic\", \"http\"]", None),
        ] {
            let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{lines}\n");
            let file = ConfigFile::parse(Path::new("broker.toml"), &text).unwrap();
            let file = Some((PathBuf::from("broker.toml"), file));
            let config = Config::resolve(file, &Overrides::default(), &|_| None).unwrap();
            let banner = banner(&config, &["127.0.0.1:7000".parse().unwrap()], "com-broker");
            assert!(banner.contains("127.0.0.1:7000"), "{banner}");
            assert_eq!(banner.contains(" watch "), expected.is_some(), "{banner}");
            assert!(expected.is_none_or(|line| banner.contains(line)), "{lines}\n{banner}");
        }
    }

    #[test]
    fn the_banner_has_the_sample_page_if_it_is_served() {
        let page = |lines: &str, keys: Option<&str>| {
            let text = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{lines}\n");
            let file = ConfigFile::parse(Path::new("broker.toml"), &text).unwrap();
            let file = Some((PathBuf::from("broker.toml"), file));
            let environment = |name: &str| keys.map(|key| format!("{key}-{name}"));
            let config = Config::resolve(file, &Overrides::default(), &environment).unwrap();
            sample_page(&config, &["127.0.0.1:7000".parse().unwrap()])
        };
        let expected = |scheme| Some(format!("  sample page   {scheme}://127.0.0.1:7000/"));
        assert_eq!(page("", None), expected("http"));
        assert_eq!(page("tls = \"required\"", None), expected("https"));
        assert_eq!(page("protocols = [\"classic\", \"http\"]", None), None);
        assert_eq!(page("", Some("key")), None, "with own keys");
    }
}
