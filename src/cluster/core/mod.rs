//! What a node publishes and receives in its cluster, sans-IO: mail and what comes from Redis go in, mail and commands come
//! out.
//!
//! ```text
//!   homes ── ToCluster ──►  Core ── Commands, Subscribe ──►  Redis connections (or simulated ones)
//!         ◄─ FromCluster ──      ◄─ Replies, Received, Up, Down ──
//! ```
//!
//! There are two connections, one for commands and one that subscribes, and each may be lost at any time without the
//! other. Commands of one hand-over are answered together, in order. A node can reach its cluster while both are up.
//!
//! Sees no socket and no clock.

mod attachment;
mod feeds;
mod fences;
mod items;
mod items_feed;
mod items_page;
mod loads;
mod messages;
mod nodes;
mod orders;
mod presence;
mod presence_answers;
mod publish;
mod revocations;
mod surveys;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arcstr::ArcStr;
use slab::Slab;

use super::names::Names;
use super::record::{self, Incoming, Record};
use crate::frame::FrameBuilder;
use crate::ids::{ClientIdCodec, PeerId, ReactorId, ReplyTo, RequestId};
use crate::limits::{
    CLUSTER_ANSWER_MS_MAX, CLUSTER_CANARY_MS, CLUSTER_CANARY_MS_MAX, CLUSTER_HELLO_MS, CLUSTER_SUBSCRIBE_MAX,
};
use crate::metrics::{ClusterCounts, Vitals};
use crate::router::Mail;
use crate::router::cluster::{FromCluster, ToCluster};
use crate::time::Millis;

pub use messages::{
    Command, Input, ItemsFound, ItemsRange, ItemsRead, NewEntry, Output, ReadItems, ReadRange, Reply, StreamEntry,
    UpdateItems, Updated,
};

use attachment::Lingering;
use feeds::{Feed, KeptOfTopic};
use fences::{Fences, Tickets};
use items::{ItemsExpected, ItemsQueues};
use items_feed::ItemsLoads;
use items_page::ItemsPageRead;
use loads::Loads;
use nodes::Peers;
use orders::PageRead;
use presence::Presence;
use presence_answers::PresenceAnswers;
use publish::{Envelope, Heard, Pending};
use revocations::Revocations;
use surveys::Surveys;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A number that no other run of a server has.
    pub run: u64,
    /// Reads and makes this node's client ids.
    pub codec: ClientIdCodec,
    /// The key they are made with.
    pub key: [u8; 16],
    /// Reactors of this node.
    pub reactors: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscriber {
    Down,
    /// Connected then; the node's own channels are not confirmed yet.
    Beginning(Millis),
    Up,
}

/// See the module's documentation.
pub struct Core {
    me: Identity,
    names: Names,
    everyone: Arc<str>,
    own_channel: Arc<str>,
    now: Millis,
    commands_up: bool,
    subscriber: Subscriber,
    reachable: bool,
    feeds: Slab<Feed>,
    feeds_by_name: HashMap<Arc<str>, usize>,
    lingering: Lingering,
    loads: Loads,
    /// Updates of items that go to Redis.
    items: ItemsQueues,
    /// What names of items are hashed with.
    items_seed: u64,
    items_loads: ItemsLoads,
    /// Feeds that could not be read although Redis answers.
    failed: Vec<FeedId>,
    generations: u64,
    envelopes: Vec<Envelope>,
    envelopes_by_channel: HashMap<Arc<str>, usize>,
    pending: Pending,
    presence: Presence,
    presence_answers: PresenceAnswers,
    surveys: Surveys,
    revocations: Revocations,
    /// Pages of histories that requests have asked Redis for.
    pages: usize,
    tickets: Tickets,
    fences: Fences,
    peers: Peers,
    hello_at: Millis,
    /// How this node is doing, as it tells the others.
    vitals: Vitals,
    canary_at: Millis,
    canary: Canary,
    subscribe: Vec<Arc<str>>,
    unsubscribe: Vec<Arc<str>>,
    outputs: VecDeque<Output>,
    mail: Vec<(PeerId, Mail)>,
    frames: FrameBuilder,
    counts: ClusterCounts,
}

