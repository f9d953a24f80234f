//! The encrypted transports with real clients: `kdig` over TLS, QUIC and HTTPS, `curl`, and TLS by hand. Needs Debian's
//! knot-dnsutils and curl; fails loudly without them.

#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
};

use program::{Folder, PATIENCE, Program, wait_for};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// A folder with a configuration, a certificate and its key.
struct Site {
    folder: Folder,
    roots: RootCertStore,
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

const HOST: &str = "ns1.example.com";

const ZONE: &str = r#"
[admin]
listen = "127.0.0.1:0"

[regions.north]
location = "FRA"
endpoints = ["192.0.2.201"]

[regions.south]
location = "GRU"
endpoints = ["192.0.2.202"]

[zones."example.com"]
nameservers = ["ns1.example.com."]
addresses = { ns1 = ["192.0.2.53"] }
records = """
www   A     192.0.2.80
alias CNAME www
big   TXT   "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
"""

[zones."example.com".routes.geo]
ttl = 30
"#;

impl Site {
    /// With these limits, serving every transport on ports that the system chooses.
    fn new(limits: &str) -> Site {
        let folder = Folder::with_config(&format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nidentity = \"here\"\n[server.limits]\n{limits}\n[server.encrypted]\n\
             dot = [\"127.0.0.1:0\"]\ndoq = [\"127.0.0.1:0\"]\ndoh = [\"127.0.0.1:0\"]\n\
             certificate = \"cert.pem\"\nkey = \"key.pem\"\n{ZONE}"
        ));
        let mut site = Site { folder, roots: RootCertStore::empty() };
        site.new_certificate();
        site
    }

    /// Replaces certificate and key, and trusts the new one as well.
    fn new_certificate(&mut self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([HOST.into()]).unwrap();
        self.roots.add(made.cert.der().clone()).unwrap();
        for (name, text) in [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())] {
            let aside = self.folder.write("aside.pem", &text);
            fs::rename(aside, self.folder.path().join(name)).unwrap();
        }
        made.cert.der().clone()
    }

    /// A TLS connection; the handshake is made by the first read or write.
    fn connect(&self, server: SocketAddr, protocols: &[&str]) -> Tls {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(HOST).unwrap()).unwrap();
        StreamOwned::new(connection, plain(server))
    }
}

fn plain(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Starts the program and tells where it serves TLS, QUIC and HTTPS.
fn start(site: &Site) -> (Program, [SocketAddr; 3]) {
    let mut program = site.folder.start(&["serve", "--config", "isochrone.toml"]);
    let ready = program.wait_for_log("ready", |line| line["message"] == "ready");
    let addresses = ["dot", "doq", "doh"].map(|key| ready[key].as_str().expect(key).parse().unwrap());
    (program, addresses)
}

/// A query for an A record with so many options behind it, framed as on a connection.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn read_reply(stream: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a reply");
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    reply
}

fn ask(stream: &mut Tls, id: u16) -> Vec<u8> {
    stream.write_all(&framed(&query(id, "www.example.com"))).unwrap();
    read_reply(stream)
}

/// True once the server has closed; waits for it.
fn is_closed(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 512]) {
        Ok(0) => true,
        Ok(_) => is_closed(stream),
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool).args(arguments).stdin(Stdio::null()).output().expect("it is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn kdig(server: SocketAddr, arguments: &str) -> String {
    let (host, port) = (format!("@{}", server.ip()), server.port().to_string());
    let mut all = vec![host.as_str(), "-p", &port, "+timeout=30"];
    all.extend(arguments.split(' '));
    run("kdig", &all)
}

/// What a reply says, without what the transport says of itself.
fn said(text: &str) -> Vec<String> {
    const ASIDE: [&str; 6] = [";; Received", ";; Time", ";; From", ";; TLS", ";; QUIC", ";; HTTP"];
    let lines = text.lines().filter(|line| !line.is_empty() && !ASIDE.iter().any(|begin| line.starts_with(begin)));
    let lines = lines.filter(|line| !line.starts_with(";; PADDING"));
    lines.map(|line| line.split("; id:").next().unwrap_or_default().to_string()).collect()
}

fn queries_over(program: &Program, transport: &str) -> u64 {
    program.json("/api/v1/status")["queries"]["by_transport"][transport].as_u64().unwrap()
}

