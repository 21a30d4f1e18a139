//! The sources of keys, and the rule that well-known keys are for loopback addresses only.

use std::net::SocketAddr;
use std::path::Path;

use super::Environment;
use super::fault::{ConfigFault, Offence, Place};
use super::file::{KeysSection, Secret};
use super::source::Source;
use super::suggest::suggestion;
use crate::broker::{KeyFault, Keys};
use crate::input::{Exposure, Input};
use crate::profile::{ByProfile, Profile};

/// The application key of development mode, which is well known.
pub const DEVELOPMENT_APPLICATION_KEY: &str = "my_app_secret_key";

/// The profile keys of development mode, which are well known.
pub const DEVELOPMENT_PROFILE_KEYS: ByProfile<&str> = ByProfile::new([
    "my_agent_secret_key",
    "my_super_agent_secret_key",
    "my_service_secret_key",
    "my_admin_secret_key",
]);

/// The names of keys in the file, and of the environment variables that override them.
const NAMES: [(&str, &str); 5] = [
    ("application", "COM_BROKER_KEY_APPLICATION"),
    ("agent", "COM_BROKER_KEY_AGENT"),
    ("super_agent", "COM_BROKER_KEY_SUPER_AGENT"),
    ("service", "COM_BROKER_KEY_SERVICE"),
    ("admin", "COM_BROKER_KEY_ADMIN"),
];

/// A larger file is not taken for a key.
pub const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Prefix of the environment variables of keys.
const VARIABLE_PREFIX: &str = "COM_BROKER_KEY_";

/// Checks that variables with the prefix of keys name one. Ignored, a misspelt variable would leave a
/// different key in force.
///
/// # Errors
/// A variable names no key.
pub fn check_key_variables(names: impl Iterator<Item = String>) -> Result<(), ConfigFault> {
    let known = NAMES.map(|(_, variable)| variable);
    for name in names.filter(|name| name.starts_with(VARIABLE_PREFIX)) {
        if !known.contains(&name.as_str()) {
            let meant = suggestion(&name, known.iter().copied()).map(str::to_owned);
            let offence = Offence::UnknownVariable(meant);
            return Err(ConfigFault { place: Place::Environment(name), offence });
        }
    }
    Ok(())
}

/// The keys in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyChoice {
    pub(super) keys: Keys,
    /// Whether none were set.
    pub(super) are_development: bool,
    /// Whether none of them is well known.
    pub(super) are_own: bool,
    /// Whether at least one of them is not well known.
    pub(super) some_are_own: bool,
    /// Their files that other users can read.
    pub(super) exposures: Vec<Exposure>,
}

/// The conditions under which well-known keys are refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// An address at which other machines can reach the broker.
    pub(super) exposed: Option<SocketAddr>,
    /// Whether a reload would replace own keys by them.
    pub(super) held_are_own: bool,
    /// Whether a reload would replace at least one own key.
    pub(super) held_some_own: bool,
}

/// Takes each key from the environment, then from the file.
pub(super) fn resolve(
    source: &Source<'_>,
    section: &KeysSection,
    environment: Environment<'_>,
    rule: Rule,
) -> Result<KeyChoice, ConfigFault> {
    let mut given = Vec::new();
    let mut missing = Vec::new();
    for ((name, variable), (value, path)) in NAMES.into_iter().zip(section.in_order()) {
        match find(source, (name, variable), (value, path), environment)? {
            Some(key) => given.push(key),
            None => missing.push(name),
        }
    }
    match <[Given; 5]>::try_from(given) {
        Ok(given) => accept(&given, rule),
        Err(given) if given.is_empty() => development(source, rule),
        Err(given) => {
            let variables = given.iter().filter_map(Given::variable).collect();
            Err(source.fault("keys", Offence::KeysMissing { missing, variables }))
        }
    }
}

/// A key and its place.
struct Given {
    name: &'static str,
    value: Secret,
    place: Place,
    exposure: Option<Exposure>,
}

impl Given {
    /// The environment variable that gives it, if one does, and whether that is empty.
    fn variable(&self) -> Option<(&'static str, bool)> {
        let Place::Environment(_) = self.place else { return None };
        let (_, variable) = NAMES.into_iter().find(|(name, _)| *name == self.name)?;
        Some((variable, self.value.reveal().is_empty()))
    }
}

