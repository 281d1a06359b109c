//! The Redis and the nodes that are measured: on free ports, ended with their owner.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that a process may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

pub(super) struct Redis {
    child: Child,
    pub(super) port: u16,
}

impl Redis {
    pub(super) fn start() -> Redis {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port"]).arg(port.to_string());
        let child =
            start(command, port).expect("redis-server runs: on Debian and Ubuntu, apt-get install redis-server");
        Redis { child, port }
    }

    /// Of its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

pub(super) struct Node {
    child: Child,
    pub(super) port: u16,
}

impl Node {
    /// A node of this build.
    pub(super) fn start(redis: &Redis) -> Node {
        Node::start_with(Path::new(env!("CARGO_BIN_EXE_fanfare")), Some(redis), &["--room", "match=px.*,keyed=true"])
    }

    /// A node of any build, in a cluster or alone.
    pub(super) fn start_binary(binary: &Path, redis: Option<&Redis>) -> Node {
        Node::start_with(binary, redis, &[])
    }

    fn start_with(binary: &Path, redis: Option<&Redis>, settings: &[&str]) -> Node {
        let port = free_port();
        let mut command = Command::new(binary);
        command.arg("serve").arg("--listen").arg(format!("127.0.0.1:{port}"));
        if let Some(redis) = redis {
            command.arg("--redis").arg(format!("redis://127.0.0.1:{}/", redis.port));
        }
        command.args(settings).args(["--reactors", "1", "--pin", "none", "--room", "match=kept.*,history.size=1000"]);
        let child = start(command, port).expect("the node starts");
        Node { child, port }
    }

    /// Of its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn start(mut command: Command, port: u16) -> Option<Child> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if started.elapsed() > START_MAX {
            end(&mut child);
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(child)
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}
