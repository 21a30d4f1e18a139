//! One line of the log: time, level and message, as plain text or as a JSON object.
//!
//! A message is words, then `key=value` pairs: `closed connection=7 reason="too slow"`. Values with
//! blanks are quoted as Rust's `{:?}` quotes text. Whatever it holds, a message makes one line.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use log::Level;

use crate::calendar::Timestamp;

/// A line that is still to be written.
pub(super) struct Line<'a> {
    pub(super) at: Timestamp,
    pub(super) level: Level,
    pub(super) message: &'a str,
}

impl Line<'_> {
    pub(super) fn push_plain(&self, out: &mut String) {
        write!(out, "{} {:<5} ", self.at, self.level).expect(INFALLIBLE);
        for character in self.message.chars() {
            push_visible(out, character);
        }
        out.push('\n');
    }

    pub(super) fn push_json(&self, out: &mut String) {
        let (text, fields) = split(self.message);
        let level = self.level.as_str().to_ascii_lowercase();
        write!(out, "{{\"time\":\"{}\",\"level\":\"{level}\",\"message\":", self.at)
            .expect(INFALLIBLE);
        push_json_text(out, &text);
        for (key, value) in fields {
            out.push(',');
            push_json_text(out, key);
            out.push(':');
            push_json_value(out, &value);
        }
        out.push_str("}\n");
    }
}

const INFALLIBLE: &str = "a string takes everything";

/// Writes a character, or its escape if it would move the cursor, end the line or turn the text
/// around: nobody forges a log line with a name.
fn push_visible(out: &mut String, character: char) {
    match character {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if is_deceptive(character) => {
            write!(out, "{}", character.escape_unicode()).expect(INFALLIBLE)
        }
        _ => out.push(character),
    }
}

fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // All of them are in the basic plane, so that one escape is enough.
            _ if is_deceptive(character) => {
                write!(out, "\\u{:04x}", u32::from(character)).expect(INFALLIBLE);
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// A number stays a number if it is written as JSON would write it.
fn push_json_value(out: &mut String, value: &Value) {
    match value {
        Value::Bare(text)
            if text.parse::<u64>().is_ok_and(|number| number.to_string() == *text) =>
        {
            out.push_str(text);
        }
        Value::Bare(text) | Value::Quoted(text) => push_json_text(out, text),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Bare(String),
    Quoted(String),
}

/// Takes the `key=value` pairs out of a message. What is no such pair, a pair whose key is taken,
/// and a quote that does not close stay in the text, so nothing is lost.
fn split(message: &str) -> (String, Vec<(&str, Value)>) {
    let mut text = String::new();
    let mut fields: Vec<(&str, Value)> = Vec::new();
    let mut rest = message.trim();
    while !rest.is_empty() {
        let end = match take_field(rest) {
            Some((key, value, end)) if is_free(key, &fields) => {
                fields.push((key, value));
                end
            }
            _ => {
                let end = rest.find(' ').unwrap_or(rest.len());
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(&rest[..end]);
                end
            }
        };
        rest = rest[end..].trim_start_matches(' ');
    }
    (text, fields)
}

fn is_free(key: &str, fields: &[(&str, Value)]) -> bool {
    !matches!(key, "time" | "level" | "message") && fields.iter().all(|(taken, _)| *taken != key)
}

/// The pair at the start of `text`, and where it ends.
fn take_field(text: &str) -> Option<(&str, Value, usize)> {
    let (key, after) = text.split_once('=')?;
    let is_key = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !is_key {
        return None;
    }
    let start = key.len() + 1;
    if let Some(quoted) = after.strip_prefix('"') {
        let (value, length) = unquote(quoted)?;
        return Some((key, Value::Quoted(value), start + 1 + length));
    }
    let length = after.find(' ').unwrap_or(after.len());
    Some((key, Value::Bare(after[..length].into()), start + length))
}

/// The text up to the closing quote, escapes resolved, and the length of both together. `None` if
/// the quote does not close, or if the value goes on behind it.
fn unquote(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.chars().peekable();
    let mut length = 0;
    while let Some(character) = chars.next() {
        length += character.len_utf8();
        match character {
            '"' => return matches!(chars.peek(), None | Some(' ')).then_some((value, length)),
            '\\' => length += unescape(&mut chars, &mut value)?,
            _ => value.push(character),
        }
    }
    None
}

/// Resolves what follows a backslash, as `{:?}` writes it; its length.
fn unescape(chars: &mut Peekable<Chars<'_>>, value: &mut String) -> Option<usize> {
    let escape = chars.next()?;
    match escape {
        'n' => value.push('\n'),
        'r' => value.push('\r'),
        't' => value.push('\t'),
        '0' => value.push('\0'),
        'u' if chars.next_if_eq(&'{').is_some() => {
            let mut digits = String::new();
            loop {
                match chars.next()? {
                    '}' => break,
                    digit => digits.push(digit),
                }
            }
            value.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
            return Some("u{}".len() + digits.len());
        }
        _ => value.push(escape),
    }
    Some(escape.len_utf8())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_message_makes_one_line(message: String) {
            prop_assert_eq!(plain(&message).matches('\n').count(), 1);
            prop_assert!(json(&message).is_object());
        }

        #[test]
        fn any_quoted_text_comes_back_as_it_was(text: String) {
            let line = json(&format!("closed login={text:?} n=1"));
            prop_assert_eq!(line["login"].as_str(), Some(text.as_str()));
            prop_assert_eq!(line["n"].as_u64(), Some(1));
        }
    }

    fn plain(message: &str) -> String {
        let mut out = String::new();
        Line { at: Timestamp(1_000), level: Level::Info, message }.push_plain(&mut out);
        out
    }

    fn json(message: &str) -> serde_json::Value {
        let mut out = String::new();
        Line { at: Timestamp(1_000), level: Level::Info, message }.push_json(&mut out);
        assert!(out.ends_with("}\n"));
        assert_eq!(out.lines().count(), 1);
        serde_json::from_str(&out).unwrap()
    }

    #[test]
    fn a_plain_line_is_one_line_whatever_it_holds() {
        assert_eq!(
            plain("closed connection=7"),
            "1970-01-01T00:00:01.000Z INFO  closed connection=7\n"
        );
        let forged = plain("login=ana\n1970-01-01 ERROR \u{1b}[31m\u{85}\u{2028}\u{202e}x\r\0");
        assert_eq!(forged.matches('\n').count(), 1);
        assert!(forged.trim_end().chars().all(|c| !is_deceptive(c)), "{forged}");
        assert!(forged.contains("ana\\n1970"), "{forged}");
    }

    #[test]
    fn pairs_become_fields() {
        let line =
            json("closed connection=7 reason=\"too \\\"slow\\\"\" peer=[::1]:5 bytes_in=0007");
        assert_eq!(
            line,
            serde_json::json!({
                "time": "1970-01-01T00:00:01.000Z", "level": "info", "message": "closed",
                "connection": 7, "reason": "too \"slow\"", "peer": "[::1]:5", "bytes_in": "0007",
            })
        );
    }

    #[test]
    fn what_is_no_pair_stays_in_the_message() {
        for (message, text) in [
            ("plain words only", "plain words only"),
            ("a=1 then words", "then words"),
            ("open=\"without end", "open=\"without end"),
            ("open=\"x\"y b", "open=\"x\"y b"),
            ("x=1 x=2", "x=2"),
            ("level=forged time=0 message=y", "level=forged time=0 message=y"),
            ("Upper=1 =2 1a=3", "Upper=1 =2 1a=3"),
            ("", ""),
            ("empty=", ""),
        ] {
            assert_eq!(json(message)["message"], text, "{message}");
        }
        assert_eq!(json("empty=")["empty"], "");
    }

    #[test]
    fn quoted_text_comes_back_as_it_was() {
        for text in ["", "a b", "x\" reason=\"fine", "\\", "\n\r\t\0\u{1b}\u{85}", "é 💬 \u{202e}"]
        {
            let line = json(&format!("closed login={text:?} n=1"));
            assert_eq!(line["login"], text);
            assert_eq!(line["n"], 1);
            assert_eq!(line.as_object().unwrap().len(), 5, "{line}");
        }
    }

    #[test]
    fn a_json_line_holds_no_control_character() {
        let mut out = String::new();
        let message = "a\u{85}\u{7f}\u{2028} b=\"\u{9b}\"";
        Line { at: Timestamp(0), level: Level::Warn, message }.push_json(&mut out);
        assert!(out.trim_end().chars().all(|c| !is_deceptive(c)), "{out}");
    }
}
