//! The TOML file as it is.
//!
//! It does not know defaults, nor which settings fit together.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::DeTable;

use super::default;
use super::fault::{ConfigFault, Offence, Place};
use super::limits::{self, BY_PROFILE, LimitsSection};
use super::lines::{Entry, KeyLines, line_at};
use super::messaging::{QueuesSection, RightsSection, StompSection};
use super::performance::PerformanceSection;
use super::suggest::suggestion;
use crate::input::{Exposure, Input};
use crate::logger::{LogFormat, LogLevel};

/// A configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// `[[listener]]`; if absent, the default ones.
    #[serde(rename = "listener")]
    pub listeners: Option<Vec<ListenerSection>>,
    /// `[keys]`
    pub keys: KeysSection,
    /// `[tls]`
    pub tls: TlsSection,
    /// `[limits]`
    pub limits: LimitsSection,
    /// `[performance]`
    pub performance: PerformanceSection,
    /// `[rights]`
    pub rights: RightsSection,
    /// `[stomp]`
    pub stomp: StompSection,
    /// `[queues]`
    pub queues: QueuesSection,
    /// `[latency]`
    pub latency: LatencySection,
    /// `[log]`
    pub log: LogSection,
    #[serde(skip)]
    pub(super) lines: KeyLines,
    /// The other users who can read the file.
    #[serde(skip)]
    pub(super) exposure: Option<Exposure>,
}

impl ConfigFile {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// The file cannot be read or is malformed; the fault names the file and, in the latter case, line
    /// and key.
    pub fn load(path: &Path) -> Result<Self, ConfigFault> {
        let read = Input::read_text(path, CONFIG_BYTES_MAX);
        let (text, exposure) = read.map_err(|fault| ConfigFault {
            place: Place::File { path: path.into(), line: None, key: None },
            offence: Offence::Unreadable(fault.to_string()),
        })?;
        Ok(Self { exposure, ..Self::parse(path, &text)? })
    }

    /// Parses a document; `path` is for messages.
    ///
    /// # Errors
    /// The document is malformed; the fault names line and key.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigFault> {
        let document = DeTable::parse(text).map_err(|fault| not_toml(path, text, &fault))?;
        let lines = KeyLines::of(text, document.get_ref());
        // serde would take an array for a table and assign its elements to keys by position.
        if let Some(entry) = lines.entries().iter().find(|entry| is_misplaced(entry)) {
            let offence = match exists(&entry.key) || is_within_keys(&entry.key) {
                true => Offence::NotUnderstood(no_list(&entry.key)),
                false => unknown(&entry.key),
            };
            return Err(fault_at(path, Some(entry.line), Some(&entry.key), offence));
        }
        if let Some(entry) =
            lines.entries().iter().find(|one| one.is_table && one.key == "listener")
        {
            let offence = "a table where a list of them belongs: write [[listener]]";
            let offence = Offence::NotUnderstood(offence.into());
            return Err(fault_at(path, Some(entry.line), Some(&entry.key), offence));
        }
        if let Some(entry) = lines.entries().iter().find(|one| one.is_table && is_leaf(&one.key)) {
            let offence = Offence::NotUnderstood("a table where one value belongs".into());
            return Err(fault_at(path, Some(entry.line), Some(&entry.key), offence));
        }
        match toml::from_str::<Self>(text) {
            Ok(file) => Ok(Self { lines, ..file }),
            Err(fault) => Err(not_ours(path, text, &lines, &fault)),
        }
    }
}

/// A larger file is refused.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// `[[listener]]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerSection {
    /// Its name in the log.
    pub name: Option<String>,
    /// `IP:port`
    pub address: Option<String>,
    /// The protocols that it serves.
    pub protocols: Option<Vec<ProtocolName>>,
    /// Whether it speaks TLS.
    pub tls: Option<TlsModeName>,
}

/// An element of `protocols`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolName {
    /// The classic dialect, length-prefixed.
    Classic,
    /// Standard STOMP frames.
    Stomp,
    /// WebSocket.
    Ws,
    /// Plain HTTP requests.
    Http,
}

/// The value of a listener's `tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsModeName {
    /// Detected.
    Optional,
    /// Plain connections are refused.
    Required,
    /// TLS is refused.
    Off,
}

/// `[keys]`: for each key its value or its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysSection {
    application: Option<Secret>,
    application_file: Option<PathBuf>,
    agent: Option<Secret>,
    agent_file: Option<PathBuf>,
    super_agent: Option<Secret>,
    super_agent_file: Option<PathBuf>,
    service: Option<Secret>,
    service_file: Option<PathBuf>,
    admin: Option<Secret>,
    admin_file: Option<PathBuf>,
}

