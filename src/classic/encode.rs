//! Encoding of the frames that classic clients get. The order of headers is part of the contract.
//!
//! Every frame ends in one NUL, which clients drop without looking at it.

use crate::stomp::encode::END_BYTES_MAX;

/// Begins a frame with its command.
pub(crate) fn begin(out: &mut Vec<u8>, command: &str) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
}

/// Adds a header line. This dialect has no escaping: bytes of the value that would end the line
/// become blanks.
#[inline]
pub(crate) fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    line_text(out, value);
    out.push(b'\n');
}

/// Adds a header line whose name and value are known not to end a line.
#[inline(always)] // once a message, with lengths known
pub(crate) fn plain_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Begins a MESSAGE, up to the receiver's session id.
#[inline(always)] // once a receiver
pub(crate) fn begin_message(out: &mut Vec<u8>, token: &[u8; 32]) {
    const BEFORE: &[u8; 19] = b"MESSAGE\nsession-id:";
    let mut head = [b'\n'; 19 + 32 + 1];
    head[..19].copy_from_slice(BEFORE);
    head[19..51].copy_from_slice(token);
    out.extend_from_slice(&head);
}

/// Adds a header line whose value is a number.
#[inline]
pub(crate) fn number_header(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    number(out, value);
    out.push(b'\n');
}

/// Adds a decimal number.
#[inline(always)] // once a message; most numbers are short
pub(crate) fn number(out: &mut Vec<u8>, value: u64) {
    let digit = |divisor| b'0' + (value / divisor % 10) as u8;
    match value {
        0..10 => out.push(digit(1)),
        10..100 => out.extend_from_slice(&[digit(10), digit(1)]),
        100..1000 => out.extend_from_slice(&[digit(100), digit(10), digit(1)]),
        _ => push_digits(out, value),
    }
}

fn push_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut put = |pair: u64| {
        start -= 2;
        digits[start..start + 2]
            .copy_from_slice(&[b'0' + (pair / 10) as u8, b'0' + (pair % 10) as u8]);
    };
    while value >= 100 {
        put(value % 100);
        value /= 100;
    }
    put(value);
    let start = start + usize::from(value < 10);
    out.extend_from_slice(&digits[start..]);
}

/// Adds a header's name or value. If it `may_end_line`, bytes that do so become blanks.
#[inline(always)] // so that the usual case is one copy
pub(crate) fn value(out: &mut Vec<u8>, text: &[u8], may_end_line: bool) {
    if may_end_line {
        return line_text(out, text);
    }
    out.extend_from_slice(text);
}

/// Ends the headers, adds the body and the final NUL.
#[inline(always)] // once a message
pub(crate) fn finish(out: &mut Vec<u8>, body: &[u8]) {
    out.push(b'\n');
    self::body(out, body);
}

/// Adds the body and the final NUL.
#[inline(always)] // once a message
pub(crate) fn body(out: &mut Vec<u8>, body: &[u8]) {
    out.reserve(body.len() + END_BYTES_MAX);
    out.extend_from_slice(body);
    out.push(0);
}

#[cold] // off the path of a message
fn line_text(out: &mut Vec<u8>, text: &[u8]) {
    let start = out.len();
    out.extend_from_slice(text);
    if memchr::memchr3(b'\n', b'\r', 0, text).is_some() {
        for byte in &mut out[start..] {
            if matches!(byte, b'\n' | b'\r' | 0) {
                *byte = b' ';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 99, 100, 999, 1000, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            super::number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_frame_is_written_in_the_order_of_calls() {
        let mut out = Vec::new();
        begin(&mut out, "MESSAGE");
        header(&mut out, "origin", b"ana");
        number_header(&mut out, "content-length", 0);
        number_header(&mut out, "x", 18_446_744_073_709_551_615);
        value(&mut out, b"k:v\nz", true);
        value(&mut out, b"\n", false);
        finish(&mut out, b"body");
        assert_eq!(
            out,
            b"MESSAGE\norigin:ana\ncontent-length:0\nx:18446744073709551615\nk:v z\n\nbody\0"
        );
    }
}
