//! Raw keyed rooms: items and payloads in binary messages.

use std::time::Duration;

use fanfare_testing::{Client, Entrance, Server};
use tungstenite::Message;

const KEYED: &str = "match=raw/px*,keyed=true";

/// A message of a raw keyed room, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Update {
    seq: u64,
    offset: u64,
    item: String,
    payload: Vec<u8>,
}

fn update(seq: u64, offset: u64, item: &str, payload: &[u8]) -> Update {
    Update { seq, offset, item: item.to_owned(), payload: payload.to_owned() }
}

fn recv(client: &mut Client) -> Update {
    let Message::Binary(bytes) = client.recv() else { panic!("a raw keyed room sends binary messages") };
    let number = |from: usize| u64::from_be_bytes(bytes[from..from + 8].try_into().unwrap());
    let end = 18 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    let item = String::from_utf8(bytes[18..end].to_vec()).unwrap();
    Update { seq: number(0), offset: number(8), item, payload: bytes[end..].to_vec() }
}

/// The end of the snapshot: whether it was recovered, the position's offset, and its epoch.
fn recv_end(client: &mut Client) -> (bool, u64, String) {
    let Update { seq, offset, item, payload } = recv(client);
    assert!(item.is_empty() && seq <= 1, "the end of the snapshot names no item");
    (seq == 1, offset, String::from_utf8(payload).unwrap())
}

fn bytes(item: &str, payload: &[u8]) -> Vec<u8> {
    [&(item.len() as u16).to_be_bytes(), item.as_bytes(), payload].concat()
}

fn send(client: &mut Client, item: &str, payload: &[u8]) {
    client.send_message(Message::binary(bytes(item, payload)));
}

/// A member of the room `px` that has been sent the snapshot, of which it wants none.
fn member(server: &dyn Entrance) -> Client {
    let mut client = Client::open(server, "/raw/px");
    recv_end(&mut client);
    client
}

/// What one sends, another gets: then all before it is stored.
fn publish(from: &mut Client, to: &mut Client, updates: &[(&str, &[u8])]) -> Vec<Update> {
    updates.iter().for_each(|(item, payload)| send(from, item, payload));
    updates.iter().map(|_| recv(to)).collect()
}

pub(super) fn a_snapshot_its_end_and_what_is_newer_come_in_order(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", KEYED]);
    let (mut feed, mut all) = (member(&server), member(&server));
    let every_byte: Vec<u8> = (0..=255).collect();
    let seen = publish(&mut feed, &mut all, &[("a", b"1"), ("b", &every_byte), ("c", b"3"), ("a", b"4"), ("c", b"")]);
    let expected =
        [(1, 1, "a", &b"1"[..]), (1, 2, "b", &every_byte), (1, 3, "c", b"3"), (2, 4, "a", b"4"), (2, 5, "c", b"")];
    assert_eq!(seen, expected.map(|(seq, offset, item, payload)| update(seq, offset, item, payload)));
    // Several, so that some are on a reactor that has no members yet.
    for _ in 0..4 {
        let mut late = Client::open(&server, "/raw/px?mode=latest");
        assert_eq!(recv(&mut late), update(1, 2, "b", &every_byte), "in the order of the last change");
        assert_eq!(recv(&mut late), update(2, 4, "a", b"4"), "a removed item is in no snapshot");
        let (is_recovered, offset, epoch) = recv_end(&mut late);
        assert_eq!((is_recovered, offset), (false, 5));
        assert!(!epoch.is_empty());
        late.leave();
    }
    let mut late = Client::open(&server, "/raw/px?mode=latest&interval=10");
    (0..2).for_each(|_| drop(recv(&mut late)));
    recv_end(&mut late);
    send(&mut late, "own", b"x");
    assert_eq!(recv(&mut late), update(1, 6, "own", b"x"), "its own updates too");
    send(&mut feed, "c", b"7");
    assert_eq!(recv(&mut late), update(3, 7, "c", b"7"), "its seq goes on while the removal is remembered");
}

pub(super) fn every_update_but_ones_own_comes_where_nothing_is_said(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", KEYED]);
    let (mut feed, mut other) = (member(&server), member(&server));
    for at in 1..=200_u64 {
        send(&mut feed, "a", &at.to_be_bytes());
    }
    // Text is taken as its bytes.
    feed.send_message(Message::text(String::from_utf8(bytes("a", b"last")).unwrap()));
    for at in 1..=200_u64 {
        assert_eq!(recv(&mut other), update(at, at, "a", &at.to_be_bytes()));
    }
    assert_eq!(recv(&mut other), update(201, 201, "a", b"last"));
    send(&mut other, "b", b"x");
    assert_eq!(recv(&mut feed), update(1, 202, "b", b"x"), "none of its own came");
    other.nothing_for(20);
}

