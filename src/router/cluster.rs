//! What the homes of topics and the cluster tell each other.
//!
//! ```text
//!   home ── Attach, Idle, Detach, Publish, Append, Load, Check, … ──► cluster ──► Redis, the other nodes
//!   home ◄── Attached, Refused, Deliver, Kept, Gap, Loaded, Checked, Lapsed ── cluster ◄──
//! ```
//!
//! It is mail like any other: what was sent first comes first. A topic is *attached* while the cluster sends its home
//! what the other nodes publish. Each time a home attaches it, the attachment has a new id, and what belongs to an earlier
//! one changes nothing.

use std::sync::Arc;

use arcstr::ArcStr;

use super::crowd::{Crowd, CrowdKey};
use super::history::{HistoryPolicy, StreamPosition};
use super::home_request::{PageRange, page_apart};
use super::keyed::{Applied, ItemUpdates, ItemsOrigin, ItemsRefused, StaleUpdates, TooManyItems};
use super::mail::{Ack, Content, Mail};
use super::policy::KeyedPolicy;
use super::replies::Counted;
use super::survey::{Found, NodeFound, Survey, SurveyId, Surveyed};
use super::topic::TopicKey;
use crate::compress::SharedFrame;
use crate::ids::{ClientId, ConnId, PeerId, ReplyTo, RequestId};

/// Which attachment of a topic to the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachId(pub u64);

/// Who asked who is in a room: a node, by its run, and its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The run of the node that asks.
    pub run: u64,
    /// Its question's number.
    pub number: u64,
    /// What users are hashed with in the answers.
    pub key: CrowdKey,
}

/// A publish into history.
#[derive(Debug)]
pub struct Append {
    /// A room or an inbox.
    pub topic: TopicKey,
    /// What is kept of it.
    pub policy: HistoryPolicy,
    /// The message as a whole frame, without an offset.
    pub frame: SharedFrame,
    /// A member that is not to get it.
    pub exclude: Option<ConnId>,
    /// The same key is the same message.
    pub key: Option<Box<str>>,
    /// Who is told how it ended.
    pub publisher: ReplyTo,
    /// Its command's id as JSON text.
    pub id: Option<Box<str>>,
}

/// What is kept of a keyed room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemsPolicy {
    /// Of its items.
    pub keyed: KeyedPolicy,
    /// Of its messages, if it keeps history too.
    pub history: Option<HistoryPolicy>,
}

/// One command's updates of items of a keyed room.
#[derive(Debug)]
pub struct ItemsCommand {
    /// A room or a raw room.
    pub topic: TopicKey,
    /// What is kept of it.
    pub policy: ItemsPolicy,
    /// The updates.
    pub updates: ItemUpdates,
    /// A member that is not to get them where it gets each update.
    pub exclude: Option<ConnId>,
    /// The same key is the same command.
    pub key: Option<Box<str>>,
    /// Who is told how it ended.
    pub publisher: ReplyTo,
    /// Its command's id as JSON text.
    pub id: Option<Box<str>>,
}

/// Items of a keyed room that nobody has updated for too long.
#[derive(Debug)]
pub struct ItemsExpiry {
    /// A room or a raw room.
    pub topic: TopicKey,
    /// What is kept of it.
    pub policy: ItemsPolicy,
    /// The items, each with the offset of its last update: one that was updated since stays.
    pub items: Vec<(ArcStr, u64)>,
    /// Of the messages that tell of the removals, what stands behind `offset`.
    pub tail: Vec<u8>,
}

