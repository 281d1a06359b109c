//! The floor: subscribers who hear, stall, drop and come back while the desk publishes.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::desk::Desk;
use super::judge::{Answer, Entrance, Judge, Wish};
use super::options::Mode;
use super::quote::{Quote, QuoteReader};
use crate::bench::crowd::{Crowd, Receiver};
use crate::bench::dialect::StreamPosition;
use crate::bench::inbox::Inbox;
use crate::bench::ledger::Faults;
use crate::bench::limits::RETURN_PAUSE_MS_MAX;
use crate::bench::process::resident_bytes;
use crate::bench::report::{Figure, Round};
use crate::bench::runner::Workload;
use crate::bench::schedule::Schedule;
use crate::bench::times::Times;
use crate::bench::{BenchError, Options};

/// What is published, received and waited for.
pub(super) struct Floor {
    desk: Desk,
    judge: Judge,
    reader: QuoteReader,
    inbox: Inbox,
    connections: usize,
    nodes: usize,
    resilient: bool,
    /// Those who stall when they are told to: their values are timed by nobody.
    stalls: Vec<bool>,
    /// Ages of values when they arrive, in mode `all` and in `latest`.
    ages: [Times; 2],
    /// Subscribers that want an update, on average.
    wanting: f64,
    /// Updates and deliveries at the beginning of the round.
    before: (u64, u64),
    drop_every: Option<Duration>,
    away_for: Duration,
    next_drop: Instant,
    /// Who is away, and when it comes back.
    away: Vec<Absence>,
    drops: u64,
    entrances: Entrances,
    server_pid: Option<u32>,
    is_stopped: bool,
}

/// One who is away.
#[derive(Clone, Copy, Debug)]
struct Absence {
    at: usize,
    until: Instant,
    /// Whether it comes back with its position.
    resumes: bool,
    node: usize,
}

/// What joins have brought, since the round began.
#[derive(Debug)]
struct Entrances {
    snapshots: Joins,
    recoveries: Joins,
    /// How long coming back took.
    took: Times,
}

#[derive(Clone, Copy, Debug, Default)]
struct Joins {
    count: u64,
    messages: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    epoch: Option<String>,
    offset: Option<u64>,
    recovered: Option<bool>,
}

impl Floor {
    /// Nobody is in yet.
    pub(super) fn new(options: &Options, room: &str, desk: Desk, wishes: impl Iterator<Item = Wish>) -> Floor {
        let market = &options.market;
        let wishes: Vec<Wish> = wishes.collect();
        let wanted: f64 = wishes.iter().map(|wish| f64::from(wish.count)).sum();
        let mut stalls = vec![false; options.connections];
        // Who wants every update is ended for reading nothing, as anywhere.
        let latest: Vec<usize> = (0..wishes.len()).filter(|at| wishes[*at].mode == Mode::Latest).collect();
        (0..market.stalled).for_each(|number| stalls[latest[number * latest.len() / market.stalled]] = true);
        let strict = !market.resilient;
        Floor {
            judge: Judge::new(wishes.into_iter(), desk.tape().instruments(), strict),
            desk,
            reader: QuoteReader::new(room),
            inbox: Inbox::new(options.dialect, std::iter::empty()),
            connections: options.connections,
            nodes: 1 + options.peers.len(),
            resilient: market.resilient,
            stalls,
            ages: [Times::new(), Times::new()],
            wanting: wanted / market.instruments as f64,
            before: (0, 0),
            drop_every: market.drop_every,
            away_for: market.away,
            next_drop: Instant::now(),
            away: Vec::new(),
            drops: 0,
            entrances: Entrances::new(),
            server_pid: options.server_pid,
            is_stopped: false,
        }
    }

    /// Every subscriber is about to join for the first time.
    pub(super) fn everyone_enters(&mut self) {
        let now = Instant::now();
        (0..self.connections).for_each(|at| self.judge.enters(at, false, now, self.desk.acked()));
    }

    /// Publishes at the schedule's times.
    pub(super) fn open_loop(&mut self, schedule: Schedule) {
        self.next_drop = Instant::now();
        self.desk.open_loop(schedule);
    }

    /// Those who stall read nothing from now on.
    pub(super) fn stall(&mut self, crowd: &mut Crowd) {
        (0..self.connections).filter(|at| self.stalls[*at]).for_each(|at| crowd.stall(at));
    }

