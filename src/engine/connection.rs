//! One connection: its socket, its transport, and what it is waiting for.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use super::Accepted;
use crate::broker::ids::PeerId;
use crate::broker::{CloseReason, Source, Speaker};
use crate::transport::tls::TlsLayer;
use crate::transport::{ListenerPolicy, Transport, TransportFault};

/// A socket of the engine. It never blocks: not-yet is `WouldBlock`.
pub trait Socket: Read + Write {
    /// Ends the outgoing stream.
    ///
    /// # Errors
    /// Errors of the system.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Whether a read that returned `count` of `wanted` bytes may have left some, so that another read is
    /// due before the kernel announces more.
    fn may_have_more(_count: usize, _wanted: usize) -> bool {
        true
    }
}

/// A connection's slot in the table and the slot's generation. Within a turn the slot alone identifies a
/// connection, because connections are reaped at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The index in the table.
    pub slot: u32,
    /// How often the slot has been used.
    pub generation: NonZeroU32,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) tls: Option<Box<TlsLayer>>,
    pub(super) transport: Transport,
    /// The broker's handle of it, once its dialect is known.
    pub(super) speaker: Option<Speaker>,
    /// Input that was read and is not handled yet, because the connection's share of a turn is used up or a
    /// job of its client runs. Nothing more is read before it is handled.
    pub(super) kept: Option<Box<Kept>>,
    pub(super) policy: ListenerPolicy,
    /// The index of its listener in the configuration.
    pub(super) listener: u16,
    pub(super) phase: Phase,
    pub(super) flags: Flags,
    pub(super) id: ConnectionId,
    pub(super) address: SocketAddr,
    pub(super) number: u64,
    /// When the phase must be over, by the clock of [`Patience`](super::patience::Patience). While the phase
    /// is [`Phase::Open`], it has no meaning.
    pub(super) deadline_ms: u64,
    /// Real time of the live entry among the deadlines, which causes a check; [`NEVER`] without one.
    pub(super) armed_ms: u64,
    /// When bytes arrived last, by the clock of [`Patience`](super::patience::Patience).
    pub(super) heard_ms: u64,
    /// When the client was pinged since then, by the same clock; [`NEVER`] if it was not.
    pub(super) pinged_ms: u64,
    /// The frame that has arrived in part, once the client is logged in.
    pub(super) torn: Option<Torn>,
    /// When bytes were sent last that count as a heart-beat.
    pub(super) sent_ms: u64,
    pub(super) accepted_ms: u64,
    pub(super) totals: Totals,
    /// Deliveries that are encrypted but not yet taken by the kernel: arrival time and count.
    pub(super) staged: Vec<(u64, u32)>,
    /// What [`Self::held_bytes`] was when it was noted in the account.
    pub(super) noted_bytes: u64,
    /// What of it was noted as about to be freed, since the connection is closing.
    pub(super) ending_bytes: u64,
    /// Memory of TLS records that are not yet written, as it was noted in the account.
    pub(super) sealed_bytes: u32,
}

/// Input that is not handled yet. What follows in the broker's inlet comes first, then `plain`, then `wire`, and then
/// `last`.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Decrypted bytes, on TLS.
    pub(super) plain: Rest,
    /// Bytes as they were read.
    pub(super) wire: Rest,
    /// Memory of the client's job that runs.
    pub(super) job_bytes: u32,
    /// How the transport ended behind frames for which such a job runs.
    pub(super) last: Option<Last>,
}

/// The last event of a transport.
#[derive(Clone, Copy, Debug)]
pub(super) enum Last {
    /// A WebSocket close of the client.
    Close,
    /// A violation.
    Fault(TransportFault),
}

/// The end of a run of bytes.
#[derive(Debug, Default)]
pub(super) struct Rest {
    bytes: Vec<u8>,
    /// Where it begins in `bytes`.
    from: usize,
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.plain.bytes().is_empty() && self.wire.bytes().is_empty() && self.last.is_none()
    }

    fn held_bytes(&self) -> usize {
        let bytes = self.plain.bytes.capacity() + self.wire.bytes.capacity();
        size_of::<Self>() + bytes + self.job_bytes as usize
    }
}

