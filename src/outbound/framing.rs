//! Framing: the bytes before and behind each outgoing frame that separate the frames of a stream.
//! They are encoded together with the frame, so that all receivers with the same framing share them.

use crate::text;

/// How outgoing frames are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Frames delimit themselves, and a line end follows each.
    ///
    /// STOMP 1.2, "STOMP Frames": EOLs may follow a frame. PHP's `stomp` consumes two bytes behind a
    /// body that has a length; without the line end it loses the first byte of the next frame.
    Line,
    /// A flag byte 0 and the length in four bytes, little-endian, go before each frame.
    LengthPrefix,
    /// Each frame is one WebSocket message: text if it is UTF-8, otherwise binary.
    WebSocket,
    /// Each frame is one binary WebSocket message.
    WebSocketBinary,
}

impl Framing {
    /// Number of variants.
    pub const COUNT: usize = 4;

    /// Writes a frame with its header and its end.
    #[inline(always)] // so that `framing` and `write` are known in each encoder
    pub(super) fn write(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let from = out.len();
        match self {
            Self::Line => {}
            Self::LengthPrefix => out.extend_from_slice(&[0; PREFIX_BYTES]),
            // Room for a header of the usual size.
            Self::WebSocket | Self::WebSocketBinary => {
                out.extend_from_slice(&[0; USUAL_HEADER_BYTES]);
            }
        }
        write(out);
        match self {
            Self::Line => self.write_end(out),
            Self::LengthPrefix => {
                let length = (out.len() - from - PREFIX_BYTES) as u32;
                out[from + 1..from + PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
            }
            Self::WebSocket | Self::WebSocketBinary => self.write_websocket_header(out, from),
        }
    }

    /// Writes the bytes behind a frame.
    #[inline]
    pub(super) fn write_end(self, out: &mut Vec<u8>) {
        if self.has_end() {
            out.push(b'\n');
        }
    }

    /// Whether a frame has bytes behind it.
    #[inline]
    pub fn has_end(self) -> bool {
        self == Self::Line
    }

    /// Writes the header of a payload before which room for the usual header was left.
    #[inline(never)] // large, and `write` is inlined into each encoder
    fn write_websocket_header(self, out: &mut Vec<u8>, from: usize) {
        let payload = &out[from + USUAL_HEADER_BYTES..];
        let text = self == Self::WebSocket && text::is_text(payload);
        let (header, header_len) = websocket_header(payload.len(), text);
        if header_len != USUAL_HEADER_BYTES {
            make_room(out, from, header_len);
        }
        out[from..from + header_len].copy_from_slice(&header[..header_len]);
    }

    /// Writes the header of a frame of `length` bytes.
    #[inline]
    pub(super) fn write_header(self, length: usize, text: bool, out: &mut Vec<u8>) {
        match self {
            Self::Line => {}
            Self::LengthPrefix => {
                out.push(0);
                out.extend_from_slice(&(length as u32).to_le_bytes());
            }
            Self::WebSocket | Self::WebSocketBinary => {
                let (header, header_len) =
                    websocket_header(length, text && self == Self::WebSocket);
                out.extend_from_slice(&header[..header_len]);
            }
        }
    }

    /// Size of the header of a frame of `length` bytes.
    #[inline]
    pub fn header_len(self, length: usize) -> usize {
        match self {
            Self::Line => 0,
            Self::LengthPrefix => PREFIX_BYTES,
            Self::WebSocket | Self::WebSocketBinary => websocket_header_len(length),
        }
    }

    /// Whether its header tells text from other bytes.
    pub(super) fn may_be_text(self) -> bool {
        self == Self::WebSocket
    }

    /// Whether a frame must not straddle two TLS records: clients of the classic dialect read a whole
    /// frame with one call.
    pub fn keeps_records_whole(self) -> bool {
        self == Self::LengthPrefix
    }
}

const PREFIX_BYTES: usize = 5;

/// Header of a WebSocket message of 126 to 65,535 bytes.
const USUAL_HEADER_BYTES: usize = 4;

/// Header of the largest WebSocket message.
const HEADER_BYTES_MAX: usize = 10;

fn websocket_header_len(length: usize) -> usize {
    match length {
        0..126 => 2,
        126..=0xffff => USUAL_HEADER_BYTES,
        _ => HEADER_BYTES_MAX,
    }
}

/// RFC 6455, "Base Framing Protocol": an unfragmented, unmasked message, with the shortest encoding of
/// its length.
#[inline]
fn websocket_header(length: usize, text: bool) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = 0x80 | if text { 1 } else { 2 };
    let header_len = websocket_header_len(length);
    match header_len {
        2 => header[1] = length as u8,
        USUAL_HEADER_BYTES => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        }
    }
    (header, header_len)
}

