//! Work, counted in units as it is done, so that each turn of the loop is short and each connection gets
//! its share of it, whatever clients ask for.
//!
//! A unit is about 100 ns of one core. The costs here were measured (`cargo bench --bench units`); what matters is
//! that none is too low by much, not that each is exact. Counting depends on no clock: the same input ends a share at
//! the same place, on any machine and in the simulator.

/// Handling a frame, without what follows from it.
pub(crate) const FRAME: u32 = 1;

/// Header lines that are parsed for a unit.
const LINES_PER_UNIT: u32 = 4;

/// Each header line of a frame whose lines have escapes, which are read and written anew.
pub const ESCAPED_LINE: u32 = 3;

/// Each header line that is passed through and whose sender escaped nothing, as it is written: a receiver's version of
/// the protocol may have it escaped all the same.
pub(crate) const WRITTEN_LINE: u32 = 1;

/// Each KiB that is parsed, copied, encoded or asked whether it is text.
pub(crate) const KIB: u32 = 1;

/// Compiling a regular expression, without what depends on its size.
pub(crate) const PATTERN: u32 = 50;

/// Bytes of a compiled regular expression that take a unit: the largest takes two thirds of a millisecond.
pub(crate) const PATTERN_BYTES_PER_UNIT: u32 = 10;

/// Bytes of a name that are split into levels for a unit.
const SPLIT_BYTES_PER_UNIT: u32 = 100;

/// A subscription that is looked up by its target, where there may be many.
pub(crate) const LOOKUPS_PER_UNIT: u32 = 4;

/// A request by plain HTTP.
pub(crate) const HTTP: u32 = 50;

/// A line in the log.
pub(crate) const LOG: u32 = 50;

/// Queueing a message to one receiver.
pub(crate) const DELIVERY: u32 = 1;

/// Deliveries of one message that take a unit.
const DELIVERIES_PER_UNIT: usize = 4;

/// The same with further messages to a receiver that may not read, so that they are copied to its queue.
pub(crate) const KEPT_DELIVERY: u32 = 3;

/// Opening or ending a subscription.
pub(crate) const SUBSCRIPTION: u32 = 5;

/// Each level of a wildcard that is entered among the others, or removed.
pub(crate) const WILDCARD_LEVEL: u32 = 4;

/// Opening or ending a session.
pub(crate) const SESSION: u32 = 10;

/// A call to the kernel that reads.
pub const READ: u32 = 13;

/// Each KiB that is read from a socket: besides the copy, the kernel takes in what the client sends next, since there is
/// room for it again.
pub(crate) const RECEIVED_KIB: u32 = 4;

/// A call to the kernel that writes.
pub const WRITE: u32 = 50;

/// Each KiB that is read from a WebSocket: it is unmasked, and text is checked.
pub(crate) const UNMASKED_KIB: u32 = 1;

/// Each KiB that is written to a socket: the kernel copies it to fresh memory, and on loopback hands it on.
pub(crate) const SENT_KIB: u32 = 3;

/// The same with TLS, where it is encrypted and copied once more.
pub(crate) const SENT_TLS_KIB: u32 = 8;

/// Each KiB of memory that is written to for the first time, which the system has to clear; and each KiB that is
/// moved to such memory, since what it is in has to grow.
pub(crate) const FRESH_KIB: u32 = 2;

/// Each KiB of memory that is freed, in pieces so large that the system gets them back.
const FREED_KIB: u32 = 1;

/// Freeing a piece of a queue.
pub const FREE: u32 = 5;

/// A step of a transaction that is checked or performed, without its deliveries.
pub(crate) const STEP: u32 = 4;

/// Storing a message that waits in a queue, without its lines and its body.
pub(crate) const STORED: u32 = 4;

/// Freeing a header line of a message that was stored.
pub(crate) const FREED_LINE: u32 = 1;

/// Noting when a message expires, or forgetting it, among others.
pub(crate) const EXPIRY: u32 = 4;

/// Making a topic.
pub(crate) const TOPIC: u32 = 2;

