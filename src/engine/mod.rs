//! The engine: connections in a table, what each waits for, and the turn in which they are read,
//! served, flushed and reaped.
//!
//! It is a plain value, generic over the socket: no poll, no listener, and time is an argument. The
//! reactor drives it in production, the simulator in tests, both in this order:
//!
//! ```text
//! note_ready …   what the kernel said; nothing is done yet
//! receive        read, cut into frames, handle; answers go into queues
//! flush          write the queue of every connection that got something, once
//! settle         slow consumers, deadlines, latencies, reaping
//! take_closed …  the sockets to let go of
//! accept …       new ones
//! ```
//!
//! Closing only marks: a connection leaves the table in `settle`, never while a frame of its own
//! is being handled.

mod closings;
mod connection;
pub mod deadlines;
mod flush;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

pub use self::closings::Sum;
use self::closings::{Closings, Ending};
use self::connection::{Connection, ConnectionTable, Flags, NEVER, Phase, Totals};
pub use self::connection::{ConnectionId, Socket};
use self::deadlines::Deadlines;
use self::flush::{FlushContext, FlushProgress, flush, keep};
use crate::broker::encoding::Encoding;
use crate::broker::ids::PeerId;
use crate::broker::peer::{Beats, Opening, Peer};
use crate::broker::{Broker, CloseReason, Code, Fault, Keys, Moment, Options, Retry};
use crate::http;
use crate::limits::{Exceeded, Limits};
use crate::outbound::Framing;
use crate::stomp::{Assembler, Frame, ScanBounds, Version};
use crate::telemetry::{Latencies, Stage};
use crate::transport::tls::TlsLayer;
use crate::transport::websocket::CloseCode;
use crate::transport::{
    Dialect, FrameBound, Inbound, ListenerPolicy, PlainRequest, Protocols, TlsMode, Transport,
    TransportError, detect,
};

/// All connections, and the broker behind them.
pub struct Engine<S> {
    connections: ConnectionTable<S>,
    broker: Broker,
    limits: Limits,
    tls: Option<Arc<rustls::ServerConfig>>,
    deadlines: Deadlines,
    /// Connections that may have something to read.
    to_read: Vec<ConnectionId>,
    /// Connections that have something to write without being on the broker's list.
    to_flush: Vec<ConnectionId>,
    /// Connections that are to be reaped.
    to_reap: Vec<ConnectionId>,
    /// Publishers that are not read while memory is short.
    paused: Vec<ConnectionId>,
    is_short_of_memory: bool,
    closed: Vec<(ConnectionId, S)>,
    scratch: Scratch,
    flush_context: FlushContext,
    dirty: Vec<PeerId>,
    last_number: u64,
    /// How many of the connections are above `connections_max`, only to be told so.
    surplus_len: usize,
    /// Whether the last connection that came had no place.
    is_full: bool,
    /// Memory held for frames that have arrived only in part.
    inbound_bytes: u64,
    /// The time of the turn.
    now: Moment,
    is_draining: bool,
    serves_sample: bool,
    /// What the listeners are called, in the order of the configuration.
    listeners: Vec<String>,
    closings: Closings,
    /// Where latencies are recorded.
    pub latencies: Latencies,
}

/// What every read goes through; connections own no buffers.
struct Scratch {
    wire: Box<[u8]>,
    plain: Box<[u8]>,
}

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Where it comes from.
    pub address: SocketAddr,
    /// What the listener lets it be.
    pub policy: ListenerPolicy,
    /// The listener's place in the configuration.
    pub listener: u16,
}

const WIRE_BYTES: usize = 64 * 1024;
const PLAIN_BYTES: usize = 32 * 1024;

/// Octets that are encoded before they are flushed, but for what one read brought: what stays in the
/// processor's caches is written at half the cost.
const TURN_BYTES_MAX: usize = 256 * 1024;

impl<S: Socket> Engine<S> {
    /// An engine without connections.
    pub fn new(
        options: Options,
        tls: Option<Arc<rustls::ServerConfig>>,
        latencies: Latencies,
    ) -> Self {
        let limits = options.limits.clone();
        let bytes_max = limits.write_bytes_per_turn_max as usize;
        Self {
            connections: ConnectionTable::new(),
            broker: Broker::new(options),
            limits,
            tls,
            deadlines: Deadlines::default(),
            to_read: Vec::new(),
            to_flush: Vec::new(),
            to_reap: Vec::new(),
            paused: Vec::new(),
            is_short_of_memory: false,
            closed: Vec::new(),
            scratch: Scratch {
                wire: vec![0; WIRE_BYTES].into_boxed_slice(),
                plain: vec![0; PLAIN_BYTES].into_boxed_slice(),
            },
            flush_context: FlushContext::new(bytes_max),
            dirty: Vec::new(),
            last_number: 0,
            surplus_len: 0,
            is_full: false,
            inbound_bytes: 0,
            now: Moment::default(),
            is_draining: false,
            serves_sample: false,
            listeners: Vec::new(),
            closings: Closings::default(),
            latencies,
        }
    }

