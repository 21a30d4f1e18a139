//! Peers: the broker's state of each connection, and its outbound queue.
//!
//! It does not know the transport of a connection, and of its session only the id.

use std::collections::{BTreeSet, VecDeque};

use super::encoding::Encoding;
use super::fault::{CloseReason, Fault, Retry};
use super::ids::{LoginId, PeerId, SessionId};
use super::line::Source;
use super::table::Table;
use crate::dialect::Dialect;
use crate::limits::OutboundLimits;
use crate::outbound::{Encoded, Framing, LaneId, LargeFrame, OutboundArena, OutboundQueue};
use crate::work;

/// What the engine knows of a connection once its dialect is known.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Its slot in the engine's table.
    pub slot: u32,
    /// Its number, never used twice: `connection-id` on the wire.
    pub number: u64,
    /// The framing of its transport.
    pub framing: Framing,
    /// Its dialect.
    pub dialect: Dialect,
}

/// The agreed intervals of heart-beats, in milliseconds; zero without heart-beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    /// The interval of the client.
    pub incoming_ms: u32,
    /// The interval of the broker.
    pub outgoing_ms: u32,
}

/// A connection's state and queue.
#[derive(Debug)]
pub struct Peer {
    /// What the connection may do now.
    pub state: PeerState,
    /// Frames for it.
    pub queue: OutboundQueue,
    /// Its slot in the engine's table.
    pub slot: u32,
    /// Its number.
    pub number: u64,
    /// The framing of its transport.
    pub framing: Framing,
    /// The encoding of its frames.
    pub encoding: Encoding,
    /// The agreed heart-beats.
    pub beats: Beats,
    /// Whether it has ever sent a message, so that it is not read while memory is short.
    pub publishes: bool,
    /// Whether queues wait for room in its queue.
    pub is_awaited: bool,
    /// Bytes of frames for it that were dropped, since it was cut for being slow.
    pub dropped_bytes: u32,
    /// The login id of its session that has ended, with its profile, or of a refused login: for the log.
    pub past_login: Option<(Box<str>, Option<crate::profile::Profile>)>,
    limits: OutboundLimits,
    /// Since when the queue has been above its soft limit, in milliseconds, if it is listed in [`Peers::pressed`].
    pressed_since_ms: u64,
    /// When it is closed for that, if it is listed.
    overflow_ms: Option<u64>,
    /// Whether a frame was not queued because the queue was above its hard limit.
    lost_a_frame: bool,
    dirty: bool,
    /// Its login, if that waits.
    pub login: Option<LoginId>,
    /// Where it comes from.
    pub source: Source,
    /// Memory of the job of the client that runs, until whose end nothing else of it is handled.
    job: Option<u32>,
}

/// What a connection may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It has to log in.
    AwaitingConnect,
    /// It is logged in.
    Connected(SessionId),
    /// It closes once its queue is written; its data is dropped.
    Closing(Closure),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closure {
    /// The reason.
    pub reason: CloseReason,
    /// The advice in the ERROR, if the client got one.
    pub retry: Option<Retry>,
}

impl Closure {
    /// The WebSocket close code that repeats `error-code` and `retry` of an ERROR, from the range for
    /// private use.
    pub fn close_code(self) -> Option<u16> {
        Some(4000 + 100 * self.retry?.number() + self.reason.code()?.number())
    }
}

/// A receiver of a delivery, with what queueing a frame to it changes.
pub(super) struct Receiver<'p> {
    id: PeerId,
    /// Its connection.
    pub peer: &'p mut Peer,
    /// The frames of all queues.
    pub arena: &'p mut OutboundArena,
    dirty: &'p mut Vec<PeerId>,
    pressure_grew: &'p mut bool,
}

impl Receiver<'_> {
    /// Notes that a frame was queued.
    #[inline(always)] // once for each delivery
    pub(super) fn note_queued(self) {
        *self.pressure_grew |= self.peer.is_over_soft();
        self.peer.note_dirty(self.id, self.dirty);
    }
}

/// The time at which a connection is closed that missed a frame or is above its hard limit.
const AT_ONCE: u64 = 0;

