//! Faults of a configuration: the offence and its place.
//!
//! They never hold the value of a key, nor a line of the file.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::broker::KeyFault;
use crate::input::shown;

/// An offence in a configuration, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where to look.
    pub place: Place,
    /// What to change.
    pub offence: Offence,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.offence)
    }
}

impl std::error::Error for ConfigFault {}

/// The place of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The configuration file.
    File {
        /// As the user named it.
        path: PathBuf,
        /// Counted from one; absent when the file does not mention the key.
        line: Option<usize>,
        /// Dotted; absent when the offence is not about a key.
        key: Option<String>,
    },
    /// A command line argument.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// A setting that is not in a file, by the name that it has in one.
    Setting(String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, key } => {
                write!(out, "{}", path.display())?;
                if let Some(line) = line {
                    write!(out, ":{line}")?;
                }
                if let Some(key) = key {
                    write!(out, ": {key}")?;
                }
                Ok(())
            }
            Self::Flag(name) => out.write_str(name),
            Self::Environment(name) | Self::Setting(name) => out.write_str(name),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offence {
    /// The configuration file cannot be read; the system's reason.
    Unreadable(String),
    /// The configuration file is not TOML, or a value is malformed; the parser's reason.
    NotUnderstood(String),
    /// There is no such setting; the one that was probably meant.
    UnknownKey(Option<String>),
    /// No key is set by that variable; the one that was probably meant.
    UnknownVariable(Option<String>),
    /// `[keys]` holds a value other than text, or a key that does not exist; the one that was
    /// probably meant.
    NotAKey(Option<String>),
    /// A host in `virtual_hosts` that a header cannot name.
    NotAHost,
    /// A listener's name that is blank.
    NoName,
    /// Two listeners share a name.
    NameTwice(String),
    /// A listener has no address.
    NoAddress,
    /// A listener's address is not of the form `IP:port`.
    NotAnAddress,
    /// A pattern of `[rights]` that is malformed, and why.
    NotAPattern(String, &'static str),
    /// A pattern of `[rights]` that no destination's name can match.
    StandsForNothing(String),
    /// A pattern of `subscribe` under `[rights]` that no topic's or queue's name can match.
    StandsForNoTopic(String),
    /// A queue's name does not begin with `/queue/`, or holds wildcards.
    NotAQueue,
    /// A queue's name is longer than this, which `destination_bytes_max` allows.
    QueueTooLong(u32),
    /// No profile may subscribe to the queue.
    QueueOfNobody,
    /// There is no listener.
    NoListener,
    /// Two listeners share an address.
    AddressTwice(SocketAddr),
    /// A listener serves no protocol.
    NoProtocol,
    /// A key is given both by its value and by a file.
    KeyTwice,
    /// The file that holds a key cannot be used: its name, and why.
    KeyFile(PathBuf, String),
    /// The file that holds a key is not found, for this reason, and its name may be the key itself.
    KeyForFile(String),
    /// Some keys are given, and others are not.
    KeysMissing {
        /// The names of those that are not.
        missing: Vec<&'static str>,
        /// Environment variables that give some, and whether they are empty.
        variables: Vec<(&'static str, bool)>,
    },
    /// A key breaks the rules of the protocol.
    Key(KeyFault),
    /// A well-known key, with a listener that other machines can reach.
    WellKnownKey(SocketAddr),
    /// A reload would replace own keys by well-known ones.
    KeysHeld,
    /// A reload would replace an own certificate by a development one.
    CertificateHeld,
    /// No keys, with a listener that other machines can reach.
    NoKeys(SocketAddr),
    /// A certificate without its key, or the reverse; the one that is missing.
    TlsIncomplete(&'static str),
    /// No certificate, with a listener for TLS that other machines can reach.
    NoCertificate(SocketAddr),
    /// No certificate, with a listener for TLS; in a configuration made in code.
    CertificateMissing(SocketAddr),
    /// `--dev` together with a listener that other machines can reach.
    DevelopmentExposed(SocketAddr),
    /// `--dev` together with own keys or an own certificate.
    DevelopmentOverruled,
    /// A core that the process may not run on, and those that it may.
    NoCore(u64, Vec<usize>),
    /// A setting that only the named system supports.
    OnlyOn(&'static str),
    /// A bound must not be zero.
    Zero,
    /// A bound is too large: its value, the largest allowed, and why.
    AtMost(u64, u64, &'static str),
    /// A bound is too small: its value, the smallest allowed, and why.
    AtLeast(u64, u64, &'static str),
    /// Another bound, which has its default, is too large for this one: its name, its value, the largest allowed.
    NeedsAtMost(String, u64, u64),
    /// Other bounds, which have their defaults, are too small for this one: their names and values, and the smallest
    /// allowed.
    NeedsAtLeast(Vec<(String, u64)>, u64),
    /// What clients may occupy by these bounds together is more memory than may be named.
    Memory(&'static str),
}

impl fmt::Display for Offence {
    #[expect(clippy::too_many_lines, reason = "a table of texts")]
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(reason) | Self::NotUnderstood(reason) => out.write_str(reason),
            Self::UnknownKey(meant) => {
                out.write_str("there is no such setting")?;
                fmt_meant(out, meant.as_deref())
            }
            Self::UnknownVariable(meant) => {
                out.write_str("no key is set by this variable")?;
                fmt_meant(out, meant.as_deref())
            }
            Self::NotAKey(meant) => {
                out.write_str(
                    "not a key that exists, or not text in quotes; known are application, agent, \
                     super_agent, service, admin, and each of them with _file",
                )?;
                fmt_meant(out, meant.as_deref())
            }
            Self::NotAHost => out.write_str(
                "not a host that the header host of CONNECT could name, such as \"broker.example\"",
            ),
            Self::NameTwice(name) => {
                write!(
                    out,
                    "another listener is called {name:?} already; logs tell them apart by it"
                )
            }
            Self::NoName => out.write_str("a name needs letters that can be seen"),
            Self::NotAPattern(text, why) => write!(out, "{text:?} is no pattern: {why}"),
            Self::StandsForNothing(text) => write!(
                out,
                "{text:?} stands for no destination: names begin with /agent/, /service/ or /admin/ \
                 (clients), /topic/ or /queue/"
            ),
            Self::StandsForNoTopic(text) => write!(
                out,
                "{text:?} stands for no topic and no queue; who may watch which clients follows from \
                 the profiles and is not set here"
            ),
            Self::NotAQueue => out.write_str("a queue is written like \"/queue/name\""),
            Self::QueueTooLong(max) => write!(
                out,
                "longer than the {max} bytes that limits.destination_bytes_max allows, so that nobody could \
                 subscribe to it"
            ),
            Self::QueueOfNobody => out.write_str(
                "no profile may subscribe to this queue, so that nobody could get what is moved there: add it to \
                 subscribe under [rights]",
            ),
            Self::NoAddress => out.write_str(
                "missing: an IP address and a port, such as \"127.0.0.1:6661\" or \"[::1]:6661\"",
            ),
            Self::NotAnAddress => out.write_str(
                "not an address and a port, such as 127.0.0.1:6661 or [::1]:6661; host names are \
                 not resolved",
            ),
            Self::NoListener => out.write_str("there is no listener"),
            Self::AddressTwice(address) => write!(out, "{address} is listed twice"),
            Self::NoProtocol => out.write_str("the listener serves no protocol"),
            Self::KeyTwice => out.write_str("the key and the file that holds it are both given"),
            Self::KeyFile(path, reason) => write!(out, "{}: {reason}", shown(path)),
            Self::KeyForFile(reason) => write!(
                out,
                "{reason}; its name is not shown, as it may be the key itself, which belongs under \
                 the name without _file"
            ),
            Self::KeysMissing { missing, variables } => {
                write!(out, "some keys are set but not {}", missing.join(", "))?;
                for (name, is_empty) in variables {
                    let empty = if *is_empty { ", and is empty" } else { "" };
                    write!(out, "; {name} is set in the environment{empty}")?;
                }
                out.write_str("; set all five, or none to use the development keys")
            }
            Self::Key(fault) => fault.fmt(out),
            Self::WellKnownKey(address) => write!(
                out,
                "this is a well-known development key, refused because {address} is not a \
                 loopback address; choose a key of your own, or listen on 127.0.0.1"
            ),
            Self::KeysHeld => out.write_str(
                "these would be the development keys, which everybody knows, and the broker runs \
                 with keys of its own: to go back to them, start it again",
            ),
            Self::CertificateHeld => out.write_str(
                "no certificate is set, and the broker runs with one of its own: to go back to a \
                 development certificate, start it again",
            ),
            Self::NoKeys(address) => write!(
                out,
                "no keys are set, and the development keys are refused because {address} is not \
                 a loopback address; set all five under [keys] or in COM_BROKER_KEY_APPLICATION, \
                 COM_BROKER_KEY_AGENT, COM_BROKER_KEY_SUPER_AGENT, COM_BROKER_KEY_SERVICE and \
                 COM_BROKER_KEY_ADMIN, or listen on 127.0.0.1"
            ),
            Self::TlsIncomplete(missing) => {
                write!(out, "the certificate and its key belong together; {missing} is missing")
            }
            Self::NoCertificate(address) => write!(
                out,
                "no certificate is set, and a development certificate is refused because \
                 {address} is not a loopback address; set certificate and key under [tls], or \
                 tls = \"off\" for that listener"
            ),
            Self::CertificateMissing(address) => write!(
                out,
                "no certificate is set, and the listener at {address} takes TLS; set one, or no TLS \
                 for that listener"
            ),
            Self::DevelopmentExposed(address) => write!(
                out,
                "development keys and certificates are for loopback addresses, and {address} is \
                 none"
            ),
            Self::DevelopmentOverruled => out.write_str(
                "development mode was asked for, but keys or a certificate of your own are set; \
                 drop one of the two",
            ),
            Self::NoCore(core, cores) if cores.is_empty() => {
                write!(
                    out,
                    "core {core} cannot be chosen: the system does not say what cores it has"
                )
            }
            Self::NoCore(core, cores) => {
                let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
                let cores = cores.join(", ");
                write!(out, "there is no core {core} that the broker may run on; there are {cores}")
            }
            Self::OnlyOn(system) => write!(out, "only {system} has this; leave it out here"),
            Self::Zero => out.write_str("must not be zero"),
            Self::AtMost(value, max, why) => write!(out, "{value} is more than {max}, {why}"),
            Self::AtLeast(value, min, why) => write!(out, "{value} is less than {min}, {why}"),
            Self::NeedsAtMost(name, value, max) => fmt_need(out, name, *value, ("most", *max)),
            Self::NeedsAtLeast(bounds, min) => match &bounds[..] {
                [(name, value)] => fmt_need(out, name, *value, ("least", *min)),
                _ => fmt_needs(out, bounds, *min),
            },
            Self::Memory(bounds) => write!(out, "{bounds} is more than 256 TiB"),
        }
    }
}

fn fmt_need(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    value: u64,
    (least_or_most, bound): (&str, u64),
) -> fmt::Result {
    let (value, bound) = (amount(name, value), amount(name, bound));
    write!(
        out,
        "needs limits.{name} of at {least_or_most} {bound}, and that is {value} by default: set it too"
    )
}

fn fmt_needs(out: &mut fmt::Formatter<'_>, bounds: &[(String, u64)], min: u64) -> fmt::Result {
    out.write_str("needs more room, set these as well:")?;
    for (place, (name, value)) in bounds.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        write!(out, "{comma} limits.{name} (now {})", amount(name, *value))?;
    }
    let name = bounds.first().map_or("", |(name, _)| name);
    write!(out, ", each at least {}", amount(name, min))
}

/// The value of a bound, for people.
fn amount(name: &str, value: u64) -> String {
    match value {
        _ if !name.contains("bytes") => value.to_string(),
        0 => "0".into(),
        _ if value.is_multiple_of(1 << 20) => format!("{} MiB", value >> 20),
        _ if value.is_multiple_of(1 << 10) => format!("{} KiB", value >> 10),
        _ => format!("{value} bytes"),
    }
}

fn fmt_meant(out: &mut fmt::Formatter<'_>, meant: Option<&str>) -> fmt::Result {
    match meant {
        Some(meant) => write!(out, "; did you mean {meant}?"),
        None => Ok(()),
    }
}
