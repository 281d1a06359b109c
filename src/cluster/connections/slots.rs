//! Which server of a Redis Cluster has which slot.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{ServerErrorKind, Value};

use super::{Redis, at, reason};
use crate::config::RedisHost;
use crate::limits::CLUSTER_TOPOLOGY_MS_MAX;

/// Slots of every Redis Cluster.
const SLOTS_COUNT: u16 = 16_384;

/// The primary of each slot, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slots {
    hosts: Vec<RedisHost>,
    /// For each slot the index of its host; empty before anything was heard.
    owners: Vec<Option<u16>>,
}

/// What a server says where a command belongs to another one. The command was not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot is at this server from now on.
    Moved(u16, RedisHost),
    /// The slot is on its way there, and this key has arrived already.
    Ask(RedisHost),
    /// The slot is on its way, and so are some of these keys: to be asked again.
    Again,
}

impl Slots {
    /// Asks one node after the other until one tells: those that the URL names, and those that were seen.
    pub(super) async fn ask(redis: &Redis, nodes: &[RedisHost]) -> Result<Slots, String> {
        let mut nodes = [nodes, redis.slots().hosts()].concat();
        fastrand::shuffle(&mut nodes);
        let mut why = String::new();
        for node in &nodes {
            let asked = tokio::time::timeout(Duration::from_millis(CLUSTER_TOPOLOGY_MS_MAX), ask(redis, node));
            match asked.await.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(slots) => {
                    redis.slots().clone_from(&slots);
                    return Ok(slots);
                }
                Err(error) => why = at(node, &error),
            }
        }
        Err(why)
    }

    /// Reads what `asked` says to `CLUSTER SLOTS`.
    fn read(answer: &Value, asked: &RedisHost) -> Option<Slots> {
        let mut slots = Slots { hosts: Vec::new(), owners: vec![None; usize::from(SLOTS_COUNT)] };
        for range in items(answer)? {
            let [first, last, primary, ..] = items(range)? else { return None };
            let [name, port, ..] = items(primary)? else { return None };
            // One that does not know its own name is called as we call it.
            let name = text(name).filter(|name| !matches!(*name, "" | "?")).unwrap_or(&asked.name);
            let host = RedisHost { name: name.to_owned(), port: number(port)? };
            for slot in number(first)?..=number(last)? {
                slots.set(slot, &host);
            }
        }
        (!slots.hosts.is_empty()).then_some(slots)
    }

    /// All servers that have a slot, or had one.
    pub(super) fn hosts(&self) -> &[RedisHost] {
        &self.hosts
    }

    /// The server that has the slot of a name.
    pub(super) fn owner(&self, name: &str) -> Result<&RedisHost, String> {
        let slot = slot(name);
        let at = self.owners.get(usize::from(slot)).copied().flatten();
        at.and_then(|at| self.hosts.get(usize::from(at))).ok_or_else(|| format!("slot {slot} is served by no server"))
    }

    /// The slot is there from now on.
    pub(super) fn set(&mut self, slot: u16, host: &RedisHost) {
        let at = match self.hosts.iter().position(|known| known == host) {
            Some(at) => at,
            None => {
                self.hosts.push(host.clone());
                self.hosts.len() - 1
            }
        };
        if let (Some(owner), Ok(at)) = (self.owners.get_mut(usize::from(slot)), u16::try_from(at)) {
            *owner = Some(at);
        }
    }
}

impl Redirect {
    /// What the answer of `asked` says, if it says where to go.
    pub(super) fn read(answer: &Value, asked: &RedisHost) -> Option<Redirect> {
        let Value::ServerError(error) = answer else { return None };
        let there = || {
            let (slot, addr) = error.details()?.split_once(' ')?;
            let (name, port) = addr.trim().rsplit_once(':')?;
            let name = if matches!(name, "" | "?") { &asked.name } else { name };
            Some((slot.parse().ok()?, RedisHost { name: name.to_owned(), port: port.parse().ok()? }))
        };
        match error.kind()? {
            ServerErrorKind::Moved => there().map(|(slot, host)| Redirect::Moved(slot, host)),
            ServerErrorKind::Ask => there().map(|(_, host)| Redirect::Ask(host)),
            ServerErrorKind::TryAgain => Some(Redirect::Again),
            _ => None,
        }
    }
}