impl Rest {
    /// A copy of bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), from: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..]
    }

    /// Drops all but the last `left` bytes; the last one frees the memory.
    pub(super) fn leave(&mut self, left: usize) {
        match left {
            0 => *self = Self::default(),
            _ => self.from = self.bytes.len() - left,
        }
    }
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first bytes, the TLS handshake, the upgrade request: the protocol is not known yet.
    AwaitingProtocol,
    /// CONNECT.
    AwaitingConnect,
    /// Frames, both ways.
    Open,
    /// The kernel, to take the rest of the queue; then the connection closes.
    Flushing(CloseReason),
    /// The client's WebSocket close.
    AwaitingClose(CloseReason),
    /// The client's end of stream, after the broker's.
    Lingering(CloseReason),
    /// The reaper.
    Closed(CloseReason),
}

impl Phase {
    /// Whether arriving frames are handled.
    pub(super) fn reads_frames(self) -> bool {
        matches!(self, Self::AwaitingProtocol | Self::AwaitingConnect | Self::Open)
    }

    /// Why the connection ends, if it does.
    pub(super) fn reason(self) -> Option<CloseReason> {
        match self {
            Self::AwaitingProtocol | Self::AwaitingConnect | Self::Open => None,
            Self::Flushing(reason)
            | Self::AwaitingClose(reason)
            | Self::Lingering(reason)
            | Self::Closed(reason) => Some(reason),
        }
    }
}

/// The flags of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// The socket may have something to read.
    pub(super) readable: bool,
    /// The kernel took less than it was given, and will announce when it takes more.
    pub(super) blocked: bool,
    /// The connection is on the list `to_read`.
    pub(super) listed_to_read: bool,
    /// The connection is on the list `to_flush`.
    pub(super) listed_to_flush: bool,
    /// The kernel announced the end of the client's stream; unread bytes may come before it.
    pub(super) end_announced: bool,
    /// The client's end of stream was read.
    pub(super) ended: bool,
    /// It is not read because memory is short.
    pub(super) paused: bool,
    /// It is beyond `connections_max`, accepted only to be refused.
    pub(super) surplus: bool,
    /// Visits in a row, up to the last one, that took no more than [`LIGHT_UNITS`] and left nothing to be read.
    light_visits: u8,
}

/// What a connection is likely to need when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Little, as each of the last [`LIGHT_VISITS`] times.
    LittleForLong,
    /// Little, as the last time.
    Little,
    /// More.
    Much,
}

/// Bytes of some TLS records in which a client changes its keys.
const TLS_KEYS_BYTES: usize = 512;

/// Units that a visit takes where little is needed: a SEND to some receivers, or some kilobytes that are read.
const LIGHT_UNITS: u64 = 70;

/// Visits after which it counts that a connection has always needed little.
const LIGHT_VISITS: u8 = 64;

/// A frame that has arrived in part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Torn {
    /// When it began, or when enough of it had arrived since then, by the clock of
    /// [`Patience`](super::patience::Patience).
    pub(super) since_ms: u64,
    /// What had arrived of it at that time.
    pub(super) bytes: u64,
    /// Frames that arrived before it, which tell it from the next one.
    pub(super) frames_before: u32,
}

/// Bytes and frames of a connection, for its line in the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) frames_in: u32,
    pub(super) frames_out: u32,
}

/// The limit that surplus connections exceed.
pub(super) const SURPLUS: &str = "connections_max";

/// No deadline.
pub(super) const NEVER: u64 = u64::MAX;

impl<S> Connection<S> {
    /// A new connection, which must show its protocol by `deadline_ms`.
    pub(super) fn new(
        id: ConnectionId,
        number: u64,
        socket: S,
        accepted: Accepted,
        now_ms: u64,
        deadline_ms: u64,
    ) -> Self {
        Self {
            socket,
            tls: None,
            transport: Transport::new(),
            speaker: None,
            kept: None,
            policy: accepted.policy,
            listener: accepted.listener,
            phase: Phase::AwaitingProtocol,
            flags: Flags::default(),
            id,
            address: accepted.address,
            number,
            deadline_ms,
            armed_ms: deadline_ms,
            heard_ms: now_ms,
            pinged_ms: NEVER,
            torn: None,
            sent_ms: now_ms,
            accepted_ms: now_ms,
            totals: Totals::default(),
            staged: Vec::new(),
            noted_bytes: 0,
            ending_bytes: 0,
            sealed_bytes: 0,
        }
    }

