//! What the core and the connections to Redis tell each other.

use std::sync::Arc;

use crate::cluster::items::ItemsCall;
use crate::cluster::tell::{Tell, Told};
use crate::router::cluster::{ItemsPolicy, Wanted};
use crate::router::{HistoryPolicy, StreamPosition};

/// A command to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `PUBLISH`: answered with [`Reply::Published`].
    Publish {
        /// The channel.
        channel: Arc<str>,
        /// An envelope.
        payload: Vec<u8>,
    },
    /// The append script: answered with [`Reply::Appended`].
    Append {
        /// The topic's channel, with which its keys' names begin.
        topic: Arc<str>,
        /// What is kept.
        policy: HistoryPolicy,
        /// Makes an epoch unlike any other, if one is begun.
        seed: String,
        /// What to append, in order.
        entries: Vec<NewEntry>,
    },
    /// The read script: answered with [`Reply::Read`].
    Read {
        /// As for `Append`.
        topic: Arc<str>,
        /// What is kept.
        policy: HistoryPolicy,
        /// As for `Append`.
        seed: String,
        /// Which messages.
        range: ReadRange,
    },
    /// The purge script: answered with [`Reply::Purged`].
    Purge {
        /// As for `Append`.
        topic: Arc<str>,
        /// What is kept.
        policy: HistoryPolicy,
        /// As for `Append`.
        seed: String,
    },
    /// Notes whose tokens are revoked: answered with [`Reply::Revoked`].
    Revoke {
        /// The table.
        key: Arc<str>,
        /// Whose.
        user: Box<str>,
        /// The last Unix second whose tokens are refused.
        unix_s: u64,
    },
    /// Reads whose tokens are revoked: answered with [`Reply::Revocations`].
    Revocations {
        /// The table.
        key: Arc<str>,
        /// As the answer before gave it; 0 to begin.
        cursor: u64,
    },
    /// The script of webhooks: answered with [`Reply::Told`].
    Tell(Box<Tell>),
    /// The script that updates items of a keyed room: answered with [`Reply::ItemsUpdated`].
    UpdateItems(Box<UpdateItems>),
    /// The script that reads a keyed room: answered with [`Reply::ItemsRead`].
    ReadItems(Box<ReadItems>),
}

/// What many publishers have for one keyed room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateItems {
    /// The room's channel, with which its keys' names begin.
    pub topic: Arc<str>,
    /// What is kept of it.
    pub policy: ItemsPolicy,
    /// Makes an epoch unlike any other, if one is begun.
    pub seed: String,
    /// What is told of the removal of an item that nobody has updated for too long, in front of its time and `}`; nothing at
    /// all where it is empty.
    pub removal_head: &'static str,
    /// Their commands.
    pub call: ItemsCall,
}

/// What to read of a keyed room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadItems {
    /// As for [`UpdateItems`].
    pub topic: Arc<str>,
    /// What is kept of it.
    pub policy: ItemsPolicy,
    /// As for [`UpdateItems`].
    pub seed: String,
    /// Which part.
    pub range: ItemsRange,
}

/// Which part of a keyed room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemsRange {
    /// Only where it is.
    End,
    /// What was published lately: updates from this offset on, or a few before it.
    Log(u64),
    /// Items that were updated behind an offset, those that were removed included, in no order: a part of them.
    Changed {
        /// That offset.
        since: u64,
        /// As the part before has given it; `"0"` to begin.
        cursor: String,
    },
}

/// One message for the append script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The same key is the same message.
    pub key: Option<Box<str>>,
    /// What is kept, as [`Entry`](crate::cluster::record::Entry) writes it.
    pub entry: Vec<u8>,
}

/// What to read of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRange {
    /// Only where it ends.
    End,
    /// From this offset on, at most [`crate::limits::CLUSTER_READ_MAX`].
    From(u64),
    /// From in front of one offset back to another, as far as one read goes.
    Back {
        /// The first wanted.
        from: u64,
        /// In front of which they are.
        before: u64,
        /// Whether some of them are of use.
        wanted: Wanted,
    },
    /// The newest in front of one offset, as far as one read goes.
    NewestBefore {
        /// In front of which they are.
        before: u64,
        /// At most so many.
        limit: usize,
    },
    /// The oldest behind one offset, as far as one read goes.
    OldestAfter {
        /// Behind which they are.
        after: u64,
        /// At most so many.
        limit: usize,
    },
}

