//! The configuration: one table of settings, four sources, one typed result.
//!
//! Owns the table ([`SETTINGS`]), the reading of values, the order of the sources (default, file, environment, flag:
//! later ones win) and every message about a wrong value. Turns them into a [`Config`] in which each value is within
//! its bounds and fits the others, so that no module behind it checks again.
//!
//! Never reads the process environment or the command line itself: sources come in as values ([`Sources`]). The one
//! thing it touches is the file it is told to read ([`SourceFile::read`]).
//!
//! Imports `limits` and nothing else of this crate.
//!
//! A new setting is a row in the table, a field in its struct below and a line in `Config::from_effective`; file,
//! environment, flag, help and `fanfare config` follow from the row.
//!
//! What there may be several of stands in lists ([`LISTS`]): rules for rooms, keys, listeners. Each has a table of what one
//! entry may say. Entries of several sources add up; rules for rooms of a later source are tried first.

mod api;
mod auth;
mod effective;
mod entry;
mod error;
mod field_name;
mod file;
mod http_url;
mod kind;
mod listen;
mod listener;
mod pattern;
mod quantity;
mod redis_url;
mod reload;
mod room;
mod source;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod webhook;

use std::time::Duration;

pub use api::{Admin, Api, ApiKey, SecretPlace, Verb};
pub use auth::{Auth, AuthDefault, AuthKey, KeyMaterial, Secret};
pub use effective::Effective;
pub use error::{ConfigError, Problem, one_json_line, one_line};
pub use field_name::FieldName;
pub use http_url::HttpUrl;
pub use kind::{Bounds, Kind, Value};
pub use listen::Listen;
pub use listener::{CertificateFiles, ClientCertificates, Listener, Role, TlsFiles};
pub use pattern::Pattern;
pub use redis_url::{RedisAddress, RedisHost, RedisKind, RedisUrl};
pub use reload::{Changes, RELOADABLE};
pub use room::{KeyedBounds, ROOM_RULES_MAX, RoomRule};
pub use source::{Source, SourceFile, Sources, read_at_most};
pub use suggest::{nearest, nearest_flag};
pub use table::{
    API_KEY, AUTH_KEY, ENV_CONFIG, ENV_OPERATOR_KEY, ENV_PREFIX, ENV_TOKEN, LISTENER, LISTS, List, ROOM, SETTINGS,
    Setting, WEBHOOK,
};
pub use webhook::{Webhook, Webhooks};

use crate::network::Networks;
use values::Values;

/// Everything an operator can decide, checked and typed. Field names are the keys of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Addresses to serve, as `listen` says; what is served is [`Config::listeners`].
    pub listen: Vec<Listen>,
    /// What is listened on, at least one; no address twice, and at most [`crate::limits::LISTENERS_MAX`]. A driver calls
    /// each by its index here.
    pub listeners: Vec<Listener>,
    /// Reactor threads; 0 leaves it to [`Config::reactor_count`].
    pub reactors: usize,
    /// Which core each reactor is pinned to.
    pub pin: Pin,
    /// The driver under the reactors.
    pub io: Io,
    /// Whether addresses that are not loopback may be served without authentication.
    pub open: bool,
    /// How log lines look.
    pub log: Log,
    /// What is logged, as a level of [`RUST_LOG`](https://docs.rs/env_logger): `error` to `trace`.
    pub log_level: &'static str,
    /// What is for the operator alone; the addresses for that are among [`Config::listeners`].
    pub admin: Admin,
    /// Programs of the operator.
    pub api: Api,
    /// Who gets in, and what they may do.
    pub auth: Auth,
    /// Bounds of a node and of a connection.
    pub limits: Limits,
    /// Bounds of one address.
    pub address: Address,
    /// Proxies in front of the node.
    pub proxy: Proxy,
    /// Compression of messages.
    pub deflate: Deflate,
    /// Liveness of idle connections.
    pub heartbeat: Heartbeat,
    /// What waits for slow consumers.
    pub outbox: Outbox,
    /// What one connection may send.
    pub rate: Rate,
    /// Join and leave notices.
    pub rooms: Rooms,
    /// Kept messages, all together.
    pub history: History,
    /// Items of keyed rooms, all together.
    pub items: Items,
    /// Users' inboxes.
    pub inbox: Inbox,
    /// What differs from room to room, in the order in which rules are tried; at most [`ROOM_RULES_MAX`].
    /// [`Config::room_rule`] finds the one for a room.
    pub room: Vec<RoomRule>,
    /// The other nodes.
    pub redis: Redis,
    /// When the server is live.
    pub health: Health,
    /// Who is told of rooms and users; at most [`crate::limits::WEBHOOKS_MAX`].
    pub webhook: Vec<Webhook>,
    /// What holds for all of those.
    pub webhooks: Webhooks,
    /// Paths of WebSocket connections that get back what they send.
    pub echo: Vec<Pattern>,
    /// The end of the server's life.
    pub drain: Drain,
    /// Options of the sockets.
    pub tcp: Tcp,
    /// Options of Unix sockets.
    pub unix: Unix,
}

