//! One order for each topic, and nothing missed after a join's answer.

use fanfare_testing::{Client, Server, Way};
use serde_json::json;

pub fn every_subscriber_sees_the_same_order(reactors: usize) {
    const PUBLISHERS: usize = 3;
    const EACH: usize = 1_000;
    let server = Server::with_reactors(reactors, &["--rooms.notice_members_max", "0"]);
    let mut subscribers: Vec<Client> = (0..4).map(|at| Client::connect(&server, &format!("subscriber-{at}"))).collect();
    for subscriber in &mut subscribers {
        subscriber.join("den");
    }
    let orders: Vec<Vec<(usize, usize)>> = std::thread::scope(|scope| {
        let readers: Vec<_> = subscribers
            .iter_mut()
            .map(|subscriber| scope.spawn(|| read_order(subscriber, PUBLISHERS * EACH)))
            .collect();
        for publisher in 0..PUBLISHERS {
            let server = &server;
            scope.spawn(move || {
                let mut client = Client::connect(server, &format!("publisher-{publisher}"));
                for at in 0..EACH {
                    client.send(&json!({"type": "room_msg", "roomId": "den", "content": [publisher, at]}));
                }
                client.request(json!({"type": "ping"}));
            });
        }
        readers.into_iter().map(|reader| reader.join().expect("a subscriber's thread")).collect()
    });
    for publisher in 0..PUBLISHERS {
        let own: Vec<usize> = orders[0].iter().filter(|(from, _)| *from == publisher).map(|(_, at)| *at).collect();
        assert_eq!(own, (0..EACH).collect::<Vec<usize>>(), "publisher {publisher}'s own order");
    }
    for (at, order) in orders.iter().enumerate() {
        assert!(*order == orders[0], "subscriber {at} saw another order than subscriber 0");
    }
    for subscriber in &mut subscribers {
        subscriber.nothing_for(10);
    }
}

pub fn a_join_answered_misses_nothing(way: Way) {
    let server = way.start(&["--rooms.notice_members_max", "0"]);
    let mut subscribers: Vec<Client> = (0..3).map(|at| Client::connect(&server, &format!("subscriber-{at}"))).collect();
    let mut publishers: Vec<Client> = (0..3).map(|at| Client::connect(&server, &format!("publisher-{at}"))).collect();
    for round in 0..60 {
        let room = format!("room-{round}");
        let subscriber = &mut subscribers[round % 3];
        subscriber.join(&room);
        for publisher in &mut publishers {
            publisher.send(&json!({"type": "room_msg", "roomId": room, "content": round}));
        }
        for _ in 0..3 {
            let message = subscriber.recv_type("room_msg");
            assert_eq!((&message["roomId"], &message["content"]), (&json!(room), &json!(round)));
        }
        subscriber.publish(json!({"type": "leave_room", "roomId": room}));
    }
}

fn read_order(subscriber: &mut Client, count: usize) -> Vec<(usize, usize)> {
    let index =
        |value: &serde_json::Value| value.as_u64().and_then(|index| usize::try_from(index).ok()).expect("an index");
    (0..count)
        .map(|_| {
            let message = subscriber.recv_type("room_msg");
            (index(&message["content"][0]), index(&message["content"][1]))
        })
        .collect()
}
