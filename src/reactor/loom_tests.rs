//! The mailboxes under loom, which runs each test in every order of its threads' steps (switching away from a thread
//! that could go on up to [`PREEMPTIONS_MAX`] times) and with every value a load may return by the memory model.
//!
//! `tests/loom` builds and runs them. `LOOM_MAX_PREEMPTIONS=4` looks further. A wake that is
//! lost ends in loom's `deadlock`: a reactor waits in its driver and no thread is left to wake it.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use loom::thread::Thread;

use super::driver::{Completion, Detach, Driver, Release, Sent, Shortfall, SlotKey};
use super::gate::Gate;
use super::mailbox::{Mailbox, Order, Parcel, PostOffice, Wake, post_office_of};
use super::sync::{AtomicBool, Ordering};
use super::worker::{Assignment, NodeState, Settings, Worker};
use crate::conn::{HeadLimits, MessageLimits};
use crate::ids::{ClientIdCodec, PeerId, ReactorId};
use crate::limits::INTAKE_BYTES_MAX;
use crate::metrics::NodeMetrics;
use crate::router::{HistorySettings, KeyedSettings, Mail, NoticeSettings, RouterSettings, Watched};

/// Switches away from a thread that could go on, in one run.
const PREEMPTIONS_MAX: usize = 3;

/// Room in a mailbox that never fills.
const ROOMY: usize = 8;

/// Stack of a thread with a whole worker, in words.
const WORKER_STACK_WORDS: usize = 1 << 16;

fn explore(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS_MAX);
    builder.check(test);
}

/// What a reactor waits for, as the kernel has it: a wake stays until a wait takes it.
struct Bell {
    rung: AtomicBool,
    /// Who waits. Like the counts it is nothing that loom knows of.
    waiter: OnceLock<Thread>,
    sleeps: AtomicUsize,
    wakes: AtomicUsize,
}

impl Wake for Bell {
    fn wake(&self) {
        self.wakes.fetch_add(1, Relaxed);
        assert!(self.wakes.load(Relaxed) <= self.sleeps.load(Relaxed), "a wake is written at most once a sleep");
        self.rung.store(true, Ordering::Release);
        if let Some(waiter) = self.waiter.get() {
            waiter.unpark();
        }
    }
}

