//! The line of logins that wait until fewer presence events have to be sent first: one for each address that
//! connections come from, and for each profile there, and these in turn. So whoever keeps very many logins waiting
//! makes only those wait for long who come from the same address and have the same key.
//!
//! Each is first come first served while it is short. Where it is long, most of the time the newest is served first:
//! so one that comes behind a proxy, where all come from the same address, does not wait until all have had their turn
//! whom one client among them keeps waiting, and those who are refused in the end have waited for long already. Every
//! fourth time it is the oldest all the same, so that nobody is passed over for ever by few who come again and again.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::ids::LoginId;
use super::{Broker, Speaker};
use crate::profile::Profile;

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

/// Who has a line of his own: the clients of a profile from a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kin {
    source: Source,
    profile: usize,
}

impl Kin {
    pub(super) fn new(source: Source, profile: Profile) -> Self {
        Self { source, profile: profile as usize }
    }
}

/// Logins that wait. Some may be gone.
#[derive(Debug, Default)]
pub(super) struct Line {
    by_kin: BTreeMap<Kin, Own>,
    /// The kin in the order of their turns, each once. Nobody may be left of some.
    turns: VecDeque<Kin>,
    len: usize,
}

/// The logins of one kin.
#[derive(Debug, Default)]
struct Own {
    /// The oldest first.
    logins: VecDeque<LoginId>,
    /// Times that there was one who was served.
    served: u32,
}

/// Logins of a kin up to which they are first come first served.
const SHORT: usize = 32;

/// Where there are more, the oldest one is served once in so many times.
const OLDEST_EVERY: u32 = 4;

impl Own {
    fn take_next(&mut self) -> Option<LoginId> {
        self.served = self.served.wrapping_add(1);
        match self.logins.len() <= SHORT || self.served.is_multiple_of(OLDEST_EVERY) {
            true => self.logins.pop_front(),
            false => self.logins.pop_back(),
        }
    }
}

impl Line {
    /// The number of logins, those that are gone included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of kin.
    pub(super) fn kin_len(&self) -> usize {
        self.turns.len()
    }

    /// Adds a login, as the newest of its kin.
    pub(super) fn push(&mut self, kin: Kin, login: LoginId) {
        let turns = &mut self.turns;
        let own = self.by_kin.entry(kin).or_insert_with(|| {
            turns.push_back(kin);
            Own::default()
        });
        own.logins.push_back(login);
        self.len += 1;
    }

    /// Takes the login whose turn it is. Other kin have theirs before the next one of its own.
    pub(super) fn pop(&mut self) -> Option<LoginId> {
        while let Some(kin) = self.turns.pop_front() {
            if let Some(login) = self.by_kin.get_mut(&kin).and_then(Own::take_next) {
                self.turns.push_back(kin);
                self.len -= 1;
                return Some(login);
            }
            self.by_kin.remove(&kin);
        }
        None
    }

    /// The kin after another one, in an order of their own, or the first one.
    pub(super) fn kin_after(&self, other: Kin) -> Option<Kin> {
        let after = self.by_kin.range((Bound::Excluded(other), Bound::Unbounded)).next();
        after.or_else(|| self.by_kin.first_key_value()).map(|(kin, _)| *kin)
    }

    /// The oldest login of a kin.
    pub(super) fn oldest_of(&self, kin: Kin) -> Option<LoginId> {
        self.by_kin.get(&kin)?.logins.front().copied()
    }

    /// Takes the oldest login of a kin, which does not use up its turn.
    pub(super) fn take_oldest_of(&mut self, kin: Kin) -> Option<LoginId> {
        let login = self.by_kin.get_mut(&kin)?.logins.pop_front()?;
        self.len -= 1;
        Some(login)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::table::{Key, Place};
    use super::*;

    fn login(number: u32) -> LoginId {
        LoginId::new(Place::new(number, NonZeroU32::MIN))
    }

    fn agents(source: u64) -> Kin {
        Kin::new(Source::new(source), Profile::Agent)
    }

    #[test]
    fn kin_have_turns_and_each_serves_first_who_came_first() {
        let (one, two, three) =
            (agents(1), agents(2), Kin::new(Source::new(1), Profile::SuperAgent));
        let mut line = Line::default();
        (0..5).for_each(|number| line.push(one, login(number)));
        (5..8).for_each(|number| line.push(two, login(number)));
        line.push(three, login(8));
        line.push(three, login(9));
        assert_eq!((line.len(), line.kin_len()), (10, 3));
        assert_eq!(line.take_oldest_of(three), Some(login(8)));
        let order: Vec<_> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order, [0, 5, 9, 1, 6, 2, 7, 3, 4].map(login));
        assert_eq!((line.len(), line.kin_len(), line.kin_after(one)), (0, 0, None));
    }

    /// The others are from the same source, and come again as soon as they were served, or twice as many do.
    #[test]
    fn in_a_long_line_who_comes_is_served_soon_and_nobody_is_passed_over_for_ever() {
        for new_ones in [1, 2] {
            let mut line = Line::default();
            let kin = agents(1);
            (0..1_000).for_each(|number| line.push(kin, login(number)));
            let mut number = 1_000;
            let (mut soon, mut oldest) = (0, 0);
            for guest in 1_000_000..1_000_100 {
                line.push(kin, login(guest));
                let mut served = Vec::new();
                for _ in 0..20 {
                    served.extend(line.pop());
                    for _ in 0..new_ones {
                        line.push(kin, login(number));
                        number += 1;
                    }
                }
                soon += u32::from(served.contains(&login(guest)));
                oldest += served.iter().filter(|one| **one < login(1_000)).count();
            }
            assert!(soon > 70, "{soon} of 100 guests");
            assert!(oldest >= 400, "{oldest} of 1,000 who came first");
        }
    }
}
