//! The largest answers to the smallest questions: what one client's questions cost is bounded, and nothing is lost.
//!
//! Each case runs on one reactor and on two, in the simulated driver: a client sends tens of kilobytes of commands in
//! one go and reads nothing, then little by little. What the node holds for it is measured in each turn, in the queues
//! and in the allocator. In the end each command has its answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use fanfare::compress::WindowBits;
use fanfare::conn::{HeadLimits, MessageLimits};
use fanfare::ids::{ClientIdCodec, PeerId};
use fanfare::limits::{HISTORY_PAGE_BYTES_MAX, INTAKE_BYTES_MAX, READ_BYTES};
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{Link, World, post_office_of, wakers};
use fanfare::reactor::{DeflateSettings, Gate, NodeState, PostOffice, Settings};
use fanfare::router::{HistoryPolicy, HistorySettings, KeyedSettings, NoticeSettings, RoomPolicies, RouterSettings};
use fanfare_simulated::end::{End, Heard, TEXT};
use fanfare_simulated::seats::Seats;
use serde_json::{Value, json};

const ENDLESS: usize = 1 << 40;

/// Bytes of a message in history.
const KEPT_BYTES: usize = 4_096;

/// Messages and users that are there to be asked for.
const MANY: usize = 1_000;

/// Pages under way by mail while the first is sent.
const UNDER_WAY: usize = 5;

/// Bytes that the allocator may hand out for an attack, at most at once: what waits, as many bytes while an answer is
/// made and compressed, and the simulated network.
const ALLOCATED_MAX: u64 = 4 << 20;

/// A client that has sent what it wants to, and reads when it is told to.
struct Guest {
    end: End,
    heard: Rc<RefCell<Vec<Value>>>,
    pongs: usize,
}

struct Node {
    seats: Seats,
    _office: PostOffice,
    metrics: Arc<NodeMetrics>,
    random: fastrand::Rng,
    /// Most that was held behind a turn.
    held_bytes_max: u64,
    /// Most that a reactor sent in a turn.
    turn_bytes_max: u64,
}

/// All that a socket takes at once.
const WIDE: Link =
    Link { socket_bytes_max: ENDLESS, read_bytes_max: READ_BYTES, send_bytes_max: ENDLESS, short_writes: false };

/// A socket with a kernel's buffer.
const NARROW: Link =
    Link { socket_bytes_max: 64 * 1024, read_bytes_max: READ_BYTES, send_bytes_max: 64 * 1024, short_writes: false };

impl Node {
    fn new(reactors: usize, deflates: bool) -> Node {
        let world = World::new(reactors, 7);
        let (bells, wakes) = wakers(PeerId::reactors(reactors as u16));
        let (office, mailboxes) = post_office_of(wakes, 1_024);
        let metrics = Arc::new(NodeMetrics::new(reactors));
        let state = NodeState { metrics: metrics.clone(), codec: ClientIdCodec::new([7; 16], 0), seed: 7, run: 7 };
        let mut seats = Seats::new(world, mailboxes, bells, &settings(deflates), &state, 7);
        seats.permit_answers_of(UNDER_WAY * (HISTORY_PAGE_BYTES_MAX + KEPT_BYTES));
        let random = fastrand::Rng::with_seed(7);
        Node { seats, _office: office, metrics, random, held_bytes_max: 0, turn_bytes_max: 0 }
    }

    /// Turns until every reactor sleeps.
    fn run(&mut self) {
        for _ in 0..1_000_000 {
            let ready = self.seats.with_reason();
            if ready.is_empty() {
                return;
            }
            for at in ready {
                let before_bytes = self.metrics.reactors[at].read().bytes_out;
                self.seats.turn(at);
                let sent_bytes = self.metrics.reactors[at].read().bytes_out - before_bytes;
                self.turn_bytes_max = self.turn_bytes_max.max(sent_bytes);
                let held = self.seats.workers().map(|(_, worker)| worker.inside().held_bytes).sum();
                self.held_bytes_max = self.held_bytes_max.max(held);
            }
        }
        panic!("the node does not come to rest");
    }

