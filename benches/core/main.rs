//! What the parts of an answer cost, each alone and all together, and what compiling a configuration costs: `cargo bench --bench
//! core`. Compare runs of one machine in one session only; the figures of a shared machine drift.

#[path = "../../tests/support/fixture.rs"]
mod fixture;
#[path = "../support/queries.rs"]
mod queries;

mod build;
mod lookup;
mod map;
mod parse;
mod respond;

use std::time::Duration;

use criterion::Criterion;

/// Three regions, routes of two policies, static records.
const CONFIG: &str = r#"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.2"]
[regions.ap]
location = "aws:ap-southeast-1"
endpoints = ["192.0.2.3"]
[zones."example.com"]
nameservers = ["ns1.example.net."]
records = "www 60 A 192.0.2.80"
[zones."example.com".routes."*.app"]
[zones."example.com".routes."*.weighted"]
policy = "weighted"
"#;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .configure_from_args();
    parse::bench(&mut criterion);
    lookup::bench(&mut criterion);
    map::bench(&mut criterion);
    respond::bench(&mut criterion);
    build::bench(&mut criterion);
    criterion.final_summary();
}
