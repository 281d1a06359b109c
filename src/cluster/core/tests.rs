//! The core alone, with a Redis that answers what each test says.

mod items;
mod presence;
mod requests;

use super::*;
use crate::ids::ConnId;
use crate::limits::{CLUSTER_LINGER_MS, CLUSTER_LOADS_MAX};
use crate::metrics::Vitals;
use crate::router::cluster::{Append, AttachId, Wanted};
use crate::router::{HistoryPolicy, Kind, StreamPosition, TopicKey};

const HOME: ReactorId = ReactorId(0);
const POLICY: HistoryPolicy = HistoryPolicy { messages_max: 10, ttl_ms: 60_000 };
const OTHER_RUN: u64 = 7;

/// A node whose Redis answers what the test says.
struct Node {
    core: Core,
    /// What was sent and not answered.
    sent: VecDeque<(u64, Vec<Command>)>,
    subscribed: Vec<Arc<str>>,
    resets: Vec<Output>,
}

impl Node {
    fn new() -> Node {
        let key = [1; 16];
        let me = Identity { run: 1, codec: ClientIdCodec::new(key, 1), key, reactors: 1 };
        Node { core: Core::new(me, "p"), sent: VecDeque::new(), subscribed: Vec::new(), resets: Vec::new() }
    }

    /// Connected, with its own channels subscribed and its first commands answered.
    fn connected() -> Node {
        Node::new().connect()
    }

    fn connect(mut self) -> Node {
        self.core.handle_time(Millis(0));
        self.core.handle(Input::CommandsUp);
        self.core.handle(Input::SubscriberUp);
        self.confirm();
        while !self.sent.is_empty() {
            self.answer(|command| match command {
                Command::Revocations { .. } => Reply::Revocations { cursor: 0, entries: Vec::new() },
                _ => Reply::Published(1),
            });
        }
        self.mail();
        self
    }

    fn at(&mut self, ms: u64) {
        self.core.handle_time(Millis(ms));
        self.hand_out();
    }

    fn hand_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Commands { batch, commands } => self.sent.push_back((batch, commands)),
                Output::Subscribe(channels) => self.subscribed.extend(channels),
                Output::Unsubscribe(channels) => self.subscribed.retain(|channel| !channels.contains(channel)),
                reset => self.resets.push(reset),
            }
        }
    }

    /// Redis confirms all subscriptions.
    fn confirm(&mut self) {
        self.hand_out();
        let channels = self.subscribed.clone();
        self.core.handle(Input::Subscribed(channels));
        self.hand_out();
    }

    /// Answers the oldest batch of commands; what it was.
    fn answer(&mut self, reply: impl Fn(&Command) -> Reply) -> Vec<Command> {
        self.hand_out();
        let (batch, commands) = self.sent.pop_front().expect("something was sent");
        let replies = commands.iter().map(reply).collect();
        self.core.handle(Input::Replies { batch, replies });
        self.hand_out();
        commands
    }

    fn answer_published(&mut self, receivers: u64) -> Vec<Command> {
        self.answer(|_| Reply::Published(receivers))
    }

    fn mail(&mut self) -> Vec<String> {
        self.core.poll_mail().map(|(_, mail)| format!("{mail:?}")).collect()
    }

    fn open(&mut self, policy: Option<HistoryPolicy>) {
        self.core
            .handle_mail(HOME.into(), ToCluster::Attach { topic: room(), attach: AttachId(1), policy, keyed: None });
    }

    /// Follows the room, whose history is at this offset.
    fn open_at(&mut self, offset: u64) {
        self.open(Some(POLICY));
        self.confirm();
        self.answer(|_| read(offset));
        assert!(self.mail().concat().contains("Attached"));
    }

    fn append(&mut self, id: &str) {
        let append = Append {
            topic: room(),
            policy: POLICY,
            frame: text(b"{}"),
            exclude: None,
            key: None,
            publisher: conn().into(),
            id: Some(id.into()),
        };
        self.core.handle_mail(HOME.into(), ToCluster::Append(Box::new(append)));
    }

    fn receive(&mut self, channel: &str, record: &Record<'_>) {
        let mut payload = record::begin(OTHER_RUN);
        record.write(&mut payload);
        self.core.handle(Input::Received { channel, payload: &payload });
    }

    fn receive_kept(&mut self, offset: u64) {
        let entry = record::Entry { exclude: None, payload: b"{}" }.to_bytes();
        let mut payload = format!("He\n{offset}\n").into_bytes();
        payload.extend_from_slice(&(entry.len() as u32).to_be_bytes());
        payload.extend_from_slice(&entry);
        self.core.handle(Input::Received { channel: "p:room:{r}", payload: &payload });
    }
}

