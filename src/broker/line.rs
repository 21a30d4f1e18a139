//! The line of logins that wait until fewer presence events have to be sent first: one for each address that
//! connections come from, each first come first served, and the lines in turn. So whoever keeps very many logins
//! waiting makes only those wait for long who come from the same address.

use std::collections::{BTreeMap, VecDeque};

use super::ids::LoginId;
use super::{Broker, Speaker};

/// Where a connection comes from: an address of IPv4, or the half of one of IPv6 that names a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(u64);

impl Source {
    /// The source with that number: the bits of an address of IPv4, or the half of one of IPv6.
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

impl Broker {
    /// Notes where a connection comes from.
    pub fn note_source(&mut self, speaker: &Speaker, source: Source) {
        self.peers.peer_mut(speaker.peer).source = source;
    }
}

/// Logins that wait. Some may be gone.
#[derive(Debug, Default)]
pub(super) struct Line {
    by_source: BTreeMap<Source, VecDeque<LoginId>>,
    /// The sources in the order of their turns, each once. Nobody may be left of some.
    turns: VecDeque<Source>,
    len: usize,
}

impl Line {
    /// The number of logins, those that are gone included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of sources.
    pub(super) fn sources_len(&self) -> usize {
        self.turns.len()
    }

    /// Adds a login behind the others from the same source.
    pub(super) fn push(&mut self, source: Source, login: LoginId) {
        let turns = &mut self.turns;
        let own = self.by_source.entry(source).or_insert_with(|| {
            turns.push_back(source);
            VecDeque::new()
        });
        own.push_back(login);
        self.len += 1;
    }

    /// Takes the login whose turn it is. Other sources have theirs before the next one of its source.
    pub(super) fn pop(&mut self) -> Option<LoginId> {
        while let Some(source) = self.turns.pop_front() {
            if let Some(login) = self.take_first_of(source) {
                self.turns.push_back(source);
                return Some(login);
            }
            self.by_source.remove(&source);
        }
        None
    }

    /// The source after another one, in the order of their numbers, or the first one.
    pub(super) fn source_after(&self, other: Source) -> Option<Source> {
        let after = self.by_source.range(Source(other.0.wrapping_add(1))..).next();
        after.or_else(|| self.by_source.first_key_value()).map(|(source, _)| *source)
    }

    /// The first login of a source.
    pub(super) fn first_of(&self, source: Source) -> Option<LoginId> {
        self.by_source.get(&source)?.front().copied()
    }

    /// Takes the first login of a source, which does not use up its turn.
    pub(super) fn take_first_of(&mut self, source: Source) -> Option<LoginId> {
        let login = self.by_source.get_mut(&source)?.pop_front()?;
        self.len -= 1;
        Some(login)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::table::{Key, Place};
    use super::*;

    #[test]
    fn sources_have_turns_and_each_serves_first_who_came_first() {
        let login = |number| LoginId::new(Place::new(number, NonZeroU32::MIN));
        let (one, two, three) = (Source::new(1), Source::new(2), Source::new(3));
        let mut line = Line::default();
        (0..5).for_each(|number| line.push(one, login(number)));
        (5..8).for_each(|number| line.push(two, login(number)));
        line.push(three, login(8));
        assert_eq!((line.len(), line.sources_len()), (9, 3));
        assert_eq!(line.take_first_of(three), Some(login(8)));
        let order: Vec<_> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order, [0, 5, 1, 6, 2, 7, 3, 4].map(login));
        assert_eq!((line.len(), line.sources_len(), line.source_after(one)), (0, 0, None));
    }
}
