//! What topics remember of the groups that select them: how much that is, and which topic has done so for longest. The
//! groups themselves are with the topics.

use std::collections::BTreeMap;

use super::ids::{DestinationId, GroupId};
use crate::buffer::ALLOCATION_BYTES;
use crate::limits::WILDCARDS_REMEMBERED_BYTES_MAX;

/// Topics that remember groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// By the time at which these were looked up.
    topics: BTreeMap<u64, DestinationId>,
    /// Memory of what they remember.
    bytes: u64,
}

impl Remembered {
    /// Notes that a topic remembers groups, which were looked up at that time.
    pub(crate) fn add(&mut self, at: u64, id: DestinationId, groups: &[GroupId]) {
        if !groups.is_empty() {
            self.topics.insert(at, id);
            self.bytes += cost_of(groups);
        }
    }

    /// Notes that a topic has forgotten them.
    pub(crate) fn remove(&mut self, at: u64, groups: &[GroupId]) {
        if !groups.is_empty() {
            self.topics.remove(&at);
            self.bytes -= cost_of(groups);
        }
    }

    /// The topic that has to forget its groups before others are added, after `forgotten` have: the one whose were
    /// looked up first, if there is no room; or if they are outdated, for what is outdated gets less while topics are
    /// used if more than one goes for each that comes.
    pub(crate) fn first_to_forget(
        &self,
        groups: &[GroupId],
        since: u64,
        forgotten: u32,
    ) -> Option<DestinationId> {
        let (at, id) = self.topics.first_key_value()?;
        let is_full = self.bytes + cost_of(groups) > WILDCARDS_REMEMBERED_BYTES_MAX;
        (is_full || forgotten < OUTDATED_FORGOTTEN && *at <= since).then_some(*id)
    }

    /// Memory of what topics remember.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Memory of the groups that a topic remembers, with its place in the order.
fn cost_of(groups: &[GroupId]) -> u64 {
    let place = 2 * size_of::<(u64, DestinationId)>();
    (size_of_val(groups) + ALLOCATION_BYTES + place) as u64
}

/// Topics whose outdated groups are forgotten when those of another one are looked up.
const OUTDATED_FORGOTTEN: u32 = 2;
