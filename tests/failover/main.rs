//! Failover with everything real: isochrone, regions and a client in network namespaces of their own, real HTTP servers in the
//! regions, faults made by ending them, by nft and by a relay that delays and loses packets, and a client that asks a hundred times
//! a second throughout.
//!
//! ```text
//! cargo test --test failover [-- NAME…]                   the short scenarios, or those with NAME in their names
//! cargo test --test failover -- --long [NAME…]            all faults with the default times, gdnsd beside; 19 minutes
//! cargo test --test failover -- --hour [NAME…]            an hour of loss
//!                               --record FOLDER           writes what was seen into FOLDER, for docs/failover_timeline.py
//! ```
//!
//! The scenarios mostly wait, so that all run at once. Needs root, and Debian's iproute2, nftables and nginx-light (and gdnsd for
//! the long ones); fails without.
#![allow(clippy::disallowed_methods)] // it keeps time and starts threads

#[path = "../support/asker.rs"]
mod asker;
mod certificates;
mod flaps;
#[path = "../support/gdnsd.rs"]
mod gdnsd;
#[path = "../support/netns.rs"]
mod netns;
#[path = "../support/nginx.rs"]
mod nginx;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/relay.rs"]
mod relay;
mod report;
mod scenarios;
mod site;
mod steps;
#[path = "../support/strange.rs"]
mod strange;
mod ticker;

use std::{env, fs, path::PathBuf, process::ExitCode, thread, time::Instant};

use scenarios::Scenario;
use steps::Outcome;

/// What the command line asks for.
#[derive(Default)]
struct Wanted {
    long: bool,
    hour: bool,
    list: bool,
    record: Option<PathBuf>,
    names: Vec<String>,
}

fn wanted() -> Wanted {
    let mut wanted = Wanted::default();
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--long" => wanted.long = true,
            "--hour" => wanted.hour = true,
            "--list" => wanted.list = true,
            "--record" => wanted.record = Some(arguments.next().expect("--record FOLDER").into()),
            option if option.starts_with('-') => {} // meant for the test programs that have Rust's own harness
            name => wanted.names.push(name.to_owned()),
        }
    }
    wanted
}

fn main() -> ExitCode {
    let wanted = wanted();
    let mut scenarios = match (wanted.long, wanted.hour) {
        (false, false) => scenarios::short(),
        (long, hour) => {
            let mut all = if long { scenarios::long() } else { vec![] };
            all.extend(if hour { scenarios::hour() } else { vec![] });
            all
        }
    };
    if !wanted.names.is_empty() {
        scenarios.retain(|scenario| wanted.names.iter().any(|name| scenario.name.contains(name)));
    }
    if wanted.list {
        scenarios.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    if scenarios.is_empty() {
        return ExitCode::SUCCESS; // the name asked for is one of another test program
    }
    netns::prepare(&["ip", "nft"]);
    ticker::start();
    if let Some(folder) = &wanted.record {
        fs::create_dir_all(folder).expect("the folder can be made");
    }
    let failed = run_all(&scenarios, wanted.record.as_deref());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all at once, tells what came of them, and returns how many failed.
fn run_all(scenarios: &[Scenario], record: Option<&std::path::Path>) -> usize {
    let begun = Instant::now();
    println!("\nrunning {} scenarios in network namespaces\n{}", scenarios.len(), Outcome::head());
    let mut failures: Vec<String> = Vec::new();
    thread::scope(|scope| {
        let running: Vec<_> = scenarios.iter().map(|scenario| (scenario, scope.spawn(|| (scenario.run)()))).collect();
        for (scenario, run) in running {
            let Ok(outcomes) = run.join() else {
                failures.push(format!("{}: ended early, see above", scenario.name));
                continue;
            };
            for outcome in &outcomes {
                println!("{}", outcome.line());
                failures.extend(outcome.complaints.iter().map(|c| format!("{}: {c}", outcome.scenario)));
            }
            if let Some(folder) = record {
                let json: Vec<_> = outcomes.iter().map(Outcome::json).collect();
                let file = folder.join(format!("{}.json", scenario.name.replace([' ', ','], "-")));
                fs::write(file, serde_json::to_string(&json).expect("it is JSON")).expect("it can be written");
            }
        }
    });
    println!();
    failures.iter().for_each(|failure| println!("FAILED {failure}"));
    println!("{} scenarios, {} failures, {} s\n", scenarios.len(), failures.len(), begun.elapsed().as_secs());
    failures.len()
}