/// Which core each reactor is pinned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// Each reactor to a core of its own where there are as many as allowed cores; otherwise none.
    Auto,
    /// The scheduler decides.
    None,
    /// Reactor N to the N-th core listed; no core twice, at least as many as reactors.
    Cores(Vec<usize>),
}

/// The driver under the reactors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// The fastest that the kernel offers.
    Auto,
    /// Readiness through epoll.
    Epoll,
    /// Completions through io_uring.
    Uring,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// For people, with colour where stderr is a terminal.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Bounds of a node and of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node.
    pub connections_max: usize,
    /// Bytes of one message from a client, all its fragments together.
    pub message_bytes_max: usize,
    /// Fragments of one message from a client, empty ones counted.
    pub fragments_max: u32,
    /// Rooms one connection may be in.
    pub rooms_max: usize,
    /// Bytes of the items that one connection's subscriptions of keyed rooms may name.
    pub items_bytes_max: usize,
    /// JSON connections of one user on the node; 0 is no limit.
    pub user_connections_max: usize,
    /// What becomes of one more.
    pub user_connections_policy: UserConnectionsPolicy,
    /// Memory that the process may take; 0 is nine tenths of what there is.
    pub memory_max: usize,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Header fields of a request head.
    pub headers_max: usize,
    /// Time from accept to the end of the request head.
    pub handshake_timeout: Duration,
}

/// What becomes of a connection more than its user may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserConnectionsPolicy {
    /// It is closed.
    Refuse,
    /// The user's oldest is closed.
    Replace,
}

/// Bounds of one address: of IPv4, or 64 bits of IPv6. 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Connections.
    pub connections_max: u32,
    /// Sockets opened in a second.
    pub handshakes_per_second: u32,
    /// Sockets that are no connection yet.
    pub half_open_max: u32,
    /// Networks to which none of this applies.
    pub exempt: Networks,
}

/// Proxies in front of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where those are that are believed.
    pub trusted: Networks,
}

/// Compression of messages (permessage-deflate, RFC 7692).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deflate {
    /// Whether it is agreed on with clients that offer it.
    pub enabled: bool,
    /// zlib's level: 1 is the fastest, 9 the smallest.
    pub level: u32,
    /// Bytes of payload from which a message is compressed.
    pub min_bytes: usize,
    /// Bits of the window that clients are told to keep to, where they would.
    pub client_window_bits: u8,
    /// Connections whose client may refer to its earlier messages.
    pub contexts_max: usize,
    /// Bytes that these may take on the whole node.
    pub memory_max: usize,
}

/// Liveness of idle connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Time between pings.
    pub interval: Duration,
}

