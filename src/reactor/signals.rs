//! The signals of the process, as events of the poll.

use std::fmt;
use std::io;

use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook_mio::v1_0::Signals;

/// A signal that becomes a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    Interrupt,
    HangUp,
    User1,
}

impl Signal {
    fn from_number(number: i32) -> Option<Self> {
        match number {
            SIGTERM => Some(Self::Terminate),
            SIGINT => Some(Self::Interrupt),
            SIGHUP => Some(Self::HangUp),
            SIGUSR1 => Some(Self::User1),
            _ => None,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::HangUp => "SIGHUP",
            Self::User1 => "SIGUSR1",
        })
    }
}

/// The caught signals, and how each becomes a letter.
pub(super) struct SignalSource<L> {
    signals: Signals,
    letter_of: fn(Signal) -> L,
}

impl<L> SignalSource<L> {
    /// Catches the signals; the poll reports them as `token`.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn new(
        registry: &Registry,
        token: Token,
        letter_of: fn(Signal) -> L,
    ) -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        registry.register(&mut signals, token, Interest::READABLE)?;
        Ok(Self { signals, letter_of })
    }

    /// The letters of the signals that arrived since the last call.
    pub(super) fn take_letters(&mut self) -> Vec<L> {
        let letter_of = self.letter_of;
        self.signals.pending().filter_map(Signal::from_number).map(letter_of).collect()
    }
}
