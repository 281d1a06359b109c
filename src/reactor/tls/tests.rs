//! The layer over the simulated driver: whatever the network does, an echo comes back whole, through TLS and without.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use super::*;
use crate::reactor::driver::RemoteAddr;
use crate::reactor::sim::{Client as Wire, Link, SimDriver, World};
use crate::tls::ClientAuth;
use crate::tls::testing::{Authority, Client};

const NAME: &str = "push.example";
const CLIENTS: usize = 6;

/// One client: plain where it has no TLS of its own.
struct Peer {
    wire: Wire,
    tls: Option<Client>,
    unsent: Vec<u8>,
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Peer {
    fn say(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        match &mut self.tls {
            Some(tls) => self.unsent.extend(tls.say(bytes)),
            None => self.unsent.extend_from_slice(bytes),
        }
    }

    fn act(&mut self, world: &World, random: &mut fastrand::Rng) {
        if let Some(tls) = &mut self.tls {
            self.unsent.extend(tls.output());
        }
        let sent = random.usize(0..=self.unsent.len());
        world.send(self.wire, &self.unsent[..sent]);
        self.unsent.drain(..sent);
        let bytes = world.receive(self.wire, random.usize(0..20_000));
        match &mut self.tls {
            Some(tls) => self.heard.extend(tls.input(&bytes).expect("good records")),
            None => self.heard.extend(bytes),
        }
    }
}

/// What a worker does, as far as the contract of drivers goes: it sends back what comes.
struct Echo {
    driver: Tls<SimDriver>,
    sockets: BTreeMap<SlotKey, Vec<u8>>,
    has_room: BTreeMap<SlotKey, bool>,
    next_slot: u32,
    ended: Vec<SlotKey>,
}

impl Echo {
    fn turn(&mut self) {
        self.driver.wait(Some(0)).expect("the simulation waits");
        while let Some(completion) = self.driver.next() {
            match completion {
                Completion::Accepted(Accepted { stream, remote, .. }) => {
                    assert_eq!(matches!(stream.layer, Layer::Plain), remote == RemoteAddr::Unix);
                    let slot = SlotKey::new(self.next_slot, 7);
                    self.next_slot += 1;
                    self.driver.attach(slot, stream).expect("attached");
                    self.sockets.insert(slot, Vec::new());
                    self.has_room.insert(slot, true);
                }
                Completion::Received(slot, mut buffer) => {
                    self.sockets.get_mut(&slot).expect("its slot is taken").extend_from_slice(buffer.as_mut());
                    self.driver.give_back(buffer);
                }
                Completion::Writable(slot) => drop(self.has_room.insert(slot, true)),
                Completion::Ended(slot) => self.ended.push(slot),
                Completion::Detached(..)
                | Completion::Released(_)
                | Completion::Proxied(..)
                | Completion::NotProxied(_) => panic!("nothing is given up here, and no proxy is there"),
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        loop {
            let mut under_way = Vec::new();
            for (slot, unsent) in &mut self.sockets {
                if unsent.is_empty() || !self.has_room[slot] {
                    continue;
                }
                let (one, two) = unsent.split_at(unsent.len() / 3);
                match self.driver.send_slices(*slot, &[IoSlice::new(one), IoSlice::new(two)]) {
                    Sent::Took(taken) => {
                        self.has_room.insert(*slot, taken == unsent.len());
                        unsent.drain(..taken);
                    }
                    Sent::Queued => under_way.push(*slot),
                    Sent::Broken => panic!("nothing breaks here"),
                }
            }
            if under_way.is_empty() {
                return;
            }
            for slot in &under_way {
                let (one, two) = self.sockets[slot].split_at(self.sockets[slot].len() / 3);
                self.driver.recheck(*slot, &[IoSlice::new(one), IoSlice::new(two)]);
            }
            self.driver.submit();
            while let Some((slot, shortfall)) = self.driver.next_shortfall() {
                let Shortfall::Took(taken) = shortfall else { panic!("nothing breaks here") };
                let unsent = self.sockets.get_mut(&slot).expect("its slot is taken");
                assert!(taken < unsent.len(), "all was taken, and that is no shortfall");
                unsent.drain(..taken);
                self.has_room.insert(slot, false);
                under_way.retain(|other| *other != slot);
            }
            for slot in under_way {
                self.sockets.get_mut(&slot).expect("its slot is taken").clear();
            }
        }
    }
}

fn simulate(seed: u64, authority: &Authority) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(1, seed);
    let acceptor = Acceptor::new(authority.config(&[NAME], ClientAuth::None));
    let driver = Tls::new(world.driver(0), vec![Some(acceptor), None]);
    let mut echo =
        Echo { driver, sockets: BTreeMap::new(), has_room: BTreeMap::new(), next_slot: 0, ended: Vec::new() };
    let link = Link {
        socket_bytes_max: random.usize(1..40_000),
        read_bytes_max: random.usize(1..70_000),
        send_bytes_max: random.usize(1..70_000),
        short_writes: random.bool(),
    };
    let version = if random.bool() { &TLS12 } else { &TLS13 };
    let config = Arc::new(Client::config(authority.roots(), version));
    let mut peers: Vec<Peer> = (0..CLIENTS)
        .map(|at| Peer {
            wire: world.connect(0, link),
            tls: (at % 2 == 0).then(|| Client::new(&config, NAME)),
            unsent: Vec::new(),
            said: Vec::new(),
            heard: Vec::new(),
        })
        .collect();
    let mut messages_left = 40;
    for turn in 0.. {
        assert!(turn < 2_000_000, "seed {seed}: the echo does not come to an end");
        let peer = &mut peers[random.usize(0..CLIENTS)];
        let may_speak = peer.tls.as_mut().is_none_or(|tls| !tls.tls().is_handshaking());
        if messages_left > 0 && may_speak && random.u8(0..10) == 0 {
            messages_left -= 1;
            let longest = *random.choice([1_usize, 2, 100, 5_000, 60_000].iter()).expect("there are some");
            let bytes: Vec<u8> = (0..random.usize(1..=longest)).map(|_| random.u8(..)).collect();
            peer.say(&bytes);
        }
        peer.act(&world, &mut random);
        echo.turn();
        if messages_left == 0 && peers.iter().all(|peer| peer.heard.len() == peer.said.len()) {
            break;
        }
    }
    for peer in &peers {
        assert!(peer.heard == peer.said, "seed {seed}: another echo than what was said");
    }
    assert!(echo.ended.is_empty(), "seed {seed}");
    assert_eq!(echo.driver.held_bytes(), 0, "seed {seed}: nothing is under way, and nothing is held");
    let counts = echo.driver.tls_counts();
    assert_eq!((counts.sessions, counts.failed), (CLIENTS as u64 / 2, 0), "seed {seed}");
    assert_eq!(counts.full + counts.resumed, CLIENTS as u64 / 2, "seed {seed}");
}

#[test]
fn an_echo_comes_back_whole_over_any_network() {
    let authority = Authority::new();
    for seed in 0..60 {
        simulate(seed, &authority);
    }
}

#[test]
fn a_turn_takes_its_share_of_handshakes_and_others_wait() {
    let authority = Authority::new();
    let world = World::new(1, 1);
    let acceptor = Acceptor::new(authority.config(&[NAME], ClientAuth::None));
    let mut driver = Tls::new(world.driver(0), vec![Some(acceptor.clone()), Some(acceptor)]);
    let link =
        Link { socket_bytes_max: 100_000, read_bytes_max: 100_000, send_bytes_max: 100_000, short_writes: false };
    let config = Arc::new(Client::config(authority.roots(), &TLS13));
    let count = 3 * TLS_HANDSHAKES_PER_TURN;
    let mut clients: Vec<(Wire, Client)> =
        (0..count).map(|_| (world.connect(0, link), Client::new(&config, NAME))).collect();
    for (wire, client) in &mut clients {
        world.send(*wire, &client.output());
    }
    let (mut slots, mut answered) = (0, 0);
    for _ in 0..1_000 {
        driver.wait(Some(0)).expect("the simulation waits");
        while let Some(completion) = driver.next() {
            if let Completion::Accepted(Accepted { stream, .. }) = completion {
                driver.attach(SlotKey::new(slots, 0), stream).expect("attached");
                slots += 1;
            }
        }
        // What the turn before has answered is on its way now.
        let now = clients.iter().filter(|(wire, _)| world.readable(*wire) > 0).count();
        assert!(now - answered <= TLS_HANDSHAKES_PER_TURN, "{answered} and then {now}");
        answered = now;
    }
    assert_eq!(answered, count, "and none is forgotten");
}

/// A driver with one client whose handshake is over, and the client.
fn one_client(seed: u64) -> (World, Tls<SimDriver>, Wire, Client) {
    let authority = Authority::new();
    let world = World::new(1, seed);
    let acceptor = Acceptor::new(authority.config(&[NAME], ClientAuth::None));
    let mut driver = Tls::new(world.driver(0), vec![Some(acceptor.clone()), Some(acceptor)]);
    let link =
        Link { socket_bytes_max: 1 << 20, read_bytes_max: 1 << 16, send_bytes_max: 1 << 20, short_writes: false };
    let (wire, mut client) =
        (world.connect(0, link), Client::new(&Arc::new(Client::config(authority.roots(), &TLS13)), NAME));
    for _ in 0..1_000 {
        world.send(wire, &client.output());
        let bytes = world.receive(wire, usize::MAX);
        client.input(&bytes).expect("good records");
        driver.wait(Some(0)).expect("the simulation waits");
        while let Some(completion) = driver.next() {
            if let Completion::Accepted(Accepted { stream, .. }) = completion {
                driver.attach(SLOT, stream).expect("attached");
            }
        }
    }
    assert!(!client.tls().is_handshaking());
    (world, driver, wire, client)
}

const SLOT: SlotKey = SlotKey::new(0, 3);

/// What a driver tells in one turn: opened bytes, and whether the peer's end was told.
fn told(driver: &mut Tls<SimDriver>) -> (Vec<u8>, bool) {
    let (mut bytes, mut has_ended) = (Vec::new(), false);
    driver.wait(Some(0)).expect("the simulation waits");
    while let Some(completion) = driver.next() {
        match completion {
            Completion::Received(_, mut buffer) => {
                assert!(!has_ended, "bytes come before the end");
                bytes.extend_from_slice(buffer.as_mut());
                driver.give_back(buffer);
            }
            Completion::Ended(_) => has_ended = true,
            _ => {}
        }
    }
    (bytes, has_ended)
}

#[test]
fn an_end_is_told_behind_the_turn_of_the_bytes_before_it_and_not_while_paused() {
    for pauses in [false, true] {
        let (world, mut driver, wire, mut client) = one_client(1);
        let mut records = client.say(b"the last words");
        client.tls().send_close_notify();
        records.extend(client.output());
        world.send(wire, &records);
        let mut heard = Vec::new();
        let mut ended_at = None;
        for turn in 0..200 {
            let (bytes, has_ended) = told(&mut driver);
            if pauses && !bytes.is_empty() {
                driver.pause(SLOT);
            }
            assert!(!has_ended || bytes.is_empty(), "what was said can be answered first");
            heard.extend(bytes);
            if has_ended {
                ended_at.get_or_insert(turn);
            }
            if turn == 100 {
                assert_eq!(heard, b"the last words");
                assert_eq!(ended_at.is_none(), pauses);
                driver.resume(SLOT);
            }
        }
        assert!(ended_at.is_some());
    }
}

#[test]
fn what_is_released_says_so() {
    let (world, mut driver, wire, mut client) = one_client(2);
    assert_eq!(driver.held_bytes(), 0);
    driver.release(SLOT);
    let bytes = world.receive(wire, usize::MAX);
    assert_eq!(client.input(&bytes), Ok(Vec::new()));
    client.tls().process_new_packets().map(|state| assert!(state.peer_has_closed())).expect("good records");
    for _ in 0..100 {
        told(&mut driver);
    }
    assert_eq!((driver.held_bytes(), driver.tls_counts().sessions), (0, 0));
}
