//! Presence: events for services about clients that log in and out.

use std::borrow::Cow;

use serde::Serialize;

use super::fan::Fan;
use super::groups::{Group, State, slot_of};
use super::ids::{SessionId, SubscriptionIndex};
use super::members::Route;
use super::message::{Content, Message, Origin, UserLines};
use super::space::Space;
use super::subscription::Target;
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
    /// match, and once for each subscription in the standard one.
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
                let routes = group.members().routes().len() as u32;
                self.meter.spend(routes * work::DELIVERY);
                fan.add(group.members(), None);
            }
        }
        if !fan.is_empty() {
            send_event(self, event, session, reason, fan, now);
        }
    }
}

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
            broker.meter.spend(work::FRAME);
            // About later sessions there are events anyway.
            if session.events.has(slot_of(group)) && session.number <= known.max(self.asked) {
                if !broker.peers.peer(watcher.peer).has_room() {
                    return Progress::Waits;
                }
                let (session, subscription) = (subscription.session, self.subscription);
                let fan = Fan::to(Route { session, subscription });
                send_event(broker, Event::Logged, id, SNAPSHOT, fan, now);
            }
            self.from = next;
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
        Progress::Ended
    }
}

/// Whether clients of a profile may be watched, and there are events about them.
pub(super) fn is_public(profile: Profile) -> bool {
    matches!(profile, Profile::Agent | Profile::SuperAgent)
}

/// The reason in events about clients that were logged in before the subscription.
const SNAPSHOT: &str = "snapshot";

fn send_event(
    broker: &mut Broker,
    event: Event,
    session: SessionId,
    reason: &str,
    fan: Fan,
    now: Moment,
) {
    let body = event_json(broker, event, session, reason, now);
    broker.meter.spend(work::FRAME + work::of_bytes(body.len()));
    let number = broker.next_message();
    let lines: [(&[u8], &[u8]); 2] = [(b"event", event.word().as_bytes()), (b"snapshot", b"true")];
    let user_lines = UserLines::Own(if reason == SNAPSHOT { &lines } else { &lines[..1] });
    let content = Content {
        transaction: None,
        destination: Space::PRESENCE,
        content_type: Some(b"application/json"),
        has_escapes: false,
        user_lines,
        body: body.as_bytes(),
    };
    let origin = Origin::new(Space::BROKER, Space::BROKER);
    let message = Message { number, is_redelivered: false, origin: &origin, content: &content };
    broker.deliver_to(&message, fan, now);
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
    use super::*;

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
}
