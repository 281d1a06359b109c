//! Those who publish: batches at their times, and, where the options ask for it, what is not acked yet.
//!
//! In an open loop a batch ought to leave at its time, whatever the server does. Where a publisher's socket takes nothing,
//! or too much is not acked, batches leave late: their values say when they ought to have left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::tape::{Tape, Update};
use crate::bench::crowd::Crowd;
use crate::bench::ledger::Faults;
use crate::bench::limits::{UNACKED_MAX, UNAVAILABLE_PAUSE_MS, UNSENT_BYTES_MAX};
use crate::bench::schedule::Schedule;
use crate::bench::wire::{Opcode, masked};
use crate::bench::{BenchError, Options};

/// The publishers.
pub(super) struct Desk {
    tape: Tape,
    room: String,
    batch: usize,
    /// None before the start and after the end.
    schedule: Option<Schedule>,
    /// Batches whose time has come, and those that have left: also the number of the next.
    due: u32,
    left: u32,
    publishers: Vec<Publisher>,
    /// The connection of the first of them.
    first: usize,
    /// Updates of each item that are acked, and all that were published.
    acked: Vec<u32>,
    published: u64,
    late_max: Duration,
    /// What times are counted from, and the same in Unix time.
    start: Instant,
    start_us: u64,
    resilient: bool,
    /// What the keys and versions of this run begin with, so that they differ from those of another.
    run: u64,
    mask: [u8; 4],
    text: String,
    exhausted: bool,
}

#[derive(Debug, Default)]
struct Publisher {
    /// Frames to send at the end of the turn.
    frames: Vec<u8>,
    /// Batches that are not acked, by their numbers, which are their ids.
    unacked: BTreeMap<u32, Unacked>,
    /// When all of that is to be sent again.
    again_at: Option<Instant>,
}

#[derive(Debug)]
struct Unacked {
    frame: Vec<u8>,
    updates: Vec<Update>,
    sent_at: Instant,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: Option<u32>,
    #[serde(default)]
    code: &'a str,
}

impl Desk {
    /// Nothing is published yet. The publishers' connections follow the subscribers'.
    pub(super) fn new(options: &Options, room: String, mask: [u8; 4]) -> Desk {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Desk {
            tape: Tape::new(options),
            room,
            batch: options.market.batch,
            schedule: None,
            due: 0,
            left: 0,
            publishers: (0..options.publishers).map(|_| Publisher::default()).collect(),
            first: options.connections,
            acked: vec![0; options.market.instruments],
            published: 0,
            late_max: Duration::ZERO,
            start: Instant::now(),
            start_us: unix.as_micros() as u64,
            resilient: options.market.resilient,
            run: unix.as_secs(),
            mask,
            text: String::new(),
            exhausted: false,
        }
    }

    /// What was published.
    pub(super) fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Updates of each item that are acked.
    pub(super) fn acked(&self) -> &[u32] {
        &self.acked
    }

    /// Updates published so far.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// How long ago a value was meant to leave.
    #[inline]
    pub(super) fn age(&self, at_us: u64) -> Duration {
        let now_us = self.start_us + self.start.elapsed().as_micros() as u64;
        Duration::from_micros(now_us.saturating_sub(at_us))
    }

