//! `fanfare sub` when its connection ends: what it asks for when it comes back, and when it does not come back.

use fanfare_testing::{Client, Server};
use serde_json::{Value, json};

use crate::peer::{Peer, Proxy, Stage};
use crate::running::Running;
use crate::subscribing::position;
use crate::{KEEPS, url};

fn publish(client: &mut Client, room: &str, number: u64) {
    client.publish(json!({"type": "room_msg", "roomId": room, "content": number}));
}

fn content(line: &str) -> Value {
    serde_json::from_str::<Value>(line).expect("JSON")["content"].clone()
}

#[test]
fn what_came_while_it_was_away_is_printed_once_each() {
    let server = Server::start(&[KEEPS, &["--rooms.notice_members_max", "0"]].concat());
    let proxy = Proxy::to(server.addr());
    let mut publisher = Client::connect(&server, "alice");
    let (sub, _) = Running::subscribed(&["kept", "--url", &proxy.url(), "--json"]);
    let mut number = 0;
    for _ in 0..3 {
        for _ in 0..2 {
            number += 1;
            publish(&mut publisher, "kept", number);
            assert_eq!(content(&sub.line()), number);
        }
        proxy.cut();
        let lost = sub.note("; again in ");
        assert!(position(&lost).ends_with(&format!(":{number}")), "{lost}");
        assert!(!lost.contains("secret"), "{lost}");
        let missed = number + 1..=number + 3;
        for at in missed.clone() {
            publish(&mut publisher, "kept", at);
        }
        number += 3;
        proxy.mend();
        let joined = sub.note("joined kept again");
        assert!(joined.contains(&format!(":{number}, recovered: nothing is missing")), "{joined}");
        for at in missed {
            assert_eq!(content(&sub.line()), at);
        }
    }
    sub.interrupt();
    let ran = sub.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert!(position(&ran.err).ends_with(":15"), "{}", ran.err);
}

#[test]
fn a_room_without_history_is_joined_again_and_says_so() {
    let server = Server::start(&["--rooms.notice_members_max", "0"]);
    let proxy = Proxy::to(server.addr());
    let mut publisher = Client::connect(&server, "alice");
    let (sub, _) = Running::subscribed(&["den", "--url", &proxy.url(), "--json", "--last", "5"]);
    proxy.cut();
    sub.note("; again in ");
    publish(&mut publisher, "den", 1);
    proxy.mend();
    let joined = sub.note("joined den again");
    assert!(joined.contains("keeps no history, not recovered"), "{joined}");
    publish(&mut publisher, "den", 2);
    assert_eq!(content(&sub.line()), 2);
}

/// What this server keeps is in its memory: another run has other epochs.
#[test]
fn a_server_that_was_started_again_is_joined_again() {
    // An address of the test's own, so that nobody takes the port meanwhile.
    let settings = |listen: &'static str| [&["--listen", listen], KEEPS].concat();
    let server = Server::start(&settings("127.0.0.82:0"));
    let listen: &'static str = server.addr().to_string().leak();
    let url = url(&server);
    let (sub, first) = Running::subscribed(&["kept", "--url", &url, "--messages-only"]);
    publish(&mut Client::connect(&server, "alice"), "kept", 1);
    assert!(sub.line().ends_with(" alice: 1"));
    drop(server);
    sub.note("; again in ");

    let server = Server::start(&settings(listen));
    let joined = sub.note("joined kept again");
    assert!(joined.contains(":0, not recovered"), "{joined}");
    let epoch = |note: &str| position(note).rsplit_once(':').map(|(epoch, _)| epoch.to_owned());
    assert_ne!(epoch(&joined), epoch(&first));
    publish(&mut Client::connect(&server, "alice"), "kept", 2);
    assert!(sub.line().ends_with(" alice: 2"));

    drop(server);
    sub.note("; again in ");
    sub.interrupt();
    let ran = sub.end();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
}

/// Takes the join of a client and answers it with this place.
#[track_caller]
fn joined(peer: &mut Peer, offset: u64, recovered: Option<bool>) -> Value {
    let join = peer.recv();
    assert_eq!((&join["type"], &join["roomId"]), (&json!("join_room"), &json!("den")), "{join}");
    let mut answer = json!({"type": "joined", "id": join["id"], "roomId": "den", "epoch": "e", "offset": offset});
    if let Some(recovered) = recovered {
        answer["recovered"] = json!(recovered);
    }
    peer.send(&answer);
    join
}

