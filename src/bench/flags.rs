//! The flags of `fanfare bench`, and what the command line gave for them.

use clap::ArgMatches;

use super::BenchError;
use super::dialect::DIALECT_NAMES;
use super::limits::{
    ATTACKERS_MAX, BATCH_MAX, BOMB_BYTES_MAX, BOMB_BYTES_MIN, BOMBS_MAX, COMMANDS_MAX, CONNECTIONS_MAX, ITEMS_MAX,
    MISSED_MAX, OUTSTANDING_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, SEQUENCE_MAX, STREAMS_MAX, TEXT_BYTES_MAX,
    TOKEN_BYTES_MAX, UPDATES_PER_S_MAX,
};
use super::scenario::{ATTACK_NAMES, ATTACKS, AttackKind, FILLER, JSON, Payload};
use crate::config::{Bounds, Kind, Value};

/// One flag of `fanfare bench`.
#[derive(Debug)]
pub struct Flag {
    /// Its name behind `--`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its default, as the help shows it.
    pub default: &'static str,
    /// Its meaning.
    pub help: &'static str,
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, help }
}

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer(Bounds { min, max, zero: false })
}

const fn count_or_zero(max: u64) -> Kind {
    Kind::Integer(Bounds { min: 1, max, zero: true })
}

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration(Bounds { min: min_ms, max: max_ms, zero: false })
}

const TEXT: Kind = Kind::Text { bytes_max: TEXT_BYTES_MAX };

/// The words of `--token-alg`.
const ALG_NAMES: &[&str] = &["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"];

const HOUR_MS: u64 = 3_600_000;

