//! From Redis to here: which topics are followed, and what comes on their channels.

use std::sync::Arc;

use arcstr::ArcStr;

use super::super::follower::{Follower, LiveMessage, Reason, Step, StreamRead};
use super::super::items::read_entry;
use super::super::record::{Entry, Kept, Record};
use super::attachment::{Attached, Attachment};
use super::fences::Release;
#[cfg(any(test, debug_assertions))]
use super::fences::Ticket;
use super::items_feed::ItemsFeed;
use super::{Command, Core, Expect, FeedId, ItemsFound, ItemsRange, ItemsRead, ReadRange, Reply, Subscriber};
use crate::compress::SharedFrame;
use crate::frame::{Opcode, whole_frames};
use crate::ids::{ClientIdCodec, ConnId, ReactorId};
use crate::protocol;
use crate::router::cluster::{AttachId, FromCluster, Question};
use crate::router::{Crowd, CrowdKey, HistoryPolicy, KeyedPolicy, Kind, Others, StreamPosition, TopicKey, TopicRef};

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
    /// `None` for a topic that keeps neither history nor items.
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

    /// What it follows of a keyed room.
    pub(super) fn items_mut(&mut self) -> Option<&mut ItemsFeed> {
        self.stream.as_mut()?.items.as_mut()
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

/// What a topic has in an order that Redis gives: a history, the updates of a keyed room, or both in one.
#[derive(Debug)]
pub(super) struct Stream {
    /// What is kept of its messages, if any are.
    pub(super) history: Option<HistoryPolicy>,
    /// `None` where it is not keyed.
    pub(super) items: Option<ItemsFeed>,
    pub(super) follower: Follower,
}

/// What of a topic is kept in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptOfTopic {
    pub(super) history: Option<HistoryPolicy>,
    pub(super) keyed: Option<KeyedPolicy>,
}

/// What a follower had read; `None` where that failed.
fn stream_read(reply: Reply) -> Option<StreamRead> {
    match reply {
        Reply::Read { end, more, entries, now_ms: _ } => {
            let entries = entries.into_iter().map(|entry| (entry.offset, entry.entry)).collect();
            Some(StreamRead { end, entries, more })
        }
        Reply::ItemsRead(read) => {
            let ItemsRead { end, found, .. } = *read;
            match found {
                ItemsFound::End => Some(StreamRead { end, entries: Vec::new(), more: false }),
                ItemsFound::Log { published, more } => {
                    Some(StreamRead { end, entries: Core::log_entries(&published), more })
                }
                ItemsFound::Items { .. } => None,
            }
        }
        Reply::Published(_)
        | Reply::Appended { .. }
        | Reply::Purged { .. }
        | Reply::Revoked
        | Reply::Revocations { .. }
        | Reply::Told(_)
        | Reply::ItemsUpdated { .. }
        | Reply::Failed => None,
    }
}

impl Core {
    /// A home wants all that is published to a topic.
    pub(super) fn open(&mut self, home: ReactorId, topic: TopicKey, attach: AttachId, kept: KeptOfTopic) {
        let channel = self.names.topic(topic.borrow());
        let at = match self.feeds_by_name.get(&channel) {
            Some(&at) => at,
            None => self.follow(home, topic, channel, kept),
        };
        let ticket = self.tickets.take();
        self.set_attachment(at, Attachment::Pending { attach, ticket });
        // A home that attaches a keyed room has nothing of it.
        self.end_items_load(at);
        self.begin_items_load(at);
        let feed = &self.feeds[at];
        match self.reachable {
            // What was published before is to be known, even where it is still on its way here.
            true if feed.is_subscribed() && feed.stream.is_some() => self.resync(at, Reason::MayHaveGoneOn),
            true if feed.is_subscribed() => self.notify_opened(at),
            true => {}
            false => self.notify_refused(at),
        }
    }

