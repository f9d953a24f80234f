//! What a scenario is played on: isochrone in a namespace of its own, regions each in one, a client in another; and, where it is
//! compared, gdnsd beside isochrone, on the same links and before the same servers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    asker::{Asker, EVERY},
    gdnsd::Gdnsd,
    netns::{Namespace, join},
    nginx::Nginx,
    program::{Folder, Program, wait_for},
    relay::{Relay, Way},
    report::Seen,
    strange::{Behaviour, Strange},
};

/// The name that clients ask for.
pub const NAME: &str = "app.geo.example";
/// The number of the link to the client; regions have 1, 2, …
const CLIENT: u8 = 250;

/// One region: its namespace and the way there.
pub struct Region {
    pub namespace: Namespace,
    /// Its first address, which stands for it in the timeline.
    pub address: Ipv4Addr,
    pub relay: Option<Relay>,
    pub nginx: Option<Nginx>,
    pub strange: Option<Strange>,
    /// What its strange server does.
    pub behaviour: Arc<Mutex<Behaviour>>,
    /// Data of answers that stand for it, beside its address.
    pub aliases: Vec<Vec<u8>>,
}

/// The times of a check, and those of the contract that follow from them.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub label: &'static str,
    /// Keys of the check; empty: the defaults.
    keys: &'static str,
    /// From the fault to an answer without the region, where probes are refused or reset, or answered wrongly at once.
    pub refused_max: Duration,
    /// The same where nothing comes back within the timeout.
    pub silent_max: Duration,
    /// From the end of a fault to an answer with the region: rise x interval + 1 s.
    pub back_max: Duration,
}

/// interval 10 s, fast-interval 1 s, timeout 4 s.
pub const DEFAULTS: Times = Times {
    label: "defaults",
    keys: "",
    refused_max: Duration::from_secs(13),
    silent_max: Duration::from_secs(25),
    back_max: Duration::from_secs(21),
};

/// The fast ones of the contract.
pub const FAST: Times = Times {
    label: "1 s / 500 ms",
    keys: "interval = \"1s\"\nfast-interval = \"1s\"\ntimeout = \"500ms\"\n",
    refused_max: Duration::from_secs(4),
    silent_max: Duration::from_secs(5),
    back_max: Duration::from_secs(3),
};

/// For answers just under and just over the timeout, which a busy machine must not push over it. The bounds are the worst case: an
/// interval, three timeouts or none, two fast intervals, and a second.
pub const BROAD: Times = Times {
    label: "2 s / 1.5 s",
    keys: "interval = \"2s\"\nfast-interval = \"1s\"\ntimeout = \"1500ms\"\n",
    refused_max: Duration::from_secs(5),
    silent_max: Duration::from_millis(9_500),
    back_max: Duration::from_secs(5),
};

/// For a thousand endpoints: a load that leaves the machine to others.
pub const MANY: Times = Times {
    label: "5 s / 2 s",
    keys: "interval = \"5s\"\nfast-interval = \"1s\"\ntimeout = \"2s\"\n",
    refused_max: Duration::from_secs(8),
    silent_max: Duration::from_secs(14),
    back_max: Duration::from_secs(11),
};

/// One server under test and its client.
pub struct Contestant {
    pub server: String,
    pub asker: Asker,
}

/// All of it.
pub struct Site {
    // In the order in which they end: clients and servers before the namespaces that they live in.
    pub contestants: Vec<Contestant>,
    pub program: Option<Program>,
    rivals: Vec<(Gdnsd, Folder)>,
    pub regions: Vec<Region>,
    client: Namespace,
    pub home: Namespace,
    pub folder: Folder,
}

impl Site {
    /// Namespaces and cables for so many regions; nothing runs yet.
    pub fn new(regions: u8) -> Site {
        Site::with_links(regions, |_| None)
    }

    /// The same with a relay instead of the cable where `relayed` tells what becomes of packets to the region and back.
    pub fn with_links(regions: u8, relayed: impl Fn(usize) -> Option<(Way, Way)>) -> Site {
        let (home, client) = (Namespace::new(), Namespace::new());
        join(&home, &client, CLIENT);
        let regions = (0..usize::from(regions)).map(|index| {
            let (namespace, number) = (Namespace::new(), index as u8 + 1);
            let relay = match relayed(index) {
                Some((forth, back)) => Some(Relay::join(&home, &namespace, number, forth, back)),
                None => {
                    join(&home, &namespace, number);
                    None
                }
            };
            Region {
                namespace,
                address: Ipv4Addr::new(10, 0, number, 2),
                relay,
                nginx: None,
                strange: None,
                behaviour: Arc::new(Mutex::new(Behaviour::Well)),
                aliases: vec![],
            }
        });
        let regions = regions.collect();
        Site { contestants: vec![], program: None, rivals: vec![], regions, client, home, folder: Folder::new() }
    }

    /// Starts nginx in a region, on port 80.
    pub fn serve(&mut self, region: usize, tls: bool) {
        let region = &mut self.regions[region];
        let port = if tls { 443 } else { 80 };
        let listen = [format!("0.0.0.0:{port}")];
        let name = format!("nginx-{}", region.namespace.name());
        region.nginx = Some(Nginx::start_as(
            region.namespace.command("nginx"),
            &self.folder,
            &name,
            &listen,
            if tls { "ssl" } else { "" },
        ));
    }

