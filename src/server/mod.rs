//! The composition root: binds, builds, runs and drains.

pub mod certificates;
pub mod identity;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use core_affinity::CoreId;
use rustls::ServerConfig;

use self::identity::IdentityFault;
use crate::broker::Options;
use crate::config::{Config, Environment, Held};
use crate::engine::Engine;
use crate::limits::Limits;
use crate::reactor::{
    Listening, Outcome, Owner, Reactor, ReactorOptions, SocketOptions, TcpSocket,
};
use crate::telemetry::{Exporter, Latencies, try_directory};

/// A broker that is bound and has read all that it needs, and does not run yet.
pub struct Prepared {
    config: Config,
    tls: Option<Arc<ServerConfig>>,
    reactor: Reactor,
    addresses: Vec<SocketAddr>,
}

impl Prepared {
    /// Binds and reads everything. What a start that fails would leave behind comes last.
    ///
    /// # Errors
    /// Names what stands in the way; nothing is left of the attempt.
    pub fn new(config: Config) -> Result<Self, ServeFault> {
        let places = &config.tls_places;
        let checked = config.tls.as_ref().map(|source| identity::check(source, places));
        checked.transpose().map_err(ServeFault::Identity)?;
        let sockets = socket_options(&config);
        sockets.report_refusals().map_err(ServeFault::Loop)?;
        let listeners = bind(&config, &sockets)?;
        let addresses = listeners.iter().map(|one| one.address).collect();
        if let Some(directory) = &config.latency_directory {
            try_directory(directory)
                .map_err(|error| ServeFault::LatencyDirectory(directory.clone(), error))?;
        }
        let tls = config.tls.as_ref().map(|source| identity::load(source, places)).transpose();
        let tls = tls.map_err(ServeFault::Identity)?;
        config.exposures.iter().for_each(identity::warn_of);
        raise_descriptor_limit(&config);
        let Limits { accepts_per_turn_max, drain_ms_max, .. } = config.limits;
        let options = ReactorOptions {
            sockets,
            busy_poll: config.performance.busy_poll,
            accepts_per_turn_max,
            drain_ms_max,
        };
        let reactor = Reactor::new(listeners, options).map_err(ServeFault::Loop)?;
        Ok(Self { config, tls, reactor, addresses })
    }

    /// What it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The addresses that are bound, with their ports where any was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// Names what the loop cannot go on without.
    pub fn run(self, environment: Environment<'_>) -> Result<(), ServeFault> {
        let Self { config, tls, mut reactor, addresses } = self;
        let options = Options {
            rights: config.rights.clone(),
            virtual_hosts: config.virtual_hosts.clone(),
            dead_letter_queue: config.dead_letter_queue.clone(),
            ..Options::new(config.limits.clone(), config.keys.clone(), Box::new(unguessable))
        };
        let mut engine = Engine::new(options, tls, Latencies::new(reactor.started_at()));
        engine.serve_sample(config.keys_are_development);
        let exporter = Exporter::new(config.latency_directory.clone());
        let held = config.held;
        let mut owner = Operator { config: &config, environment, exporter, held };
        if let Some(core) = config.performance.core {
            pin(core)?;
        }
        for address in addresses {
            log::info!("listening address={address}");
        }
        let outcome = reactor.run(&mut engine, &mut owner).map_err(ServeFault::Loop)?;
        report(outcome, &engine);
        if outcome == Outcome::Abandoned {
            return Err(ServeFault::Abandoned);
        }
        owner.exporter.finish(&mut engine.latencies, reactor.elapsed());
        Ok(())
    }
}

/// Why the broker does not run.
#[derive(Debug)]
pub enum ServeFault {
    /// The certificate or its key cannot be used.
    Identity(IdentityFault),
    /// A listener cannot be bound.
    Bind(SocketAddr, io::Error),
    /// Latency files cannot be written into the directory.
    LatencyDirectory(PathBuf, io::Error),
    /// The thread of the loop cannot stay on the core that was chosen.
    Core(usize),
    /// The loop cannot be made, or cannot go on.
    Loop(io::Error),
    /// A second signal said to leave before all clients were told.
    Abandoned,
}