impl Bell {
    fn new() -> Bell {
        let (sleeps, wakes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Bell { rung: AtomicBool::new(false), waiter: OnceLock::new(), sleeps, wakes }
    }

    /// To be called by the thread that waits.
    fn attach(&self) {
        assert!(self.waiter.set(loom::thread::current()).is_ok(), "one thread waits");
    }

    /// A wake may be written from now on.
    fn about_to_sleep(&self) {
        self.sleeps.fetch_add(1, Relaxed);
    }

    fn wait(&self) {
        while !self.poll() {
            loom::thread::park();
        }
    }

    /// A wait of no time; whether there was a wake.
    fn poll(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}

/// A reactor that does nothing but take its mail.
struct Reactor {
    mailbox: Mailbox,
    bell: Arc<Bell>,
    /// What it took, by its numbers.
    taken: Vec<u8>,
    drains: usize,
}

impl Reactor {
    /// A turn of the loop, as [`Worker::turn`] has it, with a wait that ends with a wake.
    fn turn(&mut self) {
        self.bell.about_to_sleep();
        if self.mailbox.fall_asleep() {
            self.bell.wait();
        } else {
            self.bell.poll();
        }
        self.mailbox.wake_up();
        self.take_mail();
    }

    /// A turn whose wait is over before a peer wakes it: a timer, or a socket.
    fn turn_unwoken(&mut self) {
        self.bell.about_to_sleep();
        self.mailbox.fall_asleep();
        self.bell.poll();
        self.mailbox.wake_up();
        self.take_mail();
    }

    fn take_mail(&mut self) {
        while let Some(parcel) = self.mailbox.take() {
            match parcel {
                Parcel::Mail(from, mut mail) => {
                    let sender = |mail: &Mail| PeerId::Reactor(ReactorId(u16::from(mail.number() / 10)));
                    assert!(mail.iter().all(|mail| sender(mail) == from), "it says who sent it");
                    self.taken.extend(mail.drain(..).map(|mail| mail.number()));
                    self.mailbox.give_back(mail);
                }
                Parcel::Order(Order::Drain { .. }) => self.drains += 1,
                Parcel::Order(Order::Finish) | Parcel::News(_) => unreachable!("no test sends this"),
            }
        }
    }

    fn turn_until_taken(&mut self, mail_count: usize) {
        while self.taken.len() < mail_count {
            self.turn();
        }
    }

    /// What was taken of one sender, in order.
    fn taken_from(&self, sender: u8) -> Vec<u8> {
        self.taken.iter().copied().filter(|number| number / 10 == sender).collect()
    }
}

fn node<const REACTORS: usize>(parcels_max: usize) -> (PostOffice, [Arc<Bell>; REACTORS], [Mailbox; REACTORS]) {
    let bells: [Arc<Bell>; REACTORS] = std::array::from_fn(|_| Arc::new(Bell::new()));
    let wakers = bells.iter().map(|bell| bell.clone() as Arc<dyn Wake>);
    let peers = PeerId::reactors(REACTORS as u16).zip(wakers).collect();
    let (office, mailboxes) = post_office_of(peers, parcels_max);
    (office, bells, mailboxes.try_into().ok().expect("a mailbox for each waker"))
}

/// The reactor of this thread.
fn reactor(mailbox: Mailbox, bell: &Arc<Bell>) -> Reactor {
    bell.attach();
    Reactor { mailbox, bell: bell.clone(), taken: Vec::new(), drains: 0 }
}

/// Posts these pieces of mail to reactor 0, each in a parcel; all of them find room.
fn post_all(mut mailbox: Mailbox, numbers: impl IntoIterator<Item = u8>) {
    for number in numbers {
        mailbox.gather(ReactorId(0).into(), Mail::numbered(number));
        assert!(mailbox.post());
    }
}

#[test]
fn a_parcel_is_taken_without_another_post() {
    explore(|| {
        let (_, [bell, _], [mine, theirs]) = node(ROOMY);
        loom::thread::spawn(move || post_all(theirs, [10]));
        reactor(mine, &bell).turn_until_taken(1);
    });
}

#[test]
fn senders_are_heard_each_in_its_order() {
    explore(|| {
        let (_, [bell, _, _], [mine, one, two]) = node(ROOMY);
        loom::thread::spawn(move || post_all(one, [10, 11]));
        loom::thread::spawn(move || post_all(two, [20]));
        let mut reactor = reactor(mine, &bell);
        reactor.turn_until_taken(3);
        assert_eq!((reactor.taken_from(1), reactor.taken_from(2)), (vec![10, 11], vec![20]));
    });
}

#[test]
fn a_wait_that_ends_by_itself_loses_nothing() {
    explore(|| {
        let (_, [bell, _, _], [mine, one, two]) = node(ROOMY);
        loom::thread::spawn(move || post_all(one, [10]));
        loom::thread::spawn(move || post_all(two, [20]));
        let mut reactor = reactor(mine, &bell);
        reactor.turn_unwoken();
        reactor.turn_until_taken(2);
    });
}

#[test]
fn reactors_that_answer_each_other_sleep_in_between() {
    explore(|| {
        let (_, [bell, peer_bell], [mine, peers]) = node(ROOMY);
        loom::thread::spawn(move || {
            let mut peer = reactor(peers, &peer_bell);
            peer.turn_until_taken(1);
            post_all(peer.mailbox, [10]);
        });
        let mut reactor = reactor(mine, &bell);
        reactor.mailbox.gather(ReactorId(1).into(), Mail::numbered(0));
        assert!(reactor.mailbox.post());
        reactor.turn_until_taken(1);
    });
}

#[test]
fn what_spills_arrives_in_order() {
    explore(|| {
        let (_, [bell, _], [mine, mut theirs]) = node(1);
        loom::thread::spawn(move || {
            for number in [10, 11, 12] {
                theirs.gather(ReactorId(0).into(), Mail::numbered(number));
                theirs.post();
            }
            while !theirs.post() {
                // A worker with spill wakes by its timer.
                loom::thread::yield_now();
            }
        });
        let mut reactor = reactor(mine, &bell);
        reactor.turn_until_taken(3);
        assert_eq!(reactor.taken, [10, 11, 12]);
    });
}

#[test]
fn an_order_waits_for_room_and_is_taken_once() {
    explore(|| {
        let (office, [bell, _], [mine, mut theirs]) = node(1);
        loom::thread::spawn(move || office.order(Order::Drain { within_ms: 0 }));
        loom::thread::spawn(move || {
            theirs.gather(ReactorId(0).into(), Mail::numbered(10));
            while !theirs.post() {
                loom::thread::yield_now();
            }
        });
        let mut reactor = reactor(mine, &bell);
        while reactor.drains == 0 || reactor.taken.is_empty() {
            reactor.turn();
        }
        reactor.turn_unwoken();
        assert_eq!((reactor.drains, reactor.taken), (1, vec![10]));
    });
}

#[test]
fn a_nudge_is_not_slept_through() {
    explore(|| {
        let (_, [bell, _, _], [mine, one, two]) = node(ROOMY);
        let changes: [Arc<AtomicBool>; 2] = std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
        for (peer, change) in [one, two].into_iter().zip(changes.clone()) {
            loom::thread::spawn(move || {
                change.store(true, Relaxed);
                peer.nudge(0);
            });
        }
        let mut reactor = reactor(mine, &bell);
        while !changes.iter().all(|change| change.load(Relaxed)) {
            reactor.turn();
        }
    });
}

#[test]
fn a_worker_asleep_takes_its_mail_and_ends_on_its_order() {
    explore(|| {
        let (office, [bell, _], [mine, mut theirs]) = node(ROOMY);
        let worker = move || worker(mine, bell).run().expect("this driver can always go on");
        loom::thread::Builder::new().stack_size(WORKER_STACK_WORDS).spawn(worker).expect("room for a thread");
        loom::thread::spawn(move || {
            theirs.gather(ReactorId(0).into(), Mail::numbered(10));
            assert!(theirs.post());
        });
        office.order(Order::Drain { within_ms: 0 });
    });
}

/// A worker without clients.
fn worker(mailbox: Mailbox, bell: Arc<Bell>) -> Worker<Clientless> {
    let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
    let settings = Settings {
        connections_max: 0,
        handshakes_max: 1_024,
        message: MessageLimits { bytes_max: 0, fragments_max: 0 },
        deflate: None,
        gate: Gate::default(),
        head: HeadLimits { bytes_max: 0, headers_max: 0 },
        handshake_ms_max: 0,
        heartbeat_ms: 1_000,
        outbox_bytes_max: 0,
        outbox_age_ms_max: 0,
        outbox_node_bytes_max: 0,
        messages_per_second: 0,
        bytes_per_second: 0,
        intake_bytes_max: INTAKE_BYTES_MAX,
        router: RouterSettings {
            rooms_max: 0,
            notices,
            history: HistorySettings::none(),
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        },
    };
    let state =
        NodeState { metrics: Arc::new(NodeMetrics::new(2)), codec: ClientIdCodec::new([7; 16], 0), seed: 1, run: 1 };
    bell.attach();
    bell.about_to_sleep();
    let assignment = Assignment {
        me: ReactorId(0),
        reactors: 2,
        mailbox,
        settings,
        node: state,
        watched: Watched::default(),
        jitter_seed: 1,
    };
    Worker::new(assignment, Clientless(bell), Box::new(|_| ()))
}

/// A driver that has only the bell to wait for.
struct Clientless(Arc<Bell>);

impl Driver for Clientless {
    type Stream = Infallible;
    type Buffer = [u8; 0];

    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        match timeout_ms {
            None => self.0.wait(),
            Some(_) => drop(self.0.poll()),
        }
        self.0.about_to_sleep();
        Ok(())
    }

    fn next(&mut self) -> Option<Completion<Infallible, [u8; 0]>> {
        None
    }

    fn give_back(&mut self, _: [u8; 0]) {}

    fn attach(&mut self, _: SlotKey, stream: Infallible) -> io::Result<()> {
        match stream {}
    }

    fn send(&mut self, _: SlotKey, _: &[u8]) -> Sent {
        Sent::Broken
    }

    fn send_slices(&mut self, _: SlotKey, _: &[IoSlice<'_>]) -> Sent {
        Sent::Broken
    }

    fn submit(&mut self) {}

    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)> {
        None
    }

    fn finish(&mut self, _: SlotKey) {}

    fn release(&mut self, _: SlotKey) -> Release {
        Release::Done
    }

    fn detach(&mut self, _: SlotKey) -> Detach<Infallible> {
        Detach::Lost
    }

    fn bound_unsent(&mut self, _: SlotKey) {}

    fn set_reading(&mut self, _: bool) {}

    fn pause(&mut self, _: SlotKey) {}

    fn resume(&mut self, _: SlotKey) {}

    fn stop_accepting(&mut self) {}

    fn clock_ns(&self) -> u64 {
        0
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}