    /// Takes a connection in. Its socket must not block. One above `connections_max` is only taken
    /// in to be told so, as soon as it shows what it speaks.
    ///
    /// # Errors
    /// Gives the socket back when too many are being told already, or the broker is draining.
    pub fn accept(&mut self, socket: S, accepted: Accepted) -> Result<ConnectionId, S> {
        let places_max = self.limits.connections_max as usize;
        let surplus = self.connections.len() - self.surplus_len >= places_max;
        if surplus && !self.is_full {
            log::warn!(
                "connections refused, all places are in use connections_max={places_max} \
                 listener={:?}",
                self.listener_name(accepted.listener)
            );
        }
        self.is_full = surplus;
        let counters = &mut self.broker.counters;
        if surplus || self.is_draining {
            counters.connections_refused += 1;
            if self.is_draining || self.surplus_len >= self.limits.refusals_max as usize {
                return Err(socket);
            }
            self.surplus_len += 1;
        } else {
            counters.connections_accepted += 1;
        }
        self.last_number += 1;
        let now_ms = self.now.ms();
        let time_ms = if surplus { self.limits.refusal_ms_max } else { self.limits.upgrade_ms_max };
        let deadline_ms = now_ms + u64::from(time_ms);
        let id = self.connections.next_id();
        self.connections.insert(Connection {
            socket,
            tls: None,
            transport: Transport::new(),
            assembler: None,
            policy: accepted.policy,
            listener: accepted.listener,
            phase: Phase::AwaitingProtocol,
            flags: Flags { surplus, ..Flags::default() },
            peer: None,
            id,
            address: accepted.address,
            number: self.last_number,
            deadline_ms,
            armed_ms: deadline_ms,
            heard_ms: now_ms,
            asked_ms: NEVER,
            said_ms: now_ms,
            accepted_ms: now_ms,
            totals: Totals::default(),
            staged: Vec::new(),
        });
        self.deadlines.arm(deadline_ms, id);
        log::debug!(
            "accepted connection={} listener={:?} peer={}",
            self.last_number,
            self.listener_name(accepted.listener),
            accepted.address
        );
        Ok(id)
    }

    /// Closes a connection that could not be registered.
    pub fn forget(&mut self, id: ConnectionId) {
        self.close_now(id.slot, CloseReason::Lost);
    }

