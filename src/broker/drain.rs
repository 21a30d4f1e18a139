//! The end of all sessions when the broker shuts down.

use super::fault::Fault;
use super::ids::PeerId;
use super::{Broker, Moment};
use crate::work::{self, Progress};

/// Each client is told, once the messages that were accepted before are delivered.
#[derive(Debug)]
pub(super) struct Drain {
    peers: std::vec::IntoIter<PeerId>,
    /// Until when it waits for that.
    until_ms: u64,
}

impl Drain {
    pub(super) fn new(peers: Vec<PeerId>, until_ms: u64) -> Self {
        Self { peers: peers.into_iter(), until_ms }
    }

    /// Tells further clients, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        if now.ms() < self.until_ms && broker.jobs.has_accepted() {
            broker.meter.spend(1 + broker.jobs.len() as u32 / work::LOOKUPS_PER_UNIT);
            return Progress::More;
        }
        let fault = Fault::shutting_down();
        for peer in self.peers.by_ref() {
            if broker.peers.get(peer).is_some() {
                broker.refuse(peer, &fault, now);
            }
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
        Progress::Ended
    }
}
