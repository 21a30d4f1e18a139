//! The operator of a server's loop: handles its letters.

use std::env;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::kv::Value;

use super::identity;
use crate::broker::{Keys, Moment};
use crate::config::{Config, Held, Unapplied};
use crate::engine::Engine;
use crate::logger::LogFormat;
use crate::reactor::{Owner, Signal, TcpSocket, Verdict};
use crate::telemetry::{Exporter, Latencies};
use crate::transport::tls::TlsService;

/// A request to a server.
pub(super) enum Letter {
    /// Drain, within `drain_ms_max`. No effect if it is draining.
    Drain,
    /// End at once.
    Leave,
    /// A signal to stop: drain, or end at once if it is draining.
    Stop(Signal),
    /// Use these secrets.
    Reload(Box<Renewal>),
    /// Read the secrets again from the file and the environment.
    Reread,
    /// Export the latencies.
    ExportLatencies,
}

impl Letter {
    pub(super) fn of_signal(signal: Signal) -> Self {
        match signal {
            Signal::Terminate | Signal::Interrupt => Self::Stop(signal),
            Signal::HangUp => Self::Reread,
            Signal::User1 => Self::ExportLatencies,
        }
    }
}

/// Secrets that have been read and checked.
pub(super) struct Renewal {
    pub(super) keys: Keys,
    pub(super) keys_are_development: bool,
    pub(super) tls: Option<TlsService>,
    pub(super) unapplied: Unapplied,
}

/// What the next reload must not give up, shared by the loop and all handles: secrets are checked and
/// noted where they are accepted, so that two reloads in a row cannot go back to the development keys.
#[derive(Clone, Debug)]
pub(super) struct HeldNow(Arc<Mutex<Held>>);

impl HeldNow {
    pub(super) fn new(held: Held) -> Self {
        Self(Arc::new(Mutex::new(held)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        // Flags are whole, whatever a thread was doing that panicked with the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner of the loop.
pub(super) struct Operator<'a> {
    config: &'a Config,
    exporter: Exporter,
    held: HeldNow,
    is_draining: bool,
}

impl<'a> Operator<'a> {
    pub(super) fn new(config: &'a Config, held: HeldNow) -> Self {
        let is_for_programs = config.log.format == LogFormat::Json;
        let exporter = Exporter::new(config.latency_directory.clone(), is_for_programs);
        Self { config, exporter, held, is_draining: false }
    }

    /// Exports latencies at the end.
    pub(super) fn finish(self, latencies: &mut Latencies, elapsed: Duration) {
        self.exporter.finish(latencies, elapsed);
    }

    fn begin_drain(&mut self, signal: Option<Signal>, engine: &Engine<TcpSocket>) -> Verdict {
        if self.is_draining {
            return Verdict::Continue;
        }
        self.is_draining = true;
        let (connections, drain_ms_max) = (engine.len(), self.config.limits.drain_ms_max);
        let signal = signal.as_ref().map(Value::from_display);
        log::info!(signal, connections, drain_ms_max; "draining");
        Verdict::Drain
    }

    /// Reads the secrets again; `None` where the configuration did not come from a file.
    fn reread(&self) -> Option<Result<Renewal, String>> {
        let held = *self.held.lock();
        let secrets = self.config.reload_secrets(&environment, held)?;
        let renew = || {
            let secrets = secrets.map_err(|fault| fault.to_string())?;
            let tls =
                secrets.tls.as_ref().map(|source| identity::load(source, &secrets.tls_places));
            let tls = tls.transpose().map_err(|fault| fault.to_string())?;
            secrets.exposures.iter().for_each(identity::warn_of);
            self.held.lock().add(secrets.held);
            Ok(Renewal {
                keys: secrets.keys,
                keys_are_development: secrets.keys_are_development,
                tls,
                unapplied: secrets.unapplied,
            })
        };
        Some(renew())
    }

    fn renew(&self, renewal: Renewal, engine: &mut Engine<TcpSocket>) {
        engine.reload(renewal.keys, renewal.tls);
        engine.serve_sample(renewal.keys_are_development);
        log::info!("reloaded keys and certificates");
        match renewal.unapplied {
            Unapplied::Nothing => {}
            Unapplied::Tables(tables) => {
                let tables = tables.join(",");
                log::warn!(
                    tables:%; "changed in the configuration, and left as it is until a restart"
                );
            }
            Unapplied::Refused(fault) => {
                let fault = fault.to_string();
                log::warn!(fault; "a restart with this configuration would fail");
            }
        }
    }
}

impl Owner for Operator<'_> {
    type Letter = Letter;

    fn handle(&mut self, letter: Letter, engine: &mut Engine<TcpSocket>, now: Moment) -> Verdict {
        match letter {
            Letter::Drain => return self.begin_drain(None, engine),
            Letter::Stop(signal) if !self.is_draining => {
                return self.begin_drain(Some(signal), engine);
            }
            Letter::Stop(_) => {
                log::warn!("left at once, at a second signal");
                return Verdict::Stop;
            }
            Letter::Leave => {
                log::warn!("left at once, as the program asked");
                return Verdict::Stop;
            }
            Letter::Reload(renewal) => self.renew(*renewal, engine),
            Letter::Reread => match self.reread() {
                Some(Ok(renewal)) => self.renew(renewal, engine),
                Some(Err(fault)) => log::error!(fault; "not reloaded, nothing changed"),
                None => log::warn!("not reloaded, the configuration was made by the program"),
            },
            Letter::ExportLatencies => {
                engine.accounts().log();
                engine.counters().log();
                self.exporter.begin_export(&mut engine.latencies, Duration::from_nanos(now.ns));
            }
        }
        Verdict::Continue
    }
}

/// Looks up an environment variable. One that is not Unicode is a wrong key rather than an absent one.
pub(crate) fn environment(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
