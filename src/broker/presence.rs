//! Presence: events for services about clients that log in and out.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;

use serde::Serialize;

use super::bits::BitSet;
use super::fan::Fan;
use super::groups::{Group, State, slot_of};
use super::ids::{SessionId, SubscriptionIndex};
use super::line::{Kin, Line};
use super::members::Route;
use super::message::{Content, Message, Origin, UserLines};
use super::space::Space;
use super::subscription::Target;
use super::wide::{Wide, narrow_max};
use super::{Broker, Moment};
use crate::buffer::ALLOCATION_BYTES;
use crate::calendar::Timestamp;
use crate::json;
use crate::limits::Limits;
use crate::profile::Profile;
use crate::work::{self, Progress};

/// The kind of a presence event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A client logged in, or took its session over.
    Logged,
    /// A connection of a client ended.
    Disconnected,
    /// A session ended.
    Logout,
}

impl Event {
    fn word(self) -> &'static str {
        match self {
            Self::Logged => "logged",
            Self::Disconnected => "disconnected",
            Self::Logout => "logout",
        }
    }
}

impl Broker {
    /// Sends an event to each subscribed service: once in the classic dialect, however many of its patterns
    /// match, and once for each subscription in the standard one. If they are many, or the address is long, which may
    /// have to be escaped, or earlier events are still being sent, a job sends it, after these.
    pub(super) fn publish_presence(
        &mut self,
        event: Event,
        session: SessionId,
        reason: &'static str,
        now: Moment,
    ) {
        let mut fan = Fan::default();
        let mut slots = BitSet::default();
        for slot in self.sessions[session].events.iter() {
            if let Some(group) = self.groups.presence.known_at(slot) {
                self.meter.spend(work::DELIVERY);
                fan.add(group.members(), None);
                slots.set(slot, true);
            }
        }
        if fan.is_empty() {
            return;
        }
        let receivers = fan.len();
        let brief = self.brief_of(event, session, reason, now);
        self.meter.spend(work::FRAME + work::of_bytes(brief.address.len()));
        let is_small =
            receivers <= narrow_max(&self.limits) && brief.address.len() <= ADDRESS_AT_ONCE;
        if is_small && !self.announcements.is_under_way {
            self.meter.spend(receivers as u32 * work::DELIVERY);
            let event = BrokerEvent::new(self, &brief);
            event.with_message(|message| self.deliver_to(message, fan, now));
            return;
        }
        let newest = self.groups.presence.newest();
        self.announcements.push(brief, (slots, newest), receivers);
        if !std::mem::replace(&mut self.announcements.is_under_way, true) {
            self.begin_announcing();
        }
    }

    fn brief_of(&self, event: Event, id: SessionId, reason: &'static str, now: Moment) -> Brief {
        let session = &self.sessions[id];
        Brief {
            event,
            address: self.announcements.shared(&self.destinations[session.destination].name),
            profile: session.profile,
            connection: self.peers.peer(session.peer).number,
            reason,
            at: now,
        }
    }

    /// Numbers a subscription to presence, which gets no events that happened before it.
    pub(super) fn number_presence_subscription(&mut self, index: SubscriptionIndex) {
        let subscription = &mut self.subscriptions[index];
        // A client of the classic dialect may have it already.
        if subscription.presence_number == 0 {
            self.announcements.subscriptions += 1;
            subscription.presence_number = self.announcements.subscriptions;
        }
    }
}

/// An event that is not encoded yet.
#[derive(Clone, Debug)]
struct Brief {
    event: Event,
    /// The address of the client.
    address: Rc<[u8]>,
    profile: Profile,
    /// The number of its connection.
    connection: u64,
    reason: &'static str,
    at: Moment,
}

impl Brief {
    /// Its memory, at most.
    fn held_bytes(&self) -> u64 {
        (size_of::<Self>() + ALLOCATION_BYTES + self.address.len()) as u64
    }

    fn login(&self) -> &[u8] {
        &self.address[self.profile.destination_prefix().len()..]
    }

    fn body(&self) -> String {
        let body = Body {
            event: self.event.word(),
            login: String::from_utf8_lossy(self.login()),
            profile: self.profile.description(),
            destination: String::from_utf8_lossy(&self.address),
            connection_id: self.connection,
            reason: self.reason,
            at: Timestamp(self.at.unix_ms),
        };
        body.to_json()
    }
}

