//! Whether every reactor still turns: asked by those who have to know, so that an idle reactor sleeps.
//!
//! A reactor that is asked turns once more, and its turn is the answer. One question is open for each reactor at most: its
//! age is how long the reactor has been silent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mailbox::PostOffice;
use crate::ids::ReactorId;
use crate::metrics::NodeMetrics;

/// Asks the reactors of a node.
#[derive(Debug)]
pub struct Pulse {
    post: PostOffice,
    metrics: Arc<NodeMetrics>,
    questions: Mutex<Vec<Question>>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    /// The turns of the reactor before it was asked.
    turns: u64,
    asked: Instant,
}

/// A reactor that has not turned since it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The reactor.
    pub reactor: ReactorId,
    /// How long ago that was.
    pub lasts: Duration,
}

impl Pulse {
    /// For the reactors of a node. None is asked yet.
    pub fn new(post: PostOffice, metrics: Arc<NodeMetrics>) -> Pulse {
        Pulse { post, metrics, questions: Mutex::default() }
    }

    /// Asks every reactor that has answered the last question.
    pub fn ask(&self, now: Instant) {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, reactor) in self.metrics.reactors.iter().enumerate() {
            let turns = reactor.turns();
            match questions.get_mut(at) {
                Some(question) if question.turns == turns => {}
                Some(question) => *question = Question { turns, asked: now },
                None => questions.push(Question { turns, asked: now }),
            }
            self.post.nudge(at);
        }
    }

    /// The reactors that have not answered, in their order.
    pub fn silent(&self, now: Instant) -> Vec<Silence> {
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let open = questions
            .iter()
            .zip(&self.metrics.reactors)
            .enumerate()
            .filter(|(_, (question, reactor))| question.turns == reactor.turns());
        let silence = |(at, (question, _)): (usize, (&Question, _))| Silence {
            reactor: ReactorId(at as u16),
            lasts: now.saturating_duration_since(question.asked),
        };
        open.map(silence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::{Wake, post_office};
    use super::*;
    use crate::ids::PeerId;
    use crate::metrics::Counts;

    struct NoWake;

    impl Wake for NoWake {
        fn wake(&self) {}
    }

    #[test]
    fn a_silence_lasts_from_the_first_question_without_an_answer() {
        let wakers = PeerId::reactors(2).map(|peer| (peer, Arc::new(NoWake) as Arc<dyn Wake>)).collect();
        let (post, _mailboxes) = post_office(wakers);
        let metrics = Arc::new(NodeMetrics::new(2));
        let pulse = Pulse::new(post, metrics.clone());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let turned = |reactor: usize, turns| metrics.reactors[reactor].publish(&Counts { turns, ..Counts::default() });
        let silent = |ms| -> Vec<(u16, u128)> {
            pulse.silent(at(ms)).iter().map(|silence| (silence.reactor.0, silence.lasts.as_millis())).collect()
        };
        assert_eq!(silent(0), [], "none was asked");
        pulse.ask(at(0));
        assert_eq!(silent(5), [(0, 5), (1, 5)]);
        turned(0, 1);
        assert_eq!(silent(7), [(1, 7)]);
        pulse.ask(at(10));
        assert_eq!(silent(10), [(0, 0), (1, 10)], "the open question stays");
        turned(0, 2);
        turned(1, 9);
        assert_eq!(silent(20), []);
    }
}
