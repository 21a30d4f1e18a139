//! The architecture, held by reading the sources: which floor may use which, what must not be
//! anywhere, and that nothing is left lying about.
//!
//! What breaks a rule today stands in [`EXCEPTIONS`]. The list may only shrink: an exception that
//! is no longer needed fails the test as well.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use regex::bytes::Regex;

/// What each module may use of ours. A floor uses only floors below it.
const FLOORS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("input", &[]),
    ("telemetry", &[]),
    ("logger", &[]),
    ("stomp", &["limits"]),
    ("classic", &["limits", "stomp"]),
    ("outbound", &["limits"]),
    ("broker", &["classic", "limits", "outbound", "stomp", "telemetry"]),
    ("transport", &["limits", "outbound"]),
    ("http", &["transport::request", "transport::upgrade"]),
    ("engine", &["broker", "http", "limits", "outbound", "stomp", "telemetry", "transport"]),
    ("reactor", &["engine", "limits", "telemetry"]),
    ("client", &["input"]),
    ("config", &["broker", "input", "limits", "logger", "transport"]),
    (
        "server",
        &[
            "broker",
            "config",
            "engine",
            "input",
            "limits",
            "logger",
            "reactor",
            "telemetry",
            "transport",
        ],
    ),
    ("cli", &["broker", "client", "config", "input", "limits", "logger", "server", "transport"]),
    ("main", &[]),
    ("lib", &[]),
];

/// What must not be anywhere but in these files and folders.
const ABSENCES: &[(&str, &[&str])] = &[
    (r"\bInstant::now\b", &["reactor/clock.rs"]),
    (r"\bSystemTime::now\b", &["reactor/clock.rs"]),
    (r"\bmio\b|\bsignal_hook_mio\b", &["reactor"]),
    (r"\brustls\b", &["transport", "server", "client"]),
    (r"\bunsafe\b", &[]),
    (r"\bRc<RefCell<", &[]),
    (r"\bthread_local!", &[]),
    (r"\bstatic mut\b", &[]),
    // Floors that know no sockets.
    (
        r"\bstd::(io|net|fs)\b",
        &[
            "cli", "client", "config", "engine", "input.rs", "logger", "main.rs", "reactor",
            "server",
        ],
    ),
];

/// Where a rule is broken, and by what.
const EXCEPTIONS: &[(&str, &str)] = &[
    // Its thread writes the time of a line when the line was made, outside the loop.
    ("logger.rs", "SystemTime::now"),
    // A client blocks by itself; it has no loop to be told the time by.
    ("client/wire.rs", "Instant::now"),
    // It hands the configuration through to the transport.
    ("engine/mod.rs", "rustls"),
    // The time that it tells the engine is the broker's word for it.
    ("reactor/clock.rs", "crate::broker"),
    ("reactor/mod.rs", "crate::broker"),
    // What a listener lets a connection be.
    ("reactor/listener.rs", "crate::transport"),
    // The exporters write files.
    ("telemetry/files.rs", "std::fs"),
    ("telemetry/files.rs", "std::io"),
    // Driven from memory, through the traits of the standard library.
    ("transport/tls.rs", "std::io"),
    ("transport/websocket.rs", "std::io"),
];

#[test]
fn each_floor_uses_only_floors_below_it_and_the_absences_hold() {
    let absences: Vec<_> =
        ABSENCES.iter().map(|(pattern, places)| (regex(pattern), *places)).collect();
    let mut found: Vec<(String, String)> = Vec::new();
    for source in sources("src") {
        for (_, line) in source.code() {
            found.extend(floor_offences(&source, line));
            found.extend(absence_offences(&absences, &source, line));
        }
    }
    found.sort();
    found.dedup();
    let is_listed = |(path, what): &(String, String)| {
        EXCEPTIONS.iter().any(|(file, word)| file == path && word == what)
    };
    let offences: Vec<_> = found.iter().filter(|one| !is_listed(one)).collect();
    assert!(offences.is_empty(), "these break a rule: {offences:#?}");
    let is_needed = |(file, word): &&(&str, &str)| {
        found.iter().any(|(path, what)| path == file && what == word)
    };
    let idle: Vec<_> = EXCEPTIONS.iter().filter(|one| !is_needed(one)).collect();
    assert!(idle.is_empty(), "these exceptions are no longer needed: {idle:#?}");
}

