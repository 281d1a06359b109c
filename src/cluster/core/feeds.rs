//! From Redis to here: which topics are followed, and what comes on their channels.

use std::sync::Arc;

use arcstr::ArcStr;

use super::super::follower::{Follower, LiveMessage, Reason, Step, StreamRead};
use super::super::record::{Entry, Kept, Record};
use super::attachment::{Attached, Attachment};
use super::fences::Release;
#[cfg(any(test, debug_assertions))]
use super::fences::Ticket;
use super::{Command, Core, Expect, FeedId, ReadRange, Reply, Subscriber};
use crate::compress::SharedFrame;
use crate::frame::{Opcode, whole_frames};
use crate::ids::{ClientIdCodec, ConnId, ReactorId};
use crate::protocol;
use crate::router::cluster::{AttachId, FromCluster, Question};
use crate::router::{Crowd, CrowdKey, HistoryPolicy, Kind, Others, StreamPosition, TopicKey, TopicRef};

/// A topic that is followed for its home.
///
/// ```text
///              Subscribe                 confirmed by Redis
///   Unconfirmed ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─► Confirmed
///        ▲                                                    │
///        └──────── the connection that subscribes is lost ────┘
/// ```
///
/// The topic, its home, the attachment, and of a stream the policy and the position are state. The subscription can be
/// made again; the channel follows from the topic, and the generation only tells this feed from others.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) topic: TopicKey,
    pub(super) channel: Arc<str>,
    pub(super) home: ReactorId,
    pub(super) generation: u64,
    pub(super) attachment: Attachment,
    subscription: Subscription,
    /// `None` for a topic that keeps no history.
    pub(super) stream: Option<Stream>,
}

/// What Redis knows of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    /// It was not asked yet, or has not confirmed it.
    Unconfirmed,
    /// It sends what comes on the channel.
    Confirmed,
}

impl Feed {
    /// Where it is in its stream.
    pub(super) fn position(&self) -> Option<&StreamPosition> {
        self.stream.as_ref()?.follower.position()
    }

    pub(super) fn attached(&self) -> Option<&Attached> {
        self.attachment.as_attached()
    }

    fn is_subscribed(&self) -> bool {
        match self.subscription {
            Subscription::Unconfirmed => false,
            Subscription::Confirmed => true,
        }
    }
}

#[cfg(any(test, debug_assertions))]
impl Feed {
    /// The tickets it holds.
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> {
        self.attachment.tickets().map(Ticket::number)
    }

    /// What is still to come of it, in words.
    pub(super) fn under_way(&self) -> Option<String> {
        let is_read = self.stream.as_ref().is_none_or(|stream| stream.follower.is_at_rest());
        let is_over = self.is_subscribed() && self.attachment.is_at_rest() && is_read;
        (!is_over).then(|| format!("{self:?} is not up to date"))
    }
}

/// A topic's history.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) policy: HistoryPolicy,
    pub(super) follower: Follower,
}

impl Core {
    /// A home wants all that is published to a topic.
    pub(super) fn open(&mut self, home: ReactorId, topic: TopicKey, attach: AttachId, policy: Option<HistoryPolicy>) {
        let channel = self.names.topic(topic.borrow());
        let at = match self.feeds_by_name.get(&channel) {
            Some(&at) => at,
            None => self.follow(home, topic, channel, policy),
        };
        let ticket = self.tickets.take();
        self.set_attachment(at, Attachment::Pending { attach, ticket });
        let feed = &self.feeds[at];
        match self.reachable {
            // What was published before is to be known, even where it is still on its way here.
            true if feed.is_subscribed() && feed.stream.is_some() => self.resync(at, Reason::MayHaveGoneOn),
            true if feed.is_subscribed() => self.notify_opened(at),
            true => {}
            false => self.notify_refused(at),
        }
    }

    fn follow(&mut self, home: ReactorId, topic: TopicKey, channel: Arc<str>, policy: Option<HistoryPolicy>) -> usize {
        self.generations += 1;
        let at = self.feeds.insert(Feed {
            topic,
            channel: channel.clone(),
            home,
            generation: self.generations,
            attachment: Attachment::Detached { since: self.now },
            subscription: Subscription::Unconfirmed,
            stream: policy.map(|policy| Stream { policy, follower: Follower::default() }),
        });
        self.feeds_by_name.insert(channel.clone(), at);
        if self.subscriber != Subscriber::Down {
            self.subscribe.push(channel);
        }
        at
    }

    /// There is no member here any more.
    pub(super) fn idle(&mut self, topic: TopicRef<'_>, attach: AttachId) {
        if let Some(at) = self.feed(topic) {
            self.set_idle(at, attach);
        }
    }

    /// The home does not want the topic any more.
    pub(super) fn close(&mut self, topic: TopicRef<'_>) {
        let Some(at) = self.feed(topic) else { return };
        let since = self.feeds[at].attachment.idle_since().unwrap_or(self.now);
        self.set_attachment(at, Attachment::Detached { since });
        self.stop_lingering();
    }

