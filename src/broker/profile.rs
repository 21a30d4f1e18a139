//! The four profiles: what they are called, where their clients live, and who may watch whom.

/// What a client is allowed to be, decided by the key it logs in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// A person at a desk.
    Agent,
    /// A supervisor, who shares the agents' address space and may watch them.
    SuperAgent,
    /// A program of the back end, which may watch agents and super agents.
    Service,
    /// Shall control the broker, for which there are no commands yet: it may send and subscribe, and
    /// watch nobody.
    Admin,
}

impl Profile {
    /// All profiles, from the lowest to the highest.
    pub const ALL: [Self; 4] = [Self::Agent, Self::SuperAgent, Self::Service, Self::Admin];

    /// `profile-code` on the wire.
    pub fn code(self) -> &'static str {
        ["1", "2", "3", "4"][self as usize]
    }

    /// `profile-desc` on the wire.
    pub fn description(self) -> &'static str {
        ["agent", "super agent", "service", "admin"][self as usize]
    }

    /// The name of the profile in the configuration and in the environment.
    pub fn key_name(self) -> &'static str {
        ["agent", "super_agent", "service", "admin"][self as usize]
    }

    /// What stands before the login id in a client's destination.
    pub fn destination_prefix(self) -> &'static str {
        const PREFIXES: [&str; 4] = ["/agent/", "/agent/", "/service/", "/admin/"];
        PREFIXES[self as usize]
    }

    /// Whether clients of this profile may watch anyone.
    pub fn watches(self) -> bool {
        matches!(self, Self::SuperAgent | Self::Service)
    }

    /// Whether clients of this profile may watch clients of `target`.
    pub fn may_watch(self, target: Self) -> bool {
        self.watches() && self > target
    }

    /// Whether a second login takes the session over, where the profiles are the same.
    pub fn yields_to_newcomer(self) -> bool {
        matches!(self, Self::Agent | Self::SuperAgent)
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
}
