//! Rights: the destinations that each profile may send and subscribe to.

use super::levels::Levels;
use crate::profile::Profile;

/// The rights of one profile. Watching is not among them: which clients it may watch follows from the
/// profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Destinations that the profile may send to.
    pub send: Vec<Levels>,
    /// Topics and queues that it may subscribe to.
    pub subscribe: Vec<Levels>,
}

impl Rights {
    /// The default rights of a profile: all may send anywhere; agents may subscribe to topics, the others
    /// to topics and queues.
    pub fn standard(profile: Profile) -> Self {
        let subscribe: &[&str] = match profile {
            Profile::Agent => &["/topic/>"],
            _ => &["/topic/>", "/queue/>"],
        };
        let parse =
            |texts: &[&str]| texts.iter().filter_map(|text| Levels::parse(text).ok()).collect();
        Self { send: parse(&[">"]), subscribe: parse(subscribe) }
    }

    /// Whether the profile may send there.
    pub fn may_send(&self, name: &[u8]) -> bool {
        self.send.iter().any(|levels| levels.matches(name))
    }

    /// Whether the profile may subscribe to it. A name with wildcards must be covered literally:
    /// `/topic/*` is covered by `/topic/>` but not by `/topic/a`.
    pub fn may_subscribe(&self, name: &[u8]) -> bool {
        self.subscribe.iter().any(|levels| levels.covers(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_subscribe_to_topics_only_and_everyone_sends_anywhere() {
        let agent = Rights::standard(Profile::Agent);
        assert!(agent.may_subscribe(b"/topic/a") && agent.may_subscribe(b"/topic/>"));
        assert!(!agent.may_subscribe(b"/queue/a"));
        let service = Rights::standard(Profile::Service);
        assert!(service.may_subscribe(b"/queue/a"));
        for profile in Profile::ALL {
            assert!(Rights::standard(profile).may_send(b"/agent/ana"));
        }
    }

    #[test]
    fn a_wildcard_does_not_reach_beyond_what_is_granted() {
        let rights = Rights {
            send: Vec::new(),
            subscribe: vec![
                Levels::parse("/topic/a/*").unwrap(),
                Levels::parse("/topic/b").unwrap(),
            ],
        };
        assert!(rights.may_subscribe(b"/topic/a/x") && rights.may_subscribe(b"/topic/a/*"));
        assert!(!rights.may_subscribe(b"/topic/*"));
        assert!(!rights.may_subscribe(b"/topic/>"));
        assert!(!rights.may_subscribe(b"/topic/a/>"));
        assert!(!rights.may_send(b"/topic/a/x"));
    }
}
