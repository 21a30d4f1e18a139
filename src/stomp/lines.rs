//! Search for the ends of header lines and for bytes that need a second look, in blocks of 64 bytes.
//!
//! Header lines are short, so that a search for each one would cost more to set up than to run. A
//! header is classified in blocks instead, each of which becomes a word with a bit for every byte.
//!
//! ```text
//! bytes    SEND⏎destination:/agent/ana⏎⏎hello∅
//! controls 000010000000000000000000000011000001      bits that next() has not returned
//! ```
//!
//! Nearly all control characters of a header are line feeds, so that looking for all costs no more.

use wide::u8x16;

/// Iterates over the line feeds of bytes that begin with a header, and over the few other control characters up to a
/// carriage return. If `STANDARD`, backslashes and bytes that are not ASCII are marked.
#[derive(Debug)]
pub(crate) struct LineFeeds<'a, const STANDARD: bool> {
    bytes: &'a [u8],
    /// Start of the current block, a multiple of [`BLOCK`].
    block: usize,
    /// Control characters in the block that were not returned yet, a bit for each byte.
    controls: u64,
    /// Marked bytes in the block.
    marks: u64,
    /// Whether a marked byte stands before the block, or a control character that [`Self::next_feed`] passed over.
    is_marked: bool,
}

impl<'a, const STANDARD: bool> LineFeeds<'a, STANDARD> {
    /// Starts before the first line feed.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let (controls, marks) = classify::<STANDARD>(bytes);
        Self { bytes, block: 0, controls, marks, is_marked: false }
    }

    /// Whether a marked byte stands before `end`, which is in the current block: at most one behind the
    /// line feed that was returned last, or the end of all bytes if there was none.
    #[inline]
    pub(crate) fn is_marked_before(&self, end: usize) -> bool {
        let inside = end - self.block;
        debug_assert!(inside <= BLOCK, "the end is in the block");
        if self.marks == 0 {
            return self.is_marked;
        }
        let before = u64::MAX.checked_shr((BLOCK - inside) as u32).unwrap_or(0);
        self.is_marked || self.marks & before != 0
    }

    /// Position of the next line feed. Other control characters count as marked.
    #[inline]
    pub(crate) fn next_feed(&mut self) -> Option<usize> {
        loop {
            let at = self.next()?;
            if self.bytes[at] == b'\n' {
                return Some(at);
            }
            self.is_marked = true;
        }
    }
}

impl<const STANDARD: bool> Iterator for LineFeeds<'_, STANDARD> {
    type Item = usize;

    /// Position of the next control character up to a carriage return.
    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.controls == 0 {
            let rest = self.bytes.get(self.block + BLOCK..).filter(|rest| !rest.is_empty())?;
            self.is_marked |= self.marks != 0;
            self.block += BLOCK;
            (self.controls, self.marks) = classify::<STANDARD>(rest);
        }
        let at = self.block + self.controls.trailing_zeros() as usize;
        self.controls &= self.controls - 1;
        Some(at)
    }
}

/// Bytes that are classified together.
const BLOCK: usize = 64;

/// Line feeds and marked bytes among the first of `bytes`.
#[inline]
fn classify<const STANDARD: bool>(bytes: &[u8]) -> (u64, u64) {
    match bytes.first_chunk::<BLOCK>() {
        Some(block) => classify_block::<STANDARD>(block),
        None => {
            let mut block = [b' '; BLOCK];
            block[..bytes.len()].copy_from_slice(bytes);
            classify_block::<STANDARD>(&block)
        }
    }
}

#[inline]
fn classify_block<const STANDARD: bool>(block: &[u8; BLOCK]) -> (u64, u64) {
    let (mut controls, mut others) = (0, u8x16::splat(0));
    let (lanes, _) = block.as_chunks::<16>();
    for (index, lane) in lanes.iter().enumerate() {
        let lane = u8x16::new(*lane);
        let is_control = lane.min(u8x16::splat(b'\r')).simd_eq(lane);
        controls |= u64::from(is_control.to_bitmask()) << (16 * index);
        if STANDARD {
            others |= others_of(lane);
        }
    }
    // Few blocks have marked bytes, so they are located apart.
    let marks = if !STANDARD || others.to_bitmask() == 0 { 0 } else { marks_in(block) };
    (controls, marks)
}

#[cold] // few blocks have marked bytes
fn marks_in(block: &[u8; BLOCK]) -> u64 {
    let mut marks = 0;
    let (lanes, _) = block.as_chunks::<16>();
    for (index, lane) in lanes.iter().enumerate() {
        marks |= u64::from(others_of(u8x16::new(*lane)).to_bitmask()) << (16 * index);
    }
    marks
}

/// Marked bytes of standard STOMP that are no control characters, as the top bits of the lane. Bytes that are not
/// ASCII have theirs set already. A line feed has not.
#[inline]
fn others_of(lane: u8x16) -> u8x16 {
    lane.simd_eq(u8x16::splat(b'\\')) | lane
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn line_feeds_and_marks_are_those_of_a_bytewise_search(
            bytes in prop::collection::vec(
                prop::sample::select(&b"\n\r\x0b\x09\x0eabcdefghijklmnop\0\\\x8a\xff"[..]), 0..300),
            stop in 0..40usize,
        ) {
            let is_control = |byte: &u8| *byte <= b'\r';
            let found = |is_it: &dyn Fn(&u8) -> bool| {
                (0..bytes.len()).filter(|index| is_it(&bytes[*index])).collect::<Vec<_>>()
            };
            prop_assert_eq!(LineFeeds::<false>::new(&bytes).collect::<Vec<_>>(), found(&is_control));
            prop_assert_eq!(LineFeeds::<true>::new(&bytes).collect::<Vec<_>>(), found(&is_control));
            let mut lines = LineFeeds::<true>::new(&bytes);
            let feeds: Vec<_> = std::iter::from_fn(|| lines.next_feed()).collect();
            prop_assert_eq!(feeds, found(&|byte| *byte == b'\n'));
            let mut lines = LineFeeds::<true>::new(&bytes);
            let mut end = 0;
            for _ in 0..stop {
                end = lines.next_feed().map_or(bytes.len(), |at| at + 1);
            }
            let is_marked =
                |byte: &u8| *byte != b'\n' && (is_control(byte) || matches!(byte, b'\\' | 0x80..));
            prop_assert_eq!(lines.is_marked_before(end), bytes[..end].iter().any(is_marked));
        }
    }
}
