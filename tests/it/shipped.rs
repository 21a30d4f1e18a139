//! The tested program is the shipped one: packages that only tests need do not enable features in the
//! program's dependencies.

use std::collections::BTreeMap;
use std::process::Command;

/// Features that only tests have, by package: Unicode classes that no regular expression may use, and code
/// that the program does not call.
const ONLY_IN_TESTS: &[(&str, &[&str])] = &[
    ("regex-automata", &["meta", "nfa-pikevm", "unicode-case", "unicode-gencat", "unicode-perl"]),
    (
        "regex-syntax",
        &["default", "unicode", "unicode-age", "unicode-bool", "unicode-script", "unicode-segment"],
    ),
    ("syn", &["extra-traits"]),
];

#[test]
fn the_program_has_the_features_of_the_tests() {
    let shipped = features("normal,build");
    let tested = features("normal,build,dev");
    assert!(shipped.keys().any(|package| package.starts_with("regex-syntax ")), "the list is read");
    let mut only_in_tests = Vec::new();
    for (package, features) in &shipped {
        let more = tested[package].iter().filter(|feature| !features.contains(feature));
        let more: Vec<_> = more.map(String::as_str).collect();
        if !more.is_empty() {
            only_in_tests.push((package.split(' ').next().unwrap(), more));
        }
    }
    let expected: Vec<_> =
        ONLY_IN_TESTS.iter().map(|(package, features)| (*package, features.to_vec())).collect();
    assert_eq!(only_in_tests, expected);
}

/// The features of every package in the program, with these kinds of dependencies.
fn features(kinds: &str) -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--no-dedupe", "--prefix", "none"])
        .args(["--package", "com-broker", "--format", "{p}|{f}", "--edges", kinds])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let (package, features) = line.split_once('|').unwrap();
        // Name and version, without the source of the package.
        let package = package.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let known = all.entry(package).or_default();
        let features = features.split(',').filter(|feature| !feature.is_empty());
        known.extend(features.map(str::to_owned));
        known.sort_unstable();
        known.dedup();
    }
    all
}
