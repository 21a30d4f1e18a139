//! Every connection's side of the broker: what it may do now, and the queue of what it will get.
//!
//! It does not know what carries the connection, nor who is logged in on it beyond an index.

use super::encoding::Encoding;
use super::fault::{CloseReason, Retry};
use super::ids::{PeerId, SessionId};
use super::table::Table;
use crate::dialect::Dialect;
use crate::limits::OutboundLimits;
use crate::outbound::{Encoded, Framing, LaneId, OutboundArena, OutboundQueue};

/// How a connection presents itself.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Where the engine keeps the connection; given back with `Peers::take_dirty`.
    pub slot: u32,
    /// The number of the connection, never used twice: `connection-id` on the wire.
    pub number: u64,
    /// How frames are told apart on its transport.
    pub framing: Framing,
    /// What it speaks.
    pub dialect: Dialect,
}

/// Heart-beats that were agreed, in milliseconds; zero where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beats {
    /// The client sends something at least so often.
    pub incoming_ms: u32,
    /// We do.
    pub outgoing_ms: u32,
}

/// A connection's state and queue.
#[derive(Debug)]
pub struct Peer {
    /// What the connection may do now.
    pub state: PeerState,
    /// What it will get.
    pub queue: OutboundQueue,
    /// Where the engine keeps it.
    pub slot: u32,
    /// Its number.
    pub number: u64,
    /// How frames are told apart on its transport.
    pub framing: Framing,
    /// How frames are written for it.
    pub encoding: Encoding,
    /// The heart-beats that were agreed.
    pub beats: Beats,
    /// Whether it has ever sent a message: then it is not read while memory is short.
    pub publishes: bool,
    /// Who was logged in on it, once nobody is any more: for the log.
    pub past_login: Option<Box<str>>,
    limits: OutboundLimits,
    /// Since when the queue is above its soft bound, in milliseconds; meaningful where `pressed`.
    pressed_since_ms: u64,
    pressed: bool,
    /// Whether a frame was not queued because the queue was above its hard bound.
    lost_a_frame: bool,
    dirty: bool,
}

/// What a connection may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It has to log in.
    AwaitingConnect,
    /// It is logged in.
    Connected(SessionId),
    /// It gets what is queued, then it is closed; what it sends is not looked at.
    Closing(Closure),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closure {
    /// Why.
    pub reason: CloseReason,
    /// Whether the client was told to come back.
    pub retry: Option<Retry>,
}

impl Closure {
    /// The close code of WebSocket by which a client that was told of a fault learns of it, and whether to
    /// come back; it is one of those for private use.
    pub fn close_code(self) -> Option<u16> {
        Some(4000 + 100 * self.retry?.number() + self.reason.code()?.number())
    }
}

/// All connections, their queues, and who has something to send.
#[derive(Debug)]
pub struct Peers {
    table: Table<PeerId, Peer>,
    /// The frames of all queues.
    pub arena: OutboundArena,
    dirty: Vec<PeerId>,
    /// Those whose queue is above its soft bound.
    pressed: Vec<PeerId>,
    /// Whether a queue grew past a bound since this was last asked.
    pressure_grew: bool,
}

impl Peers {
    /// None.
    pub fn new() -> Self {
        Self {
            table: Table::default(),
            arena: OutboundArena::default(),
            dirty: Vec::new(),
            pressed: Vec::new(),
            pressure_grew: false,
        }
    }

    /// Takes a connection in.
    pub fn open(&mut self, opening: Opening, limits: OutboundLimits) -> PeerId {
        self.table.insert(Peer::new(opening, limits))
    }

    /// Forgets a connection and what was queued to it.
    pub fn close(&mut self, id: PeerId) {
        if let Some(mut peer) = self.table.remove(id) {
            self.arena.discard(&mut peer.queue);
        }
    }

    /// Appends a frame that was encoded for this connection or for others as well, unless the queue is
    /// full or the connection is closing. A queue above its bound is judged later, by
    /// [`Self::take_overflowing`].
    #[inline(always)]
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

    /// The same, of a frame whose head is this connection's own.
    #[inline]
    pub fn push_parts(&mut self, id: PeerId, head: &[u8], tail: Encoded) -> bool {
        let Self { table, arena, dirty, pressure_grew, .. } = self;
        let peer = &mut table[id];
        if peer.takes_nothing() {
            return self.note_refused(id);
        }
        arena.push_parts(&mut peer.queue, peer.framing, head, tail);
        *pressure_grew |= peer.is_over_soft();
        peer.note_dirty(id, dirty);
        true
    }

