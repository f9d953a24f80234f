use std::{
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
};

use super::*;
use crate::config::{self, Source, model::RegionId};

/// A server that stands in `region`, of regions in this order; it learns if there is any.
fn config(regions: [&str; 2], region: &str, prospect: f64) -> Config {
    let region_toml =
        |(n, name): (usize, &str)| format!("[regions.{name}]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.{n}\"]\n");
    let regions: String = regions.into_iter().enumerate().map(region_toml).collect();
    let learn = !region.is_empty();
    let text = format!(
        "[server]\nregion = \"{region}\"\n[latency]\nlearn = {learn}\nprospect = {prospect}\n{regions}\
         [zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n"
    );
    let source = Source { name: "isochrone.toml".into(), text };
    config::parse(Arc::new(source), Path::new("")).unwrap_or_else(|report| panic!("{report}"))
}

fn now_s() -> u64 {
    unix_s(SystemTime::now())
}

/// A server that has measured 192.0.2.0/24 five times.
fn learned(config: &Config, state: &StateDir) -> Learning {
    let learning = Learning::default();
    learning.adopt(config, state);
    for sample_us in [21_000, 20_000, 22_000, 21_000, 21_000] {
        let network = "192.0.2.0/24".parse().unwrap();
        learning.reports.try_send(Report::RoundTrip { network, sample_us }).unwrap();
    }
    learning.take_in(now_s());
    learning
}

fn known(learning: &Learning, config: &Config) -> Vec<(String, RegionId, f32, u32)> {
    let cells = learning.cells(config, now_s());
    cells.iter().map(|cell| (cell.network.to_string(), cell.region, cell.rtt_ms, cell.samples)).collect()
}

#[test]
fn cells_are_of_the_region_whatever_its_number_and_of_no_other() {
    let eu = config(["us", "eu"], "eu", 0.0);
    let learning = learned(&eu, &StateDir::default());
    let cell = |region| [("192.0.2.0/24".to_string(), RegionId(region), 20.0, 5)];
    assert_eq!(known(&learning, &eu), cell(1));
    assert_eq!(known(&learning, &config(["eu", "us"], "eu", 0.0)), cell(0));
    assert_eq!(known(&learning, &config(["us", "eu"], "us", 0.0)), []);
    assert_eq!(known(&learning, &config(["us", "eu"], "", 0.0)), []);
}

#[test]
fn what_was_learned_is_read_by_the_next_process_unless_it_stands_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(Some(folder.path())).unwrap();
    let eu = config(["us", "eu"], "eu", 0.0);
    let before = learned(&eu, &state);
    assert!(before.is_write_due());
    before.write(&state);
    assert!(!before.is_write_due());
    let after = Learning::default();
    after.adopt(&eu, &state);
    assert_eq!(known(&after, &eu), known(&before, &eu));
    assert!(!after.is_write_due());
    let elsewhere = Learning::default();
    let us = config(["us", "eu"], "us", 0.0);
    elsewhere.adopt(&us, &state);
    assert_eq!(known(&elsewhere, &us), []);
}

#[test]
fn a_server_that_does_not_learn_neither_reads_nor_writes() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(Some(folder.path())).unwrap();
    std::fs::write(folder.path().join(FILE), "damaged").unwrap();
    let learning = Learning::default();
    learning.adopt(&config(["us", "eu"], "", 0.0), &state);
    learning.write(&state);
    assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "damaged");
    assert_eq!(learning.status(now_s()), None);
    assert_eq!(learning.measurements(None, now_s()).region, None);
}

#[test]
fn a_reload_to_another_region_forgets_and_one_without_learning_only_hides() {
    let [eu, us, off] = ["eu", "us", ""].map(|region| config(["us", "eu"], region, 0.0));
    let learning = learned(&eu, &StateDir::default());
    learning.adopt(&off, &StateDir::default());
    assert_eq!((known(&learning, &off), learning.status(now_s())), (vec![], None));
    learning.adopt(&eu, &StateDir::default());
    assert_eq!(known(&learning, &eu).len(), 1);
    learning.adopt(&us, &StateDir::default());
    assert_eq!((known(&learning, &us), learning.status(now_s()).unwrap().networks), (vec![], 0));
}

