//! The configuration: [`ConfigFile`] mirrors the TOML file, [`Config`] the needs of the broker. Programs
//! make one with [`Config::builder`].
//!
//! [`Config::resolve`] decides precedence: argument, then (for keys) environment, then file, then
//! default.

mod builder;
mod by_profile;
mod default;
mod describe;
mod fault;
mod file;
mod keys;
mod limits;
mod lines;
mod listener;
mod login;
mod messaging;
mod performance;
mod size;
mod source;
mod suggest;
mod tls;

use std::path::{Path, PathBuf};

use crate::broker::{Keys, Rights};
use crate::input::Exposure;
use crate::limits::Limits;
use crate::logger::{LogFormat, LogLevel, LogOptions};
use crate::profile::ByProfile;

pub use builder::Builder;
pub use default::default_document;
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
pub use messaging::{QueuesSection, RightsOfProfile, RightsSection, StompSection};
pub use performance::{Performance, PerformanceSection};
pub(crate) use tls::{TlsPlaces, TlsSource};

pub use crate::transport::{ListenerPolicy, Protocols, TlsMode};

use limits::LimitFault;
use source::Source;

/// All settings, resolved and checked, for a [`Server`](crate::server::Server).
///
/// It comes from code ([`Config::builder`]) or from a file ([`Config::resolve`]). Making it may read files
/// with keys, and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub(crate) listeners: Vec<Listener>,
    /// The keys that clients log in with.
    pub(crate) keys: Keys,
    /// Whether `keys` are the development keys, because none were set.
    pub(crate) keys_are_development: bool,
    /// Absent when no listener takes TLS and no certificate is set.
    pub(crate) tls: Option<TlsSource>,
    /// The places that name the certificate's files.
    pub(crate) tls_places: TlsPlaces,
    /// Files with keys that other users can read.
    pub(crate) exposures: Vec<Exposure>,
    /// Secrets that a reload does not give up.
    pub(crate) held: Held,
    /// Every bound.
    pub(crate) limits: Limits,
    /// What lowers latency at the cost of something else.
    pub(crate) performance: Performance,
    /// What each profile may send and subscribe to.
    pub(crate) rights: ByProfile<Rights>,
    /// The hosts that a standard CONNECT may name; any if empty.
    pub(crate) virtual_hosts: Vec<String>,
    /// The queue that takes messages which were refused too often.
    pub(crate) dead_letter_queue: Option<String>,
    /// Directory that latency histograms are exported to.
    pub(crate) latency_directory: Option<PathBuf>,
    /// The place that names it, if there is one.
    pub(crate) latency_place: Option<Place>,
    /// How to log.
    pub(crate) log: LogOptions,
    /// What is needed to read the secrets again; absent if the configuration was made in code.
    inputs: Option<Inputs>,
}

impl Config {
    /// A configuration made in code, with these keys.
    ///
    /// ```
    /// use com_broker::config::{Config, Listener};
    /// use com_broker::limits::Limits;
    /// use com_broker::Keys;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keys = Keys::new("app-8c1f", ["agent-57ab", "super-c0ff", "service-91d2", "admin-e4a7"])?;
    /// let config = Config::builder(keys)
    ///     .listener(Listener::new("127.0.0.1:0".parse()?))
    ///     .limits(Limits { connections_max: 100, ..Limits::default() })
    ///     .build()?;
    /// assert!(!config.is_development());
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(keys: Keys) -> Builder {
        Builder::new(keys)
    }

