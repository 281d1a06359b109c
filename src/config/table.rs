//! The table of settings: every key with its kind, default and meaning. File, environment, flags, help texts, the
//! example file and `fanfare config` are made from it. Beside it the lists of tables, each with a table of what one of its
//! entries may say.

use super::kind::{Bounds, Kind};
use super::values::Values;
use super::{api, auth, listener, room, webhook};
use crate::limits::{API_BODIES_BYTES_MAX, REACTORS_MAX};

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

/// The environment variable that holds the token of a client (`fanfare pub`, `bench`), as `--token` does. It is no setting.
pub const ENV_TOKEN: &str = "FANFARE_TOKEN";

/// The environment variable with the key that an operator's commands show a server's HTTP API.
pub const ENV_OPERATOR_KEY: &str = "FANFARE_OPERATOR_KEY";

/// A list of tables: each of its entries is a `[[name]]` table in the file, and a line in the environment and by flag.
#[derive(Debug)]
pub struct List {
    /// The name of its tables, the flag behind `--`, and the section of its rows.
    pub name: &'static str,
    /// What an entry is called.
    pub entry: &'static str,
    /// What stands for an entry in help texts.
    pub placeholder: &'static str,
    /// What stands above the names of an entry in help texts.
    pub heading: &'static str,
    /// What the flag and the environment variable are for.
    pub help: &'static str,
    /// What an entry may say.
    pub rows: &'static [Setting],
    /// Whether what an entry leaves out has its row's default. Otherwise most of these are examples for messages, or mean
    /// that there is none.
    pub has_defaults: bool,
    /// An entry on one line, for messages.
    pub(super) example: &'static str,
    /// What is wrong with an entry as a whole, each of its values being good.
    pub(super) fault: fn(&Values) -> Option<String>,
}

impl List {
    /// The environment variable: `FANFARE_AUTH_KEY` for `auth.key`.
    pub fn env(&self) -> String {
        env_of(self.name)
    }

    /// Entries are `rules`, `keys`.
    pub(super) fn entries(&self) -> String {
        format!("{}s", self.entry)
    }

    /// The list of this name.
    pub(super) fn find(name: &str) -> Option<&'static List> {
        LISTS.into_iter().find(|list| list.name == name)
    }
}

/// All lists.
pub static LISTS: [&List; 5] = [&ROOM, &AUTH_KEY, &LISTENER, &API_KEY, &WEBHOOK];

/// Rules for rooms.
pub static ROOM: List = List {
    name: "room",
    entry: "rule",
    placeholder: "RULE",
    heading: "Keys of a rule for rooms",
    help: "A rule for rooms, as match=market.*,history.size=1000,history.ttl=10m; the flag may be repeated, or give \
           several with semicolons between them. The first rule that matches a room counts; those of flags come first, then \
           the environment's, then the file's.",
    rows: ROOM_SETTINGS,
    has_defaults: true,
    example: "match=market.*,history.size=1000,history.ttl=10m",
    fault: room::fault,
};

/// Keys that tokens are checked by.
pub static AUTH_KEY: List = List {
    name: "auth.key",
    entry: "key",
    placeholder: "KEY",
    heading: "Keys of a key for tokens",
    help: "A key that tokens are checked by, as alg=HS256,secret_file=/run/secrets/fanfare or \
           alg=ES256,kid=a,public_key_file=/etc/fanfare/a.pem; the flag may be repeated, or give several with semicolons \
           between them. With a key, or auth.jwks_file, clients need a token.",
    rows: AUTH_KEY_SETTINGS,
    has_defaults: false,
    example: "alg=HS256,secret_file=/run/secrets/fanfare",
    fault: auth::fault,
};

/// What differs from listener to listener.
pub static LISTENER: List = List {
    name: "listener",
    entry: "listener",
    placeholder: "LISTENER",
    heading: "Keys of a listener",
    help: "How an address is served, as address=0.0.0.0:443,certificate=a.pem,key=a.key; the flag may be repeated, or give \
           several with semicolons between them. One of the addresses of listen is served so, another one as well; without \
           listen, none but these.",
    rows: LISTENER_SETTINGS,
    has_defaults: false,
    example: "address=0.0.0.0:443,certificate=a.pem,key=a.key",
    fault: listener::fault,
};

