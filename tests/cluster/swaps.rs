//! Latency that contradicts geography, in namespaces: from a resolver's ordinary queries and prospecting alone all servers come to send it to
//! the region that is truly nearest, and to another one when the delays swap.

use std::{
    fs,
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    node::{Clock, Node, meet},
    program::PATIENCE,
    world::{Region, Resolver, TXT, World, answer_to_client},
};

/// By geography the first is nearest to a client in Germany; by their links it is the third. No way is shorter than light takes.
const REGIONS: [Region; 5] = [
    Region { name: "fra", location: "FRA", one_way_ms: 80 },
    Region { name: "mad", location: "MAD", one_way_ms: 70 },
    Region { name: "arn", location: "ARN", one_way_ms: 15 },
    Region { name: "lon", location: "LHR", one_way_ms: 60 },
    Region { name: "iad", location: "IAD", one_way_ms: 100 },
];
const FRA: usize = 0;
const MAD: usize = 1;
const ARN: usize = 2;

/// Clients of the resolver that ask at the same time.
const CLIENTS: usize = 4;
/// A connection is measured when it ends, and resolvers keep theirs open for as long as they have questions: here they ask so often that
/// no connection would end before its time.
const SHORT_LIVED: &str = "[server.limits]\ntcp-idle = \"200ms\"";
/// A text that no UDP reply has room for.
const LONG_TEXT: usize = 1400;

fn endpoint(region: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 10 + region as u8)
}

/// What follows `[cluster]`.
fn config(regions: &[Region], prospect: f64) -> String {
    let mut text = format!("[latency]\nlearn = true\nprospect = {prospect}\nrebuild-interval = \"1s\"\n");
    for (n, region) in regions.iter().enumerate() {
        let (name, location, endpoint) = (region.name, region.location, endpoint(n));
        text += &format!("[regions.{name}]\nlocation = \"{location}\"\nendpoints = [\"{endpoint}\"]\n");
    }
    let strings = "x".repeat(200);
    let long = format!("\\\"{strings}\\\" ").repeat(LONG_TEXT / 200);
    text + &format!(
        "[zones.\"geo.example\"]\nnameservers = [\"ns1.example.net.\"]\nrecords = \"*.long 60 TXT {long}\"\n\
         [zones.\"geo.example\".routes.\"*.app\"]\n"
    )
}

/// What the resolver asks for meanwhile.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// Names of the route alone.
    Addresses,
    /// The same, and a text that comes by TCP once in so many queries.
    Texts(u32),
}

/// Lets clients of the resolver ask for ever new names until `is_done` says so; how many were asked, and how long that took.
fn ask_until(resolver: &Resolver, what: &str, load: Load, is_done: impl Fn() -> bool) -> (u32, Duration) {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let (asked, begun, done) = (AtomicU32::new(0), Instant::now(), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    let (n, name) = (asked.fetch_add(1, Ordering::Relaxed), NAMES.fetch_add(1, Ordering::Relaxed));
                    match load {
                        Load::Texts(every) if n % every == 0 => {
                            let reply = resolver.ask(&format!("n{name}.long.geo.example"), TXT, PATIENCE);
                            assert!(reply.is_some_and(|reply| reply[3] & 0x0f == 0), "no answer is lost");
                        }
                        _ => drop(resolver.address_of(&format!("n{name}.app.geo.example"))),
                    }
                }
            });
        }
        while !is_done() {
            assert!(begun.elapsed() < 5 * PATIENCE, "waited in vain for {what}");
            thread::sleep(Duration::from_millis(50));
        }
        done.store(1, Ordering::Relaxed);
    });
    let (asked, took) = (asked.into_inner(), begun.elapsed());
    println!("{what}: {asked} queries in {:.1} s", took.as_secs_f64());
    (asked, took)
}

fn all_answer(world: &World, region: usize) -> bool {
    world.nodes.iter().all(|node| answer_to_client(node) == endpoint(region))
}

