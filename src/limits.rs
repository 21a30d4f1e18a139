//! Every bound of the broker by its name: on the memory that a client may occupy, on the time that it may
//! take, and on the work that is done for it in one turn.
//!
//! Of the other modules it knows only the profiles. The names here are those in the configuration file, in the log, in
//! the ERROR frames that a client gets when it exceeds a bound, and in `docs/operations.md`.

use std::fmt;

use crate::profile::ByProfile;

/// All bounds. Sizes are bytes, times are milliseconds unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    // -- connections ------------------------------------------------------------------------
    /// Connections that may be open at once, including those that are not logged in, which lose their places to
    /// newcomers.
    pub connections_max: u32,
    /// Connections beyond `connections_max` that may be open at once, only to be refused.
    pub refusals_max: u32,
    /// Time that such a connection has to show its protocol and to take its ERROR.
    pub refusal_ms_max: u32,
    /// Time for a TLS handshake to finish.
    pub tls_handshake_ms_max: u32,
    /// Time for the first bytes to arrive and, on HTTP, for the upgrade request to be complete.
    pub upgrade_ms_max: u32,
    /// Time for CONNECT to arrive once the transport is ready, and time that a login may wait while others have to be
    /// done with first: each source address has a line of its own, and the lines have their turns.
    pub connect_ms_max: u32,
    /// Size of an HTTP upgrade request.
    pub upgrade_bytes_max: u32,
    /// Silence after which a WebSocket client is pinged. Zero: only if its heart-beat is late.
    pub websocket_ping_ms: u32,
    /// Time that a pinged WebSocket client has to send anything.
    pub websocket_pong_ms_max: u32,
    /// Silence after which the kernel probes a TCP connection.
    pub tcp_keepalive_ms: u32,
    /// Time that sent bytes may stay unacknowledged before the kernel drops the connection.
    pub tcp_user_timeout_ms: u32,
    /// Time that a connection which is being closed has to take its last bytes.
    pub close_flush_ms_max: u32,
    /// Time that the broker waits for a client's end of stream after its own.
    pub linger_ms_max: u32,
    /// Time that all connections together have to take their queued frames when the broker drains.
    pub drain_ms_max: u32,

    // -- frames -----------------------------------------------------------------------------
    /// Size of a frame, command and headers and body, from a connection that is not logged in.
    pub login_frame_bytes_max: u32,
    /// Size of a frame's body.
    pub body_bytes_max: u32,
    /// Size of a frame's command and header lines together.
    pub header_bytes_max: u32,
    /// Number of header lines in a frame.
    pub header_count_max: u32,
    /// Time in which a frame that a client has begun must become whole, or grow by two bytes for each
    /// millisecond of this time; if it grows, it has as long again. So a large frame may take long on a slow
    /// link, and a client that stops in the middle of one does not hold its memory for ever. It begins
    /// with the login; before, other limits hold.
    pub frame_ms_max: u32,
    /// Memory for frames that have arrived only in part, and for messages on their way to many receivers, all
    /// connections together. While messages whose senders are gone take a quarter of it, logins wait.
    pub inbound_total_bytes_max: u64,

    // -- sessions ---------------------------------------------------------------------------
    /// Length of a login id.
    pub login_id_bytes_max: u32,
    /// Takeovers of one login id that are allowed within `takeover_window_ms`. Zero: none, so that a newcomer is
    /// refused as long as the earlier connection lasts.
    pub takeovers_max: u32,
    /// The window over which takeovers of one login id are counted.
    pub takeover_window_ms: u32,
    /// Subscriptions that one session may hold, by profile.
    pub subscriptions_per_session_max: ByProfile<u32>,
    /// Subscriptions that may be held at once, all sessions together.
    pub subscriptions_max: u32,
    /// Topics, queues with consumers, and addresses that others subscribe to by name, that may exist at once. A
    /// client's own address does not count, nor a queue that only holds messages: `connections_max` and
    /// `queues_bytes_max` bound them.
    pub destinations_max: u32,
    /// Memory for these destinations, their names and what is kept of each.
    pub destinations_bytes_max: u64,
    /// Memory of the destinations that the subscriptions of one session keep alive, whoever else subscribes to
    /// them, by profile.
    pub destination_share_bytes_max: ByProfile<u64>,
    /// Length of the name of a topic or queue.
    pub destination_bytes_max: u32,
    /// Different regular expressions that may be subscribed at once, all sessions together.
    pub patterns_max: u32,
    /// Different regular expressions that one session may subscribe at once, by profile.
    pub patterns_per_session_max: ByProfile<u32>,
    /// Different topics with `*` or `>` that may be subscribed at once, all sessions together.
    pub wildcards_max: u32,
    /// Different topics with `*` or `>` that one session may subscribe at once, by profile.
    pub wildcards_per_session_max: ByProfile<u32>,
    /// Levels of a topic with `*` or `>`: `/topic/a/*` has four, as what stands before the first slash is one.
    pub wildcard_levels_max: u32,
    /// Length of a regular expression.
    pub pattern_bytes_max: u32,
    /// Size of a compiled regular expression together with the cache that its matching may fill. A pattern
    /// that takes too long to compile is refused by this name as well.
    pub pattern_compiled_bytes_max: u32,

    // -- the standard dialect ---------------------------------------------------------------
    /// The shortest interval of heart-beats that is agreed to.
    pub heart_beat_ms_min: u32,
    /// Time after three of a client's intervals until its heart-beat is late: browsers slow down timers of
    /// background tabs.
    pub heart_beat_margin_ms: u32,
    /// Transactions that one session may have begun.
    pub transactions_max: u32,
    /// Memory for the frames that wait in one session's transactions, by profile.
    pub transaction_bytes_max: ByProfile<u32>,
    /// Memory for the frames that wait in transactions, all sessions together.
    pub transactions_total_bytes_max: u64,
    /// Length of a subscription's id.
    pub subscription_id_bytes_max: u32,
    /// Topics that are remembered without a subscription by name.
    pub idle_topics_max: u32,
    /// Messages that may wait in one queue.
    pub queue_messages_max: u32,
    /// Memory for the messages of all queues together: those that wait, and those that consumers hold
    /// unacknowledged. For a large message that is let in while others are dropped for it, a sixteenth more for a few
    /// turns.
    pub queues_bytes_max: u64,
    /// Bytes of it that the messages of one sender may occupy in all queues together, by the sender's profile.
    /// Zero: none.
    pub queue_share_bytes_max: ByProfile<u64>,
    /// Unacknowledged messages that a consumer of a queue may have, unless it asks for fewer.
    pub prefetch_max: u32,
    /// Time that a message may wait in a queue. Zero: for ever.
    pub queue_ms_max: u32,
    /// Deliveries of a message of a queue. If it comes back after the last one, it is dropped or moved to
    /// the dead letter queue.
    pub deliveries_max: u32,

    // -- outbound queues --------------------------------------------------------------------
    /// Bounds on the queue of one connection, by profile.
    pub outbound: ByProfile<OutboundLimits>,
    /// Memory for queued frames, all connections together; presence events that wait to be sent to many services are
    /// no part of it. When nine tenths of it are in use, publishers are no longer read until it has fallen to seven
    /// tenths.
    pub outbound_total_bytes_max: u64,
    /// Time for which publishers are not read. After it, and at once when all of `outbound_total_bytes_max` is in
    /// use, the connections with the largest queues are closed until seven tenths are in use.
    pub pause_ms_max: u32,

    // -- the loop ---------------------------------------------------------------------------
    /// Work in one turn of the loop, in units of about 100 ns: half of it for input and what follows from it at
    /// once; the rest for writing, closing slow consumers, deadlines, queues, work that goes on over several turns,
    /// and removing closed connections, in this order. What one leaves is there for the next, but work of several turns
    /// gets half of one at most. Writes for which input calls come on top of these units: one for each 25 of them, at 50
    /// units each, so with the default 100 writes and 5000 units (half a millisecond); and what they and their bytes cost
    /// beyond, up to as much as this once more.
    pub turn_units_max: u32,
    /// Work for one connection before the others get their turn, in the same units.
    pub share_units_max: u32,
    /// Bytes read from one connection before the others get their turn.
    pub read_bytes_per_turn_max: u32,
    /// Bytes written to one connection before the others get their turn.
    pub write_bytes_per_turn_max: u32,
    /// Connections accepted before the established ones get their turn.
    pub accepts_per_turn_max: u32,
    /// Letters to the loop that may wait to be read, and that are read in one turn: requests of the
    /// program around it, such as a drain.
    pub mailbox_letters_max: u32,
}