#[test]
fn every_transport_gives_the_same_answers_and_is_counted_and_logged() {
    let site = Site::new("[query-log]\nfile = \"queries.log\"");
    let (program, [dot, doq, doh]) = start(&site);
    let questions = [
        "www.example.com A +nsid",
        "WwW.eXample.com A +dnssec",
        "geo.example.com A +subnet=81.2.69.0/24 +nsid",
        "geo.example.com A",
        "alias.example.com A",
        "nope.example.com A",
        "www.example.com AAAA",
        "example.com ANY",
        "www.example.org A +nsid",
        "big.example.com TXT",
    ];
    for question in questions {
        // kdig pads on its own, so that it always has an OPT record where it encrypts.
        let expected = said(&kdig(program.dns, &format!("+tcp +edns {question}")));
        assert!(expected.iter().any(|line| line.contains("status: ")), "{expected:?}");
        for (server, how) in [(dot, "+tls"), (doq, "+quic"), (doh, "+https"), (doh, "+https +https-get")] {
            assert_eq!(said(&kdig(server, &format!("{how} {question}"))), expected, "{how} {question}");
        }
    }
    let count = questions.len() as u64;
    for (transport, expected) in [("dot", count), ("doq", count), ("doh", 2 * count)] {
        assert_eq!(queries_over(&program, transport), expected, "{transport}");
    }
    let (_, metrics) = program.get("/metrics");
    assert!(metrics.contains("isochrone_queries_total{transport=\"doq\",qtype_class=\"a\"}"), "{metrics}");
    for transport in ["tcp", "dot", "doq", "doh"] {
        let timed = format!("isochrone_answer_seconds_count{{transport=\"{transport}\"}} ");
        assert!(metrics.lines().any(|line| line.starts_with(&timed) && !line.ends_with(" 0")), "{timed}: {metrics}");
        let field = format!("\"transport\":\"{transport}\"");
        wait_for("its lines in the query log", || {
            let log = fs::read_to_string(site.folder.path().join("queries.log")).ok()?;
            let expected = if transport == "doh" { 2 * count } else { count };
            (log.lines().filter(|line| line.contains(&field)).count() as u64 == expected).then_some(())
        });
    }
    for (server, how) in [(dot, "+tls"), (doq, "+quic"), (doh, "+https")] {
        let padded = kdig(server, &format!("{how} +padding=100 www.example.com A"));
        assert!(padded.contains(";; Received 468 B"), "{padded}");
    }
    assert!(!kdig(program.dns, "+tcp +padding=100 www.example.com A").contains("PADDING"));
    assert_eq!(program.stderr().lines().filter(|line| line.contains("example.com")).count(), 0, "no line for a query");
}

#[test]
fn a_replaced_certificate_is_taken_up_while_connections_stay_and_a_broken_one_is_not() {
    let mut site = Site::new("tcp-idle = \"2m\"");
    let (mut program, [dot, doq, doh]) = start(&site);
    let shown = |site: &Site, server: SocketAddr| {
        let mut stream = site.connect(server, &[]);
        let _ = stream.flush(); // makes the handshake
        stream.conn.peer_certificates().expect("a certificate")[0].clone()
    };
    let first = CertificateDer::from_pem_file(site.folder.path().join("cert.pem")).unwrap();
    let mut open = site.connect(dot, &["dot"]);
    assert_eq!(ask(&mut open, 1)[..2], [0, 1]);
    assert_eq!(open.conn.alpn_protocol(), Some(&b"dot"[..]));
    assert_eq!((shown(&site, dot), shown(&site, doh)), (first.clone(), first));

    let second = site.new_certificate();
    program.wait_for_log("the new certificate", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("certificate taken up"))
    });
    wait_for("the new certificate", || (shown(&site, dot) == second && shown(&site, doh) == second).then_some(()));
    assert_eq!(ask(&mut open, 2)[..2], [0, 2], "the old connection goes on");
    assert!(kdig(doq, "+quic www.example.com A").contains("192.0.2.80"));

    site.folder.write("key.pem", "no key at all\n");
    let refused = program.wait_for_log("the refusal", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("certificate refused"))
    });
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("key.pem` holds no PEM private key"), "{told}");
    assert_eq!(shown(&site, dot), second);
    assert_eq!(ask(&mut open, 3)[..2], [0, 3]);
    assert_eq!(program.json("/api/v1/status")["reload"]["failed"], 1);

    let third = site.new_certificate();
    wait_for("the third certificate", || (shown(&site, dot) == third).then_some(()));
    wait_for("a mended state", || program.json("/api/v1/status")["reload"]["error"].is_null().then_some(()));
    assert_eq!(ask(&mut open, 4)[..2], [0, 4]);
}

