//! The ACK of a classic SUBSCRIBE or UNSUBSCRIBE, which lists the clients that are watched. They may be many,
//! with long names, and an UNSUBSCRIBE may end many subscriptions: so it is done in slices.

use super::fault::Fault;
use super::groups::{Group, slot_of};
use super::ids::{GroupId, PeerId, SessionId, SubscriptionIndex};
use super::subscription::Target;
use super::{Broker, Moment};
use crate::buffer::{Piece, SHARED_BYTES_MIN};
use crate::classic::encode;
use crate::outbound::LargeFrame;
use crate::profile::Profile;
use crate::text;
use crate::work::{self, Progress};

/// What is left to do of a SUBSCRIBE or an UNSUBSCRIBE.
#[derive(Debug)]
pub(super) struct List {
    client: PeerId,
    /// The subscriptions to list.
    subscriptions: std::vec::IntoIter<SubscriptionIndex>,
    /// Whether they end.
    ends: bool,
    /// The clients that the subscription listed next watches, by the slots of their sessions.
    under_way: Option<Walk>,
    /// What is written, unless it is not wanted or the client does not take it.
    ack: Option<Ack>,
}

/// An ACK that is being written.
#[derive(Debug)]
struct Ack {
    transaction: Box<[u8]>,
    lines: Lines,
}

/// The lines of a list.
#[derive(Debug)]
struct Lines {
    bytes: Vec<u8>,
    /// Whether they are UTF-8: names need not be.
    is_text: bool,
}

/// A walk over the clients that a group selects.
#[derive(Clone, Copy, Debug)]
struct Walk {
    subscription: SubscriptionIndex,
    group: GroupId,
    watcher: Profile,
    /// The slot that is next.
    slot: u32,
}

impl List {
    /// An ACK with a transaction that lists subscriptions, which end then if `ends`. Without a transaction there
    /// is none.
    pub(super) fn new(
        client: PeerId,
        subscriptions: Vec<SubscriptionIndex>,
        ends: bool,
        transaction: Option<&[u8]>,
    ) -> Self {
        let ack = transaction.map(|one| Ack { transaction: one.into(), lines: Lines::default() });
        Self { client, subscriptions: subscriptions.into_iter(), ends, under_way: None, ack }
    }

    /// Lists and ends further subscriptions, until the share of the turn is used up. A long list is sent once the
    /// client's queue has room, and given up where the client is cut in any case.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        loop {
            if self.is_lost(broker) {
                self.ack = None;
            }
            if let Some(walk) = self.under_way {
                self.under_way = self.go_on(broker, walk);
                if self.under_way.is_none() {
                    self.end(broker, walk.subscription, now);
                }
            } else if let Some(index) = self.subscriptions.next() {
                self.under_way = self.begin(broker, index);
                if self.under_way.is_none() {
                    self.end(broker, index, now);
                }
            } else if self.awaits_room(broker) {
                return Progress::Waits;
            } else {
                self.acknowledge(broker);
                return Progress::Ended;
            }
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
    }

    /// Memory of the list.
    pub(super) fn held_bytes(&self) -> u32 {
        let ack =
            self.ack.as_ref().map_or(0, |ack| ack.transaction.len() + ack.lines.bytes.capacity());
        let subscriptions = self.subscriptions.len() * size_of::<SubscriptionIndex>();
        (size_of::<Self>() + ack + subscriptions) as u32
    }

    /// Whether there is nobody to send the list to, as the client is gone or takes nothing more.
    fn is_lost(&self, broker: &mut Broker) -> bool {
        let Some(ack) = &self.ack else { return false };
        let Some(client) = broker.peers.get(self.client) else { return true };
        if client.closure().is_some() {
            return true;
        }
        let is_lost =
            client.takes_nothing() || ack.lines.bytes.len() > client.hard_bytes_max() as usize;
        if is_lost {
            broker.peers.note_refused(self.client);
        }
        is_lost
    }

    /// Whether the list is long and the client has not read what it got before: who asks for many long lists and reads
    /// them is not slow.
    fn awaits_room(&self, broker: &Broker) -> bool {
        self.ack.as_ref().is_some_and(|ack| ack.lines.bytes.len() >= SHARED_BYTES_MIN)
            && broker.peers.get(self.client).is_some_and(|client| !client.has_room())
    }

    fn end(&self, broker: &mut Broker, index: SubscriptionIndex, now: Moment) {
        if self.ends {
            broker.unsubscribe_at_once(index, now);
        }
    }

    /// Writes a line for a topic or a client that is subscribed by name. For those that a pattern selects there is
    /// a walk.
    fn begin(&mut self, broker: &mut Broker, index: SubscriptionIndex) -> Option<Walk> {
        let lines = &mut self.ack.as_mut()?.lines;
        let one = broker.subscriptions.get(index)?;
        let watcher = broker.sessions.get(one.session)?.profile;
        let topic = match one.target {
            Target::Topic(id) => Some(&*broker.destinations[id].name),
            Target::Topics(group) => broker.groups.wildcards.get(group).map(Group::text),
            Target::Client(id) | Target::Own(id) => {
                let owner = broker.destinations[id].owner?;
                let units = lines.add_client(broker, watcher, owner, prefix(self.ends));
                broker.meter.spend(units);
                None
            }
            Target::Clients(group) => {
                return Some(Walk { subscription: index, group, watcher, slot: 0 });
            }
            Target::Presence(_) | Target::Queue(_) => None,
        };
        if let Some(name) = topic {
            let units = lines.add(&[prefix(self.ends), b"[]:[]:[", name, b"]\n"]);
            broker.meter.spend(units);
        }
        None
    }

    /// Writes a line for the client in the slot, if the watcher may watch it.
    fn go_on(&mut self, broker: &mut Broker, walk: Walk) -> Option<Walk> {
        let lines = &mut self.ack.as_mut()?.lines;
        if walk.slot >= broker.sessions.slots_len() {
            return None;
        }
        let bit = slot_of(walk.group);
        let units = match broker.sessions.at(walk.slot) {
            Some((id, one)) if broker.destinations[one.destination].has_group(bit) => {
                lines.add_client(broker, walk.watcher, id, prefix(self.ends))
            }
            _ => work::DELIVERY,
        };
        broker.meter.spend(units);
        Some(Walk { slot: walk.slot + 1, ..walk })
    }

    fn acknowledge(&mut self, broker: &mut Broker) {
        let Some(Ack { transaction, lines }) = self.ack.take() else { return };
        if lines.bytes.len() < SHARED_BYTES_MIN {
            broker.meter.spend(work::of_bytes(lines.bytes.len()));
            acknowledge(broker, self.client, &transaction, self.ends, &lines.bytes, &Ok(()));
        } else {
            acknowledge_large(broker, self.client, &transaction, self.ends, lines);
        }
    }
}

