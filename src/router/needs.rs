//! What of a history is not at its home but in the cluster, and how it comes there: only what a client asks for.
//!
//! What joins on to the messages here is put in front of them, and kept with them. A page that lies further back is held
//! [`PageAside`] for those who wait for it, and gone with them.

use super::cluster::{Older, Rest, ToCluster, Wanted};
use super::history::History;
use super::mail::{HomeMail, RecoverFrom};
use super::slice::Slice;
use super::topic::{TopicIndex, TopicKey};
use crate::limits::HISTORY_PAGE_MAX;
use crate::time::Millis;

/// What the cluster has to say before a home can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Messages in front of those here.
    Load { from: u64, before: u64, wanted: Wanted },
    /// Messages further back.
    Page { from: u64, before: u64 },
    /// Whether the history has gone on.
    Check,
}

/// What the cluster has said to those who wait, so that it is not asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nothing.
    Nothing,
    /// What there is of what was asked.
    All(Need),
    /// Redis did not answer.
    No,
}

impl Answered {
    /// Whether it is of no use to ask for this.
    pub(super) fn has_answered(self, need: Need) -> bool {
        match (self, need) {
            (Answered::Nothing, _) => false,
            (Answered::No, _) => true,
            (Answered::All(Need::Check), Need::Check) => true,
            (Answered::All(Need::Page { from, before }), need) => need == Need::Page { from, before },
            (Answered::All(Need::Load { from, wanted: Wanted::Any, .. }), Need::Load { from: first, .. }) => {
                first >= from
            }
            // Where it was not all there, which shows by what is still in front of it, what is older is of no use either.
            (
                Answered::All(Need::Load { from, wanted: Wanted::All, .. }),
                Need::Load { from: first, before, wanted: Wanted::All },
            ) => first <= from && from < before,
            (Answered::All(_), _) => false,
        }
    }
}

/// A page that does not join on to the messages here.
#[derive(Debug)]
pub(super) struct PageAside {
    pub(super) topic: TopicIndex,
    pub(super) from: u64,
    pub(super) before: u64,
    pub(super) messages: Slice,
}

impl PageAside {
    /// The page in front of offset `before`, if it is this one.
    pub(super) fn page(&self, topic: TopicIndex, before: Option<u64>, limit: usize) -> Option<Slice> {
        let before = before.filter(|&before| before == self.before)?;
        let is_this = topic == self.topic && page_from(before, limit) == self.from;
        is_this.then(|| self.messages.clone())
    }
}

/// The first offset of a page.
fn page_from(before: u64, limit: usize) -> u64 {
    before.saturating_sub(limit.min(HISTORY_PAGE_MAX) as u64).max(1)
}

/// What is missing of a history for an answer out of it.
pub(super) fn need_of(history: &History, mail: &HomeMail, now: Millis) -> Option<Need> {
    let position = history.position();
    let end = position.offset + 1;
    match mail {
        HomeMail::Join(join) => match join.reply.recover_from()? {
            RecoverFrom::Since { epoch, offset } if **epoch != *position.epoch || *offset > position.offset => {
                Some(Need::Check)
            }
            RecoverFrom::Since { offset, .. } => load_of(history, offset + 1, Wanted::All, now),
            RecoverFrom::Last(0) => None,
            RecoverFrom::Last(count) => load_of(history, end.saturating_sub(*count).max(1), Wanted::Any, now),
        },
        HomeMail::History(question) if question.limit == 0 => None,
        HomeMail::History(question) => {
            let before = question.before.unwrap_or(u64::MAX).min(end);
            let from = page_from(before, question.limit);
            match before < history.first_offset() {
                true => {
                    (history.lacks(before.saturating_sub(1)) && from < before).then_some(Need::Page { from, before })
                }
                false => load_of(history, from, Wanted::Any, now),
            }
        }
        HomeMail::Resume(resume) if *resume.epoch != *position.epoch || resume.offset > position.offset => {
            Some(Need::Check)
        }
        HomeMail::Resume(resume) => load_of(history, resume.offset + 1, Wanted::All, now),
        HomeMail::Leave(_)
        | HomeMail::Publish(_)
        | HomeMail::Presence(_)
        | HomeMail::Request(_)
        | HomeMail::Items(_)
        | HomeMail::Tune(_) => None,
    }
}

/// What is missing of the messages from an offset on. Of those no more are wanted than are kept.
fn load_of(history: &History, from: u64, wanted: Wanted, now: Millis) -> Option<Need> {
    let before = history.first_offset();
    let is_missing = history.lacks(from) && !history.had_no_room_for(from, now);
    let from = match wanted {
        Wanted::Any => from.max(history.kept_from()),
        Wanted::All => from,
    };
    (is_missing && from < before).then_some(Need::Load { from, before, wanted })
}

impl Need {
    /// What the cluster is asked for it.
    pub(super) fn request(self, topic: TopicKey) -> ToCluster {
        match self {
            Need::Load { from, before, wanted } => ToCluster::Load { topic, from, before, wanted },
            Need::Page { from, before } => ToCluster::Load { topic, from, before, wanted: Wanted::Any },
            Need::Check => ToCluster::Check { topic },
        }
    }
}

/// A piece of what was asked for; see [`super::cluster::FromCluster::Loaded`].
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) before: u64,
    pub(super) older: Vec<Older>,
    pub(super) rest: Rest,
}
