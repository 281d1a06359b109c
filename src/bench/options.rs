//! The flags of `fanfare bench`, and what they mean together.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ArgMatches;

use super::BenchError;
use super::limits::{
    ATTACKERS_MAX, BOMB_BYTES_MAX, BOMB_BYTES_MIN, BOMBS_MAX, COMMANDS_MAX, CONNECTIONS_MAX, JSON_PAYLOAD_BYTES_MIN,
    OUTSTANDING_MAX, OUTSTANDING_TOTAL_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, SEQUENCE_MAX, STREAMS_MAX,
};
use crate::client::Url;
use crate::config::{Bounds, Kind, Value, nearest};

/// Id of the argument that names the scenario.
pub const SCENARIO: &str = "scenario";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One publisher into one room, so many messages outstanding.
    Fanout,
    /// Several publishers into many rooms, each room with its own messages outstanding.
    Rooms,
    /// Users who pass messages on, so many always in flight.
    Private,
    /// Connections that do nothing.
    Idle,
    /// Connecting, as fast as the server accepts.
    Connect,
    /// An open loop at a fixed rate, measured from the intended send time.
    Latency,
    /// All connections dropped and opened again.
    Storm,
    /// The open loop without attackers and beside them.
    Hostile,
}

/// Every scenario with its name and what it does.
pub const SCENARIOS: &[(Scenario, &str, &str)] = &[
    (Scenario::Fanout, "fanout", "one publisher into a room of all connections; a message is done when all have it"),
    (Scenario::Rooms, "rooms", "publishers into many rooms, each with its own messages outstanding"),
    (Scenario::Private, "private", "users who pass private messages on, a fixed number always in flight"),
    (Scenario::Idle, "idle", "connections that do nothing; with --server-pid the memory each one takes"),
    (Scenario::Connect, "connect", "connections opened as fast as the server welcomes them"),
    (Scenario::Latency, "latency", "a fixed rate into a room, each delivery timed from the intended send time"),
    (Scenario::Storm, "storm", "all connections dropped at once and opened again, until all are served"),
    (
        Scenario::Hostile,
        "hostile",
        "latency in calm and then beside slow handshakes, deflate bombs and empty fragments, or another --attack",
    ),
];

/// What `hostile` measures beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttackKind {
    /// Slow handshakes, deflate bombs and empty fragments together.
    Siege,
    /// Clients that ask for pages of a room's history, many in one write.
    History,
    /// Clients that ask who is in a crowded room, many times in one write.
    Presence,
    /// Clients that always have more waiting in their socket than the server reads at once.
    Busy,
}

const ATTACKS: [AttackKind; 4] = [AttackKind::Siege, AttackKind::History, AttackKind::Presence, AttackKind::Busy];

const ATTACK_NAMES: &[&str] = &[ATTACKS[0].name(), ATTACKS[1].name(), ATTACKS[2].name(), ATTACKS[3].name()];

/// What messages carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A stamp and equal letters.
    Filler,
    /// Quotes and talk that differ from message to message, the same in every run.
    Json,
}

const FILLER: &str = "filler";
const JSON: &str = "json";

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

const HOUR_MS: u64 = 3_600_000;

