//! The whole program over UDP: what hostile queries cost beside plain ones, and what clients notice of a reload. `cargo bench --bench
//! load`, or with `-- attacks` or `-- reload` one of them. Sends to the loopback of this machine alone.

#[path = "../../tests/support/fixture.rs"]
mod fixture;
#[path = "../../tests/support/program.rs"]
mod program;
#[path = "../support/queries.rs"]
mod queries;
#[path = "../support/served.rs"]
mod served;

mod attacks;
mod reload;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    if is_wanted("attacks") {
        attacks::run();
    }
    if is_wanted("reload") {
        reload::run();
    }
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn lowest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}
