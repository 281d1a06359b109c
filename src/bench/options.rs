//! What the flags of `fanfare bench` mean together.

use std::time::Duration;

use clap::ArgMatches;

use super::BenchError;
use super::credentials::Credentials;
use super::dialect::Dialect;
use super::flags::Given;
use super::limits::{JSON_PAYLOAD_BYTES_MIN, OUTSTANDING_TOTAL_MAX};
use super::market::MarketOptions;
use super::resume::KEEPERS;
use super::scenario::{AttackKind, Payload, SCENARIO, SCENARIOS, Scenario};
use super::target::Target;
use crate::client::Trust;

/// A checked command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is measured.
    pub scenario: Scenario,
    /// Where the server is.
    pub target: Target,
    /// What connections say who they are by.
    pub(super) credentials: Credentials,
    /// Whose messages are spoken.
    pub dialect: Dialect,
    /// Whether the server's certificate is taken as it is.
    pub insecure: bool,
    /// Connections that receive.
    pub connections: usize,
    /// The smaller number of connections of `idle`.
    pub base: usize,
    /// Messages that each client of `resume` has missed.
    pub missed: u32,
    /// Clients that log in at once.
    pub logins: usize,
    /// Whether connections of `connect` join a room.
    pub join: bool,
    /// Messages after which a connection of `echo` goes and another takes its place.
    pub each: Option<u32>,
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
    /// Other nodes, where more of them sit, or those who publish.
    pub peers: Vec<Target>,
    /// What shapes `market`.
    pub market: MarketOptions,
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

impl Options {
    /// Reads what the command line's parser found: the argument [`SCENARIO`] and the [`FLAGS`](super::FLAGS), all as
    /// text; `token` is that of the environment.
    ///
    /// # Errors
    ///
    /// What is wrong with a value, or with several together, and what to write instead.
    pub fn from_matches(matches: &ArgMatches, token: Option<&str>) -> Result<Options, BenchError> {
        let Some(name) = matches.get_one::<String>(SCENARIO) else {
            let names: Vec<_> = SCENARIOS.iter().map(|(_, name, _)| *name).collect();
            return Err(BenchError::Options(format!("bench needs a scenario: {}", names.join(", "))));
        };
        let scenario = Scenario::from_name(name)?;
        let given = Given(matches);
        let (rooms, publishers) = scenario.usual_rooms_and_publishers();
        let (rate_per_s, handshakes) = if scenario == Scenario::Logins { (100, 1024) } else { (50, 64) };
        let insecure = given.is_set("insecure")?;
        let trust = Trust::from_flags(given.text("ca"), insecure).map_err(BenchError::Options)?;
        let connections = given.count("connections")?.unwrap_or(scenario.usual_connections());
        let market = MarketOptions::from_given(&given, connections)?;
        let connections = if scenario == Scenario::Market { market.subscribers() } else { connections };
        let messages = given.integer("messages")?;
        let outstanding = if scenario == Scenario::Private { connections } else { 1 };
        let attack = given.attack()?;
        let siege = |count| if attack == AttackKind::Siege { count } else { 0 };
        let deflate = given.is_set("deflate")?;
        let payload = given.payload()?.unwrap_or(if deflate { Payload::Json } else { Payload::Filler });
        let payload_bytes = match payload {
            Payload::Filler if scenario == Scenario::Market => 192,
            Payload::Filler if scenario == Scenario::Echo => 5,
            Payload::Filler => 128,
            Payload::Json => 512,
        };
        let millis = |name, default| given.integer(name).map(|ms| Duration::from_millis(ms.unwrap_or(default)));
        let options = Options {
            scenario,
            target: Target::parse("url", given.text("url").unwrap_or("ws://127.0.0.1:8080"), &trust)?,
            credentials: Credentials::from_given(&given, token)?,
            dialect: given.word("dialect")?.map_or(Dialect::User, Dialect::from_name),
            insecure,
            connections,
            base: given.count("base")?.unwrap_or(connections.div_ceil(3)),
            missed: given.integer("missed")?.map_or(100, |missed| missed as u32),
            logins: given.count("logins")?.unwrap_or(15_000),
            join: given.is_set("join")?,
            each: given.integer("each")?.map(|each| each as u32),
            rooms: given.count("rooms")?.unwrap_or(rooms),
            publishers: given.count("publishers")?.unwrap_or(publishers),
            outstanding: given.count("outstanding")?.unwrap_or(outstanding),
            rate_per_s: given.integer("rate")?.unwrap_or(rate_per_s),
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
            peers: peers(&given, &trust)?,
            market,
            duration: millis("duration", scenario.usual_duration_ms())?,
            messages,
            warmup: millis("warmup", if messages.is_some() { 0 } else { 500 })?,
            rounds: given.count("rounds")?.unwrap_or(1),
            handshakes: given.count("handshakes")?.unwrap_or(handshakes),
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
            Scenario::Fanout | Scenario::Rooms | Scenario::Latency | Scenario::Storm | Scenario::Market => {
                self.connections + self.publishers
            }
            Scenario::Private | Scenario::Echo | Scenario::Idle | Scenario::Connect => self.connections,
            Scenario::Resume => self.connections + KEEPERS,
            Scenario::Logins => self.connections + self.publishers + self.logins,
            Scenario::Hostile => {
                let siege = self.dribblers + self.bombers + self.fragmenters;
                let crowds = 1 + self.peers.len();
                self.connections + self.publishers + siege + self.attackers + self.members * crowds
            }
        }
    }

