//! The floor relay: what a broker costs that does nothing but move octets.
//!
//! It reads length and channel of a frame and writes the frame, unparsed, to the channel's
//! receivers. No session, no rights, no headers: what it costs is what this machine's kernel asks
//! for the same sockets and the same octets, and no broker can be had for less.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::fault::Fault;
use crate::protocol::{ECHO, HEADER_BYTES, SUBSCRIBE, split_header};

/// The relay.
pub struct Relay {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Receivers of each channel.
    channels: HashMap<u32, Vec<usize>>,
    scratch: Box<[u8]>,
    /// Connections with something to write that nobody has tried to write.
    dirty: Vec<usize>,
    /// Whether it never sleeps.
    spins: bool,
}

struct Connection {
    socket: TcpStream,
    /// A frame of which the rest is to come.
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// `sent ≤ outbound.len()`
    sent: usize,
    channels: Vec<u32>,
    is_dirty: bool,
}

impl Relay {
    /// Listens.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bind(address: SocketAddr, spins: bool) -> Result<Self, Fault> {
        let what = |error| Fault::io(format!("listening on {address}"), error);
        let poll = Poll::new().map_err(what)?;
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM.nonblocking(),
            None,
        )
        .map_err(what)?;
        socket.set_reuse_address(true).map_err(what)?;
        socket.bind(&address.into()).map_err(what)?;
        socket.listen(BACKLOG).map_err(what)?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(what)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            channels: HashMap::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            dirty: Vec::new(),
            spins,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Relays until the process is ended.
    ///
    /// # Errors
    /// The poll failed.
    pub fn run(&mut self) -> Result<(), Fault> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let timeout = self.spins.then_some(Duration::ZERO);
        loop {
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.map_err(|error| Fault::io("polling", error))?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(index) => {
                        if event.is_writable() {
                            self.flush(index);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            self.read(index);
                        }
                    }
                }
            }
            self.flush_dirty();
        }
    }

    fn accept(&mut self) {
        while let Ok((mut socket, _)) = self.listener.accept() {
            let index = self.free.pop().unwrap_or(self.connections.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            let _ = socket.set_nodelay(true);
            if self.poll.registry().register(&mut socket, Token(index), interest).is_err() {
                continue;
            }
            let connection = Connection {
                socket,
                inbound: Vec::new(),
                outbound: Vec::new(),
                sent: 0,
                channels: Vec::new(),
                is_dirty: false,
            };
            if index == self.connections.len() {
                self.connections.push(None);
            }
            self.connections[index] = Some(connection);
        }
    }

    fn read(&mut self, index: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(connection) = &mut self.connections[index] {
            match connection.socket.read(&mut scratch) {
                Ok(0) => {
                    self.close(index);
                    break;
                }
                Ok(count) => {
                    if self.take(index, &scratch[..count]).is_err() {
                        self.close(index);
                        break;
                    }
                    // A stream that gave less than was asked for has no more.
                    if count < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.close(index);
                    break;
                }
            }
        }
        self.scratch = scratch;
    }

    /// Relays the whole frames of what arrived, and keeps what is left.
    fn take(&mut self, index: usize, octets: &[u8]) -> Result<(), Fault> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        if connection.inbound.is_empty() {
            let taken = self.relay(index, octets)?;
            if let Some(connection) = &mut self.connections[index] {
                connection.inbound.extend_from_slice(&octets[taken..]);
            }
            return Ok(());
        }
        let mut inbound = std::mem::take(&mut connection.inbound);
        inbound.extend_from_slice(octets);
        let taken = self.relay(index, &inbound)?;
        inbound.drain(..taken);
        if let Some(connection) = &mut self.connections[index] {
            connection.inbound = inbound;
        }
        Ok(())
    }

    /// Frames to one channel that follow each other are written in one go.
    fn relay(&mut self, index: usize, octets: &[u8]) -> Result<usize, Fault> {
        let (mut start, mut end, mut run_channel) = (0, 0, 0);
        while let Some(header) = octets[end..].first_chunk::<HEADER_BYTES>() {
            let (channel, length) = split_header(*header)?;
            let next = end + HEADER_BYTES + length;
            if next > octets.len() {
                break;
            }
            if channel != run_channel || channel >= ECHO {
                self.send(run_channel, &octets[start..end]);
                (start, run_channel) = (end, channel);
            }
            if channel >= ECHO {
                self.answer(index, channel, &octets[end..next]);
                start = next;
            }
            end = next;
        }
        self.send(run_channel, &octets[start..end]);
        Ok(end)
    }

    #[inline]
    fn send(&mut self, channel: u32, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let Some(receivers) = self.channels.get(&channel) else { return };
        for index in receivers {
            if let Some(connection) = &mut self.connections[*index] {
                connection.outbound.extend_from_slice(octets);
                if !connection.is_dirty {
                    connection.is_dirty = true;
                    self.dirty.push(*index);
                }
            }
        }
    }

    fn answer(&mut self, index: usize, channel: u32, frame: &[u8]) {
        if channel == SUBSCRIBE
            && let Some(number) = frame[HEADER_BYTES..].first_chunk()
        {
            let number = u32::from_le_bytes(*number);
            self.channels.entry(number).or_default().push(index);
            if let Some(connection) = &mut self.connections[index] {
                connection.channels.push(number);
            }
        }
        if let Some(connection) = &mut self.connections[index] {
            connection.outbound.extend_from_slice(frame);
            if !connection.is_dirty {
                connection.is_dirty = true;
                self.dirty.push(index);
            }
        }
    }

    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.flush(index);
        }
        self.dirty = dirty;
    }

    #[inline]
    fn flush(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        connection.is_dirty = false;
        while connection.sent < connection.outbound.len() {
            match connection.socket.write(&connection.outbound[connection.sent..]) {
                Ok(count) => connection.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(index),
            }
        }
        connection.outbound.clear();
        connection.sent = 0;
    }

    fn close(&mut self, index: usize) {
        let Some(mut connection) = self.connections[index].take() else { return };
        let _ = self.poll.registry().deregister(&mut connection.socket);
        for number in connection.channels {
            if let Some(receivers) = self.channels.get_mut(&number) {
                receivers.retain(|receiver| *receiver != index);
                if receivers.is_empty() {
                    self.channels.remove(&number);
                }
            }
        }
        self.free.push(index);
    }
}

const LISTENER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;
const BACKLOG: i32 = 4_096;
