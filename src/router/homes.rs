//! What a topic's home does with joins, leaves and questions: it gives them their place in the topic's order.

use super::cluster::ToCluster;
use super::mail::{Content, Departure, Expulsion, Join, Joined, Leave, Left, Outcome, PresenceOf};
use super::replies::Users;
use super::topic::{Kind, TopicKey};
use super::{Router, Sink};
use crate::frame::Opcode;
use crate::ids::{ConnId, ReactorId};
use crate::limits::PRESENCE_USERS_MAX;
use crate::protocol::{self, Notice};

impl Router {
    /// Asks a room's home who is in it; `asker` gets the reply as a message.
    pub fn presence(&mut self, asker: ConnId, room: &str, id: Option<&str>, sink: &mut impl Sink) {
        let key = TopicKey { kind: Kind::Room, name: room.into() };
        let question = PresenceOf { room: key.clone(), asker, id: id.map(Into::into) };
        self.send_home(&key, Content::Presence(Box::new(question)), sink);
    }

    pub(super) fn home_join(&mut self, from: ReactorId, join: Join, sink: &mut impl Sink) {
        let Join { topic: key, member, user, fresh, ask } = join;
        let hash = self.topics.hasher().hash(key.borrow());
        let index = self.topics.find_or_insert(hash, &key);
        self.home_topic(hash, key.borrow());
        let room = key.kind == Kind::Room;
        if fresh {
            self.topics.get_mut(index).home.add(from, room.then_some(&user), self.seed);
        }
        let recovery = self.recovery(index, &ask);
        let joined = Joined { topic: key.clone(), member, fresh, ask, outcome: Outcome::Member(recovery) };
        self.send(from, Content::Joined(Box::new(joined)), sink);
        if fresh && room {
            self.notice(hash, &key, Notice::Join, &user, sink);
        }
    }

    /// The history of a room is out of reach. The member is counted as any other, and leaves when it hears of it: so
    /// joins and leaves still come in pairs.
    pub(super) fn home_refuse_join(&mut self, from: ReactorId, join: Join, sink: &mut impl Sink) {
        let Join { topic, member, user, fresh, ask } = join;
        let hash = self.topics.hasher().hash(topic.borrow());
        let index = self.topics.find_or_insert(hash, &topic);
        if fresh {
            self.topics.get_mut(index).home.add(from, Some(&user), self.seed);
        }
        let joined = Joined { topic, member, fresh, ask, outcome: Outcome::Unavailable };
        self.send(from, Content::Joined(Box::new(joined)), sink);
    }

    pub(super) fn home_leave(&mut self, from: ReactorId, leave: Leave, sink: &mut impl Sink) {
        let Leave { topic: key, member, user, counts, why } = leave;
        let hash = self.topics.hasher().hash(key.borrow());
        let room = key.kind == Kind::Room;
        if counts {
            let index = self.topics.find(hash, key.borrow()).expect("a topic with members is in its home's table");
            self.topics.get_mut(index).home.remove(from, room.then_some(&user));
            self.keep_position(index);
        }
        let noticed = match why {
            Departure::Asked(id) => {
                let left = Left { topic: key.clone(), member, counts, id, removed: None };
                self.send(from, Content::Left(Box::new(left)), sink);
                true
            }
            Departure::Removed(reason) => {
                let left = Left { topic: key.clone(), member, counts, id: None, removed: Some(reason) };
                self.send(from, Content::Left(Box::new(left)), sink);
                true
            }
            Departure::Refused => {
                let left = Left { topic: key.clone(), member, counts, id: None, removed: None };
                self.send(from, Content::Left(Box::new(left)), sink);
                false
            }
            Departure::Gone => true,
        };
        if counts && room && noticed {
            self.notice(hash, &key, Notice::Leave, &user, sink);
        }
        self.close_if_unused(&key);
        self.drop_topic_if_unused(&key);
    }

    pub(super) fn home_presence(&mut self, from: ReactorId, question: PresenceOf, sink: &mut impl Sink) {
        let PresenceOf { room, asker, id } = question;
        let hash = self.topics.hasher().hash(room.borrow());
        if self.cluster_reachable {
            return self.ask_cluster(ToCluster::Presence { topic: room, asker, id });
        }
        let home = self.topics.find(hash, room.borrow()).map(|index| &self.topics.get(index).home);
        let count = home.map_or(0, |home| home.users_count()) as u64;
        let users = home.into_iter().flat_map(|home| home.users_shared());
        let names = users.take(PRESENCE_USERS_MAX).cloned().collect();
        self.send(from, Content::Users(Box::new(Users { to: asker, id, room, count, names })), sink);
    }

    /// An operator's order: it goes to every reactor that has members.
    pub(super) fn home_expel(&mut self, expulsion: &Expulsion, sink: &mut impl Sink) {
        let hash = self.topics.hasher().hash(expulsion.topic.borrow());
        let Some(index) = self.topics.find(hash, expulsion.topic.borrow()) else { return };
        let reactors: Vec<ReactorId> = self.topics.get(index).home.reactors().collect();
        for reactor in reactors {
            self.send(reactor, Content::Expel(Box::new(expulsion.clone())), sink);
        }
    }

    /// A notice to the members a room has now, while it has few enough.
    pub(super) fn notice(&mut self, hash: u64, room: &TopicKey, notice: Notice, user: &str, sink: &mut impl Sink) {
        let members = match self.topics.find(hash, room.borrow()) {
            Some(index) => self.topics.get(index).home.members(),
            None => 0,
        };
        let members_max = self.notices.members_max;
        if members > members_max || members_max == 0 || (members == 0 && self.cluster.is_none()) {
            return;
        }
        let template = match notice {
            Notice::Join => &self.notices.join_text,
            Notice::Leave => &self.notices.leave_text,
        };
        let text = template.replace("{user}", user);
        let mut frames = std::mem::take(&mut self.frames);
        let frame = frames.build(Opcode::Text, |out| protocol::notice(out, &room.name, notice, user, &text));
        if self.cluster.is_some() {
            self.ask_cluster(ToCluster::Notice { topic: room.clone(), frame: frame.to_vec() });
        }
        self.fan_out(hash, room.borrow(), frame, None, None, sink);
        self.frames = frames;
    }
}