/// All peers, and the lists of those with unsent frames and of those with long queues.
#[derive(Debug)]
pub struct Peers {
    table: Table<PeerId, Peer>,
    /// The frames of all queues.
    pub arena: OutboundArena,
    dirty: Vec<PeerId>,
    /// Writes that are due and do not count, see [`Self::pending_units`].
    pub free_writes: usize,
    /// Peers whose queue is above its soft limit, with the time at which they are closed for that.
    pressed: BTreeSet<(u64, PeerId)>,
    /// Whether a queue grew past its soft limit since [`Self::take_pressure_grew`].
    pressure_grew: bool,
    /// Peers that queues waited for, and that have room now.
    roomy: VecDeque<PeerId>,
}

impl Peers {
    /// No peers.
    pub fn new() -> Self {
        Self {
            table: Table::default(),
            arena: OutboundArena::default(),
            dirty: Vec::new(),
            free_writes: 0,
            pressed: BTreeSet::new(),
            pressure_grew: false,
            roomy: VecDeque::new(),
        }
    }

    /// Adds a connection.
    pub fn open(&mut self, opening: Opening, limits: OutboundLimits) -> PeerId {
        self.table.insert(Peer::new(opening, limits))
    }

    /// Removes a connection and its queue. Returns the units of work that this takes.
    pub fn close(&mut self, id: PeerId) -> u32 {
        self.note_overflow(id, None);
        let peer = self.table.remove(id);
        peer.map_or(0, |mut peer| self.free(|arena| arena.discard(&mut peer.queue)))
    }

    /// Units of work of freeing so many pieces of memory of the queues as `free` says, at most.
    fn free(&mut self, free: impl FnOnce(&mut OutboundArena) -> usize) -> u32 {
        let before = self.arena.resident_bytes();
        let pieces = free(&mut self.arena);
        let bytes = before.saturating_sub(self.arena.resident_bytes());
        pieces as u32 * work::FREE + work::of_bytes(bytes as usize)
    }

    /// Appends a frame, which other queues may share, unless the queue is full or the connection is
    /// closing. Returns whether it did. A queue above its limits is judged later, by
    /// [`Self::take_overflowing`].
    #[inline(always)] // once for each delivery
    pub fn push(&mut self, id: PeerId, frame: Encoded) -> bool {
        let Self { table, arena, dirty, pressure_grew, .. } = self;
        let peer = &mut table[id];
        if peer.takes_nothing() {
            return self.note_refused(id);
        }
        arena.push(&mut peer.queue, frame);
        *pressure_grew |= peer.is_over_soft();
        peer.note_dirty(id, dirty);
        true
    }

