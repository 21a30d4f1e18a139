//! Faults of requests as clients are told of them: a stable word, a sentence, and whether to reconnect.

use std::borrow::Cow;
use std::fmt;

use crate::classic::FrameFault;
use crate::limits::Exceeded;
use crate::stomp::{Name, ScanFault};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The word for programs.
    pub code: Code,
    /// The sentence for people.
    pub description: Cow<'static, str>,
    /// What becomes of the connection.
    pub disposition: Disposition,
    /// The field of [`Limits`] that was exceeded, if it was one.
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

    /// A required header is missing or empty.
    pub fn missing(name: Name) -> Self {
        let description = format!("the header {} is missing or empty", name.text());
        Self::closing(Code::MissingHeader, Retry::Never, description)
    }

    /// A header has an invalid value.
    pub fn malformed(name: Name, why: &str) -> Self {
        let description = format!("the header {} {why}", name.text());
        Self::closing(Code::MalformedHeader, Retry::Never, description)
    }

    /// A header line of a user has a name that a receiver could take for one of the broker's.
    pub fn disguised(name: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(&name[..name.len().min(SHOWN_NAME_BYTES_MAX)]);
        let description = format!(
            "the header name \"{}\" is empty, or reads as one that only the broker gives, to clients \
             that trim or do not unescape names",
            shown.escape_debug()
        );
        Self::closing(Code::MalformedHeader, Retry::Never, description)
    }

    /// A limit was exceeded.
    pub fn exceeded(exceeded: Exceeded) -> Self {
        Self::closing(Code::LimitExceeded, Retry::Never, exceeded.to_string())
            .naming(exceeded.limit)
    }

    /// All clients together have reached a limit, the client that is told holds most, and another one needs some.
    pub fn holding_most(exceeded: Exceeded) -> Self {
        let Exceeded { limit, max } = exceeded;
        let description =
            format!("you hold most of what {limit} ({max}) allows, and another client needs some");
        Self { description: description.into(), ..Self::exceeded(exceeded).later() }
    }

    /// The broker shuts down.
    pub fn shutting_down() -> Self {
        Self::closing(Code::Draining, Retry::Now, "the broker is shutting down")
    }

    /// More bytes are queued to the client than the named limit allows.
    pub fn too_slow(queued_bytes: u32, limit: &'static str) -> Self {
        let description = format!("{queued_bytes} bytes are queued for you, which exceeds {limit}");
        Self::closing(Code::SlowConsumer, Retry::Now, description).naming(limit)
    }

    /// A frame for the client was dropped, as its queue was above the named limit.
    pub fn overflowed(limit: &'static str) -> Self {
        let description = format!("a frame for you was dropped, as your queue was full ({limit})");
        Self::closing(Code::SlowConsumer, Retry::Now, description).naming(limit)
    }

    /// CONNECT did not arrive within the named limit.
    pub fn timed_out(limit: &'static str) -> Self {
        let description = format!("CONNECT did not arrive in time ({limit})");
        Self::closing(Code::TimedOut, Retry::Later, description).naming(limit)
    }

    /// A login waited for longer than the named limit, as others had to be done with first.
    pub fn out_of_patience(limit: &'static str) -> Self {
        let description =
            format!("the broker had too much to do for others to log you in in time ({limit})");
        Self::closing(Code::TimedOut, Retry::Later, description).naming(limit)
    }

    /// A newer connection has the client's session.
    pub fn taken_over() -> Self {
        let description = "a newer connection logged in with your login id and profile";
        Self::closing(Code::TakenOver, Retry::Never, description)
    }

    /// Nothing arrived from the client within the named limit, although it was pinged.
    pub fn silent(limit: &'static str) -> Self {
        let description = format!("nothing was heard from you in time, not even a pong ({limit})");
        Self::closing(Code::TimedOut, Retry::Now, description).naming(limit)
    }

    /// A frame that the client has begun did not arrive within the named limit.
    pub fn unfinished(limit: &'static str) -> Self {
        let description = format!("a frame that was begun did not arrive in time ({limit})");
        Self::closing(Code::TimedOut, Retry::Now, description).naming(limit)
    }

    /// The fault with the advice to retry later.
    #[must_use]
    pub fn later(self) -> Self {
        Self { disposition: Disposition::Closes(Retry::Later), ..self }
    }

    /// The fault with the advice to retry later, on the same connection where the dialect allows it.
    #[must_use]
    pub fn staying_if_classic(self) -> Self {
        Self { disposition: Disposition::MayStay, ..self }
    }

    /// Whether a connection of the classic dialect stays open.
    pub fn stays_in_classic(&self) -> bool {
        matches!(self.disposition, Disposition::Stays | Disposition::MayStay)
    }

    /// The advice to the client if the connection closes in any case.
    pub fn retry(&self) -> Retry {
        match self.disposition {
            Disposition::Stays => Retry::Never,
            Disposition::Closes(retry) => retry,
            Disposition::MayStay => Retry::Later,
        }
    }

    /// The reason for closing a connection because of this fault.
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

