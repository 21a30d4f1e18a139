//! What a broker is made of.

use std::fmt;

use super::keys::Keys;
use super::rights::Rights;
use crate::limits::Limits;
use crate::profile::ByProfile;

/// What a broker is made of.
pub struct Options {
    /// Its bounds.
    pub limits: Limits,
    /// Its secrets.
    pub keys: Keys,
    /// What each profile may send and subscribe to.
    pub rights: ByProfile<Rights>,
    /// The hosts that a standard CONNECT may name; any, if there are none.
    pub virtual_hosts: Vec<String>,
    /// The queue that takes messages which were delivered too often.
    pub dead_letter_queue: Option<String>,
    /// Where session ids come from: 128 bits that nobody can guess, anew at each call.
    pub entropy: Box<dyn FnMut() -> u128>,
}

impl Options {
    /// A broker with these bounds and secrets, and defaults for the rest.
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
