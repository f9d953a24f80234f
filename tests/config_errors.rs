//! Broken configurations and the exact reports that they get: `config_cases.txt` is the table. Each case is
//!
//! ```text
//! === what is wrong
//! the TOML; a sound rest (regions, a check, a zone) is added below it, unless the title ends in "(alone)"
//! ---
//! the report
//! ```
//!
//! After a change of words: `UPDATE_EXPECTED=1 cargo test --test config_errors`, then read the difference.

use std::{collections::HashSet, fmt::Write as _, path::Path, sync::Arc};

use isochrone::config::{self, Config, Report, Source};
use proptest::prelude::*;

const TABLE: &str = "tests/config_cases.txt";

/// What a case may take for granted.
const SOUND_REST: &str = r#"
[checks.ping]
type = "tcp"
port = 7

[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.10"]
check = "ping"

[regions.eu]
location = "aws:eu-west-1"
endpoints = ["198.51.100.10", "2001:db8::10"]
check = "ping"

[regions.cdn]
location = "FRA"
endpoints = ["www.example.net"]

[zones."geo.example.com"]
nameservers = ["ns1.example.com."]
"#;

struct Case<'t> {
    title: &'t str,
    toml: &'t str,
    expected: &'t str,
}

fn cases(table: &str) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for part in table.split("\n=== ").skip(1) {
        let (title, rest) = part.split_once('\n').expect("a title ends its line");
        let (toml, expected) = rest.split_once("\n---\n").unwrap_or((rest, ""));
        cases.push(Case { title, toml, expected: expected.trim_end() });
    }
    cases
}

fn parse(toml: &str) -> Result<Config, Report> {
    let source = Source { name: "isochrone.toml".into(), text: toml.into() };
    config::parse(Arc::new(source), Path::new("tests/config_files"))
}

fn report_of(case: &Case<'_>) -> String {
    let text =
        if case.title.ends_with("(alone)") { case.toml.to_string() } else { format!("{}\n{SOUND_REST}", case.toml) };
    match parse(&text) {
        Ok(_) => "no error".into(),
        Err(report) => report.to_string(),
    }
}

#[test]
fn broken_files_get_their_exact_reports() {
    let table = std::fs::read_to_string(TABLE).unwrap();
    let cases = cases(&table);
    assert!(cases.len() >= 90, "only {} cases were found", cases.len());
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        return rewrite(&table, &cases);
    }
    let mut differences = String::new();
    for case in &cases {
        let actual = report_of(case);
        if actual != case.expected {
            write!(differences, "\n=== {}\n{}", case.title, difference(case.expected, &actual)).unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

fn rewrite(table: &str, cases: &[Case<'_>]) {
    let mut out = table.split("\n=== ").next().unwrap().to_string();
    for case in cases {
        write!(out, "\n=== {}\n{}\n---\n{}\n", case.title, case.toml.trim_end(), report_of(case)).unwrap();
    }
    std::fs::write(TABLE, out).unwrap();
}

/// Lines only expected (-) and lines only seen (+), in place among the others.
fn difference(expected: &str, actual: &str) -> String {
    let (wanted, seen): (HashSet<&str>, HashSet<&str>) = (expected.lines().collect(), actual.lines().collect());
    let mut out = String::new();
    for line in expected.lines().filter(|line| !seen.contains(line)) {
        writeln!(out, "- {line}").unwrap();
    }
    for line in actual.lines() {
        writeln!(out, "{} {line}", if wanted.contains(line) { ' ' } else { '+' }).unwrap();
    }
    out
}

#[test]
fn no_two_cases_have_one_title() {
    let table = std::fs::read_to_string(TABLE).unwrap();
    let mut titles = HashSet::new();
    for case in cases(&table) {
        assert!(titles.insert(case.title), "{}", case.title);
    }
}

#[test]
fn the_sound_rest_is_sound() {
    if let Err(report) = parse(SOUND_REST) {
        panic!("{report}");
    }
}

#[test]
fn every_error_has_a_remedy_and_a_place() {
    let table = std::fs::read_to_string(TABLE).unwrap();
    for case in cases(&table).iter() {
        let Err(report) = parse(&format!("{}\n{SOUND_REST}", case.toml)) else { continue };
        for problem in report.problems {
            assert!(problem.help.is_some(), "{}: {}", case.title, problem.message);
            assert!(problem.spot.is_some(), "{}: {}", case.title, problem.message);
        }
    }
}

/// A key that the reader forgot would take a date without a word.
#[test]
fn no_key_takes_a_value_of_a_wrong_type() {
    for schema in config::keys::SECTIONS {
        for key in schema.keys {
            let header = match schema.title {
                "location" => "[regions.us.location]".to_string(),
                "endpoints" => "[[regions.us.endpoints]]".to_string(),
                title => title.replace("NAME", "x.example").replace("OWNER", "www").replace(".x.example]", ".x]"),
            };
            let type_line =
                if schema.title == "[checks.NAME]" && key.name != "type" { "type = \"https\"\n" } else { "" };
            let text = format!("{header}\n{type_line}{} = 1979-05-27\n", key.name);
            let report = parse(&text).expect_err(key.name);
            let line = text.lines().count();
            let named = report.problems.iter().any(|p| p.spot.as_ref().is_some_and(|s| s.line_column().0 == line));
            assert!(named, "{text}\n{report}");
        }
    }
}

/// Sound files to break.
fn sound_files() -> Vec<String> {
    let mut files = vec![SOUND_REST.to_string()];
    for entry in std::fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(std::fs::read_to_string(path).unwrap());
        }
    }
    let table = std::fs::read_to_string(TABLE).unwrap();
    files.extend(cases(&table).iter().map(|case| case.toml.to_string()));
    files.sort();
    files
}

/// Reads a text; whatever comes of it can be shown.
fn survives(text: &str) {
    if let Err(report) = parse(text) {
        assert!(!report.problems.is_empty());
        assert!(report.to_string().ends_with(&report.summary()));
        assert_eq!(parse(text).unwrap_err(), report, "the same text gets the same report");
    }
}

#[test]
fn deep_nesting_is_refused_or_read_but_never_fatal() {
    for text in [
        format!("{}b = 1", "a.".repeat(50_000)),
        format!("[{}b]\nc = 1", "a.".repeat(50_000)),
        format!("a = {}", "[".repeat(50_000)),
        format!("a = {}", "{ a = ".repeat(50_000)),
        format!("a = {}1{}", "[".repeat(5_000), "]".repeat(5_000)),
    ] {
        assert!(parse(&text).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_a_panic(text in "(?s).{0,200}") {
        survives(&text);
    }

    #[test]
    fn any_heap_of_toml_is_read_without_a_panic(
        text in "([\\[\\]{}=.,\"'#\n \\\\]|[a-z]{1,3}|zones|routes|regions|us|checks|\"\"\"|'''|[0-9]{1,3}|true|é){0,80}"
    ) {
        survives(&text);
    }

    #[test]
    fn a_mangled_file_is_read_without_a_panic(
        file in proptest::sample::select(sound_files()),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[\\PC\n]{0,6}"), 1..6),
    ) {
        let mut chars: Vec<char> = file.chars().collect();
        for (at, len, with) in cuts {
            if chars.is_empty() {
                break;
            }
            let from = at.index(chars.len());
            let to = (from + len).min(chars.len());
            chars.splice(from..to, with.chars());
        }
        survives(&chars.into_iter().collect::<String>());
    }
}
