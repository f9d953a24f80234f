//! HTTPS against certificates of every kind.

use std::{io::Write, net::IpAddr, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use tokio_rustls::TlsAcceptor;

use super::{names::named, *};
use crate::health::{install_crypto_provider, testing::net_probe_trusting};

pub(super) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(super) fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name); // or it would look like the issuer of all others
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a server shows: for whom, by which CA (`None`: by itself), and until when.
pub(super) fn certificate(name: &str, ca: Option<&Ca>, last_year: i32) -> ServerConfig {
    certificate_with(name, ca, |params| params.not_after = date_time_ymd(last_year, 1, 1))
}

fn certificate_with(name: &str, ca: Option<&Ca>, change: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    change(&mut params);
    let made = match ca {
        Some(ca) => params.signed_by(&key, ca).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    install_crypto_provider();
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}

/// Serves `200` over TLS after a pause; sends the server names that clients asked for.
async fn tls_server(
    config: ServerConfig,
    pause: Duration,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Option<String>>) {
    let (names, asked) = tokio::sync::mpsc::unbounded_channel();
    let config = Arc::new(config);
    let at = server(move |stream| {
        let (config, names) = (config.clone(), names.clone());
        async move {
            let mut stream = stream.into_std().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(pause);
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(AMPLE)).unwrap();
                let mut tls = ServerConnection::new(config).unwrap();
                while tls.is_handshaking() {
                    if tls.complete_io(&mut stream).is_err() {
                        return;
                    }
                }
                let _ = names.send(tls.server_name().map(str::to_owned));
                let _ = tls.writer().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                tls.send_close_notify();
                let _ = tls.complete_io(&mut stream);
                while tls.wants_read() && tls.read_tls(&mut stream).is_ok_and(|n| n > 0) {
                    let _ = tls.process_new_packets();
                }
            });
        }
    })
    .await;
    (at, asked)
}

pub(super) fn trusting(ca: &Ca) -> NetProbe {
    net_probe_trusting(TrustedRoots::Only(vec![ca.der().clone()]))
}

pub(super) fn https(at: SocketAddr, host: Option<&str>, verify_tls: bool) -> Check {
    http_within(at, AMPLE, |http| {
        (http.tls, http.verify_tls, http.host) = (true, verify_tls, host.map(str::to_owned));
    })
}

#[tokio::test]
async fn a_certificate_must_be_valid_for_the_host_unless_told_otherwise() {
    let (trusted, stranger) = (ca("trusted"), ca("stranger"));
    let net = trusting(&trusted);
    for (what, config, host, complaint) in [
        ("right", certificate("web.example", Some(&trusted), 2100), Some("web.example"), None),
        ("for the address", certificate("127.0.0.1", Some(&trusted), 2100), None, None),
        ("self-signed", certificate("web.example", None, 2100), Some("web.example"), Some("UnknownIssuer")),
        (
            "of a stranger",
            certificate("web.example", Some(&stranger), 2100),
            Some("web.example"),
            Some("UnknownIssuer"),
        ),
        (
            "wrong name",
            certificate("web.example", Some(&trusted), 2100),
            Some("app.example"),
            Some("not valid for name"),
        ),
        ("not for the address", certificate("web.example", Some(&trusted), 2100), None, Some("not valid for name")),
        ("expired", certificate("web.example", Some(&trusted), 2021), Some("web.example"), Some("expired")),
    ] {
        let (at, _) = tls_server(config, Duration::ZERO).await;
        let endpoint = || Endpoint::Address(at.ip());
        let result = probe_with(&net, endpoint(), https(at, host, true)).await;
        match (&result.outcome, complaint) {
            (Ok(()), None) => assert_eq!(result.status, Some(200)),
            (Err(ProbeError::Tls(text)), Some(words)) => assert!(text.contains(words), "{what}: {text}"),
            _ => panic!("{what}: {result}"),
        }
        let result = probe_with(&net, endpoint(), https(at, host, false)).await;
        assert_eq!((&result.outcome, result.status), (&Ok(()), Some(200)), "{what}, unverified: {result}");
    }
}

#[tokio::test]
async fn the_certificate_that_was_shown_tells_when_it_runs_out() {
    let trusted = ca("trusted");
    let net = trusting(&trusted);
    let soon = date_time_ymd(2100, 1, 1) + Duration::from_secs(4_711);
    let until_soon = |params: &mut CertificateParams| params.not_after = soon;
    for (config, verify, expected) in [
        (certificate_with("web.example", Some(&trusted), until_soon), true, Some(soon.unix_timestamp())),
        (certificate("web.example", None, 2021), false, Some(date_time_ymd(2021, 1, 1).unix_timestamp())),
        (certificate("web.example", None, 2021), true, Some(date_time_ymd(2021, 1, 1).unix_timestamp())),
        (certificate("web.example", Some(&trusted), 2021), true, Some(date_time_ymd(2021, 1, 1).unix_timestamp())),
    ] {
        let (at, _) = tls_server(config, Duration::ZERO).await;
        let result = probe_with(&net, Endpoint::Address(at.ip()), https(at, Some("web.example"), verify)).await;
        assert_eq!(result.certificate_expires_s, expected, "{result}");
    }
}

