//! Messages, regardless of dialect: borrowed from a frame, and stored.

use crate::buffer::{
    ALLOCATION_BYTES, Body, Lent, Piece, SHARED_BYTES_MIN, Shared, allocated_bytes,
};
use crate::stomp::frame::OwnedLine;
use crate::stomp::{HeaderLine, Headers, Name};
use crate::work;

/// A message, borrowed from a frame or from a stored message.
#[derive(Debug)]
pub struct Message<'a> {
    /// The number from which its `message-id` is made.
    pub number: u64,
    /// Whether it was delivered before.
    pub is_redelivered: bool,
    /// The sender.
    pub origin: &'a Origin,
    /// The content of the SEND.
    pub content: &'a Content<'a>,
}

/// The content of a SEND.
#[derive(Debug)]
pub struct Content<'a> {
    /// The classic sender's transaction, which classic receivers see.
    pub transaction: Option<&'a [u8]>,
    /// The destination as in the SEND.
    pub destination: &'a [u8],
    /// The media type of the body, if the sender named one.
    pub content_type: Option<&'a [u8]>,
    /// Whether a header may hold a character that ends a line for some receiver, which the sender had escaped or its
    /// version allows.
    pub has_escapes: bool,
    /// Header lines that the broker passes through.
    pub user_lines: UserLines<'a>,
    /// The body.
    pub body: &'a [u8],
    /// The buffer that the body is in, if that can be shared.
    pub shared: Option<&'a Shared>,
}

impl Content<'_> {
    /// The body as a piece of its buffer, if it is large and can be shared.
    #[inline]
    pub(crate) fn piece(&self) -> Option<Piece> {
        self.lent().piece()
    }

    /// The body, with the buffer that it is in.
    #[inline]
    fn lent(&self) -> Lent<'_> {
        Lent { bytes: self.body, shared: self.shared }
    }

    /// Whether the body is so large that it is shared where it can be.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.body.len() >= SHARED_BYTES_MIN
    }

    /// Whether it is written without its body.
    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        self.is_large() && self.shared.is_some()
    }

    /// Whether there are so many lines with escapes that writing them takes long.
    #[inline]
    pub(super) fn has_many_escapes(&self) -> bool {
        self.has_escapes && self.user_lines.len() > ESCAPED_LINES_MAX
    }

    /// The work of writing its user lines once.
    pub(super) fn units_of_lines(&self) -> u32 {
        if self.user_lines.is_empty() {
            return 0;
        }
        let (mut lines, mut bytes) = (0, 0);
        self.user_lines.for_each(|name, value| {
            lines += 1;
            bytes += name.len() + value.len();
        });
        let each = if self.has_escapes { work::ESCAPED_LINE } else { work::WRITTEN_LINE };
        lines * each + work::of_bytes(bytes)
    }

    /// The work of encoding a message with it once.
    pub(super) fn units_of_encoding(&self) -> u32 {
        let body = if self.is_shared() { 0 } else { work::of_bytes(self.body.len()) };
        work::FRAME + body + self.units_of_lines()
    }

    /// The work of copying its lines and its body to keep them.
    pub(super) fn units_of_keeping(&self) -> u32 {
        let body = if self.is_shared() { 0 } else { self.body.len() };
        let lines = self.user_lines.len() * OwnedLine::cost_of(b"a", b"a");
        self.units_of_lines() + (work::KIB + work::FRESH_KIB) * work::of_bytes(body + lines)
    }
}

/// Lines with escapes that are written for each format in one go.
const ESCAPED_LINES_MAX: usize = 64;

/// The header lines by which a message names its sender, encoded once for all messages of a session.
///
/// ```text
/// origin:ana⏎destination:/agent/ana⏎content-type:
/// ```
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The lines of a classic MESSAGE; empty until the session sends.
    lines: Box<[u8]>,
    login_len: u32,
}

