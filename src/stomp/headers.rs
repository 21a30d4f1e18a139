//! The header lines of one frame, borrowed, with those recognised whose name has a meaning to the
//! broker.

use memchr::memchr;
use smallvec::SmallVec;

use super::lookalike;
use crate::limits::Exceeded;

/// Header lines. Those with the names that most SENDs have are stored by name, all others in a list.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    /// The first value of each frequent name.
    frequent: [Option<&'a [u8]>; Name::FREQUENT],
    /// All other lines, in order of arrival.
    others: SmallVec<[HeaderLine<'a>; INLINE_LINES]>,
    /// Number of lines, including repeated ones; `others.len() ≤ count`.
    count: u32,
    /// Bound on `count`.
    count_max: u32,
    /// Whether any of `others` passes from a SEND to its MESSAGE.
    has_user_lines: bool,
    /// Whether a receiver could read the name of any of `others` as a different one.
    has_odd_names: bool,
}

impl<'a> Headers<'a> {
    /// No lines, with room for `count_max`.
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

    /// The number of lines, including repeated ones.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Sets the bound on lines, before the first is added.
    #[inline]
    pub fn allow(&mut self, count_max: u32) {
        self.count_max = count_max;
    }

    /// Adds a line.
    ///
    /// # Errors
    /// There are too many lines.
    pub fn push(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), Exceeded> {
        self.count_line()?;
        // Such a colon was escaped.
        self.has_odd_names |= memchr(b':', name).is_some();
        let known = Name::parse(name);
        match known.filter(|known| known.is_frequent()) {
            Some(frequent) => self.note_frequent(frequent, value),
            None => self.push_other(HeaderLine { name, value, known }),
        }
        Ok(())
    }

    /// Adds a line that has not been split at its colon. If it `is_classic`, blanks around name and
    /// value are trimmed, and something has to stand behind the colon, if only blanks.
    ///
    /// # Errors
    /// The line has no colon or lacks its value, or there are too many lines.
    #[inline(always)] // once a header line, with `is_classic` known
    pub fn push_line(&mut self, line: &'a [u8], is_classic: bool) -> Result<(), LineFault> {
        self.count_line()?;
        let Some((name, value)) = Name::leading(line) else {
            return self.push_line_slow(line, is_classic);
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

    #[inline(always)] // once a header line
    fn count_line(&mut self) -> Result<(), Exceeded> {
        self.count += 1;
        if self.count > self.count_max { Err(self.exceeded()) } else { Ok(()) }
    }

    #[cold] // ends the connection
    fn exceeded(&self) -> Exceeded {
        Exceeded { limit: "header_count_max", max: u64::from(self.count_max) }
    }

    /// STOMP 1.2, "Repeated Header Entries": the first wins.
    #[inline]
    fn note_frequent(&mut self, name: Name, value: &'a [u8]) {
        self.frequent[name as usize].get_or_insert(value);
    }

    /// Adds a line that does not begin with a frequent name.
    #[inline(never)] // large, and most lines of a SEND are frequent ones
    fn push_line_slow(&mut self, line: &'a [u8], is_classic: bool) -> Result<(), LineFault> {
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

    /// The first line whose name has no meaning to the broker, but reads as one of its own names, or as
    /// empty, to a receiver that trims names or does not unescape them.
    #[inline]
    pub fn disguised_line(&self) -> Option<&HeaderLine<'a>> {
        if self.has_odd_names { self.disguised_line_slow() } else { None }
    }

    /// Whether [`Self::disguised_line`] has names to look at.
    #[inline]
    pub fn has_odd_names(&self) -> bool {
        self.has_odd_names
    }

    /// The work of [`Self::disguised_line`], if there are such names.
    #[cold] // few names are odd
    pub fn odd_names_units(&self) -> u32 {
        let names = self.others.iter().filter(|line| line.known.is_none()).map(|line| line.name);
        names.map(lookalike::units_of_trim).sum::<u32>() + self.others.len() as u32 / NAMES_PER_UNIT
    }

    #[cold] // few names are odd
    fn disguised_line_slow(&self) -> Option<&HeaderLine<'a>> {
        self.others.iter().find(|line| line.known.is_none() && is_disguise(line.name))
    }

    /// The lines without blanks around values, as STOMP 1.0 writes `login: ana` and means `ana`. `None`
    /// if there are no such blanks.
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

    /// Lines of which some pass from a SEND to its MESSAGE, in order of arrival. Empty if none does.
    #[inline]
    pub fn user_lines(&self) -> &[HeaderLine<'a>] {
        if self.has_user_lines { &self.others } else { &[] }
    }

    /// All lines except repeated ones with a frequent name; frequent names come first.
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
    ///
    /// Inlined before a frame is made of it, or the compiler copies the room for lines, which holds
    /// nothing yet: 60 instructions a frame.
    #[inline]
    fn default() -> Self {
        Self::new(0)
    }
}

/// One header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderLine<'a> {
    /// The name, before the first colon.
    pub name: &'a [u8],
    /// The value, behind it.
    pub value: &'a [u8],
    /// The name, if it has a meaning to the broker.
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
    /// It has nothing behind its colon.
    NoValue,
    /// It is one too many.
    Exceeds(Exceeded),
}

impl From<Exceeded> for LineFault {
    fn from(exceeded: Exceeded) -> Self {
        Self::Exceeds(exceeded)
    }
}

/// Whether a receiver reads the name of a user's line as one of the broker's own, or as empty. Receivers
/// of the classic dialect and of STOMP 1.0 end it at a colon, which later versions may escape.
fn is_disguise(name: &[u8]) -> bool {
    let end = memchr(b':', name).unwrap_or(name.len());
    // How a receiver reads other bytes than UTF-8 depends on its decoder.
    let Ok(read) = std::str::from_utf8(&name[..end]) else { return true };
    // What is left is one of the broker's names only if the first graphic characters of ASCII are.
    let from = read.bytes().position(|byte| byte.is_ascii_graphic());
    let graphic = &read.as_bytes()[from.unwrap_or(end)..];
    let len = graphic.iter().take_while(|byte| byte.is_ascii_graphic()).count();
    let known = Name::parse(&graphic[..len]);
    let can_be = len == 0 || known.is_some_and(|known| !known.passes_through());
    can_be && lookalike::trim(read).len() == len
}

#[inline(never)] // few values have blanks
fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
}

