//! Two nodes and a real Redis: an edge is one of the whole cluster.

use fanfare_testing::{Client, Cluster, Data, Redis, eventually, metric};
use serde_json::json;

use super::receiver::{Came, Receiver, Reply};
use super::webhook;

fn start(receiver: &Receiver) -> Cluster {
    Cluster::start(2, &["--webhook", &webhook(receiver, "")])
}

/// The node that delivers.
#[track_caller]
fn teller(cluster: &Cluster) -> usize {
    let is_teller = |node: &usize| metric(&cluster.at(*node), "fanfare_webhook_teller") == 1;
    let mut found = None;
    eventually("one node delivers", || {
        found = (0..cluster.nodes_count()).find(is_teller);
        found.is_some()
    });
    found.expect("one was found")
}

#[test]
fn an_edge_is_one_of_the_whole_cluster() {
    let receiver = Receiver::start();
    let cluster = start(&receiver);
    let (mut here, mut there) = (Client::connect(&cluster.at(0), "alice"), Client::connect(&cluster.at(1), "alice"));
    here.join("den");
    there.join("den");
    receiver.until_all(&["user_online alice", "room_occupied den"]);
    here.leave();
    there.join("attic");
    receiver.until_all(&["user_online alice", "room_occupied den", "room_occupied attic"]);
    there.leave();
    receiver.until_all(&[
        "user_online alice",
        "room_occupied den",
        "room_occupied attic",
        "room_vacated den",
        "room_vacated attic",
        "user_offline alice",
    ]);
    // Whoever goes to another node at once has not been away.
    let bob = Client::connect(&cluster.at(0), "bob");
    receiver.until("user_online bob");
    bob.leave();
    let mut bob = Client::connect(&cluster.at(1), "bob");
    bob.join("later");
    let events = receiver.until("room_occupied later");
    assert_eq!(events.iter().filter(|event| event.ends_with("bob")).count(), 1);
    assert_eq!(receiver.came().iter().flat_map(Came::events).count(), 8, "each is told once");
}

#[test]
fn the_edges_of_a_killed_node_are_told_by_another() {
    for kills_teller in [true, false] {
        let receiver = Receiver::start();
        let mut cluster = start(&receiver);
        let teller = teller(&cluster);
        let dies = if kills_teller { teller } else { 1 - teller };
        let mut lost = Client::connect(&cluster.at(dies), "carol");
        let mut kept = Client::connect(&cluster.at(1 - dies), "dave");
        lost.join("lost");
        lost.join("both");
        kept.join("both");
        receiver.until_all(&["user_online carol", "user_online dave", "room_occupied lost", "room_occupied both"]);
        if kills_teller {
            // What it could not deliver, another does.
            receiver.behave(|_| Reply::Status(500));
            let before = receiver.came().len();
            kept.join("late");
            receiver.until_came(before + 1);
        }
        cluster.kill(dies);
        receiver.behave(|_| Reply::Status(200));
        receiver.until("room_vacated lost");
        let mut events = receiver.until("user_offline carol");
        if kills_teller {
            events = receiver.until("room_occupied late");
        }
        assert!(!events.contains(&"room_vacated both".to_owned()), "{events:?}");
        kept.leave();
        receiver.until("room_vacated both");
    }
}

#[test]
fn a_redis_that_comes_back_empty_learns_again_what_was_told() {
    let receiver = Receiver::start();
    let mut cluster = start(&receiver);
    let (mut here, mut there) = (Client::connect(&cluster.at(0), "erin"), Client::connect(&cluster.at(1), "frank"));
    for room in ["a", "b"] {
        here.join(room);
        there.join(room);
    }
    here.join("gone");
    let told = ["user_online erin", "user_online frank", "room_occupied a", "room_occupied b", "room_occupied gone"];
    receiver.until_all(&told);
    cluster.redis_mut().kill();
    eventually("it is noticed", || (0..2).all(|node| cluster.log(node).contains("webhooks cannot reach Redis")));
    here.request(json!({"type": "leave_room", "roomId": "gone"}));
    let grace = Client::connect(&cluster.at(1), "grace");
    cluster.redis_mut().restart(Data::Emptied);
    cluster.await_ready();
    // The difference, and nothing that was told before.
    receiver.until_all(&[&told[..], &["room_vacated gone", "user_online grace"]].concat());
    grace.leave();
    here.leave();
    receiver.until("user_offline grace");
    receiver.until("user_offline erin");
    assert_eq!(receiver.came().iter().flat_map(Came::events).count(), 9, "each is told once");
}

#[test]
fn a_redis_that_was_away_has_the_difference_told() {
    let receiver = Receiver::start();
    let cluster = Cluster::around(Redis::durable(), 2, &["--webhook", &webhook(&receiver, "")]);
    let mut cluster = cluster;
    cluster.await_ready();
    let mut here = Client::connect(&cluster.at(0), "heidi");
    let mut there = Client::connect(&cluster.at(1), "ivan");
    here.join("den");
    there.join("attic");
    receiver.until_all(&["user_online heidi", "user_online ivan", "room_occupied den", "room_occupied attic"]);
    cluster.redis_mut().kill();
    eventually("it is noticed", || (0..2).all(|node| cluster.log(node).contains("webhooks cannot reach Redis")));
    there.request(json!({"type": "leave_room", "roomId": "attic"}));
    cluster.redis_mut().restart(Data::Kept);
    receiver.until("room_vacated attic");
    here.join("later");
    receiver.until("room_occupied later");
    assert_eq!(receiver.came().iter().flat_map(Came::events).count(), 6, "each is told once");
}

#[test]
fn whoever_comes_back_after_a_drain_was_never_away() {
    let receiver = Receiver::start();
    let mut cluster = start(&receiver);
    let old = teller(&cluster);
    let (mut stays, mut goes) = (Client::connect(&cluster.at(old), "judy"), Client::connect(&cluster.at(old), "kim"));
    stays.join("den");
    goes.join("cellar");
    receiver.until_all(&["user_online judy", "user_online kim", "room_occupied den", "room_occupied cellar"]);
    cluster.drain(old);
    assert_eq!((stays.close_frame().0, goes.close_frame().0), (1001, 1001));
    let mut stays = Client::connect(&cluster.at(1 - old), "judy");
    stays.join("den");
    receiver.until("room_vacated cellar");
    let events = receiver.until("user_offline kim");
    assert!(!events.iter().any(|event| event.contains("vacated den") || event.contains("offline judy")), "{events:?}");
    eventually("it has ended", || cluster.ended_node() == Some(old));
    assert!(cluster.log(old).contains("this node leaves telling"), "{}", cluster.log(old));
    stays.leave();
    receiver.until("user_offline judy");
}
