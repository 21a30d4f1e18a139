//! The receivers of one message, walked source by source. The walk can stop and go on later, in which time
//! sessions and subscriptions may have ended.

use smallvec::SmallVec;

use super::encode::{Encodings, Head};
use super::encoding::Encoding;
use super::ids::{SessionId, SubscriptionIndex};
use super::members::{Members, Route};
use super::peer::Peers;
use super::session::{Session, SessionTable};
use super::subscription::{AckMode, SubscriptionTable};
use crate::profile::Profile;

/// The receivers of one message, and how far they have been walked.
#[derive(Debug)]
pub(super) struct Fan {
    sources: SmallVec<[Source; 1]>,
    /// The number of receivers.
    receivers: usize,
    /// How far they have been walked.
    pub at: Position,
    /// Sessions that it was queued to.
    pub count: u32,
    /// Copies that were queued.
    pub deliveries: u64,
    /// If the receivers get presence events: the number of the last subscription to presence that gets them.
    pub until: u64,
}

impl Default for Fan {
    /// No receivers.
    fn default() -> Self {
        let (sources, at) = (SmallVec::new(), Position::default());
        Self { sources, receivers: 0, at, count: 0, deliveries: 0, until: u64::MAX }
    }
}

/// A position in a fan.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// The position in `sources`.
    source: usize,
    /// The position in that source.
    index: usize,
    /// Whether the walk stopped before, so that subscriptions may have ended since.
    is_resumed: bool,
}

impl Position {
    /// Notes that the walk stops here for a while.
    pub(super) fn note_pause(&mut self) {
        self.is_resumed = true;
    }
}

/// Receivers that were on one list when the message was sent.
#[derive(Debug)]
struct Source {
    members: Members,
    /// The profile of the client whose message it is, if the receivers are watchers, who may not see each.
    watched: Option<Profile>,
}

/// Tells whether a session has got a message already.
pub(super) trait Seen {
    /// Notes that a session gets the message. Returns whether it is the first time.
    fn is_first(&mut self, id: SessionId, session: &Session) -> bool;
}

/// [`Seen`] for a walk without stops: each session notes the number of its last message.
pub(super) struct ByNumber(pub u64);

impl Seen for ByNumber {
    #[inline]
    fn is_first(&mut self, _: SessionId, session: &Session) -> bool {
        session.last_message.replace(self.0) != self.0
    }
}

impl Fan {
    /// A single receiver.
    pub(super) fn to(route: Route) -> Self {
        let mut fan = Self::default();
        fan.add(&Members::One(route), None);
        fan
    }

    /// Adds a list of receivers: if of watchers, with the profile of the watched client.
    #[inline]
    pub(super) fn add(&mut self, members: &Members, watched: Option<Profile>) {
        if !members.is_empty() {
            self.receivers += members.len();
            self.sources.push(Source { members: members.clone(), watched });
        }
    }

    /// The number of receivers, those included that have ended or may not get the message.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.receivers
    }

    /// The lists of receivers.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&Members, Option<Profile>)> {
        self.sources.iter().map(|source| (&source.members, source.watched))
    }

    /// The work of collecting the lists, comparing them with those of another message, and giving them up.
    #[inline]
    pub(super) fn units(&self) -> u32 {
        self.sources.len() as u32 / SOURCES_PER_UNIT
    }

    /// The work of [`Self::is_same`].
    pub(super) fn compare_units(&self) -> u32 {
        1 + self.sources.len() as u32 / COMPARED_PER_UNIT
    }

    /// Whether the receivers on these lists are the same, by the same subscriptions.
    pub(super) fn is_same<'m>(
        &self,
        mut others: impl Iterator<Item = (&'m Members, Option<Profile>)>,
    ) -> bool {
        let is_next = |(members, watched): (&Members, _)| {
            let is_it = |(other, other_watched)| other_watched == watched && members.is_same(other);
            others.next().is_some_and(is_it)
        };
        self.sources().all(is_next) && others.next().is_none()
    }

    /// The part of the memory of the lists that is there for it, about.
    pub(super) fn held_bytes(&self) -> u64 {
        let sources = if self.sources.spilled() { self.sources.capacity() } else { 0 };
        let lists = self.sources.iter().map(|source| source.members.held_bytes());
        (sources * size_of::<Source>()) as u64 + lists.sum::<u64>()
    }

    /// Work of freeing it.
    pub(super) fn units_of_end(&self) -> u32 {
        self.sources.iter().map(|source| source.members.units_of_end()).sum()
    }

    /// Whether there are no receivers.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