/// How many servers have measured the resolver's network themselves.
fn measuring(world: &World) -> usize {
    samples(world).iter().filter(|samples| **samples > 0.0).count()
}

/// Round trips that each server has taken in.
fn samples(world: &World) -> Vec<f64> {
    let of = |node: &Node| {
        let page = node.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix("isochrone_latency_samples_total "));
        line.expect("a count of samples").parse().unwrap()
    };
    world.nodes.iter().map(of).collect()
}

fn swap(world: &World, ways_ms: &[(usize, u64)]) {
    for &(region, ms) in ways_ms {
        world.places[region].move_to(ms);
    }
}

#[test]
fn a_resolver_is_sent_where_it_is_truly_near_and_elsewhere_when_the_delays_swap() {
    let regions = &REGIONS[..3];
    let mut world = World::new(regions);
    world.start(regions, SHORT_LIVED, &config(regions, 1.0), |_| Clock::Right);
    meet(&world.nodes.iter().collect::<Vec<_>>());
    assert!(all_answer(&world, FRA), "by geography");
    let resolver = Resolver::start(&world, &world.resolver);
    let what = "prospect = 1, until all three have measured the resolver";
    ask_until(&resolver, what, Load::Addresses, || measuring(&world) == 3);
    ask_until(&resolver, "and all answer the nearest", Load::Addresses, || all_answer(&world, ARN));
    swap(&world, &[(ARN, 70), (MAD, 15)]);
    ask_until(&resolver, "the delays swapped", Load::Texts(2), || all_answer(&world, MAD));
}

#[test]
#[ignore = "takes minutes: tests/long/cluster.sh"]
fn five_servers_come_to_the_truly_nearest_region_as_the_delays_swap() {
    let mut world = World::new(&REGIONS);
    let clock = world.folder.write("clock", "+0");
    world.start(&REGIONS, SHORT_LIVED, &config(&REGIONS, 0.01), |_| Clock::OfFile(clock.clone()));
    meet(&world.nodes.iter().collect::<Vec<_>>());
    assert!(all_answer(&world, FRA), "by geography");
    let resolver = Resolver::start(&world, &world.resolver);
    // A resolver soon leaves the farthest server alone; what that would measure is not needed.
    ask_until(&resolver, "prospect = 0.01, until all five answer the nearest", Load::Addresses, || {
        all_answer(&world, ARN)
    });
    println!("    measured by {} of the five", measuring(&world));

    // Where one query in ten has a long answer the resolver comes by TCP for that.
    swap(&world, &[(ARN, 70), (MAD, 15)]);
    let what = "the delays swapped, one query in ten by TCP after truncation";
    ask_until(&resolver, what, Load::Texts(10), || all_answer(&world, MAD));
    swap(&world, &[(ARN, 15), (MAD, 70)]);
    ask_until(&resolver, "and back", Load::Texts(10), || all_answer(&world, ARN));

    // By prospecting alone a swap is found out when what was measured is no longer fresh. Connections of before end first.
    thread::sleep(Duration::from_secs(3));
    swap(&world, &[(ARN, 70), (MAD, 15)]);
    let (mut hours, mut asked) = (0.0, 0);
    while !all_answer(&world, MAD) {
        // Twelve hours, and then ten minutes at a time: as often as a network is asked whose figures are contradicted.
        let is_first = hours == 0.0;
        hours += if is_first { 12.1 } else { 0.2 };
        assert!(hours < 48.0, "waited in vain for the swap to be found out");
        fs::write(&clock, format!("+{}", (hours * 3600.0) as u32)).unwrap();
        let before = samples(&world);
        let came = |n: usize| samples(&world)[n] > before[n];
        let is_done = || all_answer(&world, MAD) || came(ARN) && (came(MAD) || !is_first);
        asked += ask_until(&resolver, &format!("    after {hours:.1} h"), Load::Addresses, is_done).0;
        thread::sleep(Duration::from_secs(6)); // what was measured is told and taken up
    }
    println!("swapped, prospect = 0.01 alone: all answer the nearest after {hours:.1} h and {asked} queries");
}
