//! The TLS identity: certificate chain and private key from PEM files, as rustls wants them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CertificateError, Error, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::certificates::{self, CertificateFault};
use crate::config::{Place, TlsPlaces, TlsSource};
use crate::input::{Exposure, FILE_BYTES_MAX, Input};

/// Reads the identity. Where it is a development one that is not there, has expired or does not
/// fit together, it is made first.
///
/// # Errors
/// Names the file, the setting that names it, and what is wrong with it.
pub fn load(source: &TlsSource, places: &TlsPlaces) -> Result<Arc<ServerConfig>, IdentityFault> {
    let identity = match source {
        TlsSource::Files { certificate, key } => {
            let identity = Identity::read(certificate, key).map_err(|fault| fault.at(places))?;
            if let Some(reason) = identity.validity_fault(UnixTime::now()) {
                let reason = reason.to_string();
                log::warn!("certificate out of date file={certificate:?} reason={reason:?}");
            }
            identity
        }
        TlsSource::Development { directory } => load_development(directory, UnixTime::now())?,
    };
    if let Some(exposure) = &identity.exposure {
        warn_of(exposure);
    }
    Ok(identity.config)
}

/// Tells that a file with a secret is one that others can read.
pub fn warn_of(exposure: &Exposure) {
    let Exposure { path, mode } = exposure;
    log::warn!(
        "others than its owner can read or change a file with a secret in it file={path:?} \
         mode={mode:04o} advice=\"chmod 600\""
    );
}

/// Reads the identity without making one. Says whether others can read its private key.
///
/// # Errors
/// As [`load`]. A development identity that is still to be made is none.
pub fn check(source: &TlsSource, places: &TlsPlaces) -> Result<Option<Exposure>, IdentityFault> {
    match source {
        TlsSource::Files { certificate, key } => Identity::read(certificate, key)
            .map(|identity| identity.exposure)
            .map_err(|fault| fault.at(places)),
        TlsSource::Development { .. } => Ok(None),
    }
}

/// Why there is no identity.
#[derive(Debug)]
pub enum IdentityFault {
    /// The system does not give us the file.
    Unreadable(PathBuf, std::io::Error),
    /// The file holds no PEM section, or a broken one.
    NotPem(PathBuf),
    /// The file holds PEM sections, but no certificate.
    NoCertificate(PathBuf),
    /// The file holds PEM sections, but no private key.
    NoKey(PathBuf),
    /// The private key has a pass phrase.
    KeyEncrypted(PathBuf),
    /// The private key in the second file is not that of the certificate in the first.
    Mismatch(PathBuf, PathBuf),
    /// rustls does not take them; its reason.
    Unusable(PathBuf, Error),
    /// The file with the private key cannot be read, or is no PEM file.
    InKey(Box<Self>),
    /// The development identity cannot be made.
    Development(CertificateFault),
    /// One of these, and the setting that names the file.
    At(Place, Box<Self>),
}

impl IdentityFault {
    fn at(self, places: &TlsPlaces) -> Self {
        let place = match &self {
            Self::NoCertificate(_) => &places.certificate,
            Self::NoKey(_) | Self::KeyEncrypted(_) | Self::Mismatch(..) | Self::InKey(_) => {
                &places.key
            }
            Self::Unusable(_, Error::InvalidCertificate(_)) => &places.certificate,
            Self::Unusable(..) => &places.key,
            Self::Unreadable(..) | Self::NotPem(_) => &places.certificate,
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
            Self::Unreadable(path, reason) => write!(out, "{}: {reason}", path.display()),
            Self::NotPem(path) => write!(out, "{}: not a PEM file", path.display()),
            Self::NoCertificate(path) => write!(out, "{}: holds no certificate", path.display()),
            Self::NoKey(path) => write!(out, "{}: holds no private key", path.display()),
            Self::KeyEncrypted(path) => write!(
                out,
                "{}: the private key has a pass phrase, and nobody is there to type it",
                path.display()
            ),
            Self::Mismatch(certificate, key) => write!(
                out,
                "{}: not the private key of the certificate in {}",
                key.display(),
                certificate.display()
            ),
            Self::Unusable(path, reason) => write!(out, "{}: {reason}", path.display()),
            Self::Development(fault) => fault.fmt(out),
            Self::InKey(fault) => fault.fmt(out),
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
    let certificates::Paths { server_certificate, authority_certificate, .. } = &paths;
    if is_first {
        log::info!(
            "made a development certificate, as there was none yet \
             certificate={server_certificate:?} authority={authority_certificate:?}"
        );
    } else {
        log::info!(
            "made a new development certificate in place of one that cannot be used \
             certificate={server_certificate:?} authority={authority_certificate:?} reason={defect:?}"
        );
    }
    Identity::read(&paths.server_certificate, &paths.server_key)
}

/// The development identity of an earlier start, or why it cannot be used again.
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
    config: Arc<ServerConfig>,
    /// Who else can read the private key.
    exposure: Option<Exposure>,
}

impl Identity {
    fn read(certificate: &Path, key: &Path) -> Result<Self, IdentityFault> {
        let chain = read_certificates(certificate)?;
        let (secret, exposure) = read_key(key)?;
        // Everyone is shown the one certificate, also those who do not say whom they look for.
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(chain.clone(), secret));
        match config {
            Ok(mut config) => {
                // Ours comes first what costs least where both sides are equally safe.
                config.ignore_client_order = true;
                // One is enough to resume with, and each costs a key derivation.
                config.send_tls13_tickets = 1;
                Ok(Self { chain, config: Arc::new(config), exposure })
            }
            Err(Error::InconsistentKeys(_)) => {
                Err(IdentityFault::Mismatch(certificate.into(), key.into()))
            }
            Err(fault @ Error::InvalidCertificate(_)) => {
                Err(IdentityFault::Unusable(certificate.into(), fault))
            }
            Err(fault) => Err(IdentityFault::Unusable(key.into(), fault)),
        }
    }

