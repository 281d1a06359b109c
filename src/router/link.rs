//! How a topic's home stands with the cluster, and what waits for it.
//!
//! ```text
//!            Join                     Opened
//!   Apart ─────────► Waiting(Opening) ──────► Open ◄──────────────────┐
//!    ▲ ▲                  │ Refused            │  older messages, or   │ Loaded, Checked
//!    │ │                  ▼                    ▼  a newer place wanted │
//!    │ │                Alone ──── Opened ──► (Open)        Waiting(…) ┘
//!    │ └─ the last member ┘                    │
//!    │    leaves                               │
//!    └── Lapsed: no member for some seconds ───┘
//! ```
//!
//! An open topic without a member is idle: what is kept of it goes on, so that whoever comes back finds it as it would
//! with another member here, and costs Redis nothing.
//!
//! While a topic waits, all that is asked of its home waits with it, in order.

use std::collections::VecDeque;

use super::cluster::{Append, FromCluster, Opening, Question, ToCluster};
use super::crowd::Crowd;
use super::history::{History, Place};
use super::mail::{Ack, Content, Expulsion, Join, Mail, Published};
use super::needs::{Answered, Need, Piece};
use super::topic::{Kind, TopicIndex, TopicKey, TopicRef};
use super::{Publish, Router, Sink};
use crate::compress::SharedFrame;
use crate::frame::Opcode;
use crate::ids::ReactorId;
use crate::limits::CLUSTER_WAITING_MAX;
use crate::protocol;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) enum Link {
    /// Without a member here. Nothing comes from other nodes.
    #[default]
    Apart,
    /// What other nodes publish comes here.
    Open(Opening),
    /// Asked for, but Redis cannot be reached: the members here have only each other.
    Alone(Opening),
    /// The cluster is asked, and nothing else happens before it answers.
    Waiting(Box<Waiting>),
}

#[derive(Debug)]
pub(super) struct Waiting {
    opening: Opening,
    /// What the cluster was asked; `None` while the topic is opened.
    pub(super) need: Option<Need>,
    /// In front of which offset the next piece of it is.
    pub(super) next_before: u64,
    /// What has come of a page.
    pub(super) page: Vec<SharedFrame>,
    /// How much of the mail was there when it was asked.
    covered: usize,
    mail: VecDeque<(ReactorId, Content)>,
}

impl Waiting {
    /// Whether this waits with the rest. Joins and leaves always do: a connection's own must come in order.
    fn has_room(&self, content: &Content) -> bool {
        self.mail.len() < CLUSTER_WAITING_MAX || matches!(content, Content::Join(_) | Content::Leave(_))
    }
}

impl Link {
    /// Whether nothing has to be closed.
    pub(super) fn is_apart(&self) -> bool {
        matches!(self, Link::Apart)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Link::Waiting(_))
    }

    fn opening(&self) -> Option<Opening> {
        match self {
            Link::Apart => None,
            Link::Open(opening) | Link::Alone(opening) => Some(*opening),
            Link::Waiting(waiting) => Some(waiting.opening),
        }
    }
}

impl Router {
    /// Mail for a topic that is at home here. In a cluster some of it has to wait.
    pub(super) fn home_mail(&mut self, from: ReactorId, content: Content, sink: &mut impl Sink) {
        match self.cluster.is_some() {
            true => self.pass_or_wait(from, content, Answered::Nothing, sink),
            false => self.home_act(from, content, sink),
        }
    }

    fn home_act(&mut self, from: ReactorId, content: Content, sink: &mut impl Sink) {
        match content {
            Content::Join(join) => self.home_join(from, *join, sink),
            Content::Leave(leave) => self.home_leave(from, *leave, sink),
            Content::Publish(publish) => self.home_publish(from, *publish, sink),
            Content::Presence(question) => self.home_presence(from, *question, sink),
            Content::History(question) => self.home_history(from, *question, sink),
            Content::Resume(resume) => self.home_resume(from, *resume, sink),
            other => unreachable!("{other:?} is not for a home"),
        }
    }

