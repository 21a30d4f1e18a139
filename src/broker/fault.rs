//! What can be wrong with a request, as the client is told: a stable word, a sentence, and whether
//! it should come back.

use std::borrow::Cow;
use std::fmt;

use crate::classic::FrameFault;
use crate::limits::Exceeded;
use crate::stomp::{Name, ScanFault};

/// A request that was not honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The word that programs compare.
    pub code: Code,
    /// The sentence that people read.
    pub description: Cow<'static, str>,
    /// What becomes of the connection.
    pub disposition: Disposition,
    /// The field of [`Limits`] that was exceeded, where it was one.
    pub limit: Option<&'static str>,
}

impl Fault {
    /// A fault after which the connection stays.
    pub fn staying(code: Code, description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code, description.into(), Disposition::Stays)
    }

    /// A fault after which the connection closes.
    pub fn closing(code: Code, retry: Retry, description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code, description.into(), Disposition::Closes(retry))
    }

    /// A header that the command cannot do without.
    pub fn missing(name: Name) -> Self {
        let description = format!("the header {} is missing or empty", name.text());
        Self::closing(Code::MissingHeader, Retry::Never, description)
    }

    /// A header whose value makes no sense.
    pub fn malformed(name: Name, why: &str) -> Self {
        let description = format!("the header {} {why}", name.text());
        Self::closing(Code::MalformedHeader, Retry::Never, description)
    }

    /// A user's header line whose name a receiver could read as one of the broker's.
    pub fn disguised(name: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(&name[..name.len().min(SHOWN_NAME_BYTES_MAX)]);
        let description = format!(
            "the header name \"{}\" is empty, or reads as one that only the broker gives, to clients \
             that trim or do not unescape names",
            shown.escape_debug()
        );
        Self::closing(Code::MalformedHeader, Retry::Never, description)
    }

    /// A bound that was exceeded.
    pub fn exceeded(exceeded: Exceeded) -> Self {
        Self::closing(Code::LimitExceeded, Retry::Never, exceeded.to_string())
            .naming(exceeded.limit)
    }

    /// More was left unread than the named limit allows.
    pub fn too_slow(queued_bytes: u32, limit: &'static str) -> Self {
        let description = format!("{queued_bytes} bytes are queued for you, which exceeds {limit}");
        Self::closing(Code::SlowConsumer, Retry::Now, description).naming(limit)
    }

    /// CONNECT that did not arrive within the named limit.
    pub fn timed_out(limit: &'static str) -> Self {
        let description = format!("CONNECT did not arrive in time ({limit})");
        Self::closing(Code::TimedOut, Retry::Later, description).naming(limit)
    }

    /// A client of which nothing was heard within the named limit, though it was asked.
    pub fn silent(limit: &'static str) -> Self {
        let description = format!("nothing was heard from you in time, not even a pong ({limit})");
        Self::closing(Code::TimedOut, Retry::Now, description).naming(limit)
    }

    /// The same, where it is for now that the client is refused.
    #[must_use]
    pub fn later(self) -> Self {
        Self { disposition: Disposition::Closes(Retry::Later), ..self }
    }

    /// Whether the client should come back, where the connection closes in any case.
    pub fn retry(&self) -> Retry {
        match self.disposition {
            Disposition::Stays => Retry::Never,
            Disposition::Closes(retry) => retry,
        }
    }

    /// Why a connection ends that is told of this.
    pub fn close_reason(&self) -> CloseReason {
        match (self.code, self.limit) {
            (Code::TimedOut, Some(limit)) => CloseReason::TimedOut(limit),
            (Code::LimitExceeded, Some(limit)) => CloseReason::Exceeded(limit),
            (Code::SlowConsumer, Some(limit)) => CloseReason::TooSlow(limit),
            (code, _) => CloseReason::Refused(code),
        }
    }

    fn new(code: Code, description: Cow<'static, str>, disposition: Disposition) -> Self {
        Self { code, description, disposition, limit: None }
    }

    fn naming(self, limit: &'static str) -> Self {
        Self { limit: Some(limit), ..self }
    }
}

/// Of the name of a header line in an ERROR.
const SHOWN_NAME_BYTES_MAX: usize = 120;

