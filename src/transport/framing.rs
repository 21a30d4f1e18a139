//! What goes before each outgoing frame. It is a pure function of the frame's length, so a frame
//! that is half out needs no stored header.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// How frames are told apart on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// They end themselves.
    None,
    /// A flag octet 0 and the length, four octets, little-endian.
    LengthPrefix,
    /// Each is one WebSocket message.
    WebSocket,
}

impl Framing {
    /// Octets that go before a frame of `length` octets.
    #[inline]
    pub fn header_len(self, length: usize) -> usize {
        match self {
            Self::None => 0,
            Self::LengthPrefix => 5,
            Self::WebSocket if length < 126 => 2,
            Self::WebSocket if length <= 0xffff => 4,
            Self::WebSocket => 10,
        }
    }

    /// Writes them.
    #[inline]
    pub fn write_header(self, length: usize, text: bool, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::LengthPrefix => {
                out.push(0);
                out.extend_from_slice(&(length as u32).to_le_bytes());
            }
            Self::WebSocket => {
                let opcode = OpCode::Data(if text { Data::Text } else { Data::Binary });
                let header = FrameHeader { opcode, ..FrameHeader::default() };
                // Writing into memory does not fail.
                let _ = header.format(length as u64, out);
            }
        }
    }

    /// Whether a frame must not begin in a TLS record that it does not fit into: clients of the
    /// classic dialect read a whole frame with one call.
    pub fn keeps_records_whole(self) -> bool {
        self == Self::LengthPrefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_as_long_as_announced() {
        for framing in [Framing::None, Framing::LengthPrefix, Framing::WebSocket] {
            for length in [0, 1, 125, 126, 0xffff, 0x10000, 1 << 20] {
                let mut out = Vec::new();
                framing.write_header(length, true, &mut out);
                assert_eq!(out.len(), framing.header_len(length), "{framing:?} {length}");
            }
        }
    }

    #[test]
    fn headers_are_the_ones_of_the_recordings() {
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
