//! Development certificates: an authority and a server certificate that it signs.
//!
//! They are for the machine on which they are made, and do not belong into a repository.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::UnixTime;

use super::pem::read_certificates;
use super::trust::verify;
use crate::input::{FILE_BYTES_MAX, Input};

/// The first name in every development certificate.
pub(crate) const DEVELOPMENT_NAME: &str = "localhost";

/// The other names in every development certificate.
const DEVELOPMENT_ADDRESSES: [&str; 2] = ["127.0.0.1", "::1"];

/// Days that a server certificate is valid by default.
pub(crate) const SERVER_DAYS: u32 = 397;

/// The longest validity that all platforms accept, even from an authority that the user installed.
pub(crate) const SERVER_DAYS_MAX: u32 = 825;

/// Days that the authority is valid, so that it does not have to be trusted anew every year.
const AUTHORITY_DAYS: u32 = 3650;

/// Time before now at which validity begins, since clocks differ.
const SKEW: Duration = Duration::from_secs(3600);

/// The name of the authority, by which a server certificate refers to it.
const AUTHORITY_NAME: &str = "com-broker development authority";

/// The files in a directory of development certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// The authority's certificate, which clients have to trust.
    pub authority_certificate: PathBuf,
    /// The authority's private key.
    pub authority_key: PathBuf,
    /// The broker's certificate, then the authority's.
    pub server_certificate: PathBuf,
    /// The broker's private key.
    pub server_key: PathBuf,
}

impl Paths {
    /// The paths of the files in a directory.
    pub(crate) fn within(directory: &Path) -> Self {
        Self {
            authority_certificate: directory.join("ca.pem"),
            authority_key: directory.join("ca.key"),
            server_certificate: directory.join("server.pem"),
            server_key: directory.join("server.key"),
        }
    }

    pub(super) fn any_exists(&self) -> bool {
        self.all().iter().any(|path| path.exists())
    }

    fn first_missing(&self) -> Option<&Path> {
        self.all().into_iter().find(|path| !path.exists())
    }

    fn all(&self) -> [&Path; 4] {
        let Self { authority_certificate, authority_key, server_certificate, server_key } = self;
        [authority_certificate, authority_key, server_certificate, server_key]
    }
}

/// The request for a server certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Host names and addresses besides those of loopback.
    pub names: Vec<String>,
    /// Days that it is valid.
    pub days: u32,
    /// Whether existing files are replaced.
    pub force: bool,
}

/// The result of an [`Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Whether the authority is new, and has to be trusted anew.
    pub authority_made: bool,
    /// Whether the server certificate is new.
    pub server_made: bool,
}

/// Makes what is missing in a directory: the authority, the server certificate, or both.
///
/// # Errors
/// A file cannot be used or written, or a name cannot be certified.
pub(crate) fn make(paths: &Paths, order: &Order) -> Result<Receipt, CertificateFault> {
    let now = UnixTime::now();
    // Names that cannot be certified are refused before anything is written.
    server_params(order, now)?;
    // An incomplete pair is kept as well: it may be the only copy.
    let keeps_server = paths.server_certificate.exists() || paths.server_key.exists();
    if keeps_server && !order.force {
        if let Some(missing) = paths.first_missing() {
            return Err(CertificateFault::File(missing.into(), io::ErrorKind::NotFound.into()));
        }
        return Ok(Receipt { authority_made: false, server_made: false });
    }
    let keeps_authority = paths.authority_certificate.exists() || paths.authority_key.exists();
    let authority_made = order.force || !keeps_authority;
    let authority =
        if authority_made { Authority::make(paths, now)? } else { Authority::read(paths)? };
    authority.sign(paths, order, now)?;
    Ok(Receipt { authority_made, server_made: true })
}

/// Makes a new server certificate, signed by the existing authority. Only a directory without any of the
/// files gets a new authority, so that files made elsewhere are not replaced.
pub(super) fn renew(paths: &Paths, now: UnixTime) -> Result<(), CertificateFault> {
    let order = Order { names: Vec::new(), days: SERVER_DAYS, force: false };
    let authority =
        if paths.any_exists() { Authority::read(paths)? } else { Authority::make(paths, now)? };
    authority.sign(paths, &order, now)
}