/// The slot of a key or channel: of what stands in its first braces, if anything does.
pub(super) fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let tag = tag.filter(|tag| !tag.is_empty()).unwrap_or(name);
    // CRC-16/XMODEM.
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    });
    crc % SLOTS_COUNT
}

async fn ask(redis: &Redis, node: &RedisHost) -> Result<Slots, String> {
    let connected = redis.shard(node)?.get_multiplexed_async_connection().await;
    ask_connected(&mut connected.map_err(|error| reason(&error))?, node).await
}

/// Asks a node that there is a connection to.
pub(super) async fn ask_connected(connection: &mut MultiplexedConnection, node: &RedisHost) -> Result<Slots, String> {
    let answer = connection.req_packed_command(redis::cmd("CLUSTER").arg("SLOTS")).await;
    match answer.map_err(|error| reason(&error))? {
        Value::ServerError(error) => Err(error_in_words(&error)),
        answer => Slots::read(&answer, node).ok_or_else(|| "no server has a slot there".to_owned()),
    }
}

/// The question holds no secret, so the answer may be told as it is.
fn error_in_words(error: &redis::ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> RedisHost {
        RedisHost { name: name.to_owned(), port }
    }

    /// What a server writes, as the client library reads it.
    fn said(wire: &str) -> Value {
        redis::parse_redis_value(wire.as_bytes()).unwrap()
    }

    #[test]
    fn slots_are_those_of_redis() {
        // The check value of CRC-16/XMODEM, and what CLUSTER KEYSLOT says.
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("foo{hash_tag}"), slot("bar{hash_tag}:m"));
        assert_eq!(slot("foo{}{bar}"), 8363);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
    }

    #[test]
    fn the_slots_of_a_cluster_are_read() {
        let range = |first: u16, last: u16, primary: &str| {
            format!("*4\r\n:{first}\r\n:{last}\r\n{primary}*3\r\n$1\r\nz\r\n:9\r\n$2\r\nid\r\n")
        };
        let there = "*3\r\n$9\r\n127.0.0.2\r\n:7001\r\n$2\r\nid\r\n";
        let unnamed = "*3\r\n$-1\r\n:7002\r\n$2\r\nid\r\n";
        let answer = said(&format!("*2\r\n{}{}", range(0, 12_000, there), range(12_001, 16_000, unnamed)));
        let mut slots = Slots::read(&answer, &host("asked", 1)).unwrap();
        assert_eq!(slots.hosts(), [host("127.0.0.2", 7001), host("asked", 7002)]);
        assert_eq!(slots.owner("foo{}{bar}").unwrap(), &host("127.0.0.2", 7001), "slot 8363");
        assert_eq!(slots.owner("123456789").unwrap(), &host("asked", 7002), "slot 12739");
        slots.set(12_739, &host("new", 1));
        assert_eq!(slots.owner("123456789").unwrap(), &host("new", 1));
        let nobodys = (0..).map(|number: u32| number.to_string()).find(|name| slot(name) > 16_000).unwrap();
        assert!(slots.owner(&nobodys).unwrap_err().contains("no server"));
        assert!(Slots::read(&said("*0\r\n"), &host("asked", 1)).is_none());
    }

    #[test]
    fn redirections_are_read() {
        let asked = host("asked", 1);
        let read = |wire: &str| Redirect::read(&said(wire), &asked);
        assert_eq!(read("-MOVED 3999 127.0.0.1:6381\r\n"), Some(Redirect::Moved(3999, host("127.0.0.1", 6381))));
        assert_eq!(read("-MOVED 3999 :6381\r\n"), Some(Redirect::Moved(3999, host("asked", 6381))));
        assert_eq!(read("-ASK 1 ::1:6381\r\n"), Some(Redirect::Ask(host("::1", 6381))));
        assert_eq!(read("-TRYAGAIN Multiple keys request during rehashing of slot\r\n"), Some(Redirect::Again));
        assert_eq!(read("-CLUSTERDOWN The cluster is down\r\n"), None);
        assert_eq!(read("+OK\r\n"), None);
    }
}
