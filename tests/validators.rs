//! Real validators accept every kind of answer of a signed zone: `delv` and unbound with a trust anchor, as clients of every
//! region, before, during and after a failover, with everything down, and while the zone's key is changed. Needs Debian's
//! bind9-dnsutils, unbound and nginx-light, and a loopback address's port 53 (that is where a referral leads); fails loudly without them.

#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "support/program.rs"]
mod program;
#[path = "support/unbound.rs"]
mod unbound;

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    process::Command,
    thread,
};

use kinds::{Kind, kinds};
use nginx::Nginx;
use program::{Folder, Program, wait_for};
use unbound::{Said, Setup, Unbound};

const US: &str = "127.3.0.1";
const EU: &str = "127.81.0.1";
/// Networks that the same rules and the built-in table put there.
const ECS: [&str; 4] = ["3.80.0.0/24", "18.184.0.0/24", "2a05:d018::/48", "81.2.69.0/24"];

/// The zone under test. `KEYS` and `CHILD_KEYS` stand for lists of files, `BELOW` for the address of the delegated zones' server,
/// `DS` for the signed one's, `PORT` for the endpoints'.
const ZONES: &str = r#"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[checks.web]
type = "http"
port = PORT
path = "/health"
interval = "1s"
fast-interval = "200ms"
timeout = "500ms"
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.53.1.1", "127.53.1.2", "127.53.1.3", "127.53.1.4"]
check = "web"
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["127.53.2.1", "127.53.2.2", "::1"]
check = "web"

[zones."example.com"]
nameservers = ["ns1.example.com."]
addresses = { ns1 = ["127.0.0.1"] }
ttl = 1
dnssec-key = KEYS
records = """
www      300 A 192.0.2.80
www      300 TXT "one" "two"
big      300 TXT FILLER
big      300 TXT "x" FILLER
alias    300 CNAME www
tonope   300 CNAME nope
toroute  300 CNAME x.app
chain    300 CNAME a.wild
tosecure 300 CNAME www.secure
tolame   300 CNAME www.lame
tochild  300 CNAME www.child
a.b.ent  300 A 192.0.2.81
*.wild   300 CNAME x.deep
*.deep   300 A 192.0.2.82
moved    300 DNAME wild
gone     300 DNAME nope
secure   300 NS ns.secure
secure   300 DS BELOW_DS
ns.secure 300 A BELOW
lame     300 NS ns.lame
ns.lame  300 A BELOW
@        300 MX 10 www
mixed    300 TXT "beside a route"
"""
[zones."example.com".routes."*.app"]
policy = "failover"
regions = ["us", "eu"]
[[zones."example.com".routes."*.app".rules]]
clients = ["127.81.0.0/16", "18.184.0.0/16", "81.0.0.0/8", "2a05::/16"]
regions = ["eu", "us"]
[zones."example.com".routes."@"]
policy = "failover"
regions = ["eu", "us"]
[zones."example.com".routes.near]
[zones."example.com".routes.mixed]
regions = ["us"]
[zones."example.com".routes.pool]
max-answers = 2
[zones."example.com".routes.share]
policy = "weighted"
max-answers = 1
endpoints = { eu = ["127.53.2.1"] }
[zones."example.com".routes.name]
policy = "failover"
endpoints = { us = "www.example.com.", eu = "x.deep.example.com." }
[[zones."example.com".routes.name.rules]]
clients = ["127.81.0.0/16", "18.184.0.0/16"]
regions = ["eu", "us"]
[zones."example.com".routes.out]
endpoints = { us = "us.example.net.", eu = "eu.example.net." }

[zones."child.example.com"]
nameservers = ["ns1.example.com."]
records = "www 300 A 192.0.2.90"
dnssec-key = CHILD_KEYS

[zones."plain.example.com"]
nameservers = ["ns1.example.com."]
records = "www 300 A 192.0.2.91"

[zones."example.net"]
nameservers = ["ns1.example.com."]
records = """
us 300 A 192.0.2.92
eu 300 A 192.0.2.93
"""
"#;

