//! A validating resolver: unbound in the foreground, with nothing but what a test gives it.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use super::program::{Folder, wait_for};

/// What a resolver is to do.
pub struct Setup<'s> {
    /// Of its files.
    pub name: &'s str,
    /// DS records that it trusts, as zone files write them.
    pub anchors: &'s [&'s str],
    /// Zones, and the server that it asks for them.
    pub zones: &'s [(&'s str, SocketAddr)],
    /// The address that it asks from.
    pub source: &'s str,
    /// Passes its clients' ECS options on, and keeps answers apart by them.
    pub sends_ecs: bool,
}

/// unbound; killed when dropped.
pub struct Unbound {
    child: Child,
    pub address: SocketAddr,
    /// It asks for its clients' networks.
    pub sends_ecs: bool,
    log: std::path::PathBuf,
}

/// What a resolver said to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub rcode: String,
    pub is_secure: bool,
    /// The records of the answer section, in order.
    pub answers: Vec<String>,
}

impl Unbound {
    /// Starts it and waits until it answers.
    pub fn start(folder: &Folder, setup: &Setup) -> Unbound {
        let address = free_address();
        let name = setup.name;
        let root = folder.path().display();
        let mut config = format!(
            r#"server:
  interface: {}@{}
  access-control: 127.0.0.0/8 allow
  outgoing-interface: {}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{root}"
  pidfile: ""
  use-syslog: no
  logfile: "{root}/{name}.log"
  val-log-level: 2
  num-threads: 1
  do-ip6: no
  do-not-query-localhost: no
  trust-anchor-signaling: no
  qname-minimisation: yes
  qname-minimisation-strict: yes
  use-caps-for-id: yes
  harden-glue: yes
  harden-dnssec-stripped: yes
  harden-below-nxdomain: yes
  harden-referral-path: yes
  harden-algo-downgrade: yes
  harden-large-queries: yes
  harden-short-bufsize: yes
  aggressive-nsec: yes
  val-bogus-ttl: 1
"#,
            address.ip(),
            address.port(),
            setup.source,
        );
        if setup.sends_ecs {
            config += "  module-config: \"subnetcache validator iterator\"\n  send-client-subnet: 127.0.0.0/8\n  client-subnet-always-forward: yes\n";
        } else {
            config += "  module-config: \"validator iterator\"\n";
        }
        for anchor in setup.anchors {
            config += &format!("  trust-anchor: \"{anchor}\"\n");
        }
        for (zone, server) in setup.zones {
            config += &format!("stub-zone:\n  name: \"{zone}\"\n  stub-addr: {}@{}\n", server.ip(), server.port());
        }
        let path = folder.write(&format!("{name}.unbound"), &config);
        let log = folder.path().join(format!("{name}.log"));
        let child = Command::new("unbound")
            .args(["-d", "-c", path.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unbound is installed");
        let mut unbound = Unbound { child, address, sends_ecs: setup.sends_ecs, log };
        wait_for("unbound", || {
            if let Some(status) = unbound.child.try_wait().unwrap() {
                panic!("unbound ended with {status}: {}\n{config}", unbound.log());
            }
            let probe = Command::new("dig")
                .args([&format!("@{}", address.ip()), "-p", &address.port().to_string()])
                .args(["+time=1", "+tries=1", "+short", "id.server", "TXT", "CH"])
                .output()
                .expect("dig is installed");
            probe.status.success().then_some(())
        });
        unbound
    }

    /// Asks all `questions` (name and type), from the network `client` if it is not empty.
    pub fn ask(&self, questions: &[(String, String)], client: &str) -> Vec<Said> {
        let mut dig = Command::new("dig");
        dig.args([&format!("@{}", self.address.ip()), "-p", &self.address.port().to_string()]);
        dig.args(["+noall", "+comments", "+answer", "+time=15", "+tries=2"]);
        if !client.is_empty() {
            dig.arg(format!("+subnet={client}"));
        }
        for (name, qtype) in questions {
            dig.args(["-q", name, "-t", qtype]);
        }
        let output = dig.output().expect("dig is installed");
        let text = String::from_utf8(output.stdout).unwrap();
        let said: Vec<Said> = text.split(";; Got answer:").skip(1).map(Said::parse).collect();
        assert_eq!(said.len(), questions.len(), "{text}\n{}", self.log());
        said
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Said {
    fn parse(text: &str) -> Said {
        let after = |mark: &str| text.split_once(mark).expect("dig prints a header").1;
        let rcode = after("status: ").split(',').next().unwrap_or_default().to_string();
        let flags = after(";; flags: ").split(';').next().unwrap_or_default();
        let answers = text.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty());
        Said {
            rcode,
            is_secure: flags.split(' ').any(|flag| flag == "ad"),
            answers: answers.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect(),
        }
    }
}

/// A loopback address with a port that is free for UDP and TCP.
fn free_address() -> SocketAddr {
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if std::net::UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
