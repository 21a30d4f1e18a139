//! Text from the network made safe for a terminal: it cannot move the cursor, change the title or
//! reverse the direction of writing.

use std::fmt;

/// Displays bytes on one line, and escapes what is not printable.
///
/// ```
/// use com_broker_client::Printable;
///
/// assert_eq!(Printable(b"caf\xc3\xa9 \x1b[31m \xff").to_string(), "café \\x1b[31m \\xff");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                fmt_char(out, c)?;
            }
            for byte in chunk.invalid() {
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Whether a character could have another effect on a terminal than being drawn.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

fn fmt_char(out: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\0'..='\x7f' if c.is_control() => write!(out, "\\x{:02x}", u32::from(c)),
        _ if is_harmful(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
        _ => write!(out, "{c}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_harmful_is_left() {
        for (text, shown) in [
            ("plain, größer, 漢字, 🙂", "plain, größer, 漢字, 🙂"),
            ("a\tb\r\nc", "a\\tb\\r\\nc"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fdp.exe", "abc\\u{202e}fdp.exe"),
            ("\x7f", "\\x7f"),
        ] {
            assert_eq!(Printable(text.as_bytes()).to_string(), shown);
        }
    }
}
