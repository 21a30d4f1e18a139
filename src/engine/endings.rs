//! Log lines for connections that end: one for each, or sums by reason, if very many end at once or the
//! broker drains. The sums are exact, even if lines are dropped on their way.
//!
//! It does not know sockets; the caller describes each connection.

use std::net::SocketAddr;

use log::Level;
use log::kv::Value;

use super::connection::Totals;
use crate::broker::CloseReason;

/// A connection that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending<'a> {
    pub(super) number: u64,
    pub(super) listener: &'a str,
    pub(super) address: SocketAddr,
    pub(super) transport: &'static str,
    /// The login id, also that of a refused login.
    pub(super) login: &'a str,
    /// The profile that it was logged in with, as limits are named by it.
    pub(super) profile: Option<&'static str>,
    pub(super) reason: CloseReason,
    pub(super) duration_ms: u64,
    pub(super) totals: Totals,
    /// Queued bytes that the kernel did not take.
    pub(super) unsent_bytes: u64,
}

impl Ending<'_> {
    fn log(&self, level: Level) {
        let Self { number, listener, address, transport, login, reason, duration_ms, .. } = *self;
        let Totals { bytes_in, bytes_out, frames_in, frames_out } = self.totals;
        // Absent, the key is left out.
        let profile = self.profile.as_ref().map_or_else(Value::null, Value::from_display);
        log::log!(
            level,
            connection = number, listener, peer:% = address, transport:%, login, profile, reason:%,
            duration_ms, frames_in, frames_out, bytes_in, bytes_out,
            unsent_bytes = self.unsent_bytes;
            "closed"
        );
    }
}

/// The connections that ended for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Why they ended.
    pub reason: CloseReason,
    /// Whether they ended with unsent bytes.
    pub is_cut: bool,
    /// The number of connections.
    pub connections: u64,
    frames_in: u64,
    frames_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    unsent_bytes: u64,
}

impl Sum {
    /// Writes the sum to the log.
    pub(crate) fn log(&self, level: Level, words: &'static str) {
        let Self { reason, connections, frames_in, frames_out, bytes_in, bytes_out, .. } = *self;
        log::log!(
            level,
            reason:%, connections, frames_in, frames_out, bytes_in, bytes_out,
            unsent_bytes = self.unsent_bytes;
            "{words}"
        );
    }
}

/// Endings that are not logged yet.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// The second in which the last line was written.
    second: u64,
    /// Lines that were written in `second`.
    lines: u32,
    /// Connections that got no line in `second`.
    unlogged: Sums,
    /// All connections that ended since the drain began.
    drain: Option<Sums>,
}

impl Endings {
    /// Writes a line about a connection, or counts it in a sum after [`LINES_PER_SECOND_MAX`] lines in
    /// this second. In a drain all are counted, and their lines are of level `debug`.
    pub(super) fn note(&mut self, ending: &Ending<'_>, now_ms: u64) {
        if let Some(sums) = &mut self.drain {
            ending.log(Level::Debug);
            return sums.add(ending);
        }
        let second = now_ms / SECOND_MS;
        if second != self.second {
            self.log_sums();
            (self.second, self.lines) = (second, 0);
        }
        if self.lines < LINES_PER_SECOND_MAX {
            self.lines += 1;
            ending.log(Level::Info);
        } else {
            self.unlogged.add(ending);
        }
    }

    /// When [`Self::log_due`] is due, in milliseconds.
    #[inline]
    pub(super) fn due_ms(&self) -> Option<u64> {
        (!self.unlogged.0.is_empty()).then_some((self.second + 1) * SECOND_MS)
    }

    /// Logs the sums of connections without a line, once their second is over.
    #[inline]
    pub(super) fn log_due(&mut self, now_ms: u64) {
        if self.due_ms().is_some_and(|due_ms| now_ms >= due_ms) {
            self.log_sums();
        }
    }

    /// Counts in sums from now on.
    pub(super) fn begin_drain(&mut self) {
        self.log_sums();
        self.drain.get_or_insert_default();
    }

    /// Sums of the connections that ended since the drain began.
    pub(super) fn drain_sums(&self) -> &[Sum] {
        self.drain.as_ref().map_or(&[], |sums| &sums.0)
    }