/// Every flag, in the order of the help. Defaults in words depend on the scenario.
pub const FLAGS: &[Flag] = &[
    flag(
        "url",
        Kind::Text { bytes_max: 1024 },
        "ws://127.0.0.1:8080",
        "The server, ws://HOST:PORT or wss://HOST:PORT, with or without a path.",
    ),
    flag("ca", TEXT, "the system's", "wss: the authorities whose certificates are good, a file in PEM."),
    flag("insecure", Kind::Bool, "false", "wss: take any certificate."),
    flag(
        "token-secret-file",
        TEXT,
        "none",
        "A secret by which each connection gets a token of its own, made before it connects: its user id, and leave to \
         do everything.",
    ),
    flag("token-secret", TEXT, "none", "The same, as everyone on this machine can read it."),
    flag("token-key-file", TEXT, "none", "The same by a private key, in PEM."),
    flag("token-alg", Kind::Choice(ALG_NAMES), "HS256; with --token-key-file ES256", "How these tokens are signed."),
    flag("token-kid", TEXT, "none", "The name of the key in these tokens."),
    flag("token-file", TEXT, "none", "A token that all connections bring: to the server they are one user."),
    flag(
        "token",
        Kind::Text { bytes_max: TOKEN_BYTES_MAX },
        "FANFARE_TOKEN in the environment",
        "The same, as everyone on this machine can read it.",
    ),
    flag("join", Kind::Bool, "false", "connect: each connection joins a room before it counts, one of --rooms."),
    flag(
        "each",
        integer(1, SEQUENCE_MAX as u64),
        "none",
        "echo: messages after which a connection goes and another takes its place.",
    ),
    flag(
        "dialect",
        Kind::Choice(DIALECT_NAMES),
        "user",
        "Whose messages are spoken; centrifugo is that server's JSON protocol, not for private and hostile.",
    ),
    flag(
        "missed",
        integer(1, MISSED_MAX),
        "100",
        "resume: messages that were published into its room while a client was away.",
    ),
    flag(
        "logins",
        integer(1, CONNECTIONS_MAX),
        "15000",
        "logins: clients that log in at once while --connections others are measured.",
    ),
    flag(
        "connections",
        integer(1, CONNECTIONS_MAX),
        "1000; rooms and connect 10000, idle 15000",
        "Connections that receive; publishers come on top.",
    ),
    flag(
        "base",
        integer(1, CONNECTIONS_MAX),
        "a third of the connections",
        "idle: the smaller number of connections of the two that memory is compared at.",
    ),
    flag("rooms", integer(1, STREAMS_MAX), "1; rooms 1000", "Rooms that the connections are spread over, evenly."),
    flag(
        "publishers",
        integer(1, STREAMS_MAX),
        "1; rooms 8",
        "Connections that publish, each into its share of the rooms.",
    ),
    flag(
        "outstanding",
        integer(1, OUTSTANDING_MAX),
        "1; private as many as connections",
        "Messages on their way at any time: per room, per connection in echo, or altogether in private.",
    ),
    flag("rate", integer(1, 1_000_000), "50; logins 100", "latency, hostile, logins: messages a second and room."),
    flag(
        "payload-bytes",
        Kind::Bytes(Bounds { min: PAYLOAD_BYTES_MIN, max: PAYLOAD_BYTES_MAX, zero: false }),
        "128; JSON 512; echo 5",
        "Size of a delivered message with its envelope.",
    ),
    flag(
        "payload",
        Kind::Choice(&[FILLER, JSON]),
        "filler; with --deflate json",
        "What room messages carry: equal letters, or JSON that varies and compresses as real traffic does.",
    ),
    flag(
        "deflate",
        Kind::Bool,
        "false",
        "Subscribers offer permessage-deflate and insist on it. Each one's first messages and all of a few are inflated \
         and compared with what was published; the rest are counted as they are.",
    ),
    flag(
        "duration",
        duration(10, HOUR_MS),
        "5s; idle 2s; hostile 10s",
        "How long each round measures; idle: how long the connections are held.",
    ),
    flag(
        "messages",
        integer(1, SEQUENCE_MAX as u64),
        "none",
        "End a round after so many messages instead of the duration.",
    ),
    flag("warmup", duration(0, HOUR_MS), "500ms; with --messages 0s", "Unmeasured time before the first round."),
    flag("rounds", integer(1, 1000), "1", "Rounds; the report has each and the median."),
    flag(
        "dribblers",
        count_or_zero(ATTACKERS_MAX),
        "10000",
        "hostile: connections that send one byte of a handshake a second, until the server ends them.",
    ),
    flag("bombers", count_or_zero(ATTACKERS_MAX), "4", "hostile: connections that send deflate bombs."),
    flag(
        "bombs",
        integer(1, BOMBS_MAX),
        "100",
        "hostile: deflate bombs sent in a round, and as many messages of empty fragments.",
    ),
    flag(
        "bomb-bytes",
        Kind::Bytes(Bounds { min: BOMB_BYTES_MIN, max: BOMB_BYTES_MAX, zero: false }),
        "1GiB",
        "hostile: what one bomb inflates to; it is sent as about a thousandth of that.",
    ),
    flag("fragmenters", count_or_zero(ATTACKERS_MAX), "4", "hostile: connections that send endless empty fragments."),
    flag(
        "attack",
        Kind::Choice(ATTACK_NAMES),
        "siege",
        "hostile: slow handshakes, bombs and fragments; or clients that ask for history or presence many times in one \
         write; or clients whose socket always has more to read.",
    ),
    flag("attackers", integer(1, ATTACKERS_MAX), "1", "hostile: clients of an attack by history, presence or busy."),
    flag(
        "attack-commands",
        integer(1, COMMANDS_MAX),
        "1700",
        "hostile: commands that each of them sends in one write.",
    ),
    flag("attack-deflate", Kind::Bool, "false", "hostile: they offer permessage-deflate and insist on it."),
    flag("attack-deaf", Kind::Bool, "false", "hostile: they read nothing of what they are sent."),
    flag(
        "members",
        integer(1, STREAMS_MAX),
        "1000",
        "hostile: members with long user ids of the room whose presence is asked for.",
    ),
    flag(
        "peer-url",
        Kind::Text { bytes_max: 1024 },
        "none",
        "Another node of the cluster: fanout, rooms and latency publish there; hostile: the room whose presence is asked \
         for has as many members more there; market: subscribers and publishers are spread over all, several behind commas.",
    ),
    flag("instruments", integer(1, STREAMS_MAX), "100", "market: items that are updated in turn."),
    flag(
        "updates",
        integer(1, UPDATES_PER_S_MAX),
        "20000",
        "market: updates a second, of all items together. They leave at fixed times, and each value is timed from there.",
    ),
    flag("batch", integer(1, BATCH_MAX), "1", "market: updates in one command."),
    flag(
        "subscribers",
        TEXT,
        "latest@100ms=CONNECTIONS",
        "market: who subscribes, as in all=10,latest=5,latest@1s=1000. Without it --connections get rounds every 100 ms.",
    ),
    flag(
        "items",
        count_or_zero(ITEMS_MAX),
        "0",
        "market: items that each subscriber wants, of its own as far as there are enough; 0: all of them.",
    ),
    flag("same-items", Kind::Bool, "false", "market: all subscribers want the same items."),
    flag(
        "stalled",
        count_or_zero(CONNECTIONS_MAX),
        "0",
        "market: subscribers in mode latest that read nothing in the second half of each round; the others are measured.",
    ),
    flag("removals", count_or_zero(1_000_000), "0", "market: every so many updates of an item one removes it."),
    flag(
        "drop-every",
        duration(1, HOUR_MS),
        "never",
        "market: how often a subscriber drops its connection. Every other one comes back with its position.",
    ),
    flag("away", duration(0, HOUR_MS), "0s", "market: how long it stays away."),
    flag(
        "resilient",
        Kind::Bool,
        "false",
        "market: connections that end come back, to any node, and commands that are not acked are sent again.",
    ),
    flag("handshakes", integer(1, 20_000), "64; logins 1024", "Connections that are being opened at any time."),
    flag(
        "timeout",
        duration(10, HOUR_MS),
        "5s",
        "How long without any progress means that the server has lost something.",
    ),
    flag("pin", integer(0, 1023), "none", "Core that the load generator is pinned to."),
    flag(
        "server-pid",
        integer(1, 1 << 22),
        "none",
        "The server's process, on this machine: its CPU and memory are reported.",
    ),
    flag("json", Kind::Bool, "false", "Print one line of JSON instead of a table."),
];

