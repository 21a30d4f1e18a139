//! The encodings of a message, each written when the first receiver needs it.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::encoding::Encoding;
use super::ids::{DeliveryId, SubscriptionIndex};
use super::message::{Content, Message, Origin};
use super::peer::Receiver;
use super::subscription::{AckMode, Standard};
use crate::classic;
use crate::outbound::{Encoded, Framing, LaneId, LargeFrame, OutboundArena, OutboundQueue};
use crate::stomp::{self, Version};

/// The encodings of one message so far. Receivers of the same bytes share one frame; those whose frames
/// differ in the head alone share the tail.
#[derive(Debug)]
pub(crate) struct Encodings<'m> {
    message: &'m Message<'m>,
    /// The first whole frame of the first receiver's format, which most others have, too.
    first: Option<Whole<'m>>,
    /// The first whole frame of each other format.
    others: Vec<Whole<'m>>,
    /// Tails by lane, and by whether the head before them has the `message-id`.
    tails: SmallVec<[(LaneId, bool, Encoded); 1]>,
    /// The buffer for heads that go before tails.
    head: Vec<u8>,
    /// Times that the message was written, as a whole or as a tail.
    written: u32,
    /// Units for finding out whether a large body is text.
    checks: u32,
}

/// A whole frame with its format and head, and the tail that was used last with this format, with whether
/// the head before it has the `message-id`.
type Whole<'m> = (Format, Head<'m>, Encoded, Option<(bool, Encoded)>);

/// The format of one receiver's frames.
pub(super) type Format = (Encoding, Framing);

