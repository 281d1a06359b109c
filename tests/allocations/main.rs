//! Allocations on the steady path, counted: a worker over a driver that feeds it prepared bytes and takes everything.
//! And what an idle member and history hold in the end.

mod history;
mod members;

use std::alloc::System;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::ids::{ClientIdCodec, PeerId, ReactorId};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::{
    Accepted, Assignment, Completion, Detach, Driver, Gate, ListenerId, NodeState, Release, RemoteAddr, Sent, Settings,
    Shortfall, SlotKey, Wake, Worker, post_office,
};
use fanfare::router::{HistorySettings, KeyedSettings, NoticeSettings, RouterSettings, Watched};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Input = Rc<RefCell<VecDeque<(SlotKey, &'static [u8])>>>;

/// Feeds what a test puts in, takes whatever is sent and only counts it.
struct Feed {
    now_ms: u64,
    accepts: usize,
    /// What each client connects to.
    target: &'static str,
    input: Input,
    /// Empty while it is lent.
    buffer: Vec<u8>,
    answers: Answers,
    sent: Rc<Cell<(usize, usize)>>,
}

/// When a send is answered; all of it is taken.
#[derive(Clone, Copy)]
enum Answers {
    AtOnce,
    WhenSubmitted,
}

impl Driver for Feed {
    type Stream = ();
    type Buffer = Vec<u8>;

    fn wait(&mut self, _timeout_ms: Option<u64>) -> io::Result<()> {
        self.now_ms += 1;
        Ok(())
    }

    fn next(&mut self) -> Option<Completion<(), Vec<u8>>> {
        if self.accepts > 0 {
            self.accepts -= 1;
            let accepted = Accepted { stream: (), listener: ListenerId(0), remote: RemoteAddr::Unix };
            return Some(Completion::Accepted(accepted));
        }
        let (slot, bytes) = self.input.borrow_mut().pop_front()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        Some(Completion::Received(slot, buffer))
    }

    fn give_back(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
        self.buffer.clear();
    }

    fn attach(&mut self, slot: SlotKey, (): ()) -> io::Result<()> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.target
        );
        self.input.borrow_mut().push_back((slot, request.into_bytes().leak()));
        Ok(())
    }

    fn send(&mut self, _slot: SlotKey, bytes: &[u8]) -> Sent {
        let (sends, all) = self.sent.get();
        self.sent.set((sends + 1, all + bytes.len()));
        match self.answers {
            Answers::AtOnce => Sent::Took(bytes.len()),
            Answers::WhenSubmitted => Sent::Queued,
        }
    }

    fn send_slices(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) -> Sent {
        slices.iter().for_each(|slice| {
            self.send(slot, slice);
        });
        match self.answers {
            Answers::AtOnce => Sent::Took(slices.iter().map(|slice| slice.len()).sum()),
            Answers::WhenSubmitted => Sent::Queued,
        }
    }

    fn submit(&mut self) {}
    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)> {
        None
    }
    fn finish(&mut self, _slot: SlotKey) {}
    fn release(&mut self, _slot: SlotKey) -> Release {
        Release::Done
    }
    fn detach(&mut self, _slot: SlotKey) -> Detach<()> {
        Detach::Lost
    }
    fn bound_unsent(&mut self, _slot: SlotKey) {}
    fn set_reading(&mut self, _reading: bool) {}

    fn pause(&mut self, _slot: SlotKey) {}

    fn resume(&mut self, _slot: SlotKey) {}
    fn stop_accepting(&mut self) {}
    fn clock_ns(&self) -> u64 {
        self.now_ms * 1_000_000
    }
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// A client's frame with a mask of zeros, which leaves its payload readable.
fn frame(text: &str) -> &'static [u8] {
    let mut bytes = vec![0x81];
    match text.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        medium => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(medium as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(text.as_bytes());
    bytes.leak()
}

const MEMBERS: usize = 100;
const ROUNDS: usize = 1_000;

/// What so many rounds of one message cost: allocations, sends and bytes sent.
fn cost_of(answers: Answers, join: bool, message: &str) -> (usize, usize, usize) {
    cost_at("/?userId=u", answers, join, frame(message))
}

