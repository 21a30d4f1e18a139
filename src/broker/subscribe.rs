//! Subscribing to topics and addresses, by name and by pattern; and the destinations that this keeps alive.

use super::destination::{DestinationTable, Via};
use super::fault::{Code, Disposition, Fault};
use super::groups::{Group, State};
use super::ids::{DestinationId, GroupId, GroupKind, PeerId, SessionId, SubscriptionIndex};
use super::jobs::Job;
use super::leave::Leave;
use super::levels::Levels;
use super::members::Route;
use super::pattern::Pattern;
use super::select::{Await, Select};
use super::space::Space;
use super::subscription::{AckMode, NEVER_READY, Standard, Subscription, Target};
use super::{Broker, Moment, printable, wildcards};
use crate::limits::Exceeded;
use crate::stomp::{Name, lookalike};
use crate::work;

impl Broker {
    /// Subscribes to a topic, or to each topic that a wildcard matches.
    pub(super) fn subscribe_topic(
        &mut self,
        session: SessionId,
        name: &[u8],
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        self.check_destination_name(name)?;
        self.check_may_subscribe(session, name)?;
        if Levels::is_pattern(name) {
            return self.subscribe_group(session, GroupKind::Topics, name, standard);
        }
        let destination = self.find_or_make_destination(name)?;
        let subscribed = self.subscribe_to(session, Target::Topic(destination), standard);
        subscribed.inspect_err(|_| self.release_destination(destination))
    }

    /// Watches one client, which must be logged in.
    pub(super) fn watch_client(
        &mut self,
        watcher: SessionId,
        name: &[u8],
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let destination = self.destinations.find(name, None);
        let Some(owner) = destination.and_then(|id| self.destinations[id].owner) else {
            let description = format!("nobody is logged in at {}", printable(name));
            return Err(Fault::staying(Code::NothingToSubscribe, description));
        };
        let destination = self.sessions[owner].destination;
        let target = self.sessions[owner].profile;
        if !self.sessions[watcher].profile.may_watch(target) {
            let description =
                format!("a client of profile {} may not be watched by you", target.description());
            return Err(Fault::staying(Code::NoRights, description));
        }
        self.subscribe_to(watcher, Target::Client(destination), standard)
    }

    /// Watches each client whose address matches, also those that log in later.
    pub(super) fn watch_clients(
        &mut self,
        watcher: SessionId,
        text: &[u8],
        standard: Option<Box<Standard>>,
        now: Moment,
    ) -> Result<SubscriptionIndex, Fault> {
        let index = self.subscribe_group(watcher, GroupKind::Clients, text, standard)?;
        self.await_selection(watcher, index, now);
        Ok(index)
    }

    /// Subscribes to one destination, or joins a group that exists. A classic session that holds the same
    /// subscription keeps that one; in the standard dialect each has an id of its own, so that no two are the
    /// same.
    pub(super) fn subscribe_to(
        &mut self,
        session: SessionId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        if standard.is_none()
            && let Some(held) = self.find_subscription(session, &target)
        {
            return Ok(held);
        }
        self.begin_subscription(session, target, standard)
    }