    /// Resolves arguments, environment, file and defaults, and checks the result.
    ///
    /// # Errors
    /// A setting breaks a rule; the fault names the first one, and never the value of a key.
    pub fn resolve(
        file: Option<(PathBuf, ConfigFile)>,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigFault> {
        let (path, file) = file.map_or_else(Default::default, |(path, file)| (Some(path), file));
        let source = Source { path: path.as_deref(), lines: &file.lines };
        let listeners = listener::resolve(&source, file.listeners.as_deref(), &overrides.listen)?;
        let nothing = Held::default();
        let secrets = resolve_secrets(&source, &file, overrides, environment, &listeners, nothing)?;
        let limits = file.limits.resolve().map_err(|fault| fault.placed(&source))?;
        login::check(&limits, &secrets.keys, &listeners).map_err(|fault| fault.placed(&source))?;
        let rights = file.rights.resolve(&source)?;
        let in_file = file.latency.directory.as_deref().map(|path| source.beside(path));
        Ok(Self {
            listeners,
            keys: secrets.keys,
            keys_are_development: secrets.keys_are_development,
            tls: secrets.tls,
            tls_places: secrets.tls_places,
            exposures: secrets.exposures,
            held: secrets.held,
            dead_letter_queue: file.queues.resolve(&source, &limits, &rights)?,
            limits,
            performance: file.performance.resolve(&source)?,
            rights,
            virtual_hosts: file.stomp.resolve(&source)?,
            latency_place: match (&overrides.latency_directory, &in_file) {
                (Some(_), _) => Some(Place::Flag("--latency-directory")),
                (None, Some(_)) => Some(source.place("latency.directory")),
                (None, None) => None,
            },
            latency_directory: overrides.latency_directory.clone().or(in_file),
            log: LogOptions {
                format: overrides.log_format.or(file.log.format).unwrap_or_default(),
                level: overrides.log_level.or(file.log.level).unwrap_or_default().filter(),
            },
            inputs: Some(Inputs { path, overrides: overrides.clone() }),
        })
    }

    /// Reads keys and the paths of the certificate again, from the same file, arguments and
    /// environment, under the same rules and for the listeners of this configuration. Other changes
    /// of the file are only reported. `None` if the configuration was made in code.
    ///
    /// # Errors
    /// Those of [`Config::resolve`]; or well-known secrets would replace own ones that are `held`.
    pub(crate) fn reload_secrets(
        &self,
        environment: Environment<'_>,
        held: Held,
    ) -> Option<Result<Secrets, ConfigFault>> {
        let inputs = self.inputs.as_ref()?;
        Some(self.read_secrets(inputs, environment, held))
    }

    fn read_secrets(
        &self,
        Inputs { path, overrides }: &Inputs,
        environment: Environment<'_>,
        held: Held,
    ) -> Result<Secrets, ConfigFault> {
        let file = path.as_deref().map(ConfigFile::load).transpose()?.unwrap_or_default();
        let source = Source { path: path.as_deref(), lines: &file.lines };
        let mut secrets =
            resolve_secrets(&source, &file, overrides, environment, &self.listeners, held)?;
        login::check(&self.limits, &secrets.keys, &self.listeners)
            .map_err(|fault| fault.placed(&source))?;
        let file = path.clone().map(|path| (path, file));
        secrets.unapplied = match Self::resolve(file, overrides, environment) {
            Ok(next) => self.unapplied(&next),
            Err(fault) => Unapplied::Refused(fault),
        };
        Ok(secrets)
    }

    /// What a restart with another configuration would change besides the secrets.
    pub(crate) fn unapplied(&self, next: &Self) -> Unapplied {
        let tables = [
            ("listener", self.listeners == next.listeners),
            ("limits", self.limits == next.limits),
            ("performance", self.performance == next.performance),
            ("rights", self.rights == next.rights),
            ("stomp", self.virtual_hosts == next.virtual_hosts),
            ("queues", self.dead_letter_queue == next.dead_letter_queue),
            ("latency", self.latency_directory == next.latency_directory),
            ("log", self.log == next.log),
        ];
        let changed: Vec<_> =
            tables.iter().filter(|(_, is_same)| !is_same).map(|(name, _)| *name).collect();
        if changed.is_empty() { Unapplied::Nothing } else { Unapplied::Tables(changed) }
    }

    /// Checks whether the secrets of another configuration may replace those in use, for the listeners of
    /// this one and for what is `held` now.
    ///
    /// # Errors
    /// Names the first rule that they break.
    pub(crate) fn check_secrets_of(&self, next: &Self, held: Held) -> Result<(), ConfigFault> {
        let fault =
            |key: &str, offence| Err(ConfigFault { place: Place::Setting(key.into()), offence });
        let exposed = self.listeners.iter().find(|listener| !listener.is_loopback());
        if let (Some(listener), true) = (exposed, keys::are_well_known(&next.keys)) {
            return fault("keys", Offence::WellKnownKey(listener.address));
        }
        let loses_all = held.some_own_keys && !next.held.some_own_keys;
        if loses_all || held.own_keys && !next.held.own_keys {
            return fault("keys", Offence::KeysHeld);
        }
        login::check(&self.limits, &next.keys, &self.listeners).map_err(
            |LimitFault { name, offence, .. }| ConfigFault {
                place: Place::Setting(format!("limits.{name}")),
                offence,
            },
        )?;
        let mut secured = self.listeners.iter().filter(|one| one.policy.tls != TlsMode::Off);
        match (&next.tls, secured.next()) {
            (None, Some(listener)) => fault("tls", Offence::CertificateMissing(listener.address)),
            (Some(TlsSource::Development { .. }), Some(_)) if held.own_certificate => {
                fault("tls", Offence::CertificateHeld)
            }
            _ => Ok(()),
        }
    }

    /// The listeners: at least one.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Every bound.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether development keys or a development certificate are in use.
    pub fn is_development(&self) -> bool {
        self.keys_are_development || matches!(self.tls, Some(TlsSource::Development { .. }))
    }

    /// The configuration file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.inputs.as_ref()?.path.as_deref()
    }