/// Bytes of a header line's name that an ERROR shows.
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
            FrameFault::ReturnInHeader => {
                (Code::MalformedHeader, "a carriage return stands within a header line")
            }
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
    /// The command holds a blank or a NUL.
    MalformedCommand,
    /// The command is unknown.
    UnknownCommand,
    /// A header line or the value of a header is malformed.
    MalformedHeader,
    /// The login id is in use under another profile.
    WrongProfile,
    /// A newer connection took the session over.
    TakenOver,
    /// The login id is in use, and its profile does not yield.
    AlreadyLogged,
    /// The profile does not have the right.
    NoRights,
    /// The destination to subscribe to does not exist: its client is not logged in, or its name is in no
    /// space.
    NothingToSubscribe,
    /// The client cannot subscribe to this kind of destination.
    InvalidDestinationType,
    /// The regular expression does not compile.
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
    /// The destination has no client, or its client does not listen.
    NoSuchDestination,
    /// A limit is exceeded.
    LimitExceeded,
    /// The client did not take its messages fast enough.
    SlowConsumer,
    /// The broker is shutting down.
    Draining,
    /// CONNECT, a heart-beat or a pong did not arrive in time.
    TimedOut,
    /// The listener does not serve this protocol.
    ProtocolNotServed,
    /// The bytes are not a valid frame.
    MalformedFrame,
    /// No version of the protocol is in common.
    UnsupportedVersion,
    /// The virtual host is not served.
    UnknownHost,
    /// The id of a subscription, a transaction or a message is unknown, or is in use already.
    UnknownId,
}

impl Code {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        self.number_and_word().1
    }

    /// The last two digits of the WebSocket close code. They are on the wire and never change.
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

/// What becomes of a connection after a fault. In the standard dialect it closes in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It stays open.
    Stays,
    /// It closes, with this advice.
    Closes(Retry),
    /// It stays open in the classic dialect, where the client may try again; in the standard one it closes with the
    /// advice to retry later.
    MayStay,
}

/// The advice whether to reconnect after an ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request would be refused again.
    Never,
    /// The refusal is temporary.
    Later,
    /// The client may reconnect at once.
    Now,
}

impl Retry {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        self.number_and_word().1
    }

    /// The hundreds of the WebSocket close code, above 4000. They are on the wire and never change.
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

/// Why a connection ended, for the log and presence events.
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
    /// The client exceeded the named limit.
    Exceeded(&'static str),
    /// More bytes were queued to the client than the named limit allows.
    TooSlow(&'static str),
    /// Another fault, of which the client was told.
    Refused(Code),
    /// The client violated TLS, HTTP or WebSocket, or its transport is not served.
    Transport(&'static str),
    /// A plain HTTP request was answered.
    Answered,
}

impl CloseReason {
    /// The `error-code` of the ERROR that the client got, if it got one.
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

    /// The word in presence events, for programs.
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
