//! The load generator in Centrifugo's words, against a server that the test plays: it sends what is ready in one frame,
//! line by line, asks for pongs, and does one thing wrong where it is told to.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::faulty::{Accepted, Deflate, Fault, accept};
use super::tokens::{Secret, assert_clean};
use super::{Ran, run};

/// Messages in one frame at most, as Centrifugo has it.
const MESSAGES_IN_A_FRAME: usize = 16;

/// For so long a frame waits for more messages.
const GATHERING: Duration = Duration::from_millis(2);

/// Which delivery to the first subscriber is the wrong one, counted from 1.
const FAULT_AT: u32 = 3;

#[derive(Clone, Copy, Default)]
struct Manners {
    fault: Fault,
    deflate: Deflate,
    /// How much of a message a frame carries at most; 0: all of it.
    fragment_bytes: usize,
    /// Whether those who come back get nothing of what they have missed.
    forgets: bool,
    /// Whether connections without a token are welcome.
    takes_anonymous: bool,
}

#[derive(Default)]
struct Room {
    members: Vec<u32>,
    history: Vec<Value>,
}

#[derive(Default)]
struct Hub {
    manners: Manners,
    /// What goes to each connection.
    writers: HashMap<u32, Sender<String>>,
    rooms: HashMap<String, Room>,
    delivered_to_first: u32,
    held: Option<String>,
    /// Frames with more messages than one.
    full_frames: u32,
    pings: u32,
    pongs: u32,
}

impl Hub {
    fn send(&self, client: u32, text: &str) {
        if let Some(writer) = self.writers.get(&client) {
            let _ = writer.send(text.to_owned());
        }
    }

    fn command(&mut self, client: u32, command: &Value) {
        let id = &command["id"];
        if command.as_object().is_some_and(serde_json::Map::is_empty) {
            self.pongs += 1;
        } else if let Some(connect) = command.get("connect") {
            let token = connect["token"].as_str().unwrap_or_default();
            let reply = match token.split('.').count() == 3 || self.manners.takes_anonymous {
                true => json!({"id": id, "connect": {"client": "c", "ping": 25, "pong": true}}),
                false => json!({"id": id, "error": {"code": 101, "message": "unauthorized"}}),
            };
            self.send(client, &reply.to_string());
        } else if let Some(subscribe) = command.get("subscribe") {
            self.subscribe(client, id, subscribe);
        } else if let Some(publish) = command.get("publish") {
            self.send(client, &json!({"id": id, "publish": {}}).to_string());
            self.publish(client, publish);
        } else if command["unsubscribe"]["channel"].is_string() {
            self.send(client, &json!({"id": id, "unsubscribe": {}}).to_string());
        } else {
            // As Centrifugo does with what it does not know.
            self.writers.remove(&client);
        }
    }

    fn subscribe(&mut self, client: u32, id: &Value, subscribe: &Value) {
        let room = self.rooms.entry(subscribe["channel"].as_str().expect("a channel").to_owned()).or_default();
        room.members.push(client);
        let mut result = json!({"recoverable": true, "positioned": true, "epoch": "e"});
        if !room.history.is_empty() {
            result["offset"] = json!(room.history.len());
        }
        if subscribe["recover"] == true {
            let offset = subscribe["offset"].as_u64().unwrap_or(0) as usize;
            result["was_recovering"] = json!(true);
            result["recovered"] = json!(!self.manners.forgets);
            if !self.manners.forgets {
                result["publications"] = json!(room.history[offset..]);
            }
        }
        self.pings += 1;
        self.send(client, &json!({"id": id, "subscribe": result}).to_string());
        self.send(client, "{}");
    }

    fn publish(&mut self, publisher: u32, publish: &Value) {
        let channel = publish["channel"].as_str().expect("a channel");
        let room = self.rooms.entry(channel.to_owned()).or_default();
        let info = json!({"user": "p000000", "client": "c"});
        let publication = json!({"data": publish["data"], "info": info, "offset": room.history.len() + 1});
        room.history.push(publication.clone());
        let members = room.members.clone();
        let push = json!({"push": {"channel": channel, "pub": publication}}).to_string();
        for (at, member) in members.into_iter().enumerate() {
            match at {
                0 => self.deliver_to_first(member, publisher, &push),
                _ => self.send(member, &push),
            }
        }
    }

