//! From here to Redis: what is published in one round goes out together, one command a channel, and what becomes of it.

use std::collections::VecDeque;
use std::sync::Arc;

use arcstr::ArcStr;

use super::super::record::{self, Entry, Record};
use super::fences::Stored;
use super::{Command, Core, Expect, NewEntry, Output, Reply};
use crate::compress::SharedFrame;
use crate::frame::{Opcode, split_frame};
use crate::ids::{ReplyTo, RequestId};
use crate::limits::{CLUSTER_BATCH_BYTES_MAX, CLUSTER_UNANSWERED_BYTES_MAX};
use crate::router::cluster::Append;
use crate::router::{HistoryPolicy, Mail, StreamPosition, TopicRef};
use crate::time::Millis;

/// Who waits for how many nodes have got a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Those who ask who is in a room, by their question.
    Presence(u64),
    /// Requests that ask all nodes, by their survey.
    Survey(u64),
    /// A request that gives an order.
    Order(RequestId),
}

/// What one round has for one channel.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) channel: Arc<str>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Records {
        payload: Vec<u8>,
        heard: Vec<Heard>,
    },
    Entries {
        /// The topic's name, where it is a room.
        room: Option<ArcStr>,
        policy: HistoryPolicy,
        entries: Vec<NewEntry>,
        publishers: Vec<(ReplyTo, Option<Box<str>>)>,
        bytes: usize,
    },
}

/// Commands that are to be sent, and those whose answers are awaited.
#[derive(Debug, Default)]
pub(super) struct Pending {
    next: Vec<(Command, Expect)>,
    next_bytes: usize,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
    /// How many of those that were sent have an answer that something waits for.
    awaited: usize,
    batches: u64,
    /// When Redis answered last.
    answered_at: Millis,
}

#[derive(Debug)]
struct Sent {
    batch: u64,
    at: Millis,
    bytes: usize,
    expects: Vec<Expect>,
}

impl Sent {
    fn is_awaited(&self) -> bool {
        self.expects.iter().any(|expect| match expect {
            Expect::Nothing | Expect::Revocations => false,
            Expect::Heard(_)
            | Expect::Append { .. }
            | Expect::ItemsUpdated(_)
            | Expect::ItemsRead(..)
            | Expect::ItemsPage(_)
            | Expect::Follow(_)
            | Expect::Load(..)
            | Expect::Page(_)
            | Expect::Purge(..)
            | Expect::Revoke { .. } => true,
        })
    }
}

impl Pending {
    pub(super) fn push(&mut self, command: Command, expect: Expect) {
        self.next_bytes += command.bytes();
        self.next.push((command, expect));
    }

    /// Whether so much is unanswered that no more is to be added than has to be.
    pub(super) fn is_full(&self) -> bool {
        self.is_full_with(0)
    }

    /// The same with what is not handed over yet.
    pub(super) fn is_full_with(&self, bytes: usize) -> bool {
        self.next_bytes + self.sent_bytes + bytes > CLUSTER_UNANSWERED_BYTES_MAX
    }

    pub(super) fn take_batch(&mut self, now: Millis) -> Option<Output> {
        if self.next.is_empty() {
            return None;
        }
        self.batches += 1;
        let (commands, expects) = std::mem::take(&mut self.next).into_iter().unzip();
        let bytes = std::mem::take(&mut self.next_bytes);
        self.sent_bytes += bytes;
        let sent = Sent { batch: self.batches, at: now, bytes, expects };
        self.awaited += usize::from(sent.is_awaited());
        self.sent.push_back(sent);
        Some(Output::Commands { batch: self.batches, commands })
    }

    fn answered(&mut self, batch: u64, now: Millis) -> Option<Vec<Expect>> {
        let at = self.sent.iter().position(|sent| sent.batch == batch)?;
        let sent = self.sent.remove(at)?;
        self.sent_bytes -= sent.bytes;
        self.awaited -= usize::from(sent.is_awaited());
        self.answered_at = now;
        Some(sent.expects)
    }

    /// Whether Redis has taken longer than it may.
    pub(super) fn overdue(&self, now: Millis, ms_max: u64) -> bool {
        self.sent.front().is_some_and(|sent| now.since(sent.at.max(self.answered_at)) > ms_max)
    }

    /// The batch that what is there now goes out with, or the one before where there is nothing.
    pub(super) fn last_batch(&self) -> u64 {
        self.batches + u64::from(!self.next.is_empty())
    }