fn message(content: u64) -> Value {
    json!({"type": "room_msg", "roomId": "den", "from": "a", "content": content, "time": 0, "offset": content})
}

#[test]
fn a_server_that_goes_away_says_when_to_come_back() {
    let stage = Stage::new();
    let sub = Running::start(&["sub", "den", "--url", &stage.url()]);
    let mut peer = stage.welcome();
    let join = joined(&mut peer, 3, None);
    assert!(join.get("since").is_none() && join.get("last").is_none(), "{join}");
    peer.send(&message(4));
    peer.close(1001, r#"{"retry_ms":7}"#);
    assert_eq!(sub.note("again in"), "fanfare: the server is going away (1001); again in 7 ms at --since e:4");
    let mut peer = stage.welcome();
    let join = joined(&mut peer, 4, Some(true));
    assert_eq!(join["since"], json!({"epoch": "e", "offset": 4}));
    sub.note("joined den again: --since e:4, recovered");
}

/// Messages of a recovery count as they come: a connection that ends in the middle of it is gone on from there.
#[test]
fn a_recovery_that_is_cut_off_goes_on_where_it_was() {
    let stage = Stage::new();
    let sub = Running::start(&["sub", "den", "--since", "e:1", "--url", &stage.url()]);
    let mut peer = stage.welcome();
    joined(&mut peer, 1, Some(true));
    sub.note("recovered");
    peer.close(4008, "too slow");
    sub.note("4008: too slow; again in");
    let mut peer = stage.welcome();
    assert_eq!(peer.recv()["since"]["offset"], 1);
    peer.send(&message(2));
    peer.send(&message(3));
    drop(peer);
    let lost = sub.note("; again in");
    assert!(lost.ends_with("at --since e:3"), "{lost}");
    let mut peer = stage.welcome();
    assert_eq!(joined(&mut peer, 4, Some(true))["since"]["offset"], 3);
}

#[test]
fn a_gap_is_told_and_moves_the_position() {
    let stage = Stage::new();
    let sub = Running::start(&["sub", "den", "--url", &stage.url(), "--json"]);
    let mut peer = stage.welcome();
    joined(&mut peer, 3, None);
    let gap = json!({"type": "gap", "roomId": "den", "epoch": "f", "offset": 9, "recovered": false});
    peer.send(&gap);
    assert_eq!(sub.note("gap"), "fanfare: gap in den, messages are missing; it goes on behind: --since f:9");
    assert_eq!(sub.line(), gap.to_string());
    peer.send(&message(10));
    drop(peer);
    assert!(sub.note("again in").ends_with("at --since f:10"));
    let mut peer = stage.welcome();
    assert_eq!(joined(&mut peer, 10, Some(true))["since"], json!({"epoch": "f", "offset": 10}));
}

#[test]
fn what_passes_is_waited_for_and_what_does_not_ends_it() {
    let stage = Stage::new();
    let sub = Running::start(&["sub", "den", "--url", &stage.url()]);
    let mut peer = stage.welcome();
    joined(&mut peer, 3, None);
    drop(peer);
    // Somebody without an answer, then a server whose history is away.
    drop(stage.accept());
    sub.note(" the handshake");
    let mut peer = stage.welcome();
    let join = peer.recv();
    peer.send(&json!({"type": "error", "id": join["id"], "code": "unavailable", "message": "try again"}));
    sub.note("the server refused it: unavailable: try again; again in");
    let mut peer = stage.welcome();
    let join = peer.recv();
    assert_eq!(join["since"]["offset"], 3);
    peer.send(&json!({"type": "error", "id": join["id"], "code": "forbidden", "message": "not you"}));
    let ran = sub.end();
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.err, "fanfare: left den: --since e:3\nfanfare: the server refused it: forbidden: not you\n");
}

#[test]
fn a_client_that_is_wrong_does_not_come_back() {
    let stage = Stage::new();
    let sub = Running::start(&["sub", "den", "--url", &stage.url()]);
    let mut peer = stage.welcome();
    joined(&mut peer, 3, None);
    sub.note("joined den");
    peer.close(4009, "replaced");
    let ran = sub.end();
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("fanfare: the server closed the connection with 4009: replaced\n"), "{}", ran.err);
}

/// Nothing has been printed that could be cut in half, so it need not wait for an answer that may not come.
#[test]
fn an_interrupt_ends_it_while_it_connects() {
    let stage = Stage::new();
    let sub = Running::start(&["sub", "den", "--url", &stage.url()]);
    let _silent = stage.accept();
    sub.interrupt();
    let ran = sub.end();
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""));
}
