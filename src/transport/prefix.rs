//! Frames of the classic dialect in a byte stream, each in an envelope with its length.
//!
//! ```text
//! flag  length (4 bytes)  frame
//! 0     little-endian      …
//! else  big-endian         …
//! ```
//!
//! A frame that is whole in the read buffer is lent from there. Only a torn one is copied, as far as
//! it has arrived: a length that is merely announced takes no memory.
//!
//! Some clients count characters instead of bytes. Whether one does is detected by the bytes behind
//! the claimed end of its envelope, so these may be kept as well:
//!
//! ```text
//! pending  │ used up │ envelope, torn or lent │ what follows it │
//!          0       start                                pending.len()
//! ```

use super::{FrameBound, TransportFault};
use crate::buffer::{self, Lent, SHARED_BYTES_MIN, Shared};
use crate::text;

/// The envelope layer of one connection.
#[derive(Debug, Default)]
pub struct PrefixLayer {
    /// Bytes of envelopes that were torn when they arrived.
    pending: Vec<u8>,
    /// Where the next envelope begins; `start ≤ pending.len()`.
    start: usize,
    /// Bytes that have to be pending before the next envelope is measured again, which takes time in
    /// proportion to its length: a client may send it byte by byte.
    needs: usize,
    /// The text of that envelope, as far as it was counted.
    text: Text,
    /// The buffer of the large frame that was lent last.
    lent: Option<Shared>,
}

impl PrefixLayer {
    /// Envelopes that begin with `held`.
    pub fn new(held: Vec<u8>) -> Self {
        Self { pending: held, ..Self::default() }
    }

    /// The next whole frame, or `None` when `wire` is used up.
    ///
    /// # Errors
    /// The length that an envelope announces is zero or above the bound.
    #[inline]
    pub fn next_frame<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        bound: FrameBound,
    ) -> Result<Option<Lent<'a>>, TransportFault> {
        if self.pending.is_empty() {
            return self.next_whole(wire, bound);
        }
        self.next_frame_slow(wire, bound)
    }

    /// The next frame while bytes are pending.
    #[cold] // few envelopes are torn
    fn next_frame_slow<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
        bound: FrameBound,
    ) -> Result<Option<Lent<'a>>, TransportFault> {
        if self.start == self.pending.len() {
            self.release();
            return self.next_whole(wire, bound);
        }
        let end = loop {
            let is_enough = self.fill(self.needs, wire);
            let envelope = &self.pending[self.start..];
            // In step with what arrives, so that no call takes long.
            self.text.count(envelope, bound)?;
            if !is_enough {
                return Ok(None);
            }
            let wanted = match measure(envelope, bound, &self.text)? {
                // The byte that decides where the frame ends may be in `wire`.
                Extent::Ends(end) if end == envelope.len() && may_go_on(envelope, wire) => end + 1,
                Extent::Ends(end) => break end,
                Extent::Needs(bytes) => bytes,
            };
            self.needs = self.start + wanted;
            if self.pending.len() < self.needs && wire.is_empty() {
                return Ok(None);
            }
        };
        self.text = Text::default();
        self.needs = 0;
        let frame = self.start + ENVELOPE_BYTES..self.start + end;
        // What was used before it would be kept, too.
        if frame.len() >= SHARED_BYTES_MIN && self.start <= end / 8 {
            self.start = 0;
            let shared = self.lent.insert(buffer::share(&mut self.pending, frame.end, false));
            return Ok(Some(Lent { bytes: &shared[frame], shared: Some(shared) }));
        }
        self.start = frame.end;
        Ok(Some(Lent::unshared(&self.pending[frame])))
    }

    /// Frees used bytes. To be called when all bytes of a read are used up.
    #[inline]
    pub fn release(&mut self) {
        if self.start > 0 || self.lent.is_some() {
            self.release_slow();
        }
    }

    #[cold] // few envelopes are torn
    fn release_slow(&mut self) {
        self.lent = None;
        if self.start == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..self.start);
            self.needs = self.needs.saturating_sub(self.start);
        }
        self.start = 0;
    }

    /// Drops a torn frame.
    pub(super) fn drop_held(&mut self) {
        *self = Self::new(Vec::new());
    }

    /// Memory that is held for a torn frame.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity() + self.lent.as_ref().map_or(0, |lent| lent.capacity())
    }

    /// Bytes that have arrived of a torn envelope.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.pending.len() - self.start
    }

    /// Whether a frame may be pending, even if nothing more is read.
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next frame while nothing is pending.
    #[inline]
    fn next_whole<'w>(
        &mut self,
        wire: &mut &'w mut [u8],
        bound: FrameBound,
    ) -> Result<Option<Lent<'w>>, TransportFault> {
        let Extent::Ends(end) = measure_whole(wire, bound)? else {
            self.pending.extend_from_slice(wire);
            *wire = &mut [];
            return Ok(None);
        };
        let (envelope, rest) = std::mem::take(wire).split_at_mut(end);
        *wire = rest;
        Ok(Some(Lent::unshared(&envelope[ENVELOPE_BYTES..])))
    }

    /// Moves bytes from `wire` until `want` are pending. Returns whether they are.
    fn fill(&mut self, want: usize, wire: &mut &mut [u8]) -> bool {
        let missing = want.saturating_sub(self.pending.len()).min(wire.len());
        let (taken, rest) = std::mem::take(wire).split_at_mut(missing);
        buffer::append(&mut self.pending, taken, self.needs);
        *wire = rest;
        self.pending.len() >= want
    }
}

