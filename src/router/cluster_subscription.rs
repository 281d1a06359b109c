//! How a topic's home stands with the cluster, as a state machine: what happens goes in, what is to be done comes out.
//!
//! ```text
//!               a join                        Attached
//!   Detached ──────────► Pending(attachment) ──────────► Attached ◄───────────────┐
//!     ▲  ▲                       │ Refused                  │  a need: older      │ Answered, Gap,
//!     │  │                       ▼                          ▼  messages, a check  │ Attached
//!     │  └── Emptied ─────── LocalOnly ◄──── Refused ─── Pending(answer) ─────────┘
//!     │                          │ Attached: the members are told where the history is
//!     │                          └──────────────────────► Attached
//!     └──────── Lapsed: no member for some seconds ──────────┘
//! ```
//!
//! Each time a home asks to be attached the attachment has a new id, and what belongs to an earlier one changes nothing.
//! An attached topic without a member is idle: what is kept of it goes on, so that a client that comes back finds it as it
//! would with another member here, and costs Redis nothing.
//!
//! While a topic is pending, all that its home is asked for waits with it, in order.

use std::collections::VecDeque;

use super::cluster::AttachId;
use super::needs::{Answered, Need};
use crate::compress::SharedFrame;
use crate::limits::CLUSTER_WAITING_MAX;

/// See the module's documentation. All of it is what it is; nothing can be built again. `M` is mail for a topic's home.
#[derive(Debug)]
pub(super) enum ClusterSubscription<M> {
    /// Without a member here. Nothing comes from other nodes.
    Detached,
    /// Attaching was refused, for Redis cannot be reached: the members here have only each other.
    LocalOnly(AttachId),
    /// The cluster is asked, and nothing else happens before it answers.
    Pending(Box<Pending<M>>),
    /// What other nodes publish comes here.
    Attached(AttachId),
}

/// What waits for the cluster.
#[derive(Debug)]
pub(super) struct Pending<M> {
    attach: AttachId,
    awaits: Awaits,
    /// How many of the mail were there when the cluster was asked.
    covered: usize,
    mail: VecDeque<M>,
}

/// What the cluster was asked.
#[derive(Debug)]
enum Awaits {
    Attachment,
    Answer(Question),
}

/// What a home needs of the cluster, and what of the answer is there.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) need: Need,
    /// In front of which offset the next piece is.
    pub(super) next_before: u64,
    /// What has come of a page.
    pub(super) page: Vec<SharedFrame>,
}

impl Question {
    fn new(need: Need) -> Question {
        let next_before = match need {
            Need::Load { before, .. } | Need::Page { before, .. } => before,
            Need::Check => 0,
        };
        Question { need, next_before, page: Vec::new() }
    }
}

/// Mail for a topic's home, with what decides whether it waits.
#[derive(Debug)]
pub(super) struct Arrival<M> {
    pub(super) mail: M,
    pub(super) kind: ArrivalKind,
    /// What of it is not here, where the topic is attached.
    pub(super) need: Option<Need>,
    /// What the cluster has said already.
    pub(super) answered: Answered,
    pub(super) redis: Redis,
    pub(super) retained: Retained,
    /// For a new attachment.
    pub(super) next: AttachId,
}

/// What the mail asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArrivalKind {
    /// It attaches the topic, and always waits: a connection's own joins and leaves must come in order.
    Join,
    /// It always waits.
    Leave,
    /// It is refused where too much waits.
    Other,
}

/// Whether Redis can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redis {
    Reachable,
    Unreachable,
}

/// What is kept of the topic's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retained {
    History,
    Nothing,
}