/// Bounds on the queue of one connection, beyond which it is a slow consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboundLimits {
    /// Queued bytes above which the connection is closed at once.
    pub hard_bytes_max: u32,
    /// Queued bytes above which the connection is closed if they stay above it for `soft_ms_max`.
    pub soft_bytes_max: u32,
    /// Time that the queue may stay above `soft_bytes_max`. Zero: none.
    pub soft_ms_max: u32,
}

impl Limits {
    /// The largest frame that a client may send after its login.
    pub fn frame_bytes_max(&self) -> u32 {
        self.body_bytes_max.saturating_add(self.header_bytes_max)
    }

    /// The shares of senders in the memory of queues, unless they are set: a quarter, and half of it for
    /// services and administrators, who speak for many.
    pub fn queue_shares(queues_bytes_max: u64) -> ByProfile<u64> {
        ByProfile::new([4, 4, 2, 2]).map(|part| queues_bytes_max / part)
    }

    /// The parts of the memory that clients can occupy, each with the bounds that it follows from; those for TLS say
    /// so. Without clients the broker has some megabytes, which are not among them.
    pub fn memory_parts(&self) -> Vec<MemoryPart> {
        let connections = u64::from(self.connections_max) + u64::from(self.refusals_max);
        let login = u64::from(self.login_id_bytes_max);
        let subscription = SUBSCRIPTION_BYTES + u64::from(self.subscription_id_bytes_max);
        let pattern = u64::from(self.pattern_compiled_bytes_max)
            + PATTERN_COPIES * u64::from(self.pattern_bytes_max)
            + PATTERN_BYTES;
        let part = |bounds, bytes| MemoryPart { bounds, bytes };
        vec![
            part(
                "(connections_max + refusals_max) × 9 KiB: connections at rest, with TLS",
                connections * CONNECTION_BYTES,
            ),
            part(
                "(connections_max + refusals_max) × (4 × login_id_bytes_max + 256 bytes): login ids and addresses",
                connections.saturating_mul(LOGIN_COPIES * login + ADDRESS_BYTES),
            ),
            part("inbound_total_bytes_max", self.inbound_total_bytes_max),
            part("outbound_total_bytes_max", self.outbound_total_bytes_max),
            part("queues_bytes_max: messages", self.queues_bytes_max),
            part(
                "queues_bytes_max again: the queues of these messages, which cost less than a message each",
                self.queues_bytes_max,
            ),
            part(
                "transactions_total_bytes_max, and an eighth of it: transactions that are being freed",
                self.transactions_total_bytes_max + self.transactions_total_bytes_max / 8,
            ),
            part("destinations_bytes_max", self.destinations_bytes_max),
            part("wildcards that topics remember", WILDCARDS_REMEMBERED_BYTES_MAX),
            part(
                "subscriptions_max × (subscription_id_bytes_max + 320 bytes)",
                u64::from(self.subscriptions_max).saturating_mul(subscription),
            ),
            part(
                "patterns_max × (pattern_compiled_bytes_max + 4 × pattern_bytes_max + 1 KiB)",
                u64::from(self.patterns_max).saturating_mul(pattern),
            ),
            part(
                "wildcards_max × 2 × destination_bytes_max: their names, whole and by level",
                u64::from(self.wildcards_max)
                    .saturating_mul(2 * u64::from(self.destination_bytes_max)),
            ),
            part(
                "buffers of the loop: 16 MiB + 2 × (body_bytes_max + header_bytes_max)",
                LOOP_BYTES + 2 * u64::from(self.frame_bytes_max()),
            ),
        ]
    }

