//! What must hold between sessions, subscriptions, destinations and groups: for tests.

use super::Broker;
use super::destination::{Destination, DestinationTable};
use super::groups::slot_of;
use super::ids::SubscriptionIndex;
use super::members::Members;
use super::presence::is_public;
use super::session::Session;
use super::space::Space;
use super::subscription::{Subscription, Target};

impl Broker {
    /// Panics if the tables of subscriptions contradict each other.
    pub(super) fn check_subscriptions(&self) {
        self.groups.check_invariants();
        let mut listed = 0;
        for (id, destination) in self.destinations.iter() {
            listed += self.check_members(destination.own(), |target| target == Target::Own(id));
            listed += self.check_members(destination.direct(), |target| {
                target == Target::Client(id) || target == Target::Topic(id)
            });
            self.check_selection(destination);
        }
        for (kind, group) in self.groups.iter() {
            let members = self.groups.get(kind, group).map(|(_, members)| members);
            let is_meant = |target: Target| target.group() == Some((kind, group));
            listed += self.check_members(members.unwrap_or(&Members::None), is_meant);
        }
        // A session that ends takes the list of its own subscriptions with it; a job ends them.
        let is_listed = |one: &Subscription| match one.target {
            Target::Queue(_) => false,
            Target::Own(_) => self.sessions.get(one.session).is_some(),
            _ => true,
        };
        let expected = self.subscriptions.iter().filter(|(_, one)| is_listed(one));
        assert_eq!(listed, expected.count(), "each subscription is a member of one list");
        self.check_held();
    }

    /// Checks a list of members. Returns their number.
    fn check_members(&self, members: &Members, is_meant: impl Fn(Target) -> bool) -> usize {
        for (position, route) in members.iter().enumerate() {
            let one = &self.subscriptions[route.subscription];
            assert_eq!((one.session, one.position as usize), (route.session, position));
            assert!(is_meant(one.target), "a subscription is a member where it belongs");
        }
        members.len()
    }

    /// Checks what a destination remembers of the groups that select it.
    fn check_selection(&self, destination: &Destination) {
        let name = &destination.name;
        let wildcards = &self.groups.wildcards;
        if destination.knows_wildcards(wildcards.changed_at()) {
            let matching = wildcards.matching_slowly(name);
            let mut known = destination.wildcards().to_vec();
            known.sort_unstable();
            assert_eq!(
                known,
                matching,
                "the wildcards that match {}",
                String::from_utf8_lossy(name)
            );
        }
        let Some(owner) = destination.owner.map(|owner| &self.sessions[owner]) else {
            assert_eq!(destination.groups().next(), None, "groups that select nobody");
            return;
        };
        for (id, group) in self.groups.clients.iter().filter(|(_, group)| group.is_known()) {
            let selects = is_public(owner.profile) && group.pattern().matches(name);
            assert_eq!(destination.has_group(slot_of(id)), selects, "watched");
        }
        for (id, group) in self.groups.presence.iter().filter(|(_, group)| group.is_known()) {
            let selects = is_public(owner.profile) && group.pattern().matches(name);
            assert_eq!(owner.events.has(slot_of(id)), selects, "announced");
        }
        let is_client = Space::of(name) == Space::Client;
        assert!(is_client, "only clients own a destination");
    }

    /// Checks the subscriptions that sessions list.
    fn check_held(&self) {
        let mut listed = 0;
        for (id, session) in self.sessions.iter() {
            session.subscriptions.check_invariants(&self.subscriptions);
            let all = session.subscriptions.all();
            listed += all.len();
            let mut targets: Vec<Target> = Vec::new();
            let target_of = |index: SubscriptionIndex| &self.subscriptions[index];
            for one in all.iter().map(|index| target_of(*index)) {
                assert_eq!(one.session, id);
                if !targets.contains(&one.target) {
                    targets.push(one.target);
                }
            }
            self.check_counts(session, &targets);
        }
        self.check_shares();
        assert_eq!(
            listed + self.leaving_len(),
            self.subscriptions.len(),
            "subscriptions that are no session's"
        );
    }

    /// Checks what a session holds of the tables that all share; `targets` are different.
    fn check_counts(&self, session: &Session, targets: &[Target]) {
        let (mut wildcards, mut patterns, mut destinations, mut bytes) = (0, 0, 0, 0);
        for target in targets {
            match target {
                Target::Topics(_) => wildcards += 1,
                Target::Clients(_) | Target::Presence(_) => patterns += 1,
                Target::Own(_) => {}
                Target::Client(id) | Target::Topic(id) | Target::Queue(id) => {
                    destinations += 1;
                    bytes += DestinationTable::cost_of(&self.destinations[*id].name);
                }
            }
        }
        assert_eq!((session.wildcards, session.patterns), (wildcards, patterns), "patterns");
        let held = (session.destinations, session.destination_bytes);
        assert_eq!(held, (destinations, bytes), "destinations that a session keeps alive");
    }

    /// The number of subscriptions of ended sessions that are still to be ended.
    pub(super) fn leaving_len(&self) -> usize {
        self.jobs.leaving().filter(|index| self.subscriptions.get(*index).is_some()).count()
    }
}
