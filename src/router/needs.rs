//! What of a history is not at its home but in the cluster, and how it comes there: only what somebody asks for.
//!
//! What joins on to the messages here is put in front of them, and kept with them. A page that lies further back is held
//! [`Aside`] for those who wait for it, and gone with them.

use super::cluster::{Older, Opening, Rest, ToCluster, Wanted};
use super::history::{History, newest_within};
use super::link::Link;
use super::mail::Content;
use super::slice::Slice;
use super::topic::{TopicIndex, TopicKey};
use super::{Router, Sink, Wish};
use crate::limits::{HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_MAX};

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

/// What the cluster has said to those who wait, so that nobody asks for it again.
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
pub(super) struct Aside {
    topic: TopicIndex,
    from: u64,
    before: u64,
    messages: Slice,
}

impl Aside {
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

impl Router {
    /// What is missing here for an answer out of history.
    pub(super) fn need(&self, index: TopicIndex, content: &Content) -> Option<Need> {
        let history = self.topics.history(index)?;
        let place = history.place();
        let end = place.offset + 1;
        match content {
            Content::Join(join) => match join.ask.wish()? {
                Wish::Since { epoch, offset } if **epoch != *place.epoch || *offset > place.offset => Some(Need::Check),
                Wish::Since { offset, .. } => self.load_of(history, offset + 1, Wanted::All),
                Wish::Last(0) => None,
                Wish::Last(count) => self.load_of(history, end.saturating_sub(*count).max(1), Wanted::Any),
            },
            Content::History(question) if question.limit == 0 => None,
            Content::History(question) => {
                let before = question.before.unwrap_or(u64::MAX).min(end);
                let from = page_from(before, question.limit);
                match before < history.first_offset() {
                    true => (history.lacks(before.saturating_sub(1)) && from < before)
                        .then_some(Need::Page { from, before }),
                    false => self.load_of(history, from, Wanted::Any),
                }
            }
            Content::Resume(resume) if *resume.epoch != *place.epoch || resume.offset > place.offset => {
                Some(Need::Check)
            }
            Content::Resume(resume) => self.load_of(history, resume.offset + 1, Wanted::All),
            _ => None,
        }
    }

    /// What is missing of the messages from an offset on. Of those no more are wanted than are kept.
    fn load_of(&self, history: &History, from: u64, wanted: Wanted) -> Option<Need> {
        let before = history.first_offset();
        let is_missing = history.lacks(from) && !history.had_no_room_for(from, self.now);
        let from = match wanted {
            Wanted::Any => from.max(history.kept_from()),
            Wanted::All => from,
        };
        (is_missing && from < before).then_some(Need::Load { from, before, wanted })
    }

    /// What the cluster is asked for a need.
    pub(super) fn ask_for(&mut self, topic: TopicKey, need: Need) {
        self.ask_cluster(match need {
            Need::Load { from, before, wanted } => ToCluster::Load { topic, from, before, wanted },
            Need::Page { from, before } => ToCluster::Load { topic, from, before, wanted: Wanted::Any },
            Need::Check => ToCluster::Check { topic },
        });
    }

    /// A piece of what a home waits for.
    pub(super) fn loaded(&mut self, topic: &TopicKey, opening: Opening, piece: Piece, sink: &mut impl Sink) {
        let Piece { before, older, rest } = piece;
        let Some(index) = self.in_opening(topic, opening) else { return };
        let Link::Waiting(waiting) = &mut self.topics.get_mut(index).link else { return };
        if !matches!(waiting.need, Some(Need::Load { .. } | Need::Page { .. })) || waiting.next_before != before {
            return;
        }
        let (Some(need), Some(older)) = (waiting.need, older) else {
            return self.answered(index, topic, opening, Answered::No, sink);
        };
        waiting.next_before = before - older.len() as u64;
        let has_room = match need {
            Need::Page { .. } => {
                waiting.page.splice(0..0, older.into_iter().map(|older| older.frame));
                // What is older would not fit into the page.
                newest_within(waiting.page.iter(), HISTORY_PAGE_BYTES_MAX) == waiting.page.len()
            }
            Need::Load { .. } | Need::Check => self.put_older(index, before, older, rest),
        };
        match (rest, has_room) {
            (Rest::More, true) => return,
            (Rest::More, false) => self.ask_cluster(ToCluster::Enough { topic: topic.clone() }),
            (Rest::Unread | Rest::Nothing, _) => {}
        }
        if let (Need::Page { from, before }, Link::Waiting(waiting)) = (need, &mut self.topics.get_mut(index).link) {
            let mut frames = std::mem::take(&mut waiting.page);
            frames.drain(..frames.len() - newest_within(frames.iter(), HISTORY_PAGE_BYTES_MAX));
            let messages = self.histories.slice_of(frames);
            self.aside = Some(Aside { topic: index, from, before, messages });
        }
        self.answered(index, topic, opening, Answered::All(need), sink);
        self.aside = None;
    }
}

/// A piece of what was asked for; see [`super::cluster::FromCluster::Loaded`].
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) before: u64,
    pub(super) older: Option<Vec<Older>>,
    pub(super) rest: Rest,
}
