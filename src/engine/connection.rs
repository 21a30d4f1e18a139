//! One connection: its socket, what carries its frames, and what it is waiting for.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::Accepted;
use crate::broker::ids::PeerId;
use crate::broker::{CloseReason, Speaker};
use crate::transport::tls::TlsLayer;
use crate::transport::{ListenerPolicy, Transport};

/// What the engine needs of a socket. It never blocks: not-yet is `WouldBlock`.
pub trait Socket: Read + Write {
    /// Ends the stream in our direction.
    ///
    /// # Errors
    /// Those of the system.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Whether a read that gave `count` of `wanted` bytes may have left some, so that another is due
    /// before the kernel announces more. Where it did not, that other read would be for nothing.
    fn may_have_more(_count: usize, _wanted: usize) -> bool {
        true
    }
}

/// A connection's place in the table, and which use of the place it is. What is kept beyond a turn
/// keeps this; within one the slot alone will do, for a connection is reaped at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The place.
    pub slot: u32,
    /// Which use of the place it is.
    pub generation: NonZeroU32,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) tls: Option<Box<TlsLayer>>,
    pub(super) transport: Transport,
    /// The broker's side of it, once its dialect is known.
    pub(super) speaker: Option<Speaker>,
    pub(super) policy: ListenerPolicy,
    /// The place of its listener.
    pub(super) listener: u16,
    pub(super) phase: Phase,
    pub(super) flags: Flags,
    pub(super) id: ConnectionId,
    pub(super) address: SocketAddr,
    pub(super) number: u64,
    /// When the phase must be over, in milliseconds; [`NEVER`] where it may last.
    pub(super) deadline_ms: u64,
    /// When the entry among the deadlines fires that will look at `deadline_ms`; [`NEVER`] where
    /// there is none. `armed_ms ≤ deadline_ms` while there is a deadline.
    pub(super) armed_ms: u64,
    /// When anything was heard last.
    pub(super) heard_ms: u64,
    /// When the peer was pinged since then; [`NEVER`] where it was not.
    pub(super) asked_ms: u64,
    /// When anything was said last.
    pub(super) said_ms: u64,
    pub(super) accepted_ms: u64,
    pub(super) totals: Totals,
    /// Deliveries that TLS has taken but the kernel has not: when they arrived, and how many.
    pub(super) staged: Vec<(u64, u32)>,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first bytes, the TLS handshake, the upgrade request: what is spoken is not settled.
    AwaitingProtocol,
    /// CONNECT.
    AwaitingConnect,
    /// Frames, both ways.
    Open,
    /// The kernel, to take what is queued; then the connection closes.
    Flushing(CloseReason),
    /// The peer's WebSocket close.
    AwaitingClose(CloseReason),
    /// The peer's end of stream, after ours.
    Lingering(CloseReason),
    /// The reaper.
    Closed(CloseReason),
}

impl Phase {
    /// Whether what arrives is still looked at.
    pub(super) fn reads_frames(self) -> bool {
        matches!(self, Self::AwaitingProtocol | Self::AwaitingConnect | Self::Open)
    }

    /// Why it ends, once that is settled.
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

/// What is true of a connection now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// The kernel may have something to read.
    pub(super) readable: bool,
    /// The kernel took less than it was given; it will say when it takes more.
    pub(super) blocked: bool,
    /// The connection is on the list of those to be read.
    pub(super) listed_to_read: bool,
    /// The connection is on the list of those to be flushed.
    pub(super) listed_to_flush: bool,
    /// The kernel said that the peer's stream has ended, behind what is still to be read.
    pub(super) end_announced: bool,
    /// The peer sent its end of stream.
    pub(super) ended: bool,
    /// It is not read because memory is short.
    pub(super) paused: bool,
    /// It is beyond `connections_max`, accepted only to be refused.
    pub(super) surplus: bool,
}

/// What went over a connection, for the line in the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) frames_in: u32,
    pub(super) frames_out: u32,
}

/// The limit that surplus connections are beyond.
pub(super) const SURPLUS: &str = "connections_max";

/// No deadline.
pub(super) const NEVER: u64 = u64::MAX;

impl<S> Connection<S> {
    /// A connection of which nothing is known yet, and which must show what it speaks until then.
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
            asked_ms: NEVER,
            said_ms: now_ms,
            accepted_ms: now_ms,
            totals: Totals::default(),
            staged: Vec::new(),
        }
    }

    /// The broker's id of it, once its dialect is known.
    #[inline]
    pub(super) fn peer(&self) -> Option<PeerId> {
        self.speaker.as_ref().map(|speaker| speaker.peer)
    }

    /// Memory that is held for frames that have arrived only in part.
    pub(super) fn held_bytes(&self) -> u64 {
        let torn = self.speaker.as_ref().map_or(0, Speaker::held_bytes);
        (self.transport.held_bytes() + torn) as u64
    }

    /// Whether the transport still reads what arrives: for frames, or for a WebSocket's close, which
    /// is only found by whoever has followed the messages before it.
    pub(super) fn reads_transport(&self) -> bool {
        let closing = matches!(self.phase, Phase::Flushing(_) | Phase::AwaitingClose(_));
        self.phase.reads_frames() || closing && self.transport.is_websocket()
    }

    /// Notes that the peer was heard, or could not be.
    #[inline]
    pub(super) fn note_heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.asked_ms = NEVER;
    }

    /// What carries the frames, for the log.
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
