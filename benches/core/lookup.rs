//! From a name to what its zone has there, among 10,000 names.

use std::{fmt::Write, hint::black_box};

use criterion::Criterion;
use isochrone::wire::{Name, QName, rtype};

use crate::{fixture::Fixture, queries::Chance};

/// Names of each kind that are looked up in turn.
const NAMES: usize = 1024;

pub fn bench(criterion: &mut Criterion) {
    let mut records = String::new();
    for n in 0..10_000 {
        writeln!(records, "r{n} 60 A 192.0.2.80").expect("text");
    }
    let config = super::CONFIG.replace("records = \"www 60 A 192.0.2.80\"", &format!("records = '''{records}'''"));
    let fixture = Fixture::new(&config);
    let zones = &fixture.snapshot.zones;
    let mut chance = Chance::new(1);
    let mut names = |make: &dyn Fn(&mut Chance) -> String| -> Vec<QName> {
        let name = |_| QName::from_name(&make(&mut chance).parse::<Name>().expect("a name"));
        (0..NAMES).map(name).collect()
    };
    let cases = [
        ("name that exists", names(&|chance| format!("r{}.example.com", chance.below(10_000)))),
        ("below a wildcard", names(&|chance| format!("{}.app.example.com", chance.label()))),
        ("no such name", names(&|chance| format!("{}.example.com", chance.label()))),
        ("no such name, 110 labels", names(&|chance| format!("{}{}.example.com", "a.".repeat(107), chance.label()))),
        ("foreign zone", names(&|chance| format!("{}.example.org", chance.label()))),
    ];
    for (name, names) in cases {
        let mut turn = 0;
        criterion.bench_function(&format!("lookup/{name}"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % NAMES;
                let name = black_box(&names[turn]);
                zones.find(name, rtype::A).map(|zone| black_box(zone.find(name)));
            });
        });
    }
}
