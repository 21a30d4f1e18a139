//! Requests of the standard dialect: frames parsed and checked, before they have any effect.

use super::fault::{Code, Fault, Retry};
use super::ids::{DeliveryId, SessionId};
use super::message::{Content, NEVER, UserLines};
use super::peer::Beats;
use super::{Broker, Moment, printable};
use crate::stomp::{Frame, Headers, Name, Version};

/// The header of a frame from a client that is logged in.
pub(super) struct Request<'h, 'o> {
    pub(super) session: SessionId,
    pub(super) version: Version,
    pub(super) headers: &'h Headers<'o>,
}

impl<'o> Request<'_, 'o> {
    pub(super) fn required(&self, name: Name) -> Result<&'o [u8], Fault> {
        let value = self.headers.value(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| Fault::missing(name))
    }
}

/// The destination of a SEND.
#[inline(always)] // on the path of a SEND
pub(super) fn destination_of<'o>(frame: &Frame<'o>) -> Result<&'o [u8], Fault> {
    let destination = frame.headers.value(Name::Destination).filter(|value| !value.is_empty());
    destination.ok_or_else(|| Fault::missing(Name::Destination))
}

/// The content of a SEND.
#[inline(always)] // on the path of a SEND
pub(super) fn content_of<'f>(frame: &'f Frame<'_>, destination: &'f [u8]) -> Content<'f> {
    Content {
        transaction: None,
        destination,
        // An empty one would be an error of the broker's for classic receivers.
        content_type: frame.headers.value(Name::ContentType).filter(|one| is_named(one)),
        has_escapes: frame.has_backslash || frame.has_return,
        user_lines: UserLines::of(&frame.headers),
        body: frame.body,
        shared: frame.shared,
    }
}

/// Whether a media type has anything but blanks.
#[inline(always)] // on the path of a SEND
fn is_named(media_type: &[u8]) -> bool {
    media_type.first().is_some_and(|byte| *byte > b' ') || !media_type.trim_ascii().is_empty()
}

/// The last millisecond in which a message may be delivered, by the monotonic clock; `None` if it has
/// expired already. `expiration` is a duration, as with RabbitMQ, `expires` a time, as with ActiveMQ.
#[inline(never)] // few messages expire
pub(super) fn read_expiry(headers: &Headers<'_>, now: Moment) -> Result<Option<u64>, Fault> {
    let number = |name| match headers.value(name) {
        None => Ok(None),
        // What is too large for a number is as good as for ever.
        Some(text) => match parse_digits(text).or_else(|| is_number(text).then_some(NEVER)) {
            None => Err(Fault::malformed(
                name,
                match name {
                    Name::Expires => {
                        "must be a whole number of milliseconds since 1970, 0 for ever"
                    }
                    _ => "must be a whole number of milliseconds",
                },
            )),
            number => Ok(number),
        },
    };
    let age_ms = number(Name::Expiration)?;
    let at_unix_ms = number(Name::Expires)?.filter(|at_ms| *at_ms != 0);
    let by_age_ms = age_ms.map_or(NEVER, |age_ms| now.ms().saturating_add(age_ms));
    let by_time_ms = match at_unix_ms {
        None => NEVER,
        Some(at_ms) if at_ms < now.unix_ms => return Ok(None),
        Some(at_ms) => now.ms().saturating_add(at_ms - now.unix_ms),
    };
    Ok(Some(by_age_ms.min(by_time_ms)))
}

/// Checks that a SEND with `undeliverable:error` has a receiver.
pub(super) fn check_deliverable(
    broker: &mut Broker,
    session: SessionId,
    headers: &Headers<'_>,
) -> Result<(), Fault> {
    if headers.value(Name::Undeliverable) != Some(b"error") {
        return Ok(());
    }
    let name = headers.value(Name::Destination).unwrap_or_default();
    // A client that may not send there does not learn whether anybody is logged in there.
    broker.check_sendable(session, name)?;
    broker.unreachable(name).map_or(Ok(()), Err)
}

/// Checks that no header line of a SEND can be mistaken for one of the broker's own.
#[inline]
pub(super) fn check_disguises(broker: &mut Broker, headers: &Headers<'_>) -> Result<(), Fault> {
    if !headers.has_odd_names() {
        return Ok(());
    }
    broker.meter.spend(headers.odd_names_units());
    headers.disguised_line().map_or(Ok(()), |line| Err(Fault::disguised(line.name)))
}

