//! How what a socket carries becomes frames, and frames that again: detection, TLS, HTTP
//! upgrade, WebSocket, length prefix.
//!
//! It does not know STOMP, sessions, sockets or the clock. It is driven from memory: what was read
//! is lent to it, and it lends the next frame on, without copying where the frame is whole.

pub(crate) mod detect;
pub(crate) mod policy;
pub(crate) mod prefix;
pub(crate) mod request;
mod stream;
pub(crate) mod tls;
pub(crate) mod upgrade;
pub(crate) mod websocket;

use std::fmt;

use self::detect::{Detected, detect};
pub use self::policy::{ListenerPolicy, Protocols, TlsMode};
use self::prefix::PrefixLayer;
pub(crate) use self::request::PlainRequest;
use self::stream::StreamLayer;
use self::upgrade::{UpgradeLayer, Upgraded};
use self::websocket::{CloseCode, Message, WebSocketLayer};
use crate::limits::Exceeded;
use crate::outbound::Framing;

/// What carries one connection's frames, above TLS.
#[derive(Debug)]
pub(crate) struct Transport {
    layer: Layer,
    /// Bytes that go out between frames: a handshake's answer, a ping, a pong, a close.
    control: Vec<u8>,
    /// How much of `control` is out; `control_sent ≤ control.len()`.
    control_sent: u32,
}

/// Every layer begins with what was held while it was told what is spoken.
#[derive(Debug)]
enum Layer {
    Detecting(Vec<u8>),
    Prefix(PrefixLayer),
    Stream(StreamLayer),
    Upgrading(Box<UpgradeLayer>),
    WebSocket(Box<WebSocketLayer>),
    /// Nothing more is read: an HTTP answer is on its way out.
    Answered,
}

/// What the next bytes turned out to be.
#[derive(Debug)]
pub(crate) enum Inbound<'a> {
    /// It is settled what the connection speaks.
    Opened(Dialect),
    /// It is settled as well, and the listener does not serve it.
    Unserved(Dialect, &'static str),
    /// One whole frame of the classic dialect.
    Frame(&'a [u8]),
    /// Bytes of the standard dialect, cut anywhere.
    Bytes {
        /// The bytes.
        bytes: &'a [u8],
        /// Whether they came as a binary WebSocket message.
        is_binary: bool,
    },
    /// A plain HTTP request, with no upgrade; to be answered, and be it that HTTP is not served.
    Request(PlainRequest),
    /// The peer said that it closes.
    Closed,
}

/// The two dialects of protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One frame an envelope or WebSocket message.
    Classic,
    /// STOMP 1.0, 1.1, 1.2.
    Standard,
}

/// The bound on a frame, now.
#[derive(Clone, Copy, Debug)]
pub struct FrameBound {
    /// Bytes that a frame may have.
    pub bytes_max: u32,
    /// What the bound is called that a larger frame must have exceeded.
    pub limit: &'static str,
    /// What that bound is: less than `bytes_max` where a header comes on top.
    pub limit_max: u32,
}

impl FrameBound {
    /// The fault of a frame that is larger.
    pub fn exceeded(self) -> Exceeded {
        Exceeded { limit: self.limit, max: u64::from(self.limit_max) }
    }
}

/// What a peer did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// The bytes begin nothing that we know.
    Unrecognized,
    /// An envelope announces a frame of no bytes.
    EmptyFrame,
    /// A frame is larger than allowed.
    TooLarge(Exceeded),
    /// The request cannot be upgraded; an answer is in the control bytes.
    BadRequest(&'static str),
    /// WebSocket was broken; the close that is still to be begun has this code.
    WebSocket(CloseCode, &'static str),
    /// TLS was broken; an alert may be waiting to go out.
    Tls(&'static str),
}

impl fmt::Display for TransportError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrecognized => out.write_str("the first bytes begin no protocol of ours"),
            Self::EmptyFrame => out.write_str("the envelope announces a frame of no bytes"),
            Self::TooLarge(exceeded) => write!(out, "the frame has {exceeded}"),
            Self::BadRequest(why) | Self::WebSocket(_, why) | Self::Tls(why) => out.write_str(why),
        }
    }
}

impl Transport {
    /// A connection of which nothing has been read.
    pub(crate) fn new() -> Self {
        Self { layer: Layer::Detecting(Vec::new()), control: Vec::new(), control_sent: 0 }
    }