/// A page of a keyed room's items that a request wants.
#[derive(Debug)]
pub struct ItemsPage {
    /// Whose.
    pub request: RequestId,
    /// A room.
    pub topic: TopicKey,
    /// What is kept of it.
    pub policy: ItemsPolicy,
    /// Behind which offset.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

/// Updates of a keyed room that have their places.
#[derive(Debug)]
pub struct ItemsCame {
    /// In order, without a gap.
    pub applied: Vec<Applied>,
    /// A connection of this node that is not to get them where it gets each update.
    pub exclude: Option<ConnId>,
    /// Who has made them.
    pub origin: ItemsOrigin,
}

/// The items of a keyed room as they are in the cluster.
#[derive(Debug)]
pub struct ItemsLoaded {
    /// Where the room is.
    pub position: StreamPosition,
    /// Removals up to this offset may be forgotten.
    pub forgotten_to: u64,
    /// The items that were updated behind this offset, which the home knows all others as of; `None` where these are all,
    /// and nothing that the home knows counts any more.
    pub since: Option<u64>,
    /// In the order of their last updates, each with milliseconds since then.
    pub items: Vec<(Applied, u64)>,
}

/// What a home, or a connection's reactor, tells the cluster.
#[derive(Debug)]
pub enum ToCluster {
    /// The topic has a member here: answered with `Attached` or `Refused`.
    Attach {
        /// A room, an inbox or a raw room.
        topic: TopicKey,
        /// The id of this attachment.
        attach: AttachId,
        /// What is kept of its messages.
        policy: Option<HistoryPolicy>,
        /// What is kept of its items, if it is keyed.
        keyed: Option<KeyedPolicy>,
    },
    /// The topic has no member here any more. It stays attached, and is told of with `Lapsed` once that has lasted.
    Idle {
        /// An attached topic.
        topic: TopicKey,
        /// Its attachment.
        attach: AttachId,
    },
    /// The topic is of no use here any more. Nothing that belongs to its attachment counts from now on.
    Detach {
        /// As it was attached.
        topic: TopicKey,
    },
    /// For the members on other nodes; those here have it.
    Publish {
        /// To whom.
        topic: TopicKey,
        /// Whole frames, one after another.
        frames: Vec<u8>,
        /// How many.
        messages: u64,
    },
    /// A join or leave notice for the members on other nodes, which large rooms are not told.
    Notice {
        /// To whom.
        topic: TopicKey,
        /// A whole frame.
        frame: Vec<u8>,
    },
    /// Into history. It comes back as `Kept`, here as on every other node, and the publisher gets its ack.
    Append(Box<Append>),
    /// To a keyed room. What counts of it comes back as `Items`, here as on every other node, and the publisher gets its
    /// ack.
    UpdateItems(Box<ItemsCommand>),
    /// Items of a keyed room are removed where nobody has updated them.
    ExpireItems(Box<ItemsExpiry>),
    /// A request reads a page of a keyed room's items.
    ReadItems(Box<ItemsPage>),
    /// To a connection of another node, if there is one with this id.
    Direct {
        /// Whose.
        to: ClientId,
        /// A whole frame.
        frame: SharedFrame,
    },
    /// Asks for messages in front of an offset: answered with `Loaded`, piece by piece from the newest on. One that was
    /// asked for before is not gone on with.
    Load {
        /// An attached topic with history.
        topic: TopicKey,
        /// The first that is wanted.
        from: u64,
        /// The first that is not.
        before: u64,
        /// Whether some of them are of use.
        wanted: Wanted,
    },
    /// There is no room for more of what was asked for.
    Enough {
        /// Of which topic.
        topic: TopicKey,
    },
    /// Asks whether the history has gone on: answered with `Checked`, behind what is new.
    Check {
        /// An attached topic with history.
        topic: TopicKey,
    },
    /// Asks who is in a room: the asker gets the reply as a message. The home is asked for those here, as others are.
    Presence {
        /// The room.
        topic: TopicKey,
        /// The connection that asks.
        asker: ReplyTo,
        /// Its command's id as JSON text.
        id: Option<Box<str>>,
    },
    /// Goes behind all that `member` has asked for through this reactor; comes back as `Fenced` behind the answers.
    Fence {
        /// Whose.
        member: ConnId,
        /// How often it goes round after this.
        rounds_left: u8,
    },
    /// Who is in a room here.
    Present {
        /// As it was asked.
        question: Question,
        /// Who is.
        crowd: Crowd,
    },
    /// A request asks every reactor of every node; from the control thread.
    Survey {
        /// Who asks.
        request: RequestId,
        /// What.
        survey: Survey,
    },
    /// What a reactor has found.
    Found {
        /// As it was asked.
        id: SurveyId,
        /// What.
        found: Found,
    },
    /// An order of a request for all nodes that it concerns; from the control thread.
    Order {
        /// Whose.
        request: RequestId,
        /// What.
        order: Order,
    },
    /// A request has a room's history forgotten.
    Purge {
        /// Whose.
        request: RequestId,
        /// The room.
        topic: TopicKey,
        /// What is kept of it.
        policy: HistoryPolicy,
    },
    /// A request reads a page of a room's history.
    Read {
        /// Whose.
        request: RequestId,
        /// The room.
        topic: TopicKey,
        /// What is kept of it.
        policy: HistoryPolicy,
        /// Which messages.
        range: PageRange,
        /// At most so many.
        limit: usize,
    },
}

/// What nodes are to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A user is removed from a room.
    Kick {
        /// The room.
        room: Box<str>,
        /// Who.
        user: Box<str>,
        /// Told to the user.
        reason: Box<str>,
    },
    /// A user's connections end.
    Disconnect {
        /// Whose.
        user: Box<str>,
        /// The user's tokens up to this Unix second are good no more, where that is said.
        revoke_unix_s: Option<u64>,
    },
}

