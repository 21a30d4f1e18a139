//! Messages in flight: pacing of messages, and bookkeeping of arrivals.

use crate::check::{Checker, Verdict};
use crate::driver::{ConnectionId, Driver};
use crate::fault::Fault;
use crate::protocol::Envelope;
use crate::stamp::Stamp;
use crate::statistics::Latencies;

/// Streams of messages, each from one publisher to one destination, and their pace.
pub(super) struct Flow {
    streams: Vec<Stream>,
    /// Receivers of every message.
    receivers: u32,
    /// The rank of each connection among the receivers of its destinations.
    ranks: Vec<u32>,
    pace: Pace,
    choice: Choice,
    /// Streams that may have room in their window.
    roomy: Vec<u32>,
    /// The next stream in turn.
    next: u32,
    random: Random,
    checker: Checker,
    /// Outstanding deliveries of each of the latest messages.
    pending: Vec<Pending>,
    sent: u64,
    /// Outstanding deliveries of all messages.
    outstanding: u64,
}

struct Stream {
    publisher: ConnectionId,
    envelope: Envelope,
    sequence: u32,
    /// Outstanding deliveries.
    outstanding: u32,
    is_roomy: bool,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// Whenever a stream has fewer messages in flight than this.
    WindowEach(u32),
    /// Whenever all streams together have fewer messages in flight than this.
    WindowTotal(u32),
    /// On a schedule, whatever arrives.
    Schedule {
        /// Nanoseconds between messages.
        interval_ns: f64,
        /// When the next is due; 0 before the first.
        due_ns: f64,
    },
}

impl Pace {
    pub(super) fn per_second(rate: f64) -> Self {
        Self::Schedule { interval_ns: 1e9 / rate, due_ns: 0.0 }
    }
}

/// The stream of the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    InTurn,
    Random,
}

#[derive(Clone, Copy, Default)]
struct Pending {
    sequence: u32,
    deliveries: u32,
}

/// An arrival of a message.
pub(super) struct Arrival {
    pub(super) stamp: Stamp,
    /// Whether this was the last delivery of the message.
    pub(super) is_last: bool,
}

impl Flow {
    pub(super) fn new(
        streams: Vec<(ConnectionId, Envelope)>,
        receivers: u32,
        ranks: Vec<u32>,
        pace: Pace,
        choice: Choice,
    ) -> Self {
        let lines = streams.len() * receivers as usize;
        let streams: Vec<_> = streams
            .into_iter()
            .map(|(publisher, envelope)| Stream {
                publisher,
                envelope,
                sequence: 0,
                outstanding: 0,
                is_roomy: true,
            })
            .collect();
        Self {
            roomy: (0..streams.len() as u32).collect(),
            streams,
            receivers,
            ranks,
            pace,
            choice,
            next: 0,
            random: Random(0x9E37_79B9_7F4A_7C15),
            checker: Checker::new(lines),
            pending: if receivers > 1 { vec![Pending::default(); PENDING] } else { Vec::new() },
            sent: 0,
            outstanding: 0,
        }
    }

    /// Sends the messages that are due. Returns when to call again even if nothing arrives.
    pub(super) fn send(&mut self, driver: &mut Driver, now_ns: u64) -> Result<u64, Fault> {
        match self.pace {
            Pace::WindowEach(window) => {
                let room = window * self.receivers;
                for index in std::mem::take(&mut self.roomy) {
                    self.streams[index as usize].is_roomy = false;
                    while self.streams[index as usize].outstanding + self.receivers <= room {
                        self.send_on(index, driver, now_ns);
                    }
                }
                Ok(u64::MAX)
            }
            Pace::WindowTotal(window) => {
                let room = u64::from(window) * u64::from(self.receivers);
                while self.outstanding + u64::from(self.receivers) <= room {
                    let index = self.choose();
                    self.send_on(index, driver, now_ns);
                }
                Ok(u64::MAX)
            }
            Pace::Schedule { interval_ns, mut due_ns } => {
                if due_ns == 0.0 {
                    due_ns = now_ns as f64;
                }
                while due_ns <= now_ns as f64 {
                    let index = self.choose();
                    self.send_on(index, driver, due_ns as u64);
                    due_ns += interval_ns;
                }
                self.pace = Pace::Schedule { interval_ns, due_ns };
                if self.outstanding > OUTSTANDING_MAX {
                    return Err(Fault::Late(format!(
                        "the server does not keep up; {OUTSTANDING_MAX} deliveries are outstanding"
                    )));
                }
                Ok(due_ns as u64)
            }
        }
    }

