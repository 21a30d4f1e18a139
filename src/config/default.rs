//! The default configuration as a commented document, and the names of all keys in it.

use super::by_profile::profile_name;
use super::limits::BY_PROFILE;
use crate::profile::Profile;

/// The commented default configuration, which is equivalent to no file.
pub fn default_document() -> &'static str {
    include_str!("default.toml")
}

/// Every key, dotted, including those that the document shows only in a comment.
pub(super) fn known_keys() -> Vec<String> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in default_document().lines() {
        let line = uncommented(line);
        if let Some(name) = table_name(line) {
            table = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.push(format!("{table}{key}"));
        }
    }
    // The document has one value for all.
    for bound in BY_PROFILE {
        keys.push(format!("limits.{bound}"));
        keys.extend(Profile::ALL.map(|profile| format!("limits.{}", profile_name(bound, profile))));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// The known key, or else the known table, that the line at `offset` of a broken document seems to
/// set. An unknown name is not returned, since it may be a secret without its quotes.
pub(super) fn guess_key(text: &str, offset: usize) -> Option<String> {
    let mut table = String::new();
    let mut name = "";
    let mut start = 0;
    for line in text.split_inclusive('\n').take_while(|line| {
        start += line.len();
        start - line.len() <= offset
    }) {
        name = line.split('=').next().unwrap_or_default().trim();
        if let Some(header) = table_name(line.trim()) {
            table = header.into();
        }
    }
    let key = format!("{table}.{name}");
    let known = known_keys();
    let is_table = known.iter().any(|known| known.starts_with(&format!("{table}.")));
    if known.contains(&key) { Some(key) } else { is_table.then_some(table) }
}

/// Removes the comment sign of a setting that is switched off: `#key = value`. Prose is `# ` and text.
fn uncommented(line: &str) -> &str {
    match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with([' ', '#']) => rest,
        Some(_) => "",
        None => line,
    }
}

fn table_name(line: &str) -> Option<&str> {
    Some(line.strip_prefix('[')?.trim_start_matches('[').trim_end_matches(']'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::limits::limit_rows;
    use crate::config::{Config, ConfigFile, Overrides};
    use crate::limits::Limits;

    fn resolve(file: Option<&str>) -> Config {
        let path = Path::new("broker.toml");
        let file = file.map(|text| (path, ConfigFile::parse(path, text).unwrap()));
        let file = file.map(|(path, file)| (path.to_path_buf(), file));
        Config::resolve(file, &Overrides::default(), &|_| None).unwrap()
    }

    #[test]
    fn the_default_document_is_equivalent_to_no_file() {
        let none = resolve(None);
        let read = resolve(Some(default_document()));
        assert_eq!(Config { inputs: none.inputs.clone(), ..read }, none);
    }

    #[test]
    fn the_default_document_names_every_limit() {
        let keys = known_keys();
        for (name, _) in limit_rows(&Limits::default()) {
            let key = format!("limits.{name}");
            assert!(keys.contains(&key), "{key}");
        }
    }

    #[test]
    fn every_key_of_the_default_document_exists() {
        // Arrays of listeners repeat their keys, and the two forms of a key exclude each other
        // only later, so all settings can be switched on at once.
        let text: String =
            default_document().lines().map(|line| format!("{}\n", uncommented(line))).collect();
        ConfigFile::parse(Path::new("broker.toml"), &text).unwrap();
    }

    #[test]
    fn the_meaning_of_zero_is_documented_where_zero_is_allowed() {
        let manual: Vec<_> = include_str!("../../docs/operations.md").lines().collect();
        let document: Vec<_> = default_document().lines().collect();
        let rows = limit_rows(&Limits::default());
        // The others are tables in the document, and in the text.
        let is_line =
            |name: &&&str| document.iter().any(|line| line.starts_with(&format!("{name} =")));
        let by_profile = BY_PROFILE.iter().filter(is_line);
        let names = rows.iter().map(|row| &*row.0).filter(|name| !name.contains('.'));
        for name in names.chain(by_profile.copied()) {
            let text = format!("[limits]\n{name} = 0\n");
            let file = ConfigFile::parse(Path::new("broker.toml"), &text).unwrap();
            let file = Some((Path::new("broker.toml").into(), file));
            let is_taken = Config::resolve(file, &Overrides::default(), &|_| None).is_ok();
            let row = format!("| `{name}` |");
            let row = manual.iter().find(|line| line.starts_with(&row)).unwrap();
            assert_eq!(row.contains(" Zero"), is_taken, "{row}");
            let at =
                document.iter().position(|line| line.starts_with(&format!("{name} ="))).unwrap();
            let comment = document[..at].iter().rev().take_while(|line| line.starts_with('#'));
            assert_eq!(comment.into_iter().any(|line| line.contains("Zero")), is_taken, "{name}");
        }
    }

    #[test]
    fn every_key_is_documented_for_operators() {
        let manual = include_str!("../../docs/operations.md");
        for key in known_keys() {
            let name = key.rsplit('.').next().unwrap();
            let names = [format!("`{name}`"), format!("`{key}`"), format!("\n{name} = ")];
            assert!(names.iter().any(|name| manual.contains(name)), "{key}");
        }
    }
}
