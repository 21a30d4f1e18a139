//! The engine: a table of connections, the state of each, and the turn in which they are read, handled,
//! flushed and reaped.
//!
//! It is a plain value, generic over the socket: no poll, no listener, and time is an argument. The
//! reactor drives it in production, the simulator in tests, both in this order:
//!
//! ```text
//! begin_turn     learns how late it is
//! note_ready …   records readiness, nothing else
//! receive        reads, cuts into frames, handles; answers are queued
//! flush          writes the queue of each connection that has new frames, once
//! settle         slow consumers, deadlines, latencies, reaping
//! take_closed …  returns the sockets of reaped connections
//! accept …       adds new connections
//! ```
//!
//! Closing only marks: a connection leaves the table in `settle`, never while a frame of its own
//! is being handled.

mod budget;
mod closing;
mod connection;
pub(crate) mod deadlines;
mod doors;
mod endings;
mod flush;
mod holders;
mod inbound;
mod liveness;
mod memory;
mod patience;
mod strangers;
mod table;
mod turn;

use std::net::SocketAddr;

use self::budget::{Budget, Stage};
use self::connection::{Connection, Phase};
pub use self::connection::{ConnectionId, Socket};
use self::deadlines::Deadlines;
use self::doors::Crowd;
use self::endings::Endings;
pub(crate) use self::endings::Sum;
use self::flush::FlushContext;
use self::inbound::Scratch;
use self::memory::Memory;
use self::patience::Patience;
use self::strangers::Strangers;
use self::table::{LIST_KEPT, Table};
use crate::broker::ids::PeerId;
use crate::broker::{Broker, CloseReason, Code, Fault, Keys, Moment, Options};
use crate::limits::{CONNECTION_BYTES, Limits, PLAIN_CONNECTION_BYTES};
use crate::telemetry::{Accounts, Counters, Latencies};
use crate::transport::ListenerPolicy;
use crate::transport::tls::TlsService;

/// All connections, and the broker behind them.
pub struct Engine<S> {
    connections: Table<S>,
    broker: Broker,
    limits: Limits,
    tls: Option<TlsService>,
    deadlines: Deadlines,
    patience: Patience,
    budget: Budget,
    memory: Memory,
    /// Counters of connections, bytes and turns; the broker has those of sessions and messages.
    counters: Counters,
    closed: Vec<(ConnectionId, S)>,
    scratch: Scratch,
    flush_context: FlushContext,
    dirty: Vec<PeerId>,
    last_number: u64,
    /// The most that was counted of memory, of [`Accounts::total_bytes`].
    most_bytes: u64,
    /// Connections beyond `connections_max`, accepted only to be refused.
    surplus_len: usize,
    /// Connections on TLS.
    secured_len: usize,
    /// Connections that are not logged in, without those beyond `connections_max`.
    strangers: Strangers,
    crowd: Crowd,
    /// The time of the turn.
    now: Moment,
    is_draining: bool,
    serves_sample: bool,
    /// Names of the listeners, in the order of the configuration.
    listeners: Vec<String>,
    endings: Endings,
    /// Where latencies are recorded.
    pub latencies: Latencies,
}

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// The client's address.
    pub address: SocketAddr,
    /// The protocols that the listener serves.
    pub policy: ListenerPolicy,
    /// The listener's index in the configuration.
    pub listener: u16,
}

impl<S: Socket> Engine<S> {
    /// An engine without connections.
    pub fn new(options: Options, tls: Option<TlsService>, latencies: Latencies) -> Self {
        let limits = options.limits.clone();
        Self {
            connections: Table::new(),
            broker: Broker::new(options),
            tls,
            deadlines: Deadlines::default(),
            patience: Patience::default(),
            budget: Budget::new(limits.turn_units_max),
            memory: Memory::new(&limits),
            counters: Counters::default(),
            limits,
            closed: Vec::new(),
            scratch: Scratch::new(),
            flush_context: FlushContext::new(),
            dirty: Vec::new(),
            last_number: 0,
            most_bytes: 0,
            surplus_len: 0,
            secured_len: 0,
            strangers: Strangers::default(),
            crowd: Crowd::default(),
            now: Moment::default(),
            is_draining: false,
            serves_sample: false,
            listeners: Vec::new(),
            endings: Endings::default(),
            latencies,
        }
    }

    /// Begins a turn, after a poll that ended at `polled` and was due to end at `due_ms`, if at any time at
    /// all. The kernel has told what was ready at `told_ns`, which is earlier if it was more than one poll
    /// reports.
    #[inline]
    pub fn begin_turn(&mut self, due_ms: Option<u64>, polled: Moment, told_ns: u64) {
        self.patience.begin_turn(self.now, due_ms, polled, told_ns);
        self.budget.begin_turn(self.broker.meter.spent());
        self.now = polled;
    }

