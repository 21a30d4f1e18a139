//! The server under load, as a URL with protocol, transport and address.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::fault::Fault;

/// A server under load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The URL, as it was given.
    pub url: String,
    /// The protocol.
    pub protocol: ProtocolName,
    /// The transport.
    pub carrier: Carrier,
    /// The host, as it was given, by whose name certificates are verified.
    pub host: String,
    /// The address of the host.
    pub address: SocketAddr,
    /// The path of a WebSocket request.
    pub path: String,
}

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolName {
    /// The classic dialect of com-broker.
    Classic,
    /// Standard STOMP 1.2.
    Stomp,
    /// NATS.
    Nats,
    /// MQTT 3.1.1.
    Mqtt,
    /// Redis publish and subscribe.
    Redis,
    /// The protocol of the floor relay.
    Floor,
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Plain TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Carrier {
    /// Whether it is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether it is a WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

impl Target {
    /// Parses a URL and resolves its host.
    ///
    /// # Errors
    /// The URL is malformed, or its host has no address.
    pub fn parse(url: &str) -> Result<Self, Fault> {
        let wrong = |what: &str| Fault::Usage(format!("{url}: {what}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        let (protocol, carrier, port) = scheme_of(scheme)
            .ok_or_else(|| wrong("unknown scheme; --help lists those that are known"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err(wrong("secrets do not belong in a URL; see --login and --passcode-env"));
        }
        let (host, port) = split_port(authority, port).ok_or_else(|| wrong("no such port"))?;
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|error| Fault::io(url, error))?
            .min_by_key(SocketAddr::is_ipv6)
            .ok_or_else(|| wrong("no such host"))?;
        Ok(Self {
            url: url.into(),
            protocol,
            carrier,
            host: host.into(),
            address,
            path: path.into(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.url)
    }
}

fn scheme_of(scheme: &str) -> Option<(ProtocolName, Carrier, u16)> {
    Some(match scheme {
        "classic+tcp" => (ProtocolName::Classic, Carrier::Tcp, 6661),
        "classic+tls" => (ProtocolName::Classic, Carrier::Tls, 6661),
        "classic+ws" => (ProtocolName::Classic, Carrier::Ws, 6662),
        "classic+wss" => (ProtocolName::Classic, Carrier::Wss, 6662),
        "stomp+tcp" | "stomp" => (ProtocolName::Stomp, Carrier::Tcp, 61613),
        "stomp+tls" => (ProtocolName::Stomp, Carrier::Tls, 61614),
        "stomp+ws" => (ProtocolName::Stomp, Carrier::Ws, 15674),
        "stomp+wss" => (ProtocolName::Stomp, Carrier::Wss, 15673),
        "nats" => (ProtocolName::Nats, Carrier::Tcp, 4222),
        "mqtt" => (ProtocolName::Mqtt, Carrier::Tcp, 1883),
        "redis" => (ProtocolName::Redis, Carrier::Tcp, 6379),
        "floor" => (ProtocolName::Floor, Carrier::Tcp, 7000),
        "floor+tls" => (ProtocolName::Floor, Carrier::Tls, 7000),
        _ => return None,
    })
}

/// Host and port of an authority, in which an IPv6 address has brackets.
fn split_port(authority: &str, default: u16) -> Option<(&str, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => rest.is_empty().then_some((host, default)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        let target = Target::parse("stomp+wss://127.0.0.1:15673/ws").unwrap();
        assert_eq!((target.protocol, target.carrier), (ProtocolName::Stomp, Carrier::Wss));
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1", "/ws"));
        assert_eq!(target.address.port(), 15673);
        assert!(target.carrier.is_tls() && target.carrier.is_websocket());

        let target = Target::parse("nats://[::1]").unwrap();
        assert_eq!(
            (target.address.to_string().as_str(), target.path.as_str()),
            ("[::1]:4222", "/")
        );
        assert_eq!(Target::parse("classic+tcp://[::1]:5").unwrap().address.port(), 5);
    }

    #[test]
    fn malformed_urls_are_refused() {
        for url in ["127.0.0.1:80", "http://127.0.0.1", "nats://", "nats://127.0.0.1:x"] {
            assert!(matches!(Target::parse(url), Err(Fault::Usage(_))), "{url}");
        }
        let fault = Target::parse("redis://me:secret@127.0.0.1").unwrap_err().to_string();
        assert!(fault.contains("secrets do not belong"), "{fault}");
    }
}
