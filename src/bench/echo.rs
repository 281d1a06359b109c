//! `echo`: messages that come back, a fixed number of each connection's own always under way.
//!
//! What comes back is compared with what was sent, in its order. With `--each` a connection goes when so many have come back,
//! and another takes its place.

use super::crowd::{Crowd, Receiver};
use super::dialect::Dialect;
use super::inbox::Inbox;
use super::ledger::Faults;
use super::progress::Progress;
use super::report::Report;
use super::runner::{Runner, Workload};
use super::seat::Seat;
use super::wire::{Opcode, masked};
use super::{BenchError, Options};

/// Runs the scenario.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let settings = [
        ("connections", options.connections as u64),
        ("outstanding", options.outstanding as u64),
        ("payload_bytes", options.payload_bytes as u64),
        ("each", options.each.map_or(0, u64::from)),
    ];
    let mut report = Report::new(options, &settings);
    let seats = (0..options.connections).map(|at| Seat::new(format!("u{at:06}"), Vec::new()).of_echo());
    let mut crowd = Crowd::new(options, seats)?;
    let mut echoes = Echoes::new(options, crowd.mask());
    crowd.open(options.sockets(), &mut echoes, progress)?;
    let echoes = Runner::new(options, crowd, echoes, progress).run(&mut report)?;
    report.faults(echoes.close());
    Ok(report)
}

/// What one connection has sent and got back; its messages are numbered.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    sent: u32,
    returned: u32,
}

struct Echoes {
    peers: Vec<Peer>,
    inbox: Inbox,
    outstanding: u32,
    each: Option<u32>,
    payload: Vec<u8>,
    mask: [u8; 4],
    /// Connections that may send for the first time once they are open.
    opening: Vec<usize>,
    /// Connections that are to go.
    going: Vec<usize>,
    /// Messages that are under way.
    under_way: u64,
    stopped: bool,
}

impl Echoes {
    fn new(options: &Options, mask: [u8; 4]) -> Echoes {
        Echoes {
            peers: vec![Peer::default(); options.connections],
            inbox: Inbox::new(Dialect::User, std::iter::empty()),
            outstanding: options.outstanding as u32,
            each: options.each,
            payload: vec![b'x'; options.payload_bytes],
            mask,
            opening: (0..options.connections).collect(),
            going: Vec::new(),
            under_way: 0,
            stopped: false,
        }
    }

    /// Has a connection send, as far as it may.
    fn fill(&mut self, at: usize, out: &mut Vec<u8>) {
        let peer = &mut self.peers[at];
        while peer.sent - peer.returned < self.outstanding && self.each.is_none_or(|each| peer.sent < each) {
            write_number(&mut self.payload, peer.sent);
            out.extend_from_slice(&masked(Opcode::Text, &self.payload, self.mask));
            peer.sent += 1;
            self.under_way += 1;
        }
    }

    fn close(mut self) -> Faults {
        self.inbox.faults_mut().missing += self.under_way;
        self.inbox.close(|_| 0)
    }
}

impl Receiver for Echoes {
    fn message(&mut self, at: usize, payload: &[u8], reply: &mut Vec<u8>) {
        let peer = &mut self.peers[at];
        write_number(&mut self.payload, peer.returned);
        if payload != self.payload {
            return self.inbox.altered(at, peer.returned);
        }
        if peer.returned == peer.sent {
            self.inbox.faults_mut().doubled += 1;
            return;
        }
        peer.returned += 1;
        self.under_way -= 1;
        self.inbox.count();
        if self.stopped {
            return;
        }
        match self.each == Some(self.peers[at].returned) {
            true => self.going.push(at),
            false => self.fill(at, reply),
        }
    }

    fn pong(&mut self) {
        self.inbox.pong();
    }

    fn ended(&mut self, at: usize, why: &str) {
        self.inbox.ended(at, why);
    }
}

impl Workload for Echoes {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn done(&self) -> u64 {
        self.inbox.delivered()
    }

    fn is_waiting(&mut self) -> bool {
        self.under_way > 0 || !self.opening.is_empty()
    }

    fn send(&mut self, crowd: &mut Crowd) -> Result<(), BenchError> {
        for at in std::mem::take(&mut self.going) {
            crowd.drop_one(at);
            self.peers[at] = Peer::default();
            crowd.come_back(at, 0, None, self);
            self.opening.push(at);
        }
        let opening = std::mem::take(&mut self.opening);
        let (open, opening): (Vec<usize>, Vec<usize>) = opening.into_iter().partition(|&at| crowd.is_open(at));
        self.opening = opening;
        let mut frames = Vec::new();
        let beginning = if self.stopped { Vec::new() } else { open };
        for at in beginning {
            self.fill(at, &mut frames);
            crowd.send(at, &frames);
            frames.clear();
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.stopped = true;
    }
}

/// Letters that a number is written in.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Writes a number at the start of a payload, as far as it has room: neighbours differ in the first letter.
fn write_number(payload: &mut [u8], number: u32) {
    for (place, letter) in payload.iter_mut().take(6).enumerate() {
        *letter = LETTERS[(number >> (5 * place)) as usize % LETTERS.len()];
    }
}
