//! A small blocking client of the classic dialect, over each of the four transports, with the clients of
//! rustls and tungstenite.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{Domain, SockRef, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message, WebSocket};

use super::PATIENCE;
use super::frame::Frame;
use super::server::{APPLICATION_KEY, PROFILE_KEYS, Server};

/// The transport of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(["tcp", "tls", "ws", "wss"][*self as usize])
    }
}

/// The profile of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Agent,
    SuperAgent,
    Service,
    Admin,
}

impl Profile {
    pub(crate) const ALL: [Self; 4] = [Self::Agent, Self::SuperAgent, Self::Service, Self::Admin];

    /// `passcode`.
    pub(crate) fn key(self) -> &'static str {
        PROFILE_KEYS[self as usize].1
    }
}

/// A byte stream, plain or encrypted.
pub(crate) enum Stream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// A connection to a broker, encrypted if the transport is.
    pub(crate) fn open(server: &Server, transport: Transport) -> Self {
        if transport.is_secure() {
            Self::connect_securely(server.address(), &server.authority())
        } else {
            Self::connect(server.address())
        }
    }

    /// A plain connection.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::Plain(connect(address, None))
    }

    /// A TLS connection after its handshake.
    pub(crate) fn connect_securely(address: SocketAddr, authority: &Path) -> Self {
        let config = tls_config(authority, &[&rustls::version::TLS13, &rustls::version::TLS12]);
        Self::secure(connect(address, None), config).unwrap()
    }

    /// Does the handshake.
    pub(crate) fn secure(mut socket: TcpStream, config: ClientConfig) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self::Secure(Box::new(StreamOwned::new(connection, socket))))
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(secure) => &secure.sock,
        }
    }

    /// Reads until the end of the stream, which has to be orderly: no reset, and on TLS a
    /// close_notify. Returns the bytes before it.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        Read::read_to_end(self, &mut bytes).expect("an orderly end");
        bytes
    }

    /// Waits for the end of the stream, orderly or not.
    pub(crate) fn wait_for_any_end(&mut self) {
        match io::copy(self, &mut io::sink()) {
            Ok(_) => {}
            Err(error) => assert!(!is_timeout(&error), "the connection stays open"),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Plain(socket) => socket.read(buffer),
                Self::Secure(secure) => secure.read(buffer),
            };
            // The kernel does not restart interrupted calls that have a timeout.
            if !matches!(&result, Err(error) if error.kind() == ErrorKind::Interrupted) {
                return result;
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(secure) => secure.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Secure(secure) => secure.flush(),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A socket with timeouts, and with a small receive buffer if one is wanted.
pub(crate) fn connect(address: SocketAddr, receive_bytes: Option<usize>) -> TcpStream {
    let socket = match receive_bytes {
        None => TcpStream::connect(address).unwrap(),
        Some(bytes) => {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(bytes).unwrap();
            socket.connect(&address.into()).unwrap();
            socket.into()
        }
    };
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A TLS configuration that trusts the authority and has these versions.
pub(crate) fn tls_config(
    authority: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Upgrades a connection to WebSocket, offering these subprotocols.
pub(crate) fn upgrade(stream: Stream, offer: Option<&str>) -> (WebSocket<Stream>, Response) {
    let mut request = "ws://localhost/".into_client_request().unwrap();
    if let Some(offer) = offer {
        let offer = HeaderValue::from_str(offer).unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offer);
    }
    tungstenite::client(request, stream).expect("the upgrade")
}

/// A frame of a client, without a NUL at its end.
pub(crate) fn encode(command: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{command}\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}:{value}\n").as_bytes());
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes
}

/// A frame in its envelope, with a little-endian length.
pub(crate) fn envelope(frame: &[u8]) -> Vec<u8> {
    [&[0], &(frame.len() as u32).to_le_bytes()[..], frame].concat()
}

/// CONNECT as a profile.
pub(crate) fn connect_frame(profile: Profile, login: &str) -> Vec<u8> {
    encode(
        "CONNECT",
        &[
            ("accept-version", "1.2"),
            ("login", login),
            ("passcode", profile.key()),
            ("secret-key", APPLICATION_KEY),
        ],
        b"",
    )
}

/// A client of the classic dialect.
pub(crate) struct Client {
    link: Link,
    /// From CONNECTED.
    pub(crate) session_id: String,
    /// From CONNECTED.
    pub(crate) destination: String,
}

enum Link {
    Prefixed(Stream),
    WebSocket(Box<WebSocket<Stream>>),
}

impl Client {
    /// Connects and logs in.
    pub(crate) fn log_in(
        server: &Server,
        transport: Transport,
        profile: Profile,
        login: &str,
    ) -> Self {
        let mut client = Self::open(server, transport);
        client.send_bytes(&connect_frame(profile, login));
        client.receive_connected();
        client
    }

    /// Connects without logging in.
    pub(crate) fn open(server: &Server, transport: Transport) -> Self {
        let stream = Stream::open(server, transport);
        if transport.is_websocket() {
            Self::over_websocket(upgrade(stream, Some("stomp")).0)
        } else {
            Self::over(stream)
        }
    }

    /// A client with a small kernel buffer, so that it soon counts as slow if it does not read.
    pub(crate) fn log_in_narrow(server: &Server, profile: Profile, login: &str) -> Self {
        let mut client = Self::over(Stream::Plain(connect(server.address(), Some(16 * 1024))));
        client.send_bytes(&connect_frame(profile, login));
        client.receive_connected();
        client
    }

    /// A client with length-prefixed envelopes.
    pub(crate) fn over(stream: Stream) -> Self {
        Self::with(Link::Prefixed(stream))
    }

    /// A client on a WebSocket.
    pub(crate) fn over_websocket(websocket: WebSocket<Stream>) -> Self {
        Self::with(Link::WebSocket(Box::new(websocket)))
    }

    fn with(link: Link) -> Self {
        Self { link, session_id: String::new(), destination: String::new() }
    }

    /// Sends a frame in an envelope or a WebSocket message.
    pub(crate) fn send_bytes(&mut self, frame: &[u8]) {
        match &mut self.link {
            Link::Prefixed(stream) => stream.write_all(&envelope(frame)).unwrap(),
            Link::WebSocket(websocket) => {
                let message = match std::str::from_utf8(frame) {
                    Ok(text) => Message::text(text),
                    Err(_) => Message::binary(frame.to_vec()),
                };
                websocket.send(message).unwrap();
            }
        }
    }

    /// Sends a frame.
    pub(crate) fn send_frame(&mut self, command: &str, headers: &[(&str, &str)], body: &[u8]) {
        self.send_bytes(&encode(command, headers, body));
    }

    /// Sends a message that is not acknowledged.
    pub(crate) fn send(&mut self, destination: &str, body: &[u8]) {
        self.send_frame("SEND", &[("destination", destination)], body);
    }

    /// Checks that no frame arrives before a message that the client sends to itself, by which time all
    /// earlier frames are handled.
    pub(crate) fn expect_nothing(&mut self) {
        let destination = self.destination.clone();
        self.send(&destination, b"nothing in between");
        assert_eq!(self.receive().text(), "nothing in between");
    }

    /// Checks that messages with these bodies arrive, and then nothing.
    pub(crate) fn expect_nothing_but(&mut self, bodies: &[&str]) {
        for body in bodies {
            assert_eq!(self.receive_message().text(), *body);
        }
        self.expect_nothing();
    }

    /// Subscribes and waits for the ACK.
    pub(crate) fn subscribe(&mut self, kind: &str, destination: &str) -> Frame {
        let headers =
            [("destination", destination), ("destination-type", kind), ("transaction", "sub")];
        self.send_frame("SUBSCRIBE", &headers, b"");
        let ack = self.receive();
        assert_eq!((ack.command.as_str(), ack.header("error-desc")), ("ACK", "OK"), "{ack:?}");
        ack
    }

    /// Subscribes to the presence of clients whose addresses match.
    pub(crate) fn subscribe_presence(&mut self, pattern: &str, snapshot: bool) {
        let mut headers = vec![
            ("destination", "STOMP-SERVER"),
            ("destination-type", "0"),
            ("destination-id", pattern),
            ("transaction", "events"),
        ];
        if snapshot {
            headers.push(("snapshot", "true"));
        }
        self.send_frame("SUBSCRIBE", &headers, b"");
        assert_eq!(self.receive().header("error-desc"), "OK");
    }

    /// The next frame.
    pub(crate) fn receive(&mut self) -> Frame {
        self.next_frame().unwrap_or_else(|end| panic!("a frame was expected, not {end:?}"))
    }

    /// CONNECTED.
    pub(crate) fn receive_connected(&mut self) -> Frame {
        let frame = self.receive();
        assert_eq!(frame.command, "CONNECTED", "{frame:?}");
        self.session_id = frame.header("session-id").to_owned();
        self.destination = frame.header("destination").to_owned();
        frame
    }

    /// MESSAGE.
    pub(crate) fn receive_message(&mut self) -> Frame {
        let frame = self.receive();
        assert_eq!(frame.command, "MESSAGE", "{frame:?}");
        frame
    }

    /// The next frame, which may be an ERROR only with this code.
    pub(crate) fn receive_or_error(&mut self, code: &str) -> Frame {
        let frame = self.receive();
        assert!(frame.command != "ERROR" || frame.header("error-code") == code, "{frame:?}");
        frame
    }

    /// ERROR with this code.
    pub(crate) fn receive_error(&mut self, code: &str) -> Frame {
        let frame = self.receive();
        let found = (frame.command.as_str(), frame.header("error-code"));
        assert_eq!(found, ("ERROR", code), "{frame:?}");
        frame
    }

    /// ERROR `LIMIT_EXCEEDED` with this limit, and the end.
    pub(crate) fn receive_limit_exceeded(&mut self, limit: &str) {
        let error = self.receive_error("LIMIT_EXCEEDED");
        assert!(error.header("error-desc").contains(limit), "{error:?}");
        assert_eq!(error.header("retry"), "never", "{error:?}");
        self.receive_end();
    }

    /// The orderly end of the connection: on TCP and TLS the end of the stream, on WebSocket a close,
    /// whose code is returned.
    pub(crate) fn receive_end(&mut self) -> Option<u16> {
        match self.next_frame() {
            Ok(frame) => panic!("the end was expected, not {frame:?}"),
            Err(End::Orderly(code)) => code,
            Err(End::Broken(error)) => panic!("the end is not orderly: {error}"),
        }
    }

    /// Whether bytes have arrived that were not received yet.
    pub(crate) fn has_news(&mut self) -> bool {
        let socket = self.stream().socket();
        socket.set_nonblocking(true).unwrap();
        let peeked = socket.peek(&mut [0]);
        socket.set_nonblocking(false).unwrap();
        peeked.is_ok()
    }

    /// The bytes below envelopes.
    pub(crate) fn stream(&mut self) -> &mut Stream {
        match &mut self.link {
            Link::Prefixed(stream) => stream,
            Link::WebSocket(websocket) => websocket.get_mut(),
        }
    }

    /// The WebSocket; panics on another transport.
    pub(crate) fn websocket(&mut self) -> &mut WebSocket<Stream> {
        match &mut self.link {
            Link::WebSocket(websocket) => websocket,
            Link::Prefixed(_) => panic!("this is no WebSocket"),
        }
    }

    /// Breaks the connection with a reset.
    pub(crate) fn reset(mut self) {
        SockRef::from(self.stream().socket()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn next_frame(&mut self) -> Result<Frame, End> {
        match &mut self.link {
            Link::Prefixed(stream) => read_envelope(stream),
            Link::WebSocket(websocket) => read_message(websocket),
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    Orderly(Option<u16>),
    Broken(io::Error),
}

fn read_envelope(stream: &mut Stream) -> Result<Frame, End> {
    let mut prefix = [0; 5];
    let first = stream.read(&mut prefix).map_err(End::Broken)?;
    if first == 0 {
        return Err(End::Orderly(None));
    }
    stream.read_exact(&mut prefix[first..]).map_err(End::Broken)?;
    let [0, length @ ..] = prefix else { panic!("the flag of an envelope is {}", prefix[0]) };
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut bytes).map_err(End::Broken)?;
    Ok(Frame::read_classic(&bytes))
}

fn read_message(websocket: &mut WebSocket<Stream>) -> Result<Frame, End> {
    let mut code = None;
    loop {
        match websocket.read() {
            Ok(Message::Text(text)) => return Ok(Frame::read_classic(text.as_bytes())),
            Ok(Message::Binary(bytes)) => {
                assert!(std::str::from_utf8(&bytes).is_err(), "text that came as binary");
                return Ok(Frame::read_classic(&bytes));
            }
            Ok(Message::Close(close)) => code = close.map(|close| close.code.into()),
            // Sends the pong.
            Ok(Message::Ping(_)) => websocket.flush().unwrap(),
            Ok(other) => panic!("unexpected: {other:?}"),
            Err(Error::ConnectionClosed) => return Err(End::Orderly(code)),
            Err(Error::Io(error)) => return Err(End::Broken(error)),
            Err(error) => panic!("{error}"),
        }
    }
}
