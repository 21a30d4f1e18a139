//! Checks of the sources: which floor may use which, import circles, lengths of files, and leftovers.
//!
//! Exceptions are in a list beside their rule. Such a list may only shrink: an exception that is no longer
//! needed fails the test as well.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod behaviours;
mod circles;
mod floors;
mod lengths;
mod sources;

use regex::bytes::Regex;

use crate::sources::sources;

#[test]
fn every_file_has_a_module_comment() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        assert!(source.text.starts_with("//! "), "{} begins without //!", source.path);
    }
}

#[test]
fn there_are_no_todos_and_no_commented_out_code() {
    let left_over = regex(concat!(r"\bTO", r"DO\b|\bFIX", r"ME\b|\bXX", r"X\b|#\[ig", "nore"));
    let code = r"^\s*// ?(let |fn |use |pub |impl |struct |\}|[^/!].*\{$|[a-z_.:]+\(.*\);$|[^/!].* = .*;$|#\[)";
    let commented_out = regex(code);
    for source in sources("src").into_iter().chain(sources("tests")) {
        for (index, line) in source.text.lines().enumerate() {
            let bytes = line.as_bytes();
            let is_left = commented_out.is_match(bytes) || left_over.is_match(bytes);
            assert!(!is_left, "{}:{}: {line}", source.path, index + 1);
        }
    }
}

#[test]
fn every_limit_is_used() {
    let sources = sources("src");
    let limits = sources.iter().find(|source| source.path == "limits.rs").unwrap();
    let field = regex(r"^    pub ([a-z_]+): ");
    let fields = limits.text.lines().filter_map(|line| {
        let captures = field.captures(line.as_bytes())?;
        Some(String::from_utf8_lossy(&captures[1]).into_owned())
    });
    let fields: Vec<_> = fields.collect();
    assert!(fields.len() > 20, "these are not all: {fields:?}");
    for field in fields {
        let word = regex(&format!(r"\b{field}\b"));
        let is_used = sources
            .iter()
            .filter(|source| source.path != "limits.rs" && source.module() != "config")
            .any(|source| source.code().any(|(_, line)| word.is_match(line.as_bytes())));
        // These two are used through a function of `Limits`.
        let is_used_within = ["body_bytes_max", "header_bytes_max"].contains(&&field[..]);
        assert!(is_used || is_used_within, "{field} limits nothing");
    }
}

/// A variable value is in a field, with a key that is unique in its line: `connection = number` is a number
/// or quoted text, `peer:% = address` a word. The words are constant.
#[test]
fn every_value_in_a_log_line_has_a_key() {
    let call = regex(r"\blog::(error|warn|info|debug|log)!\(\s*");
    let form = regex(r#"(?s)^(level,)?((.*);\s*)?"((?:[^"\\{}=]|\\\n)*|\{words\})"\s*$"#);
    let field = regex(r"(?s)^\s*([a-z][a-z0-9_]*)(:%)?(\s*=[^=].*)?$");
    let mut count = 0;
    for source in sources("src") {
        for found in call.find_iter(source.text.as_bytes()) {
            count += 1;
            let arguments = up_to_the_closing_bracket(&source.text[found.end()..]);
            // The table for people.
            if source.path == "telemetry/exporter.rs" && arguments == "\"latency {row}\"" {
                continue;
            }
            let place = format!("{}: {arguments}", source.path);
            let parts = form.captures(arguments.as_bytes()).unwrap_or_else(|| panic!("{place}"));
            let fields = parts.get(3).map_or(&b""[..], |fields| fields.as_bytes());
            let mut keys = vec!["time".to_owned(), "level".to_owned(), "message".to_owned()];
            for text in fields_of(std::str::from_utf8(fields).unwrap()) {
                let parts = field.captures(text.as_bytes()).unwrap_or_else(|| panic!("{place}"));
                let key = String::from_utf8(parts[1].to_vec()).unwrap();
                assert!(!keys.contains(&key), "{key} twice, {place}");
                keys.push(key);
            }
        }
    }
    assert!(count > 25, "where are the log lines? {count}");
}

fn up_to_the_closing_bracket(text: &str) -> &str {
    let mut depth = 1;
    let is_end = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    };
    &text[..text.find(is_end).expect("each bracket closes")]
}

/// Cut at the commas that stand in no brackets.
fn fields_of(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let is_between = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    text.split(is_between).filter(|field| !field.trim().is_empty()).collect()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(&format!("(?-u){pattern}")).unwrap()
}

/// Fails if something was found without an exception, or if an exception is not needed.
fn hold_to(exceptions: &[(&str, &str)], mut found: Vec<(String, String)>, rule: &str) {
    found.sort();
    found.dedup();
    let is_same =
        |(place, what): &(String, String), one: &(&str, &str)| (&**place, &**what) == *one;
    let offences: Vec<_> =
        found.iter().filter(|found| !exceptions.iter().any(|one| is_same(found, one))).collect();
    assert!(offences.is_empty(), "{rule}; these do not: {offences:#?}");
    let idle: Vec<_> =
        exceptions.iter().filter(|one| !found.iter().any(|found| is_same(found, one))).collect();
    assert!(idle.is_empty(), "{rule}; these exceptions are no longer needed: {idle:#?}");
}
