use std::{fs, path::Path, path::PathBuf, sync::Arc};

use proptest::prelude::*;

use super::*;

fn zone(ttl_s: u32) -> Zone {
    let source = Arc::new(Source { name: "isochrone.toml".into(), text: "[zones.\"example.com\"]".into() });
    Zone {
        origin: "example.com".parse().unwrap(),
        nameservers: Vec::new(),
        addresses: Default::default(),
        contact: "hostmaster.example.com".parse().unwrap(),
        ttl_s,
        negative_ttl_s: 60,
        dnssec_keys: Vec::new(),
        dnssec_announce: true,
        texts: Vec::new(),
        routes: Vec::new(),
        spot: Spot { source, span: 0..21 },
    }
}

fn zone_text(text: &str, folder: Option<PathBuf>) -> ZoneText {
    let source = Arc::new(Source { name: "example.zone".into(), text: text.into() });
    ZoneText { spot: Spot { span: 0..text.len(), source }, folder }
}

/// Records as `owner ttl type hex`, and problems as `file:line:column: message (pointed at)`.
fn read_all(text: &str, folder: Option<&Path>) -> (Vec<String>, Vec<String>) {
    let mut problems = Vec::new();
    let records = read(&zone(60), &zone_text(text, folder.map(Path::to_path_buf)), &mut problems);
    let shown = records.iter().map(|r| {
        let hex: String = r.rdata.iter().map(|b| format!("{b:02x}")).collect();
        format!("{} {} {} {hex}", r.owner, r.ttl_s, types::Shown(r.rtype))
    });
    (shown.collect(), problems.iter().map(show).collect())
}

fn show(problem: &Problem) -> String {
    let spot = problem.spot.as_ref().expect("has a place");
    let text = &spot.source.text;
    let before = &text[..spot.span.start];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let file = spot.source.name.rsplit('/').next().unwrap();
    assert!(problem.help.as_ref().is_some_and(|help| !help.is_empty()), "no remedy: {}", problem.message);
    format!("{file}:{line}:{column}: {} ({})", problem.message, &text[spot.span.clone()])
}

#[test]
fn records_are_read_in_all_their_notations() {
    for (text, expected) in [
        ("www A 192.0.2.1\n", &["www.example.com. 60 A c0000201"][..]),
        ("www A 192.0.2.1", &["www.example.com. 60 A c0000201"]),
        ("www\t300\tIN\tA\t192.0.2.1\r\n", &["www.example.com. 300 A c0000201"]),
        ("www in 300 a 192.0.2.1", &["www.example.com. 300 A c0000201"]),
        ("www CLASS1 1h30m TYPE1 \\# 4 C0000201", &["www.example.com. 5400 A c0000201"]),
        ("WWW.Example.COM. 0 A 192.0.2.1", &["www.example.com. 0 A c0000201"]),
        ("@ 2147483647 A 192.0.2.1", &["example.com. 2147483647 A c0000201"]),
        ("* A 192.0.2.1", &["*.example.com. 60 A c0000201"]),
        ("a\\.b A 192.0.2.1", &["a\\.b.example.com. 60 A c0000201"]),
        ("\\$x A 192.0.2.1", &["\\$x.example.com. 60 A c0000201"]),
        ("in in in 192.0.2.1", &[]),
        ("in in a 192.0.2.1", &["in.example.com. 60 A c0000201"]),
        ("a a 192.0.2.1", &["a.example.com. 60 A c0000201"]),
        ("300 300 a 192.0.2.1", &["300.example.com. 300 A c0000201"]),
        (
            "w A 192.0.2.1\n  A 192.0.2.2\n\n ; c\n\t5 IN A 192.0.2.3",
            &["w.example.com. 60 A c0000201", "w.example.com. 60 A c0000202", "w.example.com. 5 A c0000203"],
        ),
        (
            "w ( A ; one\n 192.0.2.1\n)\n( x\n) A 192.0.2.2",
            &["w.example.com. 60 A c0000201", "x.example.com. 60 A c0000202"],
        ),
        (
            "$ORIGIN sub\nw NS n\n$ORIGIN Other.\nw NS n\n@ NS @",
            &[
                "w.sub.example.com. 60 NS 016e03737562076578616d706c6503636f6d00",
                "w.other. 60 NS 016e056f7468657200",
                "other. 60 NS 056f7468657200",
            ],
        ),
        ("t TXT \"a;b\" c ; d", &["t.example.com. 60 TXT 03613b620163"]),
        ("\u{feff}w A 192.0.2.1", &["w.example.com. 60 A c0000201"]),
        (
            "$GENERATE 1-2 h$ 5 IN A 192.0.2.${1}\n$GENERATE 8-9/1 ${0,3} ( TXT \"n $\" $$\n) ; end",
            &[
                "h1.example.com. 5 A c0000202",
                "h2.example.com. 5 A c0000203",
                "008.example.com. 5 TXT 036e20380124",
                "009.example.com. 5 TXT 036e20390124",
            ],
        ),
        (
            "$generate 10-11 ${0,3,n} PTR h${0,0,x}",
            &[
                "a.0.example.com. 60 PTR 026861076578616d706c6503636f6d00",
                "b.0.example.com. 60 PTR 026862076578616d706c6503636f6d00",
            ],
        ),
        ("t TXT é", &["t.example.com. 60 TXT 02c3a9"]),
        ("", &[]),
    ] {
        let (records, problems) = read_all(text, None);
        assert_eq!(records, expected, "{text:?}");
        assert_eq!(problems.is_empty(), text != "in in in 192.0.2.1", "{text:?}: {problems:?}");
    }
}