    /// Notes that a socket is ready. A connection that is gone, or a spurious event, is ignored.
    pub fn note_ready(&mut self, slot: u32, readable: bool, writable: bool) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.flags.readable |= readable;
        let takes_more = writable && std::mem::take(&mut connection.flags.blocked);
        match (readable, connection.phase) {
            (false, _) => {}
            (true, Phase::Open) => self.connections.list_to_read(slot),
            // Handshakes and logins must not hold up those that are logged in.
            (true, _) => self.connections.list_to_continue(slot),
        }
        if takes_more {
            self.connections.list_to_flush(slot);
        }
    }

    /// Notes that the kernel announced the end or the reset of a stream: the connection is read until a
    /// read returns it.
    pub fn note_end_announced(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.flags.end_announced = true;
        }
    }

    /// Returns the socket of a connection that was reaped, for the caller to drop.
    pub fn take_closed(&mut self) -> Option<(ConnectionId, S)> {
        self.closed.pop()
    }

    /// Whether there is work that the kernel will not announce, so that the loop must not sleep.
    pub fn has_work(&self) -> bool {
        self.connections.has_work()
            || self.broker.peers.has_dirty()
            || self.broker.peers.arena.has_doomed()
            || self.broker.has_work()
            || self.memory.has_work()
    }

    /// When the next turn is due even without an event, in milliseconds of [`Moment::ms`].
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let overflow_ms = self.broker.peers.next_overflow_ms();
        let overflow_ms = overflow_ms.map(|at_ms| self.patience.real_ms(at_ms));
        let memory_ms = self.memory.due_ms();
        let due = [self.deadlines.next_ms(), overflow_ms, self.endings.due_ms(), memory_ms];
        due.into_iter().flatten().min()
    }

    /// Tells each client that the broker shuts down and closes its connection; no connection is accepted
    /// any more.
    pub fn begin_drain(&mut self, now: Moment) {
        self.now = now;
        self.is_draining = true;
        self.endings.begin_drain();
        self.broker.drain(now);
        self.flush_dirty(Stage::Cuts);
        let silent: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                connection.phase.reads_frames() && connection.speaker.is_none()
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in silent {
            self.begin_close(slot, CloseReason::Refused(Code::Draining));
        }
        self.reap();
    }

    /// Closes all remaining connections, with or without unsent bytes. Who was not told yet is told, if its socket takes it.
    pub fn abandon(&mut self, now: Moment) {
        self.now = now;
        let left: Vec<_> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in left {
            if self.connections[slot].phase.reads_frames() {
                self.refuse(slot, &Fault::shutting_down());
                self.flush_slot(slot);
            }
            self.close_now(slot, CloseReason::Refused(Code::Draining));
        }
        self.reap_all();
    }

    /// Replaces keys and certificates. Connections that are open stay.
    pub fn reload(&mut self, keys: Keys, tls: Option<TlsService>) {
        self.broker.set_keys(keys);
        self.tls = tls;
    }

    /// Sets the names of the listeners for the log, in the order of the configuration.
    pub fn name_listeners(&mut self, names: Vec<String>) {
        self.listeners = names;
    }

    /// The connections that ended since the drain began, by reason.
    pub fn drain_sums(&self) -> &[Sum] {
        self.endings.drain_sums()
    }

    /// Sets whether plain HTTP requests get the sample page, which contains the development keys.
    pub fn serve_sample(&mut self, serves: bool) {
        self.serves_sample = serves;
    }

    /// Whether a burst has left memory that is worth returning.
    pub fn has_slack(&self) -> bool {
        self.broker.peers.arena.has_slack()
            || self.connections.has_slack()
            || self.memory.has_slack()
            || self.dirty.capacity() > LIST_KEPT
            || self.deadlines.has_slack()
    }

    /// Returns the memory of a past burst. To be called when the engine is idle.
    pub fn trim(&mut self) {
        self.broker.peers.arena.trim();
        self.deadlines.trim();
        self.connections.trim();
        self.memory.trim();
        self.dirty.shrink_to(LIST_KEPT);
    }

    /// The broker behind the connections.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Counters since the start, those of the broker included.
    pub fn counters(&self) -> Counters {
        self.counters.plus(&self.broker.counters)
    }

    /// Turns since the start.
    pub(crate) fn turns(&self) -> u64 {
        self.counters.turns
    }

    /// A connection's socket, for the simulator and for the reactor, which registered it.
    pub fn socket_mut(&mut self, id: ConnectionId) -> Option<&mut S> {
        self.connections.find_mut(id).map(|connection| &mut connection.socket)
    }

    /// As [`Self::socket_mut`], shared.
    pub fn socket(&self, id: ConnectionId) -> Option<&S> {
        self.connections.find(id).map(|connection| &connection.socket)
    }

    /// Why a connection is closing, if it is: for the simulator.
    pub fn close_reason(&self, id: ConnectionId) -> Option<CloseReason> {
        self.connections.find(id)?.phase.reason()
    }

    /// Memory for frames that have arrived only in part.
    pub fn inbound_bytes(&self) -> u64 {
        self.memory.inbound_bytes()
    }

    /// The memory that is held against the bounds.
    pub fn accounts(&mut self) -> Accounts {
        self.broker.recount_patterns(u32::MAX);
        let now = self.accounts_now();
        Accounts { most_bytes: self.most_bytes.max(now.total_bytes()), ..now }
    }

    /// Notes the most that was counted so far.
    #[cold] // in few turns
    fn note_most_bytes(&mut self) {
        self.broker.recount_patterns(PATTERNS_PER_COUNT);
        self.most_bytes = self.most_bytes.max(self.accounts_now().total_bytes());
    }

    fn accounts_now(&self) -> Accounts {
        let (secured, plain) = (self.secured_len, self.connections.len() - self.secured_len);
        let accounts = self.broker.accounts();
        Accounts {
            inbound_bytes: accounts.inbound_bytes + self.memory.inbound_bytes(),
            connections_bytes: secured as u64 * CONNECTION_BYTES
                + plain as u64 * PLAIN_CONNECTION_BYTES,
            ..accounts
        }
    }

    /// Whether the turn has time left, as to accept more than one connection.
    pub fn has_time(&self) -> bool {
        self.turn_units() < u64::from(self.limits.turn_units_max)
    }

    /// Units of work in the turn that ended last: for the simulator.
    pub fn last_turn_units(&self) -> u64 {
        self.budget.last()
    }

    /// Units of work since the start: for measurements.
    pub fn units(&self) -> u64 {
        self.broker.meter.spent()
    }

    /// Units of work since the turn began: for the simulator.
    pub fn turn_units(&self) -> u64 {
        self.budget.spent(self.broker.meter.spent())
    }

    /// The most units of work in a turn that has ended: for the simulator.
    pub fn longest_turn_units(&self) -> u64 {
        self.budget.longest()
    }

    /// How long the broker has not run although it should have, in total: clients had that much longer for
    /// everything.
    pub fn late_ms(&self) -> u64 {
        self.patience.late_ms()
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Panics if the states of connections and broker contradict each other. To be called between turns.
    pub fn check_invariants(&self) {
        self.broker.check_invariants();
        let peers = &self.broker.peers;
        assert!(
            peers.has_dirty() || peers.arena.is_fresh(),
            "frames of an earlier turn are left in the lanes"
        );
        self.check_memory();
        let surplus = self.connections.iter().filter(|(_, one)| one.flags.surplus).count();
        assert_eq!(surplus, self.surplus_len, "connections beyond the limit");
        let secured = self.connections.iter().filter(|(_, one)| one.tls.is_some()).count();
        assert_eq!(secured, self.secured_len, "connections on TLS");
        let with_peer = self.connections.iter().filter(|(_, one)| one.speaker.is_some());
        assert_eq!(with_peer.count(), peers.len(), "peers whose connection is gone");
        let is_stranger = |one: &Connection<S>| {
            !one.flags.surplus && !matches!(one.phase, Phase::Open | Phase::Closed(_))
        };
        let strangers = self.connections.iter().filter(|(_, one)| is_stranger(one)).count();
        assert_eq!(strangers, self.strangers.len(), "connections that are not logged in");
        for (slot, connection) in self.connections.iter() {
            assert_eq!(self.strangers.has(slot), is_stranger(connection), "of connection {slot}");
            assert_eq!(connection.id.slot, slot);
            assert!(self.connections.find(connection.id).is_some(), "an id that was used before");
            if let Some(peer) = connection.peer() {
                let peer = peers.peer(peer);
                assert_eq!(peer.slot, slot);
                assert_eq!(connection.phase.reason(), peer.closure().map(|one| one.reason));
            }
            let is_busy = connection.peer().is_some_and(|one| peers.peer(one).is_busy());
            assert!(
                connection.kept.is_none()
                    || connection.flags.listed_to_read
                    || connection.flags.paused
                    || is_busy
                    // The reaper drops it, in a later turn if many are closed.
                    || matches!(connection.phase, Phase::Closed(_)),
                "input of connection {slot} is kept and nothing will handle it"
            );
            let waits = connection.flags.listed_to_read
                || is_busy
                || connection.flags.paused
                || !connection.flags.readable
                || connection.flags.ended
                || matches!(connection.phase, Phase::Closed(_));
            assert!(waits, "connection {slot} is readable and not listed");
        }
    }

    fn check_memory(&self) {
        let held: u64 = self.connections.iter().map(|(_, one)| one.held_bytes()).sum();
        assert_eq!(held, self.inbound_bytes(), "memory of frames that have arrived in part");
        let sealed = |one: &Connection<S>| match (&one.tls, one.phase) {
            (None, _) | (_, Phase::Closed(_)) => 0,
            (Some(tls), _) => tls.waiting_bytes(),
        };
        let sealed: usize = self.connections.iter().map(|(_, one)| sealed(one)).sum();
        assert_eq!(sealed as u64, self.broker.peers.arena.sealed_bytes(), "memory of TLS records");
    }

    fn listener_name(&self, listener: u16) -> &str {
        self.listeners.get(usize::from(listener)).map_or("", String::as_str)
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

/// Regular expressions of each kind whose memory is counted anew at once.
const PATTERNS_PER_COUNT: u32 = 64;