/// What a node sends itself to see whether what is published arrives.
#[derive(Debug, Default)]
struct Canary {
    last_sent: u64,
    last_seen: u64,
    /// When the oldest that was not seen was sent.
    unseen_since: Option<Millis>,
}

impl Core {
    /// A node that has no connection yet. Names in Redis begin with `prefix`.
    pub fn new(me: Identity, prefix: &str) -> Core {
        let names = Names::new(prefix);
        Core {
            everyone: names.everyone(),
            own_channel: names.node(me.run),
            names,
            items: ItemsQueues::default(),
            items_seed: seed_of(&me.key),
            items_loads: ItemsLoads::default(),
            me,
            now: Millis(0),
            commands_up: false,
            subscriber: Subscriber::Down,
            reachable: false,
            feeds: Slab::new(),
            feeds_by_name: HashMap::new(),
            lingering: Lingering::default(),
            loads: Loads::default(),
            failed: Vec::new(),
            generations: 0,
            envelopes: Vec::new(),
            envelopes_by_channel: HashMap::new(),
            pending: Pending::default(),
            presence: Presence::default(),
            presence_answers: PresenceAnswers::default(),
            surveys: Surveys::default(),
            revocations: Revocations::default(),
            pages: 0,
            tickets: Tickets::default(),
            fences: Fences::default(),
            peers: Peers::default(),
            hello_at: Millis(0),
            vitals: Vitals::default(),
            canary_at: Millis(0),
            canary: Canary::default(),
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            outputs: VecDeque::new(),
            mail: Vec::new(),
            frames: FrameBuilder::default(),
            counts: ClusterCounts::default(),
        }
    }

    /// Takes mail of a reactor of this node, or of the control thread.
    ///
    /// # Panics
    /// Where another peer sent it, or the control thread what only reactors have for the cluster.
    pub fn handle_mail(&mut self, from: PeerId, request: ToCluster) {
        let from = match (from, request) {
            (PeerId::Control, ToCluster::Survey { request, survey }) => return self.ask_all(request, survey),
            (PeerId::Control, ToCluster::Order { request, order }) => return self.order(request, order),
            (PeerId::Reactor(from), request) => return self.reactor_mail(from, request),
            (from, request) => (from, request),
        };
        unreachable!("{from:?} is not for the cluster")
    }

    fn reactor_mail(&mut self, from: ReactorId, request: ToCluster) {
        match request {
            ToCluster::Attach { topic, attach, policy: history, keyed } => {
                self.open(from, topic, attach, KeptOfTopic { history, keyed });
            }
            ToCluster::Idle { topic, attach } => self.idle(topic.borrow(), attach),
            ToCluster::Detach { topic } => self.close(topic.borrow()),
            ToCluster::Publish { topic, frames, messages } => {
                self.publish_messages(topic.borrow(), messages, &Record::Messages(&frames));
            }
            ToCluster::Notice { topic, frame } => self.publish_messages(topic.borrow(), 1, &Record::Notice(&frame)),
            ToCluster::Append(append) => self.append(*append),
            ToCluster::UpdateItems(update) => self.update_items(from, *update),
            ToCluster::ExpireItems(expiry) => self.expire_items(&expiry),
            ToCluster::ReadItems(page) => self.read_items_page(*page),
            ToCluster::Direct { to, frame } => self.direct(to, &frame),
            ToCluster::Load { topic, from, before, wanted } => self.load(topic.borrow(), from, before, wanted),
            ToCluster::Enough { topic } => self.enough(topic.borrow()),
            ToCluster::Check { topic } => self.check(topic.borrow()),
            ToCluster::Presence { topic, asker, id } => self.ask_presence(from, topic, asker, id),
            ToCluster::Present { question, crowd } if question.run == self.me.run => {
                self.presence_here(question.number, &crowd);
            }
            ToCluster::Present { question, crowd } => self.answer_presence(question, crowd),
            ToCluster::Fence { member, rounds_left } => self.fence(from, member, rounds_left),
            ToCluster::Found { id, found } => self.found_here(id, found),
            ToCluster::Purge { request, topic, policy } => self.purge(request, &topic, policy),
            ToCluster::Read { request, topic, policy, range, limit } => {
                self.read_page(request, &topic, policy, range, limit);
            }
            ToCluster::Survey { .. } | ToCluster::Order { .. } => unreachable!("the control thread asks for it"),
        }
    }

