//! A slow and simple server of keyed rooms, which does one thing wrong, on purpose.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faulty::{Accepted, Deflate, Writer, accept};

/// What goes wrong, for the first subscriber alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wrong {
    /// Nothing.
    #[default]
    Nothing,
    /// From some update on, item `i000001` is not sent any more.
    LastValue,
    /// One update of it is not sent.
    OneUpdate,
    /// A value comes again.
    Twice,
    /// A value comes after a newer one of its item.
    Older,
    /// An item comes that is not wanted.
    Unwanted,
    /// The number of an item's updates goes up by two.
    Seq,
    /// A snapshot is without item `i000001`.
    Snapshot,
    /// Rounds come when they like.
    Hurry,
    /// The connection is closed.
    Close,
}

/// Starts the server, which lives as long as the process.
pub fn start(wrong: Wrong) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let room = Arc::new(Mutex::new(Room { wrong, ..Room::default() }));
    let rounds = Arc::clone(&room);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(2));
            lock(&rounds).round();
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let room = Arc::clone(&room);
            thread::spawn(move || serve(stream, &room));
        }
    });
    address
}

#[derive(Clone)]
struct Item {
    name: String,
    seq: u64,
    offset: u64,
    /// None: removed.
    content: Option<Value>,
    from: String,
}

struct Member {
    user: String,
    writer: Option<Writer>,
    /// Once it has joined.
    joined: Option<Joined>,
}

struct Joined {
    latest: bool,
    interval: Duration,
    items: Option<Vec<String>>,
    since: u64,
    next: Instant,
}

#[derive(Default)]
struct Room {
    wrong: Wrong,
    name: String,
    offset: u64,
    items: BTreeMap<String, Item>,
    members: Vec<Member>,
    /// Updates of the item that goes wrong.
    count: u64,
    held: Option<Item>,
}

/// The item that goes wrong.
const VICTIM: &str = "i000001";

/// Which of its updates is the first to.
const WRONG_AT: u64 = 20;

impl Joined {
    fn wants(&self, item: &str) -> bool {
        self.items.as_ref().is_none_or(|items| items.iter().any(|wanted| wanted == item))
    }
}

impl Room {
    fn message(&self, item: &Item) -> String {
        let Item { name, seq, offset, content, from } = item;
        let mut message = json!({"type": "room_msg", "roomId": self.name, "item": name, "seq": seq, "offset": offset,
            "from": from, "time": 0});
        match content {
            Some(content) => message["content"] = content.clone(),
            None => message["removed"] = json!(true),
        }
        message.to_string()
    }

    /// What is sent of an item to a member. The first one is the one that suffers.
    fn deliver(&mut self, at: usize, item: &Item) {
        let is_victim = at == 0 && item.name == VICTIM;
        self.count += u64::from(is_victim);
        let (is_time, is_past) = (is_victim && self.count == WRONG_AT, is_victim && self.count >= WRONG_AT);
        let mut sent = vec![item.clone()];
        match self.wrong {
            Wrong::LastValue if is_past => sent.clear(),
            Wrong::OneUpdate if is_time => sent.clear(),
            Wrong::Twice if is_time => sent.push(item.clone()),
            Wrong::Older if is_time => self.held = Some(item.clone()),
            Wrong::Older if self.held.is_some() && is_victim => sent.extend(self.held.take()),
            Wrong::Unwanted if is_time => sent[0].name = "i000009".to_owned(),
            Wrong::Seq if is_past => sent[0].seq += 1,
            Wrong::Close if is_time => self.members[at].writer.iter_mut().for_each(Writer::close),
            Wrong::Nothing
            | Wrong::LastValue
            | Wrong::OneUpdate
            | Wrong::Twice
            | Wrong::Older
            | Wrong::Unwanted
            | Wrong::Seq
            | Wrong::Snapshot
            | Wrong::Hurry
            | Wrong::Close => {}
        }
        for item in sent {
            let message = self.message(&item);
            self.members[at].send(&message);
        }
    }