    #[cold] // few connections end in most seconds
    fn log_sums(&mut self) {
        for sum in std::mem::take(&mut self.unlogged).0 {
            sum.log(Level::Info, "closed without a line for each");
        }
    }
}

const SECOND_MS: u64 = 1_000;

/// Lines in one second about connections that end; further connections are summed up. It is less than
/// the logger's channel holds.
const LINES_PER_SECOND_MAX: u32 = 256;

/// A sum for each reason, with and without unsent bytes. There are few reasons.
#[derive(Debug, Default)]
struct Sums(Vec<Sum>);

impl Sums {
    fn add(&mut self, ending: &Ending<'_>) {
        let (reason, is_cut) = (ending.reason, ending.unsent_bytes > 0);
        let is_same = |sum: &Sum| sum.reason == reason && sum.is_cut == is_cut;
        let place = self.0.iter().position(is_same).unwrap_or_else(|| {
            self.0.push(Sum {
                reason,
                is_cut,
                connections: 0,
                frames_in: 0,
                frames_out: 0,
                bytes_in: 0,
                bytes_out: 0,
                unsent_bytes: 0,
            });
            self.0.len() - 1
        });
        let (sum, totals) = (&mut self.0[place], &ending.totals);
        sum.connections += 1;
        sum.frames_in += u64::from(totals.frames_in);
        sum.frames_out += u64::from(totals.frames_out);
        sum.bytes_in += totals.bytes_in;
        sum.bytes_out += totals.bytes_out;
        sum.unsent_bytes += ending.unsent_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Code;

    fn ending(reason: CloseReason, unsent_bytes: u64) -> Ending<'static> {
        Ending {
            number: 7,
            listener: "web",
            address: "192.0.2.1:5".parse().unwrap(),
            transport: "ws",
            login: "ana",
            profile: Some("agent"),
            reason,
            duration_ms: 3,
            totals: Totals { bytes_in: 10, bytes_out: 20, frames_in: 1, frames_out: 2 },
            unsent_bytes,
        }
    }

    #[test]
    fn a_drain_is_summed_up_by_reason_and_by_unsent_bytes() {
        const DRAINING: CloseReason = CloseReason::Refused(Code::Draining);
        let mut endings = Endings::default();
        endings.note(&ending(CloseReason::Lost, 0), 0);
        endings.begin_drain();
        for _ in 0..15_000 {
            endings.note(&ending(DRAINING, 0), 1);
        }
        endings.note(&ending(DRAINING, 5), 1);
        endings.note(&ending(DRAINING, 6), 2);
        endings.note(&ending(CloseReason::LoggedOut, 0), 3);
        let shown = |sum: &Sum| {
            let frames_and_bytes = [sum.frames_in, sum.frames_out, sum.bytes_in, sum.bytes_out];
            (sum.reason, sum.connections, frames_and_bytes, sum.unsent_bytes)
        };
        assert_eq!(
            endings.drain_sums().iter().map(shown).collect::<Vec<_>>(),
            [
                (DRAINING, 15_000, [15_000, 30_000, 150_000, 300_000], 0),
                (DRAINING, 2, [2, 4, 20, 40], 11),
                (CloseReason::LoggedOut, 1, [1, 2, 10, 20], 0),
            ]
        );
    }

    #[test]
    fn connections_beyond_the_lines_of_a_second_are_summed_up_when_it_is_over() {
        let mut endings = Endings::default();
        for _ in 0..LINES_PER_SECOND_MAX {
            endings.note(&ending(CloseReason::Lost, 0), 1_500);
        }
        assert_eq!(endings.due_ms(), None);
        endings.note(&ending(CloseReason::Lost, 0), 1_999);
        endings.note(&ending(CloseReason::Lost, 1), 1_999);
        assert_eq!(endings.unlogged.0.iter().map(|sum| sum.connections).sum::<u64>(), 2);
        assert_eq!(endings.due_ms(), Some(2_000));
        endings.log_due(1_999);
        assert_eq!(endings.due_ms(), Some(2_000));
        endings.log_due(2_000);
        assert_eq!(endings.due_ms(), None);
        // Another second has lines again.
        endings.note(&ending(CloseReason::Lost, 0), 2_000);
        assert_eq!((endings.lines, endings.due_ms()), (1, None));
    }
}
