//! The floors: which module may use which, and what no module may use.

use regex::bytes::Regex;

use crate::sources::{Source, sources};
use crate::{hold_to, regex};

/// The modules that each module may use. A floor uses only floors below it.
const FLOORS: &[(&str, &[&str])] = &[
    ("profile", &[]),
    ("buffer", &[]),
    ("text", &[]),
    ("ranking", &[]),
    ("limits", &["profile"]),
    ("calendar", &[]),
    ("json", &[]),
    ("input", &[]),
    ("cores", &[]),
    ("dialect", &[]),
    ("telemetry", &["calendar"]),
    ("logger", &["calendar", "cores", "json"]),
    ("stomp", &["buffer", "limits", "text"]),
    ("work", &[]),
    ("classic", &["limits", "stomp"]),
    ("outbound", &["buffer", "text", "work"]),
    (
        "broker",
        &[
            "buffer",
            "calendar",
            "classic",
            "dialect",
            "json",
            "limits",
            "outbound",
            "profile",
            "ranking",
            "stomp",
            "telemetry",
            "text",
            "work",
        ],
    ),
    ("transport", &["buffer", "dialect", "limits", "outbound", "work", "text"]),
    ("http", &["transport::request", "transport::upgrade"]),
    // No dialect: only the broker knows how bytes become frames.
    (
        "engine",
        &["broker", "http", "limits", "outbound", "ranking", "telemetry", "transport", "work"],
    ),
    ("reactor", &["calendar", "engine", "telemetry"]),
    ("config", &["broker", "cores", "input", "limits", "logger", "profile", "transport"]),
    (
        "server",
        &[
            "broker",
            "config",
            "cores",
            "engine",
            "input",
            "limits",
            "logger",
            "reactor",
            "telemetry",
            "transport",
            "work",
        ],
    ),
    (
        "cli",
        &[
            "broker",
            "config",
            "input",
            "json",
            "limits",
            "logger",
            "profile",
            "server",
            "transport",
        ],
    ),
    ("main", &[]),
    // Re-exports the others, more of them to tests than to users.
    ("lib", &["*"]),
];

/// Names that may be used only in these files and folders.
const ABSENCES: &[(&str, &[&str])] = &[
    (r"\bInstant::now\b", &["reactor/clock.rs"]),
    (r"\bSystemTime::now\b", &["reactor/clock.rs"]),
    (r"\bmio\b|\bsignal_hook_mio\b", &["reactor"]),
    (r"\brustls\b", &["transport", "server"]),
    (r"\bunsafe\b", &[]),
    (r"\bRc<RefCell<", &[]),
    (r"\bthread_local!", &[]),
    (r"\bstatic mut\b", &[]),
    // Floors without sockets.
    (
        r"\bstd::(io|net|fs)\b",
        &["cli", "config", "engine", "input.rs", "logger", "main.rs", "reactor", "server"],
    ),
];

/// The exceptions: file and name.
const EXCEPTIONS: &[(&str, &str)] = &[
    // A line has the time at which it was made, outside the loop.
    ("logger/mod.rs", "SystemTime::now"),
    // The type of the time that it passes to the engine is the broker's.
    ("reactor/clock.rs", "crate::broker"),
    ("reactor/mod.rs", "crate::broker"),
    // The protocols that a listener serves.
    ("reactor/listener.rs", "crate::transport"),
    // The exporters write files.
    ("telemetry/files.rs", "std::fs"),
    ("telemetry/files.rs", "std::io"),
    // serde_json writes to a writer, which is a vector here.
    ("json.rs", "std::io"),
    // It works on memory, through the traits of the standard library.
    ("transport/tls.rs", "std::io"),
    ("transport/websocket.rs", "std::io"),
];

#[test]
fn each_floor_uses_only_floors_below_it() {
    let absences: Vec<_> =
        ABSENCES.iter().map(|(pattern, places)| (regex(pattern), *places)).collect();
    let mut found: Vec<(String, String)> = Vec::new();
    for source in sources("src") {
        for (_, line) in source.code() {
            found.extend(floor_offences(&source, line));
            found.extend(absence_offences(&absences, &source, line));
        }
    }
    hold_to(EXCEPTIONS, found, "a floor uses only floors below it, and absences hold");
}

fn floor_offences(source: &Source, line: &str) -> Vec<(String, String)> {
    let module = source.module();
    let (_, allowed) = FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .unwrap_or_else(|| panic!("{module} has no floor yet: put it into FLOORS"));
    let is_allowed = |used: &str| {
        let top = used.split("::").next().unwrap_or_default();
        ["*", top, used].into_iter().any(|name| name == module || allowed.contains(&name))
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
