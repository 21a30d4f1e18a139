//! Finding the octets that shape a header, thirty-two at a time, in one walk.
//!
//! Header lines are short: a search of its own for each line end and each colon costs more to begin
//! than to do.

/// The positions of line feeds and colons, from first to last.
#[derive(Clone, Debug)]
pub struct Marks<'a> {
    octets: &'a [u8],
    /// Where the octets begin that were not looked at.
    next: usize,
    /// Where the chunk began that was looked at last.
    base: usize,
    /// A bit for each octet of that chunk that may be a mark and was not given out.
    found: u32,
}

impl<'a> Marks<'a> {
    /// Looks from the first octet on.
    #[inline]
    pub fn new(octets: &'a [u8]) -> Self {
        Self { octets, next: 0, base: 0, found: 0 }
    }

    /// Looks at the next chunk; says whether there was one.
    #[inline]
    fn look(&mut self) -> bool {
        let Some(rest) = self.octets.get(self.next..).filter(|rest| !rest.is_empty()) else {
            return false;
        };
        self.base = self.next;
        self.next += CHUNK.min(rest.len());
        self.found = match rest.first_chunk::<CHUNK>() {
            Some(chunk) => candidates(chunk),
            None => {
                // What fills the chunk up is no mark.
                let mut chunk = [b' '; CHUNK];
                chunk[..rest.len()].copy_from_slice(rest);
                candidates(&chunk)
            }
        };
        true
    }
}

impl Iterator for Marks<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        loop {
            while self.found == 0 {
                if !self.look() {
                    return None;
                }
            }
            let position = self.base + self.found.trailing_zeros() as usize;
            self.found &= self.found - 1;
            if matches!(self.octets[position], b'\n' | b':') {
                return Some(position);
            }
        }
    }
}

const CHUNK: usize = 32;

/// A bit for each octet that is a line feed or a colon, or one of two others: `0x0a` and `0x3a`
/// differ in two bits, which are left out of the comparison, and that also lets `0x1a` and `*` by.
#[inline]
fn candidates(chunk: &[u8; CHUNK]) -> u32 {
    let (words, _) = chunk.as_chunks::<8>();
    let mut found = 0;
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let differs = (word & repeat(0xcf)) ^ repeat(b'\n');
        found |= gather(zeros_of(differs)) << (8 * index);
    }
    found
}

const fn repeat(octet: u8) -> u64 {
    u64::from_ne_bytes([octet; 8])
}

/// The top bit of each octet that is zero. No carry leaves an octet, so none misleads another.
#[inline]
fn zeros_of(word: u64) -> u64 {
    const LOW: u64 = repeat(0x7f);
    !(((word & LOW) + LOW) | word | LOW)
}

/// The top bits of eight octets, side by side.
#[inline]
fn gather(tops: u64) -> u32 {
    ((tops >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn marks_are_where_a_plain_walk_finds_them(
            octets in prop::collection::vec(
                prop::sample::select(&b"\n:*\x1a\0 a\x01\x7f\x80\xff\x8a\xba\x09\x0b"[..]), 0..140),
        ) {
            let is_mark = |octet: &u8| matches!(octet, b'\n' | b':');
            let expected: Vec<_> =
                (0..octets.len()).filter(|index| is_mark(&octets[*index])).collect();
            prop_assert_eq!(Marks::new(&octets).collect::<Vec<_>>(), expected);
        }
    }
}
