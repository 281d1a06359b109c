//! The shadow model: who must, who may and who must not get what, as somebody who sees only the clients.
//!
//! Time is the order of the clients' own observations, in ticks. A message takes its place in its topic's order
//! somewhere between the tick at which it was said and the first at which anybody knows that it was routed; a join
//! or a leave somewhere between the tick at which it was said and its reply. Whatever is decided by these intervals
//! alone is demanded, and nothing else.
//!
//! When the network has come to rest, everything has taken its place: [`Oracle::settle`] judges all that happened
//! since the last time, and what belongs to the time before may not be heard of again.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_simulated::message::Serial;

use super::notices::Notices;
use super::streams::Said;

/// A moment as the clients see it.
pub type Tick = u64;

/// Not yet, as far as anybody knows.
pub const NEVER: Tick = u64::MAX;

/// One client's connection.
pub type GuestAt = usize;

/// What is published to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Everyone,
    Room(String),
    Inbox(String),
    Raw(String),
    /// One connection.
    One(GuestAt),
}

/// A topic's place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicAt(pub usize);

/// A join or a leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpAt {
    guest: GuestAt,
    pub topic: TopicAt,
    /// Counted over the whole run.
    number: usize,
}

#[derive(Clone, Debug)]
pub struct Op {
    number: usize,
    pub joins: bool,
    pub sent: Tick,
    pub done: Tick,
    /// Whether the client asked for a reply.
    has_reply: bool,
    /// Whether it changes anything.
    pub changes: bool,
}

/// A message as its receivers must see it.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    Json { kind: &'static str, room: Option<String>, from: String, field: &'static str, value: String },
    Raw { opcode: u8, bytes: Vec<u8> },
}

struct Message {
    topic: TopicAt,
    by: GuestAt,
    /// Whether the connection that said it does not get it.
    not_to_sender: bool,
    body: Body,
    sent: Tick,
    /// The same by the clock.
    said_ms: u64,
    routed: Tick,
    time_ms: Option<u64>,
    receivers: BTreeSet<GuestAt>,
    settled: bool,
}

#[derive(Default)]
struct Person {
    user: String,
    death: Option<Death>,
}

/// How the model knows that a connection is over, or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    pub at: Tick,
    /// Whether the node cannot have ended it before that.
    pub is_certain: bool,
}

/// What a guest has seen of a topic since the last rest.
#[derive(Default)]
struct Seen {
    serials: Vec<Serial>,
    newest_sent: Tick,
}

/// What is demanded of one receiver of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Must,
    May,
    MustNot,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Oracle {
    now: Tick,
    settled_at: Tick,
    topics: Vec<Topic>,
    people: Vec<Person>,
    ops: BTreeMap<(TopicAt, GuestAt), Vec<Op>>,
    ops_count: usize,
    messages: Vec<Message>,
    first_unsettled: Serial,
    /// Messages that came, each receiver counted.
    pub received: u64,
    /// Of those the ones that had to come.
    pub demanded: u64,
    /// Messages that came to nobody.
    pub unheard: u64,
    seen: BTreeMap<(TopicAt, GuestAt), Seen>,
    pub notices: Notices,
}

