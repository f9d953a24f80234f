//! The real program: run to its end, or started, asked and stopped.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::disallowed_methods)] // it starts, waits and gives up

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes on a machine that is busy with something else; only ever waited out by a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

const BINARY: &str = env!("CARGO_BIN_EXE_isochrone");

/// A folder for a test's files, in which the program runs.
pub struct Folder(TempDir);

/// What a run left behind.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running `serve` or `demo`. Dropping it kills it.
pub struct Program {
    child: Child,
    pub dns: SocketAddr,
    pub admin: SocketAddr,
    stderr: Arc<Mutex<String>>,
    stdout: Arc<Mutex<String>>,
}

impl Folder {
    pub fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    /// A folder with this `isochrone.toml`.
    pub fn with_config(toml: &str) -> Folder {
        let folder = Folder::new();
        folder.write("isochrone.toml", toml);
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.prepared(Command::new(BINARY), arguments)
    }

    fn prepared(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).current_dir(self.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Done {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Starts the program with stdout closed at the other end.
    pub fn run_unread(&self, arguments: &[&str]) -> ExitStatus {
        let mut child = self.command(arguments).spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap()
    }

    /// Starts `serve` or `demo` and waits until it says that it is ready.
    pub fn start(&self, arguments: &[&str]) -> Program {
        self.start_with(arguments, &[])
    }

    /// The same with environment variables. With several addresses `dns` is the first.
    pub fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Program {
        self.launch(Command::new(BINARY), arguments, variables)
    }

    /// The same, begun by another program (`ip netns exec NAME`) that is given the path of this one and what follows, and turns into
    /// it. The addresses are those in there.
    pub fn start_under(&self, mut outer: Command, arguments: &[&str], variables: &[(&str, &str)]) -> Program {
        outer.arg(BINARY);
        self.launch(outer, arguments, variables)
    }

    fn launch(&self, command: Command, arguments: &[&str], variables: &[(&str, &str)]) -> Program {
        let mut command = self.prepared(command, &[&["--log-format", "json"], arguments].concat());
        let mut child = command.envs(variables.iter().copied()).spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut program = Program { child, dns: unknown, admin: unknown, stderr, stdout };
        let ready = program.wait_for_log("ready", |line| line["message"] == "ready");
        let address = |key: &str| {
            let all = ready[key].as_str().unwrap();
            all.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(unknown)
        };
        (program.dns, program.admin) = (address("listen"), address("admin"));
        program
    }
}

/// Reads in the background, so that the program never waits for a reader.
fn collect(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let into = text.clone();
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            into.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    text
}

/// Polls until there is something.
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Program {
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// The first log line that `is_it` finds.
    pub fn wait_for_log(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || {
            let log = self.stderr();
            let found = log.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|line| is_it(line));
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("ended with {status} before {what}: {log}");
            }
            found
        })
    }

    /// The admin interface's address as an argument.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// Asks over UDP.
    pub fn ask(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(query, self.dns).unwrap();
        let mut reply = vec![0; 4096];
        let len = socket.recv(&mut reply).expect("an answer");
        reply.truncate(len);
        reply
    }

    /// A page of the admin interface: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http(self.admin, "GET", path)
    }

    /// JSON of the admin interface.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Its exit status, once it has ended.
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request: status and body.
pub fn http(server: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_string())
}
