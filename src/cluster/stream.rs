//! A stream of Redis, read by a process that is no node, and one key that says how far. Of every kind of Redis: in a Redis
//! Cluster each of the two is asked of the shard that has it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Value};
use tokio::runtime::Runtime;

use super::connections::Redis;
use crate::config::{RedisAddress, RedisHost, RedisKind};
use crate::limits::{CLUSTER_ANSWER_MS_MAX, CLUSTER_CANARY_MS, CLUSTER_CONNECT_MS_MAX};

/// How often a command follows what a shard says of where its key is.
const REDIRECTIONS_MAX: usize = 5;

/// An entry: its id, and its fields by name.
pub type StreamEntry = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// See the module's documentation. Every call waits.
pub struct StreamReader {
    runtime: Runtime,
    redis: Arc<Redis>,
    stream: String,
    position_key: String,
    /// By where they lead. To one server there is one, without a name.
    connections: HashMap<Option<RedisHost>, MultiplexedConnection>,
    /// Which shard was right for a key.
    shards: HashMap<String, RedisHost>,
    /// Behind Sentinels: the primary that they named last, and when. One that was replaced lives on for a while, and knows
    /// nothing of it.
    primary: Option<(String, Instant)>,
}

/// What a server says of a command.
enum Said {
    Answer(Value),
    /// In a Redis Cluster: another server has the key.
    Elsewhere(RedisHost),
}

impl StreamReader {
    /// Of this stream, whose position is kept at this key. Connects at the first call. Reads the file `tls_ca`, if there is a
    /// name.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no certificate.
    pub fn new(address: RedisAddress, tls_ca: &str, stream: &str, position_key: &str) -> io::Result<StreamReader> {
        Ok(StreamReader {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            redis: Arc::new(Redis::new(address, tls_ca)?),
            stream: stream.to_owned(),
            position_key: position_key.to_owned(),
            connections: HashMap::new(),
            shards: HashMap::new(),
            primary: None,
        })
    }

    /// The id that is kept.
    ///
    /// # Errors
    /// Why it cannot be told, without a secret.
    pub fn position(&mut self) -> Result<Option<String>, String> {
        let mut command = redis::cmd("GET");
        command.arg(&self.position_key);
        let answer = self.call(self.position_key.clone(), &command, Duration::ZERO)?;
        Option::<String>::from_redis_value(answer).map_err(|_| format!("{} holds no id", self.position_key))
    }

    /// Keeps an id.
    ///
    /// # Errors
    /// Why it is not kept, without a secret.
    pub fn keep(&mut self, id: &str) -> Result<(), String> {
        let mut command = redis::cmd("SET");
        command.arg(&self.position_key).arg(id);
        self.call(self.position_key.clone(), &command, Duration::ZERO).map(|_| ())
    }

    /// The id of the newest entry, `0-0` where there is none.
    ///
    /// # Errors
    /// Why it cannot be told, without a secret.
    pub fn newest(&mut self) -> Result<String, String> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.stream).arg("+").arg("-").arg("COUNT").arg(1);
        let answer = self.call(self.stream.clone(), &command, Duration::ZERO)?;
        let Value::Array(entries) = answer else { return Err("its answer is no list of entries".to_owned()) };
        Ok(entries.into_iter().next().and_then(entry).map_or_else(|| "0-0".to_owned(), |(id, _)| id))
    }

    /// At most so many entries behind an id, in order. Waits so long for the first of them.
    ///
    /// # Errors
    /// Why there are none, without a secret.
    pub fn read(&mut self, behind: &str, count_max: usize, wait: Duration) -> Result<Vec<StreamEntry>, String> {
        let mut command = redis::cmd("XREAD");
        // To Redis, 0 is for ever.
        let wait_ms = wait.as_millis().max(1) as u64;
        command.arg("COUNT").arg(count_max).arg("BLOCK").arg(wait_ms).arg("STREAMS").arg(&self.stream).arg(behind);
        let answer = self.call(self.stream.clone(), &command, wait)?;
        entries(answer).ok_or_else(|| "its answer is no list of entries".to_owned())
    }

    fn call(&mut self, key: String, command: &Cmd, wait: Duration) -> Result<Value, String> {
        let mut at = match &self.redis.kind() {
            RedisKind::Cluster(hosts) => self.shards.get(&key).or(hosts.first()).cloned(),
            RedisKind::Server(_) | RedisKind::Unix(_) | RedisKind::Sentinel { .. } => None,
        };
        for _ in 0..REDIRECTIONS_MAX {
            match self.call_at(at.clone(), command, wait) {
                Ok(Said::Answer(answer)) => {
                    if let Some(host) = at {
                        self.shards.insert(key, host);
                    }
                    return Ok(answer);
                }
                Ok(Said::Elsewhere(host)) => at = Some(host),
                Err(why) => {
                    // The next call begins with what is there then.
                    self.connections.remove(&at);
                    if let Some(host) = self.shards.remove(&key) {
                        self.connections.remove(&Some(host));
                    }
                    return Err(why);
                }
            }
        }
        Err("its shards name each other for this key".to_owned())
    }

    fn call_at(&mut self, at: Option<RedisHost>, command: &Cmd, wait: Duration) -> Result<Said, String> {
        let StreamReader { runtime, redis, connections, primary, .. } = self;
        runtime.block_on(async {
            if let Some((known, asked_at)) = primary
                && asked_at.elapsed() >= Duration::from_millis(CLUSTER_CANARY_MS)
            {
                *asked_at = Instant::now();
                // Where no Sentinel answers, who was the primary is as good as any.
                if let Ok((_, named)) = primary_of(redis).await
                    && named != *known
                {
                    connections.clear();
                }
            }
            let connection = match connections.entry(at) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    let client = match entry.key() {
                        Some(host) => redis.shard(host)?,
                        None => {
                            let (client, address) = primary_of(redis).await?;
                            let has_sentinels = matches!(redis.kind(), RedisKind::Sentinel { .. });
                            *primary = has_sentinels.then(|| (address, Instant::now()));
                            client
                        }
                    };
                    entry.insert(connect(&client).await?)
                }
            };
            let patience = wait + Duration::from_millis(CLUSTER_ANSWER_MS_MAX);
            let answered = tokio::time::timeout(patience, command.query_async::<Value>(connection)).await;
            let error = match answered.map_err(|_| "no answer".to_owned())? {
                Ok(answer) => return Ok(Said::Answer(answer)),
                Err(error) => error,
            };
            let host = error.redirect_node().and_then(|(address, _)| address.rsplit_once(':'));
            match host.and_then(|(name, port)| Some(RedisHost { name: name.to_owned(), port: port.parse().ok()? })) {
                Some(host) => Ok(Said::Elsewhere(host)),
                None => Err(super::connections::reason(&error)),
            }
        })
    }
}

