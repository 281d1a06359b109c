//! Standard error and standard output that are gone, full or stuck: nobody is disconnected for a log line.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use fanfare_testing::raw::{RawConn, status_of};
use fanfare_testing::{Client, PATIENCE, Redis, Server, Signal, await_metric, eventually, free_addr, http_get, metric};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Plain requests at once: more than the control thread has places.
const REQUESTS: usize = 600;

/// What a server writes to, and what is to stay open for it.
struct Sink {
    stderr: Stdio,
    _reader: Option<PipeReader>,
}

fn gone() -> Sink {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    Sink { stderr: writer.into(), _reader: None }
}

fn full() -> Sink {
    Sink { stderr: dev_full().into(), _reader: None }
}

/// A pipe without room that nobody reads: a write waits for ever.
fn stuck() -> Sink {
    let (reader, writer) = filled_pipe();
    Sink { stderr: writer.into(), _reader: Some(reader) }
}

fn filled_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe");
    (reader, writer)
}

fn dev_full() -> File {
    File::options().write(true).open("/dev/full").expect("Linux has it")
}

fn serve(sink: Sink, log: &str, settings: &[&str]) -> (Server, Option<PipeReader>) {
    let Sink { stderr, _reader } = sink;
    let change = |command: &mut Command| {
        command.env("RUST_LOG", log).stderr(stderr);
    };
    (Server::changed(change, settings), _reader)
}

/// A request that only the control thread finds fault with: a line for each, whether it is refused or there are too many.
const BROKEN: &str = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n";

