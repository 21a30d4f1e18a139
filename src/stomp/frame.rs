//! One frame of standard STOMP, borrowed, with its header lines still escaped.

use memchr::{memchr, memchr_iter, memchr2};

use super::headers::{HeaderLine, Headers, LineFault, Name};
use super::lines::LineFeeds;
use super::version::{UndefinedEscape, Version};
use crate::buffer::{Shared, allocated_bytes};
use crate::limits::{Exceeded, Limits};
use crate::text;

/// A frame from a client.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The command.
    pub command: Command,
    /// The header lines, escaped as they arrived.
    pub headers: Headers<'a>,
    /// Whether the header lines hold a backslash.
    pub has_backslash: bool,
    /// Whether they hold a carriage return that does not end a line.
    pub has_return: bool,
    /// The body, without the NUL that ends the frame.
    pub body: &'a [u8],
    /// The buffer that the frame is in, if that can be shared.
    pub shared: Option<&'a Shared>,
}

/// Copies of header lines.
#[derive(Debug)]
pub(crate) struct OwnedLines(Vec<OwnedLine>);

/// Copy of a header line.
#[derive(Clone, Debug)]
pub struct OwnedLine {
    /// The name, before the first colon.
    pub name: Box<[u8]>,
    /// The value, behind it.
    pub value: Box<[u8]>,
}

impl OwnedLine {
    /// Copies a line.
    pub fn new(name: &[u8], value: &[u8]) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// Memory of a copied line, with the overhead of its allocations, which outweighs the text of a
    /// short one.
    pub fn cost_of(name: &[u8], value: &[u8]) -> usize {
        size_of::<Self>() + allocated_bytes(name) + allocated_bytes(value)
    }
}

impl OwnedLines {
    /// No lines.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Copies lines without unescaping.
    pub(crate) fn copied(headers: &Headers<'_>) -> Self {
        Self(headers.lines().map(|line| OwnedLine::new(line.name, line.value)).collect())
    }

    /// Copies and unescapes lines.
    ///
    /// # Errors
    /// A line holds an escape sequence that the version does not define.
    pub(crate) fn unescaped(
        headers: &Headers<'_>,
        version: Version,
    ) -> Result<Self, UndefinedEscape> {
        let unescape = |line: HeaderLine<'_>| {
            let name = version.unescape(line.name)?;
            Ok(OwnedLine::new(&name, &version.unescape(line.value)?))
        };
        headers.lines().map(unescape).collect::<Result<_, _>>().map(Self)
    }

    /// Borrows the lines.
    pub(crate) fn headers(&self) -> Headers<'_> {
        let mut headers = Headers::new(u32::MAX);
        for OwnedLine { name, value } in &self.0 {
            // There is no bound here: it held when the lines were copied.
            let _ = headers.push(name, value);
        }
        headers
    }

    /// Memory of all lines.
    pub(crate) fn cost_bytes(&self) -> usize {
        self.0.iter().map(|line| OwnedLine::cost_of(&line.name, &line.value)).sum()
    }
}

/// Result of scanning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The frame is whole and has this many bytes.
    Whole(usize),
    /// The frame is torn.
    Partial(Need),
}

/// What has to arrive before another scan can find more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The end of the first line, or more bytes than the longest command has.
    Command,
    /// The end of a line.
    Line,
    /// The NUL that ends a body of unknown length.
    Nul,
    /// This many bytes in all.
    Bytes(usize),
}

impl<'a> Frame<'a> {
    /// Scans a frame at the start of `bytes` into this one, which has to be new; in place, since a
    /// frame is large. Unless the frame is whole, the content here is meaningless.
    ///
    /// # Errors
    /// The first violation of the rules or of a bound, even if the frame is not whole. It is
    /// provisional: [`Self::scan_slow`] decides.
    #[inline]
    pub fn scan(&mut self, bytes: &'a [u8], bounds: &ScanBounds) -> Result<Scan, ScanFault> {
        self.scan_as::<false>(bytes, bounds)
    }

    /// As [`Self::scan`], of a frame that may have `CONTROLS` besides line feeds.
    #[cold] // few clients end lines with CRLF
    fn scan_with_controls(
        &mut self,
        bytes: &'a [u8],
        bounds: &ScanBounds,
    ) -> Result<Scan, ScanFault> {
        *self = Self::default();
        self.scan_as::<true>(bytes, bounds)
    }

