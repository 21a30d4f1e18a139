//! The other end of a connection, in memory: envelopes, WebSocket and TLS from the client's side.
//!
//! It does not know the engine. [`Client::take_wire`] returns bytes for the engine, and
//! [`Client::handle_wire`] takes those from it, whose meaning comes out as [`Event`]s.

use std::io::{Cursor, Read, Write};
use std::sync::Arc;

use rustls::ClientConnection;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::rig::identity;

/// The transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Carrier {
    /// All four.
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// Its name in transcripts.
    pub(crate) fn name(self) -> &'static str {
        ["tcp", "tls", "ws", "wss"][self as usize]
    }

    /// The transport of that name.
    pub(crate) fn named(name: &str) -> Self {
        let carrier = Self::ALL.into_iter().find(|one| one.name() == name);
        carrier.unwrap_or_else(|| panic!("{name} is not one of tcp, tls, ws and wss"))
    }

    fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// How frames are separated on a stream, and which subprotocol a WebSocket offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wording {
    Classic,
    Standard,
}

/// An event that a client has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A frame, with its NUL.
    Frame(Vec<u8>),
    /// A frame in a binary WebSocket message.
    BinaryFrame(Vec<u8>),
    /// Bytes that are not a frame, such as an HTTP answer.
    Bytes(Vec<u8>),
    /// A WebSocket close with this code.
    Close(u16),
    Pong(Vec<u8>),
    Ping,
    /// The end of the stream.
    End,
    /// The connection broke.
    Reset,
}

/// How a frame is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// As existing clients do.
    #[default]
    Ordinary,
    /// TCP: another flag than 0, and a big-endian length.
    Flag(u8),
    /// TCP: the length counts characters, not bytes.
    Characters,
    /// TCP: these bytes.
    Literal(Vec<u8>),
    /// Without an envelope.
    Bare,
    /// WebSocket: a binary message.
    Binary,
    /// WebSocket: two fragments, the first of this size.
    Fragments(usize),
    /// WebSocket: a frame that is not masked.
    Unmasked,
}

/// A client.
pub(crate) struct Client {
    carrier: Carrier,
    wording: Wording,
    tls: Option<Box<ClientConnection>>,
    upgrade: Upgrade,
    /// Bytes for the wire.
    wire: Vec<u8>,
    /// Bytes of a torn frame, below WebSocket and above TLS.
    pending: Vec<u8>,
    /// Fragments of a message.
    message: Vec<u8>,
    /// Bytes to be sent after the upgrade.
    waiting: Vec<u8>,
    events: Vec<(u64, Event)>,
    /// Whether a WebSocket close is answered.
    pub(crate) answers_close: bool,
    close_sent: bool,
    close_received: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    /// None, on TCP or for a client that does not upgrade.
    None,
    Awaiting,
    Done,
}

impl Client {
    /// A client that has begun the handshakes of its transport.
    pub(crate) fn new(carrier: Carrier, path: &str) -> Self {
        Self::with(carrier, path, Wording::Classic)
    }

    /// A client of the standard dialect that has begun the handshakes of its transport.
    pub(crate) fn standard(carrier: Carrier) -> Self {
        Self::with(carrier, "/", Wording::Standard)
    }

    fn with(carrier: Carrier, path: &str, wording: Wording) -> Self {
        let mut client = Self { wording, ..Self::without_upgrade(carrier) };
        if carrier.is_websocket() {
            client.write(upgrade_request(path, wording).as_bytes());
            client.upgrade = Upgrade::Awaiting;
        }
        client
    }

    /// A client that does not send an upgrade by itself.
    pub(crate) fn without_upgrade(carrier: Carrier) -> Self {
        let tls = carrier.is_encrypted().then(|| {
            let name = "localhost".try_into().unwrap();
            Box::new(ClientConnection::new(Arc::clone(&identity().client), name).unwrap())
        });
        Self {
            carrier,
            wording: Wording::Classic,
            tls,
            upgrade: Upgrade::None,
            wire: Vec::new(),
            pending: Vec::new(),
            message: Vec::new(),
            waiting: Vec::new(),
            events: Vec::new(),
            answers_close: true,
            close_sent: false,
            close_received: false,
        }
    }

