//! The server: binds the listeners of a [`Config`], runs the loop, and is controlled through a
//! [`Handle`].
//!
//! ```
//! use com_broker::config::{Config, Listener};
//! use com_broker::server::{Outcome, Server};
//! use com_broker::Keys;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keys::new("app-8c1f", ["agent-57ab", "super-c0ff", "service-91d2", "admin-e4a7"])?;
//! let config = Config::builder(keys).listener(Listener::new("127.0.0.1:0".parse()?)).build()?;
//! let running = Server::bind(config)?.spawn()?;
//! println!("clients find it at {}", running.addresses()[0]);
//! running.handle().drain()?;
//! assert_eq!(running.join()?.outcome, Outcome::Drained);
//! # Ok(())
//! # }
//! ```
//!
//! A server does not change its process: it installs no logger (its lines go to that of the `log` crate,
//! if the program has one), and catches signals and raises limits only if asked to, by
//! [`Server::watch_signals`] and [`Server::raise_descriptor_limit`]. Several servers can run in one
//! process; each has a thread, a clock and keys of its own, and needs a directory of its own to export
//! latencies to.

pub(crate) mod certificates;
mod handle;
pub(crate) mod identity;
mod operator;
mod pem;
mod process;
mod report;
#[cfg(test)]
mod scratch;
mod trust;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use self::certificates::CertificateFault;
pub use self::handle::{Handle, ReloadFault};
pub use self::identity::IdentityFault;
pub(crate) use self::operator::environment;
use self::operator::{HeldNow, Letter, Operator};
pub use self::pem::{PemDefect, PemFault};
pub(crate) use self::process::warning_of_descriptors;
pub use self::report::Report;
use crate::broker::Options;
use crate::config::{Config, Listener, Place};
use crate::engine::Engine;
use crate::limits::Limits;
use crate::reactor::{Families, Listening, Reactor, ReactorOptions, SocketOptions};
pub use crate::reactor::{Outcome, PostFault};
use crate::telemetry::{Latencies, probe_directory, try_directory};
use crate::transport::tls::TlsService;

/// A broker that is bound and has read its files, but does not run yet. Clients can connect already, and
/// wait until it runs.
pub struct Server {
    config: Arc<Config>,
    tls: Option<TlsService>,
    reactor: Reactor<Letter>,
    handle: Handle,
    held: HeldNow,
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
}

impl Server {
    /// Binds all listeners and reads all files. Files are made last, when nothing else can fail.
    ///
    /// # Errors
    /// An address, a file or a setting cannot be used; nothing is left behind.
    pub fn bind(config: Config) -> Result<Self, ServeFault> {
        let places = &config.tls_places;
        let checked = config.tls.as_ref().map(|source| identity::check(source, places));
        checked.transpose().map_err(ServeFault::Identity)?;
        let sockets = socket_options(&config);
        sockets.report_refusals().map_err(ServeFault::Loop)?;
        let listeners = bind(&config, &sockets)?;
        let addresses = listeners.iter().map(|one| one.address).collect();
        let names = listeners.iter().map(|one| one.name.clone()).collect();
        if let Some(directory) = &config.latency_directory {
            try_directory(directory).map_err(|error| latency_fault(&config, directory, error))?;
        }
        let tls = config.tls.as_ref().map(|source| identity::load(source, places)).transpose();
        let tls = tls.map_err(ServeFault::Identity)?;
        config.exposures.iter().for_each(identity::warn_of);
        let Limits { accepts_per_turn_max, drain_ms_max, mailbox_letters_max, .. } = config.limits;
        let options = ReactorOptions {
            sockets,
            busy_poll: config.performance.busy_poll,
            accepts_per_turn_max,
            drain_ms_max,
            mailbox_letters_max,
        };
        let (reactor, posting) = Reactor::new(listeners, options).map_err(ServeFault::Loop)?;
        let config = Arc::new(config);
        let held = HeldNow::new(config.held);
        let handle = Handle::new(posting, Arc::clone(&config), held.clone());
        Ok(Self { config, tls, reactor, handle, held, addresses, names })
    }

