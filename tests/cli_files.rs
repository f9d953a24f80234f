//! Commands that read files and end: what they print, where, and with which exit status.

#[path = "support/mmdb.rs"]
mod mmdb;
#[path = "support/program.rs"]
mod program;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::Command,
};

use program::{Done, Folder};
use serde_json::Value;

/// Two regions under a check of `port` on loopback.
fn config(port: u16) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[checks.up]
type = "tcp"
port = {port}
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.0.0.1"]
check = "up"
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["127.0.0.2"]
check = "up"
[zones."geo.example.com"]
nameservers = ["ns1.geo.example.com.", "ns2.example.net."]
addresses = {{ ns1 = ["192.0.2.53"] }}
[zones."geo.example.com".routes."*.app"]
policy = "failover"
"#
    )
}

const BROKEN: &str = "[regions.us]\nlocation = \"Atlantis\"\nendpionts = [\"192.0.2.1\"]\n";

#[track_caller]
fn expect(done: &Done, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(done.code, Some(code), "{done:#?}");
    for (stream, text, part) in [("stdout", &done.stdout, stdout), ("stderr", &done.stderr, stderr)] {
        if part.is_empty() {
            assert_eq!(text, "", "{stream}: {done:#?}");
        } else {
            assert!(text.contains(part), "{part:?} is not on {stream}: {done:#?}");
        }
        assert!(!text.contains('\x1b'), "no colours where no terminal is: {done:#?}");
    }
}

#[test]
fn check_says_what_a_sound_file_holds() {
    let folder = Folder::with_config(&config(80));
    let done = folder.run(&["check", "--config", "isochrone.toml"]);
    expect(&done, 0, "ok: 2 regions, 1 zone, 1 route\n", "");
}

#[test]
fn check_warns_where_this_host_cannot_verify_certificates() {
    let tcp = config(443);
    let https = tcp.replace("type = \"tcp\"", "type = \"https\"");
    let unverified = https.replace("port = 443", "verify-tls = false");
    for (toml, warned) in [(&https, true), (&tcp, false), (&unverified, false)] {
        let folder = Folder::with_config(toml);
        let mut command = Command::new(env!("CARGO_BIN_EXE_isochrone"));
        command.args(["check", "--config", "isochrone.toml"]).current_dir(folder.path());
        let nowhere = folder.path().join("nowhere");
        let output = command.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert_eq!(told.contains("this host has no CA certificates to verify with"), warned, "{told}");
    }
}

#[test]
fn check_and_serve_tell_every_error_and_end_with_2() {
    let folder = Folder::with_config(BROKEN);
    for command in ["check", "serve", "probe", "delegation"] {
        let zone: &[&str] = if command == "delegation" { &["geo.example.com"] } else { &[] };
        let done = folder.run(&[&[command, "--config", "isochrone.toml"], zone].concat());
        expect(&done, 2, "", "unknown location `Atlantis`");
        expect(&done, 2, "", "--> isochrone.toml:3:1");
        expect(&done, 2, "", " errors in isochrone.toml\n");
    }
}

#[test]
fn without_any_configuration_they_say_where_it_was_looked_for() {
    let folder = Folder::new();
    let done = folder.run(&["check", "--config", "none.toml"]);
    expect(&done, 2, "", "the configuration file `none.toml`");
    if !std::path::Path::new("/etc/isochrone/isochrone.toml").exists() {
        expect(
            &folder.run(&["check"]),
            2,
            "",
            "found neither `config/isochrone.toml` nor `/etc/isochrone/isochrone.toml`",
        );
    }
}