    /// Notes what the kernel said of a socket. Nothing is done yet, and nothing is wrong if the
    /// connection is gone or there is nothing to do.
    pub fn note_ready(&mut self, slot: u32, readable: bool, writable: bool) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if readable {
            connection.flags.readable = true;
            list_to_read(connection, &mut self.to_read);
        }
        if writable && connection.flags.blocked {
            connection.flags.blocked = false;
            list_to_flush(connection, &mut self.to_flush);
        }
    }

    /// Notes that the kernel said of a socket that the peer's stream has ended, or is broken: reads go on
    /// until that is seen.
    pub fn note_end_announced(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.flags.end_announced = true;
        }
    }

    /// Reads from every connection that has something, within its share, and handles what came.
    pub fn receive(&mut self, now: Moment) {
        self.now = now;
        let mut list = std::mem::take(&mut self.to_read);
        for id in list.drain(..) {
            if self.connections.find(id).is_some() {
                self.read_connection(id.slot);
            }
        }
        // Those that stopped early are on the new list; the old one's memory is used again.
        if self.to_read.is_empty() {
            self.to_read = list;
        }
    }

    /// Writes to every connection that has something, in the order in which they first got it.
    pub fn flush(&mut self, now: Moment) {
        self.now = now;
        let mut list = std::mem::take(&mut self.to_flush);
        for id in list.drain(..) {
            if self.connections.find(id).is_some() {
                self.flush_slot(id.slot);
            }
        }
        if self.to_flush.is_empty() {
            self.to_flush = list;
        }
        self.flush_dirty();
    }

    /// Ends the turn: cuts slow consumers, looks at deadlines, reaps what is closed, and records
    /// how long things took.
    pub fn settle(&mut self, now: Moment) {
        self.now = now;
        for (arrived_ns, count) in self.flush_context.delivered.drain(..) {
            let elapsed_ns = now.ns.saturating_sub(arrived_ns);
            self.latencies.record_many(Stage::Delivery, elapsed_ns, count);
        }
        self.broker.cut_slow_consumers(now);
        while let Some((armed_ms, id)) = self.deadlines.next_due(now.ms()) {
            self.check_deadline(armed_ms, id);
        }
        if self.broker.peers.has_dirty() {
            self.flush_dirty();
        }
        self.watch_memory();
        self.reap();
        self.closings.tell_due(now.ms());
        // What was encoded for nobody who takes it would lend its arrival to the next turn.
        let peers = &mut self.broker.peers;
        if !peers.has_dirty() && !peers.arena.is_fresh() {
            peers.arena.end_turn();
        }
    }

    /// A socket that is not ours any more.
    pub fn take_closed(&mut self) -> Option<(ConnectionId, S)> {
        self.closed.pop()
    }

    /// Whether there is work that the kernel will not announce: do not sleep.
    pub fn has_work(&self) -> bool {
        let is_idle =
            self.to_read.is_empty() && self.to_flush.is_empty() && self.to_reap.is_empty();
        !is_idle || self.broker.peers.has_dirty()
    }

    /// When to end the turn even if nothing happens, in milliseconds of [`Moment::ms`].
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let overflow_ms = self.broker.peers.next_overflow_ms();
        let due = [self.deadlines.next_ms(), overflow_ms, self.closings.due_ms()];
        due.into_iter().flatten().min()
    }

    /// Tells every client that the broker shuts down; no connection is accepted any more.
    pub fn begin_drain(&mut self, now: Moment) {
        self.now = now;
        self.is_draining = true;
        self.closings.begin_drain();
        self.broker.drain(now);
        self.flush_dirty();
        let silent: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.phase.reads_frames() && connection.peer.is_none())
            .map(|(slot, _)| slot as u32)
            .collect();
        for slot in silent {
            self.begin_close(slot, CloseReason::Refused(Code::Draining));
        }
        self.reap();
    }

    /// Closes everything that is left, whether or not it took its last octets.
    pub fn abandon(&mut self, now: Moment) {
        self.now = now;
        let left: Vec<_> = self.connections.iter().map(|(slot, _)| slot as u32).collect();
        for slot in left {
            self.close_now(slot, CloseReason::Refused(Code::Draining));
        }
        self.reap();
    }

    /// Replaces keys and certificates. Connections that are open stay.
    pub fn reload(&mut self, keys: Keys, tls: Option<Arc<rustls::ServerConfig>>) {
        self.broker.set_keys(keys);
        self.tls = tls;
    }

    /// What the listeners are called, by their place in the configuration: for the log.
    pub fn name_listeners(&mut self, names: Vec<String>) {
        self.listeners = names;
    }

    /// The connections that ended since the drain began, by reason.
    pub fn drain_sums(&self) -> &[Sum] {
        self.closings.drain_sums()
    }

    /// Says whether plain HTTP requests get the sample page, which is for brokers with keys that
    /// everybody knows.
    pub fn serve_sample(&mut self, serves: bool) {
        self.serves_sample = serves;
    }

    /// Whether a rush has left memory that is worth returning.
    pub fn has_slack(&self) -> bool {
        let lists = [&self.to_read, &self.to_flush, &self.to_reap, &self.paused];
        self.broker.peers.arena.has_slack()
            || lists.iter().any(|list| list.capacity() > LIST_KEPT)
            || self.dirty.capacity() > LIST_KEPT
            || self.deadlines.has_slack()
    }

    /// Returns the memory of a past rush. To be called when there is nothing to do.
    pub fn trim(&mut self) {
        self.broker.peers.arena.trim();
        self.deadlines.trim();
        for list in [&mut self.to_read, &mut self.to_flush, &mut self.to_reap, &mut self.paused] {
            list.shrink_to(LIST_KEPT);
        }
        self.dirty.shrink_to(LIST_KEPT);
    }

    /// The broker behind the connections.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The broker, to count in.
    pub fn broker_mut(&mut self) -> &mut Broker {
        &mut self.broker
    }

    /// A connection's socket, for the simulator and for those who registered it.
    pub fn socket_mut(&mut self, id: ConnectionId) -> Option<&mut S> {
        self.connections.find_mut(id).map(|connection| &mut connection.socket)
    }

    /// The same, only to look at.
    pub fn socket(&self, id: ConnectionId) -> Option<&S> {
        self.connections.find(id).map(|connection| &connection.socket)
    }

    /// Why a connection is closing, once that is settled: for the simulator.
    pub fn close_reason(&self, id: ConnectionId) -> Option<CloseReason> {
        self.connections.find(id)?.phase.reason()
    }

    /// Memory that is held for frames that have arrived only in part.
    pub fn inbound_bytes(&self) -> u64 {
        self.inbound_bytes
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Panics where connections and broker contradict each other. To be asked between turns.
    pub fn check_invariants(&self) {
        self.broker.check_invariants();
        let peers = &self.broker.peers;
        assert!(peers.has_dirty() || peers.arena.is_fresh(), "a turn has left something behind");
        let held: u64 = self.connections.iter().map(|(_, one)| held_bytes(one)).sum();
        assert_eq!(held, self.inbound_bytes, "memory of frames that have arrived in part");
        let surplus = self.connections.iter().filter(|(_, one)| one.flags.surplus).count();
        assert_eq!(surplus, self.surplus_len, "connections above the limit");
        let with_peer = self.connections.iter().filter(|(_, one)| one.peer.is_some());
        assert_eq!(with_peer.count(), peers.len(), "peers whose connection is gone");
        for (slot, connection) in self.connections.iter() {
            assert_eq!(connection.id.slot as usize, slot);
            assert!(self.connections.find(connection.id).is_some(), "an id that was used before");
            if let Some(peer) = connection.peer {
                assert_eq!(self.broker.peers.peer(peer).slot as usize, slot);
                let open = connection.phase.reads_frames();
                let closing = self.broker.peers.peer(peer).closure().is_some();
                assert!(open != closing, "phase {:?}, peer closing: {closing}", connection.phase);
            }
            let waits = connection.flags.listed_to_read
                || connection.flags.paused
                || !connection.flags.readable
                || connection.flags.ended
                || matches!(connection.phase, Phase::Closed(_));
            assert!(waits, "connection {slot} is readable and nobody will read it");
        }
    }

    fn listener_name(&self, listener: u16) -> &str {
        self.listeners.get(usize::from(listener)).map_or("", String::as_str)
    }

    // -- reading ----------------------------------------------------------------------------

    fn read_connection(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.flags.listed_to_read = false;
        let mut budget = self.limits.read_bytes_per_turn_max as usize;
        loop {
            if self.hold_back_if_short(slot) {
                return;
            }
            let connection = &mut self.connections[slot as usize];
            if !connection.flags.readable || matches!(connection.phase, Phase::Closed(_)) {
                return;
            }
            if budget == 0 {
                return list_to_read(connection, &mut self.to_read);
            }
            let wanted = budget.min(self.scratch.wire.len());
            match connection.socket.read(&mut self.scratch.wire[..wanted]) {
                Ok(0) => {
                    connection.flags.readable = false;
                    connection.flags.ended = true;
                    return self.handle_end(slot);
                }
                Ok(count) => {
                    budget -= count;
                    connection.totals.bytes_in += count as u64;
                    connection.note_heard(self.now.ms());
                    self.broker.counters.bytes_in += count as u64;
                    if !connection.flags.end_announced && !S::may_have_more(count, wanted) {
                        connection.flags.readable = false;
                    }
                    self.handle_octets(slot, count);
                    self.relieve_pressure();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.flags.readable = false;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close_now(slot, CloseReason::Lost),
            }
        }
    }

    /// Handles what was read into the scratch buffer.
    fn handle_octets(&mut self, slot: u32, count: usize) {
        // Another connection may have taken the session over in this very turn.
        self.note_closure(slot);
        let connection = &mut self.connections[slot as usize];
        if !connection.reads_transport() {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch.wire);
        let held_before = held_bytes(connection);
        if connection.phase == Phase::AwaitingProtocol
            && connection.tls.is_none()
            && connection.totals.bytes_in == count as u64
        {
            self.settle_security(slot, scratch[0]);
        }
        if self.connections[slot as usize].tls.is_some() {
            self.handle_encrypted(slot, &scratch[..count]);
        } else {
            self.handle_plain(slot, &mut scratch[..count]);
        }
        self.scratch.wire = scratch;
        let connection = &mut self.connections[slot as usize];
        connection.transport.release();
        self.inbound_bytes = self.inbound_bytes - held_before + held_bytes(connection);
        let max = self.limits.inbound_total_bytes_max;
        if self.inbound_bytes > max && held_bytes(connection) > held_before {
            let exceeded = Exceeded { limit: "inbound_total_bytes_max", max };
            let fault = Fault { retry: Some(Retry::Later), ..Fault::exceeded(exceeded) };
            self.refuse(slot, &fault);
        }
        self.wake_flush(slot);
    }

    /// Begins TLS, or not, by a connection's first octet and the listener's policy.
    #[inline(never)]
    fn settle_security(&mut self, slot: u32, first: u8) {
        let connection = &mut self.connections[slot as usize];
        let refused = match (first == detect::TLS_HANDSHAKE, connection.policy.tls, &self.tls) {
            (true, TlsMode::Off, _) | (true, _, None) => Some("TLS is not served on this port"),
            (false, TlsMode::Required, _) => {
                // Whatever it speaks is told so.
                connection.policy.protocols = Protocols::NONE;
                None
            }
            (false, _, _) => None,
            (true, _, Some(config)) => match TlsLayer::new(config) {
                Ok(layer) => {
                    connection.tls = Some(Box::new(layer));
                    let time_ms = self.limits.tls_handshake_ms_max;
                    self.set_deadline(slot, self.now.ms() + u64::from(time_ms));
                    None
                }
                Err(_) => Some("the TLS configuration is unusable"),
            },
        };
        if let Some(why) = refused {
            self.close_now(slot, CloseReason::Transport(why));
        }
    }

    #[inline(never)]
    fn handle_encrypted(&mut self, slot: u32, wire: &[u8]) {
        let mut wire = wire;
        let mut plain = std::mem::take(&mut self.scratch.plain);
        loop {
            let connection = &mut self.connections[slot as usize];
            if !connection.reads_transport() {
                break;
            }
            let Some(tls) = &mut connection.tls else { break };
            let was_handshaking = tls.is_handshaking();
            let result = tls.decrypt(&mut wire, &mut plain);
            let is_ended = tls.is_ended_by_peer();
            if was_handshaking && !tls.is_handshaking() {
                self.set_deadline(slot, self.now.ms() + u64::from(self.limits.upgrade_ms_max));
            }
            match result {
                Ok(0) if is_ended => {
                    self.handle_close_notify(slot);
                    break;
                }
                Ok(0) => break,
                Ok(count) => self.handle_plain(slot, &mut plain[..count]),
                Err(TransportError::Tls(why)) => {
                    self.begin_close(slot, CloseReason::Transport(why));
                    break;
                }
                Err(_) => break,
            }
        }
        self.scratch.plain = plain;
    }

    /// The peer's stream ended as TLS says it. Its socket may stay open, waiting for us to say so too.
    fn handle_close_notify(&mut self, slot: u32) {
        match self.connections[slot as usize].phase {
            Phase::AwaitingClose(reason) => self.end_stream(slot, reason),
            _ => self.begin_close(slot, CloseReason::EndOfStream),
        }
    }

    /// Handles octets as the peer meant them, TLS peeled off.
    fn handle_plain(&mut self, slot: u32, octets: &mut [u8]) {
        let mut wire = octets;
        loop {
            let connection = &mut self.connections[slot as usize];
            if !connection.phase.reads_frames() {
                return self.await_close(slot, wire);
            }
            let bound = frame_bound(&self.limits, connection.phase);
            let policy = connection.policy;
            let upgrade_max = self.limits.upgrade_bytes_max;
            match connection.transport.next_inbound(&mut wire, &policy, bound, upgrade_max) {
                Ok(None) => return,
                Ok(Some(Inbound::Frame(frame))) => {
                    let Some(peer) = connection.peer else { return };
                    connection.totals.frames_in += 1;
                    self.broker.handle_classic(peer, frame, self.now);
                    self.note_handled(slot);
                }
                Ok(Some(Inbound::Octets { octets, is_binary })) => {
                    let Some(peer) = connection.peer else { return };
                    let Some(assembler) = &mut connection.assembler else { return };
                    if connection.phase == Phase::AwaitingConnect {
                        self.broker.peers.peer_mut(peer).prefer_binary(is_binary);
                    }
                    let mut frames = FrameSource { assembler, octets, limits: &self.limits };
                    connection.totals.frames_in +=
                        handle_standard(&mut self.broker, peer, &mut frames, self.now);
                    self.note_handled(slot);
                }
                Ok(Some(Inbound::Opened(dialect))) => self.open(slot, dialect),
                Ok(Some(Inbound::Unserved(dialect, what))) => {
                    self.refuse_unserved(slot, dialect, what);
                }
                Ok(Some(Inbound::Request(request))) => self.answer_request(slot, &request),
                Ok(Some(Inbound::Closed)) => self.begin_close(slot, CloseReason::EndOfStream),
                Err(error) => return self.handle_breach(slot, error),
            }
        }
    }

    /// Follows the broker after it handled frames of a connection.
    #[inline]
    fn note_handled(&mut self, slot: u32) {
        if self.connections[slot as usize].phase == Phase::AwaitingConnect {
            self.note_login(slot);
        }
        self.note_closure(slot);
    }

    /// Looks for the peer's close in what it still sends; its frames are not looked at.
    #[inline(never)]
    fn await_close(&mut self, slot: u32, octets: &mut [u8]) {
        let connection = &mut self.connections[slot as usize];
        if !connection.reads_transport() {
            return;
        }
        let mut wire = octets;
        let bound = frame_bound(&self.limits, Phase::Open);
        let policy = connection.policy;
        loop {
            match connection.transport.next_inbound(&mut wire, &policy, bound, 0) {
                Ok(None) => return,
                Ok(Some(Inbound::Closed)) | Err(_) => break,
                Ok(Some(_)) => {}
            }
        }
        if let Phase::AwaitingClose(reason) = connection.phase {
            self.end_stream(slot, reason);
        }
    }

    /// Opens the broker's side of a connection, once it is settled what it speaks.
    #[inline(never)]
    fn open(&mut self, slot: u32, dialect: Dialect) {
        let connection = &mut self.connections[slot as usize];
        let encoding = match dialect {
            Dialect::Classic => Encoding::Classic,
            Dialect::Standard => {
                connection.assembler = Some(Box::default());
                Encoding::Standard(Version::V1_0)
            }
        };
        let opening = Opening {
            slot,
            number: connection.number,
            framing: connection.transport.framing(),
            encoding,
        };
        connection.peer = Some(self.broker.open_peer(opening));
        connection.phase = Phase::AwaitingConnect;
        self.set_deadline(slot, self.now.ms() + u64::from(self.limits.connect_ms_max));
        if self.connections[slot as usize].flags.surplus {
            self.refuse_surplus(slot);
        }
    }

    /// Tells a connection that its listener does not serve what it speaks.
    #[inline(never)]
    fn refuse_unserved(&mut self, slot: u32, dialect: Dialect, what: &'static str) {
        let why = why_unserved(&self.connections[slot as usize], what);
        self.open(slot, dialect);
        if self.connections[slot as usize].phase == Phase::AwaitingConnect {
            self.broker.counters.protocol_errors += 1;
            let fault = Fault::closing(Code::ProtocolNotServed, Retry::Never, why);
            self.refuse(slot, &fault);
        }
    }

    /// Tells a connection above `connections_max` that there is no place for it.
    fn refuse_surplus(&mut self, slot: u32) {
        let max = self.limits.connections_max;
        let fault = Fault {
            description: format!("all {max} connections that {SURPLUS} allows are in use").into(),
            retry: Some(Retry::Later),
            ..Fault::exceeded(Exceeded { limit: SURPLUS, max: max.into() })
        };
        self.refuse(slot, &fault);
    }

    /// After a login there is no deadline but those of pings and heart-beats.
    #[inline(never)]
    fn note_login(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let Some(peer) = connection.peer else { return };
        if self.broker.peers.peer(peer).session().is_none() {
            return;
        }
        connection.phase = Phase::Open;
        connection.deadline_ms = NEVER;
        self.check_liveness(slot);
    }

    #[inline(never)]
    fn answer_request(&mut self, slot: u32, request: &PlainRequest) {
        let connection = &mut self.connections[slot as usize];
        let protocols = connection.policy.protocols;
        if !protocols.http && !protocols.ws {
            let why = if lacks_tls(connection) { ONLY_TLS } else { NO_HTTP };
            connection.transport.answer(&http::refusal(request, why));
            return self.handle_breach(slot, TransportError::BadRequest(why));
        }
        let served = http::Served { http: protocols.http, sample: self.serves_sample };
        let response = http::answer(request, served);
        connection.transport.answer(&response);
        self.begin_close(slot, CloseReason::Answered);
    }

    /// Tells a peer what it did wrong, in its own dialect where one is settled, and closes.
    #[inline(never)]
    fn handle_breach(&mut self, slot: u32, error: TransportError) {
        let fault = match error {
            TransportError::TooLarge(exceeded) => Fault::exceeded(exceeded),
            TransportError::EmptyFrame => {
                Fault::closing(Code::MalformedFrame, Retry::Never, error.to_string())
            }
            TransportError::BadRequest(why)
            | TransportError::WebSocket(_, why)
            | TransportError::Tls(why) => {
                self.broker.counters.protocol_errors += 1;
                return self.begin_close(slot, CloseReason::Transport(why));
            }
            TransportError::Unrecognized => {
                return self.begin_close(slot, CloseReason::Transport("unrecognized"));
            }
        };
        self.refuse(slot, &fault);
    }

    /// The peer's stream ended.
    #[inline(never)]
    fn handle_end(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        match connection.phase {
            Phase::AwaitingProtocol | Phase::AwaitingConnect | Phase::Open => {
                // What was asked before the end is still answered.
                self.begin_close(slot, CloseReason::EndOfStream);
                self.wake_flush(slot);
            }
            Phase::Flushing(_) | Phase::Closed(_) => {}
            Phase::AwaitingClose(reason) | Phase::Lingering(reason) => {
                self.close_now(slot, reason);
            }
        }
    }

    // -- memory -----------------------------------------------------------------------------

    /// A publisher is not read while memory is short.
    #[inline]
    fn hold_back_if_short(&mut self, slot: u32) -> bool {
        self.is_short_of_memory && self.hold_back(slot)
    }

    #[cold]
    fn hold_back(&mut self, slot: u32) -> bool {
        let connection = &mut self.connections[slot as usize];
        let publishes = connection.peer.is_some_and(|peer| self.broker.peers.peer(peer).publishes);
        if !publishes || connection.phase != Phase::Open {
            return false;
        }
        if !connection.flags.paused {
            connection.flags.paused = true;
            self.paused.push(connection.id);
        }
        true
    }

    /// Flushes at once where queues grow past their soft bound while others are still being read,
    /// so that a receiver that keeps up is not taken for a slow one.
    fn relieve_pressure(&mut self) {
        let is_full = self.broker.peers.arena.turn_bytes() >= TURN_BYTES_MAX;
        if self.broker.peers.take_pressure_grew() || is_full {
            self.flush_dirty();
        }
        self.watch_memory();
    }

    /// Begins and ends holding publishers back.
    #[inline]
    fn watch_memory(&mut self) {
        let used = self.broker.peers.arena.resident_bytes();
        // Half is far from where anything is done.
        if self.is_short_of_memory || used > self.limits.outbound_total_bytes_max / 2 {
            self.judge_memory(used);
        }
    }

    #[cold]
    fn judge_memory(&mut self, used: u64) {
        let max = self.limits.outbound_total_bytes_max;
        if !self.is_short_of_memory && used > max / 10 * 9 {
            self.is_short_of_memory = true;
            self.broker.counters.publishers_paused += 1;
            log::warn!("publishers paused queued_bytes={used} outbound_total_bytes_max={max}");
        } else if self.is_short_of_memory && used < max / 10 * 7 {
            self.is_short_of_memory = false;
            log::info!("publishers resumed queued_bytes={used}");
            for id in std::mem::take(&mut self.paused) {
                let Some(connection) = self.connections.find_mut(id) else { continue };
                if std::mem::take(&mut connection.flags.paused) {
                    connection.note_heard(self.now.ms());
                    list_to_read(connection, &mut self.to_read);
                }
            }
        }
    }

    // -- writing ----------------------------------------------------------------------------

    /// Flushes every connection that got something, and those that get something as others are closed.
    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        while self.broker.peers.has_dirty() {
            self.broker.peers.take_dirty(&mut dirty);
            for peer in dirty.drain(..) {
                let Some((_, outbox)) = self.broker.peers.outbox(peer) else { continue };
                let slot = outbox.slot;
                self.note_closure(slot);
                self.flush_slot(slot);
            }
        }
        self.dirty = dirty;
        self.broker.peers.arena.end_turn();
    }

    fn flush_slot(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.flags.listed_to_flush = false;
        let outbox = connection.peer.and_then(|peer| self.broker.peers.outbox(peer));
        let progress = if connection.flags.blocked || matches!(connection.phase, Phase::Closed(_)) {
            if let Some((arena, peer)) = outbox {
                keep(arena, peer);
            }
            Ok(FlushProgress::Blocked)
        } else {
            let before = (connection.totals.bytes_out, connection.totals.frames_out);
            let progress = flush(connection, outbox, &mut self.flush_context);
            let bytes = connection.totals.bytes_out - before.0;
            self.broker.counters.bytes_out += bytes;
            let frames = connection.totals.frames_out.wrapping_sub(before.1);
            // Who is behind a WebSocket sees no pings and no pongs, and a message when it is whole.
            if frames > 0 || (bytes > 0 && !connection.transport.is_websocket()) {
                connection.said_ms = self.now.ms();
            }
            self.broker.counters.frames_out += u64::from(frames);
            progress
        };
        if let Some(peer) = connection.peer {
            self.broker.peers.note_flushed(peer, self.now.ms());
        }
        match progress {
            Ok(FlushProgress::Drained) => {
                if let Phase::Flushing(reason) = connection.phase {
                    self.handle_drained(slot, reason);
                }
            }
            Ok(FlushProgress::Blocked) => connection.flags.blocked = true,
            Ok(FlushProgress::Spent) => list_to_flush(connection, &mut self.to_flush),
            Err(_) => self.close_now(slot, CloseReason::Lost),
        }
    }

    /// What comes after the last octet of a connection that closes: a WebSocket close, a
    /// close_notify, the end of our stream; then the peer's.
    #[cold]
    fn handle_drained(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot as usize];
        let peer = connection.peer.map(|peer| self.broker.peers.peer(peer));
        let code = close_code(reason, peer);
        if connection.transport.begin_close(code) && !connection.flags.ended {
            connection.phase = Phase::AwaitingClose(reason);
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.linger_ms_max));
            return self.flush_slot(slot);
        }
        if !connection.transport.control().is_empty() {
            return self.flush_slot(slot);
        }
        self.end_stream(slot, reason);
    }

    /// Ends our stream, and waits for the peer to end its own: closing with unread input would
    /// reset the connection, and the peer might lose what it was sent last.
    fn end_stream(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot as usize];
        if let Some(tls) = &mut connection.tls {
            tls.begin_close();
            while tls.wants_write() && tls.write_to(&mut connection.socket).is_ok_and(|n| n > 0) {}
        }
        if connection.socket.shutdown_write().is_err() || connection.flags.ended {
            return self.close_now(slot, reason);
        }
        connection.phase = Phase::Lingering(reason);
        self.set_deadline(slot, self.now.ms() + u64::from(self.limits.linger_ms_max));
    }

    fn wake_flush(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let closing = matches!(connection.phase, Phase::Flushing(_));
        let tls_writes = connection.tls.as_ref().is_some_and(|tls| tls.wants_write());
        if closing || tls_writes || !connection.transport.control().is_empty() {
            list_to_flush(connection, &mut self.to_flush);
        }
    }

    // -- closing ----------------------------------------------------------------------------

    /// Tells a peer of a fault and closes its connection, in whatever phase it is.
    #[inline(never)]
    fn refuse(&mut self, slot: u32, fault: &Fault) {
        match self.connections[slot as usize].peer {
            Some(peer) => {
                self.broker.refuse(peer, fault, self.now);
                self.note_closure(slot);
            }
            None => self.begin_close(slot, fault.close_reason()),
        }
    }

    /// Follows the broker, where it has settled that a connection closes.
    #[inline]
    fn note_closure(&mut self, slot: u32) {
        if self.broker.peers.has_closing() {
            self.follow_closure(slot);
        }
    }

    #[inline(never)]
    fn follow_closure(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let Some(peer) = connection.peer else { return };
        let Some(closure) = self.broker.peers.peer(peer).closure() else { return };
        if connection.phase.reads_frames() {
            connection.phase = Phase::Flushing(closure.reason);
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.close_flush_ms_max));
        }
    }

    /// Closes a connection once what is queued is out.
    #[inline(never)]
    fn begin_close(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot as usize];
        if !connection.phase.reads_frames() {
            return;
        }
        connection.phase = Phase::Flushing(reason);
        if let Some(peer) = connection.peer {
            self.broker.end_peer(peer, reason, self.now);
        }
        self.set_deadline(slot, self.now.ms() + u64::from(self.limits.close_flush_ms_max));
        let connection = &mut self.connections[slot as usize];
        list_to_flush(connection, &mut self.to_flush);
    }

    /// Closes a connection without looking at what is queued. It is reaped at the end of the turn.
    #[inline(never)]
    fn close_now(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot as usize];
        if matches!(connection.phase, Phase::Closed(_)) {
            return;
        }
        let reason = connection.phase.reason().unwrap_or(reason);
        if let Some(peer) = connection.peer {
            self.broker.end_peer(peer, reason, self.now);
        }
        connection.phase = Phase::Closed(reason);
        self.to_reap.push(connection.id);
    }

    #[inline(never)]
    fn check_deadline(&mut self, armed_ms: u64, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.armed_ms != armed_ms {
            return;
        }
        connection.armed_ms = NEVER;
        let deadline_ms = connection.deadline_ms;
        if deadline_ms > self.now.ms() {
            return self.set_deadline(id.slot, deadline_ms);
        }
        if connection.phase == Phase::Open {
            return self.check_liveness(id.slot);
        }
        if connection.flags.surplus {
            return self.close_now(id.slot, CloseReason::Exceeded(SURPLUS));
        }
        let limit = match connection.phase {
            Phase::AwaitingProtocol
                if connection.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) =>
            {
                "tls_handshake_ms_max"
            }
            Phase::AwaitingProtocol => "upgrade_ms_max",
            Phase::AwaitingConnect => "connect_ms_max",
            Phase::Flushing(reason) | Phase::AwaitingClose(reason) | Phase::Lingering(reason) => {
                return self.close_now(id.slot, reason);
            }
            Phase::Open | Phase::Closed(_) => return,
        };
        self.broker.counters.timeouts += 1;
        if connection.phase == Phase::AwaitingConnect {
            return self.refuse(id.slot, &Fault::timed_out(limit));
        }
        let held = held_bytes(connection);
        if connection.transport.answer_late(limit) {
            self.inbound_bytes -= held - held_bytes(connection);
            return self.begin_close(id.slot, CloseReason::TimedOut(limit));
        }
        self.close_now(id.slot, CloseReason::TimedOut(limit));
    }

    /// Looks at who is silent, and sends the heart-beats that were agreed.
    fn check_liveness(&mut self, slot: u32) {
        let now_ms = self.now.ms();
        let connection = &mut self.connections[slot as usize];
        if connection.flags.paused {
            // We are the ones who do not listen.
            connection.note_heard(now_ms);
        }
        let Some(peer) = connection.peer else { return };
        let peer = self.broker.peers.peer(peer);
        let mut next_ms = NEVER;
        if peer.beats.outgoing_ms > 0 {
            // A little early: the way takes time, too.
            let interval_ms = u64::from(peer.beats.outgoing_ms) * 3 / 4;
            if now_ms >= connection.said_ms + interval_ms {
                connection.said_ms = now_ms;
                if peer.queue.is_empty() && connection.transport.control().is_empty() {
                    connection.transport.beat(peer.framing != Framing::WebSocketBinary);
                    list_to_flush(connection, &mut self.to_flush);
                }
            }
            next_ms = next_ms.min(connection.said_ms + interval_ms);
        }
        match judge_silence(connection, peer.beats, &self.limits, now_ms) {
            Silence::Allowed => {}
            Silence::JudgeAt(at_ms) => next_ms = next_ms.min(at_ms),
            Silence::Ask(until_ms) => {
                connection.asked_ms = now_ms;
                connection.transport.ping();
                list_to_flush(connection, &mut self.to_flush);
                next_ms = next_ms.min(until_ms);
            }
            Silence::Broken(limit) => return self.cut_silent(slot, limit),
        }
        if next_ms != NEVER {
            self.set_deadline(slot, next_ms.max(now_ms + 1));
        }
    }

    /// Closes the connection of a client that is silent for too long. On WebSocket it is told, for its
    /// page may be there again when the close arrives.
    #[cold]
    fn cut_silent(&mut self, slot: u32, limit: &'static str) {
        self.broker.counters.timeouts += 1;
        let connection = &self.connections[slot as usize];
        if !connection.transport.is_websocket() {
            return self.close_now(slot, CloseReason::TimedOut(limit));
        }
        if connection.assembler.is_some() {
            return self.refuse(slot, &Fault::silent(limit));
        }
        self.begin_close(slot, CloseReason::TimedOut(limit));
    }

    fn set_deadline(&mut self, slot: u32, at_ms: u64) {
        let connection = &mut self.connections[slot as usize];
        let mut at_ms = at_ms;
        if connection.flags.surplus {
            // Whatever it waits for, it holds its place no longer than this.
            at_ms = at_ms.min(connection.accepted_ms + u64::from(self.limits.refusal_ms_max));
        }
        connection.deadline_ms = at_ms;
        // An entry that fires sooner looks again.
        if at_ms < connection.armed_ms {
            connection.armed_ms = at_ms;
            self.deadlines.arm(at_ms, connection.id);
        }
    }

    /// Lets go of the connections that are closed.
    #[inline]
    fn reap(&mut self) {
        if !self.to_reap.is_empty() {
            self.reap_all();
        }
    }

    #[cold]
    fn reap_all(&mut self) {
        let mut list = std::mem::take(&mut self.to_reap);
        for id in list.drain(..) {
            let Some(connection) = self.connections.remove(id) else { continue };
            self.inbound_bytes -= held_bytes(&connection);
            if connection.flags.surplus {
                self.surplus_len -= 1;
            } else {
                self.broker.counters.connections_closed += 1;
            }
            let mut closings = std::mem::take(&mut self.closings);
            closings.note(&self.ending_of(&connection), self.now.ms());
            self.closings = closings;
            if let Some(peer) = connection.peer {
                let reason = connection.phase.reason().unwrap_or(CloseReason::Lost);
                self.broker.close_peer(peer, reason, self.now);
            }
            self.closed.push((id, connection.socket));
        }
        self.to_reap = list;
    }

    fn ending_of<'a>(&'a self, connection: &'a Connection<S>) -> Ending<'a> {
        let login = connection.peer.and_then(|peer| self.broker.past_login_of(peer));
        let queued = connection.peer.map(|peer| self.broker.peers.peer(peer).queue.bytes());
        // Who speaks neither dialect gets answers to plain requests.
        let queued = queued.map_or_else(|| connection.transport.control().len() as u64, u64::from);
        let encrypted = connection.tls.as_ref().map_or(0, |tls| tls.unsent_bytes());
        Ending {
            number: connection.number,
            listener: self.listener_name(connection.listener),
            address: connection.address,
            transport: connection.transport_name(),
            login: login.unwrap_or_default(),
            reason: connection.phase.reason().unwrap_or(CloseReason::Lost),
            duration_ms: self.now.ms().saturating_sub(connection.accepted_ms),
            totals: connection.totals,
            unsent_bytes: queued + encrypted,
        }
    }
}