/// Why certificates cannot be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum CertificateFault {
    /// The file cannot be read or written.
    File(PathBuf, io::Error),
    /// Clients would not accept a certificate signed by the authority in this file: it was not made
    /// here, or it has expired.
    Authority(PathBuf),
    /// A name is neither a host name nor an address, or a key cannot be made; the reason.
    Generation(String),
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, reason) => write!(
                out,
                "{}: {reason}; where certificates are incomplete, com-broker certs --force makes \
                 new ones, and [tls] names those of one's own",
                path.display()
            ),
            Self::Authority(path) => write!(
                out,
                "{}: not an authority made here, or out of date; com-broker certs --force makes a \
                 new one",
                path.display()
            ),
            Self::Generation(reason) => write!(out, "cannot be certified: {reason}"),
        }
    }
}

impl std::error::Error for CertificateFault {}

impl From<rcgen::Error> for CertificateFault {
    fn from(fault: rcgen::Error) -> Self {
        Self::Generation(fault.to_string())
    }
}

/// The authority with its private key.
struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn make(paths: &Paths, now: UnixTime) -> Result<Self, CertificateFault> {
        let params = authority_params(now);
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        write(&paths.authority_key, &key.serialize_pem(), KEY_MODE)?;
        write(&paths.authority_certificate, &certificate_pem, CERTIFICATE_MODE)?;
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads an existing authority. Only its key is parsed, since all authorities have the same
    /// parameters.
    fn read(paths: &Paths) -> Result<Self, CertificateFault> {
        let certificate_pem = read(&paths.authority_certificate)?;
        let key = KeyPair::from_pem(&read(&paths.authority_key)?)
            .map_err(|_| CertificateFault::Authority(paths.authority_key.clone()))?;
        let issuer = Issuer::new(authority_params(UnixTime::since_unix_epoch(SKEW)), key);
        Ok(Self { certificate_pem, issuer })
    }

    /// Makes a server certificate, and writes it only if clients that trust this authority accept it.
    fn sign(&self, paths: &Paths, order: &Order, now: UnixTime) -> Result<(), CertificateFault> {
        let key = KeyPair::generate()?;
        let certificate = server_params(order, now)?.signed_by(&key, &self.issuer)?;
        let foreign = || CertificateFault::Authority(paths.authority_certificate.clone());
        let authority = read_certificates(&paths.authority_certificate).map_err(|_| foreign())?;
        verify(&[certificate.der().clone()], &authority[0], DEVELOPMENT_NAME, now)
            .map_err(|_| foreign())?;
        let chain = certificate.pem() + &self.certificate_pem;
        write(&paths.server_key, &key.serialize_pem(), KEY_MODE)?;
        write(&paths.server_certificate, &chain, CERTIFICATE_MODE)
    }
}

fn authority_params(now: UnixTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, AUTHORITY_DAYS);
    params
}

fn server_params(order: &Order, now: UnixTime) -> Result<CertificateParams, rcgen::Error> {
    let mut names = vec![DEVELOPMENT_NAME.to_owned()];
    names.extend(DEVELOPMENT_ADDRESSES.map(String::from));
    names.extend(order.names.iter().filter(|name| !is_standard(name)).cloned());
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named(DEVELOPMENT_NAME);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, order.days.min(SERVER_DAYS_MAX));
    Ok(params)
}