#[test]
fn the_default_configuration_is_found() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("config")).unwrap();
    folder.write("config/isochrone.toml", &config(80));
    expect(&folder.run(&["check"]), 0, "ok: 2 regions", "");
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let folder = Folder::new();
    for (arguments, part) in [
        (&["dance"][..], "unrecognized subcommand 'dance'"),
        (&["check", "--confg", "x"], "a similar argument exists: '--config'"),
        (&["explain", "a..b"], "empty label; write single dots between labels"),
        (
            &["explain", "a.example", "--client", "home"],
            "`home` is no client address; write an address like 203.0.113.7",
        ),
        (&["explain", "a.example", "--type", "B0"], "`B0` is no record type"),
        (&["explain", "a.example", "--config", "x", "--admin", "http://127.0.0.1:1"], "cannot be used with"),
        (
            &["status", "--admin", "ftp://127.0.0.1"],
            "`ftp` is neither http nor https; write it like http://127.0.0.1:8053",
        ),
        (&["delegation"], "<ZONE>"),
        (&["geo", "compile", "--input", "x.mmdb"], "--output <FILE>"),
        (&["serve", "--log-format", "xml"], "[possible values: text, json]"),
    ] {
        expect(&folder.run(arguments), 2, "", part);
    }
}

#[test]
fn addresses_that_are_taken_end_serve_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    for (key, what) in [
        ("[server]\nlisten = [\"127.0.0.1:0\"]", "cannot listen on TCP"),
        ("[admin]\nlisten = \"127.0.0.1:0\"", "cannot listen on"),
    ] {
        let text = config(80).replace(key, &key.replace("127.0.0.1:0", &taken.to_string()));
        let folder = Folder::with_config(&text);
        let done = folder.run(&["serve", "--config", "isochrone.toml"]);
        expect(&done, 1, "", &format!("error: {what} {taken}"));
    }
}

#[test]
fn explain_tells_offline_what_every_endpoint_up_would_mean() {
    let folder = Folder::with_config(&config(80));
    let question = ["explain", "www.app.geo.example.com", "--config", "isochrone.toml", "--client", "203.0.113.0/24"];
    let done = folder.run(&question);
    expect(&done, 0, "chosen    us\nanswer    127.0.0.1\n", "explained from isochrone.toml; nothing was probed");
    let done = folder.run(&[&question[..], &["--json", "--type", "aaaa"]].concat());
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&told["type"], &told["answer"]), (&"AAAA".into(), &Value::Array(Vec::new())), "{told}");
}

#[test]
fn delegation_gives_the_records_and_names_the_zones_that_there_are() {
    let folder = Folder::with_config(&config(80));
    let done = folder.run(&["delegation", "GEO.example.com", "--config", "isochrone.toml"]);
    let records: Vec<&str> = done.stdout.lines().filter(|line| !line.is_empty() && !line.starts_with(';')).collect();
    assert_eq!(
        records,
        [
            "geo.example.com.      3600  IN  NS    ns1.geo.example.com.",
            "geo.example.com.      3600  IN  NS    ns2.example.net.",
            "ns1.geo.example.com.  3600  IN  A     192.0.2.53",
        ],
        "{done:#?}"
    );
    expect(&done, 0, "; WARNING: 192.0.2.53 is not an address of the public Internet.", "");
    let done = folder.run(&["delegation", "example.org", "--config", "isochrone.toml"]);
    expect(&done, 1, "", "error: isochrone.toml has no zone `example.org.`; its zones are\n  geo.example.com.\n");
}

#[test]
fn probe_tells_what_is_up_and_fails_when_anything_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = Folder::with_config(&config(port));
    let done = folder.run(&["probe", "--config", "isochrone.toml"]);
    expect(&done, 1, "REGION  ENDPOINT   CHECK  VERDICT  CONNECT MS  TOTAL MS  ERROR\n", "");
    expect(&done, 1, "connection refused\n", "");
    let rows: Value =
        serde_json::from_str(&folder.run(&["probe", "--config", "isochrone.toml", "--json"]).stdout).unwrap();
    let told: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| (&row["region"], &row["verdict"], &row["error"])).collect();
    let refused = Value::from("connection refused");
    assert_eq!(told, [(&"us".into(), &"up".into(), &Value::Null), (&"eu".into(), &"down".into(), &refused)]);

    let _second = TcpListener::bind(SocketAddr::from(([127, 0, 0, 2], port))).unwrap();
    expect(&folder.run(&["probe", "--config", "isochrone.toml"]), 0, "eu      127.0.0.2  up     up", "");
}

