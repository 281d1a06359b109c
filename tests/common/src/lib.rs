//! What the end-to-end tests share: a running server, clients of it, and raw bytes on its port.
//!
//! [`Server`] runs the built `fanfare` binary, [`Cluster`] several of it with a [`Redis`] between them; [`Client`] speaks
//! WebSocket through tungstenite's own client side, and permessage-deflate through [`deflate`]; [`raw::RawConn`] writes
//! bytes that no client library would. Nothing here imports the `fanfare` crate: the tests see only what a client sees.

pub mod activation;
pub mod api;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod deflate;
pub mod front;
pub mod inflate;
pub mod items;
pub mod nginx;
pub mod raw;
pub mod redis;
pub mod tls_front;
mod tls_pump;
pub mod tls_tunnel;
mod wrapping;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use api::{ApiKey, ask_api};
pub use certificates::Certificates;
pub use client::Client;
pub use cluster::{Cluster, Way};
pub use front::{Front, Proxy};
pub use redis::{Data, Redis};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, prlimit, setrlimit};
pub use tls_front::TlsFront;
pub use tls_tunnel::TlsTunnel;
pub use wrapping::{hears_hangups, wrap};

pub use rustix::process::Signal;

/// The cases of a suite, functions of the number of reactors by their modules: each runs with one reactor and with two.
#[macro_export]
macro_rules! suite {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        mod one_reactor {
            $($(#[test] fn $case() { super::$module::$case(1); })*)*
        }
        mod two_reactors {
            $($(#[test] fn $case() { super::$module::$case(2); })*)*
        }
    };
}

/// How long any single step of a test may take before the test fails. Generous: a loaded machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the server's log kept for the output of a failed test; the older half goes where it would be more.
const LOG_BYTES_MAX: usize = 64 * 1024;

/// Where clients connect: one server, or the nodes of a cluster in turn.
pub trait Entrance {
    /// The address for the next connection.
    fn next_addr(&self) -> SocketAddr;

    /// The addresses of all nodes.
    fn addrs(&self) -> Vec<SocketAddr>;
}

impl Entrance for SocketAddr {
    fn next_addr(&self) -> SocketAddr {
        *self
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        vec![*self]
    }
}

impl Entrance for Server {
    fn next_addr(&self) -> SocketAddr {
        self.addr()
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        vec![self.addr()]
    }
}

/// A running `fanfare serve`, killed when dropped.
pub struct Server {
    child: Child,
    settings: Vec<String>,
    /// What stands behind `listening on`, one for each listener.
    listeners: Vec<String>,
    log: Arc<Mutex<String>>,
    log_reader: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a free loopback port with one unpinned reactor, changed by `settings`: flags as on
    /// the command line, such as `["--reactors", "2", "--limits.rooms_max", "128"]`. Returns once it listens.
    ///
    /// # Panics
    ///
    /// With the server's log, if it exits or says nothing for ten seconds.
    pub fn start(settings: &[&str]) -> Server {
        Server::run(command(settings), settings)
    }

    /// Like [`Server::start`], with a hard limit of so many descriptors.
    pub fn with_descriptors(descriptors: u32, settings: &[&str]) -> Server {
        let unlimited = command(settings);
        let mut limited = Command::new("sh");
        limited
            .arg("-c")
            .arg(format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""))
            .arg(unlimited.get_program())
            .args(unlimited.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Server::run(limited, settings)
    }

    /// From now on the process may have so many descriptors. What it has already stays.
    pub fn limit_descriptors(&self, descriptors: u64) {
        let limit = Rlimit { current: Some(descriptors), maximum: Some(descriptors) };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).expect("our own child can be limited");
    }

    /// Like [`Server::start`], with `RUST_LOG` set to `filter`.
    pub fn with_log(filter: &str, settings: &[&str]) -> Server {
        let mut command = command(settings);
        command.env("RUST_LOG", filter);
        Server::run(command, settings)
    }

    /// Like [`Server::start`], with what `change` makes of the command: other streams, another environment. Without a
    /// log where its stderr is not piped any more; where its stdout is not, there has to be a `--listen` with a port.
    pub fn changed(change: impl FnOnce(&mut Command), settings: &[&str]) -> Server {
        let mut command = command(settings);
        change(&mut command);
        Server::run(command, settings)
    }

    fn run(mut command: Command, settings: &[&str]) -> Server {
        raise_descriptor_limit();
        let mut child = command.spawn().expect("the fanfare binary should start");
        // What it holds of the child's streams would keep them open.
        drop(command);
        let log = Arc::new(Mutex::new(String::new()));
        let log_reader = child.stderr.take().map(|stderr| keep_log(stderr, Arc::clone(&log)));
        let lines = child.stdout.take().map(keep_lines);
        let settings_kept = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Server { child, settings: settings_kept, listeners: Vec::new(), log, log_reader };
        let listeners: Vec<&str> =
            settings.windows(2).filter(|pair| pair[0] == "--listen").map(|pair| pair[1]).collect();
        let is_own = |setting: &&&str| ["--admin.listen", "--api.listen"].contains(*setting);
        let for_operator = settings.iter().filter(is_own).count();
        match lines {
            Some(lines) => {
                // An entry for an address of `listen` says how that is served.
                let is_listed = |entry: &str| {
                    let address = entry.split(',').find_map(|pair| pair.strip_prefix("address="));
                    address.is_some_and(|address| listeners.contains(&address))
                };
                let entries = settings.windows(2).filter(|pair| pair[0] == "--listener" && !is_listed(pair[1])).count();
                server.await_listeners(&lines, listeners.len().max(1) + for_operator + entries);
            }
            None => {
                server.listeners = listeners.iter().map(|addr| format!("http://{addr}/")).collect();
                eventually("the server accepts", || TcpStream::connect(server.addr()).is_ok());
            }
        }
        server
    }

    /// A server with this many reactors and otherwise `settings`.
    pub fn with_reactors(reactors: usize, settings: &[&str]) -> Server {
        let reactors = reactors.to_string();
        let mut all = vec!["--reactors", reactors.as_str()];
        all.extend_from_slice(settings);
        Server::start(&all)
    }

    /// The address of the first TCP listener.
    pub fn addr(&self) -> SocketAddr {
        let listener = self.listeners.iter().find_map(|listener| listener.split_once("://")).expect("a TCP listener").1;
        listener.trim_end_matches('/').parse().unwrap_or_else(|error| panic!("`{listener}` is no address: {error}"))
    }

    /// What the server printed behind `listening on`, in order.
    pub fn listeners(&self) -> &[String] {
        &self.listeners
    }

    /// The WebSocket URL of a request target such as `/?userId=alice`.
    pub fn url(&self, path_and_query: &str) -> String {
        format!("ws://{}{path_and_query}", self.addr())
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the server's process.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server should be running");
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        // An error means that the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts another process with the same settings, and so on the same port if they name one. This one gets a SIGKILL
    /// if it still runs.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        let settings = std::mem::take(&mut self.settings);
        *self = Server::start(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Waits for the process to end; its log is complete then.
    ///
    /// # Panics
    ///
    /// If it is still there after ten seconds.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let status = await_exit(&mut self.child)
            .unwrap_or_else(|| panic!("the server still runs after {PATIENCE:?}:\n{}", self.log()));
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("the log reader should not panic");
        }
        status
    }

    /// True as long as the process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What the server has written to stderr so far (the newest 64 KiB).
    pub fn log(&self) -> String {
        self.log.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |log| log.clone())
    }

    fn await_listeners(&mut self, lines: &Receiver<String>, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.listeners.len() < count {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(listener) = line.strip_prefix("listening on ") {
                        self.listeners.push(listener.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} of {count} `listening on` lines after {PATIENCE:?}", self.listeners.len())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = await_exit(&mut self.child);
                    panic!("the server ended before it listened: {status:?}")
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- the server's log ----\n{}", self.log());
        }
    }
}

/// Runs another command of the binary to its end, without what the environment says of fanfare but `env`: its exit code,
/// stdout and stderr.
pub fn run_fanfare(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FANFARE_") {
            command.env_remove(name);
        }
    }
    let ran = command.args(args).envs(env.iter().copied()).stdin(Stdio::null()).output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
}

