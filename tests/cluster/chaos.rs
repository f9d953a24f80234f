//! Everything that can be killed, cut, hung, flooded or told the wrong time, one after the other, while clients ask every server fifty times
//! a second. Two of the five servers go by clocks that are an hour off throughout. In each case: no query is lost by a server that can be
//! reached, no answer is wrong for longer than the contract gives, and all is well again by itself.

use std::{
    fs,
    net::TcpListener,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    asker::Asker,
    nats::publish,
    netns::{Namespace, wait_readable},
    node::{Clock, Node, meet, wait_until},
    report::Seen,
    world::{Region, World, signal},
};

const REGIONS: [Region; 5] = [
    Region { name: "fra", location: "FRA", one_way_ms: 10 },
    Region { name: "mad", location: "MAD", one_way_ms: 20 },
    Region { name: "arn", location: "ARN", one_way_ms: 30 },
    Region { name: "lon", location: "LHR", one_way_ms: 15 },
    Region { name: "iad", location: "IAD", one_way_ms: 25 },
];
/// From one question to the next, of each client.
const EVERY: Duration = Duration::from_millis(20);
/// interval, three timeouts and two fast intervals, of one second each, and one more.
const AWAY_MAX: Duration = Duration::from_secs(7);
/// Two successes at an interval of one second, and one second more.
const BACK_MAX: Duration = Duration::from_secs(3);
/// For a machine with other things to do.
const ALLOWANCE: Duration = Duration::from_secs(2);

/// What takes connections on port 80, as long as it lives.
struct Endpoint {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    fn start(home: &Namespace) -> Endpoint {
        let listener = home.inside(|| TcpListener::bind("0.0.0.0:80").unwrap());
        listener.set_nonblocking(true).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                wait_readable(&[listener.as_fd()], Instant::now() + Duration::from_millis(100));
                while listener.accept().is_ok() {}
            }
        });
        Endpoint { ended, thread: Some(thread) }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What follows `[cluster]`: the first region answers while it is up.
fn config(world: &World) -> String {
    let mut text =
        "[checks.web]\ntype = \"tcp\"\nport = 80\ninterval = \"1s\"\nfast-interval = \"1s\"\ntimeout = \"1s\"\n\
                    flap-changes = 0\n"
            .to_string();
    for (region, place) in REGIONS.iter().zip(&world.places) {
        text += &format!(
            "[regions.{}]\nlocation = \"{}\"\nendpoints = [\"{}\"]\ncheck = \"web\"\n",
            region.name, region.location, place.address
        );
    }
    let order: Vec<String> = REGIONS.iter().map(|region| format!("\"{}\"", region.name)).collect();
    text + &format!(
        "[zones.\"geo.example\"]\nnameservers = [\"ns1.example.net.\"]\n\
         [zones.\"geo.example\".routes.\"www\"]\npolicy = \"failover\"\nregions = [{}]\n",
        order.join(", ")
    )
}

/// What a fault may do.
#[derive(Debug, Clone, Copy, Default)]
struct Allowed {
    /// Answers go from the first region to the second, and back.
    moves: bool,
    /// Servers that clients cannot reach meanwhile.
    unreachable: &'static [usize],
}

/// Clients that ask all servers, from the place of the resolver.
struct Watch {
    what: &'static str,
    askers: Vec<Asker>,
    fault_at: Instant,
}

impl Watch {
    fn begin(world: &World, what: &'static str) -> Watch {
        wait_for_all(world);
        let ask = |n: usize| Asker::start(&world.resolver.home, world.server(n), "www.geo.example", EVERY);
        let askers: Vec<Asker> = (0..REGIONS.len()).map(ask).collect();
        wait_until("first answers", || askers.iter().all(|asker| asker.newest().is_some()));
        Watch { what, askers, fault_at: Instant::now() }
    }

    /// The newest answers of all servers but those are of this region.
    fn are_at(&self, world: &World, region: usize, but: &[usize]) -> bool {
        let address = world.places[region].address.octets();
        let mut heard = self.askers.iter().enumerate().filter(|(n, _)| !but.contains(n));
        heard.all(|(_, asker)| asker.newest().is_some_and(|(data, _)| data == address))
    }