/// Presence events that are sent to many services, in the order in which they happened, and logins that wait for them.
#[derive(Debug)]
pub(super) struct Announcements {
    /// The cost of those that may wait before logins wait.
    cost_max: u64,
    waiting: VecDeque<Announcement>,
    /// Those that are being sent, and their cost.
    current: Option<(Box<Wide>, u64)>,
    /// The number of the last subscription to presence.
    subscriptions: u64,
    /// The memory of those that wait.
    bytes: u64,
    /// The cost of all of them.
    cost: u64,
    /// The cost of the events of logins that may go on.
    admitted: u64,
    /// Logins that wait.
    pub(super) line: Line,
    /// The kin whose oldest login was last asked whether it has waited for too long.
    pub(super) asked: Kin,
    /// Whether a job sends them.
    is_under_way: bool,
}

/// Events that go to the same receivers. Those that wait are not encoded, and who gets them is told by the groups and
/// by a number: so they are small, and never more than a few for each session.
#[derive(Debug)]
struct Announcement {
    events: VecDeque<Brief>,
    /// The slots of the groups of their receivers, and the number of the newest group at their time: in the slot of an
    /// older one may be a newer one now.
    groups: (BitSet, u64),
    /// The number of the last subscription that gets them.
    until: u64,
    /// What each of them costs.
    cost: u64,
}

impl Announcements {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            cost_max: u64::from(limits.turn_units_max) * TURNS_MAX,
            waiting: VecDeque::new(),
            current: None,
            subscriptions: 0,
            bytes: 0,
            cost: 0,
            admitted: 0,
            line: Line::default(),
            asked: Kin::default(),
            is_under_way: false,
        }
    }

    /// Whether so much waits that no client may log in or be taken over about whom there are events, until there is
    /// less. A client that is logged in causes two more at its end, so that there are never more than that for each.
    pub(super) fn are_many(&self) -> bool {
        self.cost + self.admitted >= self.cost_max
    }

    /// Whether a login has to wait.
    pub(super) fn has_line(&self) -> bool {
        self.are_many() || self.line.len() > 0
    }

    /// Admits a login whose event costs so much.
    pub(super) fn admit(&mut self, cost: u64) {
        self.admitted += cost;
    }

    /// Undoes [`Self::admit`], as the login goes on.
    pub(super) fn note_admitted(&mut self, cost: u64) {
        self.admitted -= cost;
    }

    /// Their memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.current.as_ref().map_or(0, |(wide, _)| wide.held_bytes())
    }

    /// An address, which the events of the end of a session share.
    fn shared(&self, address: &[u8]) -> Rc<[u8]> {
        let last = self.waiting.back().and_then(|last| last.events.back());
        match last.filter(|last| *last.address == *address) {
            Some(last) => last.address.clone(),
            None => address.into(),
        }
    }

    /// Adds an event: to those before, if it has the same receivers, so that each of them gets them by one write.
    fn push(&mut self, event: Brief, groups: (BitSet, u64), receivers: usize) {
        let (cost, until) = (cost_of(receivers), self.subscriptions);
        self.cost += cost;
        self.bytes += event.held_bytes();
        match self.waiting.back_mut() {
            Some(last) if last.until == until && last.cost == cost && last.groups == groups => {
                last.events.push_back(event);
            }
            _ => {
                let events = VecDeque::from([event]);
                let next = Announcement { events, groups, until, cost };
                self.bytes += next.own_bytes();
                self.waiting.push_back(next);
            }
        }
    }

    /// Takes the next event, if it has the same receivers as the one before, if there is one before.
    fn pop(&mut self, has_before: bool) -> Option<Brief> {
        let first = self.waiting.front_mut()?;
        if let Some(event) = first.events.pop_front() {
            self.bytes -= event.held_bytes();
            return Some(event);
        }
        if has_before {
            return None;
        }
        self.bytes -= first.own_bytes();
        self.waiting.pop_front();
        self.pop(false)
    }
}

impl Announcement {
    /// Its memory without that of the events.
    fn own_bytes(&self) -> u64 {
        (size_of::<Self>() + ALLOCATION_BYTES + self.groups.0.bytes()) as u64
    }
}

