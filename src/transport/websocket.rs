//! The server's side of WebSocket, RFC 6455, on memory.
//!
//! An unfragmented message that is whole in the read buffer is unmasked in place and lent from there;
//! only torn and fragmented ones are copied. tungstenite parses and writes frame headers, but its
//! `WebSocketContext` is not used: it copies every message into a buffer that an idle connection
//! would keep.
//!
//! Outgoing data frames are framed in the queues, by [`crate::outbound::Framing`]. Pings, pongs and
//! closes are put into the control bytes, which the flush writes only between whole data frames.
//! [`WebSocketLayer::close`] is called once all data is written, since no data may follow a close;
//! until then its code is kept.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

pub(crate) use tungstenite::protocol::frame::coding::CloseCode;

use super::{FrameBound, TransportFault};
use crate::buffer::{self, Lent, SHARED_BYTES_MIN, Shared};
use crate::text;

/// The WebSocket of one connection.
#[derive(Debug, Default)]
pub struct WebSocketLayer {
    /// Bytes of a torn frame header.
    header: Vec<u8>,
    /// The frame whose payload is torn.
    torn: Option<TornFrame>,
    /// Payloads of the fragments so far, or a torn payload.
    message: Vec<u8>,
    /// Bytes of `message` that are text, if it is a text message: all but a character that is cut.
    text_len: usize,
    /// Type of the message, once its first fragment has begun.
    kind: Option<Data>,
    /// Payload of a torn control frame.
    control_payload: Vec<u8>,
    /// Payload of the last ping that came while too many answers were unsent.
    late_ping: Option<Box<[u8]>>,
    /// Whether `message` was lent and can be freed.
    lent: bool,
    /// The large message that was lent last.
    shared: Option<Shared>,
    /// Whether payloads of messages are dropped as they arrive.
    skips: bool,
    close_sent: bool,
    /// Code of the close if the broker has no reason of its own: that of the client's close or of its
    /// violation.
    close_code: Option<CloseCode>,
    /// Whether nothing more is read, after a close or a violation.
    is_over: bool,
}

/// An event that is read from the connection.
#[derive(Debug)]
pub enum Message<'a> {
    /// A whole message.
    Data {
        /// Its payload.
        lent: Lent<'a>,
        /// Whether it is a binary message.
        is_binary: bool,
    },
    /// A control frame, or a fragment that does not end its message.
    Part,
    /// The client sent a close, which is still to be answered.
    Closed,
}

/// A frame whose payload has not arrived wholly.
#[derive(Clone, Debug)]
struct TornFrame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    left: usize,
}

