//! Presence: events for services about clients that log in and out.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::Serialize;

use super::fan::Fan;
use super::groups::{Group, State, slot_of};
use super::ids::{LoginId, SessionId, SubscriptionIndex};
use super::members::Route;
use super::message::{Content, Message, Origin, UserLines};
use super::space::Space;
use super::subscription::Target;
use super::wide::{Wide, narrow_max};
use super::{Broker, Moment};
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
    /// match, and once for each subscription in the standard one. If they are many, or earlier events are still being
    /// sent, a job sends it, after these.
    pub(super) fn publish_presence(
        &mut self,
        event: Event,
        session: SessionId,
        reason: &str,
        now: Moment,
    ) {
        let mut fan = Fan::default();
        for slot in self.sessions[session].events.iter() {
            if let Some(group) = self.groups.presence.known_at(slot) {
                self.meter.spend(work::DELIVERY);
                fan.add(group.members(), None);
            }
        }
        if fan.is_empty() {
            return;
        }
        let receivers = fan.len();
        let waits = self.announcements.is_under_way || receivers > narrow_max(&self.limits);
        let event = BrokerEvent::new(self, event, session, reason, now);
        if !waits {
            self.meter.spend(receivers as u32 * work::DELIVERY);
            event.with_message(|message| self.deliver_to(message, fan, now));
            return;
        }
        let wide = event.with_message(|message| Box::new(Wide::new(message, fan, None, now)));
        self.announcements.push(wide, receivers);
        if !std::mem::replace(&mut self.announcements.is_under_way, true) {
            self.begin_announcing();
        }
    }
}

/// Presence events that are sent to many services, in the order in which they happened, and logins that wait for them.
#[derive(Debug)]
pub(super) struct Announcements {
    /// The cost of those that may wait before logins wait.
    cost_max: u64,
    waiting: VecDeque<Announcement>,
    /// The memory of all of them.
    bytes: u64,
    /// The cost of all of them.
    cost: u64,
    /// The cost of the events of logins that may go on.
    admitted: u64,
    /// Logins that wait, first come first served. Some may be gone.
    pub(super) line: VecDeque<LoginId>,
    /// Whether a job sends them.
    is_under_way: bool,
}

/// Events that go to the same receivers.
#[derive(Debug)]
struct Announcement {
    wide: Box<Wide>,
    bytes: u64,
    cost: u64,
}

impl Announcements {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            cost_max: u64::from(limits.turn_units_max) * TURNS_MAX,
            waiting: VecDeque::new(),
            bytes: 0,
            cost: 0,
            admitted: 0,
            line: VecDeque::new(),
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
        self.are_many() || !self.line.is_empty()
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
        self.bytes
    }

    /// Adds one: to the one before, if it has the same receivers, so that each of them gets both by one write.
    fn push(&mut self, wide: Box<Wide>, receivers: usize) {
        let cost = cost_of(receivers);
        self.cost += cost;
        match self.waiting.back_mut() {
            Some(Announcement { wide: last, bytes, cost: before })
                if last.is_open() && last.has_same_fan(&wide) && last.len() < JOINED_MAX =>
            {
                last.join(*wide);
                *before += cost;
                self.bytes -= std::mem::replace(bytes, last.held_bytes());
                self.bytes += *bytes;
            }
            _ => {
                let bytes = wide.held_bytes();
                self.bytes += bytes;
                self.waiting.push_back(Announcement { wide, bytes, cost });
            }
        }
    }

    /// Takes the first ones.
    fn pop(&mut self) -> Option<Announcement> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.bytes;
        self.cost -= first.cost;
        Some(first)
    }

    /// Puts the first ones back.
    fn push_front(&mut self, first: Announcement) {
        let first = Announcement { bytes: first.wide.held_bytes(), ..first };
        self.bytes += first.bytes;
        self.cost += first.cost;
        self.waiting.push_front(first);
    }
}

/// Sends announcements, until the share of the turn is used up.
pub(super) fn announce(broker: &mut Broker) -> Progress {
    while let Some(mut next) = broker.announcements.pop() {
        if next.wide.advance(broker) == Progress::More {
            broker.announcements.push_front(next);
            return Progress::More;
        }
        if broker.is_share_spent() {
            break;
        }
    }
    broker.announcements.is_under_way = !broker.announcements.waiting.is_empty();
    match broker.announcements.is_under_way {
        true => Progress::More,
        false => Progress::Ended,
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

/// Events that are sent together.
const JOINED_MAX: usize = 16;

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
                let event = BrokerEvent::new(broker, Event::Logged, id, SNAPSHOT, now);
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
    fn new(
        broker: &mut Broker,
        event: Event,
        session: SessionId,
        reason: &str,
        now: Moment,
    ) -> Self {
        let body = event_json(broker, event, session, reason, now);
        broker.meter.spend(work::FRAME + work::of_bytes(body.len()));
        let number = broker.next_message();
        Self { number, word: event.word(), is_snapshot: reason == SNAPSHOT, body }
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

fn event_json(
    broker: &Broker,
    event: Event,
    session: SessionId,
    reason: &str,
    now: Moment,
) -> String {
    let session = &broker.sessions[session];
    let body = Body {
        event: event.word(),
        login: String::from_utf8_lossy(session.login(&broker.destinations)),
        profile: session.profile.description(),
        destination: String::from_utf8_lossy(&broker.destinations[session.destination].name),
        connection_id: broker.peers.peer(session.peer).number,
        reason,
        at: Timestamp(now.unix_ms),
    };
    body.to_json()
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
    use super::super::peer::Opening;
    use super::super::{CloseReason, Closure, Data, Done, Keys, Options, Retry, Speaker, Verdict};
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
        assert!(
            broker.queued_bytes() - broker.peers.arena.resident_bytes() > 200 * u64::from(count)
        );
        assert_eq!(broker.sessions.len() as u32, 1 + count);
        // Who is watched by nobody does not wait.
        join(&mut broker, count + 20, "service");
        let mut turns = 0;
        while broker.has_work() {
            turn(&mut broker, 5_000, &mut clients, NOW);
            turns += 1;
        }
        assert!(turns > 10, "{turns}");
        assert_eq!(broker.queued_bytes(), broker.peers.arena.resident_bytes());
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