    /// Takes what comes from the connections.
    pub fn handle(&mut self, input: Input<'_>) {
        match input {
            Input::CommandsUp => {
                self.commands_up = true;
                self.see_whether_reachable();
            }
            Input::CommandsDown => self.commands_down(),
            Input::Replies { batch, replies } => self.replies(batch, replies),
            Input::SubscriberUp => self.subscriber_up(),
            Input::SubscriberDown => self.subscriber_down(),
            Input::Subscribed(channels) => self.subscribed(&channels),
            Input::Received { channel, payload } => self.received(channel, payload),
        }
    }

    /// The time is `now`; to be called before anything else is handled, and whenever [`Core::next_at`] has come.
    pub fn handle_time(&mut self, now: Millis) {
        self.now = now;
        if self.pending.overdue(now, CLUSTER_ANSWER_MS_MAX) {
            self.commands_down();
            self.outputs.push_back(Output::ResetCommands);
        }
        let silent_since = match self.subscriber {
            Subscriber::Down => None,
            Subscriber::Beginning(since) => Some(since),
            // Without commands no canary is sent.
            Subscriber::Up => self.canary.unseen_since.filter(|_| self.commands_up),
        };
        if silent_since.is_some_and(|since| now.since(since) > CLUSTER_CANARY_MS_MAX) {
            self.subscriber_down();
            self.outputs.push_back(Output::ResetSubscriber);
        }
        if self.commands_up && self.canary_at <= now {
            self.canary_at = now.saturating_add(CLUSTER_CANARY_MS);
            self.send_canary();
            self.resync_failed();
            self.read_revocations();
        }
        if self.reachable && self.hello_at <= now {
            self.publish_hello(false);
        }
        self.peers.forget_silent(now);
        self.presence_goes_on();
        self.surveys_go_on();
        self.presence_answers.forget_old(now);
        self.stop_lingering();
    }

    /// When [`Core::handle_time`] has something to do, at the latest.
    pub fn next_at(&self) -> Millis {
        let often = if self.reachable { CLUSTER_CANARY_MS / 4 } else { CLUSTER_CANARY_MS };
        let rested_at = self.presence.rested_at().unwrap_or(Millis(u64::MAX));
        self.now.saturating_add(often).min(rested_at)
    }

