//! The event loop: thousands of non-blocking connections on one core.
//!
//! It carries the messages of a scenario, and does not know what the scenario measures.

mod connection;
pub mod tls;
mod websocket;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol as SocketProtocol, SockRef, Socket, Type};

use self::connection::{Connection, ReadProgress};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::protocol::{Envelope, Event, Login, Protocol};
use crate::target::Target;

/// The event loop and its connections.
pub struct Driver {
    poll: Poll,
    events: Events,
    clock: Clock,
    target: Target,
    tls: Option<Arc<rustls::ClientConfig>>,
    protocol: Box<dyn Protocol>,
    connections: Vec<Option<Connection>>,
    /// Slots of connections that have ended.
    free: Vec<ConnectionId>,
    /// Connections with unsent bytes.
    dirty: Vec<ConnectionId>,
    /// Connections with more bytes than one turn reads.
    unfinished: Vec<ConnectionId>,
    scratch: Box<[u8]>,
    /// Whether the loop never sleeps.
    spins: bool,
    /// Connections that the server has ended by itself.
    ended: Vec<ConnectionId>,
    /// Awaited confirmations of all connections.
    awaited: u64,
    /// TLS records that have arrived.
    records: u64,
    /// The padding of every body.
    padding: Box<[u8]>,
}

/// A connection of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u32);

impl ConnectionId {
    /// Its slot, as an index for scenarios.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Whether it never sleeps, so that its core does not have to wake up.
    pub spins: bool,
    /// The TLS configuration, if the target needs one.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Bytes of every body.
    pub body_bytes: usize,
}