/// Sends announcements, until the share of the turn is used up.
pub(super) fn announce(broker: &mut Broker) -> Progress {
    while let Some((mut wide, cost)) = broker.next_announcements() {
        if wide.advance(broker) == Progress::More {
            broker.announcements.current = Some((wide, cost));
            return Progress::More;
        }
        broker.announcements.cost -= cost;
        if broker.is_share_spent() {
            return Progress::More;
        }
    }
    broker.announcements.is_under_way = false;
    Progress::Ended
}

impl Broker {
    /// The announcements that are being sent, or else the next ones that have receivers, and their cost.
    fn next_announcements(&mut self) -> Option<(Box<Wide>, u64)> {
        if let Some(current) = self.announcements.current.take() {
            return Some(current);
        }
        let mut wide: Option<Box<Wide>> = None;
        let (mut cost, mut bytes) = (0, 0);
        while let Some(event) = self.announcements.pop(wide.is_some()) {
            let fan = match &wide {
                Some(_) => Fan::default(),
                None => self.next_fan(),
            };
            cost += self.announcements.waiting.front().map_or(0, |first| first.cost);
            let at = event.at;
            let event = BrokerEvent::new(self, &event);
            bytes += event.body.len();
            let next = event.with_message(|message| Wide::new(message, fan, None, at));
            match &mut wide {
                Some(wide) => wide.join(next),
                None => wide = Some(Box::new(next)),
            }
            let is_full = wide.as_ref().is_some_and(|wide| wide.len() == JOINED_MAX);
            if is_full || bytes >= JOINED_BYTES_MAX || self.is_share_spent() {
                break;
            }
        }
        Some((wide?, cost))
    }

    /// The receivers of the next announcement, as far as they are still there.
    fn next_fan(&mut self) -> Fan {
        let mut fan = Fan::default();
        let Some(first) = self.announcements.waiting.front() else { return fan };
        let (slots, newest) = &first.groups;
        for slot in slots.iter() {
            self.meter.spend(work::DELIVERY);
            let group = self.groups.presence.known_at(slot);
            if let Some(group) = group.filter(|group| group.number() <= *newest) {
                fan.add(group.members(), None);
            }
        }
        fan.until = first.until;
        fan
    }
}

/// What an event to so many receivers costs: its deliveries, and the memory in which it waits as some of them.
pub(super) fn cost_of(receivers: usize) -> u64 {
    receivers.max(RECEIVERS_LEAST) as u64
}

/// Turns whose units are as many as the deliveries of events that may wait before logins wait: the work of a fraction
/// of a second.
const TURNS_MAX: u64 = 16;

/// Receivers as which those of an event count at least.
const RECEIVERS_LEAST: usize = 100;

/// The longest address about which an event is sent at once. Many connections may end together, of which none can be
/// told later, so that what follows from each must be little.
const ADDRESS_AT_ONCE: usize = 256;

/// Events that are sent together.
const JOINED_MAX: usize = 16;

/// The size of bodies from which no more are sent together.
const JOINED_BYTES_MAX: usize = 16 << 10;

/// Characters that are escaped for a unit.
const ESCAPES_PER_UNIT: u32 = 4;

/// Presence events about clients that were logged in before a subscription.
#[derive(Debug)]
pub(super) struct Snapshot {
    subscription: SubscriptionIndex,
    /// The slot of the session that is next.
    from: usize,
    /// The number of the last login before the subscription.
    asked: u64,
}

impl Snapshot {
    /// A snapshot for a subscription.
    pub(super) fn new(broker: &Broker, subscription: SubscriptionIndex) -> Self {
        Self { subscription, from: 0, asked: broker.counters.logins }
    }

    /// Sends events until the share of the turn is used up, or as long as the subscriber's queue has room.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        while let Some((next, id, session)) = broker.sessions.next_from(self.from) {
            let Some(subscription) = broker.subscriptions.get(self.subscription) else { break };
            let Target::Presence(group) = subscription.target else { break };
            let Some(watcher) = broker.sessions.get(subscription.session) else { break };
            let Some(State::Known(known)) = broker.groups.presence.get(group).map(Group::state)
            else {
                break;
            };
            broker.meter.spend(work::FRAME + (next - self.from) as u32 / SLOTS_PER_UNIT);
            // About later sessions there are events anyway.
            if session.events.has(slot_of(group)) && session.number <= known.max(self.asked) {
                if !broker.peers.peer(watcher.peer).has_room() {
                    return Progress::Waits;
                }
                let (session, subscription) = (subscription.session, self.subscription);
                let fan = Fan::to(Route { session, subscription });
                let brief = broker.brief_of(Event::Logged, id, SNAPSHOT, now);
                let event = BrokerEvent::new(broker, &brief);
                event.with_message(|message| broker.deliver_to(message, fan, now));
            }
            self.from = next;
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
        let rest = (broker.sessions.slots_len() as usize).saturating_sub(self.from);
        broker.meter.spend(rest as u32 / SLOTS_PER_UNIT);
        Progress::Ended
    }
}

