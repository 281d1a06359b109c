//! `private`: users who pass messages on, a fixed number always in flight.
//!
//! Every message received makes its receiver send one on. Each user sends to several others in turn, so that messages
//! that meet at a user part again; each pair of sender and receiver is a stream of its own, and its order is known.

use super::crowd::{Crowd, Receiver};
use super::dialect::Dialect;
use super::inbox::Inbox;
use super::ledger::Faults;
use super::limits::{RECEIVERS_MAX, SEQUENCE_MAX};
use super::progress::Progress;
use super::report::Report;
use super::runner::{Runner, Workload};
use super::seat::Seat;
use super::wire::{STAMP_BYTES, Stamp, Tag, Template};
use super::{BenchError, Options};

/// Runs the scenario.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let settings = [
        ("connections", options.connections as u64),
        ("outstanding", options.outstanding as u64),
        ("payload_bytes", options.payload_bytes as u64),
    ];
    let mut report = Report::new(options, &settings);
    let seats = (0..options.connections).map(|at| Seat::new(format!("u{at:06}"), Vec::new()));
    let mut crowd = Crowd::new(options, seats)?;
    let mut circle = Circle::new(options, crowd.mask());
    crowd.open(options.sockets(), &mut circle, progress)?;
    circle.begin(options.outstanding, &mut crowd);
    let circle = Runner::new(options, crowd, circle, progress).run(&mut report)?;
    report.faults(circle.close());
    Ok(report)
}

#[derive(Debug)]
struct User {
    template: Template,
    /// Messages sent so far; also the number of the next.
    sent: u32,
}

struct Circle {
    users: Vec<User>,
    /// How far round the circle each of a user's receivers sits from it. Message N goes to number N modulo their count.
    strides: Vec<usize>,
    inbox: Inbox,
    sent: u64,
    stopped: bool,
    exhausted: bool,
}

impl Circle {
    fn new(options: &Options, mask: [u8; 4]) -> Circle {
        let count = options.connections;
        let strides = strides(count);
        let template = |at| Template::new(&command(at, options.payload_bytes), mask);
        let listener = |at: usize, stride: &usize| Tag::new(((at + count - stride) % count) as u32);
        let tags = (0..count).flat_map(|at| strides.iter().map(move |stride| listener(at, stride)));
        Circle {
            users: (0..count).map(|at| User { template: template(at), sent: 0 }).collect(),
            inbox: Inbox::new(Dialect::User, tags),
            strides,
            sent: 0,
            stopped: false,
            exhausted: false,
        }
    }

    fn begin(&mut self, outstanding: usize, crowd: &mut Crowd) {
        let mut frame = Vec::new();
        for at in (0..self.users.len()).cycle().take(outstanding) {
            self.pass_on(at, &mut frame);
            crowd.send(at, &frame);
            frame.clear();
        }
    }

    #[inline]
    fn pass_on(&mut self, at: usize, out: &mut Vec<u8>) {
        let count = self.users.len();
        let user = &mut self.users[at];
        let receiver = (at + self.strides[user.sent as usize % self.strides.len()]) % count;
        user.template.append_to(receiver as u32, user.sent, out);
        user.sent += 1;
        self.exhausted |= user.sent == SEQUENCE_MAX;
        self.sent += 1;
    }

    /// How many of a user's `sent` messages went to the receiver at this place in its turn.
    fn published(sent: u32, place: usize, places: usize) -> u32 {
        (sent + (places - 1 - place) as u32) / places as u32
    }

    fn close(self) -> Faults {
        let Circle { users, strides, inbox, .. } = self;
        inbox.close(|listener| {
            let (at, place) = (listener / strides.len(), listener % strides.len());
            let sender = (at + users.len() - strides[place]) % users.len();
            Circle::published(users[sender].sent, place, strides.len())
        })
    }
}

impl Receiver for Circle {
    #[inline]
    fn message(&mut self, at: usize, payload: &[u8], reply: &mut Vec<u8>) {
        let Some(Stamp { tag, sequence }) = self.inbox.stamp(at, payload) else { return };
        let places = self.strides.len();
        let place = sequence as usize % places;
        let sender = (at + self.users.len() - self.strides[place]) % self.users.len();
        let published = Circle::published(self.users[sender].sent, place, places);
        let stamp = Stamp { tag, sequence: sequence / places as u32 };
        if self.inbox.deliver(at * places + place, stamp, published) && !self.stopped {
            self.pass_on(at, reply);
        }
    }

    fn ended(&mut self, at: usize, why: &str) {
        self.inbox.ended(at, why);
    }
}

impl Workload for Circle {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn done(&self) -> u64 {
        self.inbox.delivered()
    }

    fn is_waiting(&mut self) -> bool {
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
fn command(from: usize, payload_bytes: usize) -> String {
    let delivered = r#"{"type":"private_msg","from":"u000000","content":"","time":1700000000000}"#;
    let padding = "x".repeat(payload_bytes.saturating_sub(delivered.len() + STAMP_BYTES));
    format!(r##"{{"type":"private_msg","toUser":"u000000","content":"#{from:06}:00000000{padding}"}}"##)
}

/// Distances round a circle of so many users, spread over all of it, none of them zero and none twice.
fn strides(count: usize) -> Vec<usize> {
    let receivers = RECEIVERS_MAX.min(count - 1);
    (0..receivers).map(|place| 1 + place * (count - 1) / receivers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_sends_to_others_only_and_to_none_twice() {
        for count in 2..200 {
            let strides = strides(count);
            assert_eq!(strides.len(), RECEIVERS_MAX.min(count - 1));
            assert!(strides.iter().all(|stride| (1..count).contains(stride)));
            assert!(strides.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn what_was_sent_is_divided_among_the_receivers() {
        for sent in 0..100 {
            let shares = (0..7).map(|place| Circle::published(sent, place, 7));
            assert_eq!(shares.clone().sum::<u32>(), sent);
            assert!(
                shares
                    .enumerate()
                    .all(|(place, share)| share == (0..sent).filter(|n| n % 7 == place as u32).count() as u32)
            );
        }
    }
}
