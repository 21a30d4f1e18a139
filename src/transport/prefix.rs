//! Cutting frames out of a stream by their length-prefixed envelopes.
//!
//! ```text
//! flag  length (4 octets)  frame
//! 0     little-endian      …
//! else  big-endian         …
//! ```
//!
//! A frame that is whole in what was read is lent from there. Only a torn one is copied, as far as
//! it has arrived: never is memory taken for a length that was merely announced.

use super::{FrameBound, TransportError};

/// The envelope layer of one connection.
#[derive(Debug, Default)]
pub struct PrefixLayer {
    /// A torn envelope from its flag on; the whole one, while it is lent out.
    pending: Vec<u8>,
    /// Whether `pending` was lent out and is to be dropped.
    lent: bool,
}

impl PrefixLayer {
    /// The next whole frame, or `None` when `wire` is used up.
    ///
    /// # Errors
    /// The length that an envelope announces is zero or above the bound.
    #[inline]
    pub fn next_frame<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        bound: FrameBound,
    ) -> Result<Option<&'a [u8]>, TransportError> {
        self.release();
        if self.pending.is_empty() {
            return self.next_whole(wire, bound);
        }
        self.next_torn(wire, bound)
    }

    /// The rare case: the beginning of a frame is pending.
    #[cold]
    fn next_torn(
        &mut self,
        wire: &mut &mut [u8],
        bound: FrameBound,
    ) -> Result<Option<&[u8]>, TransportError> {
        if !self.fill(ENVELOPE_BYTES, wire) {
            return Ok(None);
        }
        let claimed = read_length(&self.pending, bound)?;
        let mut want = claimed;
        while self.fill(ENVELOPE_BYTES + want, wire) {
            let frame = &self.pending[ENVELOPE_BYTES..];
            let following = frame.get(claimed).or_else(|| wire.first()).copied();
            if want == frame.len() && !counts_characters(&frame[..claimed], following) {
                break;
            }
            want = octets_of(claimed, frame, bound)?;
            if want <= frame.len() {
                break;
            }
        }
        if self.pending.len() < ENVELOPE_BYTES + want {
            return Ok(None);
        }
        self.lent = true;
        Ok(Some(&self.pending[ENVELOPE_BYTES..]))
    }

    /// Frees what the frame that was lent out last took.
    #[inline]
    pub fn release(&mut self) {
        if self.lent {
            self.pending = Vec::new();
            self.lent = false;
        }
    }

    /// Memory that is held for a torn frame.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity()
    }

    /// The common case: nothing is pending.
    fn next_whole<'w>(
        &mut self,
        wire: &mut &'w mut [u8],
        bound: FrameBound,
    ) -> Result<Option<&'w [u8]>, TransportError> {
        if wire.len() < ENVELOPE_BYTES {
            self.pending.extend_from_slice(wire);
            *wire = &mut [];
            return Ok(None);
        }
        let claimed = read_length(wire, bound)?;
        let mut end = ENVELOPE_BYTES + claimed;
        if wire.len() > end && counts_characters(&wire[ENVELOPE_BYTES..end], Some(wire[end])) {
            end = ENVELOPE_BYTES + octets_of(claimed, &wire[ENVELOPE_BYTES..], bound)?;
        }
        if wire.len() < end {
            self.pending.extend_from_slice(wire);
            *wire = &mut [];
            return Ok(None);
        }
        let (envelope, rest) = std::mem::take(wire).split_at_mut(end);
        *wire = rest;
        Ok(Some(&envelope[ENVELOPE_BYTES..]))
    }

    /// Moves octets over until `want` are pending; says whether they are.
    fn fill(&mut self, want: usize, wire: &mut &mut [u8]) -> bool {
        let missing = want.saturating_sub(self.pending.len()).min(wire.len());
        let (taken, rest) = std::mem::take(wire).split_at_mut(missing);
        self.pending.extend_from_slice(taken);
        *wire = rest;
        self.pending.len() >= want
    }
}

/// A flag and a length.
const ENVELOPE_BYTES: usize = 5;

fn read_length(envelope: &[u8], bound: FrameBound) -> Result<usize, TransportError> {
    let octets = [envelope[1], envelope[2], envelope[3], envelope[4]];
    let length = match envelope[0] {
        0 => u32::from_le_bytes(octets),
        _ => u32::from_be_bytes(octets),
    };
    match length {
        0 => Err(TransportError::EmptyFrame),
        // A negative length, as the original declares it, is above every bound.
        length if length > bound.bytes_max => Err(TransportError::TooLarge(bound.exceeded())),
        length => Ok(length as usize),
    }
}

