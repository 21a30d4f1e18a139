//! Frames of STOMP 1.2 as owned values: encoding and parsing.
//!
//! It does not know sockets, nor what commands mean.

use crate::frame::{EncodeFault, Frame, FrameFault};

/// Encodes a frame, with the NUL at its end.
///
/// # Errors
/// A header holds a NUL, or in CONNECT what cannot be escaped there.
pub(crate) fn encode(frame: &Frame) -> Result<Vec<u8>, EncodeFault> {
    // STOMP 1.2, "Value Encoding": CONNECT and CONNECTED are not escaped, for older peers.
    let is_escaped = frame.command != "CONNECT";
    let mut bytes = Vec::with_capacity(256 + frame.body.len());
    bytes.extend_from_slice(frame.command.as_bytes());
    bytes.push(b'\n');
    for (key, value) in &frame.headers {
        let breaks = |text: &String| text.contains(['\n', '\r']) && !is_escaped;
        if key.contains('\0') || value.contains('\0') || breaks(key) || breaks(value) {
            return Err(EncodeFault::LineBreak(key.clone()));
        }
        if key.contains(':') && !is_escaped {
            return Err(EncodeFault::ColonInKey(key.clone()));
        }
        push_text(&mut bytes, key, is_escaped);
        bytes.push(b':');
        push_text(&mut bytes, value, is_escaped);
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(&frame.body);
    bytes.push(0);
    Ok(bytes)
}

fn push_text(bytes: &mut Vec<u8>, text: &str, is_escaped: bool) {
    if !is_escaped {
        return bytes.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'\\' => bytes.extend_from_slice(b"\\\\"),
            b'\n' => bytes.extend_from_slice(b"\\n"),
            b'\r' => bytes.extend_from_slice(b"\\r"),
            b':' => bytes.extend_from_slice(b"\\c"),
            _ => bytes.push(byte),
        }
    }
}

/// Reads frames from a byte stream, however they are split and joined.
#[derive(Debug)]
pub(crate) struct StompReader {
    bytes: Vec<u8>,
    /// Bytes of frames that have been returned; `taken ≤ bytes.len()`.
    taken: usize,
    frame_bytes_max: usize,
}

impl StompReader {
    /// A reader that refuses frames of more than `frame_bytes_max`.
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, frame_bytes_max }
    }

    /// Appends bytes that have arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more has been pushed.
    ///
    /// # Errors
    /// The bytes are not STOMP, or a frame is longer than allowed. The next frame cannot be found
    /// after that.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameFault> {
        let blank = |byte: &u8| matches!(byte, b'\n' | b'\r');
        self.taken += self.bytes[self.taken..].iter().take_while(|byte| blank(byte)).count();
        let rest = &self.bytes[self.taken..];
        if rest.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Err(FrameFault::NotStomp(rest[0]));
        }
        let frame = parse(rest, self.frame_bytes_max)?;
        // The bound also holds for a torn frame.
        let length = frame.as_ref().map_or(rest.len(), |(_, length)| *length);
        if length > self.frame_bytes_max {
            return Err(FrameFault::TooLong { bytes: length, max: self.frame_bytes_max });
        }
        Ok(frame.map(|(frame, length)| {
            self.taken += length;
            frame
        }))
    }

    /// Whether no byte of a further frame has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes[self.taken..].iter().all(|byte| matches!(byte, b'\n' | b'\r'))
    }
}