impl KeysSection {
    /// Whether any key is given by its value rather than by a file.
    pub(super) fn has_values(&self) -> bool {
        self.in_order().iter().any(|(value, _)| value.is_some())
    }

    /// Value and file of each key: application, then the profiles in order.
    pub(super) fn in_order(&self) -> [(Option<&Secret>, Option<&Path>); 5] {
        [
            (self.application.as_ref(), self.application_file.as_deref()),
            (self.agent.as_ref(), self.agent_file.as_deref()),
            (self.super_agent.as_ref(), self.super_agent_file.as_deref()),
            (self.service.as_ref(), self.service_file.as_deref()),
            (self.admin.as_ref(), self.admin_file.as_deref()),
        ]
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(value: String) -> Self {
        Self(value)
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// PEM file with the certificate chain, the server's own first.
    pub certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub key: Option<PathBuf>,
    /// Directory of development certificates.
    pub development_directory: Option<PathBuf>,
}

/// `[latency]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatencySection {
    /// Directory that histograms are exported to.
    pub directory: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// The form of a line.
    pub format: Option<LogFormat>,
    /// The least important lines that are written.
    pub level: Option<LogLevel>,
}

/// A syntax error of TOML. Its message quotes nothing of the text.
fn not_toml(path: &Path, text: &str, fault: &toml::de::Error) -> ConfigFault {
    let offset = fault.span().map(|span| span.start);
    let key = offset.and_then(|offset| default::guess_key(text, offset));
    let line = offset.map(|offset| line_at(text, offset));
    let message = in_plain_words(key.as_deref().unwrap_or_default(), fault.message());
    fault_at(path, line, key.as_deref(), Offence::NotUnderstood(message))
}

/// A malformed value or an unknown key. The parser's message may quote either, so it is withheld under
/// `[keys]` and if it has no place.
fn not_ours(path: &Path, text: &str, lines: &KeyLines, fault: &toml::de::Error) -> ConfigFault {
    let offset = fault.span().map(|span| span.start);
    let key = offset.and_then(|offset| lines.key_at(offset));
    let offence = match key {
        Some(key) if is_within_keys(key) => Offence::NotAKey(meant_by(key)),
        Some(key) if fault.message().starts_with("unknown field") => unknown(key),
        Some(key) => Offence::NotUnderstood(in_plain_words(key, fault.message())),
        None => Offence::NotAKey(None),
    };
    fault_at(path, offset.map(|offset| line_at(text, offset)), key, offence)
}

/// The parser's reason without its own terms.
fn in_plain_words(key: &str, message: &str) -> String {
    let name = key.rsplit('.').next().unwrap_or_default();
    let is_time = name.ends_with("_ms") || name.contains("_ms_");
    let of = if is_time { " of milliseconds" } else { "" };
    let range = match key.strip_prefix("limits.") {
        Some(name) => format!("from {} to {}", limits::least(name), u32::MAX),
        None => "from 0".into(),
    };
    let number = &*format!("expected a whole number{of} {range}");
    let mut message = one_line(message);
    if message.starts_with("string values must be quoted") || message.contains("with no value") {
        message = A_LINE.into();
    }
    for (theirs, ours) in [
        ("expected u64", number),
        (" as i128", ""),
        (" as u128", ""),
        ("unknown variant", "unknown value"),
        ("expected a sequence", "expected a list"),
        ("expected path string", "expected the name of a file or directory"),
        ("wanted string or table", "expected text in quotes"),
        ("duplicate key", "given twice"),
        ("integer number overflowed", "the number is too large"),
    ] {
        message = message.replace(theirs, ours);
    }
    message
}

/// What a line has to look like, where the parser's reason would mislead.
const A_LINE: &str = "not a value; a line is like name = 5, name = \"text\" or name = [\"text\", \"text\"], with \
                      nothing but a comment behind it";

/// What belongs where a list was found.
fn no_list(key: &str) -> String {
    let name = without_places(key);
    let by_profile = BY_PROFILE.iter().any(|bound| name.strip_prefix("limits.") == Some(bound));
    if name.starts_with("keys.") {
        "a list where text in quotes belongs".into()
    } else if is_leaf(&name) {
        "a list where one value belongs".into()
    } else if by_profile {
        "a list where one value belongs, or a table by profile".into()
    } else if key.ends_with(']') {
        "a list where a table belongs".into()
    } else {
        format!("a list where a table belongs: write [{}]", shown(&name))
    }
}

fn fault_at(path: &Path, line: Option<usize>, key: Option<&str>, offence: Offence) -> ConfigFault {
    let key = key.map(|key| shown(key).into());
    ConfigFault { place: Place::File { path: path.into(), line, key }, offence }
}

/// The known key that was probably meant: one of the same name in another table, if that is the only one, or a
/// similar one in the same table.
fn meant_by(key: &str) -> Option<String> {
    if exists(key) {
        return None;
    }
    let (known, key) = (default::known_keys(), without_places(key));
    let (table, name) = key.split_at(key.rfind('.').map_or(0, |dot| dot + 1));
    let of_keys = format!("keys.{name}");
    if table.is_empty() && known.contains(&of_keys) {
        return Some(of_keys);
    }
    if matches!(table, "limits." | "limits.outbound.")
        && known.contains(&format!("limits.outbound.agent.{name}"))
    {
        return Some(format!("outbound.PROFILE.{name}"));
    }
    // Under `[keys]` the name itself may be a secret, of which this would disclose something.
    if !is_within_keys(&key) {
        let mut elsewhere = known.iter().filter(|one| one.rsplit('.').next() == Some(name));
        if let (Some(meant), None) = (elsewhere.next(), elsewhere.next()) {
            return Some(meant.clone());
        }
    }
    suggestion(name, beside(&known, table)).map(str::to_owned)
}

/// The names of the settings and tables that a table has, whose name ends with a dot.
fn beside<'k>(known: &'k [String], table: &str) -> impl Iterator<Item = &'k str> {
    known.iter().filter_map(move |one| one.strip_prefix(table)?.split('.').next())
}