fn room() -> TopicKey {
    TopicKey::unhashed(Kind::Room, "r")
}

fn conn() -> ConnId {
    ConnId { reactor: HOME, slot: crate::ids::Slot(3), generation: 1 }
}

fn text(payload: &[u8]) -> crate::compress::SharedFrame {
    FrameBuilder::default().build(crate::frame::Opcode::Text, |out| out.extend_from_slice(payload)).into()
}

fn read(offset: u64) -> Reply {
    Reply::Read { end: StreamPosition { epoch: "e".into(), offset }, now_ms: 0, more: false, entries: Vec::new() }
}

fn appended(offset: u64) -> Reply {
    Reply::Appended { epoch: "e".into(), offsets: vec![offset] }
}

#[test]
fn what_one_round_publishes_to_a_channel_is_one_command() {
    let mut node = Node::connected();
    for _ in 0..3 {
        let frames = text(b"x").plain().to_vec();
        node.core.handle_mail(HOME.into(), ToCluster::Publish { topic: room(), frames, messages: 1 });
    }
    for id in ["1", "2"] {
        let other = TopicKey::unhashed(Kind::Room, "kept");
        let append = Append {
            topic: other,
            policy: POLICY,
            frame: text(b"{}"),
            exclude: None,
            key: None,
            publisher: conn().into(),
            id: Some(id.into()),
        };
        node.core.handle_mail(HOME.into(), ToCluster::Append(Box::new(append)));
    }
    node.hand_out();
    let [Command::Publish { .. }, Command::Append { entries, .. }] = &node.sent[0].1[..] else {
        panic!("{:?}", node.sent)
    };
    assert_eq!((node.sent.len(), entries.len()), (1, 2));
}

#[test]
fn an_ack_comes_behind_its_own_message() {
    let mut node = Node::connected();
    node.open_at(4);
    node.append("1");
    node.answer(|_| appended(5));
    assert_eq!(node.mail(), [""; 0], "stored, but not here yet");
    node.receive_kept(5);
    let mail = node.mail();
    assert!(mail.len() == 2 && mail[0].contains("Kept") && mail[1].contains("Acked"), "{mail:?}");
    node.append("2");
    node.answer(|_| appended(6));
    node.core.handle(Input::SubscriberDown);
    assert!(node.mail().concat().contains("Acked"), "nothing is waited for without subscriptions");
}

#[test]
fn without_redis_history_is_unavailable_and_topics_are_refused() {
    let mut node = Node::new();
    node.open(Some(POLICY));
    node.append("1");
    let mail = node.mail().concat();
    assert!(mail.contains("Refused") && mail.contains("Unavailable"), "{mail}");
    let mut node = Node::connected();
    node.append("1");
    node.hand_out();
    node.core.handle(Input::CommandsDown);
    assert!(node.mail().concat().contains("Unavailable"), "whatever became of it");
    assert_eq!(node.core.counts().refused, 1);
}

#[test]
fn a_stream_that_cannot_be_read_is_refused_and_tried_again() {
    let mut node = Node::connected();
    node.open(Some(POLICY));
    node.confirm();
    node.answer(|_| Reply::Failed);
    assert!(node.mail().concat().contains("Refused"), "no asker waits for a refusal");
    node.at(CLUSTER_CANARY_MS + 1);
    while !node.sent.is_empty() {
        node.answer(|command| if matches!(command, Command::Read { .. }) { read(3) } else { Reply::Published(1) });
    }
    assert!(node.mail().concat().contains("Attached"));
}

