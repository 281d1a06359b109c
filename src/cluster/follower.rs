//! One topic's history as this node follows it: messages that come live, and the stream where something is missing.
//!
//! What is live and not the next waits until the stream was read. Nothing is delivered twice, and nothing out of order.
//! Where messages are gone, or the epoch is another, that is said, and it goes on from where the stream is.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::CLUSTER_HELD_MAX;
use crate::router::StreamPosition;

/// A message that came on the channel, with its stream position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveMessage {
    /// The epoch in which its offset counts.
    pub epoch: Arc<str>,
    /// Its offset.
    pub offset: u64,
    /// The entry.
    pub entry: Vec<u8>,
}

/// What comes of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The stream position is known for the first time.
    Began(StreamPosition),
    /// The next message.
    Deliver(u64, Vec<u8>),
    /// Continuity is lost: it goes on behind this stream position.
    Gap(StreamPosition),
    /// The stream is to be read from behind the stream position that [`Follower::read_from`] says.
    Read,
    /// All that the stream had when it was read last is delivered.
    UpToDate,
}

/// What a stream had when it was read.
#[derive(Clone, Debug)]
pub struct StreamRead {
    /// Where it ends.
    pub end: StreamPosition,
    /// Its messages from where it was asked for, in order, at most as many as were asked for.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// Whether there were more than these.
    pub more: bool,
}

/// Why a stream is read. Of two reasons the greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It may have gone on. Nothing was lost on the channel: what the stream has lost already is still to come there.
    MayHaveGoneOn,
    /// Something may have been lost on the channel.
    MayHaveLost,
}

/// Where this node is in the stream, and whether the stream is being read.
///
/// ```text
///               resync, or a live message       read answered, all is delivered
///               that is not the next                       ┌──────────► Current
///   Current ─────────────────────────► Reading ────────────┤
///                                      ▲     │             └──────────► Awaiting: what the stream has lost is still to
///                        resync, or a  │     │ read failed              come on the channel; Current once it has
///                  live message ahead  │     ▼
///                                      Failed
/// ```
///
/// From every state `resync` and a live message that is not the next lead to `Reading`. While the stream is read, either
/// has it read once more behind this read. In every state the next live message is delivered.
///
/// The position is state. What is held and which read is under way can be built again: by reading behind the position
/// for the reason [`Reason::MayHaveLost`].
#[derive(Debug, Default)]
pub struct Follower {
    /// The last message delivered; `None` before the stream was read for the first time.
    position: Option<StreamPosition>,
    state: State,
    /// Live messages that cannot be delivered yet.
    held: VecDeque<LiveMessage>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// All that the stream had when it was read last is delivered; or nothing was ever wanted of it.
    #[default]
    Current,
    /// A read is under way.
    Reading {
        reason: Reason,
        /// Why another has to follow: for what has come up since that this one may not have seen.
        again: Option<Reason>,
    },
    /// The read failed, and the reason for it stands.
    Failed(Reason),
    /// The stream had come as far as this offset when it was read, and what it had lost is still to come.
    Awaiting(u64),
}

impl Follower {
    /// Where it is in the stream; `None` before the first answer.
    pub fn position(&self) -> Option<&StreamPosition> {
        self.position.as_ref()
    }

    /// The first offset to read from the stream; `None` where only its end is wanted.
    pub fn read_from(&self) -> Option<u64> {
        self.position.as_ref().map(|position| position.offset + 1)
    }

    /// Whether nothing is waited for.
    #[cfg(any(test, debug_assertions))]
    pub fn is_at_rest(&self) -> bool {
        let is_settled = match self.state {
            State::Current | State::Failed(_) => true,
            State::Reading { .. } | State::Awaiting(_) => false,
        };
        self.position.is_some() && is_settled && self.held.is_empty()
    }

    /// Has the stream read.
    pub fn resync(&mut self, reason: Reason) -> Vec<Step> {
        match &mut self.state {
            State::Reading { again, .. } => {
                *again = (*again).max(Some(reason));
                Vec::new()
            }
            State::Failed(before) => {
                let reason = reason.max(*before);
                self.read(reason)
            }
            State::Current | State::Awaiting(_) => self.read(reason),
        }
    }

    /// The stream was forgotten, and goes on from this position in a new epoch.
    pub fn restart(&mut self, position: StreamPosition) -> Vec<Step> {
        match (&self.position, &self.state) {
            (Some(here), _) if here.epoch == position.epoch => Vec::new(),
            // What is read may be of before.
            (None, _) | (_, State::Reading { .. }) => self.resync(Reason::MayHaveLost),
            (Some(_), State::Current | State::Failed(_) | State::Awaiting(_)) => {
                self.held.clear();
                self.state = State::Current;
                self.position = Some(position.clone());
                vec![Step::Gap(position), Step::UpToDate]
            }
        }
    }

