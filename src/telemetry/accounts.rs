//! The memory that the broker counts.

/// What clients occupy, as it is held against the bounds of `Limits`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Frames that have arrived only in part, input that waits, and messages on their way to many receivers, those
    /// whose senders are gone included.
    pub inbound_bytes: u64,
    /// Queued frames of all connections.
    pub outbound_bytes: u64,
    /// Messages of queues, those that consumers hold unacknowledged included.
    pub queues_bytes: u64,
    /// Frames that wait in transactions.
    pub transactions_bytes: u64,
    /// Destinations, their names and what is kept of each, with the wildcards that topics remember.
    pub destinations_bytes: u64,
    /// Subscriptions, at the price of one without its id.
    pub subscriptions_bytes: u64,
    /// Regular expressions, compiled, with the caches of their matching; and topics with wildcards.
    pub patterns_bytes: u64,
    /// Connections and their sessions at rest, at the price of one with TLS or without.
    pub connections_bytes: u64,
    /// The most that the sum of the others was, about: it is made in every sixteenth turn.
    pub most_bytes: u64,
}

impl Accounts {
    /// The sum.
    pub fn total_bytes(&self) -> u64 {
        // Without `..`, so that this does not compile if an account is missing.
        let Self {
            inbound_bytes,
            outbound_bytes,
            queues_bytes,
            transactions_bytes,
            destinations_bytes,
            subscriptions_bytes,
            patterns_bytes,
            connections_bytes,
            most_bytes: _,
        } = *self;
        inbound_bytes
            + outbound_bytes
            + queues_bytes
            + transactions_bytes
            + destinations_bytes
            + subscriptions_bytes
            + patterns_bytes
            + connections_bytes
    }

    /// Logs all of them, in one line.
    pub(crate) fn log(&self) {
        log::info!(
            total_bytes = self.total_bytes(),
            inbound_bytes = self.inbound_bytes,
            outbound_bytes = self.outbound_bytes,
            queues_bytes = self.queues_bytes,
            transactions_bytes = self.transactions_bytes,
            destinations_bytes = self.destinations_bytes,
            subscriptions_bytes = self.subscriptions_bytes,
            patterns_bytes = self.patterns_bytes,
            connections_bytes = self.connections_bytes,
            most_bytes = self.most_bytes;
            "memory counted"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_has_each_account_once() {
        let accounts = Accounts {
            inbound_bytes: 1,
            outbound_bytes: 20,
            queues_bytes: 300,
            transactions_bytes: 4_000,
            destinations_bytes: 50_000,
            subscriptions_bytes: 600_000,
            patterns_bytes: 7_000_000,
            connections_bytes: 80_000_000,
            most_bytes: 100_000_000,
        };
        assert_eq!(accounts.total_bytes(), 87_654_321);
    }
}
