//! The table of connections, and the lists of those with pending work.
//!
//! It knows only a connection's id, whether it is listed, and whether its protocol is known.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use slab::Slab;

use super::connection::{Connection, ConnectionId, Need, Phase};

/// All connections, and the lists of pending work.
#[derive(Debug)]
pub(super) struct Table<S> {
    slab: Slab<Connection<S>>,
    /// The generation of each slot's next use. It may wrap around after 2³² uses, because nothing keeps
    /// an id for that long: deadlines expire, and lists are emptied.
    generations: Vec<NonZeroU32>,
    /// Connections that are logged in, have become readable, and have needed little for long.
    pub(super) to_read: WorkList,
    /// Connections that are logged in, have become readable, and needed little when they were read last. They come after
    /// those of `to_read`.
    pub(super) to_read_next: WorkList,
    /// All others that have become readable and whose protocol is known, and those whose share of an earlier turn ended
    /// before their input did. They come after those of `to_read_next`.
    pub(super) to_continue: WorkList,
    /// Connections that have become readable and whose protocol is not known yet: of these one at least is read
    /// in each turn, and as many as fit into it after all others.
    pub(super) to_greet: WorkList,
    /// Connections that have output but are not on the broker's list.
    pub(super) to_flush: WorkList,
    /// Connections that are closed.
    pub(super) to_reap: WorkList,
}

impl<S> Table<S> {
    pub(super) fn new() -> Self {
        Self {
            slab: Slab::new(),
            generations: Vec::new(),
            to_read: WorkList::default(),
            to_read_next: WorkList::default(),
            to_continue: WorkList::default(),
            to_greet: WorkList::default(),
            to_flush: WorkList::default(),
            to_reap: WorkList::default(),
        }
    }

    /// The id of the next connection.
    pub(super) fn next_id(&self) -> ConnectionId {
        let slot = self.slab.vacant_key();
        let generation = self.generations.get(slot).copied().unwrap_or(NonZeroU32::MIN);
        ConnectionId { slot: slot as u32, generation }
    }

    /// Inserts a connection whose id is [`Self::next_id`].
    pub(super) fn insert(&mut self, connection: Connection<S>) {
        debug_assert_eq!(connection.id, self.next_id());
        let slot = self.slab.insert(connection);
        if slot == self.generations.len() {
            self.generations.push(NonZeroU32::MIN);
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection<S>> {
        self.find(id)?;
        let next = id.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.generations[id.slot as usize] = next;
        self.slab.try_remove(id.slot as usize)
    }

    /// Lists a connection that is logged in to be read in the next [`Engine::receive`](super::Engine::receive), where it
    /// belongs by what it has needed.
    #[inline]
    pub(super) fn list_to_read(&mut self, slot: u32) {
        let connection = &mut self[slot];
        if !connection.flags.listed_to_read {
            connection.flags.listed_to_read = true;
            let (id, need) = (connection.id, connection.need());
            match need {
                Need::LittleForLong => self.to_read.push(id),
                Need::Little => self.to_read_next.push(id),
                Need::Much => self.to_continue.push(id),
            }
        }
    }

    /// Lists a connection to be read after those that need little.
    pub(super) fn list_to_continue(&mut self, slot: u32) {
        let connection = &mut self[slot];
        if !connection.flags.listed_to_read {
            connection.flags.listed_to_read = true;
            let id = connection.id;
            match connection.phase {
                Phase::AwaitingProtocol => self.to_greet.push(id),
                _ => self.to_continue.push(id),
            }
        }
    }

    /// Lists a connection to be written to in the next [`Engine::flush`](super::Engine::flush).
    pub(super) fn list_to_flush(&mut self, slot: u32) {
        let connection = &mut self[slot];
        if !connection.flags.listed_to_flush {
            connection.flags.listed_to_flush = true;
            let id = connection.id;
            self.to_flush.push(id);
        }
    }

    /// A connection that may be gone.
    pub(super) fn find(&self, id: ConnectionId) -> Option<&Connection<S>> {
        self.slab.get(id.slot as usize).filter(|one| one.id == id)
    }

    /// As [`Self::find`], mutable.
    pub(super) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<S>> {
        self.slab.get_mut(id.slot as usize).filter(|one| one.id == id)
    }

    /// The connection in a slot.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Connection<S>> {
        self.slab.get_mut(slot as usize)
    }

    /// All connections with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection<S>)> {
        self.slab.iter().map(|(slot, connection)| (slot as u32, connection))
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Whether a connection is on one of the lists.
    pub(super) fn has_work(&self) -> bool {
        self.lists().into_iter().any(|list| !list.is_empty())
    }

    /// Whether a burst has left memory that is worth returning.
    pub(super) fn has_slack(&self) -> bool {
        self.lists().into_iter().any(WorkList::has_slack)
    }

    /// Returns the memory of a past burst.
    pub(super) fn trim(&mut self) {
        let Self { to_read, to_read_next, to_continue, to_greet, to_flush, to_reap, .. } = self;
        for list in [to_read, to_read_next, to_continue, to_greet, to_flush, to_reap] {
            list.trim();
        }
    }

    fn lists(&self) -> [&WorkList; 6] {
        let Self { to_read, to_read_next, to_continue, to_greet, to_flush, to_reap, .. } = self;
        [to_read, to_read_next, to_continue, to_greet, to_flush, to_reap]
    }
}

/// The connection in a slot, which is not reaped before the turn ends.
impl<S> std::ops::Index<u32> for Table<S> {
    type Output = Connection<S>;

