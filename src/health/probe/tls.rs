//! The TLS side of HTTPS probes: one configuration for each way of verifying, shared by all probes.
//!
//! A configuration with its own roots costs 100 kB and milliseconds; a copy of a shared one costs microseconds, which is
//! what lets every probe have its own client.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::ProbeError;

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

/// The shared TLS configurations. Clones share them.
#[derive(Debug, Clone)]
pub struct TlsModes {
    modes: Arc<Modes>,
}

#[derive(Debug)]
struct Modes {
    roots: TrustedRoots,
    unverified: ClientConfig,
    /// Made when the first verified probe asks: most configurations have none, and a host need not have a CA bundle.
    verified: OnceLock<Option<ClientConfig>>,
}

impl TlsModes {
    /// Reads nothing yet.
    pub fn new(roots: TrustedRoots) -> Self {
        install_crypto_provider();
        let unverified = builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(ring::default_provider())))
            .with_no_client_auth();
        TlsModes { modes: Arc::new(Modes { roots, unverified: finish(unverified), verified: OnceLock::new() }) }
    }

    /// The configuration for a probe that accepts any certificate; it also serves plain HTTP, which needs none.
    pub fn unverified(&self) -> ClientConfig {
        self.modes.unverified.clone()
    }

    /// The configuration for a probe that verifies the certificate.
    ///
    /// # Errors
    /// [`ProbeError::NoTrustedRoots`] when there is nothing to verify with.
    pub fn verified(&self) -> Result<ClientConfig, ProbeError> {
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
            some.then(|| finish(builder().with_root_certificates(store).with_no_client_auth()))
        });
        made.clone().ok_or(ProbeError::NoTrustedRoots)
    }
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

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// Calls `on_start` when a handshake on the returned configuration begins, which is the moment the TCP connection is open.
///
/// reqwest times TCP and TLS as one; rustls asks its session store before the first message. The store also keeps nothing:
/// a resumed session would not look at the certificate again.
pub fn watching_start(mut config: ClientConfig, on_start: impl Fn() + Send + Sync + 'static) -> ClientConfig {
    config.resumption = Resumption::store(Arc::new(StartWatch(on_start)));
    config
}

struct StartWatch<F>(F);

impl<F> fmt::Debug for StartWatch<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StartWatch")
    }
}

impl<F: Fn() + Send + Sync> ClientSessionStore for StartWatch<F> {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        (self.0)();
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        (self.0)();
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        (self.0)();
        None
    }
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