/// What so many rounds of one read cost clients that connect to `target`.
fn cost_at(target: &'static str, answers: Answers, join: bool, message: &'static [u8]) -> (usize, usize, usize) {
    let settings = Settings {
        connections_max: 1_000,
        handshakes_max: 1_024,
        message: MessageLimits { bytes_max: 1 << 20, fragments_max: 131_072 },
        deflate: None,
        gate: Gate { echo: Arc::new(["/echo".into()]), ..Gate::default() },
        head: HeadLimits { bytes_max: 8192, headers_max: 64 },
        handshake_ms_max: 5_000,
        heartbeat_ms: 3_600_000,
        outbox_bytes_max: 1 << 20,
        outbox_age_ms_max: 10_000,
        outbox_node_bytes_max: 1 << 30,
        messages_per_second: 0,
        bytes_per_second: 0,
        intake_bytes_max: fanfare::limits::INTAKE_BYTES_MAX,
        router: RouterSettings {
            rooms_max: 128,
            notices: NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() },
            history: HistorySettings::none(),
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        },
    };
    let node =
        NodeState { metrics: Arc::new(NodeMetrics::new(1)), codec: ClientIdCodec::new([7; 16], 1), seed: 1, run: 1 };
    let (_post, mut mailboxes) = post_office(vec![(PeerId::Reactor(ReactorId(0)), Arc::new(NoWake))]);
    let (sent, input) = (Rc::<Cell<(usize, usize)>>::default(), Input::default());
    input.borrow_mut().reserve(1_000);
    let (buffer, sent_by) = (Vec::with_capacity(4_096), sent.clone());
    let driver = Feed { now_ms: 0, accepts: MEMBERS, target, input: input.clone(), buffer, answers, sent: sent_by };
    let slots: Vec<SlotKey> = (0..MEMBERS as u32).map(|slot| SlotKey::new(slot, 0)).collect();
    let joining = frame(r#"{"type":"join_room","roomId":"r"}"#);
    let feed = Feeder { input, slots, joining, message };
    let (me, mailbox) = (ReactorId(0), mailboxes.remove(0));
    let assignment =
        Assignment { me, reactors: 1, mailbox, settings, node, watched: Watched::default(), jitter_seed: 1 };
    let mut worker = Worker::new(assignment, driver, Box::new(|_| {}));
    worker.turn().unwrap();
    worker.turn().unwrap();
    if join {
        feed.join_all(&mut worker);
    }
    // What a turn needs is there after the first ones.
    (0..10).for_each(|_| feed.round(&mut worker));
    sent.set((0, 0));
    let region = Region::new(ALLOCATOR);
    (0..ROUNDS).for_each(|_| feed.round(&mut worker));
    let change = region.change();
    let (sends, bytes) = sent.get();
    (change.allocations + change.reallocations, sends, bytes)
}

struct Feeder {
    input: Input,
    slots: Vec<SlotKey>,
    joining: &'static [u8],
    message: &'static [u8],
}

impl Feeder {
    fn join_all(&self, worker: &mut Worker<Feed>) {
        self.input.borrow_mut().extend(self.slots.iter().map(|slot| (*slot, self.joining)));
        worker.turn().unwrap();
    }

    fn round(&self, worker: &mut Worker<Feed>) {
        self.input.borrow_mut().push_back((self.slots[0], self.message));
        worker.turn().unwrap();
    }
}

fn main() {
    the_steady_path_allocates_nothing(Answers::AtOnce);
    the_steady_path_allocates_nothing(Answers::WhenSubmitted);
    println!("the_steady_path_allocates_nothing ... ok");
    members::an_idle_member_is_small();
    println!("an_idle_member_is_small ... ok");
    history::what_history_holds_is_bounded_and_counted();
    println!("what_history_holds_is_bounded_and_counted ... ok");
    history::nothing_is_kept_where_nobody_was_told_a_position();
    println!("nothing_is_kept_where_nobody_was_told_a_position ... ok");
    history::the_newest_message_costs_the_same_however_many_there_are();
    println!("the_newest_message_costs_the_same_however_many_there_are ... ok");
}

fn the_steady_path_allocates_nothing(answers: Answers) {
    let filler = "f".repeat(60);
    let room = format!(r#"{{"type":"room_msg","roomId":"r","content":"{filler}"}}"#);
    let (allocations, sends, _) = cost_of(answers, true, &room);
    assert_eq!((allocations, sends), (0, ROUNDS * (MEMBERS - 1)), "a room message");

    let with_id = format!(r#"{{"type":"room_msg","id":17,"roomId":"r","content":"{filler}"}}"#);
    let (allocations, sends, _) = cost_of(answers, true, &with_id);
    assert_eq!((allocations, sends), (0, ROUNDS * MEMBERS), "a room message with its ack");

    let private = format!(r#"{{"type":"private_msg","toUser":"u","content":"{filler}"}}"#);
    let (allocations, sends, _) = cost_of(answers, false, &private);
    assert_eq!((allocations, sends), (0, ROUNDS * MEMBERS), "a private message to a user's connections");

    let broadcast = format!(r#"{{"type":"broadcast","data":"{filler}"}}"#);
    let (allocations, sends, _) = cost_of(answers, false, &broadcast);
    assert_eq!((allocations, sends), (0, ROUNDS * MEMBERS), "a broadcast");

    let (allocations, sends, _) = cost_of(answers, false, r#"{"type":"ping","id":"x"}"#);
    assert_eq!((allocations, sends), (0, ROUNDS), "a ping");

    let several: &[u8] = [frame("12345"), frame(""), frame(&filler)].concat().leak();
    let back_bytes = several.len() - 3 * 4;
    let cost = cost_at("/echo", answers, false, several);
    assert_eq!(cost, (0, ROUNDS, ROUNDS * back_bytes), "what one read brings goes back in one send");
}
