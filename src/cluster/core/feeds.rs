//! From Redis to here: which topics are followed, and what comes on their channels.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::follower::{Follower, Placed, Step, StreamRead};
use super::super::record::{Entry, Kept, Record};
use super::fences::{HeldAck, Ticket};
use super::loads::Load;
use super::{Command, Core, Expect, FeedId, ReadRange, Reply, Subscriber};
use crate::compress::SharedFrame;
use crate::frame::{Opcode, whole_frames};
use crate::ids::{ConnId, ReactorId};
use crate::limits::CLUSTER_LINGER_MS;
use crate::protocol;
use crate::router::cluster::{FromCluster, Opening, Question};
use crate::router::{Crowd, CrowdKey, HistoryPolicy, Kind, Others, Place, TopicKey, TopicRef};
use crate::time::Millis;

/// A topic that is followed for its home.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) topic: TopicKey,
    pub(super) channel: Arc<str>,
    pub(super) home: ReactorId,
    pub(super) generation: u64,
    /// `None` while its home does not want it any more and the feed only lingers.
    pub(super) opening: Option<Opening>,
    told: Told,
    /// Whether Redis has confirmed the subscription.
    is_subscribed: bool,
    /// Whether the home wants to know when all that is new is here.
    is_checked: bool,
    pub(super) stream: Option<Stream>,
    /// Since when there is no member here, as far as its home has said so.
    idle_since: Option<Millis>,
    /// Where its home waits for it to be opened, or for what is new.
    ticket: Option<Ticket>,
    /// Acks of messages that are not here yet, in order.
    pub(super) acks: VecDeque<HeldAck>,
    /// Older messages that the home waits for.
    pub(super) load: Option<Load>,
}

impl Feed {
    pub(super) fn place(&self) -> Option<&Place> {
        self.stream.as_ref()?.follower.place()
    }

    /// Whether its home gets what comes.
    pub(super) fn is_told_of_messages(&self) -> bool {
        self.opening.is_some() && self.told == Told::Opened
    }

    /// Whether its home waits to hear that it is opened, or up to date.
    fn is_waited_for(&self) -> bool {
        self.opening.is_some() && (self.told == Told::Nothing || self.is_checked)
    }
}

#[cfg(any(test, debug_assertions))]
impl Feed {
    /// The tickets it holds.
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> {
        let of_load = self.load.as_ref().map(|load| &load.ticket);
        let of_acks = self.acks.iter().map(|ack| &ack.ticket);
        of_acks.chain(self.ticket.as_ref()).chain(of_load).map(Ticket::number)
    }

    /// What is still to come of it, in words.
    pub(super) fn under_way(&self) -> Option<String> {
        let is_read = self.stream.as_ref().is_none_or(|stream| stream.follower.is_at_rest());
        let is_told = self.opening.is_none() || self.told == Told::Opened;
        let is_over = self.is_subscribed && is_told && !self.is_checked && self.load.is_none() && is_read;
        (!is_over).then(|| format!("{self:?} is not up to date"))
    }
}

/// A topic's history.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) policy: HistoryPolicy,
    pub(super) follower: Follower,
}

/// What the home knows of its opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Opened,
    Refused,
}

/// Feeds without a member here, each once, by when it has lingered long enough.
#[derive(Debug, Default)]
pub(super) struct Lingering(BTreeSet<(Millis, usize)>);

impl Lingering {
    fn note(&mut self, at: usize, since: Millis) {
        self.0.insert((since.saturating_add(CLUSTER_LINGER_MS), at));
    }

    fn forget(&mut self, at: usize, since: Option<Millis>) {
        if let Some(since) = since {
            self.0.remove(&(since.saturating_add(CLUSTER_LINGER_MS), at));
        }
    }

    fn take_due(&mut self, now: Millis) -> Option<usize> {
        let due = self.0.pop_first()?;
        if due.0 > now {
            self.0.insert(due);
            return None;
        }
        Some(due.1)
    }
}

impl Core {
    /// A home wants all that is published to a topic.
    pub(super) fn open(&mut self, home: ReactorId, topic: TopicKey, opening: Opening, policy: Option<HistoryPolicy>) {
        let channel = self.names.topic(topic.borrow());
        let at = match self.feeds_by_name.get(&channel) {
            Some(&at) => at,
            None => self.follow(home, topic, channel, policy),
        };
        self.set_idle(at, None);
        self.end_load(at);
        let feed = &mut self.feeds[at];
        feed.opening = Some(opening);
        feed.told = Told::Nothing;
        let (is_subscribed, has_stream) = (feed.is_subscribed, feed.stream.is_some());
        self.note_waiting(at);
        match self.reachable {
            // What was published before is to be known, even where it is still on its way here.
            true if is_subscribed && has_stream => self.look(at, false),
            true if is_subscribed => self.tell_opened(at),
            true => {}
            false => self.tell_refused(at),
        }
    }

