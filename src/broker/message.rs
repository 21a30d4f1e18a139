//! One message, in neither dialect: on its way, and kept.

use crate::stomp::frame::OwnedLine;
use crate::stomp::{HeaderLine, Headers, Name};

/// A message, borrowed from the frame that brought it or from where it was kept.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its number, which makes its `message-id`.
    pub number: u64,
    /// Whether it was delivered before.
    pub is_redelivered: bool,
    /// Who sent it.
    pub origin: &'a Origin,
    /// What was sent.
    pub content: &'a Content<'a>,
}

/// What a sender says of a message, and the message itself.
#[derive(Debug)]
pub struct Content<'a> {
    /// The classic sender's transaction, which classic receivers see.
    pub transaction: Option<&'a [u8]>,
    /// Where it was sent to.
    pub destination: &'a [u8],
    /// The media type of the body, if the sender named one.
    pub content_type: Option<&'a [u8]>,
    /// Whether the sender wrote something that ends a line, by escaping it.
    pub has_escapes: bool,
    /// Header lines that mean nothing to the broker.
    pub user_lines: UserLines<'a>,
    /// The body.
    pub body: &'a [u8],
}

/// A sender, as its messages tell it: written down once, for all of them have the same to say.
///
/// ```text
/// origin:ana⏎destination:/agent/ana⏎content-type:
/// ```
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// As a classic MESSAGE has it; empty, where nobody has sent anything yet.
    lines: Box<[u8]>,
    login_len: u32,
}

impl Origin {
    /// Of a client with that login id and address. Neither may hold what ends a line.
    pub fn new(login: &[u8], address: &[u8]) -> Self {
        let lines = [Self::BEFORE_LOGIN, login, b"\n", Self::BEFORE_ADDRESS, address, b"\n"];
        let lines = [&lines.concat()[..], Self::BEFORE_TYPE].concat();
        Self { lines: lines.into(), login_len: login.len() as u32 }
    }

    const BEFORE_LOGIN: &[u8] = b"origin:";
    const BEFORE_ADDRESS: &[u8] = b"destination:";
    pub(super) const BEFORE_TYPE: &[u8] = b"content-type:";

    /// Whether it is written down.
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

    /// Bytes that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.lines.len()
    }

    /// Where the login id ends in the lines.
    fn login_end(&self) -> usize {
        Self::BEFORE_LOGIN.len() + self.login_len as usize
    }

    /// All of it, as a classic MESSAGE has it.
    #[inline]
    pub(super) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// The line of the login id, and what is behind it.
    #[inline]
    pub(super) fn split_lines(&self) -> (&[u8], &[u8]) {
        self.lines.split_at(self.login_end() + 1)
    }
}

/// Header lines that pass through, wherever they are.
#[derive(Clone, Copy, Debug)]
pub enum UserLines<'a> {
    /// Among the lines of a frame.
    Frame(&'a [HeaderLine<'a>]),
    /// With a message that was kept.
    Stored(&'a [OwnedLine]),
    /// The broker's own.
    Own(&'a [(&'a [u8], &'a [u8])]),
}

impl<'a> UserLines<'a> {
    /// Those of a frame.
    #[inline]
    pub(crate) fn of(headers: &'a Headers<'_>) -> Self {
        Self::Frame(headers.user_lines())
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

    /// Shows each line's name and value.
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

/// A message that was kept.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its number, which makes its `message-id`.
    pub number: u64,
    /// How often it was given to a consumer of the queue that it is of.
    pub deliveries: u32,
    /// The last millisecond in which it may be delivered, of [`super::Moment::ms`]; or [`NEVER`].
    pub expires_ms: u64,
    transaction: Option<Box<[u8]>>,
    /// Who sent it.
    pub origin: Origin,
    destination: Box<[u8]>,
    content_type: Option<Box<[u8]>>,
    has_escapes: bool,
    user_lines: Vec<OwnedLine>,
    body: Box<[u8]>,
}

/// When a message expires that does not.
pub(crate) const NEVER: u64 = u64::MAX;

impl Stored {
    /// Keeps a message.
    pub(crate) fn new(message: &Message<'_>, expires_ms: u64) -> Self {
        let content = message.content;
        let mut user_lines = Vec::new();
        content.user_lines.for_each(|name, value| user_lines.push(OwnedLine::new(name, value)));
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
            body: content.body.into(),
        }
    }

    /// Makes it what goes to the dead letter queue, where its count begins anew.
    pub(crate) fn bury(&mut self, expires_ms: u64) {
        self.deliveries = 0;
        self.expires_ms = expires_ms;
        let name = Name::DeadLetterReason.text().as_bytes();
        self.user_lines.push(OwnedLine::new(name, b"deliveries_max"));
    }

    /// What was sent, to be delivered.
    pub(crate) fn content(&self) -> Content<'_> {
        Content {
            transaction: self.transaction.as_deref(),
            destination: &self.destination,
            content_type: self.content_type.as_deref(),
            has_escapes: self.has_escapes,
            user_lines: UserLines::Stored(&self.user_lines),
            body: &self.body,
        }
    }

    /// Bytes that it holds.
    pub(crate) fn cost_bytes(&self) -> u64 {
        Self::cost_of(&self.origin, &self.content())
    }

    /// Bytes that a message will hold once it is kept.
    pub(crate) fn cost_of(origin: &Origin, content: &Content<'_>) -> u64 {
        let mut lines = 0;
        content.user_lines.for_each(|name, value| lines += OwnedLine::cost_of(name, value));
        (size_of::<Self>()
            + lines
            + origin.held_bytes()
            + content.transaction.map_or(0, <[u8]>::len)
            + content.destination.len()
            + content.content_type.map_or(0, <[u8]>::len)
            + content.body.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_kept_of_a_message_counts() {
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
        assert!(cost("ana", &many) > least + 100 * each, "lines are kept one by one");
    }
}