/// The delegated zones, on another server.
const BELOW: &str = r#"
[server]
listen = ["BELOW:53"]
[admin]
listen = "127.0.0.1:0"
[zones."secure.example.com"]
nameservers = ["ns.secure.example.com."]
addresses = { ns = ["BELOW"] }
dnssec-key = "secure.key"
records = "www 300 A 192.0.2.83"
[zones."lame.example.com"]
nameservers = ["ns.lame.example.com."]
addresses = { ns = ["BELOW"] }
records = "www 300 A 192.0.2.84"
"#;

/// A world: the zone's server with its configuration, the server of the zones delegated to, and keys.
struct World {
    folder: Folder,
    server: Program,
    _below: Program,
    config: String,
    port: u16,
}

impl World {
    fn start(keys: &[&str], child_keys: &[&str]) -> World {
        let folder = Folder::new();
        let below_ds = make_key(&folder, "secure.example.com", "secure.key");
        let below = free_address_with_port_53();
        folder.write("below.toml", &BELOW.replace("BELOW", &below));
        let below_server = folder.start(&["serve", "--config", "below.toml"]);
        let port = free_port();
        let config = ZONES
            .replace("PORT", &port.to_string())
            .replace("FILLER", &format!("\"{}\"", "f".repeat(250)).repeat(4).replace("\"\"", "\" \""))
            .replace("BELOW_DS", &below_ds)
            .replace("BELOW", &below);
        folder.write("isochrone.toml", &with_keys(&config, keys, child_keys));
        let server = folder.start(&["serve", "--config", "isochrone.toml"]);
        World { folder, server, _below: below_server, config, port }
    }

    /// An HTTP server for endpoints.
    fn nginx(&self, name: &str, endpoints: &[&str]) -> Nginx {
        let addresses: Vec<String> = endpoints.iter().map(|endpoint| format!("{endpoint}:{}", self.port)).collect();
        Nginx::start(&self.folder, name, &addresses, false)
    }

    /// A resolver that trusts the zone's DS records `anchors`.
    fn resolver(&self, name: &str, source: &str, sends_ecs: bool, anchors: &[String]) -> Unbound {
        let anchors: Vec<String> = anchors.iter().map(|ds| format!("example.com. DS {ds}")).collect();
        let anchors: Vec<&str> = anchors.iter().map(String::as_str).collect();
        let dns = self.server.dns;
        let zones = [(".", dns), ("example.com", dns), ("example.net", dns)];
        Unbound::start(&self.folder, &Setup { name, anchors: &anchors, zones: &zones, source, sends_ecs })
    }

    /// A resolver in each region, and one that speaks for its clients.
    fn resolvers(&self, name: &str, anchors: &[String]) -> Vec<Unbound> {
        let start = |(n, (source, sends_ecs))| self.resolver(&format!("{name}-{n}"), source, sends_ecs, anchors);
        [(US, false), (EU, false), ("127.0.0.1", true)].into_iter().enumerate().map(start).collect()
    }

    /// Waits until clients in `region` get just these addresses for a name.
    fn wait_for_answer(&self, client: &str, name: &str, qtype: &str, expected: &str) {
        wait_for(&format!("{expected} for {client}"), || (self.short(client, name, qtype) == expected).then_some(()));
    }

    /// What the server tells a client, sorted, in one line.
    fn short(&self, client: &str, name: &str, qtype: &str) -> String {
        short(self.server.dns, client, name, qtype)
    }

    /// Waits until so many endpoints are up.
    fn wait_for_up(&self, count: usize) {
        wait_for(&format!("{count} endpoints to be up"), || {
            let status = self.server.json("/api/v1/status");
            let endpoints =
                status["regions"].as_array().unwrap().iter().flat_map(|r| r["endpoints"].as_array().unwrap());
            let up = endpoints.clone().filter(|e| e["state"] == "up" && e["decided"] == true).count();
            (up == count && endpoints.clone().all(|e| e["decided"] == true)).then_some(())
        });
    }

    /// Every kind of answer, asked by `delv` in each region and of every resolver.
    fn list(&self, state: &str, anchor: &str, resolvers: &[&[Unbound]]) {
        resolvers.iter().for_each(|resolvers| ask_all(state, resolvers));
        let problems = [US, EU].map(|client| self.delv_doubts(client, anchor)).concat();
        assert!(problems.is_empty(), "{state}:\n{}", problems.join("\n"));
    }

