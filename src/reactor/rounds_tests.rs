//! Rounds of keyed rooms on their way to sockets that take as much as they like, with TLS and without, compressed and not.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress};
use rustls::version::TLS13;
use smallvec::SmallVec;

use super::connection::Room;
use super::sim::{Client as Wire, Link, SimDriver, World, post_office_of, wakers};
use super::{Assignment, DeflateSettings, Gate, NodeState, Settings, SlotKey, Tls, Worker};
use crate::compress::{SharedFrame, WindowBits};
use crate::conn::{HeadLimits, MessageLimits};
use crate::frame::{Opcode, RSV1, encode_header};
use crate::ids::{ClientIdCodec, ReactorId, Slot};
use crate::limits::{FRAME_SHARE_BYTES, INTAKE_BYTES_MAX};
use crate::metrics::NodeMetrics;
use crate::router::{
    Batch, BatchBody, HistorySettings, KeyedSettings, Kind, NoticeSettings, Round, RouterSettings, Sink, TopicKey,
    Watched,
};
use crate::time::Stamp;
use crate::tls::testing::{Authority, Client};
use crate::tls::{Acceptor, ClientAuth};

const NAME: &str = "push.example";
const CLIENTS: usize = 8;
const STEPS: usize = 300;
/// No frame is longer.
const FRAME_BYTES_MAX: usize = 30_000;

/// What a client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Round { number: u32, frames: usize },
    Direct { number: u32 },
}

/// One client: plain where it has no TLS of its own.
struct Peer {
    wire: Wire,
    tls: Option<Client>,
    heard: Vec<u8>,
    slot: SlotKey,
    sent: Vec<Sending>,
}

impl Peer {
    fn act(&mut self, world: &World, bytes_max: usize) {
        if let Some(tls) = &mut self.tls {
            world.send(self.wire, &tls.output());
        }
        let bytes = world.receive(self.wire, bytes_max);
        match &mut self.tls {
            Some(tls) => self.heard.extend(tls.input(&bytes).expect("good records")),
            None => self.heard.extend(bytes),
        }
    }

    fn say(&mut self, world: &World, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => world.send(self.wire, &tls.say(bytes)),
            None => world.send(self.wire, bytes),
        }
    }

    /// The messages that came, by their kind, number and place in it; each has to be whole.
    fn messages(&self) -> Vec<(u8, u32, u8)> {
        let head = self.heard.windows(4).position(|end| end == b"\r\n\r\n").expect("it was let in") + 4;
        let (mut at, mut messages) = (head, Vec::new());
        while at < self.heard.len() {
            let (header_bytes, payload_bytes) = match self.heard[at + 1] {
                126 => (4, usize::from(u16::from_be_bytes([self.heard[at + 2], self.heard[at + 3]]))),
                short => (2, usize::from(short)),
            };
            let is_compressed = self.heard[at] & RSV1 != 0;
            let opcode = Opcode::from_bits(self.heard[at] & 0xF);
            let end = at + header_bytes + payload_bytes;
            let mut payload = self.heard[at + header_bytes..end].to_vec();
            if is_compressed {
                payload = inflate(&payload);
            }
            if opcode == Some(Opcode::Binary) {
                let number = u32::from_be_bytes([payload[1], payload[2], payload[3], payload[4]]);
                assert!(payload[6..].iter().all(|&byte| byte == b'x'));
                messages.push((payload[0], number, payload[5]));
            }
            at = end;
        }
        messages
    }
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let input = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    let mut out = Vec::with_capacity(2 * FRAME_BYTES_MAX);
    Decompress::new(false).decompress_vec(&input, &mut out, FlushDecompress::Sync).expect("it was deflated");
    out
}

fn frame(kind: u8, number: u32, at: u8, padding: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_header(&mut frame, Opcode::Binary, 6 + padding);
    frame.push(kind);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.push(at);
    frame.resize(frame.len() + padding, b'x');
    frame
}

fn padding(random: &mut fastrand::Rng) -> usize {
    match random.u8(0..8) {
        0 => random.usize(0..FRAME_BYTES_MAX - 16),
        1 | 2 => random.usize(0..2_000),
        _ => random.usize(0..120),
    }
}