    /// Whether another node means something.
    fn has_peer(&self) -> bool {
        match self.scenario {
            Scenario::Fanout | Scenario::Rooms | Scenario::Latency | Scenario::Market => true,
            Scenario::Hostile => self.attack == AttackKind::Presence,
            Scenario::Private
            | Scenario::Echo
            | Scenario::Idle
            | Scenario::Connect
            | Scenario::Resume
            | Scenario::Storm
            | Scenario::Logins => false,
        }
    }

    fn wrong_of_echo(&self) -> Option<&'static str> {
        let is_compressed = self.deflate || self.payload == Payload::Json;
        match (self.scenario == Scenario::Echo, self.each) {
            (true, _) if is_compressed => Some("echo has no --deflate and no --payload; leave them out"),
            (false, Some(_)) => Some("--each is for echo; leave it out"),
            (true, _) | (false, None) => None,
        }
    }

    fn wrong_of_peers(&self) -> Option<&'static str> {
        if !self.peers.is_empty() && !self.has_peer() {
            return Some("--peer-url is for fanout, rooms, latency, market, and --attack presence; leave it out");
        }
        let are_many = self.peers.len() > 1 && self.scenario != Scenario::Market;
        are_many.then_some("--peer-url: only market has several; name one")
    }

    fn checked(self) -> Result<Options, BenchError> {
        let wrong = |what: String| Err(BenchError::Options(what));
        let Options { connections, rooms, publishers, outstanding, base, .. } = self;
        if !connections.is_multiple_of(rooms) {
            return wrong(format!("--connections {connections} do not fill --rooms {rooms} evenly; write a multiple"));
        }
        if publishers > rooms && self.scenario != Scenario::Market {
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
        if self.scenario != Scenario::Connect && self.join {
            return wrong("--join is for connect; leave it out".into());
        }
        if let Some(what) = self.wrong_of_echo().or_else(|| self.wrong_of_peers()) {
            return wrong(what.into());
        }
        match self.scenario {
            Scenario::Market if rooms > 1 => wrong("--rooms: market has one room; leave it out".into()),
            Scenario::Market if self.market.wrong(publishers, self.timeout).is_some() => {
                wrong(self.market.wrong(publishers, self.timeout).unwrap_or_default())
            }
            Scenario::Private | Scenario::Echo | Scenario::Hostile | Scenario::Market
                if self.dialect != Dialect::User =>
            {
                wrong(format!("--dialect: {} speaks the user dialect; leave it out", self.scenario.name()))
            }
            Scenario::Private if matches!(self.credentials, Credentials::Shared(_)) => wrong(
                "private needs users of their own, and a token makes all one; give --token-secret-file instead".into(),
            ),
            Scenario::Private if self.deflate || self.payload == Payload::Json => wrong(
                "private has no --deflate and no --payload: who sent a message stands in it, so each has to be read"
                    .into(),
            ),
            Scenario::Hostile | Scenario::Logins if self.messages.is_some() => {
                let name = self.scenario.name();
                wrong(format!("--messages: {name} takes its time; write --duration instead"))
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
            | Scenario::Echo
            | Scenario::Idle
            | Scenario::Connect
            | Scenario::Resume
            | Scenario::Latency
            | Scenario::Storm
            | Scenario::Hostile
            | Scenario::Logins
            | Scenario::Market => Ok(self),
        }
    }
}

/// The other nodes that `--peer-url` names.
fn peers(given: &Given<'_>, trust: &Trust) -> Result<Vec<Target>, BenchError> {
    let urls = given.text("peer-url").into_iter().flat_map(|urls| urls.split(','));
    urls.map(|url| Target::parse("peer-url", url, trust)).collect()
}
