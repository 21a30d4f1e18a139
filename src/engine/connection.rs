//! One connection: its socket, what carries its frames, and what it is waiting for.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU32;

use crate::broker::CloseReason;
use crate::broker::peer::PeerId;
use crate::stomp::Assembler;
use crate::table::{Key, Place, Table};
use crate::transport::tls::TlsLayer;
use crate::transport::{ListenerPolicy, Transport};

/// What the engine needs of a socket. It never blocks: not-yet is `WouldBlock`.
pub trait Socket: Read + Write {
    /// Ends the stream in our direction.
    ///
    /// # Errors
    /// Those of the system.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Whether a read that gave `count` of `wanted` octets may have left some, so that another is due
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

impl Key for ConnectionId {
    fn new(place: Place) -> Self {
        Self { slot: place.index(), generation: place.generation() }
    }

    fn place(self) -> Place {
        Place::new(self.slot, self.generation)
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct ConnectionTable<S>(Table<ConnectionId, Option<Connection<S>>>);

impl<S> ConnectionTable<S> {
    pub(super) fn new() -> Self {
        Self(Table::default())
    }

    /// The id of the next connection.
    pub(super) fn next_id(&self) -> ConnectionId {
        self.0.next_key()
    }

    /// Takes in the connection of [`Self::next_id`].
    pub(super) fn insert(&mut self, connection: Connection<S>) {
        self.0.insert(Some(connection));
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection<S>> {
        self.0.remove(id)?
    }

    /// A connection that may be gone.
    pub(super) fn find(&self, id: ConnectionId) -> Option<&Connection<S>> {
        self.0.get(id)?.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<S>> {
        self.0.get_mut(id)?.as_mut()
    }

    /// The connection at a place.
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Connection<S>> {
        self.0.at_mut(slot)?.as_mut()
    }

    /// All connections and their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Connection<S>)> {
        self.0.iter().filter_map(|(id, one)| Some((id.slot as usize, one.as_ref()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The connection at a place, which is not reaped before the turn ends.
impl<S> std::ops::Index<usize> for ConnectionTable<S> {
    type Output = Connection<S>;

    fn index(&self, slot: usize) -> &Connection<S> {
        self.0
            .at(slot)
            .and_then(Option::as_ref)
            .expect("connections are reaped at the end of a turn")
    }
}

impl<S> std::ops::IndexMut<usize> for ConnectionTable<S> {
    fn index_mut(&mut self, slot: usize) -> &mut Connection<S> {
        self.0
            .at_mut(slot)
            .and_then(Option::as_mut)
            .expect("connections are reaped at the end of a turn")
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) tls: Option<Box<TlsLayer>>,
    pub(super) transport: Transport,
    /// Where torn frames of the standard dialect wait; none in the classic one.
    pub(super) assembler: Option<Box<Assembler>>,
    pub(super) policy: ListenerPolicy,
    /// The place of its listener.
    pub(super) listener: u16,
    pub(super) phase: Phase,
    pub(super) flags: Flags,
    pub(super) peer: Option<PeerId>,
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
    /// The first octets, the TLS handshake, the upgrade request: what is spoken is not settled.
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
    /// It is above `connections_max`, and only waits to be told so.
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

/// No deadline.
pub(super) const NEVER: u64 = u64::MAX;

impl<S> Connection<S> {
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
