//! Search for the ends of header lines and for bytes that need a second look, in blocks of 64 bytes.
//!
//! Header lines are short, so that a search for each one would cost more to set up than to run. A
//! header is classified in blocks instead, each of which becomes a word with a bit for every byte.
//!
//! ```text
//! bytes  SEND⏎destination:/agent/ana⏎⏎hello∅
//! feeds   00001000000000000000000000011000000      bits that next() has not returned
//! ```

use wide::u8x16;

/// Iterates over the line feeds of bytes that begin with a header. Other bytes are marked: NUL and the other control
/// characters up to a carriage return; if `STANDARD`, also backslash and bytes that are not ASCII.
#[derive(Debug)]
pub(crate) struct LineFeeds<'a, const STANDARD: bool> {
    bytes: &'a [u8],
    /// Start of the current block, a multiple of [`BLOCK`].
    block: usize,
    /// Line feeds in the block that were not returned yet, a bit for each byte.
    feeds: u64,
    /// Marked bytes in the block.
    marks: u64,
    /// Whether a marked byte stands before the block.
    is_marked: bool,
}

impl<'a, const STANDARD: bool> LineFeeds<'a, STANDARD> {
    /// Starts before the first line feed.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let (feeds, marks) = classify::<STANDARD>(bytes);
        Self { bytes, block: 0, feeds, marks, is_marked: false }
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
}

impl<const STANDARD: bool> Iterator for LineFeeds<'_, STANDARD> {
    type Item = usize;

    /// Position of the next line feed.
    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.feeds == 0 {
            let rest = self.bytes.get(self.block + BLOCK..).filter(|rest| !rest.is_empty())?;
            self.is_marked |= self.marks != 0;
            self.block += BLOCK;
            (self.feeds, self.marks) = classify::<STANDARD>(rest);
        }
        let at = self.block + self.feeds.trailing_zeros() as usize;
        self.feeds &= self.feeds - 1;
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
    let (mut feeds, mut least, mut others) = (0, u8x16::splat(u8::MAX), u8x16::splat(0));
    let (lanes, _) = block.as_chunks::<16>();
    for (index, lane) in lanes.iter().enumerate() {
        let lane = u8x16::new(*lane);
        let is_feed = lane.simd_eq(u8x16::splat(b'\n'));
        feeds |= u64::from(is_feed.to_bitmask()) << (16 * index);
        least = least.min(lane | is_feed);
        if STANDARD {
            others |= others_of(lane);
        }
    }
    // Few blocks have marked bytes, so they are located apart.
    let marked = is_control(least) | others;
    let marks = if marked.to_bitmask() == 0 { 0 } else { marks_in::<STANDARD>(block) };
    (feeds, marks)
}

#[cold] // few blocks have marked bytes
fn marks_in<const STANDARD: bool>(block: &[u8; BLOCK]) -> u64 {
    let mut marks = 0;
    let (lanes, _) = block.as_chunks::<16>();
    for (index, lane) in lanes.iter().enumerate() {
        let lane = u8x16::new(*lane);
        let controls = is_control(lane | lane.simd_eq(u8x16::splat(b'\n')));
        let marked = if STANDARD { controls | others_of(lane) } else { controls };
        marks |= u64::from(marked.to_bitmask()) << (16 * index);
    }
    marks
}

/// Which bytes are control characters up to a carriage return.
#[inline]
fn is_control(lane: u8x16) -> u8x16 {
    lane.min(u8x16::splat(b'\r')).simd_eq(lane)
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
            let expected: Vec<_> =
                (0..bytes.len()).filter(|index| bytes[*index] == b'\n').collect();
            prop_assert_eq!(LineFeeds::<false>::new(&bytes).collect::<Vec<_>>(), &expected[..]);
            prop_assert_eq!(LineFeeds::<true>::new(&bytes).collect::<Vec<_>>(), &expected[..]);
            let (mut classic, mut standard) =
                (LineFeeds::<false>::new(&bytes), LineFeeds::<true>::new(&bytes));
            let mut end = 0;
            for _ in 0..stop {
                end = classic.next().map_or(bytes.len(), |at| at + 1);
                standard.next();
            }
            let before = &bytes[..end];
            let is_control = |byte: &u8| matches!(byte, 0..=9 | 11..=13);
            prop_assert_eq!(classic.is_marked_before(end), before.iter().any(is_control));
            let is_marked = |byte: &u8| is_control(byte) || matches!(byte, b'\\' | 0x80..);
            prop_assert_eq!(standard.is_marked_before(end), before.iter().any(is_marked));
        }
    }
}
