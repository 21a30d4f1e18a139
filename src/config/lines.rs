//! The line of each key in a TOML document.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys of a document and their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyLines {
    entries: Vec<Entry>,
}

/// A key, its position and the type of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Dotted, with elements of an array counted from zero: `listener[1].address`.
    pub(super) key: String,
    /// Counted from one.
    pub(super) line: usize,
    /// Whether its value is an array.
    pub(super) is_array: bool,
    /// Whether its value is a table.
    pub(super) is_table: bool,
    /// Byte range of the key and its value; of the key alone if the value is a table.
    bytes: Range<usize>,
}

impl KeyLines {
    /// Collects all keys of a document; `text` is its source.
    pub(super) fn of(text: &str, document: &DeTable<'_>) -> Self {
        let mut lines = Self::default();
        lines.note_table(text, "", document);
        lines
    }

    /// All keys.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The line of a key, or of the innermost table around it that the document mentions.
    pub(super) fn line_near(&self, key: &str) -> Option<usize> {
        let ends = key.rmatch_indices(['.', '[']).map(|(at, _)| at);
        [key.len()].into_iter().chain(ends).find_map(|end| self.line_of(&key[..end]))
    }

    /// The line of a key that the document mentions.
    pub(super) fn line_of(&self, key: &str) -> Option<usize> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.line)
    }

    /// The innermost key that the byte at `offset` belongs to.
    pub(super) fn key_at(&self, offset: usize) -> Option<&str> {
        let around = self.entries.iter().filter(|entry| entry.bytes.contains(&offset));
        around.max_by_key(|entry| entry.key.len()).map(|entry| entry.key.as_str())
    }

    fn note_table(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let dot = if prefix.is_empty() { "" } else { "." };
            let key = format!("{prefix}{dot}{}", name.get_ref());
            self.note(text, key, name.span(), value);
        }
    }

    fn note(&mut self, text: &str, key: String, name: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let line = line_at(text, name.start);
        let end = if value.get_ref().is_table() { name.end } else { value.span().end };
        let bytes = name.start..end.max(name.end);
        let (is_array, is_table) = (value.get_ref().is_array(), value.get_ref().is_table());
        self.entries.push(Entry { key: key.clone(), line, is_array, is_table, bytes });
        match value.get_ref() {
            DeValue::Table(table) => self.note_table(text, &key, table),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    self.note(text, format!("{key}[{index}]"), element.span(), element);
                }
            }
            _ => {}
        }
    }
}

/// The line of the byte at `offset`, counted from one.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + memchr::memchr_iter(b'\n', before).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
[[listener]]
address = \"a\"

[[listener]]
address = \"b\"
protocols = [
  \"ws\",
]

[limits]
body_bytes_max = 5

[limits.outbound.agent]
soft_ms_max = 6
";

    fn lines(text: &str) -> KeyLines {
        KeyLines::of(text, DeTable::parse(text).unwrap().get_ref())
    }

    #[test]
    fn every_key_is_found_on_its_line() {
        let lines = lines(DOCUMENT);
        for (key, line) in [
            ("listener[0].address", 2),
            ("listener[1].address", 5),
            ("listener[1].protocols", 6),
            ("limits", 10),
            ("limits.body_bytes_max", 11),
            ("limits.outbound.agent.soft_ms_max", 14),
        ] {
            assert_eq!(lines.line_of(key), Some(line), "{key}");
        }
        assert_eq!(lines.line_of("limits.header_count_max"), None);
    }

    #[test]
    fn a_byte_belongs_to_the_innermost_key() {
        let lines = lines(DOCUMENT);
        let offset = DOCUMENT.find("\"ws\"").unwrap();
        assert_eq!(lines.key_at(offset), Some("listener[1].protocols[0]"));
        let offset = DOCUMENT.find("= 6").unwrap() + 2;
        assert_eq!(lines.key_at(offset), Some("limits.outbound.agent.soft_ms_max"));
    }
}
