//! The ids of connections, sessions, destinations, subscriptions and groups of them; and of deliveries, as on
//! the wire.

use std::fmt;

use super::table::{Key, Place};

/// The id of an open connection in the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(Place);

impl Key for PeerId {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// The id of a session, that is of a client that is logged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionId(Place);

impl Key for SessionId {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// The id of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DestinationId(Place);

impl Key for DestinationId {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// The id of a subscription within the broker; that of the client is `Standard::id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionIndex(Place);

impl Key for SubscriptionIndex {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// The id of a group of subscriptions by the same pattern, among the groups of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId(Place);

impl Key for GroupId {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// The id of a login that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoginId(Place);

impl Key for LoginId {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// The kind of a group; each has ids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Of topics that a wildcard matches.
    Topics,
    /// Of clients whose address matches.
    Clients,
    /// Of events about clients whose address matches.
    Presence,
}

/// The id of a delivery, which has to be acknowledged: of one message by one subscription. Since ids of
/// subscriptions are not reused, it never names a delivery by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryId {
    /// The subscription by which the message was delivered.
    pub subscription: SubscriptionIndex,
    /// The message's number.
    pub number: u64,
}

impl DeliveryId {
    /// Parses what [`fmt::Display`] writes into `ack` and `message-id` of a MESSAGE. The subscription need
    /// not exist.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.splitn(3, '-');
        let index = parts.next()?.parse().ok()?;
        let generation = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        Some(Self { subscription: SubscriptionIndex(Place::new(index, generation)), number })
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.subscription.0;
        write!(out, "{}-{}-{}", place.index(), place.generation(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_delivery_is_parsed_as_it_is_written() {
        let place = Place::new(7, std::num::NonZeroU32::MAX);
        let id = DeliveryId { subscription: SubscriptionIndex(place), number: u64::MAX };
        assert_eq!(DeliveryId::parse(id.to_string().as_bytes()), Some(id));
        for text in
            ["", "7", "7-1", "7-0-1", "7-1-", "7-1-1-1", "-1-1-1", "7-1-x", "4294967296-1-1"]
        {
            assert_eq!(DeliveryId::parse(text.as_bytes()), None, "{text}");
        }
    }
}
