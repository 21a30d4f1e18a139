//! The faults of the network and their likelihoods, drawn anew for each run, so that some runs have only
//! partial reads, some only blocked sockets, and some all of them.

use crate::random::Random;

/// The likelihood of each fault in one run, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A read returns fewer bytes than there are.
    pub(crate) partial_read: u32,
    /// A read is interrupted by a signal.
    pub(crate) interrupted: u32,
    /// A write takes fewer bytes than it could.
    pub(crate) partial_write: u32,
    /// Writes take nothing, for a number of turns.
    pub(crate) blocked: u32,
    /// A client breaks its connection in the middle of a frame.
    pub(crate) torn_frame: u32,
    /// Many connections arrive at once, most of which send nothing.
    pub(crate) accept_storm: u32,
}

impl Faults {
    /// Each fault is off in half of the runs and rare, frequent or nearly permanent in the others.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut likely = || [0, 0, 0, 20, 200, 600][random.below(6) as usize];
        Self {
            partial_read: likely(),
            interrupted: likely().min(200),
            partial_write: likely(),
            blocked: likely().min(200),
            torn_frame: likely().min(200),
            accept_storm: likely() / 20,
        }
    }
}

/// The faults of one socket, with a generator of their own.
#[derive(Debug)]
pub(crate) struct SocketFaults {
    faults: Faults,
    random: Random,
}

impl SocketFaults {
    /// A socket with these faults.
    pub(crate) fn new(faults: Faults, random: Random) -> Self {
        Self { faults, random }
    }

    /// A socket without faults.
    pub(crate) fn none() -> Self {
        Self::new(Faults::default(), Random::new(1))
    }

    /// The number of bytes that a read of `most` bytes returns; at least one.
    pub(crate) fn cut_read(&mut self, most: usize) -> usize {
        self.cut(most, self.faults.partial_read)
    }

    /// The number of bytes that a write of `most` bytes takes; zero if it blocks.
    pub(crate) fn cut_write(&mut self, most: usize) -> usize {
        if self.random.happens(self.faults.blocked) {
            return 0;
        }
        self.cut(most, self.faults.partial_write)
    }

    /// Whether a read is interrupted.
    pub(crate) fn interrupts(&mut self) -> bool {
        self.random.happens(self.faults.interrupted)
    }

    fn cut(&mut self, most: usize, likely: u32) -> usize {
        if most > 1 && self.random.happens(likely) {
            return 1 + self.random.below(most as u64 - 1) as usize;
        }
        most
    }
}