    fn index(&self, slot: u32) -> &Connection<S> {
        &self.slab[slot as usize]
    }
}

impl<S> std::ops::IndexMut<u32> for Table<S> {
    fn index_mut(&mut self, slot: u32) -> &mut Connection<S> {
        &mut self.slab[slot as usize]
    }
}

/// Connections with pending work, in the order in which they were listed.
#[derive(Debug, Default)]
pub(super) struct WorkList(VecDeque<ConnectionId>);

impl WorkList {
    pub(super) fn push(&mut self, id: ConnectionId) {
        self.0.push_back(id);
    }

    /// Takes the first one.
    pub(super) fn pop(&mut self) -> Option<ConnectionId> {
        self.0.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a burst has left memory that is worth returning.
    pub(super) fn has_slack(&self) -> bool {
        self.0.capacity() > LIST_KEPT
    }

    /// Returns the memory of a past burst.
    pub(super) fn trim(&mut self) {
        self.0.shrink_to(LIST_KEPT);
    }
}

/// Entries that lists keep room for.
pub(super) const LIST_KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Accepted;
    use crate::transport::ListenerPolicy;

    fn insert(table: &mut Table<()>) -> ConnectionId {
        let address = "192.0.2.1:5".parse().unwrap();
        let accepted = Accepted { address, policy: ListenerPolicy::default(), listener: 0 };
        let id = table.next_id();
        table.insert(Connection::new(id, 1, (), accepted, 0, 0));
        id
    }

    #[test]
    fn an_outdated_id_finds_nothing_though_its_slot_is_used_again() {
        let mut table = Table::new();
        let first = insert(&mut table);
        assert!(table.remove(first).is_some());
        let second = insert(&mut table);
        assert_eq!(first.slot, second.slot);
        assert!(table.find(first).is_none() && table.remove(first).is_none());
        assert!(table.find(second).is_some());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_connection_is_listed_once_wherever_it_is_listed() {
        let mut table = Table::new();
        let id = insert(&mut table);
        table[id.slot].phase = Phase::Open;
        table.list_to_continue(id.slot);
        table.list_to_read(id.slot);
        assert!(table.to_read.is_empty() && table.has_work());
        assert_eq!(table.to_continue.pop(), Some(id));
        table[id.slot].flags.listed_to_read = false;
        table[id.slot].note_visit(10);
        table.list_to_read(id.slot);
        table.list_to_continue(id.slot);
        assert_eq!((table.to_read_next.pop(), table.to_continue.pop()), (Some(id), None));
        assert!(!table.has_work());
    }

    #[test]
    fn a_connection_is_listed_by_what_it_has_needed() {
        let mut table = Table::new();
        let id = insert(&mut table);
        table[id.slot].phase = Phase::Open;
        let list = |table: &mut Table<()>, visits: &[u64]| {
            table[id.slot].flags.listed_to_read = false;
            visits.iter().for_each(|units| table[id.slot].note_visit(*units));
            table.list_to_read(id.slot);
            [table.to_read.pop(), table.to_read_next.pop(), table.to_continue.pop()]
        };
        assert_eq!(list(&mut table, &[]), [None, None, Some(id)], "it is not known");
        assert_eq!(list(&mut table, &[10; 63]), [None, Some(id), None]);
        assert_eq!(list(&mut table, &[70; 300]), [Some(id), None, None]);
        assert_eq!(list(&mut table, &[71]), [None, None, Some(id)]);
        assert_eq!(list(&mut table, &[10]), [None, Some(id), None]);
        table[id.slot].flags.listed_to_read = true;
        table[id.slot].note_visit(10);
        assert_eq!(list(&mut table, &[]), [None, None, Some(id)], "it left something to be read");
    }

    #[test]
    fn a_burst_leaves_memory_until_it_is_returned() {
        let mut table = Table::new();
        for _ in 0..=LIST_KEPT {
            let id = insert(&mut table);
            table.list_to_flush(id.slot);
        }
        while table.to_flush.pop().is_some() {}
        assert!(table.has_slack());
        table.trim();
        assert!(!table.has_slack());
    }
}