    fn update(&mut self, user: &str, update: &Value) {
        let name = update["item"].as_str().unwrap_or_default().to_owned();
        self.offset += 1;
        let seq = self.items.get(&name).map_or(1, |item| item.seq + 1);
        let content = (update["remove"] != true).then(|| update["content"].clone());
        let item = Item { name: name.clone(), seq, offset: self.offset, content, from: user.to_owned() };
        self.items.insert(name, item.clone());
        for at in 0..self.members.len() {
            if self.members[at].joined.as_ref().is_some_and(|joined| !joined.latest && joined.wants(&item.name)) {
                self.deliver(at, &item);
            }
        }
    }

    fn round(&mut self) {
        let now = Instant::now();
        for at in 0..self.members.len() {
            let hurries = self.wrong == Wrong::Hurry && at == 0;
            let Some(joined) = &mut self.members[at].joined else { continue };
            if !joined.latest || (joined.next > now && !hurries) {
                continue;
            }
            let (since, interval) = (joined.since, joined.interval);
            let mut changed: Vec<Item> =
                self.items.values().filter(|item| item.offset > since && joined.wants(&item.name)).cloned().collect();
            changed.sort_by_key(|item| item.offset);
            joined.since = self.offset;
            if !changed.is_empty() {
                joined.next = now + interval;
            }
            changed.iter().for_each(|item| self.deliver(at, item));
        }
    }

    fn join(&mut self, at: usize, command: &Value) {
        let items = command["items"].as_array();
        let items = items.map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        let joined = Joined {
            latest: command["mode"] == "latest",
            interval: Duration::from_millis(command["interval"].as_u64().unwrap_or(0)),
            items,
            since: self.offset,
            next: Instant::now(),
        };
        let since = command["since"]["offset"].as_u64();
        let mut current: Vec<Item> = self.items.values().cloned().collect();
        current.sort_by_key(|item| item.offset);
        for item in current {
            let is_new = since.map_or(item.content.is_some(), |since| item.offset > since);
            let is_forgotten = self.wrong == Wrong::Snapshot && at == 0 && item.name == VICTIM;
            if is_new && joined.wants(&item.name) && !is_forgotten {
                let message = self.message(&item);
                self.members[at].send(&message);
            }
        }
        let mut answer = json!({"type": "joined", "id": command["id"], "roomId": self.name, "epoch": "e",
            "offset": self.offset});
        if since.is_some() {
            answer["recovered"] = json!(true);
        }
        self.members[at].send(&answer.to_string());
        self.members[at].joined = Some(joined);
    }

    fn command(&mut self, at: usize, command: &Value) {
        let user = self.members[at].user.clone();
        match command["type"].as_str().unwrap_or_default() {
            "join_room" => {
                self.name = command["roomId"].as_str().unwrap_or_default().to_owned();
                self.join(at, command);
            }
            "room_msg" => self.update(&user, command),
            "room_msgs" => {
                for update in command["updates"].as_array().into_iter().flatten() {
                    self.update(&user, update);
                }
            }
            "ping" => self.members[at].send(r#"{"type":"pong"}"#),
            _ => {}
        }
        if command["type"] != "join_room" && !command["id"].is_null() {
            let answer = json!({"type": "ack", "id": command["id"], "epoch": "e", "offset": self.offset});
            self.members[at].send(&answer.to_string());
        }
    }

    /// The first subscriber has the first place.
    fn enter(&mut self, user: &str, writer: Writer) -> usize {
        let member = Member { user: user.to_owned(), writer: Some(writer), joined: None };
        if self.members.is_empty() {
            let user = "u000000".to_owned();
            self.members.push(Member { user, writer: None, joined: None });
        }
        match user {
            "u000000" => {
                self.members[0] = member;
                0
            }
            _ => {
                self.members.push(member);
                self.members.len() - 1
            }
        }
    }
}

impl Member {
    fn send(&mut self, text: &str) {
        if let Some(writer) = &mut self.writer {
            writer.send(text);
        }
    }
}

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, room: &Mutex<Room>) {
    let Some(Accepted { mut reader, mut writer, query }) = accept(stream, Deflate::Never) else { return };
    let user = query.trim_start_matches("userId=").to_owned();
    writer.send(&json!({"type": "welcome", "clientId": user, "userId": user, "heartbeat": 30_000}).to_string());
    let at = lock(room).enter(&user, writer);
    while let Ok(message) = reader.read() {
        if message.is_close() {
            break;
        }
        let command = serde_json::from_slice(&message.into_data()).unwrap_or_default();
        lock(room).command(at, &command);
    }
    lock(room).members[at].joined = None;
}