/// What the command line gave.
#[derive(Debug)]
pub(super) struct Given<'a>(pub(super) &'a ArgMatches);

impl Given<'_> {
    /// As it was given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get_one::<String>(name).map(String::as_str)
    }

    fn value(&self, name: &str) -> Result<Option<Value>, BenchError> {
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        let (Some(flag), Some(text)) = (flag, self.text(name)) else { return Ok(None) };
        flag.kind.parse(text).map(Some).map_err(|why| BenchError::Options(format!("--{name}: {why}")))
    }

    /// A number, of bytes or of milliseconds where the flag is of these.
    pub(super) fn integer(&self, name: &str) -> Result<Option<u64>, BenchError> {
        Ok(match self.value(name)? {
            Some(Value::Integer(number) | Value::Bytes(number) | Value::Millis(number)) => Some(number),
            Some(
                Value::Bool(_)
                | Value::Text(_)
                | Value::Word(_)
                | Value::Words(_)
                | Value::Address(_)
                | Value::Addresses(_)
                | Value::Paths(_)
                | Value::Pin(_)
                | Value::Mode(_)
                | Value::Pattern(_)
                | Value::Patterns(_)
                | Value::Fields(_)
                | Value::HttpUrl(_)
                | Value::Networks(_)
                | Value::Secret(_)
                | Value::RedisUrl(_),
            )
            | None => None,
        })
    }

    /// A number of things.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, BenchError> {
        Ok(self.integer(name)?.map(|number| number as usize))
    }

    /// Whether it is true.
    pub(super) fn is_set(&self, name: &str) -> Result<bool, BenchError> {
        Ok(matches!(self.value(name)?, Some(Value::Bool(true))))
    }

    /// One of the words that a flag knows.
    pub(super) fn word(&self, name: &str) -> Result<Option<&'static str>, BenchError> {
        Ok(match self.value(name)? {
            Some(Value::Word(word)) => Some(word),
            Some(_) | None => None,
        })
    }

    /// What `hostile` is measured beside.
    pub(super) fn attack(&self) -> Result<AttackKind, BenchError> {
        let word = self.word("attack")?;
        Ok(ATTACKS.into_iter().find(|attack| Some(attack.name()) == word).unwrap_or(AttackKind::Siege))
    }

    /// What messages carry, where it is said.
    pub(super) fn payload(&self) -> Result<Option<Payload>, BenchError> {
        Ok(self.word("payload")?.map(|word| if word == JSON { Payload::Json } else { Payload::Filler }))
    }
}
