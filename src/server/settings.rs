//! From the configuration to what reactors are told.

use std::sync::Arc;
use std::time::Duration;

use super::memory;
use crate::compress::WindowBits;
use crate::config::{self, Config, HistoryBounds, KeyedBounds};
use crate::conn::{HeadLimits, MessageLimits};
use crate::descriptors::Shares;
use crate::reactor::{DeflateSettings, Gate, Settings};
use crate::router::{
    HistoryPolicy, HistorySettings, KeyedPolicy, KeyedRooms, KeyedSettings, NoticeSettings, RoomPolicies,
    RouterSettings, UserConnections, UserConnectionsPolicy,
};

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What all reactors are told, of a configuration and what the process may have.
pub(super) fn settings(config: &Config, shares: Shares, gate: Gate) -> Settings {
    Settings {
        connections_max: shares.connections as usize,
        handshakes_max: shares.handshakes as usize,
        message: MessageLimits {
            bytes_max: config.limits.message_bytes_max,
            fragments_max: config.limits.fragments_max,
        },
        deflate: config.deflate.enabled.then(|| DeflateSettings {
            level: config.deflate.level,
            min_bytes: config.deflate.min_bytes,
            client_bits_max: WindowBits::new(config.deflate.client_window_bits).unwrap_or(WindowBits::MAX),
            contexts_max: config.deflate.contexts_max,
            memory_bytes_max: config.deflate.memory_max,
        }),
        gate,
        head: HeadLimits { bytes_max: config.limits.head_bytes_max, headers_max: config.limits.headers_max },
        handshake_ms_max: ms(config.limits.handshake_timeout),
        heartbeat_ms: ms(config.heartbeat.interval),
        outbox_bytes_max: config.outbox.bytes_max,
        outbox_age_ms_max: ms(config.outbox.age_max),
        outbox_node_bytes_max: match config.outbox.node_bytes_max {
            0 => memory::available_bytes() / 4,
            bytes => bytes as u64,
        },
        messages_per_second: config.rate.messages_per_second,
        bytes_per_second: config.rate.bytes_per_second,
        intake_bytes_max: crate::limits::INTAKE_BYTES_MAX,
        router: RouterSettings {
            rooms_max: config.limits.rooms_max,
            notices: NoticeSettings {
                members_max: config.rooms.notice_members_max as u64,
                join_text: config.rooms.join_text.clone(),
                leave_text: config.rooms.leave_text.clone(),
            },
            history: history(config),
            keyed: keyed(config),
            user_connections: user_connections(&config.limits),
            cluster: config.redis.url.address().is_some(),
        },
    }
}

fn user_connections(limits: &config::Limits) -> Option<UserConnections> {
    let policy = match limits.user_connections_policy {
        config::UserConnectionsPolicy::Refuse => UserConnectionsPolicy::Refuse,
        config::UserConnectionsPolicy::Replace => UserConnectionsPolicy::Replace,
    };
    (limits.user_connections_max > 0).then_some(UserConnections { max: limits.user_connections_max, policy })
}

fn keyed(config: &Config) -> KeyedSettings {
    let rules = config.clone();
    let rooms = move |room: &str| rules.room_rule(room)?.keyed.map(keyed_policy);
    KeyedSettings {
        rooms: config.room.iter().any(|rule| rule.keyed.is_some()).then(|| KeyedRooms(Arc::new(rooms))),
        node_items_max: config.items.node_max,
        node_bytes_max: config.items.node_bytes_max,
        subscription_bytes_max: config.limits.items_bytes_max,
    }
}

fn keyed_policy(bounds: KeyedBounds) -> KeyedPolicy {
    let unless_zero = |duration: Duration| (!duration.is_zero()).then(|| ms(duration));
    KeyedPolicy {
        items_max: bounds.max,
        bytes_max: bounds.bytes_max,
        ttl_ms: unless_zero(bounds.ttl),
        removed_ttl_ms: ms(bounds.removed_ttl),
        stale_after_ms: unless_zero(bounds.stale_after),
    }
}

fn history(config: &Config) -> HistorySettings {
    let policy = |bounds: HistoryBounds| {
        let ttl_ms = ms(bounds.ttl);
        (bounds.size > 0).then_some(HistoryPolicy { messages_max: bounds.size, ttl_ms })
    };
    let rules = config.clone();
    let rooms = move |room: &str| rules.room_rule(room).and_then(|rule| policy(rule.history));
    HistorySettings {
        rooms: (!config.room.is_empty()).then(|| RoomPolicies(Arc::new(rooms))),
        inbox: policy(config.inbox.history),
        bytes_max: config.history.memory_max,
        pinned: Arc::default(),
        pinned_bytes_max: config.history.memory_max as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SourceFile, Sources};

    fn config(text: &str) -> Config {
        let file = SourceFile::new("f.toml".to_owned(), text.to_owned());
        let sources = Sources { file: Some(file), ..Sources::default() };
        Config::load(&sources).unwrap_or_else(|error| panic!("{error}")).0
    }

    #[test]
    fn rules_say_which_rooms_are_keyed_and_what_is_kept_of_their_items() {
        let keyed = keyed(&config(
            "[[room]]\nmatch = \"px.*\"\nkeyed = true\nitems.stale_after = \"5s\"\n\
             [[room]]\nmatch = \"*\"\nhistory.size = 1\n[items]\nnode_max = 7\nnode_bytes_max = \"1MiB\"\n\
             [limits]\nitems_bytes_max = 300\n",
        ));
        assert_eq!((keyed.node_items_max, keyed.node_bytes_max, keyed.subscription_bytes_max), (7, 1 << 20, 300));
        let rooms = keyed.rooms.expect("a rule makes rooms keyed");
        let policy = KeyedPolicy {
            items_max: 10_000,
            bytes_max: 16 << 20,
            ttl_ms: None,
            removed_ttl_ms: 300_000,
            stale_after_ms: Some(5_000),
        };
        assert_eq!(((rooms.0)("px.a"), (rooms.0)("den")), (Some(policy), None));
        assert!(super::keyed(&config("[[room]]\nmatch = \"*\"\n")).rooms.is_none(), "no room is keyed");
    }
}
