//! From here to Redis, for keyed rooms: the commands of many publishers to one room go in one call of the script.
//!
//! ```text
//!   commands ──► gather, gather … ──► at most CLUSTER_ITEMS_CALLS_MAX under way ──► Redis
//! ```
//!
//! While so many calls to a room are not answered, further commands gather: Redis would do the calls one after the other
//! anyway, and one with more commands costs it less.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::super::items::{ItemsGather, NewItems};
use super::fences::{Stored, Ticket};
use super::messages::{UpdateItems, Updated};
use super::{Command, Core, Expect, Reply};
use crate::ids::{ReactorId, ReplyTo};
use crate::limits::{CLUSTER_BATCH_BYTES_MAX, CLUSTER_ITEMS_CALLS_MAX};
use crate::protocol;
use crate::router::cluster::{FromCluster, ItemsCommand, ItemsExpiry, ItemsPolicy};
use crate::router::{CommandKind, Kind, Mail, StreamPosition, TooManyItems, TopicKey};

/// Commands to keyed rooms that Redis has not answered, by their rooms' channels.
#[derive(Debug, Default)]
pub(super) struct ItemsQueues {
    queues: HashMap<Arc<str>, Queue>,
    /// Rooms that may have a call to send.
    ready: Vec<Arc<str>>,
    /// Bytes of all that gathers.
    bytes: usize,
    calls: u64,
}

#[derive(Debug)]
struct Queue {
    topic: TopicKey,
    policy: ItemsPolicy,
    gathered: VecDeque<Gathered>,
    /// Calls that are sent and not answered, each with its ticket.
    under_way: Vec<(u64, Ticket)>,
}

#[derive(Debug)]
struct Gathered {
    gather: ItemsGather,
    bytes: usize,
    publishers: Vec<Publisher>,
    ticket: Ticket,
}

/// Who is told what becomes of a command.
#[derive(Debug)]
pub(super) enum Publisher {
    /// Nobody: the server does it by itself.
    Nobody,
    /// Who gave it, with its id as JSON text where an ack is wanted.
    Giver { to: ReplyTo, id: Option<Box<str>>, kind: CommandKind },
    /// A request, of several commands: its home has them one by one where they are refused as a whole.
    Request { home: ReactorId, commands: Box<ItemsCommand> },
}

/// A call whose answer is expected.
#[derive(Debug)]
pub(super) struct ItemsExpected {
    channel: Arc<str>,
    call: u64,
    /// One for each command.
    publishers: Vec<Publisher>,
}

impl ItemsQueues {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The tickets it holds.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> {
        let of = |queue: &'_ Queue| {
            let gathered = queue.gathered.iter().map(|gathered| gathered.ticket.number());
            gathered.chain(queue.under_way.iter().map(|(_, ticket)| ticket.number())).collect::<Vec<u64>>()
        };
        self.queues.values().flat_map(of)
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        let all = self.queues.values().flat_map(|queue| &queue.gathered);
        assert_eq!(self.bytes, all.map(|gathered| gathered.bytes).sum::<usize>());
        assert!(self.queues.values().all(|queue| !(queue.gathered.is_empty() && queue.under_way.is_empty())));
    }
}

impl Core {
    /// Updates of items of a keyed room, from its home.
    pub(super) fn update_items(&mut self, home: ReactorId, command: ItemsCommand) {
        if !self.takes_updates() {
            let ItemsCommand { topic, publisher, id, .. } = command;
            return self.not_stored(publisher, id, topic.room());
        }
        let exclude = command.exclude.map(|conn| (self.me.run, conn));
        let (topic, policy) = (command.topic.clone(), command.policy);
        self.gather(&topic, policy, |gather| {
            gather.push(&NewItems { updates: &command.updates, exclude, key: command.key.as_deref() });
            match command.updates.kind() {
                CommandKind::Each => Publisher::Request { home, commands: Box::new(command) },
                kind @ (CommandKind::One | CommandKind::Many) => {
                    Publisher::Giver { to: command.publisher, id: command.id, kind }
                }
            }
        });
    }

    /// Items that are too old are removed.
    pub(super) fn expire_items(&mut self, expiry: &ItemsExpiry) {
        let ItemsExpiry { topic, policy, items, tail } = expiry;
        if self.takes_updates() {
            let items = items.iter().map(|(item, offset)| (&**item, *offset));
            self.gather(topic, *policy, |gather| {
                gather.push_expiry(items, tail);
                Publisher::Nobody
            });
        }
    }

    fn takes_updates(&self) -> bool {
        self.commands_up && !self.pending.is_full_with(self.items.bytes)
    }

    fn gather(&mut self, topic: &TopicKey, policy: ItemsPolicy, push: impl FnOnce(&mut ItemsGather) -> Publisher) {
        let channel = self.names.topic(topic.borrow());
        let (ready, tickets, seed) = (&mut self.items.ready, &mut self.tickets, self.items_seed);
        let queue = self.items.queues.entry(channel.clone()).or_insert_with(|| Queue {
            topic: topic.clone(),
            policy,
            gathered: VecDeque::new(),
            under_way: Vec::new(),
        });
        queue.policy = policy;
        if queue.gathered.back().is_none_or(|last| last.bytes >= CLUSTER_BATCH_BYTES_MAX) {
            let (gather, ticket) = (ItemsGather::new(seed), tickets.take());
            queue.gathered.push_back(Gathered { gather, bytes: 0, publishers: Vec::new(), ticket });
            ready.push(channel);
        }
        let Some(gathered) = queue.gathered.back_mut() else { return };
        let publisher = push(&mut gathered.gather);
        gathered.publishers.push(publisher);
        let bytes = gathered.gather.bytes();
        self.items.bytes += bytes - std::mem::replace(&mut gathered.bytes, bytes);
    }

