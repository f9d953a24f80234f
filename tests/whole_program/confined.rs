//! What the server gives up, seen from outside: user, capabilities, files, system calls, core dumps; and that it goes on answering,
//! reloading and keeping its state. What the service manager is told. That secrets stay secret. For root, since only root can become
//! somebody else.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixDatagram,
    },
    path::Path,
};

use super::{
    AMERICAN, EUROPEAN, ask, database, openssl,
    program::{Folder, PATIENCE, Program, wait_for},
    wait_for_answer,
};

const NOBODY: u32 = 65_534;

fn require_root() {
    assert_eq!(fs::metadata("/proc/self").unwrap().uid(), 0, "this test is for root");
}

/// An address on loopback with a port that only root may bind.
fn privileged_address() -> SocketAddr {
    let mut candidates = (600..1000).map(|port| SocketAddr::from((Ipv4Addr::new(127, 77, 0, 1), port)));
    let is_free = |at: &SocketAddr| TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok();
    candidates.find(is_free).expect("some port is free")
}

fn config(listen: SocketAddr, more: &str) -> String {
    format!(
        r#"
[server]
listen = ["{listen}"]
state-dir = "state"
{more}
[admin]
listen = "127.0.0.1:0"
[geo]
database = "places.mmdb"
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.0.10.1"]
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["127.0.10.2"]
[zones."geo.example"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
[zones."geo.example".routes."*.app"]
ttl = 5
"#
    )
}

/// A folder that everybody may read, with a location database.
fn open_folder() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("places.mmdb"), database(true, false)).unwrap();
    folder
}

fn make_certificate(folder: &Folder, name: &str) {
    let arguments = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"
    );
    openssl(folder.path(), &arguments);
    chown(folder.path().join(format!("{name}.key")), Some(NOBODY), None).unwrap();
}

/// What `/proc` says of every thread, by its name and number.
fn threads(program: &Program) -> BTreeMap<String, BTreeMap<String, String>> {
    let entries = fs::read_dir(format!("/proc/{}/task", program.id())).unwrap();
    let texts = entries.filter_map(|entry| {
        let path = entry.unwrap().path();
        Some((path.file_name()?.to_string_lossy().into_owned(), fs::read_to_string(path.join("status")).ok()?))
    });
    let fields = |text: String| {
        let pair = |line: &str| line.split_once(':').map(|(key, value)| (key.to_string(), value.trim().to_string()));
        text.lines().filter_map(pair).collect::<BTreeMap<_, _>>()
    };
    texts.map(|(id, text)| (id, fields(text))).map(|(id, f)| (format!("{} {id}", f["Name"]), f)).collect()
}

fn replace(folder: &Folder, name: &str, bytes: &[u8]) {
    let aside = folder.path().join("new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(&aside, folder.path().join(name)).unwrap();
}

#[test]
fn a_server_that_becomes_nobody_keeps_what_it_needs_and_nothing_else() {
    require_root();
    let folder = open_folder();
    make_certificate(&folder, "server");
    let listen = privileged_address();
    let encrypted = "[server.encrypted]\ndot = [\"127.0.0.1:0\"]\ndoq = [\"127.0.0.1:0\"]\ndoh = [\"127.0.0.1:0\"]\n\
                     certificate = \"server.pem\"\nkey = \"server.key\"";
    let sound = config(listen, &format!("user = \"nobody\"\n{encrypted}"));
    folder.write("isochrone.toml", &sound);
    let mut server = folder.start(&["serve", "--config", "isochrone.toml"]);
    assert_eq!(server.dns, listen);
    wait_for_answer(listen, EUROPEAN, "127.0.10.2");
    holds_nothing(&server);

    let has_landlock = landlock(&server);
    reloads(&mut server, &folder, &sound);
    if has_landlock {
        outside_is_out_of_reach(&mut server, &folder, &sound);
    }
    writes_state(&server, &folder);
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0), "{}", server.stderr());
}

