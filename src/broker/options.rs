//! The options of a broker.

use std::fmt;

use super::keys::Keys;
use super::rights::Rights;
use crate::limits::Limits;
use crate::profile::ByProfile;

/// The options of a broker.
pub struct Options {
    /// The limits.
    pub limits: Limits,
    /// The keys that clients log in with.
    pub keys: Keys,
    /// What each profile may send and subscribe to.
    pub rights: ByProfile<Rights>,
    /// The hosts that a standard CONNECT may name; if empty, any.
    pub virtual_hosts: Vec<String>,
    /// The queue for messages that come back after `deliveries_max` deliveries.
    pub dead_letter_queue: Option<String>,
    /// A source of 128 random bits, for session ids and the secret of hashes.
    pub entropy: Box<dyn FnMut() -> u128>,
}

impl Options {
    /// These limits and keys, and defaults for the rest.
    pub fn new(limits: Limits, keys: Keys, entropy: Box<dyn FnMut() -> u128>) -> Self {
        Self {
            limits,
            keys,
            rights: ByProfile::from_fn(Rights::standard),
            virtual_hosts: Vec::new(),
            dead_letter_queue: None,
            entropy,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Options").field("limits", &self.limits).finish_non_exhaustive()
    }
}
