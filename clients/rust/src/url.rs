//! URLs of brokers: `tcp://127.0.0.1:6662`, `wss://broker.example/stomp`.

use std::fmt;
use std::net::IpAddr;

/// A broker's URL, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// The scheme, before `://`.
    pub scheme: Scheme,
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port; by default 6662, 80 for `ws`, 443 for `wss`.
    pub port: u16,
    /// The path of a WebSocket request; begins with `/`.
    pub path: String,
}

impl BrokerUrl {
    /// Parses `scheme://host[:port][/path]`.
    ///
    /// # Errors
    /// A part is malformed; the fault never quotes what may be a password.
    pub fn parse(url: &str) -> Result<Self, UrlFault> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlFault::Scheme)?;
        let scheme = Scheme::parse(scheme).ok_or(UrlFault::Scheme)?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err(UrlFault::Credentials);
        }
        if !scheme.is_websocket() && path != "/" {
            return Err(UrlFault::Path);
        }
        if path.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#') {
            return Err(UrlFault::Path);
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() || host.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(UrlFault::Host);
        }
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(UrlFault::Port)?,
            None => scheme.default_port(),
        };
        Ok(Self { scheme, host: host.to_owned(), port, path: path.to_owned() })
    }

    /// Host and port in the usual notation.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether the URL names this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The transport of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `tcp`: length-prefixed frames.
    Tcp,
    /// `tls` or `ssl`: length-prefixed frames inside TLS.
    Tls,
    /// `ws`: WebSocket.
    WebSocket,
    /// `wss`: WebSocket inside TLS.
    SecureWebSocket,
}

impl Scheme {
    /// Whether the connection is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SecureWebSocket)
    }

    /// Whether frames travel as WebSocket messages.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::SecureWebSocket)
    }

    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "tls" | "ssl" => Some(Self::Tls),
            "ws" => Some(Self::WebSocket),
            "wss" => Some(Self::SecureWebSocket),
            _ => None,
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Tcp | Self::Tls => 6662,
            Self::WebSocket => 80,
            Self::SecureWebSocket => 443,
        }
    }
}

/// The part of a URL that is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlFault {
    /// It does not begin with a supported scheme.
    Scheme,
    /// It holds a user or a password.
    Credentials,
    /// It names no host.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// There is a path without WebSocket, or one that HTTP cannot request.
    Path,
}

impl fmt::Display for UrlFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Scheme => {
                "the URL must begin with tcp://, tls://, ws:// or wss://, such as \
                 tcp://127.0.0.1:6662"
            }
            Self::Credentials => "the URL must not hold a user or a password",
            Self::Host => "the URL names no host, such as in tcp://127.0.0.1:6662",
            Self::Port => "the port in the URL must be a number from 1 to 65535",
            Self::Path => "the path in the URL makes no sense: only ws:// and wss:// have one",
        })
    }
}

impl std::error::Error for UrlFault {}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlFault> {
    let Some(bracketed) = authority.strip_prefix('[') else {
        return Ok(match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        });
    };
    let (host, rest) = bracketed.split_once(']').ok_or(UrlFault::Host)?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(UrlFault::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        for (url, scheme, host, port, path) in [
            ("tcp://127.0.0.1:6661", Scheme::Tcp, "127.0.0.1", 6661, "/"),
            ("tcp://broker/", Scheme::Tcp, "broker", 6662, "/"),
            ("TLS://broker", Scheme::Tls, "broker", 6662, "/"),
            ("ssl://[::1]:7", Scheme::Tls, "::1", 7, "/"),
            ("ws://broker", Scheme::WebSocket, "broker", 80, "/"),
            ("wss://[::1]/a/b?c", Scheme::SecureWebSocket, "::1", 443, "/a/b?c"),
        ] {
            let parsed = BrokerUrl::parse(url).unwrap();
            let expected = BrokerUrl { scheme, host: host.to_owned(), port, path: path.to_owned() };
            assert_eq!(parsed, expected, "{url}");
        }
        assert_eq!(BrokerUrl::parse("ws://[::1]:7").unwrap().address(), "[::1]:7");
        assert_eq!(BrokerUrl::parse("ws://b:7").unwrap().address(), "b:7");
    }

    // behaviour: options-checked
    #[test]
    fn faults_name_the_part() {
        for (url, fault) in [
            ("127.0.0.1:6662", UrlFault::Scheme),
            ("http://b", UrlFault::Scheme),
            ("tcp://me:hush@b", UrlFault::Credentials),
            ("tcp://", UrlFault::Host),
            ("tcp://:1", UrlFault::Host),
            ("tcp://[::1", UrlFault::Host),
            ("tcp://b:", UrlFault::Port),
            ("tcp://b:0", UrlFault::Port),
            ("tcp://::1", UrlFault::Host),
            ("tcp://b:65536", UrlFault::Port),
            ("tcp://[::1]x", UrlFault::Port),
            ("tcp://b/x", UrlFault::Path),
            ("ws://b/a b", UrlFault::Path),
        ] {
            assert_eq!(BrokerUrl::parse(url), Err(fault), "{url}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (url, loopback) in [
            ("tcp://127.0.0.1", true),
            ("tcp://127.9.9.9", true),
            ("tcp://[::1]", true),
            ("tcp://localhost", true),
            ("tcp://localhost.example", false),
            ("tcp://10.0.0.1", false),
        ] {
            assert_eq!(BrokerUrl::parse(url).unwrap().is_loopback(), loopback, "{url}");
        }
    }
}
