//! Messages from node to node: who gets them, once, and in which order.

use std::collections::BTreeMap;

use fanfare_testing::{Client, Cluster};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::{PLAIN, room_msg};

const NODES: usize = 3;

/// One client of this user on each node.
fn on_each_node(cluster: &Cluster, user: &str) -> Vec<Client> {
    (0..NODES).map(|node| Client::connect(&cluster.at(node), user)).collect()
}

/// Fails if anything more comes to any of them, from near or far: each node's last word has reached all others.
#[track_caller]
fn nothing_more(cluster: &Cluster, clients: &mut [Client]) {
    let mut criers = on_each_node(cluster, "crier");
    for crier in &mut criers {
        crier.publish(json!({"type": "broadcast", "data": "last"}));
    }
    for client in clients.iter_mut().chain(&mut criers) {
        (0..NODES).for_each(|_| assert_eq!(client.recv_type("broadcast")["data"], "last"));
        client.nothing_for(20);
    }
}

#[test]
fn a_private_msg_reaches_its_user_on_every_node() {
    let cluster = Cluster::start(NODES, PLAIN);
    let mut bobs: Vec<Client> =
        on_each_node(&cluster, "bob").into_iter().chain(on_each_node(&cluster, "bob")).collect();
    let mut alices = on_each_node(&cluster, "alice");
    for (node, alice) in alices.iter_mut().enumerate() {
        alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": {"from node": node}}));
        let mut times = Vec::new();
        for bob in &mut bobs {
            let message = bob.recv_type("private_msg");
            assert_eq!((&message["from"], &message["content"]), (&json!("alice"), &json!({"from node": node})));
            times.push(message["time"].clone());
        }
        assert!(times.iter().all(|time| *time == times[0]), "one time for all receivers: {times:?}");
    }
    bobs.extend(alices);
    nothing_more(&cluster, &mut bobs);
}

#[test]
fn a_private_reaches_one_connection_of_any_node() {
    let cluster = Cluster::start(NODES, PLAIN);
    let mut targets: Vec<Client> =
        on_each_node(&cluster, "bob").into_iter().chain(on_each_node(&cluster, "bob")).collect();
    let mut senders = on_each_node(&cluster, "alice");
    for (node, sender) in senders.iter_mut().enumerate() {
        for (at, target) in targets.iter_mut().enumerate() {
            sender.publish(json!({"type": "private", "to": target.client_id(), "data": [node, at]}));
            let message = target.recv_type("private");
            assert_eq!((&message["from"], &message["data"]), (&json!("alice"), &json!([node, at])));
        }
    }
    targets.extend(senders);
    nothing_more(&cluster, &mut targets);
}

#[test]
fn a_private_to_a_connection_of_a_killed_node_reaches_nobody() {
    let mut cluster = Cluster::start(2, PLAIN);
    let gone: Vec<String> = (0..4).map(|_| Client::connect(&cluster.at(1), "gone").client_id().to_owned()).collect();
    cluster.kill(1);
    cluster.restart(1);
    cluster.await_ready();
    let mut heirs: Vec<Client> = (0..4).map(|_| Client::connect(&cluster.at(1), "heir")).collect();
    let mut alice = Client::connect(&cluster.at(0), "alice");
    for id in &gone {
        alice.publish(json!({"type": "private", "to": id, "data": "for the dead"}));
    }
    for heir in &mut heirs {
        alice.publish(json!({"type": "private", "to": heir.client_id(), "data": "marker"}));
        assert_eq!(heir.recv_type("private")["data"], "marker", "the node that came back is another one");
    }
}

