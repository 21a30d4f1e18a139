//! The floor relay: a broker that does nothing but move bytes, as the lower bound of cost.
//!
//! It reads length and channel of a frame, and writes the frame unparsed to the channel's receivers.
//! It has no sessions, rights or headers, so that its cost is that of the kernel for the same sockets
//! and bytes, and no broker can cost less. With a certificate it uses TLS, for the cost of handshakes
//! and encryption.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;

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
    /// Connections with unsent bytes that are not flushed yet.
    dirty: Vec<usize>,
    /// Whether it never sleeps.
    spins: bool,
    tls: Option<Arc<ServerConfig>>,
}

struct Connection {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Bytes of a torn frame.
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// `sent ≤ outbound.len()`
    sent: usize,
    channels: Vec<u32>,
    is_dirty: bool,
}

impl Relay {
    /// Binds the listener.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bind(
        address: SocketAddr,
        spins: bool,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, Fault> {
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
            tls,
        })
    }

    /// The bound address.
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
            let mut tls = self.tls.clone().and_then(|config| ServerConnection::new(config).ok());
            // The load bounds the unsent bytes.
            tls.iter_mut().for_each(|tls| tls.set_buffer_limit(None));
            let connection = Connection {
                socket,
                tls: tls.map(Box::new),
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
                    let result = match self.tls {
                        None => self.take(index, &scratch[..count]),
                        Some(_) => self.decrypt(index, &scratch[..count]),
                    };
                    if result.is_err() {
                        self.close(index);
                        break;
                    }
                    // A read that returns less than asked for has emptied the stream.
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

    fn decrypt(&mut self, index: usize, mut bytes: &[u8]) -> Result<(), Fault> {
        let mut plain = [0; 16 * 1024];
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let Some(mut tls) = connection.tls.take() else { return Ok(()) };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).map_err(|error| Fault::io("TLS", error))?;
            tls.process_new_packets().map_err(|error| Fault::Refused(error.to_string()))?;
            while let Ok(count @ 1..) = tls.reader().read(&mut plain) {
                self.take(index, &plain[..count])?;
            }
        }
        let wants_write = tls.wants_write();
        if let Some(connection) = &mut self.connections[index] {
            connection.tls = Some(tls);
            if wants_write && !connection.is_dirty {
                connection.is_dirty = true;
                self.dirty.push(index);
            }
        }
        Ok(())
    }

    /// Relays all whole frames, and keeps the rest.
    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<(), Fault> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        if connection.inbound.is_empty() {
            let taken = self.relay(index, bytes)?;
            if let Some(connection) = &mut self.connections[index] {
                connection.inbound.extend_from_slice(&bytes[taken..]);
            }
            return Ok(());
        }
        let mut inbound = std::mem::take(&mut connection.inbound);
        inbound.extend_from_slice(bytes);
        let taken = self.relay(index, &inbound)?;
        inbound.drain(..taken);
        if let Some(connection) = &mut self.connections[index] {
            connection.inbound = inbound;
        }
        Ok(())
    }

    /// Relays frames; successive frames to one channel are written together.
    fn relay(&mut self, index: usize, bytes: &[u8]) -> Result<usize, Fault> {
        let (mut start, mut end, mut run_channel) = (0, 0, 0);
        while let Some(header) = bytes[end..].first_chunk::<HEADER_BYTES>() {
            let (channel, length) = split_header(*header)?;
            let next = end + HEADER_BYTES + length;
            if next > bytes.len() {
                break;
            }
            if channel != run_channel || channel >= ECHO {
                self.send(run_channel, &bytes[start..end]);
                (start, run_channel) = (end, channel);
            }
            if channel >= ECHO {
                self.answer(index, channel, &bytes[end..next]);
                start = next;
            }
            end = next;
        }
        self.send(run_channel, &bytes[start..end]);
        Ok(end)
    }

    #[inline]
    fn send(&mut self, channel: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some(receivers) = self.channels.get(&channel) else { return };
        for index in receivers {
            if let Some(connection) = &mut self.connections[*index] {
                connection.outbound.extend_from_slice(bytes);
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
        match connection.write_out() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return self.close(index),
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

impl Connection {
    #[inline]
    fn write_out(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            let plain = &self.outbound[self.sent..];
            self.sent = self.outbound.len();
            tls.writer().write_all(plain)?;
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
            return Ok(());
        }
        while self.sent < self.outbound.len() {
            match self.socket.write(&self.outbound[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// TLS with the certificate and the key in these files.
///
/// # Errors
/// A file cannot be used.
pub fn tls_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, Fault> {
    let wrong = |path: &Path, text: String| Fault::Usage(format!("{}: {text}", path.display()));
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| wrong(certificate, error.to_string()))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, private))
        .map(Arc::new)
        .map_err(|error| wrong(certificate, error.to_string()))
}

const LISTENER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;
const BACKLOG: i32 = 4_096;
