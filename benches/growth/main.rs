//! What a query costs as a configuration grows: routes, zones, regions, the location database, answers, signatures. `cargo bench
//! --bench growth` prints a table and draws `target/growth.svg`; `-- --draw FILE` draws elsewhere, `-- routes zones` measures only
//! these.
//!
//! There are 100,000 queries for each size, all different in name and client: what is touched for them competes for the caches as it
//! does in service. All sizes of a series are measured in turn, over and over, and ratios are taken within a round, since the speed of
//! a machine drifts.

#[path = "../../tests/support/fixture.rs"]
mod fixture;
#[path = "../../tests/support/mmdb.rs"]
mod mmdb;
#[path = "../../tests/support/program.rs"]
mod program;
#[path = "../support/queries.rs"]
mod queries;
#[path = "../support/served.rs"]
mod served;

mod draw;
mod series;

use std::{fs, hint::black_box, path::PathBuf};

use isochrone::{answer::Arrival, telemetry::TransportKind};

use fixture::Fixture;
use program::Folder;
use series::{Series, Size};
use served::{Served, own_cpu_ns, pin};

/// Through all sizes of a series.
const ROUNDS: usize = 7;

/// Queries that the program is asked in a round, other ones in the next; the core, which is quick, is asked all.
const PART: usize = series::QUERIES / 5;

/// What was measured at one size.
pub struct Measured {
    pub label: String,
    /// Processor time of the whole program, microseconds a query: the lowest, and the median ratio to the first size.
    pub program: (f64, f64),
    /// Time in the core alone, nanoseconds a query: likewise.
    pub core: (f64, f64),
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut wanted, mut picture) = (Vec::new(), PathBuf::from("target/growth.svg"));
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--draw" => picture = arguments.next().expect("a file after --draw").into(),
            _ if word.starts_with('-') => {}
            _ => wanted.push(word),
        }
    }
    println!("\ngrowth: {} different queries, {ROUNDS} rounds; ratios are medians over the rounds", series::QUERIES);
    pin(std::process::id(), 1);
    let mut done = Vec::new();
    for series in series::all() {
        if wanted.is_empty() || wanted.iter().any(|name| series.name.contains(name)) {
            let measured = measure(&series);
            print(&series, &measured);
            done.push((series.name, measured));
        }
    }
    fs::write(&picture, draw::picture(&done)).expect("room for a picture");
    println!("\ndrawn: {}", picture.display());
}

fn print(series: &Series, measured: &[Measured]) {
    println!("\n{:<22} {:>8} {:>6} {:>8} {:>6}", series.name, "CPU US", "X", "CORE NS", "X");
    for Measured { label, program, core } in measured {
        println!("{label:<22} {:>8.2} {:>6.2} {:>8.0} {:>6.2}", program.0, program.1, core.0, core.1);
    }
}

/// One size, both ways.
struct Subject<'s> {
    size: &'s Size,
    fixture: Fixture,
    served: Served,
    _folder: Folder,
    program_us: Vec<f64>,
    core_ns: Vec<f64>,
}

fn measure(series: &Series) -> Vec<Measured> {
    let mut subjects: Vec<Subject> = series.sizes.iter().map(Subject::new).collect();
    for round in 0..=ROUNDS {
        for subject in &mut subjects {
            let (program_us, core_ns) = (subject.in_program(round), subject.in_core());
            // The first round fills caches and grows tables.
            if round > 0 {
                subject.program_us.push(program_us);
                subject.core_ns.push(core_ns);
            }
        }
    }
    let first = &subjects[0];
    let of = |own: &[f64], first: &[f64]| {
        let mut ratios: Vec<f64> = own.iter().zip(first).map(|(own, first)| own / first).collect();
        ratios.sort_by(f64::total_cmp);
        (own.iter().copied().fold(f64::INFINITY, f64::min), ratios[ratios.len() / 2])
    };
    let measured = |subject: &Subject| Measured {
        label: subject.size.label.clone(),
        program: of(&subject.program_us, &first.program_us),
        core: of(&subject.core_ns, &first.core_ns),
    };
    subjects.iter().map(measured).collect()
}

impl<'s> Subject<'s> {
    fn new(size: &'s Size) -> Subject<'s> {
        let folder = Folder::with_config(&size.config);
        for (name, bytes) in &size.files {
            fs::write(folder.path().join(name), &**bytes).expect("room for a file");
        }
        let fixture = Fixture::in_folder(&size.config, folder.path());
        let served = Served::start(&folder, &size.known);
        pin(served.program.id(), 0);
        Subject { size, fixture, served, _folder: folder, program_us: Vec::new(), core_ns: Vec::new() }
    }

    fn in_program(&self, round: usize) -> f64 {
        let parts: Vec<_> = self.size.messages.chunks(PART).collect();
        let cost = self.served.ask(parts[round % parts.len()]);
        assert_eq!(cost.replies, PART, "{}: replies are missing", self.size.label);
        cost.cpu_ns as f64 / cost.queries as f64 / 1e3
    }

    fn in_core(&mut self) -> f64 {
        let mut out = vec![0; 4096];
        let Fixture { core, snapshot, resolver, .. } = &mut self.fixture;
        let arrival = Arrival { client: *resolver, transport: TransportKind::Udp, now_s: 1_000_000 };
        let before_ns = own_cpu_ns();
        for message in self.size.messages.iter() {
            black_box(core.respond(black_box(message), arrival, snapshot, &mut out));
        }
        (own_cpu_ns() - before_ns) as f64 / self.size.messages.len() as f64
    }
}
