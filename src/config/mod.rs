//! The configuration: [`ConfigFile`] mirrors the TOML file, [`Config`] what the broker needs.
//!
//! Precedence is decided in one function, [`Config::resolve`]: argument, then (for keys)
//! environment, then file, then default.

mod default;
mod describe;
mod dialect;
mod fault;
mod file;
mod keys;
mod limits;
mod lines;
mod listener;
mod origin;
mod performance;
mod tls;

use std::path::{Path, PathBuf};

use crate::broker::{Keys, Rights};
use crate::limits::Limits;
use crate::logger::{LogFormat, LogLevel, LogOptions};

pub use default::default_document;
pub use dialect::{QueuesSection, RightsOfProfile, RightsSection, StompSection};
pub use fault::{ConfigFault, Offence, Place};
pub use file::{
    ConfigFile, KeysSection, LatencySection, ListenerSection, LogSection, ProtocolName, Secret,
    TlsModeName, TlsSection,
};
pub use keys::{DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS};
pub use limits::LimitsSection;
pub use listener::Listener;
pub use performance::{Performance, PerformanceSection};
pub use tls::TlsSource;

use origin::Origin;

/// Everything that can be set, resolved. Building it changes nothing in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// What clients log in with.
    pub keys: Keys,
    /// Whether `keys` are those that everybody knows, because none were set.
    pub keys_are_development: bool,
    /// Absent when no listener takes TLS and no certificate is set.
    pub tls: Option<TlsSource>,
    /// Every bound.
    pub limits: Limits,
    /// What is done for latency at the cost of something else.
    pub performance: Performance,
    /// What each profile may send and subscribe to, in the order of the profiles.
    pub rights: [Rights; 4],
    /// The hosts that a standard CONNECT may name; any, if there are none.
    pub virtual_hosts: Vec<String>,
    /// The queue that takes messages which were refused too often.
    pub dead_letter_queue: Option<String>,
    /// Where latency histograms are exported.
    pub latency_directory: Option<PathBuf>,
    /// How to log.
    pub log: LogOptions,
    /// What is needed to read the secrets again.
    inputs: Inputs,
}

impl Config {
    /// Decides between arguments, environment, file and defaults, and checks what came out.
    ///
    /// # Errors
    /// Names the place of the first offence, and never the value of a key.
    pub fn resolve(
        file: Option<(PathBuf, ConfigFile)>,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigFault> {
        let (path, file) = file.map_or_else(Default::default, |(path, file)| (Some(path), file));
        let origin = Origin { path: path.as_deref(), lines: &file.lines };
        let listeners = listener::resolve(&origin, file.listeners.as_deref(), &overrides.listen)?;
        let secrets = resolve_secrets(&origin, &file, overrides, environment, &listeners)?;
        let limits = file
            .limits
            .resolve()
            .map_err(|fault| origin.fault(&format!("limits.{}", fault.name), fault.offence))?;
        let in_file = file.latency.directory.as_deref().map(|path| origin.beside(path));
        Ok(Self {
            listeners,
            keys: secrets.keys,
            keys_are_development: secrets.keys_are_development,
            tls: secrets.tls,
            limits,
            performance: file.performance.resolve(&origin)?,
            rights: file.rights.resolve(&origin)?,
            virtual_hosts: file.stomp.virtual_hosts.clone().unwrap_or_default(),
            dead_letter_queue: file.queues.resolve(&origin)?,
            latency_directory: overrides.latency_directory.clone().or(in_file),
            log: LogOptions {
                format: overrides.log_format.or(file.log.format).unwrap_or_default(),
                level: overrides.log_level.or(file.log.level).unwrap_or_default().filter(),
            },
            inputs: Inputs { path, overrides: overrides.clone() },
        })
    }

    /// Reads keys and the place of the certificate again, from the same file, arguments and
    /// environment, under the same rules. Nothing else in the file is looked at, and the listeners
    /// are those of this configuration.
    ///
    /// # Errors
    /// As [`Config::resolve`]; this configuration stays as it is.
    pub fn reload_secrets(&self, environment: Environment<'_>) -> Result<Secrets, ConfigFault> {
        let path = self.inputs.path.as_deref();
        let file = path.map(ConfigFile::load).transpose()?.unwrap_or_default();
        let origin = Origin { path, lines: &file.lines };
        resolve_secrets(&origin, &file, &self.inputs.overrides, environment, &self.listeners)
    }

    /// Whether anything is in use that is only fit for development.
    pub fn is_development(&self) -> bool {
        self.keys_are_development || matches!(self.tls, Some(TlsSource::Development { .. }))
    }

    /// The configuration file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.inputs.path.as_deref()
    }

    /// The effective configuration as TOML, keys masked.
    pub fn describe(&self) -> String {
        describe::describe(self)
    }
}

/// What SIGHUP renews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// What clients log in with.
    pub keys: Keys,
    /// Whether they are those that everybody knows.
    pub keys_are_development: bool,
    /// Where the certificate is.
    pub tls: Option<TlsSource>,
}

/// What the command line overrules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Development keys and certificates are wanted, not only put up with.
    pub development: bool,
    /// Addresses that replace all configured listeners.
    pub listen: Vec<String>,
    /// PEM file with the certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Where histograms are exported.
    pub latency_directory: Option<PathBuf>,
    /// The form of a log line.
    pub log_format: Option<LogFormat>,
    /// The least important lines that are written.
    pub log_level: Option<LogLevel>,
}

/// The value of an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inputs {
    path: Option<PathBuf>,
    overrides: Overrides,
}

fn resolve_secrets(
    origin: &Origin<'_>,
    file: &ConfigFile,
    overrides: &Overrides,
    environment: Environment<'_>,
    listeners: &[Listener],
) -> Result<Secrets, ConfigFault> {
    let exposed = listeners.iter().find(|listener| !listener.is_loopback());
    let exposed = exposed.map(|listener| listener.address);
    if let (true, Some(address)) = (overrides.development, exposed) {
        return Err(development_fault(Offence::DevelopmentExposed(address)));
    }
    let choice = keys::resolve(origin, &file.keys, environment, exposed)?;
    let tls = tls::resolve(origin, &file.tls, overrides, listeners)?;
    let own_certificate = matches!(tls, Some(TlsSource::Files { .. }));
    if overrides.development && (own_certificate || !choice.are_development) {
        return Err(development_fault(Offence::DevelopmentOverruled));
    }
    Ok(Secrets { keys: choice.keys, keys_are_development: choice.are_development, tls })
}

fn development_fault(offence: Offence) -> ConfigFault {
    ConfigFault { place: Place::Flag("--dev"), offence }
}

#[cfg(test)]
mod tests;