/// What Redis answers to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// How many subscribers got it.
    Published(u64),
    /// Where the messages are: those with a known key where they were before.
    Appended {
        /// The history's epoch.
        epoch: Arc<str>,
        /// Their offsets, one for each entry.
        offsets: Vec<u64>,
    },
    /// What the stream holds.
    Read {
        /// Where it ends.
        end: StreamPosition,
        /// Redis' time, in milliseconds since 1970.
        now_ms: u64,
        /// Whether there are more of those that were asked for.
        more: bool,
        /// What was asked for, in order: the first of it, or, where it was asked for back from an offset, the last.
        entries: Vec<StreamEntry>,
    },
    /// The history is forgotten.
    Purged {
        /// The new epoch, and where it begins: nothing has come in it.
        end: StreamPosition,
    },
    /// It is noted.
    Revoked,
    /// A piece of the table.
    Revocations {
        /// Where the next begins; 0 where this is the last.
        cursor: u64,
        /// Users, each with the last Unix second whose tokens are refused.
        entries: Vec<(String, u64)>,
    },
    /// What the script of webhooks says.
    Told(Box<Told>),
    /// What has become of commands for a keyed room.
    ItemsUpdated {
        /// The room's epoch.
        epoch: Arc<str>,
        /// Of each command where the room is behind it, and which of its updates were stale; or the index of the one with
        /// which there were too many items.
        outcomes: Vec<Result<Updated, u32>>,
    },
    /// A part of a keyed room.
    ItemsRead(Box<ItemsRead>),
    /// It was refused.
    Failed,
}

/// What has become of a command for a keyed room that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The room's offset behind it.
    pub offset: u64,
    /// Its updates that were not above their items' versions, by their index.
    pub stale: Vec<u32>,
}

/// What a keyed room has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemsRead {
    /// Where it is.
    pub end: StreamPosition,
    /// Up to this offset removals may be forgotten.
    pub forgotten_to: u64,
    /// Redis' time, in milliseconds since 1970.
    pub now_ms: u64,
    /// What was asked for.
    pub found: ItemsFound,
}

/// The part of a keyed room that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemsFound {
    /// Nothing but where it is.
    End,
    /// Messages as they were published: a placement and its records, from the first wanted on.
    Log {
        /// Placement and records of each.
        published: Vec<(Vec<u8>, Vec<u8>)>,
        /// Whether there are more.
        more: bool,
    },
    /// Items in no order.
    Items {
        /// As [`StoredItem`](crate::cluster::items::StoredItem) and [`ItemRecord`](crate::cluster::items::ItemRecord) read
        /// them.
        items: Vec<(Vec<u8>, Vec<u8>)>,
        /// Where the next part begins; `None` where this is the last.
        next: Option<String>,
    },
}

/// A message in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its offset.
    pub offset: u64,
    /// When it was appended, in milliseconds since 1970; 0 where that is not known.
    pub at_ms: u64,
    /// As [`Entry`](crate::cluster::record::Entry) reads it; empty where no node has written it.
    pub entry: Vec<u8>,
}

/// What comes from the connections.
#[derive(Debug)]
pub enum Input<'a> {
    /// Commands can be sent.
    CommandsUp,
    /// The connection for commands is lost, and the answers to all that were sent with it.
    CommandsDown,
    /// The answers to one [`Output::Commands`].
    Replies {
        /// Its number.
        batch: u64,
        /// One for each command.
        replies: Vec<Reply>,
    },
    /// Channels can be subscribed to. None is.
    SubscriberUp,
    /// The connection that subscribes is lost.
    SubscriberDown,
    /// These channels are subscribed to.
    Subscribed(Vec<Arc<str>>),
    /// A message came on a channel.
    Received {
        /// The channel's name.
        channel: &'a str,
        /// The message.
        payload: &'a [u8],
    },
}

/// What the connections are to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these, in order.
    Commands {
        /// The answers come with it.
        batch: u64,
        /// At least one.
        commands: Vec<Command>,
    },
    /// Subscribe.
    Subscribe(Vec<Arc<str>>),
    /// Unsubscribe.
    Unsubscribe(Vec<Arc<str>>),
    /// Redis does not answer: drop the connection for commands. It counts as down already.
    ResetCommands,
    /// Messages do not arrive: drop the subscribing connection. It counts as down already.
    ResetSubscriber,
}
