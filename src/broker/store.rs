//! The messages of all queues, those that wait and those that consumers hold unacknowledged, and the accounts of
//! their senders.
//!
//! A message counts in its sender's account until it is settled or dropped. The account is found by the
//! sender's address, so that it outlasts the session. Orders are lists through the messages themselves, so that
//! one is removed from any place in constant time.

use std::collections::BTreeMap;

use slab::Slab;

use super::hashing::NameHasher;
use super::ids::{DestinationId, SubscriptionIndex};
use super::index::NameIndex;
use super::message::{Content, Origin, Stored};
use crate::ranking::Ranking;

/// The place of a message in the store, valid until it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// It waits in a queue and was not returned to it.
    Fresh(DestinationId),
    /// It waits in a queue again.
    Returned(DestinationId),
    /// A consumer holds it unacknowledged.
    Held(SubscriptionIndex),
}

/// The ends of a list of messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    first: u32,
    last: u32,
    len: u32,
}

/// The neighbours of a message in a list.
#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
}

const NONE: u32 = u32::MAX;

/// Places for messages, and for accounts, for which memory is kept while there are none.
const PLACES_KEPT: usize = 256;

/// A message with its bookkeeping.
#[derive(Debug)]
struct Kept {
    message: Stored,
    position: Position,
    account: u32,
    /// Whether only its place among the deliveries of its consumer is left.
    is_hollow: bool,
    cost_bytes: u64,
    /// In the order of its queue or of its consumer; and among those of its sender.
    links: [Links; 2],
}

/// The list of a queue's fresh messages, or of a consumer's deliveries.
const IN_ORDER: usize = 0;

/// The lists of an account.
const OF_SENDER: usize = 1;

/// What a sender's messages occupy.
#[derive(Debug)]
struct Account {
    /// The sender's address.
    name: Box<[u8]>,
    /// Memory of its messages and of the account itself.
    bytes: u64,
    /// Memory that is reserved for its transactions which are being executed.
    reserved: u64,
    /// Whether those of them that are still checked have to give it up.
    is_revoked: bool,
    /// Its messages that wait: the one that is dropped first is the last.
    waiting: List,
    /// Its messages that consumers hold, and before them those of which only the place is left.
    held: List,
}

/// All messages of queues, and the accounts.
#[derive(Debug)]
pub(crate) struct Store {
    kept: Slab<Box<Kept>>,
    /// Each apart, so that what is given back at once when the last one closes is not much.
    accounts: Slab<Box<Account>>,
    by_name: NameIndex<u32>,
    hasher: NameHasher,
    ranking: Ranking,
    /// Messages that consumers hold, by number.
    held: BTreeMap<u64, u32>,
    bytes: u64,
}

impl List {
    /// The number of messages.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The first message.
    pub(crate) fn first(&self) -> Option<Slot> {
        (self.first != NONE).then_some(Slot(self.first))
    }

    fn last(&self) -> Option<Slot> {
        (self.last != NONE).then_some(Slot(self.last))
    }
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE, len: 0 }
    }
}