/// Whether clients of a profile may be watched, and there are events about them.
pub(super) fn is_public(profile: Profile) -> bool {
    matches!(profile, Profile::Agent | Profile::SuperAgent)
}

/// Slots of sessions that are looked at for a unit, if nobody is there.
const SLOTS_PER_UNIT: u32 = 16;

/// The reason in events about clients that were logged in before the subscription.
const SNAPSHOT: &str = "snapshot";

/// An event, as a message of the broker.
struct BrokerEvent {
    number: u64,
    word: &'static str,
    is_snapshot: bool,
    body: String,
}

impl BrokerEvent {
    fn new(broker: &mut Broker, brief: &Brief) -> Self {
        let body = brief.body();
        let escaped = body.len().saturating_sub(brief.address.len() + brief.login().len());
        let units = work::of_bytes(body.len()) + escaped as u32 / ESCAPES_PER_UNIT;
        broker.meter.spend(work::FRAME + units);
        let number = broker.next_message();
        let is_snapshot = brief.reason == SNAPSHOT;
        Self { number, word: brief.event.word(), is_snapshot, body }
    }

    fn with_message<T>(&self, send: impl FnOnce(&Message<'_>) -> T) -> T {
        let lines: [(&[u8], &[u8]); 2] = [(b"event", self.word.as_bytes()), (b"snapshot", b"true")];
        let user_lines = UserLines::Own(if self.is_snapshot { &lines } else { &lines[..1] });
        let content = Content {
            transaction: None,
            destination: Space::PRESENCE,
            content_type: Some(b"application/json"),
            has_escapes: false,
            user_lines,
            body: self.body.as_bytes(),
            shared: None,
        };
        let origin = Origin::new(Space::BROKER, Space::BROKER);
        let (number, is_redelivered) = (self.number, false);
        send(&Message { number, is_redelivered, origin: &origin, content: &content })
    }
}

/// The body of an event, with its keys in the order of the fields.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Body<'a> {
    event: &'static str,
    login: Cow<'a, str>,
    profile: &'static str,
    destination: Cow<'a, str>,
    connection_id: u64,
    reason: &'a str,
    at: Timestamp,
}

