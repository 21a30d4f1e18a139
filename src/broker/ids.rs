//! The ids of what the broker holds, and of a delivery as clients write it.

use std::fmt;

use super::table::{Key, Place};

/// An open connection, as the broker sees it.
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

/// A client that is logged in.
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

/// A destination that exists.
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

/// A subscription that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionIndex(Place);

impl Key for SubscriptionIndex {
    fn new(place: Place) -> Self {
        Self(place)
    }

    fn place(self) -> Place {
        self.0
    }
}

/// A message that a subscription brought and that is to be acknowledged. The same message that comes
/// by another subscription is another delivery, also where that has the place of one that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryId {
    /// By which it came.
    pub subscription: SubscriptionIndex,
    /// The message's number.
    pub number: u64,
}

impl DeliveryId {
    /// Reads what [`fmt::Display`] writes: `ack` and `message-id` of a MESSAGE. The subscription may
    /// have ended, or may never have been.
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
    fn a_delivery_is_found_by_what_is_written_of_it() {
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