impl WebSocketLayer {
    /// The next event, or `None` when `wire` is used up. Answers to pings are put into `control`.
    ///
    /// # Errors
    /// The client violated the protocol or exceeded a bound.
    pub fn next_message<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        control: &mut Vec<u8>,
        bound: FrameBound,
    ) -> Result<Option<Message<'a>>, TransportFault> {
        self.release();
        if self.is_over {
            *wire = &mut [];
            return Ok(None);
        }
        match self.next_raw(wire, control, bound) {
            Ok(Some(Raw::Whole(kind, bytes))) => {
                let lent = Lent::unshared(bytes);
                Ok(Some(Message::Data { lent, is_binary: kind == Data::Binary }))
            }
            Ok(Some(Raw::Gathered(kind))) => {
                let lent = self.lend(kind == Data::Text);
                Ok(Some(Message::Data { lent, is_binary: kind == Data::Binary }))
            }
            Ok(Some(Raw::Part)) => Ok(Some(Message::Part)),
            Ok(Some(Raw::Closed)) => Ok(Some(Message::Closed)),
            Ok(None) => Ok(None),
            Err(violation) => Err(self.fail(violation, bound)),
        }
    }

    fn lend(&mut self, is_text: bool) -> Lent<'_> {
        self.lent = true;
        if self.message.len() < SHARED_BYTES_MIN {
            return Lent::unshared(&self.message);
        }
        let end = self.message.len();
        let shared = self.shared.insert(buffer::share(&mut self.message, end, is_text));
        Lent { bytes: shared, shared: Some(shared) }
    }

    /// Frees the message that was lent last.
    pub fn release(&mut self) {
        if self.lent {
            self.message = Vec::new();
            self.shared = None;
            self.lent = false;
        }
    }

    /// Drops a torn or fragmented message, and what arrives of messages from now on: only a close is still
    /// of interest.
    pub fn skip(&mut self) {
        self.skips = true;
        self.lent = false;
        self.message = Vec::new();
        self.text_len = 0;
        self.shared = None;
    }

    /// Memory that is held for a torn or fragmented message.
    pub fn held_bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.capacity());
        let gathered = self.message.capacity() + shared;
        self.header.capacity() + gathered + self.control_payload.capacity()
    }

    /// Payload that has arrived of a torn or fragmented message. Frame headers and control frames do not
    /// count, because a message may have any number of them.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.message.len()
    }

    /// Puts a ping into `control`.
    pub fn ping(&self, control: &mut Vec<u8>) {
        if !self.close_sent {
            write_control(Control::Ping, b"", control);
        }
    }

    /// Puts the answer to the last ping into `control`, which is written, if there was no room for it before.
    pub(super) fn answer_late(&mut self, control: &mut Vec<u8>) {
        if let Some(payload) = self.late_ping.take()
            && !self.close_sent
        {
            write_control(Control::Pong, &payload, control);
        }
    }

    /// Puts a heart-beat of the standard dialect into `control`: a message that consists of a line
    /// end.
    pub fn beat(&self, text: bool, control: &mut Vec<u8>) {
        if !self.close_sent {
            control.extend_from_slice(&[if text { 0x81 } else { 0x82 }, 1]);
            control.push(b'\n');
        }
    }

    /// Puts a close into `control`, unless one was sent: with `code`, otherwise with that of the
    /// client's close or violation. Returns whether the client's close is to be awaited.
    pub fn close(&mut self, code: Option<CloseCode>, control: &mut Vec<u8>) -> bool {
        if !self.close_sent {
            self.close_sent = true;
            let code = code.or(self.close_code).unwrap_or(CloseCode::Normal);
            write_control(Control::Close, &u16::from(code).to_be_bytes(), control);
        }
        !self.is_over
    }

    /// Reads one frame; `None` when `wire` is used up.
    fn next_raw<'w>(
        &mut self,
        wire: &mut &'w mut [u8],
        control: &mut Vec<u8>,
        bound: FrameBound,
    ) -> Result<Option<Raw<'w>>, Violation> {
        let torn = match self.torn.take() {
            Some(torn) => torn,
            None => {
                let Some(frame) = self.next_header(wire, bound)? else { return Ok(None) };
                if let Some(kind) = Self::kind_if_whole(&frame, wire) {
                    let (payload, rest) = std::mem::take(wire).split_at_mut(frame.left);
                    *wire = rest;
                    unmask(payload, frame.mask);
                    if kind == Data::Text && !text::is_text(payload) {
                        return Err(Violation::Text);
                    }
                    return Ok(Some(Raw::Whole(kind, payload)));
                }
                frame
            }
        };
        let Some(frame) = self.gather(torn, wire)? else { return Ok(None) };
        match frame.opcode {
            OpCode::Control(opcode) => {
                let payload = std::mem::take(&mut self.control_payload);
                let is_close = self.handle_control(opcode, &payload, control)?;
                Ok(Some(if is_close { Raw::Closed } else { Raw::Part }))
            }
            OpCode::Data(_) if frame.is_final => {
                let kind = self.kind.take().unwrap_or(Data::Binary);
                let text_len = std::mem::take(&mut self.text_len);
                if kind == Data::Text && text_len < self.message.len() {
                    return Err(Violation::Text);
                }
                Ok(Some(Raw::Gathered(kind)))
            }
            OpCode::Data(_) => Ok(Some(Raw::Part)),
        }
    }

    /// The type of a frame, if it is an unfragmented message whose payload is whole in `wire`.
    fn kind_if_whole(frame: &TornFrame, wire: &[u8]) -> Option<Data> {
        match frame.opcode {
            OpCode::Data(kind @ (Data::Text | Data::Binary))
                if frame.is_final && wire.len() >= frame.left =>
            {
                Some(kind)
            }
            _ => None,
        }
    }

    /// Reads a frame header and checks it against the state of the message.
    fn next_header(
        &mut self,
        wire: &mut &mut [u8],
        bound: FrameBound,
    ) -> Result<Option<TornFrame>, Violation> {
        let (header, length) = loop {
            if self.header.is_empty() {
                let mut cursor = Cursor::new(&wire[..]);
                if let Some(parsed) = parse_header(&mut cursor)? {
                    let used = cursor.position() as usize;
                    *wire = &mut std::mem::take(wire)[used..];
                    break parsed;
                }
            } else if let Some(parsed) = parse_header(&mut Cursor::new(&self.header[..]))? {
                self.header = Vec::new();
                break parsed;
            }
            // Taken byte by byte, so that no payload gets into `header`.
            let Some((first, rest)) = std::mem::take(wire).split_first_mut() else {
                return Ok(None);
            };
            self.header.push(*first);
            *wire = rest;
        };
        self.check_header(&header, length, bound)?;
        if let OpCode::Data(kind @ (Data::Text | Data::Binary)) = header.opcode
            && !header.is_final
        {
            self.kind = Some(kind);
        }
        Ok(Some(TornFrame {
            opcode: header.opcode,
            is_final: header.is_final,
            mask: header.mask.unwrap_or_default(),
            left: length as usize,
        }))
    }

    fn check_header(
        &self,
        header: &FrameHeader,
        length: u64,
        bound: FrameBound,
    ) -> Result<(), Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::Protocol("a reserved bit is set"));
        }
        if header.mask.is_none() {
            return Err(Violation::Protocol("a client's frame is not masked"));
        }
        // RFC 6455, 5.2: the most significant bit is 0.
        if length > u64::MAX / 2 {
            return Err(Violation::Protocol("a length with its highest bit set"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final || length > CONTROL_PAYLOAD_BYTES_MAX => {
                Err(Violation::Protocol("a control frame is fragmented or too long"))
            }
            OpCode::Control(_) => Ok(()),
            OpCode::Data(Data::Continue) if self.kind.is_none() => {
                Err(Violation::Protocol("a continuation continues nothing"))
            }
            OpCode::Data(Data::Text | Data::Binary) if self.kind.is_some() => {
                Err(Violation::Protocol("a message begins within another"))
            }
            OpCode::Data(_) => {
                let total = length.saturating_add(self.message.len() as u64);
                // The NUL that ends a STOMP frame does not count.
                if total > u64::from(bound.bytes_max) + 1 {
                    return Err(Violation::TooLarge);
                }
                Ok(())
            }
        }
    }

    /// Unmasks and keeps the bytes of a payload that have arrived. Returns the frame once it is whole.
    fn gather(
        &mut self,
        mut frame: TornFrame,
        wire: &mut &mut [u8],
    ) -> Result<Option<TornFrame>, Violation> {
        let count = frame.left.min(wire.len());
        let (payload, rest) = std::mem::take(wire).split_at_mut(count);
        *wire = rest;
        unmask(payload, frame.mask);
        frame.mask.rotate_left(count % 4);
        frame.left -= count;
        match frame.opcode {
            OpCode::Control(_) => self.control_payload.extend_from_slice(payload),
            OpCode::Data(kind) => {
                // A torn, unfragmented message is gathered like fragments.
                if self.kind.is_none() {
                    self.kind = Some(kind);
                }
                if !self.skips {
                    let whole = self.message.len() + payload.len() + frame.left;
                    let expected = if frame.is_final { whole } else { 0 };
                    buffer::append(&mut self.message, payload, expected);
                    self.check_text()?;
                }
            }
        }
        if frame.left > 0 {
            self.torn = Some(frame);
            return Ok(None);
        }
        Ok(Some(frame))
    }

    /// Checks what has arrived of a text message since the last call, so that no call takes long.
    fn check_text(&mut self) -> Result<(), Violation> {
        if self.kind == Some(Data::Text) {
            let new = &self.message[self.text_len..];
            self.text_len += text::len_so_far(new).ok_or(Violation::Text)?;
        }
        Ok(())
    }

    /// Handles a control frame. Returns whether it was a close.
    fn handle_control(
        &mut self,
        opcode: Control,
        payload: &[u8],
        control: &mut Vec<u8>,
    ) -> Result<bool, Violation> {
        match opcode {
            Control::Ping if !self.close_sent => {
                // RFC 6455, 5.5.3: only the most recent ping has to be answered; answers that the
                // client does not read must not pile up.
                if control.len() < PENDING_CONTROL_BYTES_MAX {
                    write_control(Control::Pong, payload, control);
                } else {
                    self.late_ping = Some(payload.into());
                }
            }
            Control::Close => {
                self.close_code = Some(read_close(payload)?);
                self.is_over = true;
                return Ok(true);
            }
            Control::Ping | Control::Pong | Control::Reserved(_) => {}
        }
        Ok(false)
    }

    fn fail(&mut self, violation: Violation, bound: FrameBound) -> TransportFault {
        self.is_over = true;
        let (code, why) = match violation {
            // Reported in an ERROR frame of the dialect; the close has its code.
            Violation::TooLarge => return TransportFault::TooLarge(bound.exceeded()),
            Violation::Protocol(why) => (CloseCode::Protocol, why),
            Violation::Text => (CloseCode::Invalid, "a text message is not UTF-8"),
        };
        self.close_code = Some(code);
        TransportFault::WebSocket(code, why)
    }
}

