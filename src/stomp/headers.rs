//! The header lines of one frame, borrowed, with every name that the broker acts upon found in
//! constant time.

use memchr::memchr;
use smallvec::SmallVec;

use crate::limits::Exceeded;

/// Header lines in the order of their arrival.
#[derive(Debug)]
pub struct Headers<'a> {
    lines: SmallVec<[HeaderLine<'a>; INLINE_LINES]>,
    /// Where the first line of each known name stands in `lines`, plus one; zero if there is none.
    first: [u8; Name::COUNT],
    /// How many lines pass through.
    user_count: u8,
}

impl<'a> Headers<'a> {
    /// No lines.
    pub fn new() -> Self {
        Self { lines: SmallVec::new(), first: [0; Name::COUNT], user_count: 0 }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When there are already `count_max` lines.
    pub fn push(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        count_max: u32,
    ) -> Result<(), Exceeded> {
        self.push_known(name, value, Name::parse(name), count_max)
    }

    #[inline]
    fn push_known(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        known: Option<Name>,
        count_max: u32,
    ) -> Result<(), Exceeded> {
        let count_max = count_max.min(COUNT_CEILING);
        if self.lines.len() >= count_max as usize {
            return Err(Exceeded { limit: "header_count_max", max: u64::from(count_max) });
        }
        self.lines.push(HeaderLine { name, value, known });
        if known.is_none_or(Name::passes_through) {
            self.user_count += 1;
        }
        if let Some(known) = known {
            let first = &mut self.first[known as usize];
            // STOMP 1.2, "Repeated Header Entries": the first wins.
            if *first == 0 {
                *first = self.lines.len() as u8;
            }
        }
        Ok(())
    }

    /// Adds a line that is still whole, its first colon where it may be. Blanks around name and value
    /// are trimmed if `trims`.
    ///
    /// # Errors
    /// The line has no colon, or there are already `count_max` lines.
    #[inline]
    pub fn push_line(
        &mut self,
        line: &'a [u8],
        trims: bool,
        count_max: u32,
    ) -> Result<&'a [u8], LineFault> {
        let (known, colon) = match Name::leading(line) {
            Some((name, colon)) => (Some(name), colon),
            None => (None, memchr(b':', line).ok_or(LineFault::NoColon)?),
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let (name, trimmed) =
            if trims { (trim_blanks(name), trim_blanks(value)) } else { (name, value) };
        let known = known.or_else(|| Name::parse(name));
        self.push_known(name, trimmed, known, count_max)?;
        Ok(value)
    }

    /// The value of the first line of that name.
    #[inline]
    pub fn value(&self, name: Name) -> Option<&'a [u8]> {
        match self.first[name as usize] {
            0 => None,
            position => Some(self.lines[usize::from(position) - 1].value),
        }
    }

    /// The lines of a SEND whose names mean nothing there to the broker: they pass through unchanged.
    pub fn user_lines(&self) -> impl Iterator<Item = &HeaderLine<'a>> {
        self.lines.iter().filter(|line| line.passes_through())
    }

    /// Whether there are any of those.
    #[inline]
    pub fn has_user_lines(&self) -> bool {
        self.user_count > 0
    }

    /// All lines.
    pub fn lines(&self) -> &[HeaderLine<'a>] {
        &self.lines
    }
}

impl Default for Headers<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// One header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderLine<'a> {
    /// What stands before the first colon.
    pub name: &'a [u8],
    /// What stands after it.
    pub value: &'a [u8],
    /// Which name it is, where the broker acts upon it.
    pub known: Option<Name>,
}

impl HeaderLine<'_> {
    /// Whether it passes from a SEND to its MESSAGE.
    #[inline]
    pub fn passes_through(&self) -> bool {
        self.known.is_none_or(Name::passes_through)
    }
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// It has no colon.
    NoColon,
    /// It is one too many.
    Exceeds(Exceeded),
}

impl From<Exceeded> for LineFault {
    fn from(exceeded: Exceeded) -> Self {
        Self::Exceeds(exceeded)
    }
}

#[inline]
fn trim_blanks(mut octets: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = octets {
        octets = rest;
    }
    while let [rest @ .., b' '] = octets {
        octets = rest;
    }
    octets
}

/// Lines that need no allocation; frames in the field have four to nine.
const INLINE_LINES: usize = 12;

/// `first` counts lines in one octet.
const COUNT_CEILING: u32 = 255;

macro_rules! names {
    ($($variant:ident $text:literal $doc:literal,)*) => {
        /// A header name that the broker acts upon, in one dialect or the other.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Name {
            $(#[doc = $doc] $variant,)*
        }

        impl Name {
            const COUNT: usize = [$(Self::$variant,)*].len();

            /// The name as it stands in a frame. Names are case-sensitive.
            #[inline]
            pub fn parse(name: &[u8]) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// How the name is written in a frame.
            pub fn text(self) -> &'static str {
                const TEXTS: [&[u8]; Name::COUNT] = [$($text,)*];
                std::str::from_utf8(TEXTS[self as usize]).unwrap_or_default()
            }
        }
    };
}

