//! What requests ask of all nodes, tell them, and read from Redis.

use super::*;
use crate::ids::RequestId;
use crate::limits::{CLUSTER_PAGES_MAX, CLUSTER_SURVEY_MS_MAX, CLUSTER_SURVEYS_OWED_BYTES_MAX, SURVEY_BYTES_MAX};
use crate::metrics::Vitals;
use crate::router::cluster::Order;
use crate::router::{
    ConnectionsFound, Found, NodeFound, PageRange, Reply as ToRequest, RoomFound, RoomsFound, StreamPosition, Survey,
    SurveyId, Told,
};

fn request(slot: u32) -> RequestId {
    RequestId { slot, generation: 1 }
}

fn survey(user: &str) -> Survey {
    Survey::Connections { user: user.into() }
}

fn found(truncated: bool) -> Found {
    Found::Connections(ConnectionsFound { connections: Vec::new(), is_truncated: truncated })
}

impl Node {
    fn survey(&mut self, slot: u32, user: &str) {
        let survey = ToCluster::Survey { request: request(slot), survey: survey(user) };
        self.core.handle_mail(PeerId::Control, survey);
        self.hand_out();
    }

    fn order(&mut self, order: Order) {
        self.core.handle_mail(PeerId::Control, ToCluster::Order { request: request(1), order });
        self.hand_out();
    }

    /// What requests are told, and what reactors are.
    fn told(&mut self) -> (Vec<Told>, Vec<FromCluster>) {
        let (mut requests, mut reactors) = (Vec::new(), Vec::new());
        for (to, mail) in self.core.poll_mail().collect::<Vec<_>>() {
            match to {
                PeerId::Control => requests.push(mail.into_told()),
                _ => reactors.push(mail.news_or_reply().expect("it is news")),
            }
        }
        (requests, reactors)
    }

    fn is_unavailable(&mut self, slot: u32) -> bool {
        let (told, _) = self.told();
        told.len() == 1 && matches!(told[0], Told::Reply(id, ToRequest::Unavailable) if id == request(slot))
    }

    /// What was published comes back, as to every node.
    fn echo(&mut self, commands: &[Command]) {
        for command in commands {
            let Command::Publish { channel, payload } = command else { panic!("{command:?} is not published") };
            self.core.handle(Input::Received { channel, payload });
        }
    }
}

#[test]
fn a_survey_is_answered_when_every_reactor_of_every_node_has_answered() {
    let mut node = Node::connected();
    node.survey(1, "alice");
    node.survey(2, "bob");
    for _ in 0..2 {
        let commands = node.answer_published(2);
        node.echo(&commands);
    }
    let (told, asked) = node.told();
    assert!(told.is_empty());
    let ids: Vec<SurveyId> = asked
        .into_iter()
        .map(|news| match news {
            FromCluster::Survey { id, survey: asked } => {
                assert_eq!(asked, survey(if id.number == 1 { "alice" } else { "bob" }));
                id
            }
            other => panic!("{other:?} is no survey"),
        })
        .collect();
    assert_eq!(ids, [SurveyId { run: 1, number: 1 }, SurveyId { run: 1, number: 2 }]);
    node.core.handle_mail(HOME.into(), ToCluster::Found { id: ids[0], found: found(false) });
    let mut body = Vec::new();
    record::write_found(&mut body, &found(true));
    let own = node.core.own_channel.clone();
    for _ in 0..2 {
        assert!(node.told().0.is_empty(), "the other node has two reactors");
        node.receive(&own, &Record::Found { number: 1, reactors: 2, body: &body });
    }
    let (told, _) = node.told();
    let [Told::Found(id, all)] = &told[..] else { panic!("{told:?}") };
    let other = NodeFound { run: Some(OTHER_RUN), found: found(true) };
    let expected = vec![NodeFound { run: None, found: found(false) }, other.clone(), other];
    assert_eq!((*id, &**all), (request(1), &expected));
    node.at(CLUSTER_SURVEY_MS_MAX + 1);
    assert!(node.is_unavailable(2), "an answer that lacks a node is none");
    node.core.check_invariants();
}

