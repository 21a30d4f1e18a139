//! The stamp in the first sixteen bytes of every body: intended time of sending, stream and number. It is
//! printable ASCII, for protocols that carry only text.

/// The stamp of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The intended time of sending, in nanoseconds of the tool's clock.
    pub intended_ns: u64,
    /// The stream of the message.
    pub stream: u32,
    /// The message's number in its stream.
    pub sequence: u32,
}

impl Stamp {
    /// Size of a stamp, and so of the smallest body.
    pub const BYTES: usize = 16;
    /// Bound on the number of streams.
    pub const STREAMS_MAX: u32 = 1 << 20;
    const SEQUENCE_BITS: u32 = 28;

    /// The stamp as text.
    #[inline]
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut text = [0; Self::BYTES];
        let place = u64::from(self.stream) << Self::SEQUENCE_BITS | u64::from(self.sequence);
        encode_half(self.intended_ns, &mut text[..8]);
        encode_half(place, &mut text[8..]);
        text
    }

    /// Parses a body's stamp.
    #[inline]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let text = body.first_chunk::<{ Self::BYTES }>()?;
        let place = decode_half(&text[8..])?;
        Some(Self {
            intended_ns: decode_half(&text[..8])?,
            stream: (place >> Self::SEQUENCE_BITS) as u32,
            sequence: (place & ((1 << Self::SEQUENCE_BITS) - 1)) as u32,
        })
    }
}

/// The first of 64 successive characters that serve as digits.
const ZERO: u8 = b'0';
const DIGIT_BITS: u32 = 6;

fn encode_half(mut value: u64, text: &mut [u8]) {
    for character in text.iter_mut().rev() {
        *character = ZERO + (value & 63) as u8;
        value >>= DIGIT_BITS;
    }
}

fn decode_half(text: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut seen = 0;
    for character in text {
        let digit = character.wrapping_sub(ZERO);
        seen |= digit;
        value = value << DIGIT_BITS | u64::from(digit);
    }
    (seen < 64).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_is_the_inverse_of_encode() {
        for stamp in [
            Stamp { intended_ns: 0, stream: 0, sequence: 0 },
            Stamp { intended_ns: (1 << 48) - 1, stream: (1 << 20) - 1, sequence: (1 << 28) - 1 },
            Stamp { intended_ns: 123_456_789_012, stream: 99_999, sequence: 7 },
        ] {
            let text = stamp.encode();
            assert!(text.iter().all(|byte| (b' '..0x7F).contains(byte)), "{text:?}");
            assert_eq!(Stamp::decode(&text), Some(stamp));
        }
    }

    #[test]
    fn bytes_that_are_not_a_stamp_are_refused() {
        assert_eq!(Stamp::decode(b"short"), None);
        assert_eq!(Stamp::decode(b"0000000\xFF00000000"), None);
        assert_eq!(Stamp::decode(b"000000000000000 "), None);
    }
}
