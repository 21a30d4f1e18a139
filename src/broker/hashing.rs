//! The hash of names that clients choose, under a seed that none of them can know.

use std::fmt;
use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// Hashes names under a secret of its own. Names that collide under one secret do not under another, so
/// that nobody can choose names that all collide without knowing it: no hash is ever shown, nor an order
/// that follows from one. `ARCHITECTURE.md` says why this is enough, and what more would cost.
pub(super) struct NameHasher {
    seed: u64,
    shared: SharedSeed,
}

impl NameHasher {
    /// Under a secret of 128 bits.
    pub(super) fn new(secret: u128) -> Self {
        Self { seed: secret as u64, shared: SharedSeed::from_u64((secret >> 64) as u64) }
    }

    /// The hash of a name.
    #[inline]
    pub(super) fn hash(&self, name: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write(name);
        hasher.finish()
    }
}

impl fmt::Debug for NameHasher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("NameHasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECRET: u128 = 0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344;

    const OTHER: u128 = 0x9e37_79b9_7f4a_7c15;

    const LONG: &str = "/topic/a department/a city/a building/a floor/a desk/calls that wait/";

    /// What a table of 4096 places looks at first.
    fn place(hasher: &NameHasher, name: &str) -> u64 {
        hasher.hash(name.as_bytes()) % 4096
    }

    /// How many places names take under a secret.
    fn places(names: &[String], secret: u128) -> usize {
        let hasher = NameHasher::new(secret);
        names.iter().map(|name| place(&hasher, name)).collect::<BTreeSet<_>>().len()
    }

    #[test]
    fn names_that_collide_under_one_secret_spread_under_another() {
        let known = NameHasher::new(SECRET);
        // Of 9, 16 and 24 bytes and more: names are hashed in another way by their length.
        for beginning in ["/topic/", "/topic/calls/", "/topic/desk/calls/", LONG] {
            let mut names = (0..).map(|number| format!("{beginning}{number:x}"));
            let first = names.next().unwrap();
            let wanted = place(&known, &first);
            let built: Vec<_> =
                names.filter(|name| place(&known, name) == wanted).take(40).collect();
            assert_eq!(places(&built, SECRET), 1);
            // Either half of the secret is enough.
            for other in [SECRET ^ OTHER, SECRET ^ OTHER << 64, !SECRET, OTHER] {
                let spread = places(&built, other);
                assert!(spread > 35, "{beginning} under {other:x}: {spread}");
            }
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", NameHasher::new(SECRET)), "NameHasher(..)");
    }
}
