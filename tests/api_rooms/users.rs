//! Users' connections.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_testing::{Client, Way};
use serde_json::json;

use super::{delete, nodes, operator, servers, texts};

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_millis() as u64
}

pub(super) fn a_users_connections_are_told_wherever_they_are(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &[]);
    assert_eq!(key.get(&cluster, "/api/v1/users/alice").json(), json!({"connections": []}));
    let from = unix_ms();
    let mut alices: Vec<Client> = (0..4).map(|_| Client::connect(&cluster, "alice")).collect();
    let _bob = Client::connect(&cluster, "bob");
    for (at, alice) in alices.iter_mut().enumerate() {
        (0..at).for_each(|room| drop(alice.join(&format!("room{room}"))));
    }
    alices[3].publish(json!({"type": "leave_room", "roomId": "room0"}));
    let to = unix_ms();
    let told = key.get(&cluster, "/api/v1/users/alice").json();
    let told = told["connections"].as_array().expect("a list");
    assert_eq!(told.len(), 4);
    for (at, alice) in alices.iter().enumerate() {
        let connection = told.iter().find(|connection| connection["clientId"] == alice.client_id());
        let connection = connection.unwrap_or_else(|| panic!("{} is told", alice.client_id()));
        let mut rooms = texts(&connection["rooms"]);
        rooms.sort_unstable();
        let first = usize::from(at == 3);
        assert_eq!(rooms, (first..at).map(|room| format!("room{room}")).collect::<Vec<_>>());
        let since = connection["since"].as_u64().expect("a number");
        // A reactor's clock is that of its turn, in steps of four milliseconds.
        assert!((from - 100..=to + 100).contains(&since), "{since} in {from}..={to}");
    }
    let names: BTreeSet<&str> = told.iter().filter_map(|connection| connection["node"].as_str()).collect();
    assert_eq!(names.len() as u64, nodes(way), "{names:?}");
}

pub(super) fn a_users_connections_end_wherever_they_are(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &[]);
    let alices: Vec<Client> = (0..4).map(|_| Client::connect(&cluster, "alice")).collect();
    let mut bob = Client::connect(&cluster, "bob");
    assert_eq!(delete(&key, &cluster, "/api/v1/users/alice/connections"), json!({"nodes": nodes(way)}));
    for mut alice in alices {
        assert_eq!(alice.close_frame(), (1008, "disconnected".to_owned()));
    }
    let mut back = Client::connect(&cluster, "alice");
    bob.publish(json!({"type": "private_msg", "toUser": "alice", "content": "again?"}));
    assert_eq!(back.expect_type("private_msg")["content"], "again?");
    assert_eq!(delete(&key, &cluster, "/api/v1/users/nobody/connections?revoke=false"), json!({"nodes": nodes(way)}));
    bob.barrier();
}

pub(super) fn more_connections_than_an_answer_holds(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &["--limits.rooms_max", "3000", "--rooms.notice_members_max", "0"]);
    // The rooms of one connection are more than the answer of a node.
    let mut alice = Client::connect(&cluster, "alice");
    let _other = Client::connect(&cluster, "alice");
    let rooms: Vec<String> = (0..3_000).map(|at| format!("{at:0200}")).collect();
    for some in rooms.chunks(200) {
        alice.request(json!({"type": "join_room", "roomIds": some, "id": 1}));
    }
    let told = key.get(&cluster, "/api/v1/users/alice");
    assert!(told.body.len() < 2 * 256 * 1024 + 10_000, "{} bytes", told.body.len());
    assert_eq!(told.json()["truncated"], true);
}