/// Lines without a frequent name that need no allocation.
const INLINE_LINES: usize = 8;

/// Names that are compared with those of the broker for a unit of work, without what depends on their characters.
const NAMES_PER_UNIT: u32 = 4;

macro_rules! names {
    ($($variant:ident $text:literal $doc:literal,)*) => {
        /// A header name that has a meaning to the broker, in one dialect or the other.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Name {
            $(#[doc = $doc] $variant,)*
        }

        impl Name {
            const COUNT: usize = [$(Self::$variant,)*].len();

            const ALL: [Self; Self::COUNT] = [$(Self::$variant,)*];

            /// Recognises a name, which is case-sensitive.
            #[inline]
            pub fn parse(name: &[u8]) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name in a frame.
            pub fn text(self) -> &'static str {
                const TEXTS: [&[u8]; Name::COUNT] = [$($text,)*];
                std::str::from_utf8(TEXTS[self as usize]).unwrap_or_default()
            }
        }
    };
}

impl Name {
    /// Number of frequent names, which are the first variants.
    const FREQUENT: usize = 6;

    #[inline]
    fn is_frequent(self) -> bool {
        (self as usize) < Self::FREQUENT
    }

    /// The frequent name that a line begins with, and the value behind its colon. Names are recognised
    /// by their first eight bytes, which saves the search for the colon.
    #[inline(always)] // once a header line
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

    /// Whether a line of that name passes from a SEND to its MESSAGE. STOMP 1.2, "SEND": user-defined
    /// headers do, among them names that have a meaning only in other frames. Headers that instruct the
    /// broker, headers of MESSAGE itself, and secrets do not.
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
    DeadLetterReason b"dead-letter-reason" "MESSAGE of the dead letter queue: why it was moved there.",
    DestinationId b"destination-id" "SUBSCRIBE to presence: the destinations whose presence is reported.",
    DestinationType b"destination-type" "SUBSCRIBE: `1` makes the destination a pattern.",
    ErrorCode b"error-code" "ERROR and failed ACK: a stable code word.",
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
    Resume b"resume" "CONNECT: a takeover inherits the subscriptions of the earlier connection.",
    SecretKey b"secret-key" "CONNECT: the application key.",
    Selector b"selector" "SUBSCRIBE: not supported.",
    Snapshot b"snapshot" "SUBSCRIBE to presence: report who is present already.",
    Subscription b"subscription" "MESSAGE: the subscription; ACK, NACK of 1.1: the same.",
    Undeliverable b"undeliverable" "SEND: what to do if the destination has no receiver.",
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
    fn stomp_1_2_send_names_of_other_frames_pass_through() {
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
                assert!(!is_disguise(name.as_bytes()), "unchanged, the broker replaces it");
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
    fn names_are_recognised_with_and_without_blanks() {
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
    fn names_are_case_sensitive_and_have_their_text() {
        assert_eq!(Name::parse(b"Destination"), None);
        assert_eq!(Name::parse(b"error-desc"), Some(Name::ErrorDescription));
        assert_eq!(Name::ErrorDescription.text(), "error-desc");
        assert_eq!(Name::Undeliverable.text(), "undeliverable");
    }
}