impl From<FrameFault> for Fault {
    fn from(fault: FrameFault) -> Self {
        let (code, description) = match fault {
            FrameFault::MalformedCommand => {
                (Code::MalformedCommand, "the command holds a blank or a NUL")
            }
            FrameFault::UnknownCommand => (
                Code::UnknownCommand,
                "the command is none of CONNECT, SEND, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT",
            ),
            FrameFault::MalformedHeader => (
                Code::MalformedHeader,
                "a header line has no colon, nothing after it, or a NUL in it",
            ),
            FrameFault::Exceeds(exceeded) => return Self::exceeded(exceeded),
        };
        Self::closing(code, Retry::Never, description)
    }
}

impl From<ScanFault> for Fault {
    fn from(fault: ScanFault) -> Self {
        let (code, description) = match fault {
            ScanFault::UnknownCommand => (Code::UnknownCommand, "the command is not known"),
            ScanFault::NoName => {
                (Code::MalformedHeader, "a header line has no colon, or nothing before it")
            }
            ScanFault::NulInHeader => (Code::MalformedHeader, "a NUL stands in the header"),
            ScanFault::NotUtf8 => (Code::MalformedHeader, "the header is not UTF-8"),
            ScanFault::MalformedLength => {
                (Code::MalformedHeader, "the header content-length is no number")
            }
            ScanFault::NoNul => (Code::MalformedFrame, "no NUL follows the body"),
            ScanFault::StrayByte => {
                (Code::MalformedFrame, "something else than line ends stands between frames")
            }
            ScanFault::Exceeds(exceeded) => return Self::exceeded(exceeded),
        };
        Self::closing(code, Retry::Never, description)
    }
}

/// The stable words of `error-code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The command is no word.
    MalformedCommand,
    /// The command is none of ours.
    UnknownCommand,
    /// A header line is none.
    MalformedHeader,
    /// The login id is in use under another profile.
    WrongProfile,
    /// A newer connection took the session over.
    TakenOver,
    /// The login id is in use, and its profile does not yield.
    AlreadyLogged,
    /// The profile does not have the right.
    NoRights,
    /// The client to watch is not logged in.
    NothingToSubscribe,
    /// The kind of destination cannot be subscribed.
    InvalidDestinationType,
    /// The regular expression is none.
    InvalidRegex,
    /// The application key is wrong.
    InvalidApplicationKey,
    /// The profile key is wrong.
    InvalidProfileKey,
    /// A header that the command needs is missing.
    MissingHeader,
    /// Nothing but CONNECT is accepted before login.
    NotLoggedIn,
    /// The session id is another connection's.
    WrongSession,
    /// Nobody is at the destination, or nobody who listens.
    NoSuchDestination,
    /// A bound is exceeded.
    LimitExceeded,
    /// The client did not take its messages fast enough.
    SlowConsumer,
    /// The broker is shutting down.
    Draining,
    /// The client did not do in time what it had to.
    TimedOut,
    /// The listener does not serve this protocol.
    ProtocolNotServed,
    /// The bytes are none of the protocols'.
    MalformedFrame,
    /// No version of the protocol is in common.
    UnsupportedVersion,
    /// The virtual host is not served.
    UnknownHost,
    /// A subscription, a transaction or a message is not known, or is known already.
    UnknownId,
}

