//! What holds for a topic, resolved once from the settings when the topic comes into being.

use std::fmt;
use std::sync::Arc;

use super::RouterSettings;
use super::history::HistoryPolicy;
use super::topic::{HashedTopic, Kind, RAW_PREFIX, TopicKey};

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

/// Which rooms are keyed, by their names; raw rooms have theirs behind [`RAW_PREFIX`].
#[derive(Clone)]
pub struct KeyedRooms(pub Arc<KeyedPolicyOfRoom>);

/// What is kept of the items of the room with a name, if that is keyed.
pub type KeyedPolicyOfRoom = dyn Fn(&str) -> Option<KeyedPolicy> + Send + Sync;

impl fmt::Debug for KeyedRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedRooms")
    }
}

/// What is kept of the items of one keyed room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedPolicy {
    /// Items with a value; an update that brings one more is refused. As many removals are remembered.
    pub items_max: u32,
    /// Bytes that they may take; an update that goes beyond is refused.
    pub bytes_max: u64,
    /// Time after its last update when an item is removed, in milliseconds; `None` removes none.
    pub ttl_ms: Option<u64>,
    /// Time that a removed item is remembered, in milliseconds.
    pub removed_ttl_ms: u64,
    /// Time without an update after which the room is stale, in milliseconds; `None` is never.
    pub stale_after_ms: Option<u64>,
}

/// What holds for all keyed rooms.
#[derive(Clone, Debug)]
pub struct KeyedSettings {
    /// Which rooms are keyed; `None` where none is.
    pub rooms: Option<KeyedRooms>,
    /// Items of all keyed rooms of the node; an update that brings one more is refused.
    pub node_items_max: u64,
    /// Bytes that these may take; an update that goes beyond is refused.
    pub node_bytes_max: u64,
    /// Bytes of the items that one connection's subscriptions may name; one that names more is refused.
    pub subscription_bytes_max: usize,
}

impl KeyedSettings {
    /// No room is keyed.
    pub fn none() -> KeyedSettings {
        KeyedSettings { rooms: None, node_items_max: 0, node_bytes_max: 0, subscription_bytes_max: 0 }
    }
}

/// What holds for one topic. A topic's home resolves it once and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPolicy {
    /// What is kept of its messages.
    pub history: Option<HistoryPolicy>,
    /// What is kept of its items; `None` where it is not keyed.
    pub keyed: Option<KeyedPolicy>,
    /// Rooms with more members are told of no joins and leaves; 0 turns notices off.
    pub notice_members_max: u64,
}

impl TopicPolicy {
    /// Of a topic that keeps nothing and notices nothing.
    const PLAIN: TopicPolicy = TopicPolicy { history: None, keyed: None, notice_members_max: 0 };
}

/// How many names without a topic have their policy remembered.
const RECENT: usize = 64;

type Recent = [Option<(TopicKey, TopicPolicy)>; RECENT];

/// Resolves policies. All of it is settings, but for `recent`, which is built again by resolving.
#[derive(Debug)]
pub(super) struct Policies {
    rooms: Option<RoomPolicies>,
    inbox: Option<HistoryPolicy>,
    /// Which rooms are keyed, as long as the server runs: each reactor goes by that, and they have to agree.
    keyed: Option<KeyedRooms>,
    /// What is kept of their items, by the settings that hold now.
    keyed_bounds: Option<KeyedRooms>,
    notice_members_max: u64,
    /// Rooms that were asked about lately, by hash: one that keeps nothing and has no member has no topic to keep its policy
    /// in. `None` until there is one, which takes patterns.
    recent: Option<Box<Recent>>,
}

impl Policies {
    pub(super) fn new(settings: &RouterSettings) -> Policies {
        let RouterSettings { history, keyed, notices, .. } = settings;
        Policies {
            rooms: history.rooms.clone(),
            inbox: history.inbox,
            keyed: keyed.rooms.clone(),
            keyed_bounds: keyed.rooms.clone(),
            notice_members_max: notices.members_max,
            recent: None,
        }
    }