    /// A receiver of a delivery. If it takes nothing, nothing is to be encoded for it.
    #[inline(always)] // once for each delivery
    pub(super) fn receiver(&mut self, id: PeerId) -> Receiver<'_> {
        let Self { table, arena, dirty, pressure_grew, .. } = self;
        Receiver { id, peer: &mut table[id], arena, dirty, pressure_grew }
    }

    /// Encodes and appends a frame that is not a delivery, as [`Self::push`] does.
    #[inline]
    pub fn reply(&mut self, id: PeerId, write: impl FnOnce(&mut Vec<u8>)) {
        let peer = &self.table[id];
        if peer.takes_nothing() {
            self.note_refused(id);
            return;
        }
        let framing = peer.framing;
        let frame = self.arena.encode(LaneId::private(framing), framing, write);
        self.push(id, frame);
    }

    /// As [`Self::reply`], for a frame with a large body, which is not copied. Returns the units of work that this
    /// takes.
    pub(super) fn reply_large(&mut self, id: PeerId, frame: &LargeFrame<'_>) -> u32 {
        if self.table[id].takes_nothing() {
            self.note_refused(id);
            return 0;
        }
        let receiver = self.receiver(id);
        let peer = &mut *receiver.peer;
        let units = receiver.arena.push_large(&mut peer.queue, peer.framing, frame);
        receiver.note_queued();
        units
    }

    /// Encodes and appends the last frame of a connection, regardless of its limits, and marks the
    /// connection as closing.
    pub fn reply_last(&mut self, id: PeerId, closure: Closure, write: impl FnOnce(&mut Vec<u8>)) {
        let peer = &mut self.table[id];
        if peer.closure().is_none() {
            let frame = self.arena.encode(LaneId::private(peer.framing), peer.framing, write);
            self.arena.push(&mut peer.queue, frame);
            self.begin_close(id, closure);
        }
    }

    /// Marks a connection as closing. Returns how it ends, which is the earlier closure if it was closing
    /// already.
    pub fn begin_close(&mut self, id: PeerId, closure: Closure) -> Closure {
        let peer = &mut self.table[id];
        if let PeerState::Closing(earlier) = peer.state {
            return earlier;
        }
        peer.state = PeerState::Closing(closure);
        peer.note_dirty(id, &mut self.dirty);
        // It has a deadline of its own.
        self.note_overflow(id, None);
        closure
    }

    /// Drops unsent frames, except a partly written one, to have room for a last frame. Returns the units that it takes.
    pub fn discard_unsent(&mut self, id: PeerId) -> u32 {
        let mut queue = std::mem::take(&mut self.table[id].queue);
        let before = queue.bytes();
        let units = self.free(|arena| arena.discard_unsent(&mut queue));
        let peer = &mut self.table[id];
        peer.dropped_bytes = peer.dropped_bytes.saturating_add(before - queue.bytes());
        peer.queue = queue;
        units
    }

    /// Frees some of what was removed from queues. Returns the units that this takes.
    pub fn free_doomed(&mut self) -> u32 {
        self.free(OutboundArena::free_doomed)
    }

    /// Moves the list of connections with new frames into `into`, in the order of their first frame.
    pub fn take_dirty(&mut self, into: &mut Vec<PeerId>) {
        into.append(&mut self.dirty);
    }

    /// Whether connections have new frames that were not flushed.
    #[inline]
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The number of connections with new frames that were not flushed.
    #[inline]
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Units for the writes that are due: a call for each connection, and once what was encoded, which is sent or kept.
    /// While input is handled, the first calls come on top of the turn: if it ended behind a few receivers, of messages
    /// to many in turn each would need a call of its own.
    #[inline]
    pub(super) fn pending_units(&self) -> u64 {
        self.pending_units_without(self.free_writes)
    }

    /// The same with all calls but so many.
    #[inline]
    pub(super) fn pending_units_without(&self, writes: usize) -> u64 {
        let bytes = work::SENT_KIB * work::of_bytes(self.arena.unflushed_bytes());
        let writes = self.dirty_len().saturating_sub(writes);
        writes as u64 * u64::from(work::WRITE) + u64::from(bytes)
    }

    /// Units for writes that were due and are done from here on, to so many connections.
    pub(crate) fn take_pending(&mut self, writes: usize) -> u64 {
        let pending = self.pending_units() + writes as u64 * u64::from(work::WRITE);
        self.arena.note_flushing();
        pending
    }

    /// Whether a queue grew past its soft limit since the last call.
    pub fn take_pressure_grew(&mut self) -> bool {
        std::mem::take(&mut self.pressure_grew)
    }

    /// Notes that a connection was flushed as far as its socket allowed, and since when its queue has been
    /// above its soft limit.
    #[inline]
    pub fn note_flushed(&mut self, id: PeerId, now_ms: u64) {
        let Some(peer) = self.table.get_mut(id) else { return };
        peer.dirty = false;
        if peer.is_awaited && peer.has_room() {
            peer.is_awaited = false;
            self.roomy.push_back(id);
        }
        let above = peer.is_over_soft() || peer.lost_a_frame;
        if above || peer.overflow_ms.is_some() {
            self.note_pressed(id, now_ms);
        }
    }

    /// Notes whether a connection that was flushed is pressed.
    #[cold] // few queues become so long
    fn note_pressed(&mut self, id: PeerId, now_ms: u64) {
        let peer = &mut self.table[id];
        if peer.closure().is_some() {
            return;
        }
        if peer.overflow_ms.is_none() {
            peer.pressed_since_ms = now_ms;
        }
        let overflow_ms = if peer.lost_a_frame || peer.is_over_hard() {
            Some(AT_ONCE)
        } else if peer.is_over_soft() {
            Some(peer.pressed_since_ms + u64::from(peer.limits.soft_ms_max))
        } else {
            None
        };
        self.note_overflow(id, overflow_ms);
    }

    /// Lists a connection by the time at which it is closed because its queue is long.
    fn note_overflow(&mut self, id: PeerId, overflow_ms: Option<u64>) {
        let Some(peer) = self.table.get_mut(id) else { return };
        if peer.overflow_ms == overflow_ms {
            return;
        }
        if let Some(before_ms) = std::mem::replace(&mut peer.overflow_ms, overflow_ms) {
            self.pressed.remove(&(before_ms, id));
        }
        self.pressed.extend(overflow_ms.map(|at_ms| (at_ms, id)));
    }

    /// The next connection that queues waited for, and that has room now.
    pub fn first_roomy(&self) -> Option<PeerId> {
        self.roomy.front().copied()
    }

    /// Takes [`Self::first_roomy`] off the list.
    pub fn forget_first_roomy(&mut self) {
        self.roomy.pop_front();
    }

    /// Whether there are such connections.
    pub fn has_roomy(&self) -> bool {
        !self.roomy.is_empty()
    }

    /// Takes a slow consumer: a connection that missed a frame, or whose queue is above its hard limit, or above
    /// the soft one for too long. To be called after a flush.
    pub fn take_overflowing(&mut self, now_ms: u64) -> Option<PeerId> {
        let (_, id) = *self.pressed.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        self.note_overflow(id, None);
        Some(id)
    }

    /// When [`Self::take_overflowing`] is due even without an event.
    pub fn next_overflow_ms(&self) -> Option<u64> {
        self.pressed.first().map(|(at_ms, _)| *at_ms)
    }

    /// Sets the limits of a connection's profile.
    pub fn set_limits(&mut self, id: PeerId, limits: OutboundLimits) {
        self.table[id].limits = limits;
    }

    /// A connection, and the arena of its queue.
    pub fn outbox(&mut self, id: PeerId) -> Option<(&mut OutboundArena, &mut Peer)> {
        Some((&mut self.arena, self.table.get_mut(id)?))
    }

    /// A connection, if it is open.
    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.table.get(id)
    }

    /// A connection that is open.
    pub fn peer(&self, id: PeerId) -> &Peer {
        &self.table[id]
    }

    /// As [`Self::peer`], mutable.
    pub fn peer_mut(&mut self, id: PeerId) -> &mut Peer {
        &mut self.table[id]
    }

    /// All open connections.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.table.iter()
    }

    /// The number of open connections.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Panics if queues and lists contradict each other.
    pub fn check_invariants(&self) {
        self.arena.check_invariants(self.table.iter().map(|(_, peer)| &peer.queue));
        for (id, peer) in self.table.iter() {
            let listed = self.dirty.contains(&id);
            assert!(!listed || peer.dirty, "{id:?} is listed as dirty without the flag");
            let is_pressed =
                peer.overflow_ms.is_none_or(|at_ms| self.pressed.contains(&(at_ms, id)));
            assert!(is_pressed, "{id:?} is not listed where it should be closed");
        }
        let pressed = self.table.iter().filter(|(_, peer)| peer.overflow_ms.is_some());
        assert_eq!(pressed.count(), self.pressed.len(), "connections that are pressed");
    }

    /// Notes that a frame was not queued. A connection that has missed a frame is closed, even if its queue
    /// is empty by the time that it is judged.
    #[cold] // few queues become so long
    pub(super) fn note_refused(&mut self, id: PeerId) -> bool {
        let peer = &mut self.table[id];
        if peer.closure().is_none() {
            peer.lost_a_frame = true;
            self.note_overflow(id, Some(AT_ONCE));
        }
        false
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Peer {
    /// The peer of no connection.
    fn default() -> Self {
        let (framing, dialect) = (Framing::Line, Dialect::Classic);
        let limits = OutboundLimits { hard_bytes_max: 0, soft_bytes_max: 0, soft_ms_max: 0 };
        Self::new(Opening { slot: 0, number: 0, framing, dialect }, limits)
    }
}

impl Peer {
    fn new(opening: Opening, limits: OutboundLimits) -> Self {
        Self {
            state: PeerState::AwaitingConnect,
            queue: OutboundQueue::default(),
            slot: opening.slot,
            number: opening.number,
            framing: opening.framing,
            encoding: Encoding::before_login(opening.dialect),
            beats: Beats::default(),
            publishes: false,
            is_awaited: false,
            dropped_bytes: 0,
            past_login: None,
            limits,
            pressed_since_ms: 0,
            overflow_ms: None,
            lost_a_frame: false,
            dirty: false,
            login: None,
            source: Source::default(),
            job: None,
        }
    }

    /// Selects the kind of WebSocket messages: binary for all frames if CONNECT arrives in a binary one.
    /// To be called before anything is queued.
    pub fn prefer_binary(&mut self, is_binary: bool) {
        if matches!(self.framing, Framing::WebSocket | Framing::WebSocketBinary) {
            self.framing = if is_binary { Framing::WebSocketBinary } else { Framing::WebSocket };
        }
    }

    /// Whether a frame would not be queued.
    #[inline]
    pub(super) fn takes_nothing(&self) -> bool {
        matches!(self.state, PeerState::Closing(_)) || self.lost_a_frame || self.is_over_hard()
    }

    #[inline]
    fn note_dirty(&mut self, id: PeerId, dirty: &mut Vec<PeerId>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(id);
        }
    }

    #[inline]
    fn is_over_soft(&self) -> bool {
        self.queue.bytes() > self.limits.soft_bytes_max
    }

    #[inline]
    fn is_over_hard(&self) -> bool {
        self.queue.bytes() > self.limits.hard_bytes_max
    }

    /// Whether a frame was not queued because the queue was above its hard limit. After that only the last
    /// frame is queued.
    pub fn lost_a_frame(&self) -> bool {
        self.lost_a_frame
    }

    /// The fault of a client whose queue overflows.
    pub fn overflow(&self) -> Fault {
        if self.lost_a_frame {
            return Fault::overflowed("hard_bytes_max");
        }
        let limit = if self.is_over_hard() { "hard_bytes_max" } else { "soft_bytes_max" };
        Fault::too_slow(self.queue.bytes(), limit)
    }

    /// Queued bytes above which it is closed at once.
    pub(super) fn hard_bytes_max(&self) -> u32 {
        self.limits.hard_bytes_max
    }

    /// Whether its queue is short enough for messages from queues.
    pub fn has_room(&self) -> bool {
        !self.takes_nothing() && self.queue.bytes() <= self.limits.soft_bytes_max / 2
    }

    /// Whether a job of the client runs, until whose end nothing else of it is handled.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.job.is_some() && self.closure().is_none()
    }

    /// Sets the memory of the job of the client that runs, if there is one.
    pub(super) fn set_job(&mut self, bytes: Option<u32>) {
        self.job = bytes;
    }

    /// Memory of the job of the client that runs.
    pub fn job_bytes(&self) -> u32 {
        self.job.unwrap_or(0)
    }

    /// The session, if it is logged in.
    pub fn session(&self) -> Option<SessionId> {
        match self.state {
            PeerState::Connected(session) => Some(session),
            PeerState::AwaitingConnect | PeerState::Closing(_) => None,
        }
    }

    /// The WebSocket close code of the broker, if it is closing with one. Classic clients expect registered
    /// codes.
    pub fn close_code(&self) -> Option<u16> {
        match self.encoding {
            Encoding::Classic => None,
            Encoding::Standard(_) => self.closure()?.close_code(),
        }
    }

    /// How it ends, if it is closing.
    pub fn closure(&self) -> Option<Closure> {
        match self.state {
            PeerState::Closing(closure) => Some(closure),
            PeerState::AwaitingConnect | PeerState::Connected(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Code;
    use super::*;

    const CODES: [Code; 25] = [
        Code::MalformedCommand,
        Code::UnknownCommand,
        Code::MalformedHeader,
        Code::WrongProfile,
        Code::TakenOver,
        Code::AlreadyLogged,
        Code::NoRights,
        Code::NothingToSubscribe,
        Code::InvalidDestinationType,
        Code::InvalidRegex,
        Code::InvalidApplicationKey,
        Code::InvalidProfileKey,
        Code::MissingHeader,
        Code::NotLoggedIn,
        Code::WrongSession,
        Code::NoSuchDestination,
        Code::LimitExceeded,
        Code::SlowConsumer,
        Code::Draining,
        Code::TimedOut,
        Code::ProtocolNotServed,
        Code::MalformedFrame,
        Code::UnsupportedVersion,
        Code::UnknownHost,
        Code::UnknownId,
    ];

    #[test]
    fn close_codes_are_those_of_the_first_release() {
        for (number, code) in CODES.into_iter().enumerate() {
            let number = number as u16;
            for (retry, first) in [(Retry::Never, 4000), (Retry::Later, 4100), (Retry::Now, 4200)] {
                let closure = Closure { reason: CloseReason::Refused(code), retry: Some(retry) };
                assert_eq!(closure.close_code(), Some(first + number), "{code:?} {retry:?}");
            }
        }
        for (reason, code) in [
            (CloseReason::TakenOver, Some(4004)),
            (CloseReason::Exceeded("body_bytes_max"), Some(4016)),
            (CloseReason::TooSlow("hard_bytes_max"), Some(4017)),
            (CloseReason::TimedOut("connect_ms_max"), Some(4019)),
            (CloseReason::LoggedOut, None),
        ] {
            let closure = Closure { reason, retry: Some(Retry::Never) };
            assert_eq!(closure.close_code(), code, "{reason}");
            assert_eq!(Closure { retry: None, ..closure }.close_code(), None, "{reason}");
        }
    }

    #[test]
    fn classic_clients_get_no_close_code_for_private_use() {
        let mut peers = Peers::new();
        let closure = Closure { reason: CloseReason::TakenOver, retry: Some(Retry::Never) };
        for (dialect, code) in [(Dialect::Classic, None), (Dialect::Standard, Some(4004))] {
            let framing = Framing::WebSocket;
            let id = peers.open(Opening { slot: 0, number: 1, framing, dialect }, LIMITS);
            assert_eq!(peers.peer(id).close_code(), None);
            peers.begin_close(id, closure);
            assert_eq!(peers.peer(id).close_code(), code);
        }
    }

    const LIMITS: OutboundLimits =
        OutboundLimits { hard_bytes_max: 30, soft_bytes_max: 10, soft_ms_max: 5 };

    fn peer(peers: &mut Peers) -> PeerId {
        let (dialect, framing) = (Dialect::Classic, Framing::Line);
        peers.open(Opening { slot: 0, number: 1, framing, dialect }, LIMITS)
    }

    /// Whether a delivery of that many bytes, its line end among them, was queued.
    fn push(peers: &mut Peers, id: PeerId, size: usize) -> bool {
        let lane = LaneId::messages(0, Framing::Line);
        let frame =
            peers.arena.encode(lane, Framing::Line, |out| out.resize(out.len() + size - 1, b'x'));
        peers.push(id, frame)
    }

    /// Empties a queue as a flush does.
    fn drain(peers: &mut Peers, id: PeerId) {
        let (arena, outbox) = peers.outbox(id).unwrap();
        arena.discard(&mut outbox.queue);
    }

    fn say_goodbye(peers: &mut Peers, id: PeerId) {
        let closure = Closure { reason: CloseReason::LoggedOut, retry: None };
        peers.reply_last(id, closure, |out| out.extend_from_slice(b"bye"));
    }

    #[test]
    fn a_queue_above_its_hard_limit_overflows_at_once_and_takes_nothing_more() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        assert!(push(&mut peers, id, 31));
        assert!(!push(&mut peers, id, 1));
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(100), Some(id));
    }

    #[test]
    fn a_connection_that_missed_a_frame_overflows_though_its_queue_is_empty_again() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        push(&mut peers, id, 31);
        assert!(!push(&mut peers, id, 1));
        drain(&mut peers, id);
        assert!(!push(&mut peers, id, 1), "there is a gap before it");
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(100), Some(id));
        assert_eq!(peers.take_overflowing(100), None);
    }

    #[test]
    fn a_queue_above_its_soft_limit_overflows_when_it_stays_there() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        push(&mut peers, id, 11);
        assert!(peers.take_pressure_grew());
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(104), None);
        assert_eq!(peers.next_overflow_ms(), Some(105));
        drain(&mut peers, id);
        peers.note_flushed(id, 104);
        assert_eq!(peers.take_overflowing(105), None);
        assert_eq!(peers.next_overflow_ms(), None);
        push(&mut peers, id, 11);
        peers.note_flushed(id, 200);
        assert_eq!(peers.take_overflowing(205), Some(id));
        peers.take_dirty(&mut Vec::new());
        peers.check_invariants();
    }

    #[test]
    fn a_queue_that_was_pressed_twice_in_a_turn_overflows_once() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        for _ in 0..2 {
            push(&mut peers, id, 11);
            peers.note_flushed(id, 100);
            peers.discard_unsent(id);
            peers.note_flushed(id, 100);
        }
        push(&mut peers, id, 31);
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(100), Some(id));
    }

    #[test]
    fn a_closing_connection_does_not_overflow() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        push(&mut peers, id, 31);
        say_goodbye(&mut peers, id);
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(200), None);
        assert_eq!(peers.next_overflow_ms(), None);
        assert_eq!(peers.peer(id).queue.frames(), 2);
    }

    #[test]
    fn a_closing_connection_gets_its_last_frame_and_no_other() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        say_goodbye(&mut peers, id);
        assert!(!push(&mut peers, id, 1));
        assert_eq!(peers.peer(id).queue.frames(), 1);
        let mut dirty = Vec::new();
        peers.take_dirty(&mut dirty);
        assert_eq!(dirty, [id]);
        peers.close(id);
        assert!(peers.is_empty());
        peers.arena.end_turn();
        assert_eq!(peers.arena.resident_bytes(), 0);
    }
}
