//! One classic frame, borrowed from the bytes that the transport lends.
//!
//! A frame is a command, header lines, a blank line and a body:
//!
//! ```text
//! SEND⏎ transaction:17⏎ destination : /agent/ana⏎ ⏎ hello∅
//! command  header lines, blanks are trimmed       body, without one NUL at the end
//! ```

use memchr::{memchr, memchr_iter};

use crate::limits::{Exceeded, Limits};
use crate::stomp::lines::LineFeeds;
use crate::stomp::{Headers, LineFault, Name};

/// A frame from a client.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The command.
    pub command: Command,
    /// The header lines.
    pub headers: Headers<'a>,
    /// The body, without the NUL that ends the frame.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Parses `bytes`, which are exactly one frame.
    ///
    /// # Errors
    /// The first violation of the dialect or of one of the `limits`.
    #[inline]
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, FrameFault> {
        let mut frame = Self::default();
        frame.read(bytes, limits)?;
        Ok(frame)
    }

    /// Parses `bytes` into this frame, which has to be new; in place, since a frame is large.
    ///
    /// # Errors
    /// Those of [`Self::parse`]. The content here is meaningless then.
    #[inline(always)] // on the path of a SEND; the other callers are cold
    pub fn read(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<(), FrameFault> {
        let body_from = self.read_head(bytes, limits)?;
        // Checked once, since the number of lines is bounded already.
        if body_from > limits.header_bytes_max as usize {
            let max = u64::from(limits.header_bytes_max);
            return Err(Exceeded { limit: "header_bytes_max", max }.into());
        }
        let rest = &bytes[body_from..];
        self.body = trim_final_nul(rest, self.headers.value(Name::ContentLength));
        if self.body.len() > limits.body_bytes_max as usize {
            let max = u64::from(limits.body_bytes_max);
            return Err(Exceeded { limit: "body_bytes_max", max }.into());
        }
        Ok(())
    }

    /// Reads the command and the header lines. Returns where the body begins.
    #[inline(always)] // on the path of a SEND
    fn read_head(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<usize, FrameFault> {
        let mut feeds = LineFeeds::<false>::new(bytes);
        if !bytes.starts_with(b"SEND\n") {
            return self.read_any_head(bytes, limits);
        }
        self.headers.allow(limits.header_count_max);
        feeds.next();
        let mut from = SEND_LINE_BYTES;
        loop {
            let Some(end) = feeds.next() else {
                self.read_last_line(&bytes[from..])?;
                return Ok(bytes.len());
            };
            if bytes.get(end) != Some(&b'\n') {
                return self.read_any_head(bytes, limits);
            }
            let line = &bytes[from..end];
            from = end + 1;
            if line.is_empty() {
                return Ok(from);
            }
            self.headers.push_line(line, true)?;
        }
    }

    /// As [`Self::read_head`], of any command, and with control characters besides line feeds.
    #[cold] // most frames are SENDs, and few clients end lines with CRLF
    fn read_any_head(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<usize, FrameFault> {
        *self = Self::default();
        let mut feeds = memchr_iter(b'\n', bytes);
        let end = feeds.next().unwrap_or(bytes.len());
        self.command = Command::parse(without_return(&bytes[..end]))?;
        self.headers.allow(limits.header_count_max);
        let mut from = end + 1;
        let body_from = loop {
            let Some(end) = feeds.next() else {
                self.read_last_line(bytes.get(from..).unwrap_or_default())?;
                break bytes.len();
            };
            let line = without_return(&bytes[from..end]);
            from = end + 1;
            if line.is_empty() {
                break from;
            }
            self.headers.push_line(line, true)?;
        };
        check_controls(&bytes[..body_from])?;
        Ok(body_from)
    }

    /// Reads the rest of a frame that ends behind a line or within one, and so has no body.
    #[cold] // few frames lack their empty line
    fn read_last_line(&mut self, rest: &'a [u8]) -> Result<(), FrameFault> {
        match without_return(rest) {
            [] => Ok(()),
            line => Ok(self.headers.push_line(line, true)?),
        }
    }
}

/// Bytes of the command of a SEND, with its line feed.
const SEND_LINE_BYTES: usize = 5;

impl Default for Frame<'_> {
    /// A frame to be read into.
    #[inline]
    fn default() -> Self {
        Self { command: Command::Send, headers: Headers::default(), body: &[] }
    }
}

/// The commands of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Log in.
    Connect,
    /// Send a message.
    Send,
    /// Watch a client, all clients that a regular expression matches, or presence.
    Subscribe,
    /// End subscriptions.
    Unsubscribe,
    /// Log out.
    Disconnect,
}