impl<S> std::fmt::Debug for Engine<S> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Engine")
            .field("connections", &self.connections.len())
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

/// Why a connection's listener does not serve what it speaks.
fn why_unserved<S>(connection: &Connection<S>, what: &'static str) -> String {
    match lacks_tls(connection) {
        true => ONLY_TLS.to_owned(),
        false => format!("this listener does not serve {what}"),
    }
}

/// Whether a connection is plain where only TLS is served.
fn lacks_tls<S>(connection: &Connection<S>) -> bool {
    connection.tls.is_none() && connection.policy.tls == TlsMode::Required
}

const ONLY_TLS: &str = "only TLS is served on this port";

/// What a request is told by a listener that serves neither plain HTTP nor WebSocket.
const NO_HTTP: &str = "this listener does not serve HTTP and WebSocket";

/// The limit that a connection is above which is only taken in to be told so.
const SURPLUS: &str = "connections_max";

/// Entries that work lists keep room for.
const LIST_KEPT: usize = 256;

fn list_to_read<S>(connection: &mut Connection<S>, list: &mut Vec<ConnectionId>) {
    if !connection.flags.listed_to_read {
        connection.flags.listed_to_read = true;
        list.push(connection.id);
    }
}

fn list_to_flush<S>(connection: &mut Connection<S>, list: &mut Vec<ConnectionId>) {
    if !connection.flags.listed_to_flush {
        connection.flags.listed_to_flush = true;
        list.push(connection.id);
    }
}

