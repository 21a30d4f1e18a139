//! JSON on one line, in which more characters are escaped than JSON requires.
//!
//! It does not know the values that it writes.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// The value as JSON on one line. A character for which `is_numbered` returns true is escaped by its number
/// (`\u001b`), even if JSON has a shorter escape; characters that JSON requires to be escaped always are.
pub(crate) fn to_line(value: &impl Serialize, is_numbered: fn(char) -> bool) -> String {
    let mut line = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut line, Numbering { is_numbered });
    value.serialize(&mut serializer).expect("a vector takes everything, and all keys are text");
    String::from_utf8(line).expect("JSON is text")
}

#[derive(Clone, Copy)]
struct Numbering {
    is_numbered: fn(char) -> bool,
}

impl Formatter for Numbering {
    /// Called with text that JSON does not escape.
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, character)) = rest.char_indices().find(|(_, c)| (self.is_numbered)(*c))
        {
            out.write_all(&rest.as_bytes()[..at])?;
            write_number(out, character)?;
            rest = &rest[at + character.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let character = match escape {
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            // JSON has a single form for the others.
            _ => return CompactFormatter.write_char_escape(out, escape),
        };
        if (self.is_numbered)(character) {
            write_number(out, character)
        } else {
            CompactFormatter.write_char_escape(out, escape)
        }
    }
}

/// Writes a character as one escape, or as two if it is outside of the basic plane.
fn write_number<W: ?Sized + Write>(out: &mut W, character: char) -> io::Result<()> {
    for unit in character.encode_utf16(&mut [0; 2]) {
        write!(out, "\\u{unit:04x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requested_and_required_characters_are_escaped() {
        let text = "a\"b\\/\u{1b}\t\n\u{7f}\u{202e}ñ\u{e0001}";
        for (is_numbered, line) in [
            ((|_| false) as fn(char) -> bool, "a\\\"b\\\\/\\u001b\\t\\n\u{7f}\u{202e}ñ\u{e0001}"),
            (|c| c < ' ', "a\\\"b\\\\/\\u001b\\u0009\\u000a\u{7f}\u{202e}ñ\u{e0001}"),
            (
                |c| c != '\n' && (c.is_control() || c > 'ñ'),
                "a\\\"b\\\\/\\u001b\\u0009\\n\\u007f\\u202eñ\\udb40\\udc01",
            ),
        ] {
            assert_eq!(to_line(&text, is_numbered), format!("\"{line}\""));
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text: String) {
            for is_numbered in [(|_| false) as fn(char) -> bool, |c| c.is_control(), |_| true] {
                let line = to_line(&text, is_numbered);
                prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), &*text);
            }
        }
    }
}