impl Origin {
    /// The lines for a login id and an address, neither of which may hold a line end.
    pub fn new(login: &[u8], address: &[u8]) -> Self {
        let lines = [Self::BEFORE_LOGIN, login, b"\n", Self::BEFORE_ADDRESS, address, b"\n"];
        let lines = [&lines.concat()[..], Self::BEFORE_TYPE].concat();
        Self { lines: lines.into(), login_len: login.len() as u32 }
    }

    const BEFORE_LOGIN: &[u8] = b"origin:";
    const BEFORE_ADDRESS: &[u8] = b"destination:";
    pub(super) const BEFORE_TYPE: &[u8] = b"content-type:";

    /// Whether the lines are encoded.
    #[inline]
    pub(crate) fn is_known(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The login id.
    pub(crate) fn login(&self) -> &[u8] {
        &self.lines[Self::BEFORE_LOGIN.len()..self.login_end()]
    }

    /// The address.
    pub(crate) fn address(&self) -> &[u8] {
        let from = self.login_end() + 1 + Self::BEFORE_ADDRESS.len();
        &self.lines[from..self.lines.len() - Self::BEFORE_TYPE.len() - 1]
    }

    /// Size of the lines.
    pub(crate) fn held_bytes(&self) -> usize {
        self.lines.len()
    }

    /// The end of the login id in the lines.
    fn login_end(&self) -> usize {
        Self::BEFORE_LOGIN.len() + self.login_len as usize
    }

    /// The lines of a classic MESSAGE, up to the value of `content-type`.
    #[inline]
    pub(super) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The line with the login id, and the rest.
    #[inline]
    pub(super) fn split_lines(&self) -> (&[u8], &[u8]) {
        self.lines.split_at(self.login_end() + 1)
    }
}

/// Header lines that the broker passes through.
#[derive(Clone, Copy, Debug)]
pub enum UserLines<'a> {
    /// Lines of a frame, among others.
    Frame(&'a [HeaderLine<'a>]),
    /// Lines of a stored message.
    Stored(&'a [OwnedLine]),
    /// Lines of a message of the broker.
    Own(&'a [(&'a [u8], &'a [u8])]),
}

impl<'a> UserLines<'a> {
    /// The user lines of a frame.
    #[inline]
    pub(crate) fn of(headers: &'a Headers<'_>) -> Self {
        Self::Frame(headers.user_lines())
    }

    /// Their number, at most.
    #[inline]
    fn len(self) -> usize {
        match self {
            Self::Frame(lines) => lines.len(),
            Self::Stored(lines) => lines.len(),
            Self::Own(lines) => lines.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        match self {
            Self::Frame(lines) => lines.is_empty(),
            Self::Stored(lines) => lines.is_empty(),
            Self::Own(lines) => lines.is_empty(),
        }
    }

    /// Calls `show` with the name and the value of each line.
    #[inline]
    pub(crate) fn for_each(self, mut show: impl FnMut(&'a [u8], &'a [u8])) {
        match self {
            Self::Frame(lines) => {
                for line in lines.iter().filter(|line| line.passes_through()) {
                    show(line.name, line.value);
                }
            }
            Self::Stored(lines) => lines.iter().for_each(|line| show(&line.name, &line.value)),
            Self::Own(lines) => lines.iter().for_each(|(name, value)| show(name, value)),
        }
    }
}

/// A message that waits in a queue or for an acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// The number from which its `message-id` is made.
    pub number: u64,
    /// How often it was delivered to a consumer.
    pub deliveries: u32,
    /// The last millisecond in which it may be delivered, of [`super::Moment::ms`]; or [`NEVER`].
    pub expires_ms: u64,
    transaction: Option<Box<[u8]>>,
    /// The sender.
    pub origin: Origin,
    destination: Box<[u8]>,
    content_type: Option<Box<[u8]>>,
    has_escapes: bool,
    user_lines: Vec<OwnedLine>,
    body: Body,
}

/// The expiry of a message that does not expire.
pub(crate) const NEVER: u64 = u64::MAX;

impl Stored {
    /// Copies a message.
    pub(crate) fn new(message: &Message<'_>, expires_ms: u64) -> Self {
        let content = message.content;
        let mut user_lines = Vec::new();
        content.user_lines.for_each(|name, value| user_lines.push(OwnedLine::new(name, value)));
        user_lines.shrink_to_fit();
        Self {
            number: message.number,
            deliveries: 0,
            expires_ms,
            origin: message.origin.clone(),
            transaction: content.transaction.map(Into::into),
            destination: content.destination.into(),
            content_type: content.content_type.map(Into::into),
            has_escapes: content.has_escapes,
            user_lines,
            body: Body::new(content.lent()),
        }
    }

    /// Turns it into a dead letter: deliveries are counted anew, and a header line gives the reason.
    pub(crate) fn make_dead_letter(&mut self, expires_ms: u64) {
        self.deliveries = 0;
        self.expires_ms = expires_ms;
        let name = Name::DeadLetterReason.text().as_bytes();
        self.user_lines.push(OwnedLine::new(name, b"deliveries_max"));
    }

    /// Frees all but the number.
    pub(crate) fn hollow(&mut self) {
        *self = Self { number: self.number, ..Self::default() };
    }

    /// The work of freeing its lines and its body.
    pub(crate) fn units_of_end(&self) -> u32 {
        let Lent { bytes, shared } = self.body.lent();
        let body = if shared.is_some() { work::of_freed(bytes.len() as u64) } else { 0 };
        self.user_lines.len() as u32 * work::FREED_LINE + body
    }

    /// The content, for a delivery.
    pub(crate) fn content(&self) -> Content<'_> {
        let Lent { bytes: body, shared } = self.body.lent();
        Content {
            transaction: self.transaction.as_deref(),
            destination: &self.destination,
            content_type: self.content_type.as_deref(),
            has_escapes: self.has_escapes,
            user_lines: UserLines::Stored(&self.user_lines),
            body,
            shared,
        }
    }

    /// Memory of the message, without the bookkeeping of where it is.
    pub(crate) fn cost_bytes(&self) -> u64 {
        Self::cost_of(&self.origin, &self.content())
    }

    /// Memory of a message once it is stored.
    pub(crate) fn cost_of(origin: &Origin, content: &Content<'_>) -> u64 {
        let mut lines = 0;
        content.user_lines.for_each(|name, value| lines += OwnedLine::cost_of(name, value));
        let copied = allocated_bytes;
        (size_of::<Self>()
            + 2 * ALLOCATION_BYTES
            + lines
            + ALLOCATION_BYTES
            + origin.held_bytes()
            + content.transaction.map_or(0, copied)
            + copied(content.destination)
            + content.content_type.map_or(0, copied)
            + Body::cost_of(content.lent())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_stored_message_counts() {
        let cost = |origin: &str, content: &Content<'_>| {
            Stored::cost_of(&Origin::new(origin.as_bytes(), b"/agent/ana"), content)
        };
        let content = || Content {
            transaction: None,
            destination: b"/queue/a",
            content_type: None,
            has_escapes: false,
            user_lines: UserLines::Own(&[]),
            body: b"",
            shared: None,
        };
        let long = [b'x'; 1000];
        let least = cost("ana", &content());
        let lines: &[(&[u8], &[u8])] = &[(b"k", &long)];
        for (what, more) in [
            ("transaction", Content { transaction: Some(&long), ..content() }),
            ("destination", Content { destination: &long, ..content() }),
            ("content-type", Content { content_type: Some(&long), ..content() }),
            ("lines", Content { user_lines: UserLines::Own(lines), ..content() }),
            ("body", Content { body: &long, ..content() }),
        ] {
            assert!(cost("ana", &more) >= least + 900, "{what}");
        }
        assert!(cost(std::str::from_utf8(&long).unwrap(), &content()) > least + 900);
        let short = [(&b"k"[..], &b"v"[..]); 100];
        let many = Content { user_lines: UserLines::Own(&short), ..content() };
        let each = size_of::<OwnedLine>() as u64;
        assert!(cost("ana", &many) > least + 100 * each, "lines are stored one by one");
    }
}
