//! A real Redis for tests: `redis-server` on a free port of 127.0.0.1, in a folder of its own, with nothing of this
//! machine's configuration, ended with the test.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, free_addr, temporary_path};

/// What a Redis that starts again knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Everything it had confirmed.
    Kept,
    /// Nothing.
    Emptied,
}

/// A `redis-server`, killed when dropped.
pub struct Redis {
    process: Option<Child>,
    addr: SocketAddr,
    folder: PathBuf,
    durable: bool,
    settings: Vec<String>,
}

impl Redis {
    /// A Redis that keeps nothing on disk.
    #[track_caller]
    pub fn start() -> Redis {
        let mut redis = Redis::absent(false);
        redis.launch();
        redis
    }

    /// A Redis that writes everything to disk before it confirms it.
    #[track_caller]
    pub fn durable() -> Redis {
        let mut redis = Redis::absent(true);
        redis.launch();
        redis
    }

    /// A Redis that keeps nothing on disk, with more settings than that, as its command line takes them.
    #[track_caller]
    pub fn with(settings: &[&str]) -> Redis {
        let mut redis = Redis::absent(false);
        redis.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        redis.launch();
        redis
    }

    /// The place of a Redis that does not run before [`restart`](Redis::restart).
    pub fn absent(durable: bool) -> Redis {
        let folder = temporary_path("redis");
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Redis { process: None, addr: free_addr(), folder, durable, settings: Vec::new() }
    }

    /// The URL for `--redis`.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("our own child can be killed");
            process.wait().expect("our own child can be waited for");
        }
    }

    /// Starts it on the same port, after a SIGKILL if it still runs. Returns once it answers.
    ///
    /// # Panics
    ///
    /// Where data is to be kept that was never written.
    #[track_caller]
    pub fn restart(&mut self, data: Data) {
        self.kill();
        match data {
            Data::Kept => assert!(self.durable, "only a durable Redis keeps its data"),
            Data::Emptied => {
                fs::remove_dir_all(&self.folder).expect("the folder is ours");
                fs::create_dir(&self.folder).expect("the folder is ours");
            }
        }
        self.launch();
    }

    /// Stops it with SIGSTOP: connections stay, answers do not come.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a stopped one go on.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Makes the commands of all clients wait for so many milliseconds.
    #[track_caller]
    pub fn pause_clients(&self, ms: u64) {
        assert_eq!(self.command(&["CLIENT", "PAUSE", &ms.to_string(), "ALL"]), "OK");
    }

    /// Closes every connection that subscribes to channels; how many there were.
    #[track_caller]
    pub fn kill_pubsub(&self) -> usize {
        let killed = self.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        killed.parse().unwrap_or_else(|_| panic!("CLIENT KILL: {killed}"))
    }

    /// Runs a command on a connection of its own: the answer, where it is an array its elements line by line.
    ///
    /// # Panics
    ///
    /// If nothing comes for ten seconds.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// True as long as it answers, or is loading its data.
    pub fn answers(&self) -> bool {
        self.try_command(&["PING"]).is_ok_and(|answer| answer == "PONG")
    }

    fn try_command(&self, words: &[&str]) -> io::Result<String> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        (&stream).write_all(request.as_bytes())?;
        let mut lines = Vec::new();
        read_reply(&mut BufReader::new(&stream), &mut lines)?;
        Ok(lines.join("\n"))
    }

    #[track_caller]
    fn launch(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut process = self.spawn();
        while !self.answers() {
            assert!(Instant::now() < deadline, "redis-server does not answer after {PATIENCE:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
            // Where something else had the port for a moment.
            if let Ok(Some(_)) = process.try_wait() {
                thread::sleep(Duration::from_millis(50));
                process = self.spawn();
            }
        }
        self.process = Some(process);
    }

    #[track_caller]
    fn spawn(&self) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &self.addr.ip().to_string(), "--port", &self.addr.port().to_string()]);
        command.args(["--daemonize", "no", "--save", "", "--appendfsync", "always", "--logfile", "redis.log"]);
        command.args(["--appendonly", if self.durable { "yes" } else { "no" }]);
        command
            .args(&self.settings)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| {
            panic!("redis-server does not start ({error}): run tests/run, or apt-get install redis-server")
        })
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("Redis should be running");
        kill_process(Pid::from_child(process), signal).expect("Redis should be running");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- Redis' log ----\n{}", self.log());
        }
        // What is left behind lies among the temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Reads one reply of RESP2 and adds its lines: one for each element, an empty one for nothing.
fn read_reply(reader: &mut impl BufRead, lines: &mut Vec<String>) -> io::Result<()> {
    let mut header = String::new();
    reader.read_line(&mut header)?;
    let header = header.trim_end();
    let (kind, rest) = header.split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = || rest.parse::<i64>().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    match kind {
        "+" | ":" => lines.push(rest.to_owned()),
        "-" => return Err(io::Error::other(rest.to_owned())),
        "$" => match usize::try_from(length()?) {
            Err(_) => lines.push(String::new()),
            Ok(bytes) => {
                let mut text = vec![0; bytes + 2];
                reader.read_exact(&mut text)?;
                lines.push(String::from_utf8_lossy(&text[..bytes]).into_owned());
            }
        },
        "*" => {
            for _ in 0..length()? {
                read_reply(reader, lines)?;
            }
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a reply {header:?}"))),
    }
    Ok(())
}