/// A burst of plain requests, each answered or, where there are too many, closed without an answer.
fn burst(server: &Server, request: &str) {
    let mut conns: Vec<TcpStream> = (0..REQUESTS)
        .map(|_| {
            let mut conn = TcpStream::connect(server.addr()).expect("the server should accept");
            conn.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
            conn.write_all(request.as_bytes()).expect("the request is taken");
            conn
        })
        .collect();
    for conn in &mut conns {
        // One that was closed with its request unread ends with an error.
        let mut answer = Vec::new();
        let ended = conn.read_to_end(&mut answer);
        assert!(ended.is_err() || answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{ended:?} {answer:?}");
        assert!(!matches!(ended, Err(error) if error.kind() == ErrorKind::WouldBlock), "it is still open");
    }
}

/// Client, burst, and a clean end.
fn outlives(sink: Sink, log: &str) {
    let (mut server, _reader) = serve(sink, log, &["--reactors", "2"]);
    let mut client = Client::connect(&server, "alice");
    burst(&server, "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    burst(&server, BROKEN);
    client.barrier();
    // Whatever the level, each node logs its start.
    assert_eq!(http_get(&server, "/health/live").status, 200);
    server.signal(Signal::TERM);
    assert_eq!(client.close_frame().0, 1001);
    drop(client);
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn a_log_without_a_reader_ends_nobody() {
    outlives(gone(), "info");
    outlives(gone(), "trace");
}

#[test]
fn a_log_on_a_full_disk_ends_nobody() {
    outlives(full(), "info");
    outlives(full(), "trace");
}

#[test]
fn a_log_that_is_stuck_ends_nobody() {
    outlives(stuck(), "info");
    outlives(stuck(), "trace");
}

#[test]
fn descriptors_that_run_out_without_a_log_end_nobody() {
    for sink in [gone(), full(), stuck()] {
        let (mut server, _reader) = serve(sink, "info", &[]);
        let mut client = Client::connect(&server, "alice");
        let few = Rlimit { current: Some(48), maximum: Some(48) };
        let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a process"));
        prlimit(pid, Resource::Nofile, few).expect("limits may be lowered");
        // The waiting ones are refused, and a line says so.
        let mut crowd: Vec<RawConn> = (0..100).map(|_| RawConn::connect(&server)).collect();
        assert_eq!(status_of(&crowd[99].read_head()), 503);
        client.barrier();
        server.signal(Signal::TERM);
        assert_eq!(client.close_frame().0, 1001);
        drop((client, crowd));
        assert_eq!(server.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_redis_that_is_lost_without_a_log_ends_nobody() {
    for sink in [gone(), stuck()] {
        let mut redis = Redis::start();
        let (mut server, _reader) = serve(sink, "info", &["--redis", &redis.url()]);
        await_metric(&server, "fanfare_cluster_reachable", 1);
        let mut client = Client::connect(&server, "alice");
        redis.kill();
        await_metric(&server, "fanfare_cluster_reachable", 0);
        server.signal(Signal::TERM);
        assert_eq!(client.close_frame().0, 1001);
        drop(client);
        assert_eq!(server.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_second_signal_does_not_wait_for_the_log() {
    let (mut server, _reader) = serve(stuck(), "trace", &["--drain.timeout", "1h"]);
    let mut silent = RawConn::connect_as(&server, "silent");
    server.signal(Signal::TERM);
    silent.read_frame().expect("a close frame");
    assert!(server.is_running());
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

/// Once the reader is back it is told how many it has missed.
#[test]
fn what_a_stuck_reader_missed_is_counted_and_told() {
    let (mut reader, writer) = filled_pipe();
    let change = |command: &mut Command| {
        command.env("RUST_LOG", "debug").stderr(writer);
    };
    let mut server = Server::changed(change, &[]);
    let dropped = || metric(&server, "fanfare_log_lines_dropped_total");
    assert_eq!(dropped(), 0);
    eventually("the queue is full", || {
        burst(&server, BROKEN);
        dropped() > 0
    });
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    let collect = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut chunk) {
            kept.lock().expect("no holder panics").extend_from_slice(&chunk[..count]);
        }
    });
    eventually("it is told", || {
        let told = format!("since_start={}", dropped());
        let log = log.lock().expect("no holder panics");
        String::from_utf8_lossy(&log)
            .lines()
            .any(|line| line.contains("log lines were dropped") && line.contains(&told))
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    collect.join().expect("the log is read to its end");
    let log = String::from_utf8_lossy(&log.lock().expect("no holder panics")).into_owned();
    assert!(log.contains("drained"), "the last lines come through: {log}");
}

#[test]
fn a_stdout_that_cannot_be_written_stops_no_start() {
    let (_reader, filled) = filled_pipe();
    let (unread, unreadable) = pipe().expect("a pipe");
    drop(unread);
    for stdout in [Stdio::from(dev_full()), Stdio::from(filled), Stdio::from(unreadable)] {
        let addr = free_addr().to_string();
        let change = |command: &mut Command| {
            command.stdout(stdout);
        };
        let mut server = Server::changed(change, &["--listen", &addr]);
        let mut client = Client::connect(&server, "alice");
        server.signal(Signal::TERM);
        assert_eq!(client.close_frame().0, 1001);
        drop(client);
        assert_eq!(server.wait_exit().code(), Some(0));
    }
}

/// Commands that print: a reader that has gone has seen enough, a full disk is an error of one line.
#[test]
fn commands_say_that_they_could_not_write() {
    let file = std::env::temp_dir().join(format!("fanfare-empty-{}.toml", std::process::id()));
    std::fs::write(&file, "").expect("a temporary file");
    let check = ["check", file.to_str().expect("a path in UTF-8")];
    for args in [&["config"][..], &["doctor"], &["--help"], &["serve", "--help"], &["--version"], &check] {
        let run = |stdout: Stdio, stderr: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
            command.args(args).env_clear().stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            let output = command.spawn().expect("the binary runs").wait_with_output().expect("it ends");
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, complaint) = run(dev_full().into(), Stdio::piped());
        assert_eq!((code, complaint.lines().count()), (Some(2), 1), "{args:?}: {complaint}");
        assert!(complaint.starts_with("fanfare: cannot write to stdout: "), "{args:?}: {complaint}");
        let (code, complaint) = run(gone().stderr, Stdio::piped());
        assert!(code < Some(2) && complaint.is_empty(), "{args:?}: {code:?} {complaint}");
        let (code, _) = run(dev_full().into(), dev_full().into());
        assert_eq!(code, Some(2), "{args:?}");
    }
    let refused = Command::new(env!("CARGO_BIN_EXE_fanfare")).arg("nonsense").stderr(gone().stderr).status();
    assert_eq!(refused.expect("the binary runs").code(), Some(2));
    std::fs::remove_file(file).expect("the file is ours");
}