    /// They read again.
    pub(super) fn wake(&mut self, crowd: &mut Crowd) {
        for at in 0..self.connections {
            if self.stalls[at] {
                crowd.wake(at, self);
            }
        }
    }

    /// Closes the books.
    pub(super) fn close(mut self) -> Faults {
        self.desk.close(self.inbox.faults_mut());
        self.judge.close(self.desk.tape(), self.inbox.faults_mut());
        self.inbox.close(|_| 0)
    }

    #[inline]
    fn came(&mut self, at: usize, quote: Quote, payload_bytes: usize) {
        let bytes = payload_bytes as u64 + if payload_bytes < 126 { 2 } else { 4 };
        let is_live = !self.judge.is_entering(at);
        if !self.judge.came(at, quote, bytes, self.desk.tape(), self.inbox.faults_mut()) {
            return;
        }
        self.inbox.count();
        if let Some(mark) = quote.mark
            && is_live
            && !self.stalls[at]
        {
            let age = self.desk.age(mark.at_us);
            self.ages[self.judge.wish(at).mode as usize].record(age);
        }
    }

    /// A message to a subscriber that tells of no item.
    #[cold]
    fn told(&mut self, at: usize, payload: &[u8]) {
        let Ok(Told { kind, epoch, offset, .. }) = serde_json::from_slice(payload) else { return };
        let position = epoch.zip(offset).map(|(epoch, offset)| StreamPosition { epoch, offset });
        match (kind, position) {
            ("gap", Some(position)) if self.resilient => self.judge.gap(at, position),
            ("gap", _) => {
                let faults = self.inbox.faults_mut();
                faults.missing += 1;
                faults.tell(|text| text.push_str(&format!("subscriber {at} was told of a gap")));
            }
            ("room_msg", _) => {
                let faults = self.inbox.faults_mut();
                faults.altered += 1;
                faults.tell(|text| {
                    text.push_str(&format!(
                        "subscriber {at} got what is no value: {}",
                        String::from_utf8_lossy(payload)
                    ));
                });
            }
            (_, _) => self.inbox.reply(at, payload),
        }
    }

    /// Has those drop their connections whose time it is.
    fn drop_some(&mut self, crowd: &mut Crowd) {
        let Some(every) = self.drop_every else { return };
        let now = Instant::now();
        while self.next_drop <= now && !self.is_stopped {
            self.next_drop += every;
            let at = fastrand::usize(..self.connections);
            if !crowd.is_open(at) {
                continue;
            }
            crowd.drop_one(at);
            self.judge.left(at);
            self.drops += 1;
            let node = fastrand::usize(..self.nodes);
            // Every other one comes as if for the first time: what it gets is what the others' recoveries are held against.
            let resumes = self.drops.is_multiple_of(2);
            self.away.push(Absence { at, until: now + self.away_for, resumes, node });
        }
    }

    /// Has those come back whose time it is.
    fn bring_back(&mut self, crowd: &mut Crowd) {
        let now = Instant::now();
        let is_stopped = self.is_stopped;
        let due: Vec<Absence> = self.away.extract_if(.., |absence| is_stopped || absence.until <= now).collect();
        for Absence { at, resumes, node, .. } in due {
            let since = if at < self.connections && resumes { self.judge.position(at) } else { None };
            if at < self.connections {
                self.judge.enters(at, since.is_some(), now, self.desk.acked());
            }
            crowd.come_back(at, node, since, self);
        }
    }
}

impl Receiver for Floor {
    #[inline]
    fn message(&mut self, at: usize, payload: &[u8], _reply: &mut Vec<u8>) {
        if at >= self.connections {
            if !self.desk.takes_reply(at, payload) {
                self.inbox.reply(at, payload);
            }
            return;
        }
        match self.reader.read(payload) {
            Some(quote) => self.came(at, quote, payload.len()),
            None => self.told(at, payload),
        }
    }

    fn joined(&mut self, at: usize, answer: &[u8]) {
        if at >= self.connections {
            return;
        }
        let Ok(Told { epoch: Some(epoch), offset: Some(offset), recovered, .. }) = serde_json::from_slice(answer)
        else {
            return self.inbox.ended(at, "its join was answered without a position: is the room keyed?");
        };
        let answer = Answer { position: StreamPosition { epoch, offset }, recovered };
        let now = Instant::now();
        let entrance = self.judge.joined(at, answer, now, self.desk.tape(), self.inbox.faults_mut());
        if let Some(entrance) = entrance {
            self.entrances.add(entrance);
        }
    }

