//! Replays the seeds of the fuzz targets, `fuzz/corpus/<target>/`, through the very functions that are fuzzed: what was found once
//! stays found, on any machine and without a fuzzer.

use std::{fs, panic, path::Path};

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// Runs every seed of a target; a panic names the file.
fn replay(name: &str) {
    let (_, target) = fuzz::TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut seeds: Vec<_> = fs::read_dir(&folder).expect("a folder of seeds").map(|e| e.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 20, "{}: only {} seeds", folder.display(), seeds.len());
    for seed in seeds {
        let bytes = fs::read(&seed).unwrap();
        let outcome = panic::catch_unwind(|| target(&bytes));
        assert!(outcome.is_ok(), "{} fails", seed.display());
    }
}

#[test]
fn every_seed_of_messages_is_read() {
    replay("query");
}

#[test]
fn every_seed_of_client_subnets_is_read() {
    replay("ecs");
}

#[test]
fn every_seed_of_messages_is_answered_or_dropped() {
    replay("core");
}

#[test]
fn every_seed_of_zone_files_is_read() {
    replay("zone_file");
}

#[test]
fn every_seed_of_configurations_is_read() {
    replay("config");
}

#[test]
fn every_seed_of_location_databases_is_read() {
    replay("mmdb");
}

#[test]
fn every_target_has_its_program_and_its_seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert_eq!(manifest.matches("[[bin]]").count(), fuzz::TARGETS.len());
    for (name, _) in fuzz::TARGETS {
        assert!(root.join(format!("fuzz_targets/{name}.rs")).exists(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(fs::read_dir(root.join("corpus")).unwrap().count(), fuzz::TARGETS.len());
}