#[test]
fn a_missing_ttl_is_the_directives_then_the_last_ones_then_the_zones() {
    let text =
        "a A 192.0.2.1\nb 10 A 192.0.2.1\nc A 192.0.2.1\n$TTL 1m\nd A 192.0.2.1\ne 20 A 192.0.2.1\nf A 192.0.2.1";
    let (records, problems) = read_all(text, None);
    let ttls: Vec<_> = records.iter().map(|r| r.split(' ').nth(1).unwrap()).collect();
    assert_eq!((ttls, problems), (vec!["60", "10", "10", "60", "20", "60"], vec![]));
}

#[test]
fn broken_texts_are_told_line_by_line() {
    for (text, expected) in [
        ("w", &["example.zone:1:1: the record has no type (w)"][..]),
        ("w 300 IN", &["example.zone:1:7: the record has no type (IN)"]),
        ("w AA 192.0.2.1", &["example.zone:1:3: `AA` is not a record type (AA)"]),
        ("w ANAME x", &["example.zone:1:3: `ANAME` is not a record type (ANAME)"]),
        ("w TYPE70000 \\# 0", &["example.zone:1:3: `TYPE70000` is not a record type (TYPE70000)"]),
        ("w \"A\" 192.0.2.1", &["example.zone:1:3: `A` stands where the record type should be (\"A\")"]),
        ("w IN IN A 192.0.2.1", &["example.zone:1:6: `IN` is not a record type (IN)"]),
        ("w 1 2 A 192.0.2.1", &["example.zone:1:5: `2` is not a record type (2)"]),
        ("w CH TXT x", &["example.zone:1:3: class `CH` is not served (CH)"]),
        ("w CLASS3 TXT x", &["example.zone:1:3: class `CLASS3` is not served (CLASS3)"]),
        ("w ANY A 192.0.2.1", &["example.zone:1:7: ANY is not a type of records that a zone can hold (A 192.0.2.1)"]),
        (
            "w 2147483648 A 192.0.2.1",
            &["example.zone:1:3: `2147483648` is not a TTL from 0 to 2147483647 seconds (2147483648)"],
        ),
        ("w 1x A 192.0.2.1", &["example.zone:1:3: `1x` is not a TTL from 0 to 2147483647 seconds (1x)"]),
        (
            " A 192.0.2.1",
            &["example.zone:1:2: no owner to take over: no record with a good owner stands before this line (A)"],
        ),
        ("A 192.0.2.1", &["example.zone:1:3: `192.0.2.1` is not a record type (192.0.2.1)"]),
        ("  www A 192.0.2.1", &["example.zone:1:3: `www` is not a record type (www)"]),
        ("a..b A 192.0.2.1", &["example.zone:1:1: empty label; write single dots between labels (a..b)"]),
        ("\"w\" A 192.0.2.1", &["example.zone:1:1: a name is written without quotes (\"w\")"]),
        ("bücher A 192.0.2.1", &["example.zone:1:1: `bücher` has characters outside ASCII (bücher)"]),
        ("$TTL", &["example.zone:1:1: `$TTL` says nothing ($TTL)"]),
        ("$TTL x", &["example.zone:1:6: `x` is not a TTL from 0 to 2147483647 seconds (x)"]),
        ("$TTL 1 2", &["example.zone:1:8: `2` is too much for `$TTL` (2)"]),
        ("$ttl -1", &["example.zone:1:6: `-1` is not a TTL from 0 to 2147483647 seconds (-1)"]),
        ("$ORIGIN a..", &["example.zone:1:9: empty label; write single dots between labels (a..)"]),
        ("$GENERATE 1-9 a A", &["example.zone:1:17: `$GENERATE` needs a range, an owner, a type and its data (A)"]),
        ("$GENERATE 9-1 a$ A 192.0.2.$", &["example.zone:1:11: the range `9-1` runs backwards (9-1)"]),
        ("$GENERATE 1-2 a${x} A 192.0.2.$", &["example.zone:1:15: `${x}` is no way to write a number (a${x})"]),
        (
            "$GENERATE 255-300 a$ A 192.0.2.$",
            &[
                "example.zone:1:1: `a256 A 192.0.2.256`: address: `192.0.2.256` is not an IPv4 address ($GENERATE 255-300 a$ A 192.0.2.$)",
            ],
        ),
        ("$FOO", &["example.zone:1:1: `$FOO` is not a directive ($FOO)"]),
        ("$INCLUDE x", &["example.zone:1:10: inline records cannot include files (x)"]),
        (
            "w TXT \"a\nw A 192.0.2.1\nx A 1",
            &[
                "example.zone:1:7: the quoted string is not closed on its line (\")",
                "example.zone:3:5: address: `1` is not an IPv4 address (1)",
            ],
        ),
        (
            "w MX ( 10\nx A 1\n",
            &["example.zone:1:6: `(` is never closed (()", "example.zone:2:5: address: `1` is not an IPv4 address (1)"],
        ),
        (
            "w A 192.0.2.1 )\n\n y A 1",
            &["example.zone:1:15: `)` without a `(` before it ())", "example.zone:3:2: `y` is not a record type (y)"],
        ),
        (
            "é TXT a\nb MX ten ü\n",
            &[
                "example.zone:1:1: `é` has characters outside ASCII (é)",
                "example.zone:2:6: preference: `ten` is not a whole number from 0 to 65535 (ten)",
            ],
        ),
    ] {
        assert_eq!(read_all(text, None).1, expected, "{text:?}");
    }
}

