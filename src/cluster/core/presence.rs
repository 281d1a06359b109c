//! Who is in a room, on whatever node.
//!
//! Nothing about it is stored: the node that is asked asks on the room's channel, and each node with members says who
//! they are. Redis tells how many nodes got the question, so that is how many answers there will be. A node that is gone
//! is not asked, and one that hangs is not waited for longer than [`CLUSTER_PRESENCE_MS_MAX`].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::record::{self, Record};
use super::Core;
use crate::frame::Opcode;
use crate::ids::ConnId;
use crate::limits::{CLUSTER_ASKING_MAX, CLUSTER_PRESENCE_MS_MAX, PRESENCE_USERS_MAX};
use crate::protocol;
use crate::router::cluster::Question;
use crate::router::{Mail, TopicKey};
use crate::time::Millis;

/// A question that is being answered.
#[derive(Debug)]
pub(super) struct Asking {
    room: Arc<str>,
    asker: ConnId,
    id: Option<Box<str>>,
    users: BTreeSet<Arc<str>>,
    /// How many nodes got the question, this one included if it follows the room; `None` until Redis says so.
    nodes: Option<u64>,
    answers: u64,
    asked_at: Millis,
}

impl Core {
    /// A connection of this node asks; `users` are those who are in the room here.
    pub(super) fn ask_presence(&mut self, room: &TopicKey, asker: ConnId, id: Option<Box<str>>, users: Vec<Arc<str>>) {
        self.numbers += 1;
        let number = self.numbers;
        let users = users.into_iter().collect();
        let asking = Asking { room: room.name.clone(), asker, id, users, nodes: None, answers: 0, asked_at: self.now };
        self.asking.insert(number, asking);
        if !self.reachable || self.pending.is_full() || self.asking.len() > CLUSTER_ASKING_MAX {
            return self.finish_presence(number);
        }
        let channel = self.names.topic(room.borrow());
        self.say(&channel, &Record::Presence { number });
    }

    /// A home answers what another node has asked.
    pub(super) fn answer_presence(&mut self, question: Question, users: &[Arc<str>]) {
        if !self.commands_up {
            return;
        }
        let channel = self.names.node(question.run);
        let users = record::write_users(users.iter().map(|user| &**user));
        self.say(&channel, &Record::Present { number: question.number, users: &users });
    }

    /// Redis has given the question to so many nodes, or to none.
    pub(super) fn presence_asked(&mut self, number: u64, nodes: Option<u64>) {
        if let Some(asking) = self.asking.get_mut(&number) {
            asking.nodes = Some(nodes.unwrap_or(0));
            self.finish_if_complete(number);
        }
    }

    /// A node has answered.
    pub(super) fn presence_answered<'a>(&mut self, number: u64, users: impl Iterator<Item = &'a str>) {
        if let Some(asking) = self.asking.get_mut(&number) {
            asking.users.extend(users.map(Arc::from));
            asking.answers += 1;
            self.finish_if_complete(number);
        }
    }

    fn finish_if_complete(&mut self, number: u64) {
        let is_complete = |asking: &Asking| asking.nodes.is_some_and(|nodes| asking.answers >= nodes);
        if self.asking.get(&number).is_some_and(is_complete) {
            self.finish_presence(number);
        }
    }

    /// Those who have waited long enough get what there is.
    pub(super) fn presence_overdue(&mut self) {
        let now = self.now;
        let overdue = |asking: &Asking| now.since(asking.asked_at) > CLUSTER_PRESENCE_MS_MAX;
        let numbers = self.asking.iter().filter(|(_, asking)| overdue(asking)).map(|(number, _)| *number);
        for number in numbers.collect::<Vec<u64>>() {
            self.finish_presence(number);
        }
    }

    fn finish_presence(&mut self, number: u64) {
        let Some(Asking { room, asker, id, users, .. }) = self.asking.remove(&number) else { return };
        let truncated = users.len() > PRESENCE_USERS_MAX;
        let listed = users.iter().take(PRESENCE_USERS_MAX).map(|user| &**user);
        let frame = self.frames.build(Opcode::Text, |out| {
            protocol::presence(out, id.as_deref(), &room, users.len(), listed, truncated);
        });
        self.mail.push((asker.reactor, Mail::direct(asker, frame.into())));
    }
}
