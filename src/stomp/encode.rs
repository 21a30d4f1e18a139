//! Encoding of the frames that clients of standard STOMP get.

use std::str::from_utf8;

use memchr::memchr3;
use wide::u8x16;

use super::Version;

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
    let (mut colons, mut feeds, mut others) = (0, 0, u8x16::splat(0));
    let (lanes, rest) = head.as_chunks::<16>();
    let mut last = [b' '; 16];
    last[..rest.len()].copy_from_slice(rest);
    for lane in lanes.iter().chain([&last]) {
        let lane = u8x16::new(*lane);
        let is = |byte| lane.simd_eq(u8x16::splat(byte));
        colons += is(b':').to_bitmask().count_ones();
        feeds += is(b'\n').to_bitmask().count_ones();
        others |= is(b'\r') | is(b'\\') | is(0) | lane;
    }
    // The top bit is set for a match, and for a byte that is not ASCII.
    let is_unusual = others.to_bitmask() != 0;
    colons == lines
        && feeds == lines
        && !(is_unusual && (memchr3(b'\r', b'\\', 0, head).is_some() || from_utf8(head).is_err()))
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
                assert_eq!(is_same && from_utf8(&value).is_ok(), expected);
            }
        }
    }
}
