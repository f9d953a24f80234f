//! The TLS side of probes: one configuration for each way of verifying and each choice of protocols, shared by all probes.
//!
//! A configuration with its own roots costs 100 kB and milliseconds; a shared one costs a probe nothing.

use std::{
    cell::Cell,
    hash::{BuildHasher, BuildHasherDefault},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use siphasher::sip::SipHasher13;
use tokio::{task_local, time::Instant};

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

/// How long what was read of the host's CA bundle is gone by: who adds an authority to it need not restart the server.
const ROOTS_LAST: Duration = Duration::from_secs(600);
/// The same where nothing was found in it.
const NO_ROOTS_LAST: Duration = Duration::from_secs(10);

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
    /// Made when the first verified probe asks: many configurations have none, and a host need not have a CA bundle.
    verified: Mutex<Verified>,
}

/// What verifies, of the roots that were there when they were last looked at.
#[derive(Debug, Default)]
struct Verified {
    looked: Option<Instant>,
    /// A hash of the certificates.
    of: u64,
    /// `None`: there were none.
    made: Option<ByVersion>,
}

/// A configuration for each choice of protocols.
#[derive(Debug, Clone)]
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
        TlsModes { modes: Arc::new(Modes { roots, unverified, verified: Mutex::default() }) }
    }

    /// The configuration for a probe: whether it verifies the certificate, and what it offers by ALPN.
    ///
    /// # Errors
    /// [`ProbeError::NoTrustedRoots`] when there is nothing to verify with.
    pub fn config(&self, verify: bool, version: HttpVersion) -> Result<Arc<ClientConfig>, ProbeError> {
        if !verify {
            return Ok(self.modes.unverified.of(version).clone());
        }
        let mut verified = self.modes.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.look(&self.modes.roots);
        let made = verified.made.as_ref().ok_or(ProbeError::NoTrustedRoots)?;
        Ok(made.of(version).clone())
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
}

impl Verified {
    /// Looks at the roots if it is time, and makes what verifies by them where they are others than before. A bundle that is gone, or
    /// cannot be read, changes nothing for who had one: it may be about to be replaced.
    fn look(&mut self, roots: &TrustedRoots) {
        let lasts = if self.made.is_some() { ROOTS_LAST } else { NO_ROOTS_LAST };
        if self.looked.is_some_and(|at| at.elapsed() < lasts) {
            return;
        }
        let is_first = self.looked.replace(Instant::now()).is_none();
        let certificates = match roots {
            TrustedRoots::Host => host_roots(),
            TrustedRoots::Only(list) => Ok(list.clone()),
        };
        let certificates = match certificates {
            Ok(whole) => whole,
            Err((part, error)) if self.made.is_none() => {
                tracing::warn!(error, "part of the CA bundle cannot be read");
                part
            }
            Err(_) => return,
        };
        let of = BuildHasherDefault::<SipHasher13>::default().hash_one(&certificates);
        if of == self.of && !is_first {
            return;
        }
        let mut store = RootCertStore::empty();
        let (_, unusable) = store.add_parsable_certificates(certificates);
        if unusable > 0 {
            tracing::debug!(unusable, "CA certificates skipped: not in a form that can be used");
        }
        let provider = Arc::new(ring::default_provider());
        match WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build() {
            Ok(verifier) => {
                if !is_first {
                    tracing::info!("the host's CA certificates have changed and are taken up");
                }
                let verifier = Arc::new(Noting(verifier));
                let config = builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
                (self.of, self.made) = (of, Some(ByVersion::new(config)));
            }
            Err(_none) if is_first => {
                tracing::warn!("checks with `verify-tls` tell nothing: {}", ProbeError::NoTrustedRoots);
            }
            Err(_none) => {}
        }
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
fn expiry_s(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(read.validity().not_after.timestamp())
}

fn host_roots() -> Result<Vec<CertificateDer<'static>>, (Vec<CertificateDer<'static>>, String)> {
    let found = rustls_native_certs::load_native_certs();
    match found.errors.first() {
        Some(error) => Err((found.certs, error.to_string())),
        None => Ok(found.certs),
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
}

task_local! {
    /// When the certificate runs out that this handshake was shown.
    static SHOWN: Cell<Option<i64>>;
}

/// A handshake, and when the certificate runs out that it was shown, whether it will do or not.
pub async fn noting<H: Future>(handshake: H) -> (H::Output, Option<i64>) {
    let noted = async { (handshake.await, SHOWN.with(Cell::get)) };
    SHOWN.scope(Cell::new(None), noted).await
}

fn note(certificate: &CertificateDer<'_>) {
    let _nobody_asks = SHOWN.try_with(|shown| shown.set(expiry_s(certificate)));
}

/// Verifies as rustls does.
#[derive(Debug)]
struct Noting(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        note(certificate);
        self.0.verify_server_cert(certificate, others, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// `verify-tls = false`: neither the certificate nor the signature made with it is looked at.
#[derive(Debug)]
struct AcceptAny(CryptoProvider);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        note(certificate);
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
