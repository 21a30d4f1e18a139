//! A broker for tests that follows a script, byte by byte.
//!
//! It shares no code with the client, so that tests find errors that both would share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

/// Long enough for a slow machine, short enough not to hang a test run.
const PATIENCE: Duration = Duration::from_secs(20);

/// The frame with which the client logs in as the agent ana.
pub(super) const CONNECT: &str = "CONNECT\naccept-version:1.2\nlogin:ana\n\
    passcode:my_agent_secret_key\nsecret-key:my_app_secret_key\n\n";

/// The answer to it in the standard dialect.
pub(super) const STANDARD_CONNECTED: &str = "CONNECTED\nversion:1.2\nsession:s1\nlogin:ana\n\
    profile-code:1\nprofile-desc:agent\ndestination:/agent/ana\n\n";

/// The answer to it in the classic dialect.
pub(super) const CONNECTED: &str = "CONNECTED\naccept-version:1.2\nsession-id:s1\nlogin:ana\n\
    profile-code:1\nprofile-desc:agent\ndestination:/agent/ana\nconnection-id:7\n\n";

pub(super) struct ScriptedBroker {
    pub(super) address: SocketAddr,
    thread: JoinHandle<()>,
}

impl ScriptedBroker {
    /// Length-prefixed frames over TCP.
    pub(super) fn tcp(script: impl FnOnce(&mut dyn Peer) + Send + 'static) -> Self {
        Self::start(|socket| script(&mut Prefixed(socket)))
    }

    /// Length-prefixed frames over TLS; returns the CA to trust as well.
    pub(super) fn tls(script: impl FnOnce(&mut dyn Peer) + Send + 'static) -> (Self, String) {
        let (config, ca) = tls_config();
        let broker = Self::start(move |socket| script(&mut Prefixed(tls_stream(config, socket))));
        (broker, ca)
    }

    /// A frame in each WebSocket message.
    pub(super) fn websocket(script: impl FnOnce(&mut dyn Peer) + Send + 'static) -> Self {
        Self::start(|socket| script(&mut upgrade(socket, "stomp")))
    }

    /// A frame in each WebSocket message, inside TLS.
    pub(super) fn secure_websocket(
        script: impl FnOnce(&mut dyn Peer) + Send + 'static,
    ) -> (Self, String) {
        let (config, ca) = tls_config();
        let broker =
            Self::start(move |socket| script(&mut upgrade(tls_stream(config, socket), "stomp")));
        (broker, ca)
    }

    /// Frames of STOMP 1.2 over TCP.
    pub(super) fn standard(script: impl FnOnce(&mut dyn Peer) + Send + 'static) -> Self {
        Self::start(|socket| script(&mut NulTerminated(socket)))
    }

    /// Frames of STOMP 1.2 in WebSocket messages, inside TLS.
    pub(super) fn standard_secure_websocket(
        script: impl FnOnce(&mut dyn Peer) + Send + 'static,
    ) -> (Self, String) {
        let (config, ca) = tls_config();
        let broker = Self::start(move |socket| {
            let socket = upgrade(tls_stream(config, socket), "v12.stomp");
            script(&mut NulTerminated(Pieces { socket, unread: Vec::new() }));
        });
        (broker, ca)
    }

    /// Leaves the socket to the script.
    pub(super) fn start(script: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            script(socket);
        });
        Self { address, thread }
    }

    /// Waits until the script has ended.
    pub(super) fn finish(self) {
        self.thread.join().expect("the script was followed");
    }
}

/// The connection to the client, as used by scripts.
pub(super) trait Peer {
    /// Reads the next frame, which has to be exactly this one.
    fn expect(&mut self, frame: &[u8]);
    /// Sends a frame, with the NUL at its end.
    fn answer(&mut self, frame: &str);
    /// Sends a WebSocket ping, if this is a WebSocket.
    fn ping(&mut self) {}
    /// Ends the stream in order, and waits until the client has, too.
    fn close(&mut self);

    fn log_in(&mut self) {
        self.expect(CONNECT.as_bytes());
        self.answer(CONNECTED);
    }
}

pub(super) struct Prefixed<S>(pub(super) S);

impl<S: Read + Write + Close> Peer for Prefixed<S> {
    fn expect(&mut self, frame: &[u8]) {
        let mut envelope = [0; 5];
        self.0.read_exact(&mut envelope).unwrap();
        assert_eq!(envelope[0], 0, "little-endian");
        let length = u32::from_le_bytes(envelope[1..].try_into().unwrap());
        let mut bytes = vec![0; length as usize];
        self.0.read_exact(&mut bytes).unwrap();
        assert_frame(&bytes, frame);
    }