    fn follow(&mut self, home: ReactorId, topic: TopicKey, channel: Arc<str>, policy: Option<HistoryPolicy>) -> usize {
        self.generations += 1;
        let stream = policy.map(|policy| Stream { policy, follower: Follower::default() });
        let at = self.feeds.insert(Feed {
            topic,
            channel: channel.clone(),
            home,
            generation: self.generations,
            opening: None,
            told: Told::Nothing,
            is_subscribed: false,
            is_checked: false,
            stream,
            idle_since: None,
            ticket: None,
            acks: VecDeque::new(),
            load: None,
        });
        self.feeds_by_name.insert(channel.clone(), at);
        if self.subscriber != Subscriber::Down {
            self.subscribe.push(channel);
        }
        at
    }

    /// A feed is waited for from now on, or not any more.
    fn note_waiting(&mut self, at: usize) {
        let feed = &mut self.feeds[at];
        match feed.is_waited_for() {
            true => {
                feed.ticket.get_or_insert_with(|| self.tickets.take());
            }
            false => {
                if let Some(ticket) = feed.ticket.take() {
                    self.tickets.give_back(ticket);
                }
            }
        }
    }

    fn set_idle(&mut self, at: usize, since: Option<Millis>) {
        let before = std::mem::replace(&mut self.feeds[at].idle_since, since);
        self.lingering.forget(at, before);
        if let Some(since) = since {
            self.lingering.note(at, since);
        }
    }

    /// There is no member here any more. The home keeps the topic open in case somebody comes back.
    pub(super) fn idle(&mut self, topic: TopicRef<'_>, opening: Opening) {
        if let Some(at) = self.feed(topic).filter(|&at| self.feeds[at].opening == Some(opening)) {
            self.set_idle(at, Some(self.now));
        }
    }

    /// The home does not want the topic any more.
    pub(super) fn close(&mut self, topic: TopicRef<'_>) {
        let Some(at) = self.feed(topic) else { return };
        let feed = &mut self.feeds[at];
        feed.opening = None;
        feed.is_checked = false;
        let since = feed.idle_since.unwrap_or(self.now);
        self.set_idle(at, Some(since));
        self.end_load(at);
        self.note_waiting(at);
        self.release_acks(at, true);
        self.stop_lingering();
    }

    /// Feeds that have lingered long enough go, once their homes agree.
    pub(super) fn stop_lingering(&mut self) {
        while let Some(at) = self.lingering.take_due(self.now) {
            let feed = &self.feeds[at];
            if let Some(opening) = feed.opening {
                let (home, topic) = (feed.home, feed.topic.clone());
                self.tell(home, FromCluster::Lapsed { topic, opening });
                continue;
            }
            // One whose subscription is not confirmed yet would be mistaken for that of a later feed.
            if !feed.is_subscribed && self.subscriber != Subscriber::Down {
                self.set_idle(at, Some(self.now));
                continue;
            }
            let feed = self.feeds.remove(at);
            self.feeds_by_name.remove(&feed.channel);
            if feed.is_subscribed {
                self.unsubscribe.push(feed.channel);
            }
        }
    }

    /// The subscribing connection is new: all feeds are to be subscribed.
    pub(super) fn subscribe_feeds(&mut self) {
        self.subscribe.extend(self.feeds.iter().map(|(_, feed)| feed.channel.clone()));
    }

    pub(super) fn forget_subscriptions(&mut self) {
        for (_, feed) in &mut self.feeds {
            feed.is_subscribed = false;
        }
    }

    pub(super) fn feed_subscribed(&mut self, channel: &str) {
        let Some(&at) = self.feeds_by_name.get(channel) else { return };
        let feed = &mut self.feeds[at];
        feed.is_subscribed = true;
        match feed.stream.is_some() {
            true => self.look(at, true),
            false if self.reachable => self.tell_opened(at),
            false => {}
        }
    }

    /// What could not be read is looked at again.
    pub(super) fn look_at_failed(&mut self) {
        for feed in std::mem::take(&mut self.failed) {
            let found = self.feeds.get(feed.at).filter(|found| found.generation == feed.generation);
            if found.is_some_and(|found| found.is_subscribed) {
                self.look(feed.at, true);
            }
        }
    }

    /// What was subscribed to while the cluster was out of reach otherwise is looked at, too.
    pub(super) fn look_at_all(&mut self) {
        self.failed.clear();
        let subscribed = self.feeds.iter().filter(|(_, feed)| feed.is_subscribed).map(|(at, _)| at);
        for at in subscribed.collect::<Vec<usize>>() {
            match self.feeds[at].stream.is_some() {
                true => self.look(at, true),
                false => self.tell_opened(at),
            }
        }
    }

