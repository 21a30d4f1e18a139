//! Encoding of the frames that clients of standard STOMP get.

use memchr::memchr3;
use wide::u8x16;

use super::Version;
use crate::text::is_text;

/// Begins a frame with its command.
pub(crate) fn begin(out: &mut Vec<u8>, command: &str) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
}

/// Adds a header line, escaped by the rules of the version.
#[inline]
pub(crate) fn header(out: &mut Vec<u8>, version: Version, name: &[u8], value: &[u8]) {
    version.escape(name, out);
    out.push(b':');
    version.escape(value, out);
    out.push(b'\n');
}

/// Whether no version would escape anything in `head`, which was written as that many lines without
/// escaping: it is UTF-8, and its colons and line feeds are those of the lines.
#[inline]
pub(crate) fn is_plain(head: &[u8], lines: u32) -> bool {
    let (lanes, rest) = head.as_chunks::<16>();
    let mut last = [b' '; 16];
    last[..rest.len()].copy_from_slice(rest);
    let (mut counts, mut others) = ([0, 0], u8x16::splat(0));
    let mut next = Some(&last);
    // Each of the sixteen columns is counted for itself, for which a byte is enough.
    for lanes in lanes.chunks(254).chain(lanes.is_empty().then_some(lanes)) {
        let mut by_column = [u8x16::splat(0); 2];
        for lane in lanes.iter().chain(next.take()) {
            let lane = u8x16::new(*lane);
            let is = |byte| lane.simd_eq(u8x16::splat(byte));
            // A match is 255, so that to take it away adds one.
            by_column[0] -= is(b':');
            by_column[1] -= is(b'\n');
            others |= is(b'\r') | is(b'\\') | is(0) | lane;
        }
        counts[0] += sum(by_column[0]);
        counts[1] += sum(by_column[1]);
    }
    // The top bit is set for a match, and for a byte that is not ASCII.
    let is_unusual = others.to_bitmask() != 0;
    counts == [lines; 2]
        && !(is_unusual && (memchr3(b'\r', b'\\', 0, head).is_some() || !is_text(head)))
}

/// The sum of the columns.
#[inline]
fn sum(columns: u8x16) -> u32 {
    const EVERY_SECOND: u128 = u128::MAX / 0xffff * 0xff;
    let columns = u128::from_le_bytes(columns.to_array());
    let pairs = (columns & EVERY_SECOND) + (columns >> 8 & EVERY_SECOND);
    let pairs = pairs as u64 + (pairs >> 64) as u64;
    // The product has the sum of all four in its highest.
    (pairs.wrapping_mul(u64::MAX / 0xffff) >> 48) as u32
}

/// Adds a header line without escaping: STOMP 1.2, "Value Encoding", leaves CONNECTED unescaped.
pub(crate) fn plain_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Bytes that may follow a body: a NUL, the end that framing adds, and what the header of its framing becomes longer by.
/// With room for them a buffer that a large body fills does not grow twice.
pub(crate) const END_BYTES_MAX: usize = 16;

/// Ends the header, adds the body and the NUL.
#[inline]
pub(crate) fn finish(out: &mut Vec<u8>, body: &[u8]) {
    out.push(b'\n');
    out.reserve(body.len() + END_BYTES_MAX);
    out.extend_from_slice(body);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_escaped_by_the_rules_of_the_version() {
        let write = |version| {
            let mut out = Vec::new();
            begin(&mut out, "MESSAGE");
            header(&mut out, version, b"k:", b"a:b\\c");
            finish(&mut out, b"body");
            out
        };
        assert_eq!(write(Version::V1_0), b"MESSAGE\nk::a:b\\c\n\nbody\0");
        assert_eq!(write(Version::V1_2), b"MESSAGE\nk\\c:a\\cb\\\\c\n\nbody\0");
    }

    #[test]
    fn a_long_head_is_counted_to_its_end() {
        for lines in [255 * 16, 255 * 16 + 5, 3 * 255 * 16] {
            let head = b":\n".repeat(lines);
            assert!(is_plain(&head, lines as u32));
            assert!(!is_plain(&head, lines as u32 - 256));
        }
    }

    #[test]
    fn a_head_is_plain_if_no_version_escapes_anything_in_it() {
        for (value, expected) in [
            (&b"a rather long and ordinary value"[..], true),
            ("ñandú".as_bytes(), true),
            (b"a:b", false),
            (b"a\nb", false),
            (b"a\rb", false),
            (b"a\\b", false),
            (b"a\0b", false),
            (b"\xff", false),
        ] {
            for before in 0..20 {
                let value = [&b"x".repeat(before)[..], value].concat();
                let head = [b"first:1\nkey:", &value[..], b"\n"].concat();
                assert_eq!(is_plain(&head, 2), expected, "{}", value.escape_ascii());
                let head = Version::ALL.map(|version| {
                    let mut out = Vec::new();
                    header(&mut out, version, b"key", &value);
                    out
                });
                let is_same = head.iter().all(|one| *one == [b"key:", &value[..], b"\n"].concat());
                assert_eq!(is_same && is_text(&value), expected);
            }
        }
    }
}
