//! Frames of the classic dialect as owned values: encoding and parsing.
//!
//! It does not know sockets, nor what commands mean.

use std::fmt;

/// A frame: `command LF key:value LF … LF body`.
///
/// Its `Debug` masks the values of the headers that carry keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The first line.
    pub command: String,
    /// The header lines, in order. Bytes that are not UTF-8 become U+FFFD.
    pub headers: Vec<(String, String)>,
    /// What follows the blank line.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame without headers and body.
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// Appends a header.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.headers.push((key.to_owned(), value.into()));
        self
    }

    /// Parses a frame without its envelope.
    ///
    /// # Errors
    /// The frame has no blank line, or a header line has no colon.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameFault> {
        let mut rest = bytes;
        let command = text(take_line(&mut rest)?);
        let mut headers = Vec::new();
        loop {
            let line = take_line(&mut rest)?;
            if line.is_empty() {
                break;
            }
            let colon = memchr::memchr(b':', line).ok_or(FrameFault::NoColon)?;
            headers.push((text(trim(&line[..colon])), text(trim(&line[colon + 1..]))));
        }
        let mut frame = Self { command, headers, body: Vec::new() };
        frame.body = frame.body_of(rest).to_vec();
        Ok(frame)
    }

    /// Encodes the frame in an envelope.
    ///
    /// # Errors
    /// A header holds a line break or a NUL, which would forge another header or frame; or the frame
    /// is too long for the envelope.
    pub fn encode(&self, envelope: Envelope) -> Result<Vec<u8>, EncodeFault> {
        let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + 256 + self.body.len());
        if envelope == Envelope::LengthPrefixed {
            bytes.resize(ENVELOPE_BYTES, 0);
        }
        check_line(&self.command, &self.command)?;
        bytes.extend_from_slice(self.command.as_bytes());
        bytes.push(b'\n');
        for (key, value) in &self.headers {
            check_line(key, key)?;
            check_line(key, value)?;
            if key.contains(':') {
                return Err(EncodeFault::ColonInKey(key.clone()));
            }
            bytes.extend_from_slice(key.as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        if envelope == Envelope::LengthPrefixed {
            let length =
                u32::try_from(bytes.len() - ENVELOPE_BYTES).map_err(|_| EncodeFault::TooLong)?;
            bytes[1..ENVELOPE_BYTES].copy_from_slice(&length.to_le_bytes());
        }
        Ok(bytes)
    }

    /// The value of a header; the first one if it is repeated.
    pub fn header(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The body, without one NUL at the end unless `content-length` includes it.
    fn body_of<'a>(&self, rest: &'a [u8]) -> &'a [u8] {
        let length = self.header("content-length").and_then(|value| value.parse::<usize>().ok());
        match rest.strip_suffix(b"\0") {
            Some(body) if length != Some(rest.len()) => body,
            _ => rest,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked = |(key, value): &(String, String)| match key.as_str() {
            "passcode" | "secret-key" => (key.clone(), "..".to_owned()),
            _ => (key.clone(), value.clone()),
        };
        out.debug_struct("Frame")
            .field("command", &self.command)
            .field("headers", &self.headers.iter().map(masked).collect::<Vec<_>>())
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish()
    }
}

/// The envelope that delimits a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// TCP and TLS: a flag byte and a four-byte length before the frame.
    LengthPrefixed,
    /// WebSocket: the frame is a message.
    Message,
}

/// Reads frames from a byte stream, however they are split and joined.
///
/// ```text
///  │ taken │ 00 │ length, LE │ frame … │ 00 │ length … │
///  0     taken                                     bytes.len()
/// ```
#[derive(Debug)]
pub struct FrameReader {
    bytes: Vec<u8>,
    /// Bytes of frames that have been returned; `taken ≤ bytes.len()`.
    taken: usize,
    frame_bytes_max: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `frame_bytes_max`.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, frame_bytes_max }
    }

    /// Appends bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more has been pushed.
    ///
    /// # Errors
    /// The bytes are not the classic dialect, or a frame is longer than allowed. The next frame cannot
    /// be found after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameFault> {
        let rest = &self.bytes[self.taken..];
        let Some((&flag, rest)) = rest.split_first() else { return Ok(None) };
        // Checked before the length: another protocol may send fewer bytes.
        if flag > 1 {
            return Err(FrameFault::NotClassic(flag));
        }
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length =
            if flag == 0 { u32::from_le_bytes(*length) } else { u32::from_be_bytes(*length) };
        let length = length as usize;
        if length > self.frame_bytes_max {
            return Err(FrameFault::TooLong { bytes: length, max: self.frame_bytes_max });
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::parse(frame)?;
        self.taken += ENVELOPE_BYTES + length;
        Ok(Some(frame))
    }

    /// Whether no byte of a further frame has arrived.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }
}

