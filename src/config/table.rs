//! The table of settings: every key with its kind, default and meaning. File, environment, flags, help texts, the
//! example file and `fanfare config` are made from it. Beside it the table of what a rule for rooms may say.

use super::kind::{Bounds, Kind};
use crate::limits::REACTORS_MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What the name of an environment variable of fanfare starts with.
pub const ENV_PREFIX: &str = "FANFARE_";

/// The environment variable that names the configuration file, as `--config` does.
pub const ENV_CONFIG: &str = "FANFARE_CONFIG";

/// The environment variable that holds rules for rooms, as `--room` does.
pub const ENV_ROOM: &str = "FANFARE_ROOM";

/// The environment variable that holds keys for tokens, as `--auth.key` does.
pub const ENV_AUTH_KEY: &str = "FANFARE_AUTH_KEY";

/// The flag behind `--` that gives a key for tokens, the name of the file's `[[auth.key]]` tables, and the section of the
/// rows in [`AUTH_KEY_SETTINGS`].
pub const AUTH_KEY: &str = "auth.key";

/// The flag behind `--` that gives a rule for rooms, the name of the file's `[[room]]` tables, and the section of the
/// rows in [`ROOM_SETTINGS`].
pub const ROOM: &str = "room";

/// The pattern of a rule, which every rule has to say.
pub(super) const ROOM_MATCH: &str = "room.match";

/// One row of a table.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// `name`, or `section.name` where the section may have points of its own. In [`SETTINGS`] also the flag behind
    /// `--`.
    pub key: &'static str,
    /// What values it takes, with their bounds.
    pub kind: Kind,
    /// The default, as environment and flags would write it.
    pub default: &'static str,
    /// Its meaning and unit; bounds and default are shown beside it.
    pub help: &'static str,
}

impl Setting {
    /// The setting with this key.
    pub fn find(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The section of the file it stands in; `None` above the first section.
    pub fn section(&self) -> Option<&'static str> {
        self.key.rsplit_once('.').map(|(section, _)| section)
    }

    /// The key inside its section.
    pub fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }

    /// The key inside a `[[room]]` or `[[auth.key]]` table, for a row of their tables: `history.size`. `None` for others.
    pub fn name_in_rule(&self) -> Option<&'static str> {
        self.key.strip_prefix(self.list()?)?.strip_prefix('.')
    }

    /// The list of tables whose entries have it: [`ROOM`] or [`AUTH_KEY`].
    pub(super) fn list(&self) -> Option<&'static str> {
        let is_of = |list: &&str| self.key.strip_prefix(list).is_some_and(|rest| rest.starts_with('.'));
        [ROOM, AUTH_KEY].into_iter().find(is_of)
    }

    /// The environment variable: `FANFARE_HEARTBEAT_INTERVAL` for `heartbeat.interval`.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_ascii_uppercase())
    }
}

