//! What requests ask every reactor of every node.
//!
//! ```text
//!   survey ──► waits for its turn ──► asked: a record to all nodes ──► each reactor of each node has answered
//!                ▲ equal surveys join it                                       │
//!                └── two seconds are over, or Redis is out of reach: unavailable ◄──┘
//! ```
//!
//! Redis tells how many nodes have got the record, this one among them, and every answer says how many reactors its node
//! has: so it is known when all have answered. An answer that lacks a node is none: it would look like a node without
//! members. What the answers may hold is bounded on the answering side, and how many are on their way at once here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::super::record::Record;
use super::publish::Heard;
use super::{Core, record};
use crate::ids::{ReplyTo, RequestId};
use crate::limits::{CLUSTER_SURVEY_MS_MAX, CLUSTER_SURVEYS_OWED_BYTES_MAX, SURVEY_BYTES_MAX};
use crate::router::cluster::FromCluster;
use crate::router::{Found, Mail, NodeFound, Survey, SurveyId};
use crate::time::Millis;

/// See the module's documentation. All of it is state, and ends with the requests.
#[derive(Debug, Default)]
pub(super) struct Surveys {
    begun: u64,
    waiting: VecDeque<Waiting>,
    /// Those under way, by their numbers.
    asked: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
struct Waiting {
    since: Millis,
    survey: Survey,
    requests: Vec<RequestId>,
}

#[derive(Debug)]
struct Asked {
    since: Millis,
    requests: Vec<RequestId>,
    /// How many nodes have got it, once Redis says so.
    nodes: Option<u64>,
    /// How many of their reactors have answered, by their runs.
    answered: HashMap<u64, u16>,
    /// How many nodes have answered as a whole.
    complete: u64,
    found: Vec<NodeFound>,
}

impl Surveys {
    #[cfg(any(test, debug_assertions))]
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty()
    }

    fn has_room(&self, peers: usize) -> bool {
        let owed_bytes = (peers + 1) * SURVEY_BYTES_MAX;
        self.asked.is_empty() || (self.asked.len() + 1) * owed_bytes <= CLUSTER_SURVEYS_OWED_BYTES_MAX
    }
}

impl Core {
    /// A request asks every reactor of every node.
    pub(super) fn ask_all(&mut self, request: RequestId, survey: Survey) {
        // One that has begun may know less than whoever asks now.
        match self.surveys.waiting.iter_mut().find(|waiting| waiting.survey == survey) {
            Some(waiting) => waiting.requests.push(request),
            None => self.surveys.waiting.push_back(Waiting { since: self.now, survey, requests: vec![request] }),
        }
        self.begin_surveys();
    }

    fn begin_surveys(&mut self) {
        while self.surveys.has_room(self.peers.count())
            && let Some(Waiting { survey, requests, .. }) = self.surveys.waiting.pop_front()
        {
            if !self.reachable || self.pending.is_full() {
                self.tell_unavailable(&requests);
                continue;
            }
            self.surveys.begun += 1;
            let number = self.surveys.begun;
            let asked = Asked {
                since: self.now,
                requests,
                nodes: None,
                answered: HashMap::new(),
                complete: 0,
                found: Vec::new(),
            };
            self.surveys.asked.insert(number, asked);
            let mut body = Vec::new();
            record::write_survey(&mut body, &survey);
            let channel = self.everyone.clone();
            self.publish_heard(&channel, &Record::Survey { number, body: &body }, Some(Heard::Survey(number)));
        }
    }

    /// A node asks all reactors here, or this node does.
    pub(super) fn survey_came(&mut self, run: u64, number: u64, body: &[u8]) {
        let Some(survey) = record::read_survey(body) else {
            self.counts.unreadable += 1;
            return;
        };
        self.notify_all(|| FromCluster::Survey { id: SurveyId { run, number }, survey: survey.clone() });
    }

    /// A reactor of this node has answered.
    pub(super) fn found_here(&mut self, id: SurveyId, found: Found) {
        let SurveyId { run, number } = id;
        let reactors = self.me.reactors;
        if run == self.me.run {
            return self.found(number, self.me.run, reactors, found);
        }
        if self.commands_up && !self.pending.is_full() {
            let mut body = Vec::new();
            record::write_found(&mut body, &found);
            let channel = self.names.node(run);
            self.publish(&channel, &Record::Found { number, reactors, body: &body });
        }
    }

    /// A reactor of a node has answered.
    pub(super) fn found_elsewhere(&mut self, run: u64, number: u64, reactors: u16, body: &[u8]) {
        match record::read_found(body) {
            Some(found) => self.found(number, run, reactors, found),
            None => self.counts.unreadable += 1,
        }
    }

    fn found(&mut self, number: u64, run: u64, reactors: u16, found: Found) {
        let own = self.me.run;
        let Some(asked) = self.surveys.asked.get_mut(&number) else { return };
        let answered = asked.answered.entry(run).or_insert(0);
        *answered += 1;
        asked.complete += u64::from(*answered == reactors);
        asked.found.push(NodeFound { run: (run != own).then_some(run), found });
        self.finish_survey_if_complete(number);
    }

    /// Redis has given a survey to so many nodes, or to none.
    pub(super) fn survey_heard(&mut self, number: u64, nodes: Option<u64>) {
        let Some(asked) = self.surveys.asked.get_mut(&number) else { return };
        match nodes {
            Some(nodes) => {
                asked.nodes = Some(nodes);
                self.finish_survey_if_complete(number);
            }
            None => self.give_up_survey(number),
        }
    }

    fn finish_survey_if_complete(&mut self, number: u64) {
        let is_complete = |asked: &Asked| asked.nodes.is_some_and(|nodes| asked.complete >= nodes);
        if !self.surveys.asked.get(&number).is_some_and(is_complete) {
            return;
        }
        if let Some(Asked { requests, found, .. }) = self.surveys.asked.remove(&number) {
            let found = Arc::new(found);
            self.mail.extend(requests.iter().map(|request| Mail::surveyed(*request, found.clone())));
        }
        self.begin_surveys();
    }

    fn give_up_survey(&mut self, number: u64) {
        if let Some(asked) = self.surveys.asked.remove(&number) {
            self.tell_unavailable(&asked.requests);
        }
    }

    /// Time has passed: what was not answered in time is not waited for.
    pub(super) fn surveys_go_on(&mut self) {
        let now = self.now;
        let is_late = |since: Millis| now.since(since) > CLUSTER_SURVEY_MS_MAX;
        while let Some((&number, _)) = self.surveys.asked.first_key_value().filter(|(_, asked)| is_late(asked.since)) {
            self.give_up_survey(number);
        }
        self.begin_surveys();
        while let Some(waiting) = self.surveys.waiting.pop_front() {
            if !is_late(waiting.since) {
                self.surveys.waiting.push_front(waiting);
                break;
            }
            self.tell_unavailable(&waiting.requests);
        }
    }

    /// The cluster is out of reach.
    pub(super) fn give_up_surveys(&mut self) {
        while let Some((&number, _)) = self.surveys.asked.first_key_value() {
            self.give_up_survey(number);
        }
        for waiting in std::mem::take(&mut self.surveys.waiting) {
            self.tell_unavailable(&waiting.requests);
        }
    }

    pub(super) fn tell_unavailable(&mut self, requests: &[RequestId]) {
        for &request in requests {
            let asker = ReplyTo::Request(request);
            self.mail.push((asker.peer(), Mail::unavailable(asker, None, None)));
        }
    }
}