impl Body<'_> {
    fn to_json(&self) -> String {
        json::to_line(self, |c| c < ' ')
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Source;
    use super::super::peer::Opening;
    use super::super::{
        CloseReason, Closure, Code, Data, Done, Keys, Options, Retry, Speaker, Verdict,
    };
    use super::*;
    use crate::dialect::Dialect;
    use crate::outbound::Framing;

    #[test]
    fn a_body_is_written_byte_for_byte() {
        let body = Body {
            event: "logged",
            login: "a\"b\\c\tñ\u{7f}\u{202e}".into(),
            profile: "agent",
            destination: "/agent/a\"b\\c\tñ".into(),
            connection_id: 7,
            reason: SNAPSHOT,
            at: Timestamp(951_782_399_999),
        };
        assert_eq!(
            body.to_json(),
            "{\"event\":\"logged\",\"login\":\"a\\\"b\\\\c\\u0009ñ\u{7f}\u{202e}\",\
             \"profile\":\"agent\",\"destination\":\"/agent/a\\\"b\\\\c\\u0009ñ\",\
             \"connection-id\":7,\"reason\":\"snapshot\",\"at\":\"2000-02-28T23:59:59.999Z\"}"
        );
    }

    fn cost_max() -> u64 {
        Announcements::new(&Limits::default()).cost_max
    }

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    fn join(broker: &mut Broker, slot: u32, profile: &str) -> Speaker {
        join_as(broker, slot, slot, profile)
    }

    fn join_as(broker: &mut Broker, slot: u32, login: u32, profile: &str) -> Speaker {
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let number = u64::from(slot);
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        say(broker, &mut speaker, &format!("CONNECT\nlogin:{login}\npasscode:app.{profile}\n\n\0"));
        speaker
    }

    fn say(broker: &mut Broker, who: &mut Speaker, text: &str) -> Done {
        let bytes = text.as_bytes();
        broker.handle(who, Data::unshared(bytes), NOW)
    }

    /// A service with so many subscriptions to events.
    fn watched(subscriptions: u32) -> Broker {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let mut watcher = join(&mut broker, 0, "service");
        for id in 0..subscriptions {
            let text = format!("SUBSCRIBE\nid:{id}\ndestination:/broker/presence\n\n\0");
            say(&mut broker, &mut watcher, &text);
        }
        broker
    }

    /// A turn in which so much is done, and at whose end all is written. Clients whose job has ended are handled
    /// again. Returns who has logged in.
    fn turn(broker: &mut Broker, units: u32, clients: &mut [Speaker], now: Moment) -> Vec<u32> {
        let all: Vec<_> = broker.peers.iter().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| _ = broker.peers.discard_unsent(id));
        broker.peers.arena.end_turn();
        broker.begin_share(units);
        broker.advance_jobs(now);
        let mut ended = Vec::new();
        while let Some(news) = broker.take_news() {
            ended.extend(news.has_ended.then_some(news.slot));
        }
        ended.retain(|slot| {
            let at = |one: &&mut Speaker| {
                broker.peers.get(one.peer).is_some_and(|peer| peer.slot == *slot)
            };
            let Some(client) = clients.iter_mut().find(at) else { return false };
            broker.resume(client, now).verdict == Verdict::LoggedIn
        });
        ended
    }

    #[test]
    fn logins_wait_while_there_are_many_events_and_none_is_lost() {
        let mut broker = watched(100);
        let count = cost_max() as u32 / 100;
        let mut clients: Vec<_> =
            (1..=count + 10).map(|slot| join(&mut broker, slot, "agent")).collect();
        assert!(broker.announcements.are_many());
        let held = broker.announcements.bytes() / u64::from(count);
        assert!((50..200).contains(&held), "{held} bytes for each event");
        assert_eq!(broker.sessions.len() as u32, 1 + count);
        // Who is watched by nobody does not wait.
        join(&mut broker, count + 20, "service");
        let mut turns = 0;
        while broker.has_work() {
            turn(&mut broker, 5_000, &mut clients, NOW);
            turns += 1;
        }
        assert!(turns > 10, "{turns}");
        assert_eq!(broker.announcements.bytes(), 0);
        assert_eq!(broker.sessions.len() as u32, 2 + count + 10);
        assert_eq!(broker.counters.deliveries, 100 * u64::from(count + 10));
        assert_eq!((broker.announcements.cost, broker.announcements.admitted), (0, 0));
        broker.check_invariants();
    }

    /// A broker whose events cost much, with the first of its clients logged in. The others wait.
    fn congested(waiting: u32) -> (Broker, Vec<Speaker>) {
        let mut broker = watched(200);
        // As if each subscription stood for many.
        broker.announcements.admit(cost_max() - 1);
        let clients: Vec<_> =
            (1..=1 + waiting).map(|slot| join(&mut broker, slot, "agent")).collect();
        assert_eq!(broker.sessions.len(), 2);
        broker.announcements.note_admitted(cost_max() - 1);
        broker.announcements.admit(cost_max());
        (broker, clients)
    }

    #[test]
    fn who_waits_for_events_is_served_in_order_and_a_takeover_as_a_login() {
        for units in [1, 20, 1_000, 50_000] {
            let (mut broker, mut clients) = congested(30);
            // The first is to be taken over, and one of those that wait goes.
            clients.push(join_as(&mut broker, 40, 1, "agent"));
            broker.close_peer(clients[5].peer, CloseReason::Lost, NOW);
            let late = join(&mut broker, 50, "agent");
            clients.push(late);
            for _ in 0..200 {
                turn(&mut broker, units, &mut clients, NOW);
            }
            assert_eq!(broker.counters.logins, 2, "they wait");
            let mut order = Vec::new();
            broker.announcements.note_admitted(cost_max());
            // As if it was one that has gone on.
            broker.jobs.stir();
            while broker.has_work() {
                order.extend(turn(&mut broker, units, &mut clients, NOW));
                if units == 1 {
                    assert!(order.is_sorted(), "{order:?}");
                }
            }
            order.sort_unstable();
            let all: Vec<_> = (2..=31).filter(|slot| *slot != 6).chain([40, 50]).collect();
            assert_eq!(order, all, "{units} units in a turn");
            assert_eq!(broker.counters.takeovers, 1, "{units} units in a turn");
            assert_eq!((broker.announcements.cost, broker.announcements.admitted), (0, 0));
            assert!(!broker.announcements.has_line());
            broker.check_invariants();
        }
    }

    /// The deliveries until nothing is left to do.
    fn deliveries(broker: &mut Broker, clients: &mut [Speaker]) -> u64 {
        let before = broker.counters.deliveries;
        while broker.has_work() {
            turn(broker, 5_000, clients, NOW);
        }
        broker.counters.deliveries - before
    }

    fn subscribe(broker: &mut Broker, who: &mut Speaker, id: u32, pattern: &str) {
        let pattern = if pattern.is_empty() { "" } else { &format!("destination-id:{pattern}\n") };
        let text = format!("SUBSCRIBE\nid:{id}\ndestination:/broker/presence\n{pattern}\n\0");
        broker.begin_share(50_000);
        say(broker, who, &text);
    }

    #[test]
    fn nobody_gets_an_event_that_waits_since_before_its_subscription() {
        let mut broker = watched(100);
        let mut late = join(&mut broker, 1, "service");
        let mut clients: Vec<_> = (2..=3).map(|slot| join(&mut broker, slot, "agent")).collect();
        subscribe(&mut broker, &mut late, 0, "");
        clients.push(join(&mut broker, 4, "agent"));
        subscribe(&mut broker, &mut late, 1, "");
        broker.close_peer(clients[0].peer, CloseReason::Lost, NOW);
        subscribe(&mut broker, &mut late, 2, "");
        assert!(broker.announcements.waiting.len() == 3, "those with the same receivers are one");
        assert_eq!(deliveries(&mut broker, &mut clients), 2 * 100 + 101 + 2 * 102);
        clients.push(join(&mut broker, 5, "agent"));
        assert_eq!(deliveries(&mut broker, &mut clients), 103);
        broker.check_invariants();
    }

    #[test]
    fn nobody_gets_an_event_in_the_place_of_a_pattern_that_is_gone() {
        let mut broker = watched(100);
        let mut other = join(&mut broker, 1, "service");
        subscribe(&mut broker, &mut other, 0, "/agent/[23]");
        let mut clients = vec![join(&mut broker, 2, "agent")];
        assert_eq!(deliveries(&mut broker, &mut clients), 101);
        clients.push(join(&mut broker, 3, "agent"));
        say(&mut broker, &mut other, "UNSUBSCRIBE\nid:0\n\n\0");
        subscribe(&mut broker, &mut other, 1, "/agent/[234]");
        assert_eq!(
            broker.groups.presence.slots_len(),
            2,
            "the pattern has the place of the former"
        );
        assert_eq!(deliveries(&mut broker, &mut clients), 100);
        clients.push(join(&mut broker, 4, "agent"));
        assert_eq!(deliveries(&mut broker, &mut clients), 101);
        broker.check_invariants();
    }

    #[test]
    fn who_comes_from_elsewhere_is_served_next_though_a_thousand_stand_in_line() {
        let (mut broker, mut clients) = congested(1_000);
        let elsewhere = Source::new(7);
        for slot in 2_000..2_003 {
            let (dialect, framing, number) = (Dialect::Standard, Framing::Line, slot.into());
            let mut client = broker.open_peer(Opening { slot, number, framing, dialect });
            broker.note_source(&client, elsewhere);
            let text = format!("CONNECT\nlogin:{slot}\npasscode:app.agent\n\n\0");
            say(&mut broker, &mut client, &text);
            clients.push(client);
        }
        assert_eq!(broker.announcements.line.len(), 1_003);
        broker.announcements.note_admitted(cost_max());
        broker.jobs.stir();
        let mut order = Vec::new();
        while order.len() < 6 && broker.has_work() {
            order.extend(turn(&mut broker, 1, &mut clients, NOW));
        }
        assert_eq!(order, [1_001, 2_000, 1_000, 2_001, 999, 2_002]);
        assert!(broker.announcements.line.len() > 990);
        broker.check_invariants();
    }

    #[test]
    fn who_comes_last_is_served_next_in_a_long_line_and_does_not_lose_to_its_own_earlier_attempt() {
        let (mut broker, mut clients) = congested(1_000);
        // The last client has come before, and is the oldest but one.
        clients.push(join_as(&mut broker, 3_000, 3, "agent"));
        broker.announcements.note_admitted(cost_max());
        broker.jobs.stir();
        let mut order = Vec::new();
        while broker.has_work() {
            order.extend(turn(&mut broker, 1, &mut clients, NOW));
        }
        assert_eq!(order[0], 3_000);
        assert_eq!(order.len(), 1_000, "all but the earlier attempt have logged in");
        let earlier = broker.peers.peer(clients[2].peer).closure();
        let reason = CloseReason::Refused(Code::TakenOver);
        let taken_over = Closure { reason, retry: Some(Retry::Never) };
        assert_eq!(earlier, Some(taken_over));
        assert_eq!(broker.counters.takeovers, 0);
        broker.check_invariants();
    }

    #[test]
    fn an_event_to_very_many_has_to_be_sent_before_the_next_client_logs_in() {
        let mut broker = watched(0);
        let per_service = Limits::default().subscriptions_per_session_max[Profile::Service];
        let services = cost_max() as u32 / per_service + 1;
        for slot in 1..=services {
            let mut watcher = join(&mut broker, slot, "service");
            for id in 0..per_service {
                let text = format!("SUBSCRIBE\nid:{id}\ndestination:/broker/presence\n\n\0");
                say(&mut broker, &mut watcher, &text);
            }
        }
        let before = broker.sessions.len();
        let slots = 1 + services..=10 + services;
        let mut clients: Vec<_> = slots.map(|slot| join(&mut broker, slot, "agent")).collect();
        for count in 1..=10 {
            assert_eq!(broker.sessions.len(), before + count);
            let logged_in = broker.counters.logins;
            while broker.has_work() && broker.counters.logins == logged_in {
                turn(&mut broker, 5_000, &mut clients, NOW);
            }
        }
    }

    #[test]
    fn the_end_of_a_client_costs_little_at_once_however_long_its_name_is() {
        let mut broker = watched(narrow_max(&Limits::default()) as u32);
        let receivers = broker.announcements.subscriptions;
        let (dialect, framing, slot, number) = (Dialect::Standard, Framing::Line, 1, 1);
        let mut client = broker.open_peer(Opening { slot, number, framing, dialect });
        let login = "\"".repeat(2_000);
        say(&mut broker, &mut client, &format!("CONNECT\nlogin:{login}\npasscode:app.agent\n\n\0"));
        let mut clients = [client];
        assert_eq!(deliveries(&mut broker, &mut clients), receivers);
        let before = broker.meter.spent();
        broker.close_peer(clients[0].peer, CloseReason::Lost, NOW);
        let units = broker.meter.spent() - before;
        assert!(units < 100, "{units} units");
        assert_eq!(deliveries(&mut broker, &mut clients), 2 * receivers);
    }

    #[test]
    fn who_has_waited_for_long_is_told_to_retry_later() {
        let (mut broker, mut clients) = congested(2);
        clients.push(join_as(&mut broker, 40, 1, "agent"));
        let late_ms = u64::from(Limits::default().connect_ms_max);
        let at = |ms: u64| Moment { ns: ms * 1_000_000, unix_ms: ms };
        turn(&mut broker, 5_000, &mut clients, at(late_ms - 1));
        assert!(clients.iter().all(|one| broker.peers.peer(one.peer).closure().is_none()));
        turn(&mut broker, 5_000, &mut clients, at(late_ms));
        let closures: Vec<_> =
            clients.iter().map(|one| broker.peers.peer(one.peer).closure()).collect();
        let (reason, retry) = (CloseReason::TimedOut("connect_ms_max"), Some(Retry::Later));
        let late = Some(Closure { reason, retry });
        assert_eq!(closures, [None, late, late, late]);
        assert_eq!((broker.sessions.len(), broker.counters.takeovers), (2, 0));
        assert!(broker.announcements.line.len() <= 3 && broker.logins.is_empty());
        broker.check_invariants();
    }
}
