//! Who holds memory for input, and who of all that do has to pay when there is not enough.
//!
//! What passes through within a moment is not what fills the memory: of those that hold about their part or more, the ones
//! that have done so for longest pay first, and one whose frame has just begun does not pay for those that wait.

use std::collections::VecDeque;

use crate::ranking::Ranking;

/// Connections by what they hold, and for how long.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Those that have begun to hold something, then those that have held something for each of [`AGES_MS`] without a
    /// moment at which they held nothing.
    tiers: [Ranking; AGES_MS.len() + 1],
    /// By the connection's slot.
    holdings: Vec<Holding>,
    /// For each of [`AGES_MS`], the slots that may reach it, and since when they have held something, in milliseconds:
    /// the earliest first, but for some that began anew.
    ageing: [VecDeque<(u32, u64)>; AGES_MS.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    bytes: u64,
    /// When it began, in milliseconds.
    since_ms: u64,
    tier: u8,
    /// Whether its slot is listed in `ageing`.
    is_listed: bool,
}

/// Ages of a holding, in milliseconds. A frame of a client that is not slow has arrived before the first; where very
/// many send at once, before the second.
const AGES_MS: [u64; 3] = [250, 1_000, 4_000];

/// Holdings that reach each age at once, at most: all connections at once would take some milliseconds.
const AGED_AT_ONCE: usize = 128;

/// Holdings for which memory is kept while nobody holds anything.
const HOLDINGS_KEPT: usize = 256;

impl Holders {
    /// Notes that a connection holds so many bytes.
    pub(super) fn set(&mut self, slot: u32, bytes: u64, now_ms: u64) {
        if self.holdings.len() <= slot as usize {
            if bytes == 0 {
                return;
            }
            self.holdings.resize(slot as usize + 1, Holding::default());
        }
        let holding = &mut self.holdings[slot as usize];
        if holding.bytes == 0 {
            (holding.since_ms, holding.tier) = (now_ms, 0);
        }
        holding.bytes = bytes;
        self.tiers[usize::from(holding.tier)].set(slot, bytes);
        if bytes > 0 && !std::mem::replace(&mut holding.is_listed, true) {
            self.ageing[0].push_back((slot, now_ms));
            self.age_some(now_ms);
        } else if bytes == 0 && self.len() == 0 {
            self.trim();
        }
    }

    /// Has a connection not pay any more, since it is closing.
    pub(super) fn spare(&mut self, slot: u32) {
        if let Some(holding) = self.holdings.get(slot as usize) {
            self.tiers[usize::from(holding.tier)].set(slot, 0);
        }
    }

    /// Who has to pay while all together hold more than `bytes_max`: of those that hold about their equal part or more
    /// and have done so for longest, the one that holds most; if there is none, the one that holds most of all. It is
    /// the newcomer if that has held about as much for as long.
    pub(super) fn payer(&mut self, newcomer: u32, bytes_max: u64, now_ms: u64) -> Option<u32> {
        self.grow_older(now_ms);
        let equal_part = bytes_max / self.len().max(1) as u64;
        let largest_of = |tier: &Ranking| {
            let one = if tier.is_among_largest(newcomer) { newcomer } else { tier.largest()? };
            Some((self.holdings[one as usize].bytes, one))
        };
        let largest = self.tiers.iter().rev().filter_map(largest_of);
        let payer = largest.clone().find(|(bytes, _)| *bytes >= equal_part / 4 * 3);
        Some(payer.or_else(|| largest.max())?.1)
    }

    fn len(&self) -> usize {
        self.tiers.iter().map(Ranking::len).sum()
    }

    /// Has those reach an age whose time it is, as many as take little time: who is not old yet because of that pays later.
    pub(super) fn grow_older(&mut self, now_ms: u64) {
        for _ in 0..AGED_AT_ONCE {
            if !self.age_some(now_ms) {
                return;
            }
        }
    }

    /// Has the first ones that wait for an age reach it, if it is time. Returns whether there may be more.
    fn age_some(&mut self, now_ms: u64) -> bool {
        let mut has_more = false;
        for (at, age_ms) in AGES_MS.into_iter().enumerate() {
            let Some((slot, since_ms)) = self.ageing[at].front().copied() else { continue };
            if since_ms + age_ms <= now_ms {
                has_more = true;
                self.ageing[at].pop_front();
                self.age(slot, since_ms, at);
            }
        }
        has_more
    }