fn is_standard(name: &str) -> bool {
    name == DEVELOPMENT_NAME || DEVELOPMENT_ADDRESSES.contains(&name)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn set_validity(params: &mut CertificateParams, now: UnixTime, days: u32) {
    let begin = Duration::from_secs(now.as_secs()).saturating_sub(SKEW);
    let span = Duration::from_secs(u64::from(days) * 86_400);
    params.not_before = date_time_ymd(1970, 1, 1) + begin;
    params.not_after = params.not_before + span;
}

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

fn read(path: &Path) -> Result<String, CertificateFault> {
    match Input::read_text(path, FILE_BYTES_MAX) {
        Ok((text, _)) => Ok(text),
        Err(reason) => Err(CertificateFault::File(path.into(), reason)),
    }
}

/// Replaces a file atomically. The new file has its mode from the beginning.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateFault> {
    let replace = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        match fs::remove_file(&draft) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&draft, path)
    };
    replace().map_err(|reason| CertificateFault::File(path.into(), reason))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::server::scratch::Scratch;

    fn order(force: bool) -> Order {
        Order { names: vec!["broker.example".into(), "192.0.2.7".into()], days: 30, force }
    }

    #[test]
    fn private_keys_are_private() {
        let scratch = Scratch::new("private");
        let paths = Paths::within(&scratch.0.join("deeper"));
        make(&paths, &order(false)).unwrap();
        for (path, mode) in [(&paths.server_key, 0o600), (&paths.authority_key, 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
        // The mode of an existing file is not kept.
        fs::set_permissions(&paths.server_key, fs::Permissions::from_mode(0o644)).unwrap();
        make(&paths, &order(true)).unwrap();
        assert_eq!(fs::metadata(&paths.server_key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(scratch.0.join("deeper")).unwrap().count(), 4);
    }

    #[test]
    fn existing_files_are_kept_unless_forced() {
        let scratch = Scratch::new("kept");
        let paths = Paths::within(&scratch.0);
        let made = make(&paths, &order(false)).unwrap();
        assert_eq!(made, Receipt { authority_made: true, server_made: true });
        let before = read(&paths.server_key).unwrap();
        let kept = make(&paths, &order(false)).unwrap();
        assert_eq!(kept, Receipt { authority_made: false, server_made: false });
        assert_eq!(read(&paths.server_key).unwrap(), before);
        fs::remove_file(&paths.server_certificate).unwrap();
        let fault = make(&paths, &order(false)).unwrap_err().to_string();
        assert!(fault.contains("server.pem: ") && fault.contains("--force"), "{fault}");
        assert_eq!(read(&paths.server_key).unwrap(), before);
        fs::write(&paths.server_certificate, "").unwrap();
        fs::remove_file(&paths.server_certificate).unwrap();
        fs::remove_file(&paths.server_key).unwrap();
        let signed = make(&paths, &order(false)).unwrap();
        assert_eq!(signed, Receipt { authority_made: false, server_made: true });
        let forced = make(&paths, &order(true)).unwrap();
        assert_eq!(forced, Receipt { authority_made: true, server_made: true });
    }

    #[test]
    fn every_name_is_certified() {
        let scratch = Scratch::new("names");
        let paths = Paths::within(&scratch.0);
        make(&paths, &order(false)).unwrap();
        let chain = read_certificates(&paths.server_certificate).unwrap();
        assert_eq!(chain.len(), 2);
        let now = UnixTime::now();
        for name in ["localhost", "127.0.0.1", "::1", "broker.example", "192.0.2.7"] {
            verify(&chain, &chain[1], name, now).unwrap();
        }
        verify(&chain, &chain[1], "other.example", now).unwrap_err();
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 31 * 86_400));
        verify(&chain, &chain[1], "localhost", later).unwrap_err();
    }

    #[test]
    fn an_authority_that_was_not_made_here_does_not_sign() {
        let scratch = Scratch::new("foreign");
        let paths = Paths::within(&scratch.0);
        make(&paths, &order(false)).unwrap();
        fs::remove_file(&paths.server_certificate).unwrap();
        fs::remove_file(&paths.server_key).unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        fs::write(&paths.authority_key, other).unwrap();
        let fault = make(&paths, &order(false)).unwrap_err();
        assert!(fault.to_string().contains("ca.pem: not an authority made here"), "{fault}");
        assert!(!paths.server_key.exists());
    }

    #[test]
    fn a_name_that_cannot_be_certified_is_refused() {
        let scratch = Scratch::new("name");
        let paths = Paths::within(&scratch.0);
        let order = Order { names: vec!["höst".into()], days: 1, force: false };
        assert!(matches!(make(&paths, &order), Err(CertificateFault::Generation(_))));
        assert!(!paths.any_exists());
    }
}