#[test]
fn status_without_a_server_fails_and_says_what_to_do() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let done = Folder::new().run(&["status", "--admin", &gone.to_string()]);
    let message = format!("error: no server at http://{gone} (Connection refused (os error 111)); start one with");
    expect(&done, 1, "", &message);
}

#[test]
fn geo_compile_refuses_what_is_no_city_database() {
    let folder = Folder::new();
    folder.write("text.mmdb", "not a database");
    for (input, part) in
        [("none.mmdb", "none.mmdb"), ("text.mmdb", "text.mmdb is damaged, cut short or not a location database")]
    {
        let done = folder.run(&["geo", "compile", "--input", input, "--output", "out.table"]);
        expect(&done, 1, "", part);
        assert!(!folder.path().join("out.table").exists());
    }
}

#[test]
fn geo_compile_makes_a_table_that_a_server_can_use() {
    let mut cities = mmdb::Writer::new(4, 28);
    cities.put("1.2.3.0/24", &mmdb::flat("US", 39.0, -77.5));
    cities.put("1.2.4.0/24", &mmdb::flat("IE", 53.3, -6.3));
    let folder = Folder::with_config(
        &config(80)
            .replace("[checks.up]", "[geo]\ndatabase = \"places.table\"\n[checks.up]")
            .replace("policy = \"failover\"", "policy = \"latency\""),
    );
    fs::write(folder.path().join("cities.mmdb"), cities.finish()).unwrap();
    let done = folder.run(&["geo", "compile", "--input", "cities.mmdb", "--output", "places.table"]);
    expect(&done, 0, "places.table: ", "");
    expect(&done, 0, " bytes, 2 cells, ", "");
    for (client, region) in [("1.2.3.0/24", "us"), ("1.2.4.0/24", "eu")] {
        let question = ["explain", "x.app.geo.example.com", "--config", "isochrone.toml", "--client", client];
        let done = folder.run(&question);
        expect(&done, 0, &format!("\nchosen    {region}\n"), "explained from");
        expect(&done, 0, "(database)\n", "explained from");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    assert_eq!(Folder::new().run_unread(&["demo", "--print-config"]).code(), Some(0));
}

const TWO_REGIONS: &str = r#"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.2"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."app"]
[zones."geo.example".routes."old"]
[zones."geo.example".routes."drawn"]
regions = ["us", "eu"]
policy = "weighted"
weights = { us = 3, eu = 1 }
"#;

fn moves(folder: &Folder, arguments: &[&str]) -> Value {
    let done = folder.run(arguments);
    assert_eq!(done.code, Some(0), "{done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

/// Of a route: its part, and from, to and share of what moves.
fn route<'m>(moves: &'m Value, name: &str) -> (&'m Value, Vec<(&'m str, &'m str, f64)>) {
    let routes = moves["routes"].as_array().unwrap();
    let route = routes.iter().find(|route| route["route"] == name).unwrap();
    let list = route["ipv4"]["moves"].as_array().unwrap().iter();
    let name = |region: &'m Value| region.as_str().unwrap_or("nothing");
    (route, list.map(|one| (name(&one["from"]), name(&one["to"]), one["share"].as_f64().unwrap())).collect())
}

#[test]
fn a_plan_tells_who_would_move_and_by_how_many_milliseconds() {
    let folder = Folder::with_config(TWO_REGIONS);
    let tokyo = "[regions.ap]\nlocation = \"aws:ap-northeast-1\"\nendpoints = [\"192.0.2.3\"]\n[zones.\"geo.example\"]";
    let new = TWO_REGIONS.replace("[zones.\"geo.example\"]", tokyo).replace("routes.\"old\"", "routes.\"new\"");
    folder.write("new.toml", &new);
    let told = moves(&folder, &["plan", "new.toml", "--config", "isochrone.toml", "--json"]);
    assert_eq!((&told["regions_added"][0], told["regions_removed"].as_array().unwrap().len()), (&"ap".into(), 0));
    let (app, list) = route(&told, "app");
    assert_eq!(app["change"], "moves");
    assert!(
        list.iter().all(|(from, to, share)| *to == "ap" && *from != "ap" && (0.01..0.5).contains(share)),
        "{list:?}"
    );
    assert!(list.len() == 2, "from both: {list:?}");
    let ms = |when: &str| app["ipv4"][when].as_f64().unwrap();
    assert!(ms("after_ms") < ms("before_ms") - 5.0, "{} {}", ms("before_ms"), ms("after_ms"));
    let shares: f64 = app["ipv4"]["regions"].as_array().unwrap().iter().map(|r| r["after"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{app}");
    assert_eq!(
        (&route(&told, "new").0["change"], &route(&told, "old").0["change"]),
        (&"added".into(), &"removed".into())
    );
    assert_eq!(route(&told, "drawn").0["change"], "same", "the weights name the same regions");

    let same = folder.run(&["plan", "isochrone.toml", "--config", "isochrone.toml"]);
    assert!(same.code == Some(0) && same.stdout.ends_with("no network moves\n"), "{same:?}");
    let table = folder.run(&["plan", "new.toml", "--config", "isochrone.toml"]);
    assert!(
        table.stdout.contains("app in geo.example. (moves)") && table.stdout.contains("new regions: ap"),
        "{table:?}"
    );
    folder.write("bad.toml", "[regions]\nx = 1\n");
    assert_eq!(folder.run(&["plan", "bad.toml", "--config", "isochrone.toml"]).code, Some(2));
}

#[test]
fn a_simulated_failure_moves_the_failed_region_s_clients_and_nobody_else() {
    let folder = Folder::with_config(TWO_REGIONS);
    let told = moves(&folder, &["simulate", "--down", "eu", "--config", "isochrone.toml", "--json"]);
    for name in ["app", "drawn"] {
        let (route, list) = route(&told, name);
        assert!(matches!(list[..], [("eu", "us", _)]), "{name}: {list:?}");
        let eu = &route["ipv4"]["regions"].as_array().unwrap()[0];
        let share = eu["before"].as_f64().unwrap();
        assert!((share - list[0].2).abs() < 1e-9 && eu["after"] == 0.0, "{name}: {route}");
        assert!(name == "app" || (0.2..0.3).contains(&share), "a quarter is drawn: {share}");
    }
    let everything =
        moves(&folder, &["simulate", "--down", "eu", "--down", "us", "--config", "isochrone.toml", "--json"]);
    let (app, _) = route(&everything, "app");
    assert!((app["ipv4"]["lost"].as_f64().unwrap() - 1.0).abs() < 1e-9, "forced down, nothing answers: {app}");
    assert_eq!(everything["unchecked"].as_array().unwrap().len(), 2, "nothing would notice");
    let checked = TWO_REGIONS.replace("[regions.us]", "[checks.web]\ntype = \"tcp\"\nport = 80\n[regions.us]");
    folder.write("checked.toml", &checked.replace("endpoints = [", "check = \"web\"\nendpoints = ["));
    let everything =
        moves(&folder, &["simulate", "--down", "eu", "--down", "us", "--config", "checked.toml", "--json"]);
    assert_eq!(route(&everything, "app").0["change"], "same", "when all is down, the first answers blindly");
    assert!(everything["unchecked"].as_array().unwrap().is_empty());
    let unknown = folder.run(&["simulate", "--down", "mars", "--config", "isochrone.toml"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("it has us, eu"), "{unknown:?}");
}

/// What bash offers for the last of these words, once it has read our completions.
fn completed(folder: &Folder, words: &[&str]) -> Vec<String> {
    let script = format!(
        "source completions; complete -p isochrone >&2; COMP_WORDS=({}); COMP_CWORD={}; \
         _isochrone isochrone '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let output =
        Command::new("bash").args(["--norc", "-c", &script]).current_dir(folder.path()).output().expect("bash");
    let registered = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(registered.ends_with(" -F _isochrone isochrone\n") && registered.lines().count() == 1, "{registered}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_choices() {
    let folder = Folder::new();
    let done = folder.run(&["completions", "bash"]);
    expect(&done, 0, "complete -F _isochrone", "");
    folder.write("completions", &done.stdout);
    assert_eq!(completed(&folder, &["isochrone", "expl"]), ["explain"]);
    assert_eq!(completed(&folder, &["isochrone", "explain", "--cl"]), ["--client"]);
    assert_eq!(completed(&folder, &["isochrone", "key", "n"]), ["new", "node"]);
    assert_eq!(completed(&folder, &["isochrone", "serve", "--log-format", ""]), ["text", "json"]);
    assert_eq!(completed(&folder, &["isochrone", "completions", "f"]), ["fish"]);
}

#[test]
fn groff_finds_nothing_to_say_about_the_manual_pages() {
    let folder = Folder::new();
    let done = folder.run(&["man"]);
    expect(&done, 0, ".TH isochrone 1 ", "");
    let done = folder.run(&["man", "share/man"]);
    expect(&done, 0, " manual pages below share/man\n", "");
    let mut names = Vec::new();
    for section in ["man1", "man5"] {
        for entry in fs::read_dir(folder.path().join("share/man").join(section)).unwrap() {
            let path = entry.unwrap().path();
            let output =
                Command::new("groff").args(["-man", "-ww", "-Tutf8", "-P-cbu"]).arg(&path).output().expect("groff");
            assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", path.display());
            let shown = String::from_utf8(output.stdout).unwrap();
            assert!(shown.contains("NAME") && shown.lines().count() > 15, "{}: {shown}", path.display());
            assert!(!shown.contains("\\f") && !shown.contains("\\-"), "{}: {shown}", path.display());
            names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    for name in ["isochrone.1", "isochrone-serve.1", "isochrone-key-new.1", "isochrone.toml.5"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    assert!(folder.run(&["man", "/dev/null/man"]).stderr.contains("cannot make the folder /dev/null/man/man1"));
}

/// A line of the query log.
fn line(name: &str, qtype: &str, client: &str) -> String {
    format!(
        "{{\"time\":\"2026-11-26T07:24:23.007Z\",\"client\":\"{client}\",\"name\":\"{name}\",\"type\":\"{qtype}\"}}\n"
    )
}

#[test]
fn logged_queries_weigh_what_a_change_would_move() {
    let two_regions = format!("[geo]\ndatabase = \"places.mmdb\"\n{TWO_REGIONS}");
    let folder = Folder::with_config(&two_regions);
    let mut places = mmdb::Writer::new(4, 28);
    places.put("18.184.0.0/16", &mmdb::flat("DE", 50.1, 8.7)).put("133.11.0.0/16", &mmdb::flat("JP", 35.7, 139.8));
    places.put("3.80.0.0/16", &mmdb::flat("US", 39.0, -77.5));
    std::fs::write(folder.path().join("places.mmdb"), places.finish()).unwrap();
    let tokyo = "[regions.ap]\nlocation = \"aws:ap-northeast-1\"\nendpoints = [\"192.0.2.3\"]\n[zones.\"geo.example\"]";
    folder.write(
        "new.toml",
        &two_regions.replace("[zones.\"geo.example\"]", tokyo).replace("routes.\"old\"", "routes.\"new\""),
    );
    let (german, japanese) = ("18.184.0.0/24", "133.11.0.0/24");
    let mut log = String::new();
    (0..6).for_each(|_| log += &line("app.geo.example.", "A", german));
    (0..3).for_each(|_| log += &line("app.geo.example.", "A", japanese));
    log += &line("old.geo.example.", "A", german);
    log += &line("app.geo.example.", "MX", german);
    log += &line("www.example.org.", "A", german);
    log += "{\"time\":\"2026-11-26T07:24:23.0";
    folder.write("one.log", &log);
    let plan = ["plan", "new.toml", "--config", "isochrone.toml", "--queries", "one.log"];
    let told = moves(&folder, &[&plan[..], &["--json"]].concat());
    let logged = &told["logged"];
    assert_eq!([&logged["lines"], &logged["broken"], &logged["elsewhere"]], [13, 1, 2], "{logged}");
    assert!(logged["first_broken"].as_str().unwrap().starts_with("line 13 of one.log is no JSON, or cut off"));
    let share = |value: &Value| (value.as_f64().unwrap() * 1e6).round() / 1e6;
    assert_eq!((share(&logged["total"]["moved"]), share(&logged["total"]["lost"])), (0.3, 0.1), "{logged}");
    let (app, _) = route(&told, "app");
    let queries = &app["queries"];
    assert_eq!((&queries["queries"], share(&queries["moved"])), (&9.into(), 0.333333), "{queries}");
    let moved = &queries["moves"][0];
    assert_eq!((&moved["to"], &moved["queries"]), (&"ap".into(), &3.into()), "{queries}");
    let ms = |value: &Value| value.as_f64().unwrap();
    assert!(ms(&moved["after_ms"]) < ms(&moved["before_ms"]) - 50.0, "{moved}");
    assert!(ms(&queries["after_ms"]) < ms(&queries["before_ms"]) - 10.0, "{queries}");
    assert_eq!(share(&route(&told, "old").0["queries"]["lost"]), 1.0);
    assert_eq!(route(&told, "new").0["queries"]["queries"], 0);

    let table = folder.run(&plan);
    expect(&table, 0, "logged queries: 30.0 % of 10 queries move, 10.0 % get no answer; mean estimate ", "");
    expect(&table, 0, "; 2 more that no route answers\n1 of 13 lines of the logs are left out: line 13 of one.log", "");
    expect(&table, 0, "\n  logged: 33.3 % of 9 queries move", "");
    let twice = [&plan[..], &["--queries", "one.log", "--json"]].concat();
    assert_eq!(moves(&folder, &twice)["logged"]["lines"], 26);

    let mut log = line("drawn.geo.example.", "A", "3.80.0.0/24");
    (0..6).for_each(|_| log += &line("app.geo.example.", "A", german));
    (0..2).for_each(|_| log += &line("app.geo.example.", "A", "3.80.0.0/24"));
    folder.write("two.log", &log);
    let down = ["simulate", "--down", "eu", "--config", "isochrone.toml", "--json", "--queries", "two.log"];
    let told = moves(&folder, &down);
    let queries = &route(&told, "app").0["queries"];
    assert_eq!(
        (share(&queries["moved"]), &queries["moves"][0]["queries"]),
        (0.75, &6.into()),
        "all Germans: {queries}"
    );
    assert_eq!(told["logged"]["total"]["queries"], 9);
    let without = moves(&folder, &["simulate", "--down", "eu", "--config", "isochrone.toml", "--json"]);
    assert!(without["logged"].is_null() && route(&without, "app").0["queries"].is_null());

    let missing = folder.run(&["simulate", "--down", "eu", "--config", "isochrone.toml", "--queries", "none.log"]);
    expect(&missing, 1, "", "cannot read the query log none.log");
    std::fs::write(folder.path().join("old.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
    let packed = folder.run(&["simulate", "--down", "eu", "--config", "isochrone.toml", "--queries", "old.gz"]);
    expect(&packed, 1, "", "zcat old.gz | isochrone ... --queries -");
}