/// Which of a number of messages are of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest without a gap, as many as there are.
    Any,
    /// All of them, or none.
    All,
}

/// What there is of what was asked for beside what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// More of it, which comes next.
    More,
    /// No more of it. What is older is not known.
    Unread,
    /// Nothing, nor anything older.
    Nothing,
}

/// A message that was kept before, and how long ago.
#[derive(Debug)]
pub struct Older {
    /// With its offset.
    pub frame: SharedFrame,
    /// Milliseconds since it was published.
    pub age_ms: u64,
}

/// What the cluster tells a topic's home.
#[derive(Debug)]
pub enum FromCluster {
    /// From here on the home gets all that is published.
    Attached {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
        /// Where its history is, if it keeps one: the next that is kept comes behind it.
        position: Option<StreamPosition>,
    },
    /// Redis cannot be reached: the topic is this node's alone until `Attached` comes.
    Refused {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
    },
    /// Messages without history from another node.
    Deliver {
        /// To whom.
        topic: TopicKey,
        /// Whole frames, one after another.
        frames: Arc<[u8]>,
    },
    /// A join or leave notice from another node.
    Notice {
        /// To whom.
        topic: TopicKey,
        /// A whole frame.
        frame: SharedFrame,
    },
    /// The next message of the topic's history.
    Kept {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
        /// Its offset, one more than that of the one before.
        offset: u64,
        /// With its offset, as a whole frame.
        frame: SharedFrame,
        /// A connection of this node that is not to get it.
        exclude: Option<ConnId>,
    },
    /// The items of a keyed room: in front of `Attached`, and where updates were missed.
    ItemsLoaded {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
        /// The items.
        loaded: Box<ItemsLoaded>,
    },
    /// Commands of a request whose updates were refused as a whole, and are to come one by one.
    ItemsRefused {
        /// As they came.
        commands: Box<ItemsCommand>,
    },
    /// The next updates of a keyed room.
    Items {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
        /// The updates.
        came: ItemsCame,
    },
    /// Messages were missed and are gone, or continuity cannot be proven: the history goes on behind this position.
    Gap {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
        /// Where it goes on.
        position: StreamPosition,
    },
    /// The topic has had no member here for so long that it may as well be closed.
    Lapsed {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
    },
    /// A piece of what was asked for with `Load`.
    Loaded {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
        /// In front of which offset: the one asked for, or the first of the piece before.
        before: u64,
        /// Oldest first, without a gap up to that offset; `None` where Redis did not answer.
        older: Option<Vec<Older>>,
        /// What comes behind it.
        rest: Rest,
    },
    /// All that the history had when it was asked is here.
    Checked {
        /// The topic.
        topic: TopicKey,
        /// Which attachment.
        attach: AttachId,
        /// Whether Redis answered.
        answered: bool,
    },
    /// A node, this one included, asks who is in a room here.
    Asked {
        /// The room.
        topic: TopicKey,
        /// To be given back with the answer.
        question: Question,
        /// How many are to be named, if there are so many.
        names: usize,
    },
    /// All that the reactor has asked for a connection in front of a fence is answered.
    Fenced {
        /// Whose.
        member: ConnId,
        /// As it came.
        rounds_left: u8,
    },
    /// An operator's order: the user's connections leave a room, or, where the topic is the user's inbox, end.
    Expel {
        /// The room or the inbox.
        topic: TopicKey,
        /// Whose connections.
        user: ArcStr,
        /// Told to those who are removed from a room.
        reason: Box<str>,
    },
    /// An operator's order: those connections of a user end that have no inbox; to every reactor.
    Disconnect {
        /// Whose.
        user: ArcStr,
    },
    /// A node, this one included, asks every reactor: answered with [`ToCluster::Found`].
    Survey {
        /// To be given back with the answer.
        id: SurveyId,
        /// What is asked.
        survey: Survey,
    },
    /// Tokens of a user up to a Unix second are good no more.
    Revoked {
        /// Whose.
        user: ArcStr,
        /// The last second whose tokens are refused.
        unix_s: u64,
    },
    /// Whether Redis can be reached; to every reactor.
    Reachable(bool),
}

