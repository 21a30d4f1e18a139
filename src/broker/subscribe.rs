//! Subscribing to topics and addresses, by name and by pattern; and the destinations that this keeps alive.

use super::asker::Asker;
use super::destination::Via;
use super::expel::Expel;
use super::fault::{Code, Fault};
use super::groups::{Group, State};
use super::ids::{DestinationId, GroupId, GroupKind, PeerId, SessionId, SubscriptionIndex};
use super::job::Job;
use super::leave::Leave;
use super::levels::Levels;
use super::members::{Copies, Route};
use super::pattern::Pattern;
use super::select::{Await, Select};
use super::shares::Wanted;
use super::space::Space;
use super::subscription::{AckMode, NEVER_READY, Standard, Subscription, Target};
use super::{Broker, Moment, printable, wildcards};
use crate::limits::Exceeded;
use crate::stomp::{Name, lookalike};
use crate::work;

impl Broker {
    /// Subscribes to a topic, or to each topic that a wildcard matches. A classic session that holds the same
    /// subscription keeps that one, whatever it is to; in the standard dialect each has an id of its own, so
    /// that no two are the same.
    pub(super) fn subscribe_topic(
        &mut self,
        session: SessionId,
        name: &[u8],
        standard: Option<Box<Standard>>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        self.check_destination_name(name)?;
        self.check_may_subscribe(session, name)?;
        if Levels::is_pattern(name) {
            return self.subscribe_group(session, GroupKind::Topics, name, standard, now);
        }
        let found = self.destinations.find(name, None).map(Target::Topic);
        if let Some(held) = self.held_already(session, found, standard.as_deref()) {
            return Ok(held);
        }
        self.make_subscription_room(session, Wanted::Name(name), now)?;
        let destination = self.find_or_make_destination(name, Asker::Nobody, now)?;
        Ok(self.begin_subscription(session, Target::Topic(destination), standard))
    }

    /// Subscribes a client to its own address.
    pub(super) fn subscribe_own(
        &mut self,
        session: SessionId,
        standard: Box<Standard>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        self.make_subscription_room(session, Wanted::Own, now)?;
        let own = self.sessions[session].destination;
        Ok(self.begin_subscription(session, Target::Own(own), Some(standard)))
    }

    /// Watches one client, which must be logged in.
    pub(super) fn watch_client(
        &mut self,
        watcher: SessionId,
        name: &[u8],
        standard: Option<Box<Standard>>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        let found = self.find_watched(watcher, name)?;
        let held = self.held_already(watcher, Some(Target::Client(found)), standard.as_deref());
        if let Some(held) = held {
            return Ok(held);
        }
        self.make_subscription_room(watcher, Wanted::Name(name), now)?;
        // It may be the one that paid.
        let found = self.find_watched(watcher, name)?;
        Ok(self.begin_subscription(watcher, Target::Client(found), standard))
    }

    /// The address of a client that is logged in and may be watched.
    fn find_watched(&self, watcher: SessionId, name: &[u8]) -> Result<DestinationId, Fault> {
        let destination = self.destinations.find(name, None);
        let Some(owner) = destination.and_then(|id| self.destinations[id].owner) else {
            let description = format!("nobody is logged in at {}", printable(name));
            return Err(Fault::staying(Code::NothingToSubscribe, description));
        };
        let target = self.sessions[owner].profile;
        if !self.sessions[watcher].profile.may_watch(target) {
            let description =
                format!("a client of profile {} may not be watched by you", target.description());
            return Err(Fault::staying(Code::NoRights, description));
        }
        Ok(self.sessions[owner].destination)
    }

    /// Watches each client whose address matches, also those that log in later.
    pub(super) fn watch_clients(
        &mut self,
        watcher: SessionId,
        text: &[u8],
        standard: Option<Box<Standard>>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        let index = self.subscribe_group(watcher, GroupKind::Clients, text, standard, now)?;
        self.await_selection(watcher, index, now);
        Ok(index)
    }