impl Store {
    /// An empty store. With the secret unknown, nobody can choose names whose hashes collide.
    pub(crate) fn new(secret: u128) -> Self {
        Self {
            kept: Slab::new(),
            accounts: Slab::new(),
            by_name: NameIndex::new(),
            hasher: NameHasher::new(secret),
            ranking: Ranking::default(),
            held: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Adds a message to its sender's account. It has to be put into a queue then.
    pub(crate) fn insert(&mut self, message: Stored, queue: DestinationId) -> Slot {
        let cost_bytes = message.cost_bytes() + BOOKKEEPING_BYTES;
        let account = self.find_or_open(message.origin.address());
        let links = [Links { before: NONE, after: NONE }; 2];
        let position = Position::Fresh(queue);
        let kept = Kept { message, position, account, is_hollow: false, cost_bytes, links };
        let slot = self.kept.insert(Box::new(kept)) as u32;
        push_back(&mut self.kept, &mut self.accounts[account as usize].waiting, OF_SENDER, slot);
        self.charge(account, cost_bytes);
        Slot(slot)
    }

    /// Removes a message, which is in no queue and not held any more.
    pub(crate) fn take(&mut self, slot: Slot) -> Stored {
        self.leave_account_list(slot.0);
        let kept = *self.kept.remove(slot.0 as usize);
        let account = &mut self.accounts[kept.account as usize];
        account.bytes -= kept.cost_bytes;
        self.bytes -= kept.cost_bytes;
        if account.is_unused() {
            self.close_account(kept.account);
        } else {
            self.ranking.set(kept.account, account.size());
        }
        if self.kept.is_empty() && self.kept.capacity() > PLACES_KEPT {
            self.kept = Slab::new();
        }
        kept.message
    }

    /// Appends a fresh message to a queue's list.
    pub(crate) fn push_fresh(&mut self, list: &mut List, slot: Slot, queue: DestinationId) {
        self.set_position(slot, Position::Fresh(queue));
        push_back(&mut self.kept, list, IN_ORDER, slot.0);
    }

    /// Notes that a message waits in a queue again.
    pub(crate) fn note_returned(&mut self, slot: Slot, queue: DestinationId) {
        self.set_position(slot, Position::Returned(queue));
    }

    /// Appends a message to the list of those that a consumer holds.
    pub(crate) fn push_held(&mut self, list: &mut List, slot: Slot, consumer: SubscriptionIndex) {
        self.set_position(slot, Position::Held(consumer));
        push_back(&mut self.kept, list, IN_ORDER, slot.0);
        self.held.insert(self.message(slot).number, slot.0);
    }

    /// Removes a message from the list that it is in.
    pub(crate) fn unlink(&mut self, list: &mut List, slot: Slot) {
        let kept = &self.kept[slot.0 as usize];
        if matches!(kept.position, Position::Held(_)) {
            self.held.remove(&kept.message.number);
        }
        unlink(&mut self.kept, list, IN_ORDER, slot.0);
    }

    /// The message with that number that a consumer holds.
    pub(crate) fn find_held(&self, number: u64, consumer: SubscriptionIndex) -> Option<Slot> {
        let slot = Slot(*self.held.get(&number)?);
        (self.position(slot) == Position::Held(consumer)).then_some(slot)
    }

    /// A message.
    pub(crate) fn message(&self, slot: Slot) -> &Stored {
        &self.kept[slot.0 as usize].message
    }

    /// Lends a message out, until [`Self::give_back`].
    pub(crate) fn lend(&mut self, slot: Slot) -> Stored {
        std::mem::take(&mut self.kept[slot.0 as usize].message)
    }

    /// Takes back what [`Self::lend`] returned. What it costs must not have changed.
    pub(crate) fn give_back(&mut self, slot: Slot, message: Stored) {
        self.kept[slot.0 as usize].message = message;
    }

    /// Changes a message, and what it costs.
    pub(crate) fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Stored)) {
        let kept = &mut self.kept[slot.0 as usize];
        change(&mut kept.message);
        let (account, before) = (kept.account, kept.cost_bytes);
        kept.cost_bytes = kept.message.cost_bytes() + BOOKKEEPING_BYTES;
        let after = kept.cost_bytes;
        self.accounts[account as usize].bytes -= before;
        self.bytes -= before;
        self.charge(account, after);
    }

    /// Drops a message that a consumer holds, all but its place among the deliveries of the consumer.
    pub(crate) fn hollow(&mut self, slot: Slot) {
        self.change(slot, Stored::hollow);
        let Self { kept, accounts, .. } = self;
        let one = &mut kept[slot.0 as usize];
        one.is_hollow = true;
        let list = &mut accounts[one.account as usize].held;
        unlink(kept, list, OF_SENDER, slot.0);
        push_front(kept, list, OF_SENDER, slot.0);
    }

    /// Whether only the place of a message is left.
    pub(crate) fn is_hollow(&self, slot: Slot) -> bool {
        self.kept[slot.0 as usize].is_hollow
    }

    /// Where a message is.
    pub(crate) fn position(&self, slot: Slot) -> Position {
        self.kept[slot.0 as usize].position
    }

    /// Memory of a message once it is stored.
    pub(crate) fn cost_of(origin: &Origin, content: &Content<'_>) -> u64 {
        Stored::cost_of(origin, content) + BOOKKEEPING_BYTES
    }

    /// The number of messages.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Memory of all messages.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves memory for a transaction of a sender.
    pub(crate) fn reserve(&mut self, sender: &[u8], bytes: u64) {
        let account = self.find_or_open(sender);
        let one = &mut self.accounts[account as usize];
        one.reserved += bytes;
        self.ranking.set(account, one.size());
    }

