//! A client's command that runs: its lines as they come, its notes, its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};

/// What a command said that has ended: exit code, stdout, stderr.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs `fanfare` to its end, with nothing on stdin.
#[track_caller]
pub fn fanfare(args: &[&str]) -> Ran {
    fanfare_with(args, b"")
}

/// Runs `fanfare` to its end, with nothing on stdin and these variables.
#[track_caller]
pub fn fanfare_in(env: &[(&str, &str)], args: &[&str]) -> Ran {
    Running::start_in(env, args).end()
}

/// Runs `fanfare` to its end.
#[track_caller]
pub fn fanfare_with(args: &[&str], stdin: &[u8]) -> Ran {
    let mut running = Running::start(args);
    // One that refuses its arguments does not read.
    let _ = running.stdin().write_all(stdin);
    running.end()
}

/// A command that runs, killed when dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Running {
    /// Starts `fanfare` with stdin open.
    pub fn start(args: &[&str]) -> Running {
        Running::start_in(&[], args)
    }

    /// Starts `fanfare` with stdin open and these variables.
    pub fn start_in(env: &[(&str, &str)], args: &[&str]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the fanfare binary should start");
        let stdin = child.stdin.take();
        let out = lines(child.stdout.take().expect("stdout is piped"));
        let err = lines(child.stderr.take().expect("stderr is piped"));
        Running { child, stdin, out, err }
    }

    /// Starts `fanfare sub` and waits until it is in the room. What it said then is the second of the two.
    #[track_caller]
    pub fn subscribed(args: &[&str]) -> (Running, String) {
        let running = Running::start(&[&["sub"], args].concat());
        let joined = running.note("joined ");
        (running, joined)
    }

    /// Its stdin.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().expect("stdin is open")
    }

    /// Takes its stdin, which then ends with what is taken.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin is open")
    }

    /// The most memory it has had, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") * 1024
    }

    /// The next line on stdout.
    #[track_caller]
    pub fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no line: {error}"))
    }

    /// The next line on stderr with this in it; those before it are dropped.
    #[track_caller]
    pub fn note(&self, wanted: &str) -> String {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(note) = self.err.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if note.contains(wanted) {
                return note;
            }
            seen.push(note);
        }
        panic!("stderr has no {wanted:?} but {seen:?}")
    }

    /// Sends SIGINT.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it should run");
    }

    /// Ends stdin and waits for the end.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        drop(self.stdin.take());
        let status = self.await_exit();
        let rest = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect();
        Ran { code: status.code(), out: rest(&self.out), err: rest(&self.err) }
    }

    #[track_caller]
    fn await_exit(&mut self) -> ExitStatus {
        // Longer than the command itself waits for anything.
        let deadline = Instant::now() + 3 * PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our own child can be waited for") {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it still runs; stderr: {:?}", self.err.try_iter().collect::<Vec<_>>())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}