    /// Subscribes by a pattern: joins its group, which is made if it is the first.
    pub(super) fn subscribe_group(
        &mut self,
        session: SessionId,
        kind: GroupKind,
        text: &[u8],
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let target = |id: GroupId| match kind {
            GroupKind::Topics => Target::Topics(id),
            GroupKind::Clients => Target::Clients(id),
            GroupKind::Presence => Target::Presence(id),
        };
        let found = self.groups.find(kind, text);
        let is_held =
            found.is_some_and(|id| self.find_subscription(session, &target(id)).is_some());
        if !is_held {
            self.check_share(session, kind)?;
        }
        if let Some(id) = found {
            return self.subscribe_to(session, target(id), standard);
        }
        self.check_subscriptions_left(session)?;
        let made = match kind {
            GroupKind::Topics => {
                let text = std::str::from_utf8(text).unwrap_or_default();
                let levels = Levels::parse(text)
                    .map_err(|why| Fault::staying(Code::InvalidDestinationType, why))?;
                wildcards::check(&levels, &self.limits)?;
                self.check_groups_left(kind, standard.is_none())?;
                self.meter.spend(work::SUBSCRIPTION + work::of_bytes(text.len()));
                self.groups.wildcards.insert(levels)
            }
            GroupKind::Clients | GroupKind::Presence => {
                self.check_groups_left(kind, standard.is_none())?;
                let compiled = Pattern::compile(text, &self.limits);
                let bytes = compiled
                    .as_ref()
                    .map_or(self.limits.pattern_compiled_bytes_max as usize, Pattern::bytes);
                self.meter.spend(work::PATTERN + bytes as u32 / work::PATTERN_BYTES_PER_UNIT);
                let pattern = compiled?;
                self.groups.add_pattern(kind, text, pattern)
            }
        };
        self.begin_subscription(session, target(made), standard)
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

    /// Checks that a session may be in another group. What others use up is another matter.
    fn check_share(&self, session: SessionId, kind: GroupKind) -> Result<(), Fault> {
        let (one, limits) = (&self.sessions[session], &self.limits);
        let (held, share, total) = match kind {
            GroupKind::Topics => (
                one.wildcards,
                ("wildcards_per_session_max", limits.wildcards_per_session_max),
                ("wildcards_max", limits.wildcards_max),
            ),
            GroupKind::Clients | GroupKind::Presence => (
                one.patterns,
                ("patterns_per_session_max", limits.patterns_per_session_max),
                ("patterns_max", limits.patterns_max),
            ),
        };
        let (limit, max) = if share.1 <= total.1 { share } else { total };
        if held >= max {
            return Err(Fault::exceeded(Exceeded { limit, max: max.into() }));
        }
        Ok(())
    }

    /// Checks that there may be another group. If not, others have used up what there is, so that a client may
    /// try again: in the classic dialect, on the same connection.
    fn check_groups_left(&self, kind: GroupKind, is_classic: bool) -> Result<(), Fault> {
        let (len, limit, max) = match kind {
            GroupKind::Topics => {
                (self.groups.wildcards.len(), "wildcards_max", self.limits.wildcards_max)
            }
            GroupKind::Clients | GroupKind::Presence => {
                (self.groups.patterns_len(), "patterns_max", self.limits.patterns_max)
            }
        };
        let max = u64::from(max);
        if (len as u64) < max {
            return Ok(());
        }
        let fault = Fault::exceeded(Exceeded { limit, max }).later();
        Err(if is_classic { Fault { disposition: Disposition::Stays, ..fault } } else { fault })
    }

    fn check_subscriptions_left(&self, session: SessionId) -> Result<(), Fault> {
        let max = u64::from(self.limits.subscriptions_per_session_max);
        if self.sessions[session].subscriptions.all().len() as u64 >= max {
            let limit = "subscriptions_per_session_max";
            return Err(Fault::exceeded(Exceeded { limit, max }));
        }
        let max = u64::from(self.limits.subscriptions_max);
        if self.subscriptions.len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "subscriptions_max", max }).later());
        }
        Ok(())
    }

    /// Adds a subscription, and its session to those that receive at its target. A queue is told by the caller.
    pub(super) fn begin_subscription(
        &mut self,
        session: SessionId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        self.check_subscriptions_left(session)?;
        self.meter.spend(work::SUBSCRIPTION);
        let index = self.subscriptions.insert(Subscription::new(session, target, standard));
        let route = Route { session, subscription: index };
        self.subscriptions[index].position = match (target, target.group()) {
            (_, Some((kind, id))) => self.groups.join(kind, id, route),
            (Target::Own(id), _) => self.destinations.join(id, Via::Own, route),
            (Target::Client(id) | Target::Topic(id), _) => {
                self.destinations.join(id, Via::Name, route)
            }
            _ => 0,
        };
        let Self { sessions, subscriptions, .. } = self;
        sessions[session].hold(index, subscriptions);
        Ok(index)
    }

    /// Ends subscriptions of a client. A consumer may hold many messages: if they are not returned within the share of
    /// the turn, the client waits.
    pub(super) fn unsubscribe(
        &mut self,
        client: PeerId,
        mut ended: Vec<SubscriptionIndex>,
        now: Moment,
    ) {
        let Self { sessions, subscriptions, .. } = self;
        ended.retain(|index| {
            let Some(one) = subscriptions.get_mut(*index) else { return false };
            // A job ends the subscriptions of a session that is gone.
            let Some(session) = sessions.get_mut(one.session) else { return false };
            if let Some(standard) = &mut one.standard {
                standard.ready_at = NEVER_READY;
            }
            session.release(*index, subscriptions);
            true
        });
        if !ended.is_empty() {
            self.start(Some(client), Job::Leave(Leave::new(None, ended)), now);
        }
    }

    /// Ends a subscription of a session that holds no messages.
    pub(super) fn unsubscribe_at_once(&mut self, index: SubscriptionIndex, now: Moment) {
        let Self { sessions, subscriptions, .. } = self;
        let Some(one) = subscriptions.get(index) else { return };
        let Some(session) = sessions.get_mut(one.session) else { return };
        session.release(index, subscriptions);
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
        let by_name = |id| self.destinations.leave(id, via, position, index);
        let moved = match target.group() {
            Some((kind, group)) => self.groups.leave(kind, group, position, index),
            None => id.and_then(by_name),
        };
        if let Some(moved) = moved.and_then(|moved| self.subscriptions.get_mut(moved)) {
            moved.position = position;
        }
        if let Some(id) = id {
            self.release_destination(id);
        }
        None
    }

    /// A subscription of a session to a target.
    fn find_subscription(&self, session: SessionId, target: &Target) -> Option<SubscriptionIndex> {
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
    pub(super) fn check_destination_name(&self, name: &[u8]) -> Result<(), Fault> {
        let max = u64::from(self.limits.destination_bytes_max);
        if name.len() as u64 > max {
            return Err(Fault::exceeded(Exceeded { limit: "destination_bytes_max", max }));
        }
        lookalike::check(name).map_err(|fault| Fault::malformed(Name::Destination, fault.why()))
    }

    /// The fault of a name that is in no space.
    pub(super) fn unknown_space(name: &[u8], code: Code) -> Fault {
        let (name, why) = (printable(name), Space::why_unknown(name));
        Fault::staying(code, format!("there is no destination {name}: {why}"))
    }

    /// The destination with that name, which is made if there is none.
    pub(super) fn find_or_make_destination(&mut self, name: &[u8]) -> Result<DestinationId, Fault> {
        if let Some(found) = self.destinations.find(name, None) {
            return Ok(found);
        }
        if !self.reserved.has_place_for(name) {
            self.check_place_for(name)?;
        }
        Ok(self.make_destination(name))
    }

    /// Checks that there is room for one more destination.
    pub(super) fn check_place_for(&mut self, name: &[u8]) -> Result<(), Fault> {
        let max = u64::from(self.limits.destinations_max).saturating_sub(self.reserved.places());
        while self.destinations.len() as u64 >= max && self.destinations.remove_idle_topic() {
            self.meter.spend(work::DROP);
        }
        if self.destinations.len() as u64 >= max {
            let max = self.limits.destinations_max.into();
            return Err(Fault::exceeded(Exceeded { limit: "destinations_max", max }).later());
        }
        self.check_destinations_room(DestinationTable::cost_of(name))
    }

    /// Creates a destination, for which there is room.
    pub(super) fn make_destination(&mut self, name: &[u8]) -> DestinationId {
        self.reserved.note_made(name);
        self.destinations.insert(name)
    }

    /// Checks that there is room for topics and queues that cost so much.
    pub(super) fn check_destinations_room(&mut self, bytes: u64) -> Result<(), Fault> {
        let max = self.limits.destinations_bytes_max;
        let bytes = bytes + self.reserved.place_bytes();
        if bytes > 0 && self.destinations.bytes() + bytes > max {
            while self.destinations.bytes() + bytes > max && self.destinations.remove_idle_topic() {
                self.meter.spend(work::DROP);
            }
            if self.destinations.bytes() + bytes > max {
                let exceeded = Exceeded { limit: "destinations_bytes_max", max };
                return Err(Fault::exceeded(exceeded).later());
            }
        }
        Ok(())
    }

    /// Removes a destination, if nothing keeps it alive.
    pub(super) fn release_destination(&mut self, id: DestinationId) {
        self.destinations.release(id, self.limits.idle_topics_max as usize);
    }
}