    /// Encodes a frame that is no delivery and appends it, as [`Self::push`] does.
    #[inline]
    pub fn reply(&mut self, id: PeerId, write: impl FnOnce(&mut Vec<u8>)) {
        let framing = self.table[id].framing;
        let frame = self.arena.encode(LaneId::private(framing), framing, write);
        self.push(id, frame);
    }

    /// Encodes and appends the last frame that a connection gets, whatever its queue's bound, and marks
    /// the connection to be closed.
    pub fn reply_last(&mut self, id: PeerId, closure: Closure, write: impl FnOnce(&mut Vec<u8>)) {
        let peer = &mut self.table[id];
        if peer.closure().is_none() {
            let frame = self.arena.encode(LaneId::private(peer.framing), peer.framing, write);
            self.arena.push(&mut peer.queue, frame);
            self.begin_close(id, closure);
        }
    }

    /// Marks a connection to be closed once it got what is queued. Says how it ends: as was settled
    /// first.
    pub fn begin_close(&mut self, id: PeerId, closure: Closure) -> Closure {
        let peer = &mut self.table[id];
        if let PeerState::Closing(settled) = peer.state {
            return settled;
        }
        peer.state = PeerState::Closing(closure);
        peer.note_dirty(id, &mut self.dirty);
        closure
    }

    /// Drops what was not sent yet, so that a last frame has room.
    pub fn discard_unsent(&mut self, id: PeerId) {
        self.arena.discard_unsent(&mut self.table[id].queue);
    }

    /// Moves the connections that have something to send into `into`, in the order in which they
    /// first got it.
    pub fn take_dirty(&mut self, into: &mut Vec<PeerId>) {
        into.append(&mut self.dirty);
    }

    /// Whether somebody has something to send that nobody has tried to write.
    #[inline]
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether a queue grew past its soft bound since the last call.
    pub fn take_pressure_grew(&mut self) -> bool {
        std::mem::take(&mut self.pressure_grew)
    }

    /// Notes that a connection was flushed as far as its socket took it, and keeps account of how
    /// long its queue has been above its soft bound.
    #[inline]
    pub fn note_flushed(&mut self, id: PeerId, now_ms: u64) {
        let Some(peer) = self.table.get_mut(id) else { return };
        peer.dirty = false;
        let above = peer.is_over_soft() || peer.lost_a_frame;
        let is_news = above && !peer.pressed;
        peer.pressed = above;
        if is_news {
            peer.pressed_since_ms = now_ms;
            self.note_pressed(id);
        }
    }

    #[cold]
    fn note_pressed(&mut self, id: PeerId) {
        // It may still be listed from before it fell below, and twice it would be cut twice.
        if !self.pressed.contains(&id) {
            self.pressed.push(id);
        }
    }

    /// The connections whose queues are above their hard bound, or were when there was something for
    /// them, or are above the soft one for too long. Ask after flushing.
    pub fn take_overflowing(&mut self, now_ms: u64) -> Vec<PeerId> {
        let mut overflowing = Vec::new();
        let table = &self.table;
        self.pressed.retain(|id| {
            // One that is closing has a deadline of its own to take the rest.
            let is_judged = |peer: &&Peer| peer.pressed && peer.closure().is_none();
            let Some(peer) = table.get(*id).filter(is_judged) else {
                return false;
            };
            let since_ms = now_ms.saturating_sub(peer.pressed_since_ms);
            let over = peer.lost_a_frame
                || peer.is_over_hard()
                || since_ms >= u64::from(peer.limits.soft_ms_max);
            if over {
                overflowing.push(*id);
            }
            !over
        });
        overflowing
    }

    /// When [`Self::take_overflowing`] should be asked again even if nothing happens.
    pub fn next_overflow_ms(&self) -> Option<u64> {
        let due_ms = |id: &PeerId| {
            let peer = self.table.get(*id)?;
            Some(peer.pressed_since_ms + u64::from(peer.limits.soft_ms_max))
        };
        self.pressed.iter().filter_map(due_ms).min()
    }

    /// Gives a connection the bounds of its profile.
    pub fn set_limits(&mut self, id: PeerId, limits: OutboundLimits) {
        self.table[id].limits = limits;
    }

    /// A connection, and the arena that its queue lives in.
    pub fn outbox(&mut self, id: PeerId) -> Option<(&mut OutboundArena, &mut Peer)> {
        Some((&mut self.arena, self.table.get_mut(id)?))
    }

    /// A connection that is open.
    pub fn peer(&self, id: PeerId) -> &Peer {
        &self.table[id]
    }

    /// The same, to be changed.
    pub fn peer_mut(&mut self, id: PeerId) -> &mut Peer {
        &mut self.table[id]
    }