#[test]
fn a_redis_that_does_not_answer_is_given_up() {
    let mut node = Node::connected();
    node.append("1");
    node.at(1);
    assert_eq!(node.resets, []);
    node.at(CLUSTER_ANSWER_MS_MAX + 2);
    assert_eq!(node.resets, [Output::ResetCommands]);
    assert!(node.mail().concat().contains("Unavailable"));
}

#[test]
fn a_subscription_that_is_not_confirmed_is_given_up() {
    let mut node = Node::new();
    node.at(0);
    node.core.handle(Input::SubscriberUp);
    node.at(CLUSTER_CANARY_MS_MAX);
    assert_eq!(node.resets, []);
    node.at(CLUSTER_CANARY_MS_MAX + 1);
    assert_eq!(node.resets, [Output::ResetSubscriber]);
}

#[test]
fn a_canary_that_is_missed_has_all_streams_read() {
    let mut node = Node::connected();
    node.open_at(4);
    node.at(1);
    let own: Arc<str> = node.core.own_channel.clone();
    let canary = |number| {
        let mut payload = record::begin(1);
        Record::Canary { number }.write(&mut payload);
        payload
    };
    node.core.handle(Input::Received { channel: &own, payload: &canary(1) });
    node.answer_published(1);
    assert_eq!(node.sent.len(), 0, "nothing is missed");
    node.core.handle(Input::Received { channel: &own, payload: &canary(3) });
    node.hand_out();
    let [(_, commands)] = &node.sent.make_contiguous()[..] else { panic!("one batch") };
    assert!(matches!(&commands[..], [Command::Read { range: ReadRange::From(5), .. }]), "{commands:?}");
}

#[test]
fn a_fence_comes_back_behind_what_was_asked() {
    let mut node = Node::connected();
    node.open(Some(POLICY));
    node.core.handle_mail(HOME.into(), ToCluster::Fence { member: conn(), rounds_left: 0 });
    node.confirm();
    assert_eq!(node.mail(), [""; 0], "the topic is not opened yet");
    node.answer(|_| read(0));
    let mail = node.mail();
    assert!(mail.len() == 2 && mail[0].contains("Attached") && mail[1].contains("Fenced"), "{mail:?}");
}

/// What a fence costs does not depend on how many topics there are: it waits for the first of those asked for before it
/// that is not answered, and none passes an earlier one.
#[test]
fn fences_go_back_in_the_order_of_what_they_wait_for() {
    let mut node = Node::connected();
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let topic = TopicKey::unhashed(Kind::Room, name);
        node.core.handle_mail(
            HOME.into(),
            ToCluster::Attach { topic, attach: AttachId(at as u64), policy: None, keyed: None },
        );
        let member = ConnId { generation: at as u32, ..conn() };
        node.core.handle_mail(HOME.into(), ToCluster::Fence { member, rounds_left: 0 });
    }
    node.hand_out();
    node.core.handle(Input::Subscribed(vec!["p:room:{b}".into()]));
    node.hand_out();
    let mail = node.mail();
    assert!(mail.len() == 1 && mail[0].contains("Attached"), "{mail:?}");
    node.core.handle(Input::Subscribed(vec!["p:room:{a}".into()]));
    node.hand_out();
    let mail = node.mail();
    assert!(mail.len() == 3 && mail[0].contains("Attached"), "{mail:?}");
    assert!(mail[1].contains("generation: 0") && mail[2].contains("generation: 1"), "{mail:?}");
    node.core.check_invariants();
}

