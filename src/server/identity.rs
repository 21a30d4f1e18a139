//! The TLS identity for rustls: certificate chain and private key from PEM files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{Error, ServerConfig, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::certificates::{self, CertificateFault};
use super::pem::{PemFault, read_certificates, read_key};
use super::trust::{provider, validity_fault, verify};
use crate::config::{Place, TlsPlaces, TlsSource};
use crate::input::{Exposure, shown};
use crate::transport::tls::TlsService;
use crate::work;

/// Reads the identity. A development identity that is missing, incomplete or expired is made first.
///
/// # Errors
/// A file cannot be used; the fault names the file and its setting.
pub(crate) fn load(source: &TlsSource, places: &TlsPlaces) -> Result<TlsService, IdentityFault> {
    let identity = match source {
        TlsSource::Files { certificate, key } => {
            let identity = Identity::read(certificate, key).map_err(|fault| fault.at(places))?;
            if let Some(reason) = validity_fault(&identity.chain, UnixTime::now()) {
                let reason = reason.to_string();
                log::warn!(file = certificate.to_string_lossy(), reason; "certificate out of date");
            }
            identity
        }
        TlsSource::Development { directory } => load_development(directory, UnixTime::now())?,
    };
    if let Some(exposure) = &identity.exposure {
        warn_of(exposure);
    }
    Ok(identity.service)
}

/// Logs that other users can read a file with a secret.
pub(crate) fn warn_of(exposure: &Exposure) {
    let Exposure { path, mode } = exposure;
    log::warn!(
        file = path.to_string_lossy(), mode:% = format_args!("{mode:04o}"), advice = "chmod 600";
        "others than its owner can read or change a file with a secret in it"
    );
}

/// Reads the identity without making one. Returns whether other users can read its private key.
///
/// # Errors
/// Those of [`load`]. A development identity is not checked.
pub(crate) fn check(
    source: &TlsSource,
    places: &TlsPlaces,
) -> Result<Option<Exposure>, IdentityFault> {
    match source {
        TlsSource::Files { certificate, key } => Identity::read(certificate, key)
            .map(|identity| identity.exposure)
            .map_err(|fault| fault.at(places)),
        TlsSource::Development { .. } => Ok(None),
    }
}

/// Why an identity cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum IdentityFault {
    /// The file with the certificate cannot be used.
    Certificate(PemFault),
    /// The file with its private key cannot be used.
    Key(PemFault),
    /// The private key in the second file is not that of the certificate in the first.
    Mismatch(PathBuf, PathBuf),
    /// TLS cannot be served with the certificate in this file, and why.
    UnusableCertificate(PathBuf, String),
    /// TLS cannot be served with the private key in this file, and why.
    UnusableKey(PathBuf, String),
    /// The development identity cannot be made.
    Development(CertificateFault),
    /// One of the other faults, with the setting that names the file.
    At(Place, Box<Self>),
}

impl IdentityFault {
    fn at(self, places: &TlsPlaces) -> Self {
        let place = match &self {
            Self::Certificate(_) | Self::UnusableCertificate(..) => &places.certificate,
            Self::Key(_) | Self::Mismatch(..) | Self::UnusableKey(..) => &places.key,
            Self::Development(_) | Self::At(..) => &None,
        };
        match place {
            Some(place) => Self::At(place.clone(), Box::new(self)),
            None => self,
        }
    }
}

impl fmt::Display for IdentityFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(fault) | Self::Key(fault) => fault.fmt(out),
            Self::Mismatch(certificate, key) => write!(
                out,
                "{}: not the private key of the certificate in {}",
                shown(key),
                shown(certificate)
            ),
            Self::UnusableCertificate(path, reason) | Self::UnusableKey(path, reason) => {
                write!(out, "{}: {reason}", shown(path))
            }
            Self::Development(fault) => fault.fmt(out),
            Self::At(place, fault) => write!(out, "{place}: {fault}"),
        }
    }
}

impl std::error::Error for IdentityFault {}

impl From<CertificateFault> for IdentityFault {
    fn from(fault: CertificateFault) -> Self {
        Self::Development(fault)
    }
}

fn load_development(directory: &Path, now: UnixTime) -> Result<Identity, IdentityFault> {
    let paths = certificates::Paths::within(directory);
    let is_first = !paths.any_exists();
    let defect = match read_development(&paths, now) {
        Ok(identity) => return Ok(identity),
        Err(defect) => defect,
    };
    certificates::renew(&paths, now)?;
    let certificate = paths.server_certificate.to_string_lossy();
    let authority = paths.authority_certificate.to_string_lossy();
    if is_first {
        log::info!(
            certificate, authority;
            "made a development certificate, as there was none yet"
        );
    } else {
        log::info!(
            certificate, authority, reason = defect;
            "made a new development certificate in place of one that cannot be used"
        );
    }
    Identity::read(&paths.server_certificate, &paths.server_key)
}

