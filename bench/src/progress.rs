//! The line on standard error with the progress of a run.

use std::io::{IsTerminal, Write, stderr};

/// Interval at which it is written.
const EVERY_NS: u64 = 500_000_000;

/// The progress line.
#[derive(Debug)]
pub struct Progress {
    next_ns: u64,
    is_quiet: bool,
    is_terminal: bool,
    /// Width of the line on the terminal.
    shown: usize,
}

impl Progress {
    /// A progress line, which is not shown if `is_quiet`.
    pub fn new(is_quiet: bool) -> Self {
        Self { next_ns: 0, is_quiet, is_terminal: stderr().is_terminal(), shown: 0 }
    }

    /// Shows `line`, if the interval is over.
    #[inline]
    pub fn show(&mut self, now_ns: u64, line: impl FnOnce() -> String) {
        if now_ns >= self.next_ns {
            self.show_slow(now_ns, &line());
        }
    }

    /// Erases the line.
    pub fn finish(&mut self) {
        if self.shown > 0 {
            let _ = write!(stderr(), "\r{:width$}\r", "", width = self.shown);
            self.shown = 0;
        }
    }

    #[cold] // twice a second
    fn show_slow(&mut self, now_ns: u64, line: &str) {
        // A file or a pipe gets a line a second at most.
        self.next_ns = now_ns + if self.is_terminal { EVERY_NS } else { 2 * EVERY_NS };
        if self.is_quiet {
            return;
        }
        if self.is_terminal {
            let width = self.shown.max(line.chars().count());
            let _ = write!(stderr(), "\r{line:width$}");
            self.shown = width;
        } else {
            let _ = writeln!(stderr(), "{line}");
        }
    }
}
