//! What the core and the connections to Redis tell each other.

use std::sync::Arc;

use crate::cluster::tell::{Tell, Told};
use crate::router::cluster::Wanted;
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
        /// The new epoch, in which nothing has come.
        epoch: Arc<str>,
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
    /// It was refused.
    Failed,
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
