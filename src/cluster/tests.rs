//! Several servers in one process, joined by something that loses what it is told to lose, in simulated time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{exchange::Carrier, subject::Topic, *};
use crate::health::{
    Check, CheckKind, Endpoint, ProbeError, ProbeResult, Targets,
    consensus::{Consensus, Sees},
    damping,
};

/// Nobody decides anything.
struct Undecided(watch::Sender<u64>);

impl Decisions for Undecided {
    fn digest(&self) -> u64 {
        0
    }

    fn all(&self) -> Vec<Decision> {
        Vec::new()
    }

    fn take(&self, _: &str, _: Vec<Decision>) {}

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// One server.
struct Server {
    board: &'static Board,
    targets: Targets,
    cluster: &'static Cluster,
}

/// Says of a message from one server (by its place) to another whether it is lost; the number of the message makes it random.
type Loses = Arc<dyn Fn(usize, usize, u64) -> bool + Send + Sync>;

/// All servers, and what is lost between them.
struct Net {
    servers: Vec<Server>,
    loses: Arc<Mutex<Loses>>,
}

fn targets(count: usize) -> Targets {
    let check = Arc::new(Check {
        name: "web".into(),
        kind: CheckKind::Tcp { port: 80 },
        interval: Duration::from_secs(10),
        fast_interval: Duration::from_secs(1),
        timeout: Duration::from_secs(4),
        fall: 1,
        rise: 1,
        damping: damping::Rules::OFF,
    });
    let endpoint = |n: usize| Endpoint::Address(std::net::Ipv4Addr::from(0xc000_0200 + n as u32).into());
    Targets::new((0..count).map(|n| (endpoint(n), check.clone())).collect())
}

impl Net {
    /// All servers with so many targets, started one after the other; nothing is lost, and all have settled.
    async fn new(servers: usize, count: usize) -> Net {
        let loses: Loses = Arc::new(|_, _, _| false);
        let net_loses = Arc::new(Mutex::new(loses));
        let (mut all, mut carriers) = (Vec::new(), Vec::new());
        for n in 0..servers {
            let (exchange, carrier) = Exchange::new();
            let cluster: &'static Cluster = Box::leak(Box::default());
            let board: &'static Board = Box::leak(Box::default());
            let config: &'static model::Cluster = Box::leak(Box::new(model::Cluster {
                nats: Vec::new(),
                credentials: None,
                ca: None,
                node: format!("n{n}"),
                prefix: "p".into(),
                quorum: 0.5,
            }));
            cluster.configure(Some(config));
            cluster.link.connected("net".into());
            let decisions: &'static Undecided = Box::leak(Box::new(Undecided(watch::Sender::new(0))));
            let targets = targets(count);
            board.adopt(&targets, SystemTime::now());
            tokio::spawn(Member::new(config, cluster, board, decisions, exchange).take_part());
            pass(570).await;
            all.push(Server { board, targets, cluster });
            carriers.push(carrier);
        }
        tokio::spawn(carry(carriers, net_loses.clone()));
        pass(3000).await;
        Net { servers: all, loses: net_loses }
    }

    fn lose(&self, loses: impl Fn(usize, usize, u64) -> bool + Send + Sync + 'static) {
        *self.loses.lock().unwrap() = Arc::new(loses);
    }

    /// Lets a server see a target up or down.
    fn sees(&self, server: usize, target: usize, up: bool) {
        let server = &self.servers[server];
        let outcome = if up { Ok(()) } else { Err(ProbeError::Refused) };
        let (at, wall) = now();
        let target = &server.targets.list()[target];
        server.board.record(target, ProbeResult { outcome, ..ProbeResult::default() }, at, wall);
    }

    /// What a server's answers go by, and how many views that is.
    fn counts(&self, server: usize, target: usize) -> (Sees, Option<Consensus>) {
        let status = &self.servers[server].board.snapshot().statuses[target];
        (status.counts_as, status.consensus)
    }

    /// Lets a server measure a network from its region.
    fn measures(&self, server: usize, rtt_ms: f32) {
        let network = "192.0.2.0/24".parse().unwrap();
        let cell = Cell { network, rtt_ms, samples: 4, age_s: 0, sends_subnets: false };
        let own = Own { region: format!("r{server}"), cells: [cell].into(), at: now().0 };
        self.servers[server].cluster.measure(Some(own));
    }

    /// The round trips that a server knows of others, with their regions.
    fn measured(&self, server: usize) -> Vec<(String, f32)> {
        let all = self.servers[server].cluster.measured(now().0);
        all.iter().flat_map(|of| of.cells.iter().map(|cell| (of.region.clone(), cell.rtt_ms))).collect()
    }

    fn sees_itself(&self, server: usize, target: usize) -> Sees {
        self.servers[server].board.snapshot().statuses[target].own_view()
    }
}