/// The one server there is, or the one that is the primary now.
async fn primary_of(redis: &Redis) -> Result<(Client, String), String> {
    let asked = tokio::time::timeout(Duration::from_millis(CLUSTER_CONNECT_MS_MAX), redis.primary()).await;
    asked.map_err(|_| "the Sentinels do not answer".to_owned())?
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, String> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let connected = tokio::time::timeout(Duration::from_millis(CLUSTER_CONNECT_MS_MAX), connecting).await;
    connected.map_err(|_| "no answer".to_owned())?.map_err(|error| super::connections::reason(&error))
}

/// What `XREAD` says of one stream: in RESP2 a list of name and entries, in RESP3 a map.
fn entries(answer: Value) -> Option<Vec<StreamEntry>> {
    let entries = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Map(streams) => streams.into_iter().next()?.1,
        Value::Array(streams) => match streams.into_iter().next()? {
            Value::Array(stream) => stream.into_iter().nth(1)?,
            _ => return None,
        },
        _ => return None,
    };
    let Value::Array(entries) = entries else { return None };
    entries.into_iter().map(entry).collect()
}

fn entry(entry: Value) -> Option<StreamEntry> {
    let Value::Array(parts) = entry else { return None };
    let [id, fields]: [Value; 2] = parts.try_into().ok()?;
    let (Value::BulkString(id), Value::Array(fields)) = (id, fields) else { return None };
    let mut texts = fields.into_iter().map(|text| match text {
        Value::BulkString(text) => Some(text),
        _ => None,
    });
    let mut fields = Vec::with_capacity(texts.len() / 2);
    while let Some(name) = texts.next() {
        fields.push((name?, texts.next()??));
    }
    Some((String::from_utf8(id).ok()?, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_read_in_either_protocol() {
        let list = || {
            Value::Array(vec![
                Value::Array(vec![
                    text("1-0"),
                    Value::Array(vec![text("item"), text("A"), text("content"), text("1")]),
                ]),
                Value::Array(vec![text("1-1"), Value::Array(Vec::new())]),
            ])
        };
        let expected = vec![
            ("1-0".to_owned(), vec![(b"item".to_vec(), b"A".to_vec()), (b"content".to_vec(), b"1".to_vec())]),
            ("1-1".to_owned(), Vec::new()),
        ];
        let second = Value::Array(vec![Value::Array(vec![text("s"), list()])]);
        assert_eq!(entries(second), Some(expected.clone()));
        assert_eq!(entries(Value::Map(vec![(text("s"), list())])), Some(expected));
        assert_eq!(entries(Value::Nil), Some(Vec::new()));
        for wrong in [Value::Int(1), Value::Array(Vec::new()), Value::Array(vec![text("s")])] {
            assert_eq!(entries(wrong), None);
        }
    }
}