/// A round as the router makes one.
fn round(number: u32, random: &mut fastrand::Rng) -> Batch {
    let frames: Vec<Vec<u8>> = (0..random.u8(1..20)).map(|at| frame(b'R', number, at, padding(random))).collect();
    let mut shared = Vec::new();
    let mut bytes = Vec::new();
    for frame in &frames {
        if random.bool() {
            shared.push((bytes.len() as u32, SharedFrame::from(&**frame)));
        }
        bytes.extend_from_slice(frame);
    }
    let body = match frames.len() == 1 && bytes.len() >= FRAME_SHARE_BYTES {
        true => BatchBody::Frame(SharedFrame::from(&*bytes)),
        false => BatchBody::Joined(bytes),
    };
    let (first, count) = (random.u64(1..1_000), frames.len() as u64);
    Batch {
        shared: if matches!(body, BatchBody::Frame(_)) { Vec::new() } else { shared },
        body,
        frames: count as u32,
        excluded: SmallVec::new(),
        compressible: random.bool(),
        published_at: Stamp::default(),
        round: Some(Rc::new(Round {
            topic: TopicKey::unhashed(Kind::Room, "px"),
            since: first - 1,
            offsets: (first..first + count).collect(),
        })),
    }
}

fn settings() -> Settings {
    let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
    Settings {
        connections_max: CLIENTS,
        handshakes_max: CLIENTS,
        message: MessageLimits { bytes_max: 1_000, fragments_max: 10 },
        deflate: Some(DeflateSettings {
            level: 1,
            min_bytes: 50,
            client_bits_max: WindowBits::new(12).expect("a window"),
            contexts_max: CLIENTS,
            memory_bytes_max: 1 << 20,
        }),
        gate: Gate::default(),
        head: HeadLimits { bytes_max: 8_192, headers_max: 64 },
        handshake_ms_max: 1 << 40,
        heartbeat_ms: 1 << 40,
        outbox_bytes_max: 1 << 30,
        outbox_age_ms_max: 1 << 40,
        outbox_node_bytes_max: 1 << 40,
        messages_per_second: 0,
        bytes_per_second: 0,
        intake_bytes_max: INTAKE_BYTES_MAX,
        router: RouterSettings {
            rooms_max: 1,
            notices,
            history: HistorySettings::none(),
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        },
    }
}

struct Node {
    world: World,
    worker: Worker<Tls<SimDriver>>,
    peers: Vec<Peer>,
    random: fastrand::Rng,
    /// Rounds and direct messages so far.
    numbers: u32,
}

impl Node {
    fn new(seed: u64, authority: &Authority) -> Node {
        let world = World::new(1, seed);
        let (_, wakers) = wakers([ReactorId(0).into()].into_iter());
        let (_, mut mailboxes) = post_office_of(wakers, 8);
        let metrics = Arc::new(NodeMetrics::new(1));
        let node = NodeState { metrics, codec: ClientIdCodec::new([7; 16], 1), seed, run: 1 };
        let assignment = Assignment {
            me: ReactorId(0),
            reactors: 1,
            mailbox: mailboxes.remove(0),
            settings: settings(),
            node,
            watched: Watched::default(),
            jitter_seed: seed,
        };
        let acceptor = Acceptor::new(authority.config(&[NAME], ClientAuth::None));
        let driver = Tls::new(world.driver(0), vec![Some(acceptor), None]);
        let worker = Worker::new(assignment, driver, Box::new(|_| panic!("no client asks for a page")));
        let mut node = Node { world, worker, peers: Vec::new(), random: fastrand::Rng::with_seed(seed), numbers: 0 };
        let config = Arc::new(Client::config(authority.roots(), &TLS13));
        for at in 0..CLIENTS {
            node.connect((at % 2 == 0).then(|| Client::new(&config, NAME)), at as u32);
        }
        node
    }

