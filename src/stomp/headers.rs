//! The header lines of one frame, borrowed, with every name that the broker acts upon told from
//! those that mean nothing to it.

use memchr::memchr;
use smallvec::SmallVec;

use super::lookalike;
use crate::limits::Exceeded;

/// Header lines. Those that every SEND may have are found at once, the others are looked for.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    /// The first value of each frequent name.
    frequent: [Option<&'a [u8]>; Name::FREQUENT],
    /// All other lines, in the order of their arrival.
    others: SmallVec<[HeaderLine<'a>; INLINE_LINES]>,
    /// Lines, repeated ones counted as well; `others.len() ≤ count`.
    count: u32,
    /// How many there may be.
    count_max: u32,
    /// Whether any of `others` passes through.
    has_user_lines: bool,
    /// Whether the name of any of `others` could read as another to a receiver.
    has_odd_names: bool,
}

impl<'a> Headers<'a> {
    /// No lines, of which there may be `count_max`.
    #[inline]
    pub fn new(count_max: u32) -> Self {
        Self {
            frequent: [None; Name::FREQUENT],
            others: SmallVec::new(),
            count: 0,
            count_max,
            has_user_lines: false,
            has_odd_names: false,
        }
    }

    /// Sees to it that there may be `count_max` lines. There must be none yet.
    #[inline]
    pub fn allow(&mut self, count_max: u32) {
        self.count_max = count_max;
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When there are more than there may be.
    pub fn push(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), Exceeded> {
        self.count_line()?;
        // Escaped, it was in the name.
        self.has_odd_names |= memchr(b':', name).is_some();
        let known = Name::parse(name);
        match known.filter(|known| known.is_frequent()) {
            Some(frequent) => self.note_frequent(frequent, value),
            None => self.push_other(HeaderLine { name, value, known }),
        }
        Ok(())
    }

    /// Adds a line that is still whole, its first colon where it may be. Where it `is_classic`, blanks
    /// around name and value are trimmed, and something has to stand behind the colon, if only blanks.
    ///
    /// # Errors
    /// The line has no colon or no value that it needs, or there are more than there may be.
    #[inline(always)]
    pub fn push_line(&mut self, line: &'a [u8], is_classic: bool) -> Result<(), LineFault> {
        self.count_line()?;
        let Some((name, value)) = Name::leading(line) else {
            return self.split_line(line, is_classic);
        };
        if !is_classic {
            self.note_frequent(name, value);
            return Ok(());
        }
        let (Some(first), Some(last)) = (value.first(), value.last()) else {
            return Err(LineFault::NoValue);
        };
        let has_blanks = *first == b' ' || *last == b' ';
        self.note_frequent(name, if has_blanks { trim_blanks(value) } else { value });
        Ok(())
    }

    #[inline(always)]
    fn count_line(&mut self) -> Result<(), Exceeded> {
        self.count += 1;
        if self.count > self.count_max { Err(self.exceeded()) } else { Ok(()) }
    }

    #[cold]
    fn exceeded(&self) -> Exceeded {
        Exceeded { limit: "header_count_max", max: u64::from(self.count_max) }
    }

    /// STOMP 1.2, "Repeated Header Entries": the first wins.
    #[inline]
    fn note_frequent(&mut self, name: Name, value: &'a [u8]) {
        self.frequent[name as usize].get_or_insert(value);
    }

    /// Adds a line that begins with no frequent name, as it stands.
    #[inline(never)]
    fn split_line(&mut self, line: &'a [u8], is_classic: bool) -> Result<(), LineFault> {
        let colon = memchr(b':', line).ok_or(LineFault::NoColon)?;
        let (mut name, mut value) = (&line[..colon], &line[colon + 1..]);
        if is_classic {
            if value.is_empty() {
                return Err(LineFault::NoValue);
            }
            (name, value) = (trim_blanks(name), trim_blanks(value));
        }
        let known = Name::parse(name);
        match known.filter(|known| known.is_frequent()) {
            Some(frequent) => self.note_frequent(frequent, value),
            None => self.push_other(HeaderLine { name, value, known }),
        }
        Ok(())
    }

    fn push_other(&mut self, line: HeaderLine<'a>) {
        self.has_user_lines |= line.passes_through();
        let is_graphic = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
        self.has_odd_names |= !is_graphic(line.name.first()) || !is_graphic(line.name.last());
        self.others.push(line);
    }

    /// The first line whose name is none of the broker's, and is one, or is empty, to a receiver that
    /// trims names or does not unescape them.
    #[inline]
    pub fn disguised_line(&self) -> Option<&HeaderLine<'a>> {
        if self.has_odd_names { self.find_disguised_line() } else { None }
    }

    #[cold]
    fn find_disguised_line(&self) -> Option<&HeaderLine<'a>> {
        self.others.iter().find(|line| line.known.is_none() && is_disguise(line.name))
    }

    /// STOMP 1.0 writes `login: ana` where it means `ana`: drops the blanks around values. Says `None`
    /// where there are none.
    pub fn with_trimmed_values(&self) -> Option<Self> {
        let is_blank = |value: &[u8]| value.trim_ascii().len() < value.len();
        if !self.lines().any(|line| is_blank(line.value)) {
            return None;
        }
        let mut trimmed = self.clone();
        trimmed.frequent.iter_mut().flatten().for_each(|value| *value = value.trim_ascii());
        trimmed.others.iter_mut().for_each(|line| line.value = line.value.trim_ascii());
        Some(trimmed)
    }

    /// The value of the first line of that name.
    #[inline]
    pub fn value(&self, name: Name) -> Option<&'a [u8]> {
        if name.is_frequent() {
            return self.frequent[name as usize];
        }
        self.others.iter().find(|line| line.known == Some(name)).map(|line| line.value)
    }

    /// Lines of which some pass from a SEND to its MESSAGE, in the order of their arrival; none, if
    /// none does.
    #[inline]
    pub fn user_lines(&self) -> &[HeaderLine<'a>] {
        if self.has_user_lines { &self.others } else { &[] }
    }

    /// All lines, but for repeated ones of the frequent names, which come first.
    pub fn lines(&self) -> impl Iterator<Item = HeaderLine<'a>> {
        let frequent = self.frequent.iter().zip(Name::ALL).filter_map(|(value, name)| {
            let (text, known) = (name.text().as_bytes(), Some(name));
            value.map(|value| HeaderLine { name: text, value, known })
        });
        frequent.chain(self.others.iter().copied())
    }
}

