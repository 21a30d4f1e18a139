//! One connection: its socket, the layers between socket and protocol, and unsent bytes.
//!
//! ```text
//! socket ─► scratch ─► [TLS] ─► [WebSocket] ─► Protocol::scan ─► events
//! ```
//!
//! It does not know scenarios. It owns bytes only while an event is torn across reads.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::{tls, websocket};
use crate::fault::Fault;
use crate::protocol::{Event, Protocol, Scan};
use crate::target::{ProtocolName, Target};

/// A connection to the server.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    carries: Carries,
    phase: Phase,
    /// Bytes of a torn event.
    inbound: Vec<u8>,
    /// Bytes of an event that is torn across WebSocket messages.
    message: Vec<u8>,
    outbound: Vec<u8>,
    /// `sent ≤ outbound.len()`
    sent: usize,
    /// The login, which is sent once the transport is ready.
    login: Vec<u8>,
    /// Awaited confirmations, including that of the login.
    pub(super) awaited: u32,
    /// When connecting began.
    pub(super) begun_ns: u64,
    pub(super) is_dirty: bool,
    /// Whether something was appended while reading.
    has_answered: bool,
    /// Whether the kernel has more bytes than one turn reads.
    pub(super) is_unfinished: bool,
    /// Whether it is deliberately no longer read.
    pub(super) is_stopped: bool,
    /// Whether the server has ended its stream.
    pub(super) is_cut_off: bool,
    records: tls::Records,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Stream,
    /// WebSocket messages with this opcode.
    Messages(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitingConnect,
    AwaitingUpgrade,
    Open,
}