impl Oracle {
    /// Something is observed.
    pub fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }

    /// A new connection of a user, who may be named later.
    pub fn arrive(&mut self) -> GuestAt {
        self.people.push(Person::default());
        self.people.len() - 1
    }

    /// The user of a connection.
    pub fn name(&mut self, guest: GuestAt, user: &str) {
        user.clone_into(&mut self.people[guest].user);
    }

    /// The place of a topic.
    pub fn topic(&mut self, topic: &Topic) -> TopicAt {
        let found = self.topics.iter().position(|known| known == topic);
        TopicAt(found.unwrap_or_else(|| {
            self.topics.push(topic.clone());
            let at = self.topics.len() - 1;
            if let Topic::Room(_) = topic {
                self.notices.rooms.insert(TopicAt(at));
            }
            at
        }))
    }

    /// A guest said that it joins or leaves; `sent` is when, at the earliest.
    pub fn op(&mut self, guest: GuestAt, topic: TopicAt, joins: bool, has_reply: bool, sent: Tick) -> OpAt {
        let ops = self.ops.entry((topic, guest)).or_default();
        let changes = ops.last().is_some_and(|op| op.joins) != joins;
        let number = self.ops_count;
        self.ops_count += 1;
        ops.push(Op { number, joins, sent, done: NEVER, has_reply, changes });
        OpAt { guest, topic, number }
    }

    /// A join or a leave had its reply.
    pub fn done(&mut self, op: OpAt) {
        let now = self.tick();
        let ops = self.ops.entry((op.topic, op.guest)).or_default();
        if let Some(op) = ops.iter_mut().find(|known| known.number == op.number) {
            op.done = op.done.min(now);
        }
    }

    /// A guest's connection is confirmed, and with it the membership that it began with.
    pub fn confirm(&mut self, guest: GuestAt, topic: TopicAt) {
        let now = self.tick();
        if let Some(op) = self.ops.get_mut(&(topic, guest)).and_then(|ops| ops.first_mut()) {
            op.done = op.done.min(now);
        }
    }

    /// A guest said something to a topic. The message's serial is its name.
    pub fn publish(&mut self, by: GuestAt, topic: TopicAt, not_to_sender: bool, said_ms: u64) -> Serial {
        let sent = self.tick();
        let body = Body::Raw { opcode: 0, bytes: Vec::new() };
        let (routed, time_ms, receivers) = (NEVER, None, BTreeSet::new());
        self.messages.push(Message {
            topic,
            by,
            not_to_sender,
            body,
            sent,
            said_ms,
            routed,
            time_ms,
            receivers,
            settled: false,
        });
        self.messages.len() - 1
    }

    /// What the message is, which its serial is part of.
    pub fn set_body(&mut self, serial: Serial, body: Body) {
        self.messages[serial].body = body;
    }

    /// A message had its ack.
    pub fn routed(&mut self, serial: Serial) {
        let now = self.tick();
        let message = &mut self.messages[serial];
        message.routed = message.routed.min(now);
    }

    /// A connection is over, or nothing is demanded for it any more.
    pub fn die(&mut self, guest: GuestAt, is_certain: bool) {
        let at = self.tick();
        self.people[guest].death.get_or_insert(Death { at, is_certain });
    }

    /// What is known of a message, and the topic that it was said to.
    pub fn said(&self, serial: Serial) -> (Said, TopicAt) {
        let Some(message) = self.messages.get(serial) else { panic!("#{serial}# was never published") };
        let Message { by, not_to_sender, said_ms, topic, .. } = *message;
        (Said { serial, by, not_to_sender, said_ms }, topic)
    }

    /// The topic at a place.
    pub fn topic_at(&self, topic: TopicAt) -> &Topic {
        &self.topics[topic.0]
    }

    /// How many messages were said to a topic.
    pub fn said_count(&self, topic: TopicAt) -> u64 {
        self.messages.iter().filter(|message| message.topic == topic).count() as u64
    }

    /// The messages that a guest has said to a topic and does not get itself.
    pub fn own(&self, guest: GuestAt, topic: TopicAt) -> Vec<Serial> {
        let is_own = |message: &Message| message.by == guest && message.topic == topic && message.not_to_sender;
        let serials = self.messages.iter().enumerate().filter(|(_, message)| is_own(message));
        serials.map(|(serial, _)| serial).collect()
    }

    /// A message has come out of history, as it was said.
    pub fn recall(&mut self, guest: GuestAt, serial: Serial, body: &Body, time_ms: Option<u64>) {
        let now = self.tick();
        let message = &mut self.messages[serial];
        let what = format!("message #{serial}# out of history at guest {guest}");
        assert!(message.body == *body, "{what} is not what was said");
        message.routed = message.routed.min(now);
        assert_eq!(*message.time_ms.get_or_insert(time_ms.unwrap_or_default()), time_ms.unwrap_or_default(), "{what}");
    }

    /// A message has come.
    pub fn receive(&mut self, guest: GuestAt, serial: Serial, body: &Body, time_ms: Option<u64>) {
        let now = self.tick();
        let Some(message) = self.messages.get_mut(serial) else { panic!("#{serial}# was never published") };
        let topic = message.topic;
        let what = format!("message #{serial}# to {:?} at guest {guest}", self.topics[topic.0]);
        assert!(message.body == *body, "{what} is not what was said");
        assert!(!message.settled, "{what} comes after the network had come to rest");
        assert!(!(message.not_to_sender && message.by == guest), "{what}: its sender never gets it");
        assert!(message.receivers.insert(guest), "{what} comes twice");
        match message.time_ms {
            None => message.time_ms = time_ms,
            Some(_) => assert_eq!(message.time_ms, time_ms, "{what}: its time is the same for all"),
        }
        message.routed = message.routed.min(now);
        let (routed, sent, by) = (message.routed, message.sent, message.by);
        let ops = self.ops.get(&(topic, guest)).map_or(&[][..], Vec::as_slice);
        assert_ne!(verdict(ops, sent, routed), Verdict::MustNot, "{what}: it is no member");
        assert!(may_be_member(ops), "{what}: as its own replies tell, it is no member now");
        self.received += 1;
        let seen = self.seen.entry((topic, guest)).or_default();
        assert!(routed >= seen.newest_sent, "{what}: it was routed before one that came earlier was said");
        let earlier = seen.serials.iter().rev().find(|&&earlier| self.messages[earlier].by == by);
        assert!(earlier.is_none_or(|&earlier| earlier < serial), "{what} comes behind what {by} said later");
        seen.newest_sent = seen.newest_sent.max(sent);
        seen.serials.push(serial);
    }

    /// The network is at rest: judges everything since the last time. With `lenient` nothing is missed that did not
    /// come, for the node is going away.
    pub fn settle(&mut self, lenient: bool) {
        let now = self.tick();
        if !lenient {
            self.judge_messages();
        }
        self.judge_orders();
        let since = self.settled_at;
        self.notices.settle(
            &self.ops,
            &self.people.iter().map(|p| (p.user.as_str(), p.death)).collect::<Vec<_>>(),
            since,
            now,
            lenient,
        );
        for message in &mut self.messages[self.first_unsettled..] {
            message.settled = true;
        }
        self.first_unsettled = self.messages.len();
        self.seen.clear();
        let people = &self.people;
        self.ops.retain(|(_, guest), ops| {
            let last = ops.len().saturating_sub(1);
            ops.drain(..last);
            ops.iter_mut().for_each(|op| op.done = op.done.min(now));
            people[*guest].death.is_none() && ops.iter().any(|op| op.joins)
        });
        self.settled_at = now;
    }

    /// The users in a topic once the network is at rest.
    pub fn users(&self, topic: TopicAt) -> BTreeSet<&str> {
        let members = self.ops.iter().filter(|((at, _), ops)| *at == topic && ops.last().is_some_and(|op| op.joins));
        members.map(|((_, guest), _)| self.people[*guest].user.as_str()).collect()
    }

    fn judge_messages(&mut self) {
        for (at, message) in self.messages[self.first_unsettled..].iter().enumerate() {
            let serial = self.first_unsettled + at;
            self.unheard += u64::from(message.receivers.is_empty());
            let publisher_lives = self.people[message.by].death.is_none();
            if message.routed == NEVER && !publisher_lives {
                continue;
            }
            for (&(_, guest), ops) in self.ops.range((message.topic, 0)..=(message.topic, usize::MAX)) {
                let excluded = message.not_to_sender && message.by == guest;
                let must = verdict(ops, message.sent, message.routed) == Verdict::Must;
                if excluded || self.people[guest].death.is_some() || !must {
                    continue;
                }
                self.demanded += 1;
                let topic = &self.topics[message.topic.0];
                assert!(
                    message.receivers.contains(&guest),
                    "message #{serial}# to {topic:?} (said at {}, routed by {}) never came to guest {guest}: {ops:?}",
                    message.sent,
                    message.routed,
                );
            }
        }
    }

    /// All receivers of a topic agree on one order, which is also every publisher's own.
    fn judge_orders(&self) {
        let mut after: BTreeMap<TopicAt, BTreeMap<Serial, BTreeSet<Serial>>> = BTreeMap::new();
        for ((topic, _), seen) in &self.seen {
            let edges = after.entry(*topic).or_default();
            for pair in seen.serials.windows(2) {
                edges.entry(pair[0]).or_default().insert(pair[1]);
            }
        }
        let mut last_of: BTreeMap<(TopicAt, GuestAt), Serial> = BTreeMap::new();
        for (at, message) in self.messages[self.first_unsettled..].iter().enumerate() {
            let serial = self.first_unsettled + at;
            if let Some(last) = last_of.insert((message.topic, message.by), serial) {
                after.entry(message.topic).or_default().entry(last).or_default().insert(serial);
            }
        }
        for (topic, edges) in after {
            assert!(!has_cycle(&edges), "the receivers of {:?} do not agree on one order", self.topics[topic.0]);
        }
    }
}

