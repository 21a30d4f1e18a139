//! Wide messages: to more receivers than a share of a turn has time for. They are copied, and their receivers are
//! walked in slices; whoever subscribed before a message was sent gets it.
//!
//! What a client sends to the same receivers without a pause goes along together: writing to a socket costs much more
//! than queueing to it.

use super::answer::Later;
use super::bits::BitSet;
use super::encode::Encodings;
use super::fan::{Fan, Outlet, Seen};
use super::ids::SessionId;
use super::message::{Content, Message, NEVER, Stored};
use super::session::Session;
use super::table::Key;
use super::{Broker, Moment};
use crate::limits::Limits;
use crate::work::{self, Progress};

/// Messages on their way to the same receivers.
#[derive(Debug)]
pub(super) struct Wide {
    letters: Vec<Letter>,
    fan: Fan,
    /// Slots of the sessions that have got them.
    seen: BitSet,
    /// The session id that classic receivers see instead of their own.
    token: Option<[u8; 32]>,
    arrived_ns: u64,
    has_begun: bool,
}

/// One of the messages.
#[derive(Debug)]
struct Letter {
    message: Stored,
    /// Its memory.
    bytes: u64,
    /// Sessions that it was queued to.
    count: u32,
    /// What its sender gets when it has been delivered.
    answer: Option<Later>,
}

impl Wide {
    /// A message of which nothing was delivered along `fan` yet.
    pub(super) fn new(
        message: &Message<'_>,
        fan: Fan,
        token: Option<&[u8; 32]>,
        now: Moment,
    ) -> Self {
        let message = Stored::new(message, NEVER);
        let bytes = message.cost_bytes();
        let letters = vec![Letter { message, bytes, count: fan.count, answer: None }];
        let (seen, token) = (BitSet::default(), token.copied());
        let mut fan = fan;
        // Until the first of them gets it, subscriptions may end.
        fan.at.note_pause();
        Self { letters, fan, seen, token, arrived_ns: now.ns, has_begun: false }
    }

    /// Whether others can join: nothing was delivered yet, and they are not too many.
    pub(super) fn is_open(&self) -> bool {
        !self.has_begun && self.letters.len() < LETTERS_MAX
    }

    /// The number of messages.
    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Its receivers.
    pub(super) fn fan(&self) -> &Fan {
        &self.fan
    }

    /// Whether another has the same receivers, to whom the messages look the same.
    pub(super) fn has_same_fan(&self, other: &Self) -> bool {
        self.fan.is_same(other.fan.sources()) && self.token == other.token
    }

    /// Adds later messages to the same receivers.
    pub(super) fn join(&mut self, other: Self) {
        self.letters.extend(other.letters);
    }

    /// Sets the answer to the last message.
    pub(super) fn answer_later(&mut self, answer: Later) {
        if let Some(last) = self.letters.last_mut() {
            last.answer = Some(answer);
        }
    }