#[tokio::test]
async fn the_server_name_follows_the_host_and_is_left_out_for_addresses() {
    let trusted = ca("trusted");
    let (at, mut asked) = tls_server(certificate("web.example", Some(&trusted), 2100), Duration::ZERO).await;
    let net = trusting(&trusted);
    net.resolver.preset("web.example", &[at.ip()]);
    let address = || Endpoint::Address(at.ip());
    for (endpoint, host, expected) in [
        (address(), Some("app.example"), Some("app.example")),
        (Endpoint::Name("web.example".into()), None, Some("web.example")),
        (Endpoint::Name("web.example".into()), Some("app.example"), Some("app.example")),
        (address(), None, None),
        (Endpoint::Name("web.example".into()), Some("192.0.2.1"), None),
    ] {
        assert!(probe_with(&net, endpoint, https(at, host, false)).await.is_success());
        assert_eq!(asked.recv().await.unwrap().as_deref(), expected);
    }
}

#[tokio::test]
async fn connect_time_is_the_tcp_connection_alone() {
    let trusted = ca("trusted");
    let (at, _) = tls_server(certificate("127.0.0.1", Some(&trusted), 2100), SHORT).await;
    let result = probe_with(&trusting(&trusted), Endpoint::Address(at.ip()), https(at, None, true)).await;
    let (connect, tls) = (result.connect.unwrap(), result.tls.unwrap());
    assert!(tls >= SHORT - Duration::from_millis(50), "the pause falls into the handshake: {tls:?}");
    assert!(connect + tls <= result.total && result.total - tls < result.total);
    assert!(connect < tls);
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_times_out_in_tls() {
    let at = server(|stream| async move {
        sleep(AMPLE).await;
        drop(stream);
    })
    .await;
    let check = Check { timeout: SHORT, ..https(at, None, false) };
    let result = probe(at, check).await;
    assert_eq!(timed_out_in(&result), Some(Phase::Tls), "{result}");
    assert!(result.connect.is_some());
}

#[tokio::test]
async fn plain_http_on_an_https_port_is_a_tls_failure() {
    let at = answering(&["HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"]).await;
    let at_once = server(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let result = probe(at_once, https(at_once, None, false)).await;
    assert!(matches!(result.outcome, Err(ProbeError::Tls(_))), "{result}");
    let result = probe(at, http_within(at, AMPLE, |_| {})).await;
    assert_eq!(result.outcome, Err(ProbeError::Status(400)), "the same without TLS");
}

#[tokio::test]
async fn a_host_without_ca_bundle_still_probes_what_needs_none() {
    let nobody = net_probe_trusting(TrustedRoots::Only(Vec::<CertificateDer<'static>>::new()));
    let plain = answering(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
    let loopback = || Endpoint::Address(IpAddr::from([127, 0, 0, 1]));
    assert!(probe_with(&nobody, loopback(), http_within(plain, AMPLE, |_| {})).await.is_success());
    let (at, _) = tls_server(certificate("127.0.0.1", None, 2100), Duration::ZERO).await;
    assert!(probe_with(&nobody, loopback(), https(at, None, false)).await.is_success());
    let result = probe_with(&nobody, loopback(), https(at, None, true)).await;
    assert_eq!(result.outcome, Err(ProbeError::NoTrustedRoots));
    assert!(ProbeError::NoTrustedRoots.is_inconclusive(), "it says nothing of the endpoint");
}

#[tokio::test]
async fn the_certificates_of_all_addresses_of_a_name_are_seen_whichever_answers_first() {
    let until = |year| date_time_ymd(year, 1, 1).unix_timestamp();
    let acceptor = |year| TlsAcceptor::from(Arc::new(certificate("many.example", None, year)));
    let quick = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = quick.local_addr().unwrap();
    let slow = TcpListener::bind(SocketAddr::from(([127, 0, 0, 2], at.port()))).await.unwrap();
    let (go, gone) = tokio::sync::watch::channel(false);
    for (listener, acceptor, mut held) in [(quick, acceptor(2100), None), (slow, acceptor(2040), Some(gone))] {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Some(held) = &mut held {
                    let _ = held.wait_for(|go| *go).await; // until the other has answered
                }
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
    }
    let (net, endpoint) = named(&[at.ip(), IpAddr::from([127, 0, 0, 2])]);
    let check = https(at, None, false);
    let first = probe_with(&net, endpoint.clone(), check.clone()).await;
    assert_eq!((&first.outcome, first.certificate_expires_s), (&Ok(()), Some(until(2100))), "{first}");
    go.send_replace(true);
    let begun = std::time::Instant::now();
    while probe_with(&net, endpoint.clone(), check.clone()).await.certificate_expires_s != Some(until(2040)) {
        assert!(begun.elapsed() < AMPLE, "what ended in the background is told with the next result");
    }
}

#[tokio::test]
async fn a_chain_of_certificates_that_is_too_long_is_an_answer_and_no_success() {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["web.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let further = ca("further");
    install_crypto_provider();
    for (count, passes) in [(10, true), (1_000, false)] {
        let mut chain = vec![leaf.der().clone()];
        chain.resize(count, further.der().clone());
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap();
        let (at, _) = tls_server(config, Duration::ZERO).await;
        let result = probe(at, https(at, Some("web.example"), false)).await;
        assert_eq!(result.is_success(), passes, "{count}: {result}");
        assert!(passes || matches!(result.outcome, Err(ProbeError::Tls(_))), "{count}: {result}");
    }
}