/// Every flag, in the order of the help. Defaults in words depend on the scenario.
pub const FLAGS: &[Flag] = &[
    flag(
        "url",
        Kind::Text { bytes_max: 1024 },
        "ws://127.0.0.1:8080",
        "The server, ws://HOST:PORT with or without a path.",
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
        "Messages on their way at any time: per room, or altogether in private.",
    ),
    flag("rate", integer(1, 1_000_000), "50", "latency, hostile: messages a second and room."),
    flag(
        "payload-bytes",
        Kind::Bytes(Bounds { min: PAYLOAD_BYTES_MIN, max: PAYLOAD_BYTES_MAX, zero: false }),
        "128; JSON 512",
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
        "hostile: another node of the cluster, where the room whose presence is asked for has as many members more.",
    ),
    flag("handshakes", integer(1, 10_000), "64", "Connections that are being opened at any time."),
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

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Target {
    /// The URL as it was given.
    pub url: String,
    /// Its host and port, for the `Host` header.
    pub authority: String,
    /// Its path.
    pub path: String,
    /// Its address.
    pub address: SocketAddr,
}

/// A checked command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is measured.
    pub scenario: Scenario,
    /// Where the server is.
    pub target: Target,
    /// Connections that receive.
    pub connections: usize,
    /// The smaller number of connections of `idle`.
    pub base: usize,
    /// Rooms.
    pub rooms: usize,
    /// Connections that publish.
    pub publishers: usize,
    /// Messages outstanding.
    pub outstanding: usize,
    /// Messages a second and room, in an open loop.
    pub rate_per_s: u64,
    /// Size of a delivered message.
    pub payload_bytes: usize,
    /// What room messages carry.
    pub payload: Payload,
    /// Whether subscribers offer permessage-deflate and insist on it.
    pub deflate: bool,
    /// Connections with slow handshakes, in `hostile`.
    pub dribblers: usize,
    /// Connections that send deflate bombs.
    pub bombers: usize,
    /// Connections that send empty fragments.
    pub fragmenters: usize,
    /// Bombs of each kind in a round.
    pub bombs: usize,
    /// What a deflate bomb inflates to.
    pub bomb_bytes: u64,
    /// What `hostile` measures beside.
    pub attack: AttackKind,
    /// Clients of an attack that keep the rules; none in a siege.
    pub attackers: usize,
    /// Commands that each of them sends in one write.
    pub attack_commands: usize,
    /// Whether they offer permessage-deflate and insist on it.
    pub attack_deflate: bool,
    /// Whether they read nothing.
    pub attack_deaf: bool,
    /// Members of the room whose presence is asked for, on each node.
    pub members: usize,
    /// Another node, where more of them sit.
    pub peer: Option<Target>,
    /// How long a round measures.
    pub duration: Duration,
    /// Messages after which a round ends, in place of the duration.
    pub messages: Option<u64>,
    /// Unmeasured time before the first round.
    pub warmup: Duration,
    /// Rounds.
    pub rounds: usize,
    /// Connections that are being opened at any time.
    pub handshakes: usize,
    /// How long nothing may happen.
    pub timeout: Duration,
    /// The generator's core.
    pub pin: Option<usize>,
    /// The server's process.
    pub server_pid: Option<u32>,
    /// Whether the report is JSON.
    pub json: bool,
}

impl Scenario {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        SCENARIOS.iter().find(|(scenario, ..)| *scenario == self).map_or("", |(_, name, _)| name)
    }

    fn usual_connections(self) -> usize {
        match self {
            Scenario::Fanout | Scenario::Private | Scenario::Latency | Scenario::Storm | Scenario::Hostile => 1000,
            Scenario::Rooms | Scenario::Connect => 10_000,
            Scenario::Idle => 15_000,
        }
    }

    fn usual_duration_ms(self) -> u64 {
        match self {
            Scenario::Idle => 2_000,
            Scenario::Hostile => 10_000,
            Scenario::Fanout
            | Scenario::Rooms
            | Scenario::Private
            | Scenario::Connect
            | Scenario::Latency
            | Scenario::Storm => 5_000,
        }
    }

    fn from_name(name: &str) -> Result<Scenario, BenchError> {
        let names = || SCENARIOS.iter().map(|(_, name, _)| *name);
        if let Some((scenario, ..)) = SCENARIOS.iter().find(|(_, known, _)| *known == name) {
            return Ok(*scenario);
        }
        Err(BenchError::Options(match nearest(name, names()) {
            Some(near) => format!("unknown scenario {name:?}; did you mean {near}?"),
            None => format!("unknown scenario {name:?}; there are {}", names().collect::<Vec<_>>().join(", ")),
        }))
    }
}

impl AttackKind {
    /// Its name on the command line and in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            AttackKind::Siege => "siege",
            AttackKind::History => "history",
            AttackKind::Presence => "presence",
            AttackKind::Busy => "busy",
        }
    }
}

impl Payload {
    /// Its name on the command line and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Payload::Filler => FILLER,
            Payload::Json => JSON,
        }
    }
}