    /// The first batch without an answer, if all is not answered.
    pub(super) fn first_unanswered(&self) -> Option<u64> {
        let next = (!self.next.is_empty()).then_some(self.batches + 1);
        self.sent.front().map(|sent| sent.batch).or(next)
    }

    /// Whether something waits for an answer to what was sent.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty() && self.sent.is_empty()
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.sent_bytes, self.sent.iter().map(|sent| sent.bytes).sum::<usize>());
        assert_eq!(self.awaited, self.sent.iter().filter(|sent| sent.is_awaited()).count());
        assert_eq!(self.next_bytes, self.next.iter().map(|(command, _)| command.bytes()).sum::<usize>());
    }

    fn take_all(&mut self) -> Vec<Expect> {
        self.sent_bytes = 0;
        self.awaited = 0;
        self.next_bytes = 0;
        let sent = self.sent.drain(..).flat_map(|sent| sent.expects);
        sent.chain(self.next.drain(..).map(|(_, expect)| expect)).collect()
    }
}

impl Command {
    /// About what it takes on its way.
    fn bytes(&self) -> usize {
        const COMMAND_BYTES: usize = 256;
        COMMAND_BYTES
            + match self {
                Command::Publish { payload, .. } => payload.len(),
                Command::Append { entries, .. } => entries.iter().map(|entry| entry.entry.len() + 64).sum(),
                Command::Revoke { user, .. } => user.len(),
                Command::UpdateItems(update) => update.call.bytes(),
                Command::Read { .. }
                | Command::Purge { .. }
                | Command::Revocations { .. }
                | Command::Tell(_)
                | Command::ReadItems(_) => 0,
            }
    }
}

impl Core {
    /// Messages without history for the members on other nodes.
    pub(super) fn publish_messages(&mut self, topic: TopicRef<'_>, messages: u64, record: &Record<'_>) {
        if !self.commands_up || self.pending.is_full() {
            self.counts.dropped += messages;
            return;
        }
        self.counts.published += messages;
        let channel = self.names.topic(topic);
        self.publish(&channel, record);
    }

    /// A message into history.
    pub(super) fn append(&mut self, append: Append) {
        let Append { topic, policy, frame, exclude, key, publisher, id } = append;
        if !self.commands_up || self.pending.is_full() {
            return self.not_stored(publisher, id, topic.room());
        }
        let channel = self.names.topic(topic.borrow());
        let payload = split_frame(frame.plain()).1;
        let entry = Entry { exclude: exclude.map(|conn| (self.me.run, conn)), payload }.to_bytes();
        let entry_bytes = entry.len();
        let open = self.envelopes_by_channel.get(&channel).copied();
        match open.map(|at| &mut self.envelopes[at].body) {
            Some(Body::Entries { entries, publishers, bytes, .. }) if *bytes < CLUSTER_BATCH_BYTES_MAX => {
                entries.push(NewEntry { key, entry });
                publishers.push((publisher, id));
                *bytes += entry_bytes;
            }
            _ => {
                let (entries, publishers) = (vec![NewEntry { key, entry }], vec![(publisher, id)]);
                let room = topic.room();
                self.begin(channel, Body::Entries { room, policy, entries, publishers, bytes: entry_bytes });
            }
        }
    }

    /// Puts a record on its way to a channel.
    pub(super) fn publish(&mut self, channel: &Arc<str>, record: &Record<'_>) {
        self.publish_heard(channel, record, None);
    }

    /// The same; `heard` is told how many nodes have got it.
    pub(super) fn publish_heard(&mut self, channel: &Arc<str>, record: &Record<'_>, heard: Option<Heard>) {
        let open = self.envelopes_by_channel.get(channel).copied();
        let at = match open.map(|at| (at, &self.envelopes[at].body)) {
            Some((at, Body::Records { payload, .. })) if payload.len() < CLUSTER_BATCH_BYTES_MAX => at,
            _ => {
                let payload = record::begin(self.me.run);
                self.begin(channel.clone(), Body::Records { payload, heard: Vec::new() })
            }
        };
        if let Body::Records { payload, heard: all } = &mut self.envelopes[at].body {
            record.write(payload);
            all.extend(heard);
        }
    }