/// The delivery that an ACK or NACK names; `None` if it does not have to be acknowledged, or its
/// subscription has ended. STOMP 1.2 names it by `id`, 1.0 and 1.1 by `message-id`; as with RabbitMQ both
/// have the same value, and 1.2 takes either.
pub(super) fn find_delivery(
    broker: &Broker,
    request: &Request<'_, '_>,
) -> Result<Option<DeliveryId>, Fault> {
    let has = |name| request.headers.value(name).is_some();
    let by_id = request.version == Version::V1_2 && (has(Name::Id) || !has(Name::MessageId));
    let id = request.required(if by_id { Name::Id } else { Name::MessageId })?;
    let named = request.headers.value(Name::Subscription);
    let named = named.filter(|_| request.version < Version::V1_2);
    let named = named.map(|id| escaped(request.version, id));
    let unknown = || Broker::unknown("message", id);
    let delivery = DeliveryId::parse(id);
    // A message that need not be acknowledged has a number as its id; an ACK of it has no effect.
    let number = delivery.map(|one| one.number).or_else(|| parse_digits(id)).ok_or_else(unknown)?;
    if number == 0 || number > broker.last_message {
        return Err(unknown());
    }
    let Some(delivery) = delivery else {
        let other = named.and_then(|id| broker.subscription_by_id(request.session, &id));
        let is_other = other.is_some_and(|index| broker.acknowledges(index));
        return if is_other { Err(wrong_subscription(id)) } else { Ok(None) };
    };
    let Some(subscription) = broker.subscriptions.get(delivery.subscription) else {
        // An ACK that crosses the end of its subscription is not a fault.
        let is_late = broker.subscriptions.has_issued(delivery.subscription);
        return if is_late { Ok(None) } else { Err(unknown()) };
    };
    if subscription.session != request.session {
        return Err(unknown());
    }
    let own = subscription.standard.as_ref().and_then(|standard| standard.id.as_deref());
    match named {
        Some(named) if own.is_some_and(|own| *own != *named) => Err(wrong_subscription(id)),
        _ => Ok(Some(delivery)),
    }
}

/// The fault of an ACK or NACK whose `message-id` is not of its `subscription`.
fn wrong_subscription(id: &[u8]) -> Fault {
    let description =
        format!("the message {} is not of the subscription that is named", printable(id));
    Fault::closing(Code::UnknownId, Retry::Never, description)
}

pub(super) fn parse_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Parses a number that consists of digits only.
fn parse_digits(text: &[u8]) -> Option<u64> {
    is_number(text).then(|| parse_number(text))?
}

/// Whether it consists of digits only.
fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// An id in the escaped form in which the client wrote it and gets it back.
pub(super) fn escaped(version: Version, id: &[u8]) -> Box<[u8]> {
    let mut out = Vec::new();
    version.escape(id, &mut out);
    out.into()
}

/// Checks that the virtual host is served, if the CONNECT names one.
pub(super) fn check_host(broker: &Broker, headers: &Headers<'_>) -> Result<(), Fault> {
    let Some(host) = headers.value(Name::Host) else { return Ok(()) };
    let hosts = &broker.virtual_hosts;
    if hosts.is_empty() || hosts.iter().any(|one| one.as_bytes() == host) {
        return Ok(());
    }
    let description = format!("the virtual host {} is not served here", printable(host));
    Err(Fault::closing(Code::UnknownHost, Retry::Never, description))
}

/// STOMP 1.2, "Heart-beating": for each direction, the longer of the intervals that one side can and the
/// other wants; none if either is zero.
pub(super) fn agree_on_beats(header: Option<&[u8]>, ours_ms: u32) -> Result<Beats, Fault> {
    let Some(header) = header else { return Ok(Beats::default()) };
    let malformed = || Fault::malformed(Name::HeartBeat, "is not two numbers with a comma between");
    let comma = memchr::memchr(b',', header).ok_or_else(malformed)?;
    let (can, wants) = (&header[..comma], &header[comma + 1..]);
    let parse = |text: &[u8]| match text.trim_ascii() {
        // What is too large for a number is as good as the largest.
        digits if is_number(digits) => {
            Ok(parse_digits(digits).map_or(u32::MAX, |ms| ms.min(u64::from(u32::MAX)) as u32))
        }
        _ => Err(malformed()),
    };
    let agree = |theirs: u32| if theirs == 0 || ours_ms == 0 { 0 } else { theirs.max(ours_ms) };
    Ok(Beats { incoming_ms: agree(parse(can)?), outgoing_ms: agree(parse(wants)?) })
}