/// Why a frame that arrived is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// The first byte of the envelope is neither 0 nor 1.
    NotClassic(u8),
    /// The first byte does not begin a command of standard STOMP.
    NotStomp(u8),
    /// The body of a standard frame is not followed by a NUL.
    NoNul,
    /// The frame is longer than allowed.
    TooLong {
        /// The announced length.
        bytes: usize,
        /// The allowed length.
        max: usize,
    },
    /// The headers do not end with a blank line.
    NoBlankLine,
    /// A header line has no colon.
    NoColon,
    /// The stream ended inside a frame.
    Torn,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotClassic(byte) => write!(
                out,
                "the answer begins with byte {byte:#04x}, which is not the classic dialect: \
                 is this the port of a broker?"
            ),
            Self::NotStomp(byte) => write!(
                out,
                "the answer begins with byte {byte:#04x}, which is not STOMP: \
                 is this the port of a broker?"
            ),
            Self::NoNul => out.write_str("a frame without a NUL behind its body"),
            Self::TooLong { bytes, max } => {
                write!(out, "a frame of {bytes} bytes, of which {max} are allowed")
            }
            Self::NoBlankLine => out.write_str("a frame without a blank line after its headers"),
            Self::NoColon => out.write_str("a header line without a colon"),
            Self::Torn => out.write_str("the connection ended inside a frame"),
        }
    }
}

impl std::error::Error for FrameFault {}

/// Why a frame cannot be sent, with the name of the header but not its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeFault {
    /// The name or the value of the header holds a line break or a NUL.
    LineBreak(String),
    /// The name of the header holds a colon.
    ColonInKey(String),
    /// The header belongs to the protocol and cannot be set by hand.
    Reserved(String),
    /// The header would not arrive unchanged: its name is empty, or there are blanks around its name or
    /// its value, which receivers drop.
    Padded(String),
    /// The frame is longer than an envelope can announce.
    TooLong,
}

impl fmt::Display for EncodeFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineBreak(key) => write!(out, "header {key:?} holds a line break or a NUL"),
            Self::ColonInKey(key) => write!(out, "header name {key:?} holds a colon"),
            Self::Reserved(key) => {
                write!(out, "header {key:?} belongs to the protocol, choose another name")
            }
            Self::Padded(key) => write!(
                out,
                "header {key:?} has no name or has blanks around it or its value, which would not arrive"
            ),
            Self::TooLong => out.write_str("the frame is longer than 4 GiB"),
        }
    }
}

impl std::error::Error for EncodeFault {}

const ENVELOPE_BYTES: usize = 5;

fn check_line(key: &str, line: &str) -> Result<(), EncodeFault> {
    if line.contains(['\n', '\r', '\0']) {
        return Err(EncodeFault::LineBreak(key.to_owned()));
    }
    Ok(())
}