    /// A holding has reached an age, unless it is another one than that which was listed.
    fn age(&mut self, slot: u32, since_ms: u64, at: usize) {
        let Some(holding) = self.holdings.get_mut(slot as usize) else { return };
        if holding.bytes == 0 {
            holding.is_listed = false;
        } else if holding.since_ms != since_ms {
            self.ageing[0].push_back((slot, holding.since_ms));
        } else {
            let from = usize::from(std::mem::replace(&mut holding.tier, at as u8 + 1));
            // One that is closing takes no part.
            if self.tiers[from].has(slot, holding.bytes) {
                self.tiers[from].set(slot, 0);
                self.tiers[at + 1].set(slot, holding.bytes);
            }
            match self.ageing.get_mut(at + 1) {
                Some(next) => next.push_back((slot, since_ms)),
                None => holding.is_listed = false,
            }
        }
    }

    /// Returns the memory of a burst.
    fn trim(&mut self) {
        if self.holdings.len() > HOLDINGS_KEPT {
            (self.holdings, self.ageing) = Default::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_held_its_part_for_longer_pays_before_one_whose_frame_has_just_begun() {
        let mut holders = Holders::default();
        for slot in 0..9 {
            holders.set(slot, 100, 1_000);
        }
        holders.set(9, 300, 1_200);
        assert_eq!(holders.payer(9, 1_000, 1_249), Some(9), "they are of one age");
        let payer = holders.payer(9, 1_000, 1_250).unwrap();
        assert!(payer < 9);
        holders.spare(payer);
        assert_ne!(holders.payer(9, 1_000, 1_250), Some(payer), "it has paid");
        assert_eq!(holders.payer(9, 1_000, 1_450), Some(9), "of one age again");
        assert!(holders.payer(9, 1_000, 2_000).unwrap() < 9);
        assert!(holders.payer(9, 1_000, 5_000).unwrap() < 9);
        assert_eq!(holders.payer(9, 1_000, 5_200), Some(9));
    }

    #[test]
    fn who_holds_little_never_pays_for_those_that_hold_much_however_long_it_does() {
        let mut holders = Holders::default();
        holders.set(0, 50, 0);
        for slot in 1..10 {
            holders.set(slot, 100, 5_000);
        }
        assert_eq!(holders.payer(9, 950, 5_000), Some(9));
        assert_ne!(holders.payer(0, 950, 5_000), Some(0));
    }

    #[test]
    fn a_moment_without_anything_begins_anew() {
        let mut holders = Holders::default();
        for slot in 0..5 {
            holders.set(slot, 100, 0);
        }
        holders.set(4, 0, 150);
        holders.set(4, 200, 200);
        assert!(holders.payer(4, 600, 250).unwrap() < 4);
        assert!(holders.payer(4, 600, 449).unwrap() < 4);
        assert_eq!(holders.payer(4, 600, 450), Some(4));
        for slot in 0..5 {
            holders.set(slot, 0, 5_000);
        }
        assert_eq!(holders.len(), 0);
        holders.set(2, 10, 9_000);
        assert_eq!(holders.payer(0, 5, 9_000), Some(2));
    }

    #[test]
    fn very_many_grow_older_little_by_little_and_pay_at_once() {
        let mut holders = Holders::default();
        for slot in 0..10_000 {
            holders.set(slot, 100, 0);
        }
        holders.set(10_000, 120, 900);
        assert_ne!(holders.payer(10_000, 1_000_000, 1_000), Some(10_000));
        assert!(holders.ageing[0].len() >= 10_000 - 2 * AGED_AT_ONCE);
        (0..10_000 / AGED_AT_ONCE).for_each(|_| holders.grow_older(1_000));
        assert_eq!(holders.ageing[0].len(), 1);
    }

    #[test]
    fn one_that_is_closing_does_not_pay_when_it_gets_older() {
        let mut holders = Holders::default();
        holders.set(0, 100, 0);
        holders.set(1, 50, 0);
        holders.spare(0);
        assert_eq!(holders.payer(1, 100, 10_000), Some(1));
        holders.spare(1);
        assert_eq!(holders.payer(1, 100, 20_000), None);
        holders.set(1, 0, 20_000);
        holders.set(1, 70, 20_000);
        assert_eq!(holders.payer(0, 60, 20_000), Some(1));
    }

    #[test]
    fn a_burst_leaves_no_memory() {
        let mut holders = Holders::default();
        for slot in 0..1_000 {
            holders.set(slot, 100, 0);
        }
        for slot in 0..1_000 {
            holders.set(slot, 0, 10);
        }
        assert_eq!((holders.holdings.capacity(), holders.ageing[0].capacity()), (0, 0));
        holders.set(0, 1, 10);
        assert_eq!(holders.ageing[0].len(), 1);
    }
}