impl Command {
    #[cold] // SEND is recognised before
    fn parse(word: &[u8]) -> Result<Self, FrameFault> {
        match word {
            b"SEND" => Ok(Self::Send),
            b"CONNECT" => Ok(Self::Connect),
            b"SUBSCRIBE" => Ok(Self::Subscribe),
            b"UNSUBSCRIBE" => Ok(Self::Unsubscribe),
            b"DISCONNECT" => Ok(Self::Disconnect),
            _ if word.iter().any(|byte| matches!(byte, b' ' | 0)) => {
                Err(FrameFault::MalformedCommand)
            }
            _ => Err(FrameFault::UnknownCommand),
        }
    }
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// The command holds a blank or a NUL.
    MalformedCommand,
    /// The command is not one of a client's.
    UnknownCommand,
    /// A header line has no colon, nothing after its colon, or a NUL in it.
    MalformedHeader,
    /// A header line has a carriage return in it, at which a receiver may end the line.
    ReturnInHeader,
    /// A bound is exceeded.
    Exceeds(Exceeded),
}

impl From<LineFault> for FrameFault {
    fn from(fault: LineFault) -> Self {
        match fault {
            LineFault::NoColon | LineFault::NoValue => Self::MalformedHeader,
            LineFault::Exceeds(exceeded) => Self::Exceeds(exceeded),
        }
    }
}

impl From<Exceeded> for FrameFault {
    fn from(exceeded: Exceeded) -> Self {
        Self::Exceeds(exceeded)
    }
}

/// Checks a header that may hold control characters besides line feeds.
fn check_controls(head: &[u8]) -> Result<(), FrameFault> {
    if memchr(0, head).is_some() {
        return Err(FrameFault::MalformedHeader);
    }
    let mut returns = memchr_iter(b'\r', head);
    match returns.any(|at| head.get(at + 1).is_some_and(|next| *next != b'\n')) {
        true => Err(FrameFault::ReturnInHeader),
        false => Ok(()),
    }
}

/// Drops the carriage return of a line that ends in CRLF.
fn without_return(line: &[u8]) -> &[u8] {
    match line {
        [rest @ .., b'\r'] => rest,
        line => line,
    }
}

/// Drops the NUL that ends a frame. Existing clients count characters instead of bytes in
/// `content-length`, so that it cannot delimit the body; but if it equals the number of bytes, it
/// includes a final NUL, which belongs to the body then.
fn trim_final_nul<'a>(rest: &'a [u8], content_length: Option<&[u8]>) -> &'a [u8] {
    match rest {
        [body @ .., 0] if !content_length.is_some_and(|text| is_number(text, rest.len())) => body,
        _ => rest,
    }
}