/// The offence of an unknown key that is not under `[keys]`.
fn unknown(key: &str) -> Offence {
    let known = default::known_keys();
    let key = without_places(key);
    let table = &key[..key.rfind('.').map_or(0, |dot| dot + 1)];
    let mut names: Vec<_> = beside(&known, table).collect();
    names.dedup();
    match meant_by(&key) {
        None if (1..=NAMED_MAX).contains(&names.len()) => {
            let known = names.join(", ");
            Offence::NotUnderstood(format!("there is no such setting; known are {known}"))
        }
        meant => Offence::UnknownKey(meant),
    }
}

/// Names of settings that a fault lists.
const NAMED_MAX: usize = 8;

/// Whether there is such a setting or table.
fn exists(key: &str) -> bool {
    let key = without_places(key);
    let is_below = |one: &String| one.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.'));
    default::known_keys().iter().any(|one| *one == key || is_below(one))
}

/// Whether it is a setting that is no table.
fn is_leaf(key: &str) -> bool {
    let key = without_places(key);
    !is_within_keys(&key)
        && !BY_PROFILE.iter().any(|bound| key.strip_prefix("limits.") == Some(bound))
        && default::known_keys().contains(&key)
}

/// The documented name of a key, such as `listener.address` for `listener[1].address`.
fn without_places(key: &str) -> String {
    let mut name = String::new();
    for part in key.split('[') {
        name.push_str(part.split_once(']').map_or(part, |(_, rest)| rest));
    }
    name
}

/// The key as it may be shown: under `[keys]`, an unknown name may be a secret.
fn shown(key: &str) -> &str {
    let is_known = default::known_keys().iter().any(|known| known == key);
    if is_within_keys(key) && !is_known { "keys" } else { key }
}

fn is_within_keys(key: &str) -> bool {
    key == "keys" || key.starts_with("keys.") || key.starts_with("keys[")
}