    fn answer(&mut self, frame: &str) {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(frame.len() + 1).unwrap().to_le_bytes());
        bytes.extend(frame.as_bytes());
        bytes.push(0);
        self.0.write_all(&bytes).unwrap();
    }

    fn close(&mut self) {
        self.0.half_close();
        assert_eq!(self.0.read(&mut [0]).unwrap_or(0), 0, "nothing follows");
    }
}

/// The standard dialect: a NUL ends a frame.
pub(super) struct NulTerminated<S>(pub(super) S);

impl<S: Read + Write + Close> Peer for NulTerminated<S> {
    fn expect(&mut self, frame: &[u8]) {
        let mut bytes = Vec::new();
        // Read by the length of the expected frame, since a body may hold a NUL.
        while bytes.len() <= frame.len() {
            let mut byte = [0];
            if self.0.read(&mut byte).unwrap_or(0) == 0 {
                break;
            }
            bytes.push(byte[0]);
        }
        assert_frame(&bytes, &[frame, b"\0"].concat());
    }

    fn answer(&mut self, frame: &str) {
        self.0.write_all(format!("{frame}\0\n").as_bytes()).unwrap();
    }

    fn close(&mut self) {
        self.0.half_close();
        assert_eq!(self.0.read(&mut [0]).unwrap_or(0), 0, "nothing follows");
    }

    fn log_in(&mut self) {
        self.expect(CONNECT.as_bytes());
        self.answer(STANDARD_CONNECTED);
    }
}

/// WebSocket messages as a stream. Each write is split into two messages, since a message need not be a frame.
struct Pieces<S> {
    socket: WebSocket<S>,
    unread: Vec<u8>,
}

impl<S: Read + Write> Read for Pieces<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.unread.is_empty() {
            match self.socket.read() {
                Ok(Message::Text(text)) => self.unread = text.as_bytes().to_vec(),
                Ok(Message::Binary(bytes)) => self.unread = bytes.to_vec(),
                Ok(Message::Close(_)) | Err(_) => return Ok(0),
                Ok(_) => {}
            }
        }
        let count = buffer.len().min(self.unread.len());
        buffer[..count].copy_from_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Ok(count)
    }
}

impl<S: Read + Write> Write for Pieces<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for piece in bytes.chunks(bytes.len().div_ceil(2).max(1)) {
            self.socket.send(Message::binary(piece.to_vec())).map_err(std::io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<S: Read + Write> Close for Pieces<S> {
    fn half_close(&mut self) {
        self.socket.close(None).unwrap();
    }
}

impl<S: Read + Write> Peer for WebSocket<S> {
    fn expect(&mut self, frame: &[u8]) {
        loop {
            match self.read().unwrap() {
                Message::Pong(_) => {}
                Message::Text(text) => return assert_frame(text.as_bytes(), frame),
                Message::Binary(bytes) => {
                    assert!(std::str::from_utf8(&bytes).is_err(), "text is sent as text");
                    return assert_frame(&bytes, frame);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, frame: &str) {
        self.send(Message::text(format!("{frame}\0"))).unwrap();
    }

    fn ping(&mut self) {
        self.send(Message::Ping(b"there?"[..].into())).unwrap();
        assert_eq!(self.read().unwrap(), Message::Pong(b"there?"[..].into()));
    }

    fn close(&mut self) {
        let code = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        Self::close(self, Some(code)).unwrap();
        assert!(matches!(self.read(), Ok(Message::Close(_))), "a close is answered");
    }
}

pub(super) trait Close {
    fn half_close(&mut self);
}

impl Close for &mut TcpStream {
    fn half_close(&mut self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

impl Close for TcpStream {
    fn half_close(&mut self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

impl Close for StreamOwned<ServerConnection, TcpStream> {
    fn half_close(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
        self.sock.half_close();
    }
}

fn assert_frame(found: &[u8], expected: &[u8]) {
    assert_eq!(String::from_utf8_lossy(found), String::from_utf8_lossy(expected));
    assert_eq!(found, expected);
}

/// Accepts a WebSocket with a subprotocol, which has to be offered.
#[expect(clippy::result_large_err, reason = "tungstenite defines the type of the callback")]
fn upgrade<S: Read + Write>(stream: S, subprotocol: &str) -> WebSocket<S> {
    tungstenite::accept_hdr(stream, |request: &Request, mut response: Response| {
        let protocol = request.headers().get("Sec-WebSocket-Protocol").unwrap();
        assert_eq!(protocol, subprotocol);
        response.headers_mut().insert("Sec-WebSocket-Protocol", protocol.clone());
        Ok(response)
    })
    .unwrap()
}

fn tls_stream(config: ServerConfig, socket: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let connection = ServerConnection::new(Arc::new(config)).unwrap();
    StreamOwned::new(connection, socket)
}

/// A server certificate for 127.0.0.1, and the CA that signed it as PEM.
pub(super) fn tls_config() -> (ServerConfig, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    (config, authority.pem())
}
