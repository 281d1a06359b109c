//! What reactors tell each other about topics. Mail between two reactors arrives in the order it was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arcstr::ArcStr;

use super::Answer;
use super::cluster::{FromCluster, ToCluster};
use super::edge::Edge;
use super::history::StreamPosition;
use super::home_request::{HistoryPage, HomeRequest};
use super::keyed::{
    ItemsMail, ItemsRefused, ItemsUpdate, KeyedAnswer, KeyedJoin, Reload, StaleUpdates, Subscribe, TuneOf,
};
use super::publish_many::PublishMany;
use super::replies::{Counted, Page, Users};
use super::retention::Recovery;
use super::slice::Slice;
use super::survey::{SurveyOf, Surveyed};
use super::topic::{TopicKey, TopicRef};
use crate::compress::SharedFrame;
use crate::ids::{ConnId, ReplyTo, RequestId};
#[cfg(test)]
use crate::ids::{ReactorId, Slot};
use crate::limits::MAIL_BYTES;
use crate::time::Stamp;

/// One piece of mail: to a topic's home, from it, to a connection, or to and from the cluster.
#[derive(Debug)]
pub struct Mail(pub(super) Content);

impl Mail {
    /// Bytes that it is counted as in a mailbox: its frames, and a fixed part for all else.
    pub(crate) fn bytes(&self) -> usize {
        let frame_bytes = match &self.0 {
            Content::Home(HomeMail::Publish(published)) => published.frame.plain().len(),
            Content::Home(HomeMail::Items(update)) => update.bytes(),
            Content::Items { items, .. } => items.bytes(),
            Content::Reload { reload, .. } => reload.bytes(),
            Content::Joined(joined) => joined.keyed.as_ref().map_or(0, |keyed| keyed.bytes()),
            Content::Deliver { frame, .. } | Content::Direct { frame, .. } => frame.plain().len(),
            Content::DeliverMany { frames, .. } => frames.len(),
            Content::Counted(counted) => counted.head.len(),
            Content::Page(page) => size_of_val(page.messages.frames()),
            Content::Users(users) => size_of_val(&users.names[..]),
            Content::PublishMany(many) | Content::PublishedMany(many) => many.text_bytes(),
            Content::HistoryPage(page) => size_of_val(page.messages.frames()),
            Content::Surveyed(surveyed) => surveyed.found.iter().map(|found| found.found.bytes()).sum(),
            Content::ToCluster(request) => request.bytes(),
            Content::FromCluster(news) => news.bytes(),
            Content::Home(
                HomeMail::Join(_)
                | HomeMail::Leave(_)
                | HomeMail::Presence(_)
                | HomeMail::History(_)
                | HomeMail::Resume(_)
                | HomeMail::Request(_)
                | HomeMail::Tune(_),
            )
            | Content::Resumed(_)
            | Content::ItemsRefused(_)
            | Content::Freshness { .. }
            | Content::NewEpoch { .. }
            | Content::Tuned(_)
            | Content::Left(_)
            | Content::Acked(_)
            | Content::Unavailable { .. }
            | Content::Expel(_)
            | Content::Replaced { .. }
            | Content::Survey(_)
            | Content::Heard { .. }
            | Content::Edge(_)
            | Content::Fence { .. }
            | Content::Fenced { .. } => 0,
        };
        MAIL_BYTES + frame_bytes
    }
}

#[cfg(test)]
impl Mail {
    /// Mail for no connection, with a frame of so many bytes.
    pub(crate) fn of_size(bytes: usize) -> Mail {
        let conn = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };
        Mail(Content::Direct { to: conn, frame: vec![0; bytes][..].into(), ack: None, published_at: None })
    }

    /// Mail for no connection, told apart by its number.
    pub(crate) fn numbered(number: u8) -> Mail {
        let conn = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };
        Mail(Content::Direct { to: conn, frame: [number][..].into(), ack: None, published_at: None })
    }

    /// The number it was made with.
    pub(crate) fn number(&self) -> u8 {
        match &self.0 {
            Content::Direct { frame, .. } => frame.plain()[0],
            other => panic!("{other:?} has no number"),
        }
    }
}