#[test]
fn idle_connections_hold_nobody_up() {
    let site = Site::new("tcp-connections = 100\ntcp-per-client = 1000\ntcp-idle = \"2m\"");
    let (program, [dot, _, doh]) = start(&site);
    for server in [dot, doh] {
        let mut silent: Vec<_> = (0..150).map(|_| plain(server)).collect();
        let mut greeted: Vec<_> = (0..150)
            .map(|_| {
                let mut stream = site.connect(server, &[]);
                let _ = stream.flush();
                stream
            })
            .collect();
        let how = if server == dot { "+tls" } else { "+https" };
        for _ in 0..5 {
            assert!(kdig(server, &format!("{how} www.example.com A")).contains("192.0.2.80"));
        }
        assert!(is_closed(&mut silent[0]), "the idlest made room");
        assert!(is_closed(&mut greeted[0]), "a handshake is no use of a connection");
    }
    let open = program.json("/api/v1/status")["queries"]["tcp_connections"].as_u64().unwrap();
    assert!(open <= 200, "{open} connections");
}

#[test]
fn slow_handshakes_and_idle_clients_are_cut_and_garbage_costs_nothing() {
    let site = Site::new("tcp-idle = \"300ms\"");
    let (program, [dot, _, doh]) = start(&site);
    for server in [dot, doh] {
        let mut silent = plain(server);
        let mut half = plain(server);
        half.write_all(&[22, 3, 1, 2, 0, 1]).unwrap(); // the beginning of a ClientHello
        let mut garbage = plain(server);
        garbage.write_all(&framed(&query(7, "www.example.com"))).unwrap();
        assert!(is_closed(&mut silent) && is_closed(&mut half));
        let mut answer = Vec::new();
        let _ = garbage.read_to_end(&mut answer);
        assert!(answer.len() < 12 || answer[..1] == [21], "an alert at most: {answer:02x?}");
    }
    let mut idle = site.connect(dot, &[]);
    ask(&mut idle, 1);
    assert!(is_closed(&mut idle));
    for (protocol, hello) in [
        ("http/1.1", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ] {
        let mut idle = site.connect(doh, &[protocol]);
        idle.write_all(hello.as_bytes()).unwrap();
        assert!(is_closed(&mut idle), "{protocol}");
    }
    assert_eq!((queries_over(&program, "dot"), queries_over(&program, "doh")), (1, 0));
}

#[test]
fn a_client_that_never_reads_is_cut_and_holds_only_itself() {
    let site = Site::new("tcp-idle = \"500ms\"");
    let (_program, [dot, ..]) = start(&site);
    let mut greedy = site.connect(dot, &[]);
    let many: Vec<u8> = (0..200).flat_map(|id| framed(&query(id, "big.example.com"))).collect();
    greedy.sock.set_write_timeout(Some(PATIENCE)).unwrap();
    // It is cut off at some point; how much it could write before is the kernel's affair.
    let cut_off = (0..20_000).any(|_| greedy.write_all(&many).is_err());
    assert!(cut_off);
    assert_eq!(ask(&mut site.connect(dot, &[]), 9)[..2], [0, 9]);
}

#[test]
fn http_refuses_what_is_no_question_in_its_own_words() {
    let site = Site::new("");
    let (_program, [.., doh]) = start(&site);
    let folder = site.folder.path();
    fs::write(folder.join("question"), query(0, "www.example.com")).unwrap();
    fs::write(folder.join("missing"), query(0, "nope.example.com")).unwrap();
    fs::write(folder.join("longest"), vec![0; 65_535]).unwrap();
    fs::write(folder.join("longer"), vec![0; 65_536]).unwrap();
    let base = format!("https://{doh}/dns-query");
    let file = |name: &str| format!("@{}", folder.join(name).display());
    const TYPE: &str = "content-type: application/dns-message";
    let get = "AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";
    let post =
        |name: &str, content_type: &str| vec!["--data-binary".into(), file(name), "-H".into(), content_type.into()];
    let cases: Vec<(&str, String, Vec<String>, &str)> = vec![
        ("GET", format!("{base}?dns={get}"), vec![], "200 application/dns-message private, max-age=60 "),
        (
            "GET, other parameters",
            format!("{base}?a=b&dns={get}&c"),
            vec![],
            "200 application/dns-message private, max-age=60 ",
        ),
        ("POST", base.clone(), post("question", TYPE), "200 application/dns-message private, max-age=60 "),
        ("NXDOMAIN", base.clone(), post("missing", TYPE), "200 application/dns-message private, max-age=60 "),
        ("FORMERR", base.clone(), post("longest", TYPE), "200 application/dns-message no-store "),
        ("too long", base.clone(), post("longer", TYPE), "413 text/plain  "),
        ("another type", base.clone(), post("question", "content-type: text/plain"), "415 text/plain  "),
        ("no type", base.clone(), post("question", "content-type:"), "415 text/plain  "),
        ("no parameter", base.clone(), vec![], "400 text/plain  "),
        ("bad base64url", format!("{base}?dns=!!!"), vec![], "400 text/plain  "),
        ("half a header", format!("{base}?dns=AAAA"), vec![], "400 text/plain  "),
        ("a response", format!("{base}?dns=AACBAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB"), vec![], "400 text/plain  "),
        ("PUT", base.clone(), vec!["-X".into(), "PUT".into()], "405 text/plain  GET, POST"),
        ("another path", format!("https://{doh}/?dns={get}"), vec![], "404 text/plain  "),
    ];
    for (what, url, options, expected) in &cases {
        for version in ["--http1.1", "--http2"] {
            let write_out = "%{http_code} %header{content-type} %header{cache-control} %header{allow}";
            let mut arguments = vec!["-sk", "-o", "/dev/null", version, "-w", write_out, url];
            arguments.extend(options.iter().map(String::as_str));
            assert_eq!(run("curl", &arguments), *expected, "{what} {version}");
        }
    }
}

#[test]
fn a_stop_answers_what_is_in_flight() {
    let site = Site::new("");
    let (mut program, [dot, ..]) = start(&site);
    let mut streams: Vec<_> = (0..20).map(|_| site.connect(dot, &["dot"])).collect();
    for stream in &mut streams {
        ask(stream, 0);
        stream.write_all(&(1..=20).flat_map(|id| framed(&query(id, "www.example.com"))).collect::<Vec<_>>()).unwrap();
    }
    program.signal("TERM");
    for stream in &mut streams {
        for id in 1..=20u16 {
            assert_eq!(read_reply(stream)[..2], id.to_be_bytes());
        }
        assert!(is_closed(stream));
    }
    assert_eq!(program.ended().code(), Some(0));
}

#[test]
fn a_port_in_use_is_told_before_anything_is_served() {
    let site = Site::new("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let sound = fs::read_to_string(site.folder.path().join("isochrone.toml")).unwrap();
    let over_tls = sound.replace("dot = [\"127.0.0.1:0\"]", &format!("dot = [\"{address}\"]"));
    site.folder.write("taken.toml", &over_tls);
    let done = site.folder.run(&["serve", "--config", "taken.toml"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains(&format!("cannot listen on TCP {address}: address in use")), "{}", done.stderr);

    let plain = sound.replace("listen = [\"127.0.0.1:0\"]\nidentity", &format!("listen = [\"{address}\"]\nidentity"));
    let both = plain.replace("doq = [\"127.0.0.1:0\"]", &format!("doq = [\"{address}\"]"));
    site.folder.write("both.toml", &both);
    let done = site.folder.run(&["serve", "--config", "both.toml"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("is meant for plain DNS and for DNS over QUIC"), "{}", done.stderr);
}

#[test]
fn a_reload_tells_what_needs_a_restart_and_takes_up_another_certificate() {
    let mut site = Site::new("");
    let (mut program, [dot, ..]) = start(&site);
    let folder = site.folder.path().to_path_buf();
    let old = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        fs::copy(folder.join(name), folder.join(format!("old-{name}"))).unwrap();
    }
    let sound = fs::read_to_string(folder.join("isochrone.toml")).unwrap();
    let changed = sound.replace("doh = [\"127.0.0.1:0\"]", "doh = []");
    let second = site.new_certificate();
    wait_for("the second certificate", || {
        let mut stream = site.connect(dot, &[]);
        let _ = stream.flush();
        (stream.conn.peer_certificates()?[0] == second).then_some(())
    });
    site.folder.write(
        "isochrone.toml",
        &changed.replace("\"cert.pem\"", "\"old-cert.pem\"").replace("\"key.pem\"", "\"old-key.pem\""),
    );
    program.signal("HUP");
    let told = program.wait_for_log("the hint", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("takes effect at the next start"))
    });
    assert_eq!(told["message"], "`server.encrypted.doh` has changed; it takes effect at the next start");
    wait_for("the old certificate", || {
        let mut stream = site.connect(dot, &[]);
        let _ = stream.flush();
        (stream.conn.peer_certificates()?[0] == old).then_some(())
    });
}