    /// What the connections are to do, in order. To be drained after each round of inputs.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.flush_envelopes();
        self.flush_items();
        self.pass_fences();
        if let Some(output) = self.pending.take_batch(self.now) {
            self.outputs.push_back(output);
        }
        if !self.unsubscribe.is_empty() {
            self.outputs.push_back(Output::Unsubscribe(std::mem::take(&mut self.unsubscribe)));
        }
        // Piece by piece, so that each is confirmed when it is done and Redis is not held up.
        while !self.subscribe.is_empty() {
            let rest = self.subscribe.split_off(self.subscribe.len().min(CLUSTER_SUBSCRIBE_MAX));
            self.outputs.push_back(Output::Subscribe(std::mem::replace(&mut self.subscribe, rest)));
        }
        self.outputs.pop_front()
    }

    /// Mail for other peers, in order.
    pub fn poll_mail(&mut self) -> impl Iterator<Item = (PeerId, Mail)> {
        self.mail.drain(..)
    }

    /// Whether nothing is to be sent, and all that was is answered.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.envelopes.is_empty() && self.items.is_empty() && self.outputs.is_empty()
    }

    /// Whether something waits for an answer of Redis. Where nothing does, answers may be looked at some milliseconds
    /// late: they only tell that Redis is alive.
    pub fn awaits_answers(&self) -> bool {
        self.pending.is_awaited() || !self.fences.is_empty()
    }

    /// What was done so far.
    pub fn counts(&self) -> ClusterCounts {
        let (peers, feeds) = (self.peers.count() as u64, self.feeds.len() as u64);
        let lag_ms = self.canary.unseen_since.map_or(0, |since| self.now.since(since));
        ClusterCounts { reachable: u64::from(self.reachable), peers, lag_ms, feeds, ..self.counts }
    }

    /// Checks the tables against each other; for tests.
    ///
    /// # Panics
    /// Where they contradict each other.
    #[cfg(any(test, debug_assertions))]
    pub fn check_invariants(&self) {
        assert_eq!(self.feeds.len(), self.feeds_by_name.len());
        for (channel, &at) in &self.feeds_by_name {
            assert_eq!(**channel, *self.feeds[at].channel);
        }
        assert!(!self.reachable || (self.commands_up && self.subscriber == Subscriber::Up));
        self.pending.check_invariants();
        self.items.check_invariants();
        let held = self.feeds.iter().flat_map(|(_, feed)| feed.tickets()).chain(self.presence.tickets());
        let held = held.chain(self.items.tickets()).collect::<std::collections::BTreeSet<u64>>();
        assert_eq!(held, *self.tickets.outstanding(), "who is waited for has a ticket");
    }

    /// The first thing that something is still to come of, in words; for tests.
    #[cfg(any(test, debug_assertions))]
    pub fn under_way(&self) -> Option<String> {
        if !self.is_idle() {
            return Some("commands are not answered".to_owned());
        }
        if !self.presence.is_idle() {
            return Some("who is in a room is not answered".to_owned());
        }
        if !self.surveys.is_idle() || self.pages > 0 {
            return Some("a request is not answered".to_owned());
        }
        if !self.subscribe.is_empty() || !self.unsubscribe.is_empty() || !self.mail.is_empty() {
            return Some("something is not handed out".to_owned());
        }
        self.feeds.iter().find_map(|(_, feed)| feed.under_way())
    }

    fn notify(&mut self, home: ReactorId, news: FromCluster) {
        self.mail.push((home.into(), Mail::from_cluster(news)));
    }

    /// Tells every reactor.
    fn notify_all(&mut self, news: impl Fn() -> FromCluster) {
        for reactor in (0..self.me.reactors).map(ReactorId) {
            self.notify(reactor, news());
        }
    }

    fn commands_down(&mut self) {
        self.commands_up = false;
        self.see_whether_reachable();
        self.fail_commands();
        self.fail_items();
    }

    fn subscriber_up(&mut self) {
        self.subscriber = Subscriber::Beginning(self.now);
        self.canary = Canary { last_sent: self.canary.last_sent, last_seen: self.canary.last_sent, unseen_since: None };
        self.unsubscribe.clear();
        self.subscribe = vec![self.everyone.clone(), self.own_channel.clone()];
        self.subscribe_feeds();
    }

    fn subscriber_down(&mut self) {
        self.subscriber = Subscriber::Down;
        self.canary.unseen_since = None;
        self.subscribe.clear();
        self.unsubscribe.clear();
        self.forget_subscriptions();
        self.release_all_acks();
        self.see_whether_reachable();
    }

    fn subscribed(&mut self, channels: &[Arc<str>]) {
        for channel in channels {
            match *channel == self.own_channel {
                true => {
                    self.subscriber = Subscriber::Up;
                    self.see_whether_reachable();
                }
                false => self.feed_subscribed(channel),
            }
        }
    }

    /// The cluster can be reached from now on, or not any more.
    fn see_whether_reachable(&mut self) {
        let reachable = self.commands_up && self.subscriber == Subscriber::Up;
        if reachable == self.reachable {
            return;
        }
        self.reachable = reachable;
        self.notify_all(|| FromCluster::Reachable(reachable));
        match reachable {
            true => {
                self.publish_hello(true);
                self.resync_all();
                // What was revoked while it was out of reach was not heard.
                self.revocations = match self.revocations {
                    Revocations::Unread | Revocations::Read => Revocations::Unread,
                    Revocations::Reading => Revocations::Reading,
                };
                self.read_revocations();
            }
            false => {
                self.refuse_pending();
                self.give_up_surveys();
            }
        }
    }

    fn send_canary(&mut self) {
        self.canary.last_sent += 1;
        // Before anything is subscribed it shows no more than whether commands are answered.
        if self.subscriber == Subscriber::Up {
            self.canary.unseen_since.get_or_insert(self.now);
        }
        let channel = self.own_channel.clone();
        self.publish(&channel, &Record::Canary { number: self.canary.last_sent });
    }

    fn see_canary(&mut self, number: u64) {
        let missed = number != self.canary.last_seen + 1;
        self.canary.last_seen = number;
        self.canary.unseen_since = (number < self.canary.last_sent).then_some(self.now);
        if missed {
            // One was lost on the way, and so may have been anything else.
            self.resync_all();
        }
    }

    fn received(&mut self, channel: &str, payload: &[u8]) {
        match record::read(payload) {
            None => self.counts.unreadable += 1,
            Some(Incoming::Kept(kept)) => self.received_kept(channel, kept),
            Some(Incoming::Placement(placement)) => self.received_placement(channel, placement),
            Some(Incoming::Items(records)) => self.received_records(channel, records),
            Some(Incoming::Envelope { run, records }) => {
                for record in records {
                    match *channel == *self.own_channel {
                        true => self.received_here(run, record),
                        false => self.received_on_topic(channel, run, record),
                    }
                }
            }
        }
    }

    /// What was said to this node alone.
    fn received_here(&mut self, run: u64, record: Record<'_>) {
        match record {
            Record::Canary { number } if run == self.me.run => self.see_canary(number),
            Record::Hello { node, key, asks, vitals } => {
                self.heard_hello(run, ClientIdCodec::new(key, node), asks, vitals);
            }
            Record::Present(present) => self.presence_answered(run, &present),
            Record::PresentMore { number } => self.publish_next_piece(run, number),
            Record::Found { number, reactors, body } => self.found_elsewhere(run, number, reactors, body),
            Record::Direct { to, payload } => {
                self.counts.received += 1;
                let frame = self.text_frame(payload);
                if to.reactor.0 < self.me.reactors {
                    self.mail.push((to.reactor.into(), Mail::direct(to, frame)));
                }
            }
            Record::Canary { .. }
            | Record::Messages(_)
            | Record::Notice(_)
            | Record::Presence { .. }
            | Record::Disconnect { .. }
            | Record::Kick { .. }
            | Record::Revoke { .. }
            | Record::Survey { .. } => self.counts.unreadable += 1,
        }
    }
}