    fn deliver_to_first(&mut self, member: u32, publisher: u32, push: &str) {
        self.delivered_to_first += 1;
        let fault = if self.delivered_to_first == FAULT_AT { self.manners.fault } else { Fault::None };
        match fault {
            Fault::Drop => {}
            Fault::Swap => self.held = Some(push.to_owned()),
            Fault::Double => {
                self.send(member, push);
                self.send(member, push);
            }
            Fault::Refuse => {
                self.send(member, push);
                self.send(publisher, r#"{"id":1000000001,"error":{"code":111,"message":"too many requests"}}"#);
            }
            Fault::Alter => self.send(member, &push.replacen(r#"":[{"ask":""#, r#"":[{"ask":"9"#, 1)),
            _ => {
                self.send(member, push);
                if let Some(held) = self.held.take() {
                    self.send(member, &held);
                }
            }
        }
    }
}

/// A server that lives as long as the process.
struct Peer {
    address: SocketAddr,
    hub: Arc<Mutex<Hub>>,
}

impl Peer {
    fn start(manners: Manners) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let hub = Arc::new(Mutex::new(Hub { manners, ..Hub::default() }));
        let of_listener = Arc::clone(&hub);
        thread::spawn(move || {
            for (client, stream) in (0..).zip(listener.incoming().flatten()) {
                let hub = Arc::clone(&of_listener);
                thread::spawn(move || serve(client, stream, &hub));
            }
        });
        Peer { address, hub }
    }

    /// One connection after another, so that the first user is the first subscriber.
    fn bench(&self, arguments: &str) -> Ran {
        let secret = Secret::new();
        let Peer { address, .. } = self;
        let secret = secret.0.display();
        run(&format!(
            "{arguments} --handshakes 1 --dialect centrifugo --json --timeout 1s --token-secret-file {secret} --url ws://{address}"
        ))
    }
}

fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(client: u32, stream: TcpStream, hub: &Arc<Mutex<Hub>>) {
    let Manners { deflate, fragment_bytes, .. } = lock(hub).manners;
    let Some(Accepted { mut reader, mut writer, .. }) = accept(stream, deflate) else { return };
    let (sender, messages) = channel::<String>();
    lock(hub).writers.insert(client, sender);
    let of_writer = Arc::clone(hub);
    thread::spawn(move || {
        while let Ok(first) = messages.recv() {
            thread::sleep(GATHERING);
            let lines: Vec<_> = [first].into_iter().chain(messages.try_iter().take(MESSAGES_IN_A_FRAME - 1)).collect();
            lock(&of_writer).full_frames += u32::from(lines.len() > 1);
            writer.send_in_fragments(&lines.join("\n"), fragment_bytes);
        }
        writer.close();
    });
    while let Ok(message) = reader.read() {
        let text = message.into_data();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let command = serde_json::from_slice(line).unwrap_or_default();
            lock(hub).command(client, &command);
        }
    }
}

const FANOUT: &str = "fanout --connections 5 --outstanding 8 --messages 100";

#[test]
fn every_scenario_but_two_speaks_centrifugos_words() {
    for (arguments, messages) in [
        (FANOUT, 100),
        ("rooms --rooms 2 --connections 6 --publishers 2 --outstanding 4 --messages 100", 100),
        ("latency --connections 5 --rate 100 --duration 200ms", 1),
        ("idle --connections 12 --base 4 --duration 10ms", 0),
        ("connect --connections 6 --join --rooms 2", 0),
        ("storm --connections 10", 0),
        ("logins --connections 5 --logins 30 --duration 200ms", 1),
        ("resume --connections 6 --missed 20", 20),
    ] {
        let peer = Peer::start(Manners::default());
        let ran = peer.bench(arguments);
        assert_clean(&ran, arguments);
        assert_eq!(ran.report()["settings"]["dialect"], "centrifugo", "{arguments}");
        let hub = lock(&peer.hub);
        let published: usize = hub.rooms.values().map(|room| room.history.len()).sum();
        assert!(published >= messages, "{arguments}: {published} were published");
        assert!(hub.pings > 0 && hub.full_frames > 0, "{arguments}");
    }
    for scenario in ["private", "hostile"] {
        let ran = Peer::start(Manners::default()).bench(scenario);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{scenario}");
        assert!(ran.err.contains("--dialect") && ran.err.contains(scenario), "{}", ran.err);
    }
}

#[test]
fn every_ping_is_answered() {
    let peer = Peer::start(Manners::default());
    assert_clean(&peer.bench(FANOUT), FANOUT);
    let hub = lock(&peer.hub);
    assert_eq!((hub.pings, hub.pongs), (5, 5));
}

#[test]
fn what_is_wrong_is_found_in_frames_of_several_messages() {
    for (fault, faults) in [
        (Fault::Drop, [1, 0, 0, 0, 0, 0, 0]),
        (Fault::Double, [0, 1, 0, 0, 0, 0, 0]),
        (Fault::Swap, [0, 0, 1, 0, 0, 0, 0]),
        (Fault::Alter, [0, 0, 0, 0, 1, 0, 0]),
        (Fault::Refuse, [0, 0, 0, 0, 0, 0, 1]),
    ] {
        for (deflate, fragment_bytes) in [
            (Deflate::Never, 0),
            (Deflate::Alone, 0),
            (Deflate::Window, 0),
            (Deflate::Never, 100),
            (Deflate::Alone, 100),
        ] {
            let peer = Peer::start(Manners { fault, deflate, fragment_bytes, ..Manners::default() });
            let compressed = if deflate == Deflate::Never { "" } else { "--deflate" };
            let ran = peer.bench(&format!("{FANOUT} --payload json {compressed}"));
            assert_eq!((ran.code, ran.faults()), (Some(1), faults), "{fault:?}, {deflate:?}: {}", ran.out);
        }
    }
}

/// A frame of several messages can only be counted when it is inflated.
#[test]
fn compressed_messages_are_all_inflated() {
    for deflate in [Deflate::Alone, Deflate::Window] {
        let peer = Peer::start(Manners { deflate, ..Manners::default() });
        let median = assert_clean(&peer.bench(&format!("{FANOUT} --deflate")), "deflate");
        assert_eq!(median["inflated_percent"], 100.0, "{deflate:?}: {median}");
        // All but what the publisher, which offers no compression, is answered.
        let compressed = median["compressed_percent"].as_f64().expect("a share");
        assert!((75.0..95.0).contains(&compressed), "{deflate:?}: {median}");
    }
}

#[test]
fn those_who_come_back_get_what_they_missed_or_it_is_missing() {
    let arguments = "resume --connections 6 --missed 20 --rounds 2";
    let median = assert_clean(&Peer::start(Manners::default()).bench(arguments), arguments);
    for figure in ["resumes_per_s", "deliveries_per_s", "p50_us", "p99_us", "received_bytes_each"] {
        assert!(median[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {median}");
    }
    let ran = Peer::start(Manners { forgets: true, ..Manners::default() }).bench(arguments);
    assert_eq!((ran.code, ran.faults()), (Some(1), [6 * 20, 0, 0, 0, 0, 0, 0]), "{}", ran.out);
}

#[test]
fn without_a_token_one_is_anonymous_or_refused() {
    for (takes_anonymous, code) in [(true, Some(0)), (false, Some(2))] {
        let peer = Peer::start(Manners { takes_anonymous, ..Manners::default() });
        let ran = run(&format!("connect --connections 6 --dialect centrifugo --json --url ws://{}", peer.address));
        assert_eq!(ran.code, code, "{} {}", ran.out, ran.err);
        assert_eq!(takes_anonymous, !ran.err.contains("refused to let it in"), "{}", ran.err);
    }
}
