//! A node is restarted under load, behind a real nginx and with a passed socket: no client is refused, none misses a message
//! of a room that keeps history, and all come back.
//!
//! `RESTARTS=100 cargo test --release --test restarts` does it a hundred times; `RETURNING=15000` lets so many come back at
//! once.

mod peer;
mod subscriber;

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use fanfare_testing::activation::pass;
use fanfare_testing::nginx::Nginx;
use fanfare_testing::{Client, PATIENCE, Redis, Server, Signal, await_metric, eventually, http_get, metric};
use hdrhistogram::Histogram;
use peer::{Heard, Peer};
use serde_json::json;
use subscriber::{Findings, Subscriber};

const ROOMS: usize = 4;
const SUBSCRIBERS: usize = 40;

/// The content of the last message to each room.
const LAST: &str = "the last";

/// Between two publishes to a room.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);

/// A number that the environment may say.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// A node whose listening socket stays when it ends.
struct Node {
    socket: TcpListener,
    settings: Vec<String>,
    server: Server,
}

impl Node {
    fn start(settings: &[&str]) -> Node {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let listen = socket.local_addr().expect("it is bound").to_string();
        let settings = [&["--listen", &listen, "--reactors", "2"], settings].concat();
        let settings: Vec<String> = settings.into_iter().map(str::to_owned).collect();
        let server = launch(&socket, &settings);
        Node { socket, settings, server }
    }

    fn addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    /// Ends the process as a supervisor does, and starts the next one.
    fn restart(&mut self) {
        self.server.signal(Signal::TERM);
        let status = self.server.wait_exit();
        assert_eq!(status.code(), Some(0), "{}", self.server.log());
        assert!(self.server.log().contains("drained"), "{}", self.server.log());
        self.server = launch(&self.socket, &self.settings);
    }
}