/// What the intervals decide for a message said at `sent` and routed by `routed`.
pub fn verdict(ops: &[Op], sent: Tick, routed: Tick) -> Verdict {
    let done = |at: usize| ops[at..].iter().map(|op| op.done).min().unwrap_or(NEVER);
    let before = (0..ops.len()).take_while(|&at| done(at) < sent).count();
    let member = before > 0 && ops[before - 1].joins;
    let mut meanwhile = ops[before..].iter().take_while(|op| op.sent <= routed);
    match (meanwhile.any(|op| op.joins != member), member) {
        (true, _) => Verdict::May,
        (false, true) => Verdict::Must,
        (false, false) => Verdict::MustNot,
    }
}

/// Whether a guest that has had these replies, and no others, may be a member.
fn may_be_member(ops: &[Op]) -> bool {
    let replied = ops.iter().rposition(|op| op.done != NEVER).map_or(0, |at| at + 1);
    let silent = ops[replied..].iter().take_while(|op| !op.has_reply);
    ops[..replied].last().into_iter().chain(silent).any(|op| op.joins)
}

fn has_cycle(after: &BTreeMap<Serial, BTreeSet<Serial>>) -> bool {
    let mut before: BTreeMap<Serial, usize> = after.keys().map(|&serial| (serial, 0)).collect();
    for &next in after.values().flatten() {
        *before.entry(next).or_default() += 1;
    }
    let mut free: Vec<Serial> = before.iter().filter(|(_, count)| **count == 0).map(|(&serial, _)| serial).collect();
    let mut placed = 0;
    while let Some(serial) = free.pop() {
        placed += 1;
        for next in after.get(&serial).into_iter().flatten() {
            let count = before.entry(*next).or_default();
            *count -= 1;
            if *count == 0 {
                free.push(*next);
            }
        }
    }
    placed < before.len()
}