    /// Notes an arrival. `None` if the body is damaged or a duplicate.
    #[inline]
    pub(super) fn take(&mut self, receiver: ConnectionId, body: &[u8]) -> Option<Arrival> {
        let found =
            Stamp::decode(body).filter(|stamp| (stamp.stream as usize) < self.streams.len());
        let Some(stamp) = found else {
            self.checker.note_damaged();
            return None;
        };
        let rank = self.ranks.get(receiver.index()).copied().unwrap_or(u32::MAX / 2);
        let line = rank.wrapping_mul(self.streams.len() as u32).wrapping_add(stamp.stream);
        if !self.checker.note(line, stamp.sequence) {
            return None;
        }
        let stream = &mut self.streams[stamp.stream as usize];
        stream.outstanding = stream.outstanding.saturating_sub(1);
        self.outstanding = self.outstanding.saturating_sub(1);
        if !stream.is_roomy {
            stream.is_roomy = true;
            self.roomy.push(stamp.stream);
        }
        let mut is_last = false;
        if let Some(pending) = self.pending.get_mut(stamp.sequence as usize % PENDING)
            && pending.sequence == stamp.sequence
        {
            pending.deliveries = pending.deliveries.saturating_sub(1);
            is_last = pending.deliveries == 0;
        }
        Some(Arrival { stamp, is_last })
    }

    /// Begins a new schedule, after a pause.
    pub(super) fn resume(&mut self) {
        if let Pace::Schedule { due_ns, .. } = &mut self.pace {
            *due_ns = 0.0;
        }
    }

    /// Number of messages that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Number of outstanding deliveries.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// The irregularities of the run.
    pub(super) fn finish(self) -> Verdict {
        let Self { streams, checker, .. } = self;
        checker.finish(|line| streams[line as usize % streams.len()].sequence)
    }

    #[inline]
    fn send_on(&mut self, index: u32, driver: &mut Driver, intended_ns: u64) {
        let stream = &mut self.streams[index as usize];
        let stamp = Stamp { intended_ns, stream: index, sequence: stream.sequence };
        if let Some(pending) = self.pending.get_mut(stamp.sequence as usize % PENDING) {
            *pending = Pending { sequence: stamp.sequence, deliveries: self.receivers };
        }
        driver.publish(stream.publisher, &stream.envelope, &stamp.encode());
        stream.sequence += 1;
        stream.outstanding += self.receivers;
        self.outstanding += u64::from(self.receivers);
        self.sent += 1;
    }

    #[inline]
    fn choose(&mut self) -> u32 {
        let count = self.streams.len() as u32;
        match self.choice {
            Choice::InTurn => {
                let index = self.next;
                self.next = if index + 1 == count { 0 } else { index + 1 };
                index
            }
            Choice::Random => self.random.below(count),
        }
    }
}

/// Messages whose outstanding deliveries are counted.
const PENDING: usize = 1 << 14;

/// Outstanding deliveries at which a schedule is abandoned.
const OUTSTANDING_MAX: u64 = 5_000_000;

/// Marsaglia's xorshift with a fixed seed, so that runs are comparable.
struct Random(u64);

impl Random {
    #[inline]
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Latencies of a part of a run.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) deliveries: Latencies,
    pub(super) last: Latencies,
    pub(super) delivered: u64,
    /// `start_ns ≤ end_ns`
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
}

impl Recorder {
    #[inline]
    pub(super) fn record(&mut self, arrival: &Arrival, now_ns: u64) {
        if now_ns >= self.start_ns && now_ns < self.end_ns {
            self.delivered += 1;
        }
        let intended_ns = arrival.stamp.intended_ns;
        if intended_ns >= self.start_ns && intended_ns < self.end_ns {
            let elapsed_ns = now_ns.saturating_sub(intended_ns);
            self.deliveries.record(elapsed_ns);
            if arrival.is_last {
                self.last.record(elapsed_ns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_within_bounds_and_reach_them() {
        let mut random = Random(1);
        let drawn: Vec<_> = (0..1_000).map(|_| random.below(10)).collect();
        assert!((0..10).all(|number| drawn.contains(&number)));
        assert!(drawn.iter().all(|number| *number < 10));
    }

    #[test]
    fn only_messages_intended_within_the_window_are_recorded() {
        let mut recorder = Recorder { start_ns: 100, end_ns: 200, ..Recorder::default() };
        let arrival = |intended_ns| Arrival {
            stamp: Stamp { intended_ns, stream: 0, sequence: 0 },
            is_last: false,
        };
        recorder.record(&arrival(50), 150);
        recorder.record(&arrival(150), 180);
        recorder.record(&arrival(199), 900);
        assert_eq!(recorder.delivered, 2);
        assert_eq!(recorder.deliveries.len(), 2);
        assert_eq!(recorder.deliveries.quantile_ns(1.0), 701);
    }
}