    /// As [`Self::memory_parts`] where no listener takes TLS.
    pub fn memory_parts_without_tls(&self) -> Vec<MemoryPart> {
        let connections = u64::from(self.connections_max) + u64::from(self.refusals_max);
        let at_rest = MemoryPart {
            bounds: "(connections_max + refusals_max) × 1 KiB: connections at rest",
            bytes: connections * PLAIN_CONNECTION_BYTES_MAX,
        };
        let others = self.memory_parts().into_iter().filter(|part| !part.bounds.contains("TLS"));
        std::iter::once(at_rest).chain(others).collect()
    }

    /// The outbound bounds of a connection that is not logged in.
    pub fn outbound_before_login(&self) -> OutboundLimits {
        let bytes = self.login_frame_bytes_max.saturating_mul(4);
        OutboundLimits { hard_bytes_max: bytes, soft_bytes_max: bytes, soft_ms_max: 0 }
    }
}

impl Default for Limits {
    #[expect(clippy::too_many_lines, reason = "a table of values")]
    fn default() -> Self {
        const KIB: u32 = 1024;
        const MIB: u32 = 1024 * KIB;
        const QUEUES_BYTES_MAX: u64 = 128 * MIB as u64;
        let client = OutboundLimits {
            hard_bytes_max: 8 * MIB,
            soft_bytes_max: 2 * MIB,
            soft_ms_max: 10_000,
        };
        let service =
            OutboundLimits { hard_bytes_max: 32 * MIB, soft_bytes_max: 8 * MIB, ..client };
        Self {
            connections_max: 16_384,
            refusals_max: 64,
            refusal_ms_max: 1_000,
            tls_handshake_ms_max: 5_000,
            upgrade_ms_max: 5_000,
            connect_ms_max: 5_000,
            upgrade_bytes_max: 8 * KIB,
            websocket_ping_ms: 25_000,
            websocket_pong_ms_max: 20_000,
            tcp_keepalive_ms: 60_000,
            tcp_user_timeout_ms: 60_000,
            close_flush_ms_max: 5_000,
            linger_ms_max: 2_000,
            drain_ms_max: 5_000,
            login_frame_bytes_max: 8 * KIB,
            body_bytes_max: 4 * MIB,
            header_bytes_max: 16 * KIB,
            header_count_max: 256,
            frame_ms_max: 60_000,
            inbound_total_bytes_max: 256 * MIB as u64,
            login_id_bytes_max: 2 * KIB,
            takeovers_max: 10,
            takeover_window_ms: 60_000,
            subscriptions_per_session_max: ByProfile::new([1_000; 4]),
            subscriptions_max: 250_000,
            destinations_max: 1_000_000,
            destinations_bytes_max: 256 * MIB as u64,
            destination_share_bytes_max: ByProfile::new([4 << 20, 4 << 20, 16 << 20, 16 << 20]),
            destination_bytes_max: 4 * KIB,
            patterns_max: 1_000,
            patterns_per_session_max: ByProfile::new([250; 4]),
            wildcards_max: 1_000,
            wildcards_per_session_max: ByProfile::new([250; 4]),
            wildcard_levels_max: 64,
            pattern_bytes_max: KIB,
            pattern_compiled_bytes_max: 64 * KIB,
            heart_beat_ms_min: 1_000,
            heart_beat_margin_ms: 1_000,
            transactions_max: 16,
            transaction_bytes_max: ByProfile::new([8 * MIB; 4]),
            transactions_total_bytes_max: 64 * MIB as u64,
            subscription_id_bytes_max: 256,
            idle_topics_max: 10_000,
            queue_messages_max: 100_000,
            queues_bytes_max: QUEUES_BYTES_MAX,
            queue_share_bytes_max: Self::queue_shares(QUEUES_BYTES_MAX),
            prefetch_max: 1_000,
            queue_ms_max: 0,
            deliveries_max: 10,
            outbound: ByProfile::new([client, client, service, service]),
            outbound_total_bytes_max: 512 * MIB as u64,
            turn_units_max: 2_500,
            share_units_max: 800,
            pause_ms_max: 1_000,
            read_bytes_per_turn_max: 256 * KIB,
            write_bytes_per_turn_max: 256 * KIB,
            accepts_per_turn_max: 8,
            mailbox_letters_max: 256,
        }
    }
}

