//! Tables that all sessions share: what each session holds of them, and who pays when one is full.
//!
//! A session has shares of its own first; who exceeds them is refused, for that is its own consumption. Where
//! sessions together have used a table up, the one that holds most of it pays for one that holds little: it ends. Of
//! its subscriptions those end at once by which enough becomes free; a job ends the others, and before anybody else
//! pays, those that a job is about to end are ended. So the request succeeds in the same turn, and nothing has to be
//! counted as free that is not. If all that the session holds is held by others as well, those who share one thing pay
//! together, provided that each of them holds more than its part; if they are many, a job ends them, and what they
//! share does not count meanwhile.

use super::asker::{Asker, PURPOSES};
use super::destination::DestinationTable;
use super::fault::Fault;
use super::ids::{DestinationId, GroupKind, SessionId, SubscriptionIndex};
use super::members::Members;
use super::session::{Session, bytes_of};
use super::space::Space;
use super::subscription::Target;
use super::table::Key;
use super::{Broker, Moment};
use crate::limits::Exceeded;
use crate::ranking::Ranking;
use crate::work;

/// A table that all sessions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// Topics with wildcards.
    Wildcards,
    /// Regular expressions.
    Patterns,
    /// Subscriptions.
    Subscriptions,
    /// Destinations, by their number.
    Destinations,
    /// Destinations, by their memory.
    DestinationBytes,
}

impl Shared {
    const ALL: [Self; 5] = [
        Self::Wildcards,
        Self::Patterns,
        Self::Subscriptions,
        Self::Destinations,
        Self::DestinationBytes,
    ];

    /// The table of a kind of groups.
    fn of(kind: GroupKind) -> Self {
        match kind {
            GroupKind::Topics => Self::Wildcards,
            GroupKind::Clients | GroupKind::Presence => Self::Patterns,
        }
    }

    /// The kinds of groups in it.
    fn kinds(self) -> &'static [GroupKind] {
        match self {
            Self::Wildcards => &[GroupKind::Topics],
            Self::Patterns => &[GroupKind::Clients, GroupKind::Presence],
            Self::Subscriptions | Self::Destinations | Self::DestinationBytes => &[],
        }
    }

    /// The purpose for which subscriptions of ended sessions are sought.
    fn purpose(self) -> usize {
        match self {
            Self::Wildcards => 0,
            Self::Patterns => 1,
            Self::Subscriptions => 2,
            Self::Destinations | Self::DestinationBytes => PURPOSES - 1,
        }
    }

    /// What a session holds of it.
    fn held_by(self, session: &Session) -> u64 {
        match self {
            Self::Wildcards => session.wildcards.into(),
            Self::Patterns => session.patterns.into(),
            Self::Subscriptions => session.subscriptions.all().len() as u64,
            Self::Destinations => session.destinations.into(),
            Self::DestinationBytes => session.destination_bytes,
        }
    }
}

/// Sessions by what they hold of each table.
#[derive(Debug, Default)]
pub(super) struct Shares {
    rankings: [Ranking; Shared::ALL.len()],
}

