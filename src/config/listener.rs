//! The listeners, from the command line, the file or the defaults.

use std::net::{Ipv4Addr, SocketAddr};

use super::fault::{ConfigFault, Offence, Place};
use super::file::{ListenerSection, ProtocolName, TlsModeName};
use super::source::Source;
use crate::transport::{ListenerPolicy, Protocols, TlsMode};

/// Ports of the default listeners on loopback: the usual ones of web clients and of TCP clients.
const DEFAULT_PORTS: [u16; 2] = [6661, 6662];

/// An address to listen on, and the protocols served there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the log, where it otherwise has its address.
    pub name: Option<String>,
    /// Port zero lets the system choose.
    pub address: SocketAddr,
    /// The protocols served there.
    pub policy: ListenerPolicy,
}

impl Listener {
    /// A listener that serves every protocol and no TLS. Port zero lets the system choose, and
    /// [`Server::addresses`](crate::server::Server::addresses) has its choice.
    pub fn new(address: SocketAddr) -> Self {
        let policy = ListenerPolicy { tls: TlsMode::Off, ..ListenerPolicy::default() };
        Self { name: None, address, policy }
    }

    /// Sets its name in the log.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the protocols served there.
    #[must_use]
    pub fn protocols(mut self, protocols: Protocols) -> Self {
        self.policy.protocols = protocols;
        self
    }

    /// Sets whether it speaks TLS, which needs a certificate in the configuration.
    #[must_use]
    pub fn tls(mut self, tls: TlsMode) -> Self {
        self.policy.tls = tls;
        self
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// The scheme of a URL by which `send` and `watch` reach it, which speak standard STOMP. `None` if
    /// that is not served.
    pub fn client_scheme(&self) -> Option<&'static str> {
        let ListenerPolicy { protocols, tls } = self.policy;
        match (protocols.stomp, protocols.ws, tls == TlsMode::Required) {
            (true, _, false) => Some("tcp"),
            (true, _, true) => Some("tls"),
            (false, true, false) => Some("ws"),
            (false, true, true) => Some("wss"),
            (false, false, _) => None,
        }
    }
}

/// Takes the listeners from the first source that has any.
pub(super) fn resolve(
    source: &Source<'_>,
    sections: Option<&[ListenerSection]>,
    arguments: &[String],
) -> Result<Vec<Listener>, ConfigFault> {
    match sections {
        _ if !arguments.is_empty() => from_arguments(arguments),
        Some([]) => Err(source.fault("listener", Offence::NoListener)),
        Some(sections) => from_sections(source, sections),
        None => Ok(DEFAULT_PORTS.map(|port| plain((Ipv4Addr::LOCALHOST, port).into())).into()),
    }
}

fn from_arguments(arguments: &[String]) -> Result<Vec<Listener>, ConfigFault> {
    let mut listeners = Vec::new();
    for address in arguments {
        let listener = parse(address).map(plain);
        admit(&mut listeners, listener, |_| Place::Flag("--listen"))?;
    }
    Ok(listeners)
}

fn from_sections(
    source: &Source<'_>,
    sections: &[ListenerSection],
) -> Result<Vec<Listener>, ConfigFault> {
    let mut listeners = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let place = |key: &str| source.place(&format!("listener[{index}].{key}"));
        admit(&mut listeners, from_section(section), place)?;
    }
    Ok(listeners)
}

/// Checks listeners that were made in code.
pub(super) fn admit_all(
    source: &Source<'_>,
    given: Vec<Listener>,
) -> Result<Vec<Listener>, ConfigFault> {
    if given.is_empty() {
        return Err(source.fault("listener", Offence::NoListener));
    }
    let mut listeners = Vec::new();
    for (index, listener) in given.into_iter().enumerate() {
        let place = |key: &str| source.place(&format!("listener[{index}].{key}"));
        admit(&mut listeners, Ok(listener), place)?;
    }
    Ok(listeners)
}

/// Checks that a listener serves a protocol and has an address and a name of its own, and adds it.
/// `place` returns the place of one of its keys.
fn admit(
    listeners: &mut Vec<Listener>,
    listener: Result<Listener, Offence>,
    place: impl Fn(&str) -> Place,
) -> Result<(), ConfigFault> {
    let fault = |key, offence| Err(ConfigFault { place: place(key), offence });
    let new = match listener {
        Ok(new) => new,
        Err(offence) => return fault("address", offence),
    };
    if new.policy.protocols == Protocols::NONE {
        return fault("protocols", Offence::NoProtocol);
    }
    if let Some(name) = &new.name {
        if name.trim().is_empty() {
            return fault("name", Offence::NoName);
        }
        if listeners.iter().any(|one| one.name.as_ref() == Some(name)) {
            return fault("name", Offence::NameTwice(name.clone()));
        }
    }
    if is_taken(listeners, new.address) {
        return fault("address", Offence::AddressTwice(new.address));
    }
    listeners.push(new);
    Ok(())
}

fn is_taken(listeners: &[Listener], address: SocketAddr) -> bool {
    address.port() != 0 && listeners.iter().any(|listener| listener.address == address)
}

fn parse(address: &str) -> Result<SocketAddr, Offence> {
    address.trim().parse().map_err(|_| Offence::NotAnAddress)
}

fn plain(address: SocketAddr) -> Listener {
    Listener { name: None, address, policy: ListenerPolicy::default() }
}

fn from_section(section: &ListenerSection) -> Result<Listener, Offence> {
    let address = section.address.as_deref().ok_or(Offence::NoAddress)?;
    let mut listener = plain(parse(address)?);
    listener.name.clone_from(&section.name);
    if let Some(names) = &section.protocols {
        listener.policy.protocols = protocols(names);
    }
    if let Some(tls) = section.tls {
        listener.policy.tls = match tls {
            TlsModeName::Optional => TlsMode::Optional,
            TlsModeName::Required => TlsMode::Required,
            TlsModeName::Off => TlsMode::Off,
        };
    }
    Ok(listener)
}

fn protocols(names: &[ProtocolName]) -> Protocols {
    Protocols {
        classic: names.contains(&ProtocolName::Classic),
        stomp: names.contains(&ProtocolName::Stomp),
        ws: names.contains(&ProtocolName::Ws),
        http: names.contains(&ProtocolName::Http),
    }
}
