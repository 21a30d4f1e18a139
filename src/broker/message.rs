//! One message on its way, in neither dialect, and its encodings, each made when the first
//! receiver needs it.

use std::borrow::Cow;

use super::peer::{Encoding, PeerId, Peers};
use super::subscription::{AckMode, Standard, SubscriptionIndex};
use crate::classic;
use crate::outbound::{Head, Mark, OutboundArena, OutboundFrame, SharedTail};
use crate::stomp::frame::OwnedLine;
use crate::stomp::{self, HeaderLine, Headers, Version};

/// A message, borrowed from the frame that brought it or from where it was kept.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its number, which makes its `message-id`.
    pub number: u64,
    /// Whether it was delivered before.
    pub is_redelivered: bool,
    /// The classic sender's transaction, which classic receivers see.
    pub transaction: Option<&'a [u8]>,
    /// The login id of the sender.
    pub origin: &'a [u8],
    /// The address of the sender.
    pub origin_destination: &'a [u8],
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
    pub fn of(headers: &'a Headers<'_>) -> Self {
        Self::Frame(if headers.has_user_lines() { headers.lines() } else { &[] })
    }

    /// Shows each line's name and value.
    #[inline]
    pub fn for_each(self, mut show: impl FnMut(&'a [u8], &'a [u8])) {
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

/// What the receivers of one message share, by encoding.
#[derive(Debug)]
pub struct Tails<'a> {
    classic: Option<Tail>,
    standard: [Option<Tail>; 3],
    /// The session id that all classic receivers see: that of the client at the destination, where
    /// the destination is a client's address. Then they share the whole frame.
    watched: Option<&'a [u8; 32]>,
    arrived_ns: u64,
}

/// A shared part, and whether it is text, once anybody asked.
#[derive(Clone, Debug)]
struct Tail {
    bytes: SharedTail,
    text: Option<bool>,
}

impl<'a> Tails<'a> {
    /// None yet, of a message whose frame arrived at that time.
    #[inline]
    pub fn new(watched: Option<&'a [u8; 32]>, arrived_ns: u64) -> Self {
        Self { classic: None, standard: [None, None, None], watched, arrived_ns }
    }

    /// The frame for one receiver. `token` is the receiver's session id.
    #[inline]
    pub fn frame_for(
        &mut self,
        message: &Message<'_>,
        peers: &mut Peers,
        receiver: PeerId,
        token: &[u8; 32],
        subscription: Option<(SubscriptionIndex, &Standard)>,
        scratch: &mut Vec<u8>,
    ) -> OutboundFrame {
        let encoding = peers.peer(receiver).encoding;
        let (head, tail) = match encoding {
            Encoding::Classic => {
                let tail = self.classic.get_or_insert_with(|| {
                    scratch.clear();
                    if let Some(token) = self.watched {
                        scratch.extend_from_slice(b"MESSAGE\n");
                        if let Some(transaction) = message.transaction {
                            classic::encode::plain_header(scratch, b"transaction", transaction);
                        }
                        classic::encode::plain_header(scratch, b"session-id", token);
                    }
                    encode_classic(message, scratch);
                    Tail { bytes: peers.arena.share(scratch), text: None }
                });
                let head = match self.watched {
                    Some(_) => Head::new(),
                    None => classic_head(message, token),
                };
                (head, tail)
            }
            Encoding::Standard(version) => {
                if self.standard[version as usize].is_none() {
                    self.encode_standard(message, version, &mut peers.arena, scratch);
                }
                let tail = self.standard[version as usize].as_mut().expect("encoded above");
                (standard_head(message, subscription), tail)
            }
        };
        let peer = peers.peer(receiver);
        // A classic sender's transaction stands in the head and may hold any octets.
        let is_text = |octets: &[u8]| std::str::from_utf8(octets).is_ok();
        let text = peer.distinguishes_text
            && !peer.prefers_binary
            && *tail.text.get_or_insert_with(|| is_text(tail.bytes.as_ref()))
            && is_text(&head);
        let mark = Mark { arrived_ns: self.arrived_ns, text };
        OutboundFrame { head, tail: Some(tail.bytes.clone()), mark }
    }

