//! Users with random permissions on a simulated node, against a model: nothing reaches who was not allowed to hear it or
//! comes from who was not allowed to say it, and everything else arrives.
//!
//! Clients say some commands at once, then everything comes to rest and is judged. What a connection may do follows from
//! its own commands in their order, so each of them has exactly one right answer; who hears a message is certain where
//! the hearer has neither joined nor left its room meanwhile. In half of the runs tokens are signed by a public key, and
//! looked at elsewhere, whenever the dice want it so. In others a backend decides about connections, or about joins as well,
//! as late as the dice want.

mod backend;
mod model;

use std::sync::Arc;

use backend::SimBackend;
use data_encoding::BASE64;
use fanfare::auth::{Alg, Settings as AuthSettings};
use fanfare::auth::{Allowance, Auth, Key, Origins, SigningKey};
use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::ids::{ClientIdCodec, PeerId};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{World, post_office_of, wakers};
use fanfare::reactor::{BackendAccess, Gate, Jobs, NodeState, PostOffice, Settings, verifier};
use fanfare::router::{HistorySettings, KeyedSettings, NoticeSettings, RouterSettings};
use fanfare_simulated::seats::Seats;
use fanfare_simulated::seeds::{Outcome, sweep};
use fanfare_simulated::tally::Tally;
use model::Run;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

const SEEDS: u64 = 24;
const SECRET: &[u8] = b"a secret of the simulation, long enough";

/// So long before its end a client is told of it.
pub const EXPIRING_BEFORE_MS: u64 = 5_000;

const EXPECTED: [&str; 18] = [
    "a message had to come",
    "a message had to stay away",
    "a message was refused",
    "a join was refused",
    "some of many joins were refused",
    "a room was left because of a refresh",
    "a join was overtaken by a refresh",
    "a refresh was in force",
    "a refresh of another user",
    "a refresh with a bad token",
    "a login was refused",
    "a private message had to come",
    "a broadcast had to come",
    "a token's end was told",
    "a token's end closed a connection",
    "a token was looked at elsewhere",
    "a connection was decided about",
    "a join was decided about",
];

#[test]
fn nothing_reaches_who_is_not_allowed_and_everything_else_arrives() {
    sweep("permissions", SEEDS, &EXPECTED, run);
}

fn run(seed: u64, _in_words: bool) -> Outcome {
    let mut tally = Tally::new(&EXPECTED);
    let reactors = [1, 2, 3][seed as usize % 3];
    let alg = if seed.is_multiple_of(2) { Alg::Hs256 } else { Alg::EdDsa };
    let decider =
        [Decider::Token, Decider::Backend { joins: false }, Decider::Backend { joins: true }][seed as usize / 6 % 3];
    let mut node = Node::new(seed, reactors, alg, decider);
    Run::new(&mut node, seed, &mut tally).go();
    Outcome { hash: 0, tally }
}

/// Who says what a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    /// Its token.
    Token,
    /// The backend.
    Backend {
        /// About joins, too.
        joins: bool,
    },
}

/// The node, and what makes tokens for it.
pub struct Node {
    /// The reactors.
    pub seats: Seats,
    /// Makes tokens that are good here.
    pub signer: SigningKey,
    /// Tokens that are to be looked at beside the reactors.
    pub jobs: Jobs,
    /// Questions that the reactors have.
    pub backend: SimBackend,
    /// Who answers what.
    pub decider: Decider,
    /// By which the reactors hear of those.
    pub office: PostOffice,
}

impl Node {
    fn new(seed: u64, reactors: usize, alg: Alg, decider: Decider) -> Node {
        let world = World::new(reactors, seed);
        let (bells, wakes) = wakers(PeerId::reactors(reactors as u16));
        let (office, mailboxes) = post_office_of(wakes, 1_024);
        let state = NodeState {
            metrics: Arc::new(NodeMetrics::new(reactors)),
            codec: ClientIdCodec::new([7; 16], 0),
            seed: seed.wrapping_mul(31),
            run: seed,
        };
        let (key, signer) = keys(alg);
        let auth = Auth::new(
            AuthSettings {
                issuer: None,
                audience: None,
                anonymous: false,
                leeway_ms: 0,
                expiry_required: true,
                default: Allowance::default(),
            },
            vec![key],
        );
        let (verifier, jobs) = verifier(reactors);
        let backend = SimBackend::default();
        let access = match decider {
            Decider::Token => None,
            Decider::Backend { joins } => Some(BackendAccess {
                backend: Arc::new(backend.clone()),
                decides_connects: true,
                decides_joins: joins,
                has_keys: false,
                forward: Arc::new([]),
            }),
        };
        let gate = Gate {
            auth: Some(Arc::new(auth)),
            origins: Some(Arc::new(Origins::default())),
            expiring_before_ms: EXPIRING_BEFORE_MS,
            verifier: Some(verifier),
            backend: access,
            ..Gate::default()
        };
        let seats = Seats::new(world, mailboxes, bells, &settings(gate), &state, seed);
        Node { seats, signer, jobs, backend, decider, office }
    }
}

fn settings(gate: Gate) -> Settings {
    const MUCH: usize = 1 << 30;
    const LONG_MS: u64 = 1 << 40;
    Settings {
        connections_max: 1_000,
        handshakes_max: 100,
        message: MessageLimits { bytes_max: 64 * 1024, fragments_max: 1_000 },
        deflate: None,
        gate,
        head: HeadLimits { bytes_max: 8 * 1024, headers_max: 64 },
        handshake_ms_max: LONG_MS,
        heartbeat_ms: LONG_MS,
        outbox_bytes_max: MUCH,
        outbox_age_ms_max: LONG_MS,
        outbox_node_bytes_max: MUCH as u64,
        messages_per_second: 0,
        bytes_per_second: 0,
        intake_bytes_max: 64 * 1024,
        router: RouterSettings {
            rooms_max: 100,
            notices: NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() },
            history: HistorySettings::none(),
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        },
    }
}

fn keys(alg: Alg) -> (Key, SigningKey) {
    if alg.is_hmac() {
        return (Key::secret(alg, None, SECRET).unwrap(), SigningKey::secret(alg, SECRET).unwrap());
    }
    let random = SystemRandom::new();
    let document = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    // RFC 8410 §4: the algorithm, and a bit string of 32 bytes.
    let mut public = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    public.extend_from_slice(pair.public_key().as_ref());
    let pem = |kind: &str, der: &[u8]| {
        format!("-----BEGIN {kind} KEY-----\n{}\n-----END {kind} KEY-----\n", BASE64.encode(der)).into_bytes()
    };
    let key = Key::public_pem(alg, None, &pem("PUBLIC", &public)).unwrap();
    (key, SigningKey::private_pem(alg, &pem("PRIVATE", document.as_ref()), &random).unwrap())
}
