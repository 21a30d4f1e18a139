//! Conversion of bytes to lines of text that can be read and edited, and back.
//!
//! `^@` is NUL, `^M` CR, `^I` TAB; `^{c3 28}` are any bytes, `^{78 *10000}` the same one many
//! times. A caret before anything else is a caret.

/// NUL in a line.
pub(crate) const NUL: &str = "^@";

/// The lines of `bytes`, which LF separates.
pub(crate) fn to_lines(bytes: &[u8]) -> Vec<String> {
    bytes.split(|byte| *byte == b'\n').map(to_line).collect()
}

/// The inverse of [`to_lines`].
pub(crate) fn from_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<u8> {
    lines.map(from_line).collect::<Vec<_>>().join(&b'\n')
}

/// Parses hexadecimal bytes, with or without blanks between them.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| *c != ' ').collect();
    let byte = |pair: &[char]| {
        let text: String = pair.iter().collect();
        u8::from_str_radix(&text, 16).unwrap_or_else(|_| panic!("{text:?} is not a byte"))
    };
    digits.chunks(2).map(byte).collect()
}

fn to_line(mut bytes: &[u8]) -> String {
    let mut line = String::new();
    while let [first, ..] = bytes {
        let run = bytes.iter().take_while(|byte| *byte == first).count();
        if run >= RUN_MIN {
            line.push_str(&format!("^{{{first:02x} *{run}}}"));
            bytes = &bytes[run..];
            continue;
        }
        let used = push_character(&mut line, bytes);
        bytes = &bytes[used..];
    }
    line
}

/// Writes the first character of the rest of a line, and returns its size in bytes.
fn push_character(line: &mut String, bytes: &[u8]) -> usize {
    let is_last = bytes.len() == 1;
    match bytes {
        [0, ..] => line.push_str(NUL),
        [b'\r', ..] => line.push_str("^M"),
        [b'\t', ..] => line.push_str("^I"),
        [b'^', b'@' | b'M' | b'I' | b'{', ..] => line.push_str("^{5e}"),
        // Editors remove blanks at the ends of lines.
        [b' '] if is_last => line.push_str("^{20}"),
        _ => {
            let most = bytes.len().min(4);
            let character = (1..=most).find_map(|end| std::str::from_utf8(&bytes[..end]).ok());
            match character {
                Some(text) if !text.contains(char::is_control) => {
                    line.push_str(text);
                    return text.len();
                }
                _ => line.push_str(&format!("^{{{:02x}}}", bytes[0])),
            }
        }
    }
    1
}

fn from_line(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('^') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let mut after = rest.chars();
        match after.next() {
            Some('@') => bytes.push(0),
            Some('M') => bytes.push(b'\r'),
            Some('I') => bytes.push(b'\t'),
            Some('{') => {
                let (inside, behind) = rest[1..].split_once('}').expect("^{ without }");
                let (hex, count) = inside.split_once('*').unwrap_or((inside, "1"));
                bytes.extend(from_hex(hex).repeat(count.parse().expect("a number after *")));
                rest = behind;
                continue;
            }
            _ => {
                bytes.push(b'^');
                continue;
            }
        }
        rest = after.as_str();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Number of equal bytes from which they are written with a count.
const RUN_MIN: usize = 60;

#[test]
fn from_lines_is_the_inverse_of_to_lines() {
    let bytes: Vec<u8> = (0..=255).chain(*b"^@^x^^ ^{\nends in a blank \n\n").collect();
    let bytes = [&bytes[..], "ñ€😀".as_bytes(), &[b'x'; 1000], b"\xc3"].concat();
    let lines = to_lines(&bytes);
    assert_eq!(from_lines(lines.iter().map(String::as_str)), bytes);
    assert!(lines.iter().any(|line| line.ends_with("ñ€😀^{78 *1000}^{c3}")), "{lines:?}");
    assert_eq!(to_lines(b"^/agent/.*$"), ["^/agent/.*$"]);
}
