//! `market`: values of many instruments into a keyed room, and subscribers who want each at their own pace.
//!
//! Owns what is published (`tape`, `desk`), what a subscriber gets (`quote`) and whether it may be so (`judge`), and who
//! stalls, drops and comes back meanwhile (`floor`). Sees the server as a client does, over the connections of the crowd.
//!
//! A first value of every item is published and acked before anyone subscribes: each subscriber's snapshot must hold it.
//! Then batches leave in an open loop; every value says when it ought to have left, and is timed from there.
//!
//! ```text
//!   desk ──► room ──► quote ──► judge ──► faults
//!   tape (who updates what next) ◄── is it the last? ┘
//! ```

mod desk;
mod floor;
mod judge;
mod options;
mod quote;
mod tape;

use std::time::{Duration, Instant};

pub use options::MarketOptions;

use super::crowd::{Crowd, Receiver};
use super::dialect::{Dialect, ReplyKind};
use super::halves::{Half, Twice};
use super::limits::{FIRST_VALUES, WAKE_EVERY_MIN};
use super::progress::Progress;
use super::report::{Figure, Report};
use super::runner::Runner;
use super::schedule::Schedule;
use super::seat::{Seat, room_name};
use super::{BenchError, Options};
use desk::Desk;
use floor::Floor;
use judge::Wish;
use options::Group;

/// Runs the scenario.
pub(super) fn run(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    let market = &options.market;
    let mut report = report(options);
    // A room of its own: what an earlier run has left in another is not in it.
    let room = room_name(fastrand::usize(..1_000_000));
    let mut crowd = Crowd::new(options, seats(options, &room))?;
    let mut desk = Desk::new(options, room.clone(), crowd.mask());
    publish_first_values(options, &mut desk, progress)?;
    let mut floor = Floor::new(options, &room, desk, wishes(options));
    floor.everyone_enters();
    crowd.open(options.sockets(), &mut floor, progress)?;
    let interval = Duration::from_secs(1).mul_f64(market.batch as f64 / market.updates_per_s as f64);
    floor.open_loop(Schedule::start_every(interval, interval.max(WAKE_EVERY_MIN), &mut crowd)?);
    let runner = Runner::new(options, crowd, floor, progress);
    let floor = match market.stalled {
        0 => runner.run(&mut report)?,
        _ => run_with_stalls(options, runner, &mut report)?,
    };
    report.faults(floor.close());
    Ok(report)
}

/// Rounds of two halves: everyone reads, and some do not.
fn run_with_stalls(options: &Options, mut runner: Runner<'_, Floor>, report: &mut Report) -> Result<Floor, BenchError> {
    runner.warm_up()?;
    for number in 1..=options.rounds {
        let calm = Half::measure(options, || runner.round(&format!("round {number} in calm"), report))?;
        if runner.is_over() {
            break;
        }
        let (floor, crowd) = runner.parts();
        floor.stall(crowd);
        let beside = Half::measure(options, || runner.round(&format!("round {number} beside stalled ones"), report))?;
        let (floor, crowd) = runner.parts();
        floor.wake(crowd);
        let mut round = Half::pair(&calm, &beside, &TWICE, "p99_stalled_by_calm");
        if let Some(grown) = beside.grown_bytes() {
            round.push(Figure { name: "stalled_resident_grown_bytes", value: grown });
        }
        report.round(round);
        if runner.is_over() {
            break;
        }
    }
    runner.settle()
}

/// The figures that stand in a report twice, and their two names.
const TWICE: [Twice; 10] = [
    ("deliveries_per_s", "calm_deliveries_per_s", "stalled_deliveries_per_s"),
    ("messages_per_s", "calm_messages_per_s", "stalled_messages_per_s"),
    ("p50_us", "calm_p50_us", "stalled_p50_us"),
    ("p99_us", "calm_p99_us", "stalled_p99_us"),
    ("max_us", "calm_max_us", "stalled_max_us"),
    ("sent_late_max_us", "calm_sent_late_max_us", "stalled_sent_late_max_us"),
    ("generator_busy_percent", "calm_generator_busy_percent", "stalled_generator_busy_percent"),
    ("server_busy_percent", "calm_server_busy_percent", "stalled_server_busy_percent"),
    ("server_resident_bytes", "calm_server_resident_bytes", "stalled_server_resident_bytes"),
    ("resident_peak_bytes", "calm_resident_peak_bytes", "stalled_resident_peak_bytes"),
];