    /// Its id in the broker, once its dialect is known.
    #[inline]
    pub(super) fn peer(&self) -> Option<PeerId> {
        self.speaker.as_ref().map(|speaker| speaker.peer)
    }

    /// Memory for frames that have arrived only in part, and for input that is not handled yet.
    pub(super) fn held_bytes(&self) -> u64 {
        let torn = self.speaker.as_ref().map_or(0, Speaker::held_bytes);
        let kept = self.kept.as_ref().map_or(0, |kept| kept.held_bytes());
        let tls = self.tls.as_ref().map_or(0, |tls| tls.held_bytes());
        (self.transport.held_bytes() + torn + kept + tls) as u64
    }

    /// Drops what is held for frames that have arrived only in part.
    pub(super) fn drop_held(&mut self) {
        self.transport.drop_held();
        if let Some(speaker) = &mut self.speaker {
            speaker.drop_held();
        }
    }

    /// Whether the transport still parses input: for frames, or for a WebSocket close, which is found
    /// only by parsing the messages before it.
    pub(super) fn reads_transport(&self) -> bool {
        let closing = matches!(self.phase, Phase::Flushing(_) | Phase::AwaitingClose(_));
        self.phase.reads_frames() || closing && self.transport.is_websocket()
    }

    /// Bytes of the frame that has arrived in part.
    pub(super) fn unfinished_bytes(&self) -> u64 {
        let torn = self.speaker.as_ref().map_or(0, Speaker::unfinished_bytes);
        // A change of keys brings no data, and is no part of something else.
        let tls = self.tls.as_ref().map_or(0, |tls| tls.held_bytes());
        let tls = if tls > TLS_KEYS_BYTES { tls } else { 0 };
        (self.transport.unfinished_bytes() + torn + tls) as u64
    }

    /// What it is likely to need when it is read, which is known from the last times only.
    #[inline]
    pub(super) fn need(&self) -> Need {
        match self.flags.light_visits {
            0 => Need::Much,
            1..LIGHT_VISITS => Need::Little,
            LIGHT_VISITS.. => Need::LittleForLong,
        }
    }

    /// Notes that a visit took so many units.
    #[inline]
    pub(super) fn note_visit(&mut self, units: u64) {
        let was_light = units <= LIGHT_UNITS && !self.flags.listed_to_read;
        self.flags.light_visits =
            if was_light { self.flags.light_visits.saturating_add(1) } else { 0 };
    }

    /// Whether the client has ended its stream before it was answered in a TLS handshake, which so cannot succeed.
    #[inline]
    pub(super) fn has_given_up_tls(&self) -> bool {
        let is_unanswered = || self.totals.bytes_out == 0;
        let is_handshaking = || self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        self.flags.end_announced && is_unanswered() && is_handshaking()
    }

    /// Notes that bytes arrived.
    #[inline]
    pub(super) fn note_heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.pinged_ms = NEVER;
    }

    /// Notes that the broker has not read until now what the client may have sent.
    pub(super) fn note_held_back(&mut self, now_ms: u64) {
        self.note_heard(now_ms);
        if let Some(torn) = &mut self.torn {
            torn.since_ms = now_ms;
        }
    }

    /// Whether there may be input that the loop has not come to read, although the client sent it before
    /// a deadline.
    pub(super) fn is_unread_since(&self, deadline_ms: u64) -> bool {
        (self.flags.readable || self.kept.is_some()) && self.heard_ms < deadline_ms
    }

    /// The name of the transport in the log.
    pub(super) fn transport_name(&self) -> &'static str {
        match (self.transport.name(), self.tls.is_some()) {
            ("tcp", true) => "tls",
            ("ws", true) => "wss",
            ("http", true) => "https",
            ("undetected", true) => "tls-handshake",
            (name, _) => name,
        }
    }
}

/// Where connections from an address come from: who has a network of IPv6 is one source.
pub(super) fn source_of(address: IpAddr) -> Source {
    match address.to_canonical() {
        // No network of IPv6 begins with zeros only.
        IpAddr::V4(address) => Source::new(address.to_bits().into()),
        IpAddr::V6(address) => Source::new((address.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_network_of_ipv6_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}