    /// Gives up the maker's hold on what was encoded.
    #[inline]
    pub fn retire(self, arena: &mut OutboundArena) {
        if let Some(tail) = self.classic {
            arena.retire(tail.bytes);
        }
        for tail in self.standard.into_iter().flatten() {
            arena.retire(tail.bytes);
        }
    }

    fn encode_standard(
        &mut self,
        message: &Message<'_>,
        version: Version,
        arena: &mut OutboundArena,
        scratch: &mut Vec<u8>,
    ) {
        let versions_differ = encode_standard(message, version, scratch);
        let tail = Tail { bytes: arena.share(scratch), text: None };
        if !versions_differ {
            // Nothing had to be escaped: all versions read the same octets.
            for other in &mut self.standard {
                other.get_or_insert_with(|| tail.clone());
            }
        }
        self.standard[version as usize] = Some(tail);
    }
}

fn classic_head(message: &Message<'_>, token: &[u8; 32]) -> Head {
    let mut head = Head::from_slice(b"MESSAGE\n");
    if let Some(transaction) = message.transaction {
        head.extend_from_slice(b"transaction:");
        head.extend_from_slice(transaction);
        head.push(b'\n');
    }
    head.extend_from_slice(b"session-id:");
    head.extend_from_slice(token);
    head.push(b'\n');
    head
}

fn encode_classic(message: &Message<'_>, out: &mut Vec<u8>) {
    use classic::encode;
    encode::plain_header(out, b"origin", message.origin);
    encode::plain_header(out, b"destination", message.origin_destination);
    // Clients in the field cannot do without this line.
    let content_type = message.content_type.unwrap_or(b"text/plain");
    if message.has_escapes {
        encode::header(out, "content-type", content_type);
    } else {
        encode::plain_header(out, b"content-type", content_type);
    }
    encode::number_header(out, "content-length", message.body.len() as u64);
    message.user_lines.for_each(|name, value| {
        if message.has_escapes {
            encode::user_header(out, name, value);
        } else {
            encode::plain_header(out, name, value);
        }
    });
    encode::finish(out, message.body);
}

fn standard_head(
    message: &Message<'_>,
    subscription: Option<(SubscriptionIndex, &Standard)>,
) -> Head {
    let mut head = Head::from_slice(b"MESSAGE\n");
    let Some((index, standard)) = subscription else {
        head.extend_from_slice(b"subscription:inbox\n");
        return head;
    };
    if let Some(id) = &standard.id {
        head.extend_from_slice(b"subscription:");
        head.extend_from_slice(id);
        head.push(b'\n');
    }
    if standard.mode != AckMode::Auto {
        let line = format!("ack:{}-{}\n", index.number(), message.number);
        head.extend_from_slice(line.as_bytes());
    }
    if message.is_redelivered {
        head.extend_from_slice(b"redelivered:true\n");
    }
    head
}

/// Says whether the versions of the protocol write it differently.
fn encode_standard(message: &Message<'_>, version: Version, out: &mut Vec<u8>) -> bool {
    use stomp::encode;
    out.clear();
    classic::encode::number_header(out, "message-id", message.number);
    let destination = utf8(message.destination);
    let mut differs = encode::header(out, version, b"destination", &destination);
    differs |= encode::header(out, version, b"origin", message.origin);
    differs |= encode::header(out, version, b"origin-destination", message.origin_destination);
    if let Some(content_type) = message.content_type {
        differs |= encode::header(out, version, b"content-type", &utf8(content_type));
    }
    classic::encode::number_header(out, "content-length", message.body.len() as u64);
    message.user_lines.for_each(|name, value| {
        differs |= encode::header(out, version, &utf8(name), &utf8(value));
    });
    encode::finish(out, message.body);
    differs
}

/// STOMP 1.2, "Value Encoding": headers are UTF-8. Classic clients may send any octets.
fn utf8(text: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(text) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(replaced) => Cow::Owned(replaced.into_bytes()),
    }
}