fn is_misplaced(entry: &Entry) -> bool {
    let takes_one = entry.key == "listener"
        || entry.key == "stomp.virtual_hosts"
        || entry.key.ends_with("].protocols")
        || entry.key.starts_with("rights.");
    entry.is_array && !takes_one
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "(\\[\\[?(keys|limits|listener)\\]\\]?|[a-z_]+ = |\\PC|\n)*") {
            let _ = ConfigFile::parse(Path::new("broker.toml"), &text);
        }
    }

    fn fault(text: &str) -> String {
        let fault = ConfigFile::parse(Path::new("broker.toml"), text).unwrap_err();
        assert!(!format!("{fault:?}").contains("s3cret"), "{fault:?}");
        fault.to_string()
    }

    #[test]
    fn a_fault_has_no_terms_of_the_parser() {
        for (text, start) in [
            (
                "[limits]\nframe_ms_max = \"60 s\"\n",
                "broker.toml:2: limits.frame_ms_max: invalid type: string \"60 s\", expected a whole number of milli",
            ),
            (
                "[limits]\nsoft_ms_max = 5\n",
                "broker.toml:2: limits.soft_ms_max: there is no such setting; did you mean outbound.PROFILE.soft_ms_max?",
            ),
            (
                "agent = \"s3cret\"\n",
                "broker.toml:1: agent: there is no such setting; did you mean keys.agent?",
            ),
            ("[[listener]]\ntls = true\n", "broker.toml:2: listener[0].tls: "),
            (
                "[stomp]\nvirtual_hosts = 5\n",
                "broker.toml:2: stomp.virtual_hosts: invalid type: integer `5`, expected a list",
            ),
            (
                "[tls]\ncertificate = 5\n",
                "broker.toml:2: tls.certificate: invalid type: integer `5`, expected the name",
            ),
            (
                "[log]\nlevel = \"info\"\nlevel = \"warn\"\n",
                "broker.toml:3: log.level: given twice",
            ),
        ] {
            let fault = ConfigFile::parse(Path::new("broker.toml"), text).unwrap_err().to_string();
            assert!(fault.starts_with(start), "{fault}");
            for theirs in ["variant", "sequence", "u64", "wanted", "duplicate key", "path string"] {
                assert!(!fault.contains(theirs), "{fault}");
            }
        }
    }

    #[test]
    fn a_line_that_sets_no_value_is_told_what_it_is_like() {
        for (text, start) in [
            (
                "[limits.outbound]\nhard_bytes_max = 5\n",
                "broker.toml:2: limits.outbound.hard_bytes_max: there is no such setting; did you mean \
                 outbound.PROFILE.hard_bytes_max?",
            ),
            (
                "[limits]\nconnections_max =\n",
                "broker.toml:2: limits.connections_max: not a value; a line is like name = 5,",
            ),
            (
                "[limits]\nconnections_max = 16384;\n",
                "broker.toml:2: limits.connections_max: not a value; a line is like name = 5,",
            ),
            (
                "[limits]\nconnections_max\n",
                "broker.toml:2: limits.connections_max: not a value; a",
            ),
        ] {
            let fault = fault(text);
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    #[test]
    fn a_number_is_told_its_range_and_a_size_its_form() {
        for (text, start) in [
            (
                "[limits]\nconnections_max = -1\n",
                "broker.toml:2: limits.connections_max: invalid value: integer `-1`, expected a whole number from 1 \
                 to 4294967295",
            ),
            (
                "[limits]\nconnections_max = 18446744073709551616\n",
                "broker.toml:2: limits.connections_max: invalid type: integer `18446744073709551616`, expected a \
                 whole number from 1 to 4294967295",
            ),
            (
                "[limits]\nconnections_max = 999999999999999999999999999999999999999999\n",
                "broker.toml:2: limits.connections_max: the number is too large",
            ),
            (
                "[limits.outbound.agent]\nsoft_ms_max = -1\n",
                "broker.toml:2: limits.outbound.agent.soft_ms_max: invalid value: integer `-1`, expected a whole \
                 number of milliseconds from 0 to",
            ),
            (
                "[limits]\nbody_bytes_max = \"1.5 MiB\"\n",
                "broker.toml:2: limits.body_bytes_max: \"1.5 MiB\" is not a number of bytes, or text such as \
                 \"64 KiB\": a whole number and B, KiB, MiB, GiB or TiB",
            ),
            (
                "[limits]\nbody_bytes_max = \"99999999999 GiB\"\n",
                "broker.toml:2: limits.body_bytes_max: \"99999999999 GiB\" is too large a number of bytes",
            ),
            (
                "[limits]\nbody_bytes_max = 18446744073709551616\n",
                "broker.toml:2: limits.body_bytes_max: 18446744073709551616 is too large a number of bytes",
            ),
            (
                "[limits]\nbody_bytes_max = -1\n",
                "broker.toml:2: limits.body_bytes_max: -1 is not a",
            ),
        ] {
            let fault = fault(text);
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    #[test]
    fn a_list_is_told_what_belongs_there() {
        for (text, start) in [
            (
                "[limits]\noutbound = [[1]]\n",
                "broker.toml:2: limits.outbound: a list where a table belongs: write [limits.outbound]",
            ),
            (
                "listener = [[\"name\"]]\n",
                "broker.toml:1: listener[0]: a list where a table belongs",
            ),
            (
                "[limits]\nconnections_max = [1]\n",
                "broker.toml:2: limits.connections_max: a list where one value belongs",
            ),
            (
                "[[tls]]\nkey = \"k\"\n",
                "broker.toml:1: tls: a list where a table belongs: write [tls]",
            ),
            ("[keys]\nagent = [\"a\"]\n", "broker.toml:2: keys.agent: a list where text in quotes"),
        ] {
            let fault = fault(text);
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    #[test]
    fn a_fault_names_file_line_and_key() {
        for (text, start) in [
            ("\n[limits]\nbody_bytes_max = true\n", "broker.toml:3: limits.body_bytes_max: "),
            (
                "[limits]\n\nbody_byte_max = 5\n",
                "broker.toml:3: limits.body_byte_max: there is no such setting; did you mean body_bytes_max?",
            ),
            ("[log]\nformat = \"xml\"\n", "broker.toml:2: log.format: unknown value `xml`"),
            ("[limits]\npatterns_max = -1\n", "broker.toml:2: limits.patterns_max: "),
            (
                "[limits]\nconnections_max = \"5x\"\n",
                "broker.toml:2: limits.connections_max: invalid type: string \"5x\", expected a whole",
            ),
            (
                "[[listener]]\naddress = \"x\"\n[[listener]]\nprotocols = [\"ftp\"]\n",
                "broker.toml:4: listener[1].protocols[0]: ",
            ),
            ("[limits]\nbody_bytes_max = 4 MiB\n", "broker.toml:2: limits.body_bytes_max: "),
            ("top = 4\n", "broker.toml:1: top: there is no such setting"),
            ("[listener]\naddress = \"x\"\n", "broker.toml:1: listener: a table where a list"),
            ("listener = \"x\"\n", "broker.toml:1: listener: "),
            ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "broker.toml:3: log.level: "),
        ] {
            let fault = fault(text);
            assert!(fault.starts_with(start), "{fault}");
            assert_eq!(fault.lines().count(), 1, "{fault}");
        }
    }

    #[test]
    fn a_fault_of_a_share_names_its_profile_if_it_has_one() {
        for (text, start) in [
            (
                "[limits]\npatterns_per_session_max = \"5x\"\n",
                "broker.toml:2: limits.patterns_per_session_max: invalid type: string \"5x\", expected a whole",
            ),
            (
                "[limits]\npatterns_per_session_max = -1\n",
                "broker.toml:2: limits.patterns_per_session_max: invalid value: integer `-1`, expected a whole \
                 number from 0 to 4294967295",
            ),
            (
                "[limits.transaction_bytes_max]\nagent = \"1 MiB\"\nservice = \"1 MB\"\n",
                "broker.toml:3: limits.transaction_bytes_max.service: \"1 MB\" is not a number of bytes, or text",
            ),
            (
                "[limits]\ntransaction_bytes_max = { agent = 5, agents = 6 }\n",
                "broker.toml:2: limits.transaction_bytes_max.agents: there is no such setting; did you mean agent?",
            ),
            (
                "[limits]\ntransaction_bytes_max = true\n",
                "broker.toml:2: limits.transaction_bytes_max: invalid type: boolean `true`, expected a number of",
            ),
            (
                "[limits]\ntransaction_bytes_max = [4]\n",
                "broker.toml:2: limits.transaction_bytes_max: a list where one value belongs, or a table",
            ),
        ] {
            let fault = fault(text);
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let fault = ConfigFile::load(Path::new("/nowhere/broker.toml")).unwrap_err().to_string();
        assert!(fault.starts_with("/nowhere/broker.toml: "), "{fault}");
    }

    #[test]
    fn no_fault_shows_a_secret() {
        for text in [
            "[keys]\napplication = s3cret\n",
            "[keys]\napplication = \"s3cret\nagent = 5\n",
            "[keys]\napplication \"s3cret\"\n",
            "[keys]\ns3cret\n",
            "s3cret\n",
            "s3cret = = 4\n",
            "[keys]\ns3cret = 5\n",
            "[keys]\nagent = [\"s3cret\"]\n",
            "[keys.agent]\ns3cret = 1\n",
            "keys = \"s3cret\"\n",
            "keys = [\"s3cret\"]\n",
            "keys = { agent = s3cret }\n",
            "[[keys]]\nagent = \"s3cret\"\n",
            "[keys]\nagent = 's3cret\\'x'\n",
            "[keys]\nagent = \"\\s3cret\"\n",
            "[keys]\nagent = \"a\"\nagent = \"s3cret\"\n",
        ] {
            let fault = fault(text);
            assert!(!fault.contains("s3cret"), "{fault}");
        }
        assert!(fault("[keys]\n\nagent = 12345\n").starts_with("broker.toml:3: keys.agent: not"));
        assert!(!fault("[keys]\n\nagent = 12345\n").contains("12345"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let file = ConfigFile::parse(Path::new(""), "[keys]\nagent = \"s3cret\"\n").unwrap();
        assert!(!format!("{file:?}").contains("s3cret"));
    }
}