    /// What has gathered becomes calls, as far as that is of use.
    pub(super) fn flush_items(&mut self) {
        for channel in std::mem::take(&mut self.items.ready) {
            while let Some(queue) = self.items.queues.get_mut(&channel)
                && queue.under_way.len() < CLUSTER_ITEMS_CALLS_MAX
                && let Some(Gathered { gather, bytes, publishers, ticket }) = queue.gathered.pop_front()
            {
                self.items.bytes -= bytes;
                self.items.calls += 1;
                let call = self.items.calls;
                queue.under_way.push((call, ticket));
                let (topic, policy) = (channel.clone(), queue.policy);
                let expected = ItemsExpected { channel: channel.clone(), call, publishers };
                let removal_head = match queue.topic.kind {
                    Kind::Raw => "",
                    Kind::Room | Kind::Inbox | Kind::Everyone => protocol::REMOVED_AT,
                };
                let update = UpdateItems { topic, policy, seed: self.seed(), removal_head, call: gather.finish() };
                self.pending.push(Command::UpdateItems(Box::new(update)), Expect::ItemsUpdated(expected));
            }
        }
        if !self.commands_up {
            self.fail_items();
        }
    }

    /// Nothing that has gathered will be sent.
    pub(super) fn fail_items(&mut self) {
        self.items.bytes = 0;
        self.items.ready.clear();
        let channels: Vec<Arc<str>> = self.items.queues.keys().cloned().collect();
        for channel in channels {
            let queue = self.items.queues.get_mut(&channel);
            let topic = queue.as_ref().map(|queue| queue.topic.clone());
            let gathered = queue.map(|queue| std::mem::take(&mut queue.gathered)).unwrap_or_default();
            for Gathered { publishers, ticket, .. } in gathered {
                self.tickets.give_back(ticket);
                publishers.into_iter().for_each(|publisher| self.update_not_stored(publisher, topic.as_ref()));
            }
            self.forget_queue_if_empty(&channel);
        }
    }

    fn update_not_stored(&mut self, publisher: Publisher, topic: Option<&TopicKey>) {
        match publisher {
            Publisher::Nobody => {}
            Publisher::Giver { to, id, kind: _ } => self.not_stored(to, id, topic.and_then(TopicKey::room)),
            Publisher::Request { home: _, commands } => self.not_stored(commands.publisher, commands.id, None),
        }
    }

    fn forget_queue_if_empty(&mut self, channel: &Arc<str>) {
        let queue = self.items.queues.get(channel);
        if queue.is_some_and(|queue| queue.gathered.is_empty() && queue.under_way.is_empty()) {
            self.items.queues.remove(channel);
        }
    }

    /// Redis has answered a call, or will not.
    pub(super) fn items_updated(&mut self, expected: ItemsExpected, reply: Reply) {
        let ItemsExpected { channel, call, publishers } = expected;
        let Some(queue) = self.items.queues.get_mut(&channel) else { return };
        let topic = queue.topic.clone();
        if let Some(at) = queue.under_way.iter().position(|(number, _)| *number == call) {
            let (_, ticket) = queue.under_way.swap_remove(at);
            self.tickets.give_back(ticket);
        }
        if !queue.gathered.is_empty() {
            self.items.ready.push(channel.clone());
        }
        self.forget_queue_if_empty(&channel);
        match reply {
            Reply::ItemsUpdated { epoch, outcomes } if outcomes.len() == publishers.len() => {
                let feed = self.feeds_by_name.get(&channel).copied();
                for (publisher, outcome) in publishers.into_iter().zip(outcomes) {
                    self.tell_outcome(&topic, feed, publisher, &epoch, outcome);
                }
            }
            _ => publishers.into_iter().for_each(|publisher| self.update_not_stored(publisher, Some(&topic))),
        }
    }

    fn tell_outcome(
        &mut self,
        topic: &TopicKey,
        feed: Option<usize>,
        publisher: Publisher,
        epoch: &Arc<str>,
        outcome: Result<Updated, u32>,
    ) {
        let (publisher, id, kind) = match (publisher, &outcome) {
            (Publisher::Nobody, _) => return,
            (Publisher::Request { home, commands }, Err(_)) if commands.updates.len() > 1 => {
                return self.notify(home, FromCluster::ItemsRefused { commands });
            }
            (Publisher::Request { commands, .. }, _) => (commands.publisher, commands.id, CommandKind::Each),
            (Publisher::Giver { to, id, kind }, _) => (to, id, kind),
        };
        match (outcome, id) {
            (Ok(Updated { offset, stale }), Some(id)) => {
                self.counts.stored += 1;
                let position = StreamPosition { epoch: epoch.clone(), offset };
                self.acknowledge(feed, Stored { publisher, id, position, stale: Some(kind.stale(stale)) });
            }
            (Ok(_), None) => self.counts.stored += 1,
            (Err(index), id) => {
                self.counts.refused += 1;
                let index = Some(index).filter(|_| kind == CommandKind::Many);
                let refused = Mail::items_refused(publisher, id, topic.clone(), TooManyItems { index });
                self.mail.push((publisher.peer(), refused));
            }
        }
    }
}
