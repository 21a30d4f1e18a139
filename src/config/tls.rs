//! The source of the certificate.

use std::path::{Path, PathBuf};

use super::Overrides;
use super::fault::{ConfigFault, Offence, Place};
use super::file::TlsSection;
use super::listener::Listener;
use super::source::Source;
use crate::transport::TlsMode;

/// Default directory of development certificates.
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
    /// Files that are made on demand and kept.
    Development {
        /// Their directory.
        directory: PathBuf,
    },
}

/// The places that name the two files of a certificate, for messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsPlaces {
    /// That of the certificate; absent for a development one.
    pub certificate: Option<Place>,
    /// That of its key.
    pub key: Option<Place>,
}

/// Takes each path from the command line, then from the file. Without paths there is a development
/// certificate, unless other machines can reach a listener with TLS.
pub(super) fn resolve(
    source: &Source<'_>,
    section: &TlsSection,
    overrides: &Overrides,
    listeners: &[Listener],
) -> Result<(Option<TlsSource>, TlsPlaces), ConfigFault> {
    let choose = |argument: &Option<PathBuf>, in_file: &Option<PathBuf>| {
        let in_file = || in_file.as_deref().map(|path| source.beside(path));
        argument.clone().or_else(in_file)
    };
    let certificate = choose(&overrides.tls_certificate, &section.certificate);
    let key = choose(&overrides.tls_key, &section.key);
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let place = |argument: &Option<PathBuf>, flag, key| match argument {
                Some(_) => Some(Place::Flag(flag)),
                None => Some(source.place(key)),
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
        (Some(_), None) => Err(incomplete(source, overrides, "key")),
        (None, Some(_)) => Err(incomplete(source, overrides, "certificate")),
        (None, None) => {
            development(source, section, listeners).map(|tls| (tls, TlsPlaces::default()))
        }
    }
}

fn incomplete(source: &Source<'_>, overrides: &Overrides, missing: &'static str) -> ConfigFault {
    let place = match (&overrides.tls_certificate, &overrides.tls_key) {
        (Some(_), _) => Place::Flag("--tls-certificate"),
        (None, Some(_)) => Place::Flag("--tls-key"),
        (None, None) => source.place("tls"),
    };
    ConfigFault { place, offence: Offence::TlsIncomplete(missing) }
}

fn development(
    source: &Source<'_>,
    section: &TlsSection,
    listeners: &[Listener],
) -> Result<Option<TlsSource>, ConfigFault> {
    let mut secured = listeners.iter().filter(|listener| listener.policy.tls != TlsMode::Off);
    if secured.clone().next().is_none() {
        return Ok(None);
    }
    if let Some(listener) = secured.find(|listener| !listener.is_loopback()) {
        return Err(source.fault("tls", Offence::NoCertificate(listener.address)));
    }
    let directory = section.development_directory.as_deref();
    let directory = directory.map(|path| source.beside(path));
    let directory = directory.unwrap_or_else(|| Path::new(DEVELOPMENT_DIRECTORY).into());
    Ok(Some(TlsSource::Development { directory }))
}