#[derive(Debug)]
pub(super) enum Content {
    Home(HomeMail),
    Resumed(Box<Resumed>),
    Joined(Box<Joined>),
    Left(Box<Left>),
    Deliver {
        topic: TopicKey,
        frame: SharedFrame,
        exclude: Option<ConnId>,
        published_at: Stamp,
    },
    DeliverMany {
        topic: TopicKey,
        frames: Arc<[u8]>,
        published_at: Stamp,
    },
    Direct {
        to: ConnId,
        frame: SharedFrame,
        ack: Option<Box<Ack>>,
        /// As of [`Published`].
        published_at: Option<Stamp>,
    },
    Acked(Box<Ack>),
    ItemsRefused(Box<ItemsRefused>),
    /// To a mirror of a keyed room.
    Items {
        topic: TopicKey,
        items: Arc<ItemsMail>,
    },
    /// To a mirror of a keyed room.
    NewEpoch {
        topic: TopicKey,
        epoch: Arc<str>,
    },
    /// To a mirror of a keyed room: updates were missed.
    Reload {
        topic: TopicKey,
        reload: Arc<Reload>,
    },
    /// Whether a keyed room is stale, to its mirrors.
    Freshness {
        topic: TopicKey,
        offset: u64,
        is_stale: bool,
    },
    /// Back from the home.
    Tuned(Box<TuneOf>),
    Page(Box<Page>),
    Users(Box<Users>),
    Counted(Box<Counted>),
    /// What the command asked for needs Redis, which does not answer.
    Unavailable {
        to: ReplyTo,
        id: Option<Box<str>>,
        /// The room that it was about, where it was about one.
        room: Option<ArcStr>,
    },
    Expel(Box<Expulsion>),
    /// A newer connection of the same user takes its place.
    Replaced {
        member: ConnId,
    },
    /// To the home of all its topics.
    PublishMany(PublishMany),
    /// The same, back at the control thread.
    PublishedMany(PublishMany),
    /// To a reactor of a node alone.
    Survey(Box<SurveyOf>),
    /// To the control thread.
    Surveyed(Box<Surveyed>),
    /// To the control thread.
    HistoryPage(Box<HistoryPage>),
    /// To the control thread: so many nodes have heard an order.
    Heard {
        request: RequestId,
        nodes: u64,
    },
    ToCluster(Box<ToCluster>),
    FromCluster(Box<FromCluster>),
    /// For the webhooks' thread.
    Edge(Edge),
    /// Goes behind all that `from` has sent this way, and comes back as `Fenced` behind what became of it.
    Fence {
        from: ConnId,
    },
    Fenced {
        to: ConnId,
    },
}

/// There is much of it, and mailboxes are bounded by its number.
const _: () = assert!(size_of::<Content>() <= 48);

/// What a topic's home is asked for.
#[derive(Debug)]
pub(super) enum HomeMail {
    Join(Box<Join>),
    Leave(Box<Leave>),
    Publish(Box<Published>),
    Presence(Box<PresenceOf>),
    History(Box<HistoryOf>),
    Resume(Box<Resume>),
    Request(Box<HomeRequest>),
    Items(Box<ItemsUpdate>),
    Tune(Box<TuneOf>),
}

impl HomeMail {
    /// The topic whose home it is for.
    pub(super) fn topic(&self) -> &TopicKey {
        match self {
            HomeMail::Join(join) => &join.topic,
            HomeMail::Leave(leave) => &leave.topic,
            HomeMail::Publish(publish) => &publish.topic,
            HomeMail::Presence(question) => &question.room,
            HomeMail::History(question) => &question.room,
            HomeMail::Resume(resume) => &resume.inbox,
            HomeMail::Request(request) => &request.room,
            HomeMail::Items(update) => &update.topic,
            HomeMail::Tune(tune) => &tune.topic,
        }
    }
}