    /// Makes what an attack needs.
    fn set_up(&mut self, scene: Scene) -> Vec<Guest> {
        let mut others = Vec::new();
        match scene {
            Scene::Empty => {}
            Scene::History => {
                let mut publisher = self.connect(0, "publisher", WIDE);
                self.say(&mut publisher, &json!({"type": "join_room", "roomId": "kept"}));
                let content = "x".repeat(KEPT_BYTES);
                for _ in 0..MANY {
                    self.say(&mut publisher, &json!({"type": "room_msg", "roomId": "kept", "content": content}));
                    self.say(&mut publisher, &json!({"type": "private_msg", "toUser": "attacker", "content": content}));
                }
                self.send(&mut publisher);
                self.run();
                others.push(publisher);
            }
            Scene::Crowd => {
                for at in 0..MANY {
                    let mut member = self.connect(at % self.metrics.reactors.len(), &format!("{at:0>128}"), WIDE);
                    self.say(&mut member, &json!({"type": "join_room", "roomId": "crowd"}));
                    self.send(&mut member);
                    others.push(member);
                }
                self.run();
            }
        }
        others
    }

    fn connect(&mut self, reactor: usize, user: &str, link: Link) -> Guest {
        let mut end = End::new(self.seats.world.connect(reactor, link));
        end.ask_upgrade(&format!("/?userId={user}"), &mut self.random);
        end.flush(&self.seats.world, usize::MAX);
        let mut guest = Guest { end, heard: Rc::default(), pongs: 0 };
        self.run();
        self.read(&mut guest, usize::MAX);
        assert_eq!(guest.heard.borrow_mut().pop().expect("a welcome")["type"], "welcome");
        guest
    }

    /// Sends a command as one message.
    fn say(&mut self, guest: &mut Guest, command: &Value) {
        guest.end.say(TEXT, command.to_string().as_bytes(), 1, None, &mut self.random);
    }

    fn send(&mut self, guest: &mut Guest) {
        guest.end.flush(&self.seats.world, usize::MAX);
    }

    /// The client reads at most so many bytes; whether there were any.
    fn read(&mut self, guest: &mut Guest, bytes_max: usize) -> bool {
        let bytes = self.seats.world.receive(guest.end.client, bytes_max);
        let (heard, pongs) = (guest.heard.clone(), &mut guest.pongs);
        guest.end.take(&bytes, |what| match what {
            Heard::Message(_, payload) => {
                heard.borrow_mut().push(serde_json::from_slice(&payload).expect("a message is JSON"));
            }
            Heard::Pong(_) => *pongs += 1,
            Heard::Status(101) => {}
            other => panic!("{other:?} is no answer"),
        });
        !bytes.is_empty()
    }
}

fn settings(deflates: bool) -> Settings {
    let policy = HistoryPolicy { messages_max: MANY as u32, ttl_ms: 1 << 40 };
    Settings {
        connections_max: 10_000,
        handshakes_max: 1_024,
        message: MessageLimits { bytes_max: 1 << 20, fragments_max: 1_000 },
        deflate: deflates.then_some(DeflateSettings {
            level: 6,
            min_bytes: 64,
            client_bits_max: WindowBits::MAX,
            contexts_max: 10_000,
            memory_bytes_max: ENDLESS,
        }),
        gate: Gate::default(),
        head: HeadLimits { bytes_max: 8 * 1024, headers_max: 64 },
        handshake_ms_max: 1 << 40,
        heartbeat_ms: 1 << 40,
        outbox_bytes_max: 1 << 20,
        outbox_age_ms_max: 1 << 40,
        outbox_node_bytes_max: ENDLESS as u64,
        messages_per_second: 0,
        bytes_per_second: 0,
        intake_bytes_max: INTAKE_BYTES_MAX,
        router: RouterSettings {
            rooms_max: 2_000,
            notices: NoticeSettings {
                members_max: 0,
                join_text: "{user} joined".into(),
                leave_text: "{user} left".into(),
            },
            history: HistorySettings {
                rooms: Some(RoomPolicies(Arc::new(move |name: &str| name.starts_with("kept").then_some(policy)))),
                inbox: Some(policy),
                bytes_max: ENDLESS,
                pinned: Arc::default(),
                pinned_bytes_max: ENDLESS as u64,
            },
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: false,
        },
    }
}

