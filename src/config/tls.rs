//! Where the certificate comes from.

use std::path::{Path, PathBuf};

use super::Overrides;
use super::fault::{ConfigFault, Offence, Place};
use super::file::TlsSection;
use super::listener::Listener;
use super::origin::Origin;
use crate::transport::TlsMode;

/// Where development certificates are kept unless the file says otherwise.
const DEVELOPMENT_DIRECTORY: &str = "certs";

/// The source of the server's certificate and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsSource {
    /// PEM files.
    Files {
        /// The chain, the server's own certificate first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Made on demand, and kept for the next time.
    Development {
        /// Where they are kept.
        directory: PathBuf,
    },
}

/// Where the two files of a certificate are named, for messages about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsPlaces {
    /// What names the certificate; absent where it is a development one.
    pub certificate: Option<Place>,
    /// What names its key.
    pub key: Option<Place>,
}

/// Takes each path from the command line, then from the file. Without any there is a development
/// certificate, unless others could be shown it.
pub(super) fn resolve(
    origin: &Origin<'_>,
    section: &TlsSection,
    overrides: &Overrides,
    listeners: &[Listener],
) -> Result<(Option<TlsSource>, TlsPlaces), ConfigFault> {
    let choose = |argument: &Option<PathBuf>, in_file: &Option<PathBuf>| {
        let in_file = || in_file.as_deref().map(|path| origin.beside(path));
        argument.clone().or_else(in_file)
    };
    let certificate = choose(&overrides.tls_certificate, &section.certificate);
    let key = choose(&overrides.tls_key, &section.key);
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let place = |argument: &Option<PathBuf>, flag, key| match argument {
                Some(_) => Some(Place::Flag(flag)),
                None => Some(origin.place(key)),
            };
            let places = TlsPlaces {
                certificate: place(
                    &overrides.tls_certificate,
                    "--tls-certificate",
                    "tls.certificate",
                ),
                key: place(&overrides.tls_key, "--tls-key", "tls.key"),
            };
            Ok((Some(TlsSource::Files { certificate, key }), places))
        }
        (Some(_), None) => Err(incomplete(origin, overrides, "key")),
        (None, Some(_)) => Err(incomplete(origin, overrides, "certificate")),
        (None, None) => {
            development(origin, section, listeners).map(|source| (source, TlsPlaces::default()))
        }
    }
}

fn incomplete(origin: &Origin<'_>, overrides: &Overrides, missing: &'static str) -> ConfigFault {
    let place = match (&overrides.tls_certificate, &overrides.tls_key) {
        (Some(_), _) => Place::Flag("--tls-certificate"),
        (None, Some(_)) => Place::Flag("--tls-key"),
        (None, None) => origin.place("tls"),
    };
    ConfigFault { place, offence: Offence::TlsIncomplete(missing) }
}

fn development(
    origin: &Origin<'_>,
    section: &TlsSection,
    listeners: &[Listener],
) -> Result<Option<TlsSource>, ConfigFault> {
    let mut secured = listeners.iter().filter(|listener| listener.policy.tls != TlsMode::Off);
    if secured.clone().next().is_none() {
        return Ok(None);
    }
    if let Some(listener) = secured.find(|listener| !listener.is_loopback()) {
        return Err(origin.fault("tls", Offence::NoCertificate(listener.address)));
    }
    let directory = section.development_directory.as_deref();
    let directory = directory.map(|path| origin.beside(path));
    let directory = directory.unwrap_or_else(|| Path::new(DEVELOPMENT_DIRECTORY).into());
    Ok(Some(TlsSource::Development { directory }))
}
