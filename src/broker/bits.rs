//! Sets of small numbers.

use smallvec::SmallVec;

/// A set of small numbers, one bit each. Numbers below 128 need no memory of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BitSet {
    /// The last word is not zero.
    words: SmallVec<[u64; 2]>,
}

impl BitSet {
    /// Whether the set is empty.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Memory of its own.
    pub(crate) fn bytes(&self) -> usize {
        if self.words.spilled() { self.words.capacity() * size_of::<u64>() } else { 0 }
    }

    /// Whether the set has a number.
    pub(crate) fn has(&self, number: u32) -> bool {
        let (word, bit) = place_of(number);
        self.words.get(word).is_some_and(|held| held & bit != 0)
    }

    /// Adds or removes a number. Returns whether the set had it.
    pub(crate) fn set(&mut self, number: u32, is_in: bool) -> bool {
        let (word, bit) = place_of(number);
        if word >= self.words.len() {
            if !is_in {
                return false;
            }
            self.words.resize(word + 1, 0);
        }
        let held = &mut self.words[word];
        let had = *held & bit != 0;
        *held = if is_in { *held | bit } else { *held & !bit };
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
        had
    }

    /// The numbers, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let first = index as u32 * u64::BITS;
            let next = |rest: &u64| Some(rest & (rest - 1)).filter(|rest| *rest != 0);
            let from = Some(*word).filter(|word| *word != 0);
            std::iter::successors(from, next).map(move |rest| first + rest.trailing_zeros())
        })
    }
}

fn place_of(number: u32) -> (usize, u64) {
    ((number / u64::BITS) as usize, 1 << (number % u64::BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_has_the_numbers_that_were_added_and_not_removed(
            steps in prop::collection::vec((0..300_u32, any::<bool>()), 0..100),
        ) {
            let mut bits = BitSet::default();
            let mut model = BTreeSet::new();
            for (number, is_in) in steps {
                let had = if is_in { !model.insert(number) } else { model.remove(&number) };
                prop_assert_eq!(bits.has(number), had);
                prop_assert_eq!(bits.set(number, is_in), had);
                prop_assert_eq!(bits.has(number), is_in);
                prop_assert!(bits.iter().eq(model.iter().copied()));
                prop_assert_eq!(bits.is_empty(), model.is_empty());
            }
        }
    }
}