    /// What `delv` does not find valid.
    fn delv_doubts(&self, client: &str, anchor: &str) -> Vec<String> {
        let kinds: Vec<Kind> = kinds().into_iter().filter(|kind| kind.is_for_delv).collect();
        let all: Vec<&Kind> = kinds.iter().collect();
        thread::scope(|scope| {
            let part =
                |part: &'_ [&Kind]| part.iter().filter_map(|kind| self.delv(client, anchor, kind)).collect::<Vec<_>>();
            let parts: Vec<_> =
                all.chunks(all.len().div_ceil(4)).map(|chunk| scope.spawn(move || part(chunk))).collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        })
    }

    fn delv(&self, client: &str, anchor: &str, kind: &Kind) -> Option<String> {
        let path = self.folder.path().join(anchor);
        let server = self.server.dns;
        let ask = || {
            let output = Command::new("timeout")
                .args(["20", "delv"])
                .args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "-b", client])
                .args(["-a", path.to_str().unwrap(), "+root=example.com", "-q", &kind.name, "-t", &kind.qtype])
                .output()
                .expect("delv is installed");
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        // Once in some thousand times delv ends without a word, or never: that is no judgement.
        let text = (0..3).map(|_| ask()).find(|text| !text.is_empty()).unwrap_or_default();
        // A judgement stands before each RRset; other comments begin with an owner.
        let is_judgement =
            |line: &&str| line.starts_with("; ") && !line.split(' ').nth(1).unwrap_or_default().ends_with('.');
        let judged: Vec<&str> = text.lines().filter(|line| is_judgement(line) && !line.contains("\\-")).collect();
        let is_valid = |line: &&str| ["; fully validated", "; negative response, fully validated"].contains(line);
        let is_nxdomain = text.contains("ncache nxdomain");
        let is_right = !judged.is_empty() && judged.iter().all(is_valid) && is_nxdomain == (kind.rcode == "NXDOMAIN");
        (!is_right).then(|| format!("delv from {client}: {} {}:\n{text}", kind.name, kind.qtype))
    }

    /// The anchor file for `delv` with all DNSKEY records that the zone has now.
    fn write_anchor(&self, name: &str) {
        let keys = short(self.server.dns, "", "example.com", "DNSKEY");
        let key = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            format!("\"example.com.\" static-key {} {} {} \"{}\";\n", words[0], words[1], words[2], words[3..].concat())
        };
        let keys: String = keys.split(", ").map(key).collect();
        self.folder.write(name, &format!("trust-anchors {{\n{keys}}};\n"));
    }

    /// Writes the configuration with other keys and has it loaded.
    fn reload(&self, keys: &[&str], child_keys: &[&str]) {
        let count = |outcome: &str| self.server.json("/api/v1/status")["reload"][outcome].as_u64().unwrap();
        let before = count("succeeded");
        self.folder.write("isochrone.toml", &with_keys(&self.config, keys, child_keys));
        self.server.signal("HUP");
        wait_for("the reload", || (count("succeeded") > before).then_some(()));
    }
}

fn with_keys(config: &str, keys: &[&str], child_keys: &[&str]) -> String {
    config.replace("CHILD_KEYS", &format!("{child_keys:?}")).replace("KEYS", &format!("{keys:?}"))
}