    /// The effective configuration as TOML, with masked keys.
    pub fn describe(&self) -> String {
        describe::describe(self)
    }
}

/// The settings that SIGHUP reloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// The keys that clients log in with.
    pub(crate) keys: Keys,
    /// Whether they are the development keys.
    pub(crate) keys_are_development: bool,
    /// The source of the certificate.
    pub(crate) tls: Option<TlsSource>,
    /// The places that name its files.
    pub(crate) tls_places: TlsPlaces,
    /// Files with keys that other users can read.
    pub(crate) exposures: Vec<Exposure>,
    /// Secrets that the next reload does not give up.
    pub(crate) held: Held,
    /// Other changes, which take effect with a restart.
    pub(crate) unapplied: Unapplied,
}

/// The settings that a reload does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unapplied {
    /// No other setting has changed.
    Nothing,
    /// Settings in these tables of the file have changed.
    Tables(Vec<&'static str>),
    /// The next start would fail for this reason.
    Refused(ConfigFault),
}

/// Own secrets, which no reload replaces by well-known ones: otherwise a file that was emptied by mistake
/// would open the broker to all users of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Whether none of the keys is well known.
    pub(crate) own_keys: bool,
    /// Whether the certificate is not a development one.
    pub(crate) own_certificate: bool,
    /// Whether at least one key is not well known.
    pub(crate) some_own_keys: bool,
}

impl Held {
    /// Adds what is held from now on, besides what was before.
    pub(crate) fn add(&mut self, more: Self) {
        self.own_keys |= more.own_keys;
        self.some_own_keys |= more.some_own_keys;
        self.own_certificate |= more.own_certificate;
    }
}

/// Settings on the command line, which override the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Whether development keys and certificates are demanded rather than only allowed.
    pub development: bool,
    /// Addresses that replace all configured listeners.
    pub listen: Vec<String>,
    /// PEM file with the certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Directory that histograms are exported to.
    pub latency_directory: Option<PathBuf>,
    /// The form of a log line.
    pub log_format: Option<LogFormat>,
    /// The least important lines that are written.
    pub log_level: Option<LogLevel>,
}

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inputs {
    path: Option<PathBuf>,
    overrides: Overrides,
}

fn resolve_secrets(
    source: &Source<'_>,
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
    let rule =
        keys::Rule { exposed, held_are_own: held.own_keys, held_some_own: held.some_own_keys };
    let mut choice = keys::resolve(source, &file.keys, environment, rule)?;
    if file.keys.has_values() {
        choice.exposures.extend(file.exposure.clone());
    }
    let (tls, tls_places) = tls::resolve(source, &file.tls, overrides, listeners)?;
    let own_certificate = matches!(tls, Some(TlsSource::Files { .. }));
    if held.own_certificate && matches!(tls, Some(TlsSource::Development { .. })) {
        return Err(source.fault("tls", Offence::CertificateHeld));
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
        held: Held {
            own_keys: choice.are_own,
            own_certificate,
            some_own_keys: choice.some_are_own,
        },
        unapplied: Unapplied::Nothing,
    })
}

fn development_fault(offence: Offence) -> ConfigFault {
    ConfigFault { place: Place::Flag("--dev"), offence }
}

#[cfg(test)]
mod tests;