/// Bytes of the longest character of UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// Size of the flag and the length.
const ENVELOPE_BYTES: usize = 5;

/// The end of an envelope, or what is needed to find it.
enum Extent {
    /// The envelope has this many bytes, all of which have arrived.
    Ends(usize),
    /// This many bytes are needed.
    Needs(usize),
}

/// The text that a frame begins with, if its length should count characters.
#[derive(Clone, Copy, Debug, Default)]
struct Text {
    /// Characters that were counted, and their size in bytes.
    characters: usize,
    bytes: usize,
    /// Whether the frame is no UTF-8.
    is_other: bool,
}

impl Text {
    /// Counts the characters that have arrived since the last call, up to the length that the envelope claims.
    fn count(&mut self, envelope: &[u8], bound: FrameBound) -> Result<(), TransportFault> {
        if envelope.len() < ENVELOPE_BYTES || self.is_other {
            return Ok(());
        }
        let missing = read_length(envelope, bound)? - self.characters;
        let new = &envelope[ENVELOPE_BYTES + self.bytes..];
        // What follows is of other envelopes, and would be looked at again for each of them.
        let new = &new[..new.len().min(missing * CHARACTER_BYTES_MAX)];
        let (text, is_other) = text::beginning(new);
        // No more characters than bytes, which is soon found out.
        let surplus = text.len() > missing;
        let end = if surplus { text.char_indices().nth(missing).map(|(at, _)| at) } else { None };
        match end {
            Some(end) => {
                self.characters += missing;
                self.bytes += end;
            }
            None => {
                let characters = text.chars().count();
                self.characters += characters;
                self.bytes += text.len();
                self.is_other = is_other && characters < missing;
            }
        }
        Ok(())
    }
}

/// As [`measure`], of an envelope that was not measured before.
#[inline]
fn measure_whole(bytes: &[u8], bound: FrameBound) -> Result<Extent, TransportFault> {
    measure_with(bytes, bound, || {
        let mut text = Text::default();
        text.count(bytes, bound)?;
        Ok(text)
    })
}

/// Measures the envelope that `bytes` begin with.
fn measure(bytes: &[u8], bound: FrameBound, text: &Text) -> Result<Extent, TransportFault> {
    measure_with(bytes, bound, || Ok(*text))
}

#[inline]
fn measure_with(
    bytes: &[u8],
    bound: FrameBound,
    text: impl FnOnce() -> Result<Text, TransportFault>,
) -> Result<Extent, TransportFault> {
    if bytes.len() < ENVELOPE_BYTES {
        return Ok(Extent::Needs(ENVELOPE_BYTES));
    }
    let claimed = read_length(bytes, bound)?;
    let end = ENVELOPE_BYTES + claimed;
    match bytes.get(end) {
        Some(next) if is_of_text(*next) => measure_text(bytes, claimed, bound, text()?),
        None if bytes.len() < end => Ok(Extent::Needs(end)),
        _ => Ok(Extent::Ends(end)),
    }
}

