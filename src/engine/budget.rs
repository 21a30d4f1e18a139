//! The budget of a turn: each of its stages may go on up to a mark, so that what one leaves is there for the
//! next, and all together do not exceed [`turn_units_max`](crate::limits::Limits::turn_units_max) by more than
//! the last step of each, and the writes for which input calls (see [`Budget::begin_writes`]; their first calls are not
//! counted while input is handled). However late it is, a stage gets a minimum, so that none starves.

use crate::broker::Broker;

/// A stage of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Input, and what follows from it at once, with the writes that are due then.
    Receive,
    /// Writing to sockets that take more again.
    Wakes,
    /// Writing what was queued in the turn.
    Writes,
    /// Closing slow consumers.
    Cuts,
    /// Deadlines.
    Deadlines,
    /// Queues.
    Queues,
    /// Jobs.
    Jobs,
    /// Removing closed connections.
    Reaping,
}

impl Stage {
    /// The part of a turn by whose end the stage has to end, in sixteenths.
    fn end(self) -> u64 {
        match self {
            Self::Receive => 8,
            Self::Wakes => 9,
            Self::Writes => 10,
            Self::Cuts => 11,
            Self::Deadlines => 12,
            Self::Queues => 13,
            Self::Jobs => 15,
            Self::Reaping => 16,
        }
    }
}

/// What a stage gets in any case, in parts of a turn.
const LEAST: u32 = 32;

/// The budget of a turn, and what was spent in the last one.
#[derive(Debug)]
pub(super) struct Budget {
    units_max: u32,
    /// Units at the begin of the turn.
    begun: u64,
    /// Units of the last turn.
    last: u64,
    /// The most units of a turn so far.
    longest: u64,
}

impl Budget {
    pub(super) fn new(units_max: u32) -> Self {
        Self { units_max, begun: 0, last: 0, longest: 0 }
    }

    /// Begins a turn at a count of units.
    #[inline]
    pub(super) fn begin_turn(&mut self, spent: u64) {
        self.last = spent - self.begun;
        self.longest = self.longest.max(self.last);
        self.begun = spent;
    }

    /// The count of units at which a stage has to end.
    #[inline]
    pub(super) fn end_of(&self, stage: Stage) -> u64 {
        self.begun + stage.end() * u64::from(self.units_max) / 16
    }

    /// Begins the share of a stage, in which work that was counted before is done, too.
    #[inline]
    pub(super) fn begin(&self, stage: Stage, broker: &mut Broker) {
        broker.begin_share_until(self.end_of(stage), self.units_max / LEAST);
    }

    /// Begins the share of jobs: what is left of the turn, but at most so much that a client which sends meanwhile does
    /// not wait for longer than while others send.
    pub(super) fn begin_jobs(&self, broker: &mut Broker) {
        let most = broker.meter.spent() + u64::from(self.units_max) / 2;
        broker.begin_share_until(self.end_of(Stage::Jobs).min(most), self.units_max / LEAST);
    }

    /// Begins the share of writes for which `pending` units were counted when they became due: all of them are done.
    /// What they cost beyond that, since a message is counted once and written to each receiver, is part of the turn.
    /// What follows from input may take as much as a turn: to copy it, so that it is written in the next turn, would take
    /// hardly less.
    pub(super) fn begin_writes(&self, stage: Stage, pending: u64, broker: &mut Broker) {
        let parts = if matches!(stage, Stage::Receive | Stage::Writes) { 1 } else { LEAST };
        let least = pending + u64::from(self.units_max / parts);
        broker.begin_share_until(self.end_of(Stage::Writes), least as u32);
    }

    /// Units of the turn so far.
    pub(super) fn spent(&self, spent: u64) -> u64 {
        spent - self.begun
    }

    /// Units of the last turn that has ended.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The most units of a turn that has ended.
    pub(super) fn longest(&self) -> u64 {
        self.longest
    }
}
