//! Removing users from rooms.

use fanfare_testing::{Client, Way};
use serde_json::json;

use super::{delete, nodes, operator, servers};

pub(super) fn who_is_removed_is_told_why_and_may_come_back(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &[]);
    let mut alices: Vec<Client> = (0..4).map(|_| Client::connect(&cluster, "alice")).collect();
    let mut bob = Client::connect(&cluster, "bob");
    alices.iter_mut().for_each(|alice| drop(alice.join("den")));
    bob.join("den");
    let heard = delete(&key, &cluster, "/api/v1/rooms/den/users/alice?reason=be%20%22nice%22");
    assert_eq!(heard, json!({"nodes": nodes(way)}));
    for alice in &mut alices {
        let left = alice.expect_type("left");
        assert_eq!(left, json!({"type": "left", "roomId": "den", "reason": "be \"nice\""}));
        let leave = bob.expect(|message| message["event"] == "leave");
        assert_eq!((&leave["userId"], &leave["roomId"]), (&json!("alice"), &json!("den")));
    }
    bob.publish(json!({"type": "room_msg", "roomId": "den", "content": "who is left?"}));
    cluster.settle();
    alices[0].join("den");
    bob.publish(json!({"type": "room_msg", "roomId": "den", "content": "welcome back"}));
    assert_eq!(alices[0].expect_type("room_msg")["content"], "welcome back");
    let unsaid = delete(&key, &cluster, "/api/v1/rooms/den/users/alice");
    assert_eq!(unsaid, json!({"nodes": nodes(way)}));
    assert_eq!(alices[0].expect_type("left")["reason"], "");
    assert_eq!(delete(&key, &cluster, "/api/v1/rooms/nobody/users/alice"), json!({"nodes": 0}));
}

pub(super) fn any_name_stands_in_a_path(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &["--room", "match=*,history.size=5,history.ttl=1h"]);
    for (room, user) in [("a/b", "c/d"), ("ü +%25?#", "\u{1f600}&=+"), ("..", "."), ("{x}", "%"), ("\n", "\u{7f}")] {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let mut client = Client::greeted(&cluster, &format!("/?userId={}", encode(user)));
        client.join(room);
        let path = format!("/api/v1/rooms/{}", encode(room));
        let presence = key.get(&cluster, &format!("{path}/presence")).json();
        assert_eq!(presence, json!({"roomId": room, "count": 1, "users": [user]}));
        assert_eq!(key.get(&cluster, &format!("{path}/history")).json()["roomId"], room);
        let connections = key.get(&cluster, &format!("/api/v1/users/{}", encode(user))).json();
        assert_eq!(connections["connections"][0]["rooms"], json!([room]));
        assert_eq!(delete(&key, &cluster, &format!("{path}/users/{}", encode(user))), json!({"nodes": 1}));
        assert_eq!(client.expect_type("left")["roomId"], room);
    }
}