    /// Catches the signals of the process as the program `com-broker` does: SIGTERM and SIGINT drain, a
    /// second one ends the server at once, SIGHUP reads keys and certificates of a configuration file
    /// again, SIGUSR1 exports latencies.
    ///
    /// They stay caught after the server has ended, without effect. If several servers of a process
    /// watch signals, each gets all of them.
    ///
    /// # Errors
    /// Those of the system.
    pub fn watch_signals(&mut self) -> Result<(), ServeFault> {
        self.reactor.watch_signals(Letter::of_signal).map_err(ServeFault::Loop)
    }

    /// Raises the number of descriptors that the process may open to what `connections_max` needs, or
    /// as far as the system allows, which is logged if it is less; and makes their table as large, which
    /// would hold up clients while it grows.
    pub fn raise_descriptor_limit(&self) {
        process::raise_descriptor_limit(&self.config.limits);
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bound addresses in the order of the listeners, with the ports that the system chose for port
    /// zero.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A handle that controls it while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs in a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(self) -> Result<Running, ServeFault> {
        let (addresses, handle) = (self.addresses.clone(), self.handle.clone());
        let thread = thread::Builder::new().name("com-broker".into());
        let thread = thread.spawn(move || self.run()).map_err(ServeFault::Thread)?;
        Ok(Running { addresses, handle, thread })
    }

    /// Runs in this thread until it is told to stop.
    ///
    /// # Errors
    /// The event loop failed, or its thread cannot be pinned to the configured core.
    pub fn run(self) -> Result<Report, ServeFault> {
        let Self { config, tls, reactor, handle: _, held, addresses, names } = self;
        let options = Options {
            rights: config.rights.clone(),
            virtual_hosts: config.virtual_hosts.clone(),
            dead_letter_queue: config.dead_letter_queue.clone(),
            ..Options::new(config.limits.clone(), config.keys.clone(), Box::new(unguessable))
        };
        let mut engine = Engine::new(options, tls, Latencies::new(reactor.started_at()));
        engine.serve_sample(config.keys_are_development);
        engine.name_listeners(names);
        if let Some(core) = config.performance.core {
            process::pin(core)?;
        }
        for (listener, address) in config.listeners.iter().zip(addresses) {
            log::info!(address:%, listener = listener.name; "listening");
        }
        let mut operator = Operator::new(&config, held);
        let (outcome, elapsed) =
            reactor.run(&mut engine, &mut operator).map_err(ServeFault::Loop)?;
        let report = Report::new(outcome, &engine);
        report.log(&engine);
        if outcome == Outcome::Drained {
            operator.finish(&mut engine.latencies, elapsed);
        }
        Ok(report)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// A broker that runs in a thread of its own.
///
/// Dropping it does not stop the broker, which then runs until a handle or a signal stops it, or the
/// process ends.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    handle: Handle,
    thread: JoinHandle<Result<Report, ServeFault>>,
}

impl Running {
    /// The bound addresses in the order of the listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The handle that controls it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether it has ended, so that [`join`](Self::join) would not wait.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Those of [`Server::run`].
    ///
    /// # Panics
    /// If the broker's thread panicked, with its payload.
    pub fn join(self) -> Result<Report, ServeFault> {
        self.thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

/// Why the broker cannot run.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeFault {
    /// The certificate or its key cannot be used.
    Identity(IdentityFault),
    /// The address of the listener, with its name if it has one, cannot be bound.
    Bind(SocketAddr, Option<String>, io::Error),
    /// Latency files cannot be written to the directory that this place names.
    LatencyDirectory(Place, PathBuf, io::Error),
    /// The thread of the loop cannot be pinned to the configured core.
    Core(usize),
    /// The event loop failed, or cannot be made.
    Loop(io::Error),
    /// The thread cannot be started.
    Thread(io::Error),
}

impl fmt::Display for ServeFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(fault) => fault.fmt(out),
            Self::Bind(address, name, error) => {
                write!(out, "cannot listen on {address}")?;
                if let Some(name) = name {
                    write!(out, " (listener {name:?})")?;
                }
                write!(out, ": {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => out.write_str("; is another broker running?"),
                    io::ErrorKind::PermissionDenied => {
                        out.write_str("; ports below 1024 need privileges")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        out.write_str("; no interface of this machine has the address")
                    }
                    _ => Ok(()),
                }
            }
            Self::LatencyDirectory(place, directory, error) => {
                write!(out, "{place}: {}: {error}", directory.display())
            }
            Self::Core(core) => {
                write!(
                    out,
                    "performance.core: the system does not let the loop stay on core {core}"
                )
            }
            Self::Loop(error) => write!(out, "the event loop failed: {error}"),
            Self::Thread(error) => write!(out, "the broker's thread cannot be started: {error}"),
        }
    }
}