/// How a server that refused to start ended.
#[derive(Debug)]
pub struct Refusal {
    /// The exit code, `None` after a signal.
    pub code: Option<i32>,
    /// Everything it wrote to stderr.
    pub stderr: String,
}

/// Runs `fanfare serve` with `settings` that it should refuse, and waits for its end.
///
/// # Panics
///
/// If it has not ended after ten seconds.
pub fn refused_start(settings: &[&str]) -> Refusal {
    let mut child = command(settings).spawn().expect("the fanfare binary should start");
    let log = Arc::new(Mutex::new(String::new()));
    let reader = keep_log(child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
    let Some(status) = await_exit(&mut child) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the server accepted {settings:?} and runs");
    };
    reader.join().expect("the log reader should not panic");
    let stderr = log.lock().expect("the log reader has ended").clone();
    Refusal { code: status.code(), stderr }
}

/// Runs `fanfare serve`, which may be refused: the server once it says where it listens, or how it ended.
///
/// # Errors
///
/// How it ended.
pub fn try_start(settings: &[&str]) -> Result<Server, Refusal> {
    let mut child = command(settings).spawn().expect("the fanfare binary should start");
    let log = Arc::new(Mutex::new(String::new()));
    let log_reader = keep_log(child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
    let lines = keep_lines(child.stdout.take().expect("stdout is piped"));
    let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
    let mut server = Server { child, settings, listeners: Vec::new(), log, log_reader: Some(log_reader) };
    match lines.recv_timeout(PATIENCE) {
        Ok(line) => {
            server.listeners.push(line.trim_start_matches("listening on ").trim().to_owned());
            Ok(server)
        }
        Err(RecvTimeoutError::Timeout) => panic!("neither served nor refused after {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => {
            let code = server.wait_exit().code();
            Err(Refusal { code, stderr: server.log() })
        }
    }
}

/// An answer to a plain HTTP request.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// Status line and header lines.
    pub head: String,
    /// Everything behind the head.
    pub body: String,
}