    #[inline(always)] // once in each of the two
    fn scan_as<const CONTROLS: bool>(
        &mut self,
        bytes: &'a [u8],
        bounds: &ScanBounds,
    ) -> Result<Scan, ScanFault> {
        let mut feeds = LineFeeds::<true>::new(bytes);
        let end_of = |line: &'a [u8]| if CONTROLS { without_return(line) } else { line };
        let mut next = || if CONTROLS { feeds.next_feed() } else { feeds.next() };
        let Some(feed) = next() else { return partial(bytes, 0, bounds) };
        if !CONTROLS && bytes.get(feed) != Some(&b'\n') {
            return self.scan_with_controls(bytes, bounds);
        }
        self.command = Command::parse(end_of(&bytes[..feed]))?;
        self.headers.allow(bounds.header_count_max);
        let mut at = feed + 1;
        loop {
            let Some(feed) = next() else { return partial(bytes, at, bounds) };
            if !CONTROLS && bytes.get(feed) != Some(&b'\n') {
                return self.scan_with_controls(bytes, bounds);
            }
            let line = end_of(&bytes[at..feed]);
            at = feed + 1;
            check_header_bytes(at, bounds)?;
            match line.first() {
                None => break,
                // STOMP 1.2, "Augmented BNF": a name has at least one byte, a value may have none.
                Some(b':') => return Err(ScanFault::NoName),
                Some(_) => self.headers.push_line(line, false)?,
            };
        }
        if feeds.is_marked_before(at) {
            self.look_at_marks(&bytes[..at])?;
        }
        let end = match body_end(bytes, at, &self.headers, bounds)? {
            Ok(end) => end,
            Err(need) => return Ok(Scan::Partial(need)),
        };
        self.body = &bytes[at..end];
        Ok(Scan::Whole(end + 1))
    }

    /// Takes a second look at a frame in which [`Self::scan`] found a `fault`. The frame may lack
    /// nothing but its empty line. If it is malformed, its receipt may stand behind the fault, or not
    /// have arrived yet.
    ///
    /// # Errors
    /// The frame is malformed, and its header is whole or can no longer become so.
    #[cold] // few frames are malformed or lack their empty line
    pub fn scan_slow(
        &mut self,
        bytes: &'a [u8],
        bounds: &ScanBounds,
        fault: ScanFault,
    ) -> Result<Scan, Box<Malformed>> {
        let outline = Outline::of(bytes, bounds);
        // Takes precedence, so that the fault does not depend on how much has arrived.
        let fault = if outline.is_no_command { ScanFault::UnknownCommand } else { fault };
        // Something other than a STOMP client: it expects no receipt and is refused at once.
        let is_stranger = bounds.login && outline.is_no_command;
        let receipt = || if is_stranger { None } else { outline.receipt() };
        match outline.end {
            HeaderEnd::Torn if !is_stranger => Ok(Scan::Partial(Need::Line)),
            HeaderEnd::Nul { at, in_line } => {
                *self = Self::default();
                let fault = match self.read_lines(&bytes[..outline.lines_end], bounds) {
                    Err(fault) => fault,
                    Ok(()) if in_line || self.command == Command::Send => ScanFault::NulInHeader,
                    Ok(()) => return Ok(Scan::Whole(at + 1)),
                };
                Err(Box::new(Malformed { fault, receipt: receipt() }))
            }
            HeaderEnd::Torn | HeaderEnd::Line | HeaderEnd::Bound => {
                Err(Box::new(Malformed { fault, receipt: receipt() }))
            }
        }
    }