/// Measures an envelope whose claimed end is followed by a byte that may be text: either its length
/// counts characters, or the next envelope has an unusual flag.
#[cold] // flags other than 0 and 1 are rare, as are lengths in characters
fn measure_text(
    bytes: &[u8],
    claimed: usize,
    bound: FrameBound,
    text: Text,
) -> Result<Extent, TransportFault> {
    let claimed_end = ENVELOPE_BYTES + claimed;
    let missing = claimed - text.characters;
    // Each character that has not arrived has one byte at least.
    let text_len = text.bytes + missing;
    if text.is_other || (missing == 0 && text.bytes == claimed) {
        return Ok(Extent::Ends(claimed_end));
    }
    let text_end = ENVELOPE_BYTES + text_len;
    let behind_claimed = look(&bytes[claimed_end..], bound);
    let behind_text = (missing == 0).then(|| look(&bytes[text_end..], bound));
    let is_too_large = text_len > bound.bytes_max as usize;
    match (behind_claimed, behind_text) {
        (Look::Other, _) if is_too_large => Err(TransportFault::TooLarge(bound.exceeded())),
        (Look::Other, None) => Ok(Extent::Needs(text_end.max(bytes.len() + 1))),
        (Look::Other, Some(_)) => Ok(Extent::Ends(text_end)),
        (_, Some(Look::Envelope)) if !is_too_large => Ok(Extent::Ends(text_end)),
        (Look::Torn, _) | (Look::Envelope, Some(Look::Torn)) => Ok(Extent::Needs(bytes.len() + 1)),
        (Look::Envelope, _) => Ok(Extent::Ends(claimed_end)),
    }
}

/// Whether the frame of a whole envelope may continue in `wire`.
fn may_go_on(envelope: &[u8], wire: &[u8]) -> bool {
    wire.first().is_some_and(|next| is_of_text(*next)) && !envelope[ENVELOPE_BYTES..].is_ascii()
}

fn read_length(envelope: &[u8], bound: FrameBound) -> Result<usize, TransportFault> {
    let bytes = [envelope[1], envelope[2], envelope[3], envelope[4]];
    let length = match envelope[0] {
        0 => u32::from_le_bytes(bytes),
        _ => u32::from_be_bytes(bytes),
    };
    match length {
        0 => Err(TransportFault::EmptyFrame),
        // The original broker declares the length as signed; a negative one is above every bound.
        length if length > bound.bytes_max => Err(TransportFault::TooLarge(bound.exceeded())),
        length => Ok(length as usize),
    }
}

/// What the bytes look like at a place where an envelope may begin.
enum Look {
    /// An envelope of an allowed length, or no bytes at all.
    Envelope,
    /// Too few bytes to decide.
    Torn,
    /// No envelope.
    Other,
}

fn look(bytes: &[u8], bound: FrameBound) -> Look {
    match bytes {
        [] => Look::Envelope,
        [_, _, _, _, _, ..] if read_length(bytes, bound).is_ok() => Look::Envelope,
        [_, _, _, _, _, ..] => Look::Other,
        // The first bytes of a big-endian length give a lower bound for it.
        [flag, length @ ..] if *flag > 0 => {
            let mut least = [0; 4];
            least[..length.len()].copy_from_slice(length);
            let is_too_large = u32::from_be_bytes(least) > bound.bytes_max;
            if is_too_large { Look::Other } else { Look::Torn }
        }
        _ => Look::Torn,
    }
}

