//! The main job with real parts: a location database, real HTTP and HTTPS servers (nginx), `dig` and `kdig` over UDP and TCP, IPv4
//! and IPv6. Needs Debian's nginx-light, openssl, bind9-dnsutils and knot-dnsutils; fails loudly without them.

#[path = "whole_program/confined.rs"]
mod confined;
#[path = "support/mmdb.rs"]
mod mmdb;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use nginx::Nginx;
use program::{Folder, Program, wait_for};

const EUROPEAN: &str = "81.2.69.0/24";
const AMERICAN: &str = "3.80.0.0/24";
const EUROPEAN_V6: &str = "2a01:4f8::/48";

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority and a certificate for `app.example`.
fn make_certificates(folder: &Folder) {
    folder.write("san", "subjectAltName=DNS:app.example");
    let dir = folder.path();
    openssl(
        dir,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test",
    );
    openssl(
        dir,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj /CN=app.example",
    );
    openssl(dir, "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 2 -extfile san");
}

/// European networks in `germany`'s place, American ones in Virginia.
fn database(nested: bool, swapped: bool) -> Vec<u8> {
    let record = |country: &'static str, continent: &'static str, latitude: f64, longitude: f64| match nested {
        true => mmdb::nested(country, continent, latitude, longitude),
        false => mmdb::flat(country, latitude as f32, longitude as f32),
    };
    let germany = record("DE", "EU", 50.1, 8.7);
    let virginia = record("US", "NA", 39.0, -77.5);
    let (europe, america) = if swapped { (&virginia, &germany) } else { (&germany, &virginia) };
    let mut writer = mmdb::Writer::new(6, 28);
    writer.put("81.0.0.0/8", europe).put("2a01::/16", europe).put("3.0.0.0/8", america);
    writer.finish()
}

/// A port that is free on all loopback addresses that the test uses.
fn free_port() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.10.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.10.2", port)).is_ok() && TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
}

fn config(port: u16) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0", "[::1]:0"]
[admin]
listen = "127.0.0.1:0"
[geo]
database = "places.mmdb"
[checks.plain]
type = "http"
port = {port}
path = "/health"
expect-status = ["200"]
expect-body = "all is well"
interval = "1s"
timeout = "500ms"
[checks.secure]
type = "https"
port = {port}
path = "/health"
host = "app.example"
interval = "1s"
timeout = "500ms"
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.0.10.1"]
check = "plain"
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["127.0.10.2", "::1"]
check = "secure"
[zones."geo.example"]
nameservers = ["ns1.example.net.", "ns2.example.net."]
[zones."geo.example".routes."*.app"]
ttl = 5
"#
    )
}

/// What a client tool prints for an A question about `www.app.geo.example` from a client network.
fn ask(tool: &str, server: SocketAddr, client: &str, tcp: bool, qtype: &str) -> String {
    let output = Command::new(tool)
        .args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "www.app.geo.example", qtype])
        .args([format!("+subnet={client}").as_str(), "+short", if tcp { "+tcp" } else { "+notcp" }])
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}"));
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

fn addresses(server: &mut Program) -> Vec<SocketAddr> {
    let ready = server.wait_for_log("ready", |line| line["message"] == "ready");
    ready["listen"].as_str().unwrap().split(' ').map(|address| address.parse().unwrap()).collect()
}

fn wait_for_answer(server: SocketAddr, client: &str, expected: &str) {
    wait_for(&format!("{expected} for {client}"), || {
        (ask("dig", server, client, false, "A") == expected).then_some(())
    });
}

