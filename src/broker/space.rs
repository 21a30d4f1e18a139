//! Spaces: the kinds of destinations, which names begin with.

use super::levels::Levels;
use crate::stomp::lookalike;

/// The kind of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// The address of a client.
    Client,
    /// A topic: each subscriber gets each message.
    Topic,
    /// A queue: one subscriber gets each message.
    Queue,
    /// The broker itself.
    Broker,
    /// A name that no destination can have.
    Unknown,
}

impl Space {
    /// The space of a name.
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Self {
        match Self::prefix_len(name) {
            Some((space, prefix)) if name.len() > prefix => space,
            None if name == Self::BROKER => Self::Broker,
            _ => Self::Unknown,
        }
    }

    /// Whether a name is a valid name of a single queue.
    pub(crate) fn is_one_queue(name: &[u8]) -> bool {
        let is_plain = lookalike::check(name).is_ok() && !Levels::is_pattern(name);
        Self::of(name) == Self::Queue && is_plain
    }

    /// The space that a name begins with, and the length of its prefix.
    fn prefix_len(name: &[u8]) -> Option<(Self, usize)> {
        let found = Self::PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
        found.map(|(prefix, space)| (*space, prefix.len()))
    }

    /// The broker's name, as a destination and as a sender.
    pub(crate) const BROKER: &[u8] = b"STOMP-SERVER";

    /// The destination of presence events.
    pub(crate) const PRESENCE: &[u8] = b"/broker/presence";

    const PREFIXES: [(&[u8], Self); 6] = [
        (b"/agent/", Self::Client),
        (b"/topic/", Self::Topic),
        (b"/queue/", Self::Queue),
        (b"/service/", Self::Client),
        (b"/admin/", Self::Client),
        (b"/broker/", Self::Broker),
    ];

    /// Whether a pattern matches a name that a destination can have.
    pub(crate) fn holds_some(pattern: &Levels) -> bool {
        Self::PREFIXES.iter().any(|(prefix, _)| Self::is_below(pattern, prefix))
    }

    /// Whether a pattern matches a name that a topic or a queue can have.
    pub(crate) fn holds_topics_or_queues(pattern: &Levels) -> bool {
        let mut prefixes = Self::PREFIXES.iter();
        prefixes.any(|(prefix, space)| {
            matches!(space, Self::Topic | Self::Queue) && Self::is_below(pattern, prefix)
        })
    }

    fn is_below(pattern: &Levels, prefix: &[u8]) -> bool {
        pattern.reaches_below(&prefix[..prefix.len() - 1])
    }

    /// Why a name is in no space, for an ERROR.
    pub(crate) fn why_unknown(name: &[u8]) -> &'static str {
        match Self::prefix_len(name) {
            Some((Self::Broker, _)) => "the broker's own is /broker/presence, or STOMP-SERVER",
            Some(_) => "nothing follows the name of its space",
            None => "names begin with /agent/, /service/ or /admin/ (clients), /topic/ or /queue/",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_the_space_that_it_begins_with_or_in_none() {
        let cases = [
            ("/agent/ana", Space::Client),
            ("/service/a/b", Space::Client),
            ("/admin/a", Space::Client),
            ("/topic/a", Space::Topic),
            ("/queue/a", Space::Queue),
            ("/broker/presence", Space::Broker),
            ("STOMP-SERVER", Space::Broker),
            ("/topics/news", Space::Unknown),
            ("/topic", Space::Unknown),
            ("/topic/", Space::Unknown),
            ("/agent/", Space::Unknown),
            ("/broker/", Space::Unknown),
            ("/AGENT/ana", Space::Unknown),
            (" /topic/a", Space::Unknown),
            ("topic/a", Space::Unknown),
            ("ana", Space::Unknown),
            ("/", Space::Unknown),
            ("", Space::Unknown),
        ];
        for (name, space) in cases {
            assert_eq!(Space::of(name.as_bytes()), space, "{name}");
        }
        for name in ["/topic/a", "/queue/", "/queue/a ", "/queue/>", "/queue/#", "/queue/a\u{feff}"]
        {
            assert!(!Space::is_one_queue(name.as_bytes()), "{name}");
        }
        assert!(Space::is_one_queue(b"/queue/dead letters"));
    }
}
