//! Commands as Redis takes them, and its answers. The scripts are in the folder `scripts`.

mod items;
#[cfg(test)]
mod tests;

use redis::{Pipeline, Script, Value};

use super::core::{Command, NewEntry, ReadRange, Reply, StreamEntry};
use super::tell::{Tell, Told};
use crate::limits::{
    CLUSTER_EPOCH_MS, CLUSTER_READ_BYTES_MAX, CLUSTER_READ_MAX, CLUSTER_REVOCATIONS_SCAN, PUBLISH_KEY_MS_MAX,
};
use crate::router::cluster::Wanted;
use crate::router::{HistoryPolicy, StreamPosition};

/// More than any offset: numbers in a script are exact up to here.
const OFFSET_MAX: u64 = 1 << 53;

/// Digits of the primary's run id that an epoch begins with.
const RUN_DIGITS: usize = 16;

/// What a server is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// By itself, or with replicas.
    Alone,
    /// One of a Redis Cluster.
    Cluster,
}

/// What the scripts that write histories begin with.
macro_rules! with_stream {
    ($script:literal) => {
        concat!(include_str!("scripts/stream.lua"), include_str!($script))
    };
}

const APPEND: &str = with_stream!("scripts/append.lua");
const READ: &str = include_str!("scripts/read.lua");
const PURGE: &str = include_str!("scripts/purge.lua");
const TELL: &str = include_str!("scripts/tell.lua");
const UPDATE_ITEMS: &str = with_stream!("scripts/update_items.lua");
const READ_ITEMS: &str = include_str!("scripts/read_items.lua");

/// The scripts, and the run of the primary they are loaded at.
#[derive(Debug)]
pub(super) struct Scripts {
    append: Script,
    read: Script,
    purge: Script,
    tell: Script,
    update_items: Script,
    read_items: Script,
    run: String,
    /// The command to publish with.
    publish: &'static str,
}

impl Scripts {
    /// What a connection has to load and ask for before anything else: [`Scripts::at`] takes the answers.
    pub(super) fn preparation(mode: Mode) -> Pipeline {
        let mut pipeline = redis::pipe();
        for source in [APPEND, READ, PURGE, TELL, UPDATE_ITEMS, READ_ITEMS] {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(source);
        }
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("replication");
        if mode == Mode::Cluster {
            pipeline.cmd("CLUSTER").arg("INFO");
        }
        pipeline
    }

    /// Why a server that has answered [`Scripts::preparation`] is not the right one, if it is not.
    pub(super) fn wrong_server(answers: &[Value], mode: Mode) -> Option<String> {
        let why = match (field(answers, "redis_mode"), mode) {
            (Some("sentinel"), _) => "this is a Sentinel: write redis+sentinel://HOST:PORT/NAME",
            (Some("cluster"), Mode::Alone) => "this is a node of a Redis Cluster: write redis+cluster://HOST:PORT",
            (Some("standalone"), Mode::Cluster) => "this server is in no Redis Cluster: write redis://HOST:PORT/",
            (_, _) if field(answers, "role") == Some("slave") => {
                "this is a replica, which takes no messages: name the primary"
            }
            (_, _) if field(answers, "cluster_state") == Some("fail") => "CLUSTERDOWN: a shard is without its primary",
            (_, _) => return None,
        };
        Some(why.to_owned())
    }

    /// The scripts at a server that has answered [`Scripts::preparation`].
    pub(super) fn at(answers: &[Value], mode: Mode) -> Result<Scripts, String> {
        let run = field(answers, "run_id")
            .and_then(|run| run.get(..RUN_DIGITS))
            .ok_or("INFO server does not tell its run_id")?;
        Ok(Scripts {
            append: Script::new(APPEND),
            read: Script::new(READ),
            purge: Script::new(PURGE),
            tell: Script::new(TELL),
            update_items: Script::new(UPDATE_ITEMS),
            read_items: Script::new(READ_ITEMS),
            run: run.to_owned(),
            publish: match mode {
                Mode::Alone => "PUBLISH",
                Mode::Cluster => "SPUBLISH",
            },
        })
    }