#[test]
fn clients_follow_real_servers_that_fail_and_come_back() {
    let folder = Folder::new();
    make_certificates(&folder);
    let port = free_port();
    folder.write("isochrone.toml", &config(port));
    fs::write(folder.path().join("places.mmdb"), database(true, false)).unwrap();
    let _us = Nginx::start(&folder, "us", &[format!("127.0.10.1:{port}")], false);
    let eu = Nginx::start(&folder, "eu", &[format!("127.0.10.2:{port}")], true);
    let eu_v6 = Nginx::start(&folder, "eu6", &[format!("[::1]:{port}")], true);
    let authority = folder.path().join("ca.pem");
    let variables = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let mut server = folder.start_with(&["serve", "--config", "isochrone.toml"], &variables);
    let listen = addresses(&mut server);
    assert_eq!(listen.len(), 2);
    wait_for("every endpoint to be up", || {
        let status = server.json("/api/v1/status");
        let endpoints = status["regions"].as_array().unwrap().iter().flat_map(|r| r["endpoints"].as_array().unwrap());
        endpoints.clone().all(|e| e["state"] == "up" && e["decided"] == true).then_some(())
    });

    for &address in &listen {
        for tool in ["dig", "kdig"] {
            for tcp in [false, true] {
                for (client, expected) in
                    [(EUROPEAN, "127.0.10.2"), (EUROPEAN_V6, "127.0.10.2"), (AMERICAN, "127.0.10.1")]
                {
                    assert_eq!(ask(tool, address, client, tcp, "A"), expected, "{tool} {address} {client} tcp {tcp}");
                }
                assert_eq!(ask(tool, address, AMERICAN, tcp, "AAAA"), "::1", "only eu has IPv6");
            }
        }
    }

    drop((eu, eu_v6));
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.1");
    let why = folder.run(&["explain", "www.app.geo.example", "--client", EUROPEAN, "--admin", &server.admin_url()]);
    assert!(why.stdout.contains("connection refused") && why.stdout.contains("chosen    us"), "{}", why.stdout);

    let _eu = Nginx::start(&folder, "eu", &[format!("127.0.10.2:{port}")], true);
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.2");
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn a_certificate_that_nobody_trusts_is_a_failure() {
    let folder = Folder::new();
    make_certificates(&folder);
    let port = free_port();
    folder.write("isochrone.toml", &config(port));
    fs::write(folder.path().join("places.mmdb"), database(false, false)).unwrap();
    let _us = Nginx::start(&folder, "us", &[format!("127.0.10.1:{port}")], false);
    let _eu = Nginx::start(&folder, "eu", &[format!("127.0.10.2:{port}")], true);
    let mut server = folder.start(&["serve", "--config", "isochrone.toml"]);
    let listen = addresses(&mut server);
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.1");
    let metrics = wait_for("the metrics", || {
        let (_, text) = server.get("/metrics");
        text.contains("isochrone_region_usable{region=\"eu\"} 0").then_some(text)
    });
    assert!(metrics.contains("isochrone_region_usable{region=\"us\"} 1"), "{metrics}");
}

#[test]
fn a_reload_takes_up_what_is_right_and_refuses_what_is_not() {
    let folder = Folder::new();
    let port = free_port();
    let sound = config(port).replace("check = \"plain\"", "").replace("check = \"secure\"", "");
    folder.write("isochrone.toml", &sound);
    let places = folder.path().join("places.mmdb");
    fs::write(&places, database(false, false)).unwrap();
    let mut server = folder.start(&["serve", "--config", "isochrone.toml"]);
    let listen = addresses(&mut server);
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.2");

    folder.write("isochrone.toml", &sound.replace("ttl = 5", "ttl = \"soon\""));
    server.signal("HUP");
    let status = wait_for("the refusal", || {
        let status = server.json("/api/v1/status");
        (status["reload"]["failed"] == 1).then_some(status)
    });
    assert!(status["reload"]["error"].as_str().unwrap().contains("1 error"), "{status}");
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.2");

    folder.write("isochrone.toml", &sound.replace("127.0.10.2", "127.0.10.9"));
    server.signal("HUP");
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.9");

    // A database that is damaged is refused; one that is replaced by a sound one is taken up without being asked to.
    let replace = |bytes: &[u8]| {
        let aside = folder.path().join("new.mmdb");
        fs::write(&aside, bytes).unwrap();
        fs::rename(&aside, &places).unwrap();
    };
    replace(&database(true, true)[..200]);
    wait_for("the refusal", || (server.json("/api/v1/status")["reload"]["failed"] == 2).then_some(()));
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.9");
    replace(&database(true, true));
    wait_for_answer(listen[0], EUROPEAN, "127.0.10.1");
    wait_for_answer(listen[0], AMERICAN, "127.0.10.9");
}

const CHALLENGE: &str = "_acme-challenge.app.geo.example.";

/// A name server in a folder of its own, whose zone file includes what `docs/acme/isochrone-acme` writes.
fn acme_server(folder: &Folder, name: &str) -> Program {
    fs::create_dir(folder.path().join(name)).unwrap();
    let config = config(1).replace("[geo]\ndatabase = \"places.mmdb\"", "");
    let config = config.replace("nameservers =", "file = \"geo.example.zone\"\nnameservers =");
    folder.write(&format!("{name}/isochrone.toml"), &config);
    folder.write(
        &format!("{name}/geo.example.zone"),
        "$INCLUDE acme.zone\napp 300 CAA 0 issuewild \"letsencrypt.org\"\n",
    );
    folder.write(&format!("{name}/acme.zone"), "");
    let server = folder.start(&["serve", "--config", &format!("{name}/isochrone.toml")]);
    folder.write(&format!("{name}/admin"), &server.admin_url());
    server
}

/// The commands that the script uses. `ssh` stays on this machine: it does what the forced command of `authorized_keys` does there.
fn acme_commands(folder: &Folder) -> String {
    let ssh = "#!/bin/sh\n# -o BatchMode=yes HOST COMMAND\ncd \"$ACME_HOSTS/$3\" || exit 255\nSSH_ORIGINAL_COMMAND=$4 \
               ISOCHRONE_ACME_FILE=$PWD/acme.zone ISOCHRONE_ADMIN=$(cat admin) exec isochrone-acme forced\n";
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let ssh = folder.write("bin/ssh", ssh);
    fs::set_permissions(ssh, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(env!("CARGO_BIN_EXE_isochrone"), bin.join("isochrone")).unwrap();
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/acme/isochrone-acme"), bin.join("isochrone-acme"))
        .unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

/// The TXT records of the challenge's name, in order.
fn challenge(server: &Program) -> Vec<String> {
    let output = Command::new("dig")
        .args([&format!("@{}", server.dns.ip()), "-p", &server.dns.port().to_string(), "+short", CHALLENGE, "TXT"])
        .output()
        .expect("dig");
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn the_acme_hook_puts_its_record_on_every_server() {
    let folder = Folder::new();
    let path = acme_commands(&folder);
    let servers = ["ns1", "ns2"].map(|name| acme_server(&folder, name));
    let list = [0, 1].map(|n| format!("ns{}={}#{}", n + 1, servers[n].dns.ip(), servers[n].dns.port())).join(" ");
    let run = |script: &str| {
        let variables =
            [("PATH", path.as_str()), ("ISOCHRONE_SERVERS", &list), ("ACME_HOSTS", folder.path().to_str().unwrap())];
        Command::new("sh").args(["-c", script]).envs(variables).output().unwrap()
    };
    let succeeds = |script: &str| {
        let output = run(script);
        assert!(output.status.success(), "{script}: {output:?}");
    };
    let on_all = |expected: &[&str]| {
        for server in &servers {
            assert_eq!(challenge(server), expected);
        }
    };

    // As lego calls it, then certbot for a second name of the same certificate, then acme.sh with lego's own record again.
    succeeds(&format!("isochrone-acme present {CHALLENGE} one_-1"));
    on_all(&["\"one_-1\""]);
    succeeds("CERTBOT_DOMAIN=app.geo.example CERTBOT_VALIDATION=two isochrone-acme certbot present");
    on_all(&["\"one_-1\"", "\"two\""]);
    let acme_sh = concat!(". ", env!("CARGO_MANIFEST_DIR"), "/docs/acme/dns_isochrone.sh");
    succeeds(&format!("{acme_sh}; dns_isochrone_add {} one_-1", CHALLENGE.trim_end_matches('.')));
    on_all(&["\"one_-1\"", "\"two\""]);

    // What is no challenge is refused, also by the server's own side; what a server refuses is not kept there.
    for wrong in
        ["present app.geo.example one", "present _acme-challenge.x 'a\" b'", "present '_acme-challenge.$(id)' one"]
    {
        assert!(!run(&format!("isochrone-acme {wrong}")).status.success(), "{wrong}");
    }
    assert!(!run("SSH_ORIGINAL_COMMAND='isochrone reload' isochrone-acme forced").status.success());
    let toml = fs::read_to_string(folder.path().join("ns2/isochrone.toml")).unwrap();
    folder.write("ns2/isochrone.toml", &toml.replace("ttl = 5", "ttl = \"soon\""));
    let kept = fs::read_to_string(folder.path().join("ns2/acme.zone")).unwrap();
    let refused = run(&format!("isochrone-acme present {CHALLENGE} three"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ns2 did not take the record"), "{refused:?}");
    assert_eq!(fs::read_to_string(folder.path().join("ns2/acme.zone")).unwrap(), kept);
    folder.write("ns2/isochrone.toml", &toml);

    for value in ["one_-1", "two", "three"] {
        succeeds(&format!("isochrone-acme cleanup {CHALLENGE} {value}"));
    }
    on_all(&[]);
    assert_eq!(ask("dig", servers[0].dns, EUROPEAN, false, "A"), "127.0.10.2", "the routes are what they were");
}