/// Whether a join or a leave changes who is a member, as the member's own reactor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Changed,
    Unchanged,
}

impl Membership {
    pub(super) fn changed_if(changed: bool) -> Membership {
        match changed {
            true => Membership::Changed,
            false => Membership::Unchanged,
        }
    }
}

#[derive(Debug)]
pub(super) struct Join {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) user: ArcStr,
    pub(super) membership: Membership,
    pub(super) reply: JoinReply,
    /// In a cluster: whether what Redis had when it was asked for is here.
    pub(super) is_checked: bool,
}

#[derive(Debug)]
pub(super) struct Joined {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) membership: Membership,
    pub(super) reply: JoinReply,
    pub(super) outcome: Outcome,
    /// Where the room is keyed.
    pub(super) keyed: Option<Box<KeyedJoin>>,
}

/// How a home answers a join.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is a member, and this is what its topic's history has for it.
    Member(Recovery),
    /// Its history needs Redis, which does not answer. The home counts it until it leaves again.
    Unavailable,
    /// Its user has as many connections as allowed. The home counts it among the members until it leaves again.
    Full,
}

#[derive(Debug)]
pub(super) struct Leave {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) user: ArcStr,
    pub(super) membership: Membership,
    pub(super) why: Departure,
}

/// Why a member leaves.
#[derive(Debug)]
pub(super) enum Departure {
    /// It said so and may want an answer with this id.
    Asked(Option<Box<str>>),
    /// Its connection ended: there is none to answer.
    Gone {
        /// Within how many milliseconds its client was told to come back; 0 where it was not.
        back_ms: u32,
    },
    /// Its join was refused.
    Refused,
    /// An operator has removed it, for this reason.
    Removed(Box<str>),
}

#[derive(Debug)]
pub(super) struct Left {
    pub(super) topic: TopicKey,
    pub(super) member: ConnId,
    pub(super) membership: Membership,
    pub(super) id: Option<Box<str>>,
    /// Why, where it was removed.
    pub(super) removed: Option<Box<str>>,
}

/// An operator's order for the members of a topic that are of one user: those of a room leave it, and those of an inbox
/// end their connections.
#[derive(Clone, Debug)]
pub(super) struct Expulsion {
    pub(super) topic: TopicKey,
    pub(super) user: ArcStr,
    pub(super) reason: Box<str>,
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// To whom.
    pub topic: TopicRef<'a>,
    /// A whole frame.
    pub frame: &'a [u8],
    /// A member that is not to get it.
    pub exclude: Option<ConnId>,
    /// What a retry by the same publisher is known by.
    pub key: Option<&'a str>,
    /// Whose message it is.
    pub publisher: ReplyTo,
}

/// A publish on its way to its topic's home.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) topic: TopicKey,
    pub(super) frame: SharedFrame,
    pub(super) exclude: Option<ConnId>,
    pub(super) key: Option<Box<str>>,
    pub(super) publisher: ReplyTo,
    /// When; `None` where that is not known, and counts as when it is taken from the mailbox.
    pub(super) published_at: Option<Stamp>,
    /// Where the publisher wants an ack: the command's id as JSON text, and of a request an empty one.
    pub(super) id: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct HistoryOf {
    pub(super) room: TopicKey,
    pub(super) asker: ReplyTo,
    pub(super) id: Option<Box<str>>,
    pub(super) before: Option<u64>,
    pub(super) limit: usize,
}

#[derive(Debug)]
pub(super) struct Resume {
    pub(super) inbox: TopicKey,
    pub(super) to: ConnId,
    pub(super) epoch: Box<str>,
    pub(super) offset: u64,
    pub(super) welcomed_at: Option<StreamPosition>,
    pub(super) id: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) to: ConnId,
    pub(super) position: Option<StreamPosition>,
    pub(super) slice: Option<Slice>,
    pub(super) id: Option<Box<str>>,
}

