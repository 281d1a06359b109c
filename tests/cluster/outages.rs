//! Redis is not there, or is another one than before: what goes on, what is refused, and what is told afterwards.

use fanfare_testing::{Client, Cluster, Data, Redis, eventually, http_get};
use serde_json::{Value, json};

use crate::{KEPT, insist, join_since, next_messages, position, room_msg};

/// Sends until a message in the plain room `room` gets from one client to the other.
#[track_caller]
fn await_passage(from: &mut Client, to: &mut Client, room: &str) {
    let mut probe = 0;
    eventually(&format!("{room} goes from node to node"), || {
        probe += 1;
        from.send(&room_msg(room, json!({"probe": probe})));
        let heard = to.try_recv(std::time::Duration::from_millis(100));
        heard.is_some_and(|message| message.to_text().is_ok_and(|text| text.contains("\"probe\"")))
    });
    // Those that are still on their way.
    from.publish(room_msg(room, "marker"));
    to.expect(|message| message["content"] == "marker");
}

#[track_caller]
fn is_unavailable(room: &str, answer: &Value) {
    let said = (&answer["type"], &answer["code"], &answer["roomId"]);
    assert_eq!(said, (&json!("error"), &json!("unavailable"), &json!(room)), "{answer}");
}

/// A gap that leads into another epoch; the position from which messages follow.
#[track_caller]
fn next_gap(client: &mut Client, old_epoch: &Value) -> (Value, u64) {
    let gap = client.recv_type("gap");
    assert_eq!((&gap["roomId"], &gap["recovered"]), (&json!("kept"), &json!(false)), "{gap}");
    let place = position(&gap);
    assert_ne!(place.0, *old_epoch, "continuity across a restart cannot be proven");
    place
}

#[test]
fn nodes_start_without_redis_and_join_it_later() {
    let mut cluster = Cluster::around(Redis::absent(false), 2, KEPT);
    let mut clients: Vec<Client> = [0, 0, 1].map(|node| Client::connect(&cluster.at(node), "c")).into();
    for client in &mut clients {
        client.join("plain");
        is_unavailable("kept", &client.request(json!({"type": "join_room", "roomId": "kept"})));
        is_unavailable("kept too", &client.request(room_msg("kept too", 1)));
    }
    clients[0].publish(room_msg("plain", "near"));
    assert_eq!(clients[1].recv_type("room_msg")["content"], "near", "on the same node");
    cluster.await_readiness(503);

    cluster.redis_mut().restart(Data::Emptied);
    cluster.await_ready();
    let [one, near, far] = &mut clients[..] else { panic!("three clients") };
    await_passage(one, far, "plain");
    near.expect(|message| message["content"] == "marker");
    for client in [&mut *one, near, far] {
        assert_eq!(insist(client, &json!({"type": "join_room", "roomId": "kept"}))["offset"], 0);
    }
    one.publish(room_msg("kept", "kept"));
    for other in [near, far] {
        assert_eq!(next_messages(other, 1), [(json!("kept"), 1)]);
        other.nothing_for(20);
    }
}

#[test]
fn readiness_follows_redis_and_liveness_does_not() {
    let mut cluster = Cluster::start(2, &[]);
    for data in [Data::Emptied, Data::Emptied] {
        cluster.redis_mut().kill();
        cluster.await_readiness(503);
        for node in 0..2 {
            let ready = http_get(&cluster.at(node), "/health/ready");
            assert!(ready.body.to_ascii_lowercase().contains("redis"), "the body says why: {:?}", ready.body);
            assert_eq!(http_get(&cluster.at(node), "/health/live").status, 200);
        }
        cluster.redis_mut().restart(data);
        cluster.await_ready();
    }
}

/// Everything that needs no other node: rooms, private messages, notices, leaving, broadcasts.
#[test]
fn a_node_goes_on_by_itself() {
    let mut cluster = Cluster::start(2, &[]);
    let mut alice = Client::connect(&cluster.at(0), "alice");
    let mut bob = Client::connect(&cluster.at(0), "bob");
    let mut far = Client::connect(&cluster.at(1), "far");
    far.join("den");
    far.recv_type("system");
    cluster.settle();
    for client in [&mut alice, &mut bob] {
        client.join("den");
    }
    (0..2).for_each(|_| drop(far.recv_type("system")));
    (0..2).for_each(|_| drop(alice.recv_type("system")));
    bob.recv_type("system");

    cluster.redis_mut().kill();
    cluster.await_readiness(503);
    for round in 0..50 {
        alice.publish(room_msg("den", round));
        assert_eq!(bob.recv_type("room_msg")["content"], round);
        alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": round}));
        assert_eq!(bob.recv_type("private_msg")["content"], round);
        alice.publish(json!({"type": "private", "to": bob.client_id(), "data": round}));
        assert_eq!(bob.recv_type("private")["data"], round);
        alice.publish(json!({"type": "broadcast", "content": round}));
        assert_eq!(bob.recv_type("broadcast")["content"], round);
    }
    let mut carol = Client::connect(&cluster.at(0), "carol");
    carol.join("den");
    for client in [&mut alice, &mut bob, &mut carol] {
        assert_eq!(client.recv_type("system")["userId"], "carol");
    }
    carol.publish(json!({"type": "leave_room", "roomId": "den"}));
    assert_eq!(bob.recv_type("system")["event"], "leave");
    far.nothing_for(0);

    cluster.redis_mut().restart(Data::Emptied);
    cluster.await_ready();
    await_passage(&mut alice, &mut far, "den");
}