pub(super) fn who_comes_back_gets_what_has_changed(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", KEYED]);
    let (mut feed, mut all) = (member(&server), member(&server));
    publish(&mut feed, &mut all, &[("a", b"1"), ("b", b"2"), ("c", b"3"), ("a", b"4"), ("c", b"")]);
    let (_, _, epoch) = recv_end(&mut Client::open(&server, "/raw/px"));
    for mode in ["all", "latest"] {
        let mut back = Client::open(&server, &format!("/raw/px?mode={mode}&since={epoch}%3A3"));
        assert_eq!(recv(&mut back), update(2, 4, "a", b"4"));
        assert_eq!(recv(&mut back), update(2, 5, "c", b""), "a removal is a change");
        assert_eq!(recv_end(&mut back), (true, 5, epoch.clone()));
        let mut back = Client::open(&server, &format!("/raw/px?mode={mode}&since={epoch}:5"));
        assert_eq!(recv_end(&mut back), (true, 5, epoch.clone()));
        for unknown in [format!("{epoch}:6"), "another:3".to_owned()] {
            let mut back = Client::open(&server, &format!("/raw/px?mode={mode}&since={unknown}"));
            assert_eq!(recv(&mut back), update(1, 2, "b", b"2"), "{mode}: a whole snapshot");
            assert_eq!(recv(&mut back), update(2, 4, "a", b"4"));
            assert_eq!(recv_end(&mut back), (false, 5, epoch.clone()));
        }
    }
}

pub(super) fn items_are_named_in_the_query(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", KEYED]);
    let (mut feed, mut all) = (member(&server), member(&server));
    publish(&mut feed, &mut all, &[("a", b"1"), ("b", b"2"), ("fx.eur", b"3"), ("é", b"4")]);
    let mut some = Client::open(&server, "/raw/px?mode=latest&items=fx.*%2Ca,%C3%A9");
    let got: Vec<String> = (0..3).map(|_| recv(&mut some).item).collect();
    assert_eq!(got, ["a", "fx.eur", "é"]);
    recv_end(&mut some);
    let mut each = Client::open(&server, "/raw/px?items=b");
    recv_end(&mut each);
    let mut none = Client::open(&server, "/raw/px?mode=latest&items=");
    recv_end(&mut none);
    publish(&mut feed, &mut all, &[("b", b"5"), ("fx.usd", b"6"), ("b", b"7")]);
    assert_eq!(recv(&mut some), update(1, 6, "fx.usd", b"6"));
    assert_eq!([recv(&mut each), recv(&mut each)], [update(2, 5, "b", b"5"), update(3, 7, "b", b"7")]);
    none.nothing_for(20);
}

pub(super) fn what_is_no_update_ends_the_connection(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", KEYED]);
    let mut other = member(&server);
    let long = bytes(&"x".repeat(129), b"1");
    let malformed: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"\0\x01", b"\0\x02a", b"\0\x02\xc3\x28", b"\0\x02a*1", &long];
    for malformed in malformed {
        let mut client = member(&server);
        send(&mut client, &"x".repeat(128), b"1");
        assert_eq!(recv(&mut other).payload, b"1", "what came before is published");
        client.send_message(Message::binary(malformed.to_vec()));
        let (code, reason) = client.close_frame();
        assert_eq!(code, 1008, "{malformed:?}");
        assert!(reason.contains("item"), "{reason}");
    }
    other.nothing_for(20);
}

pub(super) fn one_item_too_many_ends_the_connection(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", &format!("{KEYED},items.max=2")]);
    let mut other = member(&server);
    for offset in 1..=4 {
        // On each reactor one.
        let mut feed = member(&server);
        publish(&mut feed, &mut other, &[(["a", "b"][offset % 2], b"1")]);
        if offset > 1 {
            send(&mut feed, "c", b"1");
            let (code, reason) = feed.close_frame();
            assert_eq!(code, 1013);
            assert!(reason.contains("items"), "{reason}");
        }
    }
    let mut feed = member(&server);
    publish(&mut feed, &mut other, &[("a", b""), ("c", b"1")]);
}

pub(super) fn options_that_mean_nothing_are_refused(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", KEYED, "--limits.items_bytes_max", "1KiB"]);
    let long: Vec<String> = (0..9).map(|at| format!("{at}{}", "x".repeat(127))).collect();
    let long = long.join(",");
    for bad in
        ["mode=newest", "interval=soon", "items=a,,b", "items=a*b", "since=7", "items=%FF", &format!("items={long}")]
    {
        let refused = Client::try_open(&server, &format!("/raw/px?{bad}"));
        assert_eq!(refused.err().map(|rejection| rejection.status), Some(400), "{bad}");
        let mut plain = Client::open(&server, &format!("/raw/den?{bad}"));
        assert!(plain.try_recv(Duration::from_millis(1)).is_none(), "elsewhere they have no meaning");
    }
    member(&server);
}

pub(super) fn other_raw_rooms_pass_bytes_on(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--room", KEYED]);
    let mut echoing = Client::open(&server, "/raw/den?echo=1&mode=latest");
    for message in [Message::binary(bytes("a", b"1")), Message::text("x"), Message::binary(Vec::new())] {
        echoing.send_message(message.clone());
        assert_eq!(echoing.recv(), message);
    }
    // A keyed one has no echo.
    let mut keyed = Client::open(&server, "/raw/px?echo=1");
    recv_end(&mut keyed);
    send(&mut keyed, "a", b"1");
    keyed.nothing_for(20);
}