    /// The subscription of a classic session to a target that exists.
    fn held_already(
        &self,
        session: SessionId,
        target: Option<Target>,
        standard: Option<&Standard>,
    ) -> Option<SubscriptionIndex> {
        match standard {
            None => self.find_subscription(session, &target?),
            Some(_) => None,
        }
    }

    /// Subscribes by a pattern: joins its group, which is made if it is the first.
    pub(super) fn subscribe_group(
        &mut self,
        session: SessionId,
        kind: GroupKind,
        text: &[u8],
        standard: Option<Box<Standard>>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        let find = |broker: &Self| broker.groups.find(kind, text);
        let found = find(self).map(|id| Target::of_group(kind, id));
        if let Some(held) = self.held_already(session, found, standard.as_deref()) {
            return Ok(held);
        }
        let wanted = Wanted::Group(kind, text);
        self.check_own_shares(session, wanted)?;
        // Nobody pays for a pattern that is refused.
        let matcher = found.is_none().then(|| self.read_pattern(kind, text)).transpose()?;
        self.make_subscription_room(session, wanted, now)?;
        let group = match (find(self), matcher) {
            (Some(id), _) => id,
            (None, Some(matcher)) => self.add_group(kind, text, matcher),
            // The last other member was the one that paid.
            (None, None) => {
                let matcher = self.read_pattern(kind, text)?;
                self.add_group(kind, text, matcher)
            }
        };
        Ok(self.begin_subscription(session, Target::of_group(kind, group), standard))
    }

    /// Parses or compiles a pattern.
    fn read_pattern(&mut self, kind: GroupKind, text: &[u8]) -> Result<Matcher, Fault> {
        if kind == GroupKind::Topics {
            let text = std::str::from_utf8(text).unwrap_or_default();
            // It is refused before each of very many levels is stored.
            let levels = Levels::count(text);
            self.meter.spend(work::of_levels(levels, text.len()));
            wildcards::check(levels, &self.limits)?;
            let levels = Levels::parse(text)
                .map_err(|why| Fault::staying(Code::InvalidDestinationType, why))?;
            return Ok(Matcher::Levels(levels));
        }
        let compiled = Pattern::compile(text, &self.limits);
        let bytes = compiled
            .as_ref()
            .map_or(self.limits.pattern_compiled_bytes_max as usize, Pattern::bytes);
        self.meter.spend(work::PATTERN + bytes as u32 / work::PATTERN_BYTES_PER_UNIT);
        Ok(Matcher::Pattern(Box::new(compiled?)))
    }

    /// Adds a group without members, for which there is room.
    fn add_group(&mut self, kind: GroupKind, text: &[u8], matcher: Matcher) -> GroupId {
        match matcher {
            Matcher::Levels(levels) => {
                self.meter.spend(work::SUBSCRIPTION + work::of_bytes(text.len()));
                self.meter.spend(work::WILDCARD_LEVEL * levels.len() as u32);
                self.groups.wildcards.insert(levels)
            }
            Matcher::Pattern(pattern) => self.groups.add_pattern(kind, text, *pattern),
        }
    }

    /// Has a subscriber wait until it is known what its pattern selects.
    pub(super) fn await_selection(
        &mut self,
        subscriber: SessionId,
        index: SubscriptionIndex,
        now: Moment,
    ) {
        let Some((kind, group)) = self.subscriptions[index].target.group() else { return };
        let table = self.groups.by_pattern(kind);
        let state = table.and_then(|table| table.get(group)).map(Group::state);
        let client = self.sessions[subscriber].peer;
        match state {
            Some(State::New) => {
                self.groups.set_state(kind, group, State::Matching);
                self.start(Some(client), Job::Select(Select::new(kind, group)), now);
            }
            Some(State::Matching) => {
                self.start(Some(client), Job::Await(Await::new(kind, group)), now);
            }
            Some(State::Known(_)) | None => {}
        }
    }

    /// Begins to end all members of a group, who are many. It no longer counts, so that the one that asks takes its
    /// place at once; but only one of a table is being ended.
    pub(super) fn expel(&mut self, kind: GroupKind, group: GroupId, fault: Fault, now: Moment) {
        self.groups.close(kind, group);
        self.start(None, Job::Expel(Box::new(Expel::new(kind, group, fault))), now);
    }