/// A message before it is lent.
enum Raw<'w> {
    Whole(Data, &'w [u8]),
    Gathered(Data),
    Part,
    Closed,
}

/// A client's violation of the protocol or of a bound.
enum Violation {
    Protocol(&'static str),
    Text,
    TooLarge,
}

/// RFC 6455, 5.5.
const CONTROL_PAYLOAD_BYTES_MAX: u64 = 125;

/// Unsent control bytes above which pings are not answered.
const PENDING_CONTROL_BYTES_MAX: usize = 1024;

fn parse_header(cursor: &mut Cursor<&[u8]>) -> Result<Option<(FrameHeader, u64)>, Violation> {
    FrameHeader::parse(cursor).map_err(|_| Violation::Protocol("a reserved opcode"))
}

/// The close code that answers a close.
fn read_close(payload: &[u8]) -> Result<CloseCode, Violation> {
    match payload {
        [] => Ok(CloseCode::Normal),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            // tungstenite does not know 1014, Bad Gateway, which is in IANA's registry.
            if !code.is_allowed() && u16::from(code) != 1014 {
                return Err(Violation::Protocol("a close code that may not be sent"));
            }
            std::str::from_utf8(reason).map(|_| code).map_err(|_| Violation::Text)
        }
        [_] => Err(Violation::Protocol("a close of one byte")),
    }
}

