//! The scripts of keyed rooms: their arguments and their answers.

use redis::{Pipeline, Value};

use super::super::core::{ItemsFound, ItemsRange, ItemsRead, ReadItems, Reply, UpdateItems, Updated};
use super::{Scripts, meta_ms, number, text};
use crate::limits::{
    CLUSTER_EPOCH_MS, CLUSTER_ITEM_BYTES, CLUSTER_ITEMS_LOG_BYTES_MAX, CLUSTER_ITEMS_LOG_MS, CLUSTER_ITEMS_SCAN,
    CLUSTER_READ_BYTES_MAX, PUBLISH_KEY_MS_MAX,
};
use crate::router::StreamPosition;
use crate::router::cluster::ItemsPolicy;

/// What the scripts keep of a room, in the order of their keys: meta, items, values, removals, log, stream.
const KEYS: [&str; 6] = ["m", "i", "v", "r", "l", "s"];

impl Scripts {
    pub(super) fn update_items(&self, pipeline: &mut Pipeline, update: &UpdateItems) {
        let UpdateItems { topic, policy, seed, removal_head, call } = update;
        let ItemsPolicy { keyed, history } = policy;
        let command = pipeline.cmd("EVALSHA").arg(self.update_items.get_hash()).arg(KEYS.len() + call.keys.len());
        push_keys(command, topic);
        for key in &call.keys {
            command.arg(format!("{topic}:k:{key}"));
        }
        command.arg(&self.run).arg(seed).arg(self.publish).arg(&**topic);
        command.arg(keyed.items_max).arg(keyed.bytes_max).arg(CLUSTER_ITEM_BYTES);
        command.arg(keyed.removed_ttl_ms).arg(keyed.items_max);
        command.arg(PUBLISH_KEY_MS_MAX).arg(empty_ms(policy));
        // Where items go by themselves, none is left after that time.
        match keyed.ttl_ms {
            Some(ttl_ms) => command.arg(ttl_ms + empty_ms(policy)),
            None => command.arg(""),
        };
        command.arg(history.map_or(0, |history| history.messages_max)).arg(history.map_or(0, |history| history.ttl_ms));
        command.arg(CLUSTER_ITEMS_LOG_BYTES_MAX / 2).arg(CLUSTER_ITEMS_LOG_MS);
        command.arg(&call.commands[..]).arg(&call.updates[..]).arg(&call.records[..]);
        match keyed.ttl_ms {
            Some(ttl_ms) => command.arg(ttl_ms).arg(*removal_head),
            None => command.arg("").arg(""),
        };
        command.arg(call.removals.len());
        for removal in &call.removals {
            command.arg(&removal[..]);
        }
        for name in call.names() {
            command.arg(name);
        }
    }

    pub(super) fn read_items(&self, pipeline: &mut Pipeline, read: &ReadItems) {
        let ReadItems { topic, policy, seed, range } = read;
        let command = pipeline.cmd("EVALSHA").arg(self.read_items.get_hash()).arg(KEYS.len());
        push_keys(command, topic);
        let (wanted, from, cursor) = match range {
            ItemsRange::End => ("end", 0, "0"),
            ItemsRange::Log(from) => ("log", *from, "0"),
            ItemsRange::Changed { since, cursor } => ("items", *since, &cursor[..]),
        };
        command.arg(&self.run).arg(seed).arg(empty_ms(policy)).arg(wanted).arg(from).arg(cursor);
        command.arg(CLUSTER_ITEMS_SCAN).arg(CLUSTER_READ_BYTES_MAX);
    }
}

fn push_keys(command: &mut Pipeline, topic: &str) {
    for key in KEYS {
        command.arg(format!("{topic}:{key}"));
    }
}

/// How long a room is known that has no item any more.
fn empty_ms(policy: &ItemsPolicy) -> u64 {
    let ms = policy.keyed.removed_ttl_ms.max(PUBLISH_KEY_MS_MAX) + CLUSTER_EPOCH_MS;
    policy.history.map_or(ms, |history| ms.max(meta_ms(history)))
}

/// The answer of the script that updates items.
pub(super) fn updated(update: &UpdateItems, answer: &[Value]) -> Option<Reply> {
    let [epoch, Value::Array(offsets), Value::Array(stale)] = answer else { return None };
    let outcome = |value: &Value| match value {
        Value::Int(number) if *number < 0 => u32::try_from(-1 - *number).ok().map(Err),
        value => Some(Ok(Updated { offset: number(value)?, stale: Vec::new() })),
    };
    let mut outcomes = offsets.iter().map(outcome).collect::<Option<Vec<_>>>()?;
    if outcomes.len() != update.call.count() {
        return None;
    }
    for pair in stale.chunks_exact(2) {
        if let Ok(updated) = outcomes.get_mut(usize::try_from(number(&pair[0])?).ok()?)? {
            updated.stale.push(u32::try_from(number(&pair[1])?).ok()?);
        }
    }
    Some(Reply::ItemsUpdated { epoch: text(epoch)?.into(), outcomes })
}

/// The answer of the script that reads them.
pub(super) fn read(range: &ItemsRange, answer: Vec<Value>) -> Option<Reply> {
    let [epoch, last, forgotten_to, now_ms, rest, parts]: [Value; 6] = answer.try_into().ok()?;
    let Value::Array(parts) = parts else { return None };
    let mut pairs = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let Some(first) = parts.next() {
        let (Value::BulkString(first), Value::BulkString(second)) = (first, parts.next()?) else { return None };
        pairs.push((first, second));
    }
    let rest = text(&rest)?;
    let found = match range {
        ItemsRange::End => ItemsFound::End,
        ItemsRange::Log(_) => ItemsFound::Log { published: pairs, more: rest == "1" },
        ItemsRange::Changed { .. } => ItemsFound::Items { items: pairs, next: (rest != "0").then(|| rest.to_owned()) },
    };
    Some(Reply::ItemsRead(Box::new(ItemsRead {
        end: StreamPosition { epoch: text(&epoch)?.into(), offset: number(&last)? },
        forgotten_to: number(&forgotten_to)?,
        now_ms: number(&now_ms)?,
        found,
    })))
}