    /// Whether clients would say that the certificate is out of date. Whether they trust it is
    /// theirs to judge.
    fn validity_fault(&self, now: UnixTime) -> Option<CertificateError> {
        // As its own authority, because the dates are looked at before the signature.
        match verify(&self.chain, &self.chain[0], "localhost", now) {
            Err(Error::InvalidCertificate(fault)) if is_about_time(&fault) => Some(fault),
            _ => None,
        }
    }
}

fn is_about_time(fault: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(fault, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// Judges a chain as a client would that trusts `authority` and looks for `name`.
pub(super) fn verify(
    chain: &[CertificateDer<'static>],
    authority: &CertificateDer<'static>,
    name: &'static str,
    now: UnixTime,
) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|fault| Error::General(fault.to_string()))?;
    let name = ServerName::try_from(name).map_err(|fault| Error::General(fault.to_string()))?;
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(drop)
}

/// The certificates in a file, at least one.
pub(super) fn read_certificates(
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, IdentityFault> {
    let text = read(path)?.bytes;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(IdentityFault::NoCertificate(path.into()))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(IdentityFault::NotPem(path.into())),
    }
}

fn read_key(path: &Path) -> Result<(PrivateKeyDer<'static>, Option<Exposure>), IdentityFault> {
    let in_key = |fault| IdentityFault::InKey(Box::new(fault));
    let Input { bytes, exposure } = read(path).map_err(in_key)?;
    let is_encrypted = memchr::memmem::find(&bytes, b"ENCRYPTED").is_some();
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|fault| match fault {
        _ if is_encrypted => IdentityFault::KeyEncrypted(path.into()),
        pem::Error::NoItemsFound => IdentityFault::NoKey(path.into()),
        _ => in_key(IdentityFault::NotPem(path.into())),
    })?;
    Ok((key, exposure))
}

/// The contents of a file that has a PEM section.
fn read(path: &Path) -> Result<Input, IdentityFault> {
    let input = Input::read(path, FILE_BYTES_MAX)
        .map_err(|reason| IdentityFault::Unreadable(path.into(), reason))?;
    match memchr::memmem::find(&input.bytes, b"-----BEGIN ") {
        Some(_) => Ok(input),
        None => Err(IdentityFault::NotPem(path.into())),
    }
}

/// AES-128 comes before AES-256: its handshake hashes with SHA-256, which processors have
/// instructions for, and its records cost less.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let is_aes_128 =
        |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("AES_128");
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite));
    Arc::new(provider)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::server::certificates::{Order, Paths, make};

    /// A directory that goes away with the test.
    pub(in crate::server) struct Scratch(pub(in crate::server) PathBuf);

    impl Scratch {
        pub(in crate::server) fn new(name: &str) -> Self {
            let name = format!("com-broker-{}-{name}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

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
    fn a_certificate_out_of_date_is_noticed() {
        let (_scratch, paths) = made("dates");
        let identity = Identity::read(&paths.server_certificate, &paths.server_key).unwrap();
        assert_eq!(identity.validity_fault(in_days(0)), None);
        assert!(identity.validity_fault(in_days(31)).is_some());
        let epoch = UnixTime::since_unix_epoch(Duration::ZERO);
        assert!(identity.validity_fault(epoch).is_some());
    }

    #[test]
    fn both_versions_of_tls_shake_hands_without_a_name() {
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
            let mut server = rustls::ServerConnection::new(identity.config.clone()).unwrap();
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
