//! Requests of the standard dialect: what a frame asks for, read and checked, and nothing done yet.

use super::fault::{Code, Fault, Retry};
use super::ids::{DeliveryId, SessionId};
use super::message::{Content, NEVER, UserLines};
use super::{Broker, Moment, printable};
use crate::stomp::{Frame, Headers, Name, Version};

/// A frame's header, from a client that is logged in.
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

/// Where a SEND goes.
#[inline(always)]
pub(super) fn destination_of<'o>(frame: &Frame<'o>) -> Result<&'o [u8], Fault> {
    let destination = frame.headers.value(Name::Destination).filter(|value| !value.is_empty());
    destination.ok_or_else(|| Fault::missing(Name::Destination))
}

/// What a SEND sends.
#[inline(always)]
pub(super) fn content_of<'f>(frame: &'f Frame<'_>, destination: &'f [u8]) -> Content<'f> {
    Content {
        transaction: None,
        destination,
        content_type: frame.headers.value(Name::ContentType),
        has_escapes: frame.has_backslash,
        user_lines: UserLines::of(&frame.headers),
        body: frame.body,
    }
}

/// The last millisecond in which a message may be delivered, by the clock that only goes forward; none,
/// where that is over already. `expiration` says how long it may wait, as with RabbitMQ, `expires` until when, as with ActiveMQ.
#[inline(never)]
pub(super) fn read_expiry(headers: &Headers<'_>, now: Moment) -> Result<Option<u64>, Fault> {
    let number = |name| match headers.value(name) {
        None => Ok(None),
        Some(text) => match parse_digits(text) {
            None => Err(Fault::malformed(name, "is no number of milliseconds")),
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

/// Whether somebody is at the address of a SEND that wants to be refused otherwise.
pub(super) fn check_deliverable(
    broker: &Broker,
    session: SessionId,
    headers: &Headers<'_>,
) -> Result<(), Fault> {
    if headers.value(Name::Undeliverable) != Some(b"error") {
        return Ok(());
    }
    let name = headers.value(Name::Destination).unwrap_or_default();
    // Who may not send there does not learn who is there.
    broker.check_sendable(session, name)?;
    broker.unreachable(name).map_or(Ok(()), Err)
}

/// The message that an ACK or NACK names, if it is one that is still to be settled. STOMP 1.2 names it
/// by `id`, 1.0 and 1.1 by `message-id`; as with RabbitMQ both have the same value, and 1.2 takes
/// either.
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
    // What is not to be acknowledged has a number for an id; to acknowledge it does no harm.
    let number = delivery.map(|one| one.number).or_else(|| parse_digits(id)).ok_or_else(unknown)?;
    if number == 0 || number > broker.last_message {
        return Err(unknown());
    }
    let Some(delivery) = delivery else {
        let other = named.and_then(|id| broker.subscription_by_id(request.session, &id));
        let is_other = other.is_some_and(|index| broker.acknowledges(index));
        return if is_other { Err(of_another(id)) } else { Ok(None) };
    };
    let Some(subscription) = broker.subscriptions.get(delivery.subscription) else {
        // Its subscription may have ended since: that is no fault.
        let is_late = broker.subscriptions.has_issued(delivery.subscription);
        return if is_late { Ok(None) } else { Err(unknown()) };
    };
    if subscription.session != request.session {
        return Err(unknown());
    }
    let own = subscription.standard.as_ref().and_then(|standard| standard.id.as_deref());
    match named {
        Some(named) if own.is_some_and(|own| *own != *named) => Err(of_another(id)),
        _ => Ok(Some(delivery)),
    }
}

/// The fault of an ACK or NACK whose `message-id` and `subscription` do not go together.
fn of_another(id: &[u8]) -> Fault {
    let description =
        format!("the message {} is not of the subscription that is named", printable(id));
    Fault::closing(Code::UnknownId, Retry::Never, description)
}

pub(super) fn parse_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A number of digits only.
fn parse_digits(text: &[u8]) -> Option<u64> {
    text.iter().all(u8::is_ascii_digit).then(|| parse_number(text))?
}

/// An id as the client writes it, which is how it gets it back.
pub(super) fn escaped(version: Version, id: &[u8]) -> Box<[u8]> {
    let mut out = Vec::new();
    version.escape(id, &mut out);
    out.into()
}