    fn pong(&mut self) {
        self.inbox.pong();
    }

    fn ended(&mut self, at: usize, why: &str) {
        if !self.resilient {
            return self.inbox.ended(at, why);
        }
        match at < self.connections {
            true => self.judge.left(at),
            false => self.desk.lost(at),
        }
        let pause = Duration::from_millis(fastrand::u64(..RETURN_PAUSE_MS_MAX));
        let node = fastrand::usize(..self.nodes);
        self.away.push(Absence { at, until: Instant::now() + pause, resumes: true, node });
    }
}

impl Workload for Floor {
    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn done(&self) -> u64 {
        self.desk.published()
    }

    fn is_waiting(&mut self) -> bool {
        !self.is_stopped || !self.away.is_empty() || self.desk.is_waiting() || !self.judge.is_settled(self.desk.tape())
    }

    fn send(&mut self, crowd: &mut Crowd) -> Result<(), BenchError> {
        self.drop_some(crowd);
        self.bring_back(crowd);
        self.desk.send(crowd)
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.desk.stop();
    }

    fn begin_round(&mut self) {
        self.ages.iter_mut().for_each(Times::reset);
        self.entrances = Entrances::new();
        self.desk.take_late_max();
        self.drops = 0;
        self.before = (self.desk.published(), self.inbox.delivered());
    }

    fn figures(&mut self, round: &mut Round) {
        let mut all = Times::new();
        self.ages.iter().for_each(|ages| all.add(ages));
        all.figures(round);
        let mut push = |name, value| round.push(Figure { name, value });
        let names = [(Mode::All, "all_p50_us", "all_p99_us"), (Mode::Latest, "latest_p50_us", "latest_p99_us")];
        if self.ages.iter().all(|ages| !ages.is_empty()) {
            for (mode, p50, p99) in names {
                push(p50, self.ages[mode as usize].quantile(0.5));
                push(p99, self.ages[mode as usize].quantile(0.99));
            }
        }
        push("sent_late_max_us", self.desk.take_late_max().as_secs_f64() * 1e6);
        let (published, delivered) = (self.desk.published() - self.before.0, self.inbox.delivered() - self.before.1);
        push("updates_wanted_each", published as f64 * self.wanting / delivered.max(1) as f64);
        if let Some(Ok(bytes)) = self.server_pid.map(resident_bytes) {
            push("server_resident_bytes", bytes as f64);
        }
        if self.drop_every.is_some() || self.resilient {
            self.entrances.figures(round);
        }
    }
}

impl Entrances {
    fn new() -> Entrances {
        Entrances { snapshots: Joins::default(), recoveries: Joins::default(), took: Times::new() }
    }

    fn add(&mut self, Entrance { recovered, took, messages, bytes }: Entrance) {
        let joins = if recovered { &mut self.recoveries } else { &mut self.snapshots };
        joins.count += 1;
        joins.messages += messages;
        joins.bytes += bytes;
        self.took.record(took);
    }

    /// What those who came back got, and what those got who came as if for the first time.
    fn figures(&self, round: &mut Round) {
        let Entrances { snapshots, recoveries, took } = self;
        let mut push = |name, value| round.push(Figure { name, value });
        push("snapshots", snapshots.count as f64);
        push("snapshot_messages_each", snapshots.each(snapshots.messages));
        push("snapshot_bytes_each", snapshots.each(snapshots.bytes));
        push("recoveries", recoveries.count as f64);
        push("recovery_messages_each", recoveries.each(recoveries.messages));
        push("recovery_bytes_each", recoveries.each(recoveries.bytes));
        let by_snapshot = recoveries.each(recoveries.bytes) / snapshots.each(snapshots.bytes).max(1.0);
        push("recovery_by_snapshot", by_snapshot);
        push("return_p50_us", took.quantile(0.5));
        push("return_p99_us", took.quantile(0.99));
    }
}

impl Joins {
    fn each(&self, sum: u64) -> f64 {
        sum as f64 / self.count.max(1) as f64
    }
}
