//! Adversaries: the clients that make one attack together, and come again when they are cut.

use com_broker::internal::broker::Profile;

use super::town::{Kind, Town, Who};
use crate::client::Carrier;
use crate::random::Random;

/// An attack: what its clients do in each turn.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// What they do, and how each of them is a part of it.
    pub(super) act: fn(&mut Gang, &mut Town),
}

/// The clients that make an attack.
pub(super) struct Gang {
    pub(super) attack: &'static Attack,
    /// Tells its names from those of others.
    tag: String,
    carrier: Carrier,
    members: Vec<Option<Who>>,
    /// Those whose place another has taken.
    former: Vec<Who>,
    /// Turns since it began.
    pub(super) step: u32,
    pub(super) random: Random,
    /// A number that is never the same.
    last: u32,
}

impl Gang {
    pub(super) fn new(
        attack: &'static Attack,
        number: usize,
        random: Random,
        carrier: Carrier,
    ) -> Self {
        let (tag, members) = (format!("g{number}"), Vec::new());
        Self { attack, tag, carrier, members, former: Vec::new(), step: 0, random, last: 0 }
    }

    pub(super) fn act(&mut self, town: &mut Town) {
        (self.attack.act)(self, town);
        self.step += 1;
    }

    /// Ends all connections, in order or not.
    pub(super) fn leave(&mut self, town: &mut Town) {
        for who in self.members.iter().flatten().chain(&self.former) {
            if self.random.happens(500) && !town.is_waiting(*who) {
                town.leave(*who);
            } else {
                town.reset(*who);
            }
        }
    }

    /// A number that is never the same.
    pub(super) fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// A name that no other gang has.
    pub(super) fn name(&self, name: impl std::fmt::Display) -> String {
        format!("{}-{name}", self.tag)
    }

    /// Whether a member can do more now: it is there, and the broker has read what it sent before. If it was not
    /// there, or is gone, it logs in, and `begin` says what it sends then.
    pub(super) fn ready(
        &mut self,
        town: &mut Town,
        index: usize,
        profile: Profile,
        is_standard: bool,
        begin: impl FnOnce(&mut Self, &mut Town, Who),
    ) -> Option<Who> {
        let login = self.name(index);
        self.ready_as(town, index, &login, profile, is_standard, begin)
    }

    /// As [`Self::ready`], with that login id.
    pub(super) fn ready_as(
        &mut self,
        town: &mut Town,
        index: usize,
        login: &str,
        profile: Profile,
        is_standard: bool,
        begin: impl FnOnce(&mut Self, &mut Town, Who),
    ) -> Option<Who> {
        if let Some(who) = self.member(index).filter(|who| !town.is_gone(*who)) {
            return town.is_read(who).then_some(who);
        }
        let kind = Kind { profile, carrier: self.carrier, is_standard };
        let who = town.join(login, kind, "");
        self.set_member(index, who);
        begin(self, town, who);
        None
    }

    pub(super) fn member(&self, index: usize) -> Option<Who> {
        self.members.get(index).copied().flatten()
    }

    pub(super) fn set_member(&mut self, index: usize, who: Who) {
        if self.members.len() <= index {
            self.members.resize(index + 1, None);
        }
        let former = self.members[index].replace(who);
        self.former.extend(former);
    }

    pub(super) fn replace_carrier(&mut self, carrier: Carrier) -> Carrier {
        std::mem::replace(&mut self.carrier, carrier)
    }

    pub(super) fn carrier(&self) -> Carrier {
        self.carrier
    }
}