/// Who is notified of what became of a command.
#[derive(Debug)]
enum Expect {
    /// Nobody.
    Nothing,
    /// Those who wait for how many nodes have got it.
    Heard(Vec<Heard>),
    /// The publishers, in the order of the entries.
    Append {
        /// The topic's.
        channel: Arc<str>,
        /// The topic's name, where it is a room.
        room: Option<ArcStr>,
        publishers: Vec<(ReplyTo, Option<Box<str>>)>,
    },
    /// The follower of a feed.
    Follow(FeedId),
    /// A home that wants older messages than it has: the number of its load.
    Load(FeedId, u64),
    /// A request that reads a history.
    Page(PageRead),
    /// A request that has a history forgotten, and the topic's channel.
    Purge(RequestId, Arc<str>),
    /// A request that revokes a user's tokens.
    Revoke { request: RequestId, user: Box<str>, unix_s: u64 },
    /// This node, which reads whose tokens are revoked.
    Revocations,
    /// The publishers of a keyed room.
    ItemsUpdated(ItemsExpected),
    /// A feed that reads items: the number of its load.
    ItemsRead(FeedId, u64),
    /// A request that reads items.
    ItemsPage(Box<ItemsPageRead>),
}

/// A seed that is not known outside, as the key is not.
fn seed_of(key: &[u8; 16]) -> u64 {
    let (halves, _) = key.as_chunks::<8>();
    halves.iter().fold(0, |seed, half| seed ^ u64::from_ne_bytes(*half))
}

/// A feed by its slot, and which of those that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FeedId {
    at: usize,
    generation: u64,
}

const _: () = assert!(CLUSTER_CANARY_MS < CLUSTER_CANARY_MS_MAX && CLUSTER_CANARY_MS < CLUSTER_HELLO_MS);
