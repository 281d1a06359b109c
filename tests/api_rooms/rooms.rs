//! Which rooms there are, and who is in them.

use std::collections::BTreeMap;

use fanfare_testing::{ApiKey, Client, Cluster, Way};
use serde_json::json;

use super::{operator, servers, texts};

/// All pages of a list of rooms: each room with its members, and how often it was listed.
fn all_rooms(key: &ApiKey, cluster: &Cluster, query: &str, between: &mut dyn FnMut()) -> BTreeMap<String, (u64, u32)> {
    let mut rooms = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = key.get(cluster, &format!("/api/v1/rooms?{query}{after}")).json();
        for room in page["rooms"].as_array().expect("a list") {
            let listed = rooms.entry(room["roomId"].as_str().expect("a room id").to_owned()).or_insert((0, 0));
            *listed = (room["members"].as_u64().expect("a number"), listed.1 + 1);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rooms,
        }
        between();
    }
}

pub(super) fn rooms_are_listed_once_in_pages_with_their_members(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &["--rooms.notice_members_max", "0"]);
    let nobody = json!({"rooms": []});
    assert_eq!(key.get(&cluster, "/api/v1/rooms").json(), nobody);
    let mut clients: Vec<Client> = (0..4).map(|at| Client::connect(&cluster, &format!("user{}", at / 2))).collect();
    for at in 0..40 {
        // Between one and four members, on whatever node.
        clients[..1 + at % 4].iter_mut().for_each(|client| drop(client.join(&format!("room{at:02}"))));
    }
    let _raw = fanfare_testing::raw::RawConn::upgrade(&cluster, "/raw/not-listed");
    let expected: BTreeMap<String, (u64, u32)> = (0..40).map(|at| (format!("room{at:02}"), (1 + at % 4, 1))).collect();
    assert_eq!(all_rooms(&key, &cluster, "limit=1000", &mut || {}), expected);
    // Rooms come and go between the pages; those that stay are listed once.
    let mut round = 0;
    let listed = all_rooms(&key, &cluster, "limit=3", &mut || {
        clients[0].join(&format!("room{:02}-later", round * 3 % 40));
        clients[0].publish(json!({"type": "leave_room", "roomId": format!("room{:02}-later", (round + 35) * 3 % 40)}));
        round += 1;
    });
    for (room, listing) in &expected {
        assert_eq!(listed.get(room), Some(listing), "{room}");
    }
    assert!(round >= 13 && listed.values().all(|(_, times)| *times == 1));
    let some: Vec<String> = all_rooms(&key, &cluster, "match=room*9&limit=2", &mut || {}).into_keys().collect();
    assert_eq!(some, ["room09", "room19", "room29", "room39"]);
    let one = key.get(&cluster, "/api/v1/rooms?match=room03").json();
    let users = one["rooms"][0]["users"].as_u64().expect("a number");
    assert_eq!((one["rooms"][0]["members"].as_u64(), users), (Some(4), 2), "each node has one connection of each user");
}

pub(super) fn a_key_is_told_of_its_own_rooms(way: Way) {
    let (all, some) = (operator(), ApiKey::for_rooms("some", "read", "chat.*"));
    let cluster = servers(way, &[&all, &some], &[]);
    let mut alice = Client::connect(&cluster, "alice");
    for room in ["a", "chat", "chat.1", "chat.2", "lobby", "z"] {
        alice.join(room);
    }
    let listed = |query: &str| all_rooms(&some, &cluster, query, &mut || {}).into_keys().collect::<Vec<_>>();
    assert_eq!(listed("limit=1"), ["chat.1", "chat.2"]);
    assert_eq!(listed("match=*2"), ["chat.2"]);
    assert_eq!(listed("match=a"), [""; 0]);
    assert_eq!(all_rooms(&all, &cluster, "", &mut || {}).len(), 6);
}

pub(super) fn users_are_listed_in_pages(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], &[]);
    let nobody = key.get(&cluster, "/api/v1/rooms/den/presence").json();
    assert_eq!(nobody, json!({"roomId": "den", "count": 0, "users": []}));
    let mut clients: Vec<Client> = (0..6).map(|at| Client::connect(&cluster, &format!("user{}", at % 5))).collect();
    clients.iter_mut().for_each(|client| drop(client.join("den")));
    let all = key.get(&cluster, "/api/v1/rooms/den/presence").json();
    let names: Vec<String> = (0..5).map(|at| format!("user{at}")).collect();
    assert_eq!((all["count"].as_u64(), texts(&all["users"])), (Some(5), names.clone()));
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = key.get(&cluster, &format!("/api/v1/rooms/den/presence?limit=2{after}")).json();
        assert_eq!(page["count"], 5);
        listed.extend(texts(&page["users"]));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(listed, names);
}