/// What happens to a topic at its home.
#[derive(Debug)]
pub(super) enum Input<M> {
    /// The home is asked for something.
    Mail(Arrival<M>),
    /// What other nodes publish comes from here on.
    Attached(AttachId),
    /// Redis cannot be reached: until `Attached` comes there is only this node.
    Refused(AttachId),
    /// What the cluster was asked is answered, or will not be.
    Answered(AttachId, Answered),
    /// The history goes on from another position: what is being loaded belongs in front of what was here.
    Gap(AttachId),
    /// The last member here has left.
    Emptied,
    /// No member has come for some seconds.
    Lapsed(AttachId),
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Output<M> {
    /// Nothing: the input belongs to an earlier attachment, or waits.
    Nothing,
    /// The mail is carried out, the cluster having said so much.
    Act(M, Answered),
    /// The mail is not carried out, and its sender is told so.
    Refuse(M),
    /// The cluster is asked to attach the topic.
    Attach(AttachId),
    /// The cluster is asked for this.
    Ask(Need),
    /// The cluster is told that there is no member.
    Idle(AttachId),
    /// The cluster is told that the topic is of no use here, and what is kept of it goes.
    Detach,
    /// Members that have had only each other are told where the history is.
    Reattached,
    /// What has waited arrives again, in order.
    Release(Released<M>),
}

/// What has waited.
#[derive(Debug)]
pub(super) struct Released<M> {
    answered: Answered,
    covered: usize,
    mail: VecDeque<M>,
}

impl<M> Released<M> {
    /// Each with what the cluster has said to it.
    pub(super) fn into_mail(self) -> impl Iterator<Item = (M, Answered)> {
        let Released { answered, covered, mail } = self;
        mail.into_iter().enumerate().map(move |(at, mail)| {
            // Who came behind the question may know more than the answer does.
            let is_answered = at < covered || answered != Answered::All(Need::Check);
            (mail, if is_answered { answered } else { Answered::Nothing })
        })
    }
}

impl<M> ClusterSubscription<M> {
    /// Whether there is nothing to be detached.
    pub(super) fn is_detached(&self) -> bool {
        matches!(self, ClusterSubscription::Detached)
    }

    /// Whether it waits for the cluster.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self, ClusterSubscription::Pending(_))
    }

    /// Whether what other nodes publish comes here, and nothing is awaited.
    pub(super) fn is_attached(&self) -> bool {
        matches!(self, ClusterSubscription::Attached(_))
    }

    /// The id of its attachment, be it asked for, refused or there.
    pub(super) fn attach_id(&self) -> Option<AttachId> {
        match self {
            ClusterSubscription::Detached => None,
            ClusterSubscription::LocalOnly(attach) | ClusterSubscription::Attached(attach) => Some(*attach),
            ClusterSubscription::Pending(pending) => Some(pending.attach),
        }
    }

    /// What is asked for and not answered yet.
    pub(super) fn question(&mut self) -> Option<&mut Question> {
        match self {
            ClusterSubscription::Detached | ClusterSubscription::LocalOnly(_) | ClusterSubscription::Attached(_) => {
                None
            }
            ClusterSubscription::Pending(pending) => match &mut pending.awaits {
                Awaits::Attachment => None,
                Awaits::Answer(question) => Some(question),
            },
        }
    }

    /// All that waits now was there when the cluster was asked.
    pub(super) fn cover(&mut self) {
        if let ClusterSubscription::Pending(pending) = self {
            pending.covered = pending.mail.len();
        }
    }

    /// Something happens; what is to be done.
    pub(super) fn handle(&mut self, input: Input<M>) -> Output<M> {
        match input {
            Input::Mail(arrival) => self.arrived(arrival),
            Input::Attached(attach) if self.attach_id() == Some(attach) => {
                match std::mem::replace(self, ClusterSubscription::Attached(attach)) {
                    ClusterSubscription::Pending(pending) => pending.release(Answered::Nothing),
                    ClusterSubscription::LocalOnly(_) => Output::Reattached,
                    ClusterSubscription::Detached | ClusterSubscription::Attached(_) => Output::Nothing,
                }
            }
            Input::Refused(attach) if self.attach_id() == Some(attach) => {
                self.release_as(ClusterSubscription::LocalOnly(attach), Answered::No)
            }
            Input::Answered(attach, answered) if self.attach_id() == Some(attach) && self.question().is_some() => {
                self.release_as(ClusterSubscription::Attached(attach), answered)
            }
            Input::Gap(attach) if self.attach_id() == Some(attach) => match self.question() {
                Some(Question { need: Need::Load { .. } | Need::Page { .. }, .. }) => {
                    self.release_as(ClusterSubscription::Attached(attach), Answered::Nothing)
                }
                Some(Question { need: Need::Check, .. }) | None => Output::Nothing,
            },
            Input::Emptied => match self {
                ClusterSubscription::Detached | ClusterSubscription::Pending(_) => Output::Nothing,
                ClusterSubscription::Attached(attach) => Output::Idle(*attach),
                ClusterSubscription::LocalOnly(_) => self.detach(),
            },
            Input::Lapsed(attach) => match self {
                ClusterSubscription::Attached(current) if *current == attach => self.detach(),
                ClusterSubscription::Detached
                | ClusterSubscription::LocalOnly(_)
                | ClusterSubscription::Pending(_)
                | ClusterSubscription::Attached(_) => Output::Nothing,
            },
            Input::Attached(_) | Input::Refused(_) | Input::Answered(..) | Input::Gap(_) => Output::Nothing,
        }
    }

