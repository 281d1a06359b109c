//! Standard error and standard output that are gone, full or stuck: nobody is disconnected for a log line.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::common::raw::{RawConn, status_of};
use crate::common::{Client, Server, Signal, eventually, free_addr, http_get, metric};

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

/// A burst of plain requests, each answered or, where there are too many, closed.
fn burst(server: &Server) {
    let mut conns: Vec<RawConn> = (0..REQUESTS).map(|_| RawConn::connect(server)).collect();
    for conn in &mut conns {
        conn.try_send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    }
}

/// Client, burst, and a clean end.
fn outlives(sink: Sink, log: &str) {
    let (mut server, _reader) = serve(sink, log, &["--reactors", "2"]);
    let mut client = Client::connect(&server, "alice");
    burst(&server);
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
        command.env("RUST_LOG", "trace").stderr(writer);
    };
    let mut server = Server::changed(change, &[]);
    let dropped = || metric(&server, "fanfare_log_lines_dropped_total");
    assert_eq!(dropped(), 0);
    eventually("the queue is full", || {
        burst(&server);
        dropped() > 0
    });
    let collect = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("the server's end is the log's");
        String::from_utf8_lossy(&text).into_owned()
    });
    // Each look costs lines, which are dropped while there is no room.
    let mut last = 0;
    eventually("there is room again", || std::mem::replace(&mut last, dropped()) == last);
    assert_eq!(dropped(), last, "nothing is lost any more");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    let log = collect.join().expect("the log is read");
    let telling = log.lines().rfind(|line| line.contains("log lines were dropped")).expect("it is told");
    assert!(telling.ends_with(&format!(" since_start={last}")) || telling.contains(&format!("={last} (")), "{telling}");
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