    fn follow(&mut self, home: ReactorId, topic: TopicKey, channel: Arc<str>, kept: KeptOfTopic) -> usize {
        self.generations += 1;
        let KeptOfTopic { history, keyed } = kept;
        let stream = || Stream { history, items: keyed.map(ItemsFeed::new), follower: Follower::default() };
        let at = self.feeds.insert(Feed {
            topic,
            channel: channel.clone(),
            home,
            generation: self.generations,
            attachment: Attachment::Detached { since: self.now },
            subscription: Subscription::Unconfirmed,
            stream: (history.is_some() || keyed.is_some()).then(stream),
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
        self.end_items_load(at);
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

    /// Who waits for what Redis had when it was asked hears that it is here.
    pub(super) fn notify_up_to_date(&mut self, at: usize) {
        self.notify_opened(at);
        self.notify_checked(at, true);
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
        match stream_read(reply) {
            Some(read) => {
                let steps = stream.follower.read_answered(read);
                self.take_steps(feed.at, steps);
            }
            None => {
                stream.follower.read_failed();
                self.failed.push(feed);
                self.notify_checked(feed.at, false);
                self.notify_refused(feed.at);
            }
        }
    }

    pub(super) fn take_steps(&mut self, at: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Began(position) => {
                    if let Some(items) = self.feeds[at].items_mut() {
                        items.jump(position);
                    }
                }
                Step::Read => self.read_stream(at),
                Step::Deliver(offset, entry) => {
                    match self.feeds[at].items_mut() {
                        Some(_) => self.deliver_item(at, offset, &entry),
                        None => self.deliver(at, offset, &entry),
                    }
                    self.release_acks(at, Release::Reached);
                }
                Step::Gap(position) => {
                    if let Some(items) = self.feeds[at].items_mut() {
                        items.jump(position);
                        self.end_load(at);
                        self.begin_items_load(at);
                        self.release_acks(at, Release::All);
                        continue;
                    }
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
                Step::UpToDate => self.up_to_date(at),
            }
        }
    }

    fn read_stream(&mut self, at: usize) {
        let feed = &self.feeds[at];
        let id = FeedId { at, generation: feed.generation };
        if !self.commands_up {
            return self.feed_read(id, Reply::Failed);
        }
        let Some(stream) = &feed.stream else { return };
        let from = stream.follower.read_from();
        match (stream.history, &stream.items) {
            (Some(policy), _) => {
                let range = from.map_or(ReadRange::End, ReadRange::From);
                self.counts.repairs += u64::from(range != ReadRange::End);
                let (topic, seed) = (feed.channel.clone(), self.seed());
                self.pending.push(Command::Read { topic, policy, seed, range }, Expect::Follow(id));
            }
            (None, Some(items)) => {
                let policy = items.policy;
                // What is on its way here comes without being read.
                let range = from.filter(|_| stream.follower.may_have_lost()).map_or(ItemsRange::End, ItemsRange::Log);
                self.counts.repairs += u64::from(range != ItemsRange::End);
                self.read_items_log(at, policy, range);
            }
            (None, None) => {}
        }
    }

    fn deliver(&mut self, at: usize, offset: u64, entry: &[u8]) {
        self.counts.received += 1;
        let feed = &self.feeds[at];
        let Some(attach) = feed.attached().map(|attached| attached.attach) else { return };
        let (home, topic) = (feed.home, feed.topic.clone());
        let news = match self.frame_with_offset(&topic, offset, entry) {
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
    pub(super) fn frame_with_offset(
        &mut self,
        topic: &TopicKey,
        offset: u64,
        entry: &[u8],
    ) -> Option<(SharedFrame, Option<ConnId>)> {
        let (frame, exclude) = match read_entry(entry) {
            Some((seq, record)) => (self.item_frame(topic, &record, seq, offset), record.exclude),
            None => {
                let Entry { exclude, payload } = Entry::read(entry)?;
                let frame = self.frames.build(Opcode::Text, |out| protocol::put_offset(out, payload, offset)).into();
                (frame, exclude)
            }
        };
        Some((frame, exclude.filter(|(run, _)| *run == self.me.run).map(|(_, conn)| conn)))
    }

    /// A history was forgotten: in its new epoch nothing has come behind this position yet.
    pub(super) fn restart(&mut self, at: usize, position: StreamPosition) {
        if let Some(stream) = &mut self.feeds[at].stream {
            let steps = stream.follower.restart(position);
            self.take_steps(at, steps);
        }
    }

    /// Messages of a history that came on its channel.
    pub(super) fn received_kept(&mut self, channel: &str, kept: Kept<'_>) {
        let Some(&at) = self.feeds_by_name.get(channel) else { return };
        let Kept { epoch, first, entries } = kept;
        let epoch: Arc<str> = epoch.into();
        if entries.is_empty() {
            return self.restart(at, StreamPosition { epoch, offset: first.saturating_sub(1) });
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