/// Whether a table has settings in this section or in one below it.
pub(super) fn is_section(rows: &[Setting], name: &str) -> bool {
    rows.iter().any(|row| row.key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

const fn row(key: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Setting {
    Setting { key, kind, default, help }
}

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer(Bounds { min, max, zero: false })
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes(Bounds { min, max, zero: false })
}

const fn bytes_or_zero(min: u64, max: u64) -> Kind {
    Kind::Bytes(Bounds { min, max, zero: true })
}

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration(Bounds { min: min_ms, max: max_ms, zero: false })
}

const NOTICE_TEXT: Kind = Kind::Text { bytes_max: 1024 };

const PREFIX: Kind = Kind::Text { bytes_max: 64 };

const GROUP: Kind = Kind::Text { bytes_max: 256 };

const PATH: Kind = Kind::Text { bytes_max: 4096 };

const CLAIM: Kind = Kind::Text { bytes_max: 1024 };

const KID: Kind = Kind::Text { bytes_max: 256 };

const PEM: Kind = Kind::Text { bytes_max: 16 * 1024 };

const ALG: Kind = Kind::Choice(&["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"]);

const HISTORY_SIZE: Kind = integer(0, 1_000_000);
const HISTORY_TTL: Kind = duration(SECOND, 30 * DAY);

/// All settings: those without a section first, then section by section.
pub const SETTINGS: &[Setting] = &[
    row(
        "listen",
        Kind::Addresses,
        "127.0.0.1:8080",
        "Addresses to serve; the flag may be repeated, or name several with commas between them. [::] is IPv6 only: \
         name 0.0.0.0 beside it for IPv4.",
    ),
    row(
        "reactors",
        integer(0, REACTORS_MAX as u64),
        "0",
        "Reactor threads; 0 is one per core the process may use (or per core that pin lists).",
    ),
    row(
        "pin",
        Kind::Pin,
        "auto",
        "Core of each reactor, in order; auto pins where there are as many reactors as cores, none leaves it to the scheduler.",
    ),
    row(
        "io",
        Kind::Choice(&["auto", "epoll"]),
        "auto",
        "How reactors wait for sockets; auto takes the fastest the kernel offers.",
    ),
    row("open", Kind::Bool, "false", "Serve without authentication on addresses that are not loopback."),
    row(
        "log",
        Kind::Choice(&["auto", "human", "json"]),
        "auto",
        "Log lines on stderr; auto is human, with colour where stderr is a terminal.",
    ),
    row(
        "auth.jwks_file",
        PATH,
        "",
        "File with public keys that tokens are checked by, a key set (JWKS); with it, or an [[auth.key]], clients need a token.",
    ),
    row("auth.issuer", CLAIM, "", "What the claim iss of a token has to equal; empty takes any."),
    row("auth.audience", CLAIM, "", "What the claim aud of a token has to name; empty takes any."),
    row("auth.anonymous", Kind::Bool, "false", "Let in who has no token, with what auth.default allows."),
    row(
        "auth.origins",
        Kind::Patterns,
        "",
        "Origins of web pages that may connect, where * stands for any run of characters; none are those of the same host \
         and of this machine.",
    ),
    row(
        "auth.leeway",
        duration(0, 30 * SECOND),
        "10s",
        "By how much the times of a token may be missed at the handshake, for clocks that differ.",
    ),
    row("auth.expiry_required", Kind::Bool, "true", "Refuse tokens without the claim exp, which would hold forever."),
    row(
        "auth.expiring_before",
        duration(0, HOUR),
        "30s",
        "How long before its token ends a connection is told so; 0 tells none.",
    ),
    row("auth.default.join", Kind::Patterns, "", "Rooms that may be joined where a token does not say which."),
    row(
        "auth.default.publish",
        Kind::Patterns,
        "",
        "Rooms that may be published into where a token does not say which.",
    ),
    row(
        "auth.default.presence",
        Kind::Patterns,
        "",
        "Rooms whose members may be asked for where a token does not say which.",
    ),
    row("auth.default.private", Kind::Bool, "false", "Allow private messages where a token does not say."),
    row("auth.default.broadcast", Kind::Bool, "false", "Allow broadcasts where a token does not say."),
    row(
        "limits.connections_max",
        integer(1, 10_000_000),
        "50000",
        "Connections of this node; one more is answered 503.",
    ),
    row(
        "limits.message_bytes_max",
        bytes(1, 256 * MIB),
        "1MiB",
        "Size of one message from a client, its fragments together; a larger one closes the connection with 1009.",
    ),
    row(
        "limits.fragments_max",
        integer(1, 16_777_216),
        "131072",
        "Fragments of one message from a client, empty ones counted; one more closes the connection with 1008.",
    ),
    row(
        "limits.rooms_max",
        integer(1, 65_536),
        "128",
        "Rooms one connection may be in; one more is answered too_many_rooms.",
    ),
    row("limits.head_bytes_max", bytes(256, 64 * KIB), "8KiB", "Size of a request head; a larger one is answered 431."),
    row("limits.headers_max", integer(1, 256), "64", "Header fields of a request; more are answered 431."),
    row(
        "limits.handshake_timeout",
        duration(10, 5 * MINUTE),
        "5s",
        "Time a client has to send its whole request head.",
    ),
    row("deflate.enabled", Kind::Bool, "true", "Agree on permessage-deflate (RFC 7692) with clients that offer it."),
    row("deflate.level", integer(1, 9), "6", "Compression level: 1 is the fastest, 9 gives the smallest messages."),
    row(
        "deflate.min_bytes",
        bytes(0, 256 * MIB),
        "256",
        "Size from which a message is compressed; smaller ones are sent as they are.",
    ),
    row(
        "deflate.client_window_bits",
        integer(9, 15),
        "12",
        "Window that clients are told to compress with, where they would keep to one: 12 is 4 KiB, 15 is 32 KiB.",
    ),
    row(
        "deflate.contexts_max",
        integer(0, 10_000_000),
        "50000",
        "Clients of this node that may refer to their earlier compressed messages; one more is told not to.",
    ),
    row(
        "deflate.memory_max",
        bytes(0, 1024 * GIB),
        "256MiB",
        "Bytes that these earlier messages may take on the whole node; a client beyond it is told not to refer to them.",
    ),
    row(
        "heartbeat.interval",
        duration(20, HOUR),
        "30s",
        "Time between pings to a connection; clients are told it in the welcome message.",
    ),
    row(
        "outbox.bytes_max",
        bytes(KIB, 1024 * GIB),
        "1MiB",
        "Bytes that may wait for one connection; a slow consumer with more is closed.",
    ),
    row(
        "outbox.age_max",
        duration(10, 24 * HOUR),
        "10s",
        "Age the oldest message waiting for a connection may reach; a slow consumer beyond it is closed.",
    ),
    row(
        "outbox.node_bytes_max",
        bytes_or_zero(MIB, 1024 * GIB),
        "0",
        "Bytes that may wait on the whole node; 0 is a quarter of the memory, a cgroup's limit respected.",
    ),
    row(
        "rate.messages_per_second",
        integer(0, 1_000_000_000),
        "0",
        "Messages one connection may send per second; 0 is no limit.",
    ),
    row("rate.bytes_per_second", bytes(0, 1024 * GIB), "0", "Bytes one connection may send per second; 0 is no limit."),
    row(
        "rooms.notice_members_max",
        integer(0, 10_000_000),
        "100",
        "Members up to which a room is told of joins and leaves; 0 turns the notices off.",
    ),
    row("rooms.join_text", NOTICE_TEXT, "{user} joined", "Text of a join notice; {user} stands for the user id."),
    row("rooms.leave_text", NOTICE_TEXT, "{user} left", "Text of a leave notice; {user} stands for the user id."),
    row(
        "history.memory_max",
        bytes(0, 1024 * GIB),
        "256MiB",
        "Bytes that all that is kept for rooms and inboxes may take on the whole node; beyond it the oldest goes first.",
    ),
    row(
        "inbox.history.size",
        HISTORY_SIZE,
        "0",
        "Messages kept per user's inbox; beyond it the oldest go first, 0 keeps none.",
    ),
    row("inbox.history.ttl", HISTORY_TTL, "10m", "Time a message is kept in an inbox."),
    row(
        "redis.url",
        Kind::RedisUrl,
        "",
        "Redis through which nodes with the same URL and prefix act as one; empty is a node alone.",
    ),
    row(
        "redis.tls_ca",
        PATH,
        "",
        "PEM file with the certificate authorities that certificates of Redis are checked against; empty is the system's.",
    ),
    row("redis.prefix", PREFIX, "fanfare", "What the names of channels and keys in Redis start with."),
    row("drain.timeout", duration(0, HOUR), "10s", "Time from SIGTERM until the connections that are left are cut."),
    row("tcp.nodelay", Kind::Bool, "true", "Send small segments at once (TCP_NODELAY)."),
    row(
        "tcp.send_buffer",
        bytes_or_zero(KIB, GIB),
        "0",
        "Size of the kernel's send buffer per socket; 0 is the kernel's choice, which tunes itself.",
    ),
    row(
        "tcp.receive_buffer",
        bytes_or_zero(KIB, GIB),
        "0",
        "Size of the kernel's receive buffer per socket; 0 is the kernel's choice, which tunes itself.",
    ),
    row(
        "tcp.backlog",
        integer(1, 65_535),
        "4096",
        "Connections the kernel holds until they are accepted, per listener; it cuts this to net.core.somaxconn.",
    ),
    row("unix.mode", Kind::Mode, "0660", "Permissions of a Unix socket's file: who may write to it may connect."),
    row(
        "unix.group",
        GROUP,
        "",
        "Group of a Unix socket's file, by name or number, such as a proxy's; empty is the group of the process.",
    ),
];

/// What a rule for rooms may say, each as a key of a `[[room]]` table. The default of the pattern is an example for
/// messages: a rule without one is refused.
pub const ROOM_SETTINGS: &[Setting] = &[
    row(ROOM_MATCH, Kind::Pattern, "*", "Room ids it is for; * stands for any run of characters, all else for itself."),
    row("room.history.size", HISTORY_SIZE, "0", "Messages kept per room; beyond it the oldest go first, 0 keeps none."),
    row("room.history.ttl", HISTORY_TTL, "10m", "Time a message is kept in a room."),
];

/// What a key for tokens may say, each as a name of an `[[auth.key]]` table. The defaults are examples for messages, or
/// mean that there is none.
pub const AUTH_KEY_SETTINGS: &[Setting] = &[
    row(
        "auth.key.alg",
        ALG,
        "HS256",
        "The only alg of the tokens it is for; a token's own word about that counts for nothing.",
    ),
    row(
        "auth.key.kid",
        KID,
        "",
        "Its name: tokens with this kid are checked by it alone, those without by the keys without.",
    ),
    row("auth.key.secret", Kind::Secret, "", "For HS256, HS384 and HS512: the secret that tokens are signed with."),
    row("auth.key.secret_file", PATH, "", "File with that secret; line breaks at its end do not count."),
    row("auth.key.public_key", PEM, "", "For the others: the public key in PEM."),
    row("auth.key.public_key_file", PATH, "", "File with that public key."),
];
