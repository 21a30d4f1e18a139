//! The floors: which module may use which, and what must not be anywhere.

use regex::bytes::Regex;

use crate::sources::{Source, sources};
use crate::{hold_to, regex};

/// What each module may use of ours. A floor uses only floors below it.
const FLOORS: &[(&str, &[&str])] = &[
    ("profile", &[]),
    ("limits", &["profile"]),
    ("calendar", &[]),
    ("json", &[]),
    ("input", &[]),
    ("cores", &[]),
    ("telemetry", &["calendar"]),
    ("logger", &["calendar", "cores", "json"]),
    ("stomp", &["limits"]),
    ("classic", &["limits", "stomp"]),
    ("outbound", &["limits"]),
    (
        "broker",
        &["calendar", "classic", "json", "limits", "outbound", "profile", "stomp", "telemetry"],
    ),
    ("transport", &["limits", "outbound"]),
    ("http", &["transport::request", "transport::upgrade"]),
    // No dialect: how bytes become frames is for the broker to know.
    ("engine", &["broker", "http", "limits", "outbound", "telemetry", "transport"]),
    ("reactor", &["calendar", "engine", "limits", "telemetry"]),
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
    // The face: it shows the others, and to tests more than to users.
    ("lib", &["*"]),
];

/// What must not be anywhere but in these files and folders.
const ABSENCES: &[(&str, &[&str])] = &[
    (r"\bInstant::now\b", &["reactor/clock.rs"]),
    (r"\bSystemTime::now\b", &["reactor/clock.rs"]),
    (r"\bmio\b|\bsignal_hook_mio\b", &["reactor"]),
    (r"\brustls\b", &["transport", "server"]),
    (r"\bunsafe\b", &[]),
    (r"\bRc<RefCell<", &[]),
    (r"\bthread_local!", &[]),
    (r"\bstatic mut\b", &[]),
    // Floors that know no sockets.
    (
        r"\bstd::(io|net|fs)\b",
        &["cli", "config", "engine", "input.rs", "logger", "main.rs", "reactor", "server"],
    ),
];

/// Where a rule is broken, and by what.
const EXCEPTIONS: &[(&str, &str)] = &[
    // Its thread writes the time of a line when the line was made, outside the loop.
    ("logger/mod.rs", "SystemTime::now"),
    // It hands the configuration through to the transport.
    ("engine/mod.rs", "rustls"),
    // It still chooses how bytes become frames.
    ("engine/connection.rs", "crate::stomp"),
    ("engine/inbound.rs", "crate::stomp"),
    // The time that it tells the engine is the broker's word for it.
    ("reactor/clock.rs", "crate::broker"),
    ("reactor/mod.rs", "crate::broker"),
    // What a listener lets a connection be.
    ("reactor/listener.rs", "crate::transport"),
    // The exporters write files.
    ("telemetry/files.rs", "std::fs"),
    ("telemetry/files.rs", "std::io"),
    // What serde_json writes to is a writer, which here is a vector.
    ("json.rs", "std::io"),
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