    /// All that are open.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.table.iter()
    }

    /// The number of open connections.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Panics where queues and states contradict each other.
    pub fn check_invariants(&self) {
        self.arena.check_invariants(self.table.iter().map(|(_, peer)| &peer.queue));
        for (id, peer) in self.table.iter() {
            let listed = self.dirty.contains(&id);
            assert!(!listed || peer.dirty, "{id:?} is listed as dirty and does not know");
        }
    }

    /// A frame was not queued. A connection that has missed something cannot go on as if it had not,
    /// even if it has taken all the rest by the time that it is looked at.
    #[cold]
    fn note_refused(&mut self, id: PeerId) -> bool {
        let peer = &mut self.table[id];
        if peer.closure().is_none() {
            peer.lost_a_frame = true;
            if !peer.pressed {
                peer.pressed = true;
                self.pressed.push(id);
            }
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
    /// Of no connection.
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
            past_login: None,
            limits,
            pressed_since_ms: 0,
            pressed: false,
            lost_a_frame: false,
            dirty: false,
        }
    }

    /// Gives it WebSocket messages of the kind in which its CONNECT comes: binary ones even where they
    /// are text, or not. To be told before anything is queued for it.
    pub fn prefer_binary(&mut self, is_binary: bool) {
        if matches!(self.framing, Framing::WebSocket | Framing::WebSocketBinary) {
            self.framing = if is_binary { Framing::WebSocketBinary } else { Framing::WebSocket };
        }
    }

    #[inline]
    fn takes_nothing(&self) -> bool {
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

    /// Whether a frame was not queued because the queue was above its hard bound. Nothing but the
    /// last frame is queued after that.
    pub fn lost_a_frame(&self) -> bool {
        self.lost_a_frame
    }

    /// Which of its bounds it is above, where it is above one.
    pub fn overflowed_limit(&self) -> &'static str {
        if self.lost_a_frame || self.is_over_hard() { "hard_bytes_max" } else { "soft_bytes_max" }
    }

    /// Whether it takes more, and its queue is so short that more may be sent ahead.
    pub fn has_room(&self) -> bool {
        !self.takes_nothing() && self.queue.bytes() <= self.limits.soft_bytes_max / 2
    }

    /// The session, where there is one.
    pub fn session(&self) -> Option<SessionId> {
        match self.state {
            PeerState::Connected(session) => Some(session),
            PeerState::AwaitingConnect | PeerState::Closing(_) => None,
        }
    }

    /// The close code of WebSocket that says how it ends, where it is settled. Classic clients wait for
    /// one of the common ones.
    pub fn close_code(&self) -> Option<u16> {
        match self.encoding {
            Encoding::Classic => None,
            Encoding::Standard(_) => self.closure()?.close_code(),
        }
    }

    /// How it ends, once that is settled.
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
    fn close_codes_are_what_clients_have_seen_from_the_first_release_on() {
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
    fn classic_clients_get_no_close_code_of_ours() {
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

    /// The kernel takes all.
    fn drain(peers: &mut Peers, id: PeerId) {
        let (arena, outbox) = peers.outbox(id).unwrap();
        arena.discard(&mut outbox.queue);
    }

    fn say_goodbye(peers: &mut Peers, id: PeerId) {
        let closure = Closure { reason: CloseReason::LoggedOut, retry: None };
        peers.reply_last(id, closure, |out| out.extend_from_slice(b"bye"));
    }

    #[test]
    fn a_queue_above_its_hard_bound_overflows_at_once_and_takes_nothing_more() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        assert!(push(&mut peers, id, 31));
        assert!(!push(&mut peers, id, 1));
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(100), [id]);
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
        assert_eq!(peers.take_overflowing(100), [id]);
        assert_eq!(peers.take_overflowing(100), []);
    }

    #[test]
    fn a_queue_above_its_soft_bound_overflows_when_it_stays_there() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        push(&mut peers, id, 11);
        assert!(peers.take_pressure_grew());
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(104), []);
        assert_eq!(peers.next_overflow_ms(), Some(105));
        drain(&mut peers, id);
        peers.note_flushed(id, 104);
        assert_eq!(peers.take_overflowing(105), []);
        assert_eq!(peers.next_overflow_ms(), None);
        push(&mut peers, id, 11);
        peers.note_flushed(id, 200);
        assert_eq!(peers.take_overflowing(205), [id]);
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
        assert_eq!(peers.take_overflowing(100), [id]);
    }

    #[test]
    fn a_closing_connection_does_not_overflow() {
        let mut peers = Peers::new();
        let id = peer(&mut peers);
        push(&mut peers, id, 31);
        say_goodbye(&mut peers, id);
        peers.note_flushed(id, 100);
        assert_eq!(peers.take_overflowing(200), []);
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
