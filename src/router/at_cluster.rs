//! A topic's home in a cluster: what it is asked for goes through the topic's [`ClusterSubscription`], and what that says
//! is done here.
//!
//! [`ClusterSubscription`]: super::cluster_subscription::ClusterSubscription

use std::sync::Arc;

use super::batches::Delivery;
use super::cluster::{Append, AttachId, FromCluster, ItemsCame, ItemsLoaded, Older, Question, Rest, ToCluster};
use super::cluster_subscription::{Arrival, ArrivalKind, Input, Output, Redis, Retained};
use super::crowd::Crowd;
use super::history::{History, StreamPosition, newest_within};
use super::mail::{Content, Expulsion, HomeMail, Mail, Published};
use super::needs::{Answered, Need, PageAside, Piece, need_of};
use super::policy::TopicPolicy;
use super::remote_publish::RemotePublish;
use super::topic::{Kind, TopicIndex, TopicKey};
use super::{Router, Sink};
use crate::compress::SharedFrame;
use crate::frame::{Opcode, whole_frames};
use crate::ids::{ConnId, PeerId, ReplyTo};
use crate::limits::{CLUSTER_FENCE_ROUNDS, CLUSTER_SINGLE_FRAME_BYTES, HISTORY_PAGE_BYTES_MAX};
use crate::protocol;

/// The other nodes, as this reactor sees them. All of it is what it is.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Where mail for the cluster goes.
    pub(super) redis: Redis,
    pub(super) remote: RemotePublish,
    /// A page for those who are answered now.
    pub(super) page: Option<PageAside>,
    /// Attachments that were asked for so far.
    attachments: u64,
}

/// Whether a topic needs Redis to be of use.
fn is_kept(policy: TopicPolicy) -> bool {
    policy.history.is_some() || policy.keyed.is_some()
}

impl Cluster {
    pub(super) fn new() -> Cluster {
        let remote = RemotePublish::default();
        Cluster { redis: Redis::Unreachable, remote, page: None, attachments: 0 }
    }
}

/// What comes from the cluster for one topic.
#[derive(Clone, Copy)]
struct Attached<'a> {
    index: TopicIndex,
    topic: &'a TopicKey,
    attach: AttachId,
}

impl Router {
    /// Mail for a topic that is at home here. Some of it has to wait.
    pub(super) fn arrived(&mut self, mut mail: HomeMail, answered: Answered, sink: &mut impl Sink) {
        let name = mail.topic().hashed();
        // What a request asks is answered by Redis.
        if name.kind == Kind::Everyone || matches!(mail, HomeMail::Request(_) | HomeMail::Items(_)) {
            return self.home_act(mail, sink);
        }
        let found = self.topics.find(name);
        let policy = self.homes.policy(name, found.map(|index| self.topics.get(index)));
        // Redis gives a publish its offset: nothing that is known here matters.
        if policy.history.is_some() && matches!(mail, HomeMail::Publish(_)) {
            return self.home_act(mail, sink);
        }
        let kind = match mail {
            HomeMail::Join(_) => ArrivalKind::Join,
            HomeMail::Leave(_) => ArrivalKind::Leave,
            HomeMail::Publish(_)
            | HomeMail::Presence(_)
            | HomeMail::History(_)
            | HomeMail::Resume(_)
            | HomeMail::Request(_)
            | HomeMail::Items(_)
            | HomeMail::Tune(_) => ArrivalKind::Other,
        };
        let index = match (kind, found) {
            (ArrivalKind::Join, _) => {
                let index = self.topics.find_or_insert(mail.topic());
                self.open_home(index);
                index
            }
            (ArrivalKind::Leave | ArrivalKind::Other, Some(index)) => index,
            (ArrivalKind::Leave | ArrivalKind::Other, None) => return self.act_or_refuse(mail, answered, sink),
        };
        let (now, Some(cluster)) = (self.retention.now(), &self.cluster) else { return };
        let topic = self.topics.get(index);
        let Some(home) = self.homes.get_mut(topic) else { return self.act_or_refuse(mail, answered, sink) };
        let is_attached = home.subscription.is_attached();
        let checks = match &mut mail {
            // What was acked before is in what a member is told of the items.
            HomeMail::Join(join) if policy.keyed.is_some() && !join.is_checked => {
                join.is_checked = answered == Answered::All(Need::Check);
                !join.is_checked && is_attached
            }
            _ => false,
        };
        let history = home.history.as_deref().filter(|_| is_attached);
        let arrival = Arrival {
            kind,
            need: match checks {
                true => Some(Need::Check),
                false => history.and_then(|history| need_of(history, &mail, now)),
            },
            mail,
            answered,
            redis: cluster.redis,
            retained: if is_kept(policy) { Retained::History } else { Retained::Nothing },
            next: AttachId(cluster.attachments + 1),
        };
        let output = home.subscription.handle(Input::Mail(arrival));
        self.carry_out(index, output, sink);
    }

