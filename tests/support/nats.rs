//! A real NATS server, and what anybody can say to it in its own words. Needs Debian's nats-server.
#![allow(dead_code)] // each test uses a part

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::program::{Folder, PATIENCE, wait_for};

/// A server that runs; killed when dropped.
pub struct Nats {
    child: Child,
    /// Where clients go.
    pub clients: SocketAddr,
    /// Where other servers go, if it is one of several.
    pub routes: Option<SocketAddr>,
}

impl Nats {
    /// Starts a server on some port of 127.0.0.1, with this added to its configuration.
    pub fn start(folder: &Folder, name: &str, more: &str) -> Nats {
        Nats::start_on(folder, name, "127.0.0.1:-1", more)
    }

    /// The same on this address: that of a server that ran before.
    pub fn start_on(folder: &Folder, name: &str, listen: &str, more: &str) -> Nats {
        Nats::start_with(folder, name, &format!("server_name: {name}\nlisten: \"{listen}\"\n{more}\n"))
    }

    /// Starts a server with this configuration, in which paths are relative to the folder.
    pub fn start_with(folder: &Folder, name: &str, config: &str) -> Nats {
        Nats::start_under(Command::new("nats-server"), folder, name, config)
    }

    /// The same by a command that runs nats-server in some other way.
    pub fn start_under(mut command: Command, folder: &Folder, name: &str, config: &str) -> Nats {
        let ports = folder.path().join(format!("{name}.ports"));
        let _none_there = fs::remove_dir_all(&ports);
        fs::create_dir(&ports).unwrap();
        let told_in = format!("ports_file_dir: {:?}\n", ports.display().to_string());
        let config = folder.write(&format!("{name}.conf"), &format!("{config}\n{told_in}"));
        let log = fs::File::create(folder.path().join(format!("{name}.log"))).unwrap();
        let mut child = command
            .args(["-c", config.to_str().unwrap()])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server is installed: apt-get install nats-server");
        let told = wait_for("NATS to tell its ports", || {
            if let Some(status) = child.try_wait().unwrap() {
                let log = fs::read_to_string(folder.path().join(format!("{name}.log"))).unwrap();
                panic!("nats-server ended with {status}: {log}");
            }
            let file = fs::read_dir(&ports).unwrap().flatten().next()?.path();
            serde_json::from_str::<Value>(&fs::read_to_string(file).ok()?).ok()
        });
        let address = |what: &str| {
            let url = told[what].as_array()?.first()?.as_str()?;
            url.rsplit('/').next()?.parse().ok()
        };
        Nats { child, clients: address("nats").expect("a port for clients"), routes: address("cluster") }
    }

    /// What isochrone calls it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.clients)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes to a server without credentials, in the protocol's own words, and waits until it was taken.
pub fn publish(server: SocketAddr, subject: &str, payload: &[u8]) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("INFO "), "{line}");
    write!(stream, "CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n", payload.len()).unwrap();
    stream.write_all(payload).unwrap();
    stream.write_all(b"\r\nPING\r\n").unwrap();
    while !line.starts_with("PONG") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "NATS ended the connection");
        assert!(!line.starts_with("-ERR"), "{line}");
    }
}