impl Options {
    /// Reads what the command line's parser found: the argument [`SCENARIO`] and the [`FLAGS`], all as text.
    ///
    /// # Errors
    ///
    /// What is wrong with a value, or with several together, and what to write instead.
    pub fn from_matches(matches: &ArgMatches) -> Result<Options, BenchError> {
        let Some(name) = matches.get_one::<String>(SCENARIO) else {
            let names: Vec<_> = SCENARIOS.iter().map(|(_, name, _)| *name).collect();
            return Err(BenchError::Options(format!("bench needs a scenario: {}", names.join(", "))));
        };
        let scenario = Scenario::from_name(name)?;
        let given = Given(matches);
        let (rooms, publishers) = match scenario {
            Scenario::Rooms => (1000, 8),
            Scenario::Fanout
            | Scenario::Private
            | Scenario::Idle
            | Scenario::Connect
            | Scenario::Latency
            | Scenario::Storm
            | Scenario::Hostile => (1, 1),
        };
        let connections = given.count("connections")?.unwrap_or(scenario.usual_connections());
        let messages = given.integer("messages")?;
        let outstanding = if scenario == Scenario::Private { connections } else { 1 };
        let attack = given.attack()?;
        let siege = |count| if attack == AttackKind::Siege { count } else { 0 };
        let deflate = given.is_set("deflate")?;
        let payload = given.payload()?.unwrap_or(if deflate { Payload::Json } else { Payload::Filler });
        let payload_bytes = match payload {
            Payload::Filler => 128,
            Payload::Json => 512,
        };
        let millis = |name, default| given.integer(name).map(|ms| Duration::from_millis(ms.unwrap_or(default)));
        let options = Options {
            scenario,
            target: Target::parse("url", given.text("url").unwrap_or("ws://127.0.0.1:8080"))?,
            connections,
            base: given.count("base")?.unwrap_or(connections.div_ceil(3)),
            rooms: given.count("rooms")?.unwrap_or(rooms),
            publishers: given.count("publishers")?.unwrap_or(publishers),
            outstanding: given.count("outstanding")?.unwrap_or(outstanding),
            rate_per_s: given.integer("rate")?.unwrap_or(50),
            payload_bytes: given.count("payload-bytes")?.unwrap_or(payload_bytes),
            payload,
            deflate,
            dribblers: given.count("dribblers")?.unwrap_or(siege(10_000)),
            bombers: given.count("bombers")?.unwrap_or(siege(4)),
            fragmenters: given.count("fragmenters")?.unwrap_or(siege(4)),
            bombs: given.count("bombs")?.unwrap_or(100),
            bomb_bytes: given.integer("bomb-bytes")?.unwrap_or(1 << 30),
            attack,
            attackers: if attack == AttackKind::Siege { 0 } else { given.count("attackers")?.unwrap_or(1) },
            attack_commands: given.count("attack-commands")?.unwrap_or(1_700),
            attack_deflate: given.is_set("attack-deflate")?,
            attack_deaf: given.is_set("attack-deaf")?,
            members: if attack == AttackKind::Presence { given.count("members")?.unwrap_or(1_000) } else { 0 },
            peer: given.text("peer-url").map(|url| Target::parse("peer-url", url)).transpose()?,
            duration: millis("duration", scenario.usual_duration_ms())?,
            messages,
            warmup: millis("warmup", if messages.is_some() { 0 } else { 500 })?,
            rounds: given.count("rounds")?.unwrap_or(1),
            handshakes: given.count("handshakes")?.unwrap_or(64),
            timeout: millis("timeout", 5_000)?,
            pin: given.count("pin")?,
            server_pid: given.integer("server-pid")?.map(|pid| pid as u32),
            json: given.is_set("json")?,
        };
        options.checked()
    }

    /// Connections of all kinds.
    pub fn sockets(&self) -> usize {
        match self.scenario {
            Scenario::Fanout | Scenario::Rooms | Scenario::Latency | Scenario::Storm => {
                self.connections + self.publishers
            }
            Scenario::Private | Scenario::Idle | Scenario::Connect => self.connections,
            Scenario::Hostile => {
                let siege = self.dribblers + self.bombers + self.fragmenters;
                let crowds = if self.peer.is_some() { 2 } else { 1 };
                self.connections + self.publishers + siege + self.attackers + self.members * crowds
            }
        }
    }