    /// A frame in its envelope, below TLS.
    pub(crate) fn wrap(&self, frame: &[u8], envelope: &Envelope) -> Vec<u8> {
        if *envelope == Envelope::Bare {
            return frame.to_vec();
        }
        if !self.carrier.is_websocket() {
            return [&prefix(frame, envelope), frame].concat();
        }
        let text = OpCode::Data(Data::Text);
        match envelope {
            Envelope::Binary => ws_frame(OpCode::Data(Data::Binary), true, frame, Some(MASK)),
            Envelope::Unmasked => ws_frame(text, true, frame, None),
            Envelope::Fragments(first) => [
                ws_frame(text, false, &frame[..*first], Some(MASK)),
                ws_frame(OpCode::Data(Data::Continue), true, &frame[*first..], Some(MASK)),
            ]
            .concat(),
            _ => ws_frame(text, true, frame, Some(MASK)),
        }
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &[u8], envelope: &Envelope) {
        let bytes = self.wrap(frame, envelope);
        self.write(&bytes);
    }

    /// Sends a WebSocket ping.
    pub(crate) fn ping(&mut self, payload: &[u8]) {
        let bytes = ws_frame(OpCode::Control(Control::Ping), true, payload, Some(MASK));
        self.write(&bytes);
    }

    /// Sends a WebSocket close.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.close_sent = true;
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        let bytes = ws_frame(OpCode::Control(Control::Close), true, &payload, Some(MASK));
        self.write(&bytes);
    }

    /// Sends `close_notify`, over TLS.
    pub(crate) fn end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// Writes bytes below WebSocket, above TLS.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.upgrade == Upgrade::Awaiting {
            return self.waiting.extend_from_slice(bytes);
        }
        match &mut self.tls {
            Some(tls) => {
                tls.set_buffer_limit(None);
                tls.writer().write_all(bytes).unwrap();
            }
            None => self.wire.extend_from_slice(bytes),
        }
    }

    /// Bytes for the engine.
    pub(crate) fn take_wire(&mut self) -> Vec<u8> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.wire).unwrap();
            }
        }
        std::mem::take(&mut self.wire)
    }

    /// Whether the handshakes of TLS and WebSocket are done.
    pub(crate) fn is_ready(&self) -> bool {
        let is_secure = self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking());
        is_secure && self.upgrade != Upgrade::Awaiting && !self.close_sent
    }

    /// Handles bytes that arrived at `tick`.
    pub(crate) fn handle_wire(&mut self, tick: u64, bytes: &[u8]) {
        let Some(tls) = &mut self.tls else { return self.handle_plain(tick, bytes) };
        let mut wire = bytes;
        while !wire.is_empty() {
            tls.read_tls(&mut wire).unwrap();
            let state = tls.process_new_packets().expect("the broker breaks TLS");
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut plain).unwrap();
            self.pending.extend_from_slice(&plain);
        }
        self.handle_plain(tick, &[]);
    }

    /// Notes that the stream has ended or broken.
    pub(crate) fn handle_end(&mut self, tick: u64, event: Event) {
        if !self.pending.is_empty() {
            let left = std::mem::take(&mut self.pending);
            self.events.push((tick, Event::Bytes(left)));
        }
        self.events.push((tick, event));
    }

    /// Events with their ticks.
    pub(crate) fn take_events(&mut self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.events)
    }

    fn handle_plain(&mut self, tick: u64, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.upgrade == Upgrade::Awaiting && !self.finish_upgrade() {
            return;
        }
        loop {
            let event = match (self.carrier.is_websocket(), self.upgrade, self.wording) {
                (true, Upgrade::Done, _) => self.next_ws_event(),
                (true, ..) => None,
                (false, _, Wording::Classic) => self.next_prefixed(),
                (false, _, Wording::Standard) => self.next_framed(),
            };
            let Some(event) = event else { return };
            self.events.push((tick, event));
        }
    }

    /// Handles the answer to the upgrade request. Returns whether it is whole.
    fn finish_upgrade(&mut self) -> bool {
        let Some(end) = find(&self.pending, b"\r\n\r\n") else { return false };
        if !self.pending.starts_with(b"HTTP/1.1 101 ") {
            return false;
        }
        self.pending.drain(..end + 4);
        self.upgrade = Upgrade::Done;
        let waiting = std::mem::take(&mut self.waiting);
        self.write(&waiting);
        true
    }

    fn next_prefixed(&mut self) -> Option<Event> {
        let envelope = self.pending.get(..5)?;
        if envelope[0] != 0 {
            return None;
        }
        let length = u32::from_le_bytes(envelope[1..].try_into().unwrap()) as usize;
        let frame = self.pending.get(5..5 + length)?.to_vec();
        self.pending.drain(..5 + length);
        Some(Event::Frame(frame))
    }

    fn next_framed(&mut self) -> Option<Event> {
        let start = self.pending.iter().position(|byte| *byte != b'\n')?;
        let frame = &self.pending[start..];
        let body = find(frame, b"\n\n")? + 2;
        let head = std::str::from_utf8(&frame[..body]).expect("a head that is UTF-8");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let end = match length {
            Some(length) => body + length.parse::<usize>().unwrap(),
            None => body + frame[body..].iter().position(|byte| *byte == 0)?,
        };
        assert_eq!(*frame.get(end)?, 0, "a frame without a NUL");
        let frame = frame[..=end].to_vec();
        self.pending.drain(..=start + end);
        Some(Event::Frame(frame))
    }

    fn next_ws_event(&mut self) -> Option<Event> {
        loop {
            let mut cursor = Cursor::new(&self.pending[..]);
            let (header, length) = FrameHeader::parse(&mut cursor).unwrap()?;
            assert!(header.mask.is_none(), "the broker masks a frame");
            let start = cursor.position() as usize;
            let payload = self.pending.get(start..start + length as usize)?.to_vec();
            self.pending.drain(..start + length as usize);
            match header.opcode {
                OpCode::Control(Control::Ping) => {
                    let opcode = OpCode::Control(Control::Pong);
                    self.write(&ws_frame(opcode, true, &payload, Some(MASK)));
                    return Some(Event::Ping);
                }
                OpCode::Control(Control::Pong) => return Some(Event::Pong(payload)),
                OpCode::Control(_) => {
                    self.close_received = true;
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    if self.answers_close && !self.close_sent {
                        self.close(code, "");
                    }
                    return Some(Event::Close(code));
                }
                OpCode::Data(kind) => {
                    assert!(!self.close_received, "a message comes after a close");
                    self.message.extend_from_slice(&payload);
                    if !header.is_final {
                        continue;
                    }
                    let message = std::mem::take(&mut self.message);
                    let is_text = std::str::from_utf8(&message).is_ok();
                    assert_eq!(is_text, kind == Data::Text, "a message is text where it is UTF-8");
                    return Some(match kind {
                        Data::Binary => Event::BinaryFrame(message),
                        _ => Event::Frame(message),
                    });
                }
            }
        }
    }
}

/// The mask of recorded connections.
const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

fn upgrade_request(path: &str, wording: Wording) -> String {
    let subprotocol = match wording {
        // Offered by the client for browsers.
        Wording::Classic => "stomp",
        Wording::Standard => "v12.stomp",
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

fn prefix(frame: &[u8], envelope: &Envelope) -> Vec<u8> {
    let length = frame.len() as u32;
    let (flag, length) = match envelope {
        Envelope::Literal(bytes) => return bytes.clone(),
        Envelope::Flag(flag) => (*flag, length.to_be_bytes()),
        Envelope::Characters => {
            let characters = std::str::from_utf8(frame).unwrap().chars().count() as u32;
            (0, characters.to_le_bytes())
        }
        _ => (0, length.to_le_bytes()),
    };
    [&[flag][..], &length].concat()
}

fn ws_frame(opcode: OpCode, is_final: bool, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let header = FrameHeader { opcode, is_final, mask, ..FrameHeader::default() };
    let mut out = Vec::with_capacity(payload.len() + 14);
    header.format(payload.len() as u64, &mut out).unwrap();
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    out
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