    /// Does what a topic's subscription says.
    fn carry_out(&mut self, index: TopicIndex, output: Output<HomeMail>, sink: &mut impl Sink) {
        let key = |router: &Router| router.topics.get(index).key.clone();
        match output {
            Output::Nothing => {}
            Output::Act(mail, answered) => self.act_or_refuse(mail, answered, sink),
            Output::Refuse(mail) => self.refuse(mail, sink),
            Output::Attach(attach) => {
                let topic = key(self);
                let TopicPolicy { history: policy, keyed, .. } =
                    self.homes.policy(topic.hashed(), Some(self.topics.get(index)));
                if let Some(cluster) = &mut self.cluster {
                    cluster.attachments += 1;
                }
                self.ask_cluster(ToCluster::Attach { topic, attach, policy, keyed });
            }
            Output::Ask(need) => self.ask_cluster(need.request(key(self))),
            Output::Idle(attach) => self.ask_cluster(ToCluster::Idle { topic: key(self), attach }),
            Output::Detach => {
                let topic = key(self);
                self.retention.replace(&self.topics, &mut self.homes, index, None);
                self.keyed.drop_room(index);
                self.ask_cluster(ToCluster::Detach { topic });
            }
            Output::Reattached => self.tell_gap(index, sink),
            Output::Release(released) => {
                let topic = key(self);
                for (mail, answered) in released.into_mail() {
                    self.arrived(mail, answered, sink);
                }
                // What waits again was there when the cluster was asked again.
                if let Some(index) = self.topics.find(topic.hashed()) {
                    if let Some(home) = self.homes.get_mut(self.topics.get(index)) {
                        home.subscription.cover();
                    }
                    self.settle(index, sink);
                }
            }
        }
    }

    /// Something happens to an attachment. What belongs to an earlier one changes nothing.
    fn happened(&mut self, index: TopicIndex, input: Input<HomeMail>, sink: &mut impl Sink) {
        if let Some(home) = self.homes.get_mut(self.topics.get(index)) {
            let output = home.subscription.handle(input);
            self.carry_out(index, output, sink);
        }
    }

    /// Where the last member here has left, nothing more is wanted of other nodes, unless one comes back soon.
    pub(super) fn settle(&mut self, index: TopicIndex, sink: &mut impl Sink) {
        if self.cluster.is_some() && self.homes.is_empty(self.topics.get(index)) {
            self.happened(index, Input::Emptied, sink);
        }
        self.drop_if_unused(index);
    }

    /// Not carried out; its sender is told so, if it waits for an answer.
    fn refuse(&mut self, mail: HomeMail, sink: &mut impl Sink) {
        let room = mail.topic().room();
        let (to, id) = match mail {
            HomeMail::Publish(publish) if publish.topic.kind == Kind::Raw => return,
            HomeMail::Publish(publish) => (publish.publisher, publish.id),
            HomeMail::Presence(question) => (question.asker, question.id),
            HomeMail::History(question) => (question.asker, question.id),
            HomeMail::Resume(resume) => (resume.to.into(), resume.id),
            HomeMail::Request(request) => (ReplyTo::Request(request.request), None),
            HomeMail::Items(update) => (update.publisher, update.id),
            HomeMail::Tune(tuned) => (tuned.member.into(), tuned.tune.id),
            HomeMail::Join(_) | HomeMail::Leave(_) => unreachable!("joins and leaves always wait"),
        };
        self.send(to.peer(), Content::Unavailable { to, id, room }, sink);
    }

