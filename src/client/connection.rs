//! Whole frames over any of the four transports, without knowing what they say.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{ClientRequestBuilder, HandshakeError, Message, WebSocket};

use super::error::ClientError;
use super::frame::{Envelope, Frame, FrameFault, FrameReader};
use super::options::Options;
use super::tls;
use super::url::{BrokerUrl, UrlFault};
use super::wire::{Deadline, Wire};

/// A connection that sends and receives frames and says nothing of its own: for programs that want
/// to speak the dialect by themselves, well or badly. Everyone else wants
/// [`Client`](super::Client).
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
    /// The URL is wrong, nobody is there, the certificate is not trusted, …
    pub fn open(options: &Options) -> Result<Self, ClientError> {
        Self::open_until(options, Deadline::after(options.connect_timeout))
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// A header holds a line break, the broker does not read, or the connection is gone.
    pub fn send(&mut self, frame: &Frame) -> Result<(), ClientError> {
        let bytes = frame.encode(self.framing.envelope())?;
        self.send_bytes(bytes)
    }

    /// Sends bytes in a WebSocket message, or as they are, envelope included, on TCP and TLS.
    ///
    /// # Errors
    /// The broker does not read, or the connection is gone.
    pub fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<(), ClientError> {
        if self.phase == Phase::Ended {
            return Err(ClientError::Closed);
        }
        self.framing.stream_mut().set_deadline(Deadline::after(self.write_timeout));
        let sent = match &mut self.framing {
            Framing::LengthPrefixed { stream, .. } => {
                stream.write_all(&bytes).and_then(|()| stream.flush()).map_err(ClientError::Lost)
            }
            Framing::WebSocket(socket) => {
                let message = String::from_utf8(bytes)
                    .map_or_else(|fault| Message::binary(fault.into_bytes()), Message::text);
                socket.send(message).map_err(|fault| websocket_error(&self.url, fault))
            }
        };
        // Half a frame may be on its way: nothing can be sent behind it.
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
    /// What arrives is not a frame, or the connection broke.
    pub fn next(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Arrival, ClientError> {
        self.next_until(timeout.into().map_or(Deadline::NEVER, Deadline::after))
    }

    /// How the broker is reached.
    pub fn url(&self) -> &BrokerUrl {
        &self.url
    }

    pub(super) fn open_until(options: &Options, deadline: Deadline) -> Result<Self, ClientError> {
        let url = BrokerUrl::parse(&options.url).map_err(ClientError::Url)?;
        let wire = Wire::connect(&url, deadline)?;
        let stream = if url.scheme.is_tls() {
            Stream::Tls(Box::new(tls::connect(wire, &url, &options.trust)?))
        } else {
            Stream::Plain(wire)
        };
        let framing = if url.scheme.is_websocket() {
            Framing::WebSocket(Box::new(upgrade(stream, &url, options.frame_bytes_max)?))
        } else {
            let reader = FrameReader::new(options.frame_bytes_max);
            Framing::LengthPrefixed { stream, reader }
        };
        Ok(Self { framing, url, write_timeout: options.answer_timeout, phase: Phase::Open })
    }

    pub(super) fn next_until(&mut self, deadline: Deadline) -> Result<Arrival, ClientError> {
        if self.phase == Phase::Ended {
            return Ok(Arrival::End);
        }
        self.framing.stream_mut().set_deadline(deadline);
        let arrival = match &mut self.framing {
            Framing::LengthPrefixed { stream, reader } => next_prefixed(stream, reader),
            Framing::WebSocket(socket) => next_message(socket, &self.url),
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

/// What [`Connection::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame.
    Frame(Frame),
    /// Nothing in time; a frame that arrived in part is kept.
    NotYet,
    /// The end of the stream.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Ended,
}

enum Framing {
    LengthPrefixed { stream: Stream, reader: FrameReader },
    WebSocket(Box<WebSocket<Stream>>),
}

impl Framing {
    fn envelope(&self) -> Envelope {
        match self {
            Self::LengthPrefixed { .. } => Envelope::LengthPrefixed,
            Self::WebSocket(_) => Envelope::Message,
        }
    }

    fn stream_mut(&mut self) -> &mut Stream {
        match self {
            Self::LengthPrefixed { stream, .. } => stream,
            Self::WebSocket(socket) => socket.get_mut(),
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
            // Frames say where they end, so a TLS stream that ends without saying so hides nothing.
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

fn next_message(socket: &mut WebSocket<Stream>, url: &BrokerUrl) -> Result<Arrival, ClientError> {
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                return Ok(Arrival::Frame(Frame::parse(&message.into_data())?));
            }
            Ok(Message::Close(_)) => {
                // The answer to it is queued; if it cannot be sent, the end is as near.
                let _ = socket.flush();
                return Ok(Arrival::End);
            }
            // A ping has its answer queued, which the next read sends.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(tungstenite::Error::Io(fault)) if fault.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Arrival::NotYet);
            }
            Err(fault) if is_end(&fault) => return Ok(Arrival::End),
            Err(fault) => return Err(websocket_error(url, fault)),
        }
    }
}

fn upgrade(
    stream: Stream,
    url: &BrokerUrl,
    frame_bytes_max: usize,
) -> Result<WebSocket<Stream>, ClientError> {
    let scheme = if url.scheme.is_tls() { "wss" } else { "ws" };
    let uri = format!("{scheme}://{}{}", url.address(), url.path)
        .parse()
        .map_err(|_| ClientError::Url(UrlFault::Host))?;
    // A response without the subprotocol is refused by tungstenite, as browsers do.
    let request = ClientRequestBuilder::new(uri).with_sub_protocol("stomp");
    let config = WebSocketConfig::default()
        .read_buffer_size(SCRATCH_BYTES)
        .max_message_size(Some(frame_bytes_max))
        .max_frame_size(Some(frame_bytes_max));
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