impl Default for Headers<'_> {
    /// No lines, and no room for any.
    fn default() -> Self {
        Self::new(0)
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
    /// Nothing stands behind its colon.
    NoValue,
    /// It is one too many.
    Exceeds(Exceeded),
}

impl From<Exceeded> for LineFault {
    fn from(exceeded: Exceeded) -> Self {
        Self::Exceeds(exceeded)
    }
}

/// Whether the name of a user's line stands for one of the broker's own, or for none at all. Receivers
/// of the classic dialect and of STOMP 1.0 end it at a colon, which later versions may escape.
fn is_disguise(name: &[u8]) -> bool {
    let end = memchr(b':', name).unwrap_or(name.len());
    // What is not UTF-8 reads as anything, by how it is decoded.
    let Ok(read) = std::str::from_utf8(&name[..end]) else { return true };
    let read = lookalike::trim(read);
    let known = Name::parse(read.as_bytes());
    read.is_empty() || known.is_some_and(|known| !known.passes_through())
}

#[inline(never)]
fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
}

/// Lines besides the frequent ones that need no allocation.
const INLINE_LINES: usize = 8;

macro_rules! names {
    ($($variant:ident $text:literal $doc:literal,)*) => {
        /// A header name that the broker acts upon, in one dialect or the other.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Name {
            $(#[doc = $doc] $variant,)*
        }

        impl Name {
            const COUNT: usize = [$(Self::$variant,)*].len();

            const ALL: [Self; Self::COUNT] = [$(Self::$variant,)*];

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
    /// How many names every SEND may have. They are the first.
    const FREQUENT: usize = 6;

    #[inline]
    fn is_frequent(self) -> bool {
        (self as usize) < Self::FREQUENT
    }

    /// The frequent name that a line begins with, and what stands behind its colon: they are told by
    /// their first eight bytes, without looking for the colon first.
    #[inline(always)]
    fn leading(line: &[u8]) -> Option<(Self, &[u8])> {
        const DESTINATION: u64 = u64::from_ne_bytes(*b"destinat");
        const CONTENT: u64 = u64::from_ne_bytes(*b"content-");
        const SESSION: u64 = u64::from_ne_bytes(*b"session-");
        const TRANSACTION: u64 = u64::from_ne_bytes(*b"transact");
        const RECEIPT: u64 = u64::from_ne_bytes(*b"receipt:");
        let (first, rest) = line.split_first_chunk()?;
        let (name, value) = match u64::from_ne_bytes(*first) {
            DESTINATION => (Self::Destination, rest.strip_prefix(b"ion:")),
            SESSION => (Self::SessionId, rest.strip_prefix(b"id:")),
            CONTENT => match rest.strip_prefix(b"type:") {
                Some(value) => (Self::ContentType, Some(value)),
                None => (Self::ContentLength, rest.strip_prefix(b"length:")),
            },
            TRANSACTION => (Self::Transaction, rest.strip_prefix(b"ion:")),
            RECEIPT => (Self::Receipt, Some(rest)),
            _ => return None,
        };
        Some((name, value?))
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
                | Self::DeadLetterReason
                | Self::Destination
                | Self::ErrorCode
                | Self::ErrorDescription
                | Self::Event
                | Self::MessageId
                | Self::Origin
                | Self::OriginDestination
                | Self::Passcode
                | Self::Receipt
                | Self::ReceiptId
                | Self::Redelivered
                | Self::SecretKey
                | Self::SessionId
                | Self::Snapshot
                | Self::Subscription
                | Self::Transaction
                | Self::Undeliverable
        )
    }
}

names! {
    Destination b"destination" "Where a frame goes, or what is subscribed.",
    ContentType b"content-type" "The media type of the body.",
    ContentLength b"content-length" "The number of bytes of the body.",
    SessionId b"session-id" "Classic dialect: the session.",
    Transaction b"transaction" "Classic: echoed in the ACK; standard: the transaction.",
    Receipt b"receipt" "Any frame: a RECEIPT is wanted.",
    AcceptVersion b"accept-version" "CONNECT: the protocol versions that the client speaks.",
    Ack b"ack" "SUBSCRIBE: how messages are acknowledged.",
    ConnectionId b"connection-id" "Classic CONNECTED and RECEIPT: the number of the connection.",
    DeadLetterReason b"dead-letter-reason" "MESSAGE of the dead letter queue: why it is there.",
    DestinationId b"destination-id" "SUBSCRIBE to presence: which destinations it is about.",
    DestinationType b"destination-type" "SUBSCRIBE: `1` makes the destination a pattern.",
    ErrorCode b"error-code" "ERROR and failed ACK: a stable word.",
    ErrorDescription b"error-desc" "Classic ERROR and ACK: a sentence for people.",
    Event b"event" "MESSAGE of presence: what happened.",
    Expiration b"expiration" "SEND: for how many milliseconds the message may wait.",
    Expires b"expires" "SEND: until which millisecond since 1970 the message may be delivered.",
    HeartBeat b"heart-beat" "CONNECT: the intervals of heart-beats.",
    Host b"host" "CONNECT: the virtual host.",
    Inbox b"inbox" "CONNECT: direct messages are wanted without a subscription.",
    Id b"id" "SUBSCRIBE, UNSUBSCRIBE: the subscription; ACK, NACK of 1.2: the message.",
    Login b"login" "CONNECT: the login id.",
    MessageId b"message-id" "MESSAGE: its id; ACK, NACK up to 1.1: the message.",
    Origin b"origin" "MESSAGE: the login id of the sender.",
    OriginDestination b"origin-destination" "MESSAGE: the address of the sender.",
    Passcode b"passcode" "CONNECT: the profile key.",
    PrefetchCount b"prefetch-count" "SUBSCRIBE: how many unacknowledged messages are allowed.",
    ReceiptId b"receipt-id" "RECEIPT: what it answers; classic DISCONNECT: what to answer.",
    Redelivered b"redelivered" "MESSAGE: it was delivered before.",
    Resume b"resume" "CONNECT: a takeover has the subscriptions of the earlier connection.",
    SecretKey b"secret-key" "CONNECT: the application key.",
    Selector b"selector" "SUBSCRIBE: not served.",
    Snapshot b"snapshot" "SUBSCRIBE to presence: tell who is there already.",
    Subscription b"subscription" "MESSAGE: the subscription; ACK, NACK of 1.1: the same.",
    Undeliverable b"undeliverable" "SEND: what to do when nobody is at the destination.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stomp_1_2_repeated_header_entries_the_first_wins() {
        let mut headers = Headers::new(9);
        for (name, value) in [("x", "0"), ("destination", "/a"), ("x", "1"), ("destination", "/b")]
        {
            headers.push(name.as_bytes(), value.as_bytes()).unwrap();
        }
        assert_eq!(headers.value(Name::Destination), Some(&b"/a"[..]));
        assert_eq!(headers.value(Name::Login), None);
        let users: Vec<_> = headers.user_lines().iter().map(|line| line.value).collect();
        assert_eq!(users, [b"0", b"1"]);
    }

    #[test]
    fn stomp_1_2_send_what_only_other_frames_give_a_meaning_is_the_users() {
        let mut headers = Headers::new(9);
        for name in ["id", "passcode", "login", "message-id", "host", "session-id", "x"] {
            headers.push(name.as_bytes(), b"").unwrap();
        }
        let users = headers.user_lines().iter().filter(|line| line.passes_through());
        let users: Vec<_> = users.map(|line| line.name).collect();
        assert_eq!(users, [&b"id"[..], b"login", b"host", b"x"]);
    }

    #[test]
    fn a_name_that_reads_as_one_of_the_brokers_is_a_disguise() {
        let blanks =
            ["\t", " ", "\r", "\n", "\x0b", "\x0c", "\x1c", "\x1f", "\x01", "\u{7f}", "\u{85}"];
        let more = [
            "\u{a0}", "\u{1680}", "\u{180e}", "\u{2000}", "\u{200a}", "\u{200b}", "\u{2028}",
            "\u{2029}", "\u{202f}", "\u{205f}", "\u{2060}", "\u{3000}", "\u{feff}",
        ];
        let is_disguise = |name: &[u8]| {
            let mut headers = Headers::new(9);
            headers.push(name, b"v").unwrap();
            headers.disguised_line().is_some()
        };
        for blank in blanks.into_iter().chain(more) {
            for name in Name::ALL {
                let owned = !name.passes_through();
                let name = name.text();
                assert_eq!(
                    is_disguise(format!("{blank}{name}").as_bytes()),
                    owned,
                    "{blank:?}{name}"
                );
                assert_eq!(
                    is_disguise(format!("{name}{blank}").as_bytes()),
                    owned,
                    "{name}{blank:?}"
                );
                assert!(!is_disguise(name.as_bytes()), "as it is, the broker's replaces it");
            }
            assert!(is_disguise(blank.as_bytes()), "{blank:?}");
            assert!(!is_disguise(format!("{blank}k{blank}").as_bytes()), "{blank:?}");
        }
        assert!(is_disguise(b""));
        assert!(is_disguise(b"origin:boss") && is_disguise(b":") && is_disguise(b" origin\t:x"));
        assert!(is_disguise(b"\xa0origin"), "decoded as Latin-1");
        assert!(
            !is_disguise(b"k:origin") && !is_disguise("ñ".as_bytes()) && !is_disguise(b"Origin")
        );
    }

    #[test]
    fn more_lines_than_allowed_name_the_limit() {
        let mut headers = Headers::new(1);
        headers.push(b"a", b"").unwrap();
        let exceeded = headers.push(b"b", b"").unwrap_err();
        assert_eq!((exceeded.limit, exceeded.max), ("header_count_max", 1));
    }

    #[test]
    fn frequent_names_are_told_however_they_stand_in_a_line() {
        for (index, name) in Name::ALL.into_iter().enumerate() {
            for line in [format!("{}:1", name.text()), format!(" {} : 1 ", name.text())] {
                let mut headers = Headers::new(9);
                headers.push_line(line.as_bytes(), true).unwrap();
                assert_eq!(headers.value(name), Some(&b"1"[..]), "{line}");
                assert_eq!(headers.others.is_empty(), index < Name::FREQUENT, "{line}");
                assert_eq!(headers.lines().count(), 1, "{line}");
            }
        }
    }

    #[test]
    fn names_are_case_sensitive_and_know_their_text() {
        assert_eq!(Name::parse(b"Destination"), None);
        assert_eq!(Name::parse(b"error-desc"), Some(Name::ErrorDescription));
        assert_eq!(Name::ErrorDescription.text(), "error-desc");
        assert_eq!(Name::Undeliverable.text(), "undeliverable");
    }
}
