//! Presence: events for services about clients that log in and out.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::Serialize;

use super::fan::Fan;
use super::groups::{Group, State, slot_of};
use super::ids::{SessionId, SubscriptionIndex};
use super::members::Route;
use super::message::{Content, Message, Origin, UserLines};
use super::space::Space;
use super::subscription::Target;
use super::wide::{Wide, narrow_max};
use super::{Broker, Moment};
use crate::calendar::Timestamp;
use crate::json;
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
        self.announcements.push(wide);
        if !std::mem::replace(&mut self.announcements.is_under_way, true) {
            self.begin_announcing();
        }
    }
}

/// Presence events that are sent to many services, in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// With the memory of each.
    waiting: VecDeque<(u64, Box<Wide>)>,
    /// The memory of all.
    bytes: u64,
    /// Whether a job sends them.
    is_under_way: bool,
}

impl Announcements {
    /// Whether so many wait that no client may log in until there are fewer. A client that is logged in causes two more
    /// at its end, so that there are never more than that for each.
    pub(super) fn are_many(&self) -> bool {
        self.waiting.len() >= ANNOUNCEMENTS_MAX
    }

    /// Their memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds one: to the one before, if it has the same receivers, so that each of them gets both by one write.
    fn push(&mut self, wide: Box<Wide>) {
        match self.waiting.back_mut() {
            Some((bytes, last))
                if last.is_open() && last.has_same_fan(&wide) && last.len() < JOINED_MAX =>
            {
                last.join(*wide);
                self.bytes -= std::mem::replace(bytes, last.held_bytes());
                self.bytes += *bytes;
            }
            _ => {
                self.bytes += wide.held_bytes();
                self.waiting.push_back((wide.held_bytes(), wide));
            }
        }
    }

    /// Takes the first one.
    fn pop(&mut self) -> Option<Box<Wide>> {
        let (bytes, wide) = self.waiting.pop_front()?;
        self.bytes -= bytes;
        Some(wide)
    }

    /// Puts the first one back.
    fn push_front(&mut self, wide: Box<Wide>) {
        let bytes = wide.held_bytes();
        self.bytes += bytes;
        self.waiting.push_front((bytes, wide));
    }
}

/// Sends announcements, until the share of the turn is used up.
pub(super) fn announce(broker: &mut Broker) -> Progress {
    while let Some(mut wide) = broker.announcements.pop() {
        if wide.advance(broker) == Progress::More {
            broker.announcements.push_front(wide);
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

/// Announcements that may wait before logins wait.
const ANNOUNCEMENTS_MAX: usize = 64;

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
    use super::super::{Data, Done, Keys, Options, Speaker};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
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

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    fn join(broker: &mut Broker, slot: u32, profile: &str) -> Speaker {
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let number = u64::from(slot);
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        say(broker, &mut speaker, &format!("CONNECT\nlogin:{slot}\npasscode:app.{profile}\n\n\0"));
        speaker
    }

    fn say(broker: &mut Broker, who: &mut Speaker, text: &str) -> Done {
        let bytes = text.as_bytes();
        broker.handle(who, Data::unshared(bytes), NOW)
    }

    #[test]
    fn logins_wait_while_there_are_many_events_and_none_is_lost() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let mut watcher = join(&mut broker, 0, "service");
        for id in 0..100 {
            let text = format!("SUBSCRIBE\nid:{id}\ndestination:/broker/presence\n\n\0");
            say(&mut broker, &mut watcher, &text);
        }
        let count = (ANNOUNCEMENTS_MAX * JOINED_MAX) as u32;
        let mut clients: Vec<_> =
            (1..=count + 10).map(|slot| join(&mut broker, slot, "agent")).collect();
        assert!(broker.announcements.are_many());
        assert!(
            broker.queued_bytes() - broker.peers.arena.resident_bytes()
                > 200 * u64::from(count - JOINED_MAX as u32)
        );
        assert_eq!(broker.sessions.len() as u32, 1 + count - JOINED_MAX as u32 + 1);
        // Who is watched by nobody does not wait.
        join(&mut broker, count + 20, "service");
        let mut turns = 0;
        while broker.has_work() {
            let all: Vec<_> = broker.peers.iter().map(|(id, _)| id).collect();
            all.into_iter().for_each(|id| _ = broker.peers.discard_unsent(id));
            broker.peers.arena.end_turn();
            broker.begin_share(5_000);
            broker.advance_jobs(NOW);
            while let Some(news) = broker.take_news() {
                if news.has_ended {
                    broker.resume(&mut clients[news.slot as usize - 1], NOW);
                }
            }
            turns += 1;
        }
        assert!(turns > 10, "{turns}");
        assert_eq!(broker.queued_bytes(), broker.peers.arena.resident_bytes());
        assert_eq!(broker.sessions.len() as u32, 2 + count + 10);
        assert_eq!(broker.counters.deliveries, 100 * u64::from(count + 10));
        broker.check_invariants();
    }
}
