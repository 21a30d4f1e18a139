//! Subscriptions: who wants copies of what, and the patterns by which they ask.

use std::collections::VecDeque;

use regex::bytes::{Regex, RegexBuilder};

use super::fault::{Code, Fault};
use super::ids::{DestinationId, SessionId, SubscriptionIndex};
use super::levels::Levels;
use super::message::Stored;
use super::space::Space;
use super::table::Table;
use crate::limits::{Exceeded, Limits};

/// A session's standing wish.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Whose.
    pub session: SessionId,
    /// For what.
    pub target: Target,
    /// What the standard dialect adds.
    pub standard: Option<Box<Standard>>,
}

/// What a subscription of the standard dialect has more.
#[derive(Debug)]
pub(crate) struct Standard {
    /// Its id, as the client wrote it; none, where a client of 1.0 gave none.
    pub id: Option<Box<[u8]>>,
    /// How its messages are acknowledged.
    pub mode: AckMode,
    /// How many messages of queues may be unacknowledged.
    pub prefetch: u32,
    /// Messages of a queue that are not acknowledged yet, in the order of delivery.
    pub unacknowledged: VecDeque<Box<Stored>>,
    /// Whether an earlier connection of the session made it: then a SUBSCRIBE for the same replaces
    /// it.
    pub is_inherited: bool,
}

/// STOMP 1.2, "SUBSCRIBE ack Header".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckMode {
    /// A message is consumed when it is sent.
    Auto,
    /// An ACK acknowledges all messages up to its own.
    Client,
    /// An ACK acknowledges its own message.
    ClientIndividual,
}

/// What a subscription is for.
#[derive(Debug)]
pub(crate) enum Target {
    /// Copies of what one client gets.
    Client(DestinationId),
    /// Copies of what every client gets whose destination matches.
    Clients(Pattern),
    /// Events of every client whose destination matches.
    Presence(Pattern),
    /// What is sent to the client's own address.
    Own(DestinationId),
    /// What is sent to a topic.
    Topic(DestinationId),
    /// What is sent to every topic that the pattern stands for.
    Topics(Levels),
    /// What is sent to a queue, in turn with its other consumers.
    Queue(DestinationId),
}

impl Default for Subscription {
    /// Nobody's, for nothing.
    fn default() -> Self {
        let target = Target::Own(DestinationId::default());
        Self { session: SessionId::default(), target, standard: None }
    }
}

impl Target {
    /// The one destination that the subscription is for, if it is one.
    pub(crate) fn destination(&self) -> Option<DestinationId> {
        match self {
            Self::Client(id) | Self::Own(id) | Self::Topic(id) | Self::Queue(id) => Some(*id),
            Self::Clients(_) | Self::Presence(_) | Self::Topics(_) => None,
        }
    }

    /// Whether the subscription keeps its destination in being.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self, Self::Client(_) | Self::Topic(_))
    }

    /// Whether the subscription, one by pattern, selects a name.
    pub(crate) fn selects(&self, name: &[u8]) -> bool {
        match self {
            Self::Clients(pattern) => Space::of(name) == Space::Client && pattern.matches(name),
            Self::Topics(levels) => Space::of(name) == Space::Topic && levels.matches(name),
            Self::Client(_)
            | Self::Own(_)
            | Self::Topic(_)
            | Self::Queue(_)
            | Self::Presence(_) => false,
        }
    }
}

/// A regular expression that matches destinations as a whole.
#[derive(Debug)]
pub(crate) struct Pattern {
    text: Box<[u8]>,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern within the bounds that make it safe to take from a stranger.
    ///
    /// # Errors
    /// `INVALID_REGEX` where it is none, `LIMIT_EXCEEDED` where it is too long or compiles to too
    /// much.
    pub(crate) fn compile(text: &[u8], limits: &Limits) -> Result<Self, Fault> {
        if text.len() > limits.pattern_bytes_max as usize {
            let max = u64::from(limits.pattern_bytes_max);
            return Err(Fault::exceeded(Exceeded { limit: "pattern_bytes_max", max }));
        }
        let invalid = |why: &str| {
            let description = format!("the regular expression is invalid: {why}");
            Fault::staying(Code::InvalidRegex, description)
        };
        let source = std::str::from_utf8(text).map_err(|_| invalid("it is not UTF-8"))?;
        // Letters outside ASCII in a class have no meaning among bytes.
        let regex = build(source, false, limits).or_else(|on_bytes| {
            if matches!(on_bytes, regex::Error::CompiledTooBig(_)) {
                return Err(on_bytes);
            }
            build(source, true, limits).map_err(|on_letters| match on_letters {
                regex::Error::CompiledTooBig(_) => on_letters,
                _ => on_bytes,
            })
        });
        match regex {
            Ok(regex) => Ok(Self { text: text.into(), regex }),
            Err(regex::Error::CompiledTooBig(_)) => {
                let max = u64::from(limits.pattern_compiled_bytes_max);
                Err(Fault::exceeded(Exceeded { limit: "pattern_compiled_bytes_max", max }))
            }
            Err(error) => Err(invalid(last_line(&error.to_string()))),
        }
    }

    /// Whether it matches the whole of a destination's name.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        self.regex.is_match(name)
    }

    /// The pattern as the client wrote it.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }
}

/// All subscriptions, and those among them that name no single destination.
#[derive(Debug, Default)]
pub(crate) struct SubscriptionTable {
    table: Table<SubscriptionIndex, Subscription>,
    patterns: Vec<SubscriptionIndex>,
    /// How many of `patterns` are on topics.
    wildcards_len: usize,
    presence: Vec<SubscriptionIndex>,
}