    /// The stream could not be read: it will be read on the next [`Follower::resync`].
    pub fn read_failed(&mut self) {
        if let State::Reading { reason, again } = self.state {
            self.state = State::Failed(again.map_or(reason, |again| again.max(reason)));
        }
    }

    /// A message that came live.
    pub fn live(&mut self, message: LiveMessage) -> Vec<Step> {
        let Some(position) = &mut self.position else {
            self.hold(message);
            // A read that is under way may not have seen it.
            if let State::Reading { again, .. } = &mut self.state {
                *again = (*again).max(Some(Reason::MayHaveGoneOn));
            }
            return Vec::new();
        };
        if *message.epoch == *position.epoch {
            if message.offset <= position.offset {
                return Vec::new();
            }
            if message.offset == position.offset + 1 {
                position.offset = message.offset;
                let mut steps = vec![Step::Deliver(message.offset, message.entry)];
                if matches!(self.state, State::Awaiting(offset) if offset <= message.offset) {
                    self.state = State::Current;
                    steps.push(Step::UpToDate);
                }
                return steps;
            }
        }
        self.hold(message);
        self.resync(Reason::MayHaveLost)
    }

    /// Messages came live, one behind the other: whether they are what comes next. Then they count as delivered, and this is
    /// what else comes of them; otherwise nothing has changed, and each is to be taken with [`Follower::live`].
    pub fn live_run(&mut self, epoch: &str, first: u64, count: u64) -> Option<Vec<Step>> {
        let position = self.position.as_mut().filter(|at| *at.epoch == *epoch && at.offset + 1 == first)?;
        position.offset += count;
        match self.state {
            State::Awaiting(offset) if offset <= position.offset => {
                self.state = State::Current;
                Some(vec![Step::UpToDate])
            }
            State::Current | State::Reading { .. } | State::Failed(_) | State::Awaiting(_) => Some(Vec::new()),
        }
    }

    /// Whether all that the stream had when it was read last is delivered.
    pub fn is_current(&self) -> bool {
        self.state == State::Current
    }

    /// Whether it is read because something may have been lost on the channel.
    pub fn may_have_lost(&self) -> bool {
        matches!(self.state, State::Reading { reason: Reason::MayHaveLost, .. })
    }

    /// The stream was read.
    pub fn read_answered(&mut self, read: StreamRead) -> Vec<Step> {
        let State::Reading { reason, again } = self.state else { return Vec::new() };
        let StreamRead { end, entries, more } = read;
        let mut steps = Vec::new();
        let mut awaited = None;
        match &mut self.position {
            None => {
                self.position = Some(end.clone());
                steps.push(Step::Began(end));
            }
            Some(position) if position.epoch != end.epoch => {
                *position = end.clone();
                steps.push(Step::Gap(end));
            }
            Some(position) => {
                let last_read = entries.last().map(|(offset, _)| *offset);
                for (offset, entry) in entries {
                    if offset == position.offset + 1 {
                        position.offset = offset;
                        steps.push(Step::Deliver(offset, entry));
                    }
                }
                // Where the next one is gone, so is whatever a further read could be for.
                if more && last_read <= Some(position.offset) {
                    let reason = again.map_or(reason, |again| again.max(reason));
                    steps.extend(self.read(reason));
                    return steps;
                }
                if position.offset < end.offset {
                    match reason {
                        Reason::MayHaveGoneOn => awaited = Some(end.offset),
                        Reason::MayHaveLost => {
                            *position = end.clone();
                            steps.push(Step::Gap(end));
                        }
                    }
                }
            }
        }
        self.release(&mut steps);
        match again {
            Some(reason) => steps.extend(self.read(reason)),
            None => {
                // What the stream did not have although it was read later is of another time.
                self.held.clear();
                let awaited = awaited.filter(|awaited| self.position.as_ref().is_none_or(|at| at.offset < *awaited));
                self.state = awaited.map_or(State::Current, State::Awaiting);
                if awaited.is_none() {
                    steps.push(Step::UpToDate);
                }
            }
        }
        steps
    }

    /// Delivers what was held and is next now.
    fn release(&mut self, steps: &mut Vec<Step>) {
        let Some(position) = &mut self.position else { return };
        self.held.retain(|message| *message.epoch != *position.epoch || message.offset > position.offset);
        self.held.make_contiguous().sort_by_key(|message| message.offset);
        let is_next = |message: &LiveMessage, position: &StreamPosition| {
            *message.epoch == *position.epoch && message.offset == position.offset + 1
        };
        while let Some(at) = self.held.iter().position(|message| is_next(message, position))
            && let Some(message) = self.held.remove(at)
        {
            position.offset = message.offset;
            steps.push(Step::Deliver(message.offset, message.entry));
        }
    }