/// A message that is dropped, acknowledged or returned to its queue: it was stored long before, and nothing of it or of
/// its neighbours in lists is in the processor's caches.
pub(crate) const DROP: u32 = 15;

/// A deadline that is checked.
pub(crate) const DEADLINE: u32 = 3;

/// A flight of a TLS handshake that is answered: a key agreement, and a signature with a key of which nothing is
/// known, or with RSA of 2048 bits, or ECDSA on P-384. A signature cannot be sliced: this is the one piece of work
/// that may be longer than a turn.
pub const HANDSHAKE: u32 = 10_000;

/// The same with ECDSA on P-256, or with Ed25519.
pub(crate) const HANDSHAKE_SHORT: u32 = 1_500;

/// The same without a signature, if a client resumes an earlier connection.
pub(crate) const HANDSHAKE_RESUMED: u32 = 700;

/// A record of a TLS handshake, of which a message may have thousands.
pub(crate) const TLS_PART: u32 = 1;

/// A TLS record that is decrypted, without its bytes.
pub(crate) const TLS_RECORD: u32 = 5;

/// A TLS record that changes keys.
pub(crate) const TLS_KEYS: u32 = 35;

/// Accepting a connection, or closing one.
pub const SOCKET: u32 = 120;

/// The cost of that many bytes.
#[inline]
pub(crate) const fn of_bytes(bytes: usize) -> u32 {
    (bytes >> 10) as u32 * KIB
}

/// The cost of looking a name of that many bytes up so often, beyond that of a short name.
#[inline]
pub(crate) const fn of_names(lookups: u32, bytes: usize) -> u32 {
    (bytes >> 10) as u32 * lookups
}

/// The cost of queueing a message to so many receivers to which a write is due, whose price covers what is not in the
/// processor's caches.
#[inline]
pub(crate) const fn of_deliveries(receivers: usize) -> u32 {
    receivers.div_ceil(DELIVERIES_PER_UNIT) as u32
}

/// The cost of parsing a name of so many levels and bytes.
#[inline]
pub(crate) const fn of_levels(levels: usize, bytes: usize) -> u32 {
    levels as u32 / 2 + bytes as u32 / SPLIT_BYTES_PER_UNIT
}

/// The cost of freeing that many bytes at once.
#[inline]
pub(crate) const fn of_freed(bytes: u64) -> u32 {
    (bytes >> 10) as u32 * FREED_KIB
}

/// The cost of that many header lines.
#[inline]
pub(crate) const fn of_lines(lines: u32) -> u32 {
    lines / LINES_PER_UNIT
}

/// What a slice of work has achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All is done.
    Ended,
    /// There is more to do.
    More,
    /// There is more to do once a client's queue has room.
    Waits,
}

/// The count of work, and the share that is being worked on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    /// Units since the start.
    spent: u64,
    /// Where the share ends; without bounds before the first one begins.
    until: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { spent: 0, until: u64::MAX }
    }
}

impl Meter {
    /// Begins a share.
    #[inline]
    pub(crate) fn begin(&mut self, units: u32) {
        self.until = self.spent + u64::from(units);
    }

    /// Moves the end of the share to a count of units, unless it is later.
    #[inline]
    pub(crate) fn extend(&mut self, until: u64) {
        self.until = self.until.max(until);
    }

    /// Where the share ends.
    #[inline]
    pub(crate) fn share_end(&self) -> u64 {
        self.until
    }

    /// Goes on with a share that ends there, after another one.
    #[inline]
    pub(crate) fn go_on(&mut self, share_end: u64) {
        self.until = share_end;
    }

    /// Units that are left of the share.
    pub(crate) fn left(&self) -> u64 {
        self.until.saturating_sub(self.spent)
    }

    /// Counts work.
    #[inline]
    pub(crate) fn spend(&mut self, units: u32) {
        self.spent += u64::from(units);
    }

    /// Whether the share is used up, if `pending` units are still to be done for it.
    #[inline]
    pub(crate) fn is_spent(&self, pending: u64) -> bool {
        self.spent + pending >= self.until
    }

    /// Units since the start.
    #[inline]
    pub(crate) fn spent(&self) -> u64 {
        self.spent
    }
}