impl Driver {
    /// A loop without connections.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(
        target: Target,
        protocol: Box<dyn Protocol>,
        clock: Clock,
        options: DriverOptions,
    ) -> Result<Self, Fault> {
        let poll = Poll::new().map_err(|error| Fault::io("polling", error))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            clock,
            tls: options.tls.filter(|_| target.carrier.is_tls()),
            target,
            protocol,
            connections: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            unfinished: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            spins: options.spins,
            ended: Vec::new(),
            awaited: 0,
            records: 0,
            padding: vec![b'.'; options.body_bytes].into_boxed_slice(),
        })
    }

    /// Begins to connect and to log in. The login is confirmed in a later turn.
    ///
    /// # Errors
    /// The system refuses another connection.
    pub fn connect(&mut self, login: &Login) -> Result<ConnectionId, Fault> {
        let mut bytes = Vec::new();
        self.protocol.login(login, &mut bytes);
        let socket = self.begin_connect().map_err(|error| Fault::io("connecting", error))?;
        let now_ns = self.clock.now_ns();
        let mut connection =
            Connection::new(socket, &self.target, self.tls.as_ref(), bytes, now_ns)?;
        let id = self.free.pop().unwrap_or(ConnectionId(self.connections.len() as u32));
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut connection.socket, Token(id.index()), interest)
            .map_err(|error| Fault::io("connecting", error))?;
        if id.index() == self.connections.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[id.index()] = Some(connection);
        }
        self.awaited += 1;
        Ok(id)
    }

    /// Subscribes a connection that has logged in.
    pub fn subscribe(&mut self, id: ConnectionId, number: u32, destination: &str) {
        let mut bytes = Vec::new();
        self.protocol.subscribe(number, destination, &mut bytes);
        if let Some(connection) = &mut self.connections[id.index()] {
            connection.push_message(&bytes);
            connection.awaited += 1;
            self.awaited += 1;
        }
        self.note_dirty(id);
    }

    /// The envelope of every body of this run to a destination.
    pub fn envelope(&self, destination: &str) -> Envelope {
        let mut envelope = self.protocol.envelope(destination, self.padding.len());
        let length = envelope.head.len() + self.padding.len() + envelope.tail.len();
        let mut head = Connection::frame_header(&self.target, length);
        if !head.is_empty() {
            head.extend_from_slice(&envelope.head);
            envelope.head = head.into_boxed_slice();
        }
        envelope
    }

    /// Queues a message, which is written in the next turn or flush.
    #[inline]
    pub fn publish(&mut self, id: ConnectionId, envelope: &Envelope, stamp: &[u8]) {
        if let Some(connection) = &mut self.connections[id.index()] {
            let padding = &self.padding[stamp.len()..];
            connection.push([&envelope.head, stamp, padding, &envelope.tail]);
        }
        self.note_dirty(id);
    }

    /// Stops reading from a connection, and makes its kernel buffers small.
    pub fn stop_reading(&mut self, id: ConnectionId) {
        if let Some(connection) = &mut self.connections[id.index()] {
            connection.is_stopped = true;
            let _ = SockRef::from(&connection.socket).set_recv_buffer_size(STOPPED_BUFFER_BYTES);
        }
    }

    /// Whether the server has ended a connection that is no longer read.
    pub fn is_cut_off(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id.index()).and_then(Option::as_ref);
        connection.is_none_or(|connection| connection.is_cut_off)
    }

    /// TLS records that the server has sent, including handshakes; `None` without TLS.
    pub fn records(&self) -> Option<u64> {
        self.tls.as_ref().map(|_| self.records)
    }

    /// Ends a connection.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(mut connection) = self.connections[id.index()].take() {
            let _ = self.poll.registry().deregister(&mut connection.socket);
            self.awaited -= u64::from(connection.awaited);
            self.free.push(id);
        }
    }

    /// When connecting began.
    pub fn begun_ns(&self, id: ConnectionId) -> u64 {
        self.connections[id.index()].as_ref().map_or(0, |connection| connection.begun_ns)
    }

    /// A connection that the server has ended, each returned once.
    pub fn take_ended(&mut self) -> Option<ConnectionId> {
        self.ended.pop()
    }

    /// Number of awaited confirmations.
    pub fn awaited(&self) -> u64 {
        self.awaited
    }

    /// The protocol that is spoken.
    pub fn protocol(&self) -> &dyn Protocol {
        &*self.protocol
    }

    /// The server under load.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The clock of this run.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Bytes of every body.
    pub fn body_bytes(&self) -> usize {
        self.padding.len()
    }

    /// Writes unsent bytes, then reads, or waits for bytes until `wake_ns`. Passes on every message and
    /// every confirmation with the time at which it was read.
    ///
    /// # Errors
    /// The server refuses something or violates its protocol.
    pub fn turn(
        &mut self,
        wake_ns: u64,
        on_notice: &mut impl FnMut(ConnectionId, Notice<'_>, u64),
    ) -> Result<(), Fault> {
        self.flush()?;
        let timeout = self.timeout(wake_ns);
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(|error| Fault::io("polling", error))?,
        }
        for id in std::mem::take(&mut self.unfinished) {
            if let Some(connection) = &mut self.connections[id.index()] {
                connection.is_unfinished = false;
            }
            self.read(id, on_notice)?;
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let result = self.handle_events(&events, on_notice);
        self.events = events;
        result
    }

    /// Writes unsent bytes.
    ///
    /// # Errors
    /// A connection has ended.
    pub fn flush(&mut self) -> Result<(), Fault> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(connection) = &mut self.connections[id.index()] {
                connection.flush()?;
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn handle_events(
        &mut self,
        events: &Events,
        on_notice: &mut impl FnMut(ConnectionId, Notice<'_>, u64),
    ) -> Result<(), Fault> {
        for event in events {
            let id = ConnectionId(event.token().0 as u32);
            if event.is_writable()
                && let Some(connection) = &mut self.connections[id.index()]
            {
                connection.handle_writable(&self.target)?;
            }
            if event.is_read_closed()
                && let Some(connection) = &mut self.connections[id.index()]
            {
                connection.is_cut_off = true;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(id, on_notice)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn read(
        &mut self,
        id: ConnectionId,
        on_notice: &mut impl FnMut(ConnectionId, Notice<'_>, u64),
    ) -> Result<(), Fault> {
        let Some(connection) = &mut self.connections[id.index()] else { return Ok(()) };
        if connection.is_stopped || connection.is_unfinished {
            return Ok(());
        }
        let clock = self.clock;
        let awaited = &mut self.awaited;
        // The clock is read once a read, before the bytes are handled: their arrival time does not
        // depend on how long that takes.
        let arrived_ns = Cell::new(0);
        let note_arrival = || {
            if arrived_ns.get() == 0 {
                arrived_ns.set(clock.now_ns());
            }
        };
        let mut on_event = |connection: &mut Connection, event: Event<'_>| {
            let now_ns = arrived_ns.get();
            match event {
                Event::Message(body) => on_notice(id, Notice::Message(body), now_ns),
                Event::Confirmed => {
                    if connection.awaited == 0 {
                        return Err(Fault::Malformed("a confirmation that nobody asked for"));
                    }
                    connection.awaited -= 1;
                    *awaited -= 1;
                    on_notice(id, Notice::Confirmed, now_ns);
                }
                Event::Answer(bytes) => connection.answer(bytes),
                Event::Nothing => {}
                Event::Refused(text) => return Err(Fault::Refused(text)),
            }
            Ok(())
        };
        let progress =
            connection.read(&mut self.scratch, &*self.protocol, &note_arrival, &mut on_event);
        self.records += connection.take_records();
        match progress {
            Ok(ReadProgress::Drained) => {}
            Ok(ReadProgress::Unfinished) => {
                connection.is_unfinished = true;
                self.unfinished.push(id);
            }
            Ok(ReadProgress::Ended) | Err(Fault::Closed) => {
                self.close(id);
                self.ended.push(id);
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    #[inline]
    fn note_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = &mut self.connections[id.index()]
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// The timeout of the poll, in whole milliseconds; a fraction of one is spent polling.
    fn timeout(&self, wake_ns: u64) -> Option<Duration> {
        if self.spins || !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let left_ns = wake_ns.saturating_sub(self.clock.now_ns());
        Some(Duration::from_millis((left_ns / 1_000_000).min(SLEEP_MS_MAX)))
    }

    fn begin_connect(&self) -> io::Result<TcpStream> {
        for _ in 0..SOURCES_TRIED {
            let number = OPENED.fetch_add(1, Ordering::Relaxed);
            match self.begin_connect_from(self.source_address(number)) {
                // The ports of the address are used up, some by connections that have ended.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    let next = (number / SOURCE_PORTS + 1) * SOURCE_PORTS;
                    OPENED.fetch_max(next, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    fn begin_connect_from(&self, source: Option<SocketAddr>) -> io::Result<TcpStream> {
        let address = self.target.address;
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(SocketProtocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(TcpStream::from_std(socket.into()))
    }

    /// A source address on loopback, each of which has ports of its own, so that there may be more
    /// connections than one address has ports.
    fn source_address(&self, number: u32) -> Option<SocketAddr> {
        if number < SOURCE_PORTS || self.target.address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return None;
        }
        let block = number / SOURCE_PORTS % SOURCE_ADDRESSES;
        let host = Ipv4Addr::new(127, 1, (block / 250) as u8, (block % 250 + 1) as u8);
        Some(SocketAddr::new(IpAddr::V4(host), 0))
    }
}

/// An event for the scenario.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A message's body.
    Message(&'a [u8]),
    /// A login or a subscription was confirmed.
    Confirmed,
}

const EVENTS_PER_TURN: usize = 1024;

/// Size of the buffer for reads.
const SCRATCH_BYTES: usize = 256 * 1024;

const STOPPED_BUFFER_BYTES: usize = 4 * 1024;

/// The longest sleep, so that progress is shown.
const SLEEP_MS_MAX: u64 = 100;

/// `EINPROGRESS`, which has no kind in the standard library.
#[cfg(target_os = "linux")]
const IN_PROGRESS: i32 = 115;
#[cfg(not(target_os = "linux"))]
const IN_PROGRESS: i32 = 36;

/// Connections of all runs of this process: a port stays in use for a while after its connection.
static OPENED: AtomicU32 = AtomicU32::new(0);

/// Addresses that are tried for one connection.
const SOURCES_TRIED: u32 = 100;

/// Connections from one address before the next is used.
const SOURCE_PORTS: u32 = 5_000;

const SOURCE_ADDRESSES: u32 = 60_000;
