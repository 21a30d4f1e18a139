//! Certificates and private keys from PEM files.
//!
//! It does not know their use.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::input::{Exposure, FILE_BYTES_MAX, Input, shown};

/// A PEM file that cannot be used.
#[derive(Debug)]
pub struct PemFault {
    /// The file.
    pub path: PathBuf,
    /// Its defect.
    pub defect: PemDefect,
}

/// A defect of a PEM file.
#[derive(Debug)]
#[non_exhaustive]
pub enum PemDefect {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// It holds no PEM section, or a malformed one.
    NotPem,
    /// It holds PEM sections, but no certificate.
    NoCertificate,
    /// It holds PEM sections, but no private key.
    NoKey,
    /// The private key has a pass phrase.
    KeyEncrypted,
}

impl PemFault {
    fn new(path: &Path, defect: PemDefect) -> Self {
        Self { path: path.into(), defect }
    }
}

impl fmt::Display for PemFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", shown(&self.path))?;
        match &self.defect {
            PemDefect::Unreadable(reason) => reason.fmt(out),
            PemDefect::NotPem => out.write_str("not a PEM file"),
            PemDefect::NoCertificate => out.write_str("holds no certificate"),
            PemDefect::NoKey => out.write_str("holds no private key"),
            PemDefect::KeyEncrypted => {
                out.write_str("the private key has a pass phrase, which cannot be entered here")
            }
        }
    }
}

impl std::error::Error for PemFault {}

/// The certificates in a file, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemFault> {
    let text = read(path)?.bytes;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(PemFault::new(path, PemDefect::NoCertificate))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(PemFault::new(path, PemDefect::NotPem)),
    }
}

/// The first private key in a file, and whether other users can read it.
pub(super) fn read_key(
    path: &Path,
) -> Result<(PrivateKeyDer<'static>, Option<Exposure>), PemFault> {
    let Input { bytes, exposure } = read(path)?;
    let is_encrypted = memchr::memmem::find(&bytes, b"ENCRYPTED").is_some();
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|fault| match fault {
        _ if is_encrypted => PemFault::new(path, PemDefect::KeyEncrypted),
        pem::Error::NoItemsFound => PemFault::new(path, PemDefect::NoKey),
        _ => PemFault::new(path, PemDefect::NotPem),
    })?;
    Ok((key, exposure))
}

/// The content of a file that has a PEM section.
fn read(path: &Path) -> Result<Input, PemFault> {
    let input = Input::read(path, FILE_BYTES_MAX)
        .map_err(|reason| PemFault::new(path, PemDefect::Unreadable(reason)))?;
    match memchr::memmem::find(&input.bytes, b"-----BEGIN ") {
        Some(_) => Ok(input),
        None => Err(PemFault::new(path, PemDefect::NotPem)),
    }
}