    /// Feeds that have lingered long enough go, once their homes agree.
    pub(super) fn stop_lingering(&mut self) {
        while let Some(at) = self.lingering.take_due(self.now) {
            let feed = &self.feeds[at];
            if let Some(attach) = feed.attachment.attach() {
                let (home, topic) = (feed.home, feed.topic.clone());
                self.notify(home, FromCluster::Lapsed { topic, attach });
                continue;
            }
            // One whose subscription is not confirmed yet would be mistaken for that of a later feed.
            if !feed.is_subscribed() && self.subscriber != Subscriber::Down {
                self.set_attachment(at, Attachment::Detached { since: self.now });
                continue;
            }
            let feed = self.feeds.remove(at);
            self.feeds_by_name.remove(&feed.channel);
            if feed.is_subscribed() {
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
            feed.subscription = Subscription::Unconfirmed;
        }
    }

    pub(super) fn feed_subscribed(&mut self, channel: &str) {
        let Some(&at) = self.feeds_by_name.get(channel) else { return };
        let feed = &mut self.feeds[at];
        feed.subscription = Subscription::Confirmed;
        match feed.stream.is_some() {
            true => self.resync(at, Reason::MayHaveLost),
            false if self.reachable => self.notify_opened(at),
            false => {}
        }
    }

    /// What could not be read is read again.
    pub(super) fn resync_failed(&mut self) {
        for feed in std::mem::take(&mut self.failed) {
            let found = self.feeds.get(feed.at).filter(|found| found.generation == feed.generation);
            if found.is_some_and(Feed::is_subscribed) {
                self.resync(feed.at, Reason::MayHaveLost);
            }
        }
    }

    /// What was subscribed to while the cluster was out of reach otherwise is read again, too.
    pub(super) fn resync_all(&mut self) {
        self.failed.clear();
        let subscribed = self.feeds.iter().filter(|(_, feed)| feed.is_subscribed()).map(|(at, _)| at);
        for at in subscribed.collect::<Vec<usize>>() {
            match self.feeds[at].stream.is_some() {
                true => self.resync(at, Reason::MayHaveLost),
                false => self.notify_opened(at),
            }
        }
    }

    /// The cluster is out of reach: homes that wait for a topic to be opened are told.
    pub(super) fn refuse_pending(&mut self) {
        let is_pending = |feed: &Feed| matches!(feed.attachment, Attachment::Pending { .. });
        let pending = self.feeds.iter().filter(|(_, feed)| is_pending(feed)).map(|(at, _)| at);
        for at in pending.collect::<Vec<usize>>() {
            self.notify_refused(at);
        }
    }

    fn notify_opened(&mut self, at: usize) {
        let feed = &self.feeds[at];
        let attach = match feed.attachment {
            Attachment::Pending { attach, .. } | Attachment::LocalOnly { attach } => attach,
            Attachment::Detached { .. } | Attachment::Attached(_) => return,
        };
        let (home, topic, position) = (feed.home, feed.topic.clone(), feed.position().cloned());
        self.set_attachment(at, Attachment::attached(attach));
        self.notify(home, FromCluster::Attached { topic, attach, position });
    }

    fn notify_refused(&mut self, at: usize) {
        let feed = &self.feeds[at];
        let Attachment::Pending { attach, .. } = feed.attachment else { return };
        let (home, topic) = (feed.home, feed.topic.clone());
        self.set_attachment(at, Attachment::LocalOnly { attach });
        self.notify(home, FromCluster::Refused { topic, attach });
    }

    /// A home wants to know whether a history has gone on.
    pub(super) fn check(&mut self, topic: TopicRef<'_>) {
        let Some(at) = self.feed(topic) else { return };
        let Some(attached) = self.feeds[at].attachment.as_attached_mut() else { return };
        attached.check.get_or_insert_with(|| self.tickets.take());
        match self.commands_up {
            true => self.resync(at, Reason::MayHaveGoneOn),
            false => self.notify_checked(at, false),
        }
    }

    fn notify_checked(&mut self, at: usize, answered: bool) {
        let feed = &mut self.feeds[at];
        let Some(attached) = feed.attachment.as_attached_mut() else { return };
        let Some(ticket) = attached.check.take() else { return };
        let (home, topic, attach) = (feed.home, feed.topic.clone(), attached.attach);
        self.tickets.give_back(ticket);
        self.notify(home, FromCluster::Checked { topic, attach, answered });
    }

    /// Has a stream read.
    fn resync(&mut self, at: usize, reason: Reason) {
        if let Some(stream) = &mut self.feeds[at].stream {
            let steps = stream.follower.resync(reason);
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
            Reply::Published(_)
            | Reply::Appended { .. }
            | Reply::Purged { .. }
            | Reply::Revoked
            | Reply::Revocations { .. }
            | Reply::Told(_)
            | Reply::Failed => {
                stream.follower.read_failed();
                self.failed.push(feed);
                self.notify_checked(feed.at, false);
                self.notify_refused(feed.at);
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
                    self.release_acks(at, Release::Reached);
                }
                Step::Gap(position) => {
                    // It belongs in front of what was here.
                    self.end_load(at);
                    let feed = &self.feeds[at];
                    if let Some(attach) = feed.attached().map(|attached| attached.attach) {
                        self.counts.gaps += 1;
                        let (home, topic) = (feed.home, feed.topic.clone());
                        self.notify(home, FromCluster::Gap { topic, attach, position });
                    }
                    self.release_acks(at, Release::All);
                }
                Step::UpToDate => {
                    self.notify_opened(at);
                    self.notify_checked(at, true);
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
        let Some(attach) = feed.attached().map(|attached| attached.attach) else { return };
        let (home, topic) = (feed.home, feed.topic.clone());
        let news = match self.frame_with_offset(offset, entry) {
            Some((frame, exclude)) => FromCluster::Kept { topic, attach, offset, frame, exclude },
            // Written by something other than a node: it cannot be shown, so no member has it.
            None => {
                let Some(position) = self.feeds[at].position() else { return };
                let position = StreamPosition { epoch: position.epoch.clone(), offset };
                self.counts.unreadable += 1;
                FromCluster::Gap { topic, attach, position }
            }
        };
        self.notify(home, news);
    }

    /// An entry as the frame that clients get, and a connection of this node that is not to get it.
    pub(super) fn frame_with_offset(&mut self, offset: u64, entry: &[u8]) -> Option<(SharedFrame, Option<ConnId>)> {
        let Entry { exclude, payload } = Entry::read(entry)?;
        let frame = self.frames.build(Opcode::Text, |out| protocol::put_offset(out, payload, offset)).into();
        let exclude = exclude.filter(|(run, _)| *run == self.me.run).map(|(_, conn)| conn);
        Some((frame, exclude))
    }

    /// A history was forgotten: nothing has come in its new epoch yet.
    pub(super) fn restart(&mut self, at: usize, epoch: &Arc<str>) {
        if let Some(stream) = &mut self.feeds[at].stream {
            let steps = stream.follower.restart(StreamPosition { epoch: epoch.clone(), offset: 0 });
            self.take_steps(at, steps);
        }
    }

    /// Messages of a history that came on its channel.
    pub(super) fn received_kept(&mut self, channel: &str, kept: Kept<'_>) {
        let Some(&at) = self.feeds_by_name.get(channel) else { return };
        let Kept { epoch, first, entries } = kept;
        let epoch: Arc<str> = epoch.into();
        if entries.is_empty() {
            return self.restart(at, &epoch);
        }
        for (offset, entry) in (first..).zip(entries) {
            let Some(stream) = &mut self.feeds[at].stream else { return };
            let message = LiveMessage { epoch: epoch.clone(), offset, entry: entry.to_vec() };
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
                        let empty = Crowd { users: 0, names: Vec::new(), others: Others::Hashes(Vec::new()) };
                        self.answer_presence(Question { run, number, key: CrowdKey(key) }, empty);
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
                self.notify(home, FromCluster::Deliver { topic, frames: frames.into() });
            }
            Record::Notice(frame) => self.notify(home, FromCluster::Notice { topic, frame: frame.into() }),
            Record::Presence { number, .. } if run == self.me.run => self.presence_echoed(number),
            Record::Presence { number, key, names } => {
                let question = Question { run, number, key: CrowdKey(key) };
                self.notify(home, FromCluster::Asked { topic, question, names: usize::from(names) });
            }
            Record::Hello { node, key, asks, vitals } if is_everyone => {
                self.heard_hello(run, ClientIdCodec::new(key, node), asks, vitals);
            }
            Record::Disconnect { user } if is_everyone => {
                let everywhere = ArcStr::from(user);
                self.notify_all(|| FromCluster::Disconnect { user: everywhere.clone() });
                if let Some(at) = self.feed(TopicRef { kind: Kind::Inbox, name: user }) {
                    let (home, topic) = (self.feeds[at].home, self.feeds[at].topic.clone());
                    let (user, reason) = (topic.name.clone(), "".into());
                    self.notify(home, FromCluster::Expel { topic, user, reason });
                }
            }
            Record::Revoke { user, unix_s } if is_everyone => self.heard_revoke(user, unix_s),
            Record::Survey { number, body } if is_everyone => self.survey_came(run, number, body),
            Record::Kick { user, reason } if topic.kind == Kind::Room => {
                let (user, reason) = (user.into(), reason.into());
                self.notify(home, FromCluster::Expel { topic, user, reason });
            }
            Record::Present(_)
            | Record::PresentMore { .. }
            | Record::Direct { .. }
            | Record::Hello { .. }
            | Record::Canary { .. }
            | Record::Disconnect { .. }
            | Record::Revoke { .. }
            | Record::Survey { .. }
            | Record::Found { .. }
            | Record::Kick { .. } => {
                self.counts.unreadable += 1;
            }
        }
    }

    pub(super) fn feed(&self, topic: TopicRef<'_>) -> Option<usize> {
        self.feeds_by_name.get(&self.names.topic(topic)).copied()
    }
}
