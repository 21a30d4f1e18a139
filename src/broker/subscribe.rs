//! Subscribing to topics and addresses, by name and by pattern; the destinations that this keeps alive, and
//! the routes that follow from it.

use hashbrown::HashSet;

use super::destination::{DestinationTable, Route};
use super::fault::{Code, Fault};
use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::levels::Levels;
use super::space::Space;
use super::subscription::{AckMode, Pattern, Standard, Subscription, Target};
use super::{Broker, Moment, printable};
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
            let text = std::str::from_utf8(name).unwrap_or_default();
            let levels = Levels::parse(text)
                .map_err(|why| Fault::staying(Code::InvalidDestinationType, why))?;
            self.check_wildcards_left()?;
            return self.subscribe_pattern(session, Target::Topics(levels), standard);
        }
        let destination = self.find_or_make_destination(name)?;
        let same = |one: &Target| matches!(one, Target::Topic(other) if *other == destination);
        if let Some(held) = self.find_classic_subscription(session, same, &standard) {
            return Ok(held);
        }
        let subscribed =
            self.subscribe_to(session, destination, Target::Topic(destination), standard);
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
        let same = |one: &Target| matches!(one, Target::Client(other) if *other == destination);
        if let Some(held) = self.find_classic_subscription(watcher, same, &standard) {
            return Ok(held);
        }
        self.subscribe_to(watcher, destination, Target::Client(destination), standard)
    }

    /// Watches each client whose address matches, also those that log in later.
    pub(super) fn watch_clients(
        &mut self,
        watcher: SessionId,
        text: &[u8],
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let same = |one: &Target| matches!(one, Target::Clients(held) if held.text() == text);
        if let Some(held) = self.find_classic_subscription(watcher, same, &standard) {
            return Ok(held);
        }
        let pattern = self.compile(text)?;
        self.subscribe_pattern(watcher, Target::Clients(pattern), standard)
    }

    /// Subscribes to one destination.
    pub(super) fn subscribe_to(
        &mut self,
        session: SessionId,
        destination: DestinationId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let is_direct = target.is_direct();
        let index = self.begin_subscription(session, target, standard)?;
        self.destinations.attach(destination, index, is_direct);
        self.rebuild_routes(destination);
        Ok(index)
    }

    /// Subscribes by a pattern: attaches it to each destination that it matches. Destinations that are
    /// created later are attached then.
    fn subscribe_pattern(
        &mut self,
        session: SessionId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let selected: Vec<_> = self
            .destinations
            .iter()
            .filter(|(_, destination)| target.selects(&destination.name))
            .map(|(id, _)| id)
            .collect();
        let index = self.begin_subscription(session, target, standard)?;
        for id in selected {
            self.destinations.attach(id, index, false);
            self.rebuild_routes(id);
        }
        Ok(index)
    }

    pub(super) fn compile(&self, text: &[u8]) -> Result<Pattern, Fault> {
        self.check_patterns_left()?;
        Pattern::compile(text, &self.limits)
    }

    fn check_patterns_left(&self) -> Result<(), Fault> {
        let max = u64::from(self.limits.patterns_max);
        if self.subscriptions.patterns_len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "patterns_max", max }));
        }
        Ok(())
    }

    fn check_wildcards_left(&self) -> Result<(), Fault> {
        let max = u64::from(self.limits.wildcards_max);
        if self.subscriptions.wildcards_len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "wildcards_max", max }));
        }
        Ok(())
    }

    pub(super) fn begin_subscription(
        &mut self,
        session: SessionId,
        target: Target,
        standard: Option<Box<Standard>>,
    ) -> Result<SubscriptionIndex, Fault> {
        let max = u64::from(self.limits.subscriptions_per_session_max);
        if self.sessions[session].subscriptions.len() as u64 >= max {
            let limit = "subscriptions_per_session_max";
            return Err(Fault::exceeded(Exceeded { limit, max }));
        }
        self.meter.spend(work::SUBSCRIPTION);
        let max = u64::from(self.limits.subscriptions_max);
        if self.subscriptions.len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "subscriptions_max", max }).later());
        }
        let index = self.subscriptions.insert(Subscription { session, target, standard });
        self.sessions[session].subscriptions.push(index);
        Ok(index)
    }

    /// Ends subscriptions that their session no longer lists. Their unacknowledged messages return to their
    /// queues first, so that none is delivered to another of them.
    pub(super) fn end_subscriptions(&mut self, ended: Vec<SubscriptionIndex>, now: Moment) {
        let mut queues: Vec<_> =
            ended.into_iter().filter_map(|index| self.end_subscription(index, now)).collect();
        queues.sort_unstable();
        queues.dedup();
        for id in queues {
            self.serve_queue(id, now);
            self.release_destination(id);
        }
    }

    /// Ends a subscription. Returns its queue, if it was a consumer of one.
    pub(super) fn end_subscription(
        &mut self,
        index: SubscriptionIndex,
        now: Moment,
    ) -> Option<DestinationId> {
        self.meter.spend(work::SUBSCRIPTION);
        let selected = self.destinations_of(index);
        let subscription = self.subscriptions.remove(index)?;
        if let Target::Queue(id) = subscription.target {
            self.remove_consumer(id, subscription.standard, now);
            return Some(id);
        }
        let is_direct = subscription.target.is_direct();
        for id in &selected {
            self.destinations.detach(*id, index, is_direct);
            self.rebuild_routes(*id);
        }
        for id in selected {
            self.release_destination(id);
        }
        None
    }

    /// The destinations that a subscription is attached to.
    pub(super) fn destinations_of(&self, index: SubscriptionIndex) -> Vec<DestinationId> {
        match &self.subscriptions[index].target {
            Target::Presence(_) => Vec::new(),
            Target::Clients(_) | Target::Topics(_) => self
                .destinations
                .iter()
                .filter(|(_, destination)| destination.attached().contains(&index))
                .map(|(id, _)| id)
                .collect(),
            one => one.destination().into_iter().collect(),
        }
    }

    fn find_subscription(
        &self,
        session: SessionId,
        wanted: impl Fn(&Target) -> bool,
    ) -> Option<SubscriptionIndex> {
        let held = &self.sessions[session].subscriptions;
        held.iter().copied().find(|index| wanted(&self.subscriptions[*index].target))
    }

    /// The same subscription of a classic session, if it exists. In the standard dialect each subscription
    /// has an id of its own, so that no two are the same.
    pub(super) fn find_classic_subscription(
        &self,
        session: SessionId,
        wanted: impl Fn(&Target) -> bool,
        standard: &Option<Box<Standard>>,
    ) -> Option<SubscriptionIndex> {
        if standard.is_some() { None } else { self.find_subscription(session, wanted) }
    }

    /// A subscription of a session by its id.
    pub(super) fn subscription_by_id(
        &self,
        session: SessionId,
        id: &[u8],
    ) -> Option<SubscriptionIndex> {
        let held = self.sessions[session].subscriptions.iter().copied();
        held.into_iter().find(|index| {
            let standard = self.subscriptions[*index].standard.as_ref();
            standard.is_some_and(|one| one.id.as_deref() == Some(id))
        })
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

    /// The destination with that name; a new one is attached to each pattern that matches it.
    pub(super) fn find_or_make_destination(&mut self, name: &[u8]) -> Result<DestinationId, Fault> {
        if let Some(found) = self.destinations.find(name, None) {
            return Ok(found);
        }
        let max = u64::from(self.limits.destinations_max);
        if self.destinations.len() as u64 >= max {
            self.destinations.sweep_idle_topics();
        }
        if self.destinations.len() as u64 >= max {
            return Err(Fault::exceeded(Exceeded { limit: "destinations_max", max }));
        }
        self.check_destinations_room(DestinationTable::cost_of(name))?;
        let made = self.destinations.insert(name);
        for index in self.subscriptions.matching(name) {
            self.destinations.attach(made, index, false);
        }
        if Space::of(name) == Space::Topic {
            self.rebuild_routes(made);
        }
        Ok(made)
    }

    /// Checks that there is room for topics and queues that cost so much.
    pub(super) fn check_destinations_room(&mut self, bytes: u64) -> Result<(), Fault> {
        let max = self.limits.destinations_bytes_max;
        if bytes > 0 && self.destinations.bytes() + bytes > max {
            self.destinations.sweep_idle_topics();
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

    /// Rebuilds the routes of a destination, if it still exists.
    pub(super) fn rebuild_routes(&mut self, id: DestinationId) {
        if self.destinations.get(id).is_some_and(|one| one.watch.is_some()) {
            self.destinations.set_routes(id, self.routes_to(id));
        }
    }

    /// The routes to a destination: the owner's own subscriptions first; then subscribers of the topic, or
    /// watchers that may watch the current owner.
    pub(super) fn routes_to(&self, id: DestinationId) -> Vec<Route> {
        let destination = &self.destinations[id];
        let owner = destination.owner.map(|owner| self.sessions[owner].profile);
        let is_topic = Space::of(&destination.name) == Space::Topic;
        let mut own = Vec::new();
        let mut others = Vec::new();
        // Clients do not choose the ids of sessions, so any seed will do.
        let mut seen = HashSet::with_hasher(foldhash::fast::RandomState::default());
        for index in destination.attached() {
            let subscription = &self.subscriptions[*index];
            let session = subscription.session;
            if matches!(subscription.target, Target::Own(_)) && destination.owner == Some(session) {
                own.push(Route { session, subscription: *index, is_first: own.is_empty() });
                continue;
            }
            // Subscriptions of a session that has ended are ended by a job.
            let Some(watcher) = self.sessions.get(session).map(|one| one.profile) else { continue };
            if !is_topic && !owner.is_some_and(|owner| watcher.may_watch(owner)) {
                continue;
            }
            let is_first = seen.insert(session);
            // In the classic dialect a session gets one copy, by however many subscriptions.
            if is_first || subscription.standard.is_some() {
                others.push(Route { session, subscription: *index, is_first });
            }
        }
        own.append(&mut others);
        own
    }
}
