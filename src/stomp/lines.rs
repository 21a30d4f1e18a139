//! Search for the ends of header lines and for bytes that need a second look, in blocks of 64 bytes.
//!
//! Header lines are short, so that a search for each one would cost more to set up than to run. A
//! header is classified in blocks instead, each of which becomes a word with a bit for every byte.
//!
//! ```text
//! bytes     SEND⏎destination:/agent/ana⏎⏎hello∅
//! controls  00001000000000000000000000011000001      bits that were not looked at yet
//! ```
//!
//! Nearly all control characters of a header are line feeds; where one is not, those of its block are told apart.

use wide::u8x16;

/// The lines of bytes that begin with a header, without the LF or CRLF that ends each. Other bytes are marked: NUL and
/// a carriage return without a line feed; in the standard dialect also backslash and bytes that are not ASCII.
#[derive(Debug)]
pub(crate) struct Lines<'a, const STANDARD: bool> {
    bytes: &'a [u8],
    /// Start of the next line.
    from: usize,
    /// Start of the current block, a multiple of [`BLOCK`].
    block: usize,
    /// Control characters in the block that were not looked at yet, a bit for each byte.
    controls: u64,
    /// Marked bytes in the block. Control characters are among them once one of them was looked at.
    marks: u64,
    /// Whether a marked byte stands before the block, or anywhere if there is no further line.
    is_marked: bool,
}

impl<'a, const STANDARD: bool> Lines<'a, STANDARD> {
    /// Starts before the first line.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let (controls, marks) = classify::<STANDARD>(bytes);
        Self { bytes, from: 0, block: 0, controls, marks, is_marked: false }
    }

    /// The next line; `None` if it is not whole.
    #[inline]
    pub(crate) fn next_line(&mut self) -> Option<&'a [u8]> {
        loop {
            let Some(at) = self.next_control() else {
                self.is_marked |= self.marks != 0;
                return None;
            };
            let line = &self.bytes[self.from..at];
            if self.bytes[at] == b'\n' {
                self.from = at + 1;
                return Some(line);
            }
            if is_line_end(self.bytes, at) {
                // The line feed is the next one.
                self.next_control();
                self.from = at + 2;
                return Some(line);
            }
            let (ends, marks) = sort(self.bytes, self.block);
            self.controls &= ends;
            self.marks |= marks;
        }
    }

    /// Start of the next line.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.from
    }

    /// Whether a marked byte stands in the lines so far; or anywhere, if there was no further one.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        if self.marks == 0 {
            return self.is_marked;
        }
        let inside = self.from.saturating_sub(self.block);
        debug_assert!(inside <= BLOCK, "the end is in the block");
        let before = u64::MAX.checked_shr((BLOCK - inside) as u32).unwrap_or(0);
        self.is_marked || self.marks & before != 0
    }

    /// Position of the next control character up to a carriage return.
    #[inline]
    fn next_control(&mut self) -> Option<usize> {
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

/// Whether a control character is the carriage return of a CRLF.
#[cold] // most lines end in a line feed alone
fn is_line_end(bytes: &[u8], at: usize) -> bool {
    matches!(bytes[at..], [b'\r', b'\n', ..])
}

/// The control characters in a block that end lines, and those that are marked. A carriage return behind which nothing
/// has arrived is neither.
#[cold] // few blocks have control characters that do not end lines
fn sort(bytes: &[u8], start: usize) -> (u64, u64) {
    let rest = &bytes[start..];
    let len = rest.len().min(BLOCK);
    let mut block = [b' '; BLOCK];
    block[..len].copy_from_slice(&rest[..len]);
    let find = |byte| {
        let (lanes, _) = block.as_chunks::<16>();
        lanes.iter().rev().fold(0, |found, lane| {
            let is_found = u8x16::new(*lane).simd_eq(u8x16::splat(byte));
            found << 16 | u64::from(is_found.to_bitmask())
        })
    };
    let (feeds, returns) = (find(b'\n'), find(b'\r'));
    let last = 1 << (len - 1);
    let (before_feeds, before_others) = match rest.get(len) {
        Some(b'\n') => (feeds >> 1 | last, u64::MAX),
        Some(_) => (feeds >> 1, u64::MAX),
        None => (feeds >> 1, !last),
    };
    (feeds | returns & before_feeds, find(0) | returns & before_others & !before_feeds)
}

/// Bytes that are classified together.
const BLOCK: usize = 64;

/// Control characters and marked bytes among the first of `bytes`.
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
/// ASCII have theirs set already.
#[inline]
fn others_of(lane: u8x16) -> u8x16 {
    lane.simd_eq(u8x16::splat(b'\\')) | lane
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines and how far they reach, found byte by byte.
    fn expected(bytes: &[u8], lines_max: usize) -> (Vec<&[u8]>, usize) {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(lines_max);
        let lines: Vec<_> = lines.filter_map(|line| line.strip_suffix(b"\n")).collect();
        let end = lines.iter().map(|line| line.len() + 1).sum();
        (lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect(), end)
    }

    /// Whether a carriage return stands among the first bytes, and something else than a line feed behind it.
    fn has_bare_return(bytes: &[u8], end: usize) -> bool {
        bytes.windows(2).take(end).any(|pair| pair[0] == b'\r' && pair[1] != b'\n')
    }

    fn take<const STANDARD: bool>(bytes: &[u8], lines_max: usize) -> (Vec<&[u8]>, usize, bool) {
        let mut lines = Lines::<STANDARD>::new(bytes);
        let mut found = Vec::new();
        while found.len() < lines_max
            && let Some(line) = lines.next_line()
        {
            found.push(line);
        }
        (found, lines.position(), lines.is_marked())
    }

    proptest! {
        #[test]
        fn lines_and_marks_are_those_of_a_bytewise_search(
            bytes in prop::collection::vec(
                prop::sample::select(&b"\n\r\x0b\x09abcdefghijklmnop\0\\\x8a\xff"[..]), 0..300),
            lines_max in 0..40usize,
        ) {
            let (lines, end) = expected(&bytes, lines_max);
            let (classic, standard) = (take::<false>(&bytes, lines_max), take::<true>(&bytes, lines_max));
            prop_assert_eq!((&classic.0, classic.1), (&lines, end));
            prop_assert_eq!((&standard.0, standard.1), (&lines, end));
            if lines.len() < lines_max {
                return Ok(());
            }
            let before = &bytes[..end];
            let is_odd = before.contains(&0) || has_bare_return(&bytes, end);
            prop_assert_eq!(classic.2, is_odd);
            let is_marked = |byte: &u8| matches!(byte, b'\\' | 0x80..);
            prop_assert_eq!(standard.2, is_odd || before.iter().any(is_marked));
        }

        #[test]
        fn without_a_further_line_all_control_characters_were_looked_at(
            bytes in prop::collection::vec(prop::sample::select(&b"\n\r\tabcdefgh\0"[..]), 0..300),
        ) {
            let is_odd = bytes.contains(&0) || has_bare_return(&bytes, bytes.len());
            prop_assert_eq!(take::<false>(&bytes, usize::MAX).2, is_odd);
        }
    }
}