/// Writes the ACK of a SUBSCRIBE, or of an UNSUBSCRIBE if `ends`.
pub(super) fn acknowledge(
    broker: &mut Broker,
    client: PeerId,
    transaction: &[u8],
    ends: bool,
    list: &[u8],
    outcome: &Result<(), Fault>,
) {
    let Some(session) = broker.peers.peer(client).session() else { return };
    let token = broker.sessions[session].token();
    broker.peers.reply(client, |out| {
        write_head(token, transaction, ends, outcome, out);
        [list, END].iter().for_each(|part| out.extend_from_slice(part));
    });
}

/// As [`acknowledge`], with a list that is so long that it is not copied.
fn acknowledge_large(
    broker: &mut Broker,
    client: PeerId,
    transaction: &[u8],
    ends: bool,
    lines: Lines,
) {
    let Some(session) = broker.peers.peer(client).session() else { return };
    let mut head = Vec::new();
    write_head(broker.sessions[session].token(), transaction, ends, &Ok(()), &mut head);
    let Lines { mut bytes, is_text } = lines;
    bytes.shrink_to_fit();
    let body = &Piece::whole(bytes);
    let is_text = Some(is_text);
    let frame = LargeFrame { head: &head, body, end: END, is_text, is_delivery: false };
    let units = broker.peers.reply_large(client, &frame);
    broker.meter.spend(units);
}

/// Writes an ACK up to its list.
fn write_head(
    token: &[u8],
    transaction: &[u8],
    ends: bool,
    outcome: &Result<(), Fault>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"ACK\n");
    encode::plain_header(out, b"session-id", token);
    encode::plain_header(out, b"transaction", transaction);
    match outcome {
        Ok(()) => encode::header(out, "error-desc", b"OK"),
        Err(fault) => {
            encode::header(out, "error-desc", fault.description.as_bytes());
            encode::header(out, "error-code", fault.code.word().as_bytes());
        }
    }
    let title = if ends { "Destinations unsubscribed:" } else { "Destinations subscribed:" };
    out.push(b'\n');
    [title.as_bytes(), RULE].iter().for_each(|part| out.extend_from_slice(part));
}

/// The rule before a list.
const RULE: &[u8] = b"\n--------------------\n";

/// What is behind a list: the rule again, and the end of the frame.
const END: &[u8] = b"--------------------\0";

fn prefix(ends: bool) -> &'static [u8] {
    if ends { b"Subscription: " } else { b"" }
}

impl Default for Lines {
    fn default() -> Self {
        Self { bytes: Vec::new(), is_text: true }
    }
}

impl Lines {
    /// Adds a line of some parts. Returns the work of that.
    fn add(&mut self, parts: &[&[u8]]) -> u32 {
        let before = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        let line = &self.bytes[before..];
        self.is_text &= text::is_text(line);
        work::DELIVERY + (work::KIB + work::FRESH_KIB) * work::of_bytes(line.len())
    }

    /// Adds the line of a client, if a watcher of that profile may watch it. Returns the work of that.
    fn add_client(
        &mut self,
        broker: &Broker,
        watcher: Profile,
        client: SessionId,
        prefix: &[u8],
    ) -> u32 {
        let client = &broker.sessions[client];
        if !watcher.may_watch(client.profile) {
            return work::DELIVERY;
        }
        let login = client.login(&broker.destinations);
        let name = &broker.destinations[client.destination].name;
        self.add(&[prefix, b"[", login, b"]:[", client.token(), b"]:[", name, b"]\n"])
    }
}