    /// Adds a command as this server takes it.
    pub(super) fn add(&self, pipeline: &mut Pipeline, command: &Command) {
        match command {
            Command::Publish { channel, payload } => {
                pipeline.cmd(self.publish).arg(&**channel).arg(&payload[..]);
            }
            Command::Append { topic, policy, seed, entries } => {
                self.append(pipeline, topic, *policy, seed, entries);
            }
            Command::Read { topic, policy, seed, range } => self.read(pipeline, topic, *policy, seed, *range),
            Command::Purge { topic, policy, seed } => {
                let command = pipeline.cmd("EVALSHA").arg(self.purge.get_hash()).arg(2);
                command.arg(format!("{topic}:m")).arg(format!("{topic}:s"));
                command.arg(&self.run).arg(seed).arg(meta_ms(*policy)).arg(self.publish).arg(&**topic);
            }
            Command::Revoke { key, user, unix_s } => {
                pipeline.cmd("ZADD").arg(&**key).arg(*unix_s).arg(&**user);
            }
            Command::Revocations { key, cursor } => {
                pipeline.cmd("ZSCAN").arg(&**key).arg(*cursor).arg("COUNT").arg(CLUSTER_REVOCATIONS_SCAN);
            }
            Command::Tell(tell) => self.tell(pipeline, tell),
            Command::UpdateItems(update) => self.update_items(pipeline, update),
            Command::ReadItems(read) => self.read_items(pipeline, read),
        }
    }

    fn append(&self, pipeline: &mut Pipeline, topic: &str, policy: HistoryPolicy, seed: &str, entries: &[NewEntry]) {
        let keys = entries.iter().filter_map(|entry| entry.key.as_deref());
        let command = pipeline.cmd("EVALSHA").arg(self.append.get_hash()).arg(2 + keys.clone().count());
        command.arg(format!("{topic}:m")).arg(format!("{topic}:s"));
        for key in keys {
            command.arg(format!("{topic}:k:{key}"));
        }
        command.arg(&self.run).arg(seed).arg(policy.messages_max).arg(policy.ttl_ms);
        command.arg(PUBLISH_KEY_MS_MAX).arg(meta_ms(policy)).arg(self.publish).arg(topic);
        for NewEntry { key, entry } in entries {
            command.arg(if key.is_some() { "k" } else { "" }).arg(&entry[..]);
        }
    }

    fn read(&self, pipeline: &mut Pipeline, topic: &str, policy: HistoryPolicy, seed: &str, range: ReadRange) {
        let mut count = CLUSTER_READ_MAX;
        let (which, from, to) = match range {
            ReadRange::End => ("none", 1, 0),
            ReadRange::From(offset) => ("forward", offset, OFFSET_MAX),
            ReadRange::Back { from, before, wanted: Wanted::Any } => ("back", from, before.saturating_sub(1)),
            ReadRange::Back { from, before, wanted: Wanted::All } => ("whole", from, before.saturating_sub(1)),
            ReadRange::NewestBefore { before, limit } => {
                count = limit;
                ("back", 1, before.saturating_sub(1))
            }
            ReadRange::OldestAfter { after, limit } => {
                count = limit;
                ("forward", after.saturating_add(1).min(OFFSET_MAX), OFFSET_MAX)
            }
        };
        let command = pipeline.cmd("EVALSHA").arg(self.read.get_hash()).arg(2);
        command.arg(format!("{topic}:m")).arg(format!("{topic}:s"));
        command.arg(&self.run).arg(seed).arg(meta_ms(policy)).arg(which).arg(from).arg(to);
        command.arg(count).arg(CLUSTER_READ_BYTES_MAX);
    }

    fn tell(&self, pipeline: &mut Pipeline, tell: &Tell) {
        let base = &tell.base;
        let switch = |on: bool| if on { "1" } else { "" };
        let command = pipeline.cmd("EVALSHA").arg(self.tell.get_hash()).arg(TELL_KEYS.len());
        for key in TELL_KEYS {
            command.arg(format!("{base}:{key}"));
        }
        command.arg(format!("{base}:on:")).arg(&tell.registration).arg(switch(tell.is_first)).arg(tell.lease_ms);
        command.arg(&tell.seed).arg(&tell.caller).arg(switch(tell.volunteers)).arg(tell.teller_lease_ms);
        command.arg(tell.last);
        command.arg(tell.events_wanted).arg(tell.events_max).arg(switch(tell.makes_events)).arg(switch(tell.sweeps));
        command.arg(tell.sweep_hold_ms).arg(tell.told_cursor.as_deref().unwrap_or_default());
        command.arg(switch(tell.earlier_are_over)).arg(tell.earlier.len()).arg(tell.finished.len());
        command.arg(&tell.earlier).arg(&tell.finished);
        for change in &tell.changes {
            let (what, subject, amount) = change.parts();
            command.arg(what).arg(subject).arg(amount);
        }
    }
}

/// What the script of webhooks keeps, in the order of its keys.
const TELL_KEYS: [&str; 6] = ["state", "nodes", "counts", "told", "due", "events"];

/// A field of what `INFO` says.
fn field<'a>(answers: &'a [Value], name: &str) -> Option<&'a str> {
    let lines = answers.iter().filter_map(text).flat_map(str::lines);
    lines.filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name).map(|(_, value)| value.trim())
}

