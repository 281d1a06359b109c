//! Who is woken by a message: counted in turns of the reactors' loops.

use fanfare_testing::{Client, Server, http_get};
use serde_json::{Value, json};

const REACTORS: usize = 8;
const MESSAGES: u64 = 300;

/// Turns that asking for the statistics and stray timers may cost a reactor.
const TURNS_SPARE: u64 = 50;

fn turns(server: &Server) -> Vec<u64> {
    let stats: Value = serde_json::from_str(&http_get(server, "/stats").body).expect("statistics are JSON");
    let reactors = stats["reactors"].as_array().expect("an entry a reactor");
    reactors.iter().map(|reactor| reactor["turns"].as_u64().expect("a number")).collect()
}

/// How many reactors turned more than idle ones do, and the turns of the busiest, while `act` ran.
fn busy(server: &Server, act: impl FnOnce()) -> (usize, u64) {
    let before = turns(server);
    act();
    let spent: Vec<u64> = turns(server).iter().zip(before).map(|(after, before)| after - before).collect();
    (spent.iter().filter(|turns| **turns > TURNS_SPARE).count(), spent.into_iter().max().unwrap_or(0))
}

#[test]
fn a_private_message_wakes_only_the_publishers_the_homes_and_the_users_reactor() {
    let server = Server::with_reactors(REACTORS, &[]);
    let _crowd: Vec<Client> = (0..64).map(|at| Client::connect(&server, &format!("other-{at}"))).collect();
    let mut alice = Client::connect(&server, "alice");
    let mut bob = Client::connect(&server, "bob");
    let (reactors, most) = busy(&server, || {
        for n in 0..MESSAGES {
            alice.publish(json!({"type": "private_msg", "toUser": "bob", "content": n}));
            assert_eq!(bob.recv_json()["content"], n);
        }
    });
    assert!((1..=3).contains(&reactors), "{reactors} reactors were woken");
    assert!(most >= MESSAGES, "the publisher's reactor turned {most} times");
}

#[test]
fn an_idle_node_sleeps() {
    let server = Server::with_reactors(REACTORS, &[]);
    let mut clients: Vec<Client> = (0..64).map(|at| Client::connect(&server, &format!("idle-{at}"))).collect();
    let (reactors, _) = busy(&server, || std::thread::sleep(std::time::Duration::from_secs(2)));
    assert_eq!(reactors, 0, "nobody turns where nothing happens");
    clients[0].barrier();
}
