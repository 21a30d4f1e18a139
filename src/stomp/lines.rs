//! Finding the ends of header lines, eight octets at a time.
//!
//! Header lines are short: a vectorised search costs more to begin than to do.

/// Where the first line feed at or after `from` stands.
#[inline]
pub fn find_line_feed(octets: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(chunk) = octets.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let found = line_feeds(u64::from_le_bytes(*chunk));
        if found != 0 {
            return Some(at + (found.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    let rest = octets.get(at..)?;
    rest.iter().position(|octet| *octet == b'\n').map(|index| at + index)
}

/// The top bit of each octet up to the first that is a line feed; above that one, bits may lie.
#[inline]
fn line_feeds(word: u64) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([1; 8]);
    const TOP: u64 = u64::from_ne_bytes([0x80; 8]);
    let differs = word ^ u64::from_ne_bytes([b'\n'; 8]);
    differs.wrapping_sub(LOW) & !differs & TOP
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_feed_is_where_a_plain_walk_finds_it(
            octets in prop::collection::vec(
                prop::sample::select(&b"\n\x0b\x09a\0\x8a\xff"[..]), 0..40),
            from in 0..45usize,
        ) {
            let expected = (from..octets.len()).find(|index| octets[*index] == b'\n');
            prop_assert_eq!(find_line_feed(&octets, from), expected);
        }
    }
}
