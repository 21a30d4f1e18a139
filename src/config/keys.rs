//! Where each key comes from, and the rule that well-known keys never leave the machine.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Environment;
use super::fault::{ConfigFault, Offence, Place};
use super::file::{KeysSection, Secret};
use super::origin::Origin;
use crate::broker::{KeyFault, Keys};

/// The application key of development mode. Everybody knows it.
pub const DEVELOPMENT_APPLICATION_KEY: &str = "my_app_secret_key";

/// The profile keys of development mode, in the order of the profiles. Everybody knows them.
pub const DEVELOPMENT_PROFILE_KEYS: [&str; 4] = [
    "my_agent_secret_key",
    "my_super_agent_secret_key",
    "my_service_secret_key",
    "my_admin_secret_key",
];

/// The names of the keys in the file, and of the variables that overrule them.
const SOURCES: [(&str, &str); 5] = [
    ("application", "COM_BROKER_KEY_APPLICATION"),
    ("agent", "COM_BROKER_KEY_AGENT"),
    ("super_agent", "COM_BROKER_KEY_SUPER_AGENT"),
    ("service", "COM_BROKER_KEY_SERVICE"),
    ("admin", "COM_BROKER_KEY_ADMIN"),
];

/// Larger files are certainly not a key.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// The keys in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyChoice {
    pub(super) keys: Keys,
    pub(super) are_development: bool,
}

/// Takes each key from the environment, then from the file. `exposed` is an address at which
/// others can reach the broker, if there is one.
pub(super) fn resolve(
    origin: &Origin<'_>,
    section: &KeysSection,
    environment: Environment<'_>,
    exposed: Option<SocketAddr>,
) -> Result<KeyChoice, ConfigFault> {
    let mut given = Vec::new();
    let mut missing = Vec::new();
    for ((name, variable), (value, path)) in SOURCES.into_iter().zip(section.in_order()) {
        match find(origin, (name, variable), (value, path), environment)? {
            Some(key) => given.push(key),
            None => missing.push(name),
        }
    }
    match <[Given; 5]>::try_from(given) {
        Ok(given) => accept(&given, exposed),
        Err(given) if given.is_empty() => development(origin, exposed),
        Err(_) => Err(origin.fault("keys", Offence::KeysMissing(missing))),
    }
}

/// A key, and where it was found.
struct Given {
    name: &'static str,
    value: Secret,
    place: Place,
}

fn find(
    origin: &Origin<'_>,
    (name, variable): (&'static str, &'static str),
    (value, path): (Option<&Secret>, Option<&Path>),
    environment: Environment<'_>,
) -> Result<Option<Given>, ConfigFault> {
    let place = |suffix| origin.place(&format!("keys.{name}{suffix}"));
    if value.is_some() && path.is_some() {
        return Err(ConfigFault { place: place("_file"), offence: Offence::KeyTwice });
    }
    if let Some(value) = environment(variable) {
        let value = Secret::new(value);
        return Ok(Some(Given { name, value, place: Place::Environment(variable) }));
    }
    if let Some(value) = value {
        return Ok(Some(Given { name, value: value.clone(), place: place("") }));
    }
    let Some(path) = path else { return Ok(None) };
    let place = place("_file");
    match read(&origin.beside(path)) {
        Ok(value) => Ok(Some(Given { name, value, place })),
        Err(offence) => Err(ConfigFault { place, offence }),
    }
}

/// Reads a file that holds a key, and perhaps the line end that editors add.
fn read(path: &PathBuf) -> Result<Secret, Offence> {
    let fault = |reason: &str| Offence::KeyFile(path.clone(), reason.into());
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|reason| fault(&reason.to_string()))?;
    if text.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(fault("too large to be a key"));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(Secret::new(text))
}

fn accept(given: &[Given; 5], exposed: Option<SocketAddr>) -> Result<KeyChoice, ConfigFault> {
    let well_known = given.iter().find(|key| is_well_known(key.value.reveal()));
    if let (Some(key), Some(address)) = (well_known, exposed) {
        let offence = Offence::WellKnownKey(address);
        return Err(ConfigFault { place: key.place.clone(), offence });
    }
    let [application, profiles @ ..] = given.each_ref().map(|key| key.value.reveal());
    match Keys::new(application, profiles) {
        Ok(keys) => Ok(KeyChoice { keys, are_development: false }),
        Err(fault) => {
            Err(ConfigFault { place: place_of(fault, given), offence: Offence::Key(fault) })
        }
    }
}

fn place_of(fault: KeyFault, given: &[Given; 5]) -> Place {
    let (KeyFault::Empty(name) | KeyFault::ForbiddenCharacter(name) | KeyFault::Equal(_, name)) =
        fault;
    let key = given.iter().find(|key| key.name == name);
    key.map_or_else(|| Place::Unset(format!("keys.{name}")), |key| key.place.clone())
}

fn development(origin: &Origin<'_>, exposed: Option<SocketAddr>) -> Result<KeyChoice, ConfigFault> {
    if let Some(address) = exposed {
        return Err(origin.fault("keys", Offence::NoKeys(address)));
    }
    let keys = Keys::new(DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS)
        .expect("the development keys obey the rules");
    Ok(KeyChoice { keys, are_development: true })
}

fn is_well_known(key: &str) -> bool {
    key == DEVELOPMENT_APPLICATION_KEY || DEVELOPMENT_PROFILE_KEYS.contains(&key)
}
