//! Wide messages: to more receivers than a turn has time for. The message is copied, and its receivers are
//! walked in slices; whoever subscribed before it was sent gets it.

use super::bits::BitSet;
use super::encode::Encodings;
use super::fan::{Fan, Outlet, Seen};
use super::ids::SessionId;
use super::message::{Message, NEVER, Stored};
use super::session::Session;
use super::table::Key;
use super::{Broker, Moment};
use crate::work::{self, Progress};

/// A message on its way to many receivers.
#[derive(Debug)]
pub(super) struct Wide {
    message: Stored,
    fan: Fan,
    /// Slots of the sessions that have got it.
    seen: BitSet,
    /// The session id that classic receivers see instead of their own.
    token: Option<[u8; 32]>,
    arrived_ns: u64,
}

impl Wide {
    /// A message of which nothing was delivered along `fan` yet.
    pub(super) fn new(
        message: &Message<'_>,
        fan: Fan,
        token: Option<&[u8; 32]>,
        now: Moment,
    ) -> Self {
        let (message, token) = (Stored::new(message, NEVER), token.copied());
        Self { message, fan, seen: BitSet::default(), token, arrived_ns: now.ns }
    }

    /// Delivers it to further receivers, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker) -> Progress {
        let Broker { peers, sessions, subscriptions, counters, meter, .. } = broker;
        let content = self.message.content();
        let message = Message {
            number: self.message.number,
            is_redelivered: false,
            origin: &self.message.origin,
            content: &content,
        };
        peers.arena.note_arrival(self.arrived_ns);
        meter.spend(work::FRAME + work::of_bytes(content.body.len()));
        let mut encodings = Encodings::new(&message);
        let mut outlet = Outlet { peers, sessions, subscriptions };
        let (mut seen, token) = (BySlot(&mut self.seen), self.token.as_ref());
        let before = self.fan.deliveries;
        let mut is_over;
        loop {
            is_over = outlet.advance(&mut encodings, &mut self.fan, &mut seen, token, STEP);
            meter.spend(STEP as u32 * work::DELIVERY);
            let pending = outlet.peers.dirty_len() as u64 * u64::from(work::WRITE);
            if is_over || meter.is_spent(pending) {
                break;
            }
        }
        counters.deliveries += self.fan.deliveries - before;
        if is_over { Progress::Ended } else { Progress::More }
    }

    /// The number of sessions that it was queued to.
    pub(super) fn count(&self) -> u32 {
        self.fan.count
    }

    /// Memory of the message.
    pub(super) fn held_bytes(&self) -> u64 {
        size_of::<Self>() as u64 + self.message.cost_bytes()
    }
}

/// Receivers up to which a message is not wide.
pub(super) const NARROW_MAX: usize = 64;

/// Receivers after which is asked whether the share of the turn is used up.
const STEP: usize = 8;

/// [`Seen`] for a walk with stops, in which a session may get other messages in between.
struct BySlot<'s>(&'s mut BitSet);

impl Seen for BySlot<'_> {
    #[inline]
    fn is_first(&mut self, id: SessionId, _: &Session) -> bool {
        !self.0.set(id.place().index(), true)
    }
}
