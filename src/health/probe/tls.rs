//! The TLS side of probes: one configuration for each way of verifying and each choice of protocols, shared by all probes.
//!
//! A configuration with its own roots costs 100 kB and milliseconds; a shared one costs a probe nothing.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::ProbeError;
use crate::health::check::HttpVersion;

/// Makes ring the process's TLS provider. Cheap, and harmless when done twice; anything that uses TLS panics without it.
pub fn install_crypto_provider() {
    let _ = ring::default_provider().install_default(); // an error only says that one is installed already
}

/// Whom a verified probe trusts.
#[derive(Debug, Clone)]
pub enum TrustedRoots {
    /// The host's CA bundle; SSL_CERT_FILE and SSL_CERT_DIR are respected.
    Host,
    /// These certificates and no others.
    Only(Vec<CertificateDer<'static>>),
}

/// HTTP/2 in ALPN.
pub const ALPN_HTTP2: &[u8] = b"h2";
/// HTTP/1.1 in ALPN.
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The shared TLS configurations. Clones share them.
#[derive(Debug, Clone)]
pub struct TlsModes {
    modes: Arc<Modes>,
}

#[derive(Debug)]
struct Modes {
    roots: TrustedRoots,
    unverified: ByVersion,
    /// Made when the first verified probe asks: most configurations have none, and a host need not have a CA bundle.
    verified: OnceLock<Option<ByVersion>>,
}

/// A configuration for each choice of protocols.
#[derive(Debug)]
struct ByVersion {
    auto: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl TlsModes {
    /// Reads nothing yet.
    pub fn new(roots: TrustedRoots) -> Self {
        install_crypto_provider();
        let unverified = builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(ring::default_provider())))
            .with_no_client_auth();
        let unverified = ByVersion::new(unverified);
        TlsModes { modes: Arc::new(Modes { roots, unverified, verified: OnceLock::new() }) }
    }

    /// The configuration for a probe: whether it verifies the certificate, and what it offers by ALPN.
    ///
    /// # Errors
    /// [`ProbeError::NoTrustedRoots`] when there is nothing to verify with.
    pub fn config(&self, verify: bool, version: HttpVersion) -> Result<Arc<ClientConfig>, ProbeError> {
        let by_version = if verify { self.verified_by_version()? } else { &self.modes.unverified };
        Ok(by_version.of(version).clone())
    }

    /// A configuration that accepts any certificate and speaks HTTP/1.1.
    pub fn unverified(&self) -> Arc<ClientConfig> {
        self.modes.unverified.http1.clone()
    }

    /// A configuration that verifies the certificate and speaks HTTP/1.1.
    ///
    /// # Errors
    /// [`ProbeError::NoTrustedRoots`] when there is nothing to verify with.
    pub fn verified(&self) -> Result<Arc<ClientConfig>, ProbeError> {
        self.config(true, HttpVersion::Http1)
    }

    fn verified_by_version(&self) -> Result<&ByVersion, ProbeError> {
        let made = self.modes.verified.get_or_init(|| {
            let mut store = RootCertStore::empty();
            let certificates = match &self.modes.roots {
                TrustedRoots::Host => host_roots(),
                TrustedRoots::Only(list) => list.clone(),
            };
            let (_, unusable) = store.add_parsable_certificates(certificates);
            if unusable > 0 {
                tracing::debug!(unusable, "CA certificates skipped: not in a form that can be used");
            }
            let some = !store.is_empty();
            some.then(|| ByVersion::new(builder().with_root_certificates(store).with_no_client_auth()))
        });
        made.as_ref().ok_or(ProbeError::NoTrustedRoots)
    }
}

impl ByVersion {
    fn new(mut config: ClientConfig) -> Self {
        config.resumption = Resumption::disabled(); // a resumed session would not look at the certificate again
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        ByVersion {
            auto: offering(&[ALPN_HTTP2, ALPN_HTTP1]),
            http1: offering(&[ALPN_HTTP1]),
            http2: offering(&[ALPN_HTTP2]),
        }
    }

    fn of(&self, version: HttpVersion) -> &Arc<ClientConfig> {
        match version {
            HttpVersion::Auto => &self.auto,
            HttpVersion::Http1 => &self.http1,
            HttpVersion::Http2 => &self.http2,
        }
    }
}

/// When a certificate runs out, Unix time in seconds; `None` when it cannot be read.
pub fn expiry_s(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(read.validity().not_after.timestamp())
}

fn host_roots() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "part of the CA bundle cannot be read");
    }
    found.certs
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
}

/// `verify-tls = false`: neither the certificate nor the signature made with it is looked at.
#[derive(Debug)]
struct AcceptAny(CryptoProvider);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