    fn arrived(&mut self, arrival: Arrival<M>) -> Output<M> {
        let Arrival { mail, kind, need, answered, redis, retained, next } = arrival;
        match self {
            ClusterSubscription::Pending(pending) => match kind {
                ArrivalKind::Other if pending.mail.len() >= CLUSTER_WAITING_MAX => {
                    // Nothing may overtake what waits.
                    Output::Refuse(mail)
                }
                ArrivalKind::Join | ArrivalKind::Leave | ArrivalKind::Other => {
                    pending.mail.push_back(mail);
                    Output::Nothing
                }
            },
            ClusterSubscription::Detached if kind == ArrivalKind::Join => {
                self.wait(next, Awaits::Attachment, mail);
                Output::Attach(next)
            }
            ClusterSubscription::LocalOnly(_) if retained == Retained::History => Output::Act(mail, Answered::No),
            ClusterSubscription::Detached | ClusterSubscription::LocalOnly(_) => Output::Act(mail, answered),
            ClusterSubscription::Attached(attach) => {
                let attach = *attach;
                match (need.filter(|need| !answered.has_answered(*need)), redis) {
                    (None, _) => Output::Act(mail, answered),
                    (Some(_), Redis::Unreachable) => Output::Act(mail, Answered::No),
                    (Some(need), Redis::Reachable) => {
                        self.wait(attach, Awaits::Answer(Question::new(need)), mail);
                        Output::Ask(need)
                    }
                }
            }
        }
    }

    fn wait(&mut self, attach: AttachId, awaits: Awaits, mail: M) {
        let pending = Pending { attach, awaits, covered: 1, mail: VecDeque::from([mail]) };
        *self = ClusterSubscription::Pending(Box::new(pending));
    }

    fn detach(&mut self) -> Output<M> {
        *self = ClusterSubscription::Detached;
        Output::Detach
    }

    fn release_as(&mut self, state: ClusterSubscription<M>, answered: Answered) -> Output<M> {
        match std::mem::replace(self, state) {
            ClusterSubscription::Pending(pending) => pending.release(answered),
            ClusterSubscription::Detached | ClusterSubscription::LocalOnly(_) | ClusterSubscription::Attached(_) => {
                Output::Nothing
            }
        }
    }
}