impl Name {
    /// The name that a line begins with, and where its colon stands, for the names of every SEND: they
    /// are told without looking for the colon first.
    #[inline]
    fn leading(line: &[u8]) -> Option<(Self, usize)> {
        let is = |text: &[u8], name| line.starts_with(text).then_some((name, text.len() - 1));
        match line.first()? {
            b'd' => is(b"destination:", Self::Destination),
            b'c' if line.get(8) == Some(&b't') => is(b"content-type:", Self::ContentType),
            b'c' => is(b"content-length:", Self::ContentLength),
            b's' => is(b"session-id:", Self::SessionId),
            b't' => is(b"transaction:", Self::Transaction),
            b'o' => is(b"origin:", Self::Origin),
            b'r' => is(b"receipt:", Self::Receipt),
            _ => None,
        }
    }

    /// Whether a line of that name passes from a SEND to its MESSAGE: STOMP 1.2, "SEND", says so of
    /// all that the user adds, and a name that only other frames give a meaning is the user's. What
    /// a SEND says to the broker, what a MESSAGE says of itself, and secrets do not pass.
    fn passes_through(self) -> bool {
        !matches!(
            self,
            Self::Ack
                | Self::ContentLength
                | Self::ContentType
                | Self::Destination
                | Self::MessageId
                | Self::Origin
                | Self::OriginDestination
                | Self::Passcode
                | Self::Receipt
                | Self::ReceiptId
                | Self::Redelivered
                | Self::SecretKey
                | Self::SessionId
                | Self::Subscription
                | Self::Transaction
                | Self::Undeliverable
        )
    }
}

names! {
    AcceptVersion b"accept-version" "CONNECT: the protocol versions that the client speaks.",
    Ack b"ack" "SUBSCRIBE: how messages are acknowledged.",
    ConnectionId b"connection-id" "Classic CONNECTED and RECEIPT: the number of the connection.",
    ContentLength b"content-length" "The number of octets of the body.",
    ContentType b"content-type" "The media type of the body.",
    Destination b"destination" "Where a frame goes, or what is subscribed.",
    DestinationId b"destination-id" "SUBSCRIBE to presence: which destinations it is about.",
    DestinationType b"destination-type" "SUBSCRIBE: `1` makes the destination a pattern.",
    ErrorCode b"error-code" "ERROR and failed ACK: a stable word.",
    ErrorDescription b"error-desc" "Classic ERROR and ACK: a sentence for people.",
    HeartBeat b"heart-beat" "CONNECT: the intervals of heart-beats.",
    Host b"host" "CONNECT: the virtual host.",
    Id b"id" "SUBSCRIBE, UNSUBSCRIBE: the subscription; ACK, NACK of 1.2: the message.",
    Login b"login" "CONNECT: the login id.",
    MessageId b"message-id" "MESSAGE: its id; ACK, NACK up to 1.1: the message.",
    Origin b"origin" "MESSAGE: the login id of the sender.",
    OriginDestination b"origin-destination" "MESSAGE: the address of the sender.",
    Passcode b"passcode" "CONNECT: the profile key.",
    PrefetchCount b"prefetch-count" "SUBSCRIBE: how many unacknowledged messages are allowed.",
    Receipt b"receipt" "Any frame: a RECEIPT is wanted.",
    ReceiptId b"receipt-id" "RECEIPT: what it answers; classic DISCONNECT: what to answer.",
    Redelivered b"redelivered" "MESSAGE: it was delivered before.",
    SecretKey b"secret-key" "CONNECT: the application key.",
    SessionId b"session-id" "Classic dialect: the session.",
    Snapshot b"snapshot" "SUBSCRIBE to presence: tell who is there already.",
    Subscription b"subscription" "MESSAGE: the subscription; ACK, NACK of 1.1: the same.",
    Transaction b"transaction" "Classic: echoed in the ACK; standard: the transaction.",
    Undeliverable b"undeliverable" "SEND: what to do when nobody is at the destination.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stomp_1_2_repeated_header_entries_the_first_wins() {
        let mut headers = Headers::new();
        for (name, value) in [("x", "0"), ("destination", "/a"), ("x", "1"), ("destination", "/b")]
        {
            headers.push(name.as_bytes(), value.as_bytes(), 9).unwrap();
        }
        assert_eq!(headers.value(Name::Destination), Some(&b"/a"[..]));
        assert_eq!(headers.value(Name::Login), None);
        let users: Vec<_> = headers.user_lines().map(|line| line.value).collect();
        assert_eq!(users, [b"0", b"1"]);
    }

    #[test]
    fn stomp_1_2_send_what_only_other_frames_give_a_meaning_is_the_users() {
        let mut headers = Headers::new();
        for name in ["id", "passcode", "login", "message-id", "host", "session-id", "x"] {
            headers.push(name.as_bytes(), b"", 9).unwrap();
        }
        let users: Vec<_> = headers.user_lines().map(|line| line.name).collect();
        assert_eq!(users, [&b"id"[..], b"login", b"host", b"x"]);
    }

    #[test]
    fn more_lines_than_allowed_name_the_limit() {
        let mut headers = Headers::new();
        headers.push(b"a", b"", 1).unwrap();
        let exceeded = headers.push(b"b", b"", 1).unwrap_err();
        assert_eq!((exceeded.limit, exceeded.max), ("header_count_max", 1));
    }

    #[test]
    fn names_are_case_sensitive_and_know_their_text() {
        assert_eq!(Name::parse(b"Destination"), None);
        assert_eq!(Name::parse(b"error-desc"), Some(Name::ErrorDescription));
        assert_eq!(Name::ErrorDescription.text(), "error-desc");
        assert_eq!(Name::Undeliverable.text(), "undeliverable");
    }
}
