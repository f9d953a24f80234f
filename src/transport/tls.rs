//! TLS under the encrypted transports (RFC 7858, RFC 9325), and DNS over TLS itself: a handshake, then a connection like any
//! over TCP. Must never know where a certificate comes from: it is given the one in use.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::{net::TcpStream, time::timeout_at};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Respond,
    connection::{Connection, Seat, Stream},
};
use crate::config::TlsIdentity;

/// The identity that handshakes are made with from now on. Connections that are open keep the one that they were made with.
#[derive(Debug)]
pub struct CurrentIdentity(ArcSwap<CertifiedKey>);

/// Names of the protocols in the handshake (RFC 7858 and RFC 8484 by way of the IANA registry; RFC 9250 §4.1.1).
pub(super) const ALPN_DOT: &[u8] = b"dot";
pub(super) const ALPN_DOQ: &[u8] = b"doq";
pub(super) const ALPN_H2: &[u8] = b"h2";
pub(super) const ALPN_HTTP_1: &[u8] = b"http/1.1";

/// Most bytes that a connection's TLS holds for a client that does not read; the rest waits where all connections are bounded.
const TLS_BUFFER: usize = 16 << 10;

impl CurrentIdentity {
    /// Begins with this one.
    pub fn new(identity: &TlsIdentity) -> Arc<CurrentIdentity> {
        Arc::new(CurrentIdentity(ArcSwap::new(identity.certified_key().clone())))
    }

    /// Handshakes from now on are made with another one.
    pub fn replace(&self, identity: &TlsIdentity) {
        self.0.store(identity.certified_key().clone());
    }
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS 1.2 and 1.3 for connections over TCP. A client that names no protocol is taken; one that names others is not (RFC 7301).
pub(super) fn over_tcp(
    identity: Arc<CurrentIdentity>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    config(identity, protocols, &[&TLS13, &TLS12])
}

/// TLS 1.3, which QUIC is bound to (RFC 9001 §4.2).
pub(super) fn over_quic(identity: Arc<CurrentIdentity>) -> Result<Arc<ServerConfig>, rustls::Error> {
    config(identity, &[ALPN_DOQ], &[&TLS13])
}

fn config(
    identity: Arc<CurrentIdentity>,
    protocols: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(identity);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // Sessions are resumed from tickets that the clients keep: nothing is held here for who may never come back.
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// DNS over TLS: serves one connection from its first byte to its end.
pub(super) async fn serve<R: Respond>(stream: TcpStream, config: Arc<ServerConfig>, seat: Seat<R>) {
    if let Some(stream) = handshake(stream, config, &seat).await {
        Connection::new(stream, seat).serve().await;
    }
}

impl Stream for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// The handshake, which has as long as a message has; `None` when it failed, or when the server stops: nothing was asked yet.
pub(super) async fn handshake<R>(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    seat: &Seat<R>,
) -> Option<TlsStream<TcpStream>> {
    let mut stop = seat.stop.clone();
    let bounded = |connection: &mut rustls::ServerConnection| connection.set_buffer_limit(Some(TLS_BUFFER));
    let handshake = TlsAcceptor::from(config).accept_with(stream, bounded);
    tokio::select! {
        biased;
        done = timeout_at(seat.new_deadline(), handshake) => done.ok()?.ok(),
        _ = stop.wait_for(|&stop| stop) => None,
    }
}