impl<M> Pending<M> {
    fn release(self, answered: Answered) -> Output<M> {
        let Pending { covered, mail, .. } = self;
        Output::Release(Released { answered, covered, mail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Subscription = ClusterSubscription<u32>;

    const ID: AttachId = AttachId(7);
    const EARLIER: AttachId = AttachId(6);
    const NEXT: AttachId = AttachId(8);
    const LOAD: Need = Need::Page { from: 1, before: 5 };

    /// Every state: its name, and one that is in it.
    fn states() -> Vec<(&'static str, Subscription)> {
        let pending = |awaits| {
            let mail = VecDeque::from([1, 2]);
            ClusterSubscription::Pending(Box::new(Pending { attach: ID, awaits, covered: 1, mail }))
        };
        vec![
            ("detached", ClusterSubscription::Detached),
            ("local only", ClusterSubscription::LocalOnly(ID)),
            ("pending attachment", pending(Awaits::Attachment)),
            ("pending page", pending(Awaits::Answer(Question::new(LOAD)))),
            ("pending check", pending(Awaits::Answer(Question::new(Need::Check)))),
            ("attached", ClusterSubscription::Attached(ID)),
        ]
    }

    fn name(state: &Subscription) -> String {
        match state {
            ClusterSubscription::Detached => "detached".into(),
            ClusterSubscription::LocalOnly(attach) => format!("local only {}", attach.0),
            ClusterSubscription::Attached(attach) => format!("attached {}", attach.0),
            ClusterSubscription::Pending(pending) => {
                let what = match &pending.awaits {
                    Awaits::Attachment => "attachment",
                    Awaits::Answer(Question { need: Need::Check, .. }) => "check",
                    Awaits::Answer(Question { need: Need::Load { .. } | Need::Page { .. }, .. }) => "page",
                };
                format!("pending {what} {} {:?}", pending.attach.0, pending.mail)
            }
        }
    }

    fn told(output: Output<u32>) -> String {
        let word = |answered| match answered {
            Answered::Nothing => "nothing",
            Answered::All(_) => "all",
            Answered::No => "no",
        };
        match output {
            Output::Nothing => "-".into(),
            Output::Act(mail, answered) => format!("act {mail} {}", word(answered)),
            Output::Refuse(mail) => format!("refuse {mail}"),
            Output::Attach(attach) => format!("attach {}", attach.0),
            Output::Ask(Need::Check) => "ask check".into(),
            Output::Ask(Need::Load { .. } | Need::Page { .. }) => "ask page".into(),
            Output::Idle(attach) => format!("idle {}", attach.0),
            Output::Detach => "detach".into(),
            Output::Reattached => "reattached".into(),
            Output::Release(released) => {
                let each = released.into_mail().map(|(mail, answered)| format!(" {mail} {}", word(answered)));
                format!("release{}", each.collect::<String>())
            }
        }
    }

    /// For each state what is done, and the state behind it.
    fn check(input: impl Fn() -> Input<u32>, expected: [(&str, &str); 6]) {
        for ((before, mut state), (output, after)) in states().into_iter().zip(expected) {
            let done = told(state.handle(input()));
            assert_eq!((&done[..], &name(&state)[..]), (output, after), "{before} with {:?}", input());
        }
    }

    fn mail(kind: ArrivalKind, need: Option<Need>, redis: Redis, retained: Retained) -> Input<u32> {
        Input::Mail(Arrival { mail: 3, kind, need, answered: Answered::Nothing, redis, retained, next: NEXT })
    }

    const WAITING: [(&str, &str); 3] = [
        ("-", "pending attachment 7 [1, 2, 3]"),
        ("-", "pending page 7 [1, 2, 3]"),
        ("-", "pending check 7 [1, 2, 3]"),
    ];

    #[test]
    fn a_join_attaches_what_is_detached_and_waits_behind_what_waits() {
        let [attachment, page, checked] = WAITING;
        let detached = ("attach 8", "pending attachment 8 [3]");
        let attached = ("act 3 nothing", "attached 7");
        check(
            || mail(ArrivalKind::Join, None, Redis::Reachable, Retained::Nothing),
            [detached, ("act 3 nothing", "local only 7"), attachment, page, checked, attached],
        );
        check(
            || mail(ArrivalKind::Join, Some(LOAD), Redis::Reachable, Retained::History),
            [detached, ("act 3 no", "local only 7"), attachment, page, checked, ("ask page", "pending page 7 [3]")],
        );
        check(
            || mail(ArrivalKind::Join, Some(LOAD), Redis::Unreachable, Retained::History),
            [detached, ("act 3 no", "local only 7"), attachment, page, checked, ("act 3 no", "attached 7")],
        );
    }

    #[test]
    fn leaves_and_questions_do_not_attach() {
        let [attachment, page, checked] = WAITING;
        for kind in [ArrivalKind::Leave, ArrivalKind::Other] {
            check(
                || mail(kind, Some(Need::Check), Redis::Reachable, Retained::History),
                [
                    ("act 3 nothing", "detached"),
                    ("act 3 no", "local only 7"),
                    attachment,
                    page,
                    checked,
                    ("ask check", "pending check 7 [3]"),
                ],
            );
        }
    }

    #[test]
    fn being_attached_releases_what_waits_for_whatever() {
        let released = ("release 1 nothing 2 nothing", "attached 7");
        check(
            || Input::Attached(ID),
            [("-", "detached"), ("reattached", "attached 7"), released, released, released, ("-", "attached 7")],
        );
    }

    #[test]
    fn being_refused_leaves_the_members_to_each_other() {
        let released = ("release 1 no 2 no", "local only 7");
        check(
            || Input::Refused(ID),
            [("-", "detached"), ("-", "local only 7"), released, released, released, ("-", "local only 7")],
        );
    }

    #[test]
    fn an_answer_is_for_those_who_have_asked() {
        let all = ("release 1 all 2 all", "attached 7");
        let unasked = ("-", "pending attachment 7 [1, 2]");
        let (detached, local, attached) = (("-", "detached"), ("-", "local only 7"), ("-", "attached 7"));
        check(|| Input::Answered(ID, Answered::All(LOAD)), [detached, local, unasked, all, all, attached]);
        // Mail 2 came behind the question.
        let one = ("release 1 all 2 nothing", "attached 7");
        check(|| Input::Answered(ID, Answered::All(Need::Check)), [detached, local, unasked, one, one, attached]);
        let none = ("release 1 no 2 no", "attached 7");
        check(|| Input::Answered(ID, Answered::No), [detached, local, unasked, none, none, attached]);
    }

    #[test]
    fn a_gap_ends_what_is_being_loaded_and_a_check_goes_on() {
        check(
            || Input::Gap(ID),
            [
                ("-", "detached"),
                ("-", "local only 7"),
                ("-", "pending attachment 7 [1, 2]"),
                ("release 1 nothing 2 nothing", "attached 7"),
                ("-", "pending check 7 [1, 2]"),
                ("-", "attached 7"),
            ],
        );
    }

    /// What is left of each state by what does not concern it.
    const UNCHANGED: [(&str, &str); 6] = [
        ("-", "detached"),
        ("-", "local only 7"),
        ("-", "pending attachment 7 [1, 2]"),
        ("-", "pending page 7 [1, 2]"),
        ("-", "pending check 7 [1, 2]"),
        ("-", "attached 7"),
    ];

    #[test]
    fn a_topic_without_a_member_is_idle_and_detached_when_that_has_lasted() {
        let [detached, local, attachment, page, checked, _] = UNCHANGED;
        let idle = ("idle 7", "attached 7");
        check(|| Input::Emptied, [detached, ("detach", "detached"), attachment, page, checked, idle]);
        check(|| Input::Lapsed(ID), [detached, local, attachment, page, checked, ("detach", "detached")]);
    }

    #[test]
    fn what_belongs_to_an_earlier_attachment_changes_nothing() {
        check(|| Input::Attached(EARLIER), UNCHANGED);
        check(|| Input::Refused(EARLIER), UNCHANGED);
        check(|| Input::Answered(EARLIER, Answered::No), UNCHANGED);
        check(|| Input::Gap(EARLIER), UNCHANGED);
        check(|| Input::Lapsed(EARLIER), UNCHANGED);
    }

    #[test]
    fn what_waits_is_bounded_but_for_joins_and_leaves() {
        let mut state = Subscription::Detached;
        for _ in 0..CLUSTER_WAITING_MAX {
            state.handle(mail(ArrivalKind::Join, None, Redis::Reachable, Retained::Nothing));
        }
        let next = |kind| mail(kind, None, Redis::Reachable, Retained::Nothing);
        assert_eq!(told(state.handle(next(ArrivalKind::Other))), "refuse 3");
        assert_eq!(told(state.handle(next(ArrivalKind::Leave))), "-");
        assert_eq!(told(state.handle(next(ArrivalKind::Join))), "-");
    }
}