    fn checked(self) -> Result<Options, BenchError> {
        let wrong = |what: String| Err(BenchError::Options(what));
        let Options { connections, rooms, publishers, outstanding, base, .. } = self;
        if !connections.is_multiple_of(rooms) {
            return wrong(format!("--connections {connections} do not fill --rooms {rooms} evenly; write a multiple"));
        }
        if publishers > rooms {
            return wrong(format!("--publishers {publishers} are more than --rooms {rooms}; write at most as many"));
        }
        if rooms.saturating_mul(outstanding) > OUTSTANDING_TOTAL_MAX {
            return wrong(format!(
                "--outstanding {outstanding} in each of {rooms} rooms is more than {OUTSTANDING_TOTAL_MAX}; write less"
            ));
        }
        if self.payload == Payload::Json && (self.payload_bytes as u64) < JSON_PAYLOAD_BYTES_MIN {
            return wrong(format!("--payload json needs --payload-bytes {JSON_PAYLOAD_BYTES_MIN} or more"));
        }
        match self.scenario {
            Scenario::Private if self.deflate || self.payload == Payload::Json => wrong(
                "private has no --deflate and no --payload: who sent a message stands in it, so each has to be read"
                    .into(),
            ),
            Scenario::Hostile if self.messages.is_some() => {
                wrong("--messages: hostile takes its time; write --duration instead".into())
            }
            Scenario::Hostile if self.peer.is_some() && self.attack != AttackKind::Presence => {
                wrong("--peer-url is for --attack presence; leave it out".into())
            }
            Scenario::Private if outstanding > connections * 100 => wrong(format!(
                "--outstanding {outstanding} is more than 100 for each of {connections} users; write less"
            )),
            Scenario::Private if connections < 2 => wrong("--connections: private needs two users or more".into()),
            Scenario::Idle if base >= connections => {
                wrong(format!("--base {base} is not below --connections {connections}; write a smaller number"))
            }
            Scenario::Fanout
            | Scenario::Rooms
            | Scenario::Private
            | Scenario::Idle
            | Scenario::Connect
            | Scenario::Latency
            | Scenario::Storm
            | Scenario::Hostile => Ok(self),
        }
    }
}

impl Target {
    fn parse(flag: &str, text: &str) -> Result<Target, BenchError> {
        let wrong = |why: &dyn Display| BenchError::Options(format!("--{flag}: {why}"));
        let url: Url = text.parse().map_err(|why: String| wrong(&why))?;
        if url.socket().is_some() {
            return Err(wrong(&format_args!("{url} is a Unix socket; bench needs ws://HOST:PORT")));
        }
        if url.query().is_some() {
            return Err(wrong(&format_args!("{url} has a query, where bench puts its own; leave it out")));
        }
        let addresses = url
            .resolve()
            .map_err(|error| wrong(&format_args!("cannot find the host of {url}: {error}; write ws://HOST:PORT")))?;
        let (authority, path) = (url.authority().to_owned(), url.path().to_owned());
        Ok(Target { url: text.to_owned(), authority, path, address: addresses[0] })
    }
}

/// What the command line gave.
struct Given<'a>(&'a ArgMatches);

impl Given<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get_one::<String>(name).map(String::as_str)
    }

    fn value(&self, name: &str) -> Result<Option<Value>, BenchError> {
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        let (Some(flag), Some(text)) = (flag, self.text(name)) else { return Ok(None) };
        flag.kind.parse(text).map(Some).map_err(|why| BenchError::Options(format!("--{name}: {why}")))
    }

    fn integer(&self, name: &str) -> Result<Option<u64>, BenchError> {
        Ok(match self.value(name)? {
            Some(Value::Integer(number) | Value::Bytes(number) | Value::Millis(number)) => Some(number),
            Some(
                Value::Bool(_)
                | Value::Text(_)
                | Value::Word(_)
                | Value::Address(_)
                | Value::Addresses(_)
                | Value::Paths(_)
                | Value::Pin(_)
                | Value::Mode(_)
                | Value::Pattern(_)
                | Value::Patterns(_)
                | Value::Secret(_)
                | Value::RedisUrl(_),
            )
            | None => None,
        })
    }

    fn count(&self, name: &str) -> Result<Option<usize>, BenchError> {
        Ok(self.integer(name)?.map(|number| number as usize))
    }

    fn is_set(&self, name: &str) -> Result<bool, BenchError> {
        Ok(matches!(self.value(name)?, Some(Value::Bool(true))))
    }

    fn attack(&self) -> Result<AttackKind, BenchError> {
        let value = self.value("attack")?;
        let named = |attack: &AttackKind| matches!(&value, Some(Value::Word(word)) if *word == attack.name());
        Ok(ATTACKS.into_iter().find(named).unwrap_or(AttackKind::Siege))
    }

    fn payload(&self) -> Result<Option<Payload>, BenchError> {
        Ok(match self.value("payload")? {
            Some(Value::Word(JSON)) => Some(Payload::Json),
            Some(_) => Some(Payload::Filler),
            None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("url", "ws://127.0.0.1:81/ws").unwrap();
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("127.0.0.1:81", "/ws"));
        assert_eq!(Target::parse("url", "ws://127.0.0.1").unwrap().address.port(), 80);
        assert_eq!(Target::parse("url", "ws://[::1]:9").unwrap().path, "/");
        for url in ["http://127.0.0.1", "ws://127.0.0.1:1/?a=b", "ws://", "unix:/run/f.sock"] {
            assert!(matches!(Target::parse("url", url), Err(BenchError::Options(_))), "{url}");
        }
    }
}
