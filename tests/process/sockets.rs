//! The files of Unix sockets: whose they are, and when they go.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use fanfare_testing::raw::RawConn;
use fanfare_testing::{Client, Server, Signal, eventually, refused_start, socket_path, try_start};

/// A path, and the `--listen` for it.
fn place() -> (PathBuf, String) {
    let path = socket_path();
    let listen = format!("unix:{}", path.display());
    (path, listen)
}

fn connect(path: &Path) -> Client {
    let stream = UnixStream::connect(path).expect("the server should accept");
    let mut client = Client::over(Box::new(stream), "ws://localhost/?userId=alice").expect("an upgrade");
    client.take_welcome();
    client
}

fn lock_of(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

/// A server that has begun to drain, which a client that does not answer holds.
fn draining(listen: &str) -> (Server, RawConn) {
    let server = Server::start(&["--listen", "127.0.0.1:0", "--listen", listen, "--drain.timeout", "1h"]);
    let mut silent = RawConn::connect_as(&server, "silent");
    server.signal(Signal::TERM);
    silent.read_frame().expect("a close frame");
    (server, silent)
}

#[test]
fn the_next_process_serves_while_the_last_one_drains() {
    let (path, listen) = place();
    let (mut last, _silent) = draining(&listen);
    eventually("the path is free", || !path.exists());
    let mut next = Server::start(&["--listen", &listen]);
    connect(&path).barrier();
    assert!(last.is_running());
    last.signal(Signal::TERM);
    assert_eq!(last.wait_exit().code(), Some(0));
    connect(&path).barrier();
    next.signal(Signal::TERM);
    assert_eq!(next.wait_exit().code(), Some(0));
    assert!(!path.exists() && !lock_of(&path).exists(), "nothing is left");
}

#[test]
fn a_file_that_was_put_there_stays() {
    let (path, listen) = place();
    let mut server = Server::start(&["--listen", &listen]);
    fs::remove_file(&path).expect("the socket is there");
    fs::write(&path, "mine").expect("a temporary file");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "mine");
    let refusal = refused_start(&["--listen", &listen]);
    assert_eq!((refusal.code, refusal.stderr.lines().count()), (Some(2), 1), "{refusal:?}");
    assert!(refusal.stderr.contains("what stands there is no socket"), "{refusal:?}");
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "mine");
    fs::remove_file(&path).expect("the file is ours");
}

#[test]
fn of_two_that_start_at_once_over_a_stale_path_one_serves() {
    let (path, listen) = place();
    for _ in 0..10 {
        drop(UnixListener::bind(&path).expect("a free path"));
        let starts: Vec<_> = (0..2)
            .map(|_| {
                let listen = listen.clone();
                std::thread::spawn(move || try_start(&["--listen", &listen]))
            })
            .collect();
        let (mut served, mut refused) = (Vec::new(), Vec::new());
        for start in starts {
            match start.join().expect("a start does not panic") {
                Ok(server) => served.push(server),
                Err(refusal) => refused.push(refusal),
            }
        }
        assert_eq!((served.len(), refused.len()), (1, 1), "{refused:?}");
        assert!(refused[0].code == Some(2) && refused[0].stderr.contains("is in use"), "{refused:?}");
        connect(&path).barrier();
        served[0].signal(Signal::TERM);
        assert_eq!(served[0].wait_exit().code(), Some(0));
        assert!(!path.exists() && !lock_of(&path).exists(), "nothing is left");
    }
}

/// A proxy that runs as another user gets in through its group.
#[test]
fn a_socket_has_the_mode_and_group_it_is_given() {
    // Only root may give a file to a group that it is not in.
    let group = if rustix::process::geteuid().is_root() { 1 } else { rustix::process::getgid().as_raw() };
    for (settings, mode) in [(vec![], 0o660), (vec!["--unix.mode", "0666"], 0o666)] {
        let (path, listen) = place();
        let own = group.to_string();
        let mut all = vec!["--listen", &listen, "--unix.group", &own];
        all.extend(settings);
        let mut server = Server::start(&all);
        let file = fs::symlink_metadata(&path).expect("the socket is there");
        assert!(file.file_type().is_socket());
        assert_eq!((file.mode() & 0o7777, file.gid()), (mode, group));
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit().code(), Some(0));
    }
    let (path, listen) = place();
    let refusal = refused_start(&["--listen", &listen, "--unix.group", "no such group"]);
    assert_eq!((refusal.code, refusal.stderr.lines().count()), (Some(2), 1), "{refusal:?}");
    assert!(refusal.stderr.contains("there is no such group"), "{refusal:?}");
    assert!(!path.exists() && !lock_of(&path).exists(), "nothing is left");
}

#[test]
fn a_mapped_address_is_served() {
    let server = Server::start(&["--listen", "[::ffff:127.0.0.1]:0"]);
    assert!(server.listeners()[0].starts_with("http://127.0.0.1:"), "{:?}", server.listeners());
    Client::connect(&server, "alice").barrier();
}
