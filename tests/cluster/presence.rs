//! Who is in a room, over all nodes.

use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::{Client, Cluster, PATIENCE, eventually, http_get};
use serde_json::{Value, json};

use crate::{PLAIN, users_of};

/// Asks until a presence of `den` is `wanted`. Every answer until then must name each user once, and count them.
#[track_caller]
fn await_presence(asker: &mut Client, what: &str, wanted: impl Fn(&Value, &[String]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let presence = asker.request(json!({"type": "presence", "roomId": "den"}));
        let users = users_of(&presence);
        assert!(users.windows(2).all(|pair| pair[0] != pair[1]), "each user once: {presence}");
        assert!(presence["truncated"] == true || presence["count"] == users.len(), "{presence}");
        if wanted(&presence, &users) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} should be present, but {presence}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn are_present(cluster: &Cluster, nodes: &[usize], expected: &[&str]) {
    for &node in nodes {
        let mut asker = Client::connect(&cluster.at(node), "asker");
        await_presence(&mut asker, &format!("{expected:?}"), |_, users| users == expected);
    }
}

fn member(cluster: &Cluster, node: usize, user: &str) -> Client {
    let mut client = Client::connect(&cluster.at(node), user);
    client.join("den");
    client
}

#[test]
fn each_user_counts_once_over_all_nodes() {
    let cluster = Cluster::start(3, PLAIN);
    let all = [0, 1, 2];
    are_present(&cluster, &all, &[]);
    let mut alices: Vec<Client> = [0, 1, 2, 2].map(|node| member(&cluster, node, "alice")).into();
    let mut bobs = [0, 2].map(|node| member(&cluster, node, "bob"));
    let carol = member(&cluster, 1, "carol");
    are_present(&cluster, &all, &["alice", "bob", "carol"]);
    carol.leave();
    bobs[0].publish(json!({"type": "leave_room", "roomId": "den"}));
    are_present(&cluster, &all, &["alice", "bob"]);
    bobs[1].publish(json!({"type": "leave_room", "roomId": "den"}));
    while alices.len() > 1 {
        alices.remove(0).leave();
        are_present(&cluster, &all, &["alice"]);
    }
    // Without a goodbye.
    drop(alices);
    are_present(&cluster, &all, &[]);
}

#[test]
fn the_users_of_a_killed_node_disappear() {
    let mut cluster = Cluster::start(3, PLAIN);
    let members =
        [(0, "both"), (1, "both"), (1, "killed"), (2, "stays")].map(|(node, user)| member(&cluster, node, user));
    are_present(&cluster, &[0, 1, 2], &["both", "killed", "stays"]);
    cluster.kill(1);
    are_present(&cluster, &[0, 2], &["both", "stays"]);
    cluster.restart(1);
    cluster.await_ready();
    are_present(&cluster, &[0, 1, 2], &["both", "stays"]);
    let back = member(&cluster, 1, "killed");
    are_present(&cluster, &[0, 1, 2], &["both", "killed", "stays"]);
    drop((members, back));
    are_present(&cluster, &[0, 1, 2], &[]);
}

/// A node that stands still is as good as gone, until it goes on.
#[test]
fn the_users_of_a_stopped_node_come_back_with_it() {
    let cluster = Cluster::start(2, PLAIN);
    let _members = [(0, "stays"), (1, "stopped")].map(|(node, user)| member(&cluster, node, user));
    are_present(&cluster, &[0, 1], &["stays", "stopped"]);
    cluster.stop(1);
    are_present(&cluster, &[0], &["stays"]);
    cluster.cont(1);
    are_present(&cluster, &[0, 1], &["stays", "stopped"]);
}

/// More than a presence names, some of them on both nodes.
#[test]
fn a_crowd_is_counted_over_nodes() {
    const USERS: usize = 1_051;
    let cluster = Cluster::start(2, PLAIN);
    let _members: Vec<Client> =
        (0..1_200).map(|at| member(&cluster, at % 2, &format!("user-{}", at % USERS))).collect();
    for node in 0..2 {
        let mut asker = Client::connect(&cluster.at(node), "asker");
        await_presence(&mut asker, "everybody", |presence, users| {
            presence["count"] == USERS && presence["truncated"] == true && users.len() == 1_000
        });
    }
}

/// The last leaves of a node that goes away still reach the others.
#[test]
fn a_node_that_goes_away_says_who_leaves() {
    let cluster = Cluster::start(2, &[]);
    let mut stays = member(&cluster, 1, "stays");
    let _leaving: Vec<Client> = (0..20).map(|number| member(&cluster, 0, &format!("user{number}"))).collect();
    let mut joined = 0;
    while joined < 21 {
        joined += usize::from(stays.recv_type("system")["event"] == "join");
    }
    cluster.drain(0);
    let mut left: Vec<String> = (0..20)
        .map(|_| {
            let notice = stays.recv_type("system");
            assert_eq!(notice["event"], "leave");
            notice["userId"].as_str().unwrap_or_default().to_owned()
        })
        .collect();
    left.sort_unstable();
    left.dedup();
    assert_eq!(left.len(), 20);
}

/// What an operator sees of each node on any of them.
#[test]
fn every_node_tells_the_others_how_it_is() {
    let cluster = Cluster::start(2, PLAIN);
    let _members = [member(&cluster, 0, "alice"), member(&cluster, 0, "bob"), member(&cluster, 1, "carol")];
    for node in 0..2 {
        eventually("both nodes with their connections", || {
            let stats: Value = serde_json::from_str(&http_get(&cluster.at(node), "/stats").body).expect("JSON");
            let nodes = stats["cluster"]["nodes"].as_array().expect("nodes").clone();
            let mut connections: Vec<u64> =
                nodes.iter().map(|node| node["connections"].as_u64().expect("a number")).collect();
            connections.sort_unstable();
            let own = nodes.iter().filter(|node| node["own"] == true).count();
            let is_measured = nodes.iter().all(|node| node["resident_bytes"].as_u64() > Some(0));
            connections == [1, 2] && own == 1 && nodes[0]["own"] == true && is_measured
        });
    }
}