    /// The cluster is out of reach: those who wait for a topic to be opened are told.
    pub(super) fn refuse_unopened(&mut self) {
        let waiting = self.feeds.iter().filter(|(_, feed)| feed.told == Told::Nothing).map(|(at, _)| at);
        for at in waiting.collect::<Vec<usize>>() {
            self.tell_refused(at);
        }
    }

    fn tell_opened(&mut self, at: usize) {
        let feed = &mut self.feeds[at];
        let Some(opening) = feed.opening.filter(|_| feed.told != Told::Opened) else { return };
        feed.told = Told::Opened;
        let place = feed.place().cloned();
        let (home, topic) = (feed.home, feed.topic.clone());
        self.tell(home, FromCluster::Opened { topic, opening, place });
        self.note_waiting(at);
    }

    fn tell_refused(&mut self, at: usize) {
        let feed = &mut self.feeds[at];
        let Some(opening) = feed.opening else { return };
        feed.told = Told::Refused;
        let (home, topic) = (feed.home, feed.topic.clone());
        self.tell(home, FromCluster::Refused { topic, opening });
        self.note_waiting(at);
    }

    /// A home wants to know whether a history has gone on.
    pub(super) fn check(&mut self, topic: TopicRef<'_>) {
        let Some(at) = self.feed(topic) else { return };
        self.feeds[at].is_checked = true;
        self.note_waiting(at);
        match self.commands_up {
            true => self.look(at, false),
            false => self.tell_checked(at, false),
        }
    }

    fn tell_checked(&mut self, at: usize, answered: bool) {
        let feed = &mut self.feeds[at];
        let is_checked = std::mem::replace(&mut feed.is_checked, false);
        if let Some(opening) = feed.opening.filter(|_| is_checked) {
            let (home, topic) = (feed.home, feed.topic.clone());
            self.tell(home, FromCluster::Checked { topic, opening, answered });
        }
        self.note_waiting(at);
    }

    /// Has a stream read; as a `suspect` where something may have been lost on its channel.
    fn look(&mut self, at: usize, suspect: bool) {
        if let Some(stream) = &mut self.feeds[at].stream {
            let steps = stream.follower.look(suspect);
            self.take_steps(at, steps);
        }
    }

    /// A stream was read, or could not be.
    pub(super) fn feed_read(&mut self, feed: FeedId, reply: Reply) {
        let Some(found) = self.feeds.get_mut(feed.at).filter(|found| found.generation == feed.generation) else {
            return;
        };
        let Some(stream) = &mut found.stream else { return };
        match reply {
            Reply::Read { end, more, entries, now_ms: _ } => {
                let entries = entries.into_iter().map(|entry| (entry.offset, entry.entry)).collect();
                let steps = stream.follower.read_answered(StreamRead { end, entries, more });
                self.take_steps(feed.at, steps);
            }
            Reply::Published(_) | Reply::Appended { .. } | Reply::Failed => {
                stream.follower.read_failed();
                self.failed.push(feed);
                self.tell_checked(feed.at, false);
                if self.feeds[feed.at].told == Told::Nothing {
                    self.tell_refused(feed.at);
                }
            }
        }
    }

