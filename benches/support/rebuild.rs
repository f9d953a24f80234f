//! What it costs to make the maps anew: a location database of three million networks, twenty regions, and what a cluster learnt, or a file of a
//! million lines. Processor time of the whole program, all threads; and a digest of the maps, by which two versions of the program tell
//! whether they make the same.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use isochrone::{
    config::model::RegionId,
    latency::measurement::{Network, Row},
    server::World,
};

use crate::mmdb::{Writer, nested};

/// Where the regions are.
const REGIONS: [&str; 20] = [
    "IAD", "PDX", "DUB", "FRA", "SIN", "NRT", "GRU", "BOM", "JNB", "SYD", "DXB", "IST", "WAW", "MAD", "YYZ", "MEX",
    "LIM", "BOG", "CAI", "HKG",
];
/// Networks of the database that is made where none is given, and places that they share.
const NETWORKS: u32 = 3_000_000;
const PLACES: u32 = 100_000;
/// Networks that servers learnt, and how many regions each was measured from.
const LEARNT: u32 = 65_536;
const LEARNT_REGIONS: u32 = 3;
/// Networks of the file, three lines each.
const FILE_NETWORKS: u32 = 333_334;

/// Prints the table. `database`: a location database; without one it is made.
pub fn run(database: Option<String>) {
    let folder = tempfile::tempdir().expect("a folder for files");
    let database = database.map_or_else(
        || {
            let path = folder.path().join("places.mmdb");
            fs::write(&path, made()).expect("the folder is ours");
            path
        },
        |path| fs::canonicalize(path).expect("the database is there"),
    );
    println!("| maps of 20 regions, {} | processor s | s | digest |\n|---|---|---|---|", database.display());
    let bare = config(folder.path(), "bare.toml", &database, "");
    let world = timed("compiled at the start, nothing measured", || load(&bare));
    let (v4, v6) = world.networks();
    let learnt = rows(LEARNT, LEARNT_REGIONS);
    timed("made anew, nothing measured", || anew(&world, Vec::new(), &[]));
    timed("made anew, a region harder to reach", || anew(&world, Vec::new(), &[30.0]));
    let with = timed("made anew, 65,536 networks learnt from 3 regions each", || anew(&world, learnt.clone(), &[]));
    timed("the same once more", || anew(&with, learnt.clone(), &[]));
    drop((world, with));
    let lines: String = rows(FILE_NETWORKS, 3).iter().map(line).collect();
    let csv = folder.path().join("rtt.csv");
    fs::write(&csv, lines).expect("the folder is ours");
    // From the future, so that its lines have the same age in every run: none.
    let later = SystemTime::now() + Duration::from_secs(86_400);
    fs::File::options().append(true).open(csv).and_then(|file| file.set_modified(later)).expect("the file is ours");
    let file = config(folder.path(), "file.toml", &database, "measurements = [\"rtt.csv\"]\n");
    let world = timed("compiled at the start, a file of 1,000,002 lines", || load(&file));
    timed("made anew, the same file", || anew(&world, Vec::new(), &[]));
    println!("\n{v4} ranges of IPv4 and {v6} of IPv6 in the map without measurements");
}

fn load(path: &Path) -> World {
    World::load(path).unwrap_or_else(|report| panic!("{report}"))
}

fn anew(world: &World, learnt: Vec<Row>, penalties_ms: &[f32]) -> World {
    world.with_measurements(learnt, penalties_ms, SystemTime::now()).unwrap_or_else(|report| panic!("{report}"))
}

fn config(folder: &Path, name: &str, database: &Path, latency: &str) -> std::path::PathBuf {
    let region =
        |(n, at): (usize, &&str)| format!("[regions.r{n}]\nlocation = \"{at}\"\nendpoints = [\"192.0.2.{n}\"]\n");
    let regions: String = REGIONS.iter().enumerate().map(region).collect();
    let text = format!(
        "[geo]\ndatabase = {:?}\n[latency]\n{latency}{regions}[zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n\
         [zones.\"x.example\".routes.app]\n",
        database.display().to_string()
    );
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder is ours");
    path
}

/// A database with as many networks as those that are sold, and as many places.
fn made() -> Vec<u8> {
    let mut writer = Writer::new(6, 28);
    let countries = [("US", "NA"), ("DE", "EU"), ("JP", "AS"), ("BR", "SA"), ("ZA", "AF"), ("AU", "OC")];
    for n in 0..NETWORKS {
        let (place, network) = (scattered(n) % PLACES, Ipv4Addr::from_bits((1 << 24) + n * 1024));
        let (country, continent) = countries[place as usize % countries.len()];
        let (latitude, longitude) = (f64::from(place / 400) * 0.5 - 55.0, f64::from(place % 400) * 0.9 - 180.0);
        writer.put(&format!("{network}/22"), &nested(country, continent, latitude, longitude));
    }
    writer.finish()
}

/// So many /24 of the same part of the address space, each measured from some regions.
fn rows(networks: u32, regions: u32) -> Vec<Row> {
    let row = |n: u32, k: u32| {
        let network = Ipv4Addr::from_bits((1 << 24) + ((n * (3_000_000_000 / networks)) & !0xff));
        Row {
            network: Network::Prefix(ipnet::Ipv4Net::new(network, 24).expect("24 bits").into()),
            region: RegionId(((n + 7 * k) % 20) as u8),
            rtt_ms: 60.0 + (scattered(n * 3 + k) % 2000) as f32 / 10.0,
            samples: 8,
            age_s: 3600,
            is_alone: false,
        }
    };
    (0..networks).flat_map(|n| (0..regions).map(move |k| row(n, k))).collect()
}

fn line(row: &Row) -> String {
    let Network::Prefix(network) = row.network else { panic!("prefixes alone") };
    format!("{network},r{},{:.1},{}\n", row.region.0, row.rtt_ms, row.samples)
}

/// The bits of a number in another order.
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(0x9e37_79b9).rotate_left(15).wrapping_mul(0x85eb_ca6b) >> 3
}

/// FNV-1a of what is written.
struct Digest(u64);

impl std::fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.bytes().for_each(|byte| self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(())
    }
}

/// What the maps are, in a number: equal maps have the same.
fn digest(world: &World) -> u64 {
    let mut digest = Digest(0xcbf2_9ce4_8422_2325);
    std::fmt::Write::write_fmt(&mut digest, format_args!("{:?}", world.plan.maps)).expect("it takes all");
    digest.0
}

fn timed(what: &str, work: impl FnOnce() -> World) -> World {
    let (begun, before) = (Instant::now(), processor_time());
    let done = work();
    let (took, spent) = (begun.elapsed(), processor_time() - before);
    println!("| {what} | {:.2} | {:.2} | {:016x} |", spent.as_secs_f64(), took.as_secs_f64(), digest(&done));
    done
}

/// Of this process so far, to a hundredth of a second.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let fields: Vec<i64> =
        stat.rsplit(") ").next().expect("its fields").split(' ').filter_map(|field| field.parse().ok()).collect();
    // The state, a letter, is left out: user and system time are the 11th and 12th number after it.
    Duration::from_millis(10 * (fields[10] + fields[11]).unsigned_abs())
}
