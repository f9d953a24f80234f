//! From the text of a configuration to a world that answers.

use std::fmt::Write;

use criterion::Criterion;

use crate::fixture::Fixture;

pub fn bench(criterion: &mut Criterion) {
    let mut routes = super::CONFIG.to_string();
    for n in 0..1000 {
        writeln!(routes, "[zones.\"example.com\".routes.\"r{n}\"]").expect("text");
    }
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("3 regions, 2 routes", |bencher| bencher.iter(|| Fixture::new(super::CONFIG)));
    group.bench_function("3 regions, 1002 routes", |bencher| bencher.iter(|| Fixture::new(&routes)));
    group.finish();
}