    /// Gives back what was reserved.
    pub(crate) fn unreserve(&mut self, sender: &[u8], bytes: u64) {
        let Some(account) = self.find(sender) else { return };
        let one = &mut self.accounts[account as usize];
        one.reserved -= bytes;
        one.is_revoked &= one.reserved > 0;
        match one.is_unused() {
            true => self.close_account(account),
            false => self.ranking.set(account, one.size()),
        }
    }

    /// Memory that is reserved for a sender.
    pub(crate) fn reserved_of(&self, sender: &[u8]) -> u64 {
        self.find(sender).map_or(0, |account| self.accounts[account as usize].reserved)
    }

    /// Has the sender who occupies most give up what is reserved for those of its transactions that are still checked.
    pub(crate) fn revoke_largest(&mut self) {
        if let Some(account) = self.ranking.largest() {
            self.accounts[account as usize].is_revoked = true;
        }
    }

    /// Whether a sender has to give up what is reserved for it.
    pub(crate) fn is_revoked(&self, sender: &[u8]) -> bool {
        self.find(sender).is_some_and(|account| self.accounts[account as usize].is_revoked)
    }

    /// What a sender occupies, reservations included, and what its account needs besides its next message.
    pub(crate) fn bytes_of(&self, sender: &[u8]) -> (u64, u64) {
        match self.find(sender) {
            Some(account) => (self.accounts[account as usize].size(), 0),
            None => (0, Account::cost_of(sender)),
        }
    }

    /// What the account of a sender needs besides its messages.
    pub(crate) fn account_bytes(sender: &[u8]) -> u64 {
        Account::cost_of(sender)
    }

    /// What the sender occupies who occupies most, reservations included, to within an eighth.
    pub(crate) fn largest_bytes(&self) -> u64 {
        let largest = self.ranking.largest();
        largest.map_or(0, |account| self.accounts[account as usize].size())
    }

    /// The message that goes first when there is no room: of the sender who occupies most the one
    /// that began to wait last; if none waits, the one that was delivered last. Nothing, if all is reserved.
    pub(crate) fn first_to_drop(&self) -> Option<(Slot, &[u8])> {
        let account = &self.accounts[self.ranking.largest()? as usize];
        Some((account.waiting.last().or_else(|| account.held.last())?, &account.name))
    }

    /// Panics if a total differs from a recount.
    pub(crate) fn check_invariants(&self) {
        let mut bytes = 0;
        let mut held = 0;
        let mut by_account = BTreeMap::new();
        for (slot, kept) in &self.kept {
            let cost_bytes = kept.message.cost_bytes() + BOOKKEEPING_BYTES;
            assert_eq!(kept.cost_bytes, cost_bytes, "the cost of a message");
            *by_account.entry(kept.account).or_insert(0) += kept.cost_bytes;
            if matches!(kept.position, Position::Held(_)) {
                held += 1;
                assert_eq!(self.held.get(&kept.message.number), Some(&(slot as u32)));
            }
        }
        assert_eq!(held, self.held.len(), "messages that are held");
        assert_eq!(self.by_name.len(), self.accounts.len(), "names and accounts");
        for (id, account) in &self.accounts {
            assert!(!account.is_unused(), "an account without messages");
            let messages = by_account.get(&(id as u32)).copied().unwrap_or_default();
            let own = messages + Account::cost_of(&account.name);
            assert_eq!(account.bytes, own, "the bytes of an account");
            assert!(self.ranking.has(id as u32, account.size()), "where an account stands");
            assert_eq!(self.find(&account.name), Some(id as u32));
            bytes += own;
        }
        assert_eq!(self.bytes, bytes, "the bytes of all accounts");
    }

    fn set_position(&mut self, slot: Slot, position: Position) {
        let kept = &self.kept[slot.0 as usize];
        let is_held = |position| matches!(position, Position::Held(_));
        let moves = is_held(kept.position) != is_held(position);
        if moves {
            self.leave_account_list(slot.0);
        }
        let kept = &mut self.kept[slot.0 as usize];
        kept.position = position;
        if !moves {
            return;
        }
        let account = &mut self.accounts[kept.account as usize];
        match position {
            Position::Held(_) => push_back(&mut self.kept, &mut account.held, OF_SENDER, slot.0),
            // What was delivered once waited longest.
            _ => push_front(&mut self.kept, &mut account.waiting, OF_SENDER, slot.0),
        }
    }

    fn leave_account_list(&mut self, slot: u32) {
        let kept = &self.kept[slot as usize];
        let account = &mut self.accounts[kept.account as usize];
        let list = match kept.position {
            Position::Held(_) => &mut account.held,
            Position::Fresh(_) | Position::Returned(_) => &mut account.waiting,
        };
        unlink(&mut self.kept, list, OF_SENDER, slot);
    }