#[test]
fn a_room_msg_reaches_all_members_but_the_sender() {
    let cluster = Cluster::start(NODES, PLAIN);
    let mut members: Vec<Client> =
        on_each_node(&cluster, "alice").into_iter().chain(on_each_node(&cluster, "bob")).collect();
    members.iter_mut().for_each(|member| drop(member.join("den")));
    let mut stranger = Client::connect(&cluster.at(2), "stranger");
    for sender in 0..members.len() {
        members[sender].publish(room_msg("den", sender));
        for (at, member) in members.iter_mut().enumerate() {
            if at != sender {
                assert_eq!(member.recv_type("room_msg")["content"], sender);
            }
        }
    }
    stranger.publish(room_msg("den", "from outside"));
    for member in &mut members {
        assert_eq!(member.recv_type("room_msg")["from"], "stranger");
    }
    members.push(stranger);
    nothing_more(&cluster, &mut members);
}

#[test]
fn large_content_passes_byte_for_byte() {
    let cluster = Cluster::start(2, PLAIN);
    let mut alice = Client::connect(&cluster.at(0), "alice");
    let mut bob = Client::connect(&cluster.at(1), "bob");
    bob.join("den");
    // What a JSON library would change, refuse or lose, and sizes around those where frames change their form.
    for content in [r#"{"z":1e400, "a":"\ud800\u0000","same":1,"same":2}"#.to_owned()]
        .into_iter()
        .chain([100, 125, 126, 16_000, 17_000, 65_536, 900_000].map(|bytes| format!("\"{}\"", "é🦀".repeat(bytes / 6))))
    {
        alice.send_text(&format!(r#"{{"type":"room_msg","roomId":"den","content":{content}}}"#));
        let text = bob.recv_text();
        assert!(text.contains(&format!("\"content\":{content}")), "{} bytes", content.len());
    }
}

#[test]
fn raw_rooms_pass_bytes_between_nodes() {
    let cluster = Cluster::start(NODES, PLAIN);
    let open = |node: usize, target: &str| Client::open(&cluster.at(node), target);
    let mut plain: Vec<Client> = (0..NODES).map(|node| open(node, "/raw/den")).collect();
    let mut echoing = open(0, "/raw/den?echo=1");
    let mut elsewhere: Vec<Client> = (0..NODES).map(|node| open(node, "/raw/attic")).collect();
    let messages = [
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::binary(Vec::new()),
        Message::text("no JSON at all: 🦀 \u{0}\r\n$5\r\n*1"),
        Message::text(""),
        Message::binary(vec![0xAB; 300_000]),
    ];
    for message in &messages {
        echoing.send_message(message.clone());
        assert_eq!(echoing.recv(), *message);
        plain.iter_mut().for_each(|member| assert_eq!(member.recv(), *message));
        for sender in 0..NODES {
            plain[sender].send_message(message.clone());
            assert_eq!(echoing.recv(), *message);
            for (at, member) in plain.iter_mut().enumerate() {
                if at != sender {
                    assert_eq!(member.recv(), *message);
                }
            }
        }
    }
    // Told everywhere, so that everything before it has arrived.
    let marker = Message::text("marker");
    plain[1].send_message(marker.clone());
    for (at, member) in plain.iter_mut().enumerate() {
        if at != 1 {
            assert_eq!(member.recv(), marker);
        }
        member.nothing_for(20);
    }
    elsewhere.iter_mut().for_each(|member| member.nothing_for(0));
}

#[test]
fn broadcasts_reach_every_node_once() {
    let cluster = Cluster::start(NODES, PLAIN);
    let mut clients: Vec<Client> =
        on_each_node(&cluster, "alice").into_iter().chain(on_each_node(&cluster, "bob")).collect();
    for sender in 0..clients.len() {
        clients[sender].publish(json!({"type": "broadcast", "content": [sender, "others"]}));
        for (at, client) in clients.iter_mut().enumerate() {
            if at != sender {
                assert_eq!(client.recv_type("broadcast")["content"], json!([sender, "others"]));
            }
        }
        clients[sender].publish(json!({"type": "broadcast", "data": [sender, "all"]}));
        for client in &mut clients {
            assert_eq!(client.recv_type("broadcast")["data"], json!([sender, "all"]), "the sender gets only this one");
        }
    }
    nothing_more(&cluster, &mut clients);
}

#[test]
fn notices_are_told_on_every_node() {
    let cluster = Cluster::start(NODES, &[]);
    let mut members: Vec<Client> = Vec::new();
    for node in 0..NODES {
        // What was told before somebody joins is not for them, and may still be on its way.
        cluster.settle();
        let user = format!("user-{node}");
        let mut client = Client::connect(&cluster.at(node), &user);
        client.join("den");
        members.push(client);
        for member in &mut members {
            is_notice(&member.recv_type("system"), "join", &user);
        }
    }
    members[1].publish(json!({"type": "leave_room", "roomId": "den"}));
    is_notice(&members[0].recv_type("system"), "leave", "user-1");
    is_notice(&members[2].recv_type("system"), "leave", "user-1");
    let gone = members.pop().expect("three clients");
    drop(gone);
    is_notice(&members[0].recv_type("system"), "leave", "user-2");
    cluster.settle();
    members[1].join("den");
    members.iter_mut().for_each(|member| is_notice(&member.recv_type("system"), "join", "user-1"));
    nothing_more(&cluster, &mut members);
}

#[track_caller]
fn is_notice(notice: &Value, event: &str, user: &str) {
    assert_eq!((&notice["event"], &notice["userId"]), (&json!(event), &json!(user)), "{notice}");
}

/// Members on all nodes, publishers on all nodes, everything at once: each message once to everybody, and each
/// publisher's own in its order.
#[test]
fn a_flood_arrives_once_and_in_each_publishers_order() {
    const EACH: u64 = 700;
    let cluster = Cluster::start(NODES, PLAIN);
    let mut members: Vec<Client> = on_each_node(&cluster, "m").into_iter().chain(on_each_node(&cluster, "m")).collect();
    members.iter_mut().for_each(|member| drop(member.join("den")));
    std::thread::scope(|scope| {
        for member in &mut members {
            scope.spawn(move || {
                let mut heard: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
                for _ in 0..EACH * NODES as u64 {
                    let message = member.recv_type("room_msg");
                    let number = |at: usize| message["content"][at].as_u64().expect("a number");
                    heard.entry(number(0)).or_default().push(number(1));
                }
                let all: Vec<u64> = (0..EACH).collect();
                assert!(heard.len() == NODES && heard.values().all(|numbers| *numbers == all), "{heard:?}");
            });
        }
        for node in 0..NODES {
            let mut publisher = Client::connect(&cluster.at(node), "p");
            scope.spawn(move || {
                (0..EACH).for_each(|number| publisher.send(&room_msg("den", json!([node, number]))));
                // Sent and taken; the connection may go.
                publisher.request(json!({"type": "ping"}));
            });
        }
    });
    nothing_more(&cluster, &mut members);
}

#[test]
fn a_hundred_rooms_in_one_join() {
    let cluster = Cluster::start(2, PLAIN);
    let mut alice = Client::connect(&cluster.at(0), "alice");
    let mut bob = Client::connect(&cluster.at(1), "bob");
    let rooms: Vec<String> = (0..100).map(|at| format!("room-{at}")).collect();
    bob.send(&json!({"type": "join_room", "roomIds": rooms, "id": 1}));
    let replies = bob.until(|reply| reply["type"] == "ack");
    assert_eq!(replies.iter().filter(|reply| reply["type"] == "joined").count(), rooms.len());
    rooms.iter().for_each(|room| alice.send(&room_msg(room, room.as_str())));
    let mut heard: Vec<String> = Vec::new();
    for _ in &rooms {
        let message = bob.recv_type("room_msg");
        assert_eq!(message["roomId"], message["content"]);
        heard.push(message["content"].as_str().expect("a room").to_owned());
    }
    heard.sort_unstable();
    let mut all = rooms.clone();
    all.sort_unstable();
    assert_eq!(heard, all);
    for room in &rooms {
        bob.publish(json!({"type": "leave_room", "roomId": room}));
        alice.publish(room_msg(room, "unheard"));
    }
    alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": "marker"}));
    assert_eq!(bob.recv_json()["content"], "marker", "nothing after the leave");
    bob.nothing_for(20);
}