/// What a subscription is to be to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'n> {
    /// All that a pattern selects.
    Group(GroupKind, &'n [u8]),
    /// A destination by its name.
    Name(&'n [u8]),
    /// The subscriber's own address.
    Own,
}

/// What becomes free of a table by the end of a session.
#[derive(Debug, Default)]
struct Freeing {
    /// Some of its subscriptions by whose end alone so much becomes free.
    ended: Vec<SubscriptionIndex>,
    /// Whether something becomes free by a job, since messages have to be returned first.
    is_freed_later: bool,
    /// The target that fewest others share with it.
    fewest: Option<Target>,
}

/// Times that room is sought by the end of the session that holds most, for one request.
const ATTEMPTS_MAX: u32 = 4;

/// Sessions that pay in one of them, at most: those that hold the same.
const PAYERS_MAX: usize = 16;

/// Subscriptions of sessions that have paid or left which end at once for one request, at most.
const ENDED_AT_ONCE_MAX: usize = 32;

/// Subscriptions among which they are sought.
const SOUGHT_MAX: usize = 1_000;

impl Broker {
    /// Makes room for one more subscription of a session: checks its own shares, and has others pay where they have
    /// used up what there is. What was looked up before may be gone then.
    pub(super) fn make_subscription_room(
        &mut self,
        session: SessionId,
        wanted: Wanted<'_>,
        now: Moment,
    ) -> Result<(), Fault> {
        self.check_own_shares(session, wanted)?;
        let asker = Asker::Session(session);
        self.make_room(Shared::Subscriptions, asker, 1, now)?;
        match wanted {
            Wanted::Group(kind, text) if self.groups.find(kind, text).is_none() => {
                self.make_room(Shared::of(kind), asker, 1, now)
            }
            Wanted::Name(name) if !self.is_counted(name) => self.make_place(name, asker, now),
            Wanted::Group(..) | Wanted::Name(_) | Wanted::Own => Ok(()),
        }
    }

    /// Whether there is a destination of that name that counts against the limits on destinations.
    fn is_counted(&self, name: &[u8]) -> bool {
        let found = self.destinations.find(name, None);
        found.is_some_and(|id| self.destinations[id].is_counted())
    }

    /// Checks that a session may hold one subscription more, whatever others hold.
    pub(super) fn check_own_shares(
        &self,
        session: SessionId,
        wanted: Wanted<'_>,
    ) -> Result<(), Fault> {
        let (one, limits) = (&self.sessions[session], &self.limits);
        let check = |shared: Shared, more: u64, (limit, max): (&'static str, u64)| {
            if shared.held_by(one) + more <= max {
                return Ok(());
            }
            Err(Fault::exceeded(Exceeded { limit, max }))
        };
        let profile = one.profile;
        // It is its own consumption as well if it holds all that there is.
        let least = |share: (&'static str, u64), shared: Shared| {
            let whole = self.limit_of(shared);
            if share.1 <= whole.1 { share } else { whole }
        };
        let max = limits.subscriptions_per_session_max[profile].into();
        let share = ("subscriptions_per_session_max", max);
        check(Shared::Subscriptions, 1, least(share, Shared::Subscriptions))?;
        match wanted {
            Wanted::Group(kind, text) => {
                let found = self.groups.find(kind, text).map(|id| Target::of_group(kind, id));
                if found.is_some_and(|target| self.find_subscription(session, &target).is_some()) {
                    return Ok(());
                }
                let share = match Shared::of(kind) {
                    Shared::Wildcards => {
                        ("wildcards_per_session_max", limits.wildcards_per_session_max[profile])
                    }
                    _ => ("patterns_per_session_max", limits.patterns_per_session_max[profile]),
                };
                let shared = Shared::of(kind);
                check(shared, 1, least((share.0, share.1.into()), shared))
            }
            Wanted::Name(name) if !self.holds_name(session, name) => {
                let share =
                    ("destination_share_bytes_max", limits.destination_share_bytes_max[profile]);
                let share = least(share, Shared::DestinationBytes);
                check(Shared::Destinations, 1, self.limit_of(Shared::Destinations))?;
                check(Shared::DestinationBytes, DestinationTable::cost_of(name), share)
            }
            Wanted::Name(_) | Wanted::Own => Ok(()),
        }
    }

    /// Whether a session subscribes to a destination by its name already.
    fn holds_name(&self, session: SessionId, name: &[u8]) -> bool {
        let Some(id) = self.destinations.find(name, None) else { return false };
        let target = match Space::of(name) {
            Space::Topic => Target::Topic(id),
            Space::Queue => Target::Queue(id),
            Space::Client | Space::Broker | Space::Unknown => Target::Client(id),
        };
        self.find_subscription(session, &target).is_some()
    }

    /// The destination with that name, which is made if there is none. For a topic there has to be room; what a queue
    /// without consumers takes is paid by its messages.
    pub(super) fn find_or_make_destination(
        &mut self,
        name: &[u8],
        asker: Asker,
        now: Moment,
    ) -> Result<DestinationId, Fault> {
        if let Some(found) = self.destinations.find(name, None) {
            return Ok(found);
        }
        if Space::of(name) == Space::Topic && !self.reserved.has_place_for(name) {
            self.make_place(name, asker, now)?;
        }
        Ok(self.make_destination(name))
    }

    /// Makes room for one more destination.
    pub(super) fn make_place(
        &mut self,
        name: &[u8],
        asker: Asker,
        now: Moment,
    ) -> Result<(), Fault> {
        self.make_room(Shared::Destinations, asker, 1, now)?;
        self.make_room(Shared::DestinationBytes, asker, DestinationTable::cost_of(name), now)
    }

    /// Makes room for more in a table.
    fn make_room(
        &mut self,
        shared: Shared,
        asker: Asker,
        more: u64,
        now: Moment,
    ) -> Result<(), Fault> {
        if self.has_room(shared, more) {
            return Ok(());
        }
        self.make_room_slow(shared, asker, more, now)
    }

    #[cold] // tables are rarely full
    fn make_room_slow(
        &mut self,
        shared: Shared,
        asker: Asker,
        more: u64,
        now: Moment,
    ) -> Result<(), Fault> {
        let (limit, max) = self.limit_of(shared);
        let fault = Fault::exceeded(Exceeded { limit, max }).later();
        if !matches!(asker, Asker::Nobody) && self.free_leaving(shared, more, now) {
            return Ok(());
        }
        for _ in 0..ATTEMPTS_MAX {
            let Some(bar) = self.bar_for(shared, asker, more) else { break };
            let Some(payer) = self.payer_at(shared, bar) else { break };
            let has_freed = self.have_paid(shared, payer, (bar, more), now);
            if self.has_room(shared, more) {
                return Ok(());
            }
            if !has_freed || self.is_share_spent() {
                break;
            }
        }
        Err(fault.staying_if_classic())
    }

    /// Ends subscriptions of sessions that are gone, before the jobs that are to end them, until there is room for more
    /// in a table. Returns whether there is.
    fn free_leaving(&mut self, shared: Shared, more: u64, now: Moment) -> bool {
        let (mut at, mut sought, mut ended) = (0, 0, 0);
        while sought < SOUGHT_MAX && ended < ENDED_AT_ONCE_MAX {
            let Some(index) = self.jobs.seek_leaving(shared.purpose(), &mut at) else { break };
            sought += 1;
            let target = self.subscriptions.get(index).filter(|one| one.holds_nothing());
            let target = target.map(|one| one.target);
            if target.is_some_and(|target| self.holders_of(shared, &target).is_some()) {
                ended += 1;
                self.end_subscriptions(vec![index], now);
                if self.has_room(shared, more) {
                    break;
                }
            }
        }
        self.meter.spend((sought + at) as u32 / work::LOOKUPS_PER_UNIT);
        self.has_room(shared, more)
    }

    /// Whether there is room for more in a table, for which topics go that nobody subscribes to by name.
    fn has_room(&mut self, shared: Shared, more: u64) -> bool {
        let (_, max) = self.limit_of(shared);
        let takes_idle = matches!(shared, Shared::Destinations | Shared::DestinationBytes);
        while self.used_of(shared) + more > max {
            if !takes_idle || !self.destinations.remove_idle_topic() {
                return false;
            }
            self.meter.spend(work::DROP);
        }
        true
    }

    /// What is in a table, and what is reserved in it.
    fn used_of(&self, shared: Shared) -> u64 {
        match shared {
            Shared::Wildcards | Shared::Patterns => {
                let open = |kind: &GroupKind| {
                    let (len, closed) = self.groups.len(*kind);
                    (len - closed) as u64
                };
                shared.kinds().iter().map(open).sum()
            }
            Shared::Subscriptions => self.subscriptions.len() as u64,
            Shared::Destinations => self.destinations.counted().len + self.reserved.places(),
            Shared::DestinationBytes => {
                self.destinations.counted().bytes + self.reserved.place_bytes()
            }
        }
    }

    fn limit_of(&self, shared: Shared) -> (&'static str, u64) {
        let limits = &self.limits;
        match shared {
            Shared::Wildcards => ("wildcards_max", limits.wildcards_max.into()),
            Shared::Patterns => ("patterns_max", limits.patterns_max.into()),
            Shared::Subscriptions => ("subscriptions_max", limits.subscriptions_max.into()),
            Shared::Destinations => ("destinations_max", limits.destinations_max.into()),
            Shared::DestinationBytes => ("destinations_bytes_max", limits.destinations_bytes_max),
        }
    }

    /// What a session holds of a table at least that pays for another: twice what the one that asks would hold then,
    /// and more than an equal part.
    fn bar_for(&self, shared: Shared, asker: Asker, more: u64) -> Option<u64> {
        let Asker::Session(asker) = asker else { return None };
        let before = shared.held_by(&self.sessions[asker]);
        let part = self.limit_of(shared).1 / self.sessions.len() as u64;
        Some((2 * (before + more)).max(part + 1))
    }

    /// The session that holds most of a table, if it has to pay.
    fn payer_at(&self, shared: Shared, bar: u64) -> Option<SessionId> {
        let largest = self.shares.rankings[shared as usize].largest()?;
        let (payer, session) = self.sessions.at(largest)?;
        (shared.held_by(session) >= bar).then_some(payer)
    }

    /// Ends a session that holds most of a table, and at once some of its subscriptions that nobody shares with it. If
    /// there is none, those who share something pay together, provided that each of them has to. Returns whether
    /// anything has become free; if not, nobody has paid, unless a job frees something then.
    fn have_paid(
        &mut self,
        shared: Shared,
        payer: SessionId,
        (bar, more): (u64, u64),
        now: Moment,
    ) -> bool {
        let found = self.find_freeing(shared, payer, more);
        if !found.ended.is_empty() || found.is_freed_later {
            let has_freed = !found.ended.is_empty();
            self.end_payers(shared, vec![payer], found.ended, now);
            return has_freed;
        }
        // One that is gone has paid, and a job is about to end its subscriptions.
        let must_pay = |broker: &Self, session| {
            broker.sessions.get(session).is_none_or(|one| shared.held_by(one) >= bar)
        };
        let target = match shared.kinds() {
            [] => found.fewest.filter(|target| {
                let members = self.members_of(target).unwrap_or(&Members::None);
                let all = || members.iter().all(|route| must_pay(self, route.session));
                members.len() <= PAYERS_MAX && all()
            }),
            kinds if kinds.iter().any(|kind| self.groups.len(*kind).1 > 0) => None,
            kinds => {
                let group = self.seek_payers(kinds, PAYERS_MAX, must_pay);
                group.map(|(kind, id)| Target::of_group(kind, id))
            }
        };
        let Some(target) = target else { return false };
        let members = self.members_of(&target).unwrap_or(&Members::None);
        if let Some((kind, group)) = target.group()
            && members.len() > PAYERS_MAX
        {
            let fault = self.fault_of_payer(shared);
            self.expel(kind, group, fault, now);
            return true;
        }
        let payers = members.iter().map(|route| route.session).collect();
        let ended = members.iter().map(|route| route.subscription).collect();
        self.end_payers(shared, payers, ended, now);
        true
    }

    /// Ends sessions that pay, and at once some subscriptions of theirs.
    fn end_payers(
        &mut self,
        shared: Shared,
        payers: Vec<SessionId>,
        ended: Vec<SubscriptionIndex>,
        now: Moment,
    ) {
        let fault = self.fault_of_payer(shared);
        for payer in payers {
            if let Some(session) = self.sessions.get(payer) {
                self.refuse(session.peer, &fault, now);
            }
        }
        self.end_subscriptions(ended, now);
    }

    fn fault_of_payer(&self, shared: Shared) -> Fault {
        let (limit, max) = self.limit_of(shared);
        Fault::holding_most(Exceeded { limit, max })
    }

    /// Ends subscriptions that hold no messages and that their session no longer lists.
    fn end_subscriptions(&mut self, ended: Vec<SubscriptionIndex>, now: Moment) {
        for index in ended {
            if let Some(queue) = self.end_subscription(index, now) {
                self.serve_queue(queue, now);
                self.release_destination(queue);
            }
        }
    }

    /// What would become free by the end of a session.
    fn find_freeing(&mut self, shared: Shared, payer: SessionId, more: u64) -> Freeing {
        let (mut found, mut least) = (Freeing::default(), usize::MAX);
        let (mut sought, mut freed) = (0, 0);
        for index in self.sessions[payer].subscriptions.all().iter().take(SOUGHT_MAX) {
            sought += 1;
            let one = &self.subscriptions[*index];
            let target = one.target;
            match self.holders_of(shared, &target) {
                Some(1) if one.holds_nothing() => {
                    found.ended.push(*index);
                    freed += match shared {
                        Shared::DestinationBytes => bytes_of(&target, &self.destinations),
                        _ => 1,
                    };
                }
                Some(1) => found.is_freed_later = true,
                Some(holders) if holders < least && one.holds_nothing() => {
                    (least, found.fewest) = (holders, Some(target));
                }
                _ => {}
            }
            if freed >= more || found.ended.len() == ENDED_AT_ONCE_MAX {
                break;
            }
        }
        self.meter.spend(sought / work::LOOKUPS_PER_UNIT);
        found
    }

    /// The number of subscriptions that have to end so that what a target takes of a table becomes free, if it does.
    fn holders_of(&self, shared: Shared, target: &Target) -> Option<usize> {
        if shared == Shared::Subscriptions {
            return Some(1);
        }
        match (shared, target) {
            (Shared::Wildcards | Shared::Patterns, _) => {
                target.group().filter(|(kind, _)| Shared::of(*kind) == shared)?;
            }
            (_, Target::Queue(id)) => return Some(self.destinations.queue(*id)?.consumers_len()),
            // A group keeps no destination alive.
            _ if target.group().is_some() => return None,
            _ => {}
        }
        Some(self.members_of(target)?.len())
    }

    /// The subscriptions to a group, or by name to a topic or an address.
    fn members_of(&self, target: &Target) -> Option<&Members> {
        match target {
            Target::Client(id) | Target::Topic(id) => Some(self.destinations.get(*id)?.direct()),
            Target::Own(_) | Target::Queue(_) => None,
            Target::Topics(_) | Target::Clients(_) | Target::Presence(_) => {
                let (kind, group) = target.group()?;
                Some(self.groups.get(kind, group)?.1)
            }
        }
    }

    /// Notes what a session holds, which has changed.
    pub(super) fn note_shares(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        for (shared, ranking) in Shared::ALL.into_iter().zip(&mut self.shares.rankings) {
            ranking.set(id.place().index(), shared.held_by(session));
        }
    }

    /// Forgets a session that has ended.
    pub(super) fn forget_shares(&mut self, id: SessionId) {
        self.shares.rankings.iter_mut().for_each(|ranking| ranking.set(id.place().index(), 0));
    }

    /// Panics if a session is not where it belongs by what it holds.
    pub(super) fn check_shares(&self) {
        for (shared, ranking) in Shared::ALL.into_iter().zip(&self.shares.rankings) {
            let mut holders = 0;
            for (id, session) in self.sessions.iter() {
                let held = shared.held_by(session);
                holders += usize::from(held > 0);
                assert!(ranking.has(id.place().index(), held), "{shared:?} of a session: {held}");
            }
            assert_eq!(ranking.len(), holders, "sessions that hold something of {shared:?}");
            let (used, (limit, max)) = (self.used_of(shared), self.limit_of(shared));
            assert!(used <= max, "{used} in a table of {max}: {limit}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{Data, Keys, Options, Speaker};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::Framing;

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    fn broker_with(limits: Limits) -> Broker {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        Broker::new(Options::new(limits, keys, Box::new(|| 1)))
    }

    fn join(broker: &mut Broker, slot: u32, login: &str) -> Speaker {
        let (dialect, framing, number) = (Dialect::Standard, Framing::Line, slot.into());
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        let connect =
            format!("CONNECT\naccept-version:1.2\nlogin:{login}\npasscode:app.super\n\n\0");
        say(broker, &mut speaker, &connect);
        speaker
    }

    fn say(broker: &mut Broker, speaker: &mut Speaker, text: &str) {
        broker.handle(speaker, Data::unshared(text.as_bytes()), NOW);
        broker.check_invariants();
    }

    fn subscribe(broker: &mut Broker, speaker: &mut Speaker, id: u32, name: &str) {
        let frame = format!("SUBSCRIBE\nid:{id}\ndestination:{name}\n\n\0");
        say(broker, speaker, &frame);
    }

    fn session(broker: &Broker, speaker: &Speaker) -> Option<SessionId> {
        broker.peers.peer(speaker.peer).session()
    }

    #[test]
    fn a_request_takes_a_bounded_part_of_a_turn_however_much_the_one_that_pays_holds() {
        let limits = Limits { wildcards_max: 200, destinations_max: 801, ..Limits::default() };
        for name in ["/topic/last/>", "/topic/last", "/queue/last"] {
            let mut broker = broker_with(limits.clone());
            let (mut ana, mut bob) = (join(&mut broker, 0, "ana"), join(&mut broker, 1, "bob"));
            for id in 0..1_000 {
                let end = if id % 5 == 0 { "/>" } else { "" };
                subscribe(&mut broker, &mut ana, id, &format!("/topic/{id}{end}"));
            }
            subscribe(&mut broker, &mut bob, 0, "/topic/bob");
            assert_eq!(
                (broker.groups.wildcards.len(), broker.destinations.counted().len),
                (200, 801)
            );
            let before = broker.work_done();
            broker.begin_share(400);
            subscribe(&mut broker, &mut bob, 1, name);
            let spent = broker.work_done() - before;
            assert!(spent < 800, "{spent} units for {name}");
            assert!(session(&broker, &ana).is_none() && session(&broker, &bob).is_some());
            assert!(broker.leaving_len() > 500, "a job ends the others");
            while broker.has_work() {
                broker.begin_share(1_000);
                broker.advance_jobs(NOW);
                broker.check_invariants();
            }
            assert_eq!(broker.subscriptions.len(), 2);
        }
    }

    /// A client that takes all that becomes free, in one write, leaves nothing of it to others, who have to find room
    /// all the same.
    #[test]
    fn nobody_else_pays_before_those_have_gone_that_are_leaving() {
        let limits = Limits { wildcards_max: 400, ..Limits::default() };
        let mut broker = broker_with(limits);
        let mut holders: Vec<_> = (0..4).map(|n| join(&mut broker, n, &format!("h{n}"))).collect();
        for (number, holder) in (0..).zip(&mut holders) {
            for id in 0..100 {
                subscribe(&mut broker, holder, id, &format!("/topic/{number}/{id}/>"));
            }
        }
        let (mut eve, mut guest) = (join(&mut broker, 4, "eve"), join(&mut broker, 5, "guest"));
        // Jobs do not go on meanwhile.
        for id in 0..49 {
            broker.begin_share(1);
            subscribe(&mut broker, &mut eve, id, &format!("/topic/eve/{id}/>"));
        }
        assert!(broker.leaving_len() > 10 && broker.groups.wildcards.len() == 400);
        for id in 0..3 {
            broker.begin_share(1);
            subscribe(&mut broker, &mut guest, id, &format!("/topic/guest/{id}/>"));
        }
        let stay = holders.iter().filter(|one| session(&broker, one).is_some()).count();
        assert_eq!(stay, 3, "one has paid");
        assert!(session(&broker, &eve).is_some() && session(&broker, &guest).is_some());
    }

    /// Four sets of sessions; each holds the same, so that no session alone frees anything.
    fn hold_together(
        broker: &mut Broker,
        sessions: u32,
        name: impl Fn(u32, u32) -> String,
    ) -> Vec<Speaker> {
        let mut all = Vec::new();
        for index in 0..4 * sessions {
            let mut one = join(broker, index, &format!("h{index}"));
            for id in 0..10 {
                subscribe(broker, &mut one, id, &name(index / sessions, id));
            }
            all.push(one);
        }
        all
    }

    fn finish(broker: &mut Broker) {
        while broker.has_work() {
            broker.begin_share(1_000);
            broker.advance_jobs(NOW);
            broker.check_invariants();
        }
    }

    #[test]
    fn those_who_hold_the_same_pay_together_however_many_they_are() {
        let names: [fn(u32, u32) -> String; 2] = [
            |set, id| format!("/topic/{set}/{id}/>"),
            |set, id| format!("/agent/{set}x{id}.*\ndestination-type:1"),
        ];
        for (sessions, name) in [2, 16, 17, 20].into_iter().zip(names.into_iter().cycle()) {
            let limits = Limits { wildcards_max: 40, patterns_max: 40, ..Limits::default() };
            let mut broker = broker_with(limits);
            let mut holders = hold_together(&mut broker, sessions, name);
            let stay = |broker: &Broker, holders: &[Speaker]| {
                holders.iter().filter(|one| session(broker, one).is_some()).count() as u32
            };
            let mut guest = join(&mut broker, 90, "guest");
            // Jobs do not go on meanwhile.
            broker.begin_share(1);
            subscribe(&mut broker, &mut guest, 0, &name(9, 0));
            assert!(session(&broker, &guest).is_some(), "{sessions}");
            assert_eq!(broker.groups.iter().count() > 40, sessions > 16);
            if sessions > 16 {
                let mut other = join(&mut broker, 93, "other");
                subscribe(&mut broker, &mut other, 0, &name(9, 2));
                assert!(session(&broker, &other).is_none(), "one after the other");
            }
            // They come again at once, before all are gone, to what they shared.
            let back = (0..4 * sessions)
                .find(|index| session(&broker, &holders[*index as usize]).is_none());
            if let Some(index) = back {
                let mut one = join(&mut broker, 91, "back");
                for id in 0..10 {
                    subscribe(&mut broker, &mut one, id, &name(index / sessions, id));
                }
                holders.push(one);
            }
            finish(&mut broker);
            let left = stay(&broker, &holders[..4 * sessions as usize]);
            assert_eq!(left, 3 * sessions, "those of one set have paid");
            let mut next = join(&mut broker, 92, "next");
            subscribe(&mut broker, &mut next, 0, &name(9, 1));
            assert!(session(&broker, &next).is_some(), "{sessions}");
            finish(&mut broker);
        }
    }

    #[test]
    fn nobody_is_ended_where_that_frees_nothing() {
        // Each pattern has a subscriber that holds no more than its part: with forty others that is one.
        let limits = Limits { wildcards_max: 40, ..Limits::default() };
        let mut broker = broker_with(limits);
        let name = |set: u32, id: u32| format!("/topic/{set}/{id}/>");
        let mut holders = hold_together(&mut broker, 3, name);
        for index in 0..40 {
            let mut one = join(&mut broker, 50 + index, &format!("one{index}"));
            subscribe(&mut broker, &mut one, 0, &name(index / 10, index % 10));
            holders.push(one);
        }
        let mut guest = join(&mut broker, 90, "guest");
        subscribe(&mut broker, &mut guest, 0, "/topic/guest/>");
        assert!(session(&broker, &guest).is_none(), "there is no room");
        assert!(holders.iter().all(|one| session(&broker, one).is_some()));

        // The same with topics that more sessions share than are ended at once.
        let mut broker = broker_with(Limits { destinations_max: 40, ..Limits::default() });
        let holders = hold_together(&mut broker, 17, |set, id| format!("/topic/{set}/{id}"));
        let mut guest = join(&mut broker, 90, "guest");
        subscribe(&mut broker, &mut guest, 0, "/topic/guest");
        assert!(session(&broker, &guest).is_none(), "there is no room");
        assert!(holders.iter().all(|one| session(&broker, one).is_some()));
    }

    /// Where a session holds all that there is, nobody else can make room for it.
    #[test]
    fn one_that_holds_a_whole_table_is_not_told_to_try_again() {
        let bytes = 3 * DestinationTable::cost_of(b"/topic/0");
        for (limit, limits) in [
            ("subscriptions_max", Limits { subscriptions_max: 3, ..Limits::default() }),
            ("destinations_max", Limits { destinations_max: 3, ..Limits::default() }),
            (
                "destinations_bytes_max",
                Limits { destinations_bytes_max: bytes, ..Limits::default() },
            ),
        ] {
            for held in [3, 2] {
                let mut broker = broker_with(limits.clone());
                let (mut ana, mut bob) = (join(&mut broker, 0, "ana"), join(&mut broker, 1, "bob"));
                (held..3).for_each(|id| {
                    subscribe(&mut broker, &mut bob, id, &format!("/topic/{id}"));
                });
                (0..held).for_each(|id| {
                    subscribe(&mut broker, &mut ana, id, &format!("/topic/{id}"));
                });
                assert!(session(&broker, &ana).is_some());
                broker.peers.discard_unsent(ana.peer);
                subscribe(&mut broker, &mut ana, 9, "/topic/9");
                let (arena, peer) = broker.peers.outbox(ana.peer).unwrap();
                let answer = arena.only_run(&peer.queue).unwrap().bytes;
                let answer = String::from_utf8_lossy(answer);
                let retry = if held == 3 { "\nretry:never\n" } else { "\nretry:later\n" };
                assert!(answer.contains(retry) && answer.contains(limit), "{held}: {answer}");
            }
        }
    }

    #[test]
    fn what_a_session_holds_is_counted_once_for_each_target() {
        let mut broker = broker_with(Limits::default());
        let mut ana = join(&mut broker, 0, "ana");
        let names = ["/topic/a", "/topic/a", "/queue/a", "/agent/ana", "/topic/>", "/topic/>"];
        for (id, name) in (0..).zip(names) {
            subscribe(&mut broker, &mut ana, id, name);
        }
        let id = session(&broker, &ana).unwrap();
        let held = |broker: &Broker| Shared::ALL.map(|shared| shared.held_by(&broker.sessions[id]));
        let cost = |name: &str| DestinationTable::cost_of(name.as_bytes());
        let bytes = cost("/topic/a") + cost("/queue/a");
        assert_eq!(held(&broker), [1, 0, 6, 2, bytes]);
        for id in 0..3 {
            say(&mut broker, &mut ana, &format!("UNSUBSCRIBE\nid:{id}\n\n\0"));
        }
        assert_eq!(held(&broker), [1, 0, 3, 0, 0]);
    }
}
