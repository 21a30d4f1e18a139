//! Admission: decides from the credentials in CONNECT who a client is and what it may do.

use std::rc::Rc;

use super::fault::{Code, Fault, Retry};
use super::keys::Keys;
use super::rights::Rights;
use crate::profile::{ByProfile, Profile};
use crate::stomp::{Headers, Name};

/// The credentials in CONNECT. They hold secrets, so there is no `Debug`.
pub(super) struct Credentials<'a> {
    /// The login id that the client asks for.
    pub(super) login: &'a [u8],
    application_key: &'a [u8],
    profile_key: &'a [u8],
}

impl<'a> Credentials<'a> {
    /// The credentials in a classic CONNECT.
    pub(super) fn of_classic(headers: &Headers<'a>) -> Result<Self, Fault> {
        let required = |name| headers.value(name).ok_or_else(|| Fault::missing(name));
        let application_key = required(Name::SecretKey)?;
        let login = required(Name::Login)?;
        let profile_key = required(Name::Passcode)?;
        Ok(Self { login, application_key, profile_key })
    }

    /// The credentials in a CONNECT of the standard dialect. A client that cannot add a header sends both
    /// keys in `passcode`, with a dot between; keys hold no dots.
    pub(super) fn of_standard(headers: &Headers<'a>) -> Result<Self, Fault> {
        let required = |name| headers.value(name).ok_or_else(|| Fault::missing(name));
        let login = required(Name::Login)?;
        let passcode = required(Name::Passcode)?;
        let (application_key, profile_key) = match headers.value(Name::SecretKey) {
            Some(key) => (key, passcode),
            None => match memchr::memchr(b'.', passcode) {
                Some(dot) => (&passcode[..dot], &passcode[dot + 1..]),
                None => {
                    return Err(Fault::closing(Code::MissingHeader, Retry::Never, NO_SECRET_KEY));
                }
            },
        };
        Ok(Self { login, application_key, profile_key })
    }
}

const NO_SECRET_KEY: &str = "the header secret-key is missing; a client that cannot send it gives both \
                             keys as passcode: application-key.profile-key";

/// The profile and the rights of an admitted client.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) profile: Profile,
    /// Shared by all clients with the same rights.
    pub(super) rights: Rc<Rights>,
}

/// The keys that admit clients, and the rights that they grant.
#[derive(Debug)]
pub(super) struct Admission {
    keys: Keys,
    rights: ByProfile<Rc<Rights>>,
}

impl Admission {
    /// Admits clients with these keys, and grants the rights of their profiles.
    pub(super) fn new(keys: Keys, rights: ByProfile<Rights>) -> Self {
        Self { keys, rights: rights.map(Rc::new) }
    }

    /// Replaces the keys. Clients that were admitted before stay.
    pub(super) fn set_keys(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Decides who a client is, by its keys. The login id is checked elsewhere.
    pub(super) fn admit(&self, credentials: &Credentials<'_>) -> Result<Grant, Fault> {
        if !self.keys.opens_application(credentials.application_key) {
            let description = "the application key (secret-key) is wrong";
            return Err(Fault::closing(Code::InvalidApplicationKey, Retry::Never, description));
        }
        let Some(profile) = self.keys.profile_of(credentials.profile_key) else {
            let description = "the profile key (passcode) is wrong";
            return Err(Fault::closing(Code::InvalidProfileKey, Retry::Never, description));
        };
        Ok(Grant { profile, rights: Rc::clone(&self.rights[profile]) })
    }

    /// Whether a login id is a key, or both in the form of a passcode: others would see it. Parts of it are
    /// not looked at, so that a login id tries no more keys than a passcode does.
    pub(super) fn is_key(&self, login: &[u8]) -> bool {
        if self.keys.opens_application(login) || self.keys.profile_of(login).is_some() {
            return true;
        }
        let Some(dot) = memchr::memchr(b'.', login) else { return false };
        let (application_key, profile_key) = (&login[..dot], &login[dot + 1..]);
        self.keys.opens_application(application_key) && self.keys.profile_of(profile_key).is_some()
    }

    /// Whether a text holds one of the keys and so must not be shown.
    pub(super) fn has_key_in(&self, text: &[u8]) -> bool {
        self.keys.appear_in(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::Disposition;
    use super::*;

    fn admission() -> Admission {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        Admission::new(keys, ByProfile::from_fn(Rights::standard))
    }

    fn credentials<'a>(application_key: &'a str, profile_key: &'a str) -> Credentials<'a> {
        let (application_key, profile_key) = (application_key.as_bytes(), profile_key.as_bytes());
        Credentials { login: b"ana", application_key, profile_key }
    }

    #[test]
    fn each_profile_key_grants_the_profile_and_its_rights() {
        let admission = admission();
        for (profile, key) in ByProfile::new(["agent", "super", "service", "admin"]).iter() {
            let grant = admission.admit(&credentials("app", key)).unwrap();
            assert_eq!((grant.profile, &*grant.rights), (profile, &Rights::standard(profile)));
            let other = admission.admit(&credentials("app", key)).unwrap();
            assert!(Rc::ptr_eq(&grant.rights, &other.rights), "rights are shared");
        }
    }

    #[test]
    fn a_fault_names_the_header_of_the_wrong_key_and_never_shows_the_key() {
        for (application_key, profile_key, code) in [
            ("secret-1", "agent", Code::InvalidApplicationKey),
            ("secret-1", "secret-2", Code::InvalidApplicationKey),
            ("app", "secret-2", Code::InvalidProfileKey),
            ("app", "app", Code::InvalidProfileKey),
            ("agent", "app", Code::InvalidApplicationKey),
            ("", "", Code::InvalidApplicationKey),
        ] {
            let fault = admission().admit(&credentials(application_key, profile_key)).unwrap_err();
            assert_eq!((fault.code, fault.disposition), (code, Disposition::Closes(Retry::Never)));
            assert!(!fault.description.contains("secret-1"), "{}", fault.description);
            assert!(!fault.description.contains("secret-2"), "{}", fault.description);
        }
    }

    #[test]
    fn replaced_keys_no_longer_admit_anyone() {
        let mut admission = admission();
        admission.set_keys(Keys::new("app", ["other", "super", "service", "admin"]).unwrap());
        assert!(admission.admit(&credentials("app", "agent")).is_err());
        assert_eq!(admission.admit(&credentials("app", "other")).unwrap().profile, Profile::Agent);
    }
}
