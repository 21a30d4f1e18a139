//! Wildcards on the levels of a name: `*` stands for one level, `>` at the end for all that follow.
//!
//! Levels are separated by `/` or `.`, which mean the same.

use crate::buffer::{ALLOCATION_BYTES, allocated_bytes};

/// A name with or without wildcards, split into levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    text: Box<str>,
    parts: Box<[Part]>,
}

/// A level of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A level with this name.
    Literal(Box<[u8]>),
    /// `*`: any one level.
    One,
    /// `>`: one level or more.
    Rest,
}

impl Levels {
    /// Parses a name.
    ///
    /// # Errors
    /// `>` stands before the end, a level is empty, or a level is a wildcard of another broker.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let names: Vec<_> = split(text.as_bytes()).collect();
        let last = names.len() - 1;
        let mut parts = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            parts.push(match name {
                b"*" => Part::One,
                b">" if index == last => Part::Rest,
                b">" => return Err("> may only stand at the end"),
                foreign if is_foreign(foreign) => {
                    return Err("#, ** and + are no wildcards here: * stands for one level, \
                                > at the end for all that follow");
                }
                b"" if index > 0 => return Err("a level is empty"),
                literal => Part::Literal(literal.into()),
            });
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }

    /// The number of levels of a name.
    pub(super) fn count(text: &str) -> usize {
        split(text.as_bytes()).count()
    }

    /// Whether a name has wildcards, those of other brokers included.
    pub fn is_pattern(name: &[u8]) -> bool {
        split(name).any(|level| matches!(level, b"*" | b">") || is_foreign(level))
    }

    /// Whether the pattern matches `name`.
    pub fn matches(&self, name: &[u8]) -> bool {
        if matches!(&*self.parts, [Part::Rest]) {
            return true;
        }
        let mut levels = split(name);
        for part in &self.parts {
            let level = levels.next();
            match (part, level) {
                (Part::Rest, Some(_)) => return true,
                (Part::One, Some(_)) => {}
                (Part::Literal(literal), Some(level)) if **literal == *level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether the pattern matches every name that `other`, a name or a pattern, matches.
    pub fn covers(&self, other: &[u8]) -> bool {
        // `*` does not cover `>`; every other level of `other` is matched literally.
        let one_covers_rest = self
            .parts
            .iter()
            .zip(split(other))
            .any(|(part, level)| *part == Part::One && level == b">");
        !one_covers_rest && self.matches(other)
    }

    /// Whether the pattern can match a name that has further levels after those of `beginning`.
    pub fn reaches_below(&self, beginning: &[u8]) -> bool {
        let mut parts = self.parts.iter();
        for level in split(beginning) {
            match parts.next() {
                Some(Part::Rest) => return true,
                Some(Part::One) => {}
                Some(Part::Literal(literal)) if **literal == *level => {}
                _ => return false,
            }
        }
        parts.next().is_some()
    }

    /// The levels of the pattern: one at least, and `Rest` only as the last one.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Its memory, about: the text, and each level by itself.
    pub(super) fn bytes(&self) -> usize {
        let each = size_of::<Part>() + 2 * ALLOCATION_BYTES;
        allocated_bytes(self.text.as_bytes()) + self.text.len() + self.parts.len() * each
    }

    /// The number of levels.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Wildcards of AMQP, of MQTT, and of paths.
fn is_foreign(level: &[u8]) -> bool {
    matches!(level, b"#" | b"**" | b"+")
}

/// The levels of a name: one at least.
pub(super) fn split(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| matches!(byte, b'/' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_levels() {
        let cases = [
            (">", "/agent/ana", true),
            ("/topic/>", "/topic/a", true),
            ("/topic/>", "/topic/a/b.c", true),
            ("/topic/>", "/topic", false),
            ("/topic/*", "/topic/a", true),
            ("/topic/*", "/topic/a/b", false),
            ("/topic/*/c", "/topic/b/c", true),
            ("/topic/*/c", "/topic/b/d", false),
            ("/topic/a.*", "/topic/a/b", true),
            ("/topic/a", "/topic/a", true),
            ("/topic/a", "/topic/ab", false),
        ];
        for (pattern, name, expected) in cases {
            let levels = Levels::parse(pattern).unwrap();
            assert_eq!(levels.matches(name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_are_distinguished_from_names_and_from_malformed_ones() {
        assert!(Levels::is_pattern(b"/topic/*/x") && Levels::is_pattern(b"/topic/>"));
        assert!(!Levels::is_pattern(b"/topic/a*") && !Levels::is_pattern(b"/topic/a>b"));
        assert!(Levels::parse("/topic/>/a").is_err());
        assert!(Levels::parse("/topic//a").is_err());
        for foreign in ["/topic/#", "/topic/**", "/topic/+/a", "/topic/a.#"] {
            assert!(Levels::is_pattern(foreign.as_bytes()), "{foreign}");
            assert!(Levels::parse(foreign).unwrap_err().contains("> at the end"), "{foreign}");
        }
        assert!(!Levels::is_pattern(b"/topic/c#") && !Levels::is_pattern(b"/topic/c++"));
    }
}