    fn pass_or_wait(&mut self, from: ReactorId, content: Content, answered: Answered, sink: &mut impl Sink) {
        let Some(topic) = asked_of(&content).filter(|topic| topic.kind != Kind::Everyone) else {
            return self.home_act(from, content, sink);
        };
        let policy = self.histories.policy(topic.borrow());
        // Redis gives it its place: nothing that is known here matters.
        if policy.is_some() && matches!(content, Content::Publish(_)) {
            return self.home_act(from, content, sink);
        }
        let topic = topic.clone();
        let hash = self.topics.hasher().hash(topic.borrow());
        let found = match (&content, self.topics.find(hash, topic.borrow())) {
            (_, Some(index)) => index,
            (Content::Join(_), None) => self.topics.find_or_insert(hash, &topic),
            (_, None) => return self.home_act(from, content, sink),
        };
        match &mut self.topics.get_mut(found).link {
            Link::Waiting(waiting) if waiting.has_room(&content) => waiting.mail.push_back((from, content)),
            // Nothing may overtake what waits.
            Link::Waiting(_) => self.refuse(from, content, sink),
            Link::Apart if matches!(content, Content::Join(_)) => {
                self.openings += 1;
                let opening = Opening(self.openings);
                self.wait(found, opening, None, from, content);
                self.ask_cluster(ToCluster::Open { topic, opening, policy });
            }
            Link::Alone(_) if policy.is_some() => self.act_or_refuse(from, content, Answered::No, sink),
            Link::Apart | Link::Alone(_) => self.act_or_refuse(from, content, answered, sink),
            Link::Open(opening) => {
                let opening = *opening;
                match self.need(found, &content).filter(|need| !answered.has_answered(*need)) {
                    None => self.act_or_refuse(from, content, answered, sink),
                    Some(_) if !self.cluster_reachable => self.act_or_refuse(from, content, Answered::No, sink),
                    Some(need) => {
                        self.wait(found, opening, Some(need), from, content);
                        self.ask_for(topic, need);
                    }
                }
            }
        }
    }

    /// Not carried out, and told so where there is somebody to tell.
    fn refuse(&mut self, from: ReactorId, content: Content, sink: &mut impl Sink) {
        let (to, id) = match content {
            Content::Publish(publish) if publish.topic.kind == Kind::Raw => return,
            Content::Publish(publish) => (publish.publisher, publish.id),
            Content::Presence(question) => (question.asker, question.id),
            Content::History(question) => (question.asker, question.id),
            Content::Resume(resume) => (resume.to, resume.id),
            other => unreachable!("{other:?} always waits"),
        };
        self.send(from, Content::Unavailable { to, id }, sink);
    }

    fn wait(&mut self, index: TopicIndex, opening: Opening, need: Option<Need>, from: ReactorId, content: Content) {
        let next_before = match need {
            Some(Need::Load { before, .. } | Need::Page { before, .. }) => before,
            Some(Need::Check) | None => 0,
        };
        let mail = VecDeque::from([(from, content)]);
        let waiting = Waiting { opening, need, next_before, page: Vec::new(), covered: 1, mail };
        self.topics.get_mut(index).link = Link::Waiting(Box::new(waiting));
    }

    /// Without an answer of Redis, what needs history is refused.
    fn act_or_refuse(&mut self, from: ReactorId, content: Content, answered: Answered, sink: &mut impl Sink) {
        let reachable = self.cluster_reachable && answered != Answered::No;
        match content {
            Content::Join(join) if !reachable && self.is_room_with_history(&join) => {
                self.home_refuse_join(from, *join, sink);
            }
            Content::History(_) | Content::Resume(_) if answered == Answered::No => self.refuse(from, content, sink),
            content => self.home_act(from, content, sink),
        }
    }

    fn is_room_with_history(&self, join: &Join) -> bool {
        join.topic.kind == Kind::Room && self.histories.policy(join.topic.borrow()).is_some()
    }

    /// Published by somebody here, at the topic's home.
    fn home_publish(&mut self, from: ReactorId, published: Published, sink: &mut impl Sink) {
        let Published { topic, frame, exclude, key, publisher, id } = published;
        if let (Some(_), Some(policy)) = (self.cluster, self.histories.policy(topic.borrow())) {
            let append = Append { topic, policy, frame, exclude, key, publisher, id };
            return self.ask_cluster(ToCluster::Append(Box::new(append)));
        }
        let hash = self.topics.hasher().hash(topic.borrow());
        if self.cluster.is_some() {
            self.publish_abroad(hash, topic.borrow(), frame.plain());
        }
        let publish = Publish { topic: topic.borrow(), frame: frame.plain(), exclude, key: key.as_deref(), publisher };
        let place = self.keep_and_fan_out(hash, &publish, Some(&frame), sink);
        if let Some(id) = id {
            self.send(from, Content::Acked(Box::new(Ack { to: publisher, id, place })), sink);
        }
    }

    /// The last member here has left: nothing more is wanted of other nodes, unless one comes back soon.
    pub(super) fn close_if_unused(&mut self, topic: &TopicKey) {
        if self.cluster.is_none() {
            return;
        }
        let hash = self.topics.hasher().hash(topic.borrow());
        let Some(index) = self.topics.find(hash, topic.borrow()) else { return };
        let found = self.topics.get_mut(index);
        if !found.home.is_empty() {
            return;
        }
        match found.link {
            Link::Apart | Link::Waiting(_) => {}
            Link::Open(opening) => self.ask_cluster(ToCluster::Idle { topic: topic.clone(), opening }),
            Link::Alone(_) => self.close(index, topic),
        }
    }