fn report(options: &Options) -> Report {
    let market = &options.market;
    let millis = |time: Option<Duration>| time.map_or(0, |time| time.as_millis() as u64);
    let settings = [
        ("instruments", market.instruments as u64),
        ("updates_per_s", market.updates_per_s),
        ("batch", market.batch as u64),
        ("publishers", options.publishers as u64),
        ("payload_bytes", options.payload_bytes as u64),
        ("items", market.items as u64),
        ("stalled", market.stalled as u64),
        ("removals", market.removals.into()),
        ("drop_every_ms", millis(market.drop_every)),
        ("away_ms", millis(Some(market.away))),
    ];
    let mut report = Report::new(options, &settings);
    report.setting("subscribers", market.groups_text());
    report.setting("same_items", market.same_items);
    report.setting("resilient", market.resilient);
    report.setting("payload", options.payload.name());
    report
}

/// What each subscriber wants, in the order of their connections.
fn wishes(options: &Options) -> impl Iterator<Item = Wish> {
    let market = &options.market;
    let groups = market.groups.iter().flat_map(|group| std::iter::repeat_n(*group, group.count));
    groups.enumerate().map(|(at, Group { mode, interval_ms, .. })| {
        let interval = Duration::from_millis(interval_ms);
        let (first, count) = match (market.items, market.same_items) {
            (0, _) => (0, market.instruments),
            (items, true) => (0, items),
            (items, false) => (at * items % market.instruments, items),
        };
        Wish { mode, interval, first: first as u32, count: count as u32 }
    })
}

/// The seats of the subscribers, then of the publishers; both are spread over all nodes.
fn seats<'a>(options: &'a Options, room: &'a str) -> impl Iterator<Item = Seat> + 'a {
    let nodes = 1 + options.peers.len();
    let subscriber = move |(at, wish): (usize, Wish)| Seat {
        node: at % nodes,
        join_fields: join_fields(wish, options.market.instruments as u32),
        ..Seat::new(format!("u{at:06}"), vec![room.to_owned()]).offering(options.deflate)
    };
    let publisher = move |at: usize| Seat { node: at % nodes, ..Seat::new(format!("p{at:06}"), Vec::new()) };
    wishes(options).enumerate().map(subscriber).chain((0..options.publishers).map(publisher))
}

/// What a join says of a wish, behind a comma each. Everyone wants a snapshot: so everyone shows all of its items.
fn join_fields(wish: Wish, instruments: u32) -> String {
    let Wish { mode, interval, first, count } = wish;
    let mut fields = format!(r#","mode":"{}","snapshot":true"#, mode.name());
    if !interval.is_zero() {
        fields.push_str(&format!(r#","interval":{}"#, interval.as_millis()));
    }
    if count < instruments {
        let names = (first..first + count).map(|item| format!(r#""{}""#, quote::item_name(item % instruments)));
        fields.push_str(&format!(r#","items":[{}]"#, names.collect::<Vec<_>>().join(",")));
    }
    fields
}

/// Publishes a first value of every item, and waits for the acks.
fn publish_first_values(options: &Options, desk: &mut Desk, progress: &mut Progress) -> Result<(), BenchError> {
    let mut crowd = Crowd::new(options, [Seat::new("p000000".to_owned(), Vec::new())])?;
    let mut acks = Acks { dialect: options.dialect, count: 0, refused: None };
    crowd.open(1, &mut acks, progress)?;
    let (frames, count) = desk.first_values(FIRST_VALUES);
    crowd.send(0, &frames);
    let start = Instant::now();
    while acks.count < count {
        crowd.turn(&mut acks, None)?;
        if let Some(why) = acks.refused {
            let what = format!("{why}; are rooms whose names begin with r keyed (--room 'match=r*,keyed=true')?");
            return Err(BenchError::Server(what));
        }
        if start.elapsed() > options.timeout {
            let what = format!("{} of {count} batches of first values were acked", acks.count);
            return Err(BenchError::Silent { what, patience: options.timeout });
        }
    }
    Ok(())
}

/// Counts acks.
struct Acks {
    dialect: Dialect,
    count: u32,
    refused: Option<String>,
}

impl Receiver for Acks {
    fn message(&mut self, _at: usize, payload: &[u8], _reply: &mut Vec<u8>) {
        match self.dialect.reply_kind(payload) {
            ReplyKind::Joined => self.count += 1,
            ReplyKind::Error => {
                self.refused = Some(format!("the server refused a value: {}", String::from_utf8_lossy(payload)));
            }
            ReplyKind::Welcome | ReplyKind::Pong | ReplyKind::Other => {}
        }
    }

    fn ended(&mut self, _at: usize, why: &str) {
        self.refused = Some(why.to_owned());
    }
}
