//! The TLS side of probes: one configuration for each way of verifying and each choice of protocols, shared by all probes.
//!
//! A configuration with its own roots costs 100 kB and milliseconds; a shared one costs a probe nothing.

use std::{
    cell::Cell,
    hash::{BuildHasher, BuildHasherDefault},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard},
    task::{JoinHandle, spawn_blocking},
    task_local,
    time::{Instant, timeout_at},
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

/// How long what was read of the host's CA bundle is gone by: who adds an authority to it need not restart the server.
const ROOTS_LAST: Duration = Duration::from_secs(600);
/// The same where it held nothing, or something new: that may have been read while it was being written.
const DOUBTED_ROOTS_LAST: Duration = Duration::from_secs(10);

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
    /// Held by whoever reads the roots.
    reading: Arc<Turn<()>>,
}

/// What verifies, by the roots as they were found.
#[derive(Debug, Default)]
struct Verified {
    /// When they were last read.
    read: Option<Instant>,
    /// A hash of the certificates that are gone by.
    of: u64,
    /// A hash of what was found last, where the time before it was something else.
    unsettled: Option<u64>,
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
        let (verified, reading) = (Mutex::default(), Arc::default());
        TlsModes { modes: Arc::new(Modes { roots, unverified, verified, reading }) }
    }

    /// To be called before a verified probe asks for its configuration: has the roots read when it is time, on a thread that may wait
    /// for the disk. This waits for that, until `deadline`, only while there is nothing to verify with.
    pub async fn freshen(&self, deadline: Instant) {
        let (is_due, is_empty) = {
            let verified = self.modes.verified();
            (verified.is_due(), verified.made.is_none())
        };
        if !is_due {
            return;
        }
        let turn = self.modes.reading.clone();
        if is_empty {
            let read = async {
                let turn = turn.lock_owned().await;
                if self.modes.verified().is_due() {
                    let _done_or_panicked = self.read_in_turn(turn).await;
                } // else whoever had the turn before has done it
            };
            let _by_then_there_is_something_or_not = timeout_at(deadline, read).await;
        } else if let Ok(turn) = turn.try_lock_owned() {
            self.read_in_turn(turn);
        }
    }

    /// Goes on when nobody waits for it.
    fn read_in_turn(&self, turn: OwnedMutexGuard<()>) -> JoinHandle<()> {
        let modes = self.modes.clone();
        spawn_blocking(move || {
            modes.read_if_due();
            drop(turn);
        })
    }

    /// The configuration for a probe: whether it verifies the certificate, and what it offers by ALPN. Reads nothing.
    ///
    /// # Errors
    /// [`ProbeError::NoTrustedRoots`] when there is nothing to verify with.
    pub fn config(&self, verify: bool, version: HttpVersion) -> Result<Arc<ClientConfig>, ProbeError> {
        if !verify {
            return Ok(self.modes.unverified.of(version).clone());
        }
        let verified = self.modes.verified();
        let made = verified.made.as_ref().ok_or(ProbeError::NoTrustedRoots)?;
        Ok(made.of(version).clone())
    }

    /// A configuration that accepts any certificate and speaks HTTP/1.1.
    pub fn unverified(&self) -> Arc<ClientConfig> {
        self.modes.unverified.http1.clone()
    }

    /// A configuration that verifies the certificate and speaks HTTP/1.1. Waits for the disk.
    ///
    /// # Errors
    /// [`ProbeError::NoTrustedRoots`] when there is nothing to verify with.
    pub fn verified(&self) -> Result<Arc<ClientConfig>, ProbeError> {
        self.modes.read_if_due();
        self.config(true, HttpVersion::Http1)
    }
}

/// Certificates; or those that could be read, and why others could not.
type Found = Result<Vec<CertificateDer<'static>>, (Vec<CertificateDer<'static>>, String)>;

impl Modes {
    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the disk; nothing is held meanwhile that a probe needs.
    fn read_if_due(&self) {
        if !self.verified().is_due() {
            return;
        }
        let found = match &self.roots {
            TrustedRoots::Host => host_roots(),
            TrustedRoots::Only(list) => Ok(list.clone()),
        };
        self.take_in(found);
        // Not before: whoever has nothing to verify with would not wait for what is being read.
        self.verified().read = Some(Instant::now());
    }

    /// Makes what verifies by the roots where they are others than before. A bundle that is gone, or cannot be read, changes nothing for
    /// who had one: it may be about to be replaced.
    fn take_in(&self, found: Found) {
        let is_first = self.verified().read.is_none();
        let certificates = match found {
            Ok(whole) => whole,
            Err((part, error)) if self.verified().made.is_none() => {
                tracing::warn!(error, "part of the CA bundle cannot be read");
                part
            }
            Err(_) => return self.verified().unsettled = None, // it may stay like that
        };
        let of = BuildHasherDefault::<SipHasher13>::default().hash_one(&certificates);
        if !self.verified().is_to_be_taken_up(of) {
            return;
        }
        match verifying_by(certificates) {
            Some(made) => {
                if !is_first {
                    tracing::info!("the host's CA certificates have changed and are taken up");
                }
                self.verified().take_up(of, made);
            }
            None if is_first => {
                tracing::warn!("checks with `verify-tls` tell nothing: {}", ProbeError::NoTrustedRoots);
            }
            None => {}
        }
    }
}

