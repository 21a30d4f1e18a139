//! A connection that carries whole frames over any of the four transports.
//!
//! It does not know what frames mean.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, ClientRequestBuilder, HandshakeError, Message, WebSocket};

use crate::error::ClientError;
use crate::frame::{Envelope, Frame, FrameFault, FrameReader};
use crate::options::Options;
use crate::stomp::{self, StompReader};
use crate::tls;
use crate::url::{BrokerUrl, UrlFault};
use crate::wire::{Deadline, Wire};

/// A connection that sends and receives frames, and sends none by itself: for programs that speak the
/// dialect themselves, such as tests. Other programs use [`Client`](crate::Client).
pub struct Connection {
    framing: Framing,
    url: BrokerUrl,
    write_timeout: Duration,
    phase: Phase,
}

impl Connection {
    /// Connects and does the handshakes of TLS and WebSocket, but does not log in.
    ///
    /// # Errors
    /// The URL is malformed, there is no connection, the certificate is not trusted, …
    pub fn open(options: &Options) -> Result<Self, ClientError> {
        Self::open_until(options, Dialect::Classic, Deadline::after(options.connect_timeout))
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// A header holds a line break, the broker does not read in time, or the connection is closed.
    pub fn send(&mut self, frame: &Frame) -> Result<(), ClientError> {
        let bytes = match &self.framing {
            Framing::LengthPrefixed { .. } => frame.encode(Envelope::LengthPrefixed)?,
            Framing::WebSocket(_) => frame.encode(Envelope::Message)?,
            Framing::Stomp { .. } => stomp::encode(frame)?,
        };
        self.send_bytes(bytes)
    }

    /// Sends bytes: on WebSocket as a message, on TCP and TLS as they are, so that they have to include
    /// the envelope.
    ///
    /// # Errors
    /// The broker does not read in time, or the connection is closed.
    pub fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<(), ClientError> {
        if self.phase == Phase::Ended {
            return Err(ClientError::Closed);
        }
        self.framing.stream_mut().set_deadline(Deadline::after(self.write_timeout));
        let sent = match &mut self.framing {
            Framing::LengthPrefixed { stream, .. }
            | Framing::Stomp { carrier: Carrier::Stream(stream), .. } => {
                stream.write_all(&bytes).and_then(|()| stream.flush()).map_err(ClientError::Lost)
            }
            Framing::WebSocket(socket)
            | Framing::Stomp { carrier: Carrier::WebSocket(socket), .. } => {
                let message = String::from_utf8(bytes)
                    .map_or_else(|fault| Message::binary(fault.into_bytes()), Message::text);
                socket.send(message).map_err(|fault| websocket_error(&self.url, fault))
            }
        };
        // A frame may be partly written, so that nothing can be sent behind it.
        sent.map_err(|fault| match fault {
            ClientError::Lost(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
                self.phase = Phase::Ended;
                ClientError::NoAnswer { awaited: "room for what we send" }
            }
            fault => fault,
        })
    }

    /// The next frame. Without a timeout it waits for ever.
    ///
    /// # Errors
    /// A malformed frame arrived, or the connection broke.
    pub fn next(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Arrival, ClientError> {
        self.next_until(timeout.into().map_or(Deadline::NEVER, Deadline::after))
    }

    /// The URL of the broker.
    pub fn url(&self) -> &BrokerUrl {
        &self.url
    }

    /// Opens a connection for frames of a dialect.
    pub(crate) fn open_until(
        options: &Options,
        dialect: Dialect,
        deadline: Deadline,
    ) -> Result<Self, ClientError> {
        let (url, stream) = open_stream(options, deadline)?;
        let carrier = if url.scheme.is_websocket() {
            Carrier::WebSocket(Box::new(upgrade(stream, &url, options, dialect)?))
        } else {
            Carrier::Stream(stream)
        };
        let bytes_max = options.frame_bytes_max;
        let framing = match (dialect, carrier) {
            (Dialect::Classic, Carrier::WebSocket(socket)) => Framing::WebSocket(socket),
            (Dialect::Classic, Carrier::Stream(stream)) => {
                Framing::LengthPrefixed { stream, reader: FrameReader::new(bytes_max) }
            }
            (Dialect::Standard, carrier) => {
                Framing::Stomp { carrier, reader: StompReader::new(bytes_max) }
            }
        };
        Ok(Self { framing, url, write_timeout: options.answer_timeout, phase: Phase::Open })
    }

    pub(crate) fn next_until(&mut self, deadline: Deadline) -> Result<Arrival, ClientError> {
        if self.phase == Phase::Ended {
            return Ok(Arrival::End);
        }
        self.framing.stream_mut().set_deadline(deadline);
        let arrival = match &mut self.framing {
            Framing::LengthPrefixed { stream, reader } => next_prefixed(stream, reader),
            Framing::WebSocket(socket) => match next_message(socket, &self.url) {
                Ok(Some(message)) => Frame::parse(&message).map(Arrival::Frame).map_err(Into::into),
                Ok(None) => Ok(Arrival::End),
                Err(fault) => not_yet(fault),
            },
            Framing::Stomp { carrier, reader } => next_stomp(carrier, reader, &self.url),
        };
        if !matches!(arrival, Ok(Arrival::Frame(_) | Arrival::NotYet)) {
            self.phase = Phase::Ended;
        }
        arrival
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection")
            .field("url", &self.url)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// Result of [`Connection::next`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame.
    Frame(Frame),
    /// No frame in time; the beginning of a torn one is kept.
    NotYet,
    /// The end of the stream.
    End,
}

/// The dialect of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Classic,
    Standard,
}

impl Dialect {
    /// The subprotocol that a WebSocket offers.
    fn subprotocol(self) -> &'static str {
        match self {
            Self::Classic => "stomp",
            Self::Standard => "v12.stomp",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Ended,
}

enum Framing {
    LengthPrefixed {
        stream: Stream,
        reader: FrameReader,
    },
    WebSocket(Box<WebSocket<Stream>>),
    /// Frames of STOMP 1.2, which end in a NUL.
    Stomp {
        carrier: Carrier,
        reader: StompReader,
    },
}

/// The transport of standard frames.
enum Carrier {
    Stream(Stream),
    WebSocket(Box<WebSocket<Stream>>),
}

impl Framing {
    fn stream_mut(&mut self) -> &mut Stream {
        match self {
            Self::LengthPrefixed { stream, .. }
            | Self::Stomp { carrier: Carrier::Stream(stream), .. } => stream,
            Self::WebSocket(socket) | Self::Stomp { carrier: Carrier::WebSocket(socket), .. } => {
                socket.get_mut()
            }
        }
    }
}

enum Stream {
    Plain(Wire),
    Tls(Box<StreamOwned<ClientConnection, Wire>>),
}

impl Stream {
    fn set_deadline(&mut self, deadline: Deadline) {
        match self {
            Self::Plain(wire) => wire.set_deadline(deadline),
            Self::Tls(tls) => tls.sock.set_deadline(deadline),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.read(buffer),
            // Frames are delimited, so that a missing `close_notify` cannot hide a truncation.
            Self::Tls(tls) => match tls.read(buffer) {
                Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(wire) => wire.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

fn next_prefixed(stream: &mut Stream, reader: &mut FrameReader) -> Result<Arrival, ClientError> {
    let mut scratch = [0; SCRATCH_BYTES];
    loop {
        if let Some(frame) = reader.next_frame()? {
            return Ok(Arrival::Frame(frame));
        }
        match stream.read(&mut scratch) {
            Ok(0) if reader.is_empty() => return Ok(Arrival::End),
            Ok(0) => return Err(ClientError::Malformed(FrameFault::Torn)),
            Ok(count) => reader.push(&scratch[..count]),
            Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => return Ok(Arrival::NotYet),
            Err(fault) => return Err(ClientError::Lost(fault)),
        }
    }
}

const SCRATCH_BYTES: usize = 16 * 1024;

/// The payload of the next message; `None` at the end.
fn next_message(
    socket: &mut WebSocket<Stream>,
    url: &BrokerUrl,
) -> Result<Option<Bytes>, ClientError> {
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                return Ok(Some(message.into_data()));
            }
            Ok(Message::Close(_)) => {
                // Sends the close that answers it, which may fail.
                let _ = socket.flush();
                return Ok(None);
            }
            // The next read sends the pong that answers a ping.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(fault) if is_end(&fault) => return Ok(None),
            Err(fault) => return Err(websocket_error(url, fault)),
        }
    }
}

fn not_yet(fault: ClientError) -> Result<Arrival, ClientError> {
    match fault {
        ClientError::Lost(fault) if fault.kind() == io::ErrorKind::WouldBlock => {
            Ok(Arrival::NotYet)
        }
        fault => Err(fault),
    }
}

fn next_stomp(
    carrier: &mut Carrier,
    reader: &mut StompReader,
    url: &BrokerUrl,
) -> Result<Arrival, ClientError> {
    let mut scratch = [0; SCRATCH_BYTES];
    loop {
        if let Some(frame) = reader.next_frame()? {
            return Ok(Arrival::Frame(frame));
        }
        let has_more = match carrier {
            Carrier::Stream(stream) => {
                stream.read(&mut scratch).map_err(ClientError::Lost).map(|count| {
                    reader.push(&scratch[..count]);
                    count > 0
                })
            }
            Carrier::WebSocket(socket) => next_message(socket, url).map(|message| {
                reader.push(message.as_deref().unwrap_or_default());
                message.is_some()
            }),
        };
        match has_more {
            Ok(true) => {}
            Ok(false) if reader.is_empty() => return Ok(Arrival::End),
            Ok(false) => return Err(ClientError::Malformed(FrameFault::Torn)),
            Err(fault) => return not_yet(fault),
        }
    }
}

fn open_stream(options: &Options, deadline: Deadline) -> Result<(BrokerUrl, Stream), ClientError> {
    options.check_limits()?;
    let url = BrokerUrl::parse(&options.url).map_err(ClientError::Url)?;
    let wire = Wire::connect(&url, deadline)?;
    let stream = if url.scheme.is_tls() {
        Stream::Tls(Box::new(tls::connect(wire, &url, &options.trust)?))
    } else {
        Stream::Plain(wire)
    };
    Ok((url, stream))
}

fn upgrade(
    stream: Stream,
    url: &BrokerUrl,
    options: &Options,
    dialect: Dialect,
) -> Result<WebSocket<Stream>, ClientError> {
    let scheme = if url.scheme.is_tls() { "wss" } else { "ws" };
    let uri = format!("{scheme}://{}{}", url.address(), url.path)
        .parse()
        .map_err(|_| ClientError::Url(UrlFault::Host))?;
    // tungstenite refuses a response without the subprotocol, as browsers do.
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(dialect.subprotocol());
    let config = WebSocketConfig::default()
        .read_buffer_size(SCRATCH_BYTES)
        .max_message_size(Some(options.frame_bytes_max))
        .max_frame_size(Some(options.frame_bytes_max));
    match tungstenite::client::client_with_config(request, stream, Some(config)) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Interrupted(_)) => {
            Err(ClientError::NoAnswer { awaited: "the WebSocket handshake" })
        }
        Err(HandshakeError::Failure(fault)) => Err(websocket_error(url, fault)),
    }
}

fn is_end(fault: &tungstenite::Error) -> bool {
    use tungstenite::error::ProtocolError;
    matches!(
        fault,
        tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
    )
}

fn websocket_error(url: &BrokerUrl, fault: tungstenite::Error) -> ClientError {
    use tungstenite::error::CapacityError;
    match fault {
        tungstenite::Error::Io(fault) => ClientError::Lost(fault),
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            ClientError::Malformed(FrameFault::TooLong { bytes: size, max: max_size })
        }
        fault => ClientError::WebSocket { address: url.address(), source: Box::new(fault) },
    }
}
