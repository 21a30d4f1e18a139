//! The tests of the Rust client name behaviours: each one that `clients/README.md` promises of it has a test,
//! and no other is named.
//!
//! This test is not with the client, whose package does not contain that list.

use std::collections::BTreeMap;
use std::path::Path;

use crate::regex;
use crate::sources::sources;

#[test]
fn the_rust_client_has_a_test_for_each_promised_behaviour() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/README.md");
    let promised = promised(&std::fs::read_to_string(list).unwrap());
    assert!(promised.len() > 30, "the list is not found: {promised:?}");
    let mut shown = BTreeMap::new();
    for source in sources("clients/rust/src") {
        named_by_tests(&source.path, &source.text, &mut shown);
    }
    let has = |name: &String| promised.get(name) == Some(&true);
    let without_test: Vec<_> =
        promised.keys().filter(|name| has(name) && !shown.contains_key(*name)).collect();
    assert!(without_test.is_empty(), "promised, and shown by no test: {without_test:?}");
    shown.retain(|name, _| !has(name));
    assert!(shown.is_empty(), "named by tests, and not promised: {shown:#?}");
}

/// The behaviours in the list, and whether the Rust client has each.
fn promised(list: &str) -> BTreeMap<String, bool> {
    let mut promised = BTreeMap::new();
    let mut column = None;
    for line in list.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].strip_prefix('`').and_then(|name| name.strip_suffix('`'));
        if cells.starts_with(&["name", "behaviour"]) {
            column = cells.iter().position(|cell| *cell == "Rust");
            assert!(column.is_some(), "no column for Rust: {line}");
        } else if !line.starts_with('|') {
            column = None;
        } else if let (Some(column), Some(name)) = (column, name) {
            let has = cells.get(column).copied();
            assert!(matches!(has, Some("yes" | "no")), "neither yes nor no: {line}");
            let before = promised.insert(name.to_owned(), has == Some("yes"));
            assert!(before.is_none(), "{name} is listed twice");
        }
    }
    promised
}

/// Adds the behaviours that the tests of a file name, with their places.
fn named_by_tests(path: &str, text: &str, shown: &mut BTreeMap<String, Vec<String>>) {
    let mark = regex(r"^\s*// behaviour: ([a-z-]+)$");
    let function = regex(r"^\s*fn ([a-z0-9_]+)\(");
    let lines: Vec<_> = text.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("// behaviour"))
    {
        let place = format!("{path}:{}", index + 1);
        let name = mark.captures(line.as_bytes()).unwrap_or_else(|| panic!("{place}: {line}"));
        // Only comments and attributes are between it and the function.
        let is_above = |line: &&&str| line.trim_start().starts_with(['/', '#']);
        let above: Vec<_> = lines[index..].iter().take_while(is_above).collect();
        let below = lines.get(index + above.len()).copied().unwrap_or_default();
        let is_test = above.iter().any(|line| line.trim() == "#[test]");
        let test = function.captures(below.as_bytes()).filter(|_| is_test);
        let test = test.unwrap_or_else(|| panic!("{place} stands above no test: {below}"));
        let [name, test] =
            [&name[1], &test[1]].map(|part| String::from_utf8_lossy(part).into_owned());
        shown.entry(name).or_default().push(format!("{path}: {test}"));
    }
}

#[test]
fn the_list_and_the_names_in_a_file_are_parsed() {
    let list = "| name | behaviour | JavaScript | Rust |\n|---|---|---|---|\n\
                | `a-b` | It does. | no | yes |\n| `c` | It does not. | yes | no |\n\n| `d` | x | y | z |";
    let read: Vec<_> = promised(list).into_iter().collect();
    assert_eq!(read, [("a-b".to_owned(), true), ("c".to_owned(), false)]);
    let file = format!("{0}a-b\n{0}c\n/// Words.\n#[test]\nfn it() {{\n", "// behaviour: ");
    let mut shown = BTreeMap::new();
    named_by_tests("x.rs", &file, &mut shown);
    assert_eq!(shown.keys().collect::<Vec<_>>(), ["a-b", "c"]);
    assert_eq!(shown["c"], ["x.rs: it"]);
    let astray = std::panic::catch_unwind(|| {
        named_by_tests("x.rs", &file.replace("#[test]\n", ""), &mut BTreeMap::new());
    });
    assert!(astray.is_err(), "a name above what is no test");
}