/// The existing development identity, or why it cannot be used.
fn read_development(paths: &certificates::Paths, now: UnixTime) -> Result<Identity, String> {
    let identity = Identity::read(&paths.server_certificate, &paths.server_key)
        .map_err(|fault| fault.to_string())?;
    let authority =
        read_certificates(&paths.authority_certificate).map_err(|fault| fault.to_string())?;
    let verified = verify(&identity.chain, &authority[0], certificates::DEVELOPMENT_NAME, now);
    verified.map(|()| identity).map_err(|fault| fault.to_string())
}

#[derive(Debug)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    service: TlsService,
    /// Set if other users can read the private key.
    exposure: Option<Exposure>,
}

impl Identity {
    fn read(certificate: &Path, key: &Path) -> Result<Self, IdentityFault> {
        let chain = read_certificates(certificate).map_err(IdentityFault::Certificate)?;
        let (secret, exposure) = read_key(key).map_err(IdentityFault::Key)?;
        let signature_units = signature_units(&secret);
        // All clients get the one certificate, with or without a server name.
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain.clone(), secret));
        match config {
            Ok(mut config) => {
                // The server's order of cipher suites has the cheapest first.
                config.ignore_client_order = true;
                // One ticket is enough to resume, and each costs a key derivation.
                config.send_tls13_tickets = 1;
                let service = TlsService { config: Arc::new(config), signature_units };
                Ok(Self { chain, service, exposure })
            }
            Err(Error::InconsistentKeys(_)) => {
                Err(IdentityFault::Mismatch(certificate.into(), key.into()))
            }
            Err(fault @ Error::InvalidCertificate(_)) => {
                Err(IdentityFault::UnusableCertificate(certificate.into(), fault.to_string()))
            }
            Err(fault) => Err(IdentityFault::UnusableKey(key.into(), fault.to_string())),
        }
    }
}

/// Units of work that a handshake with this key takes.
fn signature_units(secret: &PrivateKeyDer<'_>) -> u32 {
    let Ok(key) = provider().key_provider.load_private_key(secret.clone_key()) else {
        return work::HANDSHAKE;
    };
    match key.algorithm() {
        SignatureAlgorithm::ECDSA => {
            let is_short = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).is_some();
            if is_short { work::HANDSHAKE_SHORT } else { work::HANDSHAKE }
        }
        SignatureAlgorithm::ED25519 => work::HANDSHAKE_SHORT,
        SignatureAlgorithm::RSA => {
            // The time grows with the cube of the key's size.
            let bytes =
                (secret.secret_der().len() as u64).clamp(RSA_2048_BYTES / 2, 4 * RSA_2048_BYTES);
            (u64::from(work::HANDSHAKE) * bytes.pow(3) / RSA_2048_BYTES.pow(3)) as u32
        }
        _ => work::HANDSHAKE,
    }
}

