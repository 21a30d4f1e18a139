//! Writing the frames that classic clients get. Header order is part of the contract.
//!
//! Every frame ends in one NUL, which clients drop unseen.

/// Begins a frame with its command.
pub fn begin(out: &mut Vec<u8>, command: &str) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
}

/// Adds a header line. A value cannot hold a line end: nothing is escaped in this dialect, so what
/// would end the line is replaced by a blank.
#[inline]
pub fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    line_text(out, value);
    out.push(b'\n');
}

/// Adds a header line whose name and value are known to hold nothing that ends a line.
#[inline(always)]
pub fn plain_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Adds a header line of a user's own name.
pub fn user_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    line_text(out, name);
    out.push(b':');
    line_text(out, value);
    out.push(b'\n');
}

/// Adds a header line whose value is a number.
#[inline]
pub fn number_header(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    match value {
        0..10 => out.push(b'0' + value as u8),
        10..100 => out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]),
        _ => push_digits(out, value),
    }
    out.push(b'\n');
}

fn push_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    while value > 0 {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

/// Ends the headers, adds the body and the final NUL.
#[inline]
pub fn finish(out: &mut Vec<u8>, body: &[u8]) {
    out.push(b'\n');
    out.extend_from_slice(body);
    out.push(0);
}

fn line_text(out: &mut Vec<u8>, text: &[u8]) {
    let start = out.len();
    out.extend_from_slice(text);
    if memchr::memchr3(b'\n', b'\r', 0, text).is_some() {
        for octet in &mut out[start..] {
            if matches!(octet, b'\n' | b'\r' | 0) {
                *octet = b' ';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_written_in_order() {
        let mut out = Vec::new();
        begin(&mut out, "MESSAGE");
        header(&mut out, "origin", b"ana");
        number_header(&mut out, "content-length", 0);
        number_header(&mut out, "x", 18_446_744_073_709_551_615);
        user_header(&mut out, b"k", b"v\nz");
        finish(&mut out, b"body");
        assert_eq!(
            out,
            b"MESSAGE\norigin:ana\ncontent-length:0\nx:18446744073709551615\nk:v z\n\nbody\0"
        );
    }
}