    /// Reads the lines of `head`, all of which are whole, one by one.
    fn read_lines(&mut self, head: &'a [u8], bounds: &ScanBounds) -> Result<(), ScanFault> {
        let mut lines = head
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| without_return(line.strip_suffix(b"\n").unwrap_or(line)));
        self.command = Command::parse(lines.next().unwrap_or_default())?;
        self.headers.allow(bounds.header_count_max);
        for line in lines {
            if line.starts_with(b":") {
                return Err(ScanFault::NoName);
            }
            self.headers.push_line(line, false)?;
        }
        self.look_at_marks(head)
    }

    /// Checks a header that may hold a marked byte (see [`LineFeeds`]).
    #[cold] // few headers have marked bytes
    fn look_at_marks(&mut self, head: &[u8]) -> Result<(), ScanFault> {
        if memchr(0, head).is_some() {
            return Err(ScanFault::NulInHeader);
        }
        if !text::is_text(head) {
            return Err(ScanFault::NotUtf8);
        }
        self.has_backslash = memchr(b'\\', head).is_some();
        self.has_return = memchr_iter(b'\r', head).any(|at| head.get(at + 1) != Some(&b'\n'));
        Ok(())
    }
}

/// What is known of a header even if it is malformed.
struct Outline<'a> {
    /// The command, if its line is whole and names one.
    command: Option<Command>,
    /// Whether the first line, whole or not, cannot be a command.
    is_no_command: bool,
    /// The first value of `receipt`.
    receipt: Option<&'a [u8]>,
    /// End of the last whole line.
    lines_end: usize,
    end: HeaderEnd,
}

/// How a header ends.
enum HeaderEnd {
    /// With an empty line.
    Line,
    /// With a NUL at the beginning of a line or in it, which also ends the frame.
    Nul { at: usize, in_line: bool },
    /// Not within the bound.
    Bound,
    /// Not within the bytes that have arrived.
    Torn,
}

impl<'a> Outline<'a> {
    fn of(bytes: &'a [u8], bounds: &ScanBounds) -> Self {
        let max = bounds.header_bytes_max as usize;
        let first = memchr2(b'\n', 0, bytes).unwrap_or(bytes.len());
        let mut outline = Self {
            command: None,
            is_no_command: first > LONGEST_COMMAND,
            receipt: None,
            lines_end: 0,
            end: HeaderEnd::Torn,
        };
        loop {
            let from = outline.lines_end;
            let Some(length) = memchr2(b'\n', 0, &bytes[from..]) else {
                if bytes.len() > max {
                    outline.end = HeaderEnd::Bound;
                }
                return outline;
            };
            let at = from + length;
            if at >= max {
                outline.end = HeaderEnd::Bound;
                return outline;
            }
            if bytes[at] == 0 {
                outline.end = HeaderEnd::Nul { at, in_line: length > 0 };
                return outline;
            }
            let line = without_return(&bytes[from..at]);
            outline.lines_end = at + 1;
            if from == 0 {
                outline.command = Command::parse(line).ok();
                outline.is_no_command = outline.command.is_none();
            } else if line.is_empty() {
                outline.end = HeaderEnd::Line;
                return outline;
            } else if outline.receipt.is_none() {
                outline.receipt = line.strip_prefix(b"receipt:");
            }
        }
    }

    /// The receipt, if it can be answered: STOMP 1.2, "Standard Headers", excludes CONNECT.
    fn receipt(&self) -> Option<Box<[u8]>> {
        let is_connect = self.command == Some(Command::Connect);
        let receipt = self.receipt.filter(|value| std::str::from_utf8(value).is_ok());
        receipt.filter(|_| !is_connect).map(Into::into)
    }
}

impl Default for Frame<'_> {
    /// A frame to be scanned into.
    #[inline]
    fn default() -> Self {
        Self {
            command: Command::Send,
            headers: Headers::default(),
            has_backslash: false,
            has_return: false,
            body: &[],
            shared: None,
        }
    }
}

/// The bounds on a frame in the connection's current state.
#[derive(Clone, Copy, Debug)]
pub struct ScanBounds {
    /// Bytes of the command and the header lines.
    pub header_bytes_max: u32,
    /// Number of header lines.
    pub header_count_max: u32,
    /// Bytes of the body.
    pub body_bytes_max: u32,
    /// Whether a frame that is too large exceeds `login_frame_bytes_max`.
    pub login: bool,
}

impl ScanBounds {
    /// The bounds for a connection before or after its login.
    pub fn new(limits: &Limits, logged_in: bool) -> Self {
        let login_max = limits.login_frame_bytes_max;
        let cap = if logged_in { u32::MAX } else { login_max };
        Self {
            header_bytes_max: limits.header_bytes_max.min(cap),
            header_count_max: limits.header_count_max,
            body_bytes_max: limits.body_bytes_max.min(cap),
            login: !logged_in,
        }
    }