#[test]
fn a_redis_that_kept_everything_begins_a_new_epoch() {
    restart_is_told(Data::Kept);
}

#[test]
fn a_redis_that_lost_everything_begins_a_new_epoch() {
    restart_is_told(Data::Emptied);
}

#[track_caller]
fn restart_is_told(data: Data) {
    let mut cluster = Cluster::around(Redis::durable(), 3, KEPT);
    cluster.await_ready();
    let mut members: Vec<Client> = (0..3).map(|node| Client::connect(&cluster.at(node), "m")).collect();
    let mut publisher = Client::connect(&cluster.at(0), "p");
    let joined: Vec<(Value, u64)> = members.iter_mut().map(|member| position(&member.join("kept"))).collect();
    let old = joined[0].0.clone();
    (1..=5).for_each(|number| drop(publisher.publish(room_msg("kept", number))));
    let five: Vec<(Value, u64)> = (1..=5).map(|number| (json!(number), number)).collect();
    members.iter_mut().for_each(|member| assert_eq!(next_messages(member, 5), five));

    cluster.redis_mut().kill();
    is_unavailable("kept", &publisher.request(room_msg("kept", "into the void")));
    members.iter_mut().for_each(|member| member.nothing_for(0));
    cluster.redis_mut().restart(data);
    cluster.await_ready();
    let gaps: Vec<(Value, u64)> = members.iter_mut().map(|member| next_gap(member, &old)).collect();
    assert!(gaps.iter().all(|gap| gap.0 == gaps[0].0), "one epoch on all nodes: {gaps:?}");

    // From there on everything, whatever of it came before the publisher was answered.
    let command = json!({"type": "room_msg", "roomId": "kept", "content": "new", "key": "new"});
    let (epoch, offset) = position(&insist(&mut publisher, &command));
    assert_eq!(epoch, gaps[0].0);
    for (member, (_, from)) in members.iter_mut().zip(gaps) {
        let heard = next_messages(member, usize::try_from(offset - from).expect("a few"));
        assert!(heard.iter().map(|(_, offset)| *offset).eq(from + 1..=offset), "{heard:?} from {from}");
        assert_eq!(heard.last(), Some(&(json!("new"), offset)));
        member.nothing_for(0);
    }
    for (node, member) in members.iter_mut().enumerate() {
        let page = member.request(json!({"type": "history", "roomId": "kept"}));
        let kept: Vec<&Value> =
            page["messages"].as_array().expect("a page").iter().map(|one| &one["content"]).collect();
        assert_eq!(kept.starts_with(&[&json!(1), &json!(2), &json!(3)]), data == Data::Kept, "{page}");
        let mut back = Client::connect(&cluster.at(node), "m");
        let joined = join_since(&mut back, "kept", &old, 5);
        assert_eq!((&joined["recovered"], position(&joined)), (&json!(false), (epoch.clone(), offset)), "{joined}");
        back.nothing_for(0);
    }
}

/// An inbox has no gap to be told of: whoever comes back with the old position is told.
#[test]
fn an_inbox_of_an_earlier_epoch_is_not_recovered() {
    let mut cluster = Cluster::around(Redis::durable(), 2, &["--inbox.history.size", "100"]);
    cluster.await_ready();
    let bob = Client::connect(&cluster.at(0), "bob");
    let inbox = bob.welcome()["inbox"].clone();
    drop(bob);
    let mut alice = Client::connect(&cluster.at(1), "alice");
    let command = json!({"type": "private_msg", "toUser": "bob", "content": 1, "key": "k"});
    alice.publish(command.clone());
    cluster.redis_mut().restart(Data::Kept);
    cluster.await_ready();
    let mut bob = Client::connect(&cluster.at(1), "bob");
    let now = &bob.welcome()["inbox"];
    assert_ne!(now["epoch"], inbox["epoch"]);
    let resumed = bob.request(json!({"type": "resume", "inbox": inbox}));
    assert_eq!(resumed["recovered"], false, "{resumed}");
}
