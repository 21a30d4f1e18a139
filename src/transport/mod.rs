//! The layers between a socket's bytes and frames: detection, TLS, HTTP upgrade, WebSocket, length
//! prefix.
//!
//! It does not know STOMP, sessions, sockets or the clock. It works on memory: it borrows the bytes
//! that were read and lends the next frame out of them, without a copy if the frame is whole.

pub(crate) mod detect;
pub(crate) mod policy;
pub(crate) mod prefix;
mod records;
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
use crate::buffer::Lent;
pub(crate) use crate::dialect::Dialect;
use crate::limits::Exceeded;
use crate::outbound::Framing;

/// The layer that carries one connection's frames, above TLS.
#[derive(Debug)]
pub(crate) struct Transport {
    layer: Layer,
    /// Bytes that are sent between frames: an HTTP answer, a ping, a pong, a close.
    control: Vec<u8>,
    /// Bytes of `control` that are written; `control_sent ≤ control.len()`.
    control_sent: u32,
}

/// The current layer. Each one begins with the bytes that arrived during detection.
#[derive(Debug)]
enum Layer {
    Detecting(Vec<u8>),
    Prefix(PrefixLayer),
    Stream(StreamLayer),
    Upgrading(Box<UpgradeLayer>),
    WebSocket(Box<WebSocketLayer>),
    /// Nothing more is read: an HTTP answer is being sent.
    Answered,
}

/// An event that is read from the connection.
#[derive(Debug)]
pub(crate) enum Inbound<'a> {
    /// The dialect has been detected.
    Opened(Dialect),
    /// The dialect has been detected, and the listener does not serve it.
    Unserved(Dialect, &'static str),
    /// Data of the detected dialect: the payload of an envelope or a WebSocket message, or bytes of a
    /// stream, with frames cut anywhere.
    Data {
        /// The bytes.
        lent: Lent<'a>,
        /// Whether they came as a binary WebSocket message.
        is_binary: bool,
    },
    /// An HTTP request without an upgrade, which has to be answered even if HTTP is not served.
    Request(PlainRequest),
    /// A control frame of WebSocket, or a fragment that ends no message: nothing to handle, but work.
    Part,
    /// The client sent a WebSocket close.
    Closed,
}

/// The bound on a frame in the connection's current state.
#[derive(Clone, Copy, Debug)]
pub struct FrameBound {
    /// Bytes that a frame may have.
    pub bytes_max: u32,
    /// Name of the limit that a larger frame exceeds.
    pub limit: &'static str,
    /// Value of that limit; `bytes_max` is larger where it includes a header.
    pub limit_max: u32,
}

impl FrameBound {
    /// The fault of a frame that is larger.
    pub fn exceeded(self) -> Exceeded {
        Exceeded { limit: self.limit, max: u64::from(self.limit_max) }
    }
}