    /// The answers to the messages, with the number of sessions that each was queued to.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&Later, u32)> {
        self.letters.iter().filter_map(|letter| Some((letter.answer.as_ref()?, letter.count)))
    }

    /// Delivers to further receivers, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker) -> Progress {
        let Broker { peers, sessions, subscriptions, counters, meter, .. } = broker;
        self.has_begun = true;
        let Self { letters, fan, seen, .. } = self;
        let token = self.token.as_ref();
        let contents: Vec<_> = letters.iter().map(|letter| letter.message.content()).collect();
        let messages: Vec<_> = letters
            .iter()
            .zip(&contents)
            .map(|(letter, content)| letter.message(content))
            .collect();
        let mut counts: Vec<_> = letters.iter().map(|letter| letter.count).collect();
        let units: Vec<_> = contents.iter().map(Content::units_of_encoding).collect();
        let mut encodings: Vec<_> = messages.iter().map(Encodings::new).collect();
        peers.arena.note_arrival(self.arrived_ns);
        let mut outlet = Outlet { peers, sessions, subscriptions };
        let before = fan.deliveries;
        let step = step_of(&contents, &units);
        let mut is_over;
        loop {
            let (begin, queued) = (fan.at, fan.deliveries);
            let mut firsts = Firsts::default();
            is_over = false;
            for ((encodings, count), units) in encodings.iter_mut().zip(&mut counts).zip(&units) {
                (fan.at, fan.count) = (begin, 0);
                let mut seen = BySlot { seen, firsts: &mut firsts, at: 0 };
                is_over = outlet.advance(encodings, fan, &mut seen, token, step);
                *count += fan.count;
                meter.spend(encodings.take_written() * units + encodings.take_checks());
            }
            // The price of a write covers the first copy that a receiver gets, even if it does not read. Those that
            // have left get none.
            let further = ((fan.deliveries - queued) as u32).saturating_sub(step as u32);
            let looked_at = (step * counts.len()) as u32 / work::LOOKUPS_PER_UNIT;
            meter.spend(step as u32 * work::DELIVERY + looked_at + further * work::KEPT_DELIVERY);
            let pending = outlet.peers.pending_units_without(0);
            if is_over || meter.is_spent(pending) || outlet.peers.arena.is_full() {
                break;
            }
        }
        counters.deliveries += fan.deliveries - before;
        drop(encodings);
        for (letter, count) in letters.iter_mut().zip(counts) {
            letter.count = count;
        }
        if !is_over {
            return Progress::More;
        }
        meter.spend(fan.units_of_end());
        Progress::Ended
    }

    /// Memory of the messages, and of what is there of the lists of their receivers for them alone.
    pub(super) fn held_bytes(&self) -> u64 {
        let letters = self.letters.iter().map(|letter| letter.bytes);
        let own = size_of::<Self>() + self.seen.bytes();
        own as u64 + letters.sum::<u64>() + self.fan.held_bytes()
    }
}

impl Letter {
    fn message<'a>(&'a self, content: &'a Content<'a>) -> Message<'a> {
        let (number, origin) = (self.message.number, &self.message.origin);
        Message { number, is_redelivered: false, origin, content }
    }
}

/// Receivers up to which a message is not wide: writing to so many takes half of a turn, as much as a turn has for
/// all input.
pub(super) fn narrow_max(limits: &Limits) -> usize {
    (limits.turn_units_max / 2 / work::WRITE) as usize
}

/// Messages that go along together: to so many, a write is a small part of what each costs.
const LETTERS_MAX: usize = 128;

/// Receivers after which is asked whether the share of the turn is used up, if there are not many messages.
const STEP: usize = 8;

/// Deliveries after which that is asked, if there are.
const DELIVERIES: usize = 128;

/// Encoding, in units, after which that is asked, if each receiver has an encoding of its own.
const ENCODING: u32 = 200;

/// Receivers after which is asked whether the share of the turn is used up.
fn step_of(contents: &[Content<'_>], units: &[u32]) -> usize {
    let each = contents
        .iter()
        .zip(units)
        .filter(|(content, _)| content.is_shared() || content.has_many_escapes());
    let each: u32 = each.map(|(_, units)| units).sum();
    let most = (DELIVERIES / contents.len()).clamp(1, STEP);
    most.min((ENCODING / each.max(1)) as usize).max(1)
}

/// Which receivers of a step get their first copy, in the order in which they are asked about.
#[derive(Debug, Default)]
struct Firsts {
    bits: u8,
    known: u32,
}

/// [`Seen`] for a walk with stops, in which a session may get other messages in between. Each step is walked once for
/// each message; what the first walk has found holds for the others.
struct BySlot<'s> {
    seen: &'s mut BitSet,
    firsts: &'s mut Firsts,
    at: u32,
}