    /// Takes the next thing out of what was read. `None` means that all of `wire` is used up: what
    /// is left over of a frame is kept here.
    ///
    /// # Errors
    /// After an error nothing more may be read from the connection.
    pub(crate) fn next_inbound<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        policy: &ListenerPolicy,
        bound: FrameBound,
        upgrade_bytes_max: u32,
    ) -> Result<Option<Inbound<'a>>, TransportError> {
        if !matches!(self.layer, Layer::Prefix(_)) {
            return self.next_of_others(wire, policy, bound, upgrade_bytes_max);
        }
        match &mut self.layer {
            Layer::Prefix(prefix) if !wire.is_empty() || prefix.has_pending() => {
                Ok(prefix.next_frame(wire, bound)?.map(Inbound::Frame))
            }
            _ => Ok(None),
        }
    }

    /// The next thing, where it is no envelope.
    #[inline(never)]
    fn next_of_others<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        policy: &ListenerPolicy,
        bound: FrameBound,
        upgrade_bytes_max: u32,
    ) -> Result<Option<Inbound<'a>>, TransportError> {
        if matches!(self.layer, Layer::Detecting(_)) {
            return self.next_detected(wire, policy, upgrade_bytes_max);
        }
        if matches!(self.layer, Layer::Upgrading(_)) {
            return self.next_upgraded(wire, upgrade_bytes_max);
        }
        match &mut self.layer {
            Layer::WebSocket(websocket) => {
                let message = websocket.next_message(wire, &mut self.control, bound)?;
                Ok(message.map(|message| match message {
                    Message::Data { dialect: Dialect::Classic, bytes, .. } => Inbound::Frame(bytes),
                    Message::Data { bytes, is_binary, .. } => Inbound::Bytes { bytes, is_binary },
                    Message::Closed => Inbound::Closed,
                }))
            }
            Layer::Stream(stream) => {
                let bytes = stream.next_bytes(wire);
                Ok(bytes.map(|bytes| Inbound::Bytes { bytes, is_binary: false }))
            }
            Layer::Detecting(_) | Layer::Upgrading(_) | Layer::Prefix(_) | Layer::Answered => {
                *wire = &mut [];
                Ok(None)
            }
        }
    }

    /// Frees what a finished frame took. To be called when a run of bytes is used up.
    #[inline]
    pub(crate) fn release(&mut self) {
        if let Layer::Prefix(prefix) = &mut self.layer {
            prefix.release();
        } else if let Layer::WebSocket(websocket) = &mut self.layer {
            websocket.release();
        } else if let Layer::Stream(stream) = &mut self.layer {
            stream.release();
        }
    }

    /// Memory that is held for frames that have arrived only in part.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        // Asked twice for each read; a comparison is guessed right where a table of jumps is not.
        if let Layer::Prefix(prefix) = &self.layer {
            return prefix.held_bytes();
        }
        match &self.layer {
            Layer::WebSocket(websocket) => websocket.held_bytes(),
            Layer::Detecting(pending) => pending.capacity(),
            Layer::Upgrading(upgrade) => upgrade.held_bytes(),
            Layer::Stream(stream) => stream.held_bytes(),
            Layer::Prefix(_) | Layer::Answered => 0,
        }
    }

    /// How outgoing frames are framed.
    pub(crate) fn framing(&self) -> Framing {
        match &self.layer {
            Layer::Prefix(_) => Framing::LengthPrefix,
            Layer::WebSocket(_) => Framing::WebSocket,
            Layer::Detecting(_) | Layer::Stream(_) | Layer::Upgrading(_) | Layer::Answered => {
                Framing::Line
            }
        }
    }

    /// Whether frames are WebSocket messages.
    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self.layer, Layer::WebSocket(_))
    }

    /// What carries the frames, for the log.
    pub(crate) fn name(&self) -> &'static str {
        match &self.layer {
            Layer::Detecting(_) => "undetected",
            Layer::Prefix(_) | Layer::Stream(_) => "tcp",
            Layer::Upgrading(_) | Layer::Answered => "http",
            Layer::WebSocket(_) => "ws",
        }
    }

    /// Puts an answer to an HTTP request into the control bytes; nothing more is read.
    pub(crate) fn answer(&mut self, response: &[u8]) {
        self.control.extend_from_slice(response);
        self.layer = Layer::Answered;
    }

    /// Puts an answer to an HTTP request that did not become whole in time into the control bytes.
    /// Says whether there is such a request.
    pub(crate) fn answer_late(&mut self, limit: &str) -> bool {
        let Layer::Upgrading(upgrade) = &self.layer else { return false };
        upgrade.refuse_late(limit, &mut self.control);
        self.layer = Layer::Answered;
        true
    }

    /// Puts a ping into the control bytes.
    pub(crate) fn ping(&mut self) {
        if let Layer::WebSocket(websocket) = &mut self.layer {
            websocket.ping(&mut self.control);
        }
    }

    /// Puts a heart-beat of the standard dialect into the control bytes: a line end, on WebSocket
    /// as a message of its own, text or binary.
    pub(crate) fn beat(&mut self, text: bool) {
        match &self.layer {
            Layer::Stream(_) => self.control.push(b'\n'),
            Layer::WebSocket(websocket) => websocket.beat(text, &mut self.control),
            _ => {}
        }
    }

    /// Begins to close, when all data is out: puts a WebSocket close into the control bytes, unless
    /// one was sent. Without a code it is that of the peer's own close or of its breach.
    /// Says whether the peer has something to answer.
    pub(crate) fn begin_close(&mut self, code: Option<CloseCode>) -> bool {
        match &mut self.layer {
            Layer::WebSocket(websocket) => websocket.begin_close(code, &mut self.control),
            _ => false,
        }
    }

    /// Bytes that go out before the next whole frame.
    pub(crate) fn control(&self) -> &[u8] {
        &self.control[self.control_sent as usize..]
    }

    /// Notes that control bytes are out.
    pub(crate) fn note_control_sent(&mut self, bytes: usize) {
        self.control_sent += bytes as u32;
        debug_assert!(self.control_sent as usize <= self.control.len());
        if self.control_sent as usize == self.control.len() {
            self.control = Vec::new();
            self.control_sent = 0;
        }
    }

    fn next_detected(
        &mut self,
        wire: &mut &mut [u8],
        policy: &ListenerPolicy,
        upgrade_bytes_max: u32,
    ) -> Result<Option<Inbound<'static>>, TransportError> {
        let Layer::Detecting(pending) = &mut self.layer else { return Ok(None) };
        let detected = if pending.is_empty() {
            detect(wire)
        } else {
            let joined = [&pending[..], &wire[..wire.len().min(detect::LONGEST)]].concat();
            detect(&joined)
        };
        let held = std::mem::take(pending);
        let protocols = &policy.protocols;
        match detected {
            Detected::Partial => {
                self.layer = Layer::Detecting([&held, &std::mem::take(wire)[..]].concat());
                Ok(None)
            }
            Detected::Prefix => {
                self.layer = Layer::Prefix(PrefixLayer::new(held));
                Ok(Some(opened(Dialect::Classic, protocols.classic, "the classic dialect")))
            }
            Detected::Stomp => {
                self.layer = Layer::Stream(StreamLayer::new(held));
                Ok(Some(opened(Dialect::Standard, protocols.stomp, "standard STOMP")))
            }
            Detected::Http => {
                self.layer = Layer::Upgrading(Box::new(UpgradeLayer::new(*protocols, held)));
                self.next_upgraded(wire, upgrade_bytes_max)
            }
        }
    }

    fn next_upgraded(
        &mut self,
        wire: &mut &mut [u8],
        bytes_max: u32,
    ) -> Result<Option<Inbound<'static>>, TransportError> {
        let Layer::Upgrading(upgrade) = &mut self.layer else { return Ok(None) };
        match upgrade.next_request(wire, bytes_max, &mut self.control) {
            Ok(Upgraded::Partial) => Ok(None),
            Ok(Upgraded::WebSocket(dialect)) => {
                self.layer = Layer::WebSocket(Box::new(WebSocketLayer::new(dialect)));
                Ok(Some(Inbound::Opened(dialect)))
            }
            Ok(Upgraded::Request(request)) => Ok(Some(Inbound::Request(request))),
            Err(error) => {
                self.layer = Layer::Answered;
                Err(error)
            }
        }
    }
}

fn opened(dialect: Dialect, is_served: bool, what: &'static str) -> Inbound<'static> {
    if is_served { Inbound::Opened(dialect) } else { Inbound::Unserved(dialect, what) }
}

impl Default for Transport {
    fn default() -> Self {
        Self::new()
    }
}
