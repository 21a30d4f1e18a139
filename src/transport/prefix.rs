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
    pub fn next_frame<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        bound: FrameBound,
    ) -> Result<Option<&'a [u8]>, TransportError> {
        self.release();
        if self.pending.is_empty() {
            return self.next_whole(wire, bound);
        }
        if !self.fill(ENVELOPE_BYTES, wire) {
            return Ok(None);
        }
        let claimed = read_length(&self.pending, bound)?;
        if !self.fill(ENVELOPE_BYTES + claimed, wire) {
            return Ok(None);
        }
        // What arrived beyond the claimed end can only be known from what is there now.
        while counts_characters(&self.pending[ENVELOPE_BYTES..], wire.first().copied()) {
            match missing_octets(&self.pending[ENVELOPE_BYTES..], claimed, bound)? {
                0 => break,
                missing => {
                    let want = self.pending.len() + missing;
                    if !self.fill(want, wire) {
                        return Ok(None);
                    }
                }
            }
        }
        self.lent = true;
        Ok(Some(&self.pending[ENVELOPE_BYTES..]))
    }

    /// Frees what the frame that was lent out last took.
    pub fn release(&mut self) {
        if self.lent {
            self.pending = Vec::new();
            self.lent = false;
        }
    }

    /// Memory that is held for a torn frame.
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
            self.pending.extend_from_slice(std::mem::take(wire));
            return Ok(None);
        }
        let claimed = read_length(wire, bound)?;
        let mut end = ENVELOPE_BYTES + claimed;
        if wire.len() > end && counts_characters(&wire[ENVELOPE_BYTES..end], Some(wire[end])) {
            end += missing_octets(&wire[ENVELOPE_BYTES..], claimed, bound)?;
        }
        if wire.len() < end {
            self.pending.extend_from_slice(std::mem::take(wire));
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

/// How many octets are missing, at least, for `available` to begin with that many characters.
/// `available` may be longer: then the rest of the characters' octets are looked for in it.
fn missing_octets(
    available: &[u8],
    characters: usize,
    bound: FrameBound,
) -> Result<usize, TransportError> {
    let claimed = characters;
    let mut left = characters;
    let mut end = 0;
    while left > 0 {
        let Some(first) = available.get(end) else { break };
        end += match first {
            0..=0x7f => 1,
            0x80..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        left -= 1;
    }
    // Each character that is not there yet takes an octet at least.
    let end = end + left;
    if end > bound.bytes_max as usize {
        return Err(TransportError::TooLarge(bound.exceeded()));
    }
    let base = if available.len() > claimed && end <= available.len() { claimed } else { 0 };
    Ok(if base > 0 { end - base } else { end.saturating_sub(available.len().min(end)) })
}
