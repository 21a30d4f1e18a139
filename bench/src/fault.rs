//! Why a run failed, and the exit code for it.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The reason of a failure.
#[derive(Debug)]
pub enum Fault {
    /// The command line, or a file that it names, asks for something that cannot be done.
    Usage(String),
    /// The system refused something.
    Io {
        /// What was attempted.
        what: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The server refused a request.
    Refused(String),
    /// The server violated its protocol.
    Malformed(&'static str),
    /// The server ended a connection unexpectedly.
    Closed,
    /// Something did not happen in time.
    Late(String),
}

impl Fault {
    /// The fault of a system call.
    pub fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }

    /// 2 if the command line has to be changed, 1 otherwise.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => out.write_str(text),
            Self::Io { what, error } => write!(out, "{what}: {error}"),
            Self::Refused(text) => write!(out, "refused by the server: {text}"),
            Self::Malformed(what) => write!(out, "the server does not speak this protocol: {what}"),
            Self::Closed => out.write_str("the server closed a connection"),
            Self::Late(what) => write!(out, "timed out: {what}"),
        }
    }
}

impl std::error::Error for Fault {}