#[test]
fn a_thread_asks_each_network_once_and_reports_what_it_measures() {
    let eu = config(["us", "eu"], "eu", 1.0);
    let learning = Arc::new(learned(&eu, &StateDir::default()));
    let mut learner = Learner::new(learning.clone());
    let [measured, new, here] = ["192.0.2.9", "198.51.100.9", "127.0.0.1"].map(|text| text.parse().unwrap());
    for client in [measured, new, here] {
        assert!(learner.is_on() && learner.is_drawn());
        assert_eq!(learner.claim(client, now_s()), client == new, "{client}");
        learner.drawn(client, now_s(), client == new);
    }
    assert!(!learner.claim(new, now_s()));
    learner.came_by_tcp(new, now_s());
    learner.sent_subnet(new, now_s());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    learner.connection_ends((new, 4711).into(), server.as_fd());
    learning.take_in(now_s());
    let of_new = learning.measurements(Some(new), now_s()).networks;
    assert_eq!((of_new.len(), of_new[0].samples, of_new[0].sends_client_subnets), (1, 1, true));
    let status = learning.status(now_s()).unwrap();
    assert_eq!((status.asked, status.came, status.gained, status.networks), (1, 1, 1, 2));
}

#[test]
fn a_thread_takes_up_what_a_reload_says() {
    let learning = Arc::new(Learning::default());
    let mut learner = Learner::new(learning.clone());
    assert!(!learner.is_on() && !learner.is_drawn());
    learning.adopt(&config(["us", "eu"], "eu", 1.0), &StateDir::default());
    learner.adopt();
    assert!(learner.is_on() && learner.is_drawn());
}

/// Half a million queries over UDP from one network, as a thread sees them: how many were drawn, and how many might have been asked.
fn pass_by(learner: &mut Learner, client: IpAddr) -> (usize, usize) {
    let (mut drawn, mut claimed) = (0, 0);
    for _ in 0..500_000 {
        if learner.is_drawn() {
            drawn += 1;
            claimed += usize::from(learner.claim(client, now_s()));
            learner.drawn(client, now_s(), false);
        }
    }
    (drawn, claimed)
}

#[test]
fn queries_over_udp_weigh_whether_or_not_any_is_asked_to_come_by_tcp() {
    let client = "192.0.2.9".parse().unwrap();
    for prospect in [0.0, 0.001, 0.1] {
        let learning = Arc::new(learned(&config(["us", "eu"], "eu", prospect), &StateDir::default()));
        let mut learner = Learner::new(learning.clone());
        let (drawn, _) = pass_by(&mut learner, client);
        let expected = 500_000.0 * f64::max(prospect, 1.0 / 256.0);
        assert!((drawn as f64 - expected).abs() < 6.0 * expected.sqrt(), "{prospect}: {drawn}");
        learning.take_in(now_s());
        let weight = learning.heaviest(now_s()).unwrap().1[0].weight;
        assert!((350_000.0..650_000.0).contains(&weight), "{prospect}: {weight}");
    }
    let off = Arc::new(learned(&config(["us", "eu"], "", 0.0), &StateDir::default()));
    assert_eq!(pass_by(&mut Learner::new(off), client), (0, 0));
}

#[test]
fn of_the_drawn_only_the_share_that_was_asked_for_may_be_asked_to_come() {
    for (prospect, expected) in [(0.0, 0.0), (0.001, 500.0), (0.02, 10_000.0)] {
        let learning = Arc::new(learned(&config(["us", "eu"], "eu", prospect), &StateDir::default()));
        // A network that is given back each time may be claimed each time.
        let (_, claimed) = pass_by(&mut Learner::new(learning), "198.51.100.9".parse().unwrap());
        assert!((claimed as f64 - expected).abs() <= 6.0 * expected.sqrt(), "{prospect}: {claimed}");
    }
}

#[test]
fn a_sender_of_client_subnets_is_told_of_once_a_quarter_of_an_hour_and_made_up_ones_leave_room() {
    let learning = Arc::new(learned(&config(["us", "eu"], "eu", 0.0), &StateDir::default()));
    let mut learner = Learner::new(learning.clone());
    let told = || learning.control().reports.try_iter().count();
    let (client, at_s) = ("192.0.2.9".parse().unwrap(), now_s() & !0x3ff);
    (0..1000).for_each(|second| learner.sent_subnet(client, at_s + second));
    assert_eq!(told(), 1);
    learner.sent_subnet(client, at_s + 1024);
    assert_eq!(told(), 1);
    (0..100_000).for_each(|n| learner.sent_subnet(std::net::Ipv4Addr::from_bits(n << 8 | 1 << 24).into(), at_s));
    assert!((1..1000).contains(&told()));
    let off = Arc::new(learned(&config(["us", "eu"], "", 0.0), &StateDir::default()));
    Learner::new(off.clone()).sent_subnet(client, at_s);
    assert_eq!(off.control().reports.try_iter().count(), 0);
}
