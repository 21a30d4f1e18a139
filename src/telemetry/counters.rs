//! The counters of the broker.

/// Counts since the start, under their names in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were accepted.
    pub connections_accepted: u64,
    /// Connections beyond `connections_max`, with or without an ERROR.
    pub connections_refused: u64,
    /// Accepted connections that have ended, for whatever reason.
    pub connections_closed: u64,
    /// Logins that succeeded, takeovers included.
    pub logins: u64,
    /// Logins that were answered with an ERROR.
    pub logins_refused: u64,
    /// Logins that took a login id over from another connection.
    pub takeovers: u64,
    /// Whole frames that clients sent.
    pub frames_in: u64,
    /// Bytes read from sockets, framing and encryption included.
    pub bytes_in: u64,
    /// Frames that the kernel has taken wholly.
    pub frames_out: u64,
    /// Bytes written to sockets, framing and encryption included.
    pub bytes_out: u64,
    /// Messages queued to receivers, counted once for each receiver.
    pub deliveries: u64,
    /// Connections closed as slow consumers.
    pub slow_consumers: u64,
    /// Times that a client exceeded a bound of `Limits`.
    pub limit_exceeded: u64,
    /// Connections closed because the client violated the protocol.
    pub protocol_errors: u64,
    /// Connections closed because the client did not do something in time.
    pub timeouts: u64,
    /// Times that reading from publishers was paused because memory for queued frames ran short.
    pub publishers_paused: u64,
    /// Messages of queues that exceeded `deliveries_max`, including those moved to a dead letter queue.
    pub messages_dropped: u64,
    /// Messages that were dropped because they had expired.
    pub messages_expired: u64,
    /// Turns of the loop.
    pub turns: u64,
}

impl Counters {
    /// The sums of two sets of counters.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            connections_accepted: self.connections_accepted + other.connections_accepted,
            connections_refused: self.connections_refused + other.connections_refused,
            connections_closed: self.connections_closed + other.connections_closed,
            logins: self.logins + other.logins,
            logins_refused: self.logins_refused + other.logins_refused,
            takeovers: self.takeovers + other.takeovers,
            frames_in: self.frames_in + other.frames_in,
            bytes_in: self.bytes_in + other.bytes_in,
            frames_out: self.frames_out + other.frames_out,
            bytes_out: self.bytes_out + other.bytes_out,
            deliveries: self.deliveries + other.deliveries,
            slow_consumers: self.slow_consumers + other.slow_consumers,
            limit_exceeded: self.limit_exceeded + other.limit_exceeded,
            protocol_errors: self.protocol_errors + other.protocol_errors,
            timeouts: self.timeouts + other.timeouts,
            publishers_paused: self.publishers_paused + other.publishers_paused,
            messages_dropped: self.messages_dropped + other.messages_dropped,
            messages_expired: self.messages_expired + other.messages_expired,
            turns: self.turns + other.turns,
        }
    }

    /// Logs all counters, in one line.
    pub(crate) fn log(&self) {
        // Without `..`, so that this does not compile if a counter is missing.
        let Self {
            connections_accepted,
            connections_refused,
            connections_closed,
            logins,
            logins_refused,
            takeovers,
            frames_in,
            bytes_in,
            frames_out,
            bytes_out,
            deliveries,
            slow_consumers,
            limit_exceeded,
            protocol_errors,
            timeouts,
            publishers_paused,
            messages_dropped,
            messages_expired,
            turns,
        } = *self;
        log::info!(
            connections_accepted,
            connections_refused,
            connections_closed,
            logins,
            logins_refused,
            takeovers,
            frames_in,
            bytes_in,
            frames_out,
            bytes_out,
            deliveries,
            slow_consumers,
            limit_exceeded,
            protocol_errors,
            timeouts,
            publishers_paused,
            messages_dropped,
            messages_expired,
            turns;
            "totals"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plus_adds_each_counter() {
        let one = Counters { logins: 2, turns: 5, ..Counters::default() };
        let other = Counters { logins: 3, frames_in: 7, ..Counters::default() };
        let sum = Counters { logins: 5, frames_in: 7, turns: 5, ..Counters::default() };
        assert_eq!(one.plus(&other), sum);
    }
}