impl ToCluster {
    /// Bytes of its frames and lists.
    pub(super) fn bytes(&self) -> usize {
        match self {
            ToCluster::Publish { frames, .. } => frames.len(),
            ToCluster::Notice { frame, .. } => frame.len(),
            ToCluster::Append(append) => append.frame.plain().len(),
            ToCluster::UpdateItems(update) => update.updates.bytes(),
            ToCluster::ExpireItems(expiry) => size_of_val(&expiry.items[..]) + expiry.tail.len(),
            ToCluster::Direct { frame, .. } => frame.plain().len(),
            ToCluster::Present { crowd, .. } => crowd.bytes(),
            ToCluster::Found { found, .. } => found.bytes(),
            ToCluster::Attach { .. }
            | ToCluster::Idle { .. }
            | ToCluster::Detach { .. }
            | ToCluster::Load { .. }
            | ToCluster::Enough { .. }
            | ToCluster::Check { .. }
            | ToCluster::Presence { .. }
            | ToCluster::Survey { .. }
            | ToCluster::Order { .. }
            | ToCluster::Purge { .. }
            | ToCluster::ReadItems(_)
            | ToCluster::Read { .. }
            | ToCluster::Fence { .. } => 0,
        }
    }
}

impl FromCluster {
    /// Bytes of its frames and lists.
    pub(super) fn bytes(&self) -> usize {
        match self {
            FromCluster::Deliver { frames, .. } => frames.len(),
            FromCluster::Notice { frame, .. } | FromCluster::Kept { frame, .. } => frame.plain().len(),
            FromCluster::Loaded { older, .. } => {
                older.iter().flatten().map(|older| size_of::<Older>() + older.frame.plain().len()).sum()
            }
            FromCluster::ItemsLoaded { loaded, .. } => {
                loaded.items.iter().map(|(applied, _)| size_of::<(Applied, u64)>() + applied.frame.plain().len()).sum()
            }
            FromCluster::ItemsRefused { commands } => commands.updates.bytes(),
            FromCluster::Items { came, .. } => {
                came.applied.iter().map(|applied| size_of::<Applied>() + applied.frame.plain().len()).sum()
            }
            FromCluster::Attached { .. }
            | FromCluster::Lapsed { .. }
            | FromCluster::Refused { .. }
            | FromCluster::Gap { .. }
            | FromCluster::Checked { .. }
            | FromCluster::Asked { .. }
            | FromCluster::Fenced { .. }
            | FromCluster::Expel { .. }
            | FromCluster::Disconnect { .. }
            | FromCluster::Survey { .. }
            | FromCluster::Revoked { .. }
            | FromCluster::Reachable(_) => 0,
        }
    }
}

