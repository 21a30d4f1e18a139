//! What all clients together hold, by the limit that bounds it.

use super::{Broker, commit};
use crate::telemetry::Accounts;

impl Broker {
    /// Counts the memory of so many regular expressions of each kind anew.
    pub(crate) fn recount_patterns(&mut self, count: u32) {
        self.groups.recount(count);
    }

    /// The memory that is held against the bounds, without that of connections and of their input.
    pub(crate) fn accounts(&self) -> Accounts {
        Accounts {
            inbound_bytes: self.jobs.left_bytes(),
            outbound_bytes: self.queued_bytes() + self.announcements.bytes(),
            queues_bytes: self.store.bytes(),
            transactions_bytes: self.transactions.bytes(),
            destinations_bytes: self.destinations.bytes() + self.destinations.remembered_bytes(),
            subscriptions_bytes: self.subscriptions.bytes(),
            patterns_bytes: self.groups.bytes(),
            connections_bytes: 0,
            most_bytes: 0,
        }
    }

    /// What is held of all clients together, by the limit that bounds it: bytes, and the most that they may be.
    /// For the simulator.
    pub fn held(&self) -> [(&'static str, u64, u64); 4] {
        let limits = &self.limits;
        let (queued, outbound_max) = (self.queued_bytes(), limits.outbound_total_bytes_max);
        let destinations = self.destinations.counted().bytes;
        let transactions_max = limits.transactions_total_bytes_max;
        let transactions_max = transactions_max + transactions_max / commit::FREEING_PARTS;
        [
            ("outbound_total_bytes_max", queued, outbound_max),
            ("queues_bytes_max", self.store.bytes(), limits.queues_bytes_max),
            ("transactions_total_bytes_max", self.transactions.bytes(), transactions_max),
            ("destinations_bytes_max", destinations, limits.destinations_bytes_max),
        ]
    }
}
