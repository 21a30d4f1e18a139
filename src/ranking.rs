//! Which of many things is the largest, in constant time and to within an eighth of its size.
//!
//! Things stand in classes by size, eight to each power of two, and change their class only when they have grown
//! or shrunk by an eighth or so. It does not know what the things are.

/// Things by size; each has an index, as in a table, and takes part while its size is not zero.
#[derive(Debug, Default)]
pub(crate) struct Ranking {
    /// The first thing of each class; empty until something takes part.
    firsts: Box<[u32]>,
    /// A bit for each class that is not empty.
    used: [u64; CLASSES / 64],
    /// Where each thing stands, by its index.
    ranks: Vec<Rank>,
    len: usize,
}

/// Where a thing stands. The things of a class are a list, so that to change the class allocates nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Rank {
    /// Its class; zero if it takes no part.
    class: u32,
    /// Its neighbours in the class.
    before: u32,
    after: u32,
}

/// Classes: 0 for nothing, then eight for each power of two, of which the first three share theirs.
const CLASSES: usize = 512;

/// The neighbour of the first and of the last thing of a class.
const NONE: u32 = u32::MAX;

/// Ranks for which memory is kept while nothing takes part.
const RANKS_KEPT: usize = 256;

impl Ranking {
    /// Sets the size of a thing. With zero it takes no part.
    #[inline]
    pub(crate) fn set(&mut self, index: u32, size: u64) {
        let class = class_of(size);
        let rank = self.ranks.get(index as usize).copied().unwrap_or_default();
        if rank.class != class {
            self.move_to(index, rank, class);
        }
    }

    /// A thing that is at most an eighth smaller than the largest.
    pub(crate) fn largest(&self) -> Option<u32> {
        Some(self.firsts[self.highest()?])
    }

    /// Whether a thing is as large as the largest, or at most an eighth smaller.
    pub(crate) fn is_among_largest(&self, index: u32) -> bool {
        let rank = self.ranks.get(index as usize).copied().unwrap_or_default();
        self.highest() == Some(rank.class as usize)
    }

    /// Whether a thing stands where one of that size belongs.
    pub(crate) fn has(&self, index: u32, size: u64) -> bool {
        let rank = self.ranks.get(index as usize).copied().unwrap_or_default();
        rank.class == class_of(size)
    }

    /// The number of things that take part.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The highest class that is not empty.
    fn highest(&self) -> Option<usize> {
        let (word, bits) = self.used.iter().enumerate().rfind(|(_, bits)| **bits != 0)?;
        Some(word * 64 + bits.ilog2() as usize)
    }

    fn move_to(&mut self, index: u32, from: Rank, class: u32) {
        if from.class != 0 {
            self.leave(from);
        }
        if class != 0 {
            self.enter(index, class);
        } else if self.len == 0 && self.ranks.capacity() > RANKS_KEPT {
            self.ranks = Vec::new();
        } else {
            self.ranks[index as usize] = Rank::default();
        }
    }

    fn leave(&mut self, rank: Rank) {
        let Rank { class, before, after } = rank;
        match self.ranks.get_mut(before as usize) {
            Some(one) => one.after = after,
            None => self.firsts[class as usize] = after,
        }
        match self.ranks.get_mut(after as usize) {
            Some(one) => one.before = before,
            None if before == NONE => self.used[class as usize / 64] &= !(1 << (class % 64)),
            None => {}
        }
        self.len -= 1;
    }

    fn enter(&mut self, index: u32, class: u32) {
        if self.firsts.is_empty() {
            self.firsts = vec![NONE; CLASSES].into();
        }
        if self.ranks.len() <= index as usize {
            self.ranks.resize(index as usize + 1, Rank::default());
        }
        let after = std::mem::replace(&mut self.firsts[class as usize], index);
        self.ranks[index as usize] = Rank { class, before: NONE, after };
        if let Some(one) = self.ranks.get_mut(after as usize) {
            one.before = index;
        }
        self.used[class as usize / 64] |= 1 << (class % 64);
        self.len += 1;
    }
}

/// The class of a size: its highest bit and the three below it.
fn class_of(size: u64) -> u32 {
    match size {
        0..8 => size as u32,
        _ => {
            let exponent = size.ilog2();
            (exponent - 2) * 8 + ((size >> (exponent - 3)) & 7) as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn classes_ascend_with_size_and_are_an_eighth_wide() {
        let mut last = 0;
        for size in (0..5_000).chain((5..64).flat_map(|bit| {
            let power = 1u64 << bit;
            [power - 1, power, power + power / 8, power + power / 2]
        })) {
            let class = class_of(size);
            assert!(class >= last || size < 5_000, "{size}");
            assert!((class as usize) < CLASSES, "{size}");
            last = class;
        }
        assert_ne!(class_of(1_000), class_of(1_130));
    }

    proptest! {
        #[test]
        fn the_largest_is_within_an_eighth(
            steps in prop::collection::vec((0..12u32, prop_oneof![Just(0), 1..5_000u64]), 1..200),
        ) {
            let mut ranking = Ranking::default();
            let mut sizes = [0u64; 12];
            for (index, size) in steps {
                ranking.set(index, size);
                sizes[index as usize] = size;
                let most = *sizes.iter().max().unwrap();
                let found = ranking.largest().map_or(0, |index| sizes[index as usize]);
                prop_assert!(found <= most && found >= most - most / 8, "{found} of {most}");
                prop_assert_eq!(found == 0, most == 0);
            }
        }
    }
}
