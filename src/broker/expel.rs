//! Ending all sessions that subscribe by one pattern, so that there is room for another one.
//!
//! The group is closed first: nobody joins it any more, so that it goes with the members that it has, however soon they
//! come back; and it no longer counts.

use super::fault::Fault;
use super::ids::{GroupId, GroupKind, SessionId};
use super::{Broker, Moment};
use crate::work::{self, Progress};

/// Ends the sessions of a group that was closed.
#[derive(Debug)]
pub(super) struct Expel {
    kind: GroupKind,
    group: GroupId,
    /// What they are told.
    fault: Fault,
}

/// Members, and places of groups, that are looked at to find a group whose members pay.
const SOUGHT_MAX: u32 = 2_000;

impl Expel {
    pub(super) fn new(kind: GroupKind, group: GroupId, fault: Fault) -> Self {
        Self { kind, group, fault }
    }

    pub(super) fn advance(&self, broker: &mut Broker, now: Moment) -> Progress {
        while let Some((_, members)) = broker.groups.get(self.kind, self.group) {
            let last = members.len().saturating_sub(1);
            let Some(route) = members.from(last).first().copied() else { break };
            if let Some(session) = broker.sessions.get(route.session) {
                broker.refuse(session.peer, &self.fault, now);
            }
            broker.end_subscription(route.subscription, now);
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
        Progress::Ended
    }
}

impl Broker {
    /// A group of one of the kinds all of whose members have to pay, with few members if there is one. Not all groups
    /// are looked at; the next search begins where this one ends.
    pub(super) fn seek_payers(
        &mut self,
        kinds: &[GroupKind],
        few: usize,
        must_pay: impl Fn(&Self, SessionId) -> bool,
    ) -> Option<(GroupKind, GroupId)> {
        let slots: u32 = kinds.iter().map(|kind| self.groups.slots_len(*kind)).sum();
        let (mut sought, mut best) = (0, None);
        let mut fewest = usize::MAX;
        for _ in 0..slots {
            if sought >= SOUGHT_MAX || fewest <= few {
                break;
            }
            sought += 1;
            self.payers_sought = (self.payers_sought + 1) % slots;
            let Some((kind, id)) = self.groups.open_at(kinds, self.payers_sought) else { continue };
            let Some((_, members)) = self.groups.get(kind, id) else { continue };
            if members.len() >= fewest {
                continue;
            }
            let count = members.iter().take_while(|route| must_pay(self, route.session)).count();
            sought += count as u32;
            if count == members.len() {
                (best, fewest) = (Some((kind, id)), count);
            }
        }
        self.meter.spend(sought / work::LOOKUPS_PER_UNIT);
        best
    }
}