    /// Without an answer of Redis, what needs history is refused.
    fn act_or_refuse(&mut self, mail: HomeMail, answered: Answered, sink: &mut impl Sink) {
        let redis = self.cluster.as_ref().map_or(Redis::Unreachable, |cluster| cluster.redis);
        let reachable = redis == Redis::Reachable && answered != Answered::No;
        match mail {
            HomeMail::Join(join) if !reachable && matches!(join.topic.kind, Kind::Room | Kind::Raw) => {
                let found = self.topics.find(join.topic.hashed()).map(|index| self.topics.get(index));
                match is_kept(self.homes.policy(join.topic.hashed(), found)) {
                    true => self.home_refuse_join(*join, sink),
                    false => self.home_join(*join, sink),
                }
            }
            HomeMail::History(_) | HomeMail::Resume(_) if answered == Answered::No => self.refuse(mail, sink),
            mail => self.home_act(mail, sink),
        }
    }

    /// A publish at the home of its topic: into history in Redis, if the topic keeps one. `None` where that is done.
    pub(super) fn append_or_share(&mut self, published: Published) -> Option<Published> {
        let Some(cluster) = &mut self.cluster else { return Some(published) };
        let name = published.topic.hashed();
        let found = self.topics.find(name).map(|index| self.topics.get(index));
        match self.homes.policy(name, found).history {
            None => {
                cluster.remote.push(name, published.frame.plain());
                Some(published)
            }
            Some(policy) => {
                let Published { topic, frame, exclude, key, publisher, id, published_at: _ } = published;
                let append = Append { topic, policy, frame, exclude, key, publisher, id };
                self.ask_cluster(ToCluster::Append(Box::new(append)));
                None
            }
        }
    }

    /// News from the cluster.
    pub(super) fn cluster_news(&mut self, news: FromCluster, sink: &mut impl Sink) {
        match news {
            FromCluster::Reachable(reachable) => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.redis = if reachable { Redis::Reachable } else { Redis::Unreachable };
                }
            }
            FromCluster::Attached { topic, attach, position } => {
                if let Some(of) = self.attached(&topic, attach) {
                    self.begin_at(of, position);
                    self.happened(of.index, Input::Attached(attach), sink);
                }
            }
            FromCluster::Refused { topic, attach } => {
                if let Some(of) = self.attached(&topic, attach) {
                    self.happened(of.index, Input::Refused(attach), sink);
                }
            }
            FromCluster::Deliver { topic, frames } => {
                if let Some(index) = self.topics.find(topic.hashed()) {
                    self.fan_out_many(index, frames, sink);
                }
            }
            FromCluster::Notice { topic, frame } => self.notice_from_cluster(&topic, &frame, sink),
            FromCluster::Kept { topic, attach, offset, frame, exclude } => {
                if let Some(of) = self.attached(&topic, attach) {
                    self.kept(of.index, offset, &frame);
                    let delivery = Delivery { frame: frame.plain(), shared: Some(&frame), exclude };
                    self.fan_out(of.index, delivery, sink);
                }
            }
            FromCluster::ItemsLoaded { topic, attach, loaded } => self.items_begin(&topic, attach, *loaded, sink),
            FromCluster::ItemsRefused { commands } => self.items_one_by_one(*commands, sink),
            FromCluster::Items { topic, attach, came } => self.items_go_on(&topic, attach, came, sink),
            FromCluster::Gap { topic, attach, position } => {
                if let Some(of) = self.attached(&topic, attach) {
                    self.begin_at(of, Some(position));
                    self.tell_gap(of.index, sink);
                    self.happened(of.index, Input::Gap(attach), sink);
                }
            }
            FromCluster::Loaded { topic, attach, before, older, rest } => {
                if let Some(of) = self.attached(&topic, attach) {
                    self.loaded(of, before, older.map(|older| Piece { before, older, rest }), sink);
                }
            }
            FromCluster::Lapsed { topic, attach } => self.lapsed(&topic, attach, sink),
            FromCluster::Checked { topic, attach, answered } => {
                if let Some(of) = self.attached(&topic, attach).filter(|of| self.awaits_check(of.index)) {
                    let answered = if answered { Answered::All(Need::Check) } else { Answered::No };
                    self.happened(of.index, Input::Answered(attach, answered), sink);
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
            FromCluster::Disconnect { user } => sink.disconnect(&user),
            FromCluster::Survey { id, survey } => {
                let found = self.survey(&survey, sink);
                self.ask_cluster(ToCluster::Found { id, found });
            }
            FromCluster::Revoked { user, unix_s } => sink.revoke(&user, unix_s),
        }
    }

    /// A topic has had no member here for a while.
    fn lapsed(&mut self, topic: &TopicKey, attach: AttachId, sink: &mut impl Sink) {
        let found = self.topics.find(topic.hashed());
        if let Some(index) = found.filter(|&index| self.homes.is_empty(self.topics.get(index))) {
            self.happened(index, Input::Lapsed(attach), sink);
            self.drop_if_unused(index);
        }
    }

