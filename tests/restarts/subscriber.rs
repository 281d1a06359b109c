//! A member of a room that keeps history, as a good client is one: it comes back with its position, and notes what it finds.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::peer::{Heard, Peer};
use super::times;

/// How long a client waits that was answered `unavailable`.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What all of them have found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Connections that were let in.
    pub opened: Cell<u64>,
    /// Ends of connections with a hint when to come back.
    pub told: Cell<u64>,
    /// Returns that were told `recovered:true`.
    pub recovered: Cell<u64>,
    /// Messages that came.
    pub messages: Cell<u64>,
    /// From publish to receipt of messages that came live, in milliseconds.
    pub latency: RefCell<Option<Histogram<u64>>>,
    /// What should not be, the first of it.
    pub faults: RefCell<Vec<String>>,
}

/// As many are kept.
const FAULTS_MAX: usize = 20;

impl Findings {
    /// A message has come live that was published at this time.
    fn received(&self, published_ms: &Value) {
        let latency_ms = published_ms.as_u64().map_or(0, |published_ms| now_ms().saturating_sub(published_ms));
        let mut latency = self.latency.borrow_mut();
        latency.get_or_insert_with(times).saturating_record(latency_ms);
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < FAULTS_MAX {
            faults.push(what);
        }
    }
}

/// Unix time in milliseconds.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// Where a client stands in its room.
#[derive(Clone, Debug)]
struct Position {
    epoch: Value,
    offset: u64,
}

/// A client of one user and one room.
pub struct Subscriber {
    pub addr: SocketAddr,
    pub name: String,
    pub room: String,
    pub findings: Rc<Findings>,
}

impl Subscriber {
    /// Stays in the room, across restarts, until it has the message with this content.
    pub async fn run(self, last: &str) {
        let mut position = None;
        loop {
            let target = format!("/?userId={}", self.name);
            let mut peer = match Peer::open(self.addr, &target).await {
                Ok(peer) => peer,
                Err(error) => return self.findings.fault(format!("{}: refused: {error}", self.name)),
            };
            count(&self.findings.opened);
            match self.listen(&mut peer, &mut position, last).await {
                Ok(None) => return,
                Ok(Some(retry)) => {
                    count(&self.findings.told);
                    drop(peer);
                    tokio::time::sleep(retry).await;
                }
                Err(fault) => return self.findings.fault(format!("{}: {fault}", self.name)),
            }
        }
    }

    /// Until the last message has come, or the server goes away.
    async fn listen(
        &self,
        peer: &mut Peer,
        position: &mut Option<Position>,
        last: &str,
    ) -> Result<Option<Duration>, String> {
        let mut join = json!({ "type": "join_room", "roomId": self.room, "id": 1 });
        let is_back = position.is_some();
        if let Some(Position { epoch, offset }) = position {
            join["since"] = json!({ "epoch": epoch, "offset": offset });
        }
        peer.send(&join).await?;
        let mut joined = false;
        loop {
            let message = match peer.hear().await {
                Heard::Message(message) => message,
                Heard::GoingAway(retry) => return Ok(Some(retry)),
                Heard::Lost(why) => return Err(format!("lost: {why}")),
            };
            match message["type"].as_str() {
                Some("joined") => {
                    joined = true;
                    let offset = message["offset"].as_u64().ok_or("joined without an offset")?;
                    if is_back {
                        if message["recovered"] != true {
                            return Err(format!("not recovered: {message}"));
                        }
                        count(&self.findings.recovered);
                    }
                    match position {
                        Some(position) if position.offset != offset => {
                            return Err(format!("at {} when joined at {offset}", position.offset));
                        }
                        Some(_) => {}
                        None => *position = Some(Position { epoch: message["epoch"].clone(), offset }),
                    }
                }
                Some("room_msg") => {
                    let position = position.as_mut().ok_or("a message in front of joined")?;
                    let offset = message["offset"].as_u64().ok_or("a message without an offset")?;
                    if offset != position.offset + 1 {
                        return Err(format!("{offset} behind {}, joined: {joined}", position.offset));
                    }
                    position.offset = offset;
                    count(&self.findings.messages);
                    if joined {
                        self.findings.received(&message["time"]);
                    }
                    if message["content"] == last {
                        return Ok(None);
                    }
                }
                Some("welcome" | "system") => {}
                // Its node has only just come, or the other one has only just gone: it is told to ask again.
                Some("error") if message["code"] == "unavailable" && !joined => {
                    tokio::time::sleep(ASK_AGAIN).await;
                    peer.send(&join).await?;
                }
                _ => return Err(format!("unexpected: {message}")),
            }
        }
    }
}