#[test]
fn a_closed_topic_lingers_before_it_is_unsubscribed() {
    let mut node = Node::connected();
    node.open(None);
    node.confirm();
    let channel: Arc<str> = "p:room:{r}".into();
    let idle = || ToCluster::Idle { topic: room(), attach: AttachId(1) };
    node.core.handle_mail(HOME.into(), idle());
    node.at(CLUSTER_LINGER_MS - 1);
    node.core.handle_mail(HOME.into(), idle());
    node.at(2 * CLUSTER_LINGER_MS - 2);
    assert!(!node.mail().concat().contains("Lapsed"), "a member was there again");
    node.at(2 * CLUSTER_LINGER_MS - 1);
    assert!(node.mail().concat().contains("Lapsed") && node.subscribed.contains(&channel), "the home has to agree");
    node.core.handle_mail(HOME.into(), ToCluster::Detach { topic: room() });
    node.hand_out();
    assert!(!node.subscribed.contains(&channel));
    assert_eq!(node.core.counts().feeds, 0);
    node.core.check_invariants();
}

#[test]
fn a_topic_that_is_closed_at_once_lingers_as_well() {
    let mut node = Node::connected();
    node.open(None);
    node.confirm();
    node.core.handle_mail(HOME.into(), ToCluster::Detach { topic: room() });
    node.at(CLUSTER_LINGER_MS - 1);
    assert_eq!(node.core.counts().feeds, 1);
    node.at(CLUSTER_LINGER_MS);
    assert_eq!((node.core.counts().feeds, node.subscribed.len()), (0, 2), "its own channels are left");
}

fn load(from: u64, before: u64, wanted: Wanted) -> ToCluster {
    ToCluster::Load { topic: room(), from, before, wanted }
}

fn entries(offsets: std::ops::Range<u64>, more: bool) -> Reply {
    let entry = record::Entry { exclude: None, payload: b"{}" }.to_bytes();
    let entries = offsets.map(|offset| StreamEntry { offset, at_ms: 0, entry: entry.clone() }).collect();
    Reply::Read { end: StreamPosition { epoch: "e".into(), offset: 9 }, now_ms: 0, more, entries }
}

#[test]
fn older_messages_come_piece_by_piece_and_a_fence_behind_the_last() {
    let mut node = Node::connected();
    node.open_at(9);
    node.core.handle_mail(HOME.into(), load(3, 10, Wanted::Any));
    node.core.handle_mail(HOME.into(), ToCluster::Fence { member: conn(), rounds_left: 0 });
    for (piece, range) in [(7..10, (3, 10)), (5..7, (3, 7))] {
        let asked = node.answer(|_| entries(piece.clone(), true));
        let back = ReadRange::Back { from: range.0, before: range.1, wanted: Wanted::Any };
        assert!(matches!(&asked[..], [Command::Read { range, .. }] if *range == back), "{asked:?}");
        let mail = node.mail();
        assert!(mail.len() == 1 && mail[0].contains("rest: More"), "{mail:?}");
    }
    node.answer(|_| entries(3..5, false));
    let mail = node.mail();
    assert!(mail.len() == 2 && mail[0].contains("rest: Unread") && mail[1].contains("Fenced"), "{mail:?}");
    node.core.check_invariants();
}

#[test]
fn an_entry_that_cannot_be_read_ends_what_is_older_and_nothing_else() {
    let mut node = Node::connected();
    node.open_at(9);
    node.core.handle_mail(HOME.into(), load(1, 10, Wanted::Any));
    node.answer(|_| match entries(5..10, false) {
        Reply::Read { end, now_ms, more, mut entries } => {
            entries[2].entry.clear();
            Reply::Read { end, now_ms, more, entries }
        }
        other => other,
    });
    let mail = node.mail().concat();
    assert!(mail.contains("before: 10") && mail.contains("rest: Nothing"), "{mail}");
    assert_eq!(mail.matches("age_ms").count(), 2, "8 and 9");
}