/// The head of a MESSAGE: the lines that depend on the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// The session id that a classic client sees.
    Session(&'a [u8; 32]),
    /// A direct message to a client of the standard dialect without a subscription to its address.
    Inbox,
    /// The id of the subscription, as its client wrote it, if it has one.
    Subscription(Option<&'a [u8]>),
    /// As `Subscription`, with the subscription that has to acknowledge the message.
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

    /// Whether it has the `message-id`, which is then this receiver's own.
    #[inline]
    fn names_message(self) -> bool {
        matches!(self, Self::Acknowledged(..))
    }
}

impl<'m> Encodings<'m> {
    /// No encodings yet.
    #[inline]
    pub(crate) fn new(message: &'m Message<'m>) -> Self {
        let (others, tails, head) = (Vec::new(), SmallVec::new(), Vec::new());
        Self { message, first: None, others, tails, head, written: 0, checks: 0 }
    }

    /// The times that the message was written since the last call.
    pub(super) fn take_written(&mut self) -> u32 {
        std::mem::take(&mut self.written)
    }

    /// The work of finding out whether a large body is text, since the last call.
    pub(super) fn take_checks(&mut self) -> u32 {
        std::mem::take(&mut self.checks)
    }

    /// Queues the message to a receiver that takes it.
    #[inline(always)] // once for each receiver
    pub(super) fn push_to(&mut self, receiver: Receiver<'_>, head: Head<'m>) {
        let format = (receiver.peer.encoding, receiver.peer.framing);
        let queue = &mut receiver.peer.queue;
        match &self.first {
            Some((made_for, made, frame, _)) if *made_for == format && *made == head => {
                receiver.arena.push(queue, *frame);
            }
            Some((made_for, _, _, Some((is_named, tail))))
                if *made_for == format && *is_named == head.names_message() =>
            {
                push_behind(
                    self.message,
                    &mut self.head,
                    receiver.arena,
                    queue,
                    format,
                    head,
                    *tail,
                );
            }
            _ => self.push_other(receiver.arena, queue, format, head),
        }
        receiver.note_queued();
    }

    /// As [`Self::push_to`], with a head that most receivers do not have.
    #[inline(never)] // keeps the common heads' paths short
    pub(super) fn push_to_rare(&mut self, receiver: Receiver<'_>, head: Head<'m>) {
        self.push_to(receiver, head);
    }

    /// Queues the message in another format than that of the first receiver, or for the first time with another
    /// head.
    #[inline(never)] // keeps the common path in `push_to` short
    fn push_other(
        &mut self,
        arena: &mut OutboundArena,
        queue: &mut OutboundQueue,
        format: Format,
        head: Head<'m>,
    ) {
        if self.message.content.shared.is_some()
            && let Some(units) = push_if_large(self.message, arena, queue, format, head)
        {
            self.written += 1;
            self.checks += units;
            return;
        }
        let tail = match self.first.iter().chain(&self.others).find(|made| made.0 == format) {
            Some((_, made, frame, _)) if *made == head => return arena.push(queue, *frame),
            Some((_, _, _, Some((is_named, tail)))) if *is_named == head.names_message() => *tail,
            Some(_) => self.find_tail(arena, format, head.names_message()),
            None => {
                let frame = self.encode(arena, format, head);
                return arena.push(queue, frame);
            }
        };
        push_behind(self.message, &mut self.head, arena, queue, format, head, tail);
    }

    #[inline(never)] // once for each format, not for each receiver
    fn encode(&mut self, arena: &mut OutboundArena, format: Format, head: Head<'m>) -> Encoded {
        self.written += 1;
        let frame = encode_whole(self.message, arena, format, head);
        let made = (format, head, frame, None);
        match &self.first {
            None => self.first = Some(made),
            Some(_) => self.others.push(made),
        }
        frame
    }

    /// The tail for a format of which there is a whole frame already.
    #[cold] // once for each format, not for each receiver
    fn find_tail(&mut self, arena: &mut OutboundArena, format: Format, is_named: bool) -> Encoded {
        let lane = LaneId::tails(format.0.index(), format.1);
        let tail = match self.tails.iter().find(|made| made.0 == lane && made.1 == is_named) {
            Some((_, _, tail)) => *tail,
            None => self.encode_tail(arena, format, is_named),
        };
        let all = self.first.iter_mut().chain(&mut self.others);
        for made in all.filter(|made| made.0 == format) {
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
        self.written += 1;
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
                    // Nothing had to be escaped, so the tail is the same in all versions.
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
    /// Writes the message in an encoding, without framing.
    #[inline(always)] // into `encode_whole`, its only hot caller
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

/// Queues the message if its body is large and can be shared, so that it is not copied. The head is encoded for each
/// receiver. Returns the work of finding out whether the body is text, if it did.
#[cold]
#[inline(never)] // keeps the path of small messages short
pub(super) fn push_if_large(
    message: &Message<'_>,
    arena: &mut OutboundArena,
    queue: &mut OutboundQueue,
    (encoding, framing): Format,
    head: Head<'_>,
) -> Option<u32> {
    let body = message.content.piece()?;
    let mut out = Vec::new();
    write_head(message, head, &mut out);
    match encoding {
        Encoding::Classic => write_classic_lines(message, &mut out),
        Encoding::Standard(version) => {
            write_standard_lines(message, version, head.names_message(), &mut out);
            out.push(b'\n');
        }
    }
    Some(arena.push_large(queue, framing, &LargeFrame::message(&out, &body)))
}

/// Queues a head for one receiver, and a tail that others share. `buffer` is for the head.
#[inline(never)] // once for each receiver, from two places
fn push_behind(
    message: &Message<'_>,
    buffer: &mut Vec<u8>,
    arena: &mut OutboundArena,
    queue: &mut OutboundQueue,
    (_, framing): Format,
    head: Head<'_>,
    tail: Encoded,
) {
    buffer.clear();
    write_head(message, head, buffer);
    arena.push_parts(queue, framing, buffer, tail);
}

/// Encodes a message for one receiver, or for all that get the same bytes.
#[inline(never)] // large, with several callers
pub(super) fn encode_whole(
    message: &Message<'_>,
    arena: &mut OutboundArena,
    (encoding, framing): Format,
    head: Head<'_>,
) -> Encoded {
    let lane = LaneId::messages(encoding.index(), framing);
    arena.encode(lane, framing, |out| message.write(encoding, head, out))
}

#[inline(always)] // the common head is a few copies
fn write_head(message: &Message<'_>, head: Head<'_>, out: &mut Vec<u8>) {
    if let (Head::Session(token), None) = (head, message.content.transaction) {
        return classic::encode::begin_message(out, token);
    }
    write_longer_head(message, head, out);
}

#[inline(never)] // keeps the common head short
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
            // As with RabbitMQ, an ACK of any version may name the message by either header.
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

#[inline(always)] // the path of a classic SEND
fn write_classic(message: &Message<'_>, out: &mut Vec<u8>) {
    write_classic_lines(message, out);
    classic::encode::body(out, message.content.body);
}

/// Writes the lines between the head and the body.
#[inline(always)] // the path of a classic SEND
fn write_classic_lines(message: &Message<'_>, out: &mut Vec<u8>) {
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
}

/// Whether nothing stands behind the colon of a line but blanks.
#[inline]
fn is_blank(value: &[u8]) -> bool {
    match value.first() {
        None => true,
        Some(b'!'..) => false,
        Some(_) => value.trim_ascii_start().is_empty(),
    }
}

#[inline(never)] // few messages have user lines
fn write_user_lines(content: &Content<'_>, out: &mut Vec<u8>) {
    use classic::encode;
    out.push(b'\n');
    content.user_lines.for_each(|name, value| {
        // A line with nothing behind its colon is an error in this dialect.
        if is_blank(value) {
            return;
        }
        encode::value(out, name, content.has_escapes);
        out.push(b':');
        encode::value(out, value, content.has_escapes);
        out.push(b'\n');
    });
    out.push(b'\n');
}

/// Writes the tail behind a head with (`is_named`) or without the `message-id`. Returns whether the
/// versions of the protocol write it differently.
#[inline(never)] // large, with several callers
fn write_standard(
    message: &Message<'_>,
    version: Version,
    is_named: bool,
    out: &mut Vec<u8>,
) -> bool {
    let versions_differ = write_standard_lines(message, version, is_named, out);
    stomp::encode::finish(out, message.content.body);
    versions_differ
}

/// Writes the lines between the head and the body, as [`write_standard`] does.
#[inline(always)] // into `write_standard`, its only hot caller
fn write_standard_lines(
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
    versions_differ
}

/// Writes the header as if nothing had to be escaped, which is nearly always so. Returns the number of
/// lines.
#[inline(always)] // the path of a SEND of the standard dialect
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
    // `destination` is that of the message here.
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

#[cold] // few headers have to be escaped
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
