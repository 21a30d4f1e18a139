//! A configuration made in code, for programs that run the broker within themselves.

use std::path::PathBuf;

use super::dialect::{QueuesSection, RightsSection, StompSection};
use super::fault::{ConfigFault, Offence, Place};
use super::lines::KeyLines;
use super::listener;
use super::origin::Origin;
use super::{Config, Held, Listener, Performance, TlsPlaces, TlsSource, keys, limits};
use crate::broker::{Keys, Profile};
use crate::limits::Limits;
use crate::logger::{LogLevel, LogOptions};
use crate::transport::TlsMode;

/// What a program sets of a [`Config`]; all else is as it is by default. The keys and at least one
/// listener have to be set.
///
/// Nothing is checked before [`build`](Self::build), which holds it against the rules that a
/// configuration file is held against, and names what breaks one as a file would name it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    keys: Keys,
    listeners: Vec<Listener>,
    tls: Option<TlsSource>,
    limits: Limits,
    performance: Performance,
    rights: RightsSection,
    stomp: StompSection,
    queues: QueuesSection,
    latency_directory: Option<PathBuf>,
}

impl Builder {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            listeners: Vec::new(),
            tls: None,
            limits: Limits::default(),
            performance: Performance::default(),
            rights: RightsSection::default(),
            stomp: StompSection::default(),
            queues: QueuesSection::default(),
            latency_directory: None,
        }
    }

    /// Adds a listener.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Replaces all bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Shows the certificate in these PEM files, the chain and its private key, to clients that use TLS.
    /// They are read when the server is bound.
    pub fn certificate(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls = Some(TlsSource::Files { certificate: chain.into(), key: key.into() });
        self
    }

    /// Shows a development certificate, which is made in this directory where there is none. Refused
    /// unless all listeners that take TLS are on loopback addresses.
    pub fn development_certificate(mut self, directory: impl Into<PathBuf>) -> Self {
        self.tls = Some(TlsSource::Development { directory: directory.into() });
        self
    }

    /// Sets what is done for latency at the cost of something else.
    pub fn performance(mut self, performance: Performance) -> Self {
        self.performance = performance;
        self
    }

    /// Replaces what clients of a profile may send to: destinations, or patterns with `*` and `>`.
    pub fn may_send<T: Into<String>>(
        mut self,
        profile: Profile,
        to: impl IntoIterator<Item = T>,
    ) -> Self {
        let to = to.into_iter().map(Into::into).collect();
        self.rights.of_profile_mut(profile).send = Some(to);
        self
    }

    /// Replaces what clients of a profile may subscribe to: destinations, or patterns with `*` and `>`.
    pub fn may_subscribe<T: Into<String>>(
        mut self,
        profile: Profile,
        to: impl IntoIterator<Item = T>,
    ) -> Self {
        let to = to.into_iter().map(Into::into).collect();
        self.rights.of_profile_mut(profile).subscribe = Some(to);
        self
    }

    /// Sets the hosts that a standard CONNECT may name, in place of any.
    pub fn virtual_hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.stomp.virtual_hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the queue that takes messages which were refused too often.
    pub fn dead_letter_queue(mut self, queue: impl Into<String>) -> Self {
        self.queues.dead_letter_queue = Some(queue.into());
        self
    }

    /// Sets where latency histograms are exported: at the end, and when a handle asks for it.
    pub fn latency_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.latency_directory = Some(directory.into());
        self
    }

    /// Checks it all.
    ///
    /// # Errors
    /// Names the first setting that breaks a rule, and never the value of a key.
    pub fn build(self) -> Result<Config, ConfigFault> {
        let origin = Origin { path: None, lines: &KeyLines::default() };
        let listeners = listener::admit_all(&origin, self.listeners)?;
        let exposed = listeners.iter().find(|listener| !listener.is_loopback());
        let exposed = exposed.map(|listener| listener.address);
        let are_own = !keys::are_well_known(&self.keys);
        if let (false, Some(address)) = (are_own, exposed) {
            return Err(origin.fault("keys", Offence::WellKnownKey(address)));
        }
        check_tls(&origin, self.tls.as_ref(), &listeners)?;
        limits::check(&self.limits)
            .map_err(|fault| origin.fault(&format!("limits.{}", fault.name), fault.offence))?;
        self.performance
            .check()
            .map_err(|(name, offence)| origin.fault(&format!("performance.{name}"), offence))?;
        let own_certificate = matches!(self.tls, Some(TlsSource::Files { .. }));
        let place = |key: &str| own_certificate.then(|| Place::Setting(key.into()));
        Ok(Config {
            listeners,
            keys: self.keys,
            keys_are_development: false,
            tls_places: TlsPlaces { certificate: place("tls.certificate"), key: place("tls.key") },
            tls: self.tls,
            exposures: Vec::new(),
            held: Held { own_keys: are_own, own_certificate },
            limits: self.limits,
            performance: self.performance,
            rights: self.rights.resolve(&origin)?,
            virtual_hosts: self.stomp.resolve(&origin)?,
            dead_letter_queue: self.queues.resolve(&origin)?,
            latency_directory: self.latency_directory,
            log: LogOptions { format: Default::default(), level: LogLevel::default().filter() },
            inputs: None,
        })
    }
}