fn held_bytes<S>(connection: &Connection<S>) -> u64 {
    let torn = connection.assembler.as_ref().map_or(0, |assembler| assembler.held_bytes());
    (connection.transport.held_bytes() + torn) as u64
}

fn frame_bound(limits: &Limits, phase: Phase) -> FrameBound {
    match phase {
        Phase::Open => FrameBound {
            bytes_max: limits.frame_bytes_max(),
            limit: "body_bytes_max",
            limit_max: limits.body_bytes_max,
        },
        _ => FrameBound {
            bytes_max: limits.login_frame_bytes_max,
            limit: "login_frame_bytes_max",
            limit_max: limits.login_frame_bytes_max,
        },
    }
}

/// The WebSocket close code that goes with a reason; none where the peer's own close or breach has
/// settled it. Classic clients wait for 1000; clients of the standard dialect learn from the hundreds
/// whether to come back.
fn close_code(reason: CloseReason, peer: Option<&Peer>) -> Option<CloseCode> {
    let is_standard = peer.is_some_and(|peer| matches!(peer.encoding, Encoding::Standard(_)));
    let retry = peer.and_then(Peer::closure).and_then(|closure| closure.retry);
    if let (true, Some(code), Some(retry)) = (is_standard, reason.code(), retry) {
        return Some(CloseCode::from(4000 + 100 * retry as u16 + code as u16));
    }
    match (reason, retry) {
        (CloseReason::EndOfStream | CloseReason::Transport(_), _) => None,
        (CloseReason::Refused(Code::Draining), _) => Some(CloseCode::Away),
        (CloseReason::Exceeded(_), Some(Retry::Later)) => Some(CloseCode::Again),
        (CloseReason::Exceeded(_), _) => Some(CloseCode::Size),
        _ => Some(CloseCode::Normal),
    }
}