/// Whether the length of `frame` must have counted characters: an octet follows that begins no
/// envelope, and the frame is text that is longer in octets.
fn counts_characters(frame: &[u8], following: Option<u8>) -> bool {
    !matches!(following, None | Some(0 | 1)) && !frame.is_ascii() && is_text_so_far(frame)
}

/// Whether it is UTF-8, but for a character that may be cut at the end.
fn is_text_so_far(frame: &[u8]) -> bool {
    match std::str::from_utf8(frame) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    }
}

/// How many octets the first characters of `available` have; each that has not arrived is taken to
/// have one.
fn octets_of(
    characters: usize,
    available: &[u8],
    bound: FrameBound,
) -> Result<usize, TransportError> {
    let mut octets = 0;
    for _ in 0..characters {
        octets += match available.get(octets) {
            None | Some(0..=0xbf) => 1,
            Some(0xc0..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..) => 4,
        };
    }
    if octets > bound.bytes_max as usize {
        return Err(TransportError::TooLarge(bound.exceeded()));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: FrameBound =
        FrameBound { bytes_max: 1000, limit: "body_bytes_max", limit_max: 900 };

    fn envelope(flag: u8, length: usize, frame: &[u8]) -> Vec<u8> {
        let length = length as u32;
        let length = if flag == 0 { length.to_le_bytes() } else { length.to_be_bytes() };
        [&[flag], &length[..], frame].concat()
    }

    /// The frames that come out when the octets arrive in these runs.
    fn read(runs: &[&[u8]]) -> Result<Vec<Vec<u8>>, TransportError> {
        let mut layer = PrefixLayer::default();
        let mut frames = Vec::new();
        for run in runs {
            let mut run = run.to_vec();
            let mut wire = &mut run[..];
            while let Some(frame) = layer.next_frame(&mut wire, BOUND)? {
                frames.push(frame.to_vec());
            }
            assert!(wire.is_empty());
            layer.release();
        }
        assert_eq!(layer.held_bytes() > 0, !layer.pending.is_empty());
        Ok(frames)
    }

    #[test]
    fn lengths_of_nothing_or_too_much_are_refused_before_anything_is_held() {
        assert_eq!(read(&[&envelope(0, 0, b"")]), Err(TransportError::EmptyFrame));
        for length in [1001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            let result = read(&[&envelope(0, length, b"")]);
            assert_eq!(result, Err(TransportError::TooLarge(BOUND.exceeded())));
        }
        assert_eq!(read(&[&[1, 0x60, 0, 0, 0]]), Err(TransportError::TooLarge(BOUND.exceeded())));
    }

    #[test]
    fn a_length_in_characters_is_understood_when_text_goes_on_behind_it() {
        let text = "SEND\n\nñandú€😀";
        let octets = envelope(0, text.chars().count(), text.as_bytes());
        assert_eq!(read(&[&octets]).unwrap(), [text.as_bytes()]);
        let next = envelope(0, 4, b"next");
        let both = [&octets[..], &next].concat();
        assert_eq!(read(&[&both]).unwrap(), [text.as_bytes(), b"next"]);
        // Torn anywhere but where the claimed end is the last octet that arrived.
        let claimed_end = ENVELOPE_BYTES + text.chars().count();
        for cut in (1..both.len()).filter(|cut| *cut != claimed_end) {
            let frames = read(&[&both[..cut], &both[cut..]]).unwrap();
            assert_eq!(frames, [text.as_bytes(), b"next"], "cut at {cut}");
        }
    }

    #[test]
    fn a_length_in_octets_stays_one_whatever_the_text() {
        let text = "ñandú".as_bytes();
        let both = [envelope(0, text.len(), text), envelope(1, 2, b"ok")].concat();
        assert_eq!(read(&[&both]).unwrap(), [text, b"ok"]);
    }

    proptest! {
        #[test]
        fn chunking_is_invisible(
            frames in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any::<u8>(), 1..60)), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut octets = Vec::new();
            for (big_endian, frame) in &frames {
                octets.extend(envelope(u8::from(*big_endian), frame.len(), frame));
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(octets.len())).collect();
            cuts.extend([0, octets.len()]);
            cuts.sort_unstable();
            let runs: Vec<_> = cuts.windows(2).map(|cut| &octets[cut[0]..cut[1]]).collect();
            let expected: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
            prop_assert_eq!(read(&runs).unwrap(), expected);
        }
    }
}