impl SubscriptionTable {
    /// Takes a subscription in.
    pub(crate) fn insert(&mut self, subscription: Subscription) -> SubscriptionIndex {
        let index = self.table.next_key();
        match subscription.target {
            Target::Clients(_) | Target::Topics(_) => self.patterns.push(index),
            Target::Presence(_) => self.presence.push(index),
            _ => {}
        }
        self.wildcards_len += usize::from(matches!(subscription.target, Target::Topics(_)));
        self.table.insert(subscription);
        index
    }

    /// Ends a subscription.
    pub(crate) fn remove(&mut self, index: SubscriptionIndex) -> Option<Subscription> {
        let subscription = self.table.remove(index)?;
        match subscription.target {
            Target::Clients(_) | Target::Topics(_) => self.patterns.retain(|other| *other != index),
            Target::Presence(_) => self.presence.retain(|other| *other != index),
            _ => {}
        }
        self.wildcards_len -= usize::from(matches!(subscription.target, Target::Topics(_)));
        Some(subscription)
    }

    /// The subscriptions by pattern that select `name`.
    pub(crate) fn matching(&self, name: &[u8]) -> Vec<SubscriptionIndex> {
        let selects = |index: &&SubscriptionIndex| self[**index].target.selects(name);
        self.patterns.iter().filter(selects).copied().collect()
    }

    /// The subscriptions to presence.
    pub(crate) fn presence(&self) -> &[SubscriptionIndex] {
        &self.presence
    }

    /// The number of regular expressions that are held.
    pub(crate) fn patterns_len(&self) -> usize {
        self.patterns.len() - self.wildcards_len + self.presence.len()
    }

    /// The number of topics with wildcards that are held.
    pub(crate) fn wildcards_len(&self) -> usize {
        self.wildcards_len
    }

    /// A subscription that may have ended.
    pub(crate) fn get(&self, index: SubscriptionIndex) -> Option<&Subscription> {
        self.table.get(index)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, index: SubscriptionIndex) -> Option<&mut Subscription> {
        self.table.get_mut(index)
    }

    /// Whether a subscription exists or has existed.
    pub(crate) fn has_issued(&self, index: SubscriptionIndex) -> bool {
        self.table.has_issued(index)
    }

    /// The number of subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl std::ops::Index<SubscriptionIndex> for SubscriptionTable {
    type Output = Subscription;

    fn index(&self, index: SubscriptionIndex) -> &Subscription {
        &self.table[index]
    }
}

impl std::ops::IndexMut<SubscriptionIndex> for SubscriptionTable {
    fn index_mut(&mut self, index: SubscriptionIndex) -> &mut Subscription {
        &mut self.table[index]
    }
}

/// How deep groups may nest in a pattern.
const NEST_MAX: u32 = 32;

/// Builds what matches a whole name, by bytes or by letters.
fn build(source: &str, by_letters: bool, limits: &Limits) -> Result<Regex, regex::Error> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .unicode(by_letters)
            .size_limit(limits.pattern_compiled_bytes_max as usize)
            .dfa_size_limit(limits.pattern_compiled_bytes_max as usize)
            .nest_limit(NEST_MAX)
            .build()
    };
    // The pattern must be valid by itself, or `a)|(b` would become valid by our anchors.
    build(source)?;
    build(&format!(r"\A(?:{source})\z"))
}

/// The regex crate draws the pattern and points at the place; the last line says what is wrong.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Pattern, Code> {
        Pattern::compile(text.as_bytes(), &Limits::default()).map_err(|fault| fault.code)
    }

    #[test]
    fn a_pattern_matches_destinations_as_a_whole() {
        let cases = [
            ("ana", false),
            ("/agent/a", false),
            (".*", true),
            ("^/agent/ana$", true),
            (r"^\/agent\/\w+$", true),
            ("/agent/ana|/agent/42", true),
            ("/x|/agent/ana", true),
            ("/agent|ana", false),
            ("/AGENT/ANA", false),
            ("/agent/[[:alpha:]]+", true),
            ("/agent/.+?", true),
        ];
        for (text, expected) in cases {
            assert_eq!(compile(text).unwrap().matches(b"/agent/ana"), expected, "{text}");
        }
        assert!(!compile("/agent/.").unwrap().matches("/agent/ñ".as_bytes()), "bytes, not letters");
        assert!(compile("/agent/..").unwrap().matches("/agent/ñ".as_bytes()));
        for text in ["/agent/Pe[nñ]a", r"/agent/\p{Lu}.ña", "/agent/P[^x]ñ."] {
            assert!(compile(text).unwrap().matches("/agent/Peña".as_bytes()), "{text}");
            assert!(!compile(text).unwrap().matches("/agent/Pexa".as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_much_of_one_is_refused() {
        for text in ["[", "a(b", "(?!ana).*", r"(.)n\1", "a)|(b", "*"] {
            assert_eq!(compile(text).unwrap_err(), Code::InvalidRegex, "{text}");
        }
        let nested = format!("{}{}", "(".repeat(40), ")".repeat(40));
        assert_eq!(compile(&nested).unwrap_err(), Code::InvalidRegex);
        assert_eq!(compile("(a{500}){500}").unwrap_err(), Code::LimitExceeded);
        assert_eq!(compile(&"a".repeat(2000)).unwrap_err(), Code::LimitExceeded);
    }

    #[test]
    fn an_invalid_pattern_is_explained_in_one_line() {
        let fault = Pattern::compile(b"[", &Limits::default()).unwrap_err();
        assert_eq!(
            fault.description,
            "the regular expression is invalid: unclosed character class"
        );
    }
}