    fn hold(&mut self, message: LiveMessage) {
        // The stream has them all: what is dropped here is read there.
        if self.held.len() == CLUSTER_HELD_MAX {
            self.held.pop_front();
        }
        self.held.push_back(message);
    }

    /// Begins a read. It answers for those who ask from now on, too.
    fn read(&mut self, reason: Reason) -> Vec<Step> {
        self.state = State::Reading { reason, again: None };
        vec![Step::Read]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(epoch: &str, offset: u64) -> StreamPosition {
        StreamPosition { epoch: epoch.into(), offset }
    }

    fn message(epoch: &str, offset: u64) -> LiveMessage {
        LiveMessage { epoch: epoch.into(), offset, entry: offset.to_string().into_bytes() }
    }

    fn deliver(offset: u64) -> Step {
        Step::Deliver(offset, offset.to_string().into_bytes())
    }

    fn answer(epoch: &str, end: u64, entries: std::ops::Range<u64>) -> StreamRead {
        let entries = entries.map(|offset| (offset, offset.to_string().into_bytes())).collect();
        StreamRead { end: position(epoch, end), entries, more: false }
    }

    fn following(epoch: &str, offset: u64) -> Follower {
        let mut follower = Follower::default();
        assert_eq!(follower.resync(Reason::MayHaveLost), [Step::Read]);
        let begun = follower.read_answered(answer(epoch, offset, 0..0));
        assert_eq!(begun, [Step::Began(position(epoch, offset)), Step::UpToDate]);
        follower
    }

    #[test]
    fn a_missing_message_is_read_before_the_next_is_delivered() {
        let mut follower = following("e", 5);
        assert_eq!(follower.live(message("e", 7)), [Step::Read]);
        assert_eq!(follower.live(message("e", 8)), []);
        assert_eq!(follower.read_from(), Some(6));
        let steps = follower.read_answered(answer("e", 7, 6..8));
        assert_eq!(steps, [deliver(6), deliver(7), deliver(8), Step::Read], "8 came after the read was sent");
        assert_eq!(follower.read_answered(answer("e", 8, 0..0)), [Step::UpToDate]);
    }

    #[test]
    fn what_is_gone_is_said() {
        let mut follower = following("e", 5);
        assert_eq!(follower.live(message("e", 9)), [Step::Read]);
        assert_eq!(follower.read_answered(answer("e", 9, 8..10)), [Step::Gap(position("e", 9)), Step::UpToDate]);
        assert_eq!(follower.live(message("e", 10)), [deliver(10)]);
    }

    #[test]
    fn another_epoch_is_a_gap_however_far_it_is() {
        let mut follower = following("e", 5);
        assert_eq!(follower.live(message("f", 6)), [Step::Read]);
        assert_eq!(follower.read_answered(answer("f", 6, 6..7)), [Step::Gap(position("f", 6)), Step::UpToDate]);
        assert_eq!(follower.live(message("f", 6)), []);
        assert_eq!(follower.live(message("f", 7)), [deliver(7)]);
    }

    #[test]
    fn what_is_still_on_its_way_is_waited_for() {
        let mut follower = following("e", 5);
        assert_eq!(follower.resync(Reason::MayHaveGoneOn), [Step::Read]);
        assert_eq!(follower.read_answered(answer("e", 7, 7..8)), [], "6 is gone from the stream, not from the channel");
        assert_eq!(follower.live(message("e", 6)), [deliver(6)]);
        assert_eq!(follower.live(message("e", 7)), [deliver(7), Step::UpToDate]);
    }

    #[test]
    fn what_was_awaited_in_another_epoch_is_not_awaited_any_more() {
        let mut follower = following("e", 5);
        assert_eq!(follower.resync(Reason::MayHaveGoneOn), [Step::Read]);
        assert_eq!(follower.read_answered(answer("e", 7, 7..8)), []);
        assert_eq!(follower.resync(Reason::MayHaveLost), [Step::Read]);
        assert_eq!(follower.read_answered(answer("f", 0, 0..0)), [Step::Gap(position("f", 0)), Step::UpToDate]);
    }

    #[test]
    fn a_stream_that_was_forgotten_goes_on_in_its_new_epoch() {
        let mut follower = following("e", 5);
        assert_eq!(follower.restart(position("f", 0)), [Step::Gap(position("f", 0)), Step::UpToDate]);
        assert_eq!(follower.restart(position("f", 0)), [], "it is told by Redis, too");
        assert_eq!(follower.live(message("f", 1)), [deliver(1)]);
        assert_eq!(follower.live(message("e", 6)), [Step::Read], "it was on its way");
        assert_eq!(follower.restart(position("g", 0)), [], "what is read may be of before");
        assert_eq!(follower.read_answered(answer("f", 1, 0..0)), [Step::Read]);
        assert_eq!(follower.read_answered(answer("g", 0, 0..0)), [Step::Gap(position("g", 0)), Step::UpToDate]);
    }

    #[test]
    fn a_read_that_is_overtaken_by_live_messages_is_no_gap() {
        let mut follower = following("e", 5);
        assert_eq!(follower.resync(Reason::MayHaveLost), [Step::Read]);
        assert_eq!(follower.live(message("e", 6)), [deliver(6)]);
        assert_eq!(follower.read_answered(answer("e", 5, 0..0)), [Step::UpToDate]);
    }

    /// A stream with its channel and a reader, each of which delays what it tells.
    #[derive(Default)]
    struct Redis {
        epoch: u64,
        messages: Vec<u64>,
        end: u64,
        channel: VecDeque<LiveMessage>,
        answers: VecDeque<StreamRead>,
    }

    const KEPT: usize = 4;
    const READ: usize = 3;

    impl Redis {
        fn append(&mut self, is_lost: bool) {
            self.end += 1;
            self.messages.push(self.end);
            if self.messages.len() > KEPT {
                self.messages.remove(0);
            }
            if !is_lost {
                self.channel.push_back(message(&self.epoch.to_string(), self.end));
            }
        }

        fn read(&mut self, from: Option<u64>) {
            let wanted = self.messages.iter().filter(|offset| from.is_some_and(|from| **offset >= from));
            let entries: Vec<_> = wanted.take(READ).map(|offset| (*offset, offset.to_string().into_bytes())).collect();
            let more = entries.len() == READ;
            self.answers.push_back(StreamRead { end: position(&self.epoch.to_string(), self.end), entries, more });
        }
    }

    /// What the members saw: the stream position they are at, and whether it ever moved other than by one or by a gap that was
    /// told.
    fn see(seen: &mut Option<StreamPosition>, steps: Vec<Step>, redis: &mut Redis, follower: &Follower) -> u32 {
        let mut gaps = 0;
        for step in steps {
            match step {
                Step::Began(position) => *seen = Some(position),
                Step::Deliver(offset, entry) => {
                    let seen = seen.as_mut().expect("it began");
                    assert_eq!(offset, seen.offset + 1, "the next one, once");
                    assert_eq!(entry, offset.to_string().into_bytes());
                    seen.offset = offset;
                }
                Step::Gap(position) => {
                    *seen = Some(position);
                    gaps += 1;
                }
                Step::Read => redis.read(follower.read_from()),
                Step::UpToDate => {}
            }
        }
        gaps
    }

    proptest! {
        #[test]
        fn members_see_the_stream_or_are_told(steps in proptest::collection::vec(0_u8..12, 0..150)) {
            let (mut redis, mut follower, mut seen) = (Redis::default(), Follower::default(), None);
            let (mut lost, mut epochs, mut gaps) = (0, 0, 0);
            let begin = follower.resync(Reason::MayHaveLost);
            see(&mut seen, begin, &mut redis, &follower);
            for step in steps {
                let steps = match step {
                    0..=3 => {
                        redis.append(false);
                        Vec::new()
                    }
                    4 => {
                        redis.append(true);
                        lost += 1;
                        Vec::new()
                    }
                    5 if redis.end % 3 == 0 => {
                        redis.epoch += 1;
                        epochs += 1;
                        redis.messages.clear();
                        redis.end /= 2;
                        Vec::new()
                    }
                    6..=8 => redis.channel.pop_front().map_or_else(Vec::new, |message| follower.live(message)),
                    9 | 10 => redis.answers.pop_front().map_or_else(Vec::new, |read| follower.read_answered(read)),
                    _ => follower.resync(Reason::MayHaveGoneOn),
                };
                gaps += see(&mut seen, steps, &mut redis, &follower);
            }
            // In the end all that is under way arrives, and it is read once more.
            for round in 0..200 {
                let steps = match (redis.channel.pop_front(), redis.answers.pop_front()) {
                    (Some(message), answer) => {
                        if let Some(answer) = answer {
                            redis.answers.push_front(answer);
                        }
                        follower.live(message)
                    }
                    (None, Some(answer)) => follower.read_answered(answer),
                    (None, None) if round < 190 => follower.resync(Reason::MayHaveLost),
                    (None, None) => break,
                };
                gaps += see(&mut seen, steps, &mut redis, &follower);
            }
            prop_assert_eq!(seen, Some(position(&redis.epoch.to_string(), redis.end)));
            if lost == 0 && epochs == 0 {
                prop_assert_eq!(gaps, 0, "what came on the channel is never a gap");
            }
        }
    }
}