    /// The frames that publish the first value of every item: at most so many updates in each, and so many acks to wait
    /// for, with ids from 0 on.
    pub(super) fn first_values(&mut self, updates_max: usize) -> (Vec<u8>, u32) {
        let all: Vec<Update> = self.tape.take_first().collect();
        let (mut frames, mut count) = (Vec::new(), 0);
        for updates in all.chunks(updates_max) {
            self.write_batch(updates, self.start_us, &format!(r#","id":{count}"#));
            frames.extend_from_slice(&masked(Opcode::Text, self.text.as_bytes(), self.mask));
            count += 1;
        }
        self.published += all.len() as u64;
        self.acked.fill(1);
        (frames, count)
    }

    /// Publishes at the schedule's times.
    pub(super) fn open_loop(&mut self, schedule: Schedule) {
        self.schedule = Some(schedule);
    }

    /// Publishes nothing new from now on.
    pub(super) fn stop(&mut self) {
        self.schedule = None;
        self.due = self.left;
    }

    /// The longest time by which a batch left late since this was last asked.
    pub(super) fn take_late_max(&mut self) -> Duration {
        std::mem::take(&mut self.late_max)
    }

    /// Whether something is not acked that ought to be.
    pub(super) fn is_waiting(&self) -> bool {
        self.publishers.iter().any(|publisher| !publisher.unacked.is_empty())
    }

    /// Closes the books: a command without an answer is a fault. The first is told.
    pub(super) fn close(&self, faults: &mut Faults) {
        for (at, publisher) in self.publishers.iter().enumerate() {
            let Some((number, unacked)) = publisher.unacked.first_key_value() else { continue };
            faults.missing += publisher.unacked.len() as u64;
            faults.tell(|text| {
                text.push_str(&format!(
                    "publisher {at} got no answer to {} commands, of which {number} was sent last {:.1?} ago{}",
                    publisher.unacked.len(),
                    unacked.sent_at.elapsed(),
                    if publisher.again_at.is_some() { ", and is to be sent again" } else { "" },
                ));
            });
        }
    }

    /// Sends what is due.
    pub(super) fn send(&mut self, crowd: &mut Crowd) -> Result<(), BenchError> {
        self.send_again(crowd);
        if let Some(schedule) = &mut self.schedule {
            self.due += schedule.release();
        }
        while self.left < self.due && !self.exhausted {
            let at = self.left as usize % self.publishers.len();
            let publisher = &self.publishers[at];
            let connection = self.first + at;
            if !crowd.is_open(connection)
                || publisher.again_at.is_some()
                || publisher.unacked.len() >= UNACKED_MAX
                || crowd.unsent_bytes(connection) + publisher.frames.len() > UNSENT_BYTES_MAX
            {
                break;
            }
            self.publish(at);
        }
        for (at, publisher) in self.publishers.iter_mut().enumerate() {
            if !publisher.frames.is_empty() {
                crowd.send(self.first + at, &publisher.frames);
                publisher.frames.clear();
            }
        }
        match self.exhausted {
            true => Err(BenchError::Options(
                "an item has had as many updates as can be numbered; run for a shorter time".into(),
            )),
            false => Ok(()),
        }
    }

    /// A publisher's connection has ended: all that is not acked goes again, once there is another.
    pub(super) fn lost(&mut self, at: usize) {
        self.publishers[at - self.first].again_at = Some(Instant::now());
    }

    /// Takes a message of a publisher's connection. Answers whether it is one that was waited for.
    pub(super) fn takes_reply(&mut self, at: usize, payload: &[u8]) -> bool {
        let Ok(Reply { kind, id: Some(id), code }) = serde_json::from_slice(payload) else { return false };
        let publisher = &mut self.publishers[at - self.first];
        match (kind, code) {
            ("ack", _) => {
                let Some(Unacked { updates, .. }) = publisher.unacked.remove(&id) else { return false };
                for Update { item, number } in updates {
                    let acked = &mut self.acked[item as usize];
                    *acked = (*acked).max(number + 1);
                }
                true
            }
            ("error", "unavailable") if self.resilient => {
                let pause = Duration::from_millis(UNAVAILABLE_PAUSE_MS);
                publisher.again_at.get_or_insert_with(|| Instant::now() + pause);
                true
            }
            _ => false,
        }
    }

    fn send_again(&mut self, crowd: &mut Crowd) {
        for (at, publisher) in self.publishers.iter_mut().enumerate() {
            let is_time = publisher.again_at.is_some_and(|again_at| again_at <= Instant::now());
            if is_time && crowd.is_open(self.first + at) {
                publisher.again_at = None;
                for Unacked { frame, sent_at, .. } in publisher.unacked.values_mut() {
                    publisher.frames.extend_from_slice(frame);
                    *sent_at = Instant::now();
                }
            }
        }
    }

    /// Composes the next batch.
    fn publish(&mut self, at: usize) {
        let Some(schedule) = &self.schedule else { return };
        let intended = schedule.intended(self.left);
        self.late_max = self.late_max.max(intended.elapsed());
        let at_us = self.start_us + intended.saturating_duration_since(self.start).as_micros() as u64;
        let updates: Vec<Update> = (0..self.batch).map_while(|_| self.tape.take(at)).collect();
        self.exhausted = updates.len() < self.batch;
        self.published += updates.len() as u64;
        let number = self.left;
        self.left += 1;
        if self.resilient {
            self.write_batch(&updates, at_us, &format!(r#","id":{number},"key":"{}-{number}""#, self.run));
            let frame = masked(Opcode::Text, self.text.as_bytes(), self.mask);
            self.publishers[at].frames.extend_from_slice(&frame);
            self.publishers[at].unacked.insert(number, Unacked { frame, updates, sent_at: Instant::now() });
        } else {
            self.write_batch(&updates, at_us, "");
            self.publishers[at].frames.extend_from_slice(&masked(Opcode::Text, self.text.as_bytes(), self.mask));
        }
    }

    /// Writes a command of these updates, with further fields as JSON behind a comma each.
    fn write_batch(&mut self, updates: &[Update], at_us: u64, fields: &str) {
        let text = &mut self.text;
        text.clear();
        let version = |update: &Update, text: &mut String| {
            if self.resilient {
                text.push_str(&format!(r#","version":{}"#, self.run * VERSIONS_PER_S + u64::from(update.number)));
            }
        };
        if let [update] = updates {
            text.push_str(&format!(r#"{{"type":"room_msg","roomId":"{}","#, self.room));
            self.tape.write(*update, at_us, text);
            version(update, text);
        } else {
            text.push_str(&format!(r#"{{"type":"room_msgs","roomId":"{}","updates":["#, self.room));
            for (index, update) in updates.iter().enumerate() {
                text.push_str(if index > 0 { ",{" } else { "{" });
                self.tape.write(*update, at_us, text);
                version(update, text);
                text.push('}');
            }
            text.push(']');
        }
        text.push_str(fields);
        text.push('}');
    }
}

/// Versions of a run follow those of all earlier ones, of which each took a second or more.
const VERSIONS_PER_S: u64 = 100_000_000;