/// `GET target` over a connection of its own, read until the server closes it.
pub fn http_get(server: &dyn Entrance, target: &str) -> HttpAnswer {
    let addr = server.next_addr();
    http_ask(&addr, &format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"))
}

/// The answer to a whole request over a connection of its own, read to its length, or until the server closes it.
pub fn http_ask(server: &dyn Entrance, request: &str) -> HttpAnswer {
    let stream = TcpStream::connect(server.next_addr()).expect("the server should accept");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    http_ask_over(stream, request)
}

/// The same over a connection of any kind.
pub fn http_ask_over(mut stream: impl Read + std::io::Write, request: &str) -> HttpAnswer {
    let line = request.lines().next().unwrap_or_default();
    stream.write_all(request.as_bytes()).expect("the request should be taken");
    let (mut answer, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    while !is_whole(&answer, line) {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) => panic!("{line}: {error}"),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: no complete head in {answer:?}"));
    HttpAnswer { status: raw::status_of(head), head: head.to_owned(), body: body.to_owned() }
}

/// Whether an answer to a request with this first line has all of its body.
fn is_whole(answer: &[u8], line: &str) -> bool {
    let Some(head_bytes) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..head_bytes]);
    let length = raw::header_of(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
    line.starts_with("HEAD ") || length.is_some_and(|length| answer.len() >= head_bytes + 4 + length)
}

/// The sum of a family's samples in the `/metrics` of all nodes.
#[track_caller]
pub fn metric(server: &dyn Entrance, family: &str) -> u64 {
    server.addrs().iter().map(|node| metric_in(&http_get(node, "/metrics").body, family)).sum()
}

/// The sum of a family's samples in a page of metrics that is there already.
#[track_caller]
pub fn metric_in(page: &str, family: &str) -> u64 {
    samples_in(page, family).reduce(|sum, sample| sum + sample).unwrap_or_else(|| panic!("no {family} in {page}"))
}

fn samples_in(page: &str, family: &str) -> impl Iterator<Item = u64> {
    page.lines().filter_map(move |line| match line.strip_prefix(family)? {
        rest if rest.starts_with(['{', ' ']) => rest.rsplit(' ').next()?.parse().ok(),
        _ => None,
    })
}

/// The samples of a family on `/metrics`: one for each reactor, in their order, or one for the node.
#[track_caller]
pub fn metric_samples(server: &Server, family: &str) -> Vec<u64> {
    let page = http_get(server, "/metrics").body;
    let samples: Vec<u64> = samples_in(&page, family).collect();
    assert!(!samples.is_empty(), "{family} is on the page");
    samples
}

/// Waits until the samples of a family add up to `expected`: a reactor publishes its own at the end of a turn.
///
/// # Panics
///
/// Where they come to more, or to less after ten seconds.
#[track_caller]
pub fn await_metric(server: &dyn Entrance, family: &str, expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found: u64 = metric(server, family);
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{family} is {found}, not {expected}, after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A connection on each of `reactors` reactors. The kernel spreads them, so `connect` is called until it came out so.
#[track_caller]
pub fn one_per_reactor(server: &Server, reactors: usize, connect: impl Fn() -> Client) -> Vec<Client> {
    let mut places: Vec<Option<Client>> = (0..reactors).map(|_| None).collect();
    for _ in 0..200 {
        if places.iter().all(Option::is_some) {
            break;
        }
        let before = metric_samples(server, "fanfare_connections");
        let client = connect();
        await_metric(server, "fanfare_connections", before.iter().sum::<u64>() + 1);
        let after = metric_samples(server, "fanfare_connections");
        let at = (0..reactors).find(|&at| after[at] > before[at]).expect("one reactor has it");
        if places[at].is_none() {
            places[at] = Some(client);
        } else {
            client.leave();
            await_metric(server, "fanfare_connections", before.iter().sum());
        }
    }
    places.into_iter().map(|place| place.expect("each reactor got one of 200 connections")).collect()
}

/// A path for a Unix socket that no other test uses, short enough for `sockaddr_un`.
pub fn socket_path() -> PathBuf {
    temporary_path("sock")
}

/// Removes what a killed server leaves of its socket.
pub fn remove_socket(path: &Path) {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    for left in [path.as_os_str(), &lock] {
        // It may not have come to that.
        let _ = std::fs::remove_file(left);
    }
}

/// A path among the temporary files that no other test uses.
pub fn temporary_path(extension: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("fanfare-{}-{serial}.{extension}", std::process::id()))
}

/// Ports for what is given one before it listens: below those that the kernel gives to connections.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Ports that a process takes at a time.
const BLOCK_PORTS: u16 = 50;

/// A loopback address that nothing uses, and that stays so for what ends and comes back to it: no other process of tests is
/// given its port, and this one gives each only once.
///
/// # Panics
///
/// Where no port is left.
pub fn free_addr() -> SocketAddr {
    static BLOCK: Mutex<std::ops::Range<u16>> = Mutex::new(0..0);
    let mut block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some(port) = block.next() else {
            *block = take_ports();
            continue;
        };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

/// Ports of this process alone until it ends: it holds the lock of a file for them.
fn take_ports() -> std::ops::Range<u16> {
    let blocks = (PORTS.end - PORTS.start) / BLOCK_PORTS;
    let first = std::process::id() % u32::from(blocks);
    for step in 0..blocks {
        let block = (first as u16 + step) % blocks;
        let path = std::env::temp_dir().join(format!("fanfare-ports-{block}"));
        let Ok(file) = File::options().create(true).truncate(false).write(true).open(path) else { continue };
        if file.try_lock().is_ok() {
            std::mem::forget(file);
            let from = PORTS.start + block * BLOCK_PORTS;
            return from..from + BLOCK_PORTS;
        }
    }
    panic!("no free ports between {} and {}", PORTS.start, PORTS.end);
}

/// Waits until something is true.
///
/// # Panics
///
/// With `what`, if it is not after ten seconds.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// The built `fanfare`: Cargo puts it one folder above the tests that run it, and builds it with them.
///
/// # Panics
///
/// Where it is not there.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.parent().and_then(Path::parent).expect("a test is two folders deep at least");
    let binary = profile.join("fanfare");
    assert!(binary.is_file(), "{} is missing: `cargo build` in the same profile makes it", binary.display());
    binary
}

fn command(settings: &[&str]) -> Command {
    let binary = binary();
    let mut command = Command::new(&binary);
    command
        .arg("serve")
        // Away from any configuration file of the sources.
        .current_dir(binary.parent().expect("a file is in a folder"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (flag, default) in [("--listen", "127.0.0.1:0"), ("--reactors", "1"), ("--pin", "none")] {
        if !settings.contains(&flag) {
            command.args([flag, default]);
        }
    }
    command.args(settings);
    command
}

fn await_exit(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

fn keep_log(stderr: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in lines_of(stderr) {
            let mut log = log.lock().expect("no holder of the log panics");
            log.push_str(&line);
            log.push('\n');
            if log.len() > LOG_BYTES_MAX {
                let half = log.len() / 2;
                let newline = log.as_bytes()[half..].iter().position(|byte| *byte == b'\n');
                let start = newline.map_or(log.len(), |at| half + at + 1);
                log.drain(..start);
            }
        }
    })
}

fn keep_lines(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in lines_of(stdout) {
            // Nobody listens any more once the server is up; reading on keeps its pipe from filling.
            let _ = sender.send(line);
        }
    });
    lines
}

fn lines_of(output: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(output).split(b'\n').map_while(Result::ok).map(|line| String::from_utf8_lossy(&line).into_owned())
}

/// A thousand connections have a thousand descriptors here and as many in the server, which inherits the limit.
fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("the soft limit may rise to the hard one");
    });
}
