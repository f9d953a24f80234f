//! Small zones and what each question to them is answered with: the table of `tests/zones/*.txt`. A file has zones, each a line
//! `zone` with its title, then its records as zone-file text behind four blanks, then one question a line with its answer:
//!
//!     name type -> rcode flags | answer | authority | additional
//!
//! Names are relative to the apex `example.`, which is `@`; a section's records are joined by `, `. A TTL is shown where it is not the
//! zone's 60 s. `SOA` alone is the SOA of a negative answer. The apex has a SOA and one NS record, `ns.example.net.`.
//!
//! After a deliberate change: `UPDATE_EXPECTED=1 cargo test --test zone_cases`, then read the difference.

#[path = "support/fixture.rs"]
mod fixture;

use std::{fs, path::Path};

use fixture::{Ask, Fixture};
use hickory_proto::rr::{Name, RData, Record};

/// Fewer cases than these mean that files are not found.
const CASES_MIN: usize = 150;

fn relative(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix("example.") {
        Some("") => "@".into(),
        Some(head) if head.ends_with('.') => head[..head.len() - 1].into(),
        _ => text,
    }
}

fn data(record: &Record) -> String {
    match &record.data {
        RData::NS(to) => relative(to),
        RData::CNAME(to) => relative(to),
        RData::MX(mx) => format!("{} {}", mx.preference, relative(&mx.exchange)),
        // A DNAME, which the library does not know: a name without compression.
        RData::Unknown { code, rdata } if u16::from(*code) == 39 => {
            let name = isochrone::wire::Name::from_wire(&rdata.anything).expect("DNAME data is one name");
            relative(&Name::from_ascii(name.to_string()).unwrap())
        }
        RData::Unknown { rdata, .. } => {
            let hex: String = rdata.anything.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\# {} {hex}", rdata.anything.len())
        }
        other => other.to_string(),
    }
}

/// The type as zone files write it.
fn rtype(record: &Record) -> String {
    match u16::from(record.record_type()) {
        39 => "DNAME".into(),
        number if matches!(record.data, RData::Unknown { .. }) => format!("TYPE{number}"),
        _ => record.record_type().to_string(),
    }
}

fn section(records: &[Record]) -> String {
    let show = |record: &Record| {
        let ttl = if record.ttl == 60 { String::new() } else { format!(" {}", record.ttl) };
        let owner = relative(&record.name);
        match &record.data {
            RData::SOA(_) if owner == "@" && ttl.is_empty() => "SOA".into(),
            RData::SOA(soa) => format!("{owner}{ttl} SOA {}", relative(&soa.mname)),
            _ => format!("{owner}{ttl} {} {}", rtype(record), data(record)),
        }
    };
    records.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn answer(fixture: &mut Fixture, name: &str, qtype: &str) -> String {
    let name = if name == "@" { "example.".into() } else { format!("{name}.example.") };
    let answer = fixture.ask(&Ask::new(&name, qtype).tcp());
    let message = &answer.message;
    let rcode = match u16::from(message.metadata.response_code) {
        0 => "NOERROR".to_string(),
        2 => "SERVFAIL".to_string(),
        3 => "NXDOMAIN".to_string(),
        6 => "YXDOMAIN".to_string(),
        other => other.to_string(),
    };
    let aa = if message.metadata.authoritative { " aa" } else { "" };
    let sections = [&message.answers, &message.authorities, &message.additionals].map(|s| section(s));
    format!("{rcode}{aa} | {}", sections.join(" | ")).trim_end_matches([' ', '|']).to_string()
}

fn compile(title: &str, records: &str) -> Fixture {
    assert!(!records.contains("'''"), "{title}");
    Fixture::new(&format!(
        "[regions.r]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.250\"]\n[zones.\"example\"]\n\
         nameservers = [\"ns.example.net.\"]\nrecords = '''\n{records}'''\n"
    ))
}

#[test]
fn every_question_has_its_answer() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    let mut cases = 0;
    let mut files: Vec<_> =
        fs::read_dir(Path::new("tests/zones")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let (text, mut rewritten) = (fs::read_to_string(&path).unwrap(), String::new());
        let (mut title, mut records, mut fixture) = (String::new(), String::new(), None);
        for line in text.lines() {
            let mut kept = line.to_string();
            if let Some(named) = line.strip_prefix("zone ") {
                (title, records, fixture) = (named.to_string(), String::new(), None);
            } else if let Some(record) = line.strip_prefix("    ") {
                records += &format!("{record}\n");
            } else if let Some((question, expected)) = line.split_once(" ->") {
                let (name, qtype) = question.split_once(' ').expect("a name and a type");
                let found = answer(fixture.get_or_insert_with(|| compile(&title, &records)), name, qtype);
                if found != expected.trim() {
                    wrong.push(format!(
                        "{} ({title}) {question}\n  not {}\n  but {found}",
                        path.display(),
                        expected.trim()
                    ));
                }
                kept = format!("{question} -> {found}");
                cases += 1;
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "{}: {line}", path.display());
            }
            rewritten += &format!("{kept}\n");
        }
        if update {
            fs::write(&path, rewritten).unwrap();
        }
    }
    assert!(cases >= CASES_MIN, "only {cases} cases");
    assert!(update || wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
}