/// Lists of receivers that are collected for a unit, each from a group of its own, which takes a look into memory.
const SOURCES_PER_UNIT: u32 = 2;

/// Lists that are compared for a unit.
const COMPARED_PER_UNIT: u32 = 8;

/// The parts of the broker that a delivery uses, borrowed apart from the others.
pub(super) struct Outlet<'b> {
    pub(super) peers: &'b mut Peers,
    pub(super) sessions: &'b SessionTable,
    pub(super) subscriptions: &'b SubscriptionTable,
}

impl<'b> Outlet<'b> {
    /// Queues a message to its next receivers, to `most` at the most. Returns whether these were all. `token` is
    /// the session id that classic receivers see instead of their own.
    #[inline]
    pub(super) fn advance<'m>(
        &mut self,
        encodings: &mut Encodings<'m>,
        fan: &mut Fan,
        seen: &mut impl Seen,
        token: Option<&'m [u8; 32]>,
        most: usize,
    ) -> bool
    where
        'b: 'm,
    {
        let mut left = most;
        while let Some(source) = fan.sources.get(fan.at.source) {
            let routes = source.members.from(fan.at.index);
            let routes = &routes[..routes.len().min(left)];
            let (watched, is_resumed, until) = (source.watched, fan.at.is_resumed, fan.until);
            let (count, deliveries) = if watched.is_none() && !is_resumed {
                self.walk(encodings, routes, seen, token, |_, _, _| true)
            } else {
                self.walk(encodings, routes, seen, token, |outlet, session, route| {
                    let may_watch =
                        watched.is_none_or(|watched| session.profile.may_watch(watched));
                    may_watch
                        && (!is_resumed
                            || outlet
                                .subscriptions
                                .get(route.subscription)
                                .is_some_and(|one| one.presence_number <= until))
                })
            };
            fan.count += count;
            fan.deliveries += u64::from(deliveries);
            fan.at.index += routes.len();
            left -= routes.len();
            if fan.at.index >= source.members.len() {
                (fan.at.source, fan.at.index) = (fan.at.source + 1, 0);
            } else if left == 0 {
                fan.at.is_resumed = true;
                return false;
            }
        }
        true
    }

    /// Queues a message along routes that a filter accepts. Returns the number of sessions that it is new to, and
    /// of copies.
    #[inline(always)] // the filter of most is empty
    fn walk<'m>(
        &mut self,
        encodings: &mut Encodings<'m>,
        routes: &[Route],
        seen: &mut impl Seen,
        token: Option<&'m [u8; 32]>,
        accepts: impl Fn(&Self, &Session, &Route) -> bool,
    ) -> (u32, u32)
    where
        'b: 'm,
    {
        let (mut count, mut deliveries) = (0, 0);
        for route in routes {
            let Some(session) = self.sessions.get(route.session) else { continue };
            if !accepts(self, session, route) {
                continue;
            }
            let is_first = seen.is_first(route.session, session);
            let by = Some(route.subscription);
            let is_queued = self.push(encodings, session, by, is_first, token);
            count += u32::from(is_queued && is_first);
            deliveries += u32::from(is_queued);
        }
        (count, deliveries)
    }

    /// Queues a message to a session: by a subscription, or without one, to the owner of the address. A session of
    /// the classic dialect gets the first copy only.
    #[inline(always)] // once for each receiver
    pub(super) fn push<'m>(
        &mut self,
        encodings: &mut Encodings<'m>,
        session: &'b Session,
        by: Option<SubscriptionIndex>,
        is_first: bool,
        token: Option<&'m [u8; 32]>,
    ) -> bool
    where
        'b: 'm,
    {
        let receiver = self.peers.receiver(session.peer);
        // Each arm queues the message itself, so that heads are compared as what they are there.
        match receiver.peer.encoding {
            Encoding::Classic if !is_first => false,
            _ if receiver.peer.takes_nothing() => self.peers.note_refused(session.peer),
            Encoding::Classic => {
                let token = token.unwrap_or_else(|| session.token());
                encodings.push_to(receiver, Head::Session(token));
                true
            }
            Encoding::Standard(_) => {
                let standard = by.and_then(|index| {
                    Some((index, self.subscriptions.get(index)?.standard.as_deref()?))
                });
                match standard {
                    Some((_, standard)) if standard.mode == AckMode::Auto => {
                        encodings.push_to(receiver, Head::Subscription(standard.id.as_deref()));
                    }
                    // A client without an inbox would not know the subscription id.
                    None if !session.has_inbox => return false,
                    _ => encodings.push_to_rare(receiver, Head::of(standard)),
                }
                true
            }
        }
    }
}