#[test]
fn a_load_that_is_given_up_or_asked_for_anew_is_not_gone_on_with() {
    let mut node = Node::connected();
    node.open_at(9);
    node.core.handle_mail(HOME.into(), load(3, 10, Wanted::Any));
    node.hand_out();
    node.core.handle_mail(HOME.into(), load(9, 10, Wanted::Any));
    node.answer(|_| entries(7..10, true));
    assert_eq!(node.mail(), [""; 0], "no asker waits for it");
    node.answer(|_| entries(9..10, true));
    assert!(node.mail().concat().contains("rest: More"));
    node.core.handle_mail(HOME.into(), ToCluster::Enough { topic: room() });
    node.answer(|_| entries(8..9, true));
    assert_eq!((node.mail(), node.sent.len()), (vec![], 0));
    node.core.check_invariants();
}

#[test]
fn so_many_loads_wait_for_redis_and_no_more() {
    const ROOMS: usize = CLUSTER_LOADS_MAX * 2 + 1;
    let mut node = Node::connected();
    let name = |at: usize| TopicKey::unhashed(Kind::Room, &at.to_string());
    for at in 0..ROOMS {
        let open =
            ToCluster::Attach { topic: name(at), attach: AttachId(at as u64), policy: Some(POLICY), keyed: None };
        node.core.handle_mail(HOME.into(), open);
    }
    node.confirm();
    node.answer(|_| read(9));
    for at in 0..ROOMS {
        node.core
            .handle_mail(HOME.into(), ToCluster::Load { topic: name(at), from: 9, before: 10, wanted: Wanted::Any });
    }
    let mut asked = Vec::new();
    node.hand_out();
    while !node.sent.is_empty() {
        asked.push(node.answer(|_| entries(9..10, false)).len());
    }
    assert_eq!(asked, [CLUSTER_LOADS_MAX, CLUSTER_LOADS_MAX, 1]);
    node.core.handle_mail(HOME.into(), load(9, 10, Wanted::Any));
    node.core.check_invariants();
}

#[test]
fn a_client_id_of_another_node_is_found_by_that_nodes_key() {
    let mut node = Node::connected();
    let key = [9; 16];
    let theirs = ClientIdCodec::new(key, 2).encode(conn());
    let direct = || ToCluster::Direct { to: theirs, frame: text(b"{}") };
    node.core.handle_mail(HOME.into(), direct());
    node.hand_out();
    assert_eq!(node.sent.len(), 0, "no known connection's");
    node.receive("p:all", &Record::Hello { node: 2, key, asks: false, vitals: Vitals::default() });
    node.core.handle_mail(HOME.into(), direct());
    let [Command::Publish { channel, .. }] = &node.answer_published(1)[..] else { panic!("one message") };
    assert_eq!(**channel, *node.core.names.node(OTHER_RUN));
}

#[test]
fn commands_that_are_not_answered_are_noticed_before_anything_is_subscribed() {
    let mut node = Node::new();
    node.at(CLUSTER_CANARY_MS);
    node.core.handle(Input::CommandsUp);
    node.at(CLUSTER_CANARY_MS);
    assert_eq!(node.sent.len(), 1, "a canary");
    node.at(CLUSTER_CANARY_MS + CLUSTER_ANSWER_MS_MAX + 1);
    assert_eq!(node.resets, [Output::ResetCommands]);
}

#[test]
fn only_what_is_waited_for_is_to_be_answered_at_once() {
    let mut node = Node::connected();
    let publish = || ToCluster::Publish { topic: room(), frames: text(b"{}").plain().to_vec(), messages: 1 };
    node.core.handle_mail(HOME.into(), publish());
    node.hand_out();
    assert!(!node.core.awaits_answers(), "the publisher has its ack already");
    node.core.handle_mail(HOME.into(), ToCluster::Fence { member: conn(), rounds_left: 0 });
    node.hand_out();
    assert!(node.core.awaits_answers(), "a fence waits behind it");
    node.answer_published(1);
    assert!(!node.core.awaits_answers());
    node.append("a");
    node.hand_out();
    assert!(node.core.awaits_answers(), "a publisher waits for its ack");
    node.core.handle_mail(HOME.into(), publish());
    node.hand_out();
    node.answer(|_| appended(1));
    assert!(!node.core.awaits_answers());
    node.core.check_invariants();
    node.core.handle(Input::CommandsDown);
    assert!(!node.core.awaits_answers());
}