/// The state of a connection after reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadProgress {
    /// The kernel has no more bytes.
    Drained,
    /// The kernel has more bytes, but other connections get their turn.
    Unfinished,
    /// The server has ended the connection.
    Ended,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        target: &Target,
        tls: Option<&Arc<rustls::ClientConfig>>,
        login: Vec<u8>,
        begun_ns: u64,
    ) -> Result<Self, Fault> {
        let tls = tls.map(|config| client(config, &target.host)).transpose()?;
        let carries = match (target.carrier.is_websocket(), target.protocol) {
            (false, _) => Carries::Stream,
            (true, ProtocolName::Classic) => Carries::Messages(websocket::TEXT),
            (true, _) => Carries::Messages(websocket::BINARY),
        };
        Ok(Self {
            socket,
            tls,
            carries,
            phase: Phase::AwaitingConnect,
            inbound: Vec::new(),
            message: Vec::new(),
            outbound: Vec::new(),
            sent: 0,
            login,
            awaited: 1,
            begun_ns,
            is_dirty: false,
            has_answered: false,
            is_unfinished: false,
            is_stopped: false,
            is_cut_off: false,
            records: tls::Records::default(),
        })
    }

    /// TLS records that have arrived since the last call.
    pub(super) fn take_records(&mut self) -> u64 {
        self.records.take()
    }

    /// Appends bytes that need no WebSocket frame, such as a body with its envelope.
    #[inline]
    pub(super) fn push(&mut self, parts: [&[u8]; 4]) {
        for part in parts {
            self.outbound.extend_from_slice(part);
        }
    }

    /// Appends a message of the protocol, in a WebSocket frame if the transport needs one.
    pub(super) fn push_message(&mut self, message: &[u8]) {
        if let Carries::Messages(opcode) = self.carries {
            self.outbound.extend_from_slice(&websocket::header(opcode, message.len()));
        }
        self.outbound.extend_from_slice(message);
    }

    /// Appends an answer to an event, which is sent once the whole read is handled.
    pub(super) fn answer(&mut self, message: &[u8]) {
        self.push_message(message);
        self.has_answered = true;
    }

    /// The WebSocket header at the beginning of an envelope, if the transport needs one.
    pub(super) fn frame_header(target: &Target, length: usize) -> Vec<u8> {
        match (target.carrier.is_websocket(), target.protocol) {
            (false, _) => Vec::new(),
            (true, ProtocolName::Classic) => websocket::header(websocket::TEXT, length),
            (true, _) => websocket::header(websocket::BINARY, length),
        }
    }

    /// Handles a writable socket: continues the handshake or the write.
    pub(super) fn handle_writable(&mut self, target: &Target) -> Result<(), Fault> {
        if self.phase == Phase::AwaitingConnect {
            if let Some(error) = self.socket.take_error().map_err(connecting)? {
                return Err(connecting(error));
            }
            match self.socket.peer_addr() {
                Ok(_) => self.begin(target),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(connecting(error)),
            }
        }
        self.flush()
    }

    /// Writes unsent bytes, as far as the kernel takes them.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        self.is_dirty = false;
        if self.phase == Phase::AwaitingConnect {
            return Ok(());
        }
        let result = match &mut self.tls {
            None => write_out(&mut self.socket, &self.outbound, &mut self.sent),
            Some(tls) => {
                let plain = &self.outbound[self.sent..];
                self.sent = self.outbound.len();
                tls.writer().write_all(plain).and_then(|()| {
                    while tls.wants_write() {
                        tls.write_tls(&mut self.socket)?;
                    }
                    Ok(())
                })
            }
        };
        if self.sent == self.outbound.len() {
            self.outbound.clear();
            self.sent = 0;
        }
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Fault::io("sending", error)),
        }
    }

    /// Reads from the kernel and passes on every event.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        protocol: &dyn Protocol,
        on_arrival: &impl Fn(),
        on_event: &mut impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<ReadProgress, Fault> {
        for _ in 0..READS_PER_TURN {
            match self.socket.read(scratch) {
                Ok(0) => return Ok(ReadProgress::Ended),
                Ok(count) => {
                    on_arrival();
                    let bytes = &scratch[..count];
                    match self.tls.take() {
                        None => self.take(bytes, protocol, on_event)?,
                        Some(mut tls) => {
                            self.records.note(bytes);
                            let result = self.decrypt(&mut tls, bytes, protocol, on_event);
                            self.has_answered |= tls.wants_write();
                            self.tls = Some(tls);
                            result?;
                        }
                    }
                    if std::mem::take(&mut self.has_answered) {
                        self.flush()?;
                    }
                    // A read that returns less than asked for has emptied the stream.
                    if count < scratch.len() {
                        return Ok(ReadProgress::Drained);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(ReadProgress::Drained);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok(ReadProgress::Ended);
                }
                Err(error) => return Err(Fault::io("receiving", error)),
            }
        }
        Ok(ReadProgress::Unfinished)
    }

    fn begin(&mut self, target: &Target) {
        let login = std::mem::take(&mut self.login);
        match self.carries {
            Carries::Stream => {
                self.phase = Phase::Open;
                self.outbound.extend_from_slice(&login);
            }
            Carries::Messages(_) => {
                self.phase = Phase::AwaitingUpgrade;
                let subprotocols = match target.protocol {
                    ProtocolName::Classic => "stomp",
                    _ => "v12.stomp",
                };
                let host = format!("{}:{}", target.host, target.address.port());
                let request = websocket::request(&host, &target.path, subprotocols);
                self.outbound.extend_from_slice(&request);
                self.login = login;
            }
        }
    }

    fn decrypt(
        &mut self,
        tls: &mut ClientConnection,
        mut bytes: &[u8],
        protocol: &dyn Protocol,
        on_event: &mut impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut plain = [0; 16 * 1024];
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).map_err(|error| Fault::io("TLS", error))?;
            tls.process_new_packets().map_err(|error| Fault::Refused(error.to_string()))?;
            loop {
                match tls.reader().read(&mut plain) {
                    Ok(0) => break,
                    Ok(count) => self.take(&plain[..count], protocol, on_event)?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(Fault::io("TLS", error)),
                }
            }
        }
        Ok(())
    }

    /// Takes events out of the bytes that arrived, and keeps the rest.
    fn take(
        &mut self,
        bytes: &[u8],
        protocol: &dyn Protocol,
        on_event: &mut impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.inbound.is_empty() {
            let taken = self.events_in(bytes, protocol, on_event)?;
            self.inbound.extend_from_slice(&bytes[taken..]);
            return Ok(());
        }
        let mut inbound = std::mem::take(&mut self.inbound);
        inbound.extend_from_slice(bytes);
        let taken = self.events_in(&inbound, protocol, on_event)?;
        inbound.drain(..taken);
        self.inbound = inbound;
        Ok(())
    }

    fn events_in(
        &mut self,
        bytes: &[u8],
        protocol: &dyn Protocol,
        on_event: &mut impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        match self.carries {
            Carries::Stream => self.events_in_stream(bytes, protocol, on_event),
            Carries::Messages(_) => self.events_in_messages(bytes, protocol, on_event),
        }
    }

    #[inline]
    fn events_in_stream(
        &mut self,
        bytes: &[u8],
        protocol: &dyn Protocol,
        on_event: &mut impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut taken = 0;
        while let Scan::Whole(count, event) = protocol.scan(&bytes[taken..])? {
            taken += count;
            on_event(self, event)?;
            if taken == bytes.len() {
                break;
            }
        }
        Ok(taken)
    }

    fn events_in_messages(
        &mut self,
        bytes: &[u8],
        protocol: &dyn Protocol,
        on_event: &mut impl FnMut(&mut Self, Event<'_>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut taken = 0;
        if self.phase == Phase::AwaitingUpgrade {
            let Some(length) = websocket::response(bytes)? else { return Ok(0) };
            taken = length;
            self.phase = Phase::Open;
            let login = std::mem::take(&mut self.login);
            self.answer(&login);
        }
        while let Some(frame) = websocket::frame(&bytes[taken..])? {
            taken += frame.bytes;
            match frame.opcode {
                websocket::PING => {
                    let header = websocket::header(websocket::PONG, frame.payload.len());
                    self.push([&header, frame.payload, b"", b""]);
                    self.has_answered = true;
                }
                websocket::PONG => {}
                websocket::CLOSE => return Err(Fault::Closed),
                _ if self.message.is_empty() && frame.is_final => {
                    let count = self.events_in_stream(frame.payload, protocol, on_event)?;
                    self.message.extend_from_slice(&frame.payload[count..]);
                }
                _ => {
                    let mut message = std::mem::take(&mut self.message);
                    message.extend_from_slice(frame.payload);
                    if frame.is_final {
                        let count = self.events_in_stream(&message, protocol, on_event)?;
                        message.drain(..count);
                    }
                    self.message = message;
                }
            }
        }
        Ok(taken)
    }
}

/// Reads from one connection before the others get their turn.
const READS_PER_TURN: usize = 16;

fn client(config: &Arc<rustls::ClientConfig>, host: &str) -> Result<Box<ClientConnection>, Fault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Fault::Usage(format!("{host}: no name for a certificate")))?;
    let mut tls = ClientConnection::new(Arc::clone(config), name)
        .map_err(|error| Fault::Usage(error.to_string()))?;
    // The scenario's window bounds the unsent bytes.
    tls.set_buffer_limit(None);
    Ok(Box::new(tls))
}

fn connecting(error: io::Error) -> Fault {
    Fault::io("connecting", error)
}

#[inline]
fn write_out(socket: &mut TcpStream, bytes: &[u8], sent: &mut usize) -> io::Result<()> {
    while *sent < bytes.len() {
        match socket.write(&bytes[*sent..]) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
