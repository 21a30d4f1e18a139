//! The hash of names that clients choose, keyed with a secret.

use std::fmt;
use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// Hashes names with a secret. Names that collide under one secret do not collide under another, and clients
/// see neither a hash nor an order that follows from hashes. `ARCHITECTURE.md` says why this is enough and
/// what a cryptographic hash would cost.
#[derive(Clone)]
pub(crate) struct NameHasher {
    seed: u64,
    shared: SharedSeed,
}

impl NameHasher {
    /// A hasher with a secret of 128 bits.
    pub(crate) fn new(secret: u128) -> Self {
        Self { seed: secret as u64, shared: SharedSeed::from_u64((secret >> 64) as u64) }
    }

    /// The hash of a name.
    #[inline]
    pub(crate) fn hash(&self, name: &[u8]) -> u64 {
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

    /// The bucket of a name in a table of 4096 buckets.
    fn bucket(hasher: &NameHasher, name: &str) -> u64 {
        hasher.hash(name.as_bytes()) % 4096
    }

    /// The number of buckets that hold the names.
    fn buckets(names: &[String], secret: u128) -> usize {
        let hasher = NameHasher::new(secret);
        names.iter().map(|name| bucket(&hasher, name)).collect::<BTreeSet<_>>().len()
    }

    #[test]
    fn names_that_collide_with_one_secret_spread_with_another() {
        let known = NameHasher::new(SECRET);
        // Names of up to 16 bytes are hashed in another way than longer ones.
        for beginning in ["/topic/", "/topic/calls/", "/topic/desk/calls/", LONG] {
            let mut names = (0..).map(|number| format!("{beginning}{number:x}"));
            let first = names.next().unwrap();
            let wanted = bucket(&known, &first);
            let built: Vec<_> =
                names.filter(|name| bucket(&known, name) == wanted).take(40).collect();
            assert_eq!(buckets(&built, SECRET), 1);
            // Either half of the secret is enough.
            for other in [SECRET ^ OTHER, SECRET ^ OTHER << 64, !SECRET, OTHER] {
                let spread = buckets(&built, other);
                assert!(spread > 35, "{beginning} with {other:x}: {spread}");
            }
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", NameHasher::new(SECRET)), "NameHasher(..)");
    }
}
