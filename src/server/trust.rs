//! Verification of a certificate as clients do it, and the cryptography that both sides use.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CertificateError, Error, RootCertStore, SupportedCipherSuite};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Verifies a chain as a client does that trusts `authority` and expects `name`.
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

/// Why clients would refuse a certificate by its dates, whatever authority they trust.
pub(super) fn validity_fault(
    chain: &[CertificateDer<'static>],
    now: UnixTime,
) -> Option<CertificateError> {
    // Verified with itself as authority: dates are checked before the signature.
    match verify(chain, &chain[0], "localhost", now) {
        Err(Error::InvalidCertificate(fault)) if is_about_time(&fault) => Some(fault),
        _ => None,
    }
}

fn is_about_time(fault: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(fault, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// Cipher suites with AES-128 before AES-256: their handshake hashes with SHA-256, for which processors
/// have instructions, and their records cost less.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let is_aes_128 =
        |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("AES_128");
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite));
    Arc::new(provider)
}
