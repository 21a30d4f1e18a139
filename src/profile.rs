//! The four profiles: their names, the addresses of their clients, and which of them may watch which; and
//! values by profile.

use std::ops::{Index, IndexMut};

/// The role of a client, which follows from the key that it logs in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// A person at a desk.
    Agent,
    /// A supervisor, who shares the agents' address space and may watch them.
    SuperAgent,
    /// A program of the back end, which may watch agents and super agents.
    Service,
    /// Reserved for the control of the broker, for which there are no commands yet. It may send and
    /// subscribe, but not watch.
    Admin,
}

impl Profile {
    /// All profiles, from the lowest to the highest.
    pub const ALL: [Self; 4] = [Self::Agent, Self::SuperAgent, Self::Service, Self::Admin];

    /// `profile-code` on the wire.
    pub fn code(self) -> &'static str {
        self.words().0
    }

    /// `profile-desc` on the wire.
    pub fn description(self) -> &'static str {
        self.words().1
    }

    /// The name of the profile in the configuration and in the environment.
    pub fn key_name(self) -> &'static str {
        self.words().2
    }

    /// Code, description, and name of the key.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Agent => ("1", "agent", "agent"),
            Self::SuperAgent => ("2", "super agent", "super_agent"),
            Self::Service => ("3", "service", "service"),
            Self::Admin => ("4", "admin", "admin"),
        }
    }

    /// The prefix of a client's address, before the login id.
    pub fn destination_prefix(self) -> &'static str {
        match self {
            Self::Agent | Self::SuperAgent => "/agent/",
            Self::Service => "/service/",
            Self::Admin => "/admin/",
        }
    }

    /// The address of a client with that login id.
    pub(crate) fn address_of(self, login: &[u8]) -> Vec<u8> {
        [self.destination_prefix().as_bytes(), login].concat()
    }

    /// Whether clients of this profile may watch anyone.
    pub fn watches(self) -> bool {
        matches!(self, Self::SuperAgent | Self::Service)
    }

    /// Whether clients of this profile may watch clients of `target`.
    pub fn may_watch(self, target: Self) -> bool {
        self.watches() && self > target
    }

    /// Whether a second login under the same profile takes the session over.
    pub fn yields_to_newcomer(self) -> bool {
        matches!(self, Self::Agent | Self::SuperAgent)
    }
}

/// One value for each profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByProfile<T>([T; Profile::ALL.len()]);

impl<T> ByProfile<T> {
    /// Takes the values in the order of [`Profile::ALL`].
    pub const fn new(in_order: [T; Profile::ALL.len()]) -> Self {
        Self(in_order)
    }

    /// The same value for every profile.
    pub fn all(value: T) -> Self
    where
        T: Clone,
    {
        Self::from_fn(|_| value.clone())
    }

    /// The values that `make` returns for each profile.
    pub fn from_fn(make: impl FnMut(Profile) -> T) -> Self {
        Self(Profile::ALL.map(make))
    }

    /// Applies `change` to each value.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> ByProfile<U> {
        ByProfile(self.0.map(change))
    }

    /// Each profile with its value, from the lowest profile to the highest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Profile, &T)> {
        Profile::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Profile> for ByProfile<T> {
    type Output = T;

    #[inline]
    fn index(&self, profile: Profile) -> &T {
        &self.0[profile as usize]
    }
}

impl<T> IndexMut<Profile> for ByProfile<T> {
    #[inline]
    fn index_mut(&mut self, profile: Profile) -> &mut T {
        &mut self.0[profile as usize]
    }
}

impl<T> From<[T; Profile::ALL.len()]> for ByProfile<T> {
    /// In the order of [`Profile::ALL`].
    fn from(in_order: [T; Profile::ALL.len()]) -> Self {
        Self(in_order)
    }
}

#[cfg(test)]
mod tests {
    use super::Profile::{Admin, Agent, Service, SuperAgent};
    use super::*;

    #[test]
    fn a_watcher_is_higher_than_the_watched_and_neither_agent_nor_admin() {
        let allowed: Vec<_> = Profile::ALL
            .iter()
            .flat_map(|watcher| Profile::ALL.iter().map(move |target| (*watcher, *target)))
            .filter(|(watcher, target)| watcher.may_watch(*target))
            .collect();
        assert_eq!(allowed, [(SuperAgent, Agent), (Service, Agent), (Service, SuperAgent)]);
        assert!(!Admin.watches());
    }

    #[test]
    fn a_value_is_found_under_its_profile() {
        let mut names = ByProfile::from_fn(Profile::key_name);
        for (profile, name) in names.iter() {
            assert_eq!((*name, names[profile]), (profile.key_name(), profile.key_name()));
        }
        assert_eq!(names, ByProfile::new(["agent", "super_agent", "service", "admin"]));
        names[Service] = "other";
        assert_eq!(names.map(str::len)[Service], 5);
        assert_eq!(ByProfile::all(1), [1; 4].into());
    }
}