    fn close(&mut self, index: TopicIndex, topic: &TopicKey) {
        self.topics.get_mut(index).link = Link::Apart;
        self.set_history(index, None);
        self.ask_cluster(ToCluster::Close { topic: topic.clone() });
    }

    /// No member has come back.
    fn lapsed(&mut self, topic: &TopicKey, opening: Opening) {
        let Some(index) = self.in_opening(topic, opening) else { return };
        let found = self.topics.get(index);
        if found.home.is_empty() && matches!(found.link, Link::Open(_)) {
            self.close(index, topic);
            self.drop_topic_if_unused(topic);
        }
    }

    /// News from the cluster.
    pub(super) fn cluster_news(&mut self, news: FromCluster, sink: &mut impl Sink) {
        match news {
            FromCluster::Reachable(reachable) => self.cluster_reachable = reachable,
            FromCluster::Opened { topic, opening, place } => self.opened(&topic, opening, place, sink),
            FromCluster::Refused { topic, opening } => {
                if let Some(index) = self.in_opening(&topic, opening) {
                    let link = std::mem::replace(&mut self.topics.get_mut(index).link, Link::Alone(opening));
                    self.go_on(&topic, link, Answered::No, sink);
                }
            }
            FromCluster::Deliver { topic, frames } => {
                let hash = self.topics.hasher().hash(topic.borrow());
                self.fan_out_many(hash, &topic, frames, sink);
            }
            FromCluster::Notice { topic, frame } => self.notice_from_cluster(&topic, &frame, sink),
            FromCluster::Kept { topic, opening, offset, frame, exclude } => {
                if let Some(index) = self.in_opening(&topic, opening) {
                    self.keep_from_cluster(index, offset, &frame);
                    let hash = self.topics.hasher().hash(topic.borrow());
                    self.fan_out(hash, topic.borrow(), frame.plain(), Some(&frame), exclude, sink);
                }
            }
            FromCluster::Gap { topic, opening, place } => {
                if let Some(index) = self.in_opening(&topic, opening) {
                    self.gap(index, &topic, place, sink);
                }
            }
            FromCluster::Loaded { topic, opening, before, older, rest } => {
                self.loaded(&topic, opening, Piece { before, older, rest }, sink);
            }
            FromCluster::Lapsed { topic, opening } => self.lapsed(&topic, opening),
            FromCluster::Checked { topic, opening, answered } => {
                if let Some(index) = self.in_need(&topic, opening, Need::Check) {
                    let answered = if answered { Answered::All(Need::Check) } else { Answered::No };
                    self.answered(index, &topic, opening, answered, sink);
                }
            }
            FromCluster::Fenced { member, rounds_left: 0 } => {
                self.send(member.reactor, Content::Fenced { to: member }, sink);
            }
            FromCluster::Fenced { member, rounds_left } => {
                self.ask_cluster(ToCluster::Fence { member, rounds_left: rounds_left - 1 });
            }
            FromCluster::Asked { topic, question, names } => self.present(&topic, question, names),
            FromCluster::Expel { topic, user, reason } => {
                self.home_expel(&Expulsion { topic, user, reason }, sink);
            }
        }
    }

    /// The topic, while it is in this opening.
    pub(super) fn in_opening(&self, topic: &TopicKey, opening: Opening) -> Option<TopicIndex> {
        let hash = self.topics.hasher().hash(topic.borrow());
        let index = self.topics.find(hash, topic.borrow())?;
        (self.topics.get(index).link.opening() == Some(opening)).then_some(index)
    }

    /// The topic, while it waits for this in this opening.
    fn in_need(&self, topic: &TopicKey, opening: Opening, need: Need) -> Option<TopicIndex> {
        let index = self.in_opening(topic, opening)?;
        let waits = matches!(&self.topics.get(index).link, Link::Waiting(waiting) if waiting.need == Some(need));
        waits.then_some(index)
    }

    fn opened(&mut self, topic: &TopicKey, opening: Opening, place: Option<Place>, sink: &mut impl Sink) {
        let Some(index) = self.in_opening(topic, opening) else { return };
        let policy = self.histories.policy(topic.borrow());
        let history = policy.zip(place).map(|(policy, place)| self.histories.begin_at(place, policy));
        self.set_history(index, history);
        let link = std::mem::replace(&mut self.topics.get_mut(index).link, Link::Open(opening));
        if matches!(link, Link::Alone(_)) {
            // Those who are in already were told no place, or have missed what was between.
            self.tell_gap(index, topic, sink);
        }
        self.go_on(topic, link, Answered::Nothing, sink);
    }

    pub(super) fn answered(
        &mut self,
        index: TopicIndex,
        topic: &TopicKey,
        opening: Opening,
        answered: Answered,
        sink: &mut impl Sink,
    ) {
        let link = std::mem::replace(&mut self.topics.get_mut(index).link, Link::Open(opening));
        self.go_on(topic, link, answered, sink);
    }