/// A part of the memory that clients can occupy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPart {
    /// The bounds that it follows from.
    pub bounds: &'static str,
    /// The most that it can be.
    pub bytes: u64,
}

/// Memory of a client that is logged in and at rest, over secure WebSocket, which takes most (`scripts/memory`).
pub(crate) const CONNECTION_BYTES: u64 = 9 * 1024;

/// The same without TLS.
pub(crate) const PLAIN_CONNECTION_BYTES: u64 = 700;

/// The most that it is without TLS, over WebSocket.
const PLAIN_CONNECTION_BYTES_MAX: u64 = 1024;

/// How often a login id is kept: in the address, twice in the lines that name a sender, and for the log.
const LOGIN_COPIES: u64 = 4;

/// Memory of a client's address without its login id.
pub(crate) const ADDRESS_BYTES: u64 = 256;

/// How often the text of a regular expression is kept, or what begins it, at most.
const PATTERN_COPIES: u64 = 4;

/// Memory of a regular expression without its text and its program.
const PATTERN_BYTES: u64 = 1024;

/// The most memory that a subscription has without its id, with its places in the lists of its session and its
/// destination.
const SUBSCRIPTION_BYTES: u64 = 320;

/// Memory for the groups of wildcards that topics remember, so that those are not looked up for each message.
pub(crate) const WILDCARDS_REMEMBERED_BYTES_MAX: u64 = 16 << 20;

/// Memory that the loop keeps for reading, encoding and writing.
const LOOP_BYTES: u64 = 16 << 20;

/// A bound that a client exceeded, displayed as in an ERROR frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The field of [`Limits`].
    pub limit: &'static str,
    /// Its value.
    pub max: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "more than the {} that {} allows", self.max, self.limit)
    }
}