#[test]
fn every_file_says_what_it_provides() {
    for source in sources("src").into_iter().chain(sources("tests")) {
        assert!(source.text.starts_with("//! "), "{} begins without //!", source.path);
    }
}

#[test]
fn nothing_is_left_to_do_or_commented_out() {
    let left_over = regex(concat!(r"\bTO", r"DO\b|\bFIX", r"ME\b|\bXX", r"X\b|#\[ig", "nore"));
    let code = r"^\s*// ?(let |fn |use |pub |impl |struct |\}|[^/!].*\{$|[a-z_.:]+\(.*\);$|[^/!].* = .*;$|#\[)";
    let commented_out = regex(code);
    for source in sources("src").into_iter().chain(sources("tests")) {
        for (index, line) in source.text.lines().enumerate() {
            let octets = line.as_bytes();
            let is_left = commented_out.is_match(octets) || left_over.is_match(octets);
            assert!(!is_left, "{}:{}: {line}", source.path, index + 1);
        }
    }
}

#[test]
fn every_limit_limits_something() {
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
        // What a function of `Limits` makes of it counts where that function is used.
        let is_used_within = ["body_bytes_max", "header_bytes_max"].contains(&&field[..]);
        assert!(is_used || is_used_within, "{field} limits nothing");
    }
}

/// The logger makes fields of the `key=value` pairs of a line: what stands among the words alone would be
/// in no field, and words between pairs would be torn apart.
#[test]
fn what_a_line_of_the_log_carries_has_a_key() {
    let call = regex(r#"log::(error|warn|info|debug)!\(\s*"((?:[^"\\]|\\[^\n]|\\\n)*)""#);
    let constant = r#"\\"[^{}]*\\""#;
    let pair = format!(r" [a-z][a-z0-9_]*=([^ ]*\{{[^{{}}]*\}}|{constant})");
    let form = regex(&format!(r"^[^={{}}]*[^={{}} :]({pair}| \{{pairs\}})*$"));
    let continued = regex(r"\\\n\s*");
    let mut count = 0;
    for source in sources("src") {
        for captures in call.captures_iter(source.text.as_bytes()) {
            let text = continued.replace_all(&captures[2], &b""[..]);
            count += 1;
            // The table that only people get.
            let is_table = source.path == "telemetry/exporter.rs" && *text == *b"latency {row}";
            let shown = String::from_utf8_lossy(&text);
            assert!(is_table || form.is_match(&text), "{}: {shown}", source.path);
        }
    }
    assert!(count > 25, "where are the log lines? {count}");
}

/// A file of ours.
struct Source {
    /// From `src` or `tests` on.
    path: String,
    text: String,
}

impl Source {
    /// The module at the top that it belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Its lines without those that are comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn floor_offences(source: &Source, line: &str) -> Vec<(String, String)> {
    let module = source.module();
    let (_, allowed) = FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .unwrap_or_else(|| panic!("{module} has no floor yet: put it into FLOORS"));
    let is_allowed = |used: &str| {
        let top = used.split("::").next().unwrap_or_default();
        [top, used].into_iter().any(|name| name == module || allowed.contains(&name))
    };
    let uses = line.split("crate::").skip(1);
    uses.map(|rest| {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == ':';
        rest.split(|c| !is_name(c)).next().unwrap_or_default()
    })
    .map(|path| path.splitn(3, "::").take(2).collect::<Vec<_>>().join("::"))
    .filter(|used| !is_allowed(used.trim_end_matches(':')))
    .map(|used| {
        let top = used.split("::").next().unwrap_or_default();
        (source.path.clone(), format!("crate::{top}"))
    })
    .collect()
}

fn absence_offences(
    absences: &[(Regex, &[&str])],
    source: &Source,
    line: &str,
) -> Vec<(String, String)> {
    let is_elsewhere =
        |places: &[&str]| !places.contains(&&source.path[..]) && !places.contains(&source.module());
    absences
        .iter()
        .filter(|(_, places)| is_elsewhere(places))
        .filter_map(|(pattern, _)| {
            let found = pattern.find(line.as_bytes())?.as_bytes().to_vec();
            Some((source.path.clone(), String::from_utf8(found).unwrap()))
        })
        .collect()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(&format!("(?-u){pattern}")).unwrap()
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 5, "where are the sources?");
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"),
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