impl Mail {
    /// Mail from the cluster to a topic's home.
    pub fn from_cluster(news: FromCluster) -> Mail {
        Mail(Content::FromCluster(Box::new(news)))
    }

    /// A frame from another node to a connection, for its reactor.
    pub fn direct(to: ConnId, frame: SharedFrame) -> Mail {
        Mail(Content::Direct { to, frame, ack: None, published_at: None })
    }

    /// The ack of a publish into history, for the publisher.
    pub fn stored(publisher: ReplyTo, id: Box<str>, position: StreamPosition, stale: Option<StaleUpdates>) -> Mail {
        Mail(Content::Acked(Box::new(Ack { to: publisher, id, position: Some(position), stale })))
    }

    /// A command's updates of items are refused.
    pub fn items_refused(publisher: ReplyTo, id: Option<Box<str>>, room: TopicKey, error: TooManyItems) -> Mail {
        let room = room.name.as_str().into();
        Mail(Content::ItemsRefused(Box::new(ItemsRefused { to: publisher, id, room, error })))
    }

    /// A connection's reactor is told that what was asked for, perhaps of a room, is out of reach.
    pub fn unavailable(to: ReplyTo, id: Option<Box<str>>, room: Option<ArcStr>) -> Mail {
        Mail(Content::Unavailable { to, id, room })
    }

    /// A reply that several connections get, each with the end that its own id makes of it.
    pub fn counted(to: ReplyTo, id: Option<Box<str>>, head: Arc<[u8]>) -> Mail {
        Mail(Content::Counted(Box::new(Counted { to, id, head })))
    }

    /// So many nodes have heard an order of a request.
    pub fn heard(request: RequestId, nodes: u64) -> (PeerId, Mail) {
        (PeerId::Control, Mail(Content::Heard { request, nodes }))
    }

    /// What a survey of a request has found.
    pub fn surveyed(request: RequestId, found: Arc<Vec<NodeFound>>) -> (PeerId, Mail) {
        (PeerId::Control, Mail(Content::Surveyed(Box::new(Surveyed { request, found }))))
    }

    /// A page of a history for a request. `next` is where the next page begins, if there is one.
    pub fn history_page(
        request: RequestId,
        position: StreamPosition,
        frames: Vec<SharedFrame>,
        next: Option<u64>,
    ) -> (PeerId, Mail) {
        (PeerId::Control, Mail(Content::HistoryPage(Box::new(page_apart(request, position, frames, next)))))
    }

    /// What the cluster says with it to a home, or else what it is, a reply with its id first; for tests.
    #[cfg(test)]
    pub(crate) fn news_or_reply(self) -> Result<FromCluster, String> {
        match self.0 {
            Content::FromCluster(news) => Ok(*news),
            Content::Counted(counted) => {
                let Counted { id, head, .. } = *counted;
                Err(format!("{} {}", id.unwrap_or_default(), String::from_utf8_lossy(&head)))
            }
            Content::Unavailable { .. } => Err("unavailable".to_owned()),
            other => Err(format!("{other:?}")),
        }
    }

    /// What is in it for the cluster.
    ///
    /// # Panics
    /// Where it is mail between reactors.
    pub fn into_cluster(self) -> ToCluster {
        match self.0 {
            Content::ToCluster(request) => *request,
            other => panic!("{other:?} is not for the cluster"),
        }
    }
}