    fn exceeded(&self, limit: &'static str, max: u32) -> ScanFault {
        let limit = if self.login { "login_frame_bytes_max" } else { limit };
        ScanFault::Exceeds(Exceeded { limit, max: u64::from(max) })
    }
}

/// The commands of clients in STOMP 1.0 to 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Log in; `STOMP` of 1.1 and 1.2 is the same.
    Connect,
    /// Send a message.
    Send,
    /// Begin a subscription.
    Subscribe,
    /// End a subscription.
    Unsubscribe,
    /// Confirm that messages were consumed.
    Ack,
    /// Report that messages were not consumed.
    Nack,
    /// Begin a transaction.
    Begin,
    /// Execute a transaction.
    Commit,
    /// Discard a transaction.
    Abort,
    /// Log out.
    Disconnect,
}

impl Command {
    fn parse(word: &[u8]) -> Result<Self, ScanFault> {
        match word {
            b"SEND" => Ok(Self::Send),
            b"ACK" => Ok(Self::Ack),
            b"NACK" => Ok(Self::Nack),
            b"SUBSCRIBE" => Ok(Self::Subscribe),
            b"UNSUBSCRIBE" => Ok(Self::Unsubscribe),
            b"BEGIN" => Ok(Self::Begin),
            b"COMMIT" => Ok(Self::Commit),
            b"ABORT" => Ok(Self::Abort),
            b"CONNECT" | b"STOMP" => Ok(Self::Connect),
            b"DISCONNECT" => Ok(Self::Disconnect),
            _ => Err(ScanFault::UnknownCommand),
        }
    }

    /// Whether a frame may have a body. STOMP 1.2, "Body": of a client's frames, only SEND. STOMP 1.0,
    /// "SUBSCRIBE": the body is ignored.
    pub fn may_have_body(self, version: Version) -> bool {
        self == Self::Send || (self == Self::Subscribe && version == Version::V1_0)
    }
}

/// A malformed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong with it.
    pub fault: ScanFault,
    /// The receipt that its sender asked for, still escaped.
    pub receipt: Option<Box<[u8]>>,
}

