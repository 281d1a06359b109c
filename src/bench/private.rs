//! `private`: users who pass messages on, a fixed number always in flight.
//!
//! Each user sends to one other, and all of them form a single ring: every message received makes its receiver send
//! the next one on. So each connection listens to one stream, its predecessor's, and the order is known.

use super::crowd::{Crowd, Receiver, Seat};
use super::inbox::Inbox;
use super::ledger::Faults;
use super::limits::SEQUENCE_MAX;
use super::progress::Progress;
use super::report::Report;
use super::runner::{Runner, Workload};
use super::wire::{STAMP_BYTES, Tag, Template};
use super::{BenchError, Options};

/// Runs the scenario.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let settings = [
        ("connections", options.connections as u64),
        ("outstanding", options.outstanding as u64),
        ("payload_bytes", options.payload_bytes as u64),
    ];
    let mut report = Report::new(options, &settings);
    let seats = (0..options.connections).map(|at| Seat { user: format!("u{at:06}"), room: None });
    let mut crowd = Crowd::new(options, seats)?;
    let mut ring = Ring::new(options, crowd.mask());
    crowd.open(options.sockets(), &mut ring, progress)?;
    ring.begin(options.outstanding, &mut crowd);
    let ring = Runner::new(options, crowd, ring, progress).run(&mut report)?;
    report.faults(ring.close());
    Ok(report)
}

#[derive(Debug)]
struct User {
    template: Template,
    predecessor: u32,
    /// Messages sent so far; also the number of the next.
    sent: u32,
}

struct Ring {
    users: Vec<User>,
    inbox: Inbox,
    sent: u64,
    stopped: bool,
    exhausted: bool,
}

impl Ring {
    fn new(options: &Options, mask: [u8; 4]) -> Ring {
        let count = options.connections;
        let stride = stride(count);
        let user = |at: usize| User {
            template: Template::new(&command(at, (at + stride) % count, options.payload_bytes), mask),
            predecessor: ((at + count - stride) % count) as u32,
            sent: 0,
        };
        let users: Vec<User> = (0..count).map(user).collect();
        let inbox = Inbox::new(users.iter().map(|user| Tag::new(user.predecessor)));
        Ring { users, inbox, sent: 0, stopped: false, exhausted: false }
    }

    fn begin(&mut self, outstanding: usize, crowd: &mut Crowd) {
        let mut frame = Vec::new();
        for at in (0..self.users.len()).cycle().take(outstanding) {
            self.next(at, &mut frame);
            crowd.send(at, &frame);
            frame.clear();
        }
    }

    #[inline]
    fn next(&mut self, at: usize, out: &mut Vec<u8>) {
        let user = &mut self.users[at];
        user.template.append(user.sent, out);
        user.sent += 1;
        self.exhausted |= user.sent == SEQUENCE_MAX;
        self.sent += 1;
    }

    fn close(self) -> Faults {
        let users = self.users;
        self.inbox.close(|at| users[users[at].predecessor as usize].sent)
    }
}

impl Receiver for Ring {
    #[inline]
    fn message(&mut self, at: usize, payload: &[u8], reply: &mut Vec<u8>) {
        let predecessor = self.users[at].predecessor as usize;
        let delivered = self.inbox.take(at, payload, self.users[predecessor].sent);
        if delivered.is_some() && !self.stopped {
            self.next(at, reply);
        }
    }

    fn ended(&mut self, at: usize, why: &str) {
        self.inbox.ended(at, why);
    }
}

impl Workload for Ring {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn done(&self) -> u64 {
        self.inbox.delivered()
    }

    fn is_waiting(&self) -> bool {
        self.inbox.delivered() < self.sent
    }

    fn send(&mut self, _crowd: &mut Crowd) -> Result<(), BenchError> {
        if self.exhausted {
            let what = format!("a user has sent {SEQUENCE_MAX} messages; run for a shorter time");
            return Err(BenchError::Options(what));
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.stopped = true;
    }
}

/// The command with which a user sends to another: what is delivered has `payload_bytes`.
fn command(from: usize, to: usize, payload_bytes: usize) -> String {
    let delivered = r#"{"type":"private_msg","from":"u000000","content":"","time":1700000000000}"#;
    let padding = "x".repeat(payload_bytes.saturating_sub(delivered.len() + STAMP_BYTES));
    format!(r##"{{"type":"private_msg","toUser":"u{to:06}","content":"#{from:06}:00000000{padding}"}}"##)
}

/// How far each user's receiver sits from it: no divisor in common with the number of users, so that the ring is one;
/// and far, so that neighbours in a server's tables are no neighbours here.
fn stride(count: usize) -> usize {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    (count * 3 / 5..count).find(|stride| *stride > 0 && divisor(count, *stride) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_one() {
        for count in 2..200 {
            let stride = stride(count);
            let mut at = 0;
            let steps = (1..).find(|_| {
                at = (at + stride) % count;
                at == 0
            });
            assert_eq!(steps, Some(count));
        }
    }
}
