//! The errors of a client, with place, reason and remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::CertificateError;

use crate::event::{ServerError, TransactionId};
use crate::frame::{EncodeFault, FrameFault};
use crate::printable::Printable;
use crate::url::UrlFault;

/// Why a call of a client failed. It never holds keys.
#[derive(Debug)]
pub enum ClientError {
    /// The URL is malformed.
    Url(UrlFault),
    /// The named option was not given.
    Missing(&'static str),
    /// The named option is zero, so that no call could succeed.
    Zero(&'static str),
    /// The host's name has no address.
    Resolve {
        /// The host in the URL.
        host: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// A connection cannot be made.
    Connect {
        /// The last address that was tried.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// There are no authorities to trust.
    Trust(TrustFault),
    /// The TLS handshake failed, most often because of the certificate.
    Tls {
        /// Host and port in the URL.
        address: String,
        /// The reason.
        source: rustls::Error,
    },
    /// The server refuses the WebSocket or violates its protocol.
    WebSocket {
        /// Host and port in the URL.
        address: String,
        /// The reason.
        source: Box<tungstenite::Error>,
    },
    /// The frame cannot be sent, and was not.
    Unsendable(EncodeFault),
    /// A malformed frame arrived.
    Malformed(FrameFault),
    /// An unexpected frame arrived.
    Unexpected {
        /// Its command.
        command: String,
        /// What was expected.
        awaited: &'static str,
    },
    /// The broker refused the request.
    Refused(Box<ServerError>),
    /// The broker did not answer in time.
    NoAnswer {
        /// What was expected.
        awaited: &'static str,
    },
    /// Events that arrived while an answer was awaited fill the queue. None is lost: take events,
    /// then wait again.
    QueueFull {
        /// The answer that was awaited.
        transaction: TransactionId,
    },
    /// In the standard dialect, messages that arrived while an answer was awaited fill the queue: take
    /// messages and continue. Whether the call had an effect is not known; its answer is ignored.
    Flooded,
    /// There are too many unanswered requests to remember another one.
    TooManyUnanswered,
    /// The broker ended the connection.
    Ended {
        /// What was expected.
        awaited: &'static str,
    },
    /// The connection had already ended.
    Closed,
    /// The connection broke.
    Lost(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(fault) => fault.fmt(out),
            Self::Missing(option) => write!(out, "no {option} was given"),
            Self::Zero(option) => write!(out, "the option {option} must be more than zero"),
            Self::Resolve { host, source } => write!(out, "no address for host {host:?}: {source}"),
            Self::Connect { address, source } => match source.kind() {
                io::ErrorKind::ConnectionRefused => {
                    write!(out, "connection refused at {address}: is the broker running?")
                }
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    write!(out, "no connection to {address} in time: is the address right?")
                }
                _ => write!(out, "no connection to {address}: {source}"),
            },
            Self::Trust(fault) => fault.fmt(out),
            Self::Tls { address, source } => fmt_tls(out, address, source),
            Self::WebSocket { address, source } => fmt_websocket(out, address, source),
            Self::Unsendable(fault) => fault.fmt(out),
            Self::Malformed(fault) => fault.fmt(out),
            Self::Unexpected { command, awaited } => {
                write!(out, "the broker sent {command:?} in place of {awaited}")
            }
            Self::Refused(error) => error.fmt(out),
            Self::NoAnswer { awaited } => write!(out, "no answer in time: {awaited} did not come"),
            Self::QueueFull { .. } => {
                out.write_str("too many messages arrived before the answer: take them, wait again")
            }
            Self::Flooded => out.write_str("too many messages arrived before the answer"),
            Self::TooManyUnanswered => {
                out.write_str("too many messages are unanswered: take the answers first")
            }
            Self::Ended { awaited: "the TLS handshake" } => out.write_str(
                "the connection was closed during the TLS handshake: does this port speak TLS?",
            ),
            Self::Ended { awaited: "CONNECTED" } => out.write_str(
                "the connection was closed before the login was answered: \
                 does this port want TLS, or not speak this dialect?",
            ),
            Self::Ended { awaited } => {
                write!(out, "the broker closed the connection, {awaited} did not come")
            }
            Self::Closed => out.write_str("the connection is closed: connect again"),
            Self::Lost(source) => write!(out, "the connection to the broker was lost: {source}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source, .. } | Self::Connect { source, .. } | Self::Lost(source) => {
                Some(source)
            }
            Self::Tls { source, .. } => Some(source),
            Self::WebSocket { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<EncodeFault> for ClientError {
    fn from(fault: EncodeFault) -> Self {
        Self::Unsendable(fault)
    }
}

impl From<FrameFault> for ClientError {
    fn from(fault: FrameFault) -> Self {
        Self::Malformed(fault)
    }
}

/// Why there are no authorities to trust.
#[derive(Debug)]
pub enum TrustFault {
    /// The file with the authorities cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The given authorities hold no certificate, or a malformed one.
    NoCertificate,
    /// No authorities were given, and the system's were not found.
    NoSystemBundle,
}

impl fmt::Display for TrustFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(out, "the CA file {} cannot be read: {source}", path.display())
            }
            Self::NoCertificate => out
                .write_str("the CA holds no usable certificate in PEM, such as certs/ca.pem does"),
            Self::NoSystemBundle => {
                out.write_str("there is no CA to trust: pass one, such as --ca certs/ca.pem")
            }
        }
    }
}

fn fmt_tls(out: &mut fmt::Formatter<'_>, address: &str, source: &rustls::Error) -> fmt::Result {
    match source {
        rustls::Error::InvalidCertificate(fault) => fmt_certificate(out, address, fault),
        rustls::Error::InvalidMessage(_) => {
            write!(out, "{address} does not answer in TLS: does this port speak it?")
        }
        _ => write!(out, "no TLS with {address}: {source}"),
    }
}

fn fmt_certificate(
    out: &mut fmt::Formatter<'_>,
    address: &str,
    fault: &CertificateError,
) -> fmt::Result {
    match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => write!(
            out,
            "certificate of {address} not trusted: pass the CA that signed it, such as \
             --ca certs/ca.pem"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            write!(
                out,
                "certificate of {address} not made for this host: use a host name that it was \
                 made for"
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            write!(out, "certificate of {address} expired: the broker needs a new one")
        }
        _ => write!(out, "certificate of {address} not trusted: {fault}"),
    }
}

/// Bytes that are shown of the reason in the body of an answer.
const REASON_BYTES_MAX: usize = 200;

fn fmt_websocket(
    out: &mut fmt::Formatter<'_>,
    address: &str,
    source: &tungstenite::Error,
) -> fmt::Result {
    use tungstenite::error::ProtocolError;
    match source {
        tungstenite::Error::Http(response) => {
            let status = response.status();
            write!(out, "{address} answered the WebSocket request with status {status}: ")?;
            // The reason if it is a broker; otherwise perhaps the beginning of a page.
            let body = response.body().as_deref().unwrap_or_default().trim_ascii();
            let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
            match line {
                b"" => out.write_str("is the path right?"),
                _ => write!(out, "{}", Printable(&line[..line.len().min(REASON_BYTES_MAX)])),
            }
        }
        tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            write!(out, "{address} does not accept our WebSocket subprotocol: is a broker there?")
        }
        tungstenite::Error::Protocol(ProtocolError::HttparseError(_)) => {
            write!(out, "{address} does not answer in HTTP: does this port speak WebSocket?")
        }
        _ => write!(out, "no WebSocket with {address}: {source}"),
    }
}