/// What of the node an attack needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// Nothing but the attacker.
    Empty,
    /// A room with much history, and an inbox.
    History,
    /// A room with many users, whose ids are long.
    Crowd,
}

/// Sends `commands` in one go and reads nothing until the node rests, then little by little.
fn attack(scene: Scene, commands: &[Value], answers: usize) {
    for (reactors, deflates) in [(1, false), (2, false), (1, true)] {
        let mut node = Node::new(reactors, deflates);
        let _others = node.set_up(scene);
        let mut attacker = node.connect(reactors - 1, "attacker", NARROW);
        for command in commands {
            node.say(&mut attacker, command);
        }
        let sent = attacker.end.unsent();
        node.held_bytes_max = 0;
        let heard = attacker.heard.clone();
        let mut heard_count = 0;
        let allocated = allocation_counter::measure(|| {
            node.send(&mut attacker);
            node.run();
            for _ in 0..1_000_000 {
                let mut has_read = false;
                allocation_counter::opt_out(|| {
                    has_read = node.read(&mut attacker, 50_000);
                    heard_count += heard.borrow_mut().drain(..).count();
                });
                if !has_read {
                    break;
                }
                node.run();
            }
        });
        let held = node.held_bytes_max as usize;
        let held_max = INTAKE_BYTES_MAX + UNDER_WAY * (HISTORY_PAGE_BYTES_MAX + KEPT_BYTES) + 2 * sent;
        assert_eq!(heard_count, answers, "{reactors} reactors, deflate {deflates}: each command has its answer");
        assert!(held <= held_max, "{reactors} reactors, deflate {deflates}: {held} bytes held for {sent} sent");
        assert!(
            allocated.bytes_max <= ALLOCATED_MAX,
            "{reactors} reactors, deflate {deflates}: {} bytes allocated at once",
            allocated.bytes_max
        );
    }
}

#[test]
fn pages_of_history_come_no_faster_than_they_are_read() {
    let mut commands = vec![json!({"type": "join_room", "roomId": "kept", "id": 1})];
    commands.resize(400, json!({"type": "history", "roomId": "kept"}));
    attack(Scene::History, &commands, 400);
}

#[test]
fn lists_of_users_come_no_faster_than_they_are_read() {
    attack(Scene::Crowd, &vec![json!({"type": "presence", "roomId": "crowd"}); 400], 400);
}

#[test]
fn joins_with_history_come_no_faster_than_they_are_read() {
    let join = json!({"type": "join_room", "roomId": "kept", "last": MANY, "id": 1});
    let leave = json!({"type": "leave_room", "roomId": "kept", "id": 2});
    attack(Scene::History, &vec![[join, leave]; 50].concat(), 50 * (MANY + 2));
}

#[test]
fn resumptions_come_no_faster_than_they_are_read() {
    let resume = json!({"type": "resume", "inbox": {"epoch": "e", "offset": 0}, "id": 1});
    attack(Scene::History, &vec![resume; 1_000], 1_000);
}

#[test]
fn a_command_for_many_rooms_repeats_no_long_id() {
    let rooms: Vec<String> = (0..1_000).map(|at| format!("r{at}")).collect();
    let join = json!({"type": "join_room", "roomIds": rooms, "id": "x".repeat(60)});
    attack(Scene::Empty, &vec![join; 10], 10 * 1_001);
    let too_long = json!({"type": "join_room", "roomIds": rooms, "id": "x".repeat(64)});
    attack(Scene::Empty, &[too_long], 1);
}

