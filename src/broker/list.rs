//! The ACK of a classic SUBSCRIBE or UNSUBSCRIBE, which lists the clients that are watched. They may be many,
//! with long names, and an UNSUBSCRIBE may end many subscriptions: so it is done in slices.

use super::fault::Fault;
use super::groups::{Group, slot_of};
use super::ids::{GroupId, PeerId, SubscriptionIndex};
use super::session::Session;
use super::subscription::Target;
use super::{Broker, Moment};
use crate::classic::encode;
use crate::profile::Profile;
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
    list: Vec<u8>,
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
        let ack = transaction.map(|one| Ack { transaction: one.into(), list: Vec::new() });
        Self { client, subscriptions: subscriptions.into_iter(), ends, under_way: None, ack }
    }

    /// Lists and ends further subscriptions, until the share of the turn is used up. The list is given up
    /// where the client is cut in any case.
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
        let ack = self.ack.as_ref().map_or(0, |ack| ack.transaction.len() + ack.list.capacity());
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
        let is_lost = client.takes_nothing() || ack.list.len() > client.hard_bytes_max() as usize;
        if is_lost {
            broker.peers.note_refused(self.client);
        }
        is_lost
    }

    fn end(&self, broker: &mut Broker, index: SubscriptionIndex, now: Moment) {
        if self.ends {
            broker.unsubscribe_at_once(index, now);
        }
    }

    /// Writes a line for a topic or a client that is subscribed by name. For those that a pattern selects there is
    /// a walk.
    fn begin(&mut self, broker: &mut Broker, index: SubscriptionIndex) -> Option<Walk> {
        let list = &mut self.ack.as_mut()?.list;
        let one = broker.subscriptions.get(index)?;
        let watcher = broker.sessions.get(one.session)?.profile;
        let topic = match one.target {
            Target::Topic(id) => Some(&*broker.destinations[id].name),
            Target::Topics(group) => broker.groups.wildcards.get(group).map(Group::text),
            Target::Client(id) | Target::Own(id) => {
                let owner = broker.destinations[id].owner?;
                write_client(broker, watcher, &broker.sessions[owner], prefix(self.ends), list);
                None
            }
            Target::Clients(group) => {
                return Some(Walk { subscription: index, group, watcher, slot: 0 });
            }
            Target::Presence(_) | Target::Queue(_) => None,
        };
        if let Some(name) = topic {
            let parts: [&[u8]; 4] = [prefix(self.ends), b"[]:[]:[", name, b"]\n"];
            parts.iter().for_each(|part| list.extend_from_slice(part));
            broker.meter.spend(work::DELIVERY + work::of_bytes(name.len()));
        }
        None
    }

    /// Writes a line for the client in the slot, if the watcher may watch it.
    fn go_on(&mut self, broker: &mut Broker, walk: Walk) -> Option<Walk> {
        let list = &mut self.ack.as_mut()?.list;
        if walk.slot >= broker.sessions.slots_len() {
            return None;
        }
        let bit = slot_of(walk.group);
        let before = list.len();
        if let Some((_, one)) = broker.sessions.at(walk.slot)
            && broker.destinations[one.destination].has_group(bit)
        {
            write_client(broker, walk.watcher, one, prefix(self.ends), list);
        }
        let bytes = list.len() - before;
        broker.meter.spend(work::DELIVERY + work::of_bytes(bytes));
        Some(Walk { slot: walk.slot + 1, ..walk })
    }

    fn acknowledge(&mut self, broker: &mut Broker) {
        let Some(Ack { transaction, list }) = self.ack.take() else { return };
        broker.meter.spend(work::of_bytes(list.len()));
        acknowledge(broker, self.client, &transaction, self.ends, &list, &Ok(()));
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
        let end = &RULE[1..RULE.len() - 1];
        [title.as_bytes(), RULE, list, end].iter().for_each(|part| out.extend_from_slice(part));
        out.push(0);
    });
}

/// The rule before and after a list.
const RULE: &[u8] = b"\n--------------------\n";

fn prefix(ends: bool) -> &'static [u8] {
    if ends { b"Subscription: " } else { b"" }
}

/// Writes the line of a client, if a watcher of that profile may watch it.
fn write_client(
    broker: &Broker,
    watcher: Profile,
    client: &Session,
    prefix: &[u8],
    out: &mut Vec<u8>,
) {
    if watcher.may_watch(client.profile) {
        let login = client.login(&broker.destinations);
        let name = &broker.destinations[client.destination].name;
        let parts: [&[u8]; 8] = [prefix, b"[", login, b"]:[", client.token(), b"]:[", name, b"]\n"];
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
}