impl From<ScanFault> for Box<Malformed> {
    fn from(fault: ScanFault) -> Self {
        Self::new(Malformed { fault, receipt: None })
    }
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanFault {
    /// The command is not one of a client's.
    UnknownCommand,
    /// A header line has no colon, or no name before it.
    NoName,
    /// A NUL stands before the blank line.
    NulInHeader,
    /// The header is not UTF-8.
    NotUtf8,
    /// `content-length` is not a number.
    MalformedLength,
    /// The body of the announced length is not followed by a NUL.
    NoNul,
    /// Between frames, a carriage return is not followed by a line feed.
    StrayByte,
    /// A bound is exceeded.
    Exceeds(Exceeded),
}

impl From<LineFault> for ScanFault {
    fn from(fault: LineFault) -> Self {
        match fault {
            LineFault::NoColon | LineFault::NoValue => Self::NoName,
            LineFault::Exceeds(exceeded) => Self::Exceeds(exceeded),
        }
    }
}

impl From<Exceeded> for ScanFault {
    fn from(exceeded: Exceeded) -> Self {
        Self::Exceeds(exceeded)
    }
}

/// STOMP 1.2, "Frames": a carriage return may stand before the line feed.
#[inline]
fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Checks a header that is not whole, which may already be malformed.
#[cold] // few frames are torn
fn partial(bytes: &[u8], at: usize, bounds: &ScanBounds) -> Result<Scan, ScanFault> {
    check_header_bytes(bytes.len(), bounds)?;
    if memchr(0, bytes).is_some() {
        return Err(ScanFault::NulInHeader);
    }
    if at == 0 && bytes.len() > LONGEST_COMMAND {
        return Err(ScanFault::UnknownCommand);
    }
    Ok(Scan::Partial(if at == 0 { Need::Command } else { Need::Line }))
}

/// Bytes of `UNSUBSCRIBE` and a carriage return.
pub(super) const LONGEST_COMMAND: usize = 12;

fn check_header_bytes(bytes: usize, bounds: &ScanBounds) -> Result<(), ScanFault> {
    if bytes > bounds.header_bytes_max as usize {
        return Err(bounds.exceeded("header_bytes_max", bounds.header_bytes_max));
    }
    Ok(())
}

/// Position of the NUL that ends the frame, or what has to arrive first.
fn body_end(
    bytes: &[u8],
    from: usize,
    headers: &Headers<'_>,
    bounds: &ScanBounds,
) -> Result<Result<usize, Need>, ScanFault> {
    let too_large = || bounds.exceeded("body_bytes_max", bounds.body_bytes_max);
    let max = bounds.body_bytes_max as usize;
    let Some(length) = headers.value(Name::ContentLength) else {
        let body = &bytes[from..];
        let end = memchr(0, &body[..body.len().min(max + 1)]);
        return match end {
            None if body.len() > max => Err(too_large()),
            None => Ok(Err(Need::Nul)),
            Some(end) => Ok(Ok(from + end)),
        };
    };
    let length = match parse_length(length) {
        Ok(length) => length,
        Err(fault) => return bodiless_end(bytes, from, length, fault),
    };
    if length > max as u64 {
        return Err(too_large());
    }
    let end = from + length as usize;
    match bytes.get(end) {
        None => Ok(Err(Need::Bytes(end + 1))),
        Some(0) => Ok(Ok(end)),
        // STOMP 1.2, "Standard Headers": the frame still needs to be terminated with a NUL byte.
        Some(_) => Err(ScanFault::NoNul),
    }
}

/// STOMP 1.2, "Header content-length": a byte count.
#[inline]
fn parse_length(text: &[u8]) -> Result<u64, ScanFault> {
    let text = text.trim_ascii();
    if text.is_empty() || text.len() > DIGITS_MAX {
        return Err(ScanFault::MalformedLength);
    }
    let mut length = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ScanFault::MalformedLength);
        }
        length = length * 10 + u64::from(digit);
    }
    Ok(length)
}

/// Some clients send a negative length with a frame that has no body.
#[cold] // few clients do
fn bodiless_end(
    bytes: &[u8],
    from: usize,
    length: &[u8],
    fault: ScanFault,
) -> Result<Result<usize, Need>, ScanFault> {
    match bytes.get(from) {
        _ if !is_negative(length) => Err(fault),
        None => Ok(Err(Need::Bytes(from + 1))),
        Some(0) => Ok(Ok(from)),
        Some(_) => Err(fault),
    }
}

fn is_negative(length: &[u8]) -> bool {
    length.trim_ascii().strip_prefix(b"-").is_some_and(|digits| parse_length(digits).is_ok())
}