/// Size of a private key of RSA with 2048 bits, about.
const RSA_2048_BYTES: u64 = 1_200;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::crypto::ring;
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::server::certificates::{Order, Paths, make};
    use crate::server::scratch::Scratch;

    fn made(name: &str) -> (Scratch, Paths) {
        let scratch = Scratch::new(name);
        let paths = Paths::within(&scratch.0);
        make(&paths, &Order { names: Vec::new(), days: 30, force: false }).unwrap();
        (scratch, paths)
    }

    fn in_days(days: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + days * 86_400))
    }

    fn fault(certificate: &Path, key: &Path) -> String {
        let source = TlsSource::Files { certificate: certificate.into(), key: key.into() };
        let places = TlsPlaces {
            certificate: Some(Place::Flag("--tls-certificate")),
            key: Some(Place::Flag("--tls-key")),
        };
        check(&source, &places).unwrap_err();
        load(&source, &places).unwrap_err().to_string()
    }

    #[test]
    fn a_development_identity_is_made_once_and_used_again() {
        let scratch = Scratch::new("development");
        let directory = scratch.0.join("certs");
        let source = TlsSource::Development { directory: directory.clone() };
        let places = TlsPlaces::default();
        check(&source, &places).unwrap();
        assert!(!directory.exists());
        load(&source, &places).unwrap();
        let first = fs::read(directory.join("server.pem")).unwrap();
        load(&source, &places).unwrap();
        assert_eq!(fs::read(directory.join("server.pem")).unwrap(), first);
    }

    #[test]
    fn an_expired_development_certificate_is_renewed_by_the_same_authority() {
        let (scratch, paths) = made("expired");
        let authority = fs::read(&paths.authority_certificate).unwrap();
        let before = fs::read(&paths.server_certificate).unwrap();
        load_development(&scratch.0, in_days(29)).unwrap();
        assert_eq!(fs::read(&paths.server_certificate).unwrap(), before);
        load_development(&scratch.0, in_days(31)).unwrap();
        assert_ne!(fs::read(&paths.server_certificate).unwrap(), before);
        assert_eq!(fs::read(&paths.authority_certificate).unwrap(), authority);
        read_development(&paths, in_days(31)).unwrap();
    }

    #[test]
    fn a_certificate_that_was_not_made_here_is_not_replaced() {
        let (scratch, paths) = made("own");
        fs::remove_file(&paths.authority_certificate).unwrap();
        fs::remove_file(&paths.authority_key).unwrap();
        let before = fs::read(&paths.server_key).unwrap();
        let fault = load_development(&scratch.0, in_days(0)).unwrap_err().to_string();
        assert!(fault.contains("ca.pem: "), "{fault}");
        assert_eq!(fs::read(&paths.server_key).unwrap(), before);
    }

    #[test]
    fn faults_name_the_file_and_what_is_wrong() {
        let (scratch, paths) = made("faults");
        let (certificate, key) = (&paths.server_certificate, &paths.server_key);
        let text = scratch.0.join("text");
        fs::write(&text, "hello").unwrap();
        let broken = scratch.0.join("broken");
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!\n").unwrap();
        let secret = scratch.0.join("secret");
        fs::write(
            &secret,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
        )
        .unwrap();
        let absent = scratch.0.join("absent");
        let directory = &scratch.0;
        for (certificate, key, expected) in [
            (&absent, key, ["--tls-certificate: ", "absent: No such file"]),
            (directory, key, ["--tls-certificate: ", "a directory, and not a regular file"]),
            (&text, key, ["--tls-certificate: ", "text: not a PEM file"]),
            (&broken, key, ["--tls-certificate: ", "broken: not a PEM file"]),
            (key, key, ["--tls-certificate: ", "server.key: holds no certificate"]),
            (certificate, certificate, ["--tls-key: ", "server.pem: holds no private key"]),
            (certificate, &absent, ["--tls-key: ", "absent: No such file"]),
            (certificate, &text, ["--tls-key: ", "text: not a PEM file"]),
            (certificate, &secret, ["--tls-key: ", "secret: the private key has a pass phrase"]),
            (
                certificate,
                &paths.authority_key,
                ["--tls-key: ", "ca.key: not the private key of the certificate"],
            ),
        ] {
            let fault = fault(certificate, key);
            let [place, defect] = expected;
            assert!(fault.starts_with(place) && fault.contains(defect), "{fault}");
        }
    }

    #[test]
    fn a_handshake_costs_what_its_key_does() {
        let (_scratch, paths) = made("prices");
        let identity = Identity::read(&paths.server_certificate, &paths.server_key).unwrap();
        assert_eq!(identity.service.signature_units, work::HANDSHAKE_SHORT, "P-256");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        assert_eq!(signature_units(&secret), work::HANDSHAKE);
    }

    #[test]
    fn an_expired_or_future_certificate_is_noticed() {
        let (_scratch, paths) = made("dates");
        let identity = Identity::read(&paths.server_certificate, &paths.server_key).unwrap();
        assert_eq!(validity_fault(&identity.chain, in_days(0)), None);
        assert!(validity_fault(&identity.chain, in_days(31)).is_some());
        let epoch = UnixTime::since_unix_epoch(Duration::ZERO);
        assert!(validity_fault(&identity.chain, epoch).is_some());
    }

    #[test]
    fn handshakes_of_both_tls_versions_succeed_without_a_server_name() {
        let (_scratch, paths) = made("handshake");
        let identity = Identity::read(&paths.server_certificate, &paths.server_key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read_certificates(&paths.authority_certificate).unwrap().remove(0)).unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client =
                rustls::ClientConfig::builder_with_provider(ring::default_provider().into())
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(roots.clone())
                    .with_no_client_auth();
            // An address is never sent as a server name.
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
            let mut server =
                rustls::ServerConnection::new(identity.service.config.clone()).unwrap();
            while client.is_handshaking() || server.is_handshaking() {
                let mut wire = Vec::new();
                client.write_tls(&mut wire).unwrap();
                feed(&mut server, &wire);
                wire.clear();
                server.write_tls(&mut wire).unwrap();
                feed(&mut client, &wire);
            }
            assert_eq!(server.protocol_version(), Some(version.version));
            let suite = server.negotiated_cipher_suite().unwrap().suite();
            assert!(format!("{suite:?}").contains("AES_128_GCM_SHA256"), "{suite:?}");
        }
    }

    fn feed<Side>(
        connection: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<Side>>,
        mut wire: &[u8],
    ) {
        while !wire.is_empty() {
            connection.read_tls(&mut wire).unwrap();
            connection.process_new_packets().unwrap();
        }
    }
}
