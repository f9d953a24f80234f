//! What the tests of this room share.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use super::{
    Check, CheckKind, Endpoint, HttpCheck, HttpVersion, Method, NetProbe, ProbeError, ProbeResult, StatusSet, damping,
    probe::tls::TrustedRoots,
};

/// Probes as the program does.
pub fn net_probe() -> NetProbe {
    net_probe_trusting(TrustedRoots::Host)
}

/// The same, trusting these roots.
pub fn net_probe_trusting(roots: TrustedRoots) -> NetProbe {
    NetProbe::new(roots, Arc::new(|name: &str| Ok((name, 0).to_socket_addrs()?.map(|at| at.ip()).collect())))
}

/// An address endpoint.
pub fn address(text: &str) -> Endpoint {
    Endpoint::Address(text.parse().unwrap())
}

/// A TCP check with the defaults of the configuration.
pub fn tcp_check(port: u16) -> Check {
    Check {
        name: "web".into(),
        kind: CheckKind::Tcp { port },
        interval: Duration::from_secs(10),
        fast_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(4),
        fall: 3,
        rise: 2,
        damping: damping::Rules::OFF,
    }
}

/// An HTTP check of `/` at a server of the test, with a timeout that only a hang reaches.
pub fn http_check(at: SocketAddr) -> Check {
    Check {
        kind: CheckKind::Http(HttpCheck {
            tls: false,
            verify_tls: true,
            port: at.port(),
            path: "/".into(),
            host: None,
            method: Method::Get,
            headers: Vec::new(),
            version: HttpVersion::Auto,
            expect_status: StatusSet(vec![(200, 299), (300, 399)]),
            expect_body: String::new(),
        }),
        ..tcp_check(0)
    }
}

/// The HTTP part of a check made by [`http_check`].
pub fn http_part(check: &mut Check) -> &mut HttpCheck {
    match &mut check.kind {
        CheckKind::Http(http) => http,
        _ => panic!("not an HTTP check"),
    }
}

/// A successful TCP probe that connected in `connect_ms`.
pub fn success(connect_ms: u64) -> ProbeResult {
    let connect = Duration::from_millis(connect_ms);
    ProbeResult { connect: Some(connect), total: connect, ..ProbeResult::default() }
}

/// A refused connection.
pub fn failure() -> ProbeResult {
    ProbeResult::failed(ProbeError::Refused, Duration::from_millis(1))
}
