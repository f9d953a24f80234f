//! The documentation holds what it promises: its configurations are sound, its snippets have keys that exist, its links lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use isochrone::{
    config::{self, Source, model::Endpoints},
    server::World,
};

/// `README.md`, `CHANGELOG.md` and every page below `docs/`, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = Vec::new();
    let mut open = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md"), PathBuf::from("docs")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "md") {
            let text = fs::read_to_string(&path).unwrap();
            pages.push((path, text));
        }
    }
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

/// The text without what stands in fences.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// Where the links of a page lead, as written.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    ends.map(|(target, _)| target.to_string()).filter(|target| !target.contains("://")).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings =
        headings.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut faults = Vec::new();
    for (page, text) in pages() {
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            if !target.exists() {
                faults.push(format!("{}: {link}: no such file", page.display()));
            } else if !anchor.is_empty() && !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor) {
                faults.push(format!("{}: {link}: no such heading", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_table_of_contents_leads_to_every_page() {
    let contents = links(&fs::read_to_string("docs/README.md").unwrap());
    for (page, _) in pages() {
        let Ok(page) = page.strip_prefix("docs") else { continue };
        let page = page.to_str().unwrap();
        assert!(
            page == "README.md" || contents.iter().any(|link| link == page),
            "docs/README.md does not mention {page}"
        );
    }
    assert!(links(&fs::read_to_string("README.md").unwrap()).iter().any(|link| link == "docs/README.md"));
}

#[test]
fn every_snippet_of_a_configuration_has_keys_that_exist() {
    let mut snippets = 0;
    for (page, text) in pages() {
        for snippet in text.split("```toml").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            // A snippet may stand inside a list.
            let indent =
                snippet.lines().find(|line| !line.trim().is_empty()).map_or(0, |l| l.len() - l.trim_start().len());
            let text: String =
                snippet.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
            let source = Source { name: page.display().to_string(), text };
            snippets += 1;
            // Files that it names are not there, sections that it refers to may be missing.
            let Err(report) = config::parse(Arc::new(source), Path::new("tests/config_files")) else { continue };
            let unknown = |message: &str| message.starts_with("unknown key") || message.starts_with("unknown section");
            let bad: Vec<_> = report.problems.iter().filter(|problem| unknown(&problem.message)).collect();
            assert!(bad.is_empty(), "{}: {bad:#?}", page.display());
        }
    }
    assert!(snippets > 10, "{snippets}");
}

/// The converted configurations of `docs/moving`, and that of `docs/compose`, are those that the program takes.
#[test]
fn every_configuration_of_the_documentation_is_sound() {
    for (path, zones, routes) in [
        ("docs/moving/gdnsd/isochrone.toml", 1, 6),
        ("docs/moving/powerdns/isochrone.toml", 2, 6),
        ("docs/moving/route53/isochrone.toml", 1, 5),
        ("docs/compose/isochrone.toml", 1, 1),
    ] {
        let config = config::load(Path::new(path)).unwrap_or_else(|report| panic!("{report}"));
        World::compile(config.clone(), Path::new(path)).unwrap_or_else(|report| panic!("{report}"));
        let count = config.zones.iter().map(|zone| zone.routes.len()).sum::<usize>();
        assert_eq!((config.zones.len(), count), (zones, routes), "{path}");
    }
}

#[test]
fn every_value_of_the_route_53_record_sets_is_in_what_they_were_converted_to() {
    let text = fs::read_to_string("docs/moving/route53/record-sets.json").unwrap();
    let sets: serde_json::Value = serde_json::from_str(&text).unwrap();
    let converted = fs::read_to_string("docs/moving/route53/isochrone.toml").unwrap();
    let mut values = 0;
    for set in sets["ResourceRecordSets"].as_array().unwrap() {
        if ["NS", "SOA"].contains(&set["Type"].as_str().unwrap()) {
            continue; // those of AWS stay behind
        }
        let records = set["ResourceRecords"].as_array().into_iter().flatten().map(|record| &record["Value"]);
        for value in records.chain(set.pointer("/AliasTarget/DNSName")).map(|value| value.as_str().unwrap()) {
            assert!(converted.contains(value.trim_end_matches('.')), "{value}");
            values += 1;
        }
    }
    assert_eq!(values, 16);
}

#[test]
fn what_compose_mounts_and_prometheus_scrapes_is_there() {
    let text = fs::read_to_string("docs/compose/compose.yaml").unwrap();
    let mounts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- .")).collect();
    for mount in &mounts {
        let (from, to) = mount.split_once(':').unwrap();
        assert!(Path::new(&format!("docs/compose/.{from}")).is_file(), "{from} is mounted as {to} and does not exist");
    }
    assert_eq!(mounts.len(), 6);
    assert!(Path::new("docs/compose/../../Dockerfile").is_file(), "`build: ../..` is where the Dockerfile is");
    let config = config::load(Path::new("docs/compose/isochrone.toml")).unwrap_or_else(|report| panic!("{report}"));
    for server in ["ns1", "ns2"] {
        let prometheus = fs::read_to_string("docs/compose/prometheus.yml").unwrap();
        assert!(text.contains(&format!("\n  {server}:\n")) && prometheus.contains(&format!("\"{server}:8053\"")));
    }
    for region in &config.regions {
        let Endpoints::Addresses(endpoints) = &region.endpoints else { panic!("{region:?}") };
        assert!(text.contains(&format!("{{ipv4_address: {}}}", endpoints[0].address)), "{}", region.name);
    }
}
