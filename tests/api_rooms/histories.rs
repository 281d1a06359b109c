//! What a room has kept.

use fanfare_testing::{ApiKey, Client, Cluster, Way};
use serde_json::{Value, json};

use super::{delete, operator, servers};

const KEPT: &[&str] = &["--room", "match=kept*,history.size=20,history.ttl=1h"];

#[track_caller]
fn page(key: &ApiKey, cluster: &Cluster, query: &str) -> (Vec<u64>, Option<u64>) {
    let page = key.get(cluster, &format!("/api/v1/rooms/kept/history?{query}")).json();
    let messages = page["messages"].as_array().expect("a list");
    for message in messages {
        let offset = message["offset"].as_u64().expect("an offset");
        assert_eq!((&message["type"], &message["roomId"]), (&json!("room_msg"), &json!("kept")));
        assert_eq!((message["content"].as_u64(), &message["from"]), (Some(offset), &json!("alice")));
    }
    (messages.iter().filter_map(|message| message["offset"].as_u64()).collect(), page["next"].as_u64())
}

fn publish(client: &mut Client, content: u64) -> Value {
    client.publish(json!({"type": "room_msg", "roomId": "kept", "content": content}))
}

pub(super) fn a_history_is_read_in_pages_in_both_directions(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], KEPT);
    let mut alice = Client::connect(&cluster, "alice");
    let epochs: Vec<Value> = (1..=25).map(|at| publish(&mut alice, at)["epoch"].clone()).collect();
    // Nobody is in the room, and each request asks another node.
    let whole = key.get(&cluster, "/api/v1/rooms/kept/history").json();
    assert_eq!((&whole["roomId"], &whole["epoch"], &whole["offset"]), (&json!("kept"), &epochs[24], &json!(25)));
    assert_eq!(page(&key, &cluster, ""), ((6..=25).collect(), None));
    assert_eq!(page(&key, &cluster, "limit=3"), (vec![23, 24, 25], Some(23)));
    assert_eq!(page(&key, &cluster, "limit=3&before=23"), (vec![20, 21, 22], Some(20)));
    assert_eq!(page(&key, &cluster, "before=3").0, [0; 0]);
    assert_eq!(page(&key, &cluster, "limit=3&after=20"), (vec![21, 22, 23], Some(23)));
    assert_eq!(page(&key, &cluster, "limit=3&after=23"), (vec![24, 25], None));
    assert_eq!(page(&key, &cluster, "limit=2&after=0"), (vec![6, 7], Some(7)), "what is gone is gone");
    assert_eq!(page(&key, &cluster, "after=9223372036854775807"), (Vec::new(), None));
    let (mut seen, mut query) = (Vec::new(), "limit=7".to_owned());
    while let (offsets, Some(next)) = page(&key, &cluster, &query) {
        seen.splice(0..0, offsets);
        query = format!("limit=7&before={next}");
    }
    assert!(seen.ends_with(&(12..=25).collect::<Vec<_>>()), "{seen:?}");
}

pub(super) fn a_history_that_is_forgotten_begins_anew(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], KEPT);
    let mut members: Vec<Client> = ["alice", "bob"].map(|user| Client::connect(&cluster, user)).into();
    members.iter_mut().for_each(|member| drop(member.join("kept")));
    let before = publish(&mut members[0], 1);
    members[1].expect_type("room_msg");
    assert_eq!(delete(&key, &cluster, "/api/v1/rooms/kept/history"), json!({}));
    let epochs: Vec<Value> = members
        .iter_mut()
        .map(|member| {
            let gap = member.expect_type("gap");
            assert_eq!((&gap["roomId"], &gap["offset"], &gap["recovered"]), (&json!("kept"), &json!(0), &json!(false)));
            gap["epoch"].clone()
        })
        .collect();
    assert!(epochs[0] != before["epoch"] && epochs[0] == epochs[1]);
    assert_eq!(page(&key, &cluster, ""), (Vec::new(), None));
    let mut carol = Client::connect(&cluster, "carol");
    let since = |epoch: &Value| json!({"type": "join_room", "roomId": "kept", "since": {"epoch": epoch, "offset": 0}});
    let answer = carol.request(since(&before["epoch"]));
    assert_eq!((&answer["recovered"], &answer["epoch"], &answer["offset"]), (&json!(false), &epochs[0], &json!(0)));
    let after = publish(&mut members[0], 1);
    assert_eq!((&after["epoch"], &after["offset"]), (&epochs[0], &json!(1)));
    assert_eq!(members[1].expect_type("room_msg")["offset"], 1);
    assert_eq!(carol.expect_type("room_msg")["offset"], 1);
    let mut dave = Client::connect(&cluster, "dave");
    assert_eq!(dave.request(since(&epochs[0]))["recovered"], true, "what came in the new epoch is kept");
}

pub(super) fn a_room_without_history_has_none(way: Way) {
    let key = operator();
    let cluster = servers(way, &[&key], KEPT);
    for room in ["plain", "nobody"] {
        let page = key.get(&cluster, &format!("/api/v1/rooms/{room}/history")).json();
        assert_eq!(page, json!({"roomId": room, "offset": 0, "messages": []}));
        assert_eq!(delete(&key, &cluster, &format!("/api/v1/rooms/{room}/history")), json!({}));
    }
    let never = key.get(&cluster, "/api/v1/rooms/kept-never/history").json();
    assert_eq!((&never["offset"], &never["messages"]), (&json!(0), &json!([])));
}