/// Whether text may hold this byte: any but control characters other than tab and line ends.
fn is_of_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..)
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

    /// The frames that are read when bytes arrive in these runs.
    fn read(runs: &[&[u8]]) -> Result<Vec<Vec<u8>>, TransportFault> {
        let mut layer = PrefixLayer::default();
        let mut frames = Vec::new();
        for run in runs {
            let mut run = run.to_vec();
            let mut wire = &mut run[..];
            while let Some(frame) = layer.next_frame(&mut wire, BOUND)? {
                frames.push(frame.bytes.to_vec());
            }
            assert!(wire.is_empty());
            layer.release();
        }
        assert_eq!(layer.held_bytes() > 0, !layer.pending.is_empty());
        Ok(frames)
    }

    #[test]
    fn empty_and_too_large_frames_are_refused_before_bytes_are_kept() {
        assert_eq!(read(&[&envelope(0, 0, b"")]), Err(TransportFault::EmptyFrame));
        for length in [1001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
            let result = read(&[&envelope(0, length, b"")]);
            assert_eq!(result, Err(TransportFault::TooLarge(BOUND.exceeded())));
        }
        assert_eq!(read(&[&[1, 0x60, 0, 0, 0]]), Err(TransportFault::TooLarge(BOUND.exceeded())));
    }

    #[test]
    fn a_length_in_characters_is_detected_by_the_text_behind_the_claimed_end() {
        let text = "SEND\n\nñandú€😀";
        let bytes = envelope(0, text.chars().count(), text.as_bytes());
        assert_eq!(read(&[&bytes]).unwrap(), [text.as_bytes()]);
        let next = envelope(0, 4, b"next");
        let both = [&bytes[..], &next].concat();
        assert_eq!(read(&[&both]).unwrap(), [text.as_bytes(), b"next"]);
        // Torn anywhere except at the claimed end.
        let claimed_end = ENVELOPE_BYTES + text.chars().count();
        for cut in (1..both.len()).filter(|cut| *cut != claimed_end) {
            let frames = read(&[&both[..cut], &both[cut..]]).unwrap();
            assert_eq!(frames, [text.as_bytes(), b"next"], "cut at {cut}");
        }
    }

    #[test]
    fn a_length_in_bytes_is_taken_as_such_whatever_the_text_and_the_next_flag() {
        let text = "SEND\n\nñandú".as_bytes();
        for flag in 0..=255 {
            let next = envelope(flag, 9, b"SEND\n\nok!");
            let both = [envelope(flag, text.len(), text), next].concat();
            assert_eq!(read(&[&both]).unwrap(), [text, b"SEND\n\nok!"], "flag {flag}");
            if !is_of_text(flag) {
                let bytes: Vec<_> = both.chunks(1).collect();
                assert_eq!(read(&bytes).unwrap(), [text, b"SEND\n\nok!"], "flag {flag}");
            }
        }
    }

    #[test]
    fn a_length_in_characters_may_include_a_nul_at_the_end() {
        let text = "SEND\n\nñandú\0";
        let bytes = envelope(0, text.chars().count(), text.as_bytes());
        let both = [&bytes[..], &bytes].concat();
        assert_eq!(read(&[&both]).unwrap(), [text.as_bytes(), text.as_bytes()]);
        let torn: Vec<_> = both.chunks(both.len() - 3).collect();
        assert_eq!(read(&torn).unwrap(), [text.as_bytes(), text.as_bytes()]);
    }

    #[test]
    fn a_length_in_characters_is_understood_wherever_the_frame_is_cut() {
        for text in ["SEND\n\nok!\u{1f980}", "SEND\n\n€\u{1f980}ñ", "ñandú €"] {
            let bytes = envelope(0, text.chars().count(), text.as_bytes());
            let both = [&bytes[..], &envelope(1, 9, b"SEND\n\nok!")].concat();
            // Where nothing is behind the claimed end, the frame ends there.
            let claimed_end = ENVELOPE_BYTES + text.chars().count();
            for cut in (1..both.len()).filter(|cut| *cut != claimed_end) {
                let (head, tail) = both.split_at(cut);
                let found = read(&[head, tail]);
                assert_eq!(found.unwrap(), [text.as_bytes(), b"SEND\n\nok!"], "{text} {cut}");
            }
        }
    }

    #[test]
    fn a_frame_whose_length_counts_characters_is_bounded_in_bytes() {
        let text = "€".repeat(500);
        let bytes = envelope(0, 500, text.as_bytes());
        assert_eq!(read(&[&bytes]), Err(TransportFault::TooLarge(BOUND.exceeded())));
    }

    proptest! {
        #[test]
        fn chunking_is_invisible(
            frames in prop::collection::vec((flag(), prop_oneof![bytes(), text()]), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            for (flag, frame) in &frames {
                bytes.extend(envelope(*flag, frame.len(), frame));
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let runs: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let expected: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
            prop_assert_eq!(read(&runs).unwrap(), expected);
        }
    }

    /// Flags that cannot be text: before them, it does not matter where the bytes are cut.
    fn flag() -> impl Strategy<Value = u8> {
        any::<u8>().prop_filter("part of no text", |flag| !is_of_text(*flag))
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 1..60)
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        "[a-zñ€😀\n\0]{1,30}".prop_map(String::into_bytes)
    }
}
