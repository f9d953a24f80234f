//! Measurements for the estimator: the files that the configuration names, read and sorted out, and where the measured networks are.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use ipnet::IpNet;

use crate::{
    config::{Config, Problem, Source, Spot, quote, read_text},
    geo::{AsnTable, GeoError, Locations, Place},
    latency::{
        intake::{Atlas, weight_of},
        measurement::{self, Network, Parsed, Row},
    },
};

/// Largest file of measurements, in bytes: some ten million lines.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// What the files held.
#[derive(Debug, Default)]
pub struct Measured {
    /// Their rows, file after file.
    pub rows: Vec<Row>,
    /// Lines that were left out by choice.
    pub skipped: usize,
    /// What to tell of them, one line each.
    pub warnings: Vec<String>,
}

/// Reads the files of the configuration.
///
/// # Errors
/// What is wrong with them, unless wrong lines are left out by choice.
pub fn read(config: &Config, now: SystemTime) -> Result<Measured, Vec<Problem>> {
    let regions: Vec<&str> = config.regions.iter().map(|region| region.name.as_str()).collect();
    let mut measured = Measured::default();
    let mut problems = Vec::new();
    for path in &config.latency.measurements {
        match read_file(path, &regions, now) {
            Ok((parsed, told)) if config.latency.skip_bad_measurements || parsed.faulty_lines == 0 => {
                measured.warnings.extend(faded(path, &parsed.rows));
                match measured.rows.is_empty() {
                    true => measured.rows = parsed.rows, // a million rows are not copied
                    false => measured.rows.extend(parsed.rows),
                }
                measured.skipped += parsed.faulty_lines;
                measured.warnings.extend(told.iter().map(|problem| format!("left out: {}", problem.brief())));
            }
            Ok((_, told)) => problems.extend(told),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(measured) } else { Err(problems) }
}

/// A file that is younger needs no word: its single samples have an effect.
const DOUBTED_AGE_S: u64 = 90 * 86_400;

/// What to tell of a file whose time of modification makes all its lines so old that none has an effect.
fn faded(path: &Path, rows: &[Row]) -> Option<String> {
    let has_effect = |row: &Row| row.age_s < DOUBTED_AGE_S || weight_of(row) >= 1.0;
    let age_s = rows.first().filter(|_| !rows.iter().any(has_effect))?.age_s;
    Some(format!(
        "the measurements in {} have next to no effect: by its time of modification the file is {} days old, and the samples of a line \
         count half after 30 days; `touch` it if they are newer than that, or measure again",
        quote(&path.display().to_string()),
        age_s / 86_400
    ))
}

/// Reads one file: its rows, and what is wrong with its lines.
///
/// # Errors
/// It cannot be read.
pub fn read_file(path: &Path, regions: &[&str], now: SystemTime) -> Result<(Parsed, Vec<Problem>), Problem> {
    let name = path.display().to_string();
    let unreadable = |why: String| Problem::new(format!("the file of measurements {} {why}", quote(&name)));
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let text = read_text(path, FILE_BYTES_MAX).map_err(unreadable)?;
    let age_s = modified.ok().and_then(|then| now.duration_since(then).ok()).map_or(0, |age| age.as_secs());
    let parsed = measurement::parse(&text, regions, age_s);
    let mut told = Vec::new();
    if parsed.faulty_lines > 0 {
        let source = Arc::new(Source { name: name.clone(), text });
        told.extend(parsed.faults.iter().map(|fault| {
            let spot = Spot { source: source.clone(), span: fault.span.clone() };
            Problem::at(spot, fault.message.clone()).with_help(fault.help.clone())
        }));
        let untold = parsed.faulty_lines - parsed.faults.len();
        let many = if untold > 0 { format!(" ({untold} more than are shown here)") } else { String::new() };
        told.push(
            Problem::new(format!("{} wrong lines in {}{many}", parsed.faulty_lines, quote(&name)))
                .with_help("correct them, or set `skip-bad-measurements = true` in [latency] to leave such lines out"),
        );
    }
    Ok((parsed, told))
}

/// Where networks are, by the databases of a configuration.
pub struct GeoAtlas<'g> {
    locations: &'g Locations,
    asns: Option<&'g AsnTable>,
    systems: HashMap<u32, Vec<Place>>,
}

/// So many places stand for an autonomous system.
const SYSTEM_PLACES_MAX: usize = 64;

impl<'g> GeoAtlas<'g> {
    /// For these rows.
    ///
    /// # Errors
    /// What the table of autonomous systems has to report.
    pub fn new(locations: &'g Locations, asns: Option<&'g AsnTable>, rows: &[Row]) -> Result<Self, GeoError> {
        let mut atlas = GeoAtlas { locations, asns, systems: HashMap::new() };
        let asked: HashSet<u32> =
            rows.iter().filter_map(|row| if let Network::Asn(asn) = row.network { Some(asn) } else { None }).collect();
        if let Some(asns) = asns.filter(|_| !asked.is_empty()) {
            asns.walk_v4(&mut |first, _, asn| atlas.note_system(&asked, asn, || IpAddr::V4(first.into())))?;
            asns.walk_v6(&mut |first, _, asn| atlas.note_system(&asked, asn, || IpAddr::V6(first.into())))?;
        }
        Ok(atlas)
    }

    fn note_system(&mut self, asked: &HashSet<u32>, asn: u32, address: impl FnOnce() -> IpAddr) {
        if !asked.contains(&asn) {
            return;
        }
        let places = self.systems.entry(asn).or_default();
        if places.len() < SYSTEM_PLACES_MAX {
            places.extend(self.locations.lookup(address()));
        }
    }
}

impl Atlas for GeoAtlas<'_> {
    fn whereabouts(&self, network: IpNet) -> (Option<Place>, Option<u32>) {
        // Of a wide prefix the first address may be nowhere; then the middle stands for it.
        let first = network.network();
        let place = self.locations.lookup(first).or_else(|| self.locations.lookup(middle(network)));
        (place, self.asns.and_then(|asns| asns.lookup(first)))
    }

    fn places_of_system(&self, asn: u32) -> Vec<Place> {
        self.systems.get(&asn).cloned().unwrap_or_default()
    }
}

fn middle(network: IpNet) -> IpAddr {
    match network {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            IpAddr::V4((first + (last - first) / 2).into())
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            IpAddr::V6((first + (last - first) / 2).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_old_to_count_is_told_and_one_of_single_samples_is_not() {
        let told = |samples: &str, days: u64| {
            let text = format!("192.0.2.0/24,eu,20{samples}\n");
            faded(Path::new("rtt.csv"), &measurement::parse(&text, &["eu"], days * 86_400).rows)
        };
        assert!(told("", 20_000).is_some_and(|told| told.contains("20000 days old")));
        assert_eq!([told("", 30), told(",1", 1), told(",100000", 200)], [None, None, None]);
        assert_eq!(faded(Path::new("rtt.csv"), &[]), None);
    }
}
