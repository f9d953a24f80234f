//! A world of regions far apart: a server in each, a NATS cluster of three, and a resolver, each in a namespace of its own and each at the
//! end of a link that delays, loses and is cut as told. All links meet in one hub, so that the way between two of them is as long as
//! both links together.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    nats::Nats,
    netns::{self, Namespace},
    node::{Clock, Node},
    program::{Folder, PATIENCE, wait_for},
    relay::{Relay, Way},
};

/// Numbers of the links: regions have 1, 2, …
const NATS: u8 = 101;
const RESOLVER: u8 = 201;
/// The resolver asks from here: in Germany, by all that is known without measurements.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(80, 130, 5, 7);
/// NATS servers, and how far away each is, one way.
const NATS_MS: [u64; 3] = [5, 20, 40];

/// Something at the end of a link.
pub struct Place {
    relay: Relay,
    /// While nothing is wrong with it.
    way: Mutex<Way>,
    pub address: Ipv4Addr,
    pub home: Arc<Namespace>,
}

impl Place {
    fn new(hub: &Namespace, number: u8, one_way_ms: u64) -> Place {
        let home = Arc::new(Namespace::new());
        let way = Way { delay: Duration::from_millis(one_way_ms), ..Way::default() };
        let relay = Relay::join(hub, &home, number, way, way);
        home.ip(&format!("route add default via 10.0.{number}.1"));
        Place { relay, way: Mutex::new(way), address: Ipv4Addr::new(10, 0, number, 2), home }
    }

    /// Moves it away, or nearer.
    pub fn move_to(&self, one_way_ms: u64) {
        self.way.lock().unwrap().delay = Duration::from_millis(one_way_ms);
        self.mend();
    }

    /// What is sent to it is lost, or what it sends.
    pub fn cut(&self, incoming: bool, outgoing: bool) {
        let way = |is_cut: bool| Way { loss_percent: if is_cut { 100 } else { 0 }, ..*self.way.lock().unwrap() };
        self.relay.set(way(incoming), way(outgoing));
    }

    /// Its link becomes as narrow as this, both ways.
    pub fn narrow(&self, bytes_per_second: u64) {
        let way = Way { bytes_per_second, ..*self.way.lock().unwrap() };
        self.relay.set(way, way);
    }

    /// Its link is whole and wide again.
    pub fn mend(&self) {
        let way = *self.way.lock().unwrap();
        self.relay.set(way, way);
    }
}

/// One region: its name, the place that it is taken to be in, and how far it is from the hub, one way.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    pub name: &'static str,
    pub location: &'static str,
    pub one_way_ms: u64,
}

/// All of it. Fields are dropped in their order: programs before the places that they run in.
pub struct World {
    pub nodes: Vec<Node>,
    pub nats: Vec<Option<Nats>>,
    pub places: Vec<Place>,
    nats_places: Vec<Place>,
    pub resolver: Place,
    pub folder: Folder,
    _hub: Namespace,
}

impl World {
    /// Starts NATS and makes the places; [`World::start`] starts a server in each region.
    pub fn new(regions: &[Region]) -> World {
        netns::prepare(&["ip"]);
        let hub = Namespace::new();
        hub.inside(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the hub forwards"));
        let places = (1..).zip(regions).map(|(number, region)| Place::new(&hub, number, region.one_way_ms)).collect();
        let nats_places = (NATS..).zip(NATS_MS).map(|(number, ms)| Place::new(&hub, number, ms)).collect();
        let resolver = Place::new(&hub, RESOLVER, 0);
        resolver.home.ip(&format!("addr add {CLIENT}/32 dev lo"));
        hub.ip(&format!("route add {CLIENT}/32 via {}", resolver.address));
        let nats = NATS_MS.map(|_| None).into();
        let mut world = World { nodes: vec![], nats, places, nats_places, resolver, folder: Folder::new(), _hub: hub };
        (0..NATS_MS.len()).for_each(|n| world.start_nats(n));
        world
    }

    /// Starts one of the NATS servers.
    pub fn start_nats(&mut self, n: usize) {
        let address = |n: usize| self.nats_places[n].address;
        let routes: Vec<String> = (0..NATS_MS.len()).map(|n| format!("\"nats-route://{}:6222\"", address(n))).collect();
        let config = format!(
            "server_name: nats{n}\nlisten: \"0.0.0.0:4222\"\n\
             cluster {{\n name: test\n listen: \"{}:6222\"\n routes: [{}]\n}}",
            address(n),
            routes.join(", ")
        );
        let command = self.nats_places[n].home.command("nats-server");
        self.nats[n] = Some(Nats::start_under(command, &self.folder, &format!("nats{n}"), &config));
    }

    /// Where a client finds one of the NATS servers.
    pub fn nats_address(&self, n: usize) -> SocketAddr {
        (self.nats_places[n].address, 4222).into()
    }

    /// Where one of the NATS servers runs.
    pub fn nats_home(&self, n: usize) -> &Namespace {
        &self.nats_places[n].home
    }

    /// For `nats` of `[cluster]`.
    fn nats_urls(&self) -> String {
        let urls: Vec<String> = (0..NATS_MS.len()).map(|n| format!("\"nats://{}\"", self.nats_address(n))).collect();
        urls.join(", ")
    }

    /// Starts a server in each region. `config` is what follows the sections `[server]`, `[admin]` and `[cluster]`.
    pub fn start(&mut self, regions: &[Region], server: &str, config: &str, clock: impl Fn(usize) -> Clock) {
        let urls = self.nats_urls();
        for (n, (place, region)) in self.places.iter().zip(regions).enumerate() {
            let text = format!(
                "[server]\nlisten = [\"0.0.0.0:53\"]\nstate-dir = \"state\"\nthreads = 1\nregion = \"{0}\"\n{server}\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\n[cluster]\nnode = \"{0}\"\nnats = [{urls}]\n{config}",
                region.name
            );
            self.nodes.push(Node::start_in_with(place.home.clone(), region.name, &text, clock(n)));
        }
    }

    /// Where the resolver finds the server of a region.
    pub fn server(&self, region: usize) -> SocketAddr {
        (self.places[region].address, 53).into()
    }
}

/// A resolver as anybody runs it: unbound, which asks all servers of the zone in turn, and comes by TCP when it is told to.
pub struct Resolver<'w> {
    child: Child,
    place: &'w Place,
}