/// Takes a line, and drops its end, which is LF or CRLF.
fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], FrameFault> {
    let end = memchr::memchr(b'\n', rest).ok_or(FrameFault::NoBlankLine)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(line.strip_suffix(b"\r").unwrap_or(line))
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b" ") {
        bytes = rest;
    }
    while let Some(rest) = bytes.strip_suffix(b" ") {
        bytes = rest;
    }
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME_BYTES_MAX: usize = 64 * 1024;

    #[test]
    fn a_frame_is_encoded_as_by_existing_clients() {
        let frame = Frame::new("CONNECT")
            .with("accept-version", "1.2")
            .with("login", "ana")
            .with("passcode", "my_agent_secret_key")
            .with("secret-key", "my_app_secret_key");
        let bytes = frame.encode(Envelope::LengthPrefixed).unwrap();
        assert_eq!(bytes[..5], [0x00, 0x60, 0x00, 0x00, 0x00]);
        let text = "CONNECT\naccept-version:1.2\nlogin:ana\npasscode:my_agent_secret_key\n\
                    secret-key:my_app_secret_key\n\n";
        assert_eq!(bytes[5..], *text.as_bytes());
        assert_eq!(frame.encode(Envelope::Message).unwrap(), text.as_bytes());
    }

    #[test]
    fn one_nul_at_the_end_is_not_part_of_the_body_unless_the_length_includes_it() {
        let body = |frame: &str| Frame::parse(frame.as_bytes()).unwrap().body;
        assert_eq!(body("MESSAGE\n\nhi\0"), b"hi");
        assert_eq!(body("MESSAGE\n\nhi\0\0"), b"hi\0");
        assert_eq!(body("MESSAGE\ncontent-length:3\n\nhi\0"), b"hi\0");
        assert_eq!(body("MESSAGE\ncontent-length:3\n\nhi\0\0"), b"hi\0");
        assert_eq!(body("MESSAGE\ncontent-length:1\n\n\u{e9}\0"), "\u{e9}".as_bytes());
        assert_eq!(body("SEND\ncontent-length:2\n\nhi"), b"hi");
        assert_eq!(body("ACK\n\n\0"), b"");
    }

    // behaviour: first-header-wins
    #[test]
    fn blanks_are_trimmed_and_the_first_of_repeated_headers_counts() {
        let frame = Frame::parse(b"ACK\r\n login :  ana \r\nlogin:bob\r\nx:a:b\r\n\r\n\0").unwrap();
        assert_eq!(frame.header("login"), Some("ana"));
        assert_eq!(frame.header("x"), Some("a:b"));
        assert_eq!(frame.header("y"), None);
    }

    // behaviour: malformed-refused
    #[test]
    fn malformed_frames_have_their_faults() {
        assert_eq!(Frame::parse(b""), Err(FrameFault::NoBlankLine));
        assert_eq!(Frame::parse(b"ACK\na:b\n"), Err(FrameFault::NoBlankLine));
        assert_eq!(Frame::parse(b"ACK\nab\n\n"), Err(FrameFault::NoColon));
        let mut reader = FrameReader::new(16);
        reader.push(b"H");
        assert_eq!(reader.next_frame(), Err(FrameFault::NotClassic(b'H')));
        let mut reader = FrameReader::new(16);
        reader.push(&[0, 17, 0, 0, 0]);
        assert_eq!(reader.next_frame(), Err(FrameFault::TooLong { bytes: 17, max: 16 }));
    }

    #[test]
    fn a_length_may_be_big_endian() {
        let mut reader = FrameReader::new(FRAME_BYTES_MAX);
        reader.push(b"\x01\0\0\0\x06ACK\n\n\0");
        assert_eq!(reader.next_frame().unwrap(), Some(Frame::new("ACK")));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_header_cannot_forge_another_one() {
        let encode = |frame: Frame| frame.encode(Envelope::Message).unwrap_err();
        for value in ["a\nb", "a\rb", "a\0b"] {
            let fault = encode(Frame::new("SEND").with("x", value));
            assert_eq!(fault, EncodeFault::LineBreak("x".to_owned()));
        }
        let fault = encode(Frame::new("SEND").with("x:y", "z"));
        assert_eq!(fault, EncodeFault::ColonInKey("x:y".to_owned()));
    }

    // behaviour: keys-stay-secret
    #[test]
    fn keys_are_masked_in_debug() {
        let frame = Frame::new("CONNECT").with("passcode", "hush").with("secret-key", "hush");
        assert!(!format!("{frame:?}").contains("hush"), "{frame:?}");
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let header = ("[a-z][a-z-]{0,8}", "[!-~]([ -~é]{0,8}[!-~])?");
        let body = proptest::collection::vec(any::<u8>(), 0..64);
        ("[A-Z]{1,12}", proptest::collection::vec(header, 0..4), body).prop_map(
            |(command, headers, body)| {
                let length = body.len().to_string();
                let mut frame = Frame::new(&command).with("content-length", length);
                frame.headers.extend(headers);
                frame.body = body;
                frame
            },
        )
    }

    proptest! {
        // behaviour: chunking-invisible
        #[test]
        fn chunking_is_invisible(
            frames in proptest::collection::vec(frames(), 0..5),
            cuts in proptest::collection::vec(1..40_usize, 1..8),
        ) {
            let wire: Vec<u8> = frames
                .iter()
                .flat_map(|frame| frame.encode(Envelope::LengthPrefixed).unwrap())
                .collect();
            let mut reader = FrameReader::new(FRAME_BYTES_MAX);
            let mut found = Vec::new();
            let mut rest = wire.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = after;
                reader.push(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            prop_assert!(reader.is_empty());
            prop_assert_eq!(found, frames);
        }

        // behaviour: bodies-unchanged
        #[test]
        fn a_message_round_trips(frame in frames()) {
            let bytes = frame.encode(Envelope::Message).unwrap();
            prop_assert_eq!(Frame::parse(&bytes).unwrap(), frame);
        }
    }
}