#[test]
fn joins_and_leaves_of_new_rooms_are_not_far_ahead_of_their_homes() {
    let mut node = Node::new(2, false);
    let mut attacker = node.connect(0, "attacker", NARROW);
    let pairs = 5_000;
    for at in 0..pairs {
        let room = format!("r{at}");
        node.say(&mut attacker, &json!({"type": "join_room", "roomId": room}));
        node.say(&mut attacker, &json!({"type": "leave_room", "roomId": room}));
    }
    node.say(&mut attacker, &json!({"type": "ping"}));
    node.send(&mut attacker);
    node.run();
    node.read(&mut attacker, usize::MAX);
    assert_eq!(*attacker.heard.borrow(), [json!({"type": "pong"})]);
    // A pause for each share's worth of subscriptions that the homes have not confirmed.
    let pauses = node.metrics.reactors[0].read().pauses;
    assert!(pauses >= 2 * pairs * 128 / INTAKE_BYTES_MAX as u64, "{pauses} pauses");
}

#[test]
fn errors_and_echoed_ids_come_no_faster_than_they_are_read() {
    attack(Scene::Empty, &vec![json!({}); 8_000], 8_000);
    attack(Scene::Empty, &vec![json!({"type": "ping", "id": "x".repeat(1_000)}); 500], 500);
    attack(Scene::Empty, &vec![json!({"type": "leave_room", "roomId": "r", "id": 1}); 2_000], 2_000);
}

#[test]
fn an_attacker_gets_one_share_of_a_turn() {
    let mut node = Node::new(1, false);
    let _publisher = node.set_up(Scene::History);
    let mut attacker = node.connect(0, "attacker", WIDE);
    node.say(&mut attacker, &json!({"type": "join_room", "roomId": "kept"}));
    for _ in 0..100 {
        node.say(&mut attacker, &json!({"type": "history", "roomId": "kept"}));
    }
    node.turn_bytes_max = 0;
    node.send(&mut attacker);
    node.run();
    let share = (INTAKE_BYTES_MAX + HISTORY_PAGE_BYTES_MAX + KEPT_BYTES) as u64;
    assert!(node.turn_bytes_max <= share, "{} bytes were sent in one turn", node.turn_bytes_max);
    node.read(&mut attacker, usize::MAX);
    assert_eq!(attacker.heard.borrow().len(), 100);
}

#[test]
fn who_sends_much_and_gets_little_of_it_holds_no_more_than_that() {
    let mut node = Node::new(1, false);
    let mut publisher = node.connect(0, "publisher", NARROW);
    let mut other = node.connect(0, "other", WIDE);
    let mut reader = node.connect(0, "reader", WIDE);
    for guest in [&mut publisher, &mut other, &mut reader] {
        node.say(guest, &json!({"type": "join_room", "roomId": "room"}));
        node.send(guest);
    }
    node.run();
    // What its socket takes is used up.
    let content = "x".repeat(60 * 1024);
    for _ in 0..2 {
        node.say(&mut other, &json!({"type": "room_msg", "roomId": "room", "content": content}));
        node.send(&mut other);
        node.run();
    }
    let rounds = 1_000;
    for _ in 0..rounds {
        for _ in 0..50 {
            node.say(&mut publisher, &json!({"type": "room_msg", "roomId": "room", "content": "x".repeat(1_000)}));
        }
        node.say(&mut other, &json!({"type": "room_msg", "roomId": "room", "content": "little"}));
        node.send(&mut publisher);
        node.send(&mut other);
        node.run();
    }
    let held: u64 = node.seats.workers().map(|(_, worker)| worker.inside().held_bytes).sum();
    let queued = 2 * 61 * 1024 + rounds * 100;
    assert!(held <= queued, "{held} bytes are held for {queued} that wait");
    assert!(held > rounds * 50, "{held} bytes are held: they wait");
}
