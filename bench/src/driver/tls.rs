//! TLS of a client, with a given authority, or with none for tests on loopback.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;

use crate::fault::Fault;

/// A configuration that trusts the authorities in a file or, without one, any certificate: the messages
/// of a load generator are not secret. With `resumes`, sessions are resumed; otherwise every connection
/// makes a full handshake.
///
/// # Errors
/// The file cannot be used.
pub fn config(authority: Option<&Path>, resumes: bool) -> Result<Arc<ClientConfig>, Fault> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Usage(error.to_string()))?;
    let mut config = match authority {
        Some(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            .with_no_client_auth(),
    };
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// Counts the records of a stream by their headers, which are never encrypted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Records {
    /// A torn header, and the number of its bytes.
    header: [u8; HEADER_BYTES],
    held: usize,
    /// Bytes of the current record that have not arrived.
    left: usize,
    count: u64,
}

impl Records {
    pub(super) fn note(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER_BYTES - self.held).min(bytes.len());
            self.header[self.held..self.held + taken].copy_from_slice(&bytes[..taken]);
            self.held += taken;
            bytes = &bytes[taken..];
            if self.held == HEADER_BYTES {
                self.held = 0;
                self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                self.count += 1;
            }
        }
    }

    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }
}

/// Size of a record's type, version and length.
const HEADER_BYTES: usize = 5;

fn roots(path: &Path) -> Result<RootCertStore, Fault> {
    let wrong = |text: String| Fault::Usage(format!("{}: {text}", path.display()));
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate in it".into()));
    }
    Ok(roots)
}

/// Accepts every certificate, but verifies that the server has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_however_they_are_split() {
        let bytes = b"\x17\x03\x03\x00\x03abc\x17\x03\x03\x00\x00\x17\x03\x03\x01\x00";
        let bytes = [&bytes[..], &[7; 256]].concat();
        for size in 1..bytes.len() {
            let mut records = Records::default();
            bytes.chunks(size).for_each(|chunk| records.note(chunk));
            assert_eq!(records.take(), 3, "{size}");
        }
    }
}