    /// Other settings hold from now on. Whether inboxes keep history does not change: those that are there would have to be
    /// told. Nor does it which rooms are keyed.
    pub(super) fn change(&mut self, settings: &RouterSettings) {
        // Rooms that keep history are there still: they are not to be taken for such as keep none.
        let was_asked = self.rooms.is_some();
        self.rooms =
            settings.history.rooms.clone().or_else(|| was_asked.then(|| RoomPolicies(Arc::new(|_: &str| None))));
        self.keyed_bounds = settings.keyed.rooms.clone();
        self.notice_members_max = settings.notices.members_max;
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
                keyed: self.keyed(topic.name),
                notice_members_max: self.notice_members_max,
            },
            Kind::Inbox => TopicPolicy { history: self.inbox, ..TopicPolicy::PLAIN },
            Kind::Raw if self.has_keyed() => {
                TopicPolicy { keyed: self.keyed(&format!("{RAW_PREFIX}{}", topic.name)), ..TopicPolicy::PLAIN }
            }
            Kind::Everyone | Kind::Raw => TopicPolicy::PLAIN,
        }
    }

    /// What is kept of the items of a room: whether any are is as it was at the start, how many is as it is now.
    fn keyed(&self, name: &str) -> Option<KeyedPolicy> {
        let at_start = (self.keyed.as_ref()?.0)(name)?;
        let now = self.keyed_bounds.as_ref().and_then(|rooms| (rooms.0)(name));
        Some(now.unwrap_or(at_start))
    }

    /// The same for a topic that may never come into being.
    #[inline]
    pub(super) fn of_absent(&mut self, topic: HashedTopic<'_>) -> TopicPolicy {
        let asks_patterns = match topic.kind {
            Kind::Room => self.rooms.is_some() || self.has_keyed(),
            Kind::Raw => self.has_keyed(),
            Kind::Inbox | Kind::Everyone => false,
        };
        if asks_patterns { self.recently_resolved(topic) } else { self.resolve(topic) }
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

    /// Whether a room or raw room may be keyed.
    #[inline]
    pub(super) fn has_keyed(&self) -> bool {
        self.keyed.is_some()
    }

    /// Forgets what can be resolved again.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn rebuild(&mut self) {
        self.recent = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic::Topics;
    use super::super::{HistorySettings, NoticeSettings, TopicRef};
    use super::*;

    const BOUNDS: KeyedPolicy =
        KeyedPolicy { items_max: 7, bytes_max: 1_000, ttl_ms: None, removed_ttl_ms: 1_000, stale_after_ms: None };

    /// Rooms whose name begins so are keyed, with so many items.
    fn settings(keyed: Option<(&'static str, u32)>) -> RouterSettings {
        let of = |(start, items_max): (&'static str, u32)| {
            let policy = KeyedPolicy { items_max, ..BOUNDS };
            KeyedRooms(Arc::new(move |name: &str| name.starts_with(start).then_some(policy)))
        };
        RouterSettings {
            rooms_max: 8,
            notices: NoticeSettings { members_max: 3, join_text: String::new(), leave_text: String::new() },
            history: HistorySettings::none(),
            keyed: KeyedSettings { rooms: keyed.map(of), ..KeyedSettings::none() },
            user_connections: None,
            cluster: false,
        }
    }

    fn items_max(policies: &mut Policies, kind: Kind, name: &str) -> Option<u32> {
        let topics = Topics::new(1, 1);
        let topic = topics.hashed(TopicRef { kind, name });
        let policy = policies.of_absent(topic);
        assert_eq!(policy, policies.resolve(topic), "what is remembered is what holds");
        policy.keyed.map(|keyed| keyed.items_max)
    }

    #[test]
    fn rooms_are_keyed_by_their_names_and_raw_rooms_by_theirs_behind_raw() {
        let mut policies = Policies::new(&settings(Some(("px", 7))));
        assert_eq!(items_max(&mut policies, Kind::Room, "px.a"), Some(7));
        assert_eq!(items_max(&mut policies, Kind::Room, "den"), None);
        assert_eq!(items_max(&mut policies, Kind::Raw, "px.a"), None);
        assert_eq!(items_max(&mut policies, Kind::Inbox, "px.a"), None);
        let mut policies = Policies::new(&settings(Some(("raw/px", 7))));
        assert_eq!(items_max(&mut policies, Kind::Raw, "px.a"), Some(7));
        assert_eq!(items_max(&mut policies, Kind::Room, "px.a"), None);
        let mut policies = Policies::new(&settings(None));
        assert!(!policies.has_keyed());
        assert_eq!(items_max(&mut policies, Kind::Room, "px.a"), None);
    }

    #[test]
    fn other_settings_change_bounds_of_items_but_not_which_rooms_are_keyed() {
        let mut policies = Policies::new(&settings(Some(("px", 7))));
        assert_eq!(items_max(&mut policies, Kind::Room, "px.a"), Some(7));
        policies.change(&settings(Some(("p", 9))));
        assert_eq!(items_max(&mut policies, Kind::Room, "px.a"), Some(9));
        assert_eq!(items_max(&mut policies, Kind::Room, "pound"), None, "it was not at the start");
        policies.change(&settings(Some(("py", 5))));
        assert_eq!(items_max(&mut policies, Kind::Room, "px.a"), Some(7), "it was at the start");
        policies.change(&settings(None));
        assert_eq!(items_max(&mut policies, Kind::Room, "px.a"), Some(7));
        assert_eq!(items_max(&mut policies, Kind::Room, "py.a"), None);
    }
}