/// The first frame and its length; `None` while it is not whole.
fn parse(bytes: &[u8], bytes_max: usize) -> Result<Option<(Frame, usize)>, FrameFault> {
    let mut rest = bytes;
    let Some(command) = take_line(&mut rest) else { return Ok(None) };
    let mut frame = Frame::new(&String::from_utf8_lossy(command));
    let is_escaped = frame.command != "CONNECTED";
    loop {
        let Some(line) = take_line(&mut rest) else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        let colon = memchr::memchr(b':', line).ok_or(FrameFault::NoColon)?;
        let text = |part: &[u8]| if is_escaped { unescape(part) } else { lossy(part) };
        frame.headers.push((text(&line[..colon]), text(&line[colon + 1..])));
    }
    let length = frame.header("content-length").and_then(|value| value.parse::<usize>().ok());
    if let Some(length) = length {
        // Refused before its body arrives.
        let whole = (bytes.len() - rest.len()).saturating_add(length).saturating_add(1);
        if whole > bytes_max {
            return Err(FrameFault::TooLong { bytes: whole, max: bytes_max });
        }
    }
    let end = match length {
        Some(length) if rest.len() <= length => return Ok(None),
        Some(length) if rest[length] != 0 => return Err(FrameFault::NoNul),
        Some(length) => length,
        None => match memchr::memchr(0, rest) {
            Some(end) => end,
            None => return Ok(None),
        },
    };
    frame.body = rest[..end].to_vec();
    Ok(Some((frame, bytes.len() - rest.len() + end + 1)))
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(b'\n', rest)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Unescapes a header's name or value. Undefined escapes stay as they are, so that tools can show them.
fn unescape(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        let escaped = match (byte, rest.as_slice().first()) {
            (b'\\', Some(b'n')) => b'\n',
            (b'\\', Some(b'r')) => b'\r',
            (b'\\', Some(b'c')) => b':',
            (b'\\', Some(b'\\')) => b'\\',
            _ => {
                text.push(*byte);
                continue;
            }
        };
        text.push(escaped);
        rest.next();
    }
    lossy(&text)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameFault> {
        let mut reader = StompReader::new(1_000);
        let mut frames = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        // behaviour: chunking-invisible
        #[test]
        fn chunking_is_invisible(
            headers in prop::collection::vec(("[^\0]{1,9}", "[^\0]{0,9}"), 0..4),
            body: Vec<u8>,
            cut in 0_usize..300,
        ) {
            let mut frame = Frame::new("MESSAGE");
            frame.headers = headers;
            frame = frame.with("content-length", body.len().to_string());
            frame.headers.rotate_right(1);
            frame.body = body;
            let bytes = encode(&frame).unwrap();
            let cut = cut.min(bytes.len());
            let frames = read_all(&[&bytes[..cut], &bytes[cut..], b"\n"]).unwrap();
            prop_assert_eq!(frames, [frame]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read_all(&[&bytes]);
        }
    }

    #[test]
    fn frames_are_separated() {
        let frames = read_all(&[b"\n\r\nRECEIPT\r\nreceipt-id:a\\cb\r\n\r\n\0\nMESSAGE\n\nx\0"]);
        let frames = frames.unwrap();
        assert_eq!(frames[0].header("receipt-id"), Some("a:b"));
        assert_eq!(frames[1].body, b"x");
    }

    #[test]
    fn malformed_frames_have_their_faults() {
        assert_eq!(read_all(&[b"\0\x05"]), Err(FrameFault::NotStomp(0)));
        assert_eq!(read_all(&[b"A\nb\n\n\0"]), Err(FrameFault::NoColon));
        assert_eq!(read_all(&[b"A\ncontent-length:1\n\nab\0"]), Err(FrameFault::NoNul));
        let long = [b'A'; 1_001];
        assert_eq!(read_all(&[&long]), Err(FrameFault::TooLong { bytes: 1_001, max: 1_000 }));
    }

    #[test]
    fn connect_is_not_escaped_and_cannot_forge_headers() {
        let frame = Frame::new("CONNECT").with("login", "a:b");
        assert_eq!(encode(&frame).unwrap(), b"CONNECT\nlogin:a:b\n\n\0");
        let forged = Frame::new("CONNECT").with("login", "a\nb:c");
        assert_eq!(encode(&forged), Err(EncodeFault::LineBreak("login".into())));
        let frame = Frame::new("SEND").with("k:", "a\nb\\");
        assert_eq!(encode(&frame).unwrap(), b"SEND\nk\\c:a\\nb\\\\\n\n\0");
    }
}