    fn begin(&mut self, channel: Arc<str>, body: Body) -> usize {
        self.envelopes.push(Envelope { channel: channel.clone(), body });
        let at = self.envelopes.len() - 1;
        self.envelopes_by_channel.insert(channel, at);
        at
    }

    /// What the round has gathered becomes commands.
    pub(super) fn flush_envelopes(&mut self) {
        if self.envelopes.is_empty() {
            return;
        }
        self.envelopes_by_channel.clear();
        for Envelope { channel, body } in std::mem::take(&mut self.envelopes) {
            match body {
                Body::Records { payload, heard } => {
                    let expect = if heard.is_empty() { Expect::Nothing } else { Expect::Heard(heard) };
                    self.pending.push(Command::Publish { channel, payload }, expect);
                }
                Body::Entries { room, policy, entries, publishers, bytes: _ } => {
                    let seed = self.seed();
                    let expect = Expect::Append { channel: channel.clone(), room, publishers };
                    self.pending.push(Command::Append { topic: channel, policy, seed, entries }, expect);
                }
            }
        }
        if !self.commands_up {
            self.fail_commands();
        }
    }

    /// What makes an epoch unlike any other.
    pub(super) fn seed(&mut self) -> String {
        self.generations += 1;
        format!("{:x}-{:x}", self.me.run, self.generations)
    }

    /// Redis has answered.
    pub(super) fn replies(&mut self, batch: u64, replies: Vec<Reply>) {
        let Some(expects) = self.pending.answered(batch, self.now) else { return };
        let replies = replies.into_iter().chain(std::iter::repeat(Reply::Failed));
        for (expect, reply) in expects.into_iter().zip(replies) {
            self.settle(expect, reply);
        }
    }

    /// Nothing that is under way will be answered.
    pub(super) fn fail_commands(&mut self) {
        for expect in self.pending.take_all() {
            self.settle(expect, Reply::Failed);
        }
    }

    fn settle(&mut self, expect: Expect, reply: Reply) {
        match (expect, reply) {
            (Expect::Nothing, _) => {}
            (Expect::Heard(all), reply) => {
                let nodes = if let Reply::Published(nodes) = reply { Some(nodes) } else { None };
                for heard in all {
                    match heard {
                        Heard::Presence(number) => self.presence_asked(number, nodes),
                        Heard::Survey(number) => self.survey_heard(number, nodes),
                        Heard::Order(request) => self.order_heard(request, nodes),
                    }
                }
            }
            (Expect::Append { channel, publishers, room: _ }, Reply::Appended { epoch, offsets })
                if offsets.len() == publishers.len() =>
            {
                self.counts.stored += offsets.len() as u64;
                let feed = self.feeds_by_name.get(&channel).copied();
                for ((publisher, id), offset) in publishers.into_iter().zip(offsets) {
                    if let Some(id) = id {
                        let position = StreamPosition { epoch: epoch.clone(), offset };
                        self.acknowledge(feed, Stored { publisher, id, position, stale: None });
                    }
                }
            }
            (Expect::Append { room, publishers, channel: _ }, _) => {
                publishers.into_iter().for_each(|(publisher, id)| self.not_stored(publisher, id, room.clone()));
            }
            (Expect::Follow(feed), reply) => self.feed_read(feed, reply),
            (Expect::Load(feed, number), reply) => self.loaded(feed, number, reply),
            (Expect::Page(page), reply) => self.page_read(&page, reply),
            (Expect::Purge(request, channel), reply) => self.purged(request, &channel, &reply),
            (Expect::Revoke { request, user, unix_s }, reply) => self.revoke_stored(request, &user, unix_s, &reply),
            (Expect::Revocations, reply) => self.revocations_read(reply),
            (Expect::ItemsUpdated(expected), reply) => self.items_updated(expected, reply),
            (Expect::ItemsRead(feed, number), reply) => self.items_read(feed, number, reply),
            (Expect::ItemsPage(page), reply) => self.items_page_read(*page, reply),
        }
    }

    pub(super) fn not_stored(&mut self, publisher: ReplyTo, id: Option<Box<str>>, room: Option<ArcStr>) {
        self.counts.refused += 1;
        self.mail.push((publisher.peer(), Mail::unavailable(publisher, id, room)));
    }

    /// A whole frame of a text message.
    pub(super) fn text_frame(&mut self, payload: &[u8]) -> SharedFrame {
        self.frames.build(Opcode::Text, |out| out.extend_from_slice(payload)).into()
    }
}