    fn charge(&mut self, account: u32, bytes: u64) {
        self.bytes += bytes;
        let one = &mut self.accounts[account as usize];
        one.bytes += bytes;
        self.ranking.set(account, one.size());
    }

    fn find(&self, sender: &[u8]) -> Option<u32> {
        let is_same = |account: u32| *self.accounts[account as usize].name == *sender;
        self.by_name.find(self.hasher.hash(sender), is_same)
    }

    fn find_or_open(&mut self, sender: &[u8]) -> u32 {
        if let Some(account) = self.find(sender) {
            return account;
        }
        let (waiting, held) = (List::default(), List::default());
        let (bytes, reserved, is_revoked) = (0, 0, false);
        let account = Account { name: sender.into(), bytes, reserved, is_revoked, waiting, held };
        let account = self.accounts.insert(Box::new(account)) as u32;
        self.by_name.insert(self.hasher.hash(sender), account);
        self.charge(account, Account::cost_of(sender));
        account
    }

    fn close_account(&mut self, account: u32) {
        let closed = self.accounts.remove(account as usize);
        self.bytes -= closed.bytes;
        self.ranking.set(account, 0);
        self.by_name.remove(self.hasher.hash(&closed.name), account);
        if self.accounts.is_empty() && self.accounts.capacity() > PLACES_KEPT {
            self.accounts = Slab::new();
        }
    }
}

impl Account {
    /// What it has in the order of accounts.
    fn size(&self) -> u64 {
        self.bytes + self.reserved
    }

    /// Whether there are no messages of the sender, and none is to come for which there is a reservation.
    fn is_unused(&self) -> bool {
        self.waiting.len + self.held.len == 0 && self.reserved == 0
    }

    /// Memory of an account without messages.
    fn cost_of(sender: &[u8]) -> u64 {
        // The tables may have twice the room that they need.
        let tables = 2 * (size_of::<(usize, usize)>() + NameIndex::<u32>::ENTRY_BYTES);
        (size_of::<Self>() + sender.len() + tables + 64) as u64
    }
}

/// Memory of the bookkeeping for a message, besides that of [`Stored`]: its slot, which the table may have twice
/// while it grows, and its places in the orders by number and by expiry.
const BOOKKEEPING_BYTES: u64 =
    (size_of::<Kept>() - size_of::<Stored>() + 2 * size_of::<(usize, usize)>() + 64) as u64;

fn push_back(kept: &mut Slab<Box<Kept>>, list: &mut List, which: usize, slot: u32) {
    kept[slot as usize].links[which] = Links { before: list.last, after: NONE };
    match kept.get_mut(list.last as usize) {
        Some(last) => last.links[which].after = slot,
        None => list.first = slot,
    }
    list.last = slot;
    list.len += 1;
}

fn push_front(kept: &mut Slab<Box<Kept>>, list: &mut List, which: usize, slot: u32) {
    kept[slot as usize].links[which] = Links { before: NONE, after: list.first };
    match kept.get_mut(list.first as usize) {
        Some(first) => first.links[which].before = slot,
        None => list.last = slot,
    }
    list.first = slot;
    list.len += 1;
}

fn unlink(kept: &mut Slab<Box<Kept>>, list: &mut List, which: usize, slot: u32) {
    let Links { before, after } = kept[slot as usize].links[which];
    match kept.get_mut(before as usize) {
        Some(one) => one.links[which].after = after,
        None => list.first = after,
    }
    match kept.get_mut(after as usize) {
        Some(one) => one.links[which].before = before,
        None => list.last = before,
    }
    list.len -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::destination::DestinationTable;
    use crate::broker::message::UserLines;

    /// So a share of the memory of messages also bounds the queues that they keep alive.
    #[test]
    fn a_message_costs_as_much_as_its_queue() {
        for length in [1, 100, 4_000] {
            let queue = format!("/queue/{}", "x".repeat(length));
            let content = Content {
                transaction: None,
                destination: queue.as_bytes(),
                content_type: None,
                has_escapes: false,
                user_lines: UserLines::Own(&[]),
                body: b"",
                shared: None,
            };
            let message = Store::cost_of(&Origin::new(b"a", b"/agent/a"), &content);
            let queue = DestinationTable::cost_of(queue.as_bytes());
            assert!(message >= queue, "{message} bytes of a message, {queue} of its queue");
        }
    }
}