fn write_control(opcode: Control, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode: OpCode::Control(opcode), ..FrameHeader::default() };
    // Writing into memory does not fail.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[inline]
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[index & 3];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: FrameBound =
        FrameBound { bytes_max: 70_000, limit: "body_bytes_max", limit_max: 69_000 };

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let header = FrameHeader {
            is_final: first & 0x80 != 0,
            rsv1: first & 0x40 != 0,
            opcode: OpCode::from(first & 0x0f),
            mask: Some(mask),
            ..FrameHeader::default()
        };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).unwrap();
        out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        out
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Outcome {
        messages: Vec<Vec<u8>>,
        closed: bool,
        control: Vec<u8>,
        error: Option<TransportFault>,
    }

    fn read(runs: &[&[u8]]) -> Outcome {
        let mut layer = WebSocketLayer::default();
        let mut outcome = Outcome::default();
        for run in runs {
            let mut run = run.to_vec();
            let mut wire = &mut run[..];
            loop {
                match layer.next_message(&mut wire, &mut outcome.control, BOUND) {
                    Ok(Some(Message::Data { lent, .. })) => {
                        outcome.messages.push(lent.bytes.to_vec())
                    }
                    Ok(Some(Message::Part)) => {}
                    Ok(Some(Message::Closed)) => outcome.closed = true,
                    Ok(None) => break,
                    Err(error) => {
                        outcome.error = Some(error);
                        assert!(!layer.close(None, &mut outcome.control));
                        return outcome;
                    }
                }
            }
            layer.release();
        }
        if outcome.closed {
            assert!(!layer.close(None, &mut outcome.control));
        }
        outcome
    }

    fn code(bytes: &[u8]) -> Option<u16> {
        let outcome = read(&[bytes]);
        match outcome.error? {
            TransportFault::WebSocket(code, _) => {
                let code = u16::from(code);
                assert!(outcome.control.ends_with(&code.to_be_bytes()), "the close has the code");
                Some(code)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn control_frames_may_come_between_fragments() {
        let bytes = [frame(0x01, b"one "), frame(0x89, b"ping"), frame(0x80, b"message")].concat();
        let outcome = read(&[&bytes]);
        assert_eq!(outcome.messages, [b"one message"]);
        assert_eq!(outcome.control, b"\x8a\x04ping");
    }

    #[test]
    fn a_close_is_echoed_and_nothing_is_read_after_it() {
        let bytes = [frame(0x88, &1000u16.to_be_bytes()), frame(0x81, b"late")].concat();
        let outcome = read(&[&bytes]);
        assert!(outcome.closed && outcome.messages.is_empty());
        assert_eq!(outcome.control, [0x88, 2, 3, 0xe8]);
        assert_eq!(read(&[&frame(0x88, b"")]).control, [0x88, 2, 3, 0xe8]);
    }

    #[test]
    fn violations_close_with_the_code_of_the_rfc() {
        assert_eq!(code(&[0x81, 0x02, b'h', b'i']), Some(1002), "not masked");
        assert_eq!(code(&frame(0xc1, b"x")), Some(1002), "a reserved bit");
        assert_eq!(code(&frame(0x83, b"x")), Some(1002), "a reserved opcode");
        assert_eq!(code(&frame(0x09, b"x")), Some(1002), "a fragmented ping");
        assert_eq!(code(&frame(0x89, &[0; 126])), Some(1002), "a long ping");
        assert_eq!(code(&frame(0x80, b"x")), Some(1002), "a continuation of nothing");
        let within = [frame(0x01, b"x"), frame(0x81, b"y")].concat();
        assert_eq!(code(&within), Some(1002), "a message within another");
        assert_eq!(code(&frame(0x81, b"\xff")), Some(1007));
        let split = [frame(0x01, b"\xc3"), frame(0x80, b"\xb1")].concat();
        assert_eq!(read(&[&split]).messages, ["ñ".as_bytes()], "text may be cut anywhere");
        assert_eq!(code(&frame(0x88, &[3])), Some(1002));
        for reserved in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000u16] {
            assert_eq!(code(&frame(0x88, &reserved.to_be_bytes())), Some(1002), "{reserved}");
        }
        let long = |first: u8| [&[0x82, 0xff, first][..], &[0; 7], &[0; 4]].concat();
        assert_eq!(code(&long(0x80)), Some(1002), "a length with its highest bit set");
        let error = read(&[&long(0x7f)]).error;
        assert!(matches!(error, Some(TransportFault::TooLarge(_))), "{error:?}");
    }

    #[test]
    fn a_close_is_answered_with_its_own_code() {
        for allowed in [1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999u16] {
            let outcome = read(&[&frame(0x88, &allowed.to_be_bytes())]);
            assert!(outcome.closed && outcome.error.is_none(), "{allowed}");
            assert_eq!(outcome.control[2..], allowed.to_be_bytes(), "{allowed}");
        }
    }

    #[test]
    fn text_is_checked_as_it_arrives() {
        let text = "ñ€😀".repeat(100);
        let whole = frame(0x81, text.as_bytes());
        for cut in 1..40 {
            let runs: Vec<_> = whole.chunks(cut).collect();
            assert_eq!(read(&runs).messages, [text.as_bytes()], "by {cut}");
        }
        let broken = frame(0x81, &[text.as_bytes(), b"\xe2\x82", text.as_bytes()].concat());
        let until = broken.len() - text.len() + 1;
        assert_eq!(read(&[&broken[..until - 1]]).error, None, "the rest of a character may follow");
        assert_eq!(code(&broken[..until]), Some(1007), "no rest is waited for");
        assert_eq!(code(&frame(0x81, b"\xe2\x82")), Some(1007), "a character is cut at the end");
        let fragments = [frame(0x01, text.as_bytes()), frame(0x80, b"\xe2\x82")].concat();
        assert_eq!(code(&fragments), Some(1007), "a character is cut at the end of fragments");
        let then = [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x81, "ñ".as_bytes())].concat();
        let runs: Vec<_> = then.chunks(1).collect();
        assert_eq!(read(&runs).messages, [&b"ab"[..], "ñ".as_bytes()], "each message by itself");
    }

    #[test]
    fn a_large_text_message_is_lent_as_text_and_a_binary_one_is_not() {
        for (first, is_text) in [(0x81, true), (0x82, false)] {
            let bytes = frame(first, "ñ".repeat(33_000).as_bytes());
            let mut layer = WebSocketLayer::default();
            let (head, tail) = bytes.split_at(1000);
            for part in [head, tail] {
                let (mut part, mut control) = (part.to_vec(), Vec::new());
                let mut wire = &mut part[..];
                let Some(Message::Data { lent, .. }) =
                    layer.next_message(&mut wire, &mut control, BOUND).unwrap()
                else {
                    continue;
                };
                assert_eq!(lent.piece().unwrap().is_known_as_text(), is_text);
            }
        }
    }

    #[test]
    fn a_message_above_the_bound_is_refused_at_its_header() {
        let exceeded = Some(TransportFault::TooLarge(BOUND.exceeded()));
        assert_eq!(read(&[&frame(0x82, &[0; 70_002])[..14]]).error, exceeded);
        let fragments = [frame(0x02, &[0; 40_000]), frame(0x80, &[0; 40_000])].concat();
        assert_eq!(read(&[&fragments]).error, exceeded);
        assert_eq!(read(&[&frame(0x82, &[0; 70_001])]).error, None, "a NUL may follow");
    }

    #[test]
    fn unread_answers_to_pings_do_not_pile_up() {
        let pings = frame(0x89, &[0; 125]).repeat(100);
        assert!(read(&[&pings]).control.len() < 2000);
    }

    #[test]
    fn the_last_ping_is_answered_once_earlier_answers_are_written() {
        let mut layer = WebSocketLayer::default();
        let mut control = Vec::new();
        let mut pings: Vec<_> = (0..100u8).flat_map(|number| frame(0x89, &[number; 100])).collect();
        let mut wire = &mut pings[..];
        while layer.next_message(&mut wire, &mut control, BOUND).unwrap().is_some() {}
        assert!(control.len() < 2000);
        control.clear();
        layer.answer_late(&mut control);
        assert_eq!(control, [&[0x8a, 100][..], &[99; 100]].concat());
        control.clear();
        layer.answer_late(&mut control);
        assert!(control.is_empty(), "once");
    }

    proptest! {
        #[test]
        fn chunking_is_invisible(
            messages in prop::collection::vec(
                (payload(), 1..4usize, any::<bool>()), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut bytes = Vec::new();
            for ((payload, is_text), fragments, ping) in &messages {
                let kind = if *is_text { 1 } else { 2 };
                let size = payload.len().div_ceil(*fragments).max(1);
                let chunks: Vec<_> = payload.chunks(size).collect();
                let last = chunks.len().saturating_sub(1);
                if chunks.is_empty() {
                    bytes.extend(frame(0x80 | kind, b""));
                }
                for (index, chunk) in chunks.iter().enumerate() {
                    let first = if index == 0 { kind } else { 0 } | if index == last { 0x80 } else { 0 };
                    bytes.extend(frame(first, chunk));
                    if *ping {
                        bytes.extend(frame(0x89, b"p"));
                    }
                }
            }
            let whole = read(&[&bytes]);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let runs: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let expected: Vec<_> = messages.iter().map(|((payload, _), ..)| payload.clone()).collect();
            prop_assert_eq!(&whole.messages, &expected);
            prop_assert_eq!(read(&runs), whole);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read(&[&bytes]);
        }
    }

    /// A payload, and whether it is text.
    fn payload() -> impl Strategy<Value = (Vec<u8>, bool)> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (bytes, false)),
            "[a-zñ€😀]{0,150}".prop_map(|text| (text.into_bytes(), true)),
        ]
    }
}
