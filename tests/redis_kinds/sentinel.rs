//! A primary that Sentinels name: found, and found again after a failover.

use fanfare_testing::{Client, Cluster, Redis, eventually, free_addr};
use serde_json::{Value, json};

use crate::servers::Sentinel;
use crate::{assert_works, insist, nodes, room_msg};

/// A member on each node, and a publisher, all in a room with history.
struct Room {
    members: Vec<Client>,
    publisher: Client,
}

impl Room {
    /// The room after a first message, and its epoch.
    fn open(cluster: &Cluster) -> (Room, String) {
        let mut members: Vec<Client> = (0..2).map(|node| Client::connect(&cluster.at(node), "member")).collect();
        members.iter_mut().for_each(|member| drop(member.join("kept")));
        let mut publisher = Client::connect(&cluster.at(1), "publisher");
        let ack = publisher.publish(room_msg("kept", 10));
        members.iter_mut().for_each(|member| assert_eq!(member.recv_type("room_msg")["content"], 10));
        (Room { members, publisher }, ack["epoch"].as_str().expect("an epoch").to_owned())
    }

    /// Publishes after a failover until it is in another epoch than before, since the old primary may live on for a
    /// moment: every member is told of a gap, and has what came after the gap's place.
    #[track_caller]
    fn assert_goes_on(&mut self, epoch_before: &str, mut content: u64) -> String {
        let mut ack = Value::Null;
        eventually("another primary, another epoch", || {
            content += 1;
            ack = insist(&mut self.publisher, "kept", content);
            ack["epoch"] != epoch_before
        });
        let epoch = ack["epoch"].as_str().expect("an epoch").to_owned();
        for member in &mut self.members {
            let mut came = member.until(|message| message["type"] == "gap" && message["epoch"] == ack["epoch"]);
            let gap = came.pop().expect("the gap itself");
            assert_eq!((&gap["roomId"], &gap["recovered"]), (&json!("kept"), &json!(false)), "{gap}");
            assert!(came.iter().all(|message| message["content"] != content), "in front of the gap: {came:?}");
            match gap["offset"] == ack["offset"] {
                // The gap's place is behind it already.
                true => {}
                false => assert_eq!(member.recv_type("room_msg")["content"], content),
            }
            member.nothing_for(20);
        }
        epoch
    }
}

/// The primary lives on and knows nothing yet of its end: for ten seconds it would take whatever is sent to it.
#[test]
fn a_failover_by_hand_is_followed_and_told() {
    let sentinel = Sentinel::start(&[], "");
    // The first of the two is not there.
    let url = format!("redis+sentinel://{},{}/{}", free_addr(), sentinel.host(), Sentinel::NAME);
    let cluster = nodes(&url, &[]);
    assert_works(&cluster);
    let (mut room, epoch) = Room::open(&cluster);
    sentinel.fail_over();
    room.assert_goes_on(&epoch, 100);
    cluster.await_ready();
}

#[test]
fn a_primary_that_dies_is_replaced_and_that_is_told() {
    let mut sentinel = Sentinel::start(&[], "");
    let cluster = nodes(&format!("redis+sentinel://{}/{}", sentinel.host(), Sentinel::NAME), &[]);
    let (mut room, epoch) = Room::open(&cluster);
    sentinel.servers[0].kill();
    room.assert_goes_on(&epoch, 100);
    assert_eq!(sentinel.primary(), 1);
    cluster.await_ready();
    let mut late = Client::connect(&cluster.at(0), "late");
    let answer = late.request(json!({"type": "join_room", "roomId": "kept", "since": {"epoch": epoch, "offset": 1}}));
    assert_eq!(answer["recovered"], false, "{answer}");
}

/// Sentinels that want to know who asks get the user and the password of the servers, and only when they want to.
#[test]
fn a_sentinel_may_want_the_password_of_the_servers() {
    let redis = Redis::start();
    assert_eq!(redis.command(&["ACL", "SETUSER", "fanfare", "on", ">geheim", "~*", "&*", "+@all"]), "OK");
    let sentinel = Sentinel::watching(redis.addr().port(), "user fanfare on >geheim -@all +role +sentinel");
    let url = format!("redis+sentinel://fanfare:geheim@{}/{}", sentinel.host(), Sentinel::NAME);
    let cluster = nodes(&url, &[]);
    eventually("the nodes keep asking", || sentinel.command(&["CLIENT", "LIST"]).contains("cmd=sentinel"));
    assert!(!sentinel.command(&["CLIENT", "LIST"]).contains("user=fanfare"), "nobody has signed in");
    drop(cluster);
    assert_eq!(sentinel.command(&["ACL", "SETUSER", "default", "off"]), "OK");
    let cluster = nodes(&url, &[]);
    assert_works(&cluster);
    assert!(!cluster.log(0).contains("geheim"), "{}", cluster.log(0));
}
