//! An operator's orders, given by a command beside the nodes.

use std::fs;

use fanfare_testing::raw::RawConn;
use fanfare_testing::{Client, Cluster, Redis, free_addr, run_fanfare, temporary_path};
use serde_json::json;

use crate::{PLAIN, room_msg};

/// Connections of a user on each of two nodes, two on the second.
fn connections(cluster: &Cluster, user: &str) -> Vec<Client> {
    [0, 1, 1].map(|node| Client::connect(&cluster.at(node), user)).into()
}

#[test]
fn a_user_is_disconnected_on_all_nodes() {
    let cluster = Cluster::start(2, PLAIN);
    let alices = connections(&cluster, "alice");
    let mut bobs = connections(&cluster, "bob");
    let ran = run_fanfare(&["disconnect", "alice", "--redis", &cluster.redis().url()], &[]);
    assert_eq!(ran, (Some(0), "2 nodes have heard it\n".to_owned(), String::new()));
    for mut alice in alices {
        assert_eq!(alice.close_frame(), (1008, "disconnected".to_owned()));
    }
    let mut back = Client::connect(&cluster.at(0), "alice");
    bobs[2].publish(json!({"type": "private_msg", "toUser": "alice", "content": "again?"}));
    assert_eq!(back.recv_type("private_msg")["content"], "again?");
    bobs.iter_mut().for_each(|bob| bob.nothing_for(20));
}

/// A raw room has no table of users, and its members no inbox: who is locked out is locked out of it all the same, on every
/// reactor of every node, where a token has named the user.
#[test]
fn a_user_is_disconnected_from_raw_rooms_on_all_nodes() {
    let secret = temporary_path("secret");
    fs::write(&secret, "a secret of the tests, of more than 32 bytes").unwrap();
    let key = format!("alg=HS256,secret_file={}", secret.display());
    let cluster = Cluster::start(2, &[PLAIN, &["--auth.key", &key, "--auth.anonymous"]].concat());
    let token = |user: &str| {
        let made = run_fanfare(&["token", "--sub", user, "--join", "*", "--publish", "*", "--auth.key", &key], &[]);
        assert_eq!((made.0, made.2.as_str()), (Some(0), ""));
        made.1.trim_end().to_owned()
    };
    let (alice, bob) = (token("alice"), token("bob"));
    fs::remove_file(&secret).unwrap();
    let raw = |node: usize, token: &str| RawConn::upgrade(&cluster.at(node), &format!("/raw/den?token={token}"));
    // More than one on each reactor, however the kernel spreads them.
    let nodes: Vec<usize> = (0..16).map(|at| at % 2).collect();
    let alices: Vec<RawConn> = nodes.iter().map(|node| raw(*node, &alice)).collect();
    let mut bobs: Vec<RawConn> = nodes.iter().map(|node| raw(*node, &bob)).collect();
    let mut json = Client::greeted(&cluster.at(0), &format!("/ws?token={alice}"));
    let ran = run_fanfare(&["disconnect", "alice", "--redis", &cluster.redis().url()], &[]);
    assert_eq!(ran, (Some(0), "2 nodes have heard it\n".to_owned(), String::new()));
    for mut alice in alices {
        alice.expect_close(1008, "disconnected");
    }
    assert_eq!(json.close_frame(), (1008, "disconnected".to_owned()));
    bobs[0].send_frame(0x82, b"who is left?");
    for bob in &mut bobs[1..] {
        let frame = bob.read_frame().expect("it is open");
        assert_eq!((frame.first, &frame.payload[..]), (0x82, &b"who is left?"[..]));
    }
    bobs.iter_mut().for_each(RawConn::nothing_more);
}

#[test]
fn a_user_is_removed_from_a_room_on_all_nodes() {
    let cluster = Cluster::start(2, &[]);
    let mut alices = connections(&cluster, "alice");
    let mut bobs = connections(&cluster, "bob");
    // Each notice of a join goes to members that are there already and to the joiner; none is awaited here.
    alices.iter_mut().chain(&mut bobs).for_each(|client| drop(client.join("den")));
    alices[0].join("other");
    let settings = [("FANFARE_REDIS_URL", &*cluster.redis().url())];
    let ran = run_fanfare(&["kick", "den", "alice", "--reason", "be \"nice\""], &settings);
    assert_eq!(ran, (Some(0), "2 nodes have heard it\n".to_owned(), String::new()));
    for alice in &mut alices {
        assert_eq!(alice.expect_type("left"), json!({"type": "left", "roomId": "den", "reason": "be \"nice\""}));
    }
    for bob in &mut bobs {
        for _ in &alices {
            let leave = bob.expect(|message| message["event"] == "leave");
            assert_eq!((&leave["userId"], &leave["roomId"]), (&json!("alice"), &json!("den")));
        }
        bob.publish(room_msg("den", "who is left?"));
        bob.publish(room_msg("other", "you"));
    }
    // Nothing of the room, and all of the other one.
    for number in 0..bobs.len() {
        let message = alices[0].recv_type("room_msg");
        assert_eq!((&message["roomId"], &message["content"]), (&json!("other"), &json!("you")), "message {number}");
    }
    alices.iter_mut().for_each(|alice| alice.nothing_for(20));
    alices[0].join("den");
    bobs[1].publish(room_msg("den", "welcome back"));
    assert_eq!(alices[0].expect_type("room_msg")["content"], "welcome back");
}

#[test]
fn an_order_that_nobody_hears_is_told() {
    let redis = Redis::start();
    let url = redis.url();
    let cluster = Cluster::at_url(&url, 1, PLAIN);
    cluster.await_ready();
    let mut alice = Client::connect(&cluster.at(0), "alice");
    let told = |args: &[&str]| {
        let (code, out, err) = run_fanfare(args, &[("FANFARE_REDIS_URL", &url)]);
        assert_eq!((out.as_str(), err.lines().count()), ("", 1), "{err}");
        (code, err)
    };
    let (code, err) = told(&["disconnect", "alice", "--redis.prefix", "another"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("fanfare: no node has heard it: none is connected to this Redis"), "{err}");
    let (code, err) = told(&["kick", "den", "alice"]);
    assert_eq!(code, Some(1));
    assert!(err.ends_with("has a member of the room\n"), "{err}");
    alice.nothing_for(20);
    let nowhere = format!("redis://:geheim@{}/", free_addr());
    let (code, err) = told(&["disconnect", "alice", "--redis", &nowhere]);
    assert_eq!(code, Some(1));
    assert!(err.contains("Connection refused") && !err.contains("geheim"), "{err}");
}
