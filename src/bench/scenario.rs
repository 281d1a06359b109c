//! What is measured: the scenarios, what hostile ones are measured beside, and what messages carry.

use super::BenchError;
use crate::config::nearest;

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
    /// Messages that come back.
    Echo,
    /// Connections that do nothing.
    Idle,
    /// Connecting, as fast as the server accepts.
    Connect,
    /// Clients that come back for what they have missed.
    Resume,
    /// An open loop at a fixed rate, measured from the intended send time.
    Latency,
    /// All connections dropped and opened again.
    Storm,
    /// The open loop without attackers and beside them.
    Hostile,
    /// The open loop in calm, and while others log in.
    Logins,
    /// Values of many instruments into a keyed room, at the rate each subscriber wants.
    Market,
}

/// Every scenario with its name and what it does.
pub const SCENARIOS: &[(Scenario, &str, &str)] = &[
    (Scenario::Fanout, "fanout", "one publisher into a room of all connections; a message is done when all have it"),
    (Scenario::Rooms, "rooms", "publishers into many rooms, each with its own messages outstanding"),
    (Scenario::Private, "private", "users who pass private messages on, a fixed number always in flight"),
    (
        Scenario::Echo,
        "echo",
        "messages that come back, --outstanding of each connection; --url names an echo of the server, as ws://host/echo",
    ),
    (Scenario::Idle, "idle", "connections that do nothing; with --server-pid the memory each one takes"),
    (Scenario::Connect, "connect", "connections opened as fast as the server welcomes them"),
    (
        Scenario::Resume,
        "resume",
        "clients that come back with their position and get --missed messages; the server keeps the history of rooms r*",
    ),
    (Scenario::Latency, "latency", "a fixed rate into a room, each delivery timed from the intended send time"),
    (Scenario::Storm, "storm", "all connections dropped at once and opened again, until all are served"),
    (
        Scenario::Hostile,
        "hostile",
        "latency in calm and then beside slow handshakes, deflate bombs and empty fragments, or another --attack",
    ),
    (
        Scenario::Logins,
        "logins",
        "latency in calm and then while --logins others log in at once, as fast as the server takes them",
    ),
    (
        Scenario::Market,
        "market",
        "values of --instruments into a keyed room at --updates a second, for subscribers by mode and interval; the \
         server's rooms r* are keyed",
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

/// All of them.
pub(super) const ATTACKS: [AttackKind; 4] =
    [AttackKind::Siege, AttackKind::History, AttackKind::Presence, AttackKind::Busy];

/// Their names.
pub(super) const ATTACK_NAMES: &[&str] = &[ATTACKS[0].name(), ATTACKS[1].name(), ATTACKS[2].name(), ATTACKS[3].name()];

/// What messages carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A stamp and equal letters.
    Filler,
    /// Quotes and talk that differ from message to message, the same in every run.
    Json,
}

/// The word for [`Payload::Filler`].
pub(super) const FILLER: &str = "filler";

/// The word for [`Payload::Json`].
pub(super) const JSON: &str = "json";

impl Scenario {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        SCENARIOS.iter().find(|(scenario, ..)| *scenario == self).map_or("", |(_, name, _)| name)
    }

    /// Connections where no number is given.
    pub(super) fn usual_connections(self) -> usize {
        match self {
            Scenario::Fanout
            | Scenario::Private
            | Scenario::Echo
            | Scenario::Resume
            | Scenario::Latency
            | Scenario::Storm
            | Scenario::Hostile
            | Scenario::Logins => 1000,
            Scenario::Market => 100,
            Scenario::Rooms | Scenario::Connect => 10_000,
            Scenario::Idle => 15_000,
        }
    }

    /// Rooms and publishers where no numbers are given.
    pub(super) fn usual_rooms_and_publishers(self) -> (usize, usize) {
        match self {
            Scenario::Rooms => (1000, 8),
            Scenario::Fanout
            | Scenario::Private
            | Scenario::Echo
            | Scenario::Idle
            | Scenario::Connect
            | Scenario::Resume
            | Scenario::Latency
            | Scenario::Storm
            | Scenario::Hostile
            | Scenario::Logins
            | Scenario::Market => (1, 1),
        }
    }

    /// Milliseconds of a round where no duration is given.
    pub(super) fn usual_duration_ms(self) -> u64 {
        match self {
            Scenario::Idle => 2_000,
            Scenario::Hostile => 10_000,
            Scenario::Fanout
            | Scenario::Rooms
            | Scenario::Private
            | Scenario::Echo
            | Scenario::Connect
            | Scenario::Resume
            | Scenario::Latency
            | Scenario::Storm
            | Scenario::Logins
            | Scenario::Market => 5_000,
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    ///
    /// Which there are.
    pub(super) fn from_name(name: &str) -> Result<Scenario, BenchError> {
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
