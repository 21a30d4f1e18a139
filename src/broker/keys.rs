//! The keys that a client logs in with, and the profile that each of them opens.
//!
//! A key is never shown: `Debug` prints a placeholder, and comparison takes constant time.

use std::fmt;

use crate::profile::{ByProfile, Profile};

/// The application key and the four profile keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    application: Box<[u8]>,
    profiles: ByProfile<Box<[u8]>>,
}

impl Keys {
    /// Checks the keys against the rules of the protocol.
    ///
    /// # Errors
    /// Names the first key that is empty, holds a character that a client could not send, or equals
    /// another.
    pub fn new<'k>(
        application: &'k str,
        profiles: impl Into<ByProfile<&'k str>>,
    ) -> Result<Self, KeyFault> {
        let profiles = profiles.into();
        check("application", application)?;
        for (profile, key) in profiles.iter() {
            check(profile.key_name(), key)?;
        }
        let mut seen = vec![("application", application)];
        for (profile, key) in profiles.iter() {
            let name = profile.key_name();
            if let Some((other, _)) = seen.iter().find(|(_, other)| other == key) {
                return Err(KeyFault::Equal(other, name));
            }
            seen.push((name, *key));
        }
        Ok(Self {
            application: application.as_bytes().into(),
            profiles: profiles.map(|key| key.as_bytes().into()),
        })
    }

    /// Whether `candidate` is the application key.
    pub fn opens_application(&self, candidate: &[u8]) -> bool {
        equal_in_constant_time(&self.application, candidate)
    }

    /// Bytes of the two keys that a client of any profile needs to log in, at most.
    pub(crate) fn bytes_to_log_in(&self) -> usize {
        let longest = self.profiles.iter().map(|(_, key)| key.len()).max();
        self.application.len() + longest.unwrap_or_default()
    }

    /// Whether a text contains one of the keys and so must not be shown.
    pub fn appear_in(&self, text: &[u8]) -> bool {
        let profiles = self.profiles.iter().map(|(_, key)| key);
        let mut all = std::iter::once(&self.application).chain(profiles);
        all.any(|key| memchr::memmem::find(text, key).is_some())
    }

    /// The profile whose key `candidate` is. All four are compared, so that the time does not depend on
    /// which one matches.
    pub fn profile_of(&self, candidate: &[u8]) -> Option<Profile> {
        let mut found = None;
        for (profile, key) in self.profiles.iter() {
            if equal_in_constant_time(key, candidate) {
                found = Some(profile);
            }
        }
        found
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Keys(..)")
    }
}

/// Why keys are refused. It names the key, never its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// The named key is empty.
    Empty(&'static str),
    /// The named key holds `:`, `\`, `.`, a blank, or a control character.
    ForbiddenCharacter(&'static str),
    /// The two named keys are equal.
    Equal(&'static str, &'static str),
}

impl fmt::Display for KeyFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(name) => write!(out, "the {name} key is empty"),
            Self::ForbiddenCharacter(name) => write!(
                out,
                "the {name} key holds a colon, a backslash, a dot, a blank or a control character"
            ),
            Self::Equal(one, other) => write!(out, "the {one} key and the {other} key are equal"),
        }
    }
}

impl std::error::Error for KeyFault {}

fn check(name: &'static str, key: &str) -> Result<(), KeyFault> {
    if key.is_empty() {
        return Err(KeyFault::Empty(name));
    }
    // A dot separates the two keys if a client can send only one header.
    if key.chars().any(|c| c.is_control() || matches!(c, ':' | '\\' | '.' | ' ')) {
        return Err(KeyFault::ForbiddenCharacter(name));
    }
    Ok(())
}

fn equal_in_constant_time(secret: &[u8], candidate: &[u8]) -> bool {
    // The time depends on the length of the candidate only, which the client knows.
    let mut difference = secret.len() ^ candidate.len();
    for (index, byte) in candidate.iter().enumerate() {
        difference |= usize::from(byte ^ secret[index % secret.len()]);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new("app", ["agent", "super", "service", "admin"]).unwrap()
    }

    #[test]
    fn each_key_opens_its_profile() {
        assert!(keys().opens_application(b"app"));
        assert!(!keys().opens_application(b"apq"));
        assert!(!keys().opens_application(b"ap"));
        assert!(!keys().opens_application(b"appp"));
        assert!(!keys().opens_application(b"appapp"));
        assert!(!keys().opens_application(b""));
        assert_eq!(keys().profile_of(b"agent"), Some(Profile::Agent));
        assert_eq!(keys().profile_of(b"super"), Some(Profile::SuperAgent));
        assert_eq!(keys().profile_of(b"service"), Some(Profile::Service));
        assert_eq!(keys().profile_of(b"admin"), Some(Profile::Admin));
        assert_eq!(keys().profile_of(b"app"), None);
    }

    #[test]
    fn faults_name_the_key_and_not_its_value() {
        let fault = Keys::new("", ["a", "b", "c", "d"]).unwrap_err();
        assert_eq!(fault, KeyFault::Empty("application"));
        let fault = Keys::new("x", ["a", "b:b", "c", "d"]).unwrap_err();
        assert_eq!(fault, KeyFault::ForbiddenCharacter("super_agent"));
        let fault = Keys::new("x", ["a", "b", "a", "d"]).unwrap_err();
        assert_eq!(fault, KeyFault::Equal("agent", "service"));
        let fault = Keys::new("d", ["a", "b", "c", "d"]).unwrap_err();
        assert_eq!(fault, KeyFault::Equal("application", "admin"));
        assert_eq!(format!("{:?}", keys()), "Keys(..)");
    }
}
