//! The encodings of a message, each made when the first receiver needs it.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::encoding::Encoding;
use super::ids::{DeliveryId, PeerId, SubscriptionIndex};
use super::message::{Content, Message, Origin};
use super::peer::Peers;
use super::subscription::{AckMode, Standard};
use crate::classic;
use crate::outbound::{Encoded, Framing, LaneId, OutboundArena};
use crate::stomp::{self, Version};

/// What is encoded of one message so far. Receivers that get the same bytes share one frame; those
/// that differ in the head alone share what follows it.
#[derive(Debug)]
pub(crate) struct Encodings<'m> {
    message: &'m Message<'m>,
    /// The first whole frame of each format, and the tail for others of it, once there was one.
    whole: SmallVec<[Whole<'m>; 1]>,
    /// What follows heads that name the message, and others, by the lane of those who read it so.
    tails: SmallVec<[(LaneId, bool, Encoded); 1]>,
    /// Where the heads of tails are written.
    head: Vec<u8>,
}

/// A whole frame: for whom it is, and the tail that others of its format had last, with whether heads
/// name the message before it.
type Whole<'m> = (Format, Head<'m>, Encoded, Option<(bool, Encoded)>);

/// How one receiver reads frames.
pub(super) type Format = (Encoding, Framing);

/// What a frame begins with, and what depends on who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// The session id that a classic client sees.
    Session(&'a [u8; 32]),
    /// A direct message to a client of the standard dialect without a subscription to its address.
    Inbox,
    /// The id of the subscription, as its client wrote it, if it has one.
    Subscription(Option<&'a [u8]>),
    /// The same, and the subscription by which the message is to be acknowledged.
    Acknowledged(Option<&'a [u8]>, SubscriptionIndex),
}

impl<'a> Head<'a> {
    /// The head of a message to a subscription of the standard dialect.
    pub(crate) fn of(subscription: Option<(SubscriptionIndex, &'a Standard)>) -> Self {
        match subscription {
            None => Self::Inbox,
            Some((_, standard)) if standard.mode == AckMode::Auto => {
                Self::Subscription(standard.id.as_deref())
            }
            Some((index, standard)) => Self::Acknowledged(standard.id.as_deref(), index),
        }
    }

    /// Whether it says the `message-id`, which is then this receiver's own.
    #[inline]
    fn names_message(self) -> bool {
        matches!(self, Self::Acknowledged(..))
    }
}

impl<'m> Encodings<'m> {
    /// None yet.
    #[inline]
    pub(crate) fn new(message: &'m Message<'m>) -> Self {
        Self { message, whole: SmallVec::new(), tails: SmallVec::new(), head: Vec::new() }
    }

    /// Queues the message to one receiver, which reads frames of that format; says whether it was
    /// queued.
    #[inline]
    pub(super) fn push_to(
        &mut self,
        peers: &mut Peers,
        receiver: PeerId,
        format: Format,
        head: Head<'m>,
    ) -> bool {
        match self.whole.iter().find(|made| made.0 == format) {
            Some((_, made, frame, _)) if *made == head => peers.push(receiver, *frame),
            Some((_, _, _, Some((is_named, tail)))) if *is_named == head.names_message() => {
                let tail = *tail;
                self.push_parts(peers, receiver, head, tail)
            }
            Some(_) => {
                let tail = self.find_tail(&mut peers.arena, format, head.names_message());
                self.push_parts(peers, receiver, head, tail)
            }
            None => {
                let frame = self.encode(&mut peers.arena, format, head);
                peers.push(receiver, frame)
            }
        }
    }

    #[inline(never)]
    fn encode(&mut self, arena: &mut OutboundArena, format: Format, head: Head<'m>) -> Encoded {
        let frame = encode_whole(self.message, arena, format, head);
        self.whole.push((format, head, frame, None));
        frame
    }

    /// Another receiver has the same format and another head.
    fn push_parts(
        &mut self,
        peers: &mut Peers,
        receiver: PeerId,
        head: Head<'m>,
        tail: Encoded,
    ) -> bool {
        self.head.clear();
        write_head(self.message, head, &mut self.head);
        peers.push_parts(receiver, &self.head, tail)
    }

    /// The tail for a format of which there is a whole frame, behind heads that name the message or not.
    #[cold]
    fn find_tail(&mut self, arena: &mut OutboundArena, format: Format, is_named: bool) -> Encoded {
        let lane = LaneId::tails(format.0.index(), format.1);
        let tail = match self.tails.iter().find(|made| made.0 == lane && made.1 == is_named) {
            Some((_, _, tail)) => *tail,
            None => self.encode_tail(arena, format, is_named),
        };
        for made in self.whole.iter_mut().filter(|made| made.0 == format) {
            made.3 = Some((is_named, tail));
        }
        tail
    }

    fn encode_tail(
        &mut self,
        arena: &mut OutboundArena,
        (encoding, framing): Format,
        is_named: bool,
    ) -> Encoded {
        let lane = LaneId::tails(encoding.index(), framing);
        match encoding {
            Encoding::Classic => {
                let write = |out: &mut Vec<u8>| write_classic(self.message, out);
                let tail = arena.encode_tail(lane, framing, write);
                self.tails.push((lane, is_named, tail));
                tail
            }
            Encoding::Standard(version) => {
                let mut versions_differ = false;
                let tail = arena.encode_tail(lane, framing, |out| {
                    versions_differ = write_standard(self.message, version, is_named, out);
                });
                if versions_differ {
                    self.tails.push((lane, is_named, tail));
                } else {
                    // Nothing had to be escaped: all versions read the same bytes.
                    let lane =
                        |version| LaneId::tails(Encoding::Standard(version).index(), framing);
                    self.tails.extend(Version::ALL.map(|version| (lane(version), is_named, tail)));
                }
                tail
            }
        }
    }
}

impl Message<'_> {
    /// Writes the message as a receiver reads it, without its framing.
    #[inline(always)]
    pub fn write(&self, encoding: Encoding, head: Head<'_>, out: &mut Vec<u8>) {
        write_head(self, head, out);
        match encoding {
            Encoding::Classic => write_classic(self, out),
            Encoding::Standard(version) => {
                write_standard(self, version, head.names_message(), out);
            }
        }
    }
}

/// Encodes a message for one receiver, or for all who read the same bytes.
#[inline(never)]
pub(super) fn encode_whole(
    message: &Message<'_>,
    arena: &mut OutboundArena,
    (encoding, framing): Format,
    head: Head<'_>,
) -> Encoded {
    let lane = LaneId::messages(encoding.index(), framing);
    arena.encode(lane, framing, |out| message.write(encoding, head, out))
}

#[inline(always)]
fn write_head(message: &Message<'_>, head: Head<'_>, out: &mut Vec<u8>) {
    if let (Head::Session(token), None) = (head, message.content.transaction) {
        return classic::encode::begin_message(out, token);
    }
    write_longer_head(message, head, out);
}

#[inline(never)]
fn write_longer_head(message: &Message<'_>, head: Head<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"MESSAGE\n");
    let mut subscription = |id: Option<&[u8]>| {
        if let Some(id) = id {
            classic::encode::plain_header(out, b"subscription", id);
        }
    };
    match head {
        Head::Session(token) => {
            if let Some(transaction) = message.content.transaction {
                classic::encode::plain_header(out, b"transaction", transaction);
            }
            return classic::encode::plain_header(out, b"session-id", token);
        }
        Head::Inbox => return subscription(Some(b"inbox")),
        Head::Subscription(id) => subscription(id),
        Head::Acknowledged(id, index) => {
            subscription(id);
            let id = DeliveryId { subscription: index, number: message.number }.to_string();
            classic::encode::plain_header(out, b"ack", id.as_bytes());
            write_redelivered(message, out);
            // As with RabbitMQ, either header names the message in every version's ACK.
            return classic::encode::plain_header(out, b"message-id", id.as_bytes());
        }
    }
    write_redelivered(message, out);
}

fn write_redelivered(message: &Message<'_>, out: &mut Vec<u8>) {
    if message.is_redelivered {
        out.extend_from_slice(b"redelivered:true\n");
    }
}

#[inline(always)]
fn write_classic(message: &Message<'_>, out: &mut Vec<u8>) {
    use classic::encode;
    let content = message.content;
    out.extend_from_slice(message.origin.lines());
    let content_type = content.content_type.unwrap_or(b"text/plain");
    encode::value(out, content_type, content.has_escapes);
    out.extend_from_slice(b"\ncontent-length:");
    encode::number(out, content.body.len() as u64);
    if content.user_lines.is_empty() {
        out.extend_from_slice(b"\n\n");
    } else {
        write_user_lines(content, out);
    }
    encode::body(out, content.body);
}

#[inline(never)]
fn write_user_lines(content: &Content<'_>, out: &mut Vec<u8>) {
    use classic::encode;
    out.push(b'\n');
    content.user_lines.for_each(|name, value| {
        encode::value(out, name, content.has_escapes);
        out.push(b':');
        encode::value(out, value, content.has_escapes);
        out.push(b'\n');
    });
    out.push(b'\n');
}

/// Writes what follows the head, which may have named the message. Says whether the versions of the
/// protocol write it differently.
#[inline(never)]
fn write_standard(
    message: &Message<'_>,
    version: Version,
    is_named: bool,
    out: &mut Vec<u8>,
) -> bool {
    let from = out.len();
    let lines = write_unescaped(message, is_named, out);
    let versions_differ = !stomp::encode::is_plain(&out[from..], lines);
    if versions_differ {
        out.truncate(from);
        write_escaped(message, version, is_named, out);
    }
    stomp::encode::finish(out, message.content.body);
    versions_differ
}

/// Writes the header as if nothing had to be escaped, which is so nearly always. Says how many lines.
#[inline]
fn write_unescaped(message: &Message<'_>, is_named: bool, out: &mut Vec<u8>) -> u32 {
    use classic::encode::number;
    let content = message.content;
    let mut lines = 4;
    if is_named {
        out.extend_from_slice(b"destination:");
    } else {
        out.extend_from_slice(b"message-id:");
        number(out, message.number);
        out.extend_from_slice(b"\ndestination:");
        lines += 1;
    }
    out.extend_from_slice(content.destination);
    out.push(b'\n');
    let (origin, rest) = message.origin.split_lines();
    out.extend_from_slice(origin);
    // Its `destination` is not the sender's here.
    out.extend_from_slice(b"origin-");
    out.extend_from_slice(rest);
    if let Some(content_type) = content.content_type {
        out.extend_from_slice(content_type);
        out.extend_from_slice(b"\ncontent-length:");
        lines += 1;
    } else {
        out.truncate(out.len() - Origin::BEFORE_TYPE.len());
        out.extend_from_slice(b"content-length:");
    }
    number(out, content.body.len() as u64);
    out.push(b'\n');
    content.user_lines.for_each(|name, value| {
        out.extend_from_slice(name);
        out.push(b':');
        out.extend_from_slice(value);
        out.push(b'\n');
        lines += 1;
    });
    lines
}

#[cold]
fn write_escaped(message: &Message<'_>, version: Version, is_named: bool, out: &mut Vec<u8>) {
    use stomp::encode::header;
    let content = message.content;
    if !is_named {
        classic::encode::number_header(out, "message-id", message.number);
    }
    header(out, version, b"destination", &utf8(content.destination));
    header(out, version, b"origin", message.origin.login());
    header(out, version, b"origin-destination", message.origin.address());
    if let Some(content_type) = content.content_type {
        header(out, version, b"content-type", &utf8(content_type));
    }
    classic::encode::number_header(out, "content-length", content.body.len() as u64);
    content.user_lines.for_each(|name, value| {
        header(out, version, &utf8(name), &utf8(value));
    });
}

/// STOMP 1.2, "Value Encoding": headers are UTF-8. Classic clients may send any bytes.
fn utf8(text: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(text) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(replaced) => Cow::Owned(replaced.into_bytes()),
    }
}