/// What waits for slow consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    /// Bytes waiting for one connection.
    pub bytes_max: usize,
    /// Age of the oldest message waiting for one connection.
    pub age_max: Duration,
    /// Bytes waiting on the whole node; 0 is a quarter of the memory the process may use.
    pub node_bytes_max: usize,
}

/// What one connection may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// Messages per second; 0 is no limit.
    pub messages_per_second: u64,
    /// Bytes per second; 0 is no limit.
    pub bytes_per_second: u64,
}

/// Join and leave notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rooms {
    /// Members up to which a room sends notices; 0 sends none.
    pub notice_members_max: usize,
    /// Text of a join notice; `{user}` stands for the user id.
    pub join_text: String,
    /// Text of a leave notice; `{user}` stands for the user id.
    pub leave_text: String,
}

/// Kept messages, all together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Bytes of all messages that the node keeps; beyond it the oldest go first.
    pub memory_max: usize,
}

/// Items of keyed rooms, all together. An update that would go beyond is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    /// Items that the node keeps.
    pub node_max: u64,
    /// Bytes that they may take.
    pub node_bytes_max: u64,
}

/// Users' inboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    /// What is kept of each.
    pub history: HistoryBounds,
}

/// What is kept of one room or one inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Messages; 0 keeps none.
    pub size: u32,
    /// Time each is kept.
    pub ttl: Duration,
}

/// Redis, through which several nodes act as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Where it is; none for a node alone.
    pub url: RedisUrl,
    /// The file with the certificate authorities of its certificates; empty are those of the system.
    pub tls_ca: String,
    /// What the names of its channels and keys start with.
    pub prefix: String,
}

/// When the server is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Time that a reactor may be in one turn.
    pub stall_max: Duration,
}

/// The end of the server's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Time from SIGTERM until the drain begins.
    pub delay: Duration,
    /// Time from there until the connections that are left are cut.
    pub timeout: Duration,
}

/// Options of the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Whether small segments leave at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Bytes of the kernel's send buffer (`SO_SNDBUF`); 0 leaves it to the kernel.
    pub send_buffer: usize,
    /// Bytes of the kernel's receive buffer (`SO_RCVBUF`); 0 leaves it to the kernel.
    pub receive_buffer: usize,
    /// Connections the kernel holds until they are accepted, per listener.
    pub backlog: u32,
}

/// Options of Unix sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unix {
    /// Permissions of the socket's file, as `chmod` takes them.
    pub mode: u32,
    /// The file's group, by name or number; empty is that of the process.
    pub group: String,
}

impl Config {
    /// Whether there is a listener of this kind.
    pub fn has_listener(&self, role: Role) -> bool {
        self.listeners.iter().any(|listener| listener.role == role)
    }

    /// Puts the sources together: default, file, environment, flag; later ones win.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with every unknown key, bad value and pair of values that do not fit, each with its
    /// place. A value is checked even where a later source overrides it.
    pub fn load(sources: &Sources) -> Result<(Config, Effective), ConfigError> {
        let mut effective = Effective::defaults();
        let mut problems = Vec::new();
        if let Some(file) = &sources.file {
            file::apply(file, &mut effective, &mut problems);
        }
        source::apply_env(&sources.env, &mut effective, &mut problems);
        source::apply_flags(sources, &mut effective, &mut problems);
        listener::check(&effective, &mut problems);
        check_pin(&effective.settings, &mut problems);
        check_echo(&effective.settings, &mut problems);
        check_redis(&effective.settings, &mut problems);
        room::check_count(effective.entries(&ROOM), &mut problems);
        auth::check(&effective, &mut problems);
        api::check(&effective, &mut problems);
        webhook::check(&effective, &mut problems);
        if problems.is_empty() {
            return Ok((Config::from_effective(&effective), effective));
        }
        problems.sort_by_key(Problem::rank);
        Err(ConfigError::Invalid(problems))
    }