/// A listener that takes TLS needs a certificate, and others than this machine do not get one that was
/// made for development.
fn check_tls(
    origin: &Origin<'_>,
    tls: Option<&TlsSource>,
    listeners: &[Listener],
) -> Result<(), ConfigFault> {
    let mut secured = listeners.iter().filter(|listener| listener.policy.tls != TlsMode::Off);
    let offence = match tls {
        None => secured.next().map(|one| Offence::CertificateMissing(one.address)),
        Some(TlsSource::Development { .. }) => secured
            .find(|listener| !listener.is_loopback())
            .map(|one| Offence::NoCertificate(one.address)),
        Some(TlsSource::Files { .. }) => None,
    };
    offence.map_or(Ok(()), |offence| Err(origin.fault("tls", offence)))
}

#[cfg(test)]
mod tests {
    use super::super::DEVELOPMENT_PROFILE_KEYS;
    use super::*;

    fn keys() -> Keys {
        Keys::new("own-app", ["own-agent", "own-super", "own-service", "own-admin"]).unwrap()
    }

    fn builder(address: &str) -> Builder {
        Config::builder(keys()).listener(Listener::new(address.parse().unwrap()))
    }

    #[test]
    fn what_is_not_set_is_as_it_is_by_default() {
        let config = builder("127.0.0.1:0").build().unwrap();
        let file = Config::resolve(None, &super::super::Overrides::default(), &|_| None).unwrap();
        assert_eq!(config.limits, file.limits);
        assert_eq!(config.rights, file.rights);
        assert_eq!(config.performance, file.performance);
        assert!(!config.is_development() && config.tls.is_none());
    }

    #[test]
    fn what_is_set_takes_effect() {
        let config = builder("127.0.0.1:0")
            .limits(Limits { connections_max: 7, ..Limits::default() })
            .may_send(Profile::Agent, ["/topic/>"])
            .may_subscribe(Profile::Admin, ["/queue/a"])
            .virtual_hosts(["broker.example"])
            .dead_letter_queue("/queue/dead")
            .latency_directory("latencies")
            .build()
            .unwrap();
        assert_eq!(config.limits.connections_max, 7);
        let texts = |levels: &[crate::broker::levels::Levels]| -> Vec<_> {
            levels.iter().map(|one| one.text().to_owned()).collect()
        };
        assert_eq!(texts(&config.rights[Profile::Agent as usize].send), ["/topic/>"]);
        assert_eq!(texts(&config.rights[Profile::Admin as usize].subscribe), ["/queue/a"]);
        assert_eq!(config.virtual_hosts, ["broker.example"]);
        assert_eq!(config.dead_letter_queue.as_deref(), Some("/queue/dead"));
        assert_eq!(config.latency_directory, Some("latencies".into()));
    }

    #[test]
    fn what_a_file_may_not_say_code_may_not_either() {
        let loopback = || builder("127.0.0.1:1");
        let named = |name: &str| Listener::new("127.0.0.1:0".parse().unwrap()).named(name);
        let secured =
            |address: &str| Listener::new(address.parse().unwrap()).tls(TlsMode::Required);
        let known = Keys::new("a", ["b", "c", DEVELOPMENT_PROFILE_KEYS[0], "d"]).unwrap();
        let exposed = || Listener::new("0.0.0.0:0".parse().unwrap());
        let zero = Limits { mailbox_letters_max: 0, ..Limits::default() };
        let small = Performance { socket_send_buffer_bytes: 1, ..Performance::default() };
        for (builder, expected) in [
            (Config::builder(keys()), "listener: there is no listener"),
            (
                loopback().listener(Listener::new("127.0.0.1:1".parse().unwrap())),
                "listener[1].address: 127.0.0.1:1 is listed twice",
            ),
            (
                loopback().listener(named("web")).listener(named("web")),
                "listener[2].name: another listener is called \"web\" already",
            ),
            (loopback().listener(named(" ")), "listener[1].name: a name needs"),
            (Config::builder(known).listener(exposed()), "keys: this is a well-known"),
            (loopback().listener(secured("127.0.0.1:0")), "tls: no certificate is set, and the"),
            (
                loopback().listener(secured("0.0.0.0:0")).development_certificate("certs"),
                "tls: no certificate is set, and a development certificate is refused because",
            ),
            (loopback().limits(zero), "limits.mailbox_letters_max: must not be zero"),
            (loopback().performance(small), "performance.socket_send_buffer_bytes: 1 is less"),
            (loopback().may_send(Profile::Agent, ["news"]), "rights.agent.send: \"news\" stands"),
            (loopback().virtual_hosts([""]), "stomp.virtual_hosts[0]: not a host"),
            (loopback().dead_letter_queue("dead"), "queues.dead_letter_queue: a queue is"),
        ] {
            let fault = builder.build().unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }
}