fn find(
    source: &Source<'_>,
    (name, variable): (&'static str, &'static str),
    (value, path): (Option<&Secret>, Option<&Path>),
    environment: Environment<'_>,
) -> Result<Option<Given>, ConfigFault> {
    let place = |suffix| source.place(&format!("keys.{name}{suffix}"));
    if value.is_some() && path.is_some() {
        return Err(ConfigFault { place: place("_file"), offence: Offence::KeyTwice });
    }
    if let Some(value) = environment(variable) {
        let value = Secret::new(value);
        let place = Place::Environment(variable.into());
        return Ok(Some(Given { name, value, place, exposure: None }));
    }
    if let Some(value) = value {
        let value = value.clone();
        return Ok(Some(Given { name, value, place: place(""), exposure: None }));
    }
    let Some(path) = path else { return Ok(None) };
    let place = place("_file");
    match read(&source.beside(path)) {
        Ok((value, exposure)) => Ok(Some(Given { name, value, place, exposure })),
        Err(offence) => Err(ConfigFault { place, offence }),
    }
}

/// Reads a file that holds a key, without the line end that editors add.
fn read(path: &Path) -> Result<(Secret, Option<Exposure>), Offence> {
    let (mut text, exposure) =
        Input::read_text(path, KEY_FILE_BYTES_MAX).map_err(|reason| match path.try_exists() {
            Ok(true) => Offence::KeyFile(path.into(), reason.to_string()),
            // Any text may be a key, whether it looks like the name of a file or not.
            Ok(false) => Offence::KeyForFile("there is no such file".into()),
            Err(reason) => Offence::KeyForFile(format!("no file can be found: {reason}")),
        })?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok((Secret::new(text), exposure))
}

fn accept(given: &[Given; 5], rule: Rule) -> Result<KeyChoice, ConfigFault> {
    let well_known = given.iter().find(|key| is_well_known(key.value.reveal()));
    let some_are_own = given.iter().any(|key| !is_well_known(key.value.reveal()));
    if let Some(key) = well_known {
        let offence = match rule.exposed {
            Some(address) => Some(Offence::WellKnownKey(address)),
            None => {
                let loses_all = rule.held_some_own && !some_are_own;
                (rule.held_are_own || loses_all).then_some(Offence::KeysHeld)
            }
        };
        if let Some(offence) = offence {
            return Err(ConfigFault { place: key.place.clone(), offence });
        }
    }
    let [application, profiles @ ..] = given.each_ref().map(|key| key.value.reveal());
    match Keys::new(application, profiles) {
        Ok(keys) => Ok(KeyChoice {
            keys,
            are_development: false,
            are_own: well_known.is_none(),
            some_are_own,
            exposures: given.iter().filter_map(|key| key.exposure.clone()).collect(),
        }),
        Err(fault) => {
            Err(ConfigFault { place: place_of(fault, given), offence: Offence::Key(fault) })
        }
    }
}

fn place_of(fault: KeyFault, given: &[Given; 5]) -> Place {
    let (KeyFault::Empty(name) | KeyFault::ForbiddenCharacter(name) | KeyFault::Equal(_, name)) =
        fault;
    let key = given.iter().find(|key| key.name == name);
    key.map_or_else(|| Place::Setting(format!("keys.{name}")), |key| key.place.clone())
}

fn development(source: &Source<'_>, rule: Rule) -> Result<KeyChoice, ConfigFault> {
    if let Some(address) = rule.exposed {
        return Err(source.fault("keys", Offence::NoKeys(address)));
    }
    if rule.held_some_own {
        return Err(source.fault("keys", Offence::KeysHeld));
    }
    let keys = Keys::new(DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS)
        .expect("the development keys obey the rules");
    Ok(KeyChoice {
        keys,
        are_development: true,
        are_own: false,
        some_are_own: false,
        exposures: Vec::new(),
    })
}

fn is_well_known(key: &str) -> bool {
    well_known_keys().any(|known| key == known)
}

/// Whether all keys are well-known ones, in whatever role.
pub(super) fn are_all_well_known(keys: &Keys) -> bool {
    let known = || well_known_keys().map(str::as_bytes);
    let has_profile = |profile| known().any(|key| keys.profile_of(key) == Some(profile));
    known().any(|key| keys.opens_application(key)) && Profile::ALL.into_iter().all(has_profile)
}

/// Whether any of the keys is a well-known one, in whatever role.
pub(super) fn are_well_known(keys: &Keys) -> bool {
    well_known_keys().any(|key| {
        keys.opens_application(key.as_bytes()) || keys.profile_of(key.as_bytes()).is_some()
    })
}

/// The keys of development mode.
pub(super) fn well_known_keys() -> impl Iterator<Item = &'static str> {
    let of_profiles = DEVELOPMENT_PROFILE_KEYS.iter().map(|(_, key)| *key);
    of_profiles.chain([DEVELOPMENT_APPLICATION_KEY])
}