    /// One client after the other connects, so that its slot is known.
    fn connect(&mut self, tls: Option<Client>, at: u32) {
        let link = Link {
            socket_bytes_max: self.random.usize(1_000..40_000),
            read_bytes_max: self.random.usize(1..70_000),
            send_bytes_max: self.random.usize(1..40_000),
            short_writes: self.random.bool(),
        };
        let wire = self.world.connect(0, link);
        let mut peer = Peer { wire, tls, heard: Vec::new(), slot: SlotKey::new(at, 0), sent: Vec::new() };
        let extensions = if self.random.bool() { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        let request = format!(
            "GET /?userId=u{at} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extensions}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        while peer.tls.as_mut().is_some_and(|tls| tls.tls().is_handshaking()) {
            peer.act(&self.world, usize::MAX);
            self.worker.turn().expect("it turns");
        }
        peer.say(&self.world, request.as_bytes());
        let slot = peer.slot;
        let is_welcomed = |worker: &Worker<Tls<SimDriver>>| {
            let connection = worker.connections.get(slot);
            connection.is_some_and(|connection| connection.is_open() && connection.outbox.is_empty())
        };
        while !is_welcomed(&self.worker) {
            peer.act(&self.world, usize::MAX);
            self.worker.turn().expect("it turns");
        }
        self.peers.push(peer);
    }

    fn step(&mut self) {
        let at = self.random.usize(0..CLIENTS);
        self.numbers += 1;
        let number = self.numbers;
        match self.random.u8(0..10) {
            0..3 => self.send_round(number),
            3 => {
                // Every other pair of clients gets nothing but rounds.
                let peer = &mut self.peers[at & !2];
                peer.sent.push(Sending::Direct { number });
                let frame = frame(b'D', number, 0, padding(&mut self.random));
                let id = self.worker.connections.id(peer.slot);
                self.worker.connections.direct(id, &frame, Stamp::default());
            }
            4..7 => self.peers[at].act(&self.world, self.random.usize(0..20_000)),
            _ => self.turn(),
        }
    }

    fn send_round(&mut self, number: u32) {
        let batch = round(number, &mut self.random);
        let taking: Vec<Slot> = self
            .peers
            .iter()
            .map(|peer| Slot(peer.slot.slot()))
            .filter(|&slot| self.worker.connections.takes_rounds(slot))
            .collect();
        for peer in &mut self.peers {
            if taking.contains(&Slot(peer.slot.slot())) {
                peer.sent.push(Sending::Round { number, frames: batch.frames as usize });
            }
        }
        self.worker.connections.deliver(batch, &taking);
    }

    fn turn(&mut self) {
        self.worker.turn().expect("it turns");
        for (at, peer) in self.peers.iter().enumerate() {
            let connection = self.worker.connections.get(peer.slot).expect("nothing ends here");
            let outbox = &connection.outbox;
            assert!(outbox.is_empty() || connection.room != Room::Some, "what waits, waits for the socket");
            if at & 2 != 0 {
                assert!(outbox.pinned_bytes() <= FRAME_BYTES_MAX, "the rest of a frame, and nothing else of a round");
                assert_eq!((outbox.bytes(), outbox.progress_at(), outbox.is_pulling()), (0, None, false));
            }
        }
    }
}

fn simulate(seed: u64, authority: &Authority) -> BTreeMap<bool, u64> {
    let mut node = Node::new(seed, authority);
    (0..STEPS).for_each(|_| node.step());
    let mut quiet = 0;
    while quiet < 200 {
        node.peers.iter_mut().for_each(|peer| peer.act(&node.world, usize::MAX));
        node.turn();
        let rests = |peer: &Peer| {
            node.worker.connections.get(peer.slot).is_some_and(|connection| connection.room == Room::Some)
        };
        quiet = if node.peers.iter().all(rests) { quiet + 1 } else { 0 };
    }
    let (mut whole, mut heard) = (BTreeMap::new(), 0);
    for peer in &node.peers {
        let messages = peer.messages();
        heard += messages.len() as u64;
        let mut messages = messages.into_iter().peekable();
        for sending in &peer.sent {
            match *sending {
                Sending::Direct { number } => assert_eq!(messages.next(), Some((b'D', number, 0)), "seed {seed}"),
                Sending::Round { number, frames } => {
                    let came = (0..frames).take_while(|&at| messages.next_if_eq(&(b'R', number, at as u8)).is_some());
                    *whole.entry(came.count() == frames).or_default() += 1;
                }
            }
        }
        assert_eq!(messages.next(), None, "seed {seed}: of a round the first frames come, and nothing twice");
    }
    assert_eq!(node.worker.connections.counts.deliveries, heard, "seed {seed}: what was dropped is no delivery");
    assert_eq!(node.worker.held_bytes(), 0, "seed {seed}");
    whole
}

#[test]
fn of_a_round_a_socket_gets_the_first_frames_whole_and_a_queue_keeps_none() {
    let authority = Authority::new();
    let mut rounds = BTreeMap::new();
    for seed in 0..60 {
        for (is_whole, count) in simulate(seed, &authority) {
            *rounds.entry(is_whole).or_insert(0) += count;
        }
    }
    assert!(rounds[&true] > 1_000 && rounds[&false] > 1_000, "both were seen: {rounds:?}");
}