    /// What waited goes on, in order. Some of it may have to wait again, and what comes behind that with it.
    fn go_on(&mut self, topic: &TopicKey, link: Link, answered: Answered, sink: &mut impl Sink) {
        let Link::Waiting(waiting) = link else { return };
        for (at, (from, content)) in waiting.mail.into_iter().enumerate() {
            // Who came behind the question may know more than the answer does.
            let is_answered = at < waiting.covered || answered != Answered::All(Need::Check);
            let answered = if is_answered { answered } else { Answered::Nothing };
            self.pass_or_wait(from, content, answered, sink);
        }
        let hash = self.topics.hasher().hash(topic.borrow());
        let found = self.topics.find(hash, topic.borrow());
        if let Some(Link::Waiting(waiting)) = found.map(|index| &mut self.topics.get_mut(index).link) {
            waiting.covered = waiting.mail.len();
        }
        self.close_if_unused(topic);
        self.drop_topic_if_unused(topic);
    }

    fn notice_from_cluster(&mut self, topic: &TopicKey, frame: &SharedFrame, sink: &mut impl Sink) {
        let hash = self.topics.hasher().hash(topic.borrow());
        let Some(index) = self.topics.find(hash, topic.borrow()) else { return };
        // A notice is for rooms with few members, and each node knows its own.
        if self.topics.get(index).home.members() <= self.notices.members_max {
            self.fan_out(hash, topic.borrow(), frame.plain(), Some(frame), None, sink);
        }
    }

    /// The members are told that they have missed something that nobody can give them.
    fn gap(&mut self, index: TopicIndex, topic: &TopicKey, place: Place, sink: &mut impl Sink) {
        let policy = self.histories.policy(topic.borrow());
        self.set_history(index, policy.map(|policy| self.histories.begin_at(place, policy)));
        self.tell_gap(index, topic, sink);
        // What is being loaded belongs in front of what was here.
        let link = &mut self.topics.get_mut(index).link;
        if let Link::Waiting(waiting) = link
            && let Waiting { opening, need: Some(Need::Load { .. } | Need::Page { .. }), .. } = **waiting
        {
            let link = std::mem::replace(link, Link::Open(opening));
            self.go_on(topic, link, Answered::Nothing, sink);
        }
    }

    /// The members are told where a history is, whatever they have known of it.
    fn tell_gap(&mut self, index: TopicIndex, topic: &TopicKey, sink: &mut impl Sink) {
        let Some(place) = self.topics.history(index).map(History::place) else { return };
        let mut frames = std::mem::take(&mut self.frames);
        let frame = frames.build(Opcode::Text, |out| match topic.kind {
            Kind::Inbox => protocol::inbox_gap(out, place.in_epoch()),
            Kind::Room | Kind::Raw | Kind::Everyone => protocol::gap(out, &topic.name, place.in_epoch()),
        });
        let hash = self.topics.hasher().hash(topic.borrow());
        self.fan_out(hash, topic.borrow(), frame, None, None, sink);
        self.frames = frames;
    }

    fn present(&mut self, topic: &TopicKey, question: Question, names: usize) {
        let hash = self.topics.hasher().hash(topic.borrow());
        let home = self.topics.find(hash, topic.borrow()).map(|index| &self.topics.get(index).home);
        let users = home.into_iter().flat_map(|home| home.users_shared());
        let crowd = Crowd::of(users, names, question.key);
        self.ask_cluster(ToCluster::Present { question, crowd });
    }

    /// Whether a publish is nobody's business but the members', here and elsewhere: there is no history, and nothing is
    /// being waited for.
    pub(super) fn is_plain(&self, hash: u64, topic: TopicRef<'_>) -> bool {
        let is_waiting = |index| matches!(self.topics.get(index).link, Link::Waiting(_));
        self.histories.policy(topic).is_none() && !self.topics.find(hash, topic).is_some_and(is_waiting)
    }

    /// Mail for the cluster's thread.
    pub(super) fn ask_cluster(&mut self, request: ToCluster) {
        self.post_abroad();
        if let Some(cluster) = self.cluster {
            self.outgoing.push((cluster, Mail(Content::ToCluster(Box::new(request)))));
        }
    }
}

/// The topic whose home the mail is for.
fn asked_of(content: &Content) -> Option<&TopicKey> {
    match content {
        Content::Join(join) => Some(&join.topic),
        Content::Leave(leave) => Some(&leave.topic),
        Content::Publish(publish) => Some(&publish.topic),
        Content::Presence(question) => Some(&question.room),
        Content::History(question) => Some(&question.room),
        Content::Resume(resume) => Some(&resume.inbox),
        _ => None,
    }
}