/// What a client did that ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFault {
    /// An envelope announces a frame of no bytes.
    EmptyFrame,
    /// A frame is larger than allowed.
    TooLarge(Exceeded),
    /// The HTTP request is refused; the answer is in the control bytes.
    BadRequest(&'static str),
    /// The client violated WebSocket; the close that is still to be sent has this code.
    WebSocket(CloseCode, &'static str),
    /// The client violated TLS; an alert may still have to be sent.
    Tls(&'static str),
}

impl fmt::Display for TransportFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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

    /// Takes the next event out of `wire`. `None` means that `wire` is used up; the beginning of a
    /// torn frame is kept here.
    ///
    /// # Errors
    /// After a fault nothing more may be read from the connection.
    pub(crate) fn next_inbound<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        policy: &ListenerPolicy,
        bound: FrameBound,
        upgrade_bytes_max: u32,
    ) -> Result<Option<Inbound<'a>>, TransportFault> {
        if !matches!(self.layer, Layer::Prefix(_)) {
            return self.next_inbound_slow(wire, policy, bound, upgrade_bytes_max);
        }
        match &mut self.layer {
            Layer::Prefix(prefix) if !wire.is_empty() || prefix.has_pending() => {
                Ok(prefix.next_frame(wire, bound)?.map(plain_data))
            }
            _ => Ok(None),
        }
    }

    /// The next event of any layer but the length prefix.
    #[inline(never)] // large, and would slow down envelopes
    fn next_inbound_slow<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        policy: &ListenerPolicy,
        bound: FrameBound,
        upgrade_bytes_max: u32,
    ) -> Result<Option<Inbound<'a>>, TransportFault> {
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
                    Message::Data { lent, is_binary } => Inbound::Data { lent, is_binary },
                    Message::Part => Inbound::Part,
                    Message::Closed => Inbound::Closed,
                }))
            }
            Layer::Stream(stream) => {
                Ok(stream.next_bytes(wire).map(Lent::unshared).map(plain_data))
            }
            Layer::Detecting(_) | Layer::Upgrading(_) | Layer::Prefix(_) | Layer::Answered => {
                *wire = &mut [];
                Ok(None)
            }
        }
    }

    /// Frees the memory of the frame that was lent last. To be called when all bytes of a read are used
    /// up.
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

    /// Drops what is held for torn frames, since the connection closes.
    pub(crate) fn drop_held(&mut self) {
        match &mut self.layer {
            Layer::Prefix(prefix) => prefix.drop_held(),
            Layer::WebSocket(websocket) => websocket.skip(),
            Layer::Stream(stream) => *stream = StreamLayer::new(Vec::new()),
            // A request is answered from what is held, and it is small.
            Layer::Detecting(_) | Layer::Upgrading(_) | Layer::Answered => {}
        }
    }

    /// Memory that is held for torn frames.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        // Called twice for each read: a comparison is predicted better than a jump table.
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

    /// Bytes that have arrived of a frame or a message, which is not whole.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        match &self.layer {
            Layer::Prefix(prefix) => prefix.unfinished_bytes(),
            Layer::WebSocket(websocket) => websocket.unfinished_bytes(),
            Layer::Detecting(_) | Layer::Upgrading(_) | Layer::Stream(_) | Layer::Answered => 0,
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

    /// Name of the transport in the log.
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

    /// Puts the answer to an HTTP request that did not arrive in time into the control bytes. Returns
    /// whether there is such a request.
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

    /// Puts a heart-beat of the standard dialect into the control bytes: a line end, which is a
    /// message of its own on WebSocket, text or binary.
    pub(crate) fn beat(&mut self, text: bool) {
        match &self.layer {
            Layer::Stream(_) => self.control.push(b'\n'),
            Layer::WebSocket(websocket) => websocket.beat(text, &mut self.control),
            _ => {}
        }
    }

    /// Begins the closing handshake, once all data is written: puts a WebSocket close into the control
    /// bytes, unless one was sent. Without a `code` it has that of the client's own close or violation.
    /// Returns whether an answer of the client is to be awaited.
    pub(crate) fn close_websocket(&mut self, code: Option<CloseCode>) -> bool {
        match &mut self.layer {
            Layer::WebSocket(websocket) => websocket.close(code, &mut self.control),
            _ => false,
        }
    }

    /// Unsent bytes that go out before the next whole frame.
    pub(crate) fn control(&self) -> &[u8] {
        &self.control[self.control_sent as usize..]
    }

    /// Notes that control bytes are written.
    pub(crate) fn note_control_sent(&mut self, bytes: usize) {
        self.control_sent += bytes as u32;
        debug_assert!(self.control_sent as usize <= self.control.len());
        if self.control_sent as usize == self.control.len() {
            self.control = Vec::new();
            self.control_sent = 0;
            if let Layer::WebSocket(websocket) = &mut self.layer {
                websocket.answer_late(&mut self.control);
            }
        }
    }

    fn next_detected(
        &mut self,
        wire: &mut &mut [u8],
        policy: &ListenerPolicy,
        upgrade_bytes_max: u32,
    ) -> Result<Option<Inbound<'static>>, TransportFault> {
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
    ) -> Result<Option<Inbound<'static>>, TransportFault> {
        let Layer::Upgrading(upgrade) = &mut self.layer else { return Ok(None) };
        match upgrade.next_request(wire, bytes_max, &mut self.control) {
            Ok(Upgraded::Partial) => Ok(None),
            Ok(Upgraded::WebSocket(dialect)) => {
                self.layer = Layer::WebSocket(Box::default());
                Ok(Some(Inbound::Opened(dialect)))
            }
            Ok(Upgraded::Request(request)) => Ok(Some(Inbound::Request(request))),
            Err(fault) => {
                self.layer = Layer::Answered;
                Err(fault)
            }
        }
    }
}

/// What did not come over WebSocket.
#[inline]
fn plain_data(lent: Lent<'_>) -> Inbound<'_> {
    Inbound::Data { lent, is_binary: false }
}

fn opened(dialect: Dialect, is_served: bool, what: &'static str) -> Inbound<'static> {
    if is_served { Inbound::Opened(dialect) } else { Inbound::Unserved(dialect, what) }
}

impl Default for Transport {
    fn default() -> Self {
        Self::new()
    }
}