#[derive(Debug)]
pub(super) struct PresenceOf {
    pub(super) room: TopicKey,
    pub(super) asker: ReplyTo,
    pub(super) id: Option<Box<str>>,
}

/// An `ack` for the publisher.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) to: ReplyTo,
    pub(super) id: Box<str>,
    /// Where the message is in history.
    pub(super) position: Option<StreamPosition>,
    /// Of updates of items, those that were not above their items' versions.
    pub(super) stale: Option<StaleUpdates>,
}

impl Ack {
    /// What its connection is told.
    pub(super) fn answer(&self) -> Answer<'_> {
        let Ack { to: _, id, position, stale } = self;
        let position = position.as_ref().map(StreamPosition::in_epoch);
        match (position, stale) {
            (Some(position), Some(stale)) => Answer::Keyed(KeyedAnswer::Updated { id, position, stale }),
            (position, _) => Answer::Acked { id, position },
        }
    }
}

/// What of a topic's history a joining connection wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverFrom {
    /// All behind a position.
    Since {
        /// The epoch in which the offset counts.
        epoch: Box<str>,
        /// The last message it has.
        offset: u64,
    },
    /// The newest so many.
    Last(u64),
}

/// How a join is to be answered.
#[derive(Clone, Debug)]
pub enum JoinReply {
    /// Not at all: the notice says it.
    Silent,
    /// With `joined`, behind what it recovers.
    Joined {
        /// The command's id as JSON text.
        id: Option<Box<str>>,
        /// What of the room's history to send.
        recover: Option<RecoverFrom>,
        /// What of a keyed room it wants; `None` is every update.
        subscribe: Option<Box<Subscribe>>,
    },
    /// Of a raw keyed room: with the end of the snapshot, where it gets one.
    Raw {
        /// What of the room has to be sent, if not all.
        recover: Option<RecoverFrom>,
        /// What of the room it wants.
        subscribe: Box<Subscribe>,
    },
    /// With `joined`, and after the last of several with `ack`.
    Many(Arc<ManyJoin>),
}

/// One command that joins many rooms.
#[derive(Debug)]
pub struct ManyJoin {
    /// The command's id as JSON text.
    pub id: Box<str>,
    /// What of each room's history to send.
    pub recover: Option<RecoverFrom>,
    rooms_left: AtomicU32,
    failed: AtomicBool,
}

impl JoinReply {
    /// What of the history is to be sent.
    pub(super) fn recover_from(&self) -> Option<&RecoverFrom> {
        match self {
            JoinReply::Silent => None,
            JoinReply::Joined { recover, .. } | JoinReply::Raw { recover, .. } => recover.as_ref(),
            JoinReply::Many(many) => many.recover.as_ref(),
        }
    }
}

impl JoinReply {
    /// The command's id as JSON text, where one room is answered.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            JoinReply::Joined { id, .. } => id.as_deref(),
            JoinReply::Many(many) => Some(&many.id),
            JoinReply::Silent | JoinReply::Raw { .. } => None,
        }
    }

    /// What of a keyed room is wanted.
    pub(super) fn subscribe(&self) -> Option<&Subscribe> {
        match self {
            JoinReply::Joined { subscribe, .. } => subscribe.as_deref(),
            JoinReply::Raw { subscribe, .. } => Some(subscribe),
            JoinReply::Silent | JoinReply::Many(_) => None,
        }
    }
}

impl ManyJoin {
    /// A command for `rooms` rooms.
    pub fn new(id: &str, recover: Option<RecoverFrom>, rooms: u32) -> Arc<ManyJoin> {
        Arc::new(ManyJoin { id: id.into(), recover, rooms_left: AtomicU32::new(rooms), failed: AtomicBool::new(false) })
    }

    /// One room is answered; whether it was the last.
    pub fn answered(&self) -> bool {
        self.rooms_left.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// One room could not be joined; whether it is the first.
    pub fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::Relaxed)
    }

    /// Whether a room could not be joined: then the command has had its one error instead of an ack.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}