/// Whether `text` is `number` in decimal, with or without leading zeros. Compared from the last digit,
/// which nearly always differs.
#[inline]
fn is_number(text: &[u8], number: usize) -> bool {
    let mut left = number;
    for byte in text.iter().rev() {
        if usize::from(*byte) != usize::from(b'0') + left % 10 {
            return false;
        }
        left /= 10;
    }
    left == 0 && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameFault> {
        static LIMITS: std::sync::OnceLock<Limits> = std::sync::OnceLock::new();
        Frame::parse(bytes, LIMITS.get_or_init(Limits::default))
    }

    #[test]
    fn a_frame_has_a_command_headers_and_a_body() {
        let frame = parse(b"SEND\ntransaction:17\n destination :  /agent/ana \n\nhi\0").unwrap();
        assert_eq!(frame.command, Command::Send);
        assert_eq!(frame.headers.value(Name::Transaction), Some(&b"17"[..]));
        assert_eq!(frame.headers.value(Name::Destination), Some(&b"/agent/ana"[..]));
        assert_eq!(frame.body, b"hi");
    }

    #[test]
    fn line_ends_may_be_crlf() {
        let frame = parse(b"SEND\r\ndestination:/a\r\n\r\na\r\nb").unwrap();
        assert_eq!(frame.headers.value(Name::Destination), Some(&b"/a"[..]));
        assert_eq!(frame.body, b"a\r\nb");
    }

    #[test]
    fn a_frame_may_end_early() {
        for bytes in [&b"SEND"[..], b"SEND\n", b"SEND\n\n", b"SEND\na:b", b"SEND\na:b\n"] {
            assert_eq!(parse(bytes).unwrap().body, b"", "{bytes:?}");
        }
    }

    #[test]
    fn bad_commands_are_malformed_or_unknown() {
        for bytes in [&b"CON NECT\n\n"[..], b"CONNECT \n\n", b"\0", b"\0CONNECT\n"] {
            assert_eq!(parse(bytes).unwrap_err(), FrameFault::MalformedCommand, "{bytes:?}");
        }
        for bytes in [&b"FOO\n\n"[..], b"connect\n", b"\n", b"", b"C", b"MESSAGE\n\n"] {
            assert_eq!(parse(bytes).unwrap_err(), FrameFault::UnknownCommand, "{bytes:?}");
        }
    }

    #[test]
    fn header_lines_need_a_colon_and_something_after_it() {
        for lines in ["login ana\n\n", "login:\n\n", "lo\0gin:ana\n\n", ":\n\n", " \n\n", "a:b\n\0"]
        {
            let bytes = format!("SEND\n{lines}");
            assert_eq!(parse(bytes.as_bytes()).unwrap_err(), FrameFault::MalformedHeader);
        }
        let frame = parse(b"SEND\n:x\ntransaction: \n\n").unwrap();
        assert_eq!(frame.headers.user_lines()[0].name, b"");
        assert_eq!(frame.headers.value(Name::Transaction), Some(&b""[..]));
    }

    #[test]
    fn a_carriage_return_within_a_line_is_malformed() {
        for lines in ["a:b\rorigin:boss\n\n", "a\rb:c\n\n", "\ra:b\n\n", "a:b\r\r\n\n", "a\r:b"] {
            let bytes = format!("SEND\n{lines}");
            assert_eq!(
                parse(bytes.as_bytes()).unwrap_err(),
                FrameFault::ReturnInHeader,
                "{lines:?}"
            );
        }
        for lines in ["a:b\r\n\r\n", "a:b\r\n\n\rx", "a:b\r\n", "a:b\r", "\r\n\r", "\r"] {
            let bytes = format!("SEND\n{lines}");
            assert!(parse(bytes.as_bytes()).is_ok(), "{lines:?}");
        }
        assert_eq!(parse(b"SEND\r").unwrap().body, b"");
    }

    #[test]
    fn one_nul_at_the_end_is_not_part_of_the_body_unless_content_length_includes_it() {
        let body = |bytes| parse(bytes).unwrap().body;
        assert_eq!(body(b"SEND\ncontent-length:2\n\nhi\0"), b"hi");
        assert_eq!(body(b"SEND\ncontent-length:3\n\nhi\0"), b"hi\0");
        assert_eq!(body(b"SEND\ncontent-length:2\n\n\0\0"), b"\0\0");
        assert_eq!(body(b"SEND\ncontent-length:2\n\n\0\0\0"), b"\0\0");
        assert_eq!(body(b"SEND\n\na\0b\0"), b"a\0b");
        assert_eq!(body(b"SEND\ncontent-length:999\n\nhi"), b"hi");
    }

    #[test]
    fn an_exceeded_bound_is_named() {
        let limits = Limits {
            header_count_max: 2,
            header_bytes_max: 15,
            body_bytes_max: 3,
            ..Limits::default()
        };
        let limit = |bytes: &[u8]| match Frame::parse(bytes, &limits) {
            Err(FrameFault::Exceeds(exceeded)) => exceeded.limit,
            other => panic!("{other:?}"),
        };
        assert_eq!(limit(b"SEND\na:1\nbbb:222\n\n"), "header_bytes_max");
        assert_eq!(limit(b"SEND\na:1\n:2\n:3\n\n"), "header_count_max");
        assert_eq!(limit(b"SEND\n\nfour"), "body_bytes_max");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_frame_is_parsed_into_the_parts_it_was_built_from(
            headers in prop::collection::vec(("[a-z]{1,9}", "[!-~]{1,20}"), 0..9),
            body in prop::collection::vec(any::<u8>(), 0..99),
        ) {
            let mut bytes = b"SEND\n".to_vec();
            for (name, value) in &headers {
                bytes.extend_from_slice(format!(" {name} : {value}\r\n").as_bytes());
            }
            bytes.extend_from_slice(b"\n");
            bytes.extend_from_slice(&body);
            bytes.push(0);
            let frame = parse(&bytes).unwrap();
            prop_assert_eq!(frame.body, &body[..]);
            for (line, (name, value)) in frame.headers.lines().zip(&headers) {
                prop_assert_eq!(line.name, name.as_bytes());
                prop_assert_eq!(line.value, value.as_bytes());
            }
        }
    }
}