/// Every thread is nobody, without a capability, and filtered; there is no core dump.
fn holds_nothing(server: &Program) {
    let threads = threads(server);
    assert!(threads.len() >= 7, "{:?}", threads.keys());
    for (thread, says) in threads {
        for (key, expected) in [
            ("Uid", "65534\t65534\t65534\t65534"),
            ("Gid", "65534\t65534\t65534\t65534"),
            ("Groups", "65534"),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(says[key], expected, "{key} of {thread}");
        }
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let core: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    // The files of a process that may not be dumped belong to root.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", server.id())).unwrap().uid(), 0);
}

/// What status and metrics say of it; true where the kernel has landlock.
fn landlock(server: &Program) -> bool {
    let confined = &server.json("/api/v1/status")["confinement"];
    assert_eq!((&confined["user"], &confined["seccomp"]), (&"nobody".into(), &true.into()), "{confined}");
    let has_landlock = confined["landlock"].is_u64();
    let (_, metrics) = server.get("/metrics");
    for line in [
        "isochrone_confined{part=\"seccomp\"} 1".to_string(),
        format!("isochrone_confined{{part=\"landlock\"}} {}", u8::from(has_landlock)),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    for figure in ["process_open_fds", "process_cpu_seconds", "process_start_time_seconds", "process_resident_memory"] {
        assert!(metrics.contains(figure), "{figure} is gone: {metrics}");
    }
    has_landlock
}

/// The configuration, the database and the certificate, replaced as programs replace them: written aside and renamed.
fn reloads(server: &mut Program, folder: &Folder, sound: &str) {
    let listen = server.dns;
    replace(folder, "isochrone.toml", sound.replace("127.0.10.2", "127.0.10.9").as_bytes());
    server.signal("HUP");
    wait_for_answer(listen, EUROPEAN, "127.0.10.9");
    replace(folder, "places.mmdb", &database(true, true));
    wait_for_answer(listen, EUROPEAN, "127.0.10.1");
    wait_for_answer(listen, AMERICAN, "127.0.10.9");
    make_certificate(folder, "next");
    for end in ["key", "pem"] {
        fs::rename(folder.path().join(format!("next.{end}")), folder.path().join(format!("server.{end}"))).unwrap();
    }
    server.wait_for_log("the certificate", |line| {
        line["message"].as_str().is_some_and(|message| message.starts_with("certificate taken up"))
    });
}

/// A file that anybody may read, in a folder that no key named when the server started.
fn outside_is_out_of_reach(server: &mut Program, folder: &Folder, sound: &str) {
    let elsewhere = open_folder();
    let zone = elsewhere.write("static.zone", "www TXT \"x\"\n");
    let named = format!("contact = \"x@example.net\"\nfile = \"{}\"\n[zones.\"geo.example\".routes", zone.display());
    let outside = sound.replacen("[zones.\"geo.example\".routes", &named, 1);
    folder.write("outside.toml", &outside);
    assert_eq!(folder.run(&["check", "--config", "outside.toml"]).code, Some(0), "it is sound in itself");
    replace(folder, "isochrone.toml", outside.as_bytes());
    let done = folder.run(&["reload", "--admin", &server.admin_url()]);
    assert_eq!(done.code, Some(2), "{done:#?}");
    assert!(done.stderr.contains("static.zone` lies outside of the folders"), "{done:#?}");
    assert!(done.stderr.contains("restart the server"), "{done:#?}");
    assert_eq!(ask("dig", server.dns, AMERICAN, false, "A"), "127.0.10.9");
}

fn writes_state(server: &Program, folder: &Folder) {
    let done = folder.run(&["drain", "us", "--admin", &server.admin_url()]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    let state = folder.path().join("state");
    for path in [state.clone(), state.join("overrides.json")] {
        let metadata = wait_for("the state", || fs::metadata(&path).ok());
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
}

#[test]
fn what_the_user_cannot_read_or_write_is_told_at_the_start() {
    require_root();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let start = |folder: &Folder, toml: &str| {
        folder.write("isochrone.toml", toml);
        let done = folder.run(&["serve", "--config", "isochrone.toml"]);
        assert_eq!(done.code, Some(2), "{done:#?}");
        done.stderr
    };
    let nobody = config(any, "user = \"nobody\"");

    let shut = open_folder();
    fs::set_permissions(shut.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let told = start(&shut, &nobody);
    assert!(told.contains("the user `nobody` cannot read the configuration `isochrone.toml`"), "{told}");
    assert!(told.contains(&format!("the folder `{}` is closed to it", shut.path().display())), "{told}");

    let folder = open_folder();
    make_certificate(&folder, "server");
    fs::set_permissions(folder.write("token", "s3cret-s3cret-s3cret"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::create_dir(folder.path().join("state")).unwrap();
    let with_token = nobody.replace("[admin]\n", "[admin]\ntoken-file = \"token\"\n");
    let told = start(&folder, &with_token);
    assert!(told.contains("the user `nobody` cannot read the token file `token`"), "{told}");
    assert!(told.contains("run: chgrp 65534 token && chmod g+r token"), "{told}");
    assert!(told.contains("cannot write to `state`") && told.contains("run: chown -R 65534:65534 state"), "{told}");

    // State of a server that ran as root so far: it would be set aside, and what operators decided forgotten.
    chown(folder.path().join("state"), Some(NOBODY), Some(NOBODY)).unwrap();
    let kept = folder.path().join("state/overrides.json");
    fs::write(&kept, "{}").unwrap();
    fs::set_permissions(&kept, PermissionsExt::from_mode(0o600)).unwrap();
    let told = start(&folder, &nobody);
    assert!(told.contains("cannot read `state/overrides.json`, where state is kept"), "{told}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "{}");

    let told = start(&folder, &config(any, "user = \"no-such-user\""));
    assert!(told.contains("the user `no-such-user` does not exist on this host"), "{told}");
}

#[test]
fn a_server_that_stays_root_says_so_and_keeps_one_capability() {
    require_root();
    let folder = open_folder();
    folder.write("isochrone.toml", &config(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ""));
    let mut server = folder.start(&["serve", "--config", "isochrone.toml"]);
    server.wait_for_log("the warning", |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.starts_with("the server runs as root"))
    });
    for (thread, says) in threads(&server) {
        let held = (&*says["CapEff"], &*says["CapBnd"], &*says["Seccomp"]);
        assert_eq!(held, ("0000000000000002", "0000000000000002", "2"), "{thread}");
    }
}

#[test]
fn without_the_sandbox_a_debugger_finds_what_it_looks_for() {
    require_root();
    let folder = open_folder();
    folder.write("isochrone.toml", &config(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "sandbox = false"));
    let server = folder.start(&["serve", "--config", "isochrone.toml"]);
    let own = fs::read_to_string("/proc/self/status").unwrap(); // a container may filter everything that runs in it
    let filters = own.lines().find(|line| line.starts_with("Seccomp_filters:")).unwrap();
    for (thread, says) in threads(&server) {
        assert_eq!(
            (format!("Seccomp_filters:\t{}", says["Seccomp_filters"]), &*says["NoNewPrivs"]),
            (filters.into(), "1"),
            "{thread}"
        );
    }
    let confined = &server.json("/api/v1/status")["confinement"];
    assert_eq!((&confined["landlock"], &confined["seccomp"]), (&serde_json::Value::Null, &false.into()));
}

#[test]
fn the_service_manager_is_told_of_every_step() {
    let folder = open_folder();
    folder.write("isochrone.toml", &config(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ""));
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let mut server = folder.start_with(&["serve", "--config", "isochrone.toml"], &variables);
    let mut alive = 0;
    let next = |alive: &mut u32| loop {
        let mut bytes = [0; 1024];
        let len = manager.recv(&mut bytes).expect("the manager is told something");
        match std::str::from_utf8(&bytes[..len]).unwrap() {
            "WATCHDOG=1\n" => *alive += 1,
            told => return told.to_string(),
        }
    };
    assert_eq!(next(&mut alive), "READY=1\nSTATUS=answering: 2 regions, 1 zone, 1 route\n");
    assert_eq!(server.get("/livez").0, 200);
    folder.write("isochrone.toml", "[server");
    server.signal("HUP");
    let told = next(&mut alive);
    assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
    let refused = "answering: 2 regions, 1 zone, 1 route; the newest reload was refused";
    assert_eq!(next(&mut alive), format!("READY=1\nSTATUS={refused}\n"));

    // It goes on being alive: each sign comes well within the time that the manager waits.
    let before = alive;
    while alive < before + 3 {
        let mut bytes = [0; 64];
        let len = manager.recv(&mut bytes).expect("a sign of life");
        assert_eq!(&bytes[..len], b"WATCHDOG=1\n");
        alive += 1;
    }
    server.signal("TERM");
    assert_eq!(next(&mut alive), "STOPPING=1\n");
    assert_eq!(server.ended().code(), Some(0));
}

/// A server with a secret of every kind, as talkative as it can be: none of them is told, wherever one asks.
#[test]
fn no_secret_is_told_by_a_talkative_server() {
    const TOKEN: &str = "token-Wq8zR4kT1mXv7bNc";
    const COOKIE: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    const HEADER: &str = "Bearer probe-Zt5yHn2QwLk9";
    let folder = open_folder();
    make_certificate(&folder, "server");
    folder.write("token", TOKEN);
    folder.write("cookies", COOKIE);
    assert_eq!(folder.run(&["key", "new", "geo.example", "--out", "geo.key"]).code, Some(0));
    assert_eq!(folder.run(&["key", "node", "--out", "node.key"]).code, Some(0));
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = endpoint.local_addr().unwrap().port();
    std::thread::spawn(move || answer_probes(&endpoint));
    let more = format!(
        "cookie-secret-file = \"cookies\"\n[server.encrypted]\ndot = [\"127.0.0.1:0\"]\ncertificate = \"server.pem\"\n\
         key = \"server.key\"\n[cluster]\nnats = [\"nats://127.0.0.1:1\"]\ncredentials = \"node.key\"\n\
         [checks.web]\ntype = \"http\"\nport = {port}\ninterval = \"1s\"\nheaders = {{ authorization = \"{HEADER}\" }}\n"
    );
    let toml = config(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &more)
        .replace("[admin]\n", "[admin]\ntoken-file = \"token\"\n")
        .replace("[\"127.0.10.1\"]", "[\"127.0.0.1\"]\ncheck = \"web\"")
        .replace("[zones.\"geo.example\"]\n", "[zones.\"geo.example\"]\ndnssec-key = \"geo.key\"\n");
    folder.write("isochrone.toml", &toml);
    let server = folder.start_with(&["serve", "--config", "isochrone.toml"], &[("RUST_LOG", "trace")]);
    wait_for("a probe that got through", || {
        let status = server.json("/api/v1/status");
        (status["regions"][0]["endpoints"][0]["state"] == "up" && status["ready"] == true).then_some(())
    });
    wait_for_answer(server.dns, EUROPEAN, "127.0.10.2");
    with_token(&server, TOKEN);
    server.signal("HUP");
    wait_for("the reload", || (server.json("/api/v1/status")["reload"]["succeeded"] == 1).then_some(()));

    let mut told = vec![("log".to_string(), server.stderr())];
    for path in [
        "/",
        "/metrics",
        "/api/v1/status",
        "/api/v1/explain?name=www.app.geo.example&client=81.2.69.0/24",
        "/api/v1/history?region=us",
        "/api/v1/traffic",
        "/api/v1/latency",
    ] {
        told.push((path.to_string(), server.get(path).1));
    }
    for arguments in [vec!["status", "--json"], vec!["explain", "www.app.geo.example", "--json"]] {
        let done = folder.run(&[&arguments[..], &["--admin", &server.admin_url()]].concat());
        told.push((arguments.join(" "), done.stdout + &done.stderr));
    }
    let secrets = [
        TOKEN.to_string(),
        COOKIE.to_string(),
        HEADER.trim_start_matches("Bearer ").to_string(),
        last_line_of_key(folder.path(), "server.key"),
        last_line_of_key(folder.path(), "geo.key"),
        seed(folder.path(), "node.key"),
    ];
    for (place, text) in &told {
        assert!(!text.is_empty(), "{place} says nothing");
        for secret in &secrets {
            let found = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(found, None, "{place} tells a secret");
        }
    }
}

fn answer_probes(endpoint: &TcpListener) {
    for stream in endpoint.incoming() {
        let Ok(mut stream) = stream else { return };
        let _a_probe_that_went_away = stream
            .read(&mut [0; 4096])
            .and_then(|_| stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
    }
}

/// Shows the token where it is not even asked for.
fn with_token(server: &Program, token: &str) {
    let mut stream = TcpStream::connect(server.admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /api/v1/regions/us/force HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 16\r\n\r\n{{\"state\":\"auto\"}}",
        server.admin
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The part of a PEM key that is most its own: the last line of Base64.
fn last_line_of_key(folder: &Path, name: &str) -> String {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let line = text.lines().rev().find(|line| !line.starts_with('-') && line.len() > 15);
    line.unwrap_or_else(|| panic!("{name} holds no key")).to_string()
}

fn seed(folder: &Path, name: &str) -> String {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    text.lines().find(|line| line.starts_with("SU")).expect("a seed").to_string()
}
