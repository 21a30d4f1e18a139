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
mod suggest;
mod tls;

use std::path::{Path, PathBuf};

use crate::broker::{Keys, Rights};
use crate::input::Exposure;
use crate::limits::Limits;
use crate::logger::{LogFormat, LogLevel, LogOptions};

pub use default::default_document;
pub use dialect::{QueuesSection, RightsOfProfile, RightsSection, StompSection};
pub use fault::{ConfigFault, Offence, Place};
pub use file::{
    ConfigFile, KeysSection, LatencySection, ListenerSection, LogSection, ProtocolName, Secret,
    TlsModeName, TlsSection,
};
pub use keys::{
    DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS, KEY_FILE_BYTES_MAX, check_key_variables,
};
pub use limits::LimitsSection;
pub use listener::Listener;
pub use performance::{Performance, PerformanceSection};
pub use tls::{TlsPlaces, TlsSource};

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
    /// Where the certificate's files are named.
    pub tls_places: TlsPlaces,
    /// Files with keys that others can read.
    pub exposures: Vec<Exposure>,
    /// What a reload does not give up.
    pub held: Held,
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
        let nothing = Held::default();
        let secrets = resolve_secrets(&origin, &file, overrides, environment, &listeners, nothing)?;
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
            tls_places: secrets.tls_places,
            exposures: secrets.exposures,
            held: secrets.held,
            limits,
            performance: file.performance.resolve(&origin)?,
            rights: file.rights.resolve(&origin)?,
            virtual_hosts: file.stomp.resolve(&origin)?,
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
    /// As [`Config::resolve`]; and where what is `held` now would give way to what everybody knows.
    /// This configuration stays as it is.
    pub fn reload_secrets(
        &self,
        environment: Environment<'_>,
        held: Held,
    ) -> Result<Secrets, ConfigFault> {
        let path = self.inputs.path.as_deref();
        let file = path.map(ConfigFile::load).transpose()?.unwrap_or_default();
        let origin = Origin { path, lines: &file.lines };
        resolve_secrets(&origin, &file, &self.inputs.overrides, environment, &self.listeners, held)
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
    /// Where its files are named.
    pub tls_places: TlsPlaces,
    /// Files with keys that others can read.
    pub exposures: Vec<Exposure>,
    /// What the next reload does not give up.
    pub held: Held,
}

/// Secrets of one's own, which no reload replaces by those that everybody knows: a file that was
/// emptied by mistake would open the broker to everybody on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// None of the keys is a well-known one.
    pub own_keys: bool,
    /// The certificate is not a development one.
    pub own_certificate: bool,
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
    held: Held,
) -> Result<Secrets, ConfigFault> {
    let exposed = listeners.iter().find(|listener| !listener.is_loopback());
    let exposed = exposed.map(|listener| listener.address);
    if let (true, Some(address)) = (overrides.development, exposed) {
        return Err(development_fault(Offence::DevelopmentExposed(address)));
    }
    let rule = keys::Rule { exposed, held_are_own: held.own_keys };
    let mut choice = keys::resolve(origin, &file.keys, environment, rule)?;
    if file.keys.has_values() {
        choice.exposures.extend(file.exposure.clone());
    }
    let (tls, tls_places) = tls::resolve(origin, &file.tls, overrides, listeners)?;
    let own_certificate = matches!(tls, Some(TlsSource::Files { .. }));
    if held.own_certificate && matches!(tls, Some(TlsSource::Development { .. })) {
        return Err(origin.fault("tls", Offence::CertificateHeld));
    }
    if overrides.development && (own_certificate || !choice.are_development) {
        return Err(development_fault(Offence::DevelopmentOverruled));
    }
    Ok(Secrets {
        keys: choice.keys,
        keys_are_development: choice.are_development,
        tls,
        tls_places,
        exposures: choice.exposures,
        held: Held { own_keys: choice.are_own, own_certificate },
    })
}

fn development_fault(offence: Offence) -> ConfigFault {
    ConfigFault { place: Place::Flag("--dev"), offence }
}

#[cfg(test)]
mod tests;
