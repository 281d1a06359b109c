//! What holds for a topic, resolved once from the settings when the topic comes into being.

use std::fmt;
use std::sync::Arc;

use super::NoticeSettings;
use super::history::HistoryPolicy;
use super::topic::{HashedTopic, Kind, TopicKey};

/// Which rooms keep history, by their names.
#[derive(Clone)]
pub struct RoomPolicies(pub Arc<PolicyOfRoom>);

/// What is kept of the room with a name.
pub type PolicyOfRoom = dyn Fn(&str) -> Option<HistoryPolicy> + Send + Sync;

impl fmt::Debug for RoomPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoomPolicies")
    }
}

/// What holds for one topic. A topic's home resolves it once and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPolicy {
    /// What is kept of its messages.
    pub history: Option<HistoryPolicy>,
    /// Rooms with more members are told of no joins and leaves; 0 turns notices off.
    pub notice_members_max: u64,
}

impl TopicPolicy {
    /// Of a topic that keeps nothing and notices nothing.
    const PLAIN: TopicPolicy = TopicPolicy { history: None, notice_members_max: 0 };
}

/// How many names without a topic have their policy remembered.
const RECENT: usize = 64;

type Recent = [Option<(TopicKey, TopicPolicy)>; RECENT];

/// Resolves policies. All of it is settings, but for `recent`, which is built again by resolving.
#[derive(Debug)]
pub(super) struct Policies {
    rooms: Option<RoomPolicies>,
    inbox: Option<HistoryPolicy>,
    notice_members_max: u64,
    /// Rooms that were published to lately, by hash: one that keeps nothing and has no member has no topic to keep its
    /// policy in. `None` until there is one, which takes patterns.
    recent: Option<Box<Recent>>,
}

impl Policies {
    pub(super) fn new(rooms: Option<RoomPolicies>, inbox: Option<HistoryPolicy>, notices: &NoticeSettings) -> Policies {
        Policies { rooms, inbox, notice_members_max: notices.members_max, recent: None }
    }

    /// Other settings hold from now on. Whether inboxes keep history does not change: those that are there would have to be
    /// told.
    pub(super) fn change(&mut self, rooms: Option<RoomPolicies>, notices: &NoticeSettings) {
        // Rooms that keep history are there still: they are not to be taken for such as keep none.
        let was_asked = self.rooms.is_some();
        self.rooms = rooms.or_else(|| was_asked.then(|| RoomPolicies(Arc::new(|_: &str| None))));
        self.notice_members_max = notices.members_max;
        self.recent = None;
    }

    /// What holds for a topic that is there from now on. Whether it keeps history stays as it is: it is a promise to those
    /// who were told a position, or none.
    pub(super) fn resolve_again(&self, topic: HashedTopic<'_>, before: TopicPolicy) -> TopicPolicy {
        let after = self.resolve(topic);
        match (before.history, after.history) {
            (Some(_), Some(_)) => after,
            (history, _) => TopicPolicy { history, ..after },
        }
    }

    /// What holds for a topic that comes into being.
    pub(super) fn resolve(&self, topic: HashedTopic<'_>) -> TopicPolicy {
        match topic.kind {
            Kind::Room => TopicPolicy {
                history: self.rooms.as_ref().and_then(|rooms| (rooms.0)(topic.name)),
                notice_members_max: self.notice_members_max,
            },
            Kind::Inbox => TopicPolicy { history: self.inbox, ..TopicPolicy::PLAIN },
            Kind::Everyone | Kind::Raw => TopicPolicy::PLAIN,
        }
    }

    /// The same for a topic that may never come into being.
    #[inline]
    pub(super) fn of_absent(&mut self, topic: HashedTopic<'_>) -> TopicPolicy {
        match (topic.kind, &self.rooms) {
            (Kind::Room, Some(_)) => self.recently_resolved(topic),
            (Kind::Room, None) | (Kind::Inbox | Kind::Everyone | Kind::Raw, _) => self.resolve(topic),
        }
    }

    fn recently_resolved(&mut self, topic: HashedTopic<'_>) -> TopicPolicy {
        let at = topic.hash.low_bits() as usize % RECENT;
        let known = self.recent.as_ref().and_then(|recent| recent[at].as_ref());
        if let Some((_, policy)) = known.filter(|(key, _)| key.hashed() == topic) {
            return *policy;
        }
        let policy = self.resolve(topic);
        let recent = self.recent.get_or_insert_with(|| Box::new([const { None }; RECENT]));
        recent[at] = Some((topic.to_key(), policy));
        policy
    }

    /// Whether no topic of this kind keeps history.
    #[inline]
    pub(super) fn keeps_none(&self, kind: Kind) -> bool {
        match kind {
            Kind::Room => self.rooms.is_none(),
            Kind::Inbox => self.inbox.is_none(),
            Kind::Everyone | Kind::Raw => true,
        }
    }

    /// Forgets what can be resolved again.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rebuild(&mut self) {
        self.recent = None;
    }
}