impl fmt::Display for ServeFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(fault) => fault.fmt(out),
            Self::Bind(address, error) => {
                write!(out, "cannot listen on {address}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => out.write_str("; is another broker running?"),
                    io::ErrorKind::PermissionDenied => {
                        out.write_str("; ports below 1024 need rights")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        out.write_str("; no interface of this machine has the address")
                    }
                    _ => Ok(()),
                }
            }
            Self::LatencyDirectory(directory, error) => {
                write!(out, "latency directory {}: {error}", directory.display())
            }
            Self::Core(core) => {
                write!(
                    out,
                    "performance.core: the system does not let the loop stay on core {core}"
                )
            }
            Self::Loop(error) => write!(out, "the event loop cannot go on: {error}"),
            Self::Abandoned => out.write_str("left at once, at a second signal"),
        }
    }
}

impl std::error::Error for ServeFault {}

/// Does what signals ask for.
struct Operator<'a> {
    config: &'a Config,
    environment: Environment<'a>,
    exporter: Exporter,
    /// What the next reload does not give up.
    held: Held,
}

impl Operator<'_> {
    fn try_reload(&mut self, engine: &mut Engine<TcpSocket>) -> Result<(), String> {
        let secrets = self.config.reload_secrets(self.environment, self.held);
        let secrets = secrets.map_err(|fault| fault.to_string())?;
        let tls = secrets.tls.as_ref().map(|source| identity::load(source, &secrets.tls_places));
        let tls = tls.transpose().map_err(|fault| fault.to_string())?;
        engine.reload(secrets.keys, tls);
        engine.serve_sample(secrets.keys_are_development);
        secrets.exposures.iter().for_each(identity::warn_of);
        self.held = secrets.held;
        Ok(())
    }
}

impl Owner for Operator<'_> {
    fn reload(&mut self, engine: &mut Engine<TcpSocket>) {
        match self.try_reload(engine) {
            Ok(()) => log::info!("reloaded keys and certificates"),
            Err(fault) => log::error!("not reloaded, nothing changed: fault={fault:?}"),
        }
    }

    fn export(&mut self, latencies: &mut Latencies, elapsed: Duration) {
        self.exporter.begin_export(latencies, elapsed);
    }
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
    let bind_one = |listener: &crate::config::Listener| {
        Listening::bind(listener.address, listener.policy, options)
            .map_err(|error| ServeFault::Bind(listener.address, error))
    };
    config.listeners.iter().map(bind_one).collect()
}

/// Keeps this thread, which is the loop's, on a core. The log's threads go where this one could before.
fn pin(core: usize) -> Result<(), ServeFault> {
    let is_pinned = core_affinity::set_for_current(CoreId { id: core });
    is_pinned.then_some(()).ok_or(ServeFault::Core(core))
}

/// Each connection needs a descriptor; many systems start programs with a thousand.
fn raise_descriptor_limit(config: &Config) {
    let limits = &config.limits;
    let connections = u64::from(limits.connections_max) + u64::from(limits.refusals_max);
    let wanted = connections + DESCRIPTORS_OF_OUR_OWN;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(allowed) if allowed < wanted => log::warn!(
            "the system allows {allowed} descriptors, fewer than connections_max={} needs: \
             raise it with ulimit -n or LimitNOFILE=",
            limits.connections_max
        ),
        Ok(_) => {}
        Err(error) => log::warn!("the number of descriptors cannot be raised: {error}"),
    }
}

/// Listeners, the poll, signals, logs, files that are exported.
const DESCRIPTORS_OF_OUR_OWN: u64 = 64;

fn report(outcome: Outcome, engine: &Engine<TcpSocket>) {
    match outcome {
        Outcome::Drained => log::info!("drained"),
        Outcome::Expired(left) => {
            log::warn!("drained: connections_cut={left} did not take their last bytes in time");
        }
        Outcome::Abandoned => log::warn!("left at once, at a second signal"),
    }
    log::info!("totals {}", engine.broker().counters);
}

/// Bits from the system. Without them no session could be told from a forged one.
fn unguessable() -> u128 {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u128::from_ne_bytes(bytes),
        Err(error) => panic!("the system gives no random bits: {error}"),
    }
}
