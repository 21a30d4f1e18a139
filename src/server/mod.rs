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
use crate::logger::LogFormat;
use crate::reactor::{
    Families, Listening, Outcome, Owner, Reactor, ReactorOptions, SocketOptions, TcpSocket,
};
use crate::telemetry::{Exporter, Latencies, try_directory};

/// A broker that is bound and has read all that it needs, and does not run yet.
pub struct Prepared {
    config: Config,
    tls: Option<Arc<ServerConfig>>,
    reactor: Reactor,
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
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
        let names = listeners.iter().map(|one| one.name.clone()).collect();
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
        Ok(Self { config, tls, reactor, addresses, names })
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
        let Self { config, tls, mut reactor, addresses, names } = self;
        let options = Options {
            rights: config.rights.clone(),
            virtual_hosts: config.virtual_hosts.clone(),
            dead_letter_queue: config.dead_letter_queue.clone(),
            ..Options::new(config.limits.clone(), config.keys.clone(), Box::new(unguessable))
        };
        let mut engine = Engine::new(options, tls, Latencies::new(reactor.started_at()));
        engine.serve_sample(config.keys_are_development);
        engine.name_listeners(names);
        let is_for_programs = config.log.format == LogFormat::Json;
        let exporter = Exporter::new(config.latency_directory.clone(), is_for_programs);
        let held = config.held;
        let mut owner = Operator { config: &config, environment, exporter, held };
        if let Some(core) = config.performance.core {
            pin(core)?;
        }
        for (listener, address) in config.listeners.iter().zip(addresses) {
            match &listener.name {
                Some(name) => log::info!("listening address={address} listener={name:?}"),
                None => log::info!("listening address={address}"),
            }
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
    /// A listener, here with its name if it has one, cannot be bound.
    Bind(SocketAddr, Option<String>, io::Error),
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
            Self::Bind(address, name, error) => {
                write!(out, "cannot listen on {address}")?;
                if let Some(name) = name {
                    write!(out, " (listener {name:?})")?;
                }
                write!(out, ": {error}")?;
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
            Err(fault) => log::error!("not reloaded, nothing changed fault={fault:?}"),
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
        let crate::config::Listener { name, address, policy } = listener;
        let families = families(*address, &config.listeners);
        Listening::bind(*address, families, name.as_deref(), *policy, options)
            .map_err(|error| ServeFault::Bind(*address, name.clone(), error))
    };
    config.listeners.iter().map(bind_one).collect()
}

/// `[::]` is all addresses of both families, unless another listener has its port for IPv4.
fn families(address: SocketAddr, listeners: &[crate::config::Listener]) -> Families {
    let others = listeners.iter().map(|one| one.address);
    let has_port_for_ipv4 =
        |one: SocketAddr| one.is_ipv4() && one.port() == address.port() && one.port() != 0;
    if others.into_iter().any(has_port_for_ipv4) { Families::Ipv6 } else { Families::Both }
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
            "the system allows fewer descriptors than connections_max needs, ulimit -n or \
             LimitNOFILE raises that allowed={allowed} needed={wanted} connections_max={}",
            limits.connections_max
        ),
        Ok(_) => {}
        Err(error) => {
            let error = error.to_string();
            log::warn!("the number of descriptors cannot be raised error={error:?}");
        }
    }
}

/// Listeners, the poll, signals, logs, files that are exported.
const DESCRIPTORS_OF_OUR_OWN: u64 = 64;

/// Tells how the connections ended, and what was counted.
fn report(outcome: Outcome, engine: &Engine<TcpSocket>) {
    // Lines about single connections may fill the way to the log: these shall not be dropped.
    log::logger().flush();
    if outcome == Outcome::Abandoned {
        log::warn!("left at once, at a second signal");
    }
    let (mut connections, mut connections_cut) = (0, 0);
    for sum in engine.drain_sums() {
        connections += sum.connections;
        if sum.is_cut {
            connections_cut += sum.connections;
            log::warn!("cut before all was sent to them {pairs}", pairs = sum);
        } else {
            log::info!("closed in the drain {pairs}", pairs = sum);
        }
    }
    if connections_cut == 0 {
        log::info!("drained connections={connections}");
    } else {
        let connections = connections - connections_cut;
        log::warn!("drained in part connections={connections} connections_cut={connections_cut}");
    }
    log::info!("totals {pairs}", pairs = engine.broker().counters);
}

/// Bits from the system. Without them no session could be told from a forged one.
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
    fn all_addresses_are_those_of_ipv6_where_another_listener_has_the_port() {
        let listeners = |addresses: &[&str]| -> Vec<_> {
            let listener = |address: &&str| crate::config::Listener {
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