    fn take_steps(&mut self, at: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Began(_) => {}
                Step::Read => self.read_stream(at),
                Step::Deliver(offset, entry) => {
                    self.deliver(at, offset, &entry);
                    self.release_acks(at, false);
                }
                Step::Gap(place) => {
                    // It belongs in front of what was here.
                    self.end_load(at);
                    let feed = &self.feeds[at];
                    if let Some(opening) = feed.opening.filter(|_| feed.told == Told::Opened) {
                        self.counts.gaps += 1;
                        let (home, topic) = (feed.home, feed.topic.clone());
                        self.tell(home, FromCluster::Gap { topic, opening, place });
                    }
                    self.release_acks(at, true);
                }
                Step::UpToDate => {
                    self.tell_opened(at);
                    self.tell_checked(at, true);
                }
            }
        }
    }

    fn read_stream(&mut self, at: usize) {
        let feed = &self.feeds[at];
        let Some(stream) = &feed.stream else { return };
        let range = match stream.follower.read_from() {
            None => ReadRange::End,
            Some(from) => ReadRange::From(from),
        };
        self.counts.repairs += u64::from(range != ReadRange::End);
        let (topic, policy) = (feed.channel.clone(), stream.policy);
        let expect = Expect::Follow(FeedId { at, generation: feed.generation });
        match self.commands_up {
            true => {
                let seed = self.seed();
                self.pending.push(Command::Read { topic, policy, seed, range }, expect);
            }
            false => self.feed_read(FeedId { at, generation: feed.generation }, Reply::Failed),
        }
    }

    fn deliver(&mut self, at: usize, offset: u64, entry: &[u8]) {
        self.counts.received += 1;
        let feed = &self.feeds[at];
        let Some(opening) = feed.opening.filter(|_| feed.told == Told::Opened) else { return };
        let (home, topic) = (feed.home, feed.topic.clone());
        let news = match self.placed_frame(offset, entry) {
            Some((frame, exclude)) => FromCluster::Kept { topic, opening, offset, frame, exclude },
            // Somebody else has written to the stream: what it says nobody knows, so nobody has it.
            None => {
                let epoch = self.feeds[at].stream.as_ref().and_then(|stream| stream.follower.place());
                let Some(place) = epoch.map(|place| Place { epoch: place.epoch.clone(), offset }) else {
                    return;
                };
                self.counts.unreadable += 1;
                FromCluster::Gap { topic, opening, place }
            }
        };
        self.tell(home, news);
    }

    /// An entry as the frame that clients get, and a connection of this node that is not to get it.
    pub(super) fn placed_frame(&mut self, offset: u64, entry: &[u8]) -> Option<(SharedFrame, Option<ConnId>)> {
        let Entry { exclude, payload } = Entry::read(entry)?;
        let frame = self.frames.build(Opcode::Text, |out| protocol::put_offset(out, payload, offset)).into();
        let exclude = exclude.filter(|(run, _)| *run == self.me.run).map(|(_, conn)| conn);
        Some((frame, exclude))
    }

    /// Messages of a history that came on its channel.
    pub(super) fn received_kept(&mut self, channel: &str, kept: Kept<'_>) {
        let Some(&at) = self.feeds_by_name.get(channel) else { return };
        let Kept { epoch, first, entries } = kept;
        let epoch: Arc<str> = epoch.into();
        for (offset, entry) in (first..).zip(entries) {
            let Some(stream) = &mut self.feeds[at].stream else { return };
            let message = Placed { epoch: epoch.clone(), offset, entry: entry.to_vec() };
            let steps = stream.follower.live(message);
            self.take_steps(at, steps);
        }
    }

    /// What another node, or this one, has said on a topic's channel.
    pub(super) fn received_on_topic(&mut self, channel: &str, run: u64, record: Record<'_>) {
        let is_everyone = *channel == *self.everyone;
        let (home, topic) = match self.feeds_by_name.get(channel) {
            Some(&at) => (self.feeds[at].home, self.feeds[at].topic.clone()),
            None if is_everyone => (ReactorId(0), TopicKey::everyone()),
            // The subscription is about to end, but Redis has counted it among those that answer.
            None => {
                return match record {
                    Record::Presence { number, .. } if run == self.me.run => self.presence_echoed(number),
                    Record::Presence { number, key, .. } => {
                        let nobody = Crowd { users: 0, names: Vec::new(), others: Others::Hashes(Vec::new()) };
                        self.answer_presence(Question { run, number, key: CrowdKey(key) }, nobody);
                    }
                    _ => {}
                };
            }
        };
        match record {
            // Whoever is here has it already.
            Record::Messages(_) | Record::Notice(_) if run == self.me.run => {}
            Record::Messages(frames) => {
                self.counts.received += whole_frames(frames).count() as u64;
                self.tell(home, FromCluster::Deliver { topic, frames: frames.into() });
            }
            Record::Notice(frame) => self.tell(home, FromCluster::Notice { topic, frame: frame.into() }),
            Record::Presence { number, .. } if run == self.me.run => self.presence_echoed(number),
            Record::Presence { number, key, names } => {
                let question = Question { run, number, key: CrowdKey(key) };
                self.tell(home, FromCluster::Asked { topic, question, names: usize::from(names) });
            }
            Record::Hello { node, key, asks } if is_everyone => self.heard_hello(run, node, key, asks),
            Record::Disconnect { user } if is_everyone => {
                if let Some(at) = self.feed(TopicRef { kind: Kind::Inbox, name: user }) {
                    let (home, topic) = (self.feeds[at].home, self.feeds[at].topic.clone());
                    let (user, reason) = (topic.name.clone(), "".into());
                    self.tell(home, FromCluster::Expel { topic, user, reason });
                }
            }
            Record::Kick { user, reason } if topic.kind == Kind::Room => {
                let (user, reason) = (user.into(), reason.into());
                self.tell(home, FromCluster::Expel { topic, user, reason });
            }
            Record::Present(_)
            | Record::PresentMore { .. }
            | Record::Direct { .. }
            | Record::Hello { .. }
            | Record::Canary { .. }
            | Record::Disconnect { .. }
            | Record::Kick { .. } => {
                self.counts.unreadable += 1;
            }
        }
    }

    pub(super) fn feed(&self, topic: TopicRef<'_>) -> Option<usize> {
        self.feeds_by_name.get(&self.names.topic(topic)).copied()
    }
}