/// Keys of the operator's programs.
pub static API_KEY: List = List {
    name: "api.key",
    entry: "key",
    placeholder: "KEY",
    heading: "Keys of a key for programs",
    help: "A key that a program of the operator shows, as name=prometheus,verbs=read,secret_file=/run/secrets/fanfare-api; \
           the flag may be repeated, or give several with semicolons between them.",
    rows: API_KEY_SETTINGS,
    has_defaults: false,
    example: "name=prometheus,verbs=read,secret_file=/run/secrets/fanfare-api",
    fault: api::fault,
};

/// Where events are sent.
pub static WEBHOOK: List = List {
    name: "webhook",
    entry: "webhook",
    placeholder: "WEBHOOK",
    heading: "Keys of a webhook",
    help: "A receiver of events, as url=https://app.example.com/fanfare,secret_file=/run/secrets/fanfare-webhook; the flag \
           may be repeated, or give several with semicolons between them. Each gets all events that it names.",
    rows: WEBHOOK_SETTINGS,
    has_defaults: false,
    example: "url=https://app.example.com/fanfare,secret_file=/run/secrets/fanfare-webhook",
    fault: webhook::fault,
};

/// The pattern of a rule, which every rule has to say.
pub(super) const ROOM_MATCH: &str = "room.match";

/// Where a webhook's events go, which every one has to say.
pub(super) const WEBHOOK_URL: &str = "webhook.url";