    /// Reactors to start where `cores_allowed` cores may be used: as many as set, else one per core of a pin list,
    /// else one per allowed core; at least 1, at most [`crate::limits::REACTORS_MAX`].
    pub fn reactor_count(&self, cores_allowed: usize) -> usize {
        let count = match (self.reactors, &self.pin) {
            (0, Pin::Cores(cores)) => cores.len(),
            (0, Pin::Auto | Pin::None) => cores_allowed,
            (reactors, _) => reactors,
        };
        count.clamp(1, crate::limits::REACTORS_MAX)
    }

    fn from_effective(effective: &Effective) -> Config {
        let from = &effective.settings;
        Config {
            listen: from.listen("listen").to_vec(),
            listeners: listener::listeners(effective),
            reactors: from.size("reactors"),
            pin: from.pin("pin").clone(),
            io: match from.word("io") {
                "epoll" => Io::Epoll,
                "uring" => Io::Uring,
                _ => Io::Auto,
            },
            open: from.switch("open"),
            log: match from.word("log") {
                "human" => Log::Human,
                "json" => Log::Json,
                _ => Log::Auto,
            },
            log_level: from.word("log_level"),
            admin: Admin { loopback: from.switch("admin.loopback") },
            api: Api::from_values(from, effective.entries(&API_KEY)),
            auth: Auth::from_values(from, effective.entries(&AUTH_KEY)),
            limits: Limits::from_values(from),
            address: Address::from_values(from),
            proxy: Proxy { trusted: from.networks("proxy.trusted").clone() },
            deflate: Deflate::from_values(from),
            heartbeat: Heartbeat { interval: from.duration("heartbeat.interval") },
            outbox: Outbox {
                bytes_max: from.size("outbox.bytes_max"),
                age_max: from.duration("outbox.age_max"),
                node_bytes_max: from.size("outbox.node_bytes_max"),
            },
            rate: Rate {
                messages_per_second: from.number("rate.messages_per_second"),
                bytes_per_second: from.number("rate.bytes_per_second"),
            },
            rooms: Rooms {
                notice_members_max: from.size("rooms.notice_members_max"),
                join_text: from.text("rooms.join_text").to_owned(),
                leave_text: from.text("rooms.leave_text").to_owned(),
            },
            history: History { memory_max: from.size("history.memory_max") },
            items: Items {
                node_max: from.number("items.node_max"),
                node_bytes_max: from.number("items.node_bytes_max"),
            },
            inbox: Inbox { history: HistoryBounds::from_values(from, "inbox.history.size", "inbox.history.ttl") },
            room: effective.entries(&ROOM).iter().map(RoomRule::from_values).collect(),
            redis: Redis {
                url: from.redis_url("redis.url").clone(),
                tls_ca: from.text("redis.tls_ca").to_owned(),
                prefix: from.text("redis.prefix").to_owned(),
            },
            webhook: effective.entries(&WEBHOOK).iter().map(Webhook::from_values).collect(),
            webhooks: Webhooks::from_values(from),
            health: Health { stall_max: from.duration("health.stall_max") },
            echo: from.patterns("echo.paths").to_vec(),
            drain: Drain { delay: from.duration("drain.delay"), timeout: from.duration("drain.timeout") },
            tcp: Tcp {
                nodelay: from.switch("tcp.nodelay"),
                send_buffer: from.size("tcp.send_buffer"),
                receive_buffer: from.size("tcp.receive_buffer"),
                backlog: u32::try_from(from.number("tcp.backlog")).unwrap_or(u32::MAX),
            },
            unix: Unix { mode: from.mode("unix.mode"), group: from.text("unix.group").to_owned() },
        }
    }
}

impl Default for Config {
    /// The table's defaults.
    fn default() -> Self {
        Config::from_effective(&Effective::defaults())
    }
}