    /// Starts the strange server in a region, on port 80 of all its addresses; [`Site::behave`] tells it what to do.
    pub fn serve_strangely(&mut self, region: usize) {
        let region = &mut self.regions[region];
        let behaviour = region.behaviour.clone();
        region.strange = Some(Strange::start(&region.namespace, move |_| *behaviour.lock().unwrap()));
    }

    /// What a region's strange server does from now on.
    pub fn behave(&self, region: usize, behaviour: Behaviour) {
        *self.regions[region].behaviour.lock().unwrap() = behaviour;
    }

    /// The configuration: one route over all regions in order. `check` is the text of the check, without its times.
    pub fn config(&self, check: &str, times: &Times) -> String {
        let mut config = format!(
            "[server]\nlisten = [\"10.0.{CLIENT}.1:53\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n[checks.web]\n{check}\n{}",
            times.keys
        );
        for (index, region) in self.regions.iter().enumerate() {
            config += &format!(
                "[regions.{}]\nlocation = \"{}\"\nendpoints = [\"{}\"]\ncheck = \"web\"\n",
                region_name(index),
                ["FRA", "IAD", "SIN"][index],
                region.address
            );
        }
        config
            + "[zones.\"geo.example\"]\nnameservers = [\"ns1.example.net.\"]\n\
               [zones.\"geo.example\".routes.app]\npolicy = \"failover\"\n"
    }

    /// Starts isochrone, waits until every target has been found up, and begins to ask for [`NAME`].
    pub fn start(&mut self, config: &str, variables: &[(&str, &str)]) {
        self.launch(config, variables);
        self.ask("isochrone", self.dns(), NAME, EVERY);
    }

    /// The same without a client.
    pub fn launch(&mut self, config: &str, variables: &[(&str, &str)]) {
        self.folder.write("isochrone.toml", config);
        let outer = self.home.command("env"); // which turns into the program, given no variable
        let program = self.folder.start_under(outer, &["serve", "--config", "isochrone.toml"], variables);
        self.program = Some(program);
        // No client asks before everything is known to be up: a region that was slow to start is no fault.
        wait_for("the first probes", || {
            let status = self.status()?;
            let endpoints = status["regions"].as_array()?.iter().flat_map(|r| r["endpoints"].as_array().unwrap());
            endpoints.clone().all(|e| e["decided"] == true && e["state"] == "up").then_some(())
        });
    }

    /// Where isochrone listens.
    pub fn dns(&self) -> SocketAddr {
        self.program.as_ref().expect("it was started").dns
    }

    /// Starts gdnsd on the first two regions, with a client; `service` is the text of its service type.
    pub fn start_rival(&mut self, label: &str, service: &str) {
        let [first, second] = [0, 1].map(|index| self.regions[index].address.to_string());
        let server = self.launch_rival(service, &[("app", first, second)]);
        self.ask(label, server, NAME, EVERY);
    }

    /// The same with other resources and without a client.
    pub fn launch_rival(&mut self, service: &str, resources: &[(&str, String, String)]) -> SocketAddr {
        let port = 5300 + self.rivals.len() as u16;
        let listen = SocketAddr::from(([10, 0, CLIENT, 1], port));
        self.rivals.push(Gdnsd::start(&self.home, listen, service, resources));
        listen
    }

    /// Begins to ask a server, and waits until it answers with region `a`.
    pub fn ask(&mut self, label: &str, server: SocketAddr, name: &str, every: Duration) {
        // What is asked before the server listens does not count: the record begins when it has answered.
        let first = Asker::start(&self.client, server, name, every);
        wait_for(&format!("{label} to answer"), || first.newest());
        drop(first);
        let asker = Asker::start(&self.client, server, name, every);
        self.contestants.push(Contestant { server: label.into(), asker });
        self.wait_for_answer(self.contestants.len() - 1, 0);
    }

    /// Waits until a client is sent to a region.
    pub fn wait_for_answer(&self, contestant: usize, region: usize) {
        let what = format!("{} to answer with region {}", self.contestants[contestant].server, region_name(region));
        wait_for(&what, || self.is_answered_with(contestant, region).then_some(()));
    }

    /// The newest answer to a client stands for a region.
    pub fn is_answered_with(&self, contestant: usize, region: usize) -> bool {
        let newest = self.contestants[contestant].asker.newest();
        newest.is_some_and(|(data, _)| self.region_of(&data) == Some(region))
    }

    fn region_of(&self, data: &[u8]) -> Option<usize> {
        self.regions
            .iter()
            .position(|region| region.address.octets() == *data || region.aliases.iter().any(|a| a == data))
    }

    /// What the program says of itself; `None` where it is too busy to say anything.
    pub fn status(&self) -> Option<serde_json::Value> {
        let program = self.program.as_ref().expect("it was started");
        let (code, body) = self.home.inside(|| program.get("/api/v1/status"));
        (code == 200).then(|| serde_json::from_str(&body).expect("it is JSON"))
    }

    /// Ends the asking, and tells what each client saw.
    pub fn seen(&mut self) -> Vec<Seen> {
        let contestants: Vec<Contestant> = self.contestants.drain(..).collect();
        let records = contestants.into_iter().map(|contestant| (contestant.server, contestant.asker.stop()));
        records.map(|(server, record)| Seen::new(server, record, |data| self.region_of(data)).by_the_clock()).collect()
    }
}

/// `a`, `b`, `c`: the regions in order of preference.
pub fn region_name(index: usize) -> char {
    (b'a' + index as u8) as char
}