/// What is to be done about a client that was heard last some time ago.
enum Silence {
    /// Nothing, ever.
    Allowed,
    /// Nothing until then.
    JudgeAt(u64),
    /// It is pinged, and has until then to be heard.
    Ask(u64),
    /// It is cut, for what was agreed or for this limit.
    Broken(&'static str),
}

/// Judges a client's silence. Where the transport can ask whether it is there, it is asked before it is
/// cut, whatever heart-beats were agreed: browsers hold back the timers of tabs that nobody looks at.
fn judge_silence<S>(
    connection: &Connection<S>,
    beats: Beats,
    limits: &Limits,
    now_ms: u64,
) -> Silence {
    let after = |ms: u64| if ms == 0 { NEVER } else { connection.heard_ms.saturating_add(ms) };
    let patience_ms = 3 * u64::from(beats.incoming_ms) + u64::from(limits.heart_beat_margin_ms);
    let beat_due_ms = after(if beats.incoming_ms == 0 { 0 } else { patience_ms });
    if !connection.transport.is_websocket() {
        return match beat_due_ms {
            NEVER => Silence::Allowed,
            at_ms if now_ms < at_ms => Silence::JudgeAt(at_ms),
            _ => Silence::Broken("heart-beat"),
        };
    }
    let pong_ms = u64::from(limits.websocket_pong_ms_max);
    let ask_ms = beat_due_ms.min(after(limits.websocket_ping_ms.into()));
    match (connection.asked_ms, ask_ms) {
        (NEVER, NEVER) => Silence::Allowed,
        (NEVER, at_ms) if now_ms < at_ms => Silence::JudgeAt(at_ms),
        (NEVER, _) => Silence::Ask(now_ms + pong_ms),
        (asked_ms, _) if now_ms < asked_ms + pong_ms => Silence::JudgeAt(asked_ms + pong_ms),
        _ => Silence::Broken("websocket_pong_ms_max"),
    }
}

/// What arrived of the standard dialect, to be cut into frames.
struct FrameSource<'a> {
    assembler: &'a mut Assembler,
    octets: &'a [u8],
    limits: &'a Limits,
}

/// Handles the frames in what arrived, until it is used up or the connection closes. Says how many.
fn handle_standard(
    broker: &mut Broker,
    peer: PeerId,
    source: &mut FrameSource<'_>,
    now: Moment,
) -> u32 {
    let mut count = 0;
    loop {
        let one = broker.peers.peer(peer);
        if one.closure().is_some() {
            break;
        }
        let bounds = ScanBounds::new(source.limits, one.session().is_some());
        let mut frame = Frame::default();
        match source.assembler.next_frame(&mut source.octets, &bounds, &mut frame) {
            Ok(true) => broker.handle_standard(peer, &frame, now),
            Ok(false) => break,
            Err(malformed) => {
                broker.refuse_octets(peer, &malformed, now);
                return count;
            }
        }
        count += 1;
    }
    source.assembler.release();
    count
}