    /// Everything is as before since now; waits until it shows, and judges.
    fn mended(self, world: &World, allowed: Allowed) {
        let mended_at = Instant::now();
        wait_for_all(world);
        let whole_after = mended_at.elapsed();
        wait_until("all answers to be of the first region", || self.are_at(world, 0, &[]));
        thread::sleep(Duration::from_secs(1));
        let region_of = |data: &[u8]| world.places.iter().position(|place| place.address.octets() == *data);
        let Watch { what, askers, fault_at } = self;
        let (mut asked, mut lost, mut away, mut back) = (0, 0, Duration::ZERO, Duration::ZERO);
        for (n, asker) in askers.into_iter().enumerate() {
            let is_reachable = !allowed.unreachable.contains(&n);
            let record = if is_reachable { asker.stop() } else { asker.leave() };
            let seen = Seen::new(REGIONS[n].name.into(), record, region_of);
            let order: Vec<usize> = seen.segments.iter().map(|part| part.region.expect("an address of ours")).collect();
            if !is_reachable && allowed.moves {
                println!("    the answers that came of {}: {order:?}", seen.server);
                continue;
            }
            assert_eq!(
                order,
                if allowed.moves { vec![0, 1, 0] } else { vec![0] },
                "{what}: answers of {}",
                seen.server
            );
            if !is_reachable {
                continue;
            }
            (asked, lost) = (asked + seen.asked, lost + seen.lost);
            if allowed.moves {
                let took = |moment: Instant, part: usize| {
                    let (from, to) = (seen.at(moment), seen.segments[part].from);
                    to.saturating_sub(from).saturating_sub(seen.stalled(from, to))
                };
                (away, back) = (away.max(took(fault_at, 1)), back.max(took(mended_at, 2)));
            }
        }
        let moved = match allowed.moves {
            true => format!(
                "; away after {:.1} s, back after {:.1} s at the latest",
                away.as_secs_f64(),
                back.as_secs_f64()
            ),
            false => "; every answer as before".into(),
        };
        println!("{what}: {asked} asked, {lost} lost{moved}; whole again after {:.1} s", whole_after.as_secs_f64());
        assert_eq!(lost, 0, "{what}");
        assert!(away <= AWAY_MAX + ALLOWANCE && back <= BACK_MAX + ALLOWANCE, "{what}: {away:?}, {back:?}");
    }
}

/// Waits until all servers count all, and all see everything up.
fn wait_for_all(world: &World) {
    let nodes: Vec<&Node> = world.nodes.iter().collect();
    meet(&nodes);
    let is_up = |node: &Node| {
        let status = node.status();
        let regions = status["regions"].as_array().unwrap();
        let is_whole = |seen: &serde_json::Value| seen["state"] == "up" && seen["counts"] == true;
        regions.iter().all(|region| {
            let endpoint = &region["endpoints"][0];
            let seen = endpoint["seen"].as_array();
            endpoint["state"] == "up" && seen.is_some_and(|all| all.len() == REGIONS.len() && all.iter().all(is_whole))
        })
    };
    for node in nodes {
        wait_until("all to see everything up", || is_up(node));
    }
}

fn whole_world() -> (World, Vec<Endpoint>) {
    let mut world = World::new(&REGIONS);
    let endpoints = world.places.iter().map(|place| Endpoint::start(&place.home)).collect();
    let text = config(&world);
    world.start(&REGIONS, "", &text, |n| match n {
        1 => Clock::Off("+1h".into()),
        2 => Clock::Off("-1h".into()),
        _ => Clock::Right,
    });
    (world, endpoints)
}