impl Seen for BySlot<'_> {
    #[inline]
    fn is_first(&mut self, id: SessionId, _: &Session) -> bool {
        let bit = 1 << self.at;
        if self.at == self.firsts.known {
            let is_first = !self.seen.set(id.place().index(), true);
            self.firsts.known += 1;
            self.firsts.bits |= if is_first { bit } else { 0 };
        }
        self.at += 1;
        self.firsts.bits & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{Data, Keys, Options, Speaker};
    use super::*;
    use crate::dialect::Dialect;
    use crate::outbound::Framing;

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    fn join(broker: &mut Broker, slot: u32) -> Speaker {
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let number = slot.into();
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        say(broker, &mut speaker, &format!("CONNECT\nlogin:{slot}\npasscode:app.service\n\n\0"));
        speaker
    }

    fn say(broker: &mut Broker, who: &mut Speaker, text: &str) {
        broker.handle(who, Data::unshared(text.as_bytes()), NOW);
    }

    fn subscribe(broker: &mut Broker, who: &mut Speaker, id: u32) {
        say(broker, who, &format!("SUBSCRIBE\nid:{id}\ndestination:/topic/wide\n\n\0"));
    }

    /// Many send to a topic with many subscribers, and somebody ends and begins a subscription between any two of them:
    /// each message has receivers of its own.
    #[test]
    fn who_changes_the_receivers_of_messages_that_wait_pays_and_senders_count_what_they_hold() {
        let (sessions, each, senders) = (100, 200, 50);
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let mut receivers: Vec<_> = (0..sessions).map(|slot| join(&mut broker, slot)).collect();
        for receiver in &mut receivers {
            (0..each).for_each(|id| subscribe(&mut broker, receiver, id));
        }
        let mut churner = join(&mut broker, 1_000);
        subscribe(&mut broker, &mut churner, 0);
        let mut others: Vec<_> = (0..senders).map(|n| join(&mut broker, 2_000 + n)).collect();
        for sender in &mut others {
            broker.begin_share(400);
            say(&mut broker, sender, "SEND\ndestination:/topic/wide\n\nx\0");
            let before = broker.work_done();
            say(&mut broker, &mut churner, "UNSUBSCRIBE\nid:0\n\n\0");
            subscribe(&mut broker, &mut churner, 0);
            let units = broker.work_done() - before;
            assert!((15..150).contains(&units), "{units} units");
        }
        assert_eq!(broker.jobs_len(), senders as usize);
        while broker.has_work() {
            let all: Vec<_> = broker.peers.iter().map(|(id, _)| id).collect();
            all.into_iter().for_each(|id| _ = broker.peers.discard_unsent(id));
            broker.peers.arena.end_turn();
            broker.begin_share(5_000);
            broker.advance_jobs(NOW);
            while broker.take_news().is_some() {}
            if broker.jobs_len() == senders as usize {
                let held = others.iter().map(|one| broker.peers.peer(one.peer).job_bytes());
                let (held, part) = (held.sum::<u32>(), senders * 512 * 16);
                assert!((part / 2..part * 20).contains(&held), "{held} bytes");
            }
        }
        let copies = senders * sessions * each;
        assert_eq!(broker.counters.deliveries, u64::from(copies));
        broker.check_invariants();
    }

    /// What a client has sent to many is on its way though it is gone: as long as that is much, nobody logs in to do the
    /// same.
    #[test]
    fn logins_wait_while_messages_of_clients_that_are_gone_hold_much() {
        let limits = Limits { inbound_total_bytes_max: 400_000, ..Limits::default() };
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(limits, keys, Box::new(|| 1)));
        let mut receivers: Vec<_> = (0..10).map(|slot| join(&mut broker, slot)).collect();
        for receiver in &mut receivers {
            (0..100).for_each(|id| subscribe(&mut broker, receiver, id));
        }
        let body = "x".repeat(50_000);
        let (mut slot, mut guests) = (100, Vec::new());
        loop {
            broker.begin_share(400);
            let mut guest = join(&mut broker, slot);
            if !broker.logins.is_empty() {
                guests.push(guest);
                break;
            }
            say(&mut broker, &mut guest, &format!("SEND\ndestination:/topic/wide\n\n{body}\0"));
            broker.close_peer(guest.peer, super::super::CloseReason::Lost, NOW);
            broker.begin_share(1);
            broker.advance_jobs(NOW);
            slot += 1;
            assert!(slot < 120, "{} bytes", broker.jobs.left_bytes());
        }
        while broker.has_work() {
            let all: Vec<_> = broker.peers.iter().map(|(id, _)| id).collect();
            all.into_iter().for_each(|id| _ = broker.peers.discard_unsent(id));
            broker.peers.arena.end_turn();
            broker.begin_share(5_000);
            broker.advance_jobs(NOW);
        }
        assert_eq!((broker.jobs_len(), broker.jobs.left_bytes()), (0, 0));
        let mut last = guests.pop().unwrap();
        broker.resume(&mut last, NOW);
        assert!(
            broker.logins.is_empty() && broker.sessions.len() == 11,
            "the last one is logged in"
        );
        broker.check_invariants();
    }
}