impl std::error::Error for ServeFault {}

/// Checks whether latency files can be written, and leaves nothing behind.
///
/// # Errors
/// They cannot.
pub(crate) fn check_latency_directory(config: &Config) -> Result<(), ServeFault> {
    let Some(directory) = &config.latency_directory else { return Ok(()) };
    probe_directory(directory).map_err(|error| latency_fault(config, directory, error))
}

fn latency_fault(config: &Config, directory: &Path, error: io::Error) -> ServeFault {
    let place = config.latency_place.clone();
    let place = place.unwrap_or_else(|| Place::Setting("latency.directory".into()));
    ServeFault::LatencyDirectory(place, directory.into(), error)
}

fn socket_options(config: &Config) -> SocketOptions {
    let Config { limits, performance, .. } = config;
    SocketOptions {
        keepalive: Duration::from_millis(u64::from(limits.tcp_keepalive_ms)),
        user_timeout: Duration::from_millis(u64::from(limits.tcp_user_timeout_ms)),
        busy_poll_us: performance.socket_busy_poll_us,
        send_buffer_bytes: performance.socket_send_buffer_bytes,
        receive_buffer_bytes: performance.socket_receive_buffer_bytes,
    }
}

fn bind(config: &Config, options: &SocketOptions) -> Result<Vec<Listening>, ServeFault> {
    let bind_one = |listener: &Listener| {
        let Listener { name, address, policy } = listener;
        let families = families(*address, &config.listeners);
        Listening::bind(*address, families, name.as_deref(), *policy, options)
            .map_err(|error| ServeFault::Bind(*address, name.clone(), error))
    };
    config.listeners.iter().map(bind_one).collect()
}

/// The families that `[::]` stands for: both, unless another listener has the port for IPv4.
fn families(address: SocketAddr, listeners: &[Listener]) -> Families {
    let others = listeners.iter().map(|one| one.address);
    let has_port_for_ipv4 =
        |one: SocketAddr| one.is_ipv4() && one.port() == address.port() && one.port() != 0;
    if others.into_iter().any(has_port_for_ipv4) { Families::Ipv6 } else { Families::Both }
}

/// Random bits from the system, without which session ids could be guessed.
fn unguessable() -> u128 {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u128::from_ne_bytes(bytes),
        Err(error) => panic!("the system gives no random bits: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::ListenerPolicy;

    #[test]
    fn the_unspecified_address_is_ipv6_only_if_another_listener_has_its_port() {
        let listeners = |addresses: &[&str]| -> Vec<_> {
            let listener = |address: &&str| Listener {
                name: None,
                address: address.parse().unwrap(),
                policy: ListenerPolicy::default(),
            };
            addresses.iter().map(listener).collect()
        };
        let all = "[::]:6661".parse().unwrap();
        for (others, expected) in [
            (&["[::]:6661"][..], Families::Both),
            (&["[::]:6661", "0.0.0.0:6662", "[::1]:6661"], Families::Both),
            (&["[::]:6661", "0.0.0.0:6661"], Families::Ipv6),
            (&["127.0.0.1:6661", "[::]:6661"], Families::Ipv6),
        ] {
            assert_eq!(families(all, &listeners(others)), expected, "{others:?}");
        }
        let any_port = "[::]:0".parse().unwrap();
        assert_eq!(families(any_port, &listeners(&["[::]:0", "0.0.0.0:0"])), Families::Both);
    }
}