/// Every message goes to all, its sender included, as NATS does it; an answer goes to who asked.
async fn carry(mut carriers: Vec<Carrier>, loses: Arc<Mutex<Loses>>) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for carrier in &carriers {
        let _ = carrier.incoming.send(exchange::Event::Connected).await;
    }
    loop {
        for from in 0..carriers.len() {
            while let Ok(outgoing) = carriers[from].outgoing.try_recv() {
                for (to, carrier) in carriers.iter().enumerate() {
                    let is_for = !matches!(&outgoing.topic, Topic::To(peer) if *peer != format!("n{to}"));
                    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                    let is_lost = from != to && loses.lock().unwrap()(from, to, number);
                    if is_for && !is_lost {
                        let (topic, bytes) = (outgoing.topic.clone(), outgoing.bytes.clone());
                        let said = exchange::Event::Said { from: format!("n{from}"), topic, bytes };
                        let _ = carrier.incoming.try_send(said);
                    }
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Random enough.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

fn views(consensus: Option<Consensus>) -> u16 {
    consensus.map_or(0, |c| c.up + c.held + c.down)
}

#[tokio::test(start_paused = true)]
async fn a_change_is_everywhere_within_moments() {
    let net = Net::new(3, 2).await;
    for server in 0..3 {
        net.sees(server, 0, true);
    }
    pass(100).await;
    assert!((0..3).all(|server| views(net.counts(server, 0).1) == 3));
    assert_eq!(net.counts(0, 1), (Sees::Up, None), "nobody has seen the other target yet");
    net.sees(0, 0, false);
    net.sees(1, 0, false);
    pass(50).await;
    for server in 0..3 {
        assert_eq!(net.counts(server, 0).0, Sees::Down, "server {server}");
    }
    assert_eq!(net.sees_itself(2, 0), Sees::Up);
}

#[tokio::test(start_paused = true)]
async fn who_joins_late_knows_at_once_what_the_others_see() {
    let net = Net::new(4, 1).await;
    net.lose(|from, to, _| from == 3 || to == 3);
    for server in 0..3 {
        net.sees(server, 0, false);
    }
    pass(30_000).await;
    assert_eq!(net.counts(3, 0), (Sees::Up, None), "it knows nothing");
    net.lose(|_, _, _| false);
    pass(2100).await; // until the next beats
    let (sees, consensus) = net.counts(3, 0);
    assert_eq!((sees, views(consensus)), (Sees::Down, 3), "three views, and none of its own");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_lost_all_agree_again_when_nothing_is() {
    let net = Net::new(4, 20).await;
    net.lose(|_, _, number| mixed(number).is_multiple_of(3));
    for step in 0..400 {
        let n = mixed(step * 7 + 1);
        net.sees(n as usize % 4, (n >> 8) as usize % 20, n >> 20 & 1 == 0);
        pass(100 + (n >> 24) % 100).await;
    }
    net.lose(|_, _, _| false);
    pass(5000).await;
    for target in 0..20 {
        let down = (0..4).filter(|server| net.sees_itself(*server, target) == Sees::Down).count();
        let expected = if down > 2 { Sees::Down } else { Sees::Up };
        for server in 0..4 {
            let (sees, consensus) = net.counts(server, target);
            assert_eq!((sees, consensus.map(|c| usize::from(c.down))), (expected, Some(down)), "{target} on {server}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_heard_does_not_count_and_still_hears() {
    let net = Net::new(3, 1).await;
    net.sees(0, 0, true);
    net.sees(1, 0, false);
    net.sees(2, 0, false);
    pass(3000).await;
    assert!((0..3).all(|server| net.counts(server, 0).0 == Sees::Down));
    net.lose(|from, _, _| from == 2);
    pass(5000).await;
    assert!((0..3).all(|server| net.counts(server, 0).0 == Sees::Down), "six seconds are not over");
    pass(4000).await;
    for server in [0, 1] {
        let (sees, consensus) = net.counts(server, 0);
        assert_eq!((sees, views(consensus)), (Sees::Up, 2), "one of two on {server}");
    }
    assert_eq!(views(net.counts(2, 0).1), 3);
    net.lose(|_, _, _| false);
    pass(2100).await;
    assert!((0..3).all(|server| net.counts(server, 0).0 == Sees::Down));
}

#[tokio::test(start_paused = true)]
async fn alone_a_server_goes_by_its_own_view() {
    let net = Net::new(2, 1).await;
    net.sees(0, 0, true);
    net.sees(1, 0, false);
    pass(3000).await;
    assert!((0..2).all(|server| net.counts(server, 0).0 == Sees::Up));
    net.lose(|_, _, _| true);
    pass(9000).await;
    assert_eq!((net.counts(0, 0), net.counts(1, 0)), ((Sees::Up, None), (Sees::Down, None)));
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_goes_from_the_common_view_to_its_own_without_a_third() {
    let net = Net::new(5, 1).await;
    for server in 0..5 {
        net.sees(server, 0, server >= 3);
    }
    pass(3000).await;
    net.lose(|_, _, _| true);
    let mut own_since = [None; 5];
    for step in 0..200 {
        pass(50).await;
        for (server, own) in own_since.iter_mut().enumerate() {
            let (sees, consensus) = net.counts(server, 0);
            match consensus {
                Some(_) => assert_eq!((sees, *own), (Sees::Down, None), "server {server} at step {step}"),
                None => {
                    own.get_or_insert(step);
                    assert_eq!(sees, net.sees_itself(server, 0));
                }
            }
        }
    }
    assert!(own_since.iter().all(|since| since.is_some_and(|step| (100..180).contains(&step))), "{own_since:?}");
}

#[tokio::test(start_paused = true)]
async fn another_list_of_targets_is_talked_of_anew() {
    let mut net = Net::new(3, 1).await;
    for server in 0..3 {
        net.sees(server, 0, server == 0);
    }
    pass(100).await;
    for server in &mut net.servers[1..] {
        server.targets = targets(2);
        server.board.adopt(&server.targets, SystemTime::now());
    }
    net.sees(1, 1, false);
    pass(100).await;
    for server in 0..3 {
        let (sees, consensus) = net.counts(server, 0);
        assert_eq!((sees, views(consensus)), (Sees::Down, 3), "server {server}");
    }
    assert_eq!(net.counts(2, 1).0, Sees::Down, "the only one that has seen it");
}

#[tokio::test(start_paused = true)]
async fn what_one_measured_comes_to_all_though_some_of_it_is_lost() {
    let net = Net::new(3, 1).await;
    net.measures(0, 10.0);
    net.measures(1, 20.0);
    pass(2100).await;
    let both = [("r0".to_string(), 10.0), ("r1".to_string(), 20.0)];
    assert_eq!(net.measured(2), both);
    assert_eq!(net.measured(0), both[1..]);
    net.lose(|_, to, _| to == 2);
    net.measures(0, 12.0);
    pass(2100).await; // too short to be noticed
    net.lose(|_, _, _| false);
    assert_eq!((net.measured(1)[0].1, net.measured(2)[0].1), (12.0, 10.0));
    pass(602_000).await;
    assert_eq!(net.measured(2)[0].1, 12.0, "it is told again");
    net.lose(|_, to, _| to == 2);
    net.measures(0, 14.0);
    pass(12_000).await;
    net.lose(|_, _, _| false);
    pass(2100).await;
    assert_eq!(net.measured(2)[0].1, 14.0, "who was not heard for long is asked");
}
