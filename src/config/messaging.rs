//! `[rights]`, `[stomp]` and `[queues]`: the rights of profiles, and settings of the standard dialect.

use serde::Deserialize;

use super::fault::{ConfigFault, Offence};
use super::source::Source;
use crate::broker::Rights;
use crate::broker::levels::Levels;
use crate::broker::space::Space;
use crate::limits::Limits;
use crate::profile::{ByProfile, Profile};

/// `[rights]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RightsSection {
    agent: RightsOfProfile,
    super_agent: RightsOfProfile,
    service: RightsOfProfile,
    admin: RightsOfProfile,
}

/// `[rights.agent]` and those of other profiles; what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RightsOfProfile {
    pub(super) send: Option<Vec<String>>,
    pub(super) subscribe: Option<Vec<String>>,
}

/// `[stomp]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StompSection {
    /// The hosts that CONNECT may name.
    pub virtual_hosts: Option<Vec<String>>,
}

/// `[queues]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueuesSection {
    /// The queue that takes messages which were refused too often.
    pub dead_letter_queue: Option<String>,
}

impl RightsSection {
    pub(super) fn of_profile_mut(&mut self, profile: Profile) -> &mut RightsOfProfile {
        match profile {
            Profile::Agent => &mut self.agent,
            Profile::SuperAgent => &mut self.super_agent,
            Profile::Service => &mut self.service,
            Profile::Admin => &mut self.admin,
        }
    }

    /// The rights of each profile.
    pub(super) fn resolve(&self, source: &Source<'_>) -> Result<ByProfile<Rights>, ConfigFault> {
        let mut rights = ByProfile::from_fn(Rights::standard);
        let sections = ByProfile::new([&self.agent, &self.super_agent, &self.service, &self.admin]);
        for (profile, section) in sections.iter() {
            let key = |name| format!("rights.{}.{name}", profile.key_name());
            if let Some(names) = &section.send {
                rights[profile].send = parse(names, &key("send"), source, send_offence)?;
            }
            if let Some(names) = &section.subscribe {
                rights[profile].subscribe =
                    parse(names, &key("subscribe"), source, subscribe_offence)?;
            }
        }
        Ok(rights)
    }
}

impl StompSection {
    pub(super) fn resolve(&self, source: &Source<'_>) -> Result<Vec<String>, ConfigFault> {
        let hosts = self.virtual_hosts.clone().unwrap_or_default();
        let is_none = |host: &String| {
            host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        match hosts.iter().position(is_none) {
            Some(index) => {
                Err(source.fault(&format!("stomp.virtual_hosts[{index}]"), Offence::NotAHost))
            }
            None => Ok(hosts),
        }
    }
}

impl QueuesSection {
    /// The dead letter queue, whose messages a client has to be able to consume.
    pub(super) fn resolve(
        &self,
        source: &Source<'_>,
        limits: &Limits,
        rights: &ByProfile<Rights>,
    ) -> Result<Option<String>, ConfigFault> {
        let Some(name) = &self.dead_letter_queue else { return Ok(None) };
        let max = limits.destination_bytes_max;
        let offence = if !Space::is_one_queue(name.as_bytes()) {
            Offence::NotAQueue
        } else if name.len() > max as usize {
            Offence::QueueTooLong(max)
        } else if !rights.iter().any(|(_, rights)| rights.may_subscribe(name.as_bytes())) {
            Offence::QueueOfNobody
        } else {
            return Ok(Some(name.clone()));
        };
        Err(source.fault("queues.dead_letter_queue", offence))
    }
}

/// Makes the offence of a pattern.
type OfPattern = fn(String) -> Offence;

/// Why a profile cannot send to what a pattern stands for.
fn send_offence(pattern: &Levels) -> Option<OfPattern> {
    (!Space::holds_some(pattern)).then_some(Offence::StandsForNothing as OfPattern)
}

/// Why a profile cannot subscribe to what a pattern stands for by its own right.
fn subscribe_offence(pattern: &Levels) -> Option<OfPattern> {
    let is_none: OfPattern = match Space::holds_some(pattern) {
        true => Offence::StandsForNoTopic,
        false => Offence::StandsForNothing,
    };
    (!Space::holds_topics_or_queues(pattern)).then_some(is_none)
}

fn parse(
    names: &[String],
    key: &str,
    source: &Source<'_>,
    offence_of: fn(&Levels) -> Option<OfPattern>,
) -> Result<Vec<Levels>, ConfigFault> {
    let parse = |text: &String| match Levels::parse(text) {
        Ok(levels) => match offence_of(&levels) {
            Some(offence) => Err(source.fault(key, offence(text.clone()))),
            None => Ok(levels),
        },
        Err(why) => Err(source.fault(key, Offence::NotAPattern(text.clone(), why))),
    };
    names.iter().map(parse).collect()
}