/// Makes a key with the program's own command; returns the DS data that it prints.
fn make_key(folder: &Folder, zone: &str, file: &str) -> String {
    let made = folder.run(&["key", "new", zone, "--out", file]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    made.stdout.trim().split_once(" DS ").expect("a DS record").1.to_string()
}

fn short(server: SocketAddr, client: &str, name: &str, qtype: &str) -> String {
    let mut dig = Command::new("dig");
    dig.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+short", name, qtype]);
    if !client.is_empty() {
        dig.args(["-b", client]);
    }
    let output = dig.output().expect("dig is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join(", ")
}

/// A port that is free on all addresses.
fn free_port() -> u16 {
    loop {
        let v4 = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = v4.local_addr().unwrap().port();
        if TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
}

/// A loopback address whose port 53 nobody has: others may run the same test.
fn free_address_with_port_53() -> String {
    wait_for("a loopback address with a free port 53", || {
        // An ephemeral port is nobody else's while it is bound, and so a number to tell tests apart by.
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let [high, low] = other.local_addr().unwrap().port().to_be_bytes();
        let address = format!("127.153.{high}.{}", low.clamp(1, 254));
        match TcpListener::bind((address.as_str(), 53)) {
            Ok(_) => Some(address),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                panic!("no port 53 may be taken: be root, or: sysctl net.ipv4.ip_unprivileged_port_start=53")
            }
            Err(_) => None,
        }
    })
}

/// Every kind of answer, asked of resolvers for clients of every region.
fn ask_all(state: &str, resolvers: &[Unbound]) {
    for resolver in resolvers {
        let clients = if resolver.sends_ecs { &ECS[..] } else { &[""] };
        let problems: Vec<String> = clients.iter().flat_map(|client| doubts(resolver, client)).collect();
        assert!(problems.is_empty(), "{state}:\n{}", problems.join("\n"));
    }
}

/// What a resolver says otherwise than it should, for a client's network.
fn doubts(resolver: &Unbound, client: &str) -> Vec<String> {
    let kinds = kinds();
    let questions: Vec<(String, String)> = kinds.iter().map(|k| (k.name.clone(), k.qtype.clone())).collect();
    let judge = |(kind, said): (&Kind, Said)| {
        let is_right = said.rcode == kind.rcode && said.is_secure == kind.is_secure;
        (!is_right).then(|| format!("for {client:?}: {} {}: {said:?}\n{}", kind.name, kind.qtype, resolver.log()))
    };
    kinds.iter().zip(resolver.ask(&questions, client)).filter_map(judge).collect()
}

#[test]
fn every_kind_of_answer_is_valid_before_during_and_after_a_failover() {
    let keys = Folder::new();
    let ds = make_key(&keys, "example.com", "one.key");
    make_key(&keys, "child.example.com", "child.key");
    let path = |file: &str| keys.path().join(file).display().to_string();
    let world = World::start(&[&path("one.key")], &[&path("child.key")]);
    world.write_anchor("anchor");
    let anchors = [ds];
    let us_servers = || world.nginx("us", &["127.53.1.1", "127.53.1.2", "127.53.1.3", "127.53.1.4"]);
    let eu_first = || world.nginx("eu1", &["127.53.2.1"]);
    let eu_second = || world.nginx("eu2", &["127.53.2.2", "[::1]"]);
    let (us, first, second) = (us_servers(), eu_first(), eu_second());
    world.wait_for_up(7);

    let all_us = "127.53.1.1, 127.53.1.2, 127.53.1.3, 127.53.1.4";
    world.wait_for_answer(US, "x.app.example.com", "A", all_us);
    world.wait_for_answer(EU, "x.app.example.com", "A", "127.53.2.1, 127.53.2.2");
    let kept = world.resolvers("kept", &anchors);
    world.list("all is well", "anchor", &[&kept]);

    drop(second);
    world.wait_for_answer(EU, "x.app.example.com", "A", "127.53.2.1");
    world.list("one endpoint is down", "anchor", &[&kept, &world.resolvers("partly", &anchors)]);

    drop(first);
    // Asked all the while, whatever the answer is at that moment.
    wait_for("the failover", || {
        ask_all("during the failover", &kept);
        (world.short(EU, "x.app.example.com", "A") == all_us).then_some(())
    });
    world.list("after the failover", "anchor", &[&kept, &world.resolvers("after", &anchors)]);

    drop(us);
    world.wait_for_up(0);
    world.wait_for_answer(EU, "x.app.example.com", "A", "127.53.2.1, 127.53.2.2");
    world.list("all is down", "anchor", &[&kept, &world.resolvers("down", &anchors)]);

    let _all = (us_servers(), eu_first(), eu_second());
    wait_for("the return", || {
        ask_all("during the return", &kept);
        (world.short(EU, "x.app.example.com", "A") == "127.53.2.1, 127.53.2.2").then_some(())
    });
    world.wait_for_up(7);
    world.list("all is well again", "anchor", &[&kept, &world.resolvers("again", &anchors)]);
}

#[test]
fn a_key_is_changed_in_three_steps_and_every_answer_stays_valid() {
    let keys = Folder::new();
    let path = |file: &str| keys.path().join(file).display().to_string();
    let make = |zone: &str, file: &str| (make_key(&keys, zone, file), path(file));
    let ((old_ds, old), (new_ds, new)) = (make("example.com", "old.key"), make("example.com", "new.key"));
    let ((_, child_old), (_, child_new)) =
        (make("child.example.com", "child-old.key"), make("child.example.com", "child-new.key"));
    let world = World::start(&[&old], &[&child_old]);
    let cds = || short(world.server.dns, "", "example.com", "CDS");
    let same = |a: &str, b: &str| a.replace(' ', "").eq_ignore_ascii_case(&b.replace(' ', ""));
    world.write_anchor("old");
    let stranger = world.resolver("stranger", US, false, std::slice::from_ref(&new_ds));
    let said = stranger.ask(&[("www.example.com".into(), "A".into())], "");
    assert_eq!(said[0].rcode, "SERVFAIL", "it would not notice a wrong signature: {said:?}");
    let first = world.resolvers("first", std::slice::from_ref(&old_ds));
    world.list("with the old key", "old", &[&first]);
    assert!(same(&cds(), &old_ds), "{}", cds());

    world.reload(&[&old, &new], &[&child_old, &child_new]);
    assert!(same(&cds(), &old_ds), "{}", cds());
    world.list("step 1", "old", &[&first, &world.resolvers("second", std::slice::from_ref(&old_ds))]);
    let second = world.resolvers("second", std::slice::from_ref(&old_ds));
    world.list("step 1 at leisure", "old", &[&second]);

    world.reload(&[&new, &old], &[&child_new, &child_old]);
    assert!(same(&cds(), &new_ds), "{}", cds());
    let third = world.resolvers("third", std::slice::from_ref(&new_ds));
    world.list(
        "step 2",
        "old",
        &[&first, &second, &third, &world.resolvers("both", &[old_ds.clone(), new_ds.clone()])],
    );

    world.reload(&[&new], &[&child_new]);
    world.write_anchor("new");
    world.list("step 3", "new", &[&third, &world.resolvers("fourth", &[new_ds])]);
}

#[test]
fn a_key_that_is_gone_stops_a_start_and_leaves_a_running_server_as_it_is() {
    let folder = Folder::new();
    let config = |key: &str| {
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[zones.\"example.com\"]\n\
             nameservers = [\"ns1.example.net.\"]\ndnssec-key = \"{key}\"\nrecords = \"www 300 A 192.0.2.80\"\n"
        )
    };
    folder.write("isochrone.toml", &config("gone.key"));
    let refused = folder.run(&["serve", "--config", "isochrone.toml"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("isochrone key new example.com"), "{}", refused.stderr);
    assert!(!folder.path().join("gone.key").exists(), "nothing makes a key but the command");

    make_key(&folder, "example.com", "one.key");
    let ds = format!("records = \"@ 300 DS 1 13 2 {}\\n", "0".repeat(64));
    let misplaced = config("one.key").replace("records = \"", &ds);
    folder.write("isochrone.toml", &misplaced);
    let refused = folder.run(&["check", "--config", "isochrone.toml"]);
    assert!(refused.stderr.contains("a DS record at the apex of a zone that is signed here"), "{}", refused.stderr);
    folder.write("isochrone.toml", &config("one.key"));
    let server = folder.start(&["serve", "--config", "isochrone.toml"]);
    let keys = short(server.dns, "", "example.com", "DNSKEY");
    folder.write("isochrone.toml", &config("gone.key"));
    server.signal("HUP");
    let status = wait_for("the refusal", || {
        let status = server.json("/api/v1/status");
        (status["reload"]["failed"] == 1).then_some(status)
    });
    assert!(status["reload"]["error"].as_str().unwrap().contains("1 error"), "{status}");
    assert_eq!(short(server.dns, "", "example.com", "DNSKEY"), keys);
}