impl Limits {
    fn from_values(from: &Values) -> Limits {
        Limits {
            connections_max: from.size("limits.connections_max"),
            message_bytes_max: from.size("limits.message_bytes_max"),
            fragments_max: u32::try_from(from.number("limits.fragments_max")).unwrap_or(u32::MAX),
            rooms_max: from.size("limits.rooms_max"),
            items_bytes_max: from.size("limits.items_bytes_max"),
            user_connections_max: from.size("limits.user_connections_max"),
            user_connections_policy: match from.word("limits.user_connections_policy") {
                "replace" => UserConnectionsPolicy::Replace,
                _ => UserConnectionsPolicy::Refuse,
            },
            memory_max: from.size("limits.memory_max"),
            head_bytes_max: from.size("limits.head_bytes_max"),
            headers_max: from.size("limits.headers_max"),
            handshake_timeout: from.duration("limits.handshake_timeout"),
        }
    }
}

impl Address {
    fn from_values(from: &Values) -> Address {
        Address {
            connections_max: u32::try_from(from.number("address.connections_max")).unwrap_or(u32::MAX),
            handshakes_per_second: u32::try_from(from.number("address.handshakes_per_second")).unwrap_or(u32::MAX),
            half_open_max: u32::try_from(from.number("address.half_open_max")).unwrap_or(u32::MAX),
            exempt: from.networks("address.exempt").clone(),
        }
    }
}

impl HistoryBounds {
    fn from_values(from: &Values, size: &str, ttl: &str) -> HistoryBounds {
        HistoryBounds { size: u32::try_from(from.number(size)).unwrap_or(u32::MAX), ttl: from.duration(ttl) }
    }
}

impl Deflate {
    fn from_values(from: &Values) -> Deflate {
        Deflate {
            enabled: from.switch("deflate.enabled"),
            level: u32::try_from(from.number("deflate.level")).unwrap_or(u32::MAX),
            min_bytes: from.size("deflate.min_bytes"),
            client_window_bits: u8::try_from(from.number("deflate.client_window_bits")).unwrap_or(u8::MAX),
            contexts_max: from.size("deflate.contexts_max"),
            memory_max: from.size("deflate.memory_max"),
        }
    }
}

/// A core for every reactor.
fn check_pin(settings: &Values, problems: &mut Vec<Problem>) {
    if settings.is_faulty("pin") || settings.is_faulty("reactors") {
        return;
    }
    let reactors = settings.size("reactors");
    match settings.pin("pin") {
        Pin::Cores(cores) if cores.len() < reactors => {
            let text = format!(
                "names fewer cores ({}) than there are reactors ({reactors}); name a core for each, or lower reactors",
                cores.len()
            );
            problems.push(Problem::new(settings.source("pin").clone(), "pin", text));
        }
        Pin::Cores(_) | Pin::Auto | Pin::None => {}
    }
}

/// A request's path begins with a slash, and is one.
fn check_echo(settings: &Values, problems: &mut Vec<Problem>) {
    if settings.is_faulty("echo.paths") {
        return;
    }
    let is_none = |path: &&Pattern| !path.as_str().starts_with('/') || path.as_str().contains(['*', '?', '#']);
    if let Some(path) = settings.patterns("echo.paths").iter().find(is_none) {
        let text = format!("{:?} is no path; write one whole path that begins with a slash, as /echo", path.as_str());
        problems.push(Problem::new(settings.source("echo.paths").clone(), "echo.paths", text));
    }
}

/// Who names certificate authorities means to have TLS.
fn check_redis(settings: &Values, problems: &mut Vec<Problem>) {
    if settings.is_faulty("redis.url") || settings.is_faulty("redis.tls_ca") || settings.text("redis.tls_ca").is_empty()
    {
        return;
    }
    if settings.redis_url("redis.url").address().is_some_and(|address| !address.tls) {
        let text =
            "redis.url asks for no TLS, so no certificate would be checked; write rediss:// there, or leave this out";
        problems.push(Problem::new(settings.source("redis.tls_ca").clone(), "redis.tls_ca", text.to_owned()));
    }
}
