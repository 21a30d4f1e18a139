//! The versions of STOMP, and their escaping of header lines.

use std::borrow::Cow;

/// A version of the standard dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0: nothing is escaped.
    V1_0,
    /// 1.1: line feed, colon and backslash are escaped.
    V1_1,
    /// 1.2: the carriage return is escaped as well.
    V1_2,
}

impl Version {
    /// All versions, the lowest first.
    pub const ALL: [Self; 3] = [Self::V1_0, Self::V1_1, Self::V1_2];

    /// The version in `accept-version` and `version`.
    pub fn text(self) -> &'static str {
        ["1.0", "1.1", "1.2"][self as usize]
    }

    /// The highest supported version in a list such as `1.0,1.1`.
    ///
    /// STOMP 1.2, "Protocol Negotiation": a client that sends no list speaks 1.0.
    pub fn negotiate(accepted: Option<&[u8]>) -> Option<Self> {
        let Some(accepted) = accepted else { return Some(Self::V1_0) };
        let offers = |version: &Self| {
            accepted
                .split(|byte| *byte == b',')
                .any(|offer| offer.trim_ascii() == version.text().as_bytes())
        };
        Self::ALL.into_iter().rev().find(offers)
    }

    /// Unescapes a header's name or value.
    ///
    /// # Errors
    /// STOMP 1.2, "Value Encoding": undefined escape sequences must be treated as a fatal error.
    pub fn unescape(self, text: &[u8]) -> Result<Cow<'_, [u8]>, UndefinedEscape> {
        let Some(first) = memchr::memchr(b'\\', text) else { return Ok(Cow::Borrowed(text)) };
        if self == Self::V1_0 {
            return Ok(Cow::Borrowed(text));
        }
        let mut out = text[..first].to_vec();
        let mut rest = text[first..].iter();
        while let Some(byte) = rest.next() {
            out.push(match byte {
                b'\\' => match (rest.next(), self) {
                    (Some(b'n'), _) => b'\n',
                    (Some(b'c'), _) => b':',
                    (Some(b'\\'), _) => b'\\',
                    (Some(b'r'), Self::V1_2) => b'\r',
                    _ => return Err(UndefinedEscape),
                },
                other => *other,
            });
        }
        Ok(Cow::Owned(out))
    }

    /// Appends a header's name or value, escaped.
    ///
    /// Bytes that would end the line or the frame, and that the version cannot escape, become blanks.
    pub fn escape(self, text: &[u8], out: &mut Vec<u8>) {
        let is_special = |byte: &u8| matches!(byte, b'\n' | b':' | b'\\' | b'\r' | 0);
        let mut rest = text;
        while let Some(at) = rest.iter().position(is_special) {
            out.extend_from_slice(&rest[..at]);
            match (rest[at], self) {
                (b'\n', Self::V1_1 | Self::V1_2) => out.extend_from_slice(b"\\n"),
                (b':', Self::V1_1 | Self::V1_2) => out.extend_from_slice(b"\\c"),
                (b'\\', Self::V1_1 | Self::V1_2) => out.extend_from_slice(b"\\\\"),
                (b'\r', Self::V1_2) => out.extend_from_slice(b"\\r"),
                (b'\n' | b'\r' | 0, _) => out.push(b' '),
                (other, _) => out.push(other),
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    }
}

/// A backslash that does not begin an escape sequence of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndefinedEscape;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stomp_1_2_protocol_negotiation_the_highest_in_common_wins() {
        let cases: [(Option<&str>, Option<Version>); 8] = [
            (None, Some(Version::V1_0)),
            (Some("1.2"), Some(Version::V1_2)),
            (Some("1.2,1.0"), Some(Version::V1_2)),
            (Some("1.0, 1.1"), Some(Version::V1_1)),
            (Some("1.1,1.0,2.1"), Some(Version::V1_1)),
            (Some("2.1"), None),
            (Some("1.20"), None),
            (Some(""), None),
        ];
        for (accepted, expected) in cases {
            assert_eq!(Version::negotiate(accepted.map(str::as_bytes)), expected, "{accepted:?}");
        }
    }

    #[test]
    fn stomp_1_2_value_encoding_undefined_escapes_are_fatal() {
        let unescape = |version: Version, text: &'static [u8]| version.unescape(text).ok();
        let all = b"\\n\\c\\\\".as_slice();
        assert_eq!(unescape(Version::V1_2, all).as_deref(), Some(&b"\n:\\"[..]));
        assert_eq!(unescape(Version::V1_1, all).as_deref(), Some(&b"\n:\\"[..]));
        assert_eq!(unescape(Version::V1_0, all).as_deref(), Some(all));
        assert_eq!(unescape(Version::V1_2, b"\\r").as_deref(), Some(&b"\r"[..]));
        assert_eq!(unescape(Version::V1_1, b"\\r"), None);
        for text in [&b"\\t"[..], b"a\\", b"\\x41", b"\\N"] {
            assert_eq!(unescape(Version::V1_1, text), None);
            assert_eq!(unescape(Version::V1_2, text), None);
        }
    }

    #[test]
    fn what_a_version_cannot_escape_becomes_a_blank() {
        let escape = |version: Version, text: &[u8]| {
            let mut out = Vec::new();
            version.escape(text, &mut out);
            out
        };
        assert_eq!(escape(Version::V1_0, b"a:\\b\nc\rd"), b"a:\\b c d");
        assert_eq!(escape(Version::V1_1, b"a:\\b\nc\rd"), b"a\\c\\\\b\\nc d");
        assert_eq!(escape(Version::V1_2, b"a:\\b\nc\rd"), b"a\\c\\\\b\\nc\\rd");
    }

    proptest! {
        #[test]
        fn unescape_undoes_escape(text in prop::collection::vec(1..=255u8, 0..40)) {
            let mut out = Vec::new();
            Version::V1_2.escape(&text, &mut out);
            let back = Version::V1_2.unescape(&out).unwrap();
            prop_assert_eq!(&*back, &text[..]);
        }
    }
}
