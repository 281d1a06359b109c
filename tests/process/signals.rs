//! Signals beside SIGTERM and SIGINT.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use fanfare_testing::raw::RawConn;
use fanfare_testing::{Client, Server, Signal, eventually, hears_hangups, wrap};

/// A terminal that goes away sends it twice.
#[test]
fn sighup_ends_nothing() {
    let mut server = Server::changed(hears_hangups, &["--drain.timeout", "1h"]);
    let mut silent = RawConn::connect_as(&server, "silent");
    let mut client = Client::connect(&server, "alice");
    for _ in 0..20 {
        server.signal(Signal::HUP);
    }
    eventually("the signal is told of", || server.log().contains("SIGHUP"));
    client.barrier();
    server.signal(Signal::TERM);
    assert_eq!(client.close_frame().0, 1001);
    silent.read_frame().expect("a close frame");
    server.signal(Signal::HUP);
    eventually("one behind it is told of", || server.log().contains("signal ignored"));
    assert!(server.is_running());
    drop((client, silent));
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(server.log().contains("drained"), "{}", server.log());
}

#[test]
fn sigusr1_and_sigusr2_are_ignored_with_a_line() {
    let mut server = Server::start(&[]);
    let mut client = Client::connect(&server, "alice");
    // More than any queue of signals holds, and then the one that counts.
    for _ in 0..20 {
        server.signal(Signal::USR1);
        server.signal(Signal::USR2);
    }
    eventually("a line", || server.log().contains("signal ignored"));
    client.barrier();
    server.signal(Signal::TERM);
    assert_eq!(client.close_frame().0, 1001);
    drop(client);
    let status = server.wait_exit();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

/// `nohup` starts it with the signal ignored.
#[test]
fn an_ignored_sighup_stays_ignored() {
    let ignored = |command: &mut Command| wrap(command, "env", &["--ignore-signal=HUP"]);
    let server = Server::changed(ignored, &[]);
    let mut client = Client::connect(&server, "alice");
    server.signal(Signal::HUP);
    client.barrier();
    server.signal(Signal::USR1);
    eventually("the next signal is told of", || server.log().contains("SIGUSR1"));
    assert!(!server.log().contains("draining"), "{}", server.log());
    client.barrier();
}