impl Code {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        self.number_and_word().1
    }

    /// The number in the close codes of WebSocket, below 100. It is on the wire: it never changes.
    pub(crate) fn number(self) -> u16 {
        self.number_and_word().0
    }

    fn number_and_word(self) -> (u16, &'static str) {
        match self {
            Self::MalformedCommand => (0, "INVALID_FORMAT_COMMAND"),
            Self::UnknownCommand => (1, "UNKNOWN_COMMAND"),
            Self::MalformedHeader => (2, "UNKNOWN_FORMAT_HEADER"),
            Self::WrongProfile => (3, "WRONG_PROFILE_REGISTERED"),
            Self::TakenOver => (4, "NEW_CONNECTION_LOGGED"),
            Self::AlreadyLogged => (5, "LOGIN_ID_ALREADY_LOGGED"),
            Self::NoRights => (6, "PROF_NO_RIGHTS"),
            Self::NothingToSubscribe => (7, "NO_DESTINATION_SUB"),
            Self::InvalidDestinationType => (8, "INVALID_DEST_TYPE"),
            Self::InvalidRegex => (9, "INVALID_REGEX"),
            Self::InvalidApplicationKey => (10, "INVALID_APP_KEY"),
            Self::InvalidProfileKey => (11, "INVALID_PROFILE_KEY"),
            Self::MissingHeader => (12, "MISSING_HEADER"),
            Self::NotLoggedIn => (13, "NOT_LOGGED_IN"),
            Self::WrongSession => (14, "WRONG_SESSION"),
            Self::NoSuchDestination => (15, "NO_SUCH_DESTINATION"),
            Self::LimitExceeded => (16, "LIMIT_EXCEEDED"),
            Self::SlowConsumer => (17, "SLOW_CONSUMER"),
            Self::Draining => (18, "DRAINING"),
            Self::TimedOut => (19, "TIMED_OUT"),
            Self::ProtocolNotServed => (20, "PROTOCOL_NOT_SERVED"),
            Self::MalformedFrame => (21, "INVALID_FORMAT_FRAME"),
            Self::UnsupportedVersion => (22, "UNSUPPORTED_VERSION"),
            Self::UnknownHost => (23, "UNKNOWN_HOST"),
            Self::UnknownId => (24, "UNKNOWN_ID"),
        }
    }
}

/// What becomes of the connection whose client is told of a fault. In the standard dialect it closes in
/// any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It goes on as before.
    Stays,
    /// It closes, and the client should come back or not.
    Closes(Retry),
}

/// Whether a client whose connection closes should come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request would be refused again.
    Never,
    /// Refused for now.
    Later,
    /// Taken away through no fault of the client.
    Now,
}

impl Retry {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        self.number_and_word().1
    }

    /// The hundreds in the close codes of WebSocket, above 4000. It is on the wire: it never changes.
    pub(crate) fn number(self) -> u16 {
        self.number_and_word().0
    }

    fn number_and_word(self) -> (u16, &'static str) {
        match self {
            Self::Never => (0, "never"),
            Self::Later => (1, "later"),
            Self::Now => (2, "now"),
        }
    }
}

/// Why a connection ended, as the log and presence events say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client logged out.
    LoggedOut,
    /// The client closed the connection without logging out.
    EndOfStream,
    /// The connection broke.
    Lost,
    /// The named limit on time was exceeded.
    TimedOut(&'static str),
    /// A newer connection took the session over.
    TakenOver,
    /// The client was told that it exceeded the named limit.
    Exceeded(&'static str),
    /// The client was told that it left more unread than the named limit allows.
    TooSlow(&'static str),
    /// The client was told of a fault of another kind.
    Refused(Code),
    /// What arrived was no TLS, HTTP or WebSocket that we accept.
    Transport(&'static str),
    /// A plain HTTP request was answered.
    Answered,
}

impl CloseReason {
    /// The word for it in an ERROR, where there is one.
    pub fn code(self) -> Option<Code> {
        match self {
            Self::TimedOut(_) => Some(Code::TimedOut),
            Self::TakenOver => Some(Code::TakenOver),
            Self::Exceeded(_) => Some(Code::LimitExceeded),
            Self::TooSlow(_) => Some(Code::SlowConsumer),
            Self::Refused(code) => Some(code),
            Self::LoggedOut
            | Self::EndOfStream
            | Self::Lost
            | Self::Transport(_)
            | Self::Answered => None,
        }
    }

    /// How presence events say it: a word that programs may compare.
    pub fn presence_word(self) -> &'static str {
        match self {
            Self::LoggedOut => "logout",
            Self::EndOfStream | Self::Answered => "closed",
            Self::Lost => "lost",
            Self::TimedOut(_) => "timed-out",
            Self::TakenOver => "taken-over",
            Self::TooSlow(_) => "slow-consumer",
            Self::Refused(Code::Draining) => "draining",
            Self::Exceeded(_) | Self::Refused(_) | Self::Transport(_) => "refused",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(out, "timed-out:{limit}"),
            Self::Exceeded(limit) => write!(out, "{}:{limit}", Code::LimitExceeded.word()),
            Self::TooSlow(limit) => write!(out, "{}:{limit}", Code::SlowConsumer.word()),
            Self::Refused(code) => out.write_str(code.word()),
            Self::Transport(what) => write!(out, "transport:{what}"),
            Self::Answered => out.write_str("answered"),
            other => out.write_str(other.presence_word()),
        }
    }
}