fn pause(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

/// The number of the NATS server that a server is connected to.
fn nats_of(node: &Node) -> usize {
    let server = node.cluster()["server"].as_str().expect("it is connected").to_string();
    server.trim_start_matches("nats").parse().unwrap()
}

fn nats_servers_fail(world: &mut World) {
    let watch = Watch::begin(world, "one of three NATS servers killed");
    let n = nats_of(&world.nodes[0]);
    world.nats[n] = None;
    meet(&world.nodes.iter().collect::<Vec<_>>());
    pause(8);
    world.start_nats(n);
    watch.mended(world, Allowed::default());

    let watch = Watch::begin(world, "one of three NATS servers hangs for 15 s");
    let n = nats_of(&world.nodes[0]);
    let id = world.nats[n].as_ref().unwrap().id();
    signal(id, "STOP");
    pause(15);
    signal(id, "CONT");
    watch.mended(world, Allowed::default());

    let watch = Watch::begin(world, "all NATS servers killed for 15 s");
    world.nats.iter_mut().for_each(|nats| *nats = None);
    pause(15);
    (0..3).for_each(|n| world.start_nats(n));
    watch.mended(world, Allowed::default());
}

fn a_server_dies(world: &mut World) {
    let watch = Watch::begin(world, "one isochrone killed and started after 10 s");
    let stopped = world.nodes.remove(3).stopped("KILL");
    pause(10);
    world.nodes.insert(3, stopped.start_again());
    watch.mended(world, Allowed { unreachable: &[3], ..Allowed::default() });
}

fn links_are_cut(world: &mut World) {
    for (what, incoming, outgoing) in [
        ("link of the first region cut both ways for 15 s", true, true),
        ("what the first region sends is lost for 15 s", false, true),
        ("what is sent to the first region is lost for 15 s", true, false),
    ] {
        let mut watch = Watch::begin(world, what);
        world.places[0].cut(incoming, outgoing);
        watch.fault_at = Instant::now();
        wait_until("the others to answer the second region", || watch.are_at(world, 1, &[0]));
        pause(15u64.saturating_sub(watch.fault_at.elapsed().as_secs()));
        world.places[0].mend();
        watch.mended(world, Allowed { moves: true, unreachable: &[0] });
    }
}

fn consumers_are_slow(world: &mut World) {
    let watch = Watch::begin(world, "one isochrone hangs while 90 MB are sent to it");
    let (n, id) = (nats_of(&world.nodes[2]), world.nodes[2].server.id());
    signal(id, "STOP");
    let (nats, payload) = (world.nats_address(n), vec![b'{'; 900_000]);
    world.nats_home(n).inside(|| (0..100).for_each(|_| publish(nats, "isochrone.flood.to.arn", &payload)));
    let log = world.folder.path().join(format!("nats{n}.log"));
    wait_until("NATS to give it up", || fs::read_to_string(&log).unwrap().contains("Slow Consumer"));
    pause(5);
    signal(id, "CONT");
    watch.mended(world, Allowed { unreachable: &[2], ..Allowed::default() });

    let watch = Watch::begin(world, "one isochrone behind a link of 16 kB/s for 20 s");
    world.places[4].narrow(16_000);
    pause(20);
    world.places[4].mend();
    watch.mended(world, Allowed::default());

    let watch = Watch::begin(world, "one isochrone is started anew behind a link of 16 kB/s");
    world.places[4].narrow(16_000);
    let stopped = world.nodes.remove(4).stopped("TERM");
    world.nodes.insert(4, stopped.start_again());
    let begun = Instant::now();
    wait_for_all(world);
    println!("behind the narrow link: it knows all after {:.1} s", begun.elapsed().as_secs_f64());
    world.places[4].mend();
    watch.mended(world, Allowed { unreachable: &[4], ..Allowed::default() });
}

fn somebody_says_garbage(world: &mut World) {
    let watch = Watch::begin(world, "garbage under a name of its own and under another's, 5 s long");
    let nats = world.nats_address(0);
    world.nats_home(0).inside(|| {
        let begun = Instant::now();
        for n in (0u32..).take_while(|_| begun.elapsed() < Duration::from_secs(5)) {
            let garbage: Vec<u8> = (0..n % 1000).map(|at| (at.wrapping_mul(n) >> 3) as u8).collect();
            for (name, topic) in [("evil", "health"), ("mad", "health"), ("evil", "latency"), ("mad", "to.fra")] {
                publish(nats, &format!("isochrone.{name}.{topic}"), &garbage);
            }
        }
    });
    watch.mended(world, Allowed::default());
}

fn everything_restarts(world: &mut World) {
    let watch = Watch::begin(world, "everything killed and started at once");
    world.nats.iter_mut().for_each(|nats| *nats = None);
    let stopped: Vec<_> = world.nodes.drain(..).map(|node| node.stopped("KILL")).collect();
    (0..3).for_each(|n| world.start_nats(n));
    world.nodes = stopped.into_iter().map(crate::node::Stopped::start_again).collect();
    watch.mended(world, Allowed { unreachable: &[0, 1, 2, 3, 4], ..Allowed::default() });
}

#[test]
#[ignore = "takes minutes: tests/long/cluster.sh"]
fn whatever_is_killed_cut_hung_or_flooded_no_query_is_lost_and_all_is_well_again() {
    let (mut world, _endpoints) = whole_world();
    nats_servers_fail(&mut world);
    a_server_dies(&mut world);
    links_are_cut(&mut world);
    consumers_are_slow(&mut world);
    somebody_says_garbage(&mut world);
    everything_restarts(&mut world);
}