/// Digits of a number that fits into 64 bits whatever they are.
const DIGITS_MAX: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> ScanBounds {
        ScanBounds::new(&Limits::default(), true)
    }

    fn fault(bytes: &[u8]) -> Option<ScanFault> {
        scan(&mut Frame::default(), bytes, &bounds()).err().map(|malformed| malformed.fault)
    }

    fn scan<'a>(
        frame: &mut Frame<'a>,
        bytes: &'a [u8],
        bounds: &ScanBounds,
    ) -> Result<Scan, Box<Malformed>> {
        frame.scan(bytes, bounds).or_else(|fault| frame.scan_slow(bytes, bounds, fault))
    }

    fn whole(bytes: &[u8]) -> (Frame<'_>, usize) {
        let mut frame = Frame::default();
        match scan(&mut frame, bytes, &bounds()) {
            Ok(Scan::Whole(used)) => (frame, used),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stomp_1_2_frames_are_read_with_lf_and_crlf() {
        let (frame, used) = whole(b"SEND\ndestination:/a\n x : y \n\nhi\0\n\n");
        assert_eq!((frame.command, frame.body, used), (Command::Send, &b"hi"[..], 32));
        let line = frame.headers.user_lines().first().unwrap();
        assert_eq!((line.name, line.value), (&b" x "[..], &b" y "[..]), "nothing is trimmed");
        let (frame, _) = whole(b"SEND\r\ndestination:/a\r\n\r\nhi\r\n\0");
        assert_eq!(frame.headers.value(Name::Destination), Some(&b"/a"[..]));
        assert_eq!(frame.body, b"hi\r\n");
    }

    #[test]
    fn carriage_returns_within_lines_are_noted() {
        for (bytes, expected) in [
            (&b"SEND\r\na:b\r\n\r\n\r\0"[..], false),
            (b"SEND\na:b\rorigin:boss\n\n\0", true),
            (b"SEND\na\r:b\n\n\0", true),
            (b"SEND\na:b\r\r\n\n\0", true),
            (b"DISCONNECT\nreceipt:b\rc\n\0", true),
            (b"DISCONNECT\nreceipt:b\r\n\0", false),
        ] {
            assert_eq!(whole(bytes).0.has_return, expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn stomp_1_2_content_length_counts_bytes_and_a_nul_follows() {
        let (frame, _) = whole("SEND\ncontent-length:4\n\nñ\0x\0".as_bytes());
        assert_eq!(frame.body, "ñ\0x".as_bytes());
        assert_eq!(fault(b"SEND\ncontent-length:1\n\nab\0"), Some(ScanFault::NoNul));
        assert_eq!(fault(b"SEND\ncontent-length:x\n\nab\0"), Some(ScanFault::MalformedLength));
        assert_eq!(fault(b"SEND\ncontent-length:-1\n\nab\0"), Some(ScanFault::MalformedLength));
        whole(b"BEGIN\ntransaction:1\ncontent-length:0\n\n\0");
    }

    #[test]
    fn stomp_1_2_body_only_send_may_have_one() {
        for version in Version::ALL {
            assert!(Command::Send.may_have_body(version));
            assert!(!Command::Begin.may_have_body(version));
            assert!(!Command::Connect.may_have_body(version));
            assert_eq!(Command::Subscribe.may_have_body(version), version == Version::V1_0);
        }
    }

    #[test]
    fn each_kind_of_malformed_frame_has_its_fault() {
        assert_eq!(fault(b"send\n\n\0"), Some(ScanFault::UnknownCommand));
        assert_eq!(fault(b"MESSAGE\n\n\0"), Some(ScanFault::UnknownCommand));
        assert_eq!(fault(b"SEND\nno colon\n\n\0"), Some(ScanFault::NoName));
        assert_eq!(fault(b"SEND\n:no name\n\n\0"), Some(ScanFault::NoName));
        assert_eq!(fault(b"SEND\na:\0\n\n\0"), Some(ScanFault::NulInHeader));
        assert_eq!(fault(b"SEND\na:\xff\n\n\0"), Some(ScanFault::NotUtf8));
        assert_eq!(fault(b"SEND\na:b\n\0"), Some(ScanFault::NulInHeader), "a body may follow");
        assert_eq!(fault(b"ABORT\na:b\0"), Some(ScanFault::NulInHeader));
    }

    #[test]
    fn a_frame_without_a_body_may_lack_its_empty_line() {
        for (bytes, length) in [
            (&b"DISCONNECT\nreceipt:bye\n\0"[..], 24),
            (b"DISCONNECT\r\nreceipt:bye\r\n\0\n", 26),
            (b"DISCONNECT\nreceipt:bye\n\0SEND\nno colon\n\n\0", 24),
            (b"DISCONNECT\nreceipt:bye\n\0a:b\n\n\0", 24),
        ] {
            let (frame, used) = whole(bytes);
            assert_eq!((frame.command, used, frame.body), (Command::Disconnect, length, &b""[..]));
            assert_eq!(frame.headers.value(Name::Receipt), Some(&b"bye"[..]));
        }
        assert_eq!(whole(b"ABORT\n\0").1, 7);
        assert!(whole(b"ABORT\ntransaction:\\c\n\0").0.has_backslash);
        assert_eq!(fault(b"ABORT\n:b\n\0"), Some(ScanFault::NoName));
        assert_eq!(fault(b"ABORT\na:\xff\n\0"), Some(ScanFault::NotUtf8));
    }

    #[test]
    fn a_negative_length_is_accepted_if_there_is_no_body() {
        assert_eq!(whole(b"ABORT\ntransaction:1\ncontent-length:-1\n\n\0").0.body, b"");
        assert_eq!(whole(b"SEND\ncontent-length: -1\n\n\0x").1, 26);
        assert_eq!(fault(b"SEND\ncontent-length:-1\n\nx\0"), Some(ScanFault::MalformedLength));
        assert_eq!(fault(b"SEND\ncontent-length:--1\n\n\0"), Some(ScanFault::MalformedLength));
        let mut frame = Frame::default();
        let scan = frame.scan(b"SEND\ncontent-length:-1\n\n", &bounds()).unwrap();
        assert_eq!(scan, Scan::Partial(Need::Bytes(25)));
    }

    #[test]
    fn stomp_1_2_error_the_receipt_of_a_malformed_frame_is_found() {
        let limits = Limits { header_count_max: 2, body_bytes_max: 9, ..Limits::default() };
        let receipt = |bytes: &[u8], logged_in| {
            let bounds = ScanBounds::new(&limits, logged_in);
            let malformed = scan(&mut Frame::default(), bytes, &bounds).unwrap_err();
            malformed.receipt.map(|receipt| String::from_utf8(receipt.into()).unwrap())
        };
        for bytes in [
            &b"SEND\nreceipt:r\ncontent-length:1\n\nxy\0"[..],
            b"SEND\nreceipt:r\ncontent-length:x\n\n\0",
            b"SEND\nreceipt:r\ncontent-length:-1\n\nx\0",
            b"SEND\nreceipt:r\ncontent-length:10\n\n",
            b"SEND\nreceipt:r\n\n0123456789",
            b"SEND\nno colon\nreceipt:r\n\n\0",
            b"SEND\n:v\nreceipt:r\n\n\0",
            b"SEND\na:\xff\nreceipt:r\n\n\0",
            b"SEND\na:1\nb:2\nc:3\nreceipt:r\nreceipt:s\n\n\0",
            b"SEND\nreceipt:r\na:1\0\n\n\0",
            b"SEND\nreceipt:r\n\0",
        ] {
            assert_eq!(receipt(bytes, true).as_deref(), Some("r"), "{}", bytes.escape_ascii());
            assert_eq!(receipt(bytes, false).as_deref(), Some("r"), "{}", bytes.escape_ascii());
        }
        assert_eq!(receipt(b"FOO\r\nreceipt:r\r\n\r\n", true).as_deref(), Some("r"));
        assert_eq!(receipt(b"FOO\nreceipt:r\n\n", false), None, "it may be no client of STOMP");
        assert_eq!(receipt(b"CONNECT\nreceipt:r\n:\n\n\0", false), None, "CONNECT has none");
        assert_eq!(receipt(b"SEND\na:1\0\nreceipt:r\n\n\0", true), None, "of another frame");
        assert_eq!(receipt(b"SEND\nreceipt:\xff\n\n\0", true), None, "ERROR is UTF-8");
    }

    #[test]
    fn bounds_hold_for_frames_that_are_not_whole() {
        let limits = Limits {
            header_bytes_max: 20,
            body_bytes_max: 4,
            login_frame_bytes_max: 10,
            ..Limits::default()
        };
        let limit = |bytes: &[u8], logged_in| match scan(
            &mut Frame::default(),
            bytes,
            &ScanBounds::new(&limits, logged_in),
        ) {
            Err(malformed) => match malformed.fault {
                ScanFault::Exceeds(exceeded) => exceeded.limit,
                other => panic!("{other:?}"),
            },
            Ok(scan) => panic!("{scan:?}"),
        };
        assert_eq!(limit(b"SEND\nxxxxxxxxxxxxxxxxxxxx", true), "header_bytes_max");
        assert_eq!(limit(b"SEND\nxxxxxxxxxxxxxxxxxxxx", false), "login_frame_bytes_max");
        assert_eq!(limit(b"SEND\n\nabcde", true), "body_bytes_max");
        assert_eq!(limit(b"SEND\ncontent-length:5\n\n", true), "header_bytes_max");
        let limits = Limits { body_bytes_max: 4, ..Limits::default() };
        let bounds = ScanBounds::new(&limits, true);
        let result = scan(&mut Frame::default(), b"SEND\ncontent-length:5\n\n", &bounds);
        let fault = result.unwrap_err().fault;
        assert!(matches!(fault, ScanFault::Exceeds(_)), "before the body arrives");
    }
}