#[test]
fn remedies_fit_the_mistake() {
    for (text, expected) in [
        (
            "  www A 192.0.2.1",
            "a line that begins with a blank belongs to the owner before it; if `www` is the owner, remove the blank",
        ),
        ("A 192.0.2.1", "a line begins with the owner's name, or with a blank for the owner before it"),
        ("w AAA ::1", "did you mean `AAAA`?"),
        ("w CNMAE x", "did you mean `CNAME`?"),
        ("w qqq x", "types without a name are written `TYPEnnn \\# length hex`"),
        ("w ALIAS x", "there is no such type in DNS; a route with address endpoints can stand at any name"),
    ] {
        let mut problems = Vec::new();
        read(&zone(60), &zone_text(text, None), &mut problems);
        assert_eq!(problems[0].help.as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn inline_records_keep_the_places_of_the_configuration() {
    let toml = "[zones.x]\nrecords = '''\n@ A 192.0.2.1\n@ MX bad x\n'''\n";
    let source = Arc::new(Source { name: "isochrone.toml".into(), text: toml.into() });
    let text = ZoneText { spot: Spot { source, span: 23..50 }, folder: None };
    let mut problems = Vec::new();
    let records = read(&zone(60), &text, &mut problems);
    assert_eq!(&toml[records[0].spot.span.clone()], "@ A 192.0.2.1");
    assert_eq!(show(&problems[0]), "isochrone.toml:4:6: preference: `bad` is not a whole number from 0 to 65535 (bad)");
}

#[test]
fn reading_stops_after_very_many_problems() {
    let (records, problems) = read_all_counted(&format!("{}w A 192.0.2.1\n", "w A x\n".repeat(2 * PROBLEMS_MAX)));
    assert_eq!((records, problems), (0, PROBLEMS_MAX + 1));
}

fn read_all_counted(text: &str) -> (usize, usize) {
    let mut problems = Vec::new();
    let records = read(&zone(60), &zone_text(text, None), &mut problems).len();
    (records, problems.len())
}

/// A folder with files, and what stands beside it.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let zones = outer.path().join("zones");
    fs::create_dir_all(zones.join("sub")).unwrap();
    fs::write(outer.path().join("secret"), "s A 192.0.2.9\n").unwrap();
    for (name, text) in files {
        fs::write(zones.join(name), text).unwrap();
    }
    (outer, zones)
}

#[test]
fn included_files_have_their_own_origin_ttl_and_owner() {
    let (_outer, zones) = folder(&[
        ("a.inc", "$TTL 9\n$ORIGIN inner\nx A 192.0.2.1\n"),
        ("sub/b.inc", " A 192.0.2.2\n@ A 192.0.2.3\n$INCLUDE a.inc deep"),
    ]);
    let text = "$TTL 5\nw A 192.0.2.4\n$INCLUDE a.inc\n A 192.0.2.5\n$include \"sub/b.inc\" b\nv A 192.0.2.6\n";
    let (records, problems) = read_all(text, Some(&zones));
    assert_eq!(
        records,
        [
            "w.example.com. 5 A c0000204",
            "x.inner.example.com. 9 A c0000201",
            "w.example.com. 5 A c0000205",
            "b.example.com. 5 A c0000203",
            "x.inner.deep.b.example.com. 9 A c0000201",
            "v.example.com. 5 A c0000206",
        ]
    );
    assert_eq!(problems, ["b.inc:1:2: no owner to take over: no record with a good owner stands before this line (A)"]);
}

#[test]
fn nothing_outside_the_folder_is_included() {
    let (outer, zones) = folder(&[("loop", "$INCLUDE loop\n"), ("bad", "w A x\n")]);
    std::os::unix::fs::symlink(outer.path().join("secret"), zones.join("link")).unwrap();
    std::os::unix::fs::symlink(zones.join("bad"), zones.join("inside")).unwrap();
    fs::write(zones.join("latin"), b"w TXT \xff\n").unwrap();
    let secret = outer.path().join("secret");
    for (path, expected) in [
        ("../secret", "example.zone:1:10: `../secret` leaves the zone file's folder (../secret)"),
        ("sub/../../secret", "example.zone:1:10: `sub/../../secret` leaves the zone file's folder (sub/../../secret)"),
        ("link", "example.zone:1:10: `link` leaves the zone file's folder (link)"),
        ("\"\"", "example.zone:1:10: `` leaves the zone file's folder (\"\")"),
        ("sub", "example.zone:1:10: `sub` is not a regular file (sub)"),
        ("latin", "example.zone:1:10: `latin` is not UTF-8 text (latin)"),
        ("loop", "loop:1:10: `loop` includes itself (loop)"),
        ("inside", "inside:1:5: address: `x` is not an IPv4 address (x)"),
        (&secret.display().to_string(), "leaves the zone file's folder"),
        ("missing", "example.zone:1:10: cannot read `missing`: "),
    ] {
        let (records, problems) = read_all(&format!("$INCLUDE {path}"), Some(&zones));
        assert!(problems.len() == 1 && problems[0].contains(expected), "{path}: {problems:?}");
        assert!(records.is_empty());
    }
}

#[test]
fn includes_are_bounded_in_depth_and_number() {
    let names: Vec<String> = (0..20).map(|i| format!("f{i}")).collect();
    let texts: Vec<String> = (0..20).map(|i| format!("$INCLUDE f{}\n", i + 1)).collect();
    let files: Vec<_> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    let (_outer, zones) = folder(&files);
    let (_, problems) = read_all("$INCLUDE f0", Some(&zones));
    assert_eq!(problems, ["f7:1:10: files are included more than 8 levels deep (f8)"]);

    fs::write(zones.join("empty"), "").unwrap();
    let (_, problems) = read_all(&"$INCLUDE empty\n".repeat(1_001), Some(&zones));
    assert_eq!(problems, ["example.zone:1001:10: more than 1000 files or 1073741824 bytes are included (empty)"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_causes_a_panic(text in "([ -~é\\n\\t\"();$@\\\\]|A |IN |TXT |\\$TTL |\\$ORIGIN |\n){0,80}") {
        let (records, problems) = read_all_counted(&text);
        prop_assert!(records + problems <= text.lines().count() + 2);
    }

    #[test]
    fn every_problem_lies_within_its_text(text in "(w |A |MX |TXT |\"|\\(|\\)|é|\\\\|;|1 |\n| ){0,40}") {
        let mut problems = Vec::new();
        read(&zone(60), &zone_text(&text, None), &mut problems);
        for problem in problems {
            let spot = problem.spot.unwrap();
            prop_assert!(spot.source.text.get(spot.span).is_some());
        }
    }
}