    /// Adds a subscription, for which there is room, and its session to those that receive at its target. A queue
    /// is told by the caller.
    pub(super) fn begin_subscription(
        &mut self,
        session: SessionId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> SubscriptionIndex {
        self.meter.spend(work::SUBSCRIPTION);
        let index = self.subscriptions.insert(Subscription::new(session, target, standard));
        let route = Route { session, subscription: index };
        let mut copies = Copies::default();
        self.subscriptions[index].position = match (target, target.group()) {
            (_, Some((kind, id))) => self.groups.join(kind, id, route, &mut copies),
            (Target::Own(id), _) => self.destinations.join(id, Via::Own, route, &mut copies),
            (Target::Client(id) | Target::Topic(id), _) => {
                self.destinations.join(id, Via::Name, route, &mut copies)
            }
            _ => 0,
        };
        self.note_copies(copies);
        let Self { sessions, subscriptions, destinations, .. } = self;
        sessions[session].hold(index, subscriptions, destinations);
        self.note_shares(session);
        index
    }

    /// Notes what a change of a list of members has copied, because a delivery holds the list as it was.
    fn note_copies(&mut self, copies: Copies) {
        if copies.bytes > 0 {
            self.meter.spend(copies.units());
            self.jobs.note_copies();
        }
    }

    /// Ends subscriptions of a client. A consumer may hold many messages: if they are not returned within the share of
    /// the turn, the client waits.
    pub(super) fn unsubscribe(
        &mut self,
        client: PeerId,
        mut ended: Vec<SubscriptionIndex>,
        now: Moment,
    ) {
        let Self { sessions, subscriptions, destinations, .. } = self;
        let mut last = None;
        ended.retain(|index| {
            let Some(one) = subscriptions.get_mut(*index) else { return false };
            // A job ends the subscriptions of a session that is gone.
            let Some(session) = sessions.get_mut(one.session) else { return false };
            if let Some(standard) = &mut one.standard {
                standard.ready_at = NEVER_READY;
            }
            last = Some(one.session);
            session.release(*index, subscriptions, destinations);
            true
        });
        if let Some(session) = last {
            self.note_shares(session);
        }
        if !ended.is_empty() {
            self.start(Some(client), Job::Leave(Leave::new(None, ended)), now);
        }
    }

    /// Ends a subscription of a session that holds no messages.
    pub(super) fn unsubscribe_at_once(&mut self, index: SubscriptionIndex, now: Moment) {
        let Self { sessions, subscriptions, destinations, .. } = self;
        let Some(id) = subscriptions.get(index).map(|one| one.session) else { return };
        let Some(session) = sessions.get_mut(id) else { return };
        session.release(index, subscriptions, destinations);
        self.note_shares(id);
        if let Some(queue) = self.end_subscription(index, now) {
            self.serve_queue(queue, now);
            self.release_destination(queue);
        }
    }

    /// Ends a subscription, whose session may be gone. Returns its queue, if it was a consumer of one.
    pub(super) fn end_subscription(
        &mut self,
        index: SubscriptionIndex,
        now: Moment,
    ) -> Option<DestinationId> {
        self.meter.spend(work::SUBSCRIPTION);
        let Subscription { target, standard, position, .. } = self.subscriptions.remove(index)?;
        let (via, id) = match target {
            Target::Queue(id) => {
                self.remove_consumer(id, standard, now);
                return Some(id);
            }
            Target::Own(id) => (Via::Own, Some(id)),
            Target::Client(id) | Target::Topic(id) => (Via::Name, Some(id)),
            Target::Clients(_) | Target::Presence(_) | Target::Topics(_) => (Via::Name, None),
        };
        let mut copies = Copies::default();
        let moved = match (target.group(), id) {
            (Some((kind, group)), _) => {
                let levels = self.groups.levels_that_end(kind, group);
                self.meter.spend(work::WILDCARD_LEVEL * levels as u32);
                self.groups.leave(kind, group, position, index, &mut copies)
            }
            (None, Some(id)) => self.destinations.leave(id, via, position, index, &mut copies),
            (None, None) => None,
        };
        self.note_copies(copies);
        if let Some(moved) = moved.and_then(|moved| self.subscriptions.get_mut(moved)) {
            moved.position = position;
        }
        if let Some(id) = id {
            self.release_destination(id);
        }
        None
    }

    /// A subscription of a session to a target.
    pub(super) fn find_subscription(
        &self,
        session: SessionId,
        target: &Target,
    ) -> Option<SubscriptionIndex> {
        self.sessions[session].subscriptions.to(target, &self.subscriptions)
    }

    /// The subscriptions of a session to a destination or pattern of that name, in any order. `events` is the
    /// pattern of subscriptions to presence; without it, all are meant.
    pub(super) fn subscriptions_to(
        &self,
        session: SessionId,
        name: &[u8],
        events: Option<&[u8]>,
    ) -> Vec<SubscriptionIndex> {
        let held = &self.sessions[session].subscriptions;
        let mut found = Vec::new();
        let mut add = |target: Target| held.all_to(&target, &self.subscriptions, &mut found);
        if let Some(id) = self.destinations.find(name, None) {
            [Target::Client(id), Target::Topic(id), Target::Own(id), Target::Queue(id)]
                .into_iter()
                .for_each(&mut add);
        }
        self.groups.clients.find(name).map(Target::Clients).into_iter().for_each(&mut add);
        self.groups.wildcards.find(name).map(Target::Topics).into_iter().for_each(&mut add);
        if name == Space::BROKER || name == Space::PRESENCE {
            match events {
                Some(text) => {
                    let group = self.groups.presence.find(text);
                    group.map(Target::Presence).into_iter().for_each(&mut add);
                }
                None => held.all_to_presence(&self.subscriptions, &mut found),
            }
        }
        found
    }

    /// A subscription of a session by its id.
    pub(super) fn subscription_by_id(
        &self,
        session: SessionId,
        id: &[u8],
    ) -> Option<SubscriptionIndex> {
        self.sessions[session].subscriptions.by_id(id, &self.subscriptions)
    }

    /// Whether messages of a subscription have to be acknowledged.
    pub(super) fn acknowledges(&self, index: SubscriptionIndex) -> bool {
        let standard = self.subscriptions.get(index).and_then(|one| one.standard.as_ref());
        standard.is_some_and(|standard| standard.mode != AckMode::Auto)
    }

    pub(super) fn check_may_subscribe(&self, session: SessionId, name: &[u8]) -> Result<(), Fault> {
        if self.sessions[session].may_subscribe(name) {
            return Ok(());
        }
        let description = format!("your profile may not subscribe to {}", printable(name));
        Err(Fault::staying(Code::NoRights, description))
    }

    /// Checks the length of the name of a topic or queue, and that it cannot be mistaken for another.
    pub(super) fn check_destination_name(&mut self, name: &[u8]) -> Result<(), Fault> {
        let max = u64::from(self.limits.destination_bytes_max);
        if name.len() as u64 > max {
            return Err(Fault::exceeded(Exceeded { limit: "destination_bytes_max", max }));
        }
        self.meter.spend(lookalike::units_of(name));
        lookalike::check(name).map_err(|fault| Fault::malformed(Name::Destination, fault.why()))
    }

    /// The fault of a name that is in no space.
    pub(super) fn unknown_space(name: &[u8], code: Code) -> Fault {
        let (name, why) = (printable(name), Space::why_unknown(name));
        Fault::staying(code, format!("there is no destination {name}: {why}"))
    }

    /// Creates a destination, for which there is room.
    pub(super) fn make_destination(&mut self, name: &[u8]) -> DestinationId {
        self.meter.spend(work::TOPIC + work::FRESH_KIB * work::of_bytes(name.len()));
        self.reserved.note_made(name);
        self.destinations.insert(name)
    }

    /// Removes a destination, if nothing keeps it alive.
    pub(super) fn release_destination(&mut self, id: DestinationId) {
        self.destinations.release(id, self.limits.idle_topics_max as usize);
    }
}

/// What tells which names a pattern selects.
enum Matcher {
    Levels(Levels),
    Pattern(Box<Pattern>),
}