/// Moves a payload that stands behind room for the usual header, so that one of `header_len` fits.
#[cold] // few frames are shorter than 126 bytes or longer than 65,535
fn make_room(out: &mut Vec<u8>, from: usize, header_len: usize) {
    let payload = from + USUAL_HEADER_BYTES..out.len();
    let end = from + header_len + payload.len();
    out.resize(out.len().max(end), 0);
    out.copy_within(payload, from + header_len);
    out.truncate(end);
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    const ALL: [Framing; Framing::COUNT] =
        [Framing::Line, Framing::LengthPrefix, Framing::WebSocket, Framing::WebSocketBinary];

    #[test]
    fn write_and_write_header_give_the_same_bytes() {
        for framing in ALL {
            for length in [0, 1, 125, 126, 127, 0xffff, 0x10000, 1 << 20] {
                let payload: Vec<u8> = (0..length).map(|index| index as u8 & 0x7f).collect();
                let mut whole = b"before".to_vec();
                framing.write(&mut whole, |out| out.extend_from_slice(&payload));
                let mut apart = b"before".to_vec();
                framing.write_header(length, true, &mut apart);
                assert_eq!(apart.len(), 6 + framing.header_len(length), "{framing:?} {length}");
                apart.extend_from_slice(&payload);
                framing.write_end(&mut apart);
                assert!(whole == apart, "{framing:?} {length}");
            }
        }
    }

    #[test]
    fn websocket_headers_are_those_of_tungstenite() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x10000, 1 << 33] {
            for (text, data) in [(true, Data::Text), (false, Data::Binary)] {
                let mut expected = Vec::new();
                let header = FrameHeader { opcode: OpCode::Data(data), ..FrameHeader::default() };
                header.format(length as u64, &mut expected).unwrap();
                let mut out = Vec::new();
                Framing::WebSocket.write_header(length, text, &mut out);
                assert_eq!(out, expected, "{length}");
            }
        }
    }

    #[test]
    fn a_message_is_text_where_it_is_utf_8_and_may_be() {
        let opcode = |framing: Framing, payload: &[u8]| {
            let mut out = Vec::new();
            framing.write(&mut out, |out| out.extend_from_slice(payload));
            out[0]
        };
        assert_eq!(opcode(Framing::WebSocket, "ñ".as_bytes()), 0x81);
        assert_eq!(opcode(Framing::WebSocket, b"\xf1"), 0x82);
        assert_eq!(opcode(Framing::WebSocketBinary, b"n"), 0x82);
    }

    #[test]
    fn headers_are_those_of_recorded_connections() {
        let write = |framing: Framing, length, text| {
            let mut out = Vec::new();
            framing.write_header(length, text, &mut out);
            out
        };
        assert_eq!(write(Framing::LengthPrefix, 0x8e, true), [0, 0x8e, 0, 0, 0]);
        assert_eq!(write(Framing::WebSocket, 0x8e, true), [0x81, 0x7e, 0, 0x8e]);
        assert_eq!(write(Framing::WebSocket, 0x33, false), [0x82, 0x33]);
    }
}