fn launch(socket: &TcpListener, settings: &[String]) -> Server {
    Server::changed(|command| pass(command, socket), &settings.iter().map(String::as_str).collect::<Vec<_>>())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Publishes to every room until `restarts` are over, and then the last message; how many of each room it has published.
fn publish(addr: SocketAddr, over: &std::sync::mpsc::Receiver<()>) -> u64 {
    let mut publisher = Client::connect(&addr, "publisher");
    let rooms: Vec<String> = (0..ROOMS).map(room).collect();
    rooms.iter().for_each(|room| drop(publisher.join(room)));
    let mut published = 0;
    loop {
        let is_last = over.recv_timeout(PUBLISH_EVERY).is_ok();
        published += 1;
        for room in &rooms {
            let content = if is_last { json!(LAST) } else { json!(published) };
            let ack = publisher.publish(json!({ "type": "room_msg", "roomId": room, "content": content }));
            assert_eq!(ack["offset"], published, "it is stored: {ack}");
        }
        if is_last {
            return published;
        }
    }
}

fn room(at: usize) -> String {
    format!("kept-{at}")
}

#[test]
fn restarts_refuse_no_client_and_lose_no_message() {
    let restarts = number("RESTARTS", 5);
    let redis = Redis::start();
    let url = redis.url();
    let rule = "match=kept*,history.size=100000,history.ttl=1h";
    let settings = ["--redis.url", &url, "--room", rule, "--rooms.notice_members_max", "0"];
    let (mut restarted, other) = (Node::start(&settings), Node::start(&settings));
    let nginx = Nginx::balancing(&[restarted.addr(), other.addr()]);
    let (end, over) = std::sync::mpsc::channel();
    let at_other = other.addr();
    let publisher = std::thread::spawn(move || publish(at_other, &over));
    let balanced = nginx.addr();
    let subscribers = std::thread::spawn(move || {
        let findings = Rc::new(Findings::default());
        let all = tokio::task::LocalSet::new();
        for at in 0..SUBSCRIBERS {
            let (name, room) = (format!("subscriber-{at}"), room(at % ROOMS));
            let subscriber = Subscriber { addr: balanced, name, room, findings: findings.clone() };
            all.spawn_local(subscriber.run(LAST));
        }
        runtime().block_on(all);
        Rc::into_inner(findings).expect("all have ended")
    });
    for _ in 0..restarts {
        // Its share of them is half.
        eventually("the node has clients again", || {
            metric(&restarted.addr(), "fanfare_connections") >= SUBSCRIBERS as u64 / 4
        });
        restarted.restart();
    }
    // Who was told to come back within seconds is back before the last message.
    std::thread::sleep(Duration::from_millis(2_000));
    end.send(()).expect("the publisher runs");
    let published = publisher.join().expect("every publish was stored");
    let found = subscribers.join().expect("no panic");
    println!(
        "{restarts} restarts: {} connections, {} told to come back, {} recovered, {} messages of {published} in each of \
         {ROOMS} rooms",
        found.opened.get(),
        found.told.get(),
        found.recovered.get(),
        found.messages.get(),
    );
    if let Some(latency) = &*found.latency.borrow() {
        let [p50, p99] = [0.5, 0.99].map(|quantile| latency.value_at_quantile(quantile));
        println!("live deliveries: p50 {p50} ms, p99 {p99} ms, max {} ms", latency.max());
    }
    assert_eq!(*found.faults.borrow(), [""; 0]);
    // Each restart met its share of them.
    assert!(found.told.get() >= (restarts * SUBSCRIBERS / 4) as u64, "{found:?}");
    assert_eq!(found.opened.get(), SUBSCRIBERS as u64 + found.told.get(), "none was refused");
    assert!(found.recovered.get() <= found.told.get(), "{found:?}");
}

/// What became of one client of a node that is restarted.
struct Return {
    /// From the close frame to the next welcome.
    away: Duration,
    /// From SIGTERM to the next welcome.
    since_signal: Duration,
}

/// A client that comes back once: when it was closed, when it was welcomed again, and its connection.
async fn come_back(
    addr: SocketAddr,
    at: usize,
    welcomed: Rc<std::cell::Cell<usize>>,
) -> Result<(Instant, Instant, Peer), String> {
    let target = format!("/?userId=user-{at}");
    let mut peer = Peer::open(addr, &target).await?;
    welcomed.set(welcomed.get() + 1);
    let retry = loop {
        match peer.hear().await {
            Heard::Message(_) => {}
            Heard::GoingAway(retry) => break retry,
            Heard::Lost(why) => return Err(why),
        }
    };
    let closed = Instant::now();
    drop(peer);
    tokio::time::sleep(retry).await;
    let mut peer = Peer::open(addr, &target).await?;
    match peer.hear().await {
        Heard::Message(welcome) if welcome["type"] == "welcome" => {
            let back = Instant::now();
            welcomed.set(welcomed.get() + 1);
            Ok((closed, back, peer))
        }
        other => Err(format!("no welcome: {other:?}")),
    }
}

#[test]
fn everybody_comes_back() {
    let clients = number("RETURNING", 1_000);
    let connections_max = (clients + 100).to_string();
    let settings = ["--limits.connections_max", &*connections_max, "--drain.timeout", "10s"];
    let mut node = Node::start(&settings);
    let addr = node.addr();
    let (told, waits) = std::sync::mpsc::channel();
    let returning = std::thread::spawn(move || {
        let welcomed = Rc::new(std::cell::Cell::new(0));
        let all = tokio::task::LocalSet::new();
        runtime().block_on(all.run_until(async {
            let mut tasks = Vec::with_capacity(clients);
            for at in 0..clients {
                tasks.push(tokio::task::spawn_local(come_back(addr, at, welcomed.clone())));
                // No more at once than the backlog holds.
                while at + 1 - welcomed.get().min(at + 1) >= 256 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            for all_welcomed in [clients, 2 * clients] {
                let given_up = Instant::now() + 6 * PATIENCE;
                while welcomed.get() < all_welcomed && Instant::now() < given_up {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                told.send(welcomed.get()).expect("the test waits");
            }
            let mut outcomes = Vec::with_capacity(clients);
            for task in tasks {
                outcomes.push(task.await.expect("no panic"));
            }
            // All go at once.
            outcomes.into_iter().map(|outcome| outcome.map(|(closed, back, _)| (closed, back))).collect::<Vec<_>>()
        }))
    });
    assert_eq!(waits.recv().expect("no panic"), clients, "all are connected");
    let signalled = Instant::now();
    node.restart();
    assert_eq!(waits.recv().expect("no panic"), 2 * clients, "all are back");
    let outcomes = returning.join().expect("no panic");
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).take(5).collect();
    assert_eq!(refused, [""; 0], "none is refused");
    let returns = outcomes.iter().flatten().map(|(closed, back)| Return {
        away: back.duration_since(*closed),
        since_signal: back.duration_since(signalled),
    });
    let (mut away, mut since) = (times(), times());
    for Return { away: took, since_signal } in returns {
        away.saturating_record(took.as_millis() as u64);
        since.saturating_record(since_signal.as_millis() as u64);
    }
    for (what, times) in [("away", &away), ("since SIGTERM", &since)] {
        let [p50, p99] = [0.5, 0.99].map(|quantile| times.value_at_quantile(quantile));
        println!("{clients} clients back, {what}: p50 {p50} ms, p99 {p99} ms, max {} ms", times.max());
    }
    assert_eq!(away.len(), clients as u64);
    await_metric(&addr, "fanfare_connections", 0);
    let page = http_get(&addr, "/metrics").body;
    let turns = |of: &str| -> u64 {
        let lines = page.lines().filter(|line| line.starts_with("fanfare_turn_seconds_bucket") && line.contains(of));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let (all, short) = (turns("le=\"+Inf\""), turns("le=\"0.0625\""));
    println!("they come in and go at once in {all} turns, {} of them longer than 62.5 ms", all - short);
}

/// Times in milliseconds; one beyond ten minutes counts as ten.
fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000, 3).expect("bounds that fit each other")
}