#[test]
fn what_another_node_asks_is_answered_to_it_by_each_reactor() {
    let mut node = Node::connected();
    let mut body = Vec::new();
    record::write_survey(&mut body, &survey("alice"));
    let all = node.core.everyone.clone();
    node.receive(&all, &Record::Survey { number: 9, body: &body });
    let (_, asked) = node.told();
    let [FromCluster::Survey { id, .. }] = &asked[..] else { panic!("{asked:?}") };
    let rooms = RoomsFound { rooms: vec![RoomFound { name: "r".into(), members: 1, users: 1 }], up_to: None };
    node.core.handle_mail(HOME.into(), ToCluster::Found { id: *id, found: Found::Rooms(rooms.clone()) });
    node.hand_out();
    let commands = node.answer_published(1);
    let [Command::Publish { channel, payload }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(**channel, *node.core.names.node(OTHER_RUN));
    let Some(Incoming::Envelope { mut records, .. }) = record::read(payload) else { panic!("it is an envelope") };
    let Some(Record::Found { number: 9, reactors: 1, body }) = records.next() else { panic!("it is what was found") };
    assert_eq!(record::read_found(body), Some(Found::Rooms(rooms)));
}

#[test]
fn surveys_under_way_are_bounded_by_what_they_may_bring_and_equal_ones_share_one() {
    let mut node = Node::connected();
    // With two peers a survey may bring three answers of nodes.
    for run in [8, 9] {
        let mut payload = record::begin(run);
        Record::Hello { node: 3, key: [2; 16], asks: false, vitals: Vitals::default() }.write(&mut payload);
        let all = node.core.everyone.clone();
        node.core.handle(Input::Received { channel: &all, payload: &payload });
    }
    let under_way = CLUSTER_SURVEYS_OWED_BYTES_MAX / (3 * SURVEY_BYTES_MAX);
    for slot in 0..under_way as u32 + 3 {
        node.survey(slot, if (slot as usize) < under_way { "alice" } else { "bob" });
    }
    assert_eq!(node.sent.iter().flat_map(|(_, commands)| commands).count(), under_way);
    node.at(CLUSTER_SURVEY_MS_MAX + 1);
    let (told, _) = node.told();
    assert_eq!(told.len(), under_way + 3, "who has waited as long is told, too");
    assert!(told.iter().all(|told| matches!(told, Told::Reply(_, ToRequest::Unavailable))));
    node.core.handle(Input::CommandsDown);
    node.survey(1, "alice");
    assert!(node.is_unavailable(1));
}

#[test]
fn an_order_tells_how_many_nodes_have_heard_it() {
    let mut node = Node::connected();
    node.order(Order::Kick { room: "r".into(), user: "alice".into(), reason: "rude".into() });
    let commands = node.answer_published(3);
    let [Command::Publish { channel, .. }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(&**channel, "p:room:{r}");
    let (told, _) = node.told();
    assert!(matches!(told[..], [Told::Reply(id, ToRequest::Heard(3))] if id == request(1)), "{told:?}");
    node.order(Order::Disconnect { user: "alice".into(), revoke_unix_s: None });
    node.answer(|_| Reply::Failed);
    assert!(node.is_unavailable(1));
}

#[test]
fn who_is_revoked_is_in_redis_before_any_node_hears_of_it_and_refused_before_connections_end() {
    let mut node = Node::connected();
    let revoke = || Order::Disconnect { user: "alice".into(), revoke_unix_s: Some(100) };
    node.order(revoke());
    let commands = node.answer(|_| Reply::Revoked);
    let key: Arc<str> = "p:revoked".into();
    assert_eq!(commands, [Command::Revoke { key: key.clone(), user: "alice".into(), unix_s: 100 }]);
    let commands = node.answer_published(1);
    node.echo(&commands);
    let (told, news) = node.told();
    assert!(matches!(told[..], [Told::Reply(_, ToRequest::Heard(1))]), "{told:?}");
    let [FromCluster::Revoked { user, unix_s: 100 }, FromCluster::Disconnect { user: ended }] = &news[..] else {
        panic!("{news:?}")
    };
    assert_eq!((&**user, &**ended), ("alice", "alice"));
    node.order(revoke());
    node.answer(|_| Reply::Failed);
    assert!(node.is_unavailable(1) && node.sent.is_empty(), "nothing is told that Redis does not know");
}

#[test]
fn a_node_that_comes_reads_who_is_revoked_piece_by_piece_and_again_when_that_failed() {
    let mut node = Node::new();
    node.core.handle_time(Millis(0));
    node.core.handle(Input::CommandsUp);
    node.core.handle(Input::SubscriberUp);
    node.confirm();
    let piece = |next: u64| {
        move |command: &Command| match command {
            Command::Revocations { cursor, .. } => {
                Reply::Revocations { cursor: next, entries: vec![(format!("user{cursor}"), 7)] }
            }
            _ => Reply::Published(1),
        }
    };
    node.answer(piece(5));
    assert_eq!(node.answer(|_| Reply::Failed).len(), 1, "the second piece");
    node.at(CLUSTER_CANARY_MS);
    node.answer(piece(3));
    node.answer(piece(0));
    let revoked: Vec<String> = node
        .told()
        .1
        .into_iter()
        .filter_map(|news| match news {
            FromCluster::Revoked { user, .. } => Some(user.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(revoked, ["user0", "user0", "user3"]);
    node.at(2 * CLUSTER_CANARY_MS);
    assert!(
        node.sent.iter().flat_map(|(_, commands)| commands).all(|command| matches!(command, Command::Publish { .. }))
    );
}

#[test]
fn a_history_that_was_forgotten_is_told_to_the_home_before_the_request_is_answered() {
    let mut node = Node::connected();
    node.open_at(5);
    let purge = ToCluster::Purge { request: request(1), topic: room(), policy: POLICY };
    node.core.handle_mail(HOME.into(), purge);
    node.hand_out();
    node.answer(|_| Reply::Purged { end: StreamPosition { epoch: "f".into(), offset: 0 } });
    let mail: Vec<PeerId> = node.core.poll_mail().map(|(to, _)| to).collect();
    assert_eq!(mail, [PeerId::Reactor(HOME), PeerId::Control]);
    node.core.handle(Input::Received { channel: "p:room:{r}", payload: b"Hf\n1\n" });
    assert!(node.mail().is_empty(), "it is known");
    node.core.handle(Input::Received { channel: "p:room:{r}", payload: b"Hg\n1\n" });
    assert!(node.mail().concat().contains("Gap"), "another node has done it");
    node.core.check_invariants();
}

#[test]
fn a_page_is_what_is_young_enough_and_pages_under_way_are_bounded() {
    let mut node = Node::connected();
    let ask = |node: &mut Node, slot: u32, range: PageRange| {
        let read = ToCluster::Read { request: request(slot), topic: room(), policy: POLICY, range, limit: 3 };
        node.core.handle_mail(HOME.into(), read);
        node.hand_out();
    };
    let entry = |offset: u64, at_ms: u64| StreamEntry {
        offset,
        at_ms,
        entry: record::Entry { exclude: None, payload: b"{\"n\":1}" }.to_bytes(),
    };
    let stream = |entries: Vec<StreamEntry>, more: bool| {
        let end = StreamPosition { epoch: "e".into(), offset: 9 };
        Reply::Read { end, now_ms: POLICY.ttl_ms + 10, more, entries }
    };
    let mut page = |range, entries: Vec<StreamEntry>, more| {
        ask(&mut node, 1, range);
        node.answer(|_| stream(entries.clone(), more));
        match node.told().0.pop() {
            Some(Told::Reply(_, ToRequest::History(page))) => (String::from_utf8(page.messages).unwrap(), page.next),
            other => panic!("{other:?} is no page"),
        }
    };
    let two = r#"[{"n":1,"offset":7},{"n":1,"offset":8}]"#.to_owned();
    assert_eq!(page(PageRange::Before(None), vec![entry(7, 99), entry(8, 99)], true), (two.clone(), Some(7)));
    assert_eq!(
        page(PageRange::Before(Some(9)), vec![entry(6, 9), entry(7, 11), entry(8, 99)], true),
        (two.clone(), None)
    );
    assert_eq!(page(PageRange::After(5), vec![entry(6, 9), entry(7, 11), entry(8, 99)], true), (two, Some(8)));
    assert_eq!(page(PageRange::After(9), Vec::new(), false), ("[]".to_owned(), None));
    for slot in 0..=CLUSTER_PAGES_MAX as u32 {
        ask(&mut node, slot, PageRange::After(0));
    }
    assert!(node.is_unavailable(CLUSTER_PAGES_MAX as u32));
}