impl Resolver<'_> {
    pub fn start<'w>(world: &'w World, place: &'w Place) -> Resolver<'w> {
        let folder = world.folder.path().display();
        let servers: Vec<String> =
            (0..world.places.len()).map(|n| format!("  stub-addr: {}\n", world.places[n].address)).collect();
        let config = format!(
            "server:\n  interface: 127.0.0.1\n  access-control: 127.0.0.0/8 allow\n  outgoing-interface: {CLIENT}\n  \
             do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  directory: \"{folder}\"\n  pidfile: \"\"\n  \
             use-syslog: no\n  logfile: \"{folder}/unbound.log\"\n  num-threads: 1\n  do-ip6: no\n  \
             module-config: \"iterator\"\n  qname-minimisation: no\n  trust-anchor-signaling: no\n  \
             local-data: \"here.test. A 127.0.0.1\"\n\
             remote-control:\n  control-enable: no\n\
             stub-zone:\n  name: \"geo.example\"\n{}",
            servers.concat()
        );
        let path = world.folder.write("resolver.unbound", &config);
        let mut command = place.home.command("unbound");
        let child = command.args(["-d", "-c", path.to_str().unwrap()]).stdin(Stdio::null()).stderr(Stdio::null());
        let resolver = Resolver { child: child.spawn().expect("unbound is installed"), place };
        wait_for("unbound", || resolver.ask("here.test", A, Duration::from_secs(1)));
        resolver
    }

    /// Asks for records of a type; the reply, if one comes in time.
    pub fn ask(&self, name: &str, qtype: u16, patience: Duration) -> Option<Vec<u8>> {
        let socket = self.place.home.inside(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.send_to(&question(name, qtype), "127.0.0.1:53").unwrap();
        let mut reply = vec![0; 65_535];
        let len = socket.recv(&mut reply).ok()?;
        reply.truncate(len);
        Some(reply)
    }

    /// Asks for an address of a name, which must be told.
    pub fn address_of(&self, name: &str) -> Ipv4Addr {
        let reply = self.ask(name, A, PATIENCE).expect("no answer is lost");
        assert!(reply[3] & 0x0f == 0 && reply[7] > 0, "{name}: {reply:02x?}");
        let last: [u8; 4] = reply[reply.len() - 4..].try_into().unwrap();
        last.into()
    }
}

impl Drop for Resolver<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const A: u16 = 1;
pub const TXT: u16 = 16;

/// A question with recursion desired.
fn question(name: &str, qtype: u16) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// A server's answer to a client subnet of the resolver's network, asked beside the server itself: it moves no measurement.
pub fn answer_to_client(node: &Node) -> Ipv4Addr {
    let mut query = question("www.app.geo.example", A);
    query[11] = 1; // an OPT follows
    query.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x0b\0\x08\0\x07\0\x01\x18\0");
    query.extend(&CLIENT.octets()[..3]);
    let reply = node.there(|server| server.ask(&query));
    // The first record: a pointer to the name, type, class, TTL and length before its address.
    let at = question("www.app.geo.example", A).len() + 12;
    let address: [u8; 4] = reply[at..at + 4].try_into().unwrap();
    address.into()
}

/// Signals a process by its id.
pub fn signal(id: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
    assert!(sent.success(), "kill -{name} {id}");
}
