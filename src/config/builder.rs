//! A configuration made in code, for programs that embed the broker.

use std::path::PathBuf;

use super::fault::{ConfigFault, Offence, Place};
use super::lines::KeyLines;
use super::listener;
use super::messaging::{QueuesSection, RightsSection, StompSection};
use super::source::Source;
use super::{Config, Held, Listener, Performance, TlsPlaces, TlsSource, keys, limits, login};
use crate::broker::Keys;
use crate::limits::Limits;
use crate::logger::{LogLevel, LogOptions};
use crate::profile::Profile;
use crate::transport::TlsMode;

/// The settings of a [`Config`] that a program makes; all others have their defaults. The keys and at
/// least one listener have to be set.
///
/// Nothing is checked before [`build`](Self::build), which applies the rules of a configuration file and
/// names settings as a file does.
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

    /// Sets the PEM files with the certificate chain and its private key. They are read when the server
    /// is bound.
    pub fn certificate(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls = Some(TlsSource::Files { certificate: chain.into(), key: key.into() });
        self
    }

    /// Uses a development certificate, which is made in this directory if there is none. Refused unless
    /// all listeners that take TLS are on loopback addresses.
    pub fn development_certificate(mut self, directory: impl Into<PathBuf>) -> Self {
        self.tls = Some(TlsSource::Development { directory: directory.into() });
        self
    }

    /// Sets what lowers latency at the cost of something else.
    pub fn performance(mut self, performance: Performance) -> Self {
        self.performance = performance;
        self
    }

    /// Replaces what clients of a profile may send to: destinations, or wildcards such as `/topic/>`.
    pub fn may_send<T: Into<String>>(
        mut self,
        profile: Profile,
        to: impl IntoIterator<Item = T>,
    ) -> Self {
        let to = to.into_iter().map(Into::into).collect();
        self.rights.of_profile_mut(profile).send = Some(to);
        self
    }

    /// Replaces what clients of a profile may subscribe to: destinations, or wildcards such as
    /// `/topic/>`.
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

    /// Sets the directory that latency histograms are exported to, at the end and when a handle asks for
    /// it.
    pub fn latency_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.latency_directory = Some(directory.into());
        self
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// A setting breaks a rule; the fault names the first one, and never the value of a key.
    pub fn build(self) -> Result<Config, ConfigFault> {
        let source = Source { path: None, lines: &KeyLines::default() };
        let listeners = listener::admit_all(&source, self.listeners)?;
        let exposed = listeners.iter().find(|listener| !listener.is_loopback());
        let exposed = exposed.map(|listener| listener.address);
        let are_own = !keys::are_well_known(&self.keys);
        let some_are_own = !keys::are_all_well_known(&self.keys);
        if let (false, Some(address)) = (are_own, exposed) {
            return Err(source.fault("keys", Offence::WellKnownKey(address)));
        }
        check_tls(&source, self.tls.as_ref(), &listeners)?;
        limits::check(&self.limits)
            .and_then(|()| login::check(&self.limits, &self.keys, &listeners))
            .map_err(|fault| source.fault(&format!("limits.{}", fault.name), fault.offence))?;
        self.performance
            .check()
            .map_err(|(name, offence)| source.fault(&format!("performance.{name}"), offence))?;
        let rights = self.rights.resolve(&source)?;
        let dead_letter_queue = self.queues.resolve(&source, &self.limits, &rights)?;
        let own_certificate = matches!(self.tls, Some(TlsSource::Files { .. }));
        let place = |key: &str| own_certificate.then(|| Place::Setting(key.into()));
        Ok(Config {
            listeners,
            keys: self.keys,
            keys_are_development: false,
            tls_places: TlsPlaces { certificate: place("tls.certificate"), key: place("tls.key") },
            tls: self.tls,
            exposures: Vec::new(),
            held: Held { own_keys: are_own, own_certificate, some_own_keys: some_are_own },
            limits: self.limits,
            performance: self.performance,
            rights,
            virtual_hosts: self.stomp.resolve(&source)?,
            dead_letter_queue,
            latency_place: self
                .latency_directory
                .as_ref()
                .map(|_| source.place("latency.directory")),
            latency_directory: self.latency_directory,
            log: LogOptions { format: Default::default(), level: LogLevel::default().filter() },
            inputs: None,
        })
    }
}

/// Checks that listeners with TLS have a certificate, and that a development certificate is not shown
/// to other machines.
fn check_tls(
    source: &Source<'_>,
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
    offence.map_or(Ok(()), |offence| Err(source.fault("tls", offence)))
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
    fn settings_that_are_not_made_have_their_defaults() {
        let config = builder("127.0.0.1:0").build().unwrap();
        let file = Config::resolve(None, &super::super::Overrides::default(), &|_| None).unwrap();
        assert_eq!(config.limits, file.limits);
        assert_eq!(config.rights, file.rights);
        assert_eq!(config.performance, file.performance);
        assert!(!config.is_development() && config.tls.is_none());
    }

    #[test]
    fn keys_that_are_too_long_to_log_in_with_do_not_replace_others() {
        let limits =
            Limits { login_id_bytes_max: 20, login_frame_bytes_max: 60, ..Limits::default() };
        let config = builder("127.0.0.1:0").limits(limits).build().unwrap();
        let next = |key: &str| {
            let keys = Keys::new("next-app", [key, "next-super", "next-service", "next-admin"]);
            let listener = Listener::new("127.0.0.1:0".parse().unwrap());
            Config::builder(keys.unwrap()).listener(listener).build().unwrap()
        };
        assert_eq!(config.check_secrets_of(&next("next-agent"), Held::default()), Ok(()));
        let fault = config.check_secrets_of(&next(&"x".repeat(40)), Held::default()).unwrap_err();
        let expected =
            "limits.login_frame_bytes_max: 60 is less than 74, what the shortest CONNECT";
        assert!(fault.to_string().starts_with(expected), "{fault}");
    }

    #[test]
    fn settings_take_effect() {
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
        assert_eq!(texts(&config.rights[Profile::Agent].send), ["/topic/>"]);
        assert_eq!(texts(&config.rights[Profile::Admin].subscribe), ["/queue/a"]);
        assert_eq!(config.virtual_hosts, ["broker.example"]);
        assert_eq!(config.dead_letter_queue.as_deref(), Some("/queue/dead"));
        assert_eq!(config.latency_directory, Some("latencies".into()));
    }

    #[test]
    fn settings_in_code_obey_the_rules_of_a_file() {
        let loopback = || builder("127.0.0.1:1");
        let named = |name: &str| Listener::new("127.0.0.1:0".parse().unwrap()).named(name);
        let secured =
            |address: &str| Listener::new(address.parse().unwrap()).tls(TlsMode::Required);
        let known =
            Keys::new("a", ["b", "c", DEVELOPMENT_PROFILE_KEYS[Profile::Agent], "d"]).unwrap();
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
            (
                loopback().limits(Limits { header_count_max: 1, ..Limits::default() }),
                "limits.header_count_max: 1 is less than 2, the header lines of the shortest CONNECT",
            ),
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
