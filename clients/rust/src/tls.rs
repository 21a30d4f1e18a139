//! The authorities that a client trusts, and the TLS handshake with a broker.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore};
use rustls::{SignatureScheme, StreamOwned};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::error::{ClientError, TrustFault};
use crate::url::BrokerUrl;
use crate::wire::Wire;

/// The certificates that are accepted.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those signed by an authority of the system.
    System,
    /// Those signed by an authority in this PEM file.
    File(PathBuf),
    /// Those signed by an authority in this PEM text.
    Pem(Vec<u8>),
    /// All.
    Anyone,
}

pub(crate) fn connect(
    mut wire: Wire,
    url: &BrokerUrl,
    trust: &Trust,
) -> Result<StreamOwned<ClientConnection, Wire>, ClientError> {
    let name = ServerName::try_from(url.host.clone())
        .map_err(|_| ClientError::Url(crate::url::UrlFault::Host))?;
    let config = client_config(trust).map_err(ClientError::Trust)?;
    let mut connection = ClientConnection::new(Arc::new(config), name)
        .map_err(|source| ClientError::Tls { address: url.address(), source })?;
    while connection.is_handshaking() {
        connection.complete_io(&mut wire).map_err(|fault| handshake_error(url, fault))?;
    }
    Ok(StreamOwned::new(connection, wire))
}

fn handshake_error(url: &BrokerUrl, fault: io::Error) -> ClientError {
    if fault.kind() == io::ErrorKind::WouldBlock {
        return ClientError::NoAnswer { awaited: "the TLS handshake" };
    }
    let source = fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    match source {
        Some(source) => ClientError::Tls { address: url.address(), source },
        None if fault.kind() == io::ErrorKind::UnexpectedEof => {
            ClientError::Ended { awaited: "the TLS handshake" }
        }
        None => ClientError::Lost(fault),
    }
}

fn client_config(trust: &Trust) -> Result<ClientConfig, TrustFault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the ring provider has suites for TLS 1.2 and 1.3");
    let roots = match trust {
        Trust::Anyone => {
            let verifier = Arc::new(TrustAnyone { provider });
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            return Ok(builder.with_no_client_auth());
        }
        Trust::System => system_roots()?,
        Trust::File(path) => file_roots(path)?,
        Trust::Pem(text) => {
            let mut roots = RootCertStore::empty();
            add(&mut roots, CertificateDer::pem_slice_iter(text))?;
            roots
        }
    };
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn file_roots(path: &Path) -> Result<RootCertStore, TrustFault> {
    let unreadable = |source| TrustFault::Unreadable { path: path.to_owned(), source };
    let text = read_bounded(path).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    add(&mut roots, CertificateDer::pem_slice_iter(&text))?;
    Ok(roots)
}

/// Larger files are refused.
const CA_BYTES_MAX: u64 = 4 << 20;

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(CA_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CA_BYTES_MAX {
        return Err(io::Error::other(format!("too large: more than {CA_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn add(
    roots: &mut RootCertStore,
    certificates: impl Iterator<Item = Result<CertificateDer<'static>, pem::Error>>,
) -> Result<(), TrustFault> {
    for certificate in certificates {
        let certificate = certificate.map_err(|_| TrustFault::NoCertificate)?;
        roots.add(certificate).map_err(|_| TrustFault::NoCertificate)?;
    }
    if roots.is_empty() { Err(TrustFault::NoCertificate) } else { Ok(()) }
}

/// Files with the authorities of various systems.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn system_roots() -> Result<RootCertStore, TrustFault> {
    for bundle in SYSTEM_BUNDLES {
        if let Ok(certificates) = CertificateDer::pem_file_iter(bundle) {
            let mut roots = RootCertStore::empty();
            // Authorities that cannot be parsed, such as old ones, are skipped.
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            if !roots.is_empty() {
                return Ok(roots);
            }
        }
    }
    Err(TrustFault::NoSystemBundle)
}

/// Accepts every certificate. Signatures are still verified, so that the server at least has the key of
/// its certificate.
#[derive(Debug)]
struct TrustAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