    /// A connection's fence goes round through the cluster.
    pub(super) fn fence_cluster(&mut self, member: ConnId) {
        self.ask_cluster(ToCluster::Fence { member, rounds_left: CLUSTER_FENCE_ROUNDS });
    }

    /// The topic, while it is in this attachment.
    fn attached<'a>(&self, topic: &'a TopicKey, attach: AttachId) -> Option<Attached<'a>> {
        let index = self.topics.find(topic.hashed())?;
        let home = self.homes.get(self.topics.get(index))?;
        (home.subscription.attach_id() == Some(attach)).then_some(Attached { index, topic, attach })
    }

    /// The items of a keyed room have come, or come anew.
    fn items_begin(&mut self, topic: &TopicKey, attach: AttachId, loaded: ItemsLoaded, sink: &mut impl Sink) {
        if let Some(of) = self.attached(topic, attach) {
            self.begin_at(of, Some(loaded.position.clone()));
            self.items_loaded(of.index, loaded, sink);
            self.happened(of.index, Input::Gap(attach), sink);
        }
    }

    /// The next updates of a keyed room have come.
    fn items_go_on(&mut self, topic: &TopicKey, attach: AttachId, came: ItemsCame, sink: &mut impl Sink) {
        if let Some(of) = self.attached(topic, attach) {
            self.items_came(of.index, came, sink);
        }
    }

    /// A topic's history begins, or goes on, behind a position.
    fn begin_at(&mut self, of: Attached<'_>, position: Option<StreamPosition>) {
        let policy = self.homes.policy(of.topic.hashed(), Some(self.topics.get(of.index))).history;
        let history = policy.zip(position).map(|(policy, position)| self.retention.begin_at(position, policy));
        self.retention.replace(&self.topics, &mut self.homes, of.index, history);
    }

    /// The next message of a history that the cluster keeps.
    fn kept(&mut self, index: TopicIndex, offset: u64, frame: &SharedFrame) {
        let now = self.retention.now();
        self.retention.change(&self.topics, &mut self.homes, index, |history| {
            assert_eq!(history.next_offset(), offset, "the cluster gives every message in order");
            history.append(frame.clone(), None, now);
        });
        self.make_room();
    }

    fn awaits_check(&mut self, index: TopicIndex) -> bool {
        let home = self.homes.get_mut(self.topics.get(index));
        home.and_then(|home| home.subscription.question()).is_some_and(|question| question.need == Need::Check)
    }

    /// A piece of what a home waits for; `None` where Redis did not answer.
    fn loaded(&mut self, of: Attached<'_>, before: u64, piece: Option<Piece>, sink: &mut impl Sink) {
        let Attached { index, topic, attach } = of;
        let Some(home) = self.homes.get_mut(self.topics.get(index)) else { return };
        let Some(question) = home.subscription.question() else { return };
        let need = question.need;
        if need == Need::Check || question.next_before != before {
            return;
        }
        let Some(mut piece) = piece else {
            return self.happened(index, Input::Answered(attach, Answered::No), sink);
        };
        let (first, rest) = (before - piece.older.len() as u64, piece.rest);
        question.next_before = first;
        let has_room = match need {
            Need::Page { .. } => {
                question.page.splice(0..0, piece.older.drain(..).map(|Older { frame, .. }| frame));
                // What is older would not fit into the page.
                newest_within(question.page.iter(), HISTORY_PAGE_BYTES_MAX) == question.page.len()
            }
            Need::Load { .. } | Need::Check => {
                let put = self.retention.put_older(&self.topics, &mut self.homes, index, piece);
                self.make_room();
                put && self.retention.has_kept_from(&self.topics, &mut self.homes, index, first)
            }
        };
        match (rest, has_room) {
            (Rest::More, true) => return,
            (Rest::More, false) => self.ask_cluster(ToCluster::Enough { topic: topic.clone() }),
            (Rest::Unread | Rest::Nothing, _) => {}
        }
        self.put_page_aside(index, need);
        self.happened(index, Input::Answered(attach, Answered::All(need)), sink);
        if let Some(cluster) = &mut self.cluster {
            cluster.page = None;
        }
    }

    /// What has come of a page is there for those who are answered next.
    fn put_page_aside(&mut self, index: TopicIndex, need: Need) {
        let Need::Page { from, before } = need else { return };
        let home = self.homes.get_mut(self.topics.get(index));
        let Some(question) = home.and_then(|home| home.subscription.question()) else { return };
        let mut frames = std::mem::take(&mut question.page);
        frames.drain(..frames.len() - newest_within(frames.iter(), HISTORY_PAGE_BYTES_MAX));
        let messages = self.retention.slice_of(frames);
        if let Some(cluster) = &mut self.cluster {
            cluster.page = Some(PageAside { topic: index, from, before, messages });
        }
    }

    fn notice_from_cluster(&mut self, topic: &TopicKey, frame: &SharedFrame, sink: &mut impl Sink) {
        let found = self.topics.find(topic.hashed());
        if let Some(index) = found.filter(|&index| self.homes.takes_notice(self.topics.get(index))) {
            self.fan_out(index, Delivery { frame: frame.plain(), shared: Some(frame), exclude: None }, sink);
        }
    }

    /// The members are told where a history is, whatever they have known of it: they have missed something that is gone.
    pub(super) fn tell_gap(&mut self, index: TopicIndex, sink: &mut impl Sink) {
        let topic = self.topics.get(index);
        let history = self.homes.get(topic).and_then(|home| home.history.as_deref());
        let Some(position) = history.map(History::position) else { return };
        let mut frames = std::mem::take(&mut self.frames);
        let frame = frames.build(Opcode::Text, |out| match topic.key.kind {
            Kind::Inbox => protocol::inbox_gap(out, position.in_epoch()),
            Kind::Room | Kind::Raw | Kind::Everyone => protocol::gap(out, &topic.key.name, position.in_epoch()),
        });
        self.fan_out(index, Delivery { frame, shared: None, exclude: None }, sink);
        self.frames = frames;
    }

    fn present(&mut self, topic: &TopicKey, question: Question, names: usize) {
        let home = self.topics.find(topic.hashed()).and_then(|index| self.homes.get(self.topics.get(index)));
        let users = home.into_iter().flat_map(|home| home.users());
        let crowd = Crowd::of(users, names, question.key);
        self.ask_cluster(ToCluster::Present { question, crowd });
    }

    /// At home: frames from another node, one after another, go to every reactor with members.
    fn fan_out_many(&mut self, index: TopicIndex, frames: Arc<[u8]>, sink: &mut impl Sink) {
        let mut parts = Vec::new();
        let mut small_from = 0;
        let mut at = 0;
        for frame in whole_frames(&frames) {
            if frame.len() >= CLUSTER_SINGLE_FRAME_BYTES {
                parts.push((small_from..at, at..at + frame.len()));
                small_from = at + frame.len();
            }
            at += frame.len();
        }
        for (small, single) in parts {
            self.fan_out_small(index, &frames[small], sink);
            // By itself it is compressed at most once for all reactors.
            self.fan_out(index, Delivery { frame: &frames[single], shared: None, exclude: None }, sink);
        }
        match small_from {
            0 => self.fan_out_joined(index, &frames, sink),
            from => self.fan_out_small(index, &frames[from..], sink),
        }
    }

    fn fan_out_small(&mut self, index: TopicIndex, frames: &[u8], sink: &mut impl Sink) {
        if !frames.is_empty() {
            self.fan_out_joined(index, &frames.into(), sink);
        }
    }

    fn fan_out_joined(&mut self, index: TopicIndex, frames: &Arc<[u8]>, sink: &mut impl Sink) {
        let published_at = self.batches.published_at();
        self.post_to_members(index, |topic| Content::DeliverMany { topic, frames: frames.clone(), published_at });
        self.batches.deliver_many(&mut self.topics, &self.members, index, frames, sink);
    }

    /// Mail for the cluster's thread. What was published before goes ahead of it.
    pub(super) fn ask_cluster(&mut self, request: ToCluster) {
        self.post_remote();
        if self.cluster.is_some() {
            self.outgoing.push((PeerId::Cluster, Mail(Content::ToCluster(Box::new(request)))));
        }
    }

    /// Hands what is published for the members on other nodes to the cluster.
    pub(super) fn post_remote(&mut self) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.remote.bytes() > 0) else { return };
        let requests =
            cluster.remote.drain().map(|request| (PeerId::Cluster, Mail(Content::ToCluster(Box::new(request)))));
        self.outgoing.extend(requests);
    }
}