impl Verified {
    fn is_due(&self) -> bool {
        let is_settled = self.made.is_some() && self.unsettled.is_none();
        let lasts = if is_settled { ROOTS_LAST } else { DOUBTED_ROOTS_LAST };
        self.read.is_none_or(|at| at.elapsed() >= lasts)
    }

    /// Whether to go by what was found from now on: others than before must have been found twice, for a bundle may be cut off between
    /// two certificates while it is being written. Where there was nothing to verify with, anything will do.
    fn is_to_be_taken_up(&mut self, of: u64) -> bool {
        if self.made.is_some() && of == self.of {
            self.unsettled = None;
            return false;
        }
        let was_found_before = self.unsettled.replace(of) == Some(of);
        self.made.is_none() || was_found_before
    }

    fn take_up(&mut self, of: u64, made: ByVersion) {
        if self.made.is_some() {
            self.unsettled = None; // what was found once is read again soon
        }
        (self.of, self.made) = (of, Some(made));
    }
}

/// `None` where no certificate can be used.
fn verifying_by(certificates: Vec<CertificateDer<'static>>) -> Option<ByVersion> {
    let mut store = RootCertStore::empty();
    let (_, unusable) = store.add_parsable_certificates(certificates);
    if unusable > 0 {
        tracing::debug!(unusable, "CA certificates skipped: not in a form that can be used");
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build().ok()?;
    let verifier = Arc::new(Noting(verifier));
    Some(ByVersion::new(builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
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

fn host_roots() -> Found {
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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tokio::time::advance;

    use super::*;

    fn authorities(count: usize) -> Vec<CertificateDer<'static>> {
        let make = |_| {
            let mut authority = CertificateParams::new([]).unwrap();
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            authority.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        (0..count).map(make).collect()
    }

    #[tokio::test]
    async fn a_bundle_that_was_cut_off_while_it_was_read_is_not_gone_by() {
        let whole = authorities(3);
        let (cut, other) = (whole[..2].to_vec(), whole[1..].to_vec());
        let tls = TlsModes::new(TrustedRoots::Only(whole.clone()));
        let first = tls.verified().unwrap();
        let is_first = || Arc::ptr_eq(&first, &tls.config(true, HttpVersion::Http1).unwrap());
        let find = |found: &[CertificateDer<'static>]| tls.modes.take_in(Ok(found.to_vec()));
        for found in [&cut, &whole, &cut, &other, &cut] {
            find(found);
            assert!(is_first());
        }
        tls.modes.take_in(Err((Vec::new(), "broken off".into())));
        find(&[]);
        find(&[]);
        assert!(is_first(), "one that is gone changes nothing");
        find(&cut);
        assert!(is_first());
        find(&cut);
        assert!(!is_first(), "it stays like that");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_for_the_first_time_is_read_again_soon_and_what_stays_every_ten_minutes() {
        let tls = TlsModes::new(TrustedRoots::Only(authorities(2)));
        let is_due = || tls.modes.verified().is_due();
        tls.freshen(Instant::now() + ROOTS_LAST).await;
        assert!(tls.config(true, HttpVersion::Http1).is_ok() && !is_due());
        advance(DOUBTED_ROOTS_LAST).await;
        assert!(is_due());
        tls.verified().unwrap();
        advance(DOUBTED_ROOTS_LAST).await;
        assert!(!is_due());
        advance(ROOTS_LAST).await;
        assert!(is_due());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_waits_for_a_slow_disk_only_while_there_is_nothing_to_verify_with() {
        let tls = TlsModes::new(TrustedRoots::Only(authorities(1)));
        let slow = tls.modes.reading.clone().lock_owned().await;
        let waited = async |within| {
            let begun = Instant::now();
            tls.freshen(begun + within).await;
            begun.elapsed()
        };
        let within = Duration::from_secs(4);
        assert!(waited(within).await >= within);
        assert_eq!(tls.config(true, HttpVersion::Http1).unwrap_err(), ProbeError::NoTrustedRoots);
        tls.verified().unwrap();
        advance(ROOTS_LAST).await;
        assert_eq!(waited(within).await, Duration::ZERO);
        drop(slow);
        assert_eq!(waited(within).await, Duration::ZERO);
        let _read = tls.modes.reading.lock().await;
        assert!(!tls.modes.verified().is_due(), "in the background");
    }
}