/// The address of a listener, which every one has to say.
pub(super) const LISTENER_ADDRESS: &str = "listener.address";

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

    /// The key inside an entry of a list, for a row of such: `history.size` in a `[[room]]` table. `None` for others.
    pub fn name_in_entry(&self) -> Option<&'static str> {
        self.key.strip_prefix(self.list()?.name)?.strip_prefix('.')
    }

    /// The list whose entries have it.
    pub(super) fn list(&self) -> Option<&'static List> {
        LISTS.into_iter().find(|list| self.key.strip_prefix(list.name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The environment variable: `FANFARE_HEARTBEAT_INTERVAL` for `heartbeat.interval`.
    pub fn env(&self) -> String {
        env_of(self.key)
    }
}

fn env_of(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Whether a table has settings in this section or in one below it, or a list stands in it.
pub(super) fn is_section(rows: &[Setting], name: &str) -> bool {
    let keys = rows.iter().map(|row| row.key).chain(LISTS.into_iter().map(|list| list.name));
    keys.into_iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
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

const fn duration_or_zero(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration(Bounds { min: min_ms, max: max_ms, zero: true })
}

const NOTICE_TEXT: Kind = Kind::Text { bytes_max: 1024 };

const PREFIX: Kind = Kind::Text { bytes_max: 64 };

const GROUP: Kind = Kind::Text { bytes_max: 256 };

const PATH: Kind = Kind::Text { bytes_max: 4096 };

const CLAIM: Kind = Kind::Text { bytes_max: 1024 };

const KID: Kind = Kind::Text { bytes_max: 256 };

const PEM: Kind = Kind::Text { bytes_max: 16 * 1024 };

const ALG: Kind = Kind::Choice(&["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"]);

const NAME: Kind = Kind::Text { bytes_max: 128 };

/// What tokens and keys hang on.
const SECRET: Kind = Kind::Secret { bytes_min: 32 };

/// What both sides may have agreed on before.
const WEBHOOK_SECRET: Kind = Kind::Secret { bytes_min: 1 };

const CLIENT_CERTIFICATES: Kind = Kind::Choice(&["none", "optional", "required"]);

const HISTORY_SIZE: Kind = integer(0, 1_000_000);
const HISTORY_TTL: Kind = duration(SECOND, 30 * DAY);

/// All settings: those without a section first, then section by section.
pub const SETTINGS: &[Setting] = &[
    row(
        "listen",
        Kind::Addresses { min: 1 },
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
        Kind::Choice(&["auto", "epoll", "uring"]),
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
        "log_level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "What is logged, and all that is worse; RUST_LOG, where it is set, counts instead.",
    ),
    row(
        "tls.certificate",
        Kind::Paths,
        "",
        "PEM files with certificates, each with its chain, for every TCP address of listen; of several the client's SNI \
         chooses one. None is no TLS.",
    ),
    row("tls.key", Kind::Paths, "", "PEM files with the private keys, in the order of the certificates."),
    row(
        "tls.client_ca",
        PATH,
        "",
        "PEM file with the certificate authorities that certificates of clients are checked against.",
    ),
    row(
        "tls.client_certificates",
        CLIENT_CERTIFICATES,
        "none",
        "Whether clients are asked for a certificate; optional lets in who has none, but none with a bad one.",
    ),
    row(
        "admin.listen",
        Kind::Addresses { min: 0 },
        "",
        "Addresses for the operator alone: /metrics and /stats need no key there, and there is no WebSocket.",
    ),
    row(
        "admin.loopback",
        Kind::Bool,
        "true",
        "Let a request that counts as loopback read /metrics and /stats, and let the console make tokens for it; switch it \
         off where a proxy on this machine cannot be told from its users.",
    ),
    row(
        "api.body_bytes_max",
        bytes(KIB, API_BODIES_BYTES_MAX as u64),
        "16MiB",
        "Bytes of the body of one request of the HTTP API; a larger one is answered 413.",
    ),
    row(
        "api.listen",
        Kind::Addresses { min: 0 },
        "",
        "Addresses for programs of the operator alone: the HTTP API is served there and on no other listener but those of \
         admin.listen, and there is no WebSocket.",
    ),
    row(
        "auth.jwks_file",
        PATH,
        "",
        "File with public keys that tokens are checked by, a key set (JWKS); with it, or an [[auth.key]], clients need a token.",
    ),
    row(
        "auth.jwks_url",
        Kind::HttpUrl,
        "",
        "Fixed URL of a key set; keys of it, of the file and of [[auth.key]] hold together.",
    ),
    row(
        "auth.jwks_refresh",
        duration(10 * SECOND, DAY),
        "5m",
        "How often that key set is fetched, give or take a tenth; a token whose kid is not known has it fetched at once, \
         every 10 s at most.",
    ),
    row(
        "auth.connect_url",
        Kind::HttpUrl,
        "",
        "URL of the team's backend that decides about each connection (POST, JSON); with it clients are asked who they are.",
    ),
    row(
        "auth.join_url",
        Kind::HttpUrl,
        "",
        "URL of the team's backend that decides about each join, in place of the permission join (POST, JSON).",
    ),
    row(
        "auth.forward_headers",
        Kind::Fields,
        "cookie",
        "Header fields of a client's request that are passed on to auth.connect_url.",
    ),
    row(
        "auth.url_ca",
        PATH,
        "",
        "PEM file with the certificate authorities that certificates behind these URLs are checked against; empty is the \
         system's.",
    ),
    row(
        "auth.url_timeout",
        duration(10, MINUTE),
        "3s",
        "Time that such a URL has to answer, and a decision to be made; beyond it a connection is answered 503, a join \
         unavailable.",
    ),
    row(
        "auth.url_concurrency",
        integer(1, 1_024),
        "64",
        "Requests under way to auth.connect_url and auth.join_url together; more wait, within auth.url_timeout.",
    ),
    row(
        "auth.url_cache",
        duration(0, HOUR),
        "5s",
        "How long a decision holds for the same question, which is all that is sent; 0 asks each time.",
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
    row(
        "limits.items_bytes_max",
        bytes(256, 16 * MIB),
        "64KiB",
        "Bytes of the items that one connection may name in its subscriptions of keyed rooms; more are answered \
         too_many_items.",
    ),
    row(
        "limits.user_connections_max",
        integer(0, 1_000_000),
        "0",
        "JSON connections of one user on this node; limits.user_connections_policy says what becomes of one more, 0 is no limit.",
    ),
    row(
        "limits.user_connections_policy",
        Kind::Choice(&["refuse", "replace"]),
        "refuse",
        "What becomes of a connection more than its user may have: refuse closes it with 1008, replace the user's oldest \
         with 4009.",
    ),
    row(
        "limits.memory_max",
        bytes_or_zero(MIB, 1024 * GIB),
        "0",
        "Memory that the process may take; when it comes near, new connections are answered 503, those without a token first, \
         and beyond it the newest are closed with 1013. 0 is nine tenths of the machine's, or of a cgroup's limit.",
    ),
    row("limits.head_bytes_max", bytes(256, 64 * KIB), "8KiB", "Size of a request head; a larger one is answered 431."),
    row("limits.headers_max", integer(1, 256), "64", "Header fields of a request; more are answered 431."),
    row(
        "limits.handshake_timeout",
        duration(10, 5 * MINUTE),
        "5s",
        "Time a client has to send its whole request head.",
    ),
    row(
        "address.connections_max",
        integer(0, 10_000_000),
        "10000",
        "Connections of one IPv4 address, or of one /64 of IPv6, on this node; one more is answered 429, 0 is no limit.",
    ),
    row(
        "address.handshakes_per_second",
        integer(0, 1_000_000),
        "1000",
        "Sockets that one address may open in a second; one more is closed at once, 0 is no limit.",
    ),
    row(
        "address.half_open_max",
        integer(0, 1_000_000),
        "512",
        "Sockets of one address that are no connection yet; one more is closed at once, 0 is no limit.",
    ),
    row(
        "address.exempt",
        Kind::Networks,
        "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,::1,fc00::/7",
        "Networks whose addresses have no such limits: by default this machine and private ones, where a proxy may stand \
         that speaks for all clients.",
    ),
    row(
        "proxy.trusted",
        Kind::Networks,
        "",
        "Networks of proxies that are believed when they name the client (X-Forwarded-For, PROXY protocol); unix is those \
         that come through a Unix socket.",
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
        "Messages, pings and pongs one connection may send per second; 0 is no limit.",
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
        "items.node_max",
        integer(1, 100_000_000),
        "1000000",
        "Items of all keyed rooms on the whole node; an update that brings one more is answered too_many_items.",
    ),
    row(
        "items.node_bytes_max",
        bytes(MIB, 1024 * GIB),
        "256MiB",
        "Bytes that the items of all keyed rooms may take on the whole node; an update beyond it is answered \
         too_many_items.",
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
    row(
        "webhooks.queue_max",
        integer(1_000, 10_000_000),
        "500000",
        "Events of webhooks that are not delivered yet, of the whole cluster; beyond it changes wait, and undo each other.",
    ),
    row(
        "webhooks.directory",
        PATH,
        "",
        "Folder in which a node alone keeps the events that are not delivered, for its next start; empty keeps them in \
         memory. Not with redis.url: Redis keeps them.",
    ),
    row(
        "echo.paths",
        Kind::Patterns,
        "",
        "Paths of WebSocket connections that get back each of their messages and nothing else, as /echo; such a path means \
         nothing else.",
    ),
    row(
        "health.stall_max",
        duration(10, HOUR),
        "5s",
        "Time that a reactor may be in one turn; beyond it /health/live answers 503 and names it.",
    ),
    row(
        "drain.delay",
        duration(0, HOUR),
        "0s",
        "Time from SIGTERM, when /health/ready turns 503, until the drain begins; meanwhile the node serves as before, so that \
         balancers take it out first. SIGINT does not wait.",
    ),
    row(
        "drain.timeout",
        duration(0, HOUR),
        "10s",
        "Time from the beginning of the drain until the connections that are left are cut; closes are spread over three \
         quarters of it at most.",
    ),
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

/// What a rule for rooms may say, each as a key of a `[[room]]` table.
const ROOM_SETTINGS: &[Setting] = &[
    row(ROOM_MATCH, Kind::Pattern, "*", "Room ids it is for; * stands for any run of characters, all else for itself."),
    row("room.history.size", HISTORY_SIZE, "0", "Messages kept per room; beyond it the oldest go first, 0 keeps none."),
    row("room.history.ttl", HISTORY_TTL, "10m", "Time a message is kept in a room."),
    row(
        "room.keyed",
        Kind::Bool,
        "false",
        "Keep the newest value of each item; a raw room is meant where the pattern matches raw/ROOM.",
    ),
    row(
        "room.items.max",
        integer(1, 1_000_000),
        "10000",
        "Items of a keyed room, removed ones that are remembered included; an update that brings one more is answered \
         too_many_items.",
    ),
    row(
        "room.items.bytes_max",
        bytes(KIB, 64 * GIB),
        "16MiB",
        "Bytes that the items of a keyed room may take; an update beyond it is answered too_many_items.",
    ),
    row(
        "room.items.ttl",
        duration_or_zero(SECOND, 30 * DAY),
        "0s",
        "Time after its last update when an item is removed; 0 removes none.",
    ),
    row(
        "room.items.removed_ttl",
        duration(SECOND, 30 * DAY),
        "5m",
        "Time that a removed item is remembered for who comes back, with its seq and version.",
    ),
    row(
        "room.items.stale_after",
        duration_or_zero(100, DAY),
        "0s",
        "Time without an update after which members of a keyed room are told that it is stale; 0 tells nobody.",
    ),
];

/// What a listener may say, each as a key of a `[[listener]]` table.
const LISTENER_SETTINGS: &[Setting] = &[
    row(LISTENER_ADDRESS, Kind::Address, "127.0.0.1:8080", "The address, one of listen or another one."),
    row(
        "listener.tls",
        Kind::Bool,
        "true",
        "Serve TLS here, where a certificate is given below or in section [tls]; false serves none. A Unix socket never \
         does.",
    ),
    row("listener.certificate", Kind::Paths, "", "As in section [tls], and in place of what stands there."),
    row("listener.key", Kind::Paths, "", "As in section [tls]."),
    row("listener.client_ca", PATH, "", "As in section [tls], and in place of what stands there."),
    row(
        "listener.client_certificates",
        CLIENT_CERTIFICATES,
        "none",
        "As in section [tls], and in place of what stands there.",
    ),
    row(
        "listener.proxy_protocol",
        Kind::Bool,
        "false",
        "Every connection begins with a PROXY header, which names the client; one without is closed.",
    ),
];

/// What a key for tokens may say, each as a name of an `[[auth.key]]` table.
const AUTH_KEY_SETTINGS: &[Setting] = &[
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
    row("auth.key.secret", SECRET, "", "For HS256, HS384 and HS512: the secret that tokens are signed with."),
    row("auth.key.secret_file", PATH, "", "File with that secret; line breaks at its end do not count."),
    row("auth.key.public_key", PEM, "", "For the others: the public key in PEM."),
    row("auth.key.public_key_file", PATH, "", "File with that public key."),
];

/// What a key for programs may say, each as a name of an `[[api.key]]` table.
const API_KEY_SETTINGS: &[Setting] = &[
    row(
        "api.key.name",
        NAME,
        "",
        "Whose it is; several keys may have one name, so that one takes the place of another.",
    ),
    row("api.key.secret", SECRET, "", "The key itself, as in Authorization: Bearer KEY."),
    row("api.key.secret_file", PATH, "", "File with it; line breaks at its end do not count."),
    row(
        "api.key.verbs",
        Kind::Words(&["publish", "private", "broadcast", "read", "kick"]),
        "",
        "What it is good for; /metrics and /stats take one that may read.",
    ),
    row("api.key.rooms", Kind::Patterns, "*", "Rooms that it is good for, where * stands for any run of characters."),
];

/// What a webhook may say, each as a name of a `[[webhook]]` table.
const WEBHOOK_SETTINGS: &[Setting] = &[
    row(WEBHOOK_URL, Kind::HttpUrl, "", "Fixed URL that events are sent to (POST, JSON); redirects are not followed."),
    row("webhook.secret", WEBHOOK_SECRET, "", "What requests are signed with; best 32 bytes or more."),
    row("webhook.secret_file", PATH, "", "File with that secret; line breaks at its end do not count."),
    row(
        "webhook.events",
        Kind::Words(&["room_occupied", "room_vacated", "user_online", "user_offline"]),
        "room_occupied,room_vacated,user_online,user_offline",
        "Events that are sent; all, if it does not say which.",
    ),
    row(
        "webhook.rooms",
        Kind::Patterns,
        "*",
        "Rooms whose events are sent, raw rooms as raw/ROOM; * stands for any run of characters, and for all if it does not say \
         which.",
    ),
    row(
        "webhook.ca",
        PATH,
        "",
        "PEM file with the certificate authorities that the receiver's certificate is checked against; empty is the system's.",
    ),
    row(
        "webhook.timeout",
        duration(100, MINUTE),
        "5s",
        "Time the receiver has to answer, 5s if it does not say; then the request is sent again later.",
    ),
    row(
        "webhook.concurrency",
        integer(1, 64),
        "4",
        "Requests under way at once, 4 if it does not say; half of them may be repetitions.",
    ),
];