/// How long an epoch is known after the last message: longer than a message, so that a quiet room keeps its place.
fn meta_ms(policy: HistoryPolicy) -> u64 {
    policy.ttl_ms.max(PUBLISH_KEY_MS_MAX) + CLUSTER_EPOCH_MS
}

/// The name of a command's channel, which says in which slot of a Redis Cluster it is; all its keys are there, too.
pub(super) fn channel(command: &Command) -> &str {
    match command {
        Command::Publish { channel, .. } => channel,
        Command::Append { topic, .. } | Command::Read { topic, .. } | Command::Purge { topic, .. } => topic,
        Command::Revoke { key, .. } | Command::Revocations { key, .. } => key,
        Command::Tell(tell) => &tell.base,
        Command::UpdateItems(update) => &update.topic,
        Command::ReadItems(read) => &read.topic,
    }
}

/// The answer to a command.
pub(super) fn reply(command: &Command, answer: Value) -> Reply {
    let reply = match (command, answer) {
        (Command::Publish { .. }, Value::Int(receivers)) => u64::try_from(receivers).ok().map(Reply::Published),
        (Command::Append { .. }, Value::Array(answer)) => appended(&answer),
        (Command::Read { range, .. }, Value::Array(answer)) => read(*range, answer),
        (Command::Purge { .. }, Value::Array(answer)) => purged(&answer),
        (Command::Revoke { .. }, Value::Int(_)) => Some(Reply::Revoked),
        (Command::Revocations { .. }, Value::Array(answer)) => revocations(answer),
        (Command::Tell(_), Value::Array(answer)) => told(&answer),
        (Command::UpdateItems(update), Value::Array(answer)) => items::updated(update, &answer),
        (Command::ReadItems(read), Value::Array(answer)) => items::read(&read.range, answer),
        (_, _) => None,
    };
    reply.unwrap_or(Reply::Failed)
}

fn appended(answer: &[Value]) -> Option<Reply> {
    let (epoch, offsets) = answer.split_first()?;
    let offsets = offsets.iter().map(number).collect::<Option<Vec<u64>>>()?;
    Some(Reply::Appended { epoch: text(epoch)?.into(), offsets })
}

fn purged(answer: &[Value]) -> Option<Reply> {
    let [epoch, offset] = answer else { return None };
    Some(Reply::Purged { end: StreamPosition { epoch: text(epoch)?.into(), offset: number(offset)? } })
}

fn read(range: ReadRange, answer: Vec<Value>) -> Option<Reply> {
    let [epoch, last, now_ms, more, messages]: [Value; 5] = answer.try_into().ok()?;
    let end = StreamPosition { epoch: text(&epoch)?.into(), offset: number(&last)? };
    let Value::Array(messages) = messages else { return None };
    let mut entries = Vec::with_capacity(messages.len() / 3);
    let mut messages = messages.into_iter();
    while let Some(offset) = messages.next() {
        let (Value::BulkString(entry), at_ms) = (messages.next()?, messages.next()?) else { return None };
        entries.push(StreamEntry { offset: number(&offset)?, at_ms: number(&at_ms)?, entry });
    }
    if matches!(range, ReadRange::Back { .. } | ReadRange::NewestBefore { .. }) {
        entries.reverse();
    }
    Some(Reply::Read { end, now_ms: number(&now_ms)?, more: number(&more)? == 1, entries })
}

fn revocations(answer: Vec<Value>) -> Option<Reply> {
    let [cursor, entries]: [Value; 2] = answer.try_into().ok()?;
    let Value::Array(entries) = entries else { return None };
    let pairs = entries.chunks_exact(2).map(|pair| Some((text(&pair[0])?.to_owned(), number(&pair[1])?)));
    Some(Reply::Revocations { cursor: number(&cursor)?, entries: pairs.collect::<Option<_>>()? })
}

fn told(answer: &[Value]) -> Option<Reply> {
    let [registered, epoch, teller, become_teller, last, more, cursor, told, events] = answer else { return None };
    let (Value::Array(told), Value::Array(events)) = (told, events) else { return None };
    let owned = |value| text(value).map(str::to_owned);
    let events = events.chunks_exact(2).map(|pair| Some((number(&pair[1])?, owned(&pair[0])?)));
    Some(Reply::Told(Box::new(Told {
        is_registered: number(registered)? == 1,
        epoch: owned(epoch)?,
        is_teller: number(teller)? == 1,
        has_become_teller: number(become_teller)? == 1,
        last: number(last)?,
        has_more: number(more)? == 1,
        told_cursor: owned(cursor)?,
        told: told.iter().map(owned).collect::<Option<_>>()?,
        events: events.collect::<Option<_>>()?,
    })))
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        value => text(value)?.parse().ok(),
    }
}
